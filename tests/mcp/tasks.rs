//! Calls whose answers come later: what is said under a task's id is known as the call's that became it, and is for
//! nobody to whom that call's tool is not shown.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_for;
use hyper::Response;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain, result};
use crate::stdio::{Wire, alive, becomes, policy, wired};
use crate::stdio_faults::pid;
use crate::talk::{FAR, LEGACY, MODERN, Talker};
use crate::world::{LIMIT, World};

const RELATED: &str = "io.modelcontextprotocol/related-task";

/// Both tools, or all but the one that becomes a task.
const BOTH: &str = r#"rules: [{ id: all, methods: ["*"], tools: ["*"], effect: allow }]"#;
const WITHOUT: &str = r#"
rules:
  - { id: all, methods: ["*"], tools: ["*"], effect: allow }
  - { id: not-slow, tools: [slow], effect: deny }
"#;

/// Answers calls with a task and says its end, in the form of either era.
fn later(asked: &Asked) -> Response<Body> {
    let body = asked.json();
    let modern = body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN;
    let whole = json!({ "content": [{ "type": "text", "text": "built" }], "isError": false });
    let answer = match (body["method"].as_str().unwrap_or_default(), modern) {
        ("tools/call", false) => json!({ "task": { "taskId": "t1", "status": "working" } }),
        ("tools/call", true) => {
            json!({ "resultType": "task", "taskId": "m1", "status": "working" })
        }
        ("tasks/get", false) => json!({ "taskId": "t1", "status": "completed" }),
        ("tasks/get", true) => json!({
            "resultType": "complete", "taskId": "m1", "status": "completed", "result": whole,
        }),
        ("tasks/result", _) => {
            let mut whole = whole;
            whole["_meta"] = json!({ RELATED: { "taskId": "t1" } });
            whole
        }
        _ => return plain(asked),
    };
    result(asked, answer)
}

/// Answers calls with the task that they name, and knows all that it is asked after.
fn several(asked: &Asked) -> Response<Body> {
    let body = asked.json();
    let params = &body["params"];
    let task = |id: &str, status: &str| json!({ "taskId": id, "status": status });
    let answer = match body["method"].as_str().unwrap_or_default() {
        "tools/call" => {
            let id = params["arguments"]["as"].as_str().unwrap_or_default();
            let status = if id == "done" { "completed" } else { "working" };
            json!({ "task": task(id, status) })
        }
        "tasks/result" => json!({ "content": [{ "type": "text", "text": params["taskId"] }] }),
        "tasks/list" => {
            let all = ["mine", "theirs", "done", "of nobody"].map(|id| task(id, "working"));
            json!({ "tasks": all })
        }
        "tasks/get" | "tasks/cancel" => params.clone(),
        _ => return plain(asked),
    };
    result(asked, answer)
}

fn request(id: &str, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// The record of the request with this id.
async fn record(world: &World<'_>, id: &str) -> Value {
    let id = format!("\"{id}\"");
    let wanted = |record: &Value| record["mcp"]["id"] == *id && record["outcome"].is_object();
    world.daemon.record("its end", wanted).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tasks_result_is_known_as_its_calls_and_hidden_with_its_tool() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), later).unwrap();
    let url = format!("https://{}/mcp\", data: \"internal", FAR.host);
    let servers = [("far", url.as_str())];
    let world = World::new(&lab, &servers, BOTH).await.unwrap();
    let talker = world.talker().await.unwrap();
    let legacy = async |id, method, params| {
        let body = request(id, method, params).to_string();
        talker.post(FAR, &[LEGACY], body).await.unwrap().json()
    };
    let modern = async |id, method, name, mut params: Value| {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let headers = [
            ("mcp-protocol-version", MODERN),
            ("mcp-method", method),
            ("mcp-name", name),
        ];
        let body = request(id, method, params).to_string();
        talker.post(FAR, &headers, body).await.unwrap().json()
    };

    let slow = json!({ "name": "slow", "arguments": {}, "task": {} });
    let answer = legacy("call", "tools/call", slow).await;
    assert_eq!(answer["result"]["task"]["taskId"], "t1", "{answer}");
    let slow = json!({ "name": "slow", "arguments": {} });
    let answer = modern("modern call", "tools/call", "slow", slow).await;
    assert_eq!(answer["result"]["taskId"], "m1", "{answer}");
    let (call, modern_call) = (
        record(&world, "call").await,
        record(&world, "modern call").await,
    );

    // Asked for after it has ended, too, and as often as somebody wants.
    legacy("get", "tasks/get", json!({ "taskId": "t1" })).await;
    for id in ["result", "again"] {
        let answer = legacy(id, "tasks/result", json!({ "taskId": "t1" })).await;
        assert_eq!(answer["result"]["content"][0]["text"], "built", "{answer}");
        assert_eq!(record(&world, id).await["mcp"]["task_of"], call["id"]);
    }
    assert_eq!(record(&world, "get").await["mcp"]["task_of"], call["id"]);
    let answer = modern("inline", "tasks/get", "m1", json!({ "taskId": "m1" })).await;
    assert_eq!(answer["result"]["result"]["content"][0]["text"], "built");
    let told = record(&world, "inline").await;
    assert_eq!(told["mcp"]["task_of"], modern_call["id"], "{told}");
    // Ids can be guessed: what the tool's caller alone may see is not had by asking after the task.
    let before = server.take().len();
    assert_eq!(before, 6);
    world.replace(&servers, "[]", WITHOUT).unwrap();
    let hidden = async || {
        let answer = legacy("hidden", "tasks/result", json!({ "taskId": "t1" })).await;
        answer["error"].is_object().then_some(())
    };
    wait_for("the policy to be in force", LIMIT, hidden)
        .await
        .unwrap();
    server.take();
    let answer = modern("hidden too", "tasks/get", "m1", json!({ "taskId": "m1" })).await;
    assert!(answer["error"].is_object(), "{answer}");
    assert!(server.take().is_empty(), "nothing of it reaches the server");
    let refused = record(&world, "hidden too").await;
    assert_eq!(refused["outcome"]["status"], "refused", "{refused}");
    assert_eq!(refused["mcp"]["task_of"], modern_call["id"], "{refused}");
}

