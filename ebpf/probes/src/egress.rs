//! Egress: the backstop on the wire header. What the other hooks let through, and nothing else.

use crate::address::{Words, address, is_loopback};
use crate::maps::{CLIENT, DNS_SOURCE, LISTEN, Storage, config};
use crate::packet::{Odd, Packet, begins, is_on_loopback, parse};
use crate::report::{Refusal, by_packet};
use crate::rule::may_pass_directly;
use crate::workload::{is_cut, of_socket};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use exeat_ebpf_abi::kind::{self, drop};
use exeat_ebpf_abi::{Address, Config, DnsKey, DnsSource, Listener, Owner, protocol};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// The full socket that a packet belongs to, null if there is none.
#[inline(always)]
pub fn socket(ctx: &SkBuffContext) -> *mut bpf_sock {
    // SAFETY: a field of the context that the kernel called this program with, of one type in every variant of the union.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return sk;
    }
    // SAFETY: the socket is the packet's own and not null.
    unsafe { generated::bpf_sk_fullsock(sk) }
}

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let Some(config) = config() else { return DROP };
    let sk = socket(&ctx);
    let owner = if sk.is_null() {
        Owner {
            workload: 0,
            tgid: 0,
            uid: 0,
            pad: 0,
        }
    } else {
        // SAFETY: a full socket that the kernel gave this program, and not null.
        unsafe { of_socket(config, sk) }
    };
    let packet = match parse(&ctx) {
        Ok(packet) => packet,
        Err(Odd {
            detail,
            destination,
            protocol,
            ..
        }) => {
            return dropped(owner, destination, 0, protocol, detail);
        }
    };
    let reason = if owner.workload == 0 {
        drop::UNKNOWN_WORKLOAD
    } else if is_cut(owner.workload) {
        drop::CUT
    } else if may_leave(&ctx, config, sk, owner, &packet) {
        return PASS;
    } else {
        drop::DESTINATION
    };
    dropped(
        owner,
        packet.destination,
        packet.destination_port,
        packet.protocol,
        reason,
    )
}

#[inline(always)]
fn dropped(owner: Owner, words: Words, port: u16, protocol: u8, detail: u32) -> i32 {
    let kind = kind::EGRESS_DROP;
    by_packet(
        Refusal {
            kind,
            workload: owner.workload,
            words,
            port,
            protocol,
            detail,
        },
        owner,
    );
    DROP
}

#[inline(always)]
fn may_leave(
    ctx: &SkBuffContext,
    config: &Config,
    sk: *mut bpf_sock,
    owner: Owner,
    packet: &Packet,
) -> bool {
    let home = is_on_loopback(ctx) && is_loopback(packet.destination);
    if packet.protocol == protocol::UDP {
        if home && packet.destination_port == config.dns_port {
            return note_query(ctx, sk, owner, packet);
        }
        return may_pass_directly(owner.workload, packet.destination, packet.destination_port);
    }
    if home && packet.destination_port == config.proxy_port {
        return true;
    }
    is_reply(ctx, owner.workload, packet)
}

/// Tells the gate whose query is coming.
#[inline(always)]
fn note_query(ctx: &SkBuffContext, sk: *mut bpf_sock, owner: Owner, packet: &Packet) -> bool {
    // The id is the first field of the message, after the eight bytes of UDP's header.
    let Ok(id) = ctx.load::<[u8; 2]>(packet.transport + 8) else {
        return false;
    };
    let mut source = DnsSource {
        workload: owner.workload,
        tgid: owner.tgid,
        uid: owner.uid,
        port: 0,
        pad: 0,
        address: Address([0; 16]),
    };
    // SAFETY: the socket is what the kernel gave this program, and not null.
    let asked = unsafe { Storage(&CLIENT).get(sk) };
    if asked.is_null() {
        // Only a rewritten call has business with the resolver.
        return false;
    }
    // SAFETY: not null, and plain data that lives as long as the socket.
    unsafe {
        source.tgid = (*asked).tgid;
        source.uid = (*asked).uid;
        source.port = (*asked).port;
        source.address = (*asked).address;
    }
    let key = DnsKey {
        address: address(packet.source),
        port: packet.source_port,
        id: u16::from_be_bytes(id),
    };
    DNS_SOURCE.insert(&key, &source, 0).is_ok()
}

/// The packet answers a connection to a permitted listener: it cannot open one.
#[inline(always)]
fn is_reply(ctx: &SkBuffContext, workload: u32, packet: &Packet) -> bool {
    if begins(ctx, packet) {
        return false;
    }
    let exact = Listener {
        workload,
        port: packet.source_port,
        pad: 0,
        address: address(packet.source),
    };
    let any = Listener {
        address: Address([0; 16]),
        ..exact
    };
    // SAFETY: the value is a `u32`, read whole at once; a writer in user space replaces it whole.
    unsafe { LISTEN.get(&exact).is_some() || LISTEN.get(&any).is_some() }
}
