//! Unix sockets that no descriptors can be sent to.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// `SO_PASSRIGHTS`, Linux 6.16.
const PASS_RIGHTS: libc::c_int = 83;

/// Has the kernel refuse descriptors to whoever sends them to this Unix socket, or to one that this listener
/// accepts. Otherwise a read that drops them closes them in the reader's thread, and a pipe whose lock another
/// process keeps makes that close wait for as long as it likes. `false`: the kernel, older than 6.16, cannot.
///
/// # Errors
/// What the kernel says, but for that it does not know the option.
pub fn refuse_descriptors(socket: impl AsFd) -> io::Result<bool> {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed for the call, and the value is read within it, of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            PASS_RIGHTS,
            (&raw const off).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) {
        return Ok(false);
    }
    Err(error)
}
