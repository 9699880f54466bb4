//! From a permit to a connection: resolve again, check, dial what was checked, TLS, HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::Name;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::audit::{AuditUnavailable, Intended};
use crate::decide::{Connect, Permit};
use crate::forward::body::HttpFault;
use crate::forward::dial::{DialFault, Route, SiteProxy, connect, secure};
use crate::forward::upstream::{Sender, Version};
use crate::identify::agree::is_localhost;
use crate::identify::peer::Peer;
use crate::refuse::{Refusal, Timeout, Upstream};
use crate::resolve::{Oracle, ResolveFault, Resolver};
use crate::tls::leaf::Alpn;
use crate::tls::upstream::{UpstreamTlsFault, Upstreams};

/// Where and how to connect.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// Whose connection it is.
    pub workload: u32,
    /// The peer that was agreed on.
    pub peer: &'a Peer,
    /// The port.
    pub port: u16,
    /// The address that the workload dialled; used only where there is no name to resolve.
    pub dialled: IpAddr,
}

/// Everything that opening a connection needs.
#[derive(Debug)]
pub struct Ways<O> {
    /// Resolves names again.
    pub resolver: Arc<Resolver<O>>,
    /// TLS towards upstreams.
    pub tls: Upstreams,
    /// The site's own proxy.
    pub proxy: Option<SiteProxy>,
    /// Deadline of each step.
    pub limit: Duration,
    /// Where connections' tasks run.
    pub tasks: TaskTracker,
    /// Where no workload is connected to.
    pub closed: Closed,
}

/// Where approvers decide: what a workload learnt of their links must not be of use to it.
#[derive(Debug, Default)]
pub struct Closed {
    /// Where links are answered, on loopback.
    pub listen: Option<SocketAddr>,
    /// Host and port that links lead to.
    pub name: Option<(Name, u16)>,
}

impl Closed {
    /// Whether this peer is there by its name, or one of these addresses by its port.
    fn holds(&self, peer: &Peer, port: u16, addresses: &[SocketAddr]) -> bool {
        let named =
            |(name, at): &(Name, u16)| *at == port && matches!(peer, Peer::Name(of) if of == name);
        let here = |address: &SocketAddr| {
            let ip = address.ip().to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        };
        let listens = self.listen.is_some_and(|listen| listen.port() == port);
        self.name.as_ref().is_some_and(named) || listens && addresses.iter().any(here)
    }
}

