//! `getpeername`, and the source that `recvfrom` tells: a process sees the peer that it asked for.

use crate::address::{Target, is_loopback, words};
use crate::connect::PASS;
use crate::maps::{CLIENT, Storage, config};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show_asked::<false>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show_asked::<true>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    show_asked::<false>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    show_asked::<true>(&ctx)
}

/// Always passes: these hooks name things, they do not refuse.
#[inline(always)]
fn show_asked<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(config) = config() else { return PASS };
    let target = Target(ctx.sock_addr);
    let port = target.port();
    if port != config.proxy_port && port != config.dns_port {
        return PASS;
    }
    // A dual-stack socket receives from the mapped address what it sent as IPv4.
    if !is_loopback(target.words::<V6>()) {
        return PASS;
    }
    // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let origin = unsafe { Storage(&CLIENT).get(sk) };
    if origin.is_null() {
        return PASS;
    }
    // SAFETY: not null, and plain data that lives as long as the socket.
    let (asked, port) = unsafe { ((*origin).address, (*origin).port) };
    target.set::<V6>(words(asked));
    target.set_port(port);
    PASS
}
