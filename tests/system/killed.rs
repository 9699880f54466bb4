//! A gate that is killed in the middle: the log says of each exchange that was under way that it was, and how it ended.

use std::net::SocketAddr;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::hand::Hand;
use crate::life::verified;
use crate::place::{exchange, policy, start};
use crate::streams::gate;

const NAME: &str = "api.lab.example";
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_has_one_end() {
    let lab = Lab::new().unwrap();
    let hand = Hand::new(&lab, NAME, SocketAddr::new(WORLD, 443));
    let mut daemon = lab
        .daemon(&policy(&["{ host: api.lab.example }"]))
        .await
        .unwrap();
    let mut client = start(
        &lab,
        "client",
        &[
            "curl",
            "--silent",
            "--max-time",
            "30",
            "https://api.lab.example/slow",
        ],
    );
    let mut held = hand.accept().await;
    held.head().await;
    // The server has the request and does not answer.
    let slow = |line: &Value| line["http"]["path"] == "/slow";
    wait_until("the exchange is on the disk", LIMIT, || {
        let lines = daemon.audit_lines().unwrap();
        lines
            .iter()
            .any(|line| slow(line) && line["open"].is_object())
    })
    .await
    .unwrap();
    let asked = ["audit", "query", "--kind", "http", "--text", "/slow"];
    let shown = daemon.cli(&asked).await.unwrap();
    assert_eq!(shown.stdout.lines().count(), 1, "{}", shown.stdout);
    let open: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(open["decision"]["effect"], "allow", "{open}");
    assert!(open.get("outcome").is_none(), "{open}");

    let killed = gate(&daemon);
    let pid = Pid::from_raw(i32::try_from(killed).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    client.wait(LIMIT).await.unwrap();
    let ended = exchange(&daemon, "/slow").await;
    assert_eq!(ended["id"], open["id"]);
    assert_eq!(ended["outcome"]["status"], "abandoned", "{ended}");
    assert_eq!(ended["outcome"]["stage"], "forward", "{ended}");
    let error = ended["outcome"]["error"].as_str().unwrap();
    assert!(error.starts_with("the gate ended"), "{error}");
    assert_eq!(ended["workload"]["name"], "demo", "{ended}");

    // Nor does another death make it end again.
    daemon.kill().await.unwrap();
    daemon.restart().await.unwrap();
    let shown = daemon.cli(&asked).await.unwrap();
    assert_eq!(shown.stdout.lines().count(), 1, "{}", shown.stdout);
    let ends = daemon.audit().unwrap();
    assert_eq!(ends.iter().filter(|line| slow(line)).count(), 1);
    daemon.stop().await.unwrap();
    verified(&lab).await;
    let ids = |open: bool| {
        let lines = daemon.audit_lines().unwrap().into_iter();
        let lines = lines.filter(|line| line.get("open").is_some() == open);
        lines.map(|line| line["id"].to_string()).collect::<Vec<_>>()
    };
    let ended = ids(false);
    for id in ids(true) {
        let ends = ended.iter().filter(|ended| **ended == id).count();
        assert_eq!(ends, 1, "{id}");
    }
}