/// Ids can be guessed, and a server that is reached under one credential cannot tell whose a task is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_its_callers_alone_and_one_that_is_not_known_is_nobodys() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), several).unwrap();
    let url = format!("https://{}/mcp\", data: \"internal", FAR.host);
    let servers = [("far", url.as_str())];
    let world = World::new(&lab, &servers, BOTH).await.unwrap();
    let (one, other) = (
        world.talker().await.unwrap(),
        world.talker_of("nobody").await.unwrap(),
    );
    let ask = async |who: &Talker, id: &str, method: &str, params: Value| {
        let body = request(id, method, params).to_string();
        who.post(FAR, &[LEGACY], body).await.unwrap().json()
    };
    let call = |task| json!({ "name": "slow", "arguments": { "as": task }, "task": {} });
    for (who, task) in [(&one, "mine"), (&one, "done"), (&other, "theirs")] {
        let answer = ask(who, task, "tools/call", call(task)).await;
        assert_eq!(answer["result"]["task"]["taskId"], task, "{answer}");
    }
    // Theirs, and one that ended with the call's own answer.
    for task in ["mine", "done"] {
        let asked = json!({ "taskId": task });
        let answer = ask(&one, &format!("own {task}"), "tasks/result", asked).await;
        assert_eq!(answer["result"]["content"][0]["text"], task, "{answer}");
    }
    let listed = |answer: &Value| -> Vec<Value> {
        let tasks = answer["result"]["tasks"].as_array();
        let tasks = tasks.unwrap_or_else(|| panic!("{answer}"));
        tasks.iter().map(|task| task["taskId"].clone()).collect()
    };
    let tasks = ask(&one, "list", "tasks/list", json!({})).await;
    assert_eq!(listed(&tasks), ["mine", "done"]);
    let tasks = ask(&other, "their list", "tasks/list", json!({})).await;
    assert_eq!(listed(&tasks), ["theirs"]);

    let before = server.take().len();
    let refused = async |who: &Talker, id: &str, method: &str, task: &str| {
        let answer = ask(who, id, method, json!({ "taskId": task })).await;
        // What a server says of a task that it does not know.
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let told = record(&world, id).await;
        assert_eq!(told["outcome"]["status"], "refused", "{told}");
        assert!(told["mcp"]["task_of"].is_null(), "{told}");
    };
    assert_eq!(before, 7);
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        refused(&other, &format!("{method} of another"), method, "mine").await;
        refused(&one, &format!("{method} of nobody"), method, "made up").await;
    }
    let long = "x".repeat(257);
    ask(&one, "long", "tools/call", call(&long)).await;
    refused(&one, "after the long", "tasks/result", &long).await;
    assert_eq!(server.take().len(), 1, "only the call reached the server");

    // What an earlier gate knew, nobody knows.
    let gate = world.daemon.status().await.unwrap()["gate"]["pid"]
        .as_u64()
        .unwrap();
    let gate = pid(u32::try_from(gate).unwrap());
    kill_process(gate, Signal::KILL).unwrap();
    let again = async || {
        let body = request("ping", "ping", json!({})).to_string();
        one.post(FAR, &[LEGACY], body).await.ok()
    };
    wait_for("another gate", LIMIT, again).await.unwrap();
    refused(&one, "after the gate", "tasks/result", "mine").await;
}

