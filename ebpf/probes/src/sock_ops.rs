//! Carries the original destination from a client's socket to the accepted one, before accept
//! returns. The note is written before the first packet leaves, so there is no race, with TCP Fast
//! Open neither.

use crate::address::{Words, address, mapped};
use crate::maps::{ACCEPTED, CLIENT, Storage, TUPLE, config};
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use core::ptr;
use exeat_ebpf_abi::{Config, Tuple};

const AF_INET: u32 = 2;

/// Attached to workloads (the client's end) and to the gate (the accepting end).
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    let Some(config) = config() else { return 1 };
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => leaves(&ctx, config),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => arrives(&ctx, config),
        BPF_SOCK_OPS_STATE_CB => changes(&ctx),
        _ => {}
    }
    1
}

/// A client is about to send its first packet.
#[inline(always)]
fn leaves(ctx: &SockOpsContext, config: &Config) {
    if u32::from_be(ctx.remote_port()) != u32::from(config.proxy_port) {
        return;
    }
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    let origin = unsafe { Storage(&CLIENT).get(sk) };
    if origin.is_null() {
        return;
    }
    let key = Tuple {
        address: address(local(ctx.ops)),
        port: ctx.local_port(),
    };
    if TUPLE.insert(&key, unsafe { &*origin }, 0).is_err() {
        // The gate will not know the connection and will refuse it.
        aya_log_ebpf::warn!(ctx, "no room for a connection's destination");
        return;
    }
    // So that the note of a connection that never arrives goes with its socket.
    if ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_err() {
        let _ = TUPLE.remove(&key);
    }
}

/// The gate's end is established; accept has not returned.
#[inline(always)]
fn arrives(ctx: &SockOpsContext, config: &Config) {
    if ctx.local_port() != u32::from(config.proxy_port) {
        return;
    }
    let key = Tuple {
        address: address(remote(ctx.ops)),
        port: u32::from_be(ctx.remote_port()),
    };
    let Some(origin) = TUPLE.get_ptr(&key) else {
        return;
    };
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    let accepted = unsafe { Storage(&ACCEPTED).make(sk) };
    if accepted.is_null() {
        aya_log_ebpf::warn!(ctx, "no memory for an accepted connection's destination");
        return;
    }
    unsafe { *accepted = *origin };
    let _ = TUPLE.remove(&key);
}

/// A client's socket closes.
#[inline(always)]
fn changes(ctx: &SockOpsContext) {
    if ctx.arg(1) == BPF_TCP_CLOSE {
        let key = Tuple {
            address: address(local(ctx.ops)),
            port: ctx.local_port(),
        };
        let _ = TUPLE.remove(&key);
    }
}

// Both functions read all words before they look at the family: in two branches, the compiler would
// join the reads into one of a computed place, which the verifier refuses.

#[inline(always)]
fn local(ops: *mut bpf_sock_ops) -> Words {
    unsafe {
        let v4 = ptr::read_volatile(&raw const (*ops).local_ip4);
        let v6 = [
            ptr::read_volatile(&raw const (*ops).local_ip6[0]),
            ptr::read_volatile(&raw const (*ops).local_ip6[1]),
            ptr::read_volatile(&raw const (*ops).local_ip6[2]),
            ptr::read_volatile(&raw const (*ops).local_ip6[3]),
        ];
        if ptr::read_volatile(&raw const (*ops).family) == AF_INET {
            mapped(v4)
        } else {
            v6
        }
    }
}

#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> Words {
    unsafe {
        let v4 = ptr::read_volatile(&raw const (*ops).remote_ip4);
        let v6 = [
            ptr::read_volatile(&raw const (*ops).remote_ip6[0]),
            ptr::read_volatile(&raw const (*ops).remote_ip6[1]),
            ptr::read_volatile(&raw const (*ops).remote_ip6[2]),
            ptr::read_volatile(&raw const (*ops).remote_ip6[3]),
        ];
        if ptr::read_volatile(&raw const (*ops).family) == AF_INET {
            mapped(v4)
        } else {
            v6
        }
    }
}
