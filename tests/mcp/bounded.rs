//! What servers may answer to tool calls: in a message of its own, in a batch, on a stream, later, and over standard streams.

use std::net::{Ipv4Addr, SocketAddr};

use exeat_tests::Lab;
use serde_json::{Value, json};

use crate::scripted::{Asked, Scripted, event, plain, result, stream, text};
use crate::stdio::{Wire, alive, becomes, policy, wired};
use crate::talk::{EventReader, Place, Talker, request};
use crate::world::{ALL, World};

const SERVERS: [(&str, &str); 5] = [
    (
        "small",
        r#"http://localhost:3961/small", responses: { max_bytes: 300B, content: [text, image] }, data: "public"#,
    ),
    (
        "structured",
        r#"http://localhost:3961/structured", responses: { structured: required }, data: "public"#,
    ),
    (
        "observed",
        r#"http://localhost:3961/observed", responses: { content: [text] }, mode: observe, data: "public"#,
    ),
    ("others", "http://localhost:3961/others"),
    (
        "failing",
        r#"http://localhost:3961/failing", responses: { content: [text] }, data: "public"#,
    ),
];
const REST: &str = r#"
rules: [{ id: everything, methods: ["*"], effect: allow }]
responses: { max_bytes: 400B }
breaker: { error_rate: 100%, window: 60s, min_calls: 100, open_for: 60s }
"#;
const TOO_LARGE: &str = "the server's answer was not acceptable: a result larger than `max_bytes`";
const CONTENT: &str =
    "the server's answer was not acceptable: content of a type that is not permitted";
const UNSTRUCTURED: &str =
    "the server's answer was not acceptable: a result without structured content";
const UNREADABLE: &str = "the server's answer was not acceptable";

