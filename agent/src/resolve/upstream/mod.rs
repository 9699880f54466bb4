//! Asks the configured name servers, follows aliases, and believes only what was asked for.

mod ask;
mod config;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name as WireName, RData, Record, RecordType};
use tokio::time::timeout;

use super::Name;
use super::cache::{Family, Found};
use super::fault::UpstreamFault;
use super::message::host_name;
pub(super) use config::MAX_SERVERS;
pub use config::{ResolvConf, parse_resolv_conf};

/// The most aliases followed for one name.
pub(super) const MAX_ALIASES: usize = 8;
/// The most addresses taken from one answer; each takes a place in the kernel map.
pub(super) const MAX_ADDRESSES: usize = 32;

/// How patient the client is, and how long answers may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempt: Duration,
    pub(super) total: Duration,
    pub(super) rounds: usize,
    pub(super) max_ttl: u32,
    pub(super) max_negative_ttl: u32,
}

/// Resolves a name at the servers, in order, within the deadline.
pub(super) async fn resolve(
    servers: &[SocketAddr],
    patience: Patience,
    name: &Name,
    family: Family,
) -> Result<Found, Unresolved> {
    let mut dropped = 0;
    let followed = timeout(
        patience.total,
        follow(servers, patience, name, family, &mut dropped),
    );
    match followed.await {
        Ok(Ok(found)) => Ok(Found { dropped, ..found }),
        Ok(Err(fault)) => Err(Unresolved { fault, dropped }),
        Err(_elapsed) => Err(Unresolved {
            fault: UpstreamFault::Deadline {
                name: name.to_string(),
            },
            dropped,
        }),
    }
}

/// No answer, and how many datagrams were dropped while waiting for one.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) fault: UpstreamFault,
    pub(super) dropped: u32,
}

/// The chain of aliases so far, over several answers.
struct Chain {
    asked: Name,
    links: Vec<Name>,
    ttl: u32,
}

impl Chain {
    fn current(&self) -> &Name {
        self.links.last().unwrap_or(&self.asked)
    }

    fn push(&mut self, target: &WireName, ttl: u32) -> Result<(), UpstreamFault> {
        let fault = |what| UpstreamFault::Alias {
            name: self.asked.to_string(),
            what,
        };
        let target =
            host_name(target.iter()).ok_or_else(|| fault("an alias is not a host name"))?;
        if target == self.asked || self.links.contains(&target) {
            return Err(fault("they form a loop"));
        }
        if self.links.len() >= MAX_ALIASES {
            return Err(fault("there are too many"));
        }
        self.ttl = self.ttl.min(ttl);
        self.links.push(target);
        Ok(())
    }
}

async fn follow(
    servers: &[SocketAddr],
    patience: Patience,
    name: &Name,
    family: Family,
    dropped: &mut u32,
) -> Result<Found, UpstreamFault> {
    let mut chain = Chain {
        asked: name.clone(),
        links: Vec::new(),
        ttl: patience.max_ttl,
    };
    loop {
        let before = chain.links.len();
        let (message, server) =
            any_server(servers, patience, chain.current(), family, dropped).await?;
        let (exists, addresses) = read(&message, &mut chain, family)?;
        let found = |ttl, exists, addresses, chain: Chain| Found {
            addresses,
            exists,
            aliases: chain.links,
            ttl,
            server,
            dropped: 0,
        };
        if !addresses.is_empty() {
            return Ok(found(chain.ttl, true, addresses, chain));
        }
        // An alias without its addresses: the server left the rest to the asker.
        if exists && chain.links.len() > before && !message.authorities.iter().any(is_soa) {
            continue;
        }
        let ttl = negative_ttl(&message)
            .min(patience.max_negative_ttl)
            .min(chain.ttl);
        return Ok(found(ttl, exists, Vec::new(), chain));
    }
}

/// Follows the aliases inside one answer, then takes the addresses at their end and nothing else.
fn read(
    message: &Message,
    chain: &mut Chain,
    family: Family,
) -> Result<(bool, Vec<IpAddr>), UpstreamFault> {
    while let Some((target, ttl)) = alias_of(&message.answers, chain)? {
        chain.push(&target, ttl)?;
    }
    if message.metadata.response_code == ResponseCode::NXDomain {
        return Ok((false, Vec::new()));
    }
    let mut addresses = Vec::new();
    let end = chain.current().clone();
    for record in owned_by(&message.answers, &end) {
        let address = match (&record.data, family) {
            (RData::A(address), Family::V4) => IpAddr::V4(address.0),
            (RData::AAAA(address), Family::V6) => IpAddr::V6(address.0),
            _ => continue,
        };
        chain.ttl = chain.ttl.min(record.ttl);
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok((true, addresses))
}

fn alias_of(answers: &[Record], chain: &Chain) -> Result<Option<(WireName, u32)>, UpstreamFault> {
    let mut targets = owned_by(answers, chain.current()).filter_map(|record| match &record.data {
        RData::CNAME(target) => Some((&target.0, record.ttl)),
        _ => None,
    });
    let Some(first) = targets.next() else {
        return Ok(None);
    };
    if targets.any(|(target, _)| target != first.0) {
        let name = chain.asked.to_string();
        return Err(UpstreamFault::Alias {
            name,
            what: "one name has two targets",
        });
    }
    Ok(Some((first.0.clone(), first.1)))
}

fn owned_by<'a>(answers: &'a [Record], name: &'a Name) -> impl Iterator<Item = &'a Record> {
    answers.iter().filter(move |record| {
        record.dns_class == DNSClass::IN && host_name(record.name.iter()).as_ref() == Some(name)
    })
}

fn is_soa(record: &Record) -> bool {
    record.record_type() == RecordType::SOA
}

/// How long an absence holds (RFC 2308 section 5); without an SOA it is not kept.
fn negative_ttl(message: &Message) -> u32 {
    let soa = message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
    soa.unwrap_or(0)
}

/// Asks one server after the other, and all of them again, until one has something to say.
async fn any_server(
    servers: &[SocketAddr],
    patience: Patience,
    name: &Name,
    family: Family,
    dropped: &mut u32,
) -> Result<(Message, SocketAddr), UpstreamFault> {
    let mut last = None;
    for server in servers.iter().cycle().take(servers.len() * patience.rounds) {
        match ask::ask(*server, patience.attempt, name, family, dropped).await {
            Ok(message) => return Ok((message, *server)),
            Err(fault) => {
                tracing::debug!(%server, %name, %fault, "name server gave no answer");
                last = Some(fault);
            }
        }
    }
    Err(last.unwrap_or_else(|| UpstreamFault::Deadline {
        name: name.to_string(),
    }))
}

#[cfg(test)]
mod tests;
