//! Every record says which policy was in force, whatever it is a record of.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::process::run;
use exeat_tests::wait::wait_for;
use serde_json::Value;

use crate::approvals::{RULES, approve, call, only, posted};
use crate::scripted::{Scripted, plain};
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
