//! `mode: observe` on a rule, a server and the whole policy: what would have been stopped passes, and the record says
//! what would have been done.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use serde_json::{Value, json};

use crate::scripted::{Scripted, plain};
use crate::talk::{FAR, LEGACY, OTHER, OTHER_URL, Place, Talker};
use crate::world::{NAME, URL, World};

/// Each effect beside allow, asked for by a tool of its name; `MODE` stands for what is tried.
const RULES: &str = r"
identities: { boss: { user: bin } }
rules:
  - { id: some, tools: [deny, approve, dry_run, once], effect: allow }
  - { id: deny, tools: [deny], effect: deny, reason: tried out MODE }
  - { id: approve, tools: [approve], effect: approve, approvers: [boss], reason: tried out MODE }
  - { id: dry_run, tools: [dry_run], effect: dry_run, reason: tried out MODE }
limits: [{ per: [session], tools: [once], calls: 1 }]
";
const STOPPED: [&str; 3] = ["deny", "approve", "dry_run"];

/// What a record says of an effect that a rule asks for.
fn said(effect: &str) -> &str {
    match effect {
        "deny" => "a rule denies it",
        "approve" => "needs an approval",
        _ => "is run dry",
    }
}

/// Calls `tool`, and returns what came of it: `ok`, or a reason.
async fn call(talker: &Talker, id: &str, tool: &str) -> String {
    let params = json!({ "name": tool, "arguments": { "amount": 7 } });
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    let answer = talker.post(FAR, &[LEGACY], call.to_string()).await.unwrap();
    let json = answer.json();
    match json["result"]["content"][0]["text"].as_str() {
        Some(text) => text.to_owned(),
        None => json["error"].to_string(),
    }
}

/// The decision on the call with this id.
async fn decision(world: &World<'_>, id: &str) -> Value {
    let id = format!("\"{id}\"");
    let record = world.daemon.record("the call", |record| {
        record["mcp"]["id"] == id && record["outcome"].is_object()
    });
    let record = record.await.unwrap();
    record["decision"].clone()
}

/// Every call that something would have stopped passes as it is, and says so.
async fn passes(world: &World<'_>, server: &Scripted) {
    let talker = world.talker().await.unwrap();
    for effect in STOPPED {
        assert_eq!(call(&talker, effect, effect).await, "ok", "{effect}");
        let seen = server.take();
        assert_eq!(seen.len(), 1, "{effect}");
        let sent = &seen[0].json()["params"]["arguments"];
        assert_eq!(sent, &json!({ "amount": 7 }), "{effect}");
        let decision = decision(world, effect).await;
        assert_eq!(decision["effect"], "allow", "{decision}");
        assert_eq!(decision["mode"], "observe", "{decision}");
        assert_eq!(decision["would"], effect, "{decision}");
        assert_eq!(decision["would_rule"], effect, "{decision}");
        let why = format!("{}: tried out", said(effect));
        assert_eq!(decision["would_reason"], why, "{decision}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_rule_stops_nothing_and_says_what_it_would_do() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let rules = RULES.replace(" MODE", ", mode: observe");
    let world = World::new(&lab, &[("far", URL)], &rules).await.unwrap();
    passes(&world, &server).await;
    // Everything else is enforced.
    let talker = world.talker().await.unwrap();
    assert_eq!(call(&talker, "first", "once").await, "ok");
    let second = call(&talker, "second", "once").await;
    assert!(second.contains("limit_reached"), "{second}");
    let other = call(&talker, "other", "other").await;
    assert!(other.contains("-32602"), "{other}");
    assert_eq!(server.take().len(), 1);
}

/// What a server or the whole policy in observation lets pass beside what rules stop: what no rule allows, and what is
/// over a limit.
async fn all_passes(world: &World<'_>, server: &Scripted) {
    passes(world, server).await;
    let talker = world.talker().await.unwrap();
    for (id, tool) in [("first", "once"), ("second", "once"), ("other", "other")] {
        assert_eq!(call(&talker, id, tool).await, "ok", "{id}");
    }
    assert_eq!(server.take().len(), 3);
    let first = decision(world, "first").await;
    assert_eq!(first["mode"], "enforce", "{first}");
    assert_eq!(first["would"], Value::Null, "{first}");
    for (id, reason) in [
        ("second", "a limit is reached: 1 call per session"),
        ("other", "no rule matched"),
    ] {
        let decision = decision(world, id).await;
        assert_eq!(decision["effect"], "allow", "{decision}");
        assert_eq!(decision["mode"], "observe", "{decision}");
        assert_eq!(decision["would"], "deny", "{decision}");
        assert_eq!(decision["would_rule"], Value::Null, "{decision}");
        let told = decision["reason"].as_str().unwrap();
        assert!(told.starts_with(reason), "{decision}");
        assert_eq!(decision["would_reason"], told, "{decision}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_server_stops_nothing_and_another_does() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let address = SocketAddr::new(WORLD, OTHER.port);
    let enforced = Scripted::far(&lab, OTHER.host, address, plain).unwrap();
    let observed = format!("{URL}\", mode: \"observe");
    let servers = [("far", &*observed), ("other", OTHER_URL)];
    let rules = RULES.replace(" MODE", "");
    let world = World::new(&lab, &servers, &rules).await.unwrap();
    all_passes(&world, &server).await;
    let talker = world.talker().await.unwrap();
    let params = json!({ "name": "deny", "arguments": {} });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let answer = talker.post(OTHER, &[LEGACY], call.to_string()).await;
    assert!(answer.unwrap().json()["error"].is_object());
    assert!(enforced.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_policy_stops_neither_calls_nor_requests() {
    const WEB: Place = Place {
        host: "web.lab.example",
        port: 8443,
        tls: true,
        path: "/form",
    };
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let web = Scripted::far(&lab, WEB.host, SocketAddr::new(WORLD, WEB.port), plain).unwrap();
    let rules = format!("mode: observe\n{}", RULES.replace(" MODE", ""));
    let egress = format!(
        "[{{ host: {}, ports: [{}], methods: [GET] }}]",
        WEB.host, WEB.port
    );
    let world = World::with(&lab, &[("far", URL)], &egress, &rules)
        .await
        .unwrap();
    all_passes(&world, &server).await;
    let talker = world.talker().await.unwrap();
    let answer = talker.post(WEB, &[], "{}").await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(web.take().len(), 1);
    let record = world
        .daemon
        .record("the request", |record| record["http"]["path"] == WEB.path)
        .await
        .unwrap();
    let decision = &record["decision"];
    assert_eq!(decision["effect"], "allow", "{record}");
    assert_eq!(decision["mode"], "observe", "{record}");
    assert_eq!(decision["would"], "deny", "{record}");
}
