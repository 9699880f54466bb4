//! Limits over standard streams: of every method, and of either side.

use std::collections::BTreeSet;

use exeat_policy::methods;
use exeat_tests::Lab;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::stdio::{ALL, Wire, alive, becomes, instance, policy, wired};
use crate::stdio_ends::as_user;
use crate::stdio_faults::odd;
use crate::stdio_methods::{modern, request};
use crate::world::LIMIT;

/// What a host asks of a server.
const ASKED: [&str; 20] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    COMPLETE,
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
    DISCOVER,
    LISTEN,
    UPDATE,
];
const COMPLETE: &str = "completion/complete";
/// Of the modern era alone.
const DISCOVER: &str = "server/discover";
const LISTEN: &str = "subscriptions/listen";
const UPDATE: &str = "tasks/update";
/// What a server asks of its host.
const ASKED_BACK: [&str; 8] = [
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "ping",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
];
/// What a host tells, and what a server does: no more than have records one by one.
const TOLD: [&str; 5] = [
    "notifications/initialized",
    "notifications/roots/list_changed",
    "notifications/progress",
    "notifications/cancelled",
    "notifications/tasks/status",
];
const TOLD_BACK: [[&str; 6]; 2] = [
    [
        "notifications/message",
        "notifications/progress",
        "notifications/cancelled",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    ],
    [
        "notifications/resources/updated",
        "notifications/elicitation/complete",
        "notifications/subscriptions/acknowledged",
        "notifications/tasks",
        "notifications/tasks/status",
        "vendor/told",
    ],
];

/// A message with this method, which says enough to be judged by.
fn message(method: &str) -> Value {
    let mut params = json!({
        "name": "x",
        "uri": "docs://a",
        "taskId": "t",
        "status": "working",
        "requestId": "none",
        "progressToken": "none",
        "ref": { "type": "ref/prompt", "name": "x" },
        "notifications": {},
        "protocolVersion": "2025-11-25",
    });
    if [DISCOVER, LISTEN, UPDATE].contains(&method) {
        params["_meta"] = modern();
    }
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

/// The same as a request.
fn asks(method: &str, id: &str) -> Value {
    let mut asks = message(method);
    asks["id"] = json!(id);
    asks
}

/// A result that suits every request, and makes a task of a call.
fn result(id: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": {
        "tools": [], "resources": [], "resourceTemplates": [], "prompts": [], "tasks": [],
        "task": { "taskId": "t", "status": "working" },
        "protocolVersion": "2025-11-25", "capabilities": {} } })
}

/// Each method once a session.
fn once(lab: &Lab) -> String {
    let names: BTreeSet<&str> = methods().map(|(name, _, _)| name).collect();
    let limit = |name: &&str| format!("{{ per: [session], methods: [\"{name}\"], calls: 1 }}");
    let limits: Vec<String> = names.iter().chain([&"vendor/told"]).map(limit).collect();
    let limits = limits.join(", ");
    let tested = ASKED.iter().chain(&ASKED_BACK).chain(&TOLD);
    let mut tested: BTreeSet<&str> = tested.chain(TOLD_BACK.as_flattened()).copied().collect();
    assert!(tested.remove("vendor/told"));
    assert_eq!(tested, names, "every method is tested");
    policy(lab, &format!("{ALL}\nlimits: [{limits}]"))
}

/// Waits until all that was said before is seen to; what else the host has got.
async fn settled(session: &mut Session, wire: &mut Wire, id: &str) -> Vec<Value> {
    session.send(&asks("vendor/settled", id)).await.unwrap();
    wire.hears(&format!("\"{id}\"")).await;
    wire.answers(&json!(id));
    let mut others = Vec::new();
    loop {
        let message = session.receive().await.unwrap();
        if message["id"] == id {
            return others;
        }
        others.push(message);
    }
}

async fn requests_of_the_host(session: &mut Session, wire: &mut Wire) {
    for method in ASKED {
        session.send(&asks(method, method)).await.unwrap();
        wire.hears(&format!("\"id\":\"{method}\"")).await;
        wire.say(&result(method));
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], method, "{answer}");
        assert!(answer["result"].is_object(), "{method}: {answer}");
        let again = format!("{method} again");
        session.send(&asks(method, &again)).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], again, "{answer}");
        assert_eq!(answer["error"]["code"], -31429, "{method}: {answer}");
    }
    assert!(!wire.heard().contains("again"), "{}", wire.heard());
}

