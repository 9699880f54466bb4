//! From the setup to the stages.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use exeat_ebpf::{Gate as Kernel, GateMap};
use hyper::Uri;
use hyper::header::HeaderValue;
use nix::ifaddrs::getifaddrs;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::GateError;
use super::limits;
use super::supervisor::Supervisor;
use crate::audit::{Log, Options, SyncPolicy, Writer};
use crate::channel::{GateEnd, ProxyCredentials, Role, Setup, Source};
use crate::config::{Config, DnsUpstream, HttpsUrl, Limits};
use crate::decide::Decider;
use crate::decide::approvals::{Approvals, Approver, Links};
use crate::decode::base64;
use crate::flow::{Approving, Bounds, Names, Observed, Sessions, Stages, Webhook};
use crate::forward::credential::Credentials;
use crate::forward::dial::SiteProxy;
use crate::forward::open::{Closed, Ways};
use crate::identify::bindings::{Bindings, synthetic_prefix};
use crate::identify::calls::Calls;
use crate::identify::certificate::Authorities;
use crate::identify::live::Live;
use crate::identify::token::Tokens;
use crate::identify::told::Told;
use crate::identify::users::Users;
use crate::identify::workloads::Workloads;
use crate::intake::Intake;
use crate::resolve::{Own, Resolver, Settings, parse_resolv_conf};
use crate::tls::leaf::Leaves;
use crate::tls::upstream::{ClientCertificate, Upstreams};

/// Certificates that may be asked for at once.
const SIGNATURES: usize = 64;

/// Everything, ready to serve.
pub(super) struct Built {
    pub(super) stages: Arc<Stages>,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) datagrams: Vec<UdpSocket>,
    pub(super) console: Option<TcpListener>,
    pub(super) supervisor: Supervisor,
    pub(super) writer: Writer,
    pub(super) limits: limits::Kept,
}

/// Builds every stage, in the order in which they need each other.
pub(super) fn build(
    setup: Setup,
    descriptors: Vec<OwnedFd>,
    channel: Arc<GateEnd>,
) -> Result<Built, GateError> {
    let mut given = Given::sort(&setup.descriptors, descriptors);
    let kernel = Arc::new(Kernel::from_descriptors(std::mem::take(&mut given.maps))?);
    let directory = given.one(&Role::AuditDirectory, "audit directory")?;
    let audit = directory
        .try_clone()
        .map_err(descriptor("the audit directory"))?;
    let (log, writer) = Log::start(directory, options(&setup))?;

    let decider = decider(&setup)?;
    let limits = given.one(&Role::LimitsDirectory, "directory of limits")?;
    let limits = limits::Kept::take_up(limits, &decider);
    let workloads = Arc::new(Workloads::new(size(setup.config.limits.held_bytes)));
    let bindings = Arc::new(Bindings::new(Arc::clone(&kernel)));
    let names = Names {
        decider: Arc::clone(&decider),
        workloads: Arc::clone(&workloads),
        bindings: Arc::clone(&bindings),
    };
    let resolver = Arc::new(Resolver::new(names, resolver_settings(&setup.config))?);
    let tasks = TaskTracker::new();
    let ways = ways(&setup, &resolver, &tasks)?;
    let stopping = CancellationToken::new();
    let approvals = Approvals::new(setup.approvals.clone(), stopping.clone());
    let (signer, requests) = mpsc::channel(SIGNATURES);
    let (told, asked) = Told::new();
    let intake = intake(kernel, workloads, told, &setup.config.limits);
    let bounds = bounds(&setup.config.limits);
    let stages = Arc::new(Stages {
        intake,
        bindings,
        calls: Calls::default(),
        observed: Observed::default(),
        sessions: Sessions::default(),
        decider,
        approvals,
        approving: approving(&setup)?.map(Arc::new),
        credentials: Credentials::default(),
        tokens: tokens(&setup)?,
        authorities: authorities(&setup)?,
        log,
        resolver,
        leaves: Leaves::new(signer)?,
        ways,
        bounds,
        tasks,
        stopping,
    });
    let (listeners, datagrams, console) = given.sockets()?;
    let mut supervisor =
        Supervisor::new(channel, Arc::clone(&stages), requests, asked, audit, &setup);
    supervisor.begin(setup.workloads, &setup.processes);
    Ok(Built {
        stages,
        listeners,
        datagrams,
        console,
        supervisor,
        writer,
        limits,
    })
}

/// Policy as it was offered, and the servers that were disconnected before this gate began.
fn decider(setup: &Setup) -> Result<Arc<Decider>, GateError> {
    let decider = Decider::new(compile(&setup.sources)?, setup.generation);
    for disconnection in setup.disconnected.iter().cloned() {
        let server = disconnection.server.clone();
        decider.disconnect(disconnection);
        decider.cut(&server);
    }
    Ok(Arc::new(decider))
}

