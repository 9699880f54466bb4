//! Every method that rules decide, over standard streams and in both eras: what is denied never arrives, what is
//! allowed does, and each has its record. Tools are in `stdio`.

use exeat_tests::Lab;
use exeat_tests::stdio::Session;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::stdio::{Wire, alive, becomes, instance, policy, wired};
use crate::world::LIMIT;

const RULES: &str = r#"rules:
  - { id: docs, methods: [resources/read, resources/subscribe, completion/complete], tools: ["docs://*"], effect: allow }
  - { id: greet, methods: [prompts/get, completion/complete], tools: [greet], effect: allow }
  - { id: calls, tools: [limited, slow], effect: allow }
  - { id: ask, methods: [elicitation/create], effect: allow }
limits: [{ per: [session, tool], tools: [limited], calls: 2 }]"#;

/// A request of the host with id 1.
pub(crate) fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_prompts_and_completions_are_decided_by_their_names() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let read = |uri: &str| json!({ "uri": uri });
    let get = |name: &str| json!({ "name": name, "arguments": { "password": "hunter2" } });
    let complete =
        |about: Value| json!({ "ref": about, "argument": { "name": "a", "value": "v" } });
    let prompt = |name: &str| complete(json!({ "type": "ref/prompt", "name": name }));
    let resource = |uri: &str| complete(json!({ "type": "ref/resource", "uri": uri }));
    // What is asked, the name in its record, and whether it is allowed.
    let rows = [
        ("resources/read", read("docs://intro"), "docs://intro", true),
        (
            "resources/read",
            read("file:///etc/passwd"),
            "file:///etc/passwd",
            false,
        ),
        (
            "resources/read",
            read("DOCS://intro"),
            "DOCS://intro",
            false,
        ),
        (
            "resources/subscribe",
            read("docs://feed"),
            "docs://feed",
            true,
        ),
        (
            "resources/subscribe",
            read("file:///log"),
            "file:///log",
            false,
        ),
        ("prompts/get", get("greet"), "greet", true),
        ("prompts/get", get("other"), "other", false),
        ("completion/complete", prompt("greet"), "greet", true),
        ("completion/complete", prompt("another"), "another", false),
        (
            "completion/complete",
            resource("docs://x"),
            "docs://x",
            true,
        ),
        (
            "completion/complete",
            resource("file:///x"),
            "file:///x",
            false,
        ),
    ];
    for (row, (method, params, name, allowed)) in rows.into_iter().enumerate() {
        let before = wire.heard().len();
        session
            .send(&request(method, params.clone()))
            .await
            .unwrap();
        if allowed {
            let since = || wire.heard().get(before..).unwrap_or_default().to_owned();
            wait_until("it is heard", LIMIT, || since().ends_with('\n'))
                .await
                .unwrap();
            let heard: Value = serde_json::from_str(&since()).unwrap();
            assert_eq!(
                (&heard["method"], &heard["params"]),
                (&json!(method), &params)
            );
            wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "row": row } }));
        }
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], 1, "{answer}");
        if allowed {
            assert_eq!(answer["result"]["row"], row, "{answer}");
        } else {
            assert!(
                answer["error"]["code"].is_i64(),
                "{method} {name}: {answer}"
            );
            alive(&mut session, &mut wire, &format!("alive-{row}")).await;
            let heard = wire.heard();
            let since = heard.get(before..).unwrap();
            assert!(!since.contains(method), "{method} {name}: {since}");
        }
        let record = daemon
            .record(&format!("{method} {name}"), |record| {
                record["mcp"]["method"] == method && record["mcp"]["name"] == name
            })
            .await
            .unwrap();
        let effect = if allowed { "allow" } else { "deny" };
        let status = if allowed { "done" } else { "refused" };
        assert_eq!(record["decision"]["effect"], effect, "{record}");
        assert_eq!(record["outcome"]["status"], status, "{record}");
        assert_eq!(record["mcp"]["server"], "wire", "{record}");
    }
    // What is listened to is in no name, and each of them decided.
    for (id, uris, allowed) in [
        (2, json!(["docs://a", "docs://b"]), true),
        (3, json!(["docs://a", "file:///x"]), false),
        (4, json!("docs://a"), false),
    ] {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let params = json!({ "notifications": { "resourceSubscriptions": uris }, "_meta": meta });
        let mut listen = request("subscriptions/listen", params);
        listen["id"] = json!(id);
        session.send(&listen).await.unwrap();
        if allowed {
            wire.hears("subscriptions/listen").await;
            wire.answers(&json!(id));
        }
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["result"].is_object(), allowed, "{answer}");
    }
    alive(&mut session, &mut wire, "listened").await;
    assert_eq!(wire.heard().matches("subscriptions/listen").count(), 1);
    // Each has a record as one that is subscribed to by itself, caused by what names it.
    for (id, effect, inside) in [
        ("2", "allow", [("docs://a", "allow"), ("docs://b", "allow")]),
        ("3", "deny", [("docs://a", "deny"), ("file:///x", "deny")]),
    ] {
        let listened = daemon
            .record("the listening", |record| {
                record["mcp"]["method"] == "subscriptions/listen" && record["mcp"]["id"] == id
            })
            .await
            .unwrap();
        assert_eq!(listened["decision"]["effect"], effect, "{listened}");
        for (uri, effect) in inside {
            let of_uri = daemon
                .record(uri, |record| {
                    record["mcp"]["name"] == uri && record["cause"]["id"] == listened["id"]
                })
                .await
                .unwrap();
            assert_eq!(of_uri["mcp"]["method"], "resources/subscribe", "{of_uri}");
            assert_eq!(of_uri["decision"]["effect"], effect, "{of_uri}");
            let status = if effect == "allow" { "done" } else { "refused" };
            assert_eq!(of_uri["outcome"]["status"], status, "{of_uri}");
        }
    }
    let log = json!(daemon.audit().unwrap()).to_string();
    assert!(!log.contains("hunter2"), "secrets are masked");
    session.close().await.unwrap();
}

