//! One query of a workload, from its bytes to the answer's; and the proxy's look-up before it dials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use super::budget::Budget;
use super::cache::{Cache, Family, Found};
use super::class::{self, Class, Own};
use super::fault::{ResolveFault, SettingsFault, UpstreamFault};
use super::message::{self, Query};
use super::name::Name;
use super::outcome::{Answer, DnsOutcome, DnsResult, RefusedAddress, Transport};
use super::special::{self, Treatment};
use super::upstream::{self, MAX_SERVERS, Patience};
use super::{NameGrant, Oracle};

/// Bounds of the resolver.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one server may take for one question.
    pub attempt: Duration,
    /// How long a name may take, over all servers and aliases; below the 5 s of usual clients.
    pub total: Duration,
    /// How often the list of servers is gone through.
    pub rounds: usize,
    /// Queries under way over all workloads and the proxy.
    pub in_flight: usize,
    /// Queries under way for one workload.
    pub in_flight_per_workload: usize,
    /// Questions that one workload may send upstream in a minute; what is cached is free.
    pub fresh_per_minute: usize,
    /// Entries of the cache.
    pub cache_entries: usize,
    /// Bytes of the cache, estimated.
    pub cache_bytes: usize,
    /// The longest that an address is kept or promised, in seconds.
    pub max_ttl: u32,
    /// The longest that an absence is kept, in seconds.
    pub max_negative_ttl: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempt: Duration::from_millis(1500),
            total: Duration::from_millis(4500),
            rounds: 2,
            in_flight: 512,
            in_flight_per_workload: 64,
            fresh_per_minute: 600,
            cache_entries: 4096,
            cache_bytes: 4 << 20,
            max_ttl: 60,
            max_negative_ttl: 10,
        }
    }
}

/// What the resolver is built from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Servers to ask, in order; see [`super::parse_resolv_conf`].
    pub upstreams: Vec<SocketAddr>,
    /// This machine's addresses.
    pub own: Own,
    /// Bounds.
    pub limits: Limits,
}

/// Answers workloads and the proxy; shared by reference between tasks.
#[derive(Debug)]
pub struct Resolver<O> {
    oracle: O,
    upstreams: ArcSwap<Vec<SocketAddr>>,
    own: ArcSwap<Own>,
    cache: Cache,
    budget: Budget,
    limits: Limits,
}

/// What is known of an answer before its bytes are made.
struct Draft {
    result: DnsResult,
    code: ResponseCode,
    addresses: Vec<IpAddr>,
    refused: Vec<RefusedAddress>,
    aliases: Vec<Name>,
    ttl: u32,
    upstream: Option<SocketAddr>,
    cached: bool,
    dropped: u32,
}

impl Draft {
    fn new(result: DnsResult, code: ResponseCode) -> Self {
        Self {
            result,
            code,
            addresses: Vec::new(),
            refused: Vec::new(),
            aliases: Vec::new(),
            ttl: 0,
            upstream: None,
            cached: false,
            dropped: 0,
        }
    }
}

/// Addresses of one name and type with where they came from.
struct Lookup {
    found: Arc<Found>,
    ttl: u32,
    cached: bool,
}

enum LookupFault {
    Overloaded,
    Upstream(Arc<UpstreamFault>, u32),
}

impl<O: Oracle> Resolver<O> {
    /// A resolver; refuses to exist without a server to ask.
    pub fn new(oracle: O, settings: Settings) -> Result<Self, SettingsFault> {
        let Settings {
            upstreams,
            own,
            limits,
        } = settings;
        Ok(Self {
            oracle,
            upstreams: ArcSwap::from_pointee(usable(upstreams)?),
            own: ArcSwap::from_pointee(own),
            cache: Cache::new(limits.cache_entries, limits.cache_bytes),
            budget: Budget::new(
                limits.in_flight,
                limits.in_flight_per_workload,
                limits.fresh_per_minute,
            ),
            limits,
        })
    }

