//! Fakes for the tests of this folder: an upstream server that follows a script, and an oracle.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name as WireName, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::frame;
use super::{BindFault, Name, NameGrant, Oracle, Transport};

/// One thing that the fake server does with a question.
pub(super) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes from a port that was not asked (UDP only).
    SendFromElsewhere(Vec<u8>),
    /// Waits until the test calls [`FakeServer::release`].
    Wait,
}

type Script = dyn Fn(&Message, Transport) -> Vec<Act> + Send + Sync;

/// A name server on loopback, UDP and TCP on one port.
pub(super) struct FakeServer {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType, Transport)>>>,
    released: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl FakeServer {
    pub(super) async fn start(
        script: impl Fn(&Message, Transport) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = bind_pair().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let released = Arc::new(Semaphore::new(0));
        let script: Arc<Script> = Arc::new(script);
        let mut tasks = JoinSet::new();
        let shared = (script, Arc::clone(&asked), Arc::clone(&released));
        tasks.spawn(serve_udp(udp, shared.clone()));
        tasks.spawn(serve_tcp(tcp, shared));
        Self {
            address,
            asked,
            released,
            _tasks: tasks,
        }
    }

    /// What was asked so far, as `name type transport`.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|(name, kind, over)| format!("{name} {kind} {over:?}"))
            .collect()
    }

    /// Lets one waiting answer go on.
    pub(super) fn release(&self) {
        self.released.add_permits(1);
    }

    /// Waits until so many questions have come.
    pub(super) async fn wait_asked(&self, count: usize) {
        while self.asked.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }
}

async fn bind_pair() -> (UdpSocket, TcpListener) {
    for _ in 0..64 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port free for both UDP and TCP");
}

type Shared = (
    Arc<Script>,
    Arc<Mutex<Vec<(String, RecordType, Transport)>>>,
    Arc<Semaphore>,
);

fn note(shared: &Shared, bytes: &[u8], over: Transport) -> Vec<Act> {
    let query = Message::from_vec(bytes).expect("the client sends messages");
    assert_eq!(query.queries.len(), 1, "one question");
    let question = &query.queries[0];
    shared
        .1
        .lock()
        .unwrap()
        .push((question.name.to_ascii(), question.query_type, over));
    (shared.0)(&query, over)
}

async fn serve_udp(socket: UdpSocket, shared: Shared) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    let mut answers = JoinSet::new();
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let acts = note(&shared, &buffer[..length], Transport::Udp);
        let (socket, released) = (Arc::clone(&socket), Arc::clone(&shared.2));
        answers.spawn(async move {
            for act in acts {
                match act {
                    Act::Send(bytes) => {
                        socket.send_to(&bytes, from).await.unwrap();
                    }
                    Act::SendFromElsewhere(bytes) => {
                        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                        other.send_to(&bytes, from).await.unwrap();
                    }
                    Act::Wait => released.acquire().await.unwrap().forget(),
                }
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Shared) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        streams.spawn(serve_stream(stream, shared.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, shared: Shared) {
    while let Ok(Some(bytes)) = frame::read_one(&mut stream, 65535).await {
        for act in note(&shared, &bytes, Transport::Tcp) {
            match act {
                Act::Send(bytes) => frame::write_one(&mut stream, &bytes).await.unwrap(),
                Act::Wait => shared.2.acquire().await.unwrap().forget(),
                Act::SendFromElsewhere(_) => panic!("a stream has one source"),
            }
        }
    }
}

/// An answer to `query` without records.
pub(super) fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.add_queries(query.queries.clone());
    message
}

/// An answer with the records, given as `owner ttl type data`.
pub(super) fn records(query: &Message, lines: &[&str]) -> Vec<u8> {
    let mut message = reply(query, ResponseCode::NoError);
    message.add_answers(lines.iter().map(|line| record(line)));
    message.to_vec().unwrap()
}

pub(super) fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split(' ').collect();
    let [owner, ttl, kind, data] = words[..] else {
        panic!("`{line}` is not `owner ttl type data`");
    };
    // `@` stands for NUL and `|` for a dot inside a label: no presentation form takes them all.
    let wire = |text: &str| {
        let labels = text.split('.').map(|label| {
            let byte = |byte| match byte {
                b'@' => 0,
                b'|' => b'.',
                other => other,
            };
            label.bytes().map(byte).collect::<Vec<u8>>()
        });
        let labels: Vec<Vec<u8>> = labels.collect();
        let mut name = WireName::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        name.set_fqdn(true);
        name
    };
    let data = match kind {
        "A" => RData::A(data.parse().unwrap()),
        "AAAA" => RData::AAAA(data.parse().unwrap()),
        "CNAME" => RData::CNAME(CNAME(wire(data))),
        "SOA" => RData::SOA(SOA::new(
            wire("ns"),
            wire("op"),
            1,
            1,
            1,
            1,
            data.parse().unwrap(),
        )),
        other => panic!("no record of type `{other}` in tests"),
    };
    Record::from_rdata(wire(owner), ttl.parse().unwrap(), data)
}

/// Policy and kernel in a test: grants by name, and what was bound.
#[derive(Default)]
pub(super) struct FakeOracle {
    pub(super) grants: Mutex<HashMap<String, NameGrant>>,
    pub(super) bound: Mutex<Vec<(u32, String, Vec<IpAddr>)>>,
    /// The kernel map takes nothing more.
    pub(super) full: bool,
}

impl FakeOracle {
    pub(super) fn allowing(names: &[&str]) -> Self {
        let grant = NameGrant {
            ports: vec![(443, super::Protocol::Tcp)],
            ..NameGrant::default()
        };
        let grants: HashMap<_, _> = names
            .iter()
            .map(|name| ((*name).to_owned(), grant.clone()))
            .collect();
        Self {
            grants: Mutex::new(grants),
            ..Self::default()
        }
    }

    pub(super) fn with(self, name: &str, grant: NameGrant) -> Self {
        self.grants.lock().unwrap().insert(name.to_owned(), grant);
        self
    }
}

impl Oracle for FakeOracle {
    fn may_resolve(&self, _workload: u32, name: &Name) -> Option<NameGrant> {
        self.grants.lock().unwrap().get(name.as_str()).cloned()
    }

    fn bind(
        &self,
        workload: u32,
        name: &Name,
        addresses: &[IpAddr],
        _grant: &NameGrant,
    ) -> Result<(), BindFault> {
        if self.full {
            let (name, cause) = (name.to_string(), "the table is full".into());
            return Err(BindFault {
                name,
                workload,
                cause,
            });
        }
        let entry = (workload, name.to_string(), addresses.to_vec());
        self.bound.lock().unwrap().push(entry);
        Ok(())
    }

    fn is_synthetic(&self, workload: u32, name: &Name) -> bool {
        let bound = self.bound.lock().unwrap();
        bound
            .iter()
            .any(|(of, known, _)| (*of, known.as_str()) == (workload, name.as_str()))
    }

    fn synthetic(&self, workload: u32, name: &Name) -> Result<(Ipv4Addr, Ipv6Addr), BindFault> {
        let v4 = Ipv4Addr::new(198, 18, 0, 1);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        self.bind(
            workload,
            name,
            &[v4.into(), v6.into()],
            &NameGrant::default(),
        )?;
        Ok((v4, v6))
    }
}
