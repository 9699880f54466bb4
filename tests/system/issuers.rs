//! Issuers whose keys are fetched: found by themselves, rotated, out of reach, wrong.

use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::upstream::{Manner, Upstream};
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::place::LIMIT;
use crate::serving::{Serving, Told, curl, user};
use crate::tokens::{Issuer, ask};

const A: &str = "https://a.lab.example";
const B: &str = "https://b.lab.example/tenant";
const IDENTITIES: &str = "identities: {
  worker: { jwt: { issuer: \"https://a.lab.example\", claims: { role: worker } } },
  counter: { jwt: { issuer: \"https://b.lab.example/tenant\" } },";
const RULES: &str = "
  { id: by-worker, who: [worker], servers: [notes], tools: [work], effect: allow },
  { id: by-counter, who: [counter], servers: [notes], tools: [counted], effect: allow }";
const DISCOVERY: &str = "/.well-known/openid-configuration";

fn policy(serving: &Serving) -> String {
    let policy = serving.policy("127.0.0.1:3001", RULES, "");
    policy.replace("identities: {", IDENTITIES)
}

fn metadata(issuer: &str) -> String {
    json!({ "issuer": issuer, "jwks_uri": format!("{A}/keys") }).to_string()
}

/// The issuer A, which says where its keys are.
fn publish(upstream: &Upstream, keys: &str) {
    upstream.put(DISCOVERY, "application/json", metadata(A));
    upstream.put("/keys", "application/json", keys.to_owned());
}

/// A call of `tool` with this token, by a user who may nothing.
async fn with(lab: &Lab, tool: &str, token: &str) -> Told {
    ask(user(lab, "bin"), tool, &[&format!("Bearer {token}")]).await
}

/// Waits until a call of `work` with this token is answered so, whose body holds `what`.
async fn until(lab: &Lab, token: &str, status: &str, what: &str) {
    let mut last = None;
    let found = wait_for("the answer", LIMIT, async || {
        let told = with(lab, "work", token).await;
        let so = told.status == status && told.body.contains(what);
        last = Some(told);
        so.then_some(())
    })
    .await;
    assert!(found.is_ok(), "{status} {what}: {last:?}");
}

fn asked(upstream: &Upstream, path: &str) -> usize {
    let seen = upstream.seen();
    seen.iter().filter(|seen| seen.path == path).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_issuers_rotate_their_keys_and_their_bearers_have_their_own_rights() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let (a, b) = (Issuer::new(A), Issuer::new(B));
    let at_a = lab
        .https(&["a.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let at_b = lab
        .https(&["b.lab.example"], SocketAddr::new(WORLD_OTHER, 8443))
        .unwrap();
    publish(&at_a, &a.keys("1"));
    at_b.put("/k", "application/json", b.keys("1"));
    let settings = format!(
        "issuers:
  - {{ issuer: \"{A}\", audience: mcp, refresh: 1s, max_age: 1h }}
  - {{ issuer: \"{B}\", audience: mcp, jwks: {{ url: \"https://b.lab.example:8443/k?v=1\" }}, refresh: 1h }}
"
    );
    let daemon = lab.daemon_with(&policy(&serving), &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;

    let worker = a.token(A, "1", 300, json!({ "role": "worker" }));
    let counter = b.token(B, "1", 300, json!({}));
    for (token, may, may_not) in [(&worker, "work", "counted"), (&counter, "counted", "work")] {
        let told = with(&lab, may, token).await;
        assert!(told.body.contains("result"), "{told:?}");
        let told = with(&lab, may_not, token).await;
        assert!(told.body.contains("Unknown tool"), "{told:?}");
    }
    // One issuer's key under the other's name and id is nobody's.
    let crossed = b.token(A, "1", 300, json!({ "role": "worker" }));
    assert_eq!(with(&lab, "work", &crossed).await.status, "401");

    // Key ids that nobody has make the gate ask no more often.
    let begun = Instant::now();
    for number in 0..20 {
        let kid = format!("random-{number}");
        let token = b.token(B, &kid, 300, json!({}));
        assert_eq!(with(&lab, "counted", &token).await.status, "401");
    }
    let rounds = usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    let times = asked(&at_b, "/k?v=1");
    assert!(times <= 2 + rounds, "{times} times");

    // A key that was removed counts no more; the one in its place does.
    let next = Issuer::new(A);
    publish(&at_a, &next.keys("2"));
    until(&lab, &worker, "401", "invalid_token").await;
    let renewed = next.token(A, "2", 300, json!({ "role": "worker" }));
    until(&lab, &renewed, "200", "result").await;
    let why = "a token by a key that its issuer does not publish";
    let by = |record: &Value| record["decision"]["reason"] == why;
    daemon.record(why, by).await.unwrap();
    // Where keys are fetched by the hour, one that is not known is asked for.
    let next = Issuer::new(B);
    at_b.put("/k", "application/json", next.keys("2"));
    let renewed = next.token(B, "2", 300, json!({}));
    wait_for("the new key counts", LIMIT, async || {
        let told = with(&lab, "counted", &renewed).await;
        told.body.contains("result").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(with(&lab, "counted", &counter).await.status, "401");
    recorded(&daemon).await;
}

/// The gate's own requests are exchanges like any other.
async fn recorded(daemon: &Daemon<'_>) {
    let fetched = daemon
        .record("a request for keys", |record| {
            record["http"]["path"] == "/k?v=1"
        })
        .await
        .unwrap();
    let why = "the configuration names the issuer";
    assert_eq!(fetched["decision"]["reason"], why, "{fetched}");
    assert_eq!(fetched["http"]["name"], "b.lab.example", "{fetched}");
    assert_eq!(fetched["outcome"]["status"], "done", "{fetched}");
    let status = daemon.status().await.unwrap();
    let issuers = status["issuers"].as_array().unwrap();
    assert_eq!(issuers.len(), 2, "{status}");
    assert!(issuers.iter().all(|issuer| issuer["keys"] == 1), "{status}");
}

/// A server for A at the place of the one before, once that has let go of it.
async fn again(lab: &Lab, fault: Fault, manner: Manner) -> Upstream {
    let (names, address) = (["a.lab.example"], SocketAddr::new(WORLD, 443));
    wait_for("the address is free", LIMIT, async || {
        lab.tls(&names, address, &["http/1.1"], fault, manner.clone())
            .ok()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_out_of_reach_refuses_and_is_named() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let upstream = lab
        .https(&["a.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    // By the second of the two places that specifications name.
    let place = "/.well-known/oauth-authorization-server";
    upstream.put(place, "application/json", metadata(A));
    upstream.put("/keys", "application/json", a.keys("1"));
    let settings = format!(
        "limits: {{ connect_deadline: 1s }}
issuers: [{{ issuer: \"{A}\", audience: mcp, refresh: 1s, max_age: 2s }}]
"
    );
    let policy = policy(&serving);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let token = a.token(A, "1", 300, json!({ "role": "worker" }));
    until(&lab, &token, "200", "result").await;

    drop(upstream);
    until(&lab, &token, "503", "issuer_unavailable").await;
    let reached = serving.requests().len();
    let why = "a token of an issuer whose keys cannot be fetched";
    let by = |record: &Value| record["decision"]["reason"] == why;
    daemon.record(why, by).await.unwrap();
    let found = |record: &Value| record["finding"]["what"] == "issuer_unavailable";
    daemon.record("a finding", found).await.unwrap();
    let status = daemon.status().await.unwrap();
    assert_eq!(status["issuers"][0]["keys"], 0, "{status}");
    let problem = status["issuers"][0]["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("a.lab.example"), "{problem}");
    let doctor = daemon.cli(&["doctor", "--no-runtimes"]).await.unwrap();
    let checks: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let check = |check: &&Value| check["subject"] == "issuer";
    let check = checks.as_array().unwrap().iter().find(check).unwrap();
    assert_eq!(check["standing"], "fail", "{check}");

    // What is wrong with an issuer does not matter: it is answered in time, and nothing gets through.
    let reset = Upstream::forget;
    for (fault, manner, said) in [
        (Fault::Sound, Manner::Silent, "in time"),
        (Fault::OtherName, Manner::Http, "certificate"),
        (Fault::Expired, Manner::Http, "certificate"),
        (Fault::Sound, Manner::Reset, "a.lab.example"),
    ] {
        let upstream = again(&lab, fault, manner.clone()).await;
        publish(&upstream, &a.keys("1"));
        reset(&upstream);
        problem_of(&daemon, said).await;
        let begun = Instant::now();
        let told = with(&lab, "work", &token).await;
        assert_eq!(told.status, "503", "{fault:?} {manner:?}: {told:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{manner:?}");
    }
    let upstream = again(&lab, Fault::Sound, Manner::Http).await;
    upstream.put("/keys", "application/json", a.keys("1"));
    upstream.put(
        DISCOVERY,
        "application/json",
        metadata("https://b.lab.example"),
    );
    problem_of(&daemon, "is another").await;
    let elsewhere = metadata(A).replace("https://a.lab.example/keys", "https://127.0.0.1/keys");
    upstream.put(DISCOVERY, "application/json", elsewhere);
    problem_of(&daemon, "jwks_uri").await;
    let moved = metadata(A).replace("/keys", "/redirect?to=/keys");
    upstream.put(DISCOVERY, "application/json", moved);
    problem_of(&daemon, "307").await;
    assert_eq!(with(&lab, "work", &token).await.status, "503");
    assert_eq!(serving.requests().len(), reached);
    publish(&upstream, &a.keys("1"));
    until(&lab, &token, "200", "result").await;
}

/// Waits until the status says so of A.
async fn problem_of(daemon: &Daemon<'_>, what: &str) {
    let mut last = Value::Null;
    let found = wait_for("the problem", LIMIT, async || {
        last = daemon.status().await.ok()?["issuers"][0].clone();
        last["problem"].as_str()?.contains(what).then_some(())
    })
    .await;
    assert!(found.is_ok(), "{what}: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_goes_where_clients_learn_how_to_log_in() {
    let lab = Lab::new().unwrap();
    let serving = Serving::new(&lab);
    let remote = lab
        .https(&["mcp.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let policy = policy(&serving)
        .replace(
            "servers:\n",
            "servers:\n  remote: { url: \"https://mcp.lab.example/mcp\" }\n",
        )
        .replace("servers: [notes] }", "servers: [notes, remote] }");
    let _daemon = lab.daemon(&policy).await.unwrap();
    let path = "/.well-known/oauth-protected-resource";
    let url = format!("https://mcp.lab.example{path}");
    let header = "authorization: Bearer secret";
    curl(serving.hosted(&lab), &["--header", header, &url]).await;
    let seen = remote.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].path, path);
    assert_eq!(seen[0].header("authorization"), None);
}
