//! Arrival: what a client asked for travels with its first packet, from the client's socket to the gate's.
//!
//! It is read from the socket that sent the packet, whoever's that is: nobody's connections cost anything
//! but those that come to the gate. What has asked for nothing does not get in.

use crate::lookup::{release, sender};
use crate::maps::{CLIENT, Storage, TUPLE, config};
use crate::packet::{begins, is_on_loopback, parse};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use exeat_ebpf_abi::{Tuple, protocol};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Attached to the gate's cgroup.
#[cgroup_skb]
pub fn arrival(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return DROP };
    let Ok(packet) = parse(&ctx) else {
        // Answers of servers of the outside, with options or in fragments: only a beginning matters here. What
        // comes to the gate comes over loopback, and must not arrive without a note: it would find the one that
        // another client's unfinished attempt from the same port left behind.
        return if is_on_loopback(&ctx) { DROP } else { PASS };
    };
    if packet.protocol != protocol::TCP
        || packet.destination_port != config.proxy_port
        || !begins(&ctx, &packet)
    {
        return PASS;
    }
    if !is_on_loopback(&ctx) {
        return DROP;
    }
    let found = sender(ctx.as_ptr(), &packet);
    if found.is_null() {
        return DROP;
    }
    // SAFETY: the socket came from a look-up, is not null and is still held.
    let origin = unsafe { Storage(&CLIENT).get(found) };
    let noted = !origin.is_null() && {
        let key = Tuple {
            address: crate::address::address(packet.source),
            port: u32::from(packet.source_port),
        };
        // SAFETY: not null, and the socket that holds it is held until after the copy.
        TUPLE.insert(&key, unsafe { &*origin }, 0).is_ok()
    };
    release(found);
    if noted { PASS } else { DROP }
}
