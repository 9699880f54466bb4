//! Where the daemon keeps its pins and cgroups.

use std::path::PathBuf;

/// The directories that one daemon owns. Two daemons with different layouts do not disturb each
/// other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Directory of the pins, on a bpf filesystem; `/sys/fs/bpf/exeat`.
    pub bpffs: PathBuf,
    /// The cgroup that connect and sendmsg programs attach to: the cgroup2 mount point.
    pub cgroup_root: PathBuf,
    /// Parent of the workloads' cgroups; `<root>/exeat/w`.
    pub managed: PathBuf,
    /// The gate's cgroup; `<root>/exeat/gate`. The gate's TCP listeners must be created by a
    /// process inside it.
    pub gate: PathBuf,
}
