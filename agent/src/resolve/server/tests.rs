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
            .serve_query(WORKLOAD, &bytes, Transport::Udp)
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

#[tokio::test]
async fn allowed_names_are_answered_and_bound_first() {
    let bench = bench(FakeOracle::allowing(&[
        "api.example.com",
        "cdn.example.com",
    ]))
    .await;
    check(
        &bench,
        "api.example.com A => NoError 93.184.216.34 Answered
         api.example.com AAAA => NoError 2606:4700::1 Answered
         cdn.example.com A => NoError 93.184.216.66 Answered",
    )
    .await;
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(
        bench.bound(),
        [
            (
                WORKLOAD,
                "api.example.com".to_owned(),
                vec![address("93.184.216.34")]
            ),
            (
                WORKLOAD,
                "api.example.com".to_owned(),
                vec![address("2606:4700::1")]
            ),
            (
                WORKLOAD,
                "cdn.example.com".to_owned(),
                vec![address("93.184.216.66")]
            ),
        ]
    );
    let (_, outcome) = bench.ask("CDN.example.com", RecordType::A).await;
    assert_eq!(outcome.name.unwrap().as_str(), "cdn.example.com");
    assert_eq!(outcome.asked, "CDN.example.com.");
    assert_eq!(outcome.aliases[0].as_str(), "x.attacker.example");
    assert_eq!(
        (outcome.cached, outcome.upstream),
        (true, Some(bench.server.address))
    );
    assert!(outcome.ttl <= 30);
}

#[tokio::test]
async fn nothing_leaves_for_what_is_not_allowed() {
    let names = [
        "api.example.com",
        "x.invalid",
        "x.onion",
        "printer.local",
        "5.in-addr.arpa",
    ];
    let bench = bench(FakeOracle::allowing(&names)).await;
    check(
        &bench,
        "secret.evil.example A => NXDomain NotAllowed
         secret.evil.example AAAA => NXDomain NotAllowed
         secret.evil.example TXT => NXDomain NotAllowed
         secret.evil.example HTTPS => NXDomain NotAllowed
         secret.evil.example ANY => NXDomain NotAllowed
         _dns.resolver.arpa SVCB => NXDomain NotAllowed
         use-application-dns.net A => NXDomain NotAllowed
         api.example.com.corp.internal A => NXDomain NotAllowed
         apiXexample.com A => NXDomain NotAllowed
         wpad A => NXDomain NotAllowed
         . NS => NXDomain NotAHostName
         com. NS => NXDomain NotAllowed
         127.1 A => NXDomain NotAHostName
         0x7f.1 A => NXDomain NotAHostName
         2130706433 A => NXDomain NotAHostName
         *.example.com A => NXDomain NotAHostName
         34.216.184.93.in-addr.arpa PTR => NXDomain Reverse
         api.example.com PTR => NXDomain Reverse
         api.example.com HTTPS => NoError OtherType
         api.example.com SVCB => NoError OtherType
         api.example.com TXT => NoError OtherType
         api.example.com NULL => NoError OtherType
         api.example.com ANY => NoError OtherType
         api.example.com MX => NoError OtherType
         api.example.com SRV => NoError OtherType
         api.example.com CNAME => NoError OtherType
         api.example.com TYPE65534 => NoError OtherType
         api.example.com AXFR => NoError OtherType
         x.invalid A => NXDomain Reserved
         x.onion A => NXDomain Reserved
         printer.local A => NXDomain Reserved
         5.in-addr.arpa A => NXDomain Reserved
         localhost A => NoError 127.0.0.1 Loopback
         a.localhost AAAA => NoError ::1 Loopback
         localhost TXT => NoError OtherType",
    )
    .await;
    assert_eq!(bench.server.asked(), Vec::<String>::new());
    assert!(bench.bound().is_empty(), "{:?}", bench.bound());
}

#[tokio::test]
async fn refused_addresses_are_neither_given_nor_bound() {
    let names = ["meta", "mixed", "lan", "own", "mapped"].map(|name| format!("{name}.example.com"));
    let bench = bench(FakeOracle::allowing(&names.each_ref().map(String::as_str))).await;
    check(
        &bench,
        "meta.example.com A => NoError Refused
         lan.example.com A => NoError Refused
         own.example.com A => NoError Refused
         mapped.example.com AAAA => NoError Refused
         mixed.example.com A => NoError 93.184.216.34 Answered",
    )
    .await;
    let bound = bench.bound();
    assert_eq!(bound.len(), 1);
    assert_eq!(bound[0].2, ["93.184.216.34".parse::<IpAddr>().unwrap()]);
    let (_, outcome) = bench.ask("mixed.example.com", RecordType::A).await;
    assert!(outcome.is_refusal());
    let refused: Vec<Class> = outcome
        .refused
        .iter()
        .map(|refused| refused.class)
        .collect();
    assert_eq!(refused, [Class::Private, Class::Loopback]);
    let (_, outcome) = bench.ask("mapped.example.com", RecordType::AAAA).await;
    let refused: Vec<Class> = outcome
        .refused
        .iter()
        .map(|refused| refused.class)
        .collect();
    assert_eq!(refused, [Class::Loopback, Class::Metadata]);
}

