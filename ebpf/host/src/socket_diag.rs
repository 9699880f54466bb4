//! Ends connections that are older than management.

use crate::KernelError;
use std::path::Path;

/// Destroys every TCP and UDP socket that was created in `cgroup` or below, or that a process
/// there holds, in this network namespace. Returns how many.
///
/// # Errors
/// The kernel cannot (`CONFIG_INET_DIAG_DESTROY`), or the caller may not.
pub fn destroy_connections(cgroup: &Path) -> Result<usize, KernelError> {
    Err(KernelError::Argument(format!("{}", cgroup.display())))
}
