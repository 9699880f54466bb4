//! What policy has records leave out: of arguments, wherever they are shown, and of results, of which they hold nothing.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::approvals::{approve, posted, until};
use crate::scripted::{Asked, Body, Scripted, event, plain, result, stream, text};
use crate::stdio::{Wire, policy, wired};
use crate::talk::{EventReader, FAR, LEGACY, request};
use crate::world::{ALL, LIMIT, NAME, World};

const OTHER: &str = "https://mcp.lab.example/other";
const SERVERS: [(&str, &str); 2] = [("crm", "https://mcp.lab.example/mcp"), ("other", OTHER)];
const MAIL: &str = "ann@customer.example";
const PHONE: &str = "+49 170 5550100";
/// What results hold.
const RESULT: &str = "Wh4t-the-result-says";
const RULES: &str = r#"
identities: { boss: { user: bin } }
rules:
  - { id: all, methods: ["*"], effect: allow }
  - { id: ask, servers: [crm], tools: [pay], effect: approve, approvers: [boss] }
"#;
const MASK: &str = r#"mask: [{ servers: [crm], args: [/customer/email, "/list/*/phone"], results: ["/content/*/text"] }]"#;

fn call(id: &str, tool: &str) -> Value {
    let arguments = json!({
        "customer": { "email": MAIL, "name": "Ann" }, "list": [{ "phone": PHONE }, { "phone": { "home": PHONE } }], "n": 7,
    });
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

/// The same as records hold it.
fn left() -> Value {
    let phone = json!({ "phone": "[masked]" });
    json!({ "customer": { "email": "[masked]", "name": "Ann" }, "list": [phone, phone], "n": 7 })
}

/// Says what nobody is to read in records, in every way that a server has.
fn tells(asked: &Asked) -> hyper::Response<Body> {
    let body = asked.json();
    let content = json!([{ "type": "text", "text": RESULT }]);
    match body["params"]["name"].as_str() {
        Some("fails") => result(asked, json!({ "content": content, "isError": true })),
        Some("errs") => {
            let error = json!({ "code": -32000, "message": RESULT, "data": content });
            text(json!({ "jsonrpc": "2.0", "id": body["id"], "error": error }).to_string())
        }
        Some("streams") => {
            let (writer, response) = stream();
            let told = json!({ "progressToken": "t", "progress": 1, "message": RESULT });
            let told =
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": told });
            let done =
                json!({ "jsonrpc": "2.0", "id": body["id"], "result": { "content": content } });
            tokio::spawn(async move {
                for message in [told, done] {
                    let _gone = writer.send_data(event(&message)).await;
                }
            });
            response
        }
        Some("refused") => result(asked, json!({ "content": RESULT })),
        Some(_) => result(
            asked,
            json!({ "content": content, "structuredContent": { "a": RESULT } }),
        ),
        None => plain(asked),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_approvers_see_no_masked_argument_and_nothing_of_a_result() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, NAME, SocketAddr::new(WORLD, 443), tells).unwrap();
    let rest = format!("{RULES}{MASK}\nresponses: {{ content: [text] }}");
    let world = World::new(&lab, &SERVERS, &rest).await.unwrap();
    let talker = world.talker().await.unwrap();
    let of = async |id: &str| {
        let quoted = format!("\"{id}\"");
        let ended =
            |record: &Value| record["mcp"]["id"] == *quoted && record["outcome"].is_object();
        world.daemon.record(id, ended).await.unwrap()
    };
    for tool in ["get", "fails", "errs", "refused"] {
        let reply = talker.post(FAR, &[LEGACY], call(tool, tool).to_string());
        let reply = reply.await.unwrap().json().to_string();
        assert_eq!(reply.contains(RESULT), tool != "refused", "{tool}: {reply}");
        assert_eq!(of(tool).await["mcp"]["arguments"], left(), "{tool}");
    }
    let post = request(
        "POST",
        FAR.path,
        &[LEGACY],
        call("s", "streams").to_string(),
    )
    .unwrap();
    let mut events = EventReader::new(talker.send(FAR, post).await.unwrap());
    while events.message().await.unwrap().is_some() {}
    assert_eq!(of("s").await["mcp"]["arguments"], left());
    // What the server gets is whole.
    let arrived = server.seen();
    assert_eq!(arrived.len(), 5);
    for (asked, id) in arrived.iter().zip(["get", "fails", "errs", "refused", "s"]) {
        assert_eq!(
            asked.json()["params"]["arguments"],
            call(id, id)["params"]["arguments"]
        );
    }

    // Of many arguments a record has names, kinds and sizes, and says so.
    let mut many = call("many", "get");
    many["params"]["arguments"]["text"] = json!(vec![MAIL; 500]);
    let reply = talker.post(FAR, &[LEGACY], many.to_string()).await.unwrap();
    assert!(reply.json()["result"].is_object());
    let told = &of("many").await["mcp"];
    assert_eq!(told["arguments"]["text"], "[array of 500]", "{told}");
    assert_eq!(told["arguments_cut"], true, "{told}");

    // Who decides sees no more than the record.
    let (mut events, _) = posted(&talker, &waits()).await;
    let waiting = until(&lab, 1).await;
    assert_eq!(waiting[0]["arguments"], left(), "{waiting:?}");
    // A mask that comes while it waits counts for its record: the policy that decides has it.
    let more = rest.replace("/customer/email,", "/customer,");
    world.replace(&SERVERS, "[]", &more).unwrap();
    wait_for("the policy to be in force", LIMIT, async || {
        talker
            .post(FAR, &[LEGACY], call("probe", "get").to_string())
            .await
            .ok()?;
        let records = world.daemon.audit().ok()?;
        let masked = |record: &Value| record["mcp"]["arguments"]["customer"] == "[masked]";
        records.iter().any(masked).then_some(())
    })
    .await
    .unwrap();
    approve(&lab, waiting[0]["id"].as_str().unwrap()).await;
    let answer = events.message().await.unwrap().unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    let told = of("waits").await;
    assert_eq!(told["mcp"]["arguments"]["customer"], "[masked]", "{told}");

    let all = json!(world.daemon.audit_lines().unwrap()).to_string() + &world.daemon.log();
    for secret in [MAIL, PHONE, RESULT] {
        assert!(!all.contains(secret), "{secret} is told");
    }
    // Other servers' are recorded as they are.
    let elsewhere = crate::talk::Place {
        path: "/other",
        ..FAR
    };
    let reply = talker.post(elsewhere, &[LEGACY], call("other", "get").to_string());
    assert!(reply.await.unwrap().json()["result"].is_object());
    let told = of("other").await;
    assert_eq!(
        told["mcp"]["arguments"]["customer"]["email"], MAIL,
        "{told}"
    );
}

fn waits() -> Value {
    let mut call = call("waits", "pay");
    call["params"]["_meta"] = json!({ "progressToken": "token" });
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_standard_streams_too() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let rest = format!("{ALL}\n{}", MASK.replace("servers: [crm], ", ""));
    let daemon = lab.daemon(&policy(&lab, &rest)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    session.send(&call("1", "get")).await.unwrap();
    let heard = wire.hears("tools/call").await;
    assert!(heard.contains(MAIL) && heard.contains(PHONE), "{heard}");
    let content = json!([{ "type": "text", "text": RESULT }]);
    wire.say(&json!({ "jsonrpc": "2.0", "id": "1", "result": { "content": content } }));
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["result"]["content"], content, "{answer}");
    assert!(session.close().await.unwrap().success());
    let called = |record: &Value| record["mcp"]["method"] == "tools/call";
    let told = daemon.record("the call", called).await.unwrap();
    assert_eq!(told["mcp"]["arguments"], left(), "{told}");
    let all = json!(daemon.audit_lines().unwrap()).to_string() + &daemon.log();
    for secret in [MAIL, PHONE, RESULT] {
        assert!(!all.contains(secret), "{secret} is told");
    }
}
