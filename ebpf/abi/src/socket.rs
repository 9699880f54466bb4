//! Addresses, and what is remembered of a socket.

#[cfg(feature = "user")]
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Values of the fields named `family`.
pub mod family {
    /// IPv4.
    pub const V4: u8 = 4;
    /// IPv6.
    pub const V6: u8 = 6;
}

/// Values of the fields named `protocol` (the IANA's numbers).
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// Values of the maps `ALLOW` and `RANGES`.
pub mod action {
    /// TCP: send the connection to the gate.
    pub const REDIRECT: u32 = 1;
    /// UDP: let datagrams pass while the gate's heartbeat is fresh.
    pub const DIRECT: u32 = 2;
}

/// Values of the map `GUARDED`.
pub mod guard {
    /// Under [`Endpoint::any`]: some address of this machine is guarded at the port.
    pub const PORT: u32 = 1;
    /// A server of the register listens here: whoever connects is sent to the gate.
    pub const SERVER: u32 = 2;
    /// An address of this machine: whoever connects is sent to the gate, if what listens there is a
    /// workload's.
    pub const LOCAL: u32 = 3;
}

/// An address in network byte order; IPv4 as `::ffff:a.b.c.d`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// 127.0.0.1
    pub const LOOPBACK_V4: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    /// `::1`
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// An IPv4 address from its four bytes.
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }
}

#[cfg(feature = "user")]
impl Address {
    /// The address in the form that Rust's library uses; mapped addresses become IPv4.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        Ipv6Addr::from_octets(self.0).to_canonical()
    }
}

#[cfg(feature = "user")]
impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

#[cfg(feature = "user")]
impl Origin {
    /// The address and port that the process asked for.
    #[must_use]
    pub const fn asked(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.port)
    }
}

/// What a process asked for when it connected: the value that the gate reads from an accepted
/// socket, and that the process is shown as its peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Number of the workload that owns the socket; 0 where a process that is not managed connects
    /// to a guarded address.
    pub workload: u32,
    /// Thread group (process) that called connect or sendmsg.
    pub tgid: u32,
    /// Real user id of that process in the initial user namespace.
    pub uid: u32,
    /// Port asked for.
    pub port: u16,
    /// 4 or 6: the socket address family that the process used.
    pub family: u8,
    /// 6 or 17.
    pub protocol: u8,
    /// Address asked for; an unspecified address has become loopback.
    pub address: Address,
    /// Id of the process's cgroup.
    pub cgroup: u64,
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
}

/// Key of the map `ALLOW`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Number of the workload.
    pub workload: u32,
    /// Destination port; 0 stands for any in ranges.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// 4 or 6, so that an IPv6 range never holds IPv4 addresses.
    pub family: u8,
    /// Destination address.
    pub address: Address,
}

/// Key of the longest-prefix map `RANGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Number of leading bits of `destination` that count: 64 and the prefix of the address.
    pub bits: u32,
    /// The first address of the range.
    pub destination: Destination,
}

/// Key of the map `LISTEN`: a listener whose replies may leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Number of the workload.
    pub workload: u32,
    /// Local port.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Local address; `::` stands for any of both families.
    pub address: Address,
}

/// Key of the map `GUARDED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address; `::` stands for the port itself.
    pub address: Address,
    /// Port.
    pub port: u32,
}

impl Endpoint {
    /// The key that says whether anything at a port is guarded.
    #[must_use]
    pub const fn any(port: u16) -> Self {
        Self {
            address: Address([0; 16]),
            port: port as u32,
        }
    }
}

/// Value of the socket storage `OWNER`: who created a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Number of the workload; never zero.
    pub workload: u32,
    /// Process that created the socket.
    pub tgid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of the map `TUPLE`: the client's end of a connection on its way to the gate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub address: Address,
    /// Source port.
    pub port: u32,
}

/// Key of the map `DNS_SOURCE`: one query on its way to the resolver.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DnsKey {
    /// Source address of the datagram.
    pub address: Address,
    /// Source port of the datagram.
    pub port: u16,
    /// The message's id (RFC 1035, section 4.1.1) as a number.
    pub id: u16,
}

/// Value of the map `DNS_SOURCE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsSource {
    /// Number of the workload that asks.
    pub workload: u32,
    /// Process that connected the socket or sent the datagram.
    pub tgid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Port of the server that the process believes it asks.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Address of that server.
    pub address: Address,
}
