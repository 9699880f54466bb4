//! Secrets that servers never hold: put into their requests where policy says so, and to be found nowhere else.

use std::fs;
use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::files::chmod;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::holds;
use exeat_tests::upstream::{Manner, Upstream};
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::{LIMIT, told};

const API: &str = "api.lab.example";
const QUERY: &str = "query.lab.example";
const OTHER: &str = "other.lab.example";
const PLAIN: &str = "plain.lab.example";

const READ: &str = "r3ad-4ndOnlyRead.K3y";
const WRITE: &str = "wr1te-M0stWanted.K3y";
const ASKED: &str = "qu3ry K3y/of=all";

/// The server that [`SCRIPT`] is.
const SCRIPT: &str = include_str!("clients/keyed.mjs");

fn policy(lab: &Lab) -> String {
    let directory = lab.directory();
    lab.put("keyed.mjs", SCRIPT, 0o644).unwrap();
    format!(
        "version: 1
identities: {{ tester: {{ user: root }} }}
rules:
  - {{ id: all, who: [tester], servers: [keyed], tools: [\"*\"], effect: allow }}
  - {{ id: reads, who: [tester], servers: [keyed], methods: [resources/read], effect: allow }}
credentials:
  read-key: {{ file: {0}/read.key }}
  write-key: {{ file: {0}/write.key, hosts: [{API}] }}
  query-key: {{ command: [/bin/cat, {0}/query.key], query: key }}
servers:
  keyed:
    purpose: asks with a key
    owner: tests@lab.example
    launch:
      command: {1}
      args: [{0}/keyed.mjs]
      user: nobody
      env: {{ TOKEN: {{ secret: read-key }} }}
    egress:
      - {{ host: {API}, credential: read-key }}
      - {{ host: {QUERY}, credential: query-key }}
      - {{ host: {OTHER} }}
      - {{ host: {PLAIN}, ports: [80], tls: off }}
    tools: {{ get: read, look: read, set: {{ class: write, credential: write-key }} }}
",
        directory.display(),
        Fixtures::find().unwrap().node(22).display(),
    )
}

struct World {
    api: Upstream,
    plain: Upstream,
}

fn world(lab: &Lab) -> World {
    lab.keep("read.key", READ).unwrap();
    lab.keep("write.key", WRITE).unwrap();
    lab.keep("query.key", ASKED).unwrap();
    World {
        api: lab
            .https(&[API, QUERY, OTHER], SocketAddr::new(WORLD, 443))
            .unwrap(),
        plain: lab
            .http(&[PLAIN], SocketAddr::new(WORLD_OTHER, 80), Manner::Http)
            .unwrap(),
    }
}

/// The one record of a request for `path`.
async fn record(daemon: &Daemon<'_>, path: &str) -> Value {
    daemon
        .record(&format!("the record of {path}"), |record| {
            let told = record["http"]["path"].as_str();
            told.is_some_and(|told| told.starts_with(path))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_its_host_and_nobody_else() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    // At the finest level: whatever any library says.
    let daemon = lab.daemon_at(&policy(&lab), "trace").await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();

    let asked = |path: &str| json!({ "url": format!("https://{API}{path}") });
    let told_status = told(&mut session, "get", asked("/status?n=200&code=200")).await;
    assert!(told_status.starts_with("200 "), "{told_status}");
    let seen = world.api.seen();
    let keys = |seen: &exeat_tests::upstream::Seen| -> Vec<String> {
        let own = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "authorization");
        own.map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(keys(&seen[0]), [format!("Bearer {READ}")], "{seen:?}");
    let first = record(&daemon, "/status?n=200").await;
    assert_eq!(first["http"]["credential"], "read-key", "{first}");

    // Another tool's calls have another.
    told(&mut session, "set", asked("/status?n=201&code=201")).await;
    assert_eq!(keys(&world.api.seen()[1]), [format!("Bearer {WRITE}")]);
    let called = record(&daemon, "/status?n=201").await;
    assert_eq!(called["http"]["credential"], "write-key", "{called}");

    // Whatever the client sends there, however it is written, is gone.
    let mut own = asked("/status?n=202&code=202");
    own["headers"] = json!({ "Authorization": "Bearer own", "X-Other": "own" });
    told(&mut session, "look", own).await;
    let seen = &world.api.seen()[2];
    assert_eq!(keys(seen), [format!("Bearer {READ}")]);
    assert_eq!(seen.header("x-other"), Some("own"));
    let url = format!("https://{QUERY}/status?n=203&code=203&key=own&%4bEY=own&keys=1");
    told(&mut session, "get", json!({ "url": url, "headers": {} })).await;
    let path = &world.api.seen()[3].path;
    assert_eq!(
        path,
        "/status?n=203&code=203&keys=1&key=qu3ry%20K3y%2Fof%3Dall"
    );

    // Nowhere else: another host, clear text, a redirect from where it is put in to where it is not.
    for url in [
        format!("https://{OTHER}/status?n=204&code=204"),
        format!("http://{PLAIN}/status?n=200&code=200"),
        format!("https://{API}/redirect?to=https://{OTHER}/status"),
    ] {
        let told = told(&mut session, "get", json!({ "url": url })).await;
        assert!(told.starts_with('2'), "{url}: {told}");
    }
    let all: Vec<_> = world
        .api
        .seen()
        .into_iter()
        .chain(world.plain.seen())
        .collect();
    for seen in &all {
        let text = json!(seen).to_string();
        let is = |name: &str| seen.authority.as_deref() == Some(name);
        assert_eq!(
            text.contains(READ) || text.contains(WRITE),
            is(API),
            "{text}"
        );
        assert_eq!(text.contains("qu3ry"), is(QUERY), "{text}");
    }
    assert_eq!(
        all.iter()
            .filter(|seen| seen.authority.as_deref() == Some(OTHER))
            .count(),
        2
    );
    let placeholder = keys(&all[all.len() - 1])[0].clone();
    assert!(placeholder.starts_with("Bearer exeat-"), "{placeholder}");
    let placeholder = placeholder.trim_start_matches("Bearer ");

    // Not in the process, where its placeholder is.
    let pid = first["workload"]["pid"].as_u64().unwrap();
    let pid = u32::try_from(pid).unwrap();
    assert!(
        holds(pid, placeholder).unwrap(),
        "the search finds nothing at all"
    );
    for secret in [READ, WRITE, ASKED, "qu3ry%20K3y"] {
        assert!(!holds(pid, secret).unwrap(), "{secret} is in the process");
    }
    // Nor in what is written.
    let records: String = daemon
        .audit_lines()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let status = daemon.status().await.unwrap();
    assert_eq!(status["credentials"][1]["name"], "read-key", "{status}");
    assert_eq!(status["credentials"].as_array().unwrap().len(), 3);
    let log = daemon.log();
    assert!(log.contains("TRACE"), "nothing is traced");
    for secret in [READ, WRITE, ASKED, "qu3ry%20K3y", placeholder] {
        for text in [&records, &status.to_string(), &log] {
            assert!(!text.contains(secret), "{secret} is told");
        }
    }
    assert!(session.close().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_call_it_is_must_be_clear_where_credentials_differ() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    let daemon = lab.daemon(&policy(&lab)).await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();
    let mut both = async |first: &str, second: &str, path: &str| -> Vec<String> {
        for (id, tool) in [(901, first), (902, second)] {
            let url = format!("https://{API}{path}");
            let arguments = json!({ "url": url, "together": 2 });
            let params = json!({ "name": tool, "arguments": arguments });
            let call =
                json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
            session.send(&call).await.unwrap();
        }
        let mut answers = Vec::new();
        while answers.len() < 2 {
            let answer = session.receive().await.unwrap();
            let text = answer["result"]["content"][0]["text"].as_str();
            answers.extend(text.map(str::to_owned));
        }
        answers
    };
    // Either may have caused either request.
    let answers = both("get", "set", "/status?n=200&code=200").await;
    for answer in &answers {
        assert!(answer.starts_with("403 "), "{answer}");
    }
    assert_eq!(world.api.seen().len(), 0);
    let refused = record(&daemon, "/status?n=200").await;
    assert_eq!(refused["decision"]["effect"], "deny", "{refused}");
    let reason = refused["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("different credentials"), "{reason}");
    assert_eq!(refused["cause"]["candidates"].as_array().unwrap().len(), 2);
    // Whichever of these it was, the credential is the same.
    let answers = both("get", "look", "/status?n=201&code=201").await;
    for answer in &answers {
        assert!(answer.starts_with("201 "), "{answer}");
    }
    assert!(session.close().await.unwrap().success());
}

/// Who leaves a call must not have what it still does go out with the credential, and under the name, of another; nor
/// who asks for something else than a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_or_is_no_call_gets_no_other_calls_credential() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    let daemon = lab.daemon(&policy(&lab)).await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();
    let ask = |id: u64, method: &str, tool: &str, path: &str| {
        let arguments = json!({ "url": format!("https://{API}{path}"), "together": 2 });
        let params = match method {
            "tools/call" => json!({ "name": tool, "arguments": arguments }),
            _ => json!({ "uri": "notes://all", "arguments": arguments }),
        };
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    };
    let text = |answer: &Value| -> String {
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };

    // `get` is left and goes on once `set` is there, whose credential it is after.
    let left = ask(901, "tools/call", "get", "/status?n=200&code=200");
    session.send(&left).await.unwrap();
    let params = json!({ "requestId": 901 });
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    session.send(&cancel).await.unwrap();
    let other = ask(902, "tools/call", "set", "/status?n=201&code=201");
    session.send(&other).await.unwrap();
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], 902, "{answer}");
    assert!(text(&answer).starts_with("403 "), "{answer}");
    assert_eq!(world.api.seen().len(), 0);
    for path in ["/status?n=200", "/status?n=201"] {
        let refused = record(&daemon, path).await;
        let candidates = refused["cause"]["candidates"].as_array();
        assert_eq!(candidates.map(Vec::len), Some(2), "{refused}");
    }
    // The server answered both by now: the next call is alone.
    let alone = told(
        &mut session,
        "set",
        json!({ "url": format!("https://{API}/status?n=202&code=202") }),
    );
    let alone = alone.await;
    assert!(alone.starts_with("202 "), "{alone}");
    assert!(record(&daemon, "/status?n=202").await["cause"]["id"].is_string());

    // What is no call has the entry's.
    let read = ask(903, "resources/read", "", "/status?n=203&code=203");
    session.send(&read).await.unwrap();
    session
        .send(&ask(904, "tools/call", "set", "/status?n=204&code=204"))
        .await
        .unwrap();
    for _ in 0..2 {
        let answer = session.receive().await.unwrap();
        assert!(text(&answer).starts_with("403 "), "{answer}");
    }
    assert_eq!(world.api.seen().len(), 1);
    let refused = record(&daemon, "/status?n=204").await;
    assert_eq!(
        refused["cause"]["candidates"].as_array().map(Vec::len),
        Some(2),
        "{refused}"
    );
    assert!(session.close().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_is_a_refusal_and_said() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    let policy = policy(&lab);
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();
    let asked = |path: &str| json!({ "url": format!("https://{API}{path}") });
    let answer = told(&mut session, "get", asked("/status?n=200&code=200")).await;
    assert!(answer.starts_with("200 "), "{answer}");

    // Renewed: what is there at the next reading of the policy counts.
    lab.keep("read.key", "an0ther-K3y").unwrap();
    daemon.reload().unwrap();
    wait_for("the new key is sent", LIMIT, async || {
        told(&mut session, "get", asked("/status?n=201&code=201")).await;
        let seen = world.api.seen();
        let sent = seen.last()?.header("authorization")?;
        (sent == "Bearer an0ther-K3y").then_some(())
    })
    .await
    .unwrap();

    // Gone, or readable to everyone.
    let path = lab.directory().join("read.key");
    chmod(&path, 0o644).unwrap();
    daemon.reload().unwrap();
    let found = daemon
        .record("the finding", |record| {
            record["finding"]["what"] == "credential_unavailable"
        })
        .await
        .unwrap();
    let detail = found["finding"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("`read-key`") && detail.contains("not kept secret"),
        "{detail}"
    );
    let answer = told(&mut session, "get", asked("/status?n=203&code=203")).await;
    assert!(
        answer.starts_with("503 ") && answer.contains("credential_unavailable"),
        "{answer}"
    );
    let refused = record(&daemon, "/status?n=203").await;
    assert_eq!(refused["outcome"]["status"], "refused", "{refused}");
    assert_eq!(refused["http"]["credential"], "read-key");
    assert!(
        refused["decision"]["reason"]
            .as_str()
            .unwrap()
            .contains("not kept secret")
    );
    let done = daemon.cli(&["status", "--no-canary"]).await.unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(done.stdout.contains("not kept secret"), "{done:?}");
    let place = lab.directory().join("policy.d");
    let done = daemon
        .cli(&["policy", "check", place.to_str().unwrap()])
        .await
        .unwrap();
    assert!(done.stdout.contains("not kept secret"), "{done:?}");
    // Another's credential goes on.
    let answer = told(&mut session, "set", asked("/status?n=204&code=204")).await;
    assert!(answer.starts_with("204"), "{answer}");

    // A gate that is started anew has the sources read for itself.
    chmod(&path, 0o600).unwrap();
    fs::write(lab.directory().join("query.key"), "").unwrap();
    daemon
        .replace_policy(&policy.replace("purpose: asks", "purpose: still asks"))
        .unwrap();
    let stands = async |name: &str| -> Option<Value> {
        let status = daemon.cli(&["status", "--no-canary"]).await.ok()?;
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let all = status["status"]["credentials"].as_array()?.clone();
        all.into_iter().find(|one| one["name"] == name)
    };
    let problem = wait_for("the empty source is noticed", LIMIT, async || {
        let one = stands("query-key").await?;
        one["problem"].as_str().map(str::to_owned)
    })
    .await
    .unwrap();
    assert!(problem.contains("is empty"), "{problem}");
    wait_for("the file counts again", LIMIT, async || {
        let one = stands("read-key").await?;
        (one["problem"].is_null() && !one["read"].is_null()).then_some(())
    })
    .await
    .unwrap();
    let answer = told(&mut session, "get", asked("/status?n=205&code=205")).await;
    assert!(answer.starts_with("205"), "{answer}");
    assert!(session.close().await.unwrap().success());
}

/// What systemd hands the daemon is a source as a file is, and one with `refresh` is read anew by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_systemd_is_read_and_one_that_is_renewed_is_read_anew() {
    let lab = Lab::new().unwrap();
    let world = world(&lab);
    fs::create_dir(lab.directory().join("credentials")).unwrap();
    lab.keep("credentials/api-token", READ).unwrap();
    let policy = policy(&lab);
    let directory = lab.directory().display();
    let file = format!("file: {directory}/read.key");
    let renewed = format!("file: {directory}/write.key");
    let policy = policy
        .replace(&file, "systemd: api-token")
        .replace(&renewed, &format!("{renewed}, refresh: 1s"));
    assert!(policy.contains("systemd: ") && policy.contains("refresh: "));
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();
    let mut sent = async |tool: &str| -> String {
        let url = format!("https://{API}/status?n=200&code=200");
        let answer = told(&mut session, tool, json!({ "url": url })).await;
        assert!(answer.starts_with("200 "), "{answer}");
        let seen = world.api.seen();
        let sent = seen.last().unwrap().header("authorization").unwrap();
        sent.to_owned()
    };
    assert_eq!(sent("get").await, format!("Bearer {READ}"));
    assert_eq!(sent("set").await, format!("Bearer {WRITE}"));

    lab.keep("credentials/api-token", "an0ther-r3ad.K3y")
        .unwrap();
    lab.keep("write.key", "an0ther-wr1te.K3y").unwrap();
    wait_for("the renewed key is sent", LIMIT, async || {
        (sent("set").await == "Bearer an0ther-wr1te.K3y").then_some(())
    })
    .await
    .unwrap();
    // Without `refresh`, what was read counts until the next reading of the policy.
    assert_eq!(sent("get").await, format!("Bearer {READ}"));
    daemon.reload().unwrap();
    wait_for("the key of systemd is read anew", LIMIT, async || {
        (sent("get").await == "Bearer an0ther-r3ad.K3y").then_some(())
    })
    .await
    .unwrap();
    assert!(session.close().await.unwrap().success());
}
