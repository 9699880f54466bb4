//! A server that fails is left alone for a while, then asked once, and used again when it answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_for;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::approvals::{self, approve, only};
use crate::scripted::{Asked, Scripted, plain, status, stream};
use crate::talk::{EventReader, FAR, LEGACY, Talker, request};
use crate::world::{LIMIT, NAME, World};

const RULES: &str = r#"
rules: [{ id: all, methods: ["*"], effect: allow }]
breaker: { error_rate: 50%, window: 60s, min_calls: 4, open_for: 8s }
limits: [{ per: [server], calls: 1000 }]
"#;

/// The reason of a refusal; empty for an answer.
fn refused(answer: &Value) -> &str {
    answer["error"]["data"]["reason"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_server_is_left_alone_and_tried() {
    let lab = Lab::new().unwrap();
    let fails = Arc::new(AtomicU16::new(500));
    let script = {
        let fails = Arc::clone(&fails);
        move |asked: &Asked| {
            let code = fails.load(Ordering::SeqCst);
            match (asked.json()["params"]["name"].as_str(), code) {
                (Some(_), 200) | (None, _) => plain(asked),
                (Some(_), code) => status(StatusCode::from_u16(code).unwrap()),
            }
        }
    };
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), script).unwrap();
    let url = format!("https://{NAME}/mcp");
    let world = World::new(&lab, &[("far", &url)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let call = async |id: u64, tool: &str| {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": tool, "arguments": {} } });
        talker.post(FAR, &[LEGACY], call.to_string()).await.unwrap()
    };

    for id in 1..=4 {
        assert_eq!(call(id, "get").await.status, 500);
    }
    let stands = async || {
        let breakers = world.daemon.status().await.unwrap()["breakers"].clone();
        let far = breakers.as_array().unwrap().iter();
        let mut far = far.filter(|one| one["server"] == "far" && one["tool"].is_null());
        let one = far.next().unwrap_or_else(|| panic!("{breakers}")).clone();
        (one["position"].as_str().unwrap().to_owned(), one)
    };
    let (position, open) = stands().await;
    assert_eq!(position, "open", "{open}");
    assert!(open["retry_after_ms"].as_u64() > Some(0), "{open}");
    assert_eq!(server.take().len(), 4);
    // Neither this tool nor another of the same server; and when to come back.
    for (id, tool) in [(5, "get"), (6, "other")] {
        let answer = call(id, tool).await.json();
        assert_eq!(refused(&answer), "breaker_open", "{answer}");
        let wait = answer["error"]["data"]["retry_after_ms"].as_u64().unwrap();
        assert!((1..=8000).contains(&wait), "{answer}");
        assert_eq!(answer["error"]["code"], -31503);
    }
    let list = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list" });
    let answer = talker.post(FAR, &[LEGACY], list.to_string()).await.unwrap();
    assert_eq!(answer.status, 200, "calls alone are held back");
    assert_eq!(server.take().len(), 1, "only the list arrives");
    let daemon = &world.daemon;
    let record = daemon
        .record("the refusal", |record| record["mcp"]["id"] == "5")
        .await
        .unwrap();
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert_eq!(record["outcome"]["status"], "refused", "{record}");
    let reason = record["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("breaker is open"), "{reason}");
    let found = async |what: &str, event: &str| {
        daemon
            .record(what, |record| {
                let told = [&record["finding"], &record["lifecycle"]];
                let told = told.map(ToString::to_string);
                told.iter()
                    .any(|told| told.contains(event) && told.contains(what))
            })
            .await
            .unwrap()
    };
    found("server `far`: 4 of 4 calls failed", "breaker_opened").await;
    found("tool `get` of server `far`: 4 of 4", "breaker_opened").await;
    let half_open = async || {
        let turned = wait_for("it is half open", LIMIT, async || {
            let (position, one) = stands().await;
            assert_ne!(position, "closed", "{one}");
            (position == "half_open").then_some(())
        });
        turned.await.unwrap();
    };

    half_open().await;
    // Tried once, and it fails still.
    let tried = wait_for("a call is let through", LIMIT, async || {
        let answer = call(8, "get").await;
        (answer.status == 500).then_some(())
    });
    tried.await.unwrap();
    assert_eq!(server.take().len(), 1);
    assert_eq!(refused(&call(9, "get").await.json()), "breaker_open");
    assert_eq!(stands().await.0, "open");
    found("it still fails", "breaker_opened").await;
    half_open().await;

    // Tried once more, and it answers.
    fails.store(200, Ordering::SeqCst);
    let answered = wait_for("a call is answered", LIMIT, async || {
        let answer = call(10, "get").await.json();
        answer["result"].is_object().then_some(())
    });
    answered.await.unwrap();
    found("server `far`: a call succeeded", "breaker_closed").await;
    for id in 11..=14 {
        assert!(call(id, "get").await.json()["result"].is_object());
    }
    assert_eq!(server.take().len(), 5);
    let (position, closed) = stands().await;
    assert_eq!(position, "closed", "{closed}");
    assert_eq!(closed["failed"], 0, "{closed}");
    // Each change has a record, in their order.
    for scope in ["server `far`: ", "tool `get` of server `far`: "] {
        let all = daemon.audit().unwrap().into_iter();
        let turns = all.filter_map(|record| {
            [("finding", "what"), ("lifecycle", "event")]
                .iter()
                .find_map(|(part, name)| {
                    let detail = record[part]["detail"].as_str()?;
                    let event = record[part][name].as_str()?;
                    (detail.starts_with(scope) && event.starts_with("breaker_"))
                        .then(|| event.to_owned())
                })
        });
        assert_eq!(
            turns.collect::<Vec<_>>(),
            [
                "breaker_opened",
                "breaker_half_open",
                "breaker_opened",
                "breaker_half_open",
                "breaker_closed"
            ]
        );
    }
    // What a caller does wrong speaks against nobody.
    fails.store(404, Ordering::SeqCst);
    for id in 15..=24 {
        assert_eq!(call(id, "get").await.status, 404);
    }
}

/// What is to be answered on another stream, or on none, is neither a success nor a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_elsewhere_say_nothing_of_a_server() {
    let lab = Lab::new().unwrap();
    let script = |asked: &Asked| match asked.json()["params"]["name"].as_str() {
        Some("later") => status(StatusCode::ACCEPTED),
        // Its writer is gone with the first event.
        Some("cut") => stream().1,
        Some("breaks") => status(StatusCode::BAD_GATEWAY),
        _ => plain(asked),
    };
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), script).unwrap();
    let url = format!("https://{NAME}/mcp");
    let world = World::new(&lab, &[("far", &url)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let calls = ["later", "cut", "breaks"].iter().flat_map(|tool| [tool; 4]);
    for (id, tool) in calls.enumerate() {
        let shown = id.to_string();
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": tool, "arguments": {} } });
        talker.post(FAR, &[LEGACY], call.to_string()).await.unwrap();
        let record = world
            .daemon
            .record("the call", |record| record["mcp"]["id"] == *shown)
            .await
            .unwrap();
        assert_eq!(record["mcp"]["response"], "none", "{record}");
    }
    let opened = world.daemon.record("the finding", |record| {
        let detail = record["finding"]["detail"].as_str().unwrap_or_default();
        record["finding"]["what"] == "breaker_opened" && detail.starts_with("server `far`: ")
    });
    let opened = opened.await.unwrap()["finding"]["detail"].clone();
    let opened = opened.as_str().unwrap();
    assert!(
        opened.starts_with("server `far`: 4 of 4 calls failed"),
        "{opened}"
    );
}

/// Posts the call of `pay`, and reads what it is answered in the end.
async fn paid(talker: &Talker) -> Value {
    let call = approvals::call("p", "pay", 7).to_string();
    let request = request("POST", FAR.path, &[LEGACY], call).unwrap();
    let mut events = EventReader::new(talker.send(FAR, request).await.unwrap());
    loop {
        let message = events.message().await.unwrap().unwrap();
        if message["method"].is_null() {
            return message;
        }
    }
}

/// A person approved the call, and it could not be sent: what they said is not used up by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_uses_no_approval_up() {
    let lab = Lab::new().unwrap();
    let script = |asked: &Asked| match asked.json()["params"]["name"].as_str() {
        Some("get") => status(StatusCode::INTERNAL_SERVER_ERROR),
        _ => plain(asked),
    };
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), script).unwrap();
    let rules = r#"
