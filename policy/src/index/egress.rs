//! What one workload may reach, by name and by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Id, Map};
use crate::decide::Origin;
use crate::model::{
    Cidr, EgressRule, Endpoint, Host, HostRule, Kind, Protocol, Server, Tls, Transport, Url, Wire,
};
use crate::name::{HostPattern, Name};
use crate::path::PathGlob;

/// One way out.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    pub(crate) ports: Box<[u16]>,
    pub(crate) wire: Wire,
    pub(crate) tls: Tls,
    pub(crate) private: bool,
    pub(crate) synthetic: bool,
    pub(crate) upgrade: bool,
    pub(crate) kind: Option<Kind>,
    /// Never CONNECT; empty: all but TRACE.
    pub(crate) methods: Box<[Arc<str>]>,
    /// Empty: all.
    pub(crate) paths: Box<[PathGlob]>,
    /// The registered server that is reached, and the path of its URL.
    pub(crate) server: Option<(Arc<str>, Option<Url>)>,
    /// The credential of its requests.
    pub(crate) credential: Option<Arc<str>>,
}

impl Entry {
    /// Whether it is a registered server at one path of its origin.
    pub(crate) const fn is_at_path(&self) -> bool {
        matches!(self.server, Some((_, Some(_))))
    }

    /// Whether it is a host of `launch.fetch`.
    pub(crate) const fn is_fetch(&self) -> bool {
        matches!(self.origin, Origin::Fetch(_))
    }
}

/// What one workload may reach.
#[derive(Debug, Default)]
pub(crate) struct EgressTable {
    exact: Map<Arc<str>, Vec<Id>>,
    below: Map<Arc<str>, Vec<Id>>,
    pub(crate) ranges: Vec<(Cidr, Entry)>,
    entries: Vec<Entry>,
}

impl EgressTable {
    /// A server: its egress list, and its fetch hosts, which are read from only.
    pub(super) fn of_server(server: &Server) -> Self {
        let mut table = Self::default();
        table.add_list(&server.egress);
        for (index, name) in server
            .launch()
            .into_iter()
            .flat_map(|launch| launch.fetch.iter())
            .enumerate()
        {
            let entry = Entry {
                methods: ["GET".into(), "HEAD".into()].into(),
                ..bare(Origin::Fetch(index), 443, Tls::Intercept)
            };
            table.add(&HostPattern::Exact(name.clone()), entry);
        }
        table.ordered()
    }

    /// A host: its egress list, and the servers that it lists.
    pub(super) fn of_host<'a>(
        host: &Host,
        server: impl Fn(&Arc<str>) -> Option<&'a Server>,
    ) -> Self {
        let mut table = Self::default();
        table.add_list(&host.egress);
        for (index, name) in host.servers.iter().enumerate() {
            let Some(server) = server(name) else { continue };
            let Some(reached) = reached(server) else {
                continue;
            };
            let url = match &server.transport {
                Transport::Url(url) => Some(url.clone()),
                Transport::Launch(_) | Transport::Listen(_) => None,
            };
            let entry = Entry {
                private: reached.private,
                server: Some((Arc::clone(name), url)),
                ..bare(Origin::Server(index), reached.port, reached.tls)
            };
            for name in reached.names {
                table.add(&HostPattern::Exact(name), entry.clone());
            }
            for address in reached.addresses {
                table.ranges.push((Cidr::single(address), entry.clone()));
            }
        }
        table.ordered()
    }

    /// A user of this machine: the servers that listen on it, at any address where one listens at all. Which of
    /// them the user reaches, rules say.
    pub(super) fn of_users(servers: &[Server]) -> Self {
        let mut table = Self::default();
        for (index, server) in servers.iter().enumerate() {
            let Transport::Listen(endpoint) = &server.transport else {
                continue;
            };
            let Some(reached) = reached(server) else {
                continue;
            };
            let entry = Entry {
                private: true,
                server: Some((Arc::clone(&server.name), None)),
                ..bare(Origin::Server(index), reached.port, reached.tls)
            };
            for name in reached.names {
                table.add(&HostPattern::Exact(name), entry.clone());
            }
            let everywhere =
                matches!(endpoint, Endpoint::Address(address, _) if address.is_unspecified());
            let nets = reached.addresses.into_iter().map(|address| {
                if everywhere {
                    Cidr::all(address.is_ipv4())
                } else {
                    Cidr::single(address)
                }
            });
            table.ranges.extend(nets.map(|net| (net, entry.clone())));
        }
        table.ordered()
    }

    /// With the narrowest networks first, and of one network what is read before what is passed on unread.
    fn ordered(mut self) -> Self {
        self.ranges
            .sort_by_key(|(net, entry)| (net.host_bits(), entry.wire != Wire::Http));
        self
    }

    fn add_list(&mut self, rules: &[EgressRule]) {
        for (index, rule) in rules.iter().enumerate() {
            let origin = Origin::Egress(index);
            match rule {
                EgressRule::Host(rule) => {
                    let entry = named(origin, rule);
                    // It is what it says, whoever resolves it (RFC 6761 section 6.3): nobody asks for its addresses.
                    let local = matches!(&rule.host, HostPattern::Exact(name) if name.as_str() == "localhost");
                    if local && rule.private {
                        for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                            let entry = Entry {
                                credential: None,
                                ..entry.clone()
                            };
                            self.ranges.push((Cidr::single(address), entry));
                        }
                    }
                    self.add(&rule.host, entry);
                }
                EgressRule::Range(rule) => {
                    let wire = match rule.protocol {
                        Protocol::Tcp => Wire::Tcp,
                        Protocol::Udp => Wire::Udp,
                    };
                    let entry = Entry {
                        ports: rule.ports.clone().into(),
                        wire,
                        private: true,
                        ..bare(origin, 0, Tls::Passthrough)
                    };
                    self.ranges.push((rule.net, entry));
                }
            }
        }
    }

    fn add(&mut self, pattern: &HostPattern, mut entry: Entry) {
        let id = Id::try_from(self.entries.len()).unwrap_or(Id::MAX);
        let (map, name) = match pattern {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Below(apex) => (&mut self.below, apex),
        };
        let same = map.entry(name.as_str().into()).or_default();
        // What an operator's entry says of a name holds for a registered server at that name too.
        for other in same.iter() {
            let other = self.entries.get_mut(super::position(*other));
            if let Some(other) =
                other.filter(|other| other.ports.iter().any(|port| entry.ports.contains(port)))
            {
                let private = other.private || entry.private;
                (other.private, entry.private) = (private, private);
            }
        }
        same.push(id);
        self.entries.push(entry);
    }

    /// Every entry that names the host, the most specific first: by its own name, then by the longest
    /// apex above it. Entries of one pattern come in the order written.
    pub(crate) fn named<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Entry> {
        let above = name
            .as_str()
            .match_indices('.')
            .filter_map(|(dot, _)| name.as_str().get(dot + 1..));
        self.exact
            .get(name.as_str())
            .into_iter()
            .chain(above.filter_map(|apex| self.below.get(apex)))
            .flatten()
            .filter_map(|id| self.entries.get(super::position(*id)))
    }

    /// Every entry that covers the address, the most specific first: by the narrowest network. Entries of one network
    /// come in the order written, those that are read before others.
    pub(crate) fn covering(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        self.ranges
            .iter()
            .filter(move |(net, _)| net.contains(address))
            .map(|(_, entry)| entry)
    }
}

