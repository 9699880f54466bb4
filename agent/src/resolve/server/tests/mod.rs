//! Whole queries against a fake name server: what is answered, bound, refused and said.

mod answers;
mod bounds;
mod proxy;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::{Name as WireName, RData};

use super::*;
use crate::resolve::fake::{Act, FakeOracle, FakeServer, records, reply};
use crate::resolve::{Class, Protocol, ResolveFault, UpstreamFault};

const WORKLOAD: u32 = 7;

fn private() -> NameGrant {
    NameGrant {
        private: true,
        ports: vec![(443, Protocol::Tcp)],
        ..NameGrant::default()
    }
}

fn synthetic() -> NameGrant {
    NameGrant {
        synthetic: true,
        ports: vec![(5432, Protocol::Tcp)],
        ..NameGrant::default()
    }
}

/// A resolver over one fake server; what it knows is in `ZONE`.
struct Bench {
    resolver: Resolver<FakeOracle>,
    server: FakeServer,
}

const ZONE: &[(&str, &[&str])] = &[
    (
        "api.example.com.",
        &[
            "api.example.com 300 A 93.184.216.34",
            "api.example.com 300 AAAA 2606:4700::1",
        ],
    ),
    (
        "cdn.example.com.",
        &[
            "cdn.example.com 30 CNAME x.attacker.example",
            "x.attacker.example 30 A 93.184.216.66",
        ],
    ),
    (
        "meta.example.com.",
        &[
            "meta.example.com 30 CNAME m.attacker.example",
            "m.attacker.example 30 A 169.254.169.254",
        ],
    ),
    (
        "mixed.example.com.",
        &[
            "mixed.example.com 30 A 10.0.0.5",
            "mixed.example.com 30 A 93.184.216.34",
            "mixed.example.com 30 A 127.0.0.1",
        ],
    ),
    (
        "lan.example.com.",
        &[
            "lan.example.com 30 A 10.0.0.5",
            "lan.example.com 30 AAAA fd00::5",
        ],
    ),
    ("own.example.com.", &["own.example.com 30 A 10.9.9.9"]),
    (
        "mapped.example.com.",
        &[
            "mapped.example.com 30 AAAA ::ffff:127.0.0.1",
            "mapped.example.com 30 AAAA 64:ff9b::a9fe:a9fe",
        ],
    ),
    ("zero.example.com.", &["zero.example.com 0 A 93.184.216.34"]),
    ("printer.local.", &["printer.local 30 A 10.0.0.9"]),
];

async fn zone_server() -> FakeServer {
    FakeServer::start(|query, _| {
        let asked = query.queries[0].name.to_ascii();
        vec![Act::Send(
            match ZONE.iter().find(|(name, _)| *name == asked) {
                Some((_, lines)) => records(query, lines),
                None => reply(query, ResponseCode::NXDomain).to_vec().unwrap(),
            },
        )]
    })
    .await
}

async fn bench(oracle: FakeOracle) -> Bench {
    bench_with(oracle, zone_server().await, Limits::default())
}

fn bench_with(oracle: FakeOracle, server: FakeServer, limits: Limits) -> Bench {
    let own = Own {
        addresses: vec!["10.9.9.9".parse().unwrap()],
        synthetic: None,
    };
    let settings = Settings {
        upstreams: vec![server.address],
        own,
        limits,
    };
    Bench {
        resolver: Resolver::new(oracle, settings).unwrap(),
        server,
    }
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = WireName::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Question::query(name, kind));
    message.to_vec().unwrap()
}

impl Bench {
    async fn ask(&self, name: &str, kind: RecordType) -> (String, DnsOutcome) {
        let bytes = query(name, kind);
        let answer = self
            .resolver
            .serve_query(WORKLOAD, &bytes, Transport::Udp, &Intended::for_tests())
            .await;
        (show(answer.bytes.as_deref()), answer.outcome)
    }

    fn bound(&self) -> Vec<(u32, String, Vec<IpAddr>)> {
        self.resolver.oracle.bound.lock().unwrap().clone()
    }
}

/// `CODE address address`, or `silence`.
fn show(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "silence".to_owned();
    };
    let message = Message::from_vec(bytes).unwrap();
    assert!(message.authorities.is_empty() && message.additionals.is_empty());
    let mut text = format!("{:?}", message.metadata.response_code);
    for record in &message.answers {
        let address: IpAddr = match &record.data {
            RData::A(address) => address.0.into(),
            RData::AAAA(address) => address.0.into(),
            other => panic!("only addresses are answered, not {other:?}"),
        };
        assert_eq!(
            record.name, message.queries[0].name,
            "the allowed name stays the name"
        );
        write!(text, " {address}").unwrap();
    }
    text
}

/// Asks each line's `name type` and compares with its answer.
async fn check(bench: &Bench, table: &str) {
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, want) = line.split_once(" => ").unwrap();
        let (name, kind) = asked.split_once(' ').unwrap();
        let kind: RecordType = match kind.strip_prefix("TYPE") {
            Some(number) => number.parse::<u16>().unwrap().into(),
            None => kind.parse().unwrap(),
        };
        let (got, outcome) = bench.ask(name, kind).await;
        assert_eq!(format!("{got} {}", label(&outcome.result)), want, "{asked}");
        let given: Vec<String> = outcome.addresses.iter().map(ToString::to_string).collect();
        assert!(
            got.ends_with(&given.join(" ")),
            "the record says what was given"
        );
    }
}

fn label(result: &DnsResult) -> String {
    let text = format!("{result:?}");
    text.split(['(', ' ']).next().unwrap().to_owned()
}

/// Answers only when released.
async fn slow_server() -> FakeServer {
    FakeServer::start(|query, _| {
        let name = query.queries[0].name.to_ascii();
        let line = format!("{} 30 A 93.184.216.34", name.trim_end_matches('.'));
        vec![Act::Wait, Act::Send(records(query, &[&line]))]
    })
    .await
}
