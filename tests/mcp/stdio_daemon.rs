//! What the daemon does to sessions over standard streams: it ends or is killed, its policy changes, a server is
//! disconnected.

use std::fs;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::stdio::Session;
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stdio::{ALL, Wire, alive, policy, wired};
use crate::stdio_faults::{ask, ended, odd, pid};
use crate::stdio_floods::told;
use crate::world::LIMIT;

/// What a host is told to do where nothing goes on.
const ANEW: &str = "start the server anew";

/// A session with the wire server, which has heard a first call and not answered it.
async fn in_flight<'lab>(
    lab: &'lab Lab,
    rules: &str,
    settings: &str,
) -> (Wire, Daemon<'lab>, Session) {
    let mut wire = Wire::new(lab, "wire");
    let policy = policy(lab, rules);
    let daemon = lab.daemon_with(&policy, settings).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    ask(&mut session, 1).await;
    wire.hears("tools/call").await;
    (wire, daemon, session)
}

/// What is in flight when the daemon ends is refused so that its host knows what to do.
fn tells_to_start_anew(answer: &Value) {
    let error = &answer["error"];
    assert_eq!(error["data"]["reason"], "shutting_down", "{answer}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(ANEW), "{answer}");
}

/// So does the end of `exeat run`.
async fn ends_for_good(lab: &Lab, mut session: Session) {
    let status = session.close().await.unwrap();
    assert_eq!(status.code(), Some(3), "{status}");
    let said = fs::read_to_string(lab.directory().join("run-wire.err")).unwrap();
    assert!(said.contains(ANEW), "{said}");
}

/// Waits until no server runs.
async fn gone(daemon: &Daemon<'_>) {
    wait_for("the server is gone", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        status["workloads"].as_array()?.is_empty().then_some(())
    })
    .await
    .unwrap();
}

