//! What policy refuses, and how its callers are told.

use std::net::{Ipv4Addr, SocketAddr};

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::scripted::{Asked, Body, Scripted, plain, result};
use crate::talk::{FAR, Place, Reply};
use crate::world::{ALL, URL, World};

const RULES: &str = r#"
rules:
  - { id: reads, servers: [far], tools: ["get_*", "limited"], effect: allow }
  - { id: argued, servers: [far], tools: [get_secret], effect: deny, reason: no }
limits:
  - { per: [session, tool], servers: [far], tools: [limited], calls: 2 }
"#;

fn tools(asked: &Asked) -> hyper::Response<Body> {
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    match asked.json()["method"].as_str() {
        Some("tools/list") => {
            let tools = ["get_a", "get_secret", "delete", "limited"].map(tool);
            result(
                asked,
                json!({ "tools": tools, "cacheScope": "public", "ttlMs": 1000, "resultType": "complete" }),
            )
        }
        Some("initialize") => {
            let mut opened = plain(asked);
            let session = hyper::header::HeaderValue::from_static("opened");
            opened.headers_mut().insert("mcp-session-id", session);
            opened
        }
        _ => plain(asked),
    }
}

pub(crate) fn call(id: &Value, tool: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": { "password": "hunter2", "x": 1 } } })
        .to_string()
}

