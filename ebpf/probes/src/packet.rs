//! A packet's headers, read strictly: what an allowed socket would not send is not understood.

use crate::address::{Words, mapped};
use aya_ebpf::programs::SkBuffContext;
use exeat_ebpf_abi::kind::drop;
use exeat_ebpf_abi::protocol;

const LOOPBACK_INTERFACE: u32 = 1;
const ROUTING: u8 = 43;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What is needed of a TCP or UDP packet.
pub struct Packet {
    pub source: Words,
    pub destination: Words,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    /// Bytes before the transport header.
    pub transport: usize,
}

/// A packet that is not understood, and what can be said of it.
pub struct Odd {
    pub detail: u32,
    pub source: Words,
    pub destination: Words,
    pub protocol: u8,
}

const NOTHING: Odd = Odd {
    detail: drop::MALFORMED,
    source: [0; 4],
    destination: [0; 4],
    protocol: 0,
};

/// The interface is loopback. Addresses alone do not say so: a socket bound to a device sends to
/// 127.0.0.1 over the wire.
#[inline(always)]
pub fn is_on_loopback(ctx: &SkBuffContext) -> bool {
    // SAFETY: a field of the context that the kernel called this program with.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK_INTERFACE }
}

/// The TCP packet opens a connection: SYN without ACK. One that cannot be read counts as one.
#[inline(always)]
pub fn begins(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let Ok(flags) = ctx.load::<u8>(packet.transport + 13) else {
        return true;
    };
    flags & SYN != 0 && flags & ACK == 0
}

#[inline(always)]
pub fn parse(ctx: &SkBuffContext) -> Result<Packet, Odd> {
    let Ok(first) = ctx.load::<u8>(0) else {
        return Err(NOTHING);
    };
    let (source, destination, protocol, transport) = match first >> 4 {
        4 => v4(ctx, first)?,
        6 => v6(ctx)?,
        _ => return Err(NOTHING),
    };
    let odd = Odd {
        detail: drop::MALFORMED,
        source,
        destination,
        protocol,
    };
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Err(Odd {
            detail: drop::PROTOCOL,
            ..odd
        });
    }
    let Ok(ports) = ctx.load::<[u8; 4]>(transport) else {
        return Err(odd);
    };
    Ok(Packet {
        source,
        destination,
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        destination_port: u16::from_be_bytes([ports[2], ports[3]]),
        protocol,
        transport,
    })
}

#[inline(always)]
fn v4(ctx: &SkBuffContext, first: u8) -> Result<(Words, Words, u8, usize), Odd> {
    let Ok(header) = ctx.load::<[u32; 5]>(0) else {
        return Err(NOTHING);
    };
    let (source, destination) = (mapped(header[3]), mapped(header[4]));
    let protocol = header[2].to_ne_bytes()[1];
    let odd = Odd {
        detail: drop::SOURCE_ROUTE,
        source,
        destination,
        protocol,
    };
    // Options may route: the destination field would be the first hop, not the peer.
    if first & 0xf != 5 {
        return Err(odd);
    }
    // Sockets hand over whole datagrams; fragments are made later.
    let [_, _, high, low] = header[1].to_ne_bytes();
    if (high & 0x3f) != 0 || low != 0 {
        return Err(Odd {
            detail: drop::MALFORMED,
            ..odd
        });
    }
    Ok((source, destination, protocol, 20))
}

#[inline(always)]
fn v6(ctx: &SkBuffContext) -> Result<(Words, Words, u8, usize), Odd> {
    let Ok(next) = ctx.load::<u8>(6) else {
        return Err(NOTHING);
    };
    let Ok(source) = ctx.load::<Words>(8) else {
        return Err(NOTHING);
    };
    let Ok(destination) = ctx.load::<Words>(24) else {
        return Err(NOTHING);
    };
    if next == ROUTING {
        return Err(Odd {
            detail: drop::SOURCE_ROUTE,
            source,
            destination,
            protocol: next,
        });
    }
    Ok((source, destination, next, 40))
}
