//! What crosses the cable to the world: every IP packet of any protocol, seen on the far side.
//!
//! Servers see only what speaks their language. A way out by raw sockets, UDP-Lite or ICMP is seen here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::lab::Lab;
use crate::namespace::Namespace;

/// How often the observer looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// How many packets are kept; a test that makes more counts wrong and is told so by `lost`.
const KEPT: usize = 100_000;

/// `ETH_P_ALL` of packet(7): every protocol, both directions.
const EVERYTHING: u16 = 3;

/// IPv6's neighbour discovery and listener reports, which the kernel itself sends (RFC 4861, 2710).
const CHATTER: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];

/// One IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The source address in its header.
    pub source: IpAddr,
    /// The destination address in its header.
    pub destination: IpAddr,
    /// The protocol or next header: 1 ICMP, 6 TCP, 17 UDP, 136 UDP-Lite, ...
    pub protocol: u8,
    /// The destination port, where the protocol has one at that place.
    pub port: Option<u16>,
    /// The flags of a TCP header.
    pub flags: Option<u8>,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Seen {
    packets: Vec<Packet>,
    lost: u64,
}

/// The observer; it ends on drop.
#[derive(Debug)]
pub struct Wire {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Observes every interface of `namespace`.
    pub fn observe(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.within(open)?;
        let (seen, ended) = (Arc::default(), Arc::default());
        let (theirs, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = thread::spawn(move || watch(&socket, &theirs, &end));
        Ok(Self {
            seen,
            ended,
            thread: Some(thread),
        })
    }

    /// Every packet so far, in order.
    pub fn packets(&self) -> Vec<Packet> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .packets
            .clone()
    }

    /// The packets to `destination`, whoever sent them.
    pub fn to(&self, destination: IpAddr) -> Vec<Packet> {
        let mut packets = self.packets();
        packets.retain(|packet| packet.destination == destination);
        packets
    }

    /// How many packets came after the table was full.
    pub fn lost(&self) -> u64 {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lost
    }

    /// Forgets what was seen so far.
    pub fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It holds nothing that a panic of its own could have broken.
            let _joined = thread.join();
        }
    }
}

impl Lab {
    /// Observes what reaches the world.
    pub fn wire(&self) -> Result<Wire> {
        Wire::observe(&self.outside)
    }
}

fn open() -> Result<OwnedFd> {
    // packet(7) wants the number in network order.
    let protocol = NonZeroU32::new(u32::from(EVERYTHING.to_be())).map(Protocol::from_raw);
    // Without the link's header: what is read starts with that of IP.
    let kind = SocketType::DGRAM;
    let socket = socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, protocol)
        .context("open a packet socket")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))
        .context("bound the wait for a packet")?;
    Ok(socket)
}

fn watch(socket: &OwnedFd, seen: &Mutex<Seen>, ended: &AtomicBool) {
    let mut buffer = vec![0_u8; 65536];
    while !ended.load(Ordering::SeqCst) {
        match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                let Some(packet) = buffer.get(..length).and_then(parse) else {
                    continue;
                };
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.packets.len() < KEPT {
                    seen.packets.push(packet);
                } else {
                    seen.lost += 1;
                }
            }
            // Nothing for a while: see whether to go on.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Reads an IPv4 or IPv6 packet; anything else (ARP, the kernel's neighbour discovery) is `None`.
fn parse(bytes: &[u8]) -> Option<Packet> {
    let (source, destination, protocol, payload) = match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes.first()? & 15) * 4;
            let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(array::<4>(bytes, at)?)));
            (
                address(12)?,
                address(16)?,
                *bytes.get(9)?,
                bytes.get(header..)?,
            )
        }
        6 => {
            let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(array::<16>(bytes, at)?)));
            (address(8)?, address(24)?, *bytes.get(6)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let reports = protocol == 0 && destination.is_multicast();
    if reports || (protocol == 58 && CHATTER.contains(payload.first()?)) {
        return None;
    }
    let ports = matches!(protocol, 6 | 17 | 33 | 132 | 136);
    let port = ports
        .then(|| array(payload, 2).map(u16::from_be_bytes))
        .flatten();
    let flags = (protocol == 6).then(|| payload.get(13).copied()).flatten();
    Some(Packet {
        source,
        destination,
        protocol,
        port,
        flags,
        payload: payload.to_vec(),
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{MACHINE, WORLD, WORLD_V6};
    use crate::process::run;
    use crate::wait::wait_until;

    const SEND: &str = r#"import socket as s
for f,t,p,a in [(s.AF_INET,s.SOCK_DGRAM,17,("93.184.215.14",9999)),(s.AF_INET,s.SOCK_DGRAM,136,("93.184.215.14",9998)),
                (s.AF_INET6,s.SOCK_DGRAM,17,("2606:2800:21f:cb07::14",9997)),(s.AF_INET,s.SOCK_RAW,253,("93.184.215.14",0))]:
    s.socket(f,t,p).sendto(b"leak",a)
try: s.create_connection(("93.184.215.14",9996),2)
except ConnectionRefusedError: pass"#;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sees_every_protocol() {
        let lab = Lab::new().unwrap();
        let wire = lab.wire().unwrap();
        let mut command = lab.inside.command("python3");
        let done = run(command.args(["-c", SEND]), Duration::from_secs(20))
            .await
            .unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        let saw = |to: IpAddr, protocol: u8, port: Option<u16>| {
            wire.to(to)
                .iter()
                .any(|p| (p.protocol, p.port, p.source.is_ipv4()) == (protocol, port, to.is_ipv4()))
        };
        wait_until("all five are seen", Duration::from_secs(5), || {
            saw(WORLD, 17, Some(9999))
                && saw(WORLD, 136, Some(9998))
                && saw(WORLD_V6, 17, Some(9997))
                && saw(WORLD, 253, None)
                && saw(WORLD, 6, Some(9996))
        })
        .await
        .unwrap();
        assert!(wire.to(WORLD).iter().all(|packet| packet.source == MACHINE));
        let raw = wire
            .to(WORLD)
            .into_iter()
            .find(|packet| packet.protocol == 253);
        assert_eq!(raw.unwrap().payload, b"leak");
    }

    #[test]
    fn broken_packets_are_passed_over() {
        for bytes in [&b""[..], b"\x45", b"\x60\0\0\0", &[0x4f; 20], &[0x10; 60]] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
