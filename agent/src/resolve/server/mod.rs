//! One query of a workload, from its bytes to the answer's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use super::Name;
use super::budget::Budget;
use super::cache::{Cache, Family};
use super::class::Own;
use super::fault::SettingsFault;
use super::lookup::{Lookup, LookupFault, is_kept_here};
use super::message::{self, Query};
use super::outcome::{Answer, DnsOutcome, DnsResult, RefusedAddress, Transport, describe_type};
use super::settings::{Limits, Settings, usable};
use super::special::{self, Treatment};
use super::{NameGrant, Oracle};
use crate::audit::Intended;

/// Answers workloads and the proxy; shared by reference between tasks.
#[derive(Debug)]
pub struct Resolver<O> {
    oracle: O,
    pub(super) upstreams: ArcSwap<Vec<SocketAddr>>,
    pub(super) own: ArcSwap<Own>,
    pub(super) cache: Cache,
    pub(super) budget: Budget,
    /// Of those that wait for what others asked.
    pub(super) joining: Budget,
    pub(super) limits: Limits,
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
            joining: Budget::new(
                limits.in_flight.saturating_mul(limits.joining),
                limits.in_flight_per_workload.saturating_mul(limits.joining),
                0,
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
    pub async fn serve_query(
        &self,
        workload: u32,
        bytes: &[u8],
        transport: Transport,
        _intended: &Intended<'_>,
    ) -> Answer {
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
        if !self.oracle.is_synthetic(workload, name) {
            // Nobody is asked, but a number is used up until the workload ends.
            let now = Instant::now();
            let Some(_place) = self.budget.enter(workload, now) else {
                return Draft::new(DnsResult::Overloaded, ResponseCode::ServFail);
            };
            if !self.budget.spend_fresh(workload, now) {
                return Draft::new(DnsResult::TooManyNames, ResponseCode::ServFail);
            }
        }
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
            Err(LookupFault::TooManyNames) => {
                return Draft::new(DnsResult::TooManyNames, ResponseCode::ServFail);
            }
            Err(LookupFault::Upstream(fault, dropped)) => {
                return Draft {
                    dropped,
                    ..Draft::new(DnsResult::Upstream(fault), ResponseCode::ServFail)
                };
            }
        };
        // Upstream took its time: what was granted then must still be granted when it is bound.
        if !cached {
            match self.oracle.may_resolve(workload, name) {
                None => return Draft::new(DnsResult::NotAllowed, ResponseCode::NXDomain),
                Some(now) if now != *grant => {
                    return Draft::new(DnsResult::GrantChanged, ResponseCode::ServFail);
                }
                Some(_) => {}
            }
        }
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
}

/// The name and the type that a query asks for, as they are recorded before it is looked into.
pub fn asked(bytes: &[u8]) -> Option<(String, String)> {
    let query = message::parse(bytes).ok()?;
    Some((query.asked(), describe_type(query.kind().into())))
}

/// SERVFAIL for a query that cannot be looked into; `None` where it cannot even be answered.
pub fn unserved(bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let query = message::parse(bytes).ok()?;
    let draft = Draft::new(DnsResult::Overloaded, ResponseCode::ServFail);
    finish(&query, draft, transport, Instant::now()).bytes
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
    let (bytes, given) = encoded.unzip();
    let given = given.unwrap_or(0);
    let truncated = given < addresses.len();
    // The others are bound as well, but this message does not give them.
    addresses.truncate(given);
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

#[cfg(test)]
mod tests;
