//! Where servers listen that others start: the kernel sends whoever connects there to the gate.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use exeat_policy::{Endpoint, Transport};
use nix::ifaddrs::getifaddrs;

use super::core::Supervisor;
use crate::launch::stage::chain;

/// What is guarded.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    /// Every port that was, in the daemon's life.
    ports: BTreeSet<u16>,
    /// What the kernel was told: servers' addresses, ports, and this machine's addresses.
    told: Option<(Vec<SocketAddr>, Vec<u16>, Vec<IpAddr>)>,
}

impl Supervisor {
    /// Tells the kernel where servers listen that others start: whoever connects there is sent to the gate.
    pub(super) async fn guard(&mut self) {
        let mut places = Vec::new();
        for server in self.parts.policy.set.servers() {
            let Transport::Listen(endpoint) = &server.transport else {
                continue;
            };
            let port = endpoint.port();
            self.guarding.ports.insert(port);
            places.extend(
                addresses(endpoint)
                    .into_iter()
                    .map(|address| SocketAddr::new(address, port)),
            );
        }
        // A port stays guarded while the daemon lives: what still listens there is answered for, though not listed.
        let ports: Vec<u16> = self.guarding.ports.iter().copied().collect();
        let local = if ports.is_empty() {
            Vec::new()
        } else {
            local()
        };
        let wanted = (places, ports, local);
        if self.guarding.told.as_ref() == Some(&wanted) {
            return;
        }
        let (places, ports, local) = &wanted;
        match self.parts.kernel.guard(places, ports, local) {
            Ok(()) => self.guarding.told = Some(wanted),
            Err(error) => {
                self.guarding.told = None;
                self.finding("guard_incomplete", None, vec![chain(&error)])
                    .await;
            }
        }
    }
}

/// Where a server listens, as far as an address says it.
fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let loopback = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    match endpoint {
        Endpoint::Address(address, _) if address.is_unspecified() => loopback(),
        endpoint => endpoint.addresses(),
    }
}

/// This machine's addresses, but for loopback's, which the programs know.
fn local() -> Vec<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "listing this machine's addresses");
            return Vec::new();
        }
    };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