/// Asks the host something as the server, and answers it as the host; what the server hears.
async fn asked(session: &mut Session, wire: &mut Wire, method: &str, id: &str) -> Value {
    wire.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "message": "?", "requestedSchema": {} } }));
    let question = session.receive().await.unwrap();
    assert_eq!(
        (&question["method"], &question["id"]),
        (&json!(method), &json!(id))
    );
    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "action": "decline" } });
    session.send(&answer).await.unwrap();
    serde_json::from_str(&wire.hears(&format!("\"id\":\"{id}\"")).await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elicitation_is_decided() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let told = asked(&mut session, &mut wire, "elicitation/create", "q1").await;
    assert_eq!(told["result"]["action"], "decline", "{told}");
    let asks = |record: &Value, effect: &str| {
        record["mcp"]["method"] == "elicitation/create"
            && record["mcp"]["from"] == "server"
            && record["decision"]["effect"] == effect
    };
    let record = daemon.record("the question", |record| asks(record, "allow"));
    assert_eq!(record.await.unwrap()["outcome"]["status"], "done");
    // Without the rule the host never sees it.
    let without = RULES.replace("methods: [elicitation/create]", "methods: [roots/list]");
    let without = policy(&lab, &without);
    daemon.put_in_force(&without).await.unwrap();
    wire.say(&json!({ "jsonrpc": "2.0", "id": "q2", "method": "elicitation/create", "params": { "mode": "url", "url": "https://evil.example/", "message": "?" } }));
    let told: Value = serde_json::from_str(&wire.hears("\"id\":\"q2\"").await).unwrap();
    assert_eq!(told["error"]["code"], -31403, "{told}");
    let others = alive(&mut session, &mut wire, "end").await;
    assert_eq!(others, Vec::<Value>::new());
    daemon
        .record("the refused question", |record| asks(record, "deny"))
        .await
        .unwrap();
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_result_asks_for_is_decided() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    becomes(&mut session, &mut wire, "t").await;
    let rows = [
        ("prompts/get", json!({ "name": "greet" })),
        ("resources/read", json!({ "uri": "docs://intro" })),
        ("tools/call", json!({ "name": "limited" })),
        // It inlines what the task's call came to.
        ("tasks/get", json!({ "taskId": "t" })),
    ];
    for (method, mut params) in rows {
        params["_meta"] = modern();
        for (asks, allowed) in [
            ("elicitation/create", true),
            ("sampling/createMessage", false),
            ("vendor/x", false),
        ] {
            // A limit is not what this is about.
            if method == "tools/call" && asks == "vendor/x" {
                continue;
            }
            let before = wire.heard().matches(method).count();
            session
                .send(&request(method, params.clone()))
                .await
                .unwrap();
            wait_until("it is heard", LIMIT, || {
                wire.heard().matches(method).count() == before + 1
            })
            .await
            .unwrap();
            let required = json!({
                "resultType": "input_required",
                "inputRequests": { "q": { "method": asks, "params": {} } },
                "requestState": "opaque",
            });
            let result = if method == "tasks/get" {
                json!({ "resultType": "complete", "taskId": "t", "status": "completed", "result": required })
            } else {
                required
            };
            wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": result }));
            let answer = session.receive().await.unwrap();
            assert_eq!(answer["id"], 1, "{answer}");
            if allowed {
                assert_eq!(answer["result"], result, "{method} {asks}");
            } else {
                assert_eq!(answer["error"]["code"], -31403, "{method} {asks}: {answer}");
                assert_eq!(answer.get("result"), None, "{method} {asks}");
            }
        }
        let refused = |record: &Value| {
            record["mcp"]["method"] == method
                && record["outcome"]["error"]
                    == "the server's answer was not acceptable: it asks for something that is refused"
        };
        let call = daemon.record("a result that asks", refused).await.unwrap();
        let inside = |record: &Value| {
            record["cause"]["id"] == call["id"] && record["mcp"]["from"] == "server"
        };
        let asked = daemon.record("what it asks for", inside).await.unwrap();
        assert_eq!(asked["mcp"]["method"], "sampling/createMessage", "{asked}");
        assert_eq!(asked["decision"]["effect"], "deny", "{asked}");
        assert_eq!(asked["decision"]["reason"], "no rule matched", "{asked}");
        assert_eq!(asked["session"], call["session"], "{asked}");
        let calls: Vec<Value> = daemon.audit().unwrap();
        let mut calls = calls.iter().filter(|record| {
            record["mcp"]["method"] == method
                && record["mcp"]["name"] != "slow"
                && record["outcome"]["status"] == "done"
        });
        let call = calls.next().unwrap();
        let passed = daemon.record("what passed", |record| record["cause"]["id"] == call["id"]);
        let passed = passed.await.unwrap();
        assert_eq!(passed["mcp"]["method"], "elicitation/create", "{passed}");
        assert_eq!(passed["decision"]["rule"], "ask", "{passed}");
        assert_eq!(passed["outcome"]["status"], "done", "{passed}");
    }
    // A task's notification carries a result as well.
    for (asks, status) in [("elicitation/create", "done"), ("tools/call", "refused")] {
        let required = json!({
            "resultType": "input_required",
            "inputRequests": { "told": { "method": asks, "params": {} } },
        });
        let params = json!({ "taskId": "t", "status": "completed", "result": required });
        wire.say(&json!({ "jsonrpc": "2.0", "method": "notifications/tasks", "params": params }));
        let told =
            |record: &Value| record["mcp"]["method"] == asks && record["mcp"]["id"] == "\"told\"";
        let told = daemon.record("what it asks for", told).await.unwrap();
        assert_eq!(told["outcome"]["status"], status, "{told}");
    }
    let others = alive(&mut session, &mut wire, "told").await;
    assert_eq!(others.len(), 1, "{others:?}");
    session.close().await.unwrap();
}

