//! The side of the unprivileged gate: inherited descriptors, no capability.

use crate::bpf::{Table, per_cpu_sum};
use crate::{EventStream, KernelError, Origin};
use exeat_ebpf_abi::{
    Address, Destination, DnsKey, DnsSource as RawDnsSource, LOST_GATE, Listener, MAX_DESTINATIONS,
    MAX_LISTENERS, MAX_RANGES, Pod, Range, action, family, protocol,
};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// A map that the gate works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateMap {
    /// Addresses that workloads may reach.
    Allow,
    /// Ranges that workloads may reach.
    Ranges,
    /// Listeners whose replies may leave.
    Listen,
    /// Original destinations of accepted sockets.
    Accepted,
    /// Senders of DNS queries.
    DnsSource,
    /// The gate's sign of life.
    Heartbeat,
    /// Refusals.
    Events,
    /// Counters of lost records.
    Lost,
}

impl GateMap {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Allow,
        Self::Ranges,
        Self::Listen,
        Self::Accepted,
        Self::DnsSource,
        Self::Heartbeat,
        Self::Events,
        Self::Lost,
    ];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Ranges => "RANGES",
            Self::Listen => "LISTEN",
            Self::Accepted => "ACCEPTED",
            Self::DnsSource => "DNS_SOURCE",
            Self::Heartbeat => "HEARTBEAT",
            Self::Events => "EVENTS",
            Self::Lost => "LOST",
        }
    }

    /// The map of a stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|map| map.name() == name)
    }
}

/// Transport protocols that workloads may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What becomes of a permitted flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// TCP: the connection goes to the gate.
    Redirect,
    /// UDP: datagrams pass while the gate's heartbeat is fresh.
    Direct,
}

/// Who sent a DNS query to the gate's resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsSource {
    /// Number of the workload.
    pub workload: u32,
    /// Process that connected the socket or sent the datagram.
    pub tgid: u32,
    /// Its real user id.
    pub uid: u32,
    /// The server that it believes to ask.
    pub asked: SocketAddr,
}

/// The gate's access to the kernel.
#[derive(Debug)]
pub struct Gate {
    allow: Table<Destination, u32>,
    ranges: Table<Range, u32>,
    listen: Table<Listener, u32>,
    accepted: Table<i32, Origin>,
    dns_source: Table<DnsKey, RawDnsSource>,
    heartbeat: Table<u32, u64>,
    events: OwnedFd,
    lost: OwnedFd,
}

impl Gate {
    /// Takes the descriptors of [`Kernel::gate_descriptors`](crate::Kernel::gate_descriptors).
    ///
    /// # Errors
    /// One is missing, or is not the map that it is said to be.
    pub fn from_descriptors(descriptors: Vec<(GateMap, OwnedFd)>) -> Result<Self, KernelError> {
        let mut descriptors: HashMap<GateMap, OwnedFd> = descriptors.into_iter().collect();
        let mut take = |map: GateMap| {
            descriptors.remove(&map).ok_or_else(|| {
                KernelError::Argument(format!("no descriptor of the map `{}`", map.name()))
            })
        };
        Ok(Self {
            allow: table(GateMap::Allow, take(GateMap::Allow)?)?,
            ranges: table(GateMap::Ranges, take(GateMap::Ranges)?)?,
            listen: table(GateMap::Listen, take(GateMap::Listen)?)?,
            accepted: table(GateMap::Accepted, take(GateMap::Accepted)?)?,
            dns_source: table(GateMap::DnsSource, take(GateMap::DnsSource)?)?,
            heartbeat: table(GateMap::Heartbeat, take(GateMap::Heartbeat)?)?,
            events: take(GateMap::Events)?,
            lost: take(GateMap::Lost)?,
        })
    }

