//! What rules name beside tools, on the wire: resources, prompts and completion; and lists that differ by who asks.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain, result};
use crate::talk::{FAR, LEGACY};
use crate::world::{URL, World};

const RULES: &str = r#"
rules:
  - { id: docs, servers: [far], methods: [resources/read], tools: ["docs://*"], effect: allow }
  - { id: drafts, servers: [far], methods: [resources/read], tools: ["docs://draft*"], effect: deny }
  - { id: prompts, servers: [far], methods: [prompts/get], tools: [summary], effect: allow }
  - { id: typing, servers: [far], methods: [completion/complete], tools: [summary, "docs://*"], effect: allow }
"#;

fn message(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": params }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_prompts_and_completion_are_decided_by_method_and_name() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), plain).unwrap();
    let world = World::new(&lab, &[("far", URL)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let complete =
        |reference: Value| json!({ "ref": reference, "argument": { "name": "a", "value": "b" } });
    let prompt = |name: &str| complete(json!({ "type": "ref/prompt", "name": name }));
    let resource = |uri: &str| complete(json!({ "type": "ref/resource", "uri": uri }));
    // Method, parameters, the name that is decided by, and the rule that allows it or what denies it.
    let rows = [
        (
            "resources/read",
            json!({ "uri": "docs://a" }),
            "docs://a",
            Ok("docs"),
        ),
        (
            "resources/read",
            json!({ "uri": "docs://draft1" }),
            "docs://draft1",
            Err(Some("drafts")),
        ),
        (
            "resources/read",
            json!({ "uri": "file:///etc/passwd" }),
            "file:///etc/passwd",
            Err(None),
        ),
        (
            "resources/subscribe",
            json!({ "uri": "docs://a" }),
            "docs://a",
            Err(None),
        ),
        (
            "prompts/get",
            json!({ "name": "summary" }),
            "summary",
            Ok("prompts"),
        ),
        (
            "prompts/get",
            json!({ "name": "secrets" }),
            "secrets",
            Err(None),
        ),
        (
            "completion/complete",
            prompt("summary"),
            "summary",
            Ok("typing"),
        ),
        (
            "completion/complete",
            prompt("secrets"),
            "secrets",
            Err(None),
        ),
        (
            "completion/complete",
            resource("docs://{x}"),
            "docs://{x}",
            Ok("typing"),
        ),
        (
            "completion/complete",
            resource("file:///{x}"),
            "file:///{x}",
            Err(None),
        ),
        // A resource's rule is no tool's, of whatever name.
        (
            "tools/call",
            json!({ "name": "docs://a" }),
            "docs://a",
            Err(None),
        ),
    ];
    for (method, params, name, wanted) in rows {
        let body = message(method, &params);
        let reply = talker.post(FAR, &[LEGACY], body).await.unwrap();
        let arrived = server.take();
        assert_eq!(reply.json()["id"], 5, "{method} {name}: {reply:?}");
        let shown = |record: &Value| {
            record["mcp"]["method"] == method
                && record["mcp"]["name"] == name
                && record["decision"]["effect"] == if wanted.is_ok() { "allow" } else { "deny" }
        };
        let what = format!("the record of {method} {name}");
        let record = world.daemon.record(&what, shown).await.unwrap();
        assert_eq!(record["mcp"]["server"], "far", "{record}");
        match wanted {
            Ok(rule) => {
                assert!(
                    reply.json()["result"].is_object(),
                    "{method} {name}: {reply:?}"
                );
                assert_eq!(arrived.len(), 1, "{method} {name}");
                assert_eq!(arrived[0].json()["params"], params, "{method} {name}");
                assert_eq!(record["decision"]["rule"], rule, "{record}");
            }
            Err(rule) => {
                assert!(reply.code().is_some(), "{method} {name}: {reply:?}");
                assert!(arrived.is_empty(), "{method} {name} has arrived");
                assert_eq!(record["decision"]["rule"].as_str(), rule, "{record}");
            }
        }
    }
}

/// A network that is passed on unread takes no registered server with it that has an address there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_a_network_that_is_passed_on_is_decided_on() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), plain).unwrap();
    let egress = "[{ cidr: 93.184.215.0/24, ports: [443], protocol: tcp }]";
    let nothing = "rules: [{ id: none, tools: [echo], effect: deny }]";
    let world = World::with(&lab, &[("far", URL)], egress, nothing)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    let call = message("tools/call", &json!({ "name": "echo", "arguments": {} }));
    let reply = talker.post(FAR, &[LEGACY], call).await.unwrap();
    assert!(reply.code().is_some(), "{reply:?}");
    assert!(server.take().is_empty());
    let record = world.daemon.record("the call", |record| {
        record["mcp"]["server"] == "far" && record["mcp"]["name"] == "echo"
    });
    let record = record.await.unwrap();
    assert_eq!(record["decision"]["rule"], "none", "{record}");
}

fn tools(asked: &Asked) -> hyper::Response<Body> {
    if asked.json()["method"] != "tools/list" {
        return plain(asked);
    }
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    let tools = ["get_a", "set_a", "drop_a"].map(tool);
    let list = json!({ "tools": tools, "cacheScope": "public", "ttlMs": 60_000, "resultType": "complete" });
    result(asked, list)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_identity_is_told_of_its_own_tools() {
    const WHO: &str = r#"
identities: { staff: { user: root }, guest: { user: bin } }
rules:
  - { id: reads, who: [staff, guest], servers: [far], tools: ["get_*"], effect: allow }
  - { id: writes, who: [staff], servers: [far], tools: ["set_*"], effect: allow }
"#;
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), tools).unwrap();
    let world = World::new(&lab, &[("far", URL)], WHO).await.unwrap();
    // One after the other and again: nobody is given what another was told.
    for (user, wanted) in [
        ("root", &["get_a", "set_a"][..]),
        ("bin", &["get_a"]),
        ("root", &["get_a", "set_a"]),
    ] {
        let talker = world.talker_of(user).await.unwrap();
        let list = message("tools/list", &json!({}));
        let reply = talker.post(FAR, &[LEGACY], list).await.unwrap().json();
        let tools = reply["result"]["tools"].as_array().unwrap();
        let names: Vec<_> = tools
            .iter()
            .map(|tool| tool["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, wanted, "{user}");
        assert_eq!(reply["result"]["cacheScope"], "private", "{user}");
        for (tool, allowed) in [
            ("get_a", true),
            ("set_a", wanted.len() > 1),
            ("drop_a", false),
        ] {
            let call = message("tools/call", &json!({ "name": tool, "arguments": {} }));
            let reply = talker.post(FAR, &[LEGACY], call).await.unwrap();
            assert_eq!(reply.code().is_none(), allowed, "{user} {tool}: {reply:?}");
        }
    }
}
