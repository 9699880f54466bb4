//! Limits, hostile bytes and silent servers.

use super::*;

#[tokio::test]
async fn answers_of_zero_life_are_not_kept() {
    let bench = bench(FakeOracle::allowing(&["zero.example.com"])).await;
    for asked in 1..=3 {
        let (_, outcome) = bench.ask("zero.example.com", RecordType::A).await;
        assert_eq!((outcome.ttl, outcome.cached), (0, false));
        assert_eq!(bench.server.asked().len(), asked);
    }
}

#[tokio::test]
async fn malformed_queries_leave_the_resolver_unharmed() {
    let bench = bench(FakeOracle::allowing(&["api.example.com"])).await;
    let good = query("api.example.com", RecordType::A);
    for bytes in [&[][..], &good[..11], &good[..20], &[0xff; 300]] {
        let answer = bench
            .resolver
            .serve_query(WORKLOAD, bytes, Transport::Udp, &Intended::for_tests())
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

#[tokio::test]
async fn queries_under_way_are_bounded_and_shared() {
    let names: Vec<String> = (0..4).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let limits = Limits {
        in_flight_per_workload: 2,
        joining: 1,
        fresh_per_minute: 2,
        ..Limits::default()
    };
    let bench = bench_with(FakeOracle::allowing(&names), slow_server().await, limits);
    let ask = |name: &'static str| bench.ask(name, RecordType::A);
    // One that asks, and as many as may wait for it.
    let under_way = async {
        tokio::join!(
            ask("n0.example.com"),
            ask("n0.example.com"),
            ask("n0.example.com"),
            ask("n1.example.com")
        )
    };
    let over = async {
        bench.server.wait_asked(2).await;
        // One more question, and one more that waits.
        for name in ["n2.example.com", "n0.example.com"] {
            let (answer, outcome) = ask(name).await;
            assert_eq!(
                (answer.as_str(), label(&outcome.result)),
                ("ServFail", "Overloaded".into()),
                "{name}"
            );
        }
        bench.server.release();
        bench.server.release();
    };
    let ((first, second, third, other), ()) = tokio::join!(under_way, over);
    for (answer, _) in [first, second, third, other] {
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
        (3, "TooManyNames"),
        (0, "Answered"),
    ] {
        let (_, outcome) = bench.ask(names[name], RecordType::A).await;
        assert_eq!(label(&outcome.result), want, "{name}");
    }
}

#[tokio::test]
async fn fresh_synthetic_names_are_bounded_too() {
    let names: Vec<String> = (0..5).map(|n| format!("n{n}.example.com")).collect();
    let oracle = names.iter().fold(FakeOracle::default(), |oracle, name| {
        oracle.with(name, synthetic())
    });
    let limits = Limits {
        fresh_per_minute: 3,
        ..Limits::default()
    };
    let bench = bench_with(oracle, slow_server().await, limits);
    for (name, kind, want) in [
        (0, RecordType::A, "Synthetic"),
        (0, RecordType::AAAA, "Synthetic"),
        (1, RecordType::A, "Synthetic"),
        (2, RecordType::A, "Synthetic"),
        (3, RecordType::A, "TooManyNames"),
        (1, RecordType::AAAA, "Synthetic"),
    ] {
        let (_, outcome) = bench.ask(&names[name], kind).await;
        assert_eq!(label(&outcome.result), want, "{name} {kind}");
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

#[tokio::test]
async fn what_policy_takes_back_meanwhile_is_not_bound() {
    let names = ["a.example.com", "b.example.com"];
    let bench = bench_with(
        FakeOracle::allowing(&names),
        slow_server().await,
        Limits::default(),
    );
    let change = async {
        bench.server.wait_asked(2).await;
        let mut grants = bench.resolver.oracle.grants.lock().unwrap();
        grants.remove("a.example.com");
        grants.insert("b.example.com".to_owned(), private());
        drop(grants);
        bench.server.release();
        bench.server.release();
    };
    let ask = |name| bench.ask(name, RecordType::A);
    let (taken, changed, ()) = tokio::join!(ask(names[0]), ask(names[1]), change);
    assert_eq!(
        (taken.0.as_str(), label(&taken.1.result)),
        ("NXDomain", "NotAllowed".into())
    );
    assert_eq!(
        (changed.0.as_str(), label(&changed.1.result)),
        ("ServFail", "GrantChanged".into())
    );
    assert!(bench.bound().is_empty());
}
