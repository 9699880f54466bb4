//! Calls that wait for a person: over HTTP and standard streams, decided by other users with `exeat approvals`.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::fixtures::{Client, Fixtures, Server};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Finished, run};
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::scripted::{Scripted, plain};
use crate::stdio::{Wire, alive, policy, wired};
use crate::talk::{EventReader, FAR, LEGACY, OTHER, OTHER_URL, Place, Talker, request};
use crate::world::{LIMIT, NAME, URL, World, far, second};

/// Whoever calls is root; `bin` is an approver, `games` is nobody in particular.
pub(crate) const RULES: &str = r#"
identities: { boss: { user: bin } }
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: ask, tools: [pay, add], effect: approve, approvers: [boss] }
  - { id: hurry, tools: [rush], effect: approve, approvers: [boss], timeout: 1s }
"#;

pub(crate) fn call(id: &str, tool: &str, amount: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": tool,
        "arguments": { "amount": amount, "password": "hunter2" },
        "_meta": { "progressToken": format!("token of {id}") },
    } })
}

/// `exeat approvals ARGUMENTS` as this user.
pub(crate) async fn approvals(lab: &Lab, user: &str, arguments: &[&str]) -> Finished {
    let mut command = lab.inside.command("setpriv");
    command
        .args(["--reuid", user, "--clear-groups", "--"])
        .arg(binary().unwrap())
        .arg("approvals")
        .args(arguments)
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"))
        .arg("--json");
    run(&mut command, LIMIT).await.unwrap()
}

/// What waits, as root sees it.
async fn waiting(lab: &Lab) -> Vec<Value> {
    let done = approvals(lab, "root", &[]).await;
    assert!(done.status.success(), "{}", done.stderr);
    let Ok(Value::Array(waiting)) = serde_json::from_str(&done.stdout) else {
        panic!("{}{}", done.stdout, done.stderr)
    };
    waiting
}

/// Waits until `count` calls wait, and returns them.
pub(crate) async fn until(lab: &Lab, count: usize) -> Vec<Value> {
    let what = format!("{count} calls wait");
    wait_for(&what, LIMIT, async || {
        let waiting = waiting(lab).await;
        (waiting.len() == count).then_some(waiting)
    })
    .await
    .unwrap()
}

/// The id of the one call that waits.
pub(crate) async fn only(lab: &Lab) -> String {
    let waiting = until(lab, 1).await;
    waiting[0]["id"].as_str().unwrap().to_owned()
}

/// Waits until the call with this id is on the disk.
async fn is_kept(lab: &Lab, id: &str) {
    let kept = lab.directory().join("state/approvals.json");
    wait_for("it is kept", LIMIT, async || {
        let text = std::fs::read_to_string(&kept).ok()?;
        text.contains(id).then_some(())
    })
    .await
    .unwrap();
}

pub(crate) async fn approve(lab: &Lab, id: &str) {
    let done = approvals(lab, "bin", &["approve", id]).await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("\"approve\""), "{}", done.stdout);
}

/// Posts a call, and reads its answer's first event: the sign that it waits.
pub(crate) async fn posted(talker: &Talker, message: &Value) -> (EventReader, Value) {
    posted_to(FAR, talker, message).await
}

async fn posted_to(place: Place, talker: &Talker, message: &Value) -> (EventReader, Value) {
    let request = request("POST", place.path, &[LEGACY], message.to_string()).unwrap();
    let response = talker.send(place, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = EventReader::new(response);
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first["method"], "notifications/progress", "{first}");
    (events, first)
}

