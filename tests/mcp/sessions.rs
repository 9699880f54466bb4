//! Many sessions at once: each is counted for itself, and the gate holds little for it.
//!
//! `EXEAT_SESSIONS=NUMBER` opens so many; 100,000 take some ten times as long as those of the ordinary run.

use std::env;
use std::net::SocketAddr;
use std::ops::Range;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::process::resident;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain};
use crate::talk::{FAR, LEGACY, Talker, request};
use crate::world::{NAME, URL, World};

/// Sessions that are opened where `EXEAT_SESSIONS` says nothing.
const SESSIONS: u64 = 10_000;
/// Those that are opened first, so that what is allocated once is not counted.
const FIRST: u64 = 1_000;
/// Connections at once.
const CONNECTIONS: u64 = 4;
/// What the gate may grow by for each: 200 MiB for 100,000.
const BYTES: u64 = (200 << 20) / 100_000;

const RULES: &str = r#"
rules: [{ id: all, methods: ["*"], effect: allow }]
limits:
  - { per: [session, tool], calls: 1 }
  - { per: [session], calls: 3 }
  - { per: [identity, tool], calls: 1000000 }
"#;

/// Opens a session for each `initialize`, named by the message's id.
fn opens(asked: &Asked) -> hyper::Response<Body> {
    let message = asked.json();
    let mut answer = plain(asked);
    if message["method"] == "initialize" {
        let name = HeaderValue::from_str(&session(message["id"].as_u64().unwrap())).unwrap();
        answer.headers_mut().insert("mcp-session-id", name);
    }
    answer
}

/// As long as a UUID, which most servers send.
fn session(number: u64) -> String {
    format!("{number:036}")
}

/// Posts both messages of each session on one connection, and returns the reasons for which calls were refused.
async fn converse(talker: &Talker, sessions: Range<u64>, open: bool) -> Vec<String> {
    let io = TokioIo::new(talker.dial(FAR, &["http/1.1"]).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut post = async |headers: &[(&str, &str)], message: Value| -> Value {
        let mut request = request("POST", FAR.path, headers, message.to_string()).unwrap();
        let host = HeaderValue::from_str(&FAR.authority()).unwrap();
        request.headers_mut().insert("host", host);
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    };
    let mut refused = Vec::new();
    for number in sessions {
        if open {
            let hello = json!({ "jsonrpc": "2.0", "id": number, "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "capabilities": {},
                "clientInfo": { "name": "t", "version": "1" } } });
            let answer = post(&[LEGACY], hello).await;
            assert!(answer["result"].is_object(), "{answer}");
        }
        let call = json!({ "jsonrpc": "2.0", "id": number, "method": "tools/call",
            "params": { "name": "get", "arguments": {} } });
        let answer = post(&[LEGACY, ("mcp-session-id", &session(number))], call).await;
        if let Some(reason) = answer["error"]["data"]["reason"].as_str() {
            refused.push(reason.to_owned());
        } else {
            assert!(answer["result"].is_object(), "{answer}");
        }
    }
    drop(sender);
    driver.await.unwrap().unwrap();
    refused
}

/// Some connections, each with its part of the sessions.
async fn together(talker: &Talker, sessions: Range<u64>) {
    let part = (sessions.end - sessions.start) / CONNECTIONS;
    let part = |number: u64| {
        let start = sessions.start + number * part;
        let last = number + 1 == CONNECTIONS;
        start..if last { sessions.end } else { start + part }
    };
    let parts = [0, 1, 2, 3].map(|number| converse(talker, part(number), true));
    let [one, two, three, four] = parts;
    let refused = tokio::join!(one, two, three, four);
    let refused = [refused.0, refused.1, refused.2, refused.3].concat();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_limits_take_little_memory() {
    let count = env::var("EXEAT_SESSIONS").map_or(SESSIONS, |count| {
        count.parse().expect("EXEAT_SESSIONS is a number")
    });
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), opens).unwrap();
    let world = World::new(&lab, &[("far", URL)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let gate = lab.gate().unwrap();
    together(&talker, 0..FIRST).await;
    let before = resident(gate).unwrap();
    together(&talker, FIRST..FIRST + count).await;
    let grown = resident(gate).unwrap().saturating_sub(before);
    println!("{count} sessions: {} bytes each", grown / count);
    assert!(grown <= count * BYTES, "{grown} bytes for {count} sessions");
    assert_eq!(lab.gate().unwrap(), gate, "it was not started anew");
    // All of them are still counted: the oldest and the newest have made their one call.
    for number in [0, FIRST - 1, FIRST, FIRST + count - 1] {
        let refused = converse(&talker, number..number + 1, false).await;
        assert_eq!(refused, ["limit_reached"], "{number}");
    }
    let arrived = u64::try_from(server.take().len()).unwrap();
    assert_eq!(arrived, 2 * (FIRST + count));
}
