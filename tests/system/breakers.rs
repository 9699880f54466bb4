//! A real server whose tool fails with what it depends on: the tool is held back, its others are not.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::LIMIT;

const API: &str = "api.lab.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_fails_is_held_back_and_its_others_are_not() {
    let lab = Lab::new().unwrap();
    let api = lab.https(&[API], SocketAddr::new(WORLD, 443)).unwrap();
    let script = include_str!("clients/keyed.mjs");
    let script = lab.put("keyed.mjs", script, 0o644).unwrap();
    let policy = format!(
        "version: 1
identities: {{ tester: {{ user: root }} }}
rules: [{{ id: all, who: [tester], servers: [keyed], tools: [\"*\"], effect: allow }}]
breaker: {{ error_rate: 100%, window: 60s, min_calls: 3, open_for: 2s }}
servers:
  keyed:
    launch: {{ command: {}, args: [{}], user: nobody, env: {{ TOKEN: none }} }}
    egress: [{{ host: {API} }}]
",
        Fixtures::find().unwrap().node(22).display(),
        script.display(),
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let mut session = daemon.run("keyed").unwrap();
    session.initialize().await.unwrap();
    let ask = async |session: &mut Session, tool: &str, code: u16| -> Value {
        let url = format!("https://{API}/status?code={code}");
        session.call(tool, json!({ "url": url })).await.unwrap()
    };
    for _ in 0..3 {
        let answer = ask(&mut session, "get", 503).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
    }
    let answer = ask(&mut session, "get", 200).await;
    assert_eq!(
        answer["error"]["data"]["reason"], "breaker_open",
        "{answer}"
    );
    assert!(answer["error"]["data"]["retry_after_ms"].as_u64().unwrap() <= 2000);
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("try again in"), "{text}");
    let answer = ask(&mut session, "look", 200).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    assert_eq!(api.seen().len(), 4);
    let done = lab
        .exeat(&["status", "--no-canary"])
        .unwrap()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("breaker") && text.contains("keyed get"),
        "{text}"
    );
    let answered = wait_for("the tool is used again", LIMIT, async || {
        let answer = ask(&mut session, "get", 200).await;
        (answer["result"]["isError"] == false).then_some(())
    });
    answered.await.unwrap();
    let answer = ask(&mut session, "get", 503).await;
    assert_eq!(answer["result"]["isError"], true, "it is closed: {answer}");
    assert!(session.close().await.unwrap().success());
}