async fn world(lab: &Lab) -> World<'_> {
    World::new(lab, &[("far", URL)], RULES).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_call_passes_once_and_only_others_approve_it() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    let (mut events, first) = posted(&talker, &call("a", "pay", 7)).await;
    assert_eq!(first["params"]["progressToken"], "token of a", "{first}");
    let waits = until(&lab, 1).await.remove(0);
    assert_eq!(waits["server"], "far", "{waits}");
    assert_eq!(waits["tool"], "pay", "{waits}");
    assert_eq!(waits["rule"], "ask", "{waits}");
    assert_eq!(waits["host"], "agent", "{waits}");
    assert_eq!(waits["uids"], json!([0]), "{waits}");
    assert_eq!(waits["arguments"]["amount"], 7, "{waits}");
    let waited = second(&waits["until"]) - second(&waits["asked"]);
    let default = 10 * 60;
    assert!(
        (default..=default + 1).contains(&waited.rem_euclid(86_400)),
        "{waits}"
    );
    assert!(!waits.to_string().contains("hunter2"), "{waits}");
    let id = waits["id"].as_str().unwrap();
    // Who calls, who is no approver, and who is under policy itself do not decide.
    let own = approvals(&lab, "root", &["approve", id]).await;
    assert_eq!(own.status.code(), Some(1), "{}", own.stderr);
    assert!(
        own.stderr.contains("who calls cannot approve"),
        "{}",
        own.stderr
    );
    let other = approvals(&lab, "games", &["approve", id]).await;
    assert!(!other.status.success(), "{}", other.stdout);
    assert_eq!(approvals(&lab, "games", &[]).await.stdout.trim(), "[]");
    let mut managed = world.managed();
    managed
        .arg(binary().unwrap())
        .args(["approvals", "approve", id, "--config"])
        .arg(lab.directory().join("exeat.yaml"));
    let managed = run(&mut managed, LIMIT).await.unwrap();
    assert_eq!(managed.status.code(), Some(1), "{}", managed.stderr);
    assert!(server.seen().is_empty());

    approve(&lab, id).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["id"], "a", "{answer}");
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    assert_eq!(
        events.next().await.unwrap(),
        None,
        "the stream ends with the answer"
    );
    assert_eq!(server.take().len(), 1);
    // Decided is decided, and the same call waits anew.
    let again = approvals(&lab, "bin", &["approve", id]).await;
    assert!(!again.status.success(), "{}", again.stdout);
    let (events, _) = posted(&talker, &call("b", "pay", 7)).await;
    assert_ne!(only(&lab).await, id);
    // Who goes away waits no more, over HTTP/2 either.
    drop(events);
    until(&lab, 0).await;
    let second = call("h", "pay", 7).to_string();
    let second = request("POST", FAR.path, &[LEGACY], second).unwrap();
    let mut events = EventReader::new(talker.send_h2(FAR, second).await.unwrap());
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first["params"]["progressToken"], "token of h", "{first}");
    until(&lab, 1).await;
    drop(events);
    until(&lab, 0).await;
    assert!(server.take().is_empty());

    let own = world
        .daemon
        .record("the call", |record| record["mcp"]["id"] == "\"a\"")
        .await
        .unwrap();
    assert_eq!(own["decision"]["effect"], "approve", "{own}");
    assert_eq!(own["decision"]["rule"], "ask", "{own}");
    assert_eq!(own["outcome"]["status"], "done", "{own}");
    assert_eq!(own["approval"]["id"], id, "{own}");
    assert_eq!(own["approval"]["decision"], "approved", "{own}");
    assert_eq!(own["approval"]["approver"], "bin", "{own}");
    assert_eq!(
        own["approval"]["arguments_sha256"],
        waits["arguments_sha256"]
    );
    let decided = world
        .daemon
        .record("the approval", |record| record["kind"] == "approval")
        .await
        .unwrap();
    assert_eq!(decided["approval"], own["approval"], "{decided}");
    assert_eq!(decided["identity"]["user"], "bin", "{decided}");
    assert_eq!(decided["cause"]["id"], own["id"], "{decided}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_approved_is_refused_and_says_why() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    // Denied, with a reason that reaches the model.
    let (mut events, _) = posted(&talker, &call("d", "pay", 1)).await;
    let id = only(&lab).await;
    let done = approvals(
        &lab,
        "bin",
        &["deny", &id, "--reason", "not before the audit"],
    )
    .await;
    assert!(done.status.success(), "{}", done.stderr);
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let told = &answer["result"]["structuredContent"]["approval"];
    assert_eq!(told["decision"], "denied", "{answer}");
    assert_eq!(told["reason"], "not before the audit", "{answer}");
    // Nobody decides.
    let (mut events, _) = posted(&talker, &call("t", "rush", 1)).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "approval_timed_out",
        "{answer}"
    );
    // A client that takes no stream waits for its answer alone.
    let plainly = [LEGACY, ("accept", "application/json")];
    let answer = talker
        .post(FAR, &plainly, call("p", "rush", 2).to_string())
        .await
        .unwrap();
    assert_eq!(
        answer.json()["error"]["data"]["reason"],
        "approval_timed_out"
    );
    // It too waits no more when it goes away.
    let goes = talker.post(FAR, &plainly, call("g", "pay", 2).to_string());
    let came = tokio::select! {
        _answer = goes => false,
        _waiting = until(&lab, 1) => true,
    };
    assert!(came, "it was answered");
    until(&lab, 0).await;
    // Within a batch nothing waits.
    let batch = json!([call("b", "pay", 1)]);
    let headers = [("mcp-protocol-version", "2025-03-26")];
    let answer = talker.post(FAR, &headers, batch.to_string()).await.unwrap();
    let text = answer.json().to_string();
    assert!(text.contains("approval_unavailable"), "{text}");
    // An approval never overrules what policy says by now.
    let (mut events, _) = posted(&talker, &call("n", "pay", 9)).await;
    let id = only(&lab).await;
    let denies = format!("{RULES}  - {{ id: never, tools: [pay], effect: deny }}\n");
    world.replace(&[("far", URL)], "[]", &denies).unwrap();
    wait_for("the new policy is in force", LIMIT, async || {
        let status = world.daemon.status().await.ok()?;
        (status["policy"]["rules"] == 4).then_some(())
    })
    .await
    .unwrap();
    approve(&lab, &id).await;
    let answer = events.message().await.unwrap().unwrap();
    assert!(answer["error"].is_object(), "{answer}");
    // Nor an administrator's word on the server.
    world.replace(&[("far", URL)], "[]", RULES).unwrap();
    wait_for("the old policy is in force", LIMIT, async || {
        let status = world.daemon.status().await.ok()?;
        (status["policy"]["rules"] == 3).then_some(())
    })
    .await
    .unwrap();
    let (mut events, _) = posted(&talker, &call("c", "pay", 9)).await;
    until(&lab, 1).await;
    let done = world
        .daemon
        .cli(&["servers", "disconnect", "far"])
        .await
        .unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "server_disconnected",
        "{answer}"
    );
    until(&lab, 0).await;
    assert!(server.seen().is_empty(), "nothing of it reached the server");
    for (id, status) in [
        ("d", "refused"),
        ("t", "refused"),
        ("n", "refused"),
        ("c", "refused"),
    ] {
        let own = world
            .daemon
            .record("the call", |record| {
                record["mcp"]["id"] == format!("\"{id}\"")
            })
            .await
            .unwrap();
        assert_eq!(own["outcome"]["status"], status, "{own}");
        assert!(own["approval"]["id"].is_string(), "{own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_caller_may_have_waiting_is_bounded() {
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    let mut held = Vec::new();
    for amount in 0..8 {
        held.push(posted(&talker, &call("w", "pay", amount)).await);
    }
    until(&lab, 8).await;
    let answer = talker
        .post(FAR, &[LEGACY], call("x", "pay", 99).to_string())
        .await
        .unwrap();
    assert_eq!(answer.json()["error"]["data"]["reason"], "approvals_full");
    // What is too large for a person, too, wherever it is large.
    for place in ["arguments", "_meta"] {
        let mut large = call("l", "pay", 1);
        large["params"][place]["progressToken"] = json!("x".repeat(70_000));
        let answer = talker
            .post(FAR, &[LEGACY], large.to_string())
            .await
            .unwrap();
        assert_eq!(
            answer.json()["error"]["data"]["reason"],
            "approval_unavailable"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_outlives_the_daemon_and_passes_once() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let mut world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    // In order: the call ends, is approved while nobody waits, and passes when it is repeated.
    let (mut events, _) = posted(&talker, &call("a", "pay", 7)).await;
    let id = only(&lab).await;
    is_kept(&lab, &id).await;
    world.daemon.stop().await.unwrap();
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "shutting_down",
        "{answer}"
    );
    world.daemon.restart().await.unwrap();
    let waits = until(&lab, 1).await.remove(0);
    assert_eq!(waits["id"], id.as_str(), "{waits}");
    assert_eq!(waits["connected"], false, "{waits}");
    assert_eq!(waits["arguments"], Value::Null, "{waits}");
    approve(&lab, &id).await;
    // Once more: the approval is on the disk.
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    let other = posted(&talker, &call("o", "pay", 8)).await;
    until(&lab, 2).await;
    drop(other);
    until(&lab, 1).await;
    assert!(server.seen().is_empty());
    let answer = talker
        .post(FAR, &[LEGACY], call("r", "pay", 7).to_string())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(r#""text":"ok""#), "{text}");
    assert_eq!(server.take().len(), 1);
    until(&lab, 0).await;
    let own = world
        .daemon
        .record("the repeated call", |record| record["mcp"]["id"] == "\"r\"")
        .await
        .unwrap();
    assert_eq!(own["approval"]["id"], id.as_str(), "{own}");
    // Used up on the disk as well; and what was killed while it waited is taken up by the same call.
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    let lost = posted(&talker, &call("s", "pay", 7)).await;
    let id = only(&lab).await;
    is_kept(&lab, &id).await;
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    drop(lost);
    let (mut events, _) = posted(&talker, &call("u", "pay", 7)).await;
    assert_eq!(only(&lab).await, id);
    approve(&lab, &id).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    assert_eq!(server.take().len(), 1);
}

/// Server, tool and caller are part of what was approved: with the same arguments nothing else passes by it, also not
/// after a daemon that was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_for_one_server_one_tool_and_one_caller() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let address = SocketAddr::new(WORLD, OTHER.port);
    let second = Scripted::far(&lab, OTHER.host, address, plain).unwrap();
    let servers = [("far", URL), ("other", OTHER_URL)];
    let mut world = World::new(&lab, &servers, RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let stranger = world.talker_of("games").await.unwrap();
    let lost = posted(&talker, &call("a", "pay", 7)).await;
    let id = only(&lab).await;
    is_kept(&lab, &id).await;
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    drop(lost);
    assert_eq!(only(&lab).await, id, "it outlives the daemon");
    approve(&lab, &id).await;
    world.daemon.kill().await.unwrap();
    world.daemon.restart().await.unwrap();
    assert_eq!(only(&lab).await, id, "so does the approval");
    let held = [
        posted(&talker, &call("t", "add", 7)).await,
        posted_to(OTHER, &talker, &call("s", "pay", 7)).await,
        posted(&stranger, &call("c", "pay", 7)).await,
    ];
    until(&lab, 4).await;
    assert!(server.seen().is_empty() && second.seen().is_empty());
    let answer = talker
        .post(FAR, &[LEGACY], call("r", "pay", 7).to_string())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(r#""text":"ok""#), "{text}");
    assert_eq!((server.take().len(), second.take().len()), (1, 0));
    until(&lab, 3).await;
    drop(held);
    until(&lab, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_over_standard_streams_while_everything_else_goes_on() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    session.send(&call("a", "pay", 7)).await.unwrap();
    let progress = session.receive().await.unwrap();
    assert_eq!(
        progress["params"]["progressToken"], "token of a",
        "{progress}"
    );
    let id = only(&lab).await;
    alive(&mut session, &mut wire, "meanwhile").await;
    // Its id is in use.
    session.send(&call("a", "pay", 8)).await.unwrap();
    assert_eq!(session.receive().await.unwrap()["error"]["code"], -32600);
    approve(&lab, &id).await;
    wire.hears("\"pay\"").await;
    wire.answers(&json!("a"));
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (&answer["id"], answer["result"].is_object()),
        (&json!("a"), true)
    );
    // Denied.
    session.send(&call("d", "pay", 9)).await.unwrap();
    session.receive().await.unwrap();
    let id = only(&lab).await;
    let done = approvals(&lab, "bin", &["deny", &id, "--reason", "no"]).await;
    assert!(done.status.success(), "{}", done.stderr);
    let answer = session.receive().await.unwrap();
    let told = &answer["result"]["structuredContent"]["approval"];
    assert_eq!(
        (&told["decision"], &told["reason"]),
        (&json!("denied"), &json!("no"))
    );
    // Too late.
    session.send(&call("t", "rush", 9)).await.unwrap();
    session.receive().await.unwrap();
    let answer = session.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "approval_timed_out",
        "{answer}"
    );
    // Cancelled: nobody is answered, and the server hears of neither.
    session.send(&call("c", "pay", 10)).await.unwrap();
    session.receive().await.unwrap();
    until(&lab, 1).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "c" } });
    session.send(&cancel).await.unwrap();
    until(&lab, 0).await;
    let others = alive(&mut session, &mut wire, "end").await;
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(
        wire.heard().matches("tools/call").count(),
        1,
        "{}",
        wire.heard()
    );
    assert!(!wire.heard().contains("cancelled"), "{}", wire.heard());
    // A host that dies waits no more.
    session.send(&call("z", "pay", 11)).await.unwrap();
    session.receive().await.unwrap();
    until(&lab, 1).await;
    drop(session);
    until(&lab, 0).await;
    for (id, status) in [
        ("a", "done"),
        ("d", "refused"),
        ("t", "refused"),
        ("c", "failed"),
    ] {
        let own = daemon
            .record("the call", |record| {
                record["mcp"]["id"] == format!("\"{id}\"") && record["approval"].is_object()
            })
            .await
            .unwrap();
        assert_eq!(own["outcome"]["status"], status, "{own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_outlives_a_session_over_standard_streams() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let mut daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    session.send(&call("a", "pay", 7)).await.unwrap();
    session.receive().await.unwrap();
    let id = only(&lab).await;
    is_kept(&lab, &id).await;
    daemon.stop().await.unwrap();
    let answer = session.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "shutting_down",
        "{answer}"
    );
    daemon.restart().await.unwrap();
    assert_eq!(only(&lab).await, id);
    approve(&lab, &id).await;
    let mut session = wired(&daemon, &mut wire).await;
    // Another call is not it.
    session.send(&call("b", "pay", 8)).await.unwrap();
    session.receive().await.unwrap();
    until(&lab, 2).await;
    session.send(&call("c", "pay", 7)).await.unwrap();
    let heard = wire.hears("tools/call").await;
    assert!(heard.contains("\"amount\":7"), "{heard}");
    wire.answers(&json!("c"));
    let answer = loop {
        let message = session.receive().await.unwrap();
        if message["id"] == "c" {
            break message;
        }
    };
    assert!(answer["result"].is_object(), "{answer}");
    // Once.
    session.send(&call("d", "pay", 7)).await.unwrap();
    until(&lab, 2).await;
    assert_eq!(wire.heard().matches("tools/call").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_approves_what_others_call_and_the_caller_does_not() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut host = lab.inside.command("setpriv");
    host.args(["--reuid", "bin", "--clear-groups", "--"])
        .arg(binary().unwrap())
        .args(["run", "wire", "--config"])
        .arg(lab.directory().join("exeat.yaml"));
    let mut session = Session::start(host, &lab.directory().join("run-bin.err")).unwrap();
    alive(&mut session, &mut wire, "begin").await;
    session.send(&call("a", "pay", 7)).await.unwrap();
    session.receive().await.unwrap();
    let waits = until(&lab, 1).await.remove(0);
    assert_eq!(
        (&waits["user"], &waits["uids"]),
        (&json!("bin"), &json!([2]))
    );
    let id = waits["id"].as_str().unwrap();
    // An approver, and the caller.
    let own = approvals(&lab, "bin", &["approve", id]).await;
    assert!(
        own.stderr.contains("who calls cannot approve"),
        "{}",
        own.stderr
    );
    assert!(approvals(&lab, "bin", &[]).await.stdout.contains(id));
    let done = approvals(&lab, "root", &["approve", id]).await;
    assert!(done.status.success(), "{}", done.stderr);
    wire.hears("\"pay\"").await;
    wire.answers(&json!("a"));
    assert_eq!(session.receive().await.unwrap()["id"], "a");
    let own = daemon
        .record("the call", |record| record["mcp"]["id"] == "\"a\"")
        .await
        .unwrap();
    assert_eq!(own["approval"]["approver_uid"], 0, "{own}");
    // Nobody is left waiting when the server is disconnected.
    session.send(&call("b", "pay", 7)).await.unwrap();
    session.receive().await.unwrap();
    until(&lab, 1).await;
    let done = daemon
        .cli(&["servers", "disconnect", "wire"])
        .await
        .unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let answer = session.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "server_disconnected",
        "{answer}"
    );
    until(&lab, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_their_answers() {
    let fixtures = Fixtures::find().unwrap();
    let lab = Lab::new().unwrap();
    let _server = far(&lab, fixtures.server(Server::Ts2)).await.unwrap();
    let world = world(&lab).await;
    for client in [Client::Py1, Client::Py2, Client::Ts1, Client::Ts2] {
        let call = fixtures.client(client, URL, "add", r#"{"a":20,"b":22}"#);
        let call = call.variable(client.trust(), world.trust());
        let person = async {
            let id = only(&lab).await;
            approve(&lab, &id).await;
        };
        let (done, ()) = tokio::join!(world.run(&call), person);
        let answer: Value = done.unwrap().json().unwrap();
        assert_eq!(answer["text"], "42", "{client:?}: {answer}");
    }
}

/// Tiers in rising order: whoever is an approver of the first rule alone neither sees nor approves what the second asks for
/// as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rules_that_ask_each_has_a_say() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let rules = r#"
identities: { team: { user: [bin, daemon] }, finance: { user: bin } }
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: small, tools: [pay], args: [{ field: /amount, above: 1000 }], effect: approve, approvers: [team] }
  - { id: large, tools: [pay], args: [{ field: /amount, above: 100000 }], effect: approve, approvers: [finance] }
"#;
    let world = World::new(&lab, &[("far", URL)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    let (mut events, _) = posted(&talker, &call("l", "pay", 200_000)).await;
    let waits = until(&lab, 1).await.remove(0);
    assert_eq!(waits["rule"], "small", "{waits}");
    assert_eq!(waits["other_rules"], json!(["large"]), "{waits}");
    let id = waits["id"].as_str().unwrap();
    let team = approvals(&lab, "daemon", &["approve", id]).await;
    assert!(!team.status.success(), "{}", team.stdout);
    assert_eq!(approvals(&lab, "daemon", &[]).await.stdout.trim(), "[]");
    assert!(server.seen().is_empty());
    approve(&lab, id).await;
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    // What the first rule alone asks for is the team's.
    let (mut events, _) = posted(&talker, &call("s", "pay", 2_000)).await;
    let team = approvals(&lab, "daemon", &["approve", &only(&lab).await]).await;
    assert!(team.status.success(), "{}", team.stderr);
    let answer = events.message().await.unwrap().unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "ok", "{answer}");
    assert_eq!(server.take().len(), 2);
    for (call, rules) in [
        ("\"l\"", json!(["small", "large"])),
        ("\"s\"", json!(["small"])),
    ] {
        let own = world
            .daemon
            .record("the call", |record| {
                record["mcp"]["id"] == call && record["outcome"].is_object()
            })
            .await
            .unwrap();
        assert_eq!(own["approval"]["rules"], rules, "{own}");
    }
}
