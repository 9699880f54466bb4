//! Who listens on the gate's ports.
//!
//! While no daemon is there, any local process may take its ports. Redirected connections must not
//! meet it, so each is made only if the socket on the other side was created in the gate's cgroup.

use crate::address::{LOOPBACK_V4, LOOPBACK_V6, Words, is_mapped};
use crate::lookup::{cgroup_of, release, waiting};
use core::ffi::c_void;
use exeat_ebpf_abi::Config;

/// A socket of the gate's waits at a port of the loopback address of the family asked for.
#[inline(always)]
pub fn is_the_gates(
    ctx: *mut c_void,
    config: &Config,
    asked: Words,
    port: u16,
    protocol: u8,
) -> bool {
    let home = if is_mapped(asked) {
        LOOPBACK_V4
    } else {
        LOOPBACK_V6
    };
    let found = waiting(ctx, home, port, protocol);
    if found.is_null() {
        return false;
    }
    let id = cgroup_of(found);
    release(found);
    id != 0 && id == config.gate
}
