//! A name server that stands in for the world's: it answers from a table and remembers what it was asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::namespace::Namespace;

/// Lifetime of answers, in seconds: short, so that tests can change their mind.
const TTL: u32 = 1;

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses, by family.
    Addresses(Vec<IpAddr>),
    /// Another name, which is followed as far as the table knows it.
    Alias(String),
    /// This code and nothing else.
    Code(ResponseCode),
    /// No answer at all.
    Silence,
}

/// A question as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, without its final dot.
    pub name: String,
    /// `A`, `AAAA`, ...
    pub kind: String,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// Who asked.
    pub from: SocketAddr,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<String, Answer>,
    asked: Vec<Question>,
}

/// The fake server, UDP and TCP; it ends on drop. A name that is not in its table does not exist.
#[derive(Debug)]
pub struct FakeDns {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    tasks: [JoinHandle<()>; 2],
}

impl FakeDns {
    /// Serves `address` in `namespace`; to be called within a runtime.
    pub fn serve(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let udp = namespace.bind_udp(address)?;
        let address = udp.local_addr().context("read the name server's address")?;
        let tcp = namespace.listen(address)?;
        let table = Arc::new(Mutex::new(Table::default()));
        let tasks = [
            tokio::spawn(serve_udp(udp, Arc::clone(&table))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&table))),
        ];
        Ok(Self {
            address,
            table,
            tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `name` stand for `answer` from now on.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.table)
            .names
            .insert(name.to_ascii_lowercase(), answer);
    }

    /// Lets `name` stand for these addresses from now on.
    pub fn points(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, Answer::Addresses(addresses.to_vec()));
    }

    /// Every question so far, in order.
    pub fn asked(&self) -> Vec<Question> {
        lock(&self.table).asked.clone()
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_udp(socket: UdpSocket, table: Arc<Mutex<Table>>) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let packet = buffer.get(..length).unwrap_or_default();
        if let Ok(Some(answer)) = answer(packet, from, false, &table) {
            // Who asked may have gone.
            let _sent = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, table: Arc<Mutex<Table>>) {
    let mut streams = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        streams.spawn(serve_stream(stream, from, Arc::clone(&table)));
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_stream(
    mut stream: TcpStream,
    from: SocketAddr,
    table: Arc<Mutex<Table>>,
) -> Result<()> {
    loop {
        let length = stream.read_u16().await.context("read a length")?;
        let mut packet = vec![0; usize::from(length)];
        stream
            .read_exact(&mut packet)
            .await
            .context("read a question")?;
        if let Some(answer) = answer(&packet, from, true, &table)? {
            stream
                .write_u16(u16::try_from(answer.len())?)
                .await
                .context("write a length")?;
            stream.write_all(&answer).await.context("write an answer")?;
        }
    }
}

fn answer(
    packet: &[u8],
    from: SocketAddr,
    tcp: bool,
    table: &Mutex<Table>,
) -> Result<Option<Vec<u8>>> {
    let query = Message::from_vec(packet).context("parse a question")?;
    let [question] = query.queries.as_slice() else {
        bail!("not one question");
    };
    let mut table = lock(table);
    table.asked.push(Question {
        name: plain(&question.name),
        kind: question.query_type.to_string(),
        tcp,
        from,
    });
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.clone());
    let spoke = fill(&mut reply, question, &table.names)?;
    drop(table);
    if spoke {
        reply.to_vec().map(Some).context("write an answer")
    } else {
        Ok(None)
    }
}

/// Writes the answer to `question` into `reply`; false: stay silent.
fn fill(reply: &mut Message, question: &Query, names: &HashMap<String, Answer>) -> Result<bool> {
    let mut owner = question.name.clone();
    // Aliases may form a ring; nobody follows more than these.
    for _ in 0..16 {
        match names.get(&plain(&owner)) {
            Some(Answer::Addresses(addresses)) => {
                let wanted = question.query_type;
                reply.add_answers(
                    addresses
                        .iter()
                        .filter_map(|address| record(&owner, wanted, *address)),
                );
                break;
            }
            Some(Answer::Alias(target)) => {
                let target = Name::from_ascii(format!("{target}.")).context("read an alias")?;
                reply.add_answer(Record::from_rdata(
                    owner,
                    TTL,
                    RData::CNAME(CNAME(target.clone())),
                ));
                owner = target;
            }
            Some(Answer::Code(code)) => {
                reply.metadata.response_code = *code;
                return Ok(true);
            }
            Some(Answer::Silence) => return Ok(false),
            None => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                break;
            }
        }
    }
    if reply.answers.is_empty() {
        let (server, person) = (Name::from_ascii("ns.")?, Name::from_ascii("op.")?);
        let soa = SOA::new(server, person, 1, 1, 1, 1, TTL);
        reply.add_authority(Record::from_rdata(Name::root(), TTL, RData::SOA(soa)));
    }
    Ok(true)
}

fn record(owner: &Name, wanted: RecordType, address: IpAddr) -> Option<Record> {
    let data = match (wanted, address) {
        (RecordType::A, IpAddr::V4(v4)) => RData::A(v4.into()),
        (RecordType::AAAA, IpAddr::V6(v6)) => RData::AAAA(v6.into()),
        _ => return None,
    };
    Some(Record::from_rdata(owner.clone(), TTL, data))
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
