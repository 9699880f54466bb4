//! Hands the original destination to the accepted socket, before accept returns. The note was made when
//! the first packet arrived, so there is no race, with TCP Fast Open neither.

use crate::address::{Words, address, mapped};
use crate::maps::{ACCEPTED, Storage, TUPLE, config};
use aya_ebpf::bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock_ops};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use core::ptr;
use exeat_ebpf_abi::{Config, Tuple};

const AF_INET: u32 = 2;

/// Attached to the gate's cgroup.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        && let Some(config) = config()
    {
        arrives(&ctx, config);
    }
    1
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
    // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let accepted = unsafe { Storage(&ACCEPTED).make(sk) };
    if accepted.is_null() {
        aya_log_ebpf::warn!(ctx, "no memory for an accepted connection's destination");
        return;
    }
    // SAFETY: neither is null; both are plain data of the same type, in maps of their own.
    unsafe { *accepted = *origin };
    let _ = TUPLE.remove(&key);
}

// All words are read before the family is looked at: in two branches, the compiler would join the
// reads into one of a computed place, which the verifier refuses.
#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> Words {
    // SAFETY: fields of the context that the kernel called this program with; the verifier checks place and width.
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
