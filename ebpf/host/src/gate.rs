//! The side of the unprivileged gate: inherited descriptors, no capability.

use crate::{EventStream, KernelError, Origin};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

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
pub struct Gate {}

impl Gate {
    /// Takes the descriptors of [`Kernel::gate_descriptors`](crate::Kernel::gate_descriptors).
    ///
    /// # Errors
    /// One is missing.
    pub fn from_descriptors(descriptors: Vec<(GateMap, OwnedFd)>) -> Result<Self, KernelError> {
        drop(descriptors);
        Ok(Self {})
    }

    /// What the process at the other end of an accepted connection asked for; `None`: the
    /// connection was not redirected by these programs.
    pub fn origin(&self, _accepted: impl AsFd) -> Result<Option<Origin>, KernelError> {
        Ok(None)
    }

    /// Opens one address and port. [`KernelError::Full`]: the table is full.
    pub fn allow(
        &self,
        _workload: u32,
        _address: IpAddr,
        _port: u16,
        _protocol: Protocol,
        _action: Action,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Closes one address and port; no error if it was closed.
    pub fn disallow(
        &self,
        _workload: u32,
        _address: IpAddr,
        _port: u16,
        _protocol: Protocol,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Opens a range; `port` `None` stands for any. A longer prefix wins over a shorter one, a rule
    /// with a port over one without.
    pub fn allow_range(
        &self,
        _workload: u32,
        _net: IpAddr,
        _prefix: u8,
        _port: Option<u16>,
        _protocol: Protocol,
        _action: Action,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Closes a range; no error if it was closed.
    pub fn disallow_range(
        &self,
        _workload: u32,
        _net: IpAddr,
        _prefix: u8,
        _port: Option<u16>,
        _protocol: Protocol,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Lets a workload's TCP listener answer. An unspecified `address` stands for any.
    pub fn permit_listener(
        &self,
        _workload: u32,
        _address: IpAddr,
        _port: u16,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Takes that back.
    pub fn forbid_listener(
        &self,
        _workload: u32,
        _address: IpAddr,
        _port: u16,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    /// Closes everything that was opened for a workload.
    pub fn forget(&self, _workload: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Who sent the query with this id from this address; the note is removed.
    pub fn dns_source(
        &self,
        _from: SocketAddr,
        _id: u16,
    ) -> Result<Option<DnsSource>, KernelError> {
        Ok(None)
    }

    /// Tells the kernel that the gate lives; due at least once a second.
    pub fn heartbeat(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// The gate's ring: refusals and drops. One reader at a time.
    pub fn events(&self) -> Result<EventStream, KernelError> {
        Ok(EventStream {})
    }

    /// Records that the gate's ring had no room for, since the maps were made.
    pub fn lost(&self) -> Result<u64, KernelError> {
        Ok(0)
    }
}