identities: { boss: { user: bin } }
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: ask, tools: [pay], effect: approve, approvers: [boss] }
breaker: { error_rate: 50%, window: 60s, min_calls: 4, open_for: 12s }
"#;
    let url = format!("https://{NAME}/mcp");
    let world = World::new(&lab, &[("far", &url)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    let approved = async {
        let id = only(&lab).await;
        for id in 1..=4 {
            let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": "get", "arguments": {} } });
            let answer = talker.post(FAR, &[LEGACY], call.to_string()).await.unwrap();
            assert_eq!(answer.status, 500);
        }
        approve(&lab, &id).await;
        id
    };
    let (answer, id) = tokio::join!(paid(&talker), approved);
    assert_eq!(refused(&answer), "breaker_open", "{answer}");
    assert_eq!(server.take().len(), 4, "it is not sent");
    let refusal = world
        .daemon
        .record("the refusal", |record| record["mcp"]["name"] == "pay")
        .await
        .unwrap();
    assert_eq!(refusal["approval"]["decision"], "approved", "{refusal}");
    // The same call goes, once, as soon as the breaker lets it.
    let passed = wait_for("the call passes", LIMIT, async || {
        let answer = paid(&talker).await;
        assert!(matches!(refused(&answer), "" | "breaker_open"), "{answer}");
        answer["result"].is_object().then_some(())
    });
    passed.await.unwrap();
    assert_eq!(server.take().len(), 1);
    let done = world
        .daemon
        .record("the call", |record| {
            record["mcp"]["name"] == "pay" && record["outcome"]["status"] == "done"
        })
        .await
        .unwrap();
    assert_eq!(done["approval"]["id"], id.as_str(), "{done}");
    let anew = async { assert_ne!(only(&lab).await, id) };
    tokio::select! {
        answer = paid(&talker) => panic!("it passed twice: {answer}"),
        () = anew => {}
    }
}
