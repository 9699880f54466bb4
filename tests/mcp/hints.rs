//! What servers say of their own tools decides for nobody but whom they said it to, and as much as one says pushes out
//! nothing of another's.

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::stdio::Session;
use serde_json::{Value, json};

use crate::stdio::{Wire, alive, instance, policy, wired};

/// Tools that say that they read may be called.
const READS: &str = "rules: [{ id: reads, tools: { class: read }, effect: allow }]";

/// The server lists these tools, with these annotations.
async fn lists(session: &mut Session, wire: &mut Wire, id: &str, tools: &[String], said: &Value) {
    let ask = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
    session.send(&ask).await.unwrap();
    wire.hears(&format!("\"{id}\"")).await;
    let tools = tools.iter().map(
        |name| json!({ "name": name, "inputSchema": { "type": "object" }, "annotations": said }),
    );
    let tools: Vec<Value> = tools.collect();
    wire.say(&json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": tools } }));
    let answer = session.receive().await.unwrap();
    assert_eq!(answer["id"], id, "{answer}");
    assert!(answer["result"]["tools"].is_array());
}

/// Whether a call of `tool` reaches the server.
async fn passes(session: &mut Session, wire: &mut Wire, id: &str, tool: &str) -> bool {
    let params = json!({ "name": tool, "arguments": {} });
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    session.send(&call).await.unwrap();
    // What is refused is answered before this is: it is heard next.
    alive(session, wire, &format!("after {id}")).await;
    wire.heard().contains(&format!("\"id\":\"{id}\""))
}

async fn two(lab: &Lab, daemon: &Daemon<'_>) -> [(Wire, Session); 2] {
    let (mut wire, mut other) = (Wire::new(lab, "wire"), Wire::new(lab, "second"));
    let session = wired(daemon, &mut wire).await;
    let mut beside = instance(lab, "second");
    alive(&mut beside, &mut other, "begin").await;
    [(wire, session), (other, beside)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instances_list_says_nothing_of_anothers() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&lab, READS)).await.unwrap();
    let [(mut wire, mut session), (mut other, mut beside)] = two(&lab, &daemon).await;
    let reads = json!({ "readOnlyHint": true, "openWorldHint": false });
    let tools = ["wipe".to_owned()];
    lists(&mut session, &mut wire, "list", &tools, &reads).await;
    assert!(passes(&mut session, &mut wire, "own", "wipe").await);
    // Neither before the other has listed it at all, nor after it listed it as what it is.
    assert!(!passes(&mut beside, &mut other, "unlisted", "wipe").await);
    lists(&mut beside, &mut other, "list", &tools, &json!({})).await;
    lists(&mut session, &mut wire, "again", &tools, &reads).await;
    assert!(!passes(&mut beside, &mut other, "listed", "wipe").await);
    assert!(passes(&mut session, &mut wire, "still", "wipe").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_without_end_costs_no_other_session_its_tools() {
    /// More than are kept of all together.
    const MORE: usize = 30;
    const PAGE: usize = 10_000;
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&lab, READS)).await.unwrap();
    let [(mut wire, mut session), (mut other, mut beside)] = two(&lab, &daemon).await;
    let reads = json!({ "readOnlyHint": true, "openWorldHint": false });
    let get = ["get".to_owned()];
    lists(&mut session, &mut wire, "list", &get, &reads).await;
    for page in 0..MORE {
        let tools: Vec<String> = (0..PAGE).map(|tool| format!("{page}-{tool}")).collect();
        let id = format!("page-{page}");
        lists(&mut beside, &mut other, &id, &tools, &reads).await;
    }
    assert!(passes(&mut session, &mut wire, "own", "get").await);
    let last = format!("{}-{}", MORE - 1, PAGE - 1);
    assert!(passes(&mut beside, &mut other, "last", &last).await);
    assert!(!passes(&mut beside, &mut other, "first", "0-0").await);
}
