//! Who listens on the gate's ports.
//!
//! While no daemon is there, any local process may take its ports. Redirected connections must not
//! meet it, so each is made only if the socket on the other side was created in the gate's cgroup.

use crate::address::{LOOPBACK_V4, LOOPBACK_V6, Words, is_mapped};
use crate::kernel::{field, pointer, untracked};
use crate::maps;
use aya_ebpf::bindings::bpf_sock_tuple;
use aya_ebpf::helpers::generated;
use core::ffi::c_void;
use core::mem::size_of;
use exeat_ebpf_abi::{Config, protocol};

/// The network namespace of the calling socket.
const CURRENT_NETNS: u64 = u64::MAX;

#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

#[repr(C)]
struct Tuple6 {
    source: Words,
    destination: Words,
    source_port: u16,
    destination_port: u16,
}

/// A socket of the gate's waits at a port of the loopback address of the family asked for.
#[inline(always)]
pub fn is_the_gates(
    ctx: *mut c_void,
    config: &Config,
    asked: Words,
    port: u16,
    protocol: u8,
) -> bool {
    let sk = if is_mapped(asked) {
        let tuple = Tuple4 {
            source: 0,
            destination: LOOPBACK_V4[3],
            source_port: 0,
            destination_port: port.to_be(),
        };
        look_up(ctx, &tuple, protocol)
    } else {
        let tuple = Tuple6 {
            source: [0; 4],
            destination: LOOPBACK_V6,
            source_port: 0,
            destination_port: port.to_be(),
        };
        look_up(ctx, &tuple, protocol)
    };
    if sk.is_null() {
        return false;
    }
    let cgroup = pointer(untracked(sk), maps::sock_cgroup());
    let id: u64 = field(pointer(cgroup, maps::cgroup_node()), maps::node_id(), 0);
    unsafe { generated::bpf_sk_release(sk) };
    id != 0 && id == config.gate
}

#[inline(always)]
fn look_up<T>(ctx: *mut c_void, tuple: &T, protocol: u8) -> *mut c_void {
    let tuple = core::ptr::from_ref(tuple)
        .cast::<bpf_sock_tuple>()
        .cast_mut();
    let size = size_of::<T>() as u32;
    unsafe {
        if protocol == protocol::UDP {
            generated::bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0).cast()
        } else {
            generated::bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0).cast()
        }
    }
}