    /// Takes another list of servers; the old one stays if the new one cannot work.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddr>) -> Result<(), SettingsFault> {
        self.upstreams.store(Arc::new(usable(upstreams)?));
        Ok(())
    }

    /// Takes the machine's addresses anew, after they changed.
    pub fn set_own(&self, own: Own) {
        self.own.store(Arc::new(own));
    }

    /// Answers one query of a workload.
    ///
    /// Everything in the answer is bound in the kernel when this returns. Dropping the future
    /// leaves nothing behind but, at most, bound addresses.
    pub async fn serve_query(&self, workload: u32, bytes: &[u8], transport: Transport) -> Answer {
        let start = Instant::now();
        match message::parse(bytes) {
            Ok(query) => {
                let draft = self.draft(workload, &query).await;
                finish(&query, draft, transport, start)
            }
            Err(message::Malformed { fault, reply }) => {
                let (bytes, code) = reply.unzip();
                let outcome = DnsOutcome {
                    name: None,
                    asked: String::new(),
                    kind: None,
                    transport,
                    result: DnsResult::Malformed(fault),
                    rcode: code.map(u16::from),
                    addresses: Vec::new(),
                    refused: Vec::new(),
                    aliases: Vec::new(),
                    ttl: 0,
                    truncated: false,
                    upstream: None,
                    cached: false,
                    dropped: 0,
                    latency: start.elapsed(),
                };
                Answer { bytes, outcome }
            }
        }
    }

    async fn draft(&self, workload: u32, query: &Query) -> Draft {
        // NXDOMAIN, not REFUSED or SERVFAIL, for what is not allowed: resolvers then go on with
        // their search list at once instead of trying another server.
        let Some(name) = &query.name else {
            return Draft::new(DnsResult::NotAHostName, ResponseCode::NXDomain);
        };
        if query.kind() == RecordType::PTR {
            return Draft::new(DnsResult::Reverse, ResponseCode::NXDomain);
        }
        let treatment = special::treatment(name);
        let grant = self.oracle.may_resolve(workload, name);
        if treatment == Treatment::Loopback {
            return self.loopback(workload, name, query.kind(), grant.as_ref());
        }
        let Some(grant) = grant else {
            return Draft::new(DnsResult::NotAllowed, ResponseCode::NXDomain);
        };
        if is_kept_here(treatment, &grant) {
            return Draft::new(DnsResult::Reserved, ResponseCode::NXDomain);
        }
        let family = match query.kind() {
            RecordType::A => Family::V4,
            RecordType::AAAA => Family::V6,
            // HTTPS and SVCB would bring ECH keys and address hints; every other type is a
            // channel. None is asked upstream.
            _ => return Draft::new(DnsResult::OtherType, ResponseCode::NoError),
        };
        if grant.synthetic {
            return self.synthetic(workload, name, family);
        }
        self.real(workload, name, family, &grant).await
    }

    /// RFC 6761 section 6.3: the loopback address, without asking anybody.
    ///
    /// The answer is the same for everybody and tells nothing; whether the workload reaches
    /// anything there is up to the kernel map, which gets an entry only from a rule that allows
    /// the name with `private: true`.
    fn loopback(
        &self,
        workload: u32,
        name: &Name,
        kind: RecordType,
        grant: Option<&NameGrant>,
    ) -> Draft {
        let address: IpAddr = match kind {
            RecordType::A => Ipv4Addr::LOCALHOST.into(),
            RecordType::AAAA => Ipv6Addr::LOCALHOST.into(),
            _ => return Draft::new(DnsResult::OtherType, ResponseCode::NoError),
        };
        if let Some(grant) = grant.filter(|grant| grant.private)
            && let Err(fault) = self.oracle.bind(workload, name, &[address], grant)
        {
            return Draft::new(DnsResult::Unbound(fault), ResponseCode::ServFail);
        }
        Draft {
            addresses: vec![address],
            ttl: self.limits.max_ttl,
            ..Draft::new(DnsResult::Loopback, ResponseCode::NoError)
        }
    }

    fn synthetic(&self, workload: u32, name: &Name, family: Family) -> Draft {
        match self.oracle.synthetic(workload, name) {
            Ok((v4, v6)) => Draft {
                addresses: vec![match family {
                    Family::V4 => v4.into(),
                    Family::V6 => v6.into(),
                }],
                ttl: self.limits.max_ttl,
                ..Draft::new(DnsResult::Synthetic, ResponseCode::NoError)
            },
            Err(fault) => Draft::new(DnsResult::Unbound(fault), ResponseCode::ServFail),
        }
    }

    async fn real(&self, workload: u32, name: &Name, family: Family, grant: &NameGrant) -> Draft {
        let Lookup { found, ttl, cached } = match self.look_up(Some(workload), name, family).await {
            Ok(lookup) => lookup,
            Err(LookupFault::Overloaded) => {
                return Draft::new(DnsResult::Overloaded, ResponseCode::ServFail);
            }
            Err(LookupFault::Upstream(fault, dropped)) => {
                return Draft {
                    dropped,
                    ..Draft::new(DnsResult::Upstream(fault), ResponseCode::ServFail)
                };
            }
        };
        let (addresses, refused) = self.judge(&found.addresses, grant.private);
        let (result, code) = match (addresses.is_empty(), refused.is_empty(), found.exists) {
            (false, _, _) => match self.oracle.bind(workload, name, &addresses, grant) {
                Ok(()) => (DnsResult::Answered, ResponseCode::NoError),
                Err(fault) => (DnsResult::Unbound(fault), ResponseCode::ServFail),
            },
            // The name exists and has no address that may be given. NXDOMAIN would deny its other
            // family too (musl) and start the search list; SERVFAIL would be tried again. Unbound
            // (`private-address`) does the same.
            (true, false, _) => (DnsResult::Refused, ResponseCode::NoError),
            (true, true, true) => (DnsResult::NoData, ResponseCode::NoError),
            (true, true, false) => (DnsResult::NoName, ResponseCode::NXDomain),
        };
        let bound = matches!(result, DnsResult::Answered);
        Draft {
            addresses: if bound { addresses } else { Vec::new() },
            refused,
            aliases: found.aliases.clone(),
            ttl,
            upstream: Some(found.server),
            cached,
            dropped: if cached { 0 } else { found.dropped },
            ..Draft::new(result, code)
        }
    }

    /// Resolves a name that policy allows, for a proxy that is about to dial.
    ///
    /// Both families, IPv6 first as upstream ordered them; only addresses whose class the grant
    /// covers (`private` is the rule's flag). One family's failure is tolerated if the other has
    /// addresses.
    pub async fn resolve_checked(
        &self,
        name: &Name,
        private: bool,
    ) -> Result<Vec<IpAddr>, ResolveFault> {
        let shown = || name.to_string();
        let grant = NameGrant {
            private,
            ..NameGrant::default()
        };
        match special::treatment(name) {
            Treatment::Loopback if private => {
                return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
            }
            Treatment::Loopback => {
                let address = Ipv4Addr::LOCALHOST.into();
                return Err(ResolveFault::Refused {
                    name: shown(),
                    address,
                    class: Class::Loopback,
                });
            }
            treatment if is_kept_here(treatment, &grant) => {
                return Err(ResolveFault::Reserved { name: shown() });
            }
            Treatment::Ordinary | Treatment::PrivateOnly | Treatment::Never => {}
        }
        let (v6, v4) = tokio::join!(
            self.look_up(None, name, Family::V6),
            self.look_up(None, name, Family::V4)
        );
        let (mut addresses, mut refused, mut exists, mut fault) = (vec![], vec![], false, None);
        for lookup in [v6, v4] {
            match lookup {
                Ok(lookup) => {
                    let (good, bad) = self.judge(&lookup.found.addresses, private);
                    addresses.extend(good);
                    refused.extend(bad);
                    exists |= lookup.found.exists;
                }
                Err(LookupFault::Overloaded) => {
                    fault = Some(ResolveFault::Overloaded { name: shown() });
                }
                Err(LookupFault::Upstream(cause, _)) => {
                    fault = Some(ResolveFault::Upstream {
                        name: shown(),
                        cause,
                    });
                }
            }
        }
        match (addresses.is_empty(), refused.first(), fault) {
            (false, _, _) => Ok(addresses),
            (true, Some(&RefusedAddress { address, class }), _) => Err(ResolveFault::Refused {
                name: shown(),
                address,
                class,
            }),
            (true, None, Some(fault)) => Err(fault),
            (true, None, None) if exists => Err(ResolveFault::NoAddress { name: shown() }),
            (true, None, None) => Err(ResolveFault::NoName { name: shown() }),
        }
    }

    fn judge(&self, addresses: &[IpAddr], private: bool) -> (Vec<IpAddr>, Vec<RefusedAddress>) {
        let own = self.own.load();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for address in addresses {
            let class = class::classify(*address, &own);
            if class::permitted(class, private) {
                good.push(*address);
            } else {
                bad.push(RefusedAddress {
                    address: *address,
                    class,
                });
            }
        }
        (good, bad)
    }

    /// `workload` is `None` for the proxy, which asks only for names that were asked before it.
    async fn look_up(
        &self,
        workload: Option<u32>,
        name: &Name,
        family: Family,
    ) -> Result<Lookup, LookupFault> {
        let now = Instant::now();
        if let Some((found, left)) = self.cache.get(name, family, now) {
            let ttl = u32::try_from(left.as_secs()).unwrap_or(self.limits.max_ttl);
            return Ok(Lookup {
                found,
                ttl,
                cached: true,
            });
        }
        let place = match workload {
            Some(workload) => self.budget.enter(workload, now),
            None => self.budget.enter_proxy(),
        };
        let _place = place.ok_or(LookupFault::Overloaded)?;
        if workload.is_some_and(|workload| !self.budget.spend_fresh(workload, now)) {
            return Err(LookupFault::Overloaded);
        }
        let servers = self.upstreams.load_full();
        let patience = Patience {
            attempt: self.limits.attempt,
            total: self.limits.total,
            rounds: self.limits.rounds,
            max_ttl: self.limits.max_ttl,
            max_negative_ttl: self.limits.max_negative_ttl,
        };
        let resolve = || upstream::resolve(&servers, patience, name, family);
        match self.cache.share(name, family, resolve).await {
            Ok(found) => Ok(Lookup {
                ttl: found.ttl,
                found,
                cached: false,
            }),
            Err((fault, dropped)) => Err(LookupFault::Upstream(fault, dropped)),
        }
    }
}