    /// What the process at the other end of an accepted connection asked for; `None`: the
    /// connection was not redirected by these programs.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn origin(&self, accepted: impl AsFd) -> Result<Option<Origin>, KernelError> {
        let socket = accepted.as_fd().as_raw_fd();
        self.accepted
            .get(&socket)
            .map_err(|cause| failed("read", GateMap::Accepted, cause))
    }

    /// Opens one address and port.
    ///
    /// # Errors
    /// [`KernelError::Full`]: the table is full.
    pub fn allow(
        &self,
        workload: u32,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        action: Action,
    ) -> Result<(), KernelError> {
        let key = destination(workload, address, port, protocol);
        self.allow
            .set(&key, &action.number(protocol)?)
            .map_err(|cause| failed("write", GateMap::Allow, cause))
    }

    /// Closes one address and port; no error if it was closed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disallow(
        &self,
        workload: u32,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Result<(), KernelError> {
        let key = destination(workload, address, port, protocol);
        self.allow
            .remove(&key)
            .map(drop)
            .map_err(|cause| failed("remove from", GateMap::Allow, cause))
    }

    /// Opens a range; `port` `None` stands for any. A rule with a port wins over one without, then
    /// a longer prefix over a shorter one.
    ///
    /// # Errors
    /// [`KernelError::Full`]: the table is full. [`KernelError::Argument`]: the prefix is longer
    /// than the address, or the port is 0.
    pub fn allow_range(
        &self,
        workload: u32,
        net: IpAddr,
        prefix: u8,
        port: Option<u16>,
        protocol: Protocol,
        action: Action,
    ) -> Result<(), KernelError> {
        let key = range(workload, net, prefix, port, protocol)?;
        self.ranges
            .set(&key, &action.number(protocol)?)
            .map_err(|cause| failed("write", GateMap::Ranges, cause))
    }

    /// Closes a range; no error if it was closed.
    ///
    /// # Errors
    /// As [`Gate::allow_range`].
    pub fn disallow_range(
        &self,
        workload: u32,
        net: IpAddr,
        prefix: u8,
        port: Option<u16>,
        protocol: Protocol,
    ) -> Result<(), KernelError> {
        let key = range(workload, net, prefix, port, protocol)?;
        self.ranges
            .remove(&key)
            .map(drop)
            .map_err(|cause| failed("remove from", GateMap::Ranges, cause))
    }

    /// Lets a workload's TCP listener answer. An unspecified `address` stands for any of both
    /// families.
    ///
    /// # Errors
    /// [`KernelError::Full`]: the table is full.
    pub fn permit_listener(
        &self,
        workload: u32,
        address: IpAddr,
        port: u16,
    ) -> Result<(), KernelError> {
        self.listen
            .set(&listener(workload, address, port), &1)
            .map_err(|cause| failed("write", GateMap::Listen, cause))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forbid_listener(
        &self,
        workload: u32,
        address: IpAddr,
        port: u16,
    ) -> Result<(), KernelError> {
        self.listen
            .remove(&listener(workload, address, port))
            .map(drop)
            .map_err(|cause| failed("remove from", GateMap::Listen, cause))
    }

    /// Closes everything that was opened for a workload.
    ///
    /// # Errors
    /// The kernel refuses; what could be closed is closed.
    pub fn forget(&self, workload: u32) -> Result<(), KernelError> {
        forget(&self.allow, &self.ranges, &self.listen, workload)
    }

    /// Who sent the query with this id from this address; the note is removed.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn dns_source(&self, from: SocketAddr, id: u16) -> Result<Option<DnsSource>, KernelError> {
        let key = DnsKey {
            address: from.ip().into(),
            port: from.port(),
            id,
        };
        let note = self
            .dns_source
            .take(&key)
            .map_err(|cause| failed("take from", GateMap::DnsSource, cause))?;
        Ok(note.map(|note| DnsSource {
            workload: note.workload,
            tgid: note.tgid,
            uid: note.uid,
            asked: SocketAddr::new(note.address.ip(), note.port),
        }))
    }

    /// Tells the kernel that the gate lives; due at least once a second.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn heartbeat(&self) -> Result<(), KernelError> {
        self.heartbeat
            .set(&0, &monotonic_ns()?)
            .map_err(|cause| failed("write", GateMap::Heartbeat, cause))
    }

    /// The gate's ring: refusals and drops. One reader at a time. Needs a tokio runtime.
    ///
    /// # Errors
    /// The ring cannot be mapped or waited on.
    pub fn events(&self) -> Result<EventStream, KernelError> {
        let fd = self
            .events
            .try_clone()
            .map_err(|cause| failed("duplicate", GateMap::Events, cause))?;
        EventStream::new(fd, GateMap::Events.name())
    }

    /// Records that the gate's ring had no room for, since the maps were made.
    ///
    /// # Errors
    /// The kernel refuses the question.
    pub fn lost(&self) -> Result<u64, KernelError> {
        per_cpu_sum(&self.lost, LOST_GATE).map_err(|cause| failed("read", GateMap::Lost, cause))
    }
}

impl Protocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

impl Action {
    fn number(self, protocol: Protocol) -> Result<u32, KernelError> {
        match (self, protocol) {
            (Self::Redirect, Protocol::Tcp) => Ok(action::REDIRECT),
            (Self::Direct, Protocol::Udp) => Ok(action::DIRECT),
            (Self::Direct, Protocol::Tcp) | (Self::Redirect, Protocol::Udp) => {
                Err(KernelError::Argument(
                    "TCP flows are redirected and UDP flows are direct, not the reverse".to_owned(),
                ))
            }
        }
    }
}

