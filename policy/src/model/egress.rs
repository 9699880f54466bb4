//! Where processes may connect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::name::HostPattern;
use crate::path::PathGlob;

/// One entry of an `egress` list.
#[derive(Debug, Clone)]
pub enum EgressRule {
    /// By name.
    Host(HostRule),
    /// By address.
    Range(RangeRule),
}

impl EgressRule {
    /// The rule by name, if it is one.
    #[must_use]
    pub fn host(&self) -> Option<&HostRule> {
        match self {
            Self::Host(rule) => Some(rule),
            Self::Range(_) => None,
        }
    }
}

/// Egress by host name.
#[derive(Debug, Clone)]
pub struct HostRule {
    /// Which names.
    pub host: HostPattern,
    /// Which ports; never empty.
    pub ports: Vec<u16>,
    /// Allowed HTTP methods, never CONNECT; empty: all but TRACE, which must be named.
    pub methods: Vec<Arc<str>>,
    /// Allowed paths; empty: all.
    pub paths: Vec<PathGlob>,
    /// What happens to TLS; [`Tls::Passthrough`] for opaque TCP, of which nothing is looked at.
    pub tls: Tls,
    /// The names may resolve to private addresses.
    pub private: bool,
    /// What is spoken: [`Wire::Http`], or [`Wire::Tcp`] for `protocol: tcp`.
    pub wire: Wire,
    /// What the destination is known to be.
    pub kind: Option<Kind>,
    /// `Upgrade` (WebSocket and others) may be tunnelled.
    pub upgrade: bool,
    /// Names are answered with synthetic addresses; always so for opaque TCP.
    pub synthetic: bool,
    /// The credential that is put into its requests.
    pub credential: Option<Arc<str>>,
}

/// Egress by address.
#[derive(Debug, Clone)]
pub struct RangeRule {
    /// Which addresses.
    pub net: Cidr,
    /// Which ports; never empty.
    pub ports: Vec<u16>,
    /// TCP (passed on unread by the gate) or UDP (direct).
    pub protocol: Protocol,
}

/// What happens to TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tls {
    /// Terminated, looked at, encrypted again.
    Intercept,
    /// The server name is checked, the rest passed on unread.
    Passthrough,
    /// There is none: plain HTTP.
    Off,
}

/// The transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// HTTP over TCP, decoded.
    Http,
    /// TCP, passed on unread.
    Tcp,
    /// UDP, direct.
    Udp,
}

impl Wire {
    /// The transport below.
    #[must_use]
    pub const fn transport(self) -> Protocol {
        match self {
            Self::Http | Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

/// What a destination is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A model provider's API.
    Model,
}

/// A network: an address whose host bits are zero, and a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    net: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of one address.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        let net = address.to_canonical();
        Self {
            net,
            prefix: width(net),
        }
    }

    /// Every address of a family.
    pub(crate) fn all(v4: bool) -> Self {
        let net = if v4 {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        };
        Self { net, prefix: 0 }
    }

    /// Reads `10.20.0.0/16` or `2001:db8::/32`.
    pub fn parse(text: &str) -> Result<Self, CidrFault> {
        let (address, prefix) = text.split_once('/').ok_or(CidrFault::NoPrefix)?;
        let net: IpAddr = address.parse().ok().ok_or(CidrFault::Address)?;
        if net != net.to_canonical() {
            return Err(CidrFault::Mapped);
        }
        let decimal = !prefix.is_empty()
            && prefix.bytes().all(|byte| byte.is_ascii_digit())
            && (prefix == "0" || !prefix.starts_with('0'));
        let prefix = prefix
            .parse::<u8>()
            .ok()
            .filter(|&prefix| decimal && prefix <= width(net))
            .ok_or(CidrFault::Prefix)?;
        let masked = mask(net, prefix);
        if masked == net {
            Ok(Self { net, prefix })
        } else {
            Err(CidrFault::HostBits(masked, prefix))
        }
    }

    /// The address.
    #[must_use]
    pub const fn net(&self) -> IpAddr {
        self.net
    }

    /// The length of the prefix in bits, of 32 or 128.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// How many bits of its addresses it leaves open.
    pub(crate) const fn host_bits(&self) -> u8 {
        width(self.net).saturating_sub(self.prefix)
    }

    /// Whether the address lies within; a v4-mapped address counts as its IPv4 one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.net.is_ipv4() && mask(address, self.prefix) == self.net
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net, self.prefix)
    }
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrFault {
    /// No `/`.
    #[error("the prefix length is missing, as in `10.20.0.0/16`")]
    NoPrefix,
    /// Not an address.
    #[error("the part before `/` is not an address")]
    Address,
    /// A v4-mapped address.
    #[error("a v4-mapped address is written as its ipv4 one")]
    Mapped,
    /// Not a prefix length.
    #[error("the prefix length is at most 32 for ipv4 and 128 for ipv6")]
    Prefix,
    /// Bits are set beyond the prefix.
    #[error("bits are set beyond the prefix; the network is `{0}/{1}`")]
    HostBits(IpAddr, u8),
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX
                .checked_shl(32_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & keep).into()
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & keep).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for bad in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.1.0.0/8",
            "10.0.0/8",
            "0x0a000000/8",
            "010.0.0.0/8",
            "::1/64",
            "::ffff:10.0.0.0/104",
            "a/8",
            "/8",
            "fe80::1%1/128",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Cidr::parse("10.1.2.3/8"),
            Err(CidrFault::HostBits("10.0.0.0".parse().unwrap(), 8))
        );
        for good in [
            "0.0.0.0/0",
            "10.20.0.0/16",
            "10.1.2.3/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            assert_eq!(Cidr::parse(good).unwrap().to_string(), good);
        }
    }

    #[test]
    fn a_mapped_address_is_its_own_ipv4_address() {
        let net = Cidr::parse("10.20.0.0/16").unwrap();
        for (address, inside) in [
            ("10.20.255.255", true),
            ("::ffff:10.20.0.1", true),
            ("10.21.0.0", false),
            ("::ffff:10.21.0.1", false),
            ("64:ff9b::10.20.0.1", false),
            ("::10.20.0.1", false),
        ] {
            assert_eq!(net.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(
            !Cidr::parse("::/0")
                .unwrap()
                .contains("::ffff:1.2.3.4".parse().unwrap())
        );
    }
}
