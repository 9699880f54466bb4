//! Socket creation: TCP and UDP over IP, nothing else; and every socket gets its owner.

use crate::maps::{OWNER, Storage, set_retval};
use crate::report::{Refusal, by_process};
use crate::workload::current;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use core::ptr;
use exeat_ebpf_abi::{Owner, kind};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const TCP: u32 = 6;
const UDP: u32 = 17;
const MPTCP: u32 = 262;
const EPROTONOSUPPORT: i32 = 93;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let sk = ctx.sock;
    // Attached to a cgroup that is about to become, or no longer is, a workload.
    let Some(workload) = current() else {
        return PASS;
    };
    // SAFETY: fields of the context that the kernel called this program with; the verifier checks place and width.
    let (family, kind, protocol) = unsafe {
        (
            ptr::read_volatile(&raw const (*sk).family),
            ptr::read_volatile(&raw const (*sk).type_),
            ptr::read_volatile(&raw const (*sk).protocol),
        )
    };
    let known = (family == AF_INET || family == AF_INET6)
        && (kind == SOCK_STREAM && (protocol == 0 || protocol == TCP)
            || kind == SOCK_DGRAM && (protocol == 0 || protocol == UDP));
    if workload == 0 || !known {
        by_process(Refusal {
            kind: kind::REFUSED_SOCKET,
            workload,
            words: [0; 4],
            port: 0,
            protocol: if protocol > 255 { 255 } else { protocol as u8 },
            detail: (kind & 0xffff) | (protocol << 16),
        });
        // What programs that try Multipath TCP first take as the sign to use plain TCP.
        if protocol == MPTCP && set_retval() != 0 {
            // SAFETY: a helper that takes a number, allowed in this program type where `set_retval` says so.
            unsafe { generated::bpf_set_retval(-EPROTONOSUPPORT) };
        }
        return REFUSE;
    }
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let owner = unsafe { Storage(&OWNER).make(sk) };
    if owner.is_null() {
        aya_log_ebpf::warn!(&ctx, "no memory for a socket's owner: refused");
        return REFUSE;
    }
    let note = Owner {
        workload,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        pad: 0,
    };
    // SAFETY: not null, and plain data that lives as long as the socket.
    unsafe { *owner = note };
    PASS
}
