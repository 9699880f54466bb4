//! What the gate holds in memory for one workload is bounded in sum, and what is one's own is nobody else's loss.

use std::fs;
use std::path::{Path, PathBuf};

use exeat_tests::Lab;
use exeat_tests::process::Process;
use exeat_tests::wait::{wait_for, wait_until};
use serde_json::{Value, json};

use crate::place::{LIMIT, RAW};
use crate::serving::{self, Serving, user};

const LISTEN: &str = "127.0.0.1:3001";
const URL: &str = "http://127.0.0.1:3001/mcp";
const RULES: &str = "{ id: all, who: [staff], servers: [notes], tools: [\"*\"], effect: allow }, \
                     { id: host, servers: [notes], tools: [\"*\"], effect: allow }";

/// A client of the host that sends `texts`, in which `LARGE` stands for so many letters.
fn client(lab: &Lab, serving: &Serving, name: &str, texts: &Value, large: usize) -> Process {
    let job = json!({ "host": "127.0.0.1", "port": 3001, "tls": false, "send": texts, "large": large, "until": "result" });
    let mut command = serving.hosted(lab);
    command.args(["/usr/bin/python3", "-c", RAW, &job.to_string()]);
    Process::start(name, lab.directory(), &mut command).unwrap()
}

/// The head and the body of a call of `work`, whose body `more` makes so much longer than it is written here.
fn request(arguments: &Value, more: usize) -> [String; 2] {
    let params = json!({ "name": "work", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let body = message.to_string();
    let length = body.len() + more;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {LISTEN}\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    [head, body]
}

/// What the client got, once it has ended.
async fn got(client: &mut Process) -> String {
    client.wait(LIMIT).await.unwrap();
    let told: Value = serde_json::from_str(&client.stdout()).unwrap();
    assert!(told["error"].is_null(), "{}", told["error"]);
    told["got"].as_str().unwrap().to_owned()
}

fn held(told: &serving::Told) -> bool {
    told.json()["error"]["data"]["reason"] == "held_bytes"
}

fn gate(lab: &Lab) -> PathBuf {
    lab.directory().join("go")
}

fn is_refusal(record: &Value) -> bool {
    let error = record["outcome"]["error"].as_str().unwrap_or_default();
    record["outcome"]["status"] == "refused" && error.contains("limits.held_bytes")
}

async fn until_refused(lab: &Lab, serving: &Serving, arguments: &Value) -> serving::Told {
    wait_for("the host has no room left", LIMIT, async || {
        let told = serving::call(serving.hosted(lab), URL, arguments.clone()).await;
        held(&told).then_some(told)
    })
    .await
    .unwrap()
}

fn go(lab: &Lab) {
    fs::write(gate(lab), "").unwrap();
}

fn waits(path: &Path) -> Value {
    json!({ "exists": path })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded_in_sum() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let policy = serving.policy(LISTEN, RULES, "");
    let settings = "limits: { body_bytes: 30000, held_bytes: 64000 }";
    let daemon = lab.daemon_with(&policy, settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;

    // All of a body but its end.
    let [head, body] = request(&json!({ "text": "LARGE" }), 28_000 - "LARGE".len());
    let (most, rest) = body.split_at(body.len() - 4);
    let sent = lab.directory().join("sent");
    let texts = json!([head, most, { "make": sent }, waits(&gate(&lab)), rest]);
    let mut slow = client(&lab, &serving, "slow", &texts, 28_000);
    // A call that came first would be let in, and the slow one refused.
    wait_until("it is sent", LIMIT, || sent.exists())
        .await
        .unwrap();
    let text = json!({ "text": "x".repeat(20_000) });
    let told = until_refused(&lab, &serving, &text).await;
    assert_eq!(told.status, "503", "{told:?}");
    daemon.record("the refusal", is_refusal).await.unwrap();
    // Little has room still, and others have theirs.
    let little = serving::call(serving.hosted(&lab), URL, json!({})).await;
    assert!(little.json()["result"].is_object(), "{little:?}");
    let other = serving::call(user(&lab, "root"), URL, text.clone()).await;
    assert!(other.json()["result"].is_object(), "{other:?}");

    go(&lab);
    let answer = got(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // What has ended gives back what it took.
    let again = serving::call(serving.hosted(&lab), URL, text).await;
    assert!(again.json()["result"].is_object(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded_in_sum() {
    const LARGE: usize = 9_000_000;
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let policy = serving.policy(LISTEN, RULES, "");
    let settings = "limits: { held_bytes: 16000000 }";
    let daemon = lab.daemon_with(&policy, settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;

    let large = json!({ "large": LARGE });
    let [head, body] = request(&large, 0);
    let texts = json!([head, body, waits(&gate(&lab))]);
    let mut deaf = client(&lab, &serving, "deaf", &texts, 0);
    let answered = |record: &Value| record["mcp"]["method"] == "tools/call";
    daemon.record("its answer", answered).await.unwrap();
    until_refused(&lab, &serving, &large).await;
    daemon.record("the refusal", is_refusal).await.unwrap();
    go(&lab);
    let answer = got(&mut deaf).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.200}");
    wait_for("its room is given back", LIMIT, async || {
        let told = serving::call(serving.hosted(&lab), URL, large.clone()).await;
        told.json()["result"].is_object().then_some(())
    })
    .await
    .unwrap();
}
