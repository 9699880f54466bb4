//! What a server answers over HTTP, row by row where clients differ: what the client reads of it, and its record.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use exeat_tests::Lab;
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::refusals::call;
use crate::scripted::{Body, Scripted, status};
use crate::talk::{Place, request, whole};
use crate::world::{ALL, World};

const NEAR: Place = Place {
    host: "localhost",
    port: 3951,
    tls: false,
    path: "/mcp",
};
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const PLAIN: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#;
const NAMELESS: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":5,"message":"m"}}"#;
/// What is not delivered, in a record's words.
const ANSWER: &str = "the server's answer was not acceptable";
const EVENT: &str = "an event that is not an acceptable message";
const STREAM: &str = "an event stream that cannot be read";

/// What becomes of an answer.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The client reads these messages with the server's status; the record calls what answered this.
    Reads(&'static [&'static str], &'static str),
    /// The client reads an error with its request's id; the record says why.
    Refused(&'static str),
}
use Fate::{Reads, Refused};

/// An answer of a server to the call with id 1 of the tool that is called like the row.
#[derive(Clone)]
struct Row {
    name: &'static str,
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    fate: Fate,
}

impl Row {
    fn of(&self) -> hyper::Response<Body> {
        let mut response = status(StatusCode::from_u16(self.status).unwrap());
        for (name, value) in &self.headers {
            let name = HeaderName::from_static(name);
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        *response.body_mut() = Full::new(self.body.clone()).boxed();
        response
    }
}

fn row(name: &'static str, kind: &'static str, body: impl Into<Bytes>, fate: Fate) -> Row {
    let headers = vec![("content-type", kind)];
    let body = body.into();
    Row {
        name,
        status: 200,
        headers,
        body,
        fate,
    }
}

/// `result` (JSON) as the answer with the id that is written `id`.
fn answer(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn data(message: &str) -> String {
    format!("data: {message}\n\n")
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| {
        let pair: String = pair.iter().collect();
        u8::from_str_radix(&pair, 16).unwrap()
    };
    digits.chunks(2).map(byte).collect()
}

/// `{"jsonrpc":"2.0","id":1,"result":{"coded":1}}`, and the last one as an event, as encoders make them.
const CODED: [(&str, &str, &str, &str); 5] = [
    (
        "gzip",
        JSON,
        "gzip",
        "1f8b0800000000000003ab56ca2acecf2b2a4856b25232d23350d251ca4c51b232d4512a4a2d2ecd2951b2aa564ace4f490589d5d6020007a0a24c2d000000",
    ),
    (
        "gzip-twice",
        JSON,
        "gzip, gzip",
        "1f8b080000000000000393efe6600003e6d561a7b4ce9dd7d6f208db146474c938e052e0299fc04d465702b5bc74f5ce6a066e5a15e675cedf93b5f3ea352606f6058b7c7481da00523590f93f000000",
    ),
    (
        "br",
        JSON,
        "br",
        "0b16807b226a736f6e727063223a22322e30222c226964223a312c22726573756c74223a7b22636f646564223a317d7d03",
    ),
    (
        "zstd",
        JSON,
        "zstd",
        "28b52ffd202d6901007b226a736f6e727063223a22322e30222c226964223a312c22726573756c74223a7b22636f646564223a317d7d",
    ),
    (
        "gzip-events",
        EVENTS,
        "gzip",
        "1f8b08000000000000034b492c49b452a856ca2acecf2b2a4856b25232d23350d251ca4c51b232d4512a4a2d2ecd2951b2aa564ace4f490589d5d6727101007aa8e26735000000",
    ),
];

/// Answers that are one JSON text.
fn texts() -> Vec<Row> {
    let read = Reads(&[PLAIN], "result");
    let json = |name, body: String, fate| row(name, JSON, body, fate);
    let both = r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"m"}}"#;
    vec![
        json("plain", PLAIN.into(), read),
        // Every client takes one for the other; what is delivered is what was asked with.
        json("text-id", answer(r#""1""#, r#"{"a":1}"#), read),
        // Whose it is, the exchange says.
        json(
            "no-id",
            NAMELESS.replace(r#""id":null,"#, ""),
            Reads(&[NAMELESS], "error"),
        ),
        json("fraction-id", answer("1.0", "{}"), Refused(ANSWER)),
        json(
            "other-id",
            answer("2", "{}"),
            Refused("the server's answer does not answer this request"),
        ),
        json("array", format!("[{PLAIN}]"), Refused(ANSWER)),
        json(
            "array-of-two",
            format!("[{PLAIN},{}]", answer("1", r#"{"b":2}"#)),
            Refused(ANSWER),
        ),
        json("two-texts", format!("{PLAIN}{PLAIN}"), Refused(ANSWER)),
        json("mark", format!("\u{feff}{PLAIN}"), Refused(ANSWER)),
        json("both", both.into(), Refused(ANSWER)),
        json(
            "surrogate",
            answer("1", r#"{"a":"\ud800"}"#),
            Refused(ANSWER),
        ),
        json(
            "nan",
            answer("1", r#"{"structuredContent":{"a":NaN}}"#),
            Refused(ANSWER),
        ),
        json("twice", answer("1", r#"{"a":1,"a":2}"#), Refused(ANSWER)),
        row(
            "json-utf16",
            "application/json; charset=utf-16le",
            utf16(PLAIN),
            Refused(ANSWER),
        ),
        row("unlabelled", "text/plain", PLAIN, Refused(ANSWER)),
    ]
}

/// Answers that are a stream.
fn streams() -> Vec<Row> {
    const SECOND: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"b":2}}"#;
    let read = Reads(&[PLAIN], "stream");
    let events = |name, body: String, fate| row(name, EVENTS, body, fate);
    vec![
        events("event", data(PLAIN), read),
        row("EVENT-STREAM", "TEXT/EVENT-STREAM", data(PLAIN), read),
        events("event-text-id", data(&answer(r#""1""#, r#"{"a":1}"#)), read),
        events(
            "event-fraction-id",
            data(&answer("1.0", "{}")),
            Refused(EVENT),
        ),
        // Clients keep to the first. The second may be another exchange's, and has a record of its own.
        events(
            "second",
            data(PLAIN) + &data(SECOND),
            Reads(&[PLAIN, SECOND], "stream"),
        ),
        // One mark at the beginning is no part of a stream (HTML, 9.2.6). Every client reads what is sent on.
        events("event-mark", format!("\u{feff}{}", data(PLAIN)), read),
        events(
            "event-inner-mark",
            data(&format!("\u{feff}{PLAIN}")),
            Refused(EVENT),
        ),
        events("event-cr", format!(": c\rdata: {PLAIN}\r\r"), read),
        events(
            "event-lines",
            PLAIN
                .replace(",\"", ",\ndata: \"")
                .replacen('{', "data: {", 1)
                + "\n\n",
            read,
        ),
        events("event-array", data(&format!("[{PLAIN}]")), Refused(EVENT)),
        events(
            "event-twice",
            data(&answer("1", r#"{"a":1,"a":2}"#)),
            Refused(EVENT),
        ),
        events(
            "event-surrogate",
            data(&answer("1", r#"{"a":"\ud800"}"#)),
            Refused(EVENT),
        ),
        events(
            "event-nan",
            data(&answer("1", r#"{"a":NaN}"#)),
            Refused(EVENT),
        ),
        row(
            "event-bytes",
            EVENTS,
            &b"data: {\"a\":\"\xff\"}\n\n"[..],
            Refused(STREAM),
        ),
        row(
            "event-utf16",
            "text/event-stream; charset=utf-16-le",
            utf16(&data(PLAIN)),
            Refused(ANSWER),
        ),
    ]
}

fn rows() -> Vec<Row> {
    let coded = CODED.map(|(name, kind, coding, hex)| {
        let mut coded = row(name, kind, bytes(hex), Refused(ANSWER));
        coded.headers.push(("content-encoding", coding));
        coded
    });
    let with = |row: Row, status| Row { status, ..row };
    let read = Reads(&[PLAIN], "result");
    let moved = Row {
        name: "moved",
        status: 307,
        headers: vec![("location", "http://localhost:3952/mcp")],
        body: Bytes::new(),
        fate: Reads(&[], "none"),
    };
    let mut rows = texts();
    rows.extend(streams());
    rows.extend(coded);
    // No client takes these for answers; what they say is judged all the same.
    rows.push(with(row("accepted", JSON, PLAIN, read), 202));
    rows.push(with(row("failed", JSON, PLAIN, read), 500));
    rows.push(moved);
    rows
}

/// The messages in what a client was answered.
fn messages(body: &str) -> Vec<Value> {
    let events: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .collect();
    let texts = if events.is_empty() {
        vec![body]
    } else {
        events
    };
    texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_read_what_was_judged() {
    let lab = Lab::new().unwrap();
    let table = rows();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), NEAR.port);
    let server = Scripted::near(&lab, address, move |asked| {
        let tool = asked.json()["params"]["name"].clone();
        let row = table.iter().find(|row| tool == row.name);
        row.map_or_else(|| status(StatusCode::NOT_FOUND), Row::of)
    })
    .unwrap();
    let world = World::new(&lab, &[("near", "http://localhost:3951/mcp")], ALL)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    for Row {
        name,
        status,
        headers,
        fate,
        ..
    } in rows()
    {
        // Whatever a client can decode: the server is asked for what can be judged.
        let asks = [("accept-encoding", "gzip, br, zstd")];
        let post = request("POST", NEAR.path, &asks, call(&json!(1), name)).unwrap();
        let answered = talker.send(NEAR, post).await.unwrap();
        let location = answered.headers().get("location").cloned();
        let coding = answered.headers().get("content-encoding").cloned();
        let reply = whole(answered).await.unwrap();
        let shown = format!("{name}: {reply:?}");
        assert_eq!(coding, None, "{shown}");
        let read = messages(std::str::from_utf8(&reply.body).unwrap());
        let record = world
            .daemon
            .record(name, |record| record["mcp"]["name"] == name)
            .await
            .unwrap();
        let outcome = &record["outcome"];
        match fate {
            Reads(texts, kind) => {
                let texts: Vec<Value> = texts
                    .iter()
                    .map(|text| serde_json::from_str(text).unwrap())
                    .collect();
                assert_eq!(read, texts, "{shown}");
                assert_eq!(reply.status, status, "{shown}");
                assert_eq!(outcome["status"], "done", "{name}: {record}");
                assert_eq!(record["mcp"]["response"], kind, "{name}: {record}");
                assert_eq!(record["http"]["status"], status, "{name}: {record}");
                let sent = headers.iter().find(|(header, _)| *header == "location");
                assert_eq!(
                    location,
                    sent.map(|(_, value)| HeaderValue::from_static(value))
                );
            }
            Refused(why) => {
                assert_eq!(reply.status, StatusCode::OK, "{shown}");
                assert_eq!(read.len(), 1, "{shown}");
                assert_eq!(read[0]["id"], 1, "{shown}");
                assert_eq!(read[0]["error"]["code"], -31502, "{shown}");
                assert_eq!(outcome["status"], "refused", "{name}: {record}");
                assert_eq!(outcome["error"], why, "{name}: {record}");
            }
        }
    }
    for asked in server.seen() {
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
    }
    let all = world.daemon.audit().unwrap();
    let calls = |record: &&Value| record["mcp"]["method"] == "tools/call";
    assert_eq!(all.iter().filter(calls).count(), rows().len());
    let elsewhere: Vec<&Value> = all
        .iter()
        .filter(|record| {
            let why = record["inspected"]["request"].to_string();
            why.contains("it answers no request that is known")
        })
        .collect();
    assert_eq!(elsewhere.len(), 1, "{elsewhere:#?}");
    assert_eq!(elsewhere[0]["mcp"]["response"], "stream", "{elsewhere:#?}");
}
