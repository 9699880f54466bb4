//! Limits over the daemon's life: what was counted counts, and what failed is given back where the policy says so.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::{wait_for, wait_until};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain, status, text};
use crate::talk::{FAR, LEGACY, Talker};
use crate::world::{LIMIT, NAME, World};

const RULES: &str = r#"
rules: [{ id: all, methods: ["*"], effect: allow }]
limits:
  - { per: [session], tools: [each], calls: 3 }
  - { per: [identity], tools: [hourly], rate: 3/h }
  - { per: [server], tools: [spend], sum: /cents, max: 100, window: 24h, refund: true }
  - { per: [server], tools: [spend_more], sum: /cents, max: 100, window: 24h, refund: true }
  - { per: [server], tools: [kept], calls: 2 }
"#;

/// Opens the session `s-1`; fails calls that say so.
fn far(asked: &Asked) -> hyper::Response<Body> {
    let message = asked.json();
    if message["params"]["arguments"]["fails"] == true {
        return status(StatusCode::BAD_GATEWAY);
    }
    if message["params"]["arguments"]["babbles"] == true {
        return text("[\"no message\"]");
    }
    let mut answer = plain(asked);
    if message["method"] == "initialize" {
        answer
            .headers_mut()
            .insert("mcp-session-id", "s-1".parse().unwrap());
    }
    answer
}

/// What came of a call: `ok`, a reason, or a status.
async fn call(talker: &Talker, session: &str, tool: &str, arguments: Value) -> String {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments } });
    let headers = [LEGACY, ("mcp-session-id", session)];
    let answer = talker.post(FAR, &headers, call.to_string()).await.unwrap();
    let json = answer.json();
    match json["error"]["data"]["reason"].as_str() {
        Some(reason) => reason.to_owned(),
        None if json["result"].is_object() => "ok".to_owned(),
        None => answer.status.as_u16().to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_counts_over_restarts_and_failures_are_given_back() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), far).unwrap();
    let url = format!("https://{NAME}/mcp");
    let mut world = World::new(&lab, &[("far", &url)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let answer = talker.post(FAR, &[LEGACY], hello.to_string()).await;
    assert_eq!(answer.unwrap().status, 200);

    let none = || json!({});
    assert_eq!(call(&talker, "s-1", "each", none()).await, "ok");
    assert_eq!(call(&talker, "s-1", "hourly", none()).await, "ok");
    // What fails at the server takes nothing of the sum; of another limit it does.
    for _ in 0..3 {
        let spends = json!({ "cents": 80, "fails": true });
        assert_eq!(call(&talker, "s-1", "spend", spends).await, "502");
    }
    assert_eq!(
        call(&talker, "s-1", "spend", json!({ "cents": 60 })).await,
        "ok"
    );
    assert_eq!(
        call(&talker, "s-1", "spend", json!({ "cents": 60 })).await,
        "limit_reached"
    );
    for _ in 0..2 {
        assert_eq!(
            call(&talker, "s-1", "kept", json!({ "fails": true })).await,
            "502"
        );
    }
    assert_eq!(call(&talker, "s-1", "kept", none()).await, "limit_reached");
    assert_eq!(server.take().len(), 9);
    // Nor is given back what was answered, whatever became of the answer.
    let spends = json!({ "cents": 40, "babbles": true });
    assert_eq!(
        call(&talker, "s-1", "spend_more", spends).await,
        "response_refused"
    );
    assert_eq!(
        call(&talker, "s-1", "spend_more", json!({ "cents": 61 })).await,
        "limit_reached"
    );
    assert_eq!(server.take().len(), 1);
    // The record says what the limit stood at and, of what was refused, which one it was.
    for (status, stood) in [("done", 60), ("refused", 60)] {
        let record = world.daemon.record("a call that spends", |record| {
            let mcp = &record["mcp"];
            mcp["arguments"] == json!({ "cents": 60 }) && record["outcome"]["status"] == status
        });
        let decision = record.await.unwrap()["decision"].clone();
        let [counter] = &decision["counters"].as_array().unwrap()[..] else {
            panic!("{decision}");
        };
        let name = counter["name"].as_str().unwrap();
        assert!(
            name.starts_with("a sum of 100 in 86400 s of /cents per server ("),
            "{decision}"
        );
        assert_eq!(
            (&counter["value"], &counter["limit"]),
            (&json!(stood), &json!(100))
        );
        if status == "refused" {
            assert_eq!(decision["reason"], format!("a limit is reached: {name}"));
        }
    }

    // Ended in order.
    world.daemon.stop().await.unwrap();
    world.daemon.restart().await.unwrap();
    assert_eq!(call(&talker, "s-1", "each", none()).await, "ok");
    assert_eq!(call(&talker, "s-1", "hourly", none()).await, "ok");
    assert_eq!(
        call(&talker, "s-1", "spend", json!({ "cents": 41 })).await,
        "limit_reached"
    );
    assert_eq!(
        call(&talker, "s-1", "spend", json!({ "cents": 30 })).await,
        "ok"
    );
    assert_eq!(call(&talker, "s-1", "kept", none()).await, "limit_reached");

    // Killed: what was written by then counts.
    let file = lab.directory().join("state/limits/counters");
    let charged = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("+ ")).count()
    };
    wait_until("three calls are written", LIMIT, || charged() == 3)
        .await
        .unwrap();
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    assert_eq!(call(&talker, "s-1", "each", none()).await, "ok");
    assert_eq!(call(&talker, "s-1", "each", none()).await, "limit_reached");
    // A session that no server opened has no count of its own, however it is called.
    for (session, told) in [
        ("a", "ok"),
        ("b", "ok"),
        ("c", "ok"),
        ("d", "limit_reached"),
    ] {
        assert_eq!(
            call(&talker, session, "each", none()).await,
            told,
            "{session}"
        );
    }
    assert_eq!(call(&talker, "s-1", "hourly", none()).await, "ok");
    assert_eq!(
        call(&talker, "s-1", "hourly", none()).await,
        "limit_reached"
    );
    assert_eq!(
        call(&talker, "s-1", "spend", json!({ "cents": 11 })).await,
        "limit_reached"
    );

    // What cannot be read is forgotten, and that is said.
    world.daemon.stop().await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\nn ", "\nx ")).unwrap();
    world.daemon.restart().await.unwrap();
    let found = world.daemon.record("the finding", |record| {
        record["finding"]["what"] == "limits_forgotten"
    });
    found.await.unwrap();
    assert_eq!(call(&talker, "s-1", "kept", none()).await, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_as_long_as_it_is_told_passes() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), far).unwrap();
    let url = format!("https://{NAME}/mcp");
    let rules = "