/// The workload of the gate's own connections.
const NOBODY: u32 = 0;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum OpenFault {
    /// The name has no acceptable address.
    #[error("resolving the name to dial")]
    Resolve(#[from] ResolveFault),
    /// The permit is not for the network.
    #[error("a permit without terms for the network")]
    Terms,
    /// Nothing is dialled: only people have business there.
    #[error("no workload is connected to where approvers decide")]
    Closed,
    /// Nothing is dialled: an administrator has disconnected the server.
    #[error("the server is disconnected")]
    Disconnected,
    /// Dialling failed.
    #[error("reaching the upstream")]
    Dial(#[from] DialFault),
    /// The client side of TLS could not be set up.
    #[error("setting up TLS")]
    Tls(#[from] UpstreamTlsFault),
    /// The peer has no form that TLS verifies.
    #[error("`{0}` is not a name that a certificate can be verified for")]
    Name(Peer),
    /// HTTP could not be begun.
    #[error("beginning HTTP")]
    Http(#[source] HttpFault),
    /// It cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] AuditUnavailable),
}

impl OpenFault {
    /// What the caller is told.
    pub fn refusal(&self) -> Refusal<'static> {
        match self {
            Self::Resolve(_) => Refusal::Upstream(Upstream::Dns),
            Self::Terms | Self::Closed => Refusal::Denied,
            Self::Disconnected => Refusal::Disconnected,
            Self::Unrecorded(_) => Refusal::AuditUnavailable,
            Self::Tls(_) | Self::Name(_) => Refusal::Upstream(Upstream::Tls),
            Self::Http(_) => Refusal::Upstream(Upstream::Protocol),
            Self::Dial(fault) => match fault {
                DialFault::ConnectTimeout { .. } | DialFault::TlsTimeout { .. } => {
                    Refusal::TimedOut(Timeout::Connect)
                }
                DialFault::Connect { .. }
                | DialFault::Proxy { .. }
                | DialFault::ProxyProtocol { .. }
                | DialFault::ProxyBytes { .. } => Refusal::Upstream(Upstream::Connect),
                DialFault::Certificate { .. } => Refusal::Upstream(Upstream::Certificate),
                DialFault::Tls { .. } => Refusal::Upstream(Upstream::Tls),
            },
        }
    }
}

impl<O: Oracle> Ways<O> {
    /// Opens TCP.
    ///
    /// # Errors
    /// [`OpenFault`], but for TLS and HTTP.
    pub async fn raw(
        &self,
        permit: Permit<Connect>,
        _intended: &Intended<'_>,
        to: Destination<'_>,
    ) -> Result<TcpStream, OpenFault> {
        let addresses = self.addresses(&permit, to).await?;
        Ok(connect(&self.route(to, &addresses)).await?)
    }

    /// Opens HTTP in clear text.
    ///
    /// # Errors
    /// [`OpenFault`], but for TLS.
    pub async fn clear(
        &self,
        permit: Permit<Connect>,
        intended: &Intended<'_>,
        to: Destination<'_>,
        version: Version,
    ) -> Result<Sender, OpenFault> {
        let stream = self.raw(permit, intended, to).await?;
        Sender::start(stream, version, &self.tasks)
            .await
            .map_err(OpenFault::Http)
    }

    /// Opens HTTP over TLS, in the version that the upstream chose from `offers`.
    ///
    /// # Errors
    /// [`OpenFault`].
    pub async fn tls(
        &self,
        permit: Permit<Connect>,
        _intended: &Intended<'_>,
        to: Destination<'_>,
        offers: &[Alpn],
    ) -> Result<(Sender, Alpn), OpenFault> {
        let addresses = self.addresses(&permit, to).await?;
        let route = self.route(to, &addresses);
        let name = to
            .peer
            .server_name()
            .ok_or_else(|| OpenFault::Name(to.peer.clone()))?;
        let config = self.tls.config(to.workload, &to.peer.to_string(), offers)?;
        let stream = connect(&route).await?;
        let stream = secure(stream, config, name, &route).await?;
        let alpn = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(_) => Alpn::Http1,
            None => Alpn::None,
        };
        let version = if alpn == Alpn::Http2 {
            Version::Http2
        } else {
            Version::Http1
        };
        let sender = Sender::start(stream, version, &self.tasks)
            .await
            .map_err(OpenFault::Http)?;
        Ok((sender, alpn))
    }

    fn route<'a>(&'a self, to: Destination<'a>, addresses: &'a [SocketAddr]) -> Route<'a> {
        let target = match to.peer {
            Peer::Address(IpAddr::V6(v6)) => format!("[{v6}]:{}", to.port),
            peer => format!("{peer}:{}", to.port),
        };
        // What is on this machine is never beyond the site's proxy.
        let here = addresses.iter().any(|address| address.ip().is_loopback());
        let proxy = self.proxy.as_ref().filter(|_| !here);
        Route {
            target,
            addresses,
            proxy,
            limit: self.limit,
        }
    }

    async fn addresses(
        &self,
        permit: &Permit<Connect>,
        to: Destination<'_>,
    ) -> Result<Vec<SocketAddr>, OpenFault> {
        let terms = permit.egress().ok_or(OpenFault::Terms)?;
        let found = match to.peer {
            Peer::Address(address) => vec![*address],
            Peer::Name(name) if is_localhost(name) => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            // The site's proxy resolves; an address of ours would be judged and not used.
            Peer::Name(_) if self.proxy.is_some() => Vec::new(),
            Peer::Name(name) => self.resolver.resolve_checked(name, terms.private).await?,
        };
        let mut addresses: Vec<SocketAddr> = found
            .into_iter()
            .map(|address| SocketAddr::new(address, to.port))
            .collect();
        if to.workload != NOBODY && self.closed.holds(to.peer, to.port, &addresses) {
            return Err(OpenFault::Closed);
        }
        // The family that the workload chose is the one that works on its way.
        addresses.sort_by_key(|address| address.is_ipv4() != to.dialled.is_ipv4());
        Ok(addresses)
    }
}
