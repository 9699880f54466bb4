//! Servers and hosts that end, hang, or go half away: each is recorded, nobody hangs, and a session
//! beside it works on.

use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::stdio::Session;
use exeat_tests::wait::{wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::stdio::{ALL, Wire, alive, instance, policy, wired};
use crate::world::LIMIT;

/// A policy with the server `wire`, and one `odd` that is this shell script.
pub(crate) fn odd(lab: &Lab, script: &str) -> String {
    let server = format!(
        "  odd:
    purpose: does what no server should
    owner: tests@lab.example
    launch: {{ command: /bin/sh, args: [-c, '{}'], user: nobody }}
{ALL}",
        script.replace('\'', "''")
    );
    policy(lab, &server)
}

pub(crate) fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// A session that must work on beside another.
pub(crate) struct Beside {
    wire: Wire,
    session: Session,
    turn: u32,
}

impl Beside {
    pub(crate) async fn new(lab: &Lab) -> Self {
        let mut wire = Wire::new(lab, "beside");
        let mut session = instance(lab, "beside");
        alive(&mut session, &mut wire, "begin").await;
        Self {
            wire,
            session,
            turn: 0,
        }
    }

    pub(crate) async fn works(&mut self) {
        self.turn += 1;
        self.asks(&format!("beside-{}", self.turn)).await;
    }

    /// A request with this id is answered.
    async fn asks(&mut self, id: &str) {
        let others = alive(&mut self.session, &mut self.wire, id).await;
        assert_eq!(others, Vec::<Value>::new());
    }
}

pub(crate) async fn ended(daemon: &Daemon<'_>, why: &str) -> Value {
    daemon
        .record(&format!("a session's end: {why}"), |record| {
            record["lifecycle"]["event"] == "session_ended" && record["lifecycle"]["detail"] == why
        })
        .await
        .unwrap()
}

pub(crate) async fn ask(session: &mut Session, id: u32) {
    let call =
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "x" } });
    session.send(&call).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_answers_by_its_end() {
    let lab = Lab::new().unwrap();
    // Reads one line, says half a frame, and is gone.
    let daemon = lab
        .daemon(&odd(
            &lab,
            r#"read line; printf '{"jsonrpc":"2.0","id":1,'; exit 5"#,
        ))
        .await
        .unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    ask(&mut session, 1).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "upstream_reset",
        "{answer}"
    );
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().code(), Some(5));
    let end = ended(&daemon, "the server ended").await;
    assert!(
        end["lifecycle"]["counts"]
            .to_string()
            .contains("violations"),
        "{end}"
    );
    let call = daemon
        .record("the call", |record| record["mcp"]["method"] == "tools/call")
        .await
        .unwrap();
    assert_eq!(call["outcome"]["status"], "failed", "{call}");
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_one_stream() {
    let lab = Lab::new().unwrap();
    let daemon = lab
        .daemon(&odd(&lab, "exec 1>&-; while read line; do :; done; exit 6"))
        .await
        .unwrap();
    let mut beside = Beside::new(&lab).await;
    // Its output: nothing it could ever say is waited for.
    let mut session = daemon.run("odd").unwrap();
    assert_eq!(session.line().await.unwrap(), None);
    assert_eq!(session.close().await.unwrap().code(), Some(6));
    ended(&daemon, "the server ended").await;
    beside.works().await;
    // Its input: what is asked is answered by an error, at once.
    let deaf = odd(&lab, "exec 0<&-; sleep 600");
    daemon.put_in_force(&deaf).await.unwrap();
    let mut session = daemon.run("odd").unwrap();
    let mut id = 0;
    let answer = loop {
        // What was on its way when it closed is answered by its end alone, so one more is asked.
        id += 1;
        ask(&mut session, id).await;
        if let Ok(answer) = timeout(Duration::from_secs(2), session.receive()).await {
            break answer.unwrap();
        }
        assert!(id < 20, "no answer");
    };
    assert_eq!(
        answer["error"]["data"]["reason"], "upstream_reset",
        "{answer}"
    );
    let asked = answer["id"].to_string();
    let call = daemon.record("the call that it could not hear", |record| {
        record["mcp"]["method"] == "tools/call" && record["mcp"]["id"] == asked
    });
    let call = call.await.unwrap();
    assert_eq!(call["workload"]["name"], "odd", "{call}");
    assert_eq!(call["decision"]["effect"], "allow", "{call}");
    let outcome = &call["outcome"];
    assert_eq!(outcome["status"], "failed", "{call}");
    assert_eq!(outcome["error"], "the other end reads no more", "{call}");
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_its_end_is_ended() {
    let lab = Lab::new().unwrap();
    let script = "trap '' TERM HUP INT; sleep 600 & while :; do sleep 600; done";
    let daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    session.raw(b"\n").await.unwrap();
    let began = Instant::now();
    let status = session.close().await.unwrap();
    // Its own time, SIGTERM's, then SIGKILL.
    assert_eq!(status.signal(), Some(9), "{status}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    ended(&daemon, "the server ended").await;
    let status = daemon.status().await.unwrap();
    let left: Vec<&Value> = status["workloads"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|workload| workload["name"] == "odd")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forks_and_leaves() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&odd(&lab, "sleep 600 & exit 0")).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    {
        let mut line = pin!(session.line());
        let line = loop {
            beside.works().await;
            if let Ok(line) = timeout(Duration::from_millis(10), &mut line).await {
                break line;
            }
        };
        assert_eq!(line.unwrap(), None, "what it left is ended");
    }
    beside.works().await;
    assert_eq!(session.close().await.unwrap().code(), Some(0));
    ended(&daemon, "the server ended").await;
    beside.works().await;
}

/// What has two bytes as it comes has six as it is sent on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_outgrow_the_limit_do_not_pass() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"message\":\"{}\"}}}}\n",
        "\u{85}".repeat(4 << 20)
    );
    session.raw(line.as_bytes()).await.unwrap();
    wire.raw(line.as_bytes());
    let passed = alive(&mut session, &mut wire, "end").await;
    assert!(passed.is_empty(), "{} messages", passed.len());
    assert!(!wire.heard().contains("notifications/progress"));
    for from in ["client", "server"] {
        let refused = |record: &Value| {
            record["mcp"]["method"] == "notifications/progress"
                && record["mcp"]["from"].as_str().unwrap_or("client") == from
        };
        let record = daemon.record("what is too long", refused).await.unwrap();
        assert_eq!(record["outcome"]["status"], "refused", "{record}");
        let error = "it is larger than the limit when it is written anew";
        assert_eq!(record["outcome"]["error"], error, "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_longer_than_the_limit_both_ways() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    let long = "x".repeat(17 << 20);
    // The id before the bulk, and after it.
    for (line, id) in [
        (
            format!(
                r#"{{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{{"name":"x","arguments":{{"x":"{long}"}}}}}}"#
            ),
            json!(17),
        ),
        (
            format!(
                r#"{{"method":"tools/call","params":{{"name":"x","arguments":{{"x":"{long}"}}}},"jsonrpc":"2.0","id":"a"}}"#
            ),
            json!("a"),
        ),
        (long.clone(), Value::Null),
    ] {
        session.raw(line.as_bytes()).await.unwrap();
        session.raw(b"\n").await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["error"]["code"], -31413, "{answer}");
        beside.works().await;
    }
    // An answer that nobody can take ends the wait for it.
    ask(&mut session, 5).await;
    wire.hears("\"id\":5").await;
    wire.raw(
        format!("{{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{{\"x\":\"{long}\"}}}}\n").as_bytes(),
    );
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (answer["id"].clone(), answer["error"]["code"].clone()),
        (json!(5), json!(-31413)),
        "{answer}"
    );
    beside.works().await;
    // The largest that passes, both ways.
    let frame = (10 << 20) - 1;
    let head =
        r#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"name":"x","arguments":{"x":""#;
    let line = format!("{head}{}\"}}}}}}\n", "y".repeat(frame - head.len() - 4));
    assert_eq!(line.len(), frame + 1);
    session.raw(line.as_bytes()).await.unwrap();
    wait_until("all of it arrives", LIMIT, || wire.heard().ends_with(&line))
        .await
        .unwrap();
    let head = r#"{"jsonrpc":"2.0","id":6,"result":{"x":""#;
    let line = format!("{head}{}\"}}}}", "z".repeat(frame - head.len() - 3));
    assert_eq!(line.len(), frame);
    wire.raw(line.as_bytes());
    wire.raw(b"\n");
    assert_eq!(session.line().await.unwrap(), Some(line));
    alive(&mut session, &mut wire, "end").await;
    beside.works().await;
    for what in [
        "a message larger than the limit",
        "the answer is larger than the limit",
    ] {
        daemon
            .record(what, |record| record["outcome"]["error"] == what)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_in_use_is_not_used_again() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    beside.works().await;
    ask(&mut session, 1).await;
    ask(&mut session, 1).await;
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    session
        .send(&json!({ "jsonrpc": "2.0", "id": "1", "method": "ping" }))
        .await
        .unwrap();
    assert_eq!(session.receive().await.unwrap()["error"]["code"], -32600);
    // An id in use is so in its own session alone.
    beside.asks("1").await;
    wire.hears("tools/call").await;
    assert_eq!(wire.heard().matches("tools/call").count(), 1);
    wire.answers(&json!(1));
    assert!(session.receive().await.unwrap()["result"].is_object());
    ask(&mut session, 1).await;
    wait_until("it may be used again", LIMIT, || {
        wire.heard().matches("tools/call").count() == 2
    })
    .await
    .unwrap();
    for method in ["tools/call", "ping"] {
        daemon
            .record(&format!("the refused {method}"), |record| {
                let why = record["outcome"]["error"].as_str().unwrap_or_default();
                record["mcp"]["method"] == method && why.contains("an id that is in use")
            })
            .await
            .unwrap();
    }
    beside.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_takes_its_server_along() {
    let lab = Lab::new().unwrap();
    // A server that takes no notice of its input's end.
    let daemon = lab.daemon(&odd(&lab, "exec sleep 600")).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    ask(&mut session, 1).await;
    let server = wait_for("the server runs", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        let mut workloads = status["workloads"].as_array()?.iter();
        let odd = workloads.find(|workload| workload["name"] == "odd")?;
        Some(odd["cgroup"].as_str()?.to_owned())
    })
    .await
    .unwrap();
    beside.works().await;
    // Its ends of the streams close; `exeat run` itself lives on.
    let launcher = session.abandon();
    wait_until("the server is ended", LIMIT, || {
        std::fs::read_to_string(format!("{server}/cgroup.procs")).is_err()
    })
    .await
    .unwrap();
    daemon
        .record("the session's end", |record| {
            record["lifecycle"]["event"] == "session_ended"
        })
        .await
        .unwrap();
    let call = daemon
        .record("the call", |record| record["mcp"]["method"] == "tools/call")
        .await
        .unwrap();
    assert_eq!(call["outcome"]["status"], "failed", "{call}");
    beside.works().await;
    drop(launcher);
    // The launcher's death does the same.
    let mut wire = Wire::new(&lab, "other");
    let mut session = instance(&lab, "other");
    alive(&mut session, &mut wire, "begin").await;
    kill_process(pid(session.pid().unwrap()), Signal::KILL).unwrap();
    wait_for("only the one beside is left", LIMIT, async || {
        let status = daemon.status().await.ok()?;
        (status["workloads"].as_array()?.len() == 1).then_some(())
    })
    .await
    .unwrap();
    beside.works().await;
}

/// Files and terminals are copied by `exeat run` itself: the end of one is the end of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_files_work_too() {
    let lab = Lab::new().unwrap();
    let script = r#"while read line; do echo '{"jsonrpc":"2.0","id":1,"result":{"done":true}}'; done; echo over >&2"#;
    let daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let at = |name: &str| lab.directory().join(name);
    std::fs::write(
        at("in"),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n",
    )
    .unwrap();
    let mut command: Command = lab.exeat(&["run", "odd"]).unwrap();
    command.stdin(std::fs::File::open(at("in")).unwrap());
    let mut process =
        exeat_tests::process::Process::start("files", lab.directory(), &mut command).unwrap();
    let status = process.wait(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", process.report());
    assert_eq!(
        process.stdout(),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"done\":true}}\n"
    );
    assert_eq!(process.stderr(), "over\n");
    drop(daemon);
}
