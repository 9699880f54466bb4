//! What rules ask for beyond yes and no, over HTTP and standard streams: dry runs.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain, result};
use crate::stdio::{Wire, alive, policy, wired};
use crate::talk::{FAR, LEGACY, MODERN};
use crate::world::World;

/// The policy's `tools` with a dry-run argument, and its rules.
const TOOLS: &str =
    "tools: { told: { class: write, dry_run: { argument: /options/dryRun, value: true } } }";
const RULES: &str = r#"
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: dry, tools: [told, untold], effect: dry_run }
limits: [{ per: [server], tools: [told, untold], calls: 3 }]
"#;

fn far(asked: &Asked) -> hyper::Response<Body> {
    if asked.json()["method"] != "tools/list" {
        return plain(asked);
    }
    let schema = json!({ "type": "object", "properties": {
        "options": { "type": "object", "properties": {
            "dryRun": { "type": "boolean", "x-mcp-header": "Dry" },
        } },
    } });
    let tools = [json!({ "name": "told", "inputSchema": schema })];
    result(
        asked,
        json!({ "tools": tools, "cacheScope": "public", "ttlMs": 1000, "resultType": "complete" }),
    )
}

fn request(id: &Value, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    request(&id.into(), "tools/call", params)
}

/// Policy of a managed host with the server `far`, whose tools are [`TOOLS`].
async fn world(lab: &Lab) -> World<'_> {
    let url = format!("https://{}/mcp\", {TOOLS}, data: \"internal", FAR.host);
    World::new(lab, &[("far", &url)], RULES).await.unwrap()
}

/// What answers a call that was not sent.
fn not_sent(answer: &Value) {
    let result = &answer["result"];
    let told = json!({ "dryRun": true, "sent": false, "server": result["structuredContent"]["server"],
        "tool": "untold", "arguments": { "amount": 7, "password": "hunter2" } });
    assert_eq!(result["structuredContent"], told, "{answer}");
    assert_eq!(result["isError"], true, "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("Not sent: calls of `untold` are run dry"),
        "{text}"
    );
    assert!(text.contains(r#""amount":7"#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_reaches_the_server_told_so_or_not_at_all_over_http() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), far).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    let post = async |headers: &[(&str, &str)], body: &Value| {
        talker.post(FAR, headers, body.to_string()).await.unwrap()
    };

    let told = call(
        "t",
        "told",
        json!({ "a": 1, "options": { "dryRun": false } }),
    );
    let answer = post(&[LEGACY], &told).await;
    assert_eq!(answer.json()["result"]["content"][0]["text"], "ok");
    let sent = json!({ "a": 1, "options": { "dryRun": true } });
    let seen = server.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].json()["params"]["arguments"], sent);

    let untold = call("u", "untold", json!({ "amount": 7, "password": "hunter2" }));
    not_sent(&post(&[LEGACY], &untold).await.json());
    // A member that a server may take for it is not overruled but refused.
    let shadowed = call("s", "told", json!({ "options": { "DRYRUN": false } }));
    let answer = post(&[LEGACY], &shadowed).await;
    assert_eq!(
        answer.json()["error"]["data"]["reason"],
        "dry_run_unavailable"
    );
    // One refusal and one answer in a batch.
    let batch = json!([
        call(1, "untold", json!({})),
        request(&json!(2), "ping", json!({}))
    ]);
    let answers = post(&[("mcp-protocol-version", "2025-03-26")], &batch).await;
    assert!(
        answers.json().to_string().contains("dry_run_unavailable"),
        "{}",
        answers.json()
    );
    let seen = server.take();
    assert_eq!(seen.len(), 1, "only the ping of the batch");
    assert!(!seen[0].json().to_string().contains("untold"));

    let record = world
        .daemon
        .record("the dry run that was sent", |record| {
            record["mcp"]["id"] == "\"t\"" && record["outcome"].is_object()
        })
        .await
        .unwrap();
    assert_eq!(record["mcp"]["arguments"], sent, "{record}");
    assert_eq!(
        record["mcp"]["dry_run"],
        json!({ "sent": true, "argument": "/options/dryRun" })
    );
    assert_eq!(record["mcp"]["class"], "write", "{record}");
    assert_eq!(record["decision"]["effect"], "dry_run", "{record}");
    assert_eq!(record["decision"]["rule"], "dry", "{record}");
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    let record = world
        .daemon
        .record("the dry run that was answered", |record| {
            record["mcp"]["id"] == "\"u\"" && record["outcome"].is_object()
        })
        .await
        .unwrap();
    assert_eq!(
        record["mcp"]["dry_run"],
        json!({ "sent": false }),
        "{record}"
    );
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    assert!(!record.to_string().contains("hunter2"), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_repeats_the_argument_says_what_is_sent() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), far).unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let with = |mut message: Value| {
        message["params"]["_meta"] = meta.clone();
        message.to_string()
    };
    let told = with(call(2, "told", json!({ "options": { "dryRun": false } })));
    let called = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "told"),
        ("mcp-param-dry", "false"),
    ];
    // Which argument a header repeats is known from the list alone.
    let answer = talker.post(FAR, &called, told.clone()).await.unwrap();
    assert_eq!(
        answer.json()["error"]["data"]["reason"],
        "dry_run_unavailable"
    );
    assert!(server.take().is_empty());
    let list = with(request(&json!(1), "tools/list", json!({})));
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/list"),
    ];
    talker.post(FAR, &headers, list).await.unwrap();
    server.take();
    let answer = talker.post(FAR, &called, told).await.unwrap();
    assert!(answer.json()["result"].is_object(), "{}", answer.json());
    let seen = server.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("mcp-param-dry"), Some("true"));
    assert_eq!(
        seen[0].json()["params"]["arguments"]["options"]["dryRun"],
        true
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_reaches_the_server_told_so_or_not_at_all_over_standard_streams() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab
        .daemon(&policy(&lab, &format!("    {TOOLS}\n{RULES}")))
        .await
        .unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let untold = call("u", "untold", json!({ "amount": 7, "password": "hunter2" }));
    session.send(&untold).await.unwrap();
    not_sent(&session.receive().await.unwrap());
    session.send(&call("t", "told", json!({}))).await.unwrap();
    let heard = wire.hears("\"told\"").await;
    assert!(
        heard.contains(r#""arguments":{"options":{"dryRun":true}}"#),
        "{heard}"
    );
    wire.answers(&json!("t"));
    assert_eq!(session.receive().await.unwrap()["id"], "t");
    alive(&mut session, &mut wire, "end").await;
    assert!(!wire.heard().contains("untold"), "{}", wire.heard());
}