/// What every request of the modern era says of itself.
pub(crate) fn modern() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {}, "sampling": {} },
        "io.modelcontextprotocol/clientInfo": { "name": "modern-host", "version": "1.0.0" },
    })
}

/// There is no handshake: a session is the server's process, and what is counted in it is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_the_modern_era_are_counted_and_recorded() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    for name in ["one", "two"] {
        let mut wire = Wire::new(&lab, name);
        let mut session = instance(&lab, name);
        for turn in 1..=4 {
            let params =
                json!({ "name": "limited", "arguments": { "turn": turn }, "_meta": modern() });
            session.send(&request("tools/call", params)).await.unwrap();
            if turn <= 2 {
                wire.hears(&format!("\"turn\":{turn}}}")).await;
                wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "resultType": "complete", "content": [] } }));
            }
            let answer = session.receive().await.unwrap();
            let code = answer["error"]["code"].as_i64();
            assert_eq!(
                code,
                (turn > 2).then_some(-31429),
                "{name} {turn}: {answer}"
            );
        }
        assert_eq!(wire.heard().matches("tools/call").count(), 2, "{name}");
        let _status = session.close().await.unwrap();
    }
    let is_call = |record: &Value| record["mcp"]["method"] == "tools/call";
    let calls = daemon.records("the calls", 8, is_call).await.unwrap();
    assert_eq!(calls.len(), 8, "{calls:#?}");
    for call in &calls {
        assert_eq!(call["session"]["revision"], "2026-07-28", "{call}");
        assert_eq!(call["session"]["client"], "modern-host", "{call}");
    }
    let counted: Vec<_> = calls
        .iter()
        .map(|call| (&call["session"]["id"], &call["outcome"]["status"]))
        .collect();
    assert_eq!(counted[0].0, counted[3].0);
    assert_ne!(counted[0].0, counted[4].0);
    let refused = counted.iter().filter(|(_, status)| *status == "refused");
    assert_eq!(refused.count(), 4);
}
