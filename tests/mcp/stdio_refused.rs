//! Hosts whose server is not started: what they ask gets a JSON-RPC error, in both eras' greetings, and nobody hangs.

use std::fs;

use exeat_tests::Lab;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::stdio::Session;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::stdio::{ALL, Wire, policy, wired};
use crate::stdio_faults::{Beside, ask, odd};
use crate::world::LIMIT;

/// What each era begins with.
fn greetings() -> [Value; 2] {
    let modern = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "lab", "version": "1.0.0" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let legacy = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "lab", "version": "1.0.0" },
    });
    [
        json!({ "jsonrpc": "2.0", "id": "first", "method": "server/discover", "params": { "_meta": modern } }),
        json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": legacy }),
    ]
}

async fn disconnect(daemon: &Daemon<'_>, server: &str) {
    let order = ["servers", "disconnect", server];
    let done = daemon.cli(&order).await.unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Nothing more comes, and `exeat run` ends as refused, with this sentence.
async fn ends(lab: &Lab, mut session: Session, server: &str, sentence: &str) {
    assert_eq!(session.line().await.unwrap(), None);
    let status = session.close().await.unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
    let said = fs::read_to_string(lab.directory().join(format!("run-{server}.err"))).unwrap();
    assert!(said.contains(sentence), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_of_a_disconnected_server_is_answered_as_a_call_is() {
    const SENTENCE: &str = "`wire` was disconnected by an administrator";
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    ask(&mut session, 1).await;
    wire.hears("\"id\":1").await;
    disconnect(&daemon, "wire").await;
    let live = session.receive().await.unwrap()["error"].clone();
    assert_eq!(live["data"]["reason"], "server_disconnected", "{live}");
    session.close().await.unwrap();
    for greeting in greetings() {
        let mut session = daemon.run("wire").unwrap();
        session.send(&greeting).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], greeting["id"], "{answer}");
        assert_eq!(answer["error"], live, "{answer}");
        ends(&lab, session, "wire", SENTENCE).await;
    }
    // A host that tries one after the other hears it twice.
    let mut session = daemon.run("wire").unwrap();
    for greeting in greetings() {
        session.send(&greeting).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], greeting["id"], "{answer}");
        assert_eq!(answer["error"], live, "{answer}");
    }
    ends(&lab, session, "wire", SENTENCE).await;
    // One record for each refused start, and none of what was asked there.
    let refused = |record: &Value| {
        record["lifecycle"]["event"] == "run" && record["outcome"]["status"] == "refused"
    };
    let records = daemon.records("each start", 3, refused).await.unwrap();
    assert_eq!(records.len(), 3, "{records:#?}");
    let records = daemon.audit().unwrap();
    let greeted = |record: &Value| record["mcp"]["method"] == "initialize";
    assert!(!records.iter().any(greeted));
    assert_eq!(wire.heard().matches("initialize").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_keeps_a_server_from_starting_is_answered() {
    let lab = Lab::new().unwrap();
    let _wire = Wire::new(&lab, "wire");
    let server = "  nobodys:
    purpose: has a user that is not there
    owner: tests@lab.example
    launch: { command: /bin/true, user: exeat-no-such-user }
identities: { staff: { user: root } }
rules: [{ id: staff-only, who: [staff], methods: [\"*\"], effect: allow }]";
    let daemon = lab.daemon(&policy(&lab, server)).await.unwrap();
    let host_of = |arguments: &[&str], user: &str| {
        let mut host = lab.inside.command("setpriv");
        host.args(["--reuid", user, "--clear-groups", "--"])
            .arg(binary().unwrap())
            .args(["run", "--config"])
            .arg(lab.directory().join("exeat.yaml"))
            .args(arguments);
        host
    };
    for (arguments, user, code, reason, sentence) in [
        (
            &["unheard-of"][..],
            "root",
            -31403,
            "unregistered_server",
            "no server `unheard-of`",
        ),
        (
            &["wire"],
            "games",
            -31403,
            "denied",
            "`wire` may not be started by this user",
        ),
        (
            &["nobodys"],
            "root",
            -31503,
            "not_started",
            "exeat-no-such-user",
        ),
        (
            &["wire", "--", "--debug"],
            "root",
            -31403,
            "denied",
            "does not cover what follows `--`",
        ),
    ] {
        let log = lab.directory().join("run-refused.err");
        let mut session = Session::start(host_of(arguments, user), &log).unwrap();
        let [_, greeting] = greetings();
        session.send(&greeting).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], 0, "{answer}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert_eq!(answer["error"]["data"]["reason"], reason, "{answer}");
        assert_eq!(session.line().await.unwrap(), None);
        assert!(!session.close().await.unwrap().success());
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains(sentence), "{said}");
        let asked = |record: &Value| {
            let lifecycle = &record["lifecycle"];
            let added = lifecycle["extra_args"].is_array();
            lifecycle["event"] == "run"
                && lifecycle["detail"] == arguments[0]
                && added == (arguments.len() > 1)
                && record["outcome"].is_object()
        };
        let status = daemon.record("the start", asked).await.unwrap()["outcome"]["status"].clone();
        assert_eq!(status == "done", reason == "not_started", "{arguments:?}");
    }
    // It was permitted: that it came to nothing is told beside.
    let failed = |record: &Value| record["lifecycle"]["event"] == "run_failed";
    let failed = daemon.record("what it came to", failed).await.unwrap();
    let told =
        failed["lifecycle"]["details"].to_string() + &failed["lifecycle"]["detail"].to_string();
    assert!(told.contains("exeat-no-such-user"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_say_nothing_or_no_message_are_not_waited_for() {
    const SENTENCE: &str = "`odd` was disconnected by an administrator";
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&odd(&lab, "exec cat")).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let gate = daemon.status().await.unwrap()["gate"]["pid"].clone();
    disconnect(&daemon, "odd").await;
    // One that waits to be spoken to.
    let silent = daemon.run("odd").unwrap();
    ends(&lab, silent, "odd", SENTENCE).await;
    // One that asks nothing.
    let mut tells = daemon.run("odd").unwrap();
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    tells.send(&told).await.unwrap();
    ends(&lab, tells, "odd", SENTENCE).await;
    // One that is gone at once ends at once.
    let began = Instant::now();
    let mut gone = daemon.run("odd").unwrap();
    assert_eq!(gone.close().await.unwrap().code(), Some(1));
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    // Ones that write what is no message, too much, or what hides a second one.
    let long = json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": { "x": "x".repeat(1 << 17) } });
    for (bytes, id, code) in [
        ("garbage\n".to_owned(), Value::Null, -32700),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1}\r{}\n".to_owned(),
            Value::Null,
            -32700,
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":3,\"id\":4,\"method\":\"initialize\"}\n".to_owned(),
            Value::Null,
            -32700,
        ),
        (format!("{long}\n"), json!(7), -31403),
    ] {
        let mut session = daemon.run("odd").unwrap();
        session.raw(bytes.as_bytes()).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        ends(&lab, session, "odd", SENTENCE).await;
    }
    // One that writes without end, and one that never ends its line.
    let mut flood = daemon.run("odd").unwrap();
    let flooding = async { while flood.raw(b"\nx").await.is_ok() {} };
    timeout(LIMIT, flooding).await.unwrap();
    flood.close().await.unwrap();
    let mut endless = daemon.run("odd").unwrap();
    let writing = async { while endless.raw(&[b'x'; 4096]).await.is_ok() {} };
    timeout(LIMIT, writing).await.unwrap();
    endless.close().await.unwrap();
    beside.works().await;
    assert_eq!(daemon.status().await.unwrap()["gate"]["pid"], gate);
}
