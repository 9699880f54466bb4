//! `sendto` and `sendmsg` with an address, on UDP sockets.

use crate::address::{Target, specific};
use crate::connect::{Call, PASS};
use crate::maps::{CLIENT, Storage, config};
use crate::rule::may_pass_directly;
use crate::workload::{Subject, is_cut, subject};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use exeat_ebpf_abi::{family, kind, protocol};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send::<false>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send::<true>(&ctx)
}

#[inline(always)]
fn send<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(config) = config() else { return PASS };
    let target = Target(ctx.sock_addr);
    let words = specific(target.words::<V6>());
    let port = target.port();
    let number = target.protocol();
    let protocol = if number > 255 { 255 } else { number as u8 };
    let mut call = Call {
        ctx,
        target,
        config,
        workload: 0,
        words,
        port,
        protocol,
    };
    match subject(ctx.sock_addr) {
        Subject::Nobody => return PASS,
        Subject::Workload(workload) => call.workload = workload,
        Subject::Foreign { workload, owner } => {
            call.workload = workload;
            return call.refuse(kind::FOREIGN_SOCKET, owner);
        }
    }
    if is_cut(call.workload) {
        return call.refuse(kind::REFUSED_SEND, kind::refused::CUT);
    }
    if protocol != protocol::UDP {
        return call.refuse(kind::REFUSED_SEND, 0);
    }
    if !call.is_at_home() {
        return call.refuse(kind::FOREIGN_NETNS, 0);
    }
    if call.is_dns() {
        return call.redirect::<V6>(config.dns_port);
    }
    if call.is_to(config.dns_port) {
        // A dual-stack socket that connected to a server's mapped address comes here with what the
        // connect hook made of it.
        if asked_before(ctx) {
            return PASS;
        }
        return call.refuse(kind::PROXY_DIALLED, 0);
    }
    if may_pass_directly(call.workload, call.words, call.port) {
        return PASS;
    }
    call.refuse(kind::REFUSED_SEND, 0)
}

#[inline(always)]
fn asked_before(ctx: &SockAddrContext) -> bool {
    // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return false;
    }
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let origin = unsafe { Storage(&CLIENT).get(sk) };
    // SAFETY: not null, and plain data that lives as long as the socket.
    !origin.is_null() && unsafe { (*origin).family } == family::V6
}
