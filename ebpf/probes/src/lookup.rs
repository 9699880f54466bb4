//! Finds the socket at the other end: who waits there, or who sent a packet.

use crate::address::{Words, is_mapped};
use crate::kernel::{field, pointer, untracked};
use crate::maps::{self, MANAGED, OWNER, Storage};
use crate::packet::Packet;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated;
use core::ffi::c_void;
use core::mem::size_of;
use exeat_ebpf_abi::protocol;

/// The network namespace of the program's context.
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

/// A socket that was found; to be given back with [`release`].
pub type Found = *mut bpf_sock;

/// The socket that waits for connections or datagrams at an address; null if there is none.
#[inline(always)]
pub fn waiting(ctx: *mut c_void, at: Words, port: u16, protocol: u8) -> Found {
    if is_mapped(at) {
        let tuple = Tuple4 {
            source: 0,
            destination: at[3],
            source_port: 0,
            destination_port: port.to_be(),
        };
        look_up(ctx, &tuple, protocol)
    } else {
        let tuple = Tuple6 {
            source: [0; 4],
            destination: at,
            source_port: 0,
            destination_port: port.to_be(),
        };
        look_up(ctx, &tuple, protocol)
    }
}

/// The socket of this machine that sent a TCP packet; null if there is none.
#[inline(always)]
pub fn sender(ctx: *mut c_void, packet: &Packet) -> Found {
    let (source_port, destination_port) =
        (packet.destination_port.to_be(), packet.source_port.to_be());
    if is_mapped(packet.source) {
        let tuple = Tuple4 {
            source: packet.destination[3],
            destination: packet.source[3],
            source_port,
            destination_port,
        };
        look_up(ctx, &tuple, protocol::TCP)
    } else {
        let tuple = Tuple6 {
            source: packet.destination,
            destination: packet.source,
            source_port,
            destination_port,
        };
        look_up(ctx, &tuple, protocol::TCP)
    }
}

#[inline(always)]
fn look_up<T>(ctx: *mut c_void, tuple: &T, protocol: u8) -> Found {
    let tuple = core::ptr::from_ref(tuple)
        .cast::<bpf_sock_tuple>()
        .cast_mut();
    let size = size_of::<T>() as u32;
    // SAFETY: the context is the one that the kernel called this program with; `tuple` is one of the two forms that the helper tells
    // apart by `size`, and outlives the call.
    unsafe {
        if protocol == protocol::UDP {
            generated::bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0)
        } else {
            generated::bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0)
        }
    }
}

/// Gives a socket back.
#[inline(always)]
pub fn release(found: Found) {
    // SAFETY: the socket came from a look-up, is not null, and is given back once: the verifier counts.
    unsafe { generated::bpf_sk_release(found.cast()) };
}

/// Id of the cgroup that a socket was created in, 0 if it cannot be read.
#[inline(always)]
pub fn cgroup_of(found: Found) -> u64 {
    let cgroup = pointer(untracked(found), maps::sock_cgroup());
    field(pointer(cgroup, maps::cgroup_node()), maps::node_id(), 0)
}

/// What waits at an address is a managed workload's socket.
#[inline(always)]
pub fn waits_managed(ctx: *mut c_void, at: Words, port: u16) -> bool {
    let found = waiting(ctx, at, port, protocol::TCP);
    if found.is_null() {
        return false;
    }
    // SAFETY: the socket came from a look-up, is not null and is still held.
    let owned = !unsafe { Storage(&OWNER).get(found) }.is_null();
    let id = cgroup_of(found);
    release(found);
    // A socket that is older than management has no owner.
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    owned || (id != 0 && unsafe { MANAGED.get(&id) }.is_some())
}
