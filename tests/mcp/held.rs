//! What is held for a workload takes its room for as long as it is held: while it waits for a person, and over all
//! sessions of standard streams.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use serde_json::{Value, json};

use crate::approvals::{RULES, approve, call, only, posted};
use crate::scripted::{Scripted, plain};
use crate::stdio::{ALL, Wire, alive, policy, wired};
use crate::talk::{FAR, LEGACY};
use crate::world::{NAME, URL, World};

fn long(id: &str, tool: &str, letters: usize) -> Value {
    let mut call = call(id, tool, 1);
    call["params"]["arguments"]["text"] = json!("x".repeat(letters));
    call
}

fn is_refusal(record: &Value) -> bool {
    let error = record["outcome"]["error"].as_str().unwrap_or_default();
    record["outcome"]["status"] == "refused" && error.contains("limits.held_bytes")
}

fn reason(answer: &Value) -> &Value {
    &answer["error"]["data"]["reason"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_person_takes_its_room_until_it_is_sent() {
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), plain).unwrap();
    let settings = "limits: { body_bytes: 60000, held_bytes: 100000 }";
    let world = World::settled(&lab, &[("far", URL)], "[]", RULES, settings)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    let waits = long("w", "pay", 40_000);
    let (mut events, _) = posted(&talker, &waits).await;
    let id = only(&lab).await;
    let other = long("o", "other", 20_000).to_string();
    let answer = talker.post(FAR, &[LEGACY], other.clone()).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(reason(&answer.json()), "held_bytes");
    world
        .daemon
        .record("the refusal", is_refusal)
        .await
        .unwrap();
    approve(&lab, &id).await;
    let answer = loop {
        let message = events.message().await.unwrap().unwrap();
        if message["id"] == "w" {
            break message;
        }
    };
    assert!(answer["result"].is_object(), "{answer}");
    let answer = talker.post(FAR, &[LEGACY], other).await.unwrap();
    assert!(answer.json()["result"].is_object(), "{}", answer.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_all_sessions_share_their_workloads_room() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let deaf = "  deaf:
    purpose: never answers
    owner: tests@lab.example
    launch: { command: /bin/sleep, args: [infinity], user: nobody }
";
    let settings = "limits: { body_bytes: 60000, held_bytes: 400000 }";
    let policy = policy(&lab, &format!("{deaf}{ALL}"));
    let daemon = lab.daemon_with(&policy, settings).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;

    // All of a line but its end, in another session.
    let mut other = daemon.run("deaf").unwrap();
    let line = format!("{}\n", long("p", "pay", 300_000));
    let (most, rest) = line.split_at(line.len() - 4);
    other.raw(most.as_bytes()).await.unwrap();
    // What comes before the other line is read is passed on, and answered.
    let mut count = 0;
    let answer = loop {
        count += 1;
        let id = format!("a{count}");
        session.send(&long(&id, "pay", 150_000)).await.unwrap();
        let heard = format!("\"{id}\"");
        let answer = tokio::select! {
            answer = session.receive() => answer.unwrap(),
            _ = wire.hears(&heard) => {
                wire.answers(&json!(id));
                session.receive().await.unwrap();
                continue;
            }
        };
        break answer;
    };
    assert_eq!(reason(&answer), "held_bytes", "{answer}");
    assert_eq!(answer["id"], format!("a{count}"), "{answer}");
    daemon.record("the refusal", is_refusal).await.unwrap();
    // Little has room still.
    let others = alive(&mut session, &mut wire, "meanwhile").await;
    assert!(others.is_empty(), "{others:?}");

    // What it is decoded to has none, and what has ended gives its room back.
    other.raw(rest.as_bytes()).await.unwrap();
    let answer = other.receive().await.unwrap();
    assert_eq!(
        (&answer["id"], reason(&answer)),
        (&json!("p"), &json!("held_bytes"))
    );
    session.send(&long("b", "pay", 100_000)).await.unwrap();
    wire.hears("\"b\"").await;
    wire.answers(&json!("b"));
    let answer = session.receive().await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");

    // The server has a room of its own, and whoever waits for what is not in it hears of that.
    session.send(&call("c", "pay", 1)).await.unwrap();
    wire.hears("\"c\"").await;
    wire.say(&json!({ "jsonrpc": "2.0", "id": "c", "result": { "text": "x".repeat(300_000) } }));
    let answer = session.receive().await.unwrap();
    assert_eq!(
        (&answer["id"], reason(&answer)),
        (&json!("c"), &json!("held_bytes"))
    );
    let own = daemon
        .record("the call", |record| record["mcp"]["id"] == "\"c\"")
        .await
        .unwrap();
    assert!(is_refusal(&own), "{own}");

    // A server that waits for what the host says, too: without room for it, and where it is too long for anybody.
    for (id, letters, why) in [
        ("s1", 390_000, "held_bytes"),
        ("s2", 11 << 20, "held_bytes"),
    ] {
        wire.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" }));
        let asked = session.receive().await.unwrap();
        assert_eq!(asked["method"], "roots/list", "{asked}");
        let roots = json!({ "roots": [], "text": "x".repeat(letters) });
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": roots });
        session.send(&answer).await.unwrap();
        let heard = wire.hears(&format!("\"{id}\"")).await;
        assert!(heard.contains(why), "{heard}");
    }
    alive(&mut session, &mut wire, "end").await;
}