fn is_kept_here(treatment: Treatment, grant: &NameGrant) -> bool {
    match treatment {
        Treatment::Ordinary => false,
        Treatment::PrivateOnly => !grant.private,
        Treatment::Loopback | Treatment::Never => true,
    }
}

fn usable(upstreams: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, SettingsFault> {
    if upstreams.is_empty() {
        return Err(SettingsFault::NoUpstream);
    }
    if upstreams.len() > MAX_SERVERS {
        let count = upstreams.len();
        return Err(SettingsFault::TooManyUpstreams {
            count,
            limit: MAX_SERVERS,
        });
    }
    let odd = |server: &&SocketAddr| {
        server.port() == 0 || server.ip().is_unspecified() || server.ip().is_multicast()
    };
    match upstreams.iter().find(odd) {
        Some(server) => Err(SettingsFault::UnusableUpstream(*server)),
        None => Ok(upstreams),
    }
}

fn finish(query: &Query, draft: Draft, transport: Transport, start: Instant) -> Answer {
    let Draft {
        mut result,
        code,
        mut addresses,
        refused,
        aliases,
        ttl,
        upstream,
        cached,
        dropped,
    } = draft;
    let encoded = query.answer(code, &addresses, ttl, transport);
    let rcode = encoded.as_ref().map(|_| u16::from(code));
    if encoded.is_none() {
        result = DnsResult::Unencodable;
    }
    let (bytes, truncated) = encoded.unzip();
    let truncated = truncated.unwrap_or(false);
    if truncated || bytes.is_none() {
        // They were bound, but this message does not give them.
        addresses.clear();
    }
    let outcome = DnsOutcome {
        name: query.name.clone(),
        asked: query.asked(),
        kind: Some(query.kind().into()),
        transport,
        result,
        rcode,
        addresses,
        refused,
        aliases,
        ttl,
        truncated,
        upstream,
        cached,
        dropped,
        latency: start.elapsed(),
    };
    Answer { bytes, outcome }
}
