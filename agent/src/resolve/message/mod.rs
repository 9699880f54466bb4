//! The messages of workloads: a strict parse of the query, and the answer's bytes.
//!
//! RFC 1035 section 4, RFC 6891 (EDNS), RFC 9619 (one question). What is not a query at all gets
//! silence, what is a broken one gets FORMERR, and nothing that the workload wrote is sent on:
//! upstream queries are made anew from the parsed name.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use super::Name;
use super::outcome::Transport;

/// The largest datagram sent: fits every path without fragments (DNS flag day 2020).
pub(super) const MAX_DATAGRAM: u16 = 1232;
/// The largest query taken; a question and its EDNS options need less than half.
const MAX_QUERY: usize = 1024;
const HEADER: usize = 12;

/// Why a query was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// Shorter than a header, or marked as an answer: not answered.
    #[error("the message is not a query")]
    NotAQuery,
    /// Longer than any honest query.
    #[error("the query is longer than {MAX_QUERY} bytes")]
    TooLong,
    /// An opcode other than QUERY.
    #[error("the operation is not a standard query")]
    Operation,
    /// None, or more than one.
    #[error("the query has not exactly one question")]
    Questions,
    /// A question whose name is cut, compressed or too long.
    #[error("the question is malformed")]
    Question,
    /// A class other than IN.
    #[error("the question's class is not internet")]
    Class,
    /// Answers, authorities, signatures or other records in a query.
    #[error("the query carries records")]
    Records,
    /// Records that cannot be read, two EDNS records, or bytes after the end.
    #[error("the rest of the query is malformed")]
    Rest,
    /// An EDNS version that does not exist.
    #[error("the query's extension version is unknown")]
    Version,
}

impl MessageFault {
    fn code(self) -> Option<ResponseCode> {
        match self {
            Self::NotAQuery => None,
            Self::Operation => Some(ResponseCode::NotImp),
            Self::Class => Some(ResponseCode::Refused),
            Self::Version => Some(ResponseCode::BADVERS),
            Self::TooLong | Self::Questions | Self::Question | Self::Records | Self::Rest => {
                Some(ResponseCode::FormErr)
            }
        }
    }
}

/// A query that keeps to the rules.
#[derive(Debug)]
pub(super) struct Query {
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    question: Question,
    /// The largest datagram that the asker takes, and its DO bit.
    edns: Option<(u16, bool)>,
    /// The name, where it is a host name.
    pub(super) name: Option<Name>,
}

impl Query {
    pub(super) fn kind(&self) -> RecordType {
        self.question.query_type
    }

    /// The name as asked, escaped.
    pub(super) fn asked(&self) -> String {
        let mut text = self.question.name.to_ascii();
        text.truncate(255);
        text
    }

    /// The answer's bytes, and how many of the addresses they hold.
    ///
    /// What does not fit a datagram is left out and the answer marked as truncated, so that the
    /// asker comes again over TCP. As many as fit stay in: musl before 1.2.4 never comes again.
    /// `None` only if the encoder fails, which no parsed question can cause.
    pub(super) fn answer(
        &self,
        code: ResponseCode,
        addresses: &[IpAddr],
        ttl: u32,
        transport: Transport,
    ) -> Option<(Vec<u8>, usize)> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.question.clone());
        if let Some((_, dnssec_ok)) = self.edns {
            message.set_edns(our_edns(dnssec_ok));
        }
        let record = |address: &IpAddr| {
            let data = match *address {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            Record::from_rdata(self.question.name.clone(), ttl, data)
        };
        message.add_answers(addresses.iter().map(record));
        let room = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => usize::from(self.edns.map_or(512, |(size, _)| size))
                .clamp(512, usize::from(MAX_DATAGRAM)),
        };
        let mut bytes = message.to_vec().ok()?;
        while bytes.len() > room && !message.answers.is_empty() {
            message.metadata.truncation = true;
            // Pointer, type, class, time to live, length, and an address of at most 16 bytes.
            let over = (bytes.len() - room).div_ceil(28);
            let left = message.answers.len().saturating_sub(over);
            message.answers.truncate(left);
            bytes = message.to_vec().ok()?;
        }
        Some((bytes, message.answers.len()))
    }
}

