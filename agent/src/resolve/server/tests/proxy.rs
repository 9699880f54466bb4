//! The look-up before a dial.

use super::*;

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