fn intake(kernel: Arc<Kernel>, workloads: Arc<Workloads>, told: Told, limits: &Limits) -> Intake {
    Intake {
        kernel,
        workloads,
        told,
        users: Arc::new(Users::default()),
        live: Arc::new(Live::default()),
        most: size(limits.connections_per_workload.into()),
    }
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        greeting: limits.header_deadline,
        idle: limits.idle_deadline,
        answer: limits.answer_deadline,
        fetch: limits.fetch_deadline,
        body: size(limits.body_bytes),
        headers: size(limits.header_bytes.into()),
    }
}

/// A configured bound; one beyond the address space is none.
fn size(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

/// Compiles what the supervisor sent; it compiled there as well.
pub(super) fn compile(sources: &[Source]) -> Result<exeat_policy::PolicySet, GateError> {
    let sources: Vec<exeat_policy::Source> = sources
        .iter()
        .map(|source| exeat_policy::Source {
            name: source.name.clone(),
            text: source.text.clone(),
        })
        .collect();
    exeat_policy::compile(&sources).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        GateError::Policy(faults.join("; "))
    })
}

/// This machine's addresses, which no name may resolve to.
pub(super) fn own_addresses() -> Own {
    let addresses = match getifaddrs() {
        Ok(interfaces) => interfaces
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "listing this machine's addresses");
            Vec::new()
        }
    };
    Own {
        addresses,
        synthetic: Some(synthetic_prefix()),
    }
}

/// The servers that are asked, as configured.
pub(super) fn dns_upstreams(config: &Config) -> Vec<SocketAddr> {
    match &config.dns.upstream {
        DnsUpstream::Servers(servers) => servers.clone(),
        DnsUpstream::ResolvConf(path) => match std::fs::read_to_string(path) {
            Ok(text) => parse_resolv_conf(&text, |_zone| None).servers,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "reading the resolvers to ask");
                Vec::new()
            }
        },
    }
}

fn resolver_settings(config: &Config) -> Settings {
    Settings {
        upstreams: dns_upstreams(config),
        own: own_addresses(),
        ..Settings::default()
    }
}

fn options(setup: &Setup) -> Options {
    let config = &setup.config;
    let sync = if config.audit.sync.is_zero() {
        SyncPolicy::EachRecord
    } else {
        SyncPolicy::Within(config.audit.sync)
    };
    Options {
        sync,
        segment_bytes: config.audit.segment_bytes,
        generation: setup.generation,
        ..Options::default()
    }
}

fn upstreams(setup: &Setup) -> Result<Upstreams, GateError> {
    let names = setup
        .config
        .tls
        .extra_roots
        .iter()
        .map(|path| path.display().to_string());
    let extra: Vec<(String, String)> = names.zip(setup.extra_roots.iter().cloned()).collect();
    let certificates = setup
        .client_identities
        .iter()
        .map(|identity| ClientCertificate {
            host: identity.host.clone(),
            chain: identity.certificate.clone(),
            key: identity.key.expose().to_owned(),
        })
        .collect();
    Ok(Upstreams::new(&extra, certificates)?)
}

fn authorities(setup: &Setup) -> Result<ArcSwap<Authorities>, GateError> {
    let given = setup.client_authorities.iter();
    let given = given.map(|(name, text)| (&**name, &**text));
    Ok(ArcSwap::from_pointee(Authorities::new(given)?))
}

fn tokens(setup: &Setup) -> Result<Tokens, GateError> {
    let sets = setup.key_sets.iter().map(Option::as_deref);
    let issuers = setup.config.issuers.iter().zip(sets);
    Tokens::new(issuers, setup.config.limits.connect_deadline)
        .map_err(|(issuer, source)| GateError::KeySet { issuer, source })
}

/// The ways out.
fn ways(
    setup: &Setup,
    resolver: &Arc<Resolver<Names>>,
    tasks: &TaskTracker,
) -> Result<Ways<Names>, GateError> {
    Ok(Ways {
        resolver: Arc::clone(resolver),
        tls: upstreams(setup)?,
        proxy: site_proxy(&setup.config, setup.proxy_credentials.as_ref())?,
        limit: setup.config.limits.connect_deadline,
        tasks: tasks.clone(),
        closed: closed(&setup.config),
    })
}

