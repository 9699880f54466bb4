//! Who is at the other end: a host name that policy can judge, or an address where there is no name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exeat_policy::{Name, Target};
use rustls_pki_types::ServerName;
use thiserror::Error;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A host name, normalised.
    Name(Name),
    /// An address that the workload dialled without a name.
    Address(IpAddr),
}

/// A `Host` or `:authority` that is not `host[:port]`.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("neither a host name nor an address")]
pub struct PeerFault;

impl Peer {
    /// Reads `host`, `host:port`, `address`, `[v6]:port` (RFC 9110 section 7.2).
    ///
    /// # Errors
    /// [`PeerFault`] for user information, an empty host, a port that is not a number, and any odd form
    /// of an address (`127.1`, `0x7f.1`).
    pub fn parse(authority: &str) -> Result<(Self, Option<u16>), PeerFault> {
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(PeerFault)?;
            let address: Ipv6Addr = address.parse().map_err(|_bad| PeerFault)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if rest.is_empty() => None,
                None => return Err(PeerFault),
            };
            return Ok((Self::Address(canonical(IpAddr::V6(address))), port));
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (authority, None),
        };
        Ok((Self::parse_host(host)?, port))
    }

    /// Reads a host without a port.
    ///
    /// # Errors
    /// [`PeerFault`] when it is neither a strict host name nor a dotted IPv4 address.
    pub fn parse_host(host: &str) -> Result<Self, PeerFault> {
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        Name::parse(host).map(Self::Name).map_err(|_bad| PeerFault)
    }

    /// The form that policy judges.
    pub fn target(&self) -> Target<'_> {
        match self {
            Self::Name(name) => Target::Name(name),
            Self::Address(address) => Target::Address(*address),
        }
    }

    /// The form that TLS verifies.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
            Self::Address(address) => Some(ServerName::IpAddress((*address).into())),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A v4-mapped address is the v4 address that it maps.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn parse_port(text: &str) -> Result<u16, PeerFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PeerFault);
    }
    text.parse().map_err(|_bad| PeerFault)
}

#[cfg(test)]
mod tests {
    use super::Peer;

    #[test]
    fn authorities_are_read_one_way_only() {
        let ok = |text: &str| {
            let (peer, port) = Peer::parse(text).expect(text);
            format!("{peer} {port:?}")
        };
        assert_eq!(ok("API.Example.com"), "api.example.com None");
        assert_eq!(ok("api.example.com:8443"), "api.example.com Some(8443)");
        assert_eq!(ok("10.0.0.1:80"), "10.0.0.1 Some(80)");
        assert_eq!(ok("[2001:db8::1]:443"), "2001:db8::1 Some(443)");
        assert_eq!(ok("[::ffff:10.0.0.1]"), "10.0.0.1 None");
        for bad in [
            "",
            ":80",
            "a b",
            "user@host",
            "host:",
            "host:+1",
            "host:65536",
            "127.1",
            "0x7f.1",
            "2130706433",
            "[::1",
            "[::1]x",
            "::1",
            "host:80:80",
            "[fe80::1%eth0]",
            "a..b",
            "a\0b",
        ] {
            assert!(Peer::parse(bad).is_err(), "`{bad}` must not be read");
        }
    }
}
