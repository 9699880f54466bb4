//! What a server asks of its client: on the stream of a call, or in a call's result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::refusals::call;
use crate::scripted::{Scripted, event, plain, result, stream};
use crate::streams::{SESSION, Writers, at};
use crate::talk::{EventReader, FAR, Talker, request, whole};
use crate::world::{LIMIT, URL, World};

/// A server that asks its client for `method` in the stream of every call, and ends the stream with what it
/// was answered.
fn asking(lab: &Lab, method: &'static str) -> (Scripted, Writers) {
    let writers = Writers::default();
    let theirs = writers.clone();
    let server = Scripted::far(lab, FAR.host, at(), move |asked| {
        let message = asked.json();
        if message["method"] == "tools/call" {
            let (writer, response) = stream();
            let theirs = theirs.clone();
            tokio::spawn(async move {
                let question = json!({ "jsonrpc": "2.0", "id": "q1", "method": method, "params": { "message": "?", "messages": [] } });
                if writer.send_data(event(&question)).await.is_ok() {
                    theirs.put(writer);
                }
            });
            return response;
        }
        plain(asked)
    })
    .unwrap();
    (server, writers)
}

/// Every tool, and this question of a server's.
fn safe(method: &str) -> String {
    format!(
        r#"rules: [{{ id: calls, tools: ["*"], effect: allow }}, {{ id: asks, methods: [{method}], effect: allow }}]"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_else_names_the_session_answers_nothing() {
    let method = "elicitation/create";
    let lab = Lab::new().unwrap();
    let (server, writers) = asking(&lab, method);
    let world = World::new(&lab, &[("far", URL)], &safe(method))
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    let other = world.talker_of("nobody").await.unwrap();
    let post = request("POST", FAR.path, &SESSION, call(&json!(1), "asks")).unwrap();
    let mut events = EventReader::new(talker.send(FAR, post).await.unwrap());
    let writer = writers.take().await;
    let question = events.message().await.unwrap().unwrap();
    assert_eq!(question["id"], "q1");
    let answers = async |who: &Talker, name: &str| {
        let result = json!({ "action": "accept", "content": { "name": name } });
        let answer = json!({ "jsonrpc": "2.0", "id": "q1", "result": result });
        let reply = who.post(FAR, &SESSION, answer.to_string()).await.unwrap();
        assert_eq!(reply.status, 202, "{reply:?}");
    };
    answers(&other, "eve").await;
    assert_eq!(server.seen().len(), 1, "the call alone");
    answers(&talker, "ann").await;
    let told = server.seen().last().unwrap().json();
    assert_eq!(told["result"]["content"]["name"], "ann", "{told}");
    let refused = |record: &Value| {
        record["outcome"]["status"] == "refused" && record["identity"]["user"] == "nobody"
    };
    let told = world.daemon.record("what eve said", refused).await.unwrap();
    assert_eq!(told["outcome"]["error"], "an answer to nothing", "{told}");
    drop((writer, events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_asks_of_its_client_is_decided() {
    let sample =
        json!({ "role": "assistant", "content": { "type": "text", "text": "hi" }, "model": "m" });
    let filled = json!({ "action": "accept", "content": { "name": "ann" } });
    for (method, answer) in [
        ("sampling/createMessage", Some(sample)),
        ("elicitation/create", Some(filled)),
        ("sampling/createMessage", None),
        ("elicitation/create", None),
        ("roots/list", None),
    ] {
        let allowed = answer.is_some();
        // The question uses it up: its answer passes all the same.
        let limits = format!("limits: [{{ per: [server], methods: [{method}], calls: 1 }}]");
        let rules = safe(if allowed { method } else { "none/such" });
        let rules = format!("{rules}\n{limits}");
        let lab = Lab::new().unwrap();
        let (server, writers) = asking(&lab, method);
        let world = World::new(&lab, &[("far", URL)], &rules).await.unwrap();
        let talker = world.talker().await.unwrap();
        let post = request("POST", FAR.path, &SESSION, call(&json!(1), "asks")).unwrap();
        let mut events = EventReader::new(talker.send(FAR, post).await.unwrap());
        let writer = writers.take().await;
        if let Some(result) = answer {
            let question = events.message().await.unwrap().unwrap();
            assert_eq!(question["method"], method);
            assert_eq!(question["id"], "q1");
            let answer = json!({ "jsonrpc": "2.0", "id": "q1", "result": result });
            let reply = talker
                .post(FAR, &SESSION, answer.to_string())
                .await
                .unwrap();
            assert_eq!(reply.status, 202, "{reply:?}");
            assert_eq!(server.seen().last().unwrap().json(), answer);
            // A second answer to one question is an answer to nothing.
            let again = talker
                .post(FAR, &SESSION, answer.to_string())
                .await
                .unwrap();
            assert_eq!(again.status, 202);
            assert_eq!(server.seen().len(), 2, "{method}");
        }
        let told = || {
            server
                .seen()
                .into_iter()
                .map(|asked| asked.json())
                .find(|message| message["id"] == "q1")
        };
        let told = wait_for("the server is answered", LIMIT, async || told())
            .await
            .unwrap();
        assert_eq!(
            told["error"]["code"],
            if allowed { Value::Null } else { json!(-31403) },
            "{told}"
        );
        let end = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } });
        writer.send_data(event(&end)).await.unwrap();
        drop(writer);
        // A refused question never reaches the client; the call ends as the server ends it.
        assert_eq!(events.message().await.unwrap(), Some(end), "{method}");
        assert_eq!(events.message().await.unwrap(), None);
        let record = world
            .daemon
            .record("the server's question", |record| {
                record["mcp"]["method"] == method && record["mcp"]["from"] == "server"
            })
            .await
            .unwrap();
        let effect = if allowed { "allow" } else { "deny" };
        assert_eq!(record["decision"]["effect"], effect, "{record}");
        assert_eq!(record["mcp"]["server"], "far", "{record}");
        let refusals: Vec<_> = server
            .seen()
            .into_iter()
            .filter(|asked| asked.json()["id"] == "q1")
            .collect();
        assert_eq!(refusals.len(), 1);
        assert_eq!(refusals[0].header("mcp-session-id"), Some("session-1"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_result_asks_for_is_decided() {
    const MODERN: [(&str, &str); 3] = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "asks"),
    ];
    let lab = Lab::new().unwrap();
    let streamed = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&streamed);
    let _server = Scripted::far(&lab, FAR.host, at(), move |asked| {
        let method = asked.json()["params"]["arguments"]["method"].clone();
        let required = json!({
            "resultType": "input_required",
            "inputRequests": { "q": { "method": method, "params": {} } },
            "requestState": "opaque \u{2028} state",
        });
        if theirs.load(Ordering::SeqCst) {
            let (writer, response) = stream();
            let answer = json!({ "jsonrpc": "2.0", "id": asked.json()["id"], "result": required });
            tokio::spawn(async move {
                let _sent = writer.send_data(event(&answer)).await;
            });
            response
        } else {
            result(asked, required)
        }
    })
    .unwrap();
    let world = World::new(&lab, &[("far", URL)], &safe("sampling/createMessage"))
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    for stream in [false, true] {
        streamed.store(stream, Ordering::SeqCst);
        for (method, allowed) in [
            ("sampling/createMessage", true),
            ("elicitation/create", false),
            ("vendor/x", false),
        ] {
            let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {
                "name": "asks", "arguments": { "method": method },
                "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
            let post = request("POST", FAR.path, &MODERN, body.to_string()).unwrap();
            let response = talker.send(FAR, post).await.unwrap();
            let answer = if stream {
                EventReader::new(response).message().await.unwrap().unwrap()
            } else {
                whole(response).await.unwrap().json()
            };
            assert_eq!(answer["id"], 5, "{answer}");
            if allowed {
                assert_eq!(
                    answer["result"]["inputRequests"]["q"]["method"], method,
                    "{answer}"
                );
                assert_eq!(answer["result"]["requestState"], "opaque \u{2028} state");
            } else {
                assert_eq!(answer["error"]["code"], -31403, "{method}: {answer}");
                assert_eq!(answer.get("result"), None);
            }
            let inside = move |record: &Value| {
                record["mcp"]["method"] == method && record["mcp"]["from"] == "server"
            };
            let daemon = &world.daemon;
            let asked = wait_for("a record for each time", LIMIT, async || {
                let mut records = daemon.audit().ok()?;
                records.retain(&inside);
                records.into_iter().nth(usize::from(stream))
            })
            .await
            .unwrap();
            told_inside(daemon, &asked, allowed).await;
        }
    }
}

/// What the record of a request inside an answer says, and that of the call.
async fn told_inside(daemon: &Daemon<'_>, asked: &Value, allowed: bool) {
    let known = asked["mcp"]["method"] != "vendor/x";
    let (effect, status) = if allowed {
        ("allow", "done")
    } else {
        ("deny", "refused")
    };
    assert_eq!(asked["decision"]["effect"], effect, "{asked}");
    assert_eq!(asked["outcome"]["status"], status, "{asked}");
    assert_eq!(asked["mcp"]["server"], "far", "{asked}");
    assert_eq!(asked["mcp"]["id"], "\"q\"", "{asked}");
    let reason = match (allowed, known) {
        (true, _) => "a rule allows it",
        (false, true) => "no rule matched",
        (false, false) => "a request that does not stand in results",
    };
    assert_eq!(asked["decision"]["reason"], reason, "{asked}");
    let rule = if allowed { json!("asks") } else { Value::Null };
    assert_eq!(asked["decision"]["rule"], rule, "{asked}");
    let call = daemon
        .record("the call", |record| {
            record["id"] == asked["cause"]["id"] && record["outcome"].is_object()
        })
        .await
        .unwrap();
    assert_eq!(call["mcp"]["method"], "tools/call", "{call}");
    assert_eq!(asked["session"], call["session"], "{asked}");
    let why = "the server's answer was not acceptable: it asks for something that is refused";
    let why = if allowed { Value::Null } else { json!(why) };
    assert_eq!(call["outcome"]["error"], why, "{call}");
}
