//! What became of one query: everything that its audit record says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::class::Class;
use super::fault::{BindFault, UpstreamFault};
use super::message::MessageFault;

/// How a query came in; it decides how large the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram; a long answer is truncated and asked again over TCP.
    Udp,
    /// One length-prefixed message of a stream.
    Tcp,
}

/// The bytes to send back, and what the audit says.
#[derive(Debug)]
pub struct Answer {
    /// The answer; `None` where silence is right (not a query at all).
    pub bytes: Option<Vec<u8>>,
    /// What happened.
    pub outcome: DnsOutcome,
}

/// One query as the audit sees it.
#[derive(Debug)]
pub struct DnsOutcome {
    /// The asked name, where it is a host name.
    pub name: Option<Name>,
    /// The question's name as asked, escaped (RFC 4343 section 2.1) and cut to 255 bytes; empty if unreadable.
    pub asked: String,
    /// The question's type number, if it could be read; [`describe_type`] names it.
    pub kind: Option<u16>,
    /// How it came in.
    pub transport: Transport,
    /// What happened and why.
    pub result: DnsResult,
    /// The answer's response code (RFC 6895 section 2.3); `None` for silence.
    pub rcode: Option<u16>,
    /// The addresses in the answer, all bound before it was sent.
    pub addresses: Vec<IpAddr>,
    /// Addresses that upstream gave and the grant does not cover.
    pub refused: Vec<RefusedAddress>,
    /// The names that the asked one is an alias of, in order.
    pub aliases: Vec<Name>,
    /// The time to live of the answer, in seconds.
    pub ttl: u32,
    /// The answer did not fit the datagram and was cut.
    pub truncated: bool,
    /// The server whose answer was used, also if it came from the cache.
    pub upstream: Option<SocketAddr>,
    /// The answer was in the cache.
    pub cached: bool,
    /// Upstream datagrams that matched no question of ours.
    pub dropped: u32,
    /// From the query's bytes to the answer's.
    pub latency: Duration,
}

impl DnsOutcome {
    /// Whether policy, class or form refused something that the workload asked for.
    pub fn is_refusal(&self) -> bool {
        !self.refused.is_empty()
            || matches!(
                self.result,
                DnsResult::NotAllowed
                    | DnsResult::NotAHostName
                    | DnsResult::Reserved
                    | DnsResult::Reverse
                    | DnsResult::Refused
                    | DnsResult::Malformed(_)
                    | DnsResult::Overloaded
                    | DnsResult::TooManyNames
                    | DnsResult::Unbound(_)
            )
    }

    /// Whether an answer that policy permits could not be given.
    pub fn is_failure(&self) -> bool {
        matches!(
            self.result,
            DnsResult::GrantChanged | DnsResult::Upstream(_) | DnsResult::Unencodable
        )
    }
}

/// What happened to a query, and why.
#[derive(Debug)]
pub enum DnsResult {
    /// Addresses were given.
    Answered,
    /// A synthetic address was given.
    Synthetic,
    /// `localhost` or a name below it: answered with the loopback address (RFC 6761 section 6.3).
    Loopback,
    /// The name exists upstream without addresses of the type.
    NoData,
    /// The name does not exist upstream.
    NoName,
    /// The type is never asked upstream; an allowed name has no records of it.
    OtherType,
    /// Policy does not allow the name.
    NotAllowed,
    /// The name is no host name, so no policy can allow it.
    NotAHostName,
    /// An allowed name that is reserved and not asked upstream under its grant.
    Reserved,
    /// A reverse look-up; there are none.
    Reverse,
    /// Every address is of a class that the grant does not cover.
    Refused,
    /// The query breaks the protocol.
    Malformed(MessageFault),
    /// Too many queries are under way, of the workload or in all.
    Overloaded,
    /// The workload asked for too many new names in a minute: a sign of data carried in names.
    TooManyNames,
    /// Policy changed what it grants for the name while upstream was asked; asking again is right.
    GrantChanged,
    /// The addresses could not be bound, so they were not given.
    Unbound(BindFault),
    /// The upstream servers failed.
    Upstream(Arc<UpstreamFault>),
    /// The answer could not be encoded.
    Unencodable,
}

/// An address that was not given, and its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedAddress {
    /// The address as upstream gave it.
    pub address: IpAddr,
    /// Why it was refused.
    pub class: Class,
}

/// A record type's mnemonic, or `TYPE<n>` (RFC 3597 section 5).
pub fn describe_type(kind: u16) -> String {
    use hickory_proto::rr::RecordType;
    match RecordType::from(kind) {
        RecordType::Unknown(_) => format!("TYPE{kind}"),
        known => known.to_string(),
    }
}