async fn requests_of_the_server(session: &mut Session, wire: &mut Wire) {
    for method in ASKED_BACK {
        wire.say(&asks(method, method));
        let question = session.receive().await.unwrap();
        assert_eq!(question["id"], method, "{question}");
        assert_eq!(question["method"], method, "{question}");
        session.send(&result(method)).await.unwrap();
        let told = wire.hears(&format!("\"id\":\"{method}\"")).await;
        assert!(told.contains("result"), "{told}");
        let again = format!("{method} again");
        wire.say(&asks(method, &again));
        let told = wire.hears(&again).await;
        assert!(told.contains("-31429"), "{told}");
    }
    let others = settled(session, wire, "asked").await;
    assert_eq!(others, Vec::<Value>::new());
}

async fn notifications(session: &mut Session, wire: &mut Wire, told_back: &[&str]) {
    for _ in 0..2 {
        for method in TOLD {
            session.send(&message(method)).await.unwrap();
        }
    }
    // The two sides' are not counted apart.
    let others = settled(session, wire, "told").await;
    assert_eq!(others, Vec::<Value>::new());
    let own: Vec<&&str> = told_back
        .iter()
        .filter(|method| !TOLD.contains(method))
        .collect();
    for _ in 0..2 {
        for method in &own {
            wire.say(&message(method));
        }
    }
    let got = settled(session, wire, "told back").await;
    let got: Vec<&str> = got
        .iter()
        .filter_map(|told| told["method"].as_str())
        .collect();
    assert_eq!(got, own.into_iter().copied().collect::<Vec<_>>());
    for method in TOLD {
        let heard = wire.heard().matches(&format!("\"{method}\"")).count();
        assert_eq!(heard, 1, "{method}");
    }
}

/// Each method that there is, from whoever sends it: once it passes, and then it is refused, and recorded as what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_can_be_limited() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&once(&lab)).await.unwrap();
    let mut wires = ["host", "server", "first", "second"].map(|name| Wire::new(&lab, name));
    let mut sessions = ["host", "server", "first", "second"].map(|name| instance(&lab, name));
    requests_of_the_host(&mut sessions[0], &mut wires[0]).await;
    requests_of_the_server(&mut sessions[1], &mut wires[1]).await;
    for (at, told_back) in (2..).zip(&TOLD_BACK) {
        // Which it may tell of.
        becomes(&mut sessions[at], &mut wires[at], "t").await;
        notifications(&mut sessions[at], &mut wires[at], told_back).await;
    }
    for session in &mut sessions {
        session.close().await.unwrap();
    }
    let ends = |record: &Value| record["lifecycle"]["event"] == "session_ended";
    let ended = daemon.records("all end", sessions.len(), ends).await;
    assert_eq!(ended.unwrap().len(), sessions.len());
    let records = daemon.audit().unwrap();
    let refused = |from: &str, method: &str| {
        let found = records.iter().find(|record| {
            record["mcp"]["method"] == method
                && record["mcp"]["from"].as_str().unwrap_or("client") == from
                && record["decision"]["effect"] == "deny"
        });
        let found = found.unwrap_or_else(|| panic!("no record of the {from}'s {method}"));
        let reason = found["decision"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("a limit is reached: "), "{found}");
        assert_eq!(found["outcome"]["status"], "refused", "{found}");
    };
    for method in ASKED.into_iter().chain(TOLD) {
        refused("client", method);
    }
    let told_back = TOLD_BACK.into_iter().flatten();
    for method in ASKED_BACK
        .into_iter()
        .chain(told_back.filter(|method| !TOLD.contains(method)))
    {
        refused("server", method);
    }
}

const LIMITED: &str = r#"rules:
  - { id: docs, methods: [resources/read], tools: ["docs://*"], effect: allow }
  - { id: sample, methods: [sampling/createMessage], effect: allow }
limits:
  - { per: [session], methods: ["resources/*"], rate: 2/h, refund: true }
  - { per: [server], methods: [sampling/createMessage], rate: 2/h, refund: true }"#;

