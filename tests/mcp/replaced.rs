//! What a server gets in the place of its callers' tokens, on every way to it.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_for;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::refusals::call;
use crate::scripted::{Asked, Scripted, event, plain, status, stream};
use crate::talk::{EventReader, FAR, request, whole};
use crate::world::{LIMIT, World};

const OWN: &str = "0wn-S3cret.of-Exeat";
/// Where an old server has messages posted, outside its URL.
const ENDPOINT: &str = "/elsewhere/messages";

async fn world(lab: &Lab) -> World<'_> {
    let secret = lab.keep("own", OWN).unwrap();
    let name = format!("{}host", lab.name());
    let policy = format!(
        "version: 1
credentials: {{ own: {{ file: {} }} }}
servers: {{ far: {{ url: \"https://{}/mcp\", authorization: {{ credential: own }} }} }}
hosts: {{ agent: {{ match: {{ cgroup: /{name} }}, servers: [far] }} }}
rules: [{{ id: calls, servers: [far], methods: [\"tools/*\", \"notifications/*\"], effect: allow }}]
",
        secret.display(),
        FAR.host,
    );
    let cgroup = Cgroup::create(&name).unwrap();
    let daemon = lab.daemon(&policy).await.unwrap();
    World {
        lab,
        daemon,
        cgroup,
    }
}

/// What the server was asked, each with the credential alone.
fn asked(server: &Scripted) -> Vec<Asked> {
    let all = server.seen();
    for asked in &all {
        let sent: Vec<_> = asked.headers.get_all("authorization").iter().collect();
        assert_eq!(sent, [&format!("Bearer {OWN}")], "{asked:?}");
    }
    all
}

/// The client's own, which goes nowhere.
const TOKEN: (&str, &str) = ("authorization", "Bearer mine");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_the_server_carries_the_credential() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(WORLD, 443);
    let server = Scripted::far(&lab, FAR.host, address, |asked| {
        let begins = asked.header("accept") == Some("text/event-stream");
        match (&asked.method, asked.json()["params"]["name"].as_str()) {
            (&Method::GET, _) if begins => {
                let (writer, mut response) = stream();
                let session = HeaderValue::from_static("session-1");
                response.headers_mut().insert("mcp-session-id", session);
                tokio::spawn(async move {
                    let endpoint = format!("event: endpoint\ndata: {ENDPOINT}\n\n");
                    let _gone = writer.send_data(endpoint.into()).await;
                });
                response
            }
            (&Method::DELETE, _) => status(StatusCode::OK),
            (_, Some("asks")) => {
                let (writer, response) = stream();
                let id = asked.json()["id"].clone();
                tokio::spawn(async move {
                    let ask = json!({ "jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {} });
                    let done = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } });
                    for message in [ask, done] {
                        let _gone = writer.send_data(event(&message)).await;
                    }
                });
                response
            }
            _ => plain(asked),
        }
    })
    .unwrap();
    let world = world(&lab).await;
    let talker = world.talker().await.unwrap();
    let session = ("mcp-session-id", "session-1");

    // Streams, and streams that are taken up again; then what a client of the old transport posts.
    for second in [false, true] {
        let headers = [
            TOKEN,
            session,
            ("last-event-id", "stream::7"),
            ("accept", "text/event-stream"),
            ("content-type", ""),
        ];
        let get = request("GET", FAR.path, &headers, "").unwrap();
        let response = if second {
            talker.send_h2(FAR, get).await
        } else {
            talker.send(FAR, get).await
        };
        let mut events = EventReader::new(response.unwrap());
        let first = events.next().await.unwrap().unwrap();
        assert!(first.contains(ENDPOINT), "{first}");
        let last = asked(&server).pop().unwrap();
        assert_eq!(last.header("last-event-id"), Some("stream::7"));
    }
    let posted = request("POST", ENDPOINT, &[TOKEN], call(&json!(1), "posted")).unwrap();
    let reply = whole(talker.send(FAR, posted).await.unwrap());
    assert!(reply.await.unwrap().json()["result"].is_object());
    assert_eq!(asked(&server).pop().unwrap().path, ENDPOINT);

    // What is answered to the server in the client's place.
    let body = call(&json!(2), "asks");
    let reply = talker.post(FAR, &[TOKEN, session], body).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let refusal = wait_for("the server is told", LIMIT, async || {
        let told = |asked: &Asked| asked.json()["id"] == "s1";
        asked(&server).into_iter().find(told)
    })
    .await
    .unwrap();
    assert_eq!(refusal.json()["error"]["code"], -31403);
    let deleted = request("DELETE", FAR.path, &[TOKEN, session], "").unwrap();
    let reply = whole(talker.send(FAR, deleted).await.unwrap());
    assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    assert_eq!(asked(&server).pop().unwrap().method, Method::DELETE);

    let named = |method: &'static str| {
        move |record: &Value| {
            record["http"]["credential"] == "own" && record["mcp"]["method"] == method
        }
    };
    for method in ["tools/call", "sampling/createMessage"] {
        let record = world.daemon.record(method, named(method)).await.unwrap();
        assert!(record["outcome"]["status"].is_string(), "{record}");
    }
    let records = json!(world.daemon.audit_lines().unwrap()).to_string();
    assert!(!records.contains(OWN) && !records.contains("Bearer mine"));
}