/// An entry that allows HTTP on one port, with nothing else said.
fn bare(origin: Origin, port: u16, tls: Tls) -> Entry {
    Entry {
        origin,
        ports: [port].into(),
        wire: Wire::Http,
        tls,
        private: false,
        synthetic: false,
        upgrade: false,
        kind: None,
        methods: Box::default(),
        paths: Box::default(),
        server: None,
        credential: None,
    }
}

fn named(origin: Origin, rule: &HostRule) -> Entry {
    Entry {
        origin,
        ports: rule.ports.clone().into(),
        wire: rule.wire,
        tls: rule.tls,
        private: rule.private,
        synthetic: rule.synthetic,
        upgrade: rule.upgrade,
        kind: rule.kind,
        methods: rule.methods.clone().into(),
        paths: rule.paths.clone().into(),
        server: None,
        credential: rule.credential.clone(),
    }
}

/// Where registered servers are reached by address, whoever may.
#[derive(Debug, Default)]
pub(crate) struct Served(Map<u16, Vec<Cidr>>);

impl Served {
    /// A server that listens at every address of this machine is taken for one at any: no policy knows which those are.
    pub(super) fn new(servers: &[Server]) -> Self {
        let mut served = Self::default();
        for server in servers {
            let Some(reached) = reached(server) else {
                continue;
            };
            let everywhere = matches!(
                &server.transport,
                Transport::Listen(Endpoint::Address(address, _)) if address.is_unspecified()
            );
            let nets = reached.addresses.into_iter().map(|address| {
                if everywhere {
                    Cidr::all(address.is_ipv4())
                } else {
                    Cidr::single(address)
                }
            });
            served.0.entry(reached.port).or_default().extend(nets);
        }
        served
    }

    /// Whether one is there.
    pub(crate) fn holds(&self, address: IpAddr, port: u16) -> bool {
        let nets = self.0.get(&port);
        nets.is_some_and(|nets| nets.iter().any(|net| net.contains(address)))
    }
}

/// Where a registered server is reached over the network.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) names: Vec<Name>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: u16,
    pub(crate) tls: Tls,
    pub(crate) private: bool,
}

/// Where a server with `url` or `listen` is reached. What listens on loopback, or on every address, is
/// reached by `localhost` too.
pub(crate) fn reached(server: &Server) -> Option<Reached> {
    let (endpoint, tls) = match &server.transport {
        Transport::Launch(_) => return None,
        Transport::Url(url) => (
            &url.endpoint,
            if url.tls { Tls::Intercept } else { Tls::Off },
        ),
        Transport::Listen(endpoint) => (endpoint, Tls::Off),
    };
    let port = endpoint.port();
    let localhost = || Name::parse("localhost").into_iter().collect();
    let (names, addresses, private) = match endpoint {
        Endpoint::Name(name, _) => {
            let addresses = endpoint.addresses();
            (vec![name.clone()], addresses.clone(), !addresses.is_empty())
        }
        Endpoint::Address(address, _) if address.is_unspecified() => (
            localhost(),
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            true,
        ),
        Endpoint::Address(address, _) if address.is_loopback() => {
            (localhost(), vec![*address], true)
        }
        Endpoint::Address(address, _) => (Vec::new(), vec![*address], true),
    };
    Some(Reached {
        names,
        addresses,
        port,
        tls,
        private,
    })
}