/// What fails at the server is given back; the answer to what the server asks is not counted, and
/// gives nothing back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_given_back_in_both_directions() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, LIMITED)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let is_limited = |answer: &Value| {
        let wait = answer["error"]["data"]["retry_after_ms"].as_u64();
        assert_eq!(answer["error"]["code"], -31429, "{answer}");
        assert!(
            wait.is_some_and(|wait| wait > 0 && wait <= 3_600_000),
            "{answer}"
        );
    };
    for (turn, fails) in [true, false, false, false].into_iter().enumerate() {
        let uri = format!("docs://turn/{turn}");
        let read = request("resources/read", json!({ "uri": uri }));
        session.send(&read).await.unwrap();
        if turn < 3 {
            wire.hears(&uri).await;
            let came = if fails {
                json!({ "error": { "code": -32603, "message": "broken" } })
            } else {
                json!({ "result": { "contents": [] } })
            };
            let mut answer = json!({ "jsonrpc": "2.0", "id": 1 });
            let members = answer.as_object_mut().unwrap();
            members.extend(came.as_object().unwrap().clone());
            wire.say(&answer);
        }
        let answer = session.receive().await.unwrap();
        match turn {
            0 => assert_eq!(answer["error"]["code"], -32603, "{answer}"),
            3 => is_limited(&answer),
            _ => assert!(answer["result"].is_object(), "{answer}"),
        }
    }
    for (turn, fails) in [true, false, false].into_iter().enumerate() {
        let id = format!("q{turn}");
        wire.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 1 } }));
        if turn < 2 {
            let question = session.receive().await.unwrap();
            assert_eq!(question["id"], id, "{question}");
            let answer = if fails {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -1, "message": "no" } })
            } else {
                json!({ "jsonrpc": "2.0", "id": id, "result": { "role": "assistant" } })
            };
            session.send(&answer).await.unwrap();
        }
        let told = wire.hears(&format!("\"id\":\"{id}\"")).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        match turn {
            0 => assert_eq!(told["error"]["code"], -1, "{told}"),
            1 => assert!(told["result"].is_object(), "{told}"),
            _ => is_limited(&told),
        }
    }
    let others = alive(&mut session, &mut wire, "end").await;
    assert_eq!(others, Vec::<Value>::new());
    for method in ["resources/read", "sampling/createMessage"] {
        let refused = |record: &Value| {
            record["mcp"]["method"] == method && record["decision"]["effect"] == "deny"
        };
        let record = daemon.record("the refusal", refused).await.unwrap();
        let reason = record["decision"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("a limit is reached: "), "{reason}");
    }
    session.close().await.unwrap();
}

fn ping(id: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })
}

/// Whoever has many servers started that answer nothing takes no place of anybody else's in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_users_servers_leave_unanswered_is_bounded_together() {
    const WAITING: usize = 1024;
    const SESSIONS: usize = 4;
    let lab = Lab::new().unwrap();
    // Answers this one alone.
    let script = r#"while read -r line; do case $line in *\"answer\"*) echo "{\"jsonrpc\":\"2.0\",\"id\":\"answer\",\"result\":{}}";; esac; done"#;
    let _daemon = lab.daemon(&odd(&lab, script)).await.unwrap();
    let start = |user: &str, name: &str| {
        let log = lab.directory().join(format!("{name}.err"));
        Session::start(as_user(&lab, user, "odd"), &log).unwrap()
    };
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let mut session = start("games", &format!("games-{number}"));
        for id in 0..WAITING {
            session.send(&ping(&format!("p{id}"))).await.unwrap();
        }
        // One more than a session may have: all before it wait by now.
        session.send(&ping("answer")).await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], "answer", "{answer}");
        assert!(answer["error"].is_object(), "{answer}");
        sessions.push(session);
    }
    let mut more = start("games", "games-more");
    more.send(&ping("answer")).await.unwrap();
    let answer = more.receive().await.unwrap();
    assert_eq!(
        answer["error"]["data"]["reason"], "audit_unavailable",
        "{answer}"
    );
    // Others are not touched, and what ends makes room.
    let mut other = start("bin", "bin");
    other.send(&ping("answer")).await.unwrap();
    let answer = other.receive().await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    drop(sessions);
    wait_for("there is room", LIMIT, async || {
        more.send(&ping("answer")).await.ok()?;
        let answer = more.receive().await.ok()?;
        answer["result"].is_object().then_some(())
    })
    .await
    .unwrap();
}