/// What the first call's tool may show says nothing of the second's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_id_several_calls_were_told_is_hidden_with_the_tool_of_each() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), several).unwrap();
    let url = format!("https://{}/mcp\", data: \"internal", FAR.host);
    let servers = [("far", url.as_str())];
    let world = World::new(&lab, &servers, BOTH).await.unwrap();
    let talker = world.talker().await.unwrap();
    let ask = async |id: &str, method: &str, params: Value| {
        let body = request(id, method, params).to_string();
        talker.post(FAR, &[LEGACY], body).await.unwrap().json()
    };
    for (id, tool, task) in [
        ("alone", "fast", "done"),
        ("first", "fast", "mine"),
        ("second", "slow", "mine"),
    ] {
        let call = json!({ "name": tool, "arguments": { "as": task }, "task": {} });
        let answer = ask(id, "tools/call", call).await;
        assert_eq!(answer["result"]["task"]["taskId"], task, "{answer}");
    }
    let result = async |id: &str, task: &str| {
        let answer = ask(id, "tasks/result", json!({ "taskId": task })).await;
        answer["result"]["content"][0]["text"] == task
    };
    assert!(result("either", "mine").await);
    // Whose it is cannot be told.
    assert!(record(&world, "either").await["mcp"]["task_of"].is_null());

    world.replace(&servers, "[]", WITHOUT).unwrap();
    let hidden = async || (!result("hidden", "mine").await).then_some(());
    wait_for("the policy to be in force", LIMIT, hidden)
        .await
        .unwrap();
    server.take();
    assert!(!result("hidden too", "mine").await);
    assert!(server.take().is_empty(), "nothing of it reaches the server");
    assert!(result("another", "done").await, "of a tool that is shown");
    let tasks = ask("list", "tasks/list", json!({})).await;
    assert_eq!(
        tasks["result"]["tasks"].as_array().unwrap().len(),
        1,
        "{tasks}"
    );
    assert_eq!(tasks["result"]["tasks"][0]["taskId"], "done", "{tasks}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_standard_streams_too() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, BOTH)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    becomes(&mut session, &mut wire, "t1").await;
    let params = json!({ "taskId": "t1" });
    session
        .send(&request("result", "tasks/result", params))
        .await
        .unwrap();
    wire.hears("tasks/result").await;
    wire.say(&json!({ "jsonrpc": "2.0", "id": "result", "result": {
        "content": [], "_meta": { RELATED: { "taskId": "t1" } } } }));
    session.receive().await.unwrap();
    let of = async |id: &str| {
        let id = format!("\"{id}\"");
        let wanted = |record: &Value| record["mcp"]["id"] == *id && record["outcome"].is_object();
        daemon.record("its end", wanted).await.unwrap()
    };
    let (call, told) = (of("t1").await, of("result").await);
    assert_eq!(told["mcp"]["task_of"], call["id"], "{told}");

    // A server may say that it works before it says at what.
    let call = request(
        "t2",
        "tools/call",
        json!({ "name": "slow", "arguments": {}, "task": {} }),
    );
    session.send(&call).await.unwrap();
    wire.hears("\"id\":\"t2\"").await;
    let working = json!({ "taskId": "t2", "status": "working" });
    wire.say(
        &json!({ "jsonrpc": "2.0", "method": "notifications/tasks/status", "params": working }),
    );
    wire.say(&json!({ "jsonrpc": "2.0", "id": "t2", "result": { "task": working } }));
    assert_eq!(session.receive().await.unwrap()["params"], working);
    assert_eq!(session.receive().await.unwrap()["id"], "t2");

    // What a server tells of a task by itself is for whose task it is, and what it asks for its client's tasks is another
    // matter: those have ids of the client's own.
    for task in ["t1", "made up"] {
        let params = json!({ "taskId": task, "status": "completed", "result": { "content": [] } });
        wire.say(&json!({ "jsonrpc": "2.0", "method": "notifications/tasks", "params": params }));
    }
    wire.say(&request(
        "theirs",
        "tasks/get",
        json!({ "taskId": "made up" }),
    ));
    let others = alive(&mut session, &mut wire, "end").await;
    let told: Vec<&Value> = others
        .iter()
        .map(|told| &told["params"]["taskId"])
        .collect();
    assert_eq!(told, ["t1", "made up"], "{others:?}");
    assert_eq!(others[1]["method"], "tasks/get", "{others:?}");
    let refused = |record: &Value| {
        record["mcp"]["method"] == "notifications/tasks" && record["outcome"]["status"] == "refused"
    };
    daemon.record("the notification", refused).await.unwrap();
}
