//! Every record says which policy was in force, whatever it is a record of, and what happened was decided by that one.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::process::run;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::approvals::{RULES, approve, call, only, posted};
use crate::scenario::asks;
use crate::scripted::{Asked, Scripted, event, plain, stream};
use crate::talk::{FAR, LEGACY, Place};
use crate::world::{LIMIT, NAME, URL, World};

const WEB: Place = Place {
    host: "web.lab.example",
    port: 8443,
    tls: true,
    path: "/page",
};
/// What nothing allows.
const NOWHERE: Place = Place {
    host: "93.184.215.99",
    port: 9,
    tls: false,
    path: "/",
};

/// A host that asks for a kind of socket that it does not get, and starts a server of its own.
const MISCHIEF: &str = "
import socket, subprocess, sys
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
except OSError:
    pass
pipe = subprocess.PIPE
subprocess.run([sys.executable, sys.argv[1]], stdin=pipe, stdout=pipe)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_names_the_policy_in_force() {
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let _web = Scripted::far(&lab, WEB.host, SocketAddr::new(WORLD, WEB.port), plain).unwrap();
    let egress = format!("[{{ host: {}, ports: [{}] }}]", WEB.host, WEB.port);
    let world = World::with(&lab, &[("far", URL)], &egress, RULES)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    // Something of each kind: what is decided by policy, by a person, by the kernel, and by what was seen.
    let (mut events, _) = posted(&talker, &call("before", "pay", 7)).await;
    let id = only(&lab).await;
    approve(&lab, &id).await;
    assert!(events.message().await.unwrap().unwrap()["result"].is_object());
    assert_eq!(talker.post(WEB, &[], "{}").await.unwrap().status, 202);
    drop(talker.raw(NOWHERE, b"hello").await);
    let told = talker.raw(WEB, b"NONSENSE\r\n\r\n").await.unwrap();
    assert!(told.contains("400"), "{told}");
    let script = lab.directory().join("weather-mcp.py");
    fs::write(&script, "pass\n").unwrap();
    let mut host = world.managed();
    host.args(["/usr/bin/python3", "-c", MISCHIEF]).arg(&script);
    run(&mut host, LIMIT).await.unwrap();
    let kinds = [
        "approval",
        "dns",
        "exec",
        "finding",
        "http",
        "lifecycle",
        "mcp",
        "policy",
        "tcp",
    ];
    let mut seen = BTreeSet::new();
    let all = wait_for("a record of each kind", LIMIT, async || {
        let records = world.daemon.audit().ok()?;
        let kind = |record: &Value| record["kind"].as_str().map(str::to_owned);
        seen = records.iter().filter_map(kind).collect();
        kinds.iter().all(|kind| seen.contains(*kind)).then_some(())
    });
    assert!(all.await.is_ok(), "{seen:?}");
    let before = world.daemon.audit_lines().unwrap();
    let first = world.daemon.status().await.unwrap()["policy"].clone();
    let loaded = before.iter().find(|record| record["kind"] == "policy");
    let loaded = &loaded.unwrap()["policy"];
    assert_eq!(loaded["action"], "loaded", "{loaded}");
    assert_eq!(loaded["fingerprint"], first["fingerprint"], "{loaded}");
    for record in &before {
        assert_eq!(record["generation"], 1, "{record}");
        let decision = &record["decision"];
        if decision.is_object() && record["finding"]["what"] != "malformed_request" {
            assert_eq!(decision["policy"], first["fingerprint"], "{record}");
            assert_eq!(decision["generation"], 1, "{record}");
        }
    }

    world.replace(&[("far", URL)], "[]", RULES).unwrap();
    let changed = world
        .daemon
        .record("the change", |record| record["policy"]["generation"] == 2);
    assert_eq!(changed.await.unwrap()["generation"], 2);
    let answer = talker.post(FAR, &[LEGACY], call("after", "other", 7).to_string());
    assert!(answer.await.unwrap().json()["result"].is_object());
    let after = world
        .daemon
        .record("the call", |record| record["mcp"]["id"] == "\"after\"");
    let after = after.await.unwrap();
    assert_eq!(after["generation"], 2, "{after}");
    assert_eq!(after["decision"]["generation"], 2, "{after}");
    for record in world.daemon.audit_lines().unwrap() {
        let generation = record["generation"].as_u64().unwrap_or_default();
        assert!((1..=2).contains(&generation), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_shown_by_the_policy_that_its_record_names() {
    let lab = Lab::new().unwrap();
    let held = Arc::new(Mutex::new(None));
    let holds = Arc::clone(&held);
    let script = move |asked: &Asked| {
        if asked.json()["method"] != "tools/list" {
            return plain(asked);
        }
        let (writer, response) = stream();
        *holds.lock().unwrap() = Some(writer);
        response
    };
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), script).unwrap();
    let rest = |list: &str, tool: &str| {
        format!(
            "rules: [{{ id: list, methods: [ping, tools/list], effect: {list} }}, {{ id: call, tools: [{tool}], effect: allow }}, {{ id: open, methods: [resources/list], effect: allow }}]"
        )
    };
    let world = World::new(&lab, &[("bank", URL)], &rest("allow", "one")).await;
    let world = world.unwrap();
    let talker = world.talker().await.unwrap();
    for (id, list, shown) in [(1, "allow", Some("two")), (2, "deny", None)] {
        let first = rest("allow", "one");
        world.replace(&[("bank", URL)], "[]", &first).unwrap();
        in_force(&world, id * 2 - 1).await;
        let asked = asks(id, "tools/list", json!({})).to_string();
        let asked = talker.post(FAR, &[LEGACY], asked);
        let edit = async {
            let writer = wait_for("the list is asked for", LIMIT, async || {
                held.lock().unwrap().take()
            })
            .await
            .unwrap();
            world
                .replace(&[("bank", URL)], "[]", &rest(list, "two"))
                .unwrap();
            in_force(&world, id * 2).await;
            let tool = |name| json!({ "name": name, "inputSchema": { "type": "object" } });
            let tools = [tool("one"), tool("two")];
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": tools } });
            writer.send_data(event(&answer)).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked, edit);
        let text = String::from_utf8_lossy(&answer.unwrap().body).into_owned();
        assert!(!text.contains("\"one\""), "{text}");
        assert_eq!(text.contains("\"two\""), shown.is_some(), "{text}");
        let named = id.to_string();
        let record = world
            .daemon
            .record("the list's record", |record| {
                record["mcp"]["id"].as_str() == Some(&*named)
            })
            .await
            .unwrap();
        assert_eq!(record["decision"]["generation"], id * 2, "{record}");
        let effect = &record["decision"]["effect"];
        assert_eq!(effect, list, "{record}");
    }
}

async fn in_force(world: &World<'_>, generation: u64) {
    let what = format!("generation {generation} is in force");
    wait_for(&what, LIMIT, async || {
        let status = world.daemon.status().await.ok()?;
        (status["policy"]["generation"] == generation).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_not_sent_where_another_policy_let_its_request_go() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let rest = |effect: &str| {
        format!(
            "rules: [{{ id: all, methods: [\"*\"], effect: allow }}, {{ id: some, tools: [pay], effect: {effect} }}]"
        )
    };
    let world = World::new(&lab, &[("bank", URL)], &rest("deny")).await;
    let world = world.unwrap();
    let talker = world.talker().await.unwrap();
    let body = call("slow", "pay", 1).to_string();
    let mut stream = talker.dial(FAR, &["http/1.1"]).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2025-11-25\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).await.unwrap();
    let interim = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    // The server moved, and its tool is allowed there; where the request goes is no server any more.
    let moved = [("bank", "https://moved.lab.example/mcp")];
    let egress = format!("[{{ host: {NAME} }}]");
    world.replace(&moved, &egress, &rest("allow")).unwrap();
    in_force(&world, 2).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let length = stream.read(&mut buffer).await.unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(answer.contains("\"error\""), "{answer}");
    let record = world
        .daemon
        .record("the call's record", |record| {
            record["mcp"]["id"] == "\"slow\""
        })
        .await
        .unwrap();
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert_eq!(record["decision"]["generation"], 2, "{record}");
    assert!(server.seen().is_empty(), "neither policy lets it go there");
}
