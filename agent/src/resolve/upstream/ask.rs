//! One question to one server: UDP from a fresh socket, TCP if the answer did not fit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::rand;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{DNSClass, Name as WireName, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::resolve::Name;
use crate::resolve::cache::Family;
use crate::resolve::fault::UpstreamFault;
use crate::resolve::frame::{self, FrameFault};
use crate::resolve::message::MAX_DATAGRAM;

/// How many datagrams that match nothing are dropped before the server is given up.
const MAX_DROPPED: u32 = 64;

/// Asks one server, over TCP if it says that the answer was cut, without EDNS if it knows none.
pub(super) async fn ask(
    server: SocketAddr,
    attempt: Duration,
    name: &Name,
    family: Family,
    dropped: &mut u32,
) -> Result<Message, UpstreamFault> {
    let mut edns = true;
    loop {
        let message = attempt_once(server, attempt, name, family, edns, dropped).await?;
        let referral = message.answers.is_empty()
            && !message.metadata.recursion_available
            && !message.metadata.authoritative
            && !message
                .authorities
                .iter()
                .any(|r| r.record_type() == RecordType::SOA);
        return match message.metadata.response_code {
            // A server that does not recurse for us says nothing about the name.
            ResponseCode::NoError if referral => Err(UpstreamFault::Malformed {
                server,
                what: "a referral instead of an answer",
            }),
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            // RFC 6891 section 7: servers of before EDNS say so like this.
            ResponseCode::FormErr | ResponseCode::NotImp if edns => {
                edns = false;
                continue;
            }
            code => Err(UpstreamFault::Code {
                server,
                rcode: code.into(),
            }),
        };
    }
}

async fn attempt_once(
    server: SocketAddr,
    attempt: Duration,
    name: &Name,
    family: Family,
    edns: bool,
    dropped: &mut u32,
) -> Result<Message, UpstreamFault> {
    let elapsed = |_| UpstreamFault::Timeout { server };
    let query = Outgoing::new(server, name, family, edns)?;
    let message = timeout(attempt, over_udp(server, &query, dropped))
        .await
        .map_err(elapsed)??;
    if !message.metadata.truncation {
        return Ok(message);
    }
    let query = Outgoing::new(server, name, family, edns)?;
    let message = timeout(attempt, over_tcp(server, &query))
        .await
        .map_err(elapsed)??;
    if message.metadata.truncation {
        return Err(UpstreamFault::Malformed {
            server,
            what: "an answer over TCP was cut",
        });
    }
    Ok(message)
}

/// A question as sent.
pub(super) struct Outgoing {
    pub(super) id: u16,
    question: Question,
    pub(super) bytes: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(
        server: SocketAddr,
        name: &Name,
        family: Family,
        edns: bool,
    ) -> Result<Self, UpstreamFault> {
        let mut id = [0; 2];
        rand::fill(&mut id).map_err(|_unspecified| UpstreamFault::Io {
            server,
            cause: io::Error::other("no random number for the question's id"),
        })?;
        let id = u16::from_ne_bytes(id);
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let unsendable = |_| UpstreamFault::Malformed {
            server,
            what: "the question has no wire form",
        };
        let mut wire = WireName::from_ascii(name.as_str()).map_err(unsendable)?;
        wire.set_fqdn(true);
        let question = Question::query(wire, kind);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(question.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().map_err(unsendable)?;
        Ok(Self {
            id,
            question,
            bytes,
        })
    }

    /// The message if it answers this question; anything else was never asked for.
    pub(super) fn matching(&self, bytes: &[u8]) -> Option<Message> {
        // Cheap test first: a flood of guesses is not worth parsing.
        if bytes.get(0..2)? != self.id.to_be_bytes() {
            return None;
        }
        let message = Message::from_vec(bytes).ok()?;
        let [question] = message.queries.as_slice() else {
            return None;
        };
        let same = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && question.query_class == DNSClass::IN
            && question.query_type == self.question.query_type
            && question.name == self.question.name;
        same.then_some(message)
    }
}

async fn over_udp(
    server: SocketAddr,
    query: &Outgoing,
    dropped: &mut u32,
) -> Result<Message, UpstreamFault> {
    let fail = |cause| UpstreamFault::Io { server, cause };
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own for each question: the port is the kernel's random choice (RFC 5452
    // section 9.2), and a connected one takes datagrams from the server's address alone.
    let socket = UdpSocket::bind(any).await.map_err(fail)?;
    socket.connect(server).await.map_err(fail)?;
    socket.send(&query.bytes).await.map_err(fail)?;
    let mut buffer = vec![0; 4096];
    let mut mine = 0;
    loop {
        let (length, source) = socket.recv_from(&mut buffer).await.map_err(fail)?;
        // What arrived between bind and connect may be from anybody.
        let from_server = (source.ip(), source.port()) == (server.ip(), server.port());
        let bytes = buffer.get(..length).filter(|_| from_server);
        let matching = bytes.and_then(|bytes| query.matching(bytes));
        if let Some(message) = matching {
            return Ok(message);
        }
        *dropped += 1;
        mine += 1;
        if mine > MAX_DROPPED {
            return Err(UpstreamFault::Flooded {
                server,
                limit: MAX_DROPPED,
            });
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Outgoing) -> Result<Message, UpstreamFault> {
    let fail = |cause| UpstreamFault::Io { server, cause };
    let broken = |fault| match fault {
        FrameFault::Io(cause) => UpstreamFault::Io { server, cause },
        FrameFault::Cut
        | FrameFault::Idle
        | FrameFault::TooLong { .. }
        | FrameFault::TooMany { .. } => UpstreamFault::Malformed {
            server,
            what: "a stream broke inside a message",
        },
    };
    let mut stream = TcpStream::connect(server).await.map_err(fail)?;
    frame::write_one(&mut stream, &query.bytes)
        .await
        .map_err(broken)?;
    let limit = usize::from(u16::MAX);
    let bytes = frame::read_one(&mut stream, limit).await.map_err(broken)?;
    let bytes = bytes.ok_or(UpstreamFault::Malformed {
        server,
        what: "a stream ended early",
    })?;
    query.matching(&bytes).ok_or(UpstreamFault::Malformed {
        server,
        what: "an answer over TCP matches no question",
    })
}