/// Waits until the daemon has ended in order.
async fn stopped(daemon: &mut Daemon<'_>) {
    assert_eq!(
        daemon.ended().await.unwrap().code(),
        Some(0),
        "{}",
        daemon.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gates_death_is_said_and_nobody_hangs() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    ask(&mut session, 1).await;
    let gate = daemon.status().await.unwrap()["gate"]["pid"]
        .as_u64()
        .unwrap();
    let gate = pid(u32::try_from(gate).unwrap());
    kill_process(gate, Signal::KILL).unwrap();
    assert_eq!(session.line().await.unwrap(), None);
    ends_for_good(&lab, session).await;
    wait_until("another gate", LIMIT, || test_kill_process(gate).is_err())
        .await
        .unwrap();
    gone(&daemon).await;
    // The gate that is dead could not say it.
    daemon
        .record("the loss", |record| {
            let lifecycle = &record["lifecycle"];
            lifecycle["event"] == "session_lost"
                && lifecycle["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.starts_with("`wire`, workload "))
        })
        .await
        .unwrap();
}

/// What passed without an answer, in either direction, is in the log although nobody is left to count it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gate_has_recorded_what_was_told() {
    const METHOD: &str = "vendor/told";
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    // Synced each, so that no record is still on its way when the gate dies.
    let settings = "audit: { sync: 0ms }";
    let daemon = lab.daemon_with(&policy(&lab, ALL), settings).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let line = format!("{}\n", json!({ "jsonrpc": "2.0", "method": METHOD }));
    session.raw(line.repeat(20).as_bytes()).await.unwrap();
    wire.raw(line.repeat(5).as_bytes());
    // Whatever came before the answer has passed.
    let others = alive(&mut session, &mut wire, "told").await;
    let gate = daemon.status().await.unwrap()["gate"]["pid"]
        .as_u64()
        .unwrap();
    kill_process(pid(u32::try_from(gate).unwrap()), Signal::KILL).unwrap();
    assert_eq!(others.len(), 5, "{others:?}");
    assert_eq!(wire.heard().matches(METHOD).count(), 20);
    assert_eq!(session.line().await.unwrap(), None);
    ends_for_good(&lab, session).await;
    daemon
        .record("the loss", |record| {
            record["lifecycle"]["event"] == "session_lost"
        })
        .await
        .unwrap();
    let records = daemon.audit().unwrap();
    assert_eq!(told(&records, "client", METHOD), [1, 2, 4, 8, 16]);
    assert_eq!(told(&records, "server", METHOD), [1, 2, 4]);
    let mut events = records.iter().map(|record| &record["lifecycle"]["event"]);
    assert!(!events.any(|event| event == "session_ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_leaves_no_server_behind() {
    let lab = Lab::new().unwrap();
    // A server that takes no notice of its input's end.
    let script = "echo started >&2; exec sleep 600";
    let mut daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let mut session = daemon.run("odd").unwrap();
    ask(&mut session, 1).await;
    let errors = lab.directory().join("run-odd.err");
    wait_until("the server runs", LIMIT, || {
        fs::read_to_string(&errors).is_ok_and(|text| text.contains("started"))
    })
    .await
    .unwrap();
    daemon.kill().await.unwrap();
    // Whether the gate still said so is a matter of microseconds.
    while let Some(line) = session.line().await.unwrap() {
        assert!(line.contains("\"error\""), "{line}");
    }
    let status = session.close().await.unwrap();
    assert_eq!(status.code(), Some(3), "{status}");
    let said = fs::read_to_string(&errors).unwrap();
    assert!(said.contains(ANEW), "{said}");
    daemon.restart().await.unwrap();
    gone(&daemon).await;
    daemon
        .record("the loss", |record| {
            record["lifecycle"]["event"] == "session_lost"
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_end_lets_a_call_finish() {
    let lab = Lab::new().unwrap();
    let (mut wire, mut daemon, mut session) = in_flight(&lab, ALL, "").await;
    kill_process(pid(daemon.pid()), Signal::TERM).unwrap();
    // New calls are refused from here on, this one is not.
    let mut turn = 0;
    let refused = loop {
        turn += 1;
        let id = format!("new-{turn}-");
        session
            .send(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }))
            .await
            .unwrap();
        if let Ok(answer) = timeout(Duration::from_millis(200), session.receive()).await {
            break answer.unwrap();
        }
        if wire.heard().contains(&id) {
            wire.answers(&json!(id));
            let answer = session.receive().await.unwrap();
            if answer["error"].is_object() {
                break answer;
            }
        }
    };
    tells_to_start_anew(&refused);
    wire.answers(&json!(1));
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (answer["id"].clone(), answer["result"].is_object()),
        (json!(1), true),
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    stopped(&mut daemon).await;
    ends_for_good(&lab, session).await;
    ended(&daemon, "the daemon stops").await;
}

/// Nothing is in flight that could be answered: the host learns it from what `exeat run` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_end_is_said_where_nothing_waits() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let mut daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    kill_process(pid(daemon.pid()), Signal::TERM).unwrap();
    assert_eq!(session.line().await.unwrap(), None);
    stopped(&mut daemon).await;
    ends_for_good(&lab, session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_time_is_not_unlimited() {
    let lab = Lab::new().unwrap();
    let (_wire, mut daemon, mut session) = in_flight(&lab, ALL, "shutdown: 1s").await;
    kill_process(pid(daemon.pid()), Signal::TERM).unwrap();
    tells_to_start_anew(&session.receive().await.unwrap());
    assert_eq!(session.line().await.unwrap(), None);
    stopped(&mut daemon).await;
    ends_for_good(&lab, session).await;
}

/// The daemon says nothing any more, and the gate may not have the time to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_leaves_no_call_waiting() {
    let lab = Lab::new().unwrap();
    let (_wire, mut daemon, mut session) = in_flight(&lab, ALL, "").await;
    daemon.kill().await.unwrap();
    while let Some(line) = session.line().await.unwrap() {
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], 1, "{answer}");
        assert!(answer["error"].is_object(), "{answer}");
    }
    ends_for_good(&lab, session).await;
    daemon.restart().await.unwrap();
    gone(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_policy_ends_sessions_and_changes_the_next_message() {
    let lab = Lab::new().unwrap();
    let allowed = "rules: [{ id: x, tools: [x], effect: allow }]";
    let (_wire, daemon, mut session) = in_flight(&lab, allowed, "").await;
    let narrowed = "rules: [{ id: y, tools: [y], effect: allow }]";
    let narrowed = policy(&lab, narrowed);
    daemon.put_in_force(&narrowed).await.unwrap();
    ask(&mut session, 2).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (answer["id"].clone(), answer["error"]["code"].clone()),
        (json!(2), json!(-32602)),
        "{answer}"
    );
    // Nobody may start it any more: who waits is told, and it ends.
    daemon.replace_policy(&policy(&lab, "rules: []")).unwrap();
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (answer["id"].clone(), answer["error"]["code"].clone()),
        (json!(1), json!(-31403)),
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    session.close().await.unwrap();
    ended(&daemon, "the policy does not allow it any more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_server_ends_its_sessions() {
    let lab = Lab::new().unwrap();
    let (mut wire, daemon, mut session) = in_flight(&lab, ALL, "").await;
    let drain = ["servers", "disconnect", "wire", "--drain", "--within", "60"];
    let done = daemon.cli(&drain).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    // Nothing new begins; what is in flight is answered, and then the session ends.
    ask(&mut session, 2).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], 2, "{answer}");
    assert_eq!(
        answer["error"]["data"]["reason"], "server_disconnected",
        "{answer}"
    );
    wire.answers(&json!(1));
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], 1, "{answer}");
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(session.line().await.unwrap(), None);
    session.close().await.unwrap();
    ended(&daemon, "the server was disconnected").await;
    assert!(!wire.heard().contains("\"id\":2"), "{}", wire.heard());
    let mut again = daemon.run("wire").unwrap();
    assert_eq!(again.line().await.unwrap(), None);
    assert!(!again.close().await.unwrap().success());
}