rules: [{ id: all, methods: [\"*\"], effect: allow }]
limits: [{ per: [server], tools: [often], rate: 1/s }]
";
    let world = World::new(&lab, &[("far", &url)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    let ask = async || {
        let params = json!({ "name": "often", "arguments": {} });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let answer = talker.post(FAR, &[LEGACY], call.to_string()).await;
        answer.unwrap().json()
    };
    for _ in 0..3 {
        // Two within a second; on a busy machine not the first two.
        let refused = wait_for("a call too many", LIMIT, async || {
            let (left, right) = tokio::join!(ask(), ask());
            [left, right]
                .into_iter()
                .find(|one| one["error"].is_object())
        });
        let refused = refused.await.unwrap();
        let data = &refused["error"]["data"];
        assert_eq!(data["reason"], "limit_reached", "{refused}");
        let told = data["retry_after_ms"].as_u64().unwrap();
        assert!((1..=1_000).contains(&told), "{refused}");
        // Less would not do, and more is not asked for.
        tokio::time::sleep(Duration::from_millis(told)).await;
        let answer = ask().await;
        assert!(answer["result"].is_object(), "{told} ms: {answer}");
    }
    assert!(server.take().len() >= 4, "what passed reached the server");
}

/// Of two calls at once for what is left of a limit, one passes, whichever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_a_limit_is_for_one_of_two_calls() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), far).unwrap();
    let url = format!("https://{NAME}/mcp");
    let rules = "
rules: [{ id: all, methods: [\"*\"], effect: allow }]
limits:
  - { per: [server, tool], tools: [\"call-*\"], calls: 1 }
  - { per: [server, tool], tools: [\"rate-*\"], rate: 1/h }
  - { per: [server, tool], tools: [\"sum-*\"], sum: /cents, max: 100, window: 24h }
";
    let world = World::new(&lab, &[("far", &url)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    for number in 0..40 {
        for kind in ["call", "rate", "sum"] {
            let tool = format!("{kind}-{number}");
            let one = || call(&talker, "", &tool, json!({ "cents": 60 }));
            let (left, right) = tokio::join!(one(), one());
            let mut came = [left, right];
            came.sort_unstable();
            assert_eq!(came, ["limit_reached", "ok"], "{tool}");
        }
    }
    assert_eq!(server.take().len(), 120);
}
