//! Methods that one side alone sends: from the other they are refused, whatever the rules allow, and counted for nobody.

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::refusals::call;
use crate::scripted::{Scripted, event, plain, result, stream};
use crate::stdio::{Wire, alive, policy, wired};
use crate::streams::{SESSION, at};
use crate::talk::{EventReader, FAR, request};
use crate::world::{LIMIT, URL, World};

/// Everything, and one call for each tool.
const ONCE: &str = r#"rules: [{ id: everything, methods: ["*"], tools: ["*"], effect: allow }]
limits: [{ per: [session, tool], tools: ["*"], calls: 1 }]"#;

/// What a server sends that clients alone do.
const CLIENTS_OWN: [&str; 5] = [
    "tools/call",
    "resources/read",
    "tools/list",
    "initialize",
    "notifications/roots/list_changed",
];
/// The other way about.
const SERVERS_OWN: [&str; 5] = [
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "notifications/message",
    "notifications/tools/list_changed",
];

/// A message with this method, which says enough to be judged by.
fn message(id: &str, method: &str) -> Value {
    let params = json!({ "name": "once", "uri": "docs://a" });
    let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    if !method.starts_with("notifications/") {
        message["id"] = json!(id);
    }
    message
}

/// The record of what `from` sent against its direction.
async fn refused(daemon: &Daemon<'_>, from: &str, method: &str) {
    let about = |record: &Value| {
        record["mcp"]["method"] == method
            && record["mcp"]["from"].as_str().unwrap_or("client") == from
    };
    let record = daemon
        .record(&format!("{method} of the {from}"), about)
        .await
        .unwrap();
    let why = format!("a method that {from}s do not send");
    assert_eq!(record["outcome"]["status"], "refused", "{record}");
    assert_eq!(record["outcome"]["error"], why, "{record}");
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert_eq!(
        record["decision"]["counters"].as_array().map(Vec::len),
        None,
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_standard_streams() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ONCE)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    for method in CLIENTS_OWN {
        let message = message(method, method);
        wire.say(&message);
        if message["id"].is_string() {
            let told = wire.hears(&format!("\"id\":\"{method}\"")).await;
            assert!(told.contains("-32601"), "{told}");
        }
    }
    for method in SERVERS_OWN {
        let message = message(method, method);
        session.send(&message).await.unwrap();
        if message["id"].is_string() {
            let answer = session.receive().await.unwrap();
            assert_eq!(answer["id"], method, "{answer}");
            assert_eq!(answer["error"]["code"], -32601, "{answer}");
        }
    }
    // A ping goes either way, and what is not the protocol's is the rules' to decide.
    for method in ["ping", "vendor/x"] {
        wire.say(&message("theirs", method));
        let asked = session.receive().await.unwrap();
        assert_eq!(asked["method"], method, "{asked}");
        let answer = json!({ "jsonrpc": "2.0", "id": "theirs", "result": { "of": method } });
        session.send(&answer).await.unwrap();
        wire.hears(&format!("{{\"of\":\"{method}\"}}")).await;
    }
    // In the modern era a server sends no request of its own.
    let mut modern = message("modern", "elicitation/create");
    modern["params"]["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    wire.say(&modern);
    let told = wire.hears("\"id\":\"modern\"").await;
    assert!(told.contains("-32601"), "{told}");
    assert_eq!(
        alive(&mut session, &mut wire, "end").await,
        Vec::<Value>::new()
    );
    for method in SERVERS_OWN {
        assert!(!wire.heard().contains(&format!("\"method\":\"{method}\"")));
        refused(&daemon, "client", method).await;
    }
    for method in CLIENTS_OWN {
        refused(&daemon, "server", method).await;
    }
    // The server's call took nothing of the host's.
    session.send(&message("mine", "tools/call")).await.unwrap();
    wire.hears("\"id\":\"mine\"").await;
    wire.answers(&json!("mine"));
    assert!(session.receive().await.unwrap()["result"].is_object());
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, at(), |asked| {
        let message_in = asked.json();
        if message_in["params"]["name"] != "streams" {
            return plain(asked);
        }
        let (writer, response) = stream();
        let id = message_in["id"].clone();
        tokio::spawn(async move {
            for method in CLIENTS_OWN {
                let _sent = writer.send_data(event(&message(method, method))).await;
            }
            let end = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } });
            let _sent = writer.send_data(event(&end)).await;
        });
        response
    })
    .unwrap();
    let world = World::new(&lab, &[("far", URL)], ONCE).await.unwrap();
    let talker = world.talker().await.unwrap();
    for method in SERVERS_OWN {
        let reply = talker
            .post(FAR, &SESSION, message(method, method).to_string())
            .await
            .unwrap();
        if method.starts_with("notifications/") {
            assert_eq!(reply.status, 202, "{reply:?}");
        } else {
            assert_eq!(reply.code(), Some(-32601), "{reply:?}");
        }
    }
    assert!(server.seen().is_empty(), "nothing of it reaches the server");
    let post = request("POST", FAR.path, &SESSION, call(&json!(1), "streams")).unwrap();
    let mut events = EventReader::new(talker.send(FAR, post).await.unwrap());
    // The client hears nothing of it, and the server is told.
    let only = events.message().await.unwrap().unwrap();
    assert_eq!(only["id"], 1, "{only}");
    for method in CLIENTS_OWN {
        if !method.starts_with("notifications/") {
            let told = || {
                let mut seen = server.seen().into_iter().map(|asked| asked.json());
                seen.find(|told| told["id"] == method)
            };
            let told = wait_for("the server is told", LIMIT, async || told())
                .await
                .unwrap();
            assert_eq!(told["error"]["code"], -32601, "{told}");
        }
        refused(&world.daemon, "server", method).await;
    }
    for method in SERVERS_OWN {
        refused(&world.daemon, "client", method).await;
    }
    let mine = talker.post(FAR, &SESSION, message("mine", "tools/call").to_string());
    assert_eq!(mine.await.unwrap().code(), None);
}

/// Nothing but what the protocol puts there, whatever the rules allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_results() {
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, FAR.host, at(), |asked| {
        let asks = asked.json()["params"]["arguments"]["method"].clone();
        let required = json!({
            "resultType": "input_required",
            "inputRequests": { "q": { "method": asks, "params": { "name": "once" } } },
            "requestState": "s",
        });
        result(asked, required)
    })
    .unwrap();
    let rules = r#"rules: [{ id: everything, methods: ["*"], tools: ["*"], effect: allow }]"#;
    let world = World::new(&lab, &[("far", URL)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    for (method, allowed) in [
        ("roots/list", true),
        ("tools/call", false),
        ("ping", false),
        ("notifications/message", false),
        ("vendor/x", false),
    ] {
        let params = json!({ "name": "asks", "arguments": { "method": method } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let reply = talker.post(FAR, &SESSION, body.to_string()).await.unwrap();
        let code = (!allowed).then_some(-31403);
        assert_eq!(reply.code(), code, "{method}: {reply:?}");
    }
}
