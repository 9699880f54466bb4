//! Event streams: without delay, in both directions, resumed and cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::{wait_for, wait_until};
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::refusals::call;
use crate::scripted::{Scripted, Writer, event, plain, result, status, stream};
use crate::talk::{EventReader, FAR, Place, request, whole};
use crate::world::{ALL, LIMIT, URL, World};

pub(crate) const SESSION: [(&str, &str); 2] = [
    ("mcp-protocol-version", "2025-11-25"),
    ("mcp-session-id", "session-1"),
];

pub(crate) fn at() -> SocketAddr {
    SocketAddr::new(WORLD, 443)
}

/// Writers that the test uses by hand, in the order in which their streams were asked for.
#[derive(Clone, Default)]
pub(crate) struct Writers(Arc<Mutex<Vec<Writer>>>);

impl Writers {
    pub(crate) fn put(&self, writer: Writer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(writer);
    }

    pub(crate) async fn take(&self) -> Writer {
        let take = || self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        wait_for("a stream is asked for", LIMIT, async || take())
            .await
            .unwrap()
    }
}

fn progress(number: u32) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": "t", "progress": number } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_delivered_event_by_event_and_resumed_by_its_id() {
    let lab = Lab::new().unwrap();
    let writers = Writers::default();
    let theirs = writers.clone();
    let server = Scripted::far(&lab, FAR.host, at(), move |asked| match asked.method {
        Method::GET => {
            let (writer, mut response) = stream();
            theirs.put(writer);
            let session = HeaderValue::from_static("session-1");
            response.headers_mut().insert("mcp-session-id", session);
            response
        }
        Method::DELETE => status(StatusCode::OK),
        _ => plain(asked),
    })
    .unwrap();
    let world = World::new(&lab, &[("far", URL)], ALL).await.unwrap();
    let talker = world.talker().await.unwrap();
    for second in [false, true] {
        let mut headers = SESSION.to_vec();
        headers.extend([
            ("last-event-id", "stream::7"),
            ("accept", "text/event-stream"),
            ("content-type", ""),
        ]);
        let get = request("GET", FAR.path, &headers, "").unwrap();
        let response = if second {
            talker.send_h2(FAR, get).await
        } else {
            talker.send(FAR, get).await
        };
        let response = response.unwrap();
        assert_eq!(response.headers()["mcp-session-id"], "session-1");
        let mut events = EventReader::new(response);
        let writer = writers.take().await;
        // Each is received before the next is written.
        writer
            .send_data("id: p\nretry: 500\ndata:\n\n".into())
            .await
            .unwrap();
        let first = events.next().await.unwrap().unwrap();
        assert!(
            first.contains("id: p") && first.contains("retry: 500"),
            "{first}"
        );
        for number in 0..20 {
            let text = format!("id: stream::{number}\ndata: {}\n\n", progress(number));
            writer.send_data(text.into()).await.unwrap();
            let event = events.next().await.unwrap().unwrap();
            assert!(event.contains(&format!("id: stream::{number}")), "{event}");
            assert!(event.contains(&format!("\"progress\":{number}")), "{event}");
        }
        writer.send_data(": alive\r\r".into()).await.unwrap();
        assert!(events.next().await.unwrap().unwrap().starts_with(':'));
        // Line ends of every kind, and data on several lines: read as one, written as one.
        let spread = "event: message\rdata: {\"jsonrpc\":\"2.0\",\rdata: \"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":2}}\r\r";
        writer.send_data(spread.into()).await.unwrap();
        let message = events.message().await.unwrap().unwrap();
        assert_eq!(message["method"], "notifications/progress");
        drop(writer);
        assert_eq!(events.next().await.unwrap(), None);
    }
    let gets = server.take();
    assert_eq!(gets[0].header("last-event-id"), Some("stream::7"));
    assert_eq!(gets[0].header("mcp-session-id"), Some("session-1"));
    let delete = request("DELETE", FAR.path, &SESSION, "").unwrap();
    assert_eq!(
        whole(talker.send(FAR, delete).await.unwrap())
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(server.take()[0].header("mcp-session-id"), Some("session-1"));
    let ended = world
        .daemon
        .record("the session's end", |record| {
            record["http"]["method"] == "DELETE"
        })
        .await
        .unwrap();
    assert_eq!(ended["outcome"]["status"], "done", "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_on_a_stream_taken_up_again_has_a_record_that_names_its_call() {
    let lab = Lab::new().unwrap();
    let writers = Writers::default();
    let theirs = writers.clone();
    let _server = Scripted::far(&lab, FAR.host, at(), move |asked| {
        if asked.json()["method"] == "initialize" {
            return plain(asked);
        }
        let (writer, response) = stream();
        theirs.put(writer);
        response
    })
    .unwrap();
    let rest = format!("{ALL}\nresponses: {{ content: [text] }}");
    let world = World::new(&lab, &[("far", URL)], &rest).await.unwrap();
    let talker = world.talker().await.unwrap();
    for (id, answer, status) in [
        (1, json!({ "content": [] }), "done"),
        (2, json!({ "tools": "not a list" }), "refused"),
        (3, json!({ "content": [{ "type": "audio" }] }), "refused"),
    ] {
        let asked = talker.post(FAR, &SESSION, call(&json!(id), "slow"));
        let writer = async {
            let writer = writers.take().await;
            writer.send_data("id: cut\ndata:\n\n".into()).await.unwrap();
        };
        let (cut, ()) = tokio::join!(asked, writer);
        assert_eq!(cut.unwrap().status, 200);
        let mut headers = SESSION.to_vec();
        headers.extend([
            ("last-event-id", "cut"),
            ("accept", "text/event-stream"),
            ("content-type", ""),
        ]);
        let get = request("GET", FAR.path, &headers, "").unwrap();
        let mut events = EventReader::new(talker.send(FAR, get).await.unwrap());
        let writer = writers.take().await;
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": answer });
        writer.send_data(event(&answer)).await.unwrap();
        let came = events.message().await.unwrap().unwrap();
        assert_eq!(came.get("error").is_some(), status == "refused", "{came}");
        let text = id.to_string();
        let about = |from: Option<&'static str>| {
            let text = text.clone();
            move |record: &Value| {
                record["mcp"]["id"] == text.as_str() && record["mcp"]["from"].as_str() == from
            }
        };
        let call = world.daemon.record("the call", about(None)).await.unwrap();
        let late = world
            .daemon
            .record("its answer", about(Some("server")))
            .await
            .unwrap();
        assert_eq!(call["outcome"]["status"], "done", "{call}");
        assert_eq!(late["outcome"]["status"], status, "{late}");
        assert_eq!(late["mcp"]["method"], "tools/call", "{late}");
        assert_eq!(late["cause"]["id"], call["id"], "{late}");
        assert_eq!(late["inspected"]["response"]["extent"], "full", "{late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_streams_and_large_answers_arrive_whole() {
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, FAR.host, at(), |asked| {
        let id = asked.json()["id"].clone();
        let content = |text: String| json!({ "content": [{ "type": "text", "text": text }] });
        match asked.json()["params"]["name"].as_str() {
            Some("big") => result(asked, content("x".repeat(1 << 20))),
            Some("events") => {
                let (writer, response) = stream();
                tokio::spawn(async move {
                    for number in 0..1000 {
                        if writer.send_data(event(&progress(number))).await.is_err() {
                            return;
                        }
                    }
                    let last = json!({ "jsonrpc": "2.0", "id": id, "result": content("x".repeat(1 << 20)) });
                    let _sent = writer.send_data(event(&last)).await;
                });
                response
            }
            _ => plain(asked),
        }
    })
    .unwrap();
    let world = World::new(&lab, &[("far", URL)], ALL).await.unwrap();
    let talker = world.talker().await.unwrap();
    let big = talker
        .post(FAR, &SESSION, call(&json!(1), "big"))
        .await
        .unwrap();
    assert_eq!(
        big.json()["result"]["content"][0]["text"]
            .as_str()
            .map(str::len),
        Some(1 << 20)
    );
    for second in [false, true] {
        let post = request("POST", FAR.path, &SESSION, call(&json!(2), "events")).unwrap();
        let response = if second {
            talker.send_h2(FAR, post).await
        } else {
            talker.send(FAR, post).await
        };
        let mut events = EventReader::new(response.unwrap());
        for number in 0..1000 {
            let message = events.message().await.unwrap().unwrap();
            assert_eq!(message["params"]["progress"], number);
        }
        let last = events.message().await.unwrap().unwrap();
        assert_eq!(last["id"], 2);
        assert_eq!(
            last["result"]["content"][0]["text"].as_str().map(str::len),
            Some(1 << 20)
        );
        assert_eq!(events.message().await.unwrap(), None);
    }
    let record = world
        .daemon
        .record("the call that was streamed", |record| {
            record["mcp"]["name"] == "events"
        })
        .await
        .unwrap();
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    assert_eq!(record["mcp"]["isError"], false, "{record}");
    let counted = json!({ "notifications/progress": 1000 });
    assert_eq!(record["mcp"]["notifications"], counted, "{record}");
}

/// Every record of something that a server said.
fn said(world: &World<'_>) -> Vec<Value> {
    let mut records = world.daemon.audit().unwrap();
    records.retain(|record| record["mcp"]["from"] == "server");
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_is_counted_or_recorded() {
    const METHODS: usize = 16;
    let notification = |method: &str| json!({ "jsonrpc": "2.0", "method": method });
    let lab = Lab::new().unwrap();
    let _server = Scripted::far(&lab, FAR.host, at(), move |asked| {
        let listens = asked.method == Method::GET;
        if !listens && asked.json()["method"] != "tools/call" {
            return plain(asked);
        }
        let (writer, response) = stream();
        let answer = (!listens)
            .then(|| asked.json()["id"].clone())
            .map(|id| json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } }));
        tokio::spawn(async move {
            let mut events = vec![progress(1), notification("notifications/vendor")];
            // One method is counted already; the last of these finds no room.
            events
                .extend((0..METHODS).map(|n| notification(&format!("notifications/allowed/{n}"))));
            events.push(progress(2));
            events.extend(answer);
            // The exchange that it could belong to is over.
            events.push(progress(3));
            for message in events {
                if writer.send_data(event(&message)).await.is_err() {
                    return;
                }
            }
        });
        response
    })
    .unwrap();
    let rules = r#"rules: [{ id: calls, tools: ["*"], effect: allow }, { id: some, methods: ["notifications/allowed/*"], effect: allow }]"#;
    let world = World::new(&lab, &[("far", URL)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    for listens in [false, true] {
        let sent = if listens {
            let mut headers = SESSION.to_vec();
            headers.extend([("accept", "text/event-stream"), ("content-type", "")]);
            request("GET", FAR.path, &headers, "").unwrap()
        } else {
            request("POST", FAR.path, &SESSION, call(&json!(1), "says")).unwrap()
        };
        let before = said(&world).len();
        let mut events = EventReader::new(talker.send(FAR, sent).await.unwrap());
        let mut methods = Vec::new();
        while let Some(message) = events.message().await.unwrap() {
            methods.extend(message["method"].as_str().map(str::to_owned));
        }
        assert_eq!(methods.len(), 3 + METHODS, "{methods:?}");
        assert!(
            !methods
                .iter()
                .any(|method| method == "notifications/vendor")
        );
        let http = if listens { "GET" } else { "POST" };
        let record = world
            .daemon
            .record("the exchange with the stream", |record| {
                record["http"]["method"] == http
            })
            .await
            .unwrap();
        let counted = record["mcp"]["notifications"].as_object().unwrap();
        assert_eq!(counted.len(), METHODS, "{record}");
        // The stream that is listened to goes on after any answer.
        let progressed = if listens { 3 } else { 2 };
        assert_eq!(counted["notifications/progress"], progressed, "{record}");
        assert_eq!(counted["notifications/allowed/0"], 1, "{record}");
        assert_eq!(record["mcp"]["server"], "far", "{record}");
        assert_eq!(record["outcome"]["status"], "done", "{record}");

        let own = if listens { 2 } else { 3 };
        wait_until("the others are recorded", LIMIT, || {
            said(&world).len() == before + own
        })
        .await
        .unwrap();
        let own = said(&world).split_off(before);
        let effect = |method: &str| {
            let record = own.iter().find(|record| record["mcp"]["method"] == method);
            record.map(|record| record["decision"]["effect"].clone())
        };
        assert_eq!(effect("notifications/vendor"), Some(json!("deny")));
        assert_eq!(effect("notifications/allowed/15"), Some(json!("allow")));
        let late = (!listens).then(|| json!("allow"));
        assert_eq!(effect("notifications/progress"), late);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_is_gone_for_the_server() {
    let lab = Lab::new().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&gone);
    let server = Scripted::far(&lab, FAR.host, at(), move |_asked| {
        let (writer, response) = stream();
        let gone = Arc::clone(&theirs);
        tokio::spawn(async move {
            while writer.send_data(event(&progress(1))).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            gone.fetch_add(1, Ordering::SeqCst);
        });
        response
    })
    .unwrap();
    let world = World::new(&lab, &[("far", URL)], ALL).await.unwrap();
    let talker = world.talker().await.unwrap();
    for (number, second) in [(1, false), (2, true)] {
        let post = request("POST", FAR.path, &[], call(&json!(number), "endless")).unwrap();
        let response = if second {
            talker.send_h2(FAR, post).await
        } else {
            talker.send(FAR, post).await
        };
        let mut events = EventReader::new(response.unwrap());
        assert!(events.message().await.unwrap().is_some());
        drop(events);
        wait_until("the server's stream is closed", LIMIT, || {
            gone.load(Ordering::SeqCst) == number
        })
        .await
        .unwrap();
        let id = number.to_string();
        let aborted = world
            .daemon
            .record("the aborted call", |record| {
                record["mcp"]["id"].as_str() == Some(&*id)
            })
            .await
            .unwrap();
        assert_ne!(aborted["outcome"]["status"], "done", "{aborted}");
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_acceptable_message_ends_a_stream() {
    let lab = Lab::new().unwrap();
    let near = Place {
        host: "localhost",
        port: 3941,
        tls: false,
        path: "/sse",
    };
    let _server = Scripted::near(&lab, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3941), |asked| {
        let (writer, response) = stream();
        let kind = asked.path.split_once('?').map(|(_, kind)| kind.to_owned()).unwrap_or_default();
        tokio::spawn(async move {
            let bad: &[u8] = match kind.as_str() {
                "foreign" => b"event: endpoint\ndata: http://evil.example/message\n\n",
                "port" => b"event: endpoint\ndata: http://localhost:1/message\n\n",
                "scheme" => b"event: endpoint\ndata: javascript:alert(1)\n\n",
                "array" => b"data: [{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}]\n\n",
                "twice" => b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"method\":\"ping\"}\n\n",
                "bytes" => b"data: {\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}\n\n",
                _ => b"event: vendor\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1}\n\n",
            };
            if writer.send_data(bad.to_vec().into()).await.is_ok() {
                let _sent = writer.send_data(event(&progress(7))).await;
            }
            // Stays open: whoever ends it is the gate.
            sleep(LIMIT).await;
        });
        response
    })
    .unwrap();
    let world = World::new(&lab, &[("near", "http://localhost:3941/sse")], ALL)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    for kind in ["foreign", "port", "scheme", "array", "twice", "bytes"] {
        let headers = [("accept", "text/event-stream"), ("content-type", "")];
        let get = request("GET", &format!("/sse?{kind}"), &headers, "").unwrap();
        // It may end before its head has left.
        if let Ok(response) = talker.send(near, get).await {
            let next = EventReader::new(response).next().await;
            assert!(!matches!(next, Ok(Some(_))), "{kind}: {next:?}");
        }
        // Who waits for an answer on such a stream gets an error.
        let place = Place {
            path: if kind == "array" {
                "/sse?array"
            } else {
                "/sse?twice"
            },
            ..near
        };
        let post = request("POST", place.path, &[], call(&json!(3), "a")).unwrap();
        let mut events = EventReader::new(talker.send(place, post).await.unwrap());
        let answer = events.message().await.unwrap().unwrap();
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(3), &json!(-31502))
        );
        assert_eq!(events.message().await.unwrap(), None);
    }
    let refused = world
        .daemon
        .record("a stream that was stopped", |record| {
            record.to_string().contains("an endpoint of another origin")
        })
        .await
        .unwrap();
    assert_eq!(refused["outcome"]["status"], "refused", "{refused}");
    // Of a type that clients ignore: not sent on, and the stream lives.
    let get = request(
        "GET",
        "/sse?vendor",
        &[("accept", "text/event-stream"), ("content-type", "")],
        "",
    )
    .unwrap();
    let mut events = EventReader::new(talker.send(near, get).await.unwrap());
    assert_eq!(events.message().await.unwrap(), Some(progress(7)));
}