#[tokio::test]
async fn private_names_reach_private_addresses_and_no_worse() {
    let mut oracle = FakeOracle::default();
    for name in ["meta", "mixed", "lan", "own"] {
        oracle = oracle.with(&format!("{name}.example.com"), private());
    }
    oracle = oracle
        .with("printer.local", private())
        .with("localhost", private());
    let bench = bench(oracle).await;
    check(
        &bench,
        "lan.example.com A => NoError 10.0.0.5 Answered
         lan.example.com AAAA => NoError fd00::5 Answered
         printer.local A => NoError 10.0.0.9 Answered
         meta.example.com A => NoError Refused
         own.example.com A => NoError Refused
         mixed.example.com A => NoError 10.0.0.5 93.184.216.34 Answered
         localhost A => NoError 127.0.0.1 Loopback",
    )
    .await;
    let last = bench.bound().pop().unwrap();
    assert_eq!(last.1, "localhost", "a rule that names it binds it");
}

#[tokio::test]
async fn synthetic_names_are_not_asked_upstream() {
    let oracle = FakeOracle::default().with("db.example.com", synthetic());
    let bench = bench(oracle).await;
    check(
        &bench,
        "db.example.com A => NoError 198.18.0.1 Synthetic
         db.example.com AAAA => NoError fd00::1 Synthetic
         db.example.com HTTPS => NoError OtherType",
    )
    .await;
    assert!(bench.server.asked().is_empty());
}

#[tokio::test]
async fn a_full_kernel_map_gives_no_answer() {
    let oracle = FakeOracle {
        full: true,
        ..FakeOracle::allowing(&["api.example.com"])
    };
    let oracle = oracle
        .with("db.example.com", synthetic())
        .with("localhost", private());
    let bench = bench(oracle).await;
    check(
        &bench,
        "api.example.com A => ServFail Unbound
         db.example.com A => ServFail Unbound
         localhost A => ServFail Unbound",
    )
    .await;
}

#[tokio::test]
async fn absences_and_faults_are_told_apart() {
    let bench = bench(FakeOracle::allowing(&[
        "gone.example.com",
        "own.example.com",
    ]))
    .await;
    check(
        &bench,
        "gone.example.com A => NXDomain NoName
         own.example.com AAAA => NoError NoData",
    )
    .await;
    let broken = FakeServer::start(|query, _| {
        vec![Act::Send(
            reply(query, ResponseCode::Refused).to_vec().unwrap(),
        )]
    })
    .await;
    let bench = bench_with(
        FakeOracle::allowing(&["api.example.com"]),
        broken,
        Limits::default(),
    );
    check(&bench, "api.example.com A => ServFail Upstream").await;
}

#[tokio::test]
async fn answers_of_zero_life_are_not_kept() {
    let bench = bench(FakeOracle::allowing(&["zero.example.com"])).await;
    for asked in 1..=3 {
        let (_, outcome) = bench.ask("zero.example.com", RecordType::A).await;
        assert_eq!((outcome.ttl, outcome.cached), (0, false));
        assert_eq!(bench.server.asked().len(), asked);
    }
}

/// A name that answers with a public address first and with worse ones after it was allowed.
#[tokio::test]
async fn rebinding_gains_nothing() {
    let turn = Mutex::new(
        ["93.184.216.34", "127.0.0.1", "169.254.169.254", "10.0.0.1"]
            .iter()
            .cycle(),
    );
    let server = FakeServer::start(move |query, _| {
        let address = turn.lock().unwrap().next().unwrap();
        let line = format!("api.example.com 0 A {address}");
        let aaaa = query.queries[0].query_type == RecordType::AAAA;
        let line: &[&str] = if aaaa { &[] } else { &[&line] };
        vec![Act::Send(records(query, line))]
    })
    .await;
    let bench = bench_with(
        FakeOracle::allowing(&["api.example.com"]),
        server,
        Limits::default(),
    );
    let name = Name::parse("api.example.com").unwrap();
    for _ in 0..12 {
        bench.ask("api.example.com", RecordType::A).await;
        if let Ok(addresses) = bench.resolver.resolve_checked(&name, false).await {
            assert_eq!(addresses, ["93.184.216.34".parse::<IpAddr>().unwrap()]);
        }
    }
    for (_, _, addresses) in bench.bound() {
        assert_eq!(addresses, ["93.184.216.34".parse::<IpAddr>().unwrap()]);
    }
}