/// What becomes of a result: it is delivered, delivered though it would be refused, or refused with this code and why.
#[derive(Clone, Copy)]
enum Fate {
    Delivered,
    Observed(&'static str),
    Refused(i64, &'static str),
}
use Fate::{Delivered, Observed, Refused};

/// The server, the result, and what becomes of it.
fn rows() -> Vec<(&'static str, Value, Fate)> {
    let of = |kind: &str| json!({ "content": [{ "type": "text", "text": "a" }, { "type": kind }] });
    let long =
        |length: usize| json!({ "content": [{ "type": "text", "text": "x".repeat(length) }] });
    let failed = |mut result: Value| {
        result["isError"] = json!(true);
        result
    };
    vec![
        ("small", of("image"), Delivered),
        ("small", of("audio"), Refused(-31502, CONTENT)),
        ("small", of("resource"), Refused(-31502, CONTENT)),
        ("small", of("resource_link"), Refused(-31502, CONTENT)),
        ("small", of("hologram"), Refused(-31502, CONTENT)),
        ("small", failed(of("audio")), Refused(-31502, CONTENT)),
        (
            "small",
            json!({ "content": [{ "text": "a" }] }),
            Refused(-31502, UNREADABLE),
        ),
        (
            "small",
            json!({ "content": "a" }),
            Refused(-31502, UNREADABLE),
        ),
        (
            "small",
            json!({ "content": [{ "type": "text", "Type": "audio" }] }),
            Refused(-31502, UNREADABLE),
        ),
        // `{"content":[{"type":"text","text":""}]}` is 39 bytes.
        ("small", long(261), Delivered),
        ("small", long(262), Refused(-31413, TOO_LARGE)),
        ("small", failed(long(260)), Refused(-31413, TOO_LARGE)),
        // A server's own take the place of the policy's.
        (
            "structured",
            json!({ "content": [], "structuredContent": { "a": "x".repeat(500) } }),
            Delivered,
        ),
        ("structured", long(1), Refused(-31502, UNSTRUCTURED)),
        (
            "structured",
            json!({ "content": [], "structuredContent": null }),
            Refused(-31502, UNSTRUCTURED),
        ),
        ("structured", json!({}), Refused(-31502, UNSTRUCTURED)),
        ("structured", failed(long(1)), Delivered),
        (
            "structured",
            json!({ "content": [], "isError": "true" }),
            Refused(-31502, UNSTRUCTURED),
        ),
        // What goes on has come to nothing yet; what holds content has.
        (
            "structured",
            json!({ "task": { "taskId": "t", "status": "working" } }),
            Delivered,
        ),
        (
            "structured",
            json!({ "resultType": "task", "taskId": "t", "status": "working" }),
            Delivered,
        ),
        (
            "structured",
            json!({ "resultType": "task", "taskId": "t", "content": [] }),
            Refused(-31502, UNSTRUCTURED),
        ),
        ("others", long(361), Delivered),
        ("others", long(362), Refused(-31413, TOO_LARGE)),
        ("observed", of("text"), Delivered),
        ("observed", of("audio"), Observed(CONTENT)),
        // What cannot be judged is observed as well.
        (
            "observed",
            json!({ "content": [], "Task": {} }),
            Observed(UNREADABLE),
        ),
    ]
}

/// Answers the calls of the tools that are called by the numbers of rows, as they ask.
fn script(asked: &Asked) -> hyper::Response<crate::scripted::Body> {
    let answer = |call: &Value| {
        let row = call["params"]["name"].as_str()?.strip_prefix("row-")?;
        let (_, result, _) = rows().into_iter().nth(row.parse().ok()?)?;
        Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
    };
    let body = asked.json();
    if let Some(calls) = body.as_array() {
        let answers: Vec<Value> = calls.iter().filter_map(answer).collect();
        return text(json!(answers).to_string());
    }
    let Some(message) = answer(&body) else {
        return plain(asked);
    };
    if body["params"]["arguments"]["stream"] == true {
        let (writer, response) = stream();
        tokio::spawn(async move { writer.send_data(event(&message)).await });
        return response;
    }
    text(message.to_string())
}

fn place(path: &'static str) -> Place {
    Place {
        host: "localhost",
        port: 3961,
        tls: false,
        path,
    }
}

fn call(id: &str, row: usize, arguments: Value) -> Value {
    let params = json!({ "name": format!("row-{row}"), "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

/// Asks for a row in each way; what came, by the id of the call.
async fn ask(talker: &Talker, path: &'static str, row: usize) -> Vec<(String, Value)> {
    let mut came = Vec::new();
    let id = format!("{row}-plain");
    let body = call(&id, row, json!({})).to_string();
    came.push((
        id,
        talker.post(place(path), &[], body).await.unwrap().json(),
    ));
    let id = format!("{row}-stream");
    let body = call(&id, row, json!({ "stream": true })).to_string();
    let post = request("POST", path, &[], body).unwrap();
    let answered = talker.send(place(path), post).await.unwrap();
    let message = EventReader::new(answered).message().await.unwrap();
    came.push((id, message.unwrap()));
    let ids = [format!("{row}-first"), format!("{row}-second")];
    let body = json!([call(&ids[0], row, json!({})), call(&ids[1], row, json!({}))]).to_string();
    let reply = talker.post(place(path), &[], body).await.unwrap().json();
    for (id, answer) in ids.into_iter().zip(reply.as_array().unwrap()) {
        came.push((id, answer.clone()));
    }
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_bounded_in_messages_batches_and_streams() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3961);
    let _server = Scripted::near(&lab, address, script).unwrap();
    let world = World::new(&lab, &SERVERS, REST).await.unwrap();
    let talker = world.talker().await.unwrap();
    let mut told = Vec::new();
    for (row, (server, sent, fate)) in rows().into_iter().enumerate() {
        let path = match server {
            "small" => "/small",
            "structured" => "/structured",
            "observed" => "/observed",
            _ => "/others",
        };
        for (id, answer) in ask(&talker, path, row).await {
            match fate {
                Delivered | Observed(_) => assert_eq!(answer["result"], sent, "{id}: {answer}"),
                Refused(code, _) => {
                    assert_eq!(answer["error"]["code"], code, "{id} {sent}: {answer}");
                    assert!(answer["error"]["data"]["reason"].is_string(), "{answer}");
                    assert_eq!(answer["id"], *id, "{answer}");
                }
            }
            told.push((id, fate));
        }
    }
    for (id, fate) in told {
        let quoted = format!("\"{id}\"");
        let of = |record: &Value| record["mcp"]["id"] == *quoted && record["outcome"].is_object();
        let record = world.daemon.record(&id, of).await.unwrap();
        let (decision, outcome) = (&record["decision"], &record["outcome"]);
        match fate {
            Delivered => {
                assert_eq!(outcome["status"], "done", "{record}");
                assert!(decision["would"].is_null(), "{record}");
            }
            Observed(why) => {
                assert_eq!(outcome["status"], "done", "{record}");
                assert_eq!(decision["effect"], "allow", "{record}");
                assert_eq!(decision["would"], "deny", "{record}");
                assert_eq!(decision["mode"], "observe", "{record}");
                assert_eq!(decision["reason"], why, "{record}");
            }
            Refused(_, why) => {
                assert_eq!(outcome["status"], "refused", "{record}");
                assert_eq!(outcome["error"], why, "{record}");
                assert_eq!(decision["effect"], "deny", "{record}");
                assert_eq!(decision["reason"], why, "{record}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_counts_what_is_not_delivered() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3961);
    let audio = |asked: &Asked| result(asked, json!({ "content": [{ "type": "audio" }] }));
    let server = Scripted::near(&lab, address, audio).unwrap();
    let rest = REST.replace("min_calls: 100", "min_calls: 3");
    let world = World::new(&lab, &SERVERS, &rest).await.unwrap();
    let talker = world.talker().await.unwrap();
    for reason in ["response_refused"; 3].into_iter().chain(["breaker_open"]) {
        let body = call("1", 0, json!({})).to_string();
        let reply = talker.post(place("/failing"), &[], body).await.unwrap();
        let reply = reply.json();
        assert_eq!(reply["error"]["data"]["reason"], reason, "{reply}");
    }
    assert_eq!(server.seen().len(), 3);
}

/// Results that come under a task's id, in the form of either era.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_come_later_are_bounded_too() {
    const MODERN: &str = "2026-07-28";
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3961);
    let _server = Scripted::near(&lab, address, |asked: &Asked| {
        let body = asked.json();
        let kind = body["params"]["taskId"].as_str().unwrap_or_default();
        let whole = json!({ "content": [{ "type": kind, "text": "a" }] });
        match body["method"].as_str() {
            Some("tools/call") => {
                let task = json!({ "taskId": body["params"]["name"], "status": "working" });
                result(asked, json!({ "task": task }))
            }
            Some("tasks/result") => result(asked, whole),
            Some("tasks/get") => {
                let task = json!({ "resultType": "complete", "taskId": kind, "status": "completed", "result": whole });
                result(asked, task)
            }
            _ => plain(asked),
        }
    })
    .unwrap();
    let world = World::new(&lab, &SERVERS, REST).await.unwrap();
    let talker = world.talker().await.unwrap();
    for (kind, passes) in [("text", true), ("audio", false)] {
        let params = json!({ "name": kind, "arguments": {}, "task": {} });
        let call =
            json!({ "jsonrpc": "2.0", "id": "call", "method": "tools/call", "params": params });
        let legacy = [("mcp-protocol-version", "2025-11-25")];
        let begun = talker.post(place("/small"), &legacy, call.to_string());
        assert!(begun.await.unwrap().json()["result"]["task"].is_object());
        let params = json!({ "taskId": kind });
        let message =
            json!({ "jsonrpc": "2.0", "id": kind, "method": "tasks/result", "params": params });
        let legacy = [("mcp-protocol-version", "2025-11-25")];
        let legacy = talker.post(place("/small"), &legacy, message.to_string());
        let legacy = legacy.await.unwrap().json();
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let headers = [
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tasks/get"),
            ("mcp-name", kind),
        ];
        let message =
            json!({ "jsonrpc": "2.0", "id": kind, "method": "tasks/get", "params": params });
        let modern = talker.post(place("/small"), &headers, message.to_string());
        let modern = modern.await.unwrap().json();
        for answer in [legacy, modern] {
            assert_eq!(answer["result"].is_object(), passes, "{answer}");
            let code = answer["error"]["code"].as_i64();
            assert!(code.is_none_or(|code| code == -31502), "{answer}");
        }
    }
    for method in ["tasks/result", "tasks/get"] {
        let refused = |record: &Value| {
            record["mcp"]["method"] == method && record["outcome"]["error"] == CONTENT
        };
        world.daemon.record(method, refused).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_standard_streams_results_are_bounded_as_well() {
    for (mode, enforced) in [("enforce", true), ("observe", false)] {
        let lab = Lab::new().unwrap();
        let mut wire = Wire::new(&lab, "wire");
        let rest =
            format!("{ALL}\nresponses: {{ max_bytes: 300B, content: [text] }}\nmode: {mode}");
        let daemon = lab.daemon(&policy(&lab, &rest)).await.unwrap();
        let mut session = wired(&daemon, &mut wire).await;
        let good = json!({ "content": [{ "type": "text", "text": "a" }] });
        let bad = json!({ "content": [{ "type": "audio" }] });
        let large = json!({ "content": [{ "type": "text", "text": "x".repeat(300) }] });
        for task in ["t", "t1", "t2"] {
            becomes(&mut session, &mut wire, task).await;
        }
        for (id, method, said, reason) in [
            ("good", "tools/call", &good, ""),
            ("bad", "tools/call", &bad, "response_refused"),
            ("large", "tools/call", &large, "response_too_large"),
            ("later", "tasks/result", &bad, "response_refused"),
        ] {
            let params = if method == "tools/call" {
                json!({ "name": "x", "arguments": {} })
            } else {
                json!({ "taskId": "t" })
            };
            let ask = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
            session.send(&ask).await.unwrap();
            wire.hears(&format!("\"{id}\"")).await;
            wire.say(&json!({ "jsonrpc": "2.0", "id": id, "result": said }));
            let answer = session.receive().await.unwrap();
            if reason.is_empty() || !enforced {
                assert_eq!(answer["result"], *said, "{id}: {answer}");
            } else {
                assert_eq!(answer["error"]["data"]["reason"], reason, "{id}: {answer}");
            }
            let quoted = format!("\"{id}\"");
            let of =
                |record: &Value| record["mcp"]["id"] == *quoted && record["outcome"].is_object();
            let record = daemon.record(id, of).await.unwrap();
            let decision = &record["decision"];
            let refused = enforced && !reason.is_empty();
            let status = if refused { "refused" } else { "done" };
            assert_eq!(record["outcome"]["status"], status, "{record}");
            let would = !reason.is_empty() && !enforced;
            assert_eq!(decision["would"] == "deny", would, "{record}");
        }
        // What a server tells by itself of a task.
        for (task, said) in [("t1", &good), ("t2", &bad)] {
            let params = json!({ "taskId": task, "status": "completed", "result": said });
            wire.say(
                &json!({ "jsonrpc": "2.0", "method": "notifications/tasks", "params": params }),
            );
        }
        let others = alive(&mut session, &mut wire, "end").await;
        let heard: Vec<&Value> = others
            .iter()
            .map(|told| &told["params"]["taskId"])
            .collect();
        let due: &[&str] = if enforced { &["t1"] } else { &["t1", "t2"] };
        assert_eq!(heard, due, "{others:?}");
        let told = |record: &Value| {
            let reason = &record["decision"]["reason"];
            record["mcp"]["method"] == "notifications/tasks" && reason == CONTENT
        };
        let record = daemon.record("the notification", told).await.unwrap();
        assert_eq!(record["decision"]["would"] == "deny", !enforced, "{record}");
        assert!(session.close().await.unwrap().success());
    }
}