fn table<K: Pod, V: Pod>(map: GateMap, fd: OwnedFd) -> Result<Table<K, V>, KernelError> {
    Table::new(fd).map_err(|cause| failed("use", map, cause))
}

fn failed(what: &'static str, map: GateMap, cause: io::Error) -> KernelError {
    KernelError::map(what, map.name(), cause)
}

fn destination(workload: u32, address: IpAddr, port: u16, protocol: Protocol) -> Destination {
    let family = match address.to_canonical() {
        IpAddr::V4(_) => family::V4,
        IpAddr::V6(_) => family::V6,
    };
    Destination {
        workload,
        port,
        protocol: protocol.number(),
        family,
        address: address.into(),
    }
}

fn range(
    workload: u32,
    net: IpAddr,
    prefix: u8,
    port: Option<u16>,
    protocol: Protocol,
) -> Result<Range, KernelError> {
    let (longest, before) = match net {
        IpAddr::V4(_) => (32, 96),
        IpAddr::V6(_) => (128, 0),
    };
    if prefix > longest || port == Some(0) {
        return Err(KernelError::Argument(format!(
            "`{net}/{prefix}` port {} is not a range",
            port.unwrap_or(0)
        )));
    }
    if matches!(net, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(KernelError::Argument(format!(
            "`{net}` must be given as an IPv4 address"
        )));
    }
    // Workload, port, protocol and family always count.
    let bits = 64 + before + u32::from(prefix);
    let mut destination = destination(workload, net, port.unwrap_or(0), protocol);
    let kept = u128::MAX.checked_shl(192 - bits).unwrap_or(0);
    let masked = u128::from_be_bytes(destination.address.0) & kept;
    destination.address = Address(masked.to_be_bytes());
    Ok(Range { bits, destination })
}

fn listener(workload: u32, address: IpAddr, port: u16) -> Listener {
    let address = if address.is_unspecified() {
        Address::default()
    } else {
        address.into()
    };
    Listener {
        workload,
        port,
        pad: 0,
        address,
    }
}

fn monotonic_ns() -> Result<u64, KernelError> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable and of the type that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    if result != 0 {
        let cause = io::Error::last_os_error();
        return Err(KernelError::System {
            what: "read the monotonic clock",
            cause,
        });
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Closes everything that was opened for a workload, in all tables.
pub(crate) fn forget(
    allow: &Table<Destination, u32>,
    ranges: &Table<Range, u32>,
    listen: &Table<Listener, u32>,
    workload: u32,
) -> Result<(), KernelError> {
    let first = sweep(allow, MAX_DESTINATIONS, |key| key.workload == workload);
    let second = sweep(ranges, MAX_RANGES, |key| {
        key.destination.workload == workload
    });
    let third = sweep(listen, MAX_LISTENERS, |key| key.workload == workload);
    first.map_err(|cause| failed("clear", GateMap::Allow, cause))?;
    second.map_err(|cause| failed("clear", GateMap::Ranges, cause))?;
    third.map_err(|cause| failed("clear", GateMap::Listen, cause))
}

fn sweep<K: Pod, V: Pod>(
    table: &Table<K, V>,
    limit: u32,
    belongs: impl Fn(&K) -> bool,
) -> io::Result<()> {
    for key in table.keys(limit)?.iter().filter(|key| belongs(key)) {
        table.remove(key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Protocol, range};
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_masked_and_keep_families_apart() {
        let v4 = range(1, ip("10.1.2.3"), 8, None, Protocol::Udp).unwrap();
        assert_eq!(v4.bits, 64 + 96 + 8);
        assert_eq!(v4.destination.address.ip(), ip("10.0.0.0"));
        let all6 = range(1, ip("::"), 0, Some(443), Protocol::Tcp).unwrap();
        let all4 = range(1, ip("0.0.0.0"), 0, Some(443), Protocol::Tcp).unwrap();
        assert_eq!(all6.bits, 64);
        assert_ne!(all4.destination.family, all6.destination.family);
        let one = range(1, ip("2001:db8::7"), 128, None, Protocol::Tcp).unwrap();
        assert_eq!(one.destination.address.ip(), ip("2001:db8::7"));
    }

    #[test]
    fn odd_ranges_are_refused() {
        for (net, prefix, port) in [
            ("10.0.0.0", 33, None),
            ("::", 129, None),
            ("::", 0, Some(0)),
            ("::ffff:1.2.3.4", 128, None),
        ] {
            assert!(
                range(1, ip(net), prefix, port, Protocol::Tcp).is_err(),
                "{net}/{prefix}"
            );
        }
    }
}