fn our_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    edns.set_version(0);
    // RFC 3225 section 3: the bit is copied; no signature is ever given.
    edns.set_dnssec_ok(dnssec_ok);
    edns
}

/// A query that was not taken, with the answer to it.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) fault: MessageFault,
    /// Header-only answer and its code; `None` for silence.
    pub(super) reply: Option<(Vec<u8>, ResponseCode)>,
}

/// Takes one query apart.
pub(super) fn parse(bytes: &[u8]) -> Result<Query, Malformed> {
    parse_inner(bytes).map_err(|fault| Malformed {
        fault,
        reply: refuse(bytes, fault),
    })
}

fn parse_inner(bytes: &[u8]) -> Result<Query, MessageFault> {
    let (Some(flags), true) = (bytes.get(2), bytes.len() >= HEADER) else {
        return Err(MessageFault::NotAQuery);
    };
    if flags & 0x80 != 0 {
        return Err(MessageFault::NotAQuery);
    }
    if bytes.len() > MAX_QUERY {
        return Err(MessageFault::TooLong);
    }
    if flags & 0x78 != 0 {
        return Err(MessageFault::Operation);
    }
    // The counts are judged before anything is read by them.
    let count = |at: usize| bytes.get(at..at + 2).map_or(u16::MAX, be16);
    if count(4) != 1 {
        return Err(MessageFault::Questions);
    }
    if count(6) != 0 || count(8) != 0 || count(10) > 1 {
        return Err(MessageFault::Records);
    }
    let name = plain_name(bytes).ok_or(MessageFault::Question)?;
    let message = Message::from_vec(bytes).map_err(|_cause| MessageFault::Rest)?;
    if !message.additionals.is_empty() || message.signature.is_some() {
        return Err(MessageFault::Records);
    }
    let end = name.end + 4;
    if bytes.len() != end + additional_length(bytes.get(end..).unwrap_or_default()) {
        return Err(MessageFault::Rest);
    }
    let edns = match &message.edns {
        None => None,
        Some(edns) if edns.version() == 0 => Some((edns.max_payload(), edns.flags().dnssec_ok)),
        Some(_) => return Err(MessageFault::Version),
    };
    let Some(question) = message.queries.first() else {
        return Err(MessageFault::Questions);
    };
    if question.query_class != DNSClass::IN {
        return Err(MessageFault::Class);
    }
    Ok(Query {
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        question: question.clone(),
        edns,
        name: name.host,
    })
}

fn be16(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u16::from(*byte))
}

/// The length of the one additional record, which must be EDNS with the root name, or 0.
fn additional_length(rest: &[u8]) -> usize {
    // Root name, type, class, time to live, length.
    match rest.get(9..11) {
        Some(length) => 11 + usize::from(be16(length)),
        None => 0,
    }
}

struct PlainName {
    /// The offset behind the name.
    end: usize,
    /// The name, where it is a host name.
    host: Option<Name>,
}

/// Reads the question's name without pointers; `None` if it is cut, compressed or too long.
fn plain_name(bytes: &[u8]) -> Option<PlainName> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The two high bits mark pointers and reserved forms; 255 octets is the limit on the wire.
        if length > 63 || at + length - HEADER > 254 {
            return None;
        }
        labels.push(bytes.get(at..at + length)?);
        at += length;
    }
    // Type and class must follow.
    bytes.get(at..at + 4)?;
    Some(PlainName {
        end: at,
        host: host_name(labels),
    })
}

/// The host name that labels spell; `None` if they spell none.
///
/// A dot inside a label must not become two labels, so no presentation form is read back.
pub(super) fn host_name<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Name> {
    let mut text = String::new();
    for label in labels {
        let host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !label.iter().all(host) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(str::from_utf8(label).ok()?);
    }
    Name::parse(&text).ok()
}

fn refuse(bytes: &[u8], fault: MessageFault) -> Option<(Vec<u8>, ResponseCode)> {
    let code = fault.code()?;
    let id = bytes.get(0..2).map(be16)?;
    let operation = OpCode::from_u8((bytes.get(2)? >> 3) & 0x0f);
    let mut message = Message::new(id, MessageType::Response, operation);
    message.metadata.response_code = code;
    if fault == MessageFault::Version {
        message.set_edns(our_edns(false));
    }
    message.to_vec().ok().map(|bytes| (bytes, code))
}

#[cfg(test)]
mod tests;
