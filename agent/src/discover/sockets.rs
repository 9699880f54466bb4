//! The TCP sockets of this network namespace that listen.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// The user who opened it.
    pub uid: u32,
    /// Its inode, by which its process is found.
    pub inode: u64,
}

/// Every listener, in the order of addresses.
pub fn listening() -> Vec<Listening> {
    let mut all: Vec<Listening> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| text.lines().filter_map(parse).collect::<Vec<_>>())
        .collect();
    all.sort_unstable_by_key(|listening| listening.address);
    all
}

/// A line of `proc_net(5)`: `sl local_address rem_address st ... uid timeout inode`.
fn parse(line: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, uid, _, inode, ..] = fields.as_slice() else {
        return None;
    };
    let (address, port) = local.split_once(':')?;
    Some(Listening {
        address: SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?),
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// The kernel prints words of 32 bits in the host's order.
fn ip(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len())
        .step_by(8)
        .map(|at| {
            let word = hex.get(at..at.checked_add(8)?)?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect();
    let bytes: Vec<u8> = words?.concat();
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

impl Listening {
    /// Where it is reached from this machine.
    pub fn reached(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            // Most sockets of both families listen so; those of IPv6 alone answer there as well.
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip.to_canonical(),
        };
        SocketAddr::new(ip, self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_with_its_owner() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let all = listening();
        for address in [socket.local_addr().unwrap(), other.local_addr().unwrap()] {
            let found = all
                .iter()
                .find(|listening| listening.address == address)
                .unwrap();
            assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
            assert!(found.inode > 0);
            assert_eq!(found.reached(), address);
        }
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(
            parse("0: 0100007F:1F90 00000000:0000 01 a b c 0 0 7 1"),
            None
        );
        assert_eq!(ip("0100007"), None);
    }
}
