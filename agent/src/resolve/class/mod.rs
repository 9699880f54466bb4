//! What kind of place an address is, and which kinds a grant covers.
//!
//! | class | what | plain grant | `private: true` |
//! |---|---|---|---|
//! | global | global unicast | yes | yes |
//! | private | 10/8, 172.16/12, 192.168/16 | no | yes |
//! | shared | 100.64/10 (RFC 6598) | no | yes |
//! | unique local | `fc00::/7` | no | yes |
//! | site local | `fec0::/10` | no | yes |
//! | loopback | 127/8, `::1` | no | no |
//! | link local | 169.254/16, `fe80::/10` | no | no |
//! | metadata | credential services of clouds | no | no |
//! | own | addresses of this machine, synthetic ranges | no | no |
//! | unspecified, multicast, broadcast, documentation, benchmarking, reserved | | no | no |
//!
//! Policy reaches the classes that no host rule covers by naming the address itself (`cidr:`).
//! An address that carries an IPv4 address is of that address's class: mapped, NAT64 with the
//! well-known prefix, 6to4, and ISATAP. What would be delivered by a deprecated or private
//! translation (IPv4-compatible, Teredo, local NAT64) is reserved.
//!
//! Sources: IANA special-purpose address registries (RFC 6890), RFC 6052, RFC 8215, RFC 3056.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 255.255.255.255.
    Broadcast,
    /// 198.18.0.0/15 and `2001:2::/48`; Exeat's synthetic IPv4 addresses are of the first.
    Benchmarking,
    /// Ranges of examples (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// Reachable from anywhere.
    Global,
    /// 169.254.0.0/16 and `fe80::/10`.
    LinkLocal,
    /// 127.0.0.0/8 and `::1`.
    Loopback,
    /// Where clouds hand out credentials and where their agents are steered.
    Metadata,
    /// 224.0.0.0/4 and `ff00::/8`.
    Multicast,
    /// This machine, by whatever interface.
    Own,
    /// 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16.
    Private,
    /// Everything that no other class names and nobody should dial.
    Reserved,
    /// 100.64.0.0/10, behind a carrier's translator.
    Shared,
    /// `fec0::/10` (RFC 3879).
    SiteLocal,
    /// `fc00::/7`.
    UniqueLocal,
    /// 0.0.0.0/8 and `::`, which reach this machine.
    Unspecified,
}

impl Class {
    /// The class in words, as records and messages say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Benchmarking => "benchmarking",
            Self::Documentation => "documentation",
            Self::Global => "global",
            Self::LinkLocal => "link local",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Own => "this machine",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::Shared => "shared",
            Self::SiteLocal => "site local",
            Self::UniqueLocal => "unique local",
            Self::Unspecified => "unspecified",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// This machine's addresses, and the range of its synthetic IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Addresses of the machine's interfaces.
    pub addresses: Vec<IpAddr>,
    /// The prefix (first 64 bits) of synthetic IPv6 addresses.
    pub synthetic: Option<Ipv6Addr>,
}

impl Own {
    fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses
            .iter()
            .any(|own| own.to_canonical() == address)
            || match (address, self.synthetic) {
                (IpAddr::V6(address), Some(prefix)) => {
                    address.to_bits() >> 64 == prefix.to_bits() >> 64
                }
                (IpAddr::V4(_), _) | (IpAddr::V6(_), None) => false,
            }
    }
}

/// Whether a host rule's grant covers addresses of the class; `private` is the rule's flag.
pub fn permitted(class: Class, private: bool) -> bool {
    match class {
        Class::Global => true,
        Class::Private | Class::Shared | Class::UniqueLocal | Class::SiteLocal => private,
        Class::Broadcast
        | Class::Benchmarking
        | Class::Documentation
        | Class::LinkLocal
        | Class::Loopback
        | Class::Metadata
        | Class::Multicast
        | Class::Own
        | Class::Reserved
        | Class::Unspecified => false,
    }
}

/// The address's class; `own` wins over global and private ranges, never over worse ones.
pub fn classify(address: IpAddr, own: &Own) -> Class {
    let class = match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    };
    let carried = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => carried_v4(address),
    };
    let ours = own.holds(address) || carried.is_some_and(|inner| own.holds(inner.into()));
    if ours && (permitted(class, true)) {
        Class::Own
    } else {
        class
    }
}

/// Addresses on which clouds serve credentials, user data, or steer their agents.
const METADATA_V4: [Ipv4Addr; 10] = [
    // AWS, Azure, GCP, OpenStack, DigitalOcean, Oracle and most others.
    Ipv4Addr::new(169, 254, 169, 254),
    // AWS: resolver, time, container and pod credentials.
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(169, 254, 169, 123),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Scaleway.
    Ipv4Addr::new(169, 254, 42, 42),
    // Alibaba Cloud; inside the shared range.
    Ipv4Addr::new(100, 100, 100, 200),
    // Tencent Cloud.
    Ipv4Addr::new(169, 254, 0, 23),
    // Oracle Cloud at Customer.
    Ipv4Addr::new(192, 0, 0, 192),
    // Azure's wire server; a public address that only virtual machines there reach.
    Ipv4Addr::new(168, 63, 129, 16),
];

const METADATA_V6: [Ipv6Addr; 5] = [
    // AWS: metadata, resolver, pod credentials.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // GCP.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

fn classify_v4(address: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&address) {
        return Class::Metadata;
    }
    match address.octets() {
        [0, ..] => Class::Unspecified,
        [10, ..] | [192, 168, ..] => Class::Private,
        [172, b, ..] if b & 0xf0 == 16 => Class::Private,
        [100, b, ..] if b & 0xc0 == 64 => Class::Shared,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [198, 18 | 19, ..] => Class::Benchmarking,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        // IETF protocol assignments, the former 6to4 relays (RFC 7526), future use.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Class::Reserved,
        _ => Class::Global,
    }
}

/// The IPv4 address to which a translator or tunnel would deliver.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        // Mapped (RFC 4291 section 2.5.5.2), NAT64 (RFC 6052), IPv4-translated (RFC 2765),
        // 6to4 (RFC 3056), ISATAP (RFC 5214 section 6.1).
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..]
        | [_, _, _, _, _, _, _, _, 0 | 2, 0, 0x5e, 0xfe, a, b, c, d] => {
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&address) {
        return Class::Metadata;
    }
    if address.is_unspecified() {
        return Class::Unspecified;
    }
    if address.is_loopback() {
        return Class::Loopback;
    }
    let outer = match address.segments() {
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xfec0..=0xfeff, ..] => Class::SiteLocal,
        [0xfc00..=0xfdff, ..] => Class::UniqueLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        // IETF protocol assignments: Teredo, ORCHID and others.
        [0x2001, 0..=0x1ff, ..] => Class::Reserved,
        [0x2000..=0x3fff, ..] => Class::Global,
        _ => Class::Reserved,
    };
    match (carried_v4(address), outer) {
        (None, outer) => outer,
        // A prefix that is itself refused stays refused, whatever it carries.
        (Some(_), refused @ (Class::LinkLocal | Class::Multicast | Class::Documentation)) => {
            refused
        }
        (Some(inner), outer) => match (classify_v4(inner), outer) {
            (Class::Global, Class::Reserved) if translated(address) => Class::Global,
            (Class::Global, outer) => outer,
            (inner, _) => inner,
        },
    }
}

/// Whether the network itself, not the prefix, decides where the address leads.
fn translated(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..]
    )
}

#[cfg(test)]
mod tests;