fn error(reply: &Reply) -> (u16, Value, Option<i64>) {
    (
        reply.status.as_u16(),
        reply.json()["id"].clone(),
        reply.code(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_tool_does_not_exist_and_an_allowed_one_is_called() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), tools).unwrap();
    let world = World::new(&lab, &[("far", URL)], RULES).await.unwrap();
    let talker = world.talker().await.unwrap();
    let legacy = ("mcp-protocol-version", "2025-11-25");
    let session = [legacy, ("mcp-session-id", "s3cret-session")];

    let listed = talker
        .post(
            FAR,
            &session,
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string(),
        )
        .await
        .unwrap();
    let names: Vec<String> = listed.json()["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["get_a", "limited"]);
    assert_eq!(listed.json()["result"]["cacheScope"], "private");

    let allowed = talker
        .post(FAR, &session, call(&json!("one"), "get_a"))
        .await
        .unwrap();
    assert_eq!(allowed.json()["result"]["content"][0]["text"], "ok");
    assert_eq!(allowed.json()["id"], "one");

    server.take();
    for (id, tool) in [
        (json!(7), "delete"),
        (json!("8"), "get_secret"),
        (json!(9), "no such"),
    ] {
        let denied = talker.post(FAR, &session, call(&id, tool)).await.unwrap();
        assert_eq!(error(&denied), (200, id, Some(-32602)), "{tool}");
        assert_eq!(
            denied.json()["error"]["message"],
            format!("Unknown tool: {tool}")
        );
        assert_eq!(denied.json()["error"].get("data"), None, "{tool}");
    }
    assert!(server.take().is_empty(), "a denied call has arrived");

    for number in 1..=4 {
        let limited = talker
            .post(FAR, &session, call(&json!(number), "limited"))
            .await
            .unwrap();
        let code = limited.code();
        assert_eq!(
            code,
            (number > 2).then_some(-31429),
            "call {number}: {limited:?}"
        );
        assert_eq!(limited.json()["id"], number);
    }
    // An id that the client makes up has no count of its own; a session that the server opened has.
    let other = [legacy, ("mcp-session-id", "another")];
    let made_up = talker.post(FAR, &other, call(&json!(1), "limited")).await;
    assert_eq!(made_up.unwrap().code(), Some(-31429));
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    let opened = talker.post(FAR, &[], initialize.to_string()).await.unwrap();
    assert_eq!(opened.code(), None, "{opened:?}");
    let opened = [legacy, ("mcp-session-id", "opened")];
    let first = talker.post(FAR, &opened, call(&json!(1), "limited")).await;
    assert_eq!(first.unwrap().code(), None);
    assert_eq!(
        talker
            .post(FAR, &session, call(&json!(1), "get_b"))
            .await
            .unwrap()
            .code(),
        None
    );
    assert_eq!(server.take().len(), 5);

    let record = world
        .daemon
        .record("the allowed call", |record| {
            record["mcp"]["name"] == "get_a"
        })
        .await
        .unwrap();
    assert_eq!(record["kind"], "mcp", "{record}");
    assert_eq!(record["mcp"]["server"], "far", "{record}");
    assert_eq!(record["mcp"]["method"], "tools/call", "{record}");
    assert_eq!(record["mcp"]["arguments"]["x"], 1, "{record}");
    assert_ne!(
        record["mcp"]["arguments"]["password"], "hunter2",
        "{record}"
    );
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    assert_eq!(record["decision"]["rule"], "reads", "{record}");
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    assert_eq!(record["workload"]["name"], "agent", "{record}");
    assert!(record["mcp"]["class"].is_string(), "{record}");
    assert!(
        record["session"]["id"]
            .as_str()
            .is_some_and(|id| !id.is_empty()),
        "{record}"
    );
    let denied = world
        .daemon
        .record("the denied call", |record| {
            record["mcp"]["name"] == "delete"
        })
        .await
        .unwrap();
    assert_eq!(denied["decision"]["effect"], "deny", "{denied}");
    world
        .daemon
        .record("the last call", |record| record["mcp"]["name"] == "get_b")
        .await
        .unwrap();
    let all = world.daemon.audit().unwrap();
    let text = json!(all).to_string();
    for secret in ["hunter2", "s3cret-session"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let calls = all
        .iter()
        .filter(|record| record["mcp"]["method"] == "tools/call")
        .count();
    assert_eq!(calls, 11, "one record for each call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mcp_to_what_is_not_registered_is_refused_by_its_content() {
    const OTHER: Place = Place {
        host: "api.lab.example",
        path: "/v1/anything",
        ..FAR
    };
    const BESIDE: Place = Place {
        path: "/other",
        ..FAR
    };
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), plain).unwrap();
    let other_at = SocketAddr::new(exeat_tests::lab::WORLD_OTHER, 443);
    let other = Scripted::far(&lab, OTHER.host, other_at, plain).unwrap();
    let egress = r#"[{ host: api.lab.example }, { host: mcp.lab.example, paths: ["/other"] }]"#;
    let world = World::with(&lab, &[("far", URL)], egress, ALL)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    let rows: [(&[(&str, &str)], &str); 7] = [
        (&[], initialize),
        (
            &[],
            r#"{"params":{"arguments":{},"name":"x"},"method":"tools/call","id":1,"jsonrpc":"2.0"}"#,
        ),
        (
            &[],
            "{\"\\u006dethod\" : \"tools\\/c\\u0061ll\",\n\"jsonrpc\":\"2.0\",\"id\":1}",
        ),
        (&[("content-type", "text/plain")], initialize),
        (&[("content-type", "")], initialize),
        (&[("mcp-method", "tools/call")], "{}"),
        (&[("mcp-session-id", "x")], "{}"),
    ];
    for place in [OTHER, BESIDE] {
        for (headers, body) in rows {
            let reply = talker.post(place, headers, body).await.unwrap();
            assert_eq!(
                reply.status,
                StatusCode::FORBIDDEN,
                "{place:?} {headers:?} {body}: {reply:?}"
            );
            let said = String::from_utf8_lossy(&reply.body);
            assert!(said.contains("unregistered_server"), "{said}");
        }
    }
    // Only heads and beginnings may have arrived: a whole message never.
    for asked in server.seen().into_iter().chain(other.seen()) {
        assert_eq!(asked.json(), Value::Null, "{asked:?}");
    }
    // Ordinary requests pass, JSON ones too.
    let reply = talker
        .post(OTHER, &[], r#"{"method":"order","id":1}"#)
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let reply = talker
        .post(BESIDE, &[], r#"{"client_name":"x"}"#)
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
    let record = world
        .daemon
        .record("MCP to a stranger", |record| {
            let reason = record["decision"]["reason"].as_str();
            reason.is_some_and(|reason| reason.contains("not registered"))
        })
        .await
        .unwrap();
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_other_side_are_json_rpc_errors() {
    let lab = Lab::new().unwrap();
    let near = Place {
        host: "localhost",
        port: 3921,
        tls: false,
        path: "/mcp",
    };
    let absent = Place { port: 3922, ..near };
    let big = vec![b'x'; 5 << 20];
    let _server = Scripted::near(
        &lab,
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3921),
        |asked| match asked.json()["params"]["name"].as_str() {
            Some("garbage") => crate::scripted::text("not json"),
            Some("other") => crate::scripted::text(r#"{"jsonrpc":"2.0","id":99,"result":{}}"#),
            Some("twice") => {
                crate::scripted::text(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#)
            }
            Some("wrong") => result(asked, json!({ "resultType": "sideways" })),
            Some("html") => {
                let mut page = crate::scripted::text("<html>");
                let kind = hyper::header::HeaderValue::from_static("text/html");
                page.headers_mut().insert("content-type", kind);
                page
            }
            _ => plain(asked),
        },
    )
    .unwrap();
    let servers = [
        ("near", "http://localhost:3921/mcp"),
        ("absent", "http://localhost:3922/mcp"),
    ];
    let world = World::new(&lab, &servers, ALL).await.unwrap();
    let talker = world.talker().await.unwrap();
    let id = json!(1);
    let gone = talker.post(absent, &[], call(&id, "a")).await.unwrap();
    assert_eq!(error(&gone), (200, id.clone(), Some(-31502)), "{gone:?}");
    for tool in ["garbage", "other", "twice", "wrong", "html"] {
        let reply = talker.post(near, &[], call(&id, tool)).await.unwrap();
        assert_eq!(
            error(&reply),
            (200, id.clone(), Some(-31502)),
            "{tool}: {reply:?}"
        );
    }
    let large = talker.post(near, &[], big).await.unwrap();
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "{large:?}");
    assert_eq!(large.code(), Some(-31413));
    let record = world
        .daemon
        .record("the oversized message", |record| {
            record.to_string().contains("larger than the limit")
        })
        .await
        .unwrap();
    assert!(
        record["inspected"].to_string().contains("larger"),
        "{record}"
    );
    // The daemon is unharmed.
    let fine = talker.post(near, &[], call(&id, "a")).await.unwrap();
    assert_eq!(fine.json()["result"]["content"][0]["text"], "ok");
}