/// How approvals reach people.
fn approving(setup: &Setup) -> Result<Option<Approving>, GateError> {
    let (Some(config), Some(material)) = (&setup.config.approvals, &setup.approving) else {
        return Ok(None);
    };
    let odd = |why: &str| GateError::Approvals(why.to_owned());
    let key = material.key.0.as_slice();
    let key = key
        .try_into()
        .map_err(|_other| odd("the key has not 32 bytes"))?;
    let webhooks = config.webhooks.iter().zip(&material.webhooks);
    let webhooks = webhooks.map(|(webhook, (url, uid))| {
        let url = HttpsUrl::parse(url.expose()).map_err(|_fault| odd("a webhook has no URL"))?;
        let approver = Approver {
            uid: *uid,
            user: webhook.approver.clone(),
        };
        let limit = setup.config.limits.connect_deadline;
        Ok(Webhook::new(approver, url, webhook.private, limit))
    });
    Ok(Some(Approving {
        links: Links::new(key),
        console: config.console_url.to_string(),
        webhooks: webhooks.collect::<Result<_, GateError>>()?,
    }))
}

/// Where approvers decide, and no workload.
fn closed(config: &Config) -> Closed {
    let approvals = config.approvals.as_ref();
    Closed {
        listen: approvals.and_then(|of| of.listen),
        name: approvals.and_then(|of| of.console_url.name().cloned()),
    }
}

fn site_proxy(
    config: &Config,
    credentials: Option<&ProxyCredentials>,
) -> Result<Option<SiteProxy>, GateError> {
    let Some(proxy) = &config.upstream_proxy else {
        return Ok(None);
    };
    let fault = |why: &str| GateError::Proxy(format!("`{}` {why}", proxy.url));
    let uri: Uri = proxy.url.parse().map_err(|_bad| fault("is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(fault("is not an http:// URL"));
    }
    let host = uri.host().ok_or_else(|| fault("names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(3128);
    let address = (host, port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| fault("names a host that does not resolve"))?;
    let authorization = match credentials {
        None => None,
        Some(ProxyCredentials { username, password }) => {
            let pair = format!("{username}:{}", password.expose());
            let mut text = String::from("Basic ");
            base64::encode(pair.as_bytes(), &mut text);
            let mut value =
                HeaderValue::from_str(&text).map_err(|_bad| fault("has odd credentials"))?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    Ok(Some(SiteProxy {
        address,
        authorization,
    }))
}

fn listener(descriptor: OwnedFd) -> Result<TcpListener, GateError> {
    let listener = std::net::TcpListener::from(descriptor);
    listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .map_err(self::descriptor("a listener"))
}

fn datagrams(descriptor: OwnedFd) -> Result<UdpSocket, GateError> {
    let socket = std::net::UdpSocket::from(descriptor);
    socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket))
        .map_err(self::descriptor("a resolver socket"))
}

fn descriptor(what: &'static str) -> impl Fn(std::io::Error) -> GateError {
    move |source| GateError::Descriptor { what, source }
}

/// The proxy's, the resolver's, and that of approvals.
type Sockets = (Vec<TcpListener>, Vec<UdpSocket>, Option<TcpListener>);

/// The descriptors of the setup, by what they are.
struct Given {
    maps: Vec<(GateMap, OwnedFd)>,
    others: HashMap<Role, OwnedFd>,
}

impl Given {
    fn sort(roles: &[Role], descriptors: Vec<OwnedFd>) -> Self {
        let mut given = Self {
            maps: Vec::new(),
            others: HashMap::new(),
        };
        for (role, descriptor) in roles.iter().zip(descriptors) {
            match role {
                Role::Map(name) => {
                    if let Some(map) = GateMap::from_name(name) {
                        given.maps.push((map, descriptor));
                    }
                }
                Role::ProxyV4
                | Role::ProxyV6
                | Role::DnsV4
                | Role::DnsV6
                | Role::Approvals
                | Role::AuditDirectory
                | Role::LimitsDirectory => {
                    given.others.insert(role.clone(), descriptor);
                }
            }
        }
        given
    }

    /// The listeners, the resolver's sockets, and where links of approvals are answered. A machine without IPv6 has none of that family; the supervisor
    /// says so.
    fn sockets(&mut self) -> Result<Sockets, GateError> {
        let proxy = self.one(&Role::ProxyV4, "listener on 127.0.0.1")?;
        let dns = self.one(&Role::DnsV4, "resolver socket on 127.0.0.1")?;
        let (mut listeners, mut resolvers) = (vec![listener(proxy)?], vec![datagrams(dns)?]);
        if let Some(proxy) = self.others.remove(&Role::ProxyV6) {
            let dns = self.one(&Role::DnsV6, "resolver socket on ::1")?;
            listeners.push(listener(proxy)?);
            resolvers.push(datagrams(dns)?);
        }
        let console = self.others.remove(&Role::Approvals);
        Ok((listeners, resolvers, console.map(listener).transpose()?))
    }

    fn one(&mut self, role: &Role, what: &'static str) -> Result<OwnedFd, GateError> {
        self.others.remove(role).ok_or(GateError::Missing(what))
    }
}