#[tokio::test]
async fn the_proxy_gets_checked_addresses_of_both_families() {
    let bench = bench(FakeOracle::default()).await;
    let go = async |name: &str, private: bool| {
        let name = Name::parse(name).unwrap();
        match bench.resolver.resolve_checked(&name, private).await {
            Ok(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                texts.join(" ")
            }
            Err(fault) => fault.to_string(),
        }
    };
    assert_eq!(
        go("api.example.com", false).await,
        "2606:4700::1 93.184.216.34"
    );
    assert_eq!(go("mixed.example.com", false).await, "93.184.216.34");
    assert_eq!(go("lan.example.com", true).await, "fd00::5 10.0.0.5");
    assert!(
        go("lan.example.com", false)
            .await
            .contains("fd00::5 (unique local)")
    );
    assert!(
        go("meta.example.com", true)
            .await
            .contains("169.254.169.254 (metadata)")
    );
    assert!(
        go("own.example.com", true)
            .await
            .contains("10.9.9.9 (this machine)")
    );
    assert_eq!(
        go("gone.example.com", false).await,
        "`gone.example.com` does not exist"
    );
    assert_eq!(go("localhost", true).await, "::1 127.0.0.1");
    assert!(
        go("localhost", false)
            .await
            .contains("127.0.0.1 (loopback)")
    );
    assert!(go("x.onion", true).await.contains("reserved"));
    assert!(
        bench.bound().is_empty(),
        "the proxy's look-up binds nothing"
    );
}

#[tokio::test]
async fn malformed_queries_leave_the_resolver_unharmed() {
    let bench = bench(FakeOracle::allowing(&["api.example.com"])).await;
    let good = query("api.example.com", RecordType::A);
    for bytes in [&[][..], &good[..11], &good[..20], &[0xff; 300]] {
        let answer = bench
            .resolver
            .serve_query(WORKLOAD, bytes, Transport::Udp)
            .await;
        assert!(matches!(answer.outcome.result, DnsResult::Malformed(_)));
        assert_eq!(answer.bytes.is_some(), answer.outcome.rcode.is_some());
    }
    check(
        &bench,
        "api.example.com A => NoError 93.184.216.34 Answered",
    )
    .await;
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

#[tokio::test]
async fn queries_under_way_are_bounded_and_shared() {
    let names: Vec<String> = (0..4).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limits = Limits {
        in_flight_per_workload: 3,
        ..Limits::default()
    };
    let bench = bench_with(FakeOracle::allowing(&names), slow_server().await, limits);
    let ask = |name: &'static str| bench.ask(name, RecordType::A);
    let under_way = async {
        tokio::join!(
            ask("n0.example.com"),
            ask("n0.example.com"),
            ask("n1.example.com")
        )
    };
    let over = async {
        bench.server.wait_asked(2).await;
        let (answer, outcome) = ask("n2.example.com").await;
        assert_eq!(
            (answer.as_str(), label(&outcome.result)),
            ("ServFail", "Overloaded".into())
        );
        bench.server.release();
        bench.server.release();
    };
    let ((first, second, third), ()) = tokio::join!(under_way, over);
    for (answer, _) in [first, second, third] {
        assert_eq!(answer, "NoError 93.184.216.34");
    }
    assert_eq!(bench.server.asked().len(), 2, "equal questions are one");
}

#[tokio::test]
async fn fresh_names_are_bounded_and_cached_ones_are_free() {
    let names: Vec<String> = (0..5).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limits = Limits {
        fresh_per_minute: 3,
        ..Limits::default()
    };
    let server = slow_server().await;
    (0..5).for_each(|_| server.release());
    let bench = bench_with(FakeOracle::allowing(&names), server, limits);
    for (name, want) in [
        (0, "Answered"),
        (1, "Answered"),
        (2, "Answered"),
        (3, "Overloaded"),
        (0, "Answered"),
    ] {
        let (_, outcome) = bench.ask(names[name], RecordType::A).await;
        assert_eq!(label(&outcome.result), want, "{name}");
    }
}

#[tokio::test]
async fn a_silent_server_ends_in_a_fault_in_time() {
    let limits = Limits {
        attempt: Duration::from_millis(10),
        total: Duration::from_millis(50),
        ..Limits::default()
    };
    let bench = bench_with(
        FakeOracle::allowing(&["api.example.com"]),
        slow_server().await,
        limits,
    );
    check(&bench, "api.example.com A => ServFail Upstream").await;
    let name = Name::parse("api.example.com").unwrap();
    match bench.resolver.resolve_checked(&name, false).await {
        Err(ResolveFault::Upstream { cause, .. }) => {
            assert!(matches!(*cause, UpstreamFault::Timeout { .. }), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let check = |upstreams: &[&str], want: &str| {
        let upstreams = upstreams
            .iter()
            .map(|server| server.parse().unwrap())
            .collect();
        let settings = Settings {
            upstreams,
            ..Settings::default()
        };
        let fault = Resolver::new(FakeOracle::default(), settings).err();
        assert_eq!(
            fault.map(|fault| fault.to_string()).unwrap_or_default(),
            want
        );
    };
    check(&[], "no upstream name server is configured");
    check(
        &["0.0.0.0:53"],
        "upstream name server `0.0.0.0:53` is not an address that can be asked",
    );
    check(
        &["1.1.1.1:0"],
        "upstream name server `1.1.1.1:0` is not an address that can be asked",
    );
    check(
        &["1.1.1.1:53"; 9],
        "9 upstream name servers are configured; at most 8 are used",
    );
    check(&["127.0.0.53:53", "[2606:4700::1111]:53"], "");
}
