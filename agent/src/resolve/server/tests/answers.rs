//! What each kind of name and type is answered.

use super::*;

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
