//! What reaches a server is what was decided: messages that parsers read differently, batches, headers that lie,
//! and HTTP that two readers would split differently. The rule allows `safe` and nothing else, and the server
//! remembers every byte.

use std::net::{Ipv4Addr, SocketAddr};

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::scripted::{Scripted, plain};
use crate::talk::{Place, Talker};
use crate::world::{LIMIT, World};

pub(crate) const PLACE: Place = Place {
    host: "localhost",
    port: 3931,
    tls: false,
    path: "/mcp",
};

const RULES: &str = "rules: [{ id: safe, tools: [safe], effect: allow }]";

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// Answered with this status and JSON-RPC code; nothing reaches the server.
    Refused(u16, i64),
    /// Accepted without an answer; nothing reaches the server.
    Dropped,
    /// This text reaches the server.
    Sent(&'static str),
}
use Fate::{Dropped, Refused, Sent};

pub(crate) const PARSE: Fate = Refused(400, -32700);
pub(crate) const INVALID: Fate = Refused(400, -32600);
pub(crate) const UNKNOWN: Fate = Refused(200, -32602);
pub(crate) const SAFE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe"}}"#;

/// Section by section: bodies as JSON texts that a byte string can hold.
pub(crate) const TEXTS: &[(&str, Fate)] = &[
    (SAFE, Sent(SAFE)),
    // Written anew: order, escapes, blanks and line ends are ours.
    (
        "{\"params\":{\"name\":\"s\\u0061fe\"},\r\n\"method\":\"tools\\/call\",\r\"id\":1,\"jsonrpc\":\"2.0\"}",
        Sent(SAFE),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":9007199254740993,"f":1.0}}}"#,
        Sent(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":9007199254740993,"f":1.0}}}"#,
        ),
    ),
    // A duplicate key: the last, the first or the merged one counts, depending on who reads.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"danger"}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","name":"danger"}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","n\u0061me":"danger"}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe"},"params":{"arguments":{}}}"#,
        PARSE,
    ),
    // Keys that some fold.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{"name":"danger"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","PARAMS":{"name":"danger"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","param\u017f":{"name":"danger"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","\u212aame":"x","Name":"danger"}}"#,
        INVALID,
    ),
    // Escapes are compared decoded.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"d\u0061nger"}}"#,
        UNKNOWN,
    ),
    // Numbers that are none.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":NaN}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":-Infinity}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":1e400}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":01}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":+1}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"n":0x1}}}"#,
        PARSE,
    ),
    // Ids that come back as others.
    (
        r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":100000000000000000000000000000,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":true,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":-0,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{"name":"safe"}}"#,
        Sent(r#"{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{"name":"safe"}}"#),
    ),
    // Strings that are no text.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"s":"\ud800"}}}"#,
        PARSE,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"m\ud800":1,"m\ud801":2}}}"#,
        PARSE,
    ),
    // More than one JSON text, or none.
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        PARSE,
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}x"#, PARSE),
    (
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\0",
        PARSE,
    ),
    (
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        PARSE,
    ),
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#, PARSE),
    (r#"{"jsonrpc":"2.0","id":1,/* */"method":"ping"}"#, PARSE),
    (r"{'jsonrpc':'2.0','id':1,'method':'ping'}", PARSE),
    (
        "{\u{c}\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        PARSE,
    ),
    (
        "{\u{a0}\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        PARSE,
    ),
    (
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"safe\",\"arguments\":{\"s\":\"\u{1}\"}}}",
        PARSE,
    ),
    ("", PARSE),
    ("null", INVALID),
    ("5", INVALID),
    (r#""tools/call""#, INVALID),
    ("[]", INVALID),
    // Messages of two kinds.
    (
        r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call","params":{"name":"danger"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe"},"extra":1}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"id":1,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":2.0,"id":1,"method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"safe"}}"#,
        INVALID,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
        INVALID,
    ),
    // Names that look alike are other names.
    (
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"safe\u{200b}\"}}",
        UNKNOWN,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe "}}"#,
        UNKNOWN,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"Safe"}}"#,
        UNKNOWN,
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["safe"]}}"#,
        Refused(200, -32602),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
        Refused(200, -32602),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"danger"}}"#,
        Refused(200, -32601),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"vendor/run","params":{"name":"safe"}}"#,
        Refused(200, -32601),
    ),
    (
        r#"{"jsonrpc":"2.0","method":"notifications/vendor"}"#,
        Dropped,
    ),
    // An answer to nothing that a server asked.
    (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Dropped),
];

pub(crate) async fn world(lab: &Lab) -> (Scripted, World<'_>, Talker) {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PLACE.port);
    let server = Scripted::near(lab, address, plain).unwrap();
    let url = format!("http://localhost:{}/mcp", PLACE.port);
    let world = World::new(lab, &[("near", url.as_str())], RULES)
        .await
        .unwrap();
    let talker = world.talker().await.unwrap();
    (server, world, talker)
}

/// Posts `body` and returns what became of it.
pub(crate) async fn check(
    talker: &Talker,
    server: &Scripted,
    headers: &[(&str, &str)],
    body: &[u8],
    want: &Fate,
) -> Result<(), String> {
    let shown = format!("{headers:?} {}", String::from_utf8_lossy(body));
    let reply = talker
        .post(PLACE, headers, body.to_vec())
        .await
        .map_err(|error| format!("{shown}: {error:#}"))?;
    let arrived: Vec<String> = server
        .take()
        .into_iter()
        .map(|asked| String::from_utf8_lossy(&asked.body).into_owned())
        .collect();
    let right = match want {
        Refused(status, code) => {
            arrived.is_empty() && reply.status.as_u16() == *status && reply.code() == Some(*code)
        }
        Dropped => arrived.is_empty() && reply.status.as_u16() == 202,
        Sent(text) => arrived == [*text] && reply.status.as_u16() == 200,
    };
    if right {
        Ok(())
    } else {
        Err(format!(
            "{shown}\n  wanted {want:?}\n  got {} {}\n  arrived {arrived:?}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        ))
    }
}

pub(crate) fn report(faults: Vec<Result<(), String>>) {
    let faults: Vec<String> = faults.into_iter().filter_map(Result::err).collect();
    assert!(
        faults.is_empty(),
        "{} rows\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_as_they_were_judged() {
    let lab = Lab::new().unwrap();
    let (server, _world, talker) = world(&lab).await;
    let mut faults = Vec::new();
    for (text, fate) in TEXTS {
        faults.push(check(&talker, &server, &[], text.as_bytes(), fate).await);
    }
    report(faults);
}

/// Bodies of which some readers make a call, and others none or another one; and what their records say.
pub(crate) fn unreadable() -> Vec<(Vec<u8>, &'static str)> {
    let with = |arguments: &[u8]| {
        let head = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"#;
        [head, arguments, b"}}}"].concat()
    };
    let utf32 = |bytes: fn(u32) -> [u8; 4]| SAFE.chars().flat_map(|c| bytes(c.into())).collect();
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        with(format!(r#""d":{open}{close}"#).as_bytes())
    };
    let not_utf8 = "bytes that are not UTF-8";
    let lone = "lone surrogate";
    let deep = "more than 64 levels of nesting";
    vec![
        (
            SAFE.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "unexpected byte",
        ),
        (utf32(u32::to_be_bytes), "unexpected byte"),
        (utf32(u32::to_le_bytes), "unexpected byte"),
        (with(b"\"s\":\"\xff\""), not_utf8),
        // CESU-8: a character as two surrogates, and two keys of one surrogate each, which some readers make one of.
        (with(b"\"s\":\"\xed\xa0\x80\xed\xb0\x80\""), not_utf8),
        (with(b"\"m\xed\xa0\x80\":1,\"m\xed\xa0\x81\":2"), not_utf8),
        (with(br#""m\ud800":1,"m\ud801":2"#), lone),
        (with(br#""m\ud800":{"m\ud801":2}"#), lone),
        (nested(200), deep),
        (nested(5000), deep),
        (
            with(format!(r#""n":{}"#, "9".repeat(5000)).as_bytes()),
            "number of more than 512 characters",
        ),
    ]
}

/// Waits until what records say of messages that were refused unread is this, one after the other.
pub(crate) async fn recorded(daemon: &Daemon<'_>, faults: &[&str]) {
    let unread = |record: &&Value| {
        let method = record["mcp"]["method"].as_str().unwrap_or_default();
        record["outcome"]["status"] == "refused" && method.is_empty()
    };
    let said = || -> Vec<String> {
        let records = daemon.audit().unwrap();
        let why = records.iter().filter(unread);
        let why = why.filter_map(|record| record["outcome"]["error"].as_str());
        let kind = |why: &str| {
            let (_, fault) = why.split_once("unacceptable JSON: ")?;
            Some(fault.split_once(" at byte ")?.0.to_owned())
        };
        why.map(|why| kind(why).unwrap_or_else(|| why.to_owned()))
            .collect()
    };
    wait_until("each has its record", LIMIT, || {
        said().len() >= faults.len()
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {:#?}", said()));
    assert_eq!(said(), faults);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_readers_disagree_about_is_refused_and_recorded() {
    let lab = Lab::new().unwrap();
    let (server, world, talker) = world(&lab).await;
    let rows = unreadable();
    let mut faults = Vec::new();
    for (body, _) in &rows {
        faults.push(check(&talker, &server, &[], body, &PARSE).await);
    }
    report(faults);
    let said: Vec<&str> = rows.iter().map(|(_, said)| *said).collect();
    recorded(&world.daemon, &said).await;
}

pub(crate) const V: &str = "mcp-protocol-version";
pub(crate) const M: &str = "mcp-method";
pub(crate) const N: &str = "mcp-name";
fn request(id: u32, tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_of_a_batch_is_judged_where_there_are_batches() {
    let lab = Lab::new().unwrap();
    let (server, world, talker) = world(&lab).await;
    let batch = format!(
        r#"[{},{},{{"jsonrpc":"2.0","method":"notifications/initialized"}},{},5]"#,
        request(1, "safe"),
        request(2, "danger"),
        request(3, "safe"),
    );
    for headers in [&[][..], &[(V, "2025-03-26")]] {
        let reply = talker.post(PLACE, headers, batch.clone()).await.unwrap();
        let answers = reply.json();
        let of = |id: Value| {
            let answers = answers.as_array().unwrap();
            answers
                .iter()
                .find(|answer| answer["id"] == id)
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(answers.as_array().map(Vec::len), Some(4), "{answers}");
        assert!(of(json!(1))["result"].is_object(), "{answers}");
        assert!(of(json!(3))["result"].is_object(), "{answers}");
        assert_eq!(of(json!(2))["error"]["code"], -32602, "{answers}");
        assert_eq!(of(Value::Null)["error"]["code"], -32600, "{answers}");
        let arrived = server.take();
        let want = format!(
            r#"[{},{{"jsonrpc":"2.0","method":"notifications/initialized"}},{}]"#,
            request(1, "safe"),
            request(3, "safe")
        );
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].body, want);
    }
    // Where there are none, each entry is told so and none arrives.
    let batch = format!("[{},{}]", request(1, "safe"), request(2, "safe"));
    for headers in [
        &[(V, "2025-06-18")][..],
        &[(V, "2025-11-25")],
        &[(V, "2026-07-28")],
        &[(M, "tools/call")],
        &[(V, "2025-03-26"), (N, "safe")],
    ] {
        let reply = talker.post(PLACE, headers, batch.clone()).await.unwrap();
        let answers = reply.json();
        for index in 0..2 {
            assert_eq!(
                answers[index]["error"]["code"], -32600,
                "{headers:?} {reply:?}"
            );
        }
        assert!(server.take().is_empty(), "{headers:?}");
    }
    // Two with one id: one is executed.
    let twice = format!("[{},{}]", request(1, "safe"), request(1, "safe"));
    let reply = talker.post(PLACE, &[], twice).await.unwrap();
    assert_eq!(reply.json().as_array().map(Vec::len), Some(2), "{reply:?}");
    assert_eq!(server.take()[0].body, format!("[{}]", request(1, "safe")));
    let refused = world
        .daemon
        .record("the refused entry", |record| {
            record["mcp"]["name"] == "danger"
        })
        .await
        .unwrap();
    assert_eq!(refused["decision"]["effect"], "deny", "{refused}");
}

/// A POST of `body` with these lines in place of its framing.
fn framed(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n{lines}\r\n{body}", PLACE.port).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_has_one_reading() {
    let lab = Lab::new().unwrap();
    let (server, _world, talker) = world(&lab).await;
    let length = format!("Content-Length: {}\r\n", SAFE.len());
    let chunked = format!("{:x}\r\n{SAFE}\r\n0\r\n\r\n", SAFE.len());
    let hidden = request(2, "danger");
    let pipelined = format!(
        "0\r\n\r\nPOST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{hidden}",
        PLACE.port,
        hidden.len()
    );
    let trailed = format!(
        "{:x}\r\n{SAFE}\r\n0\r\nMcp-Name: danger\r\n\r\n",
        SAFE.len()
    );
    let at = |path: &str, host: &str| -> Vec<u8> {
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{length}\r\n{SAFE}").into()
    };
    let here = format!("localhost:{}", PLACE.port);
    // Name, bytes, whether SAFE arrives.
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("plain", framed(&length, SAFE), true),
        (
            "chunked",
            framed("Transfer-Encoding: chunked\r\n", &chunked),
            true,
        ),
        (
            "chunked in another case",
            framed("Transfer-Encoding:  Chunked \r\n", &chunked),
            true,
        ),
        (
            "chunk extensions",
            framed(
                "Transfer-Encoding: chunked\r\n",
                &chunked.replacen("\r\n", ";a=b\r\n", 1),
            ),
            true,
        ),
        (
            "a trailer that lies",
            framed(
                "Transfer-Encoding: chunked\r\nTrailer: Mcp-Name\r\n",
                &trailed,
            ),
            true,
        ),
        // Framed anew, so that nobody behind the gate has to choose (RFC 9112 section 6.3).
        (
            "chunked and a length",
            framed(&format!("Transfer-Encoding: chunked\r\n{length}"), &chunked),
            true,
        ),
        (
            "chunked and length 0",
            framed(
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                &pipelined,
            ),
            false,
        ),
        (
            "a length and another",
            framed(&format!("{length}Content-Length: 5\r\n"), SAFE),
            false,
        ),
        (
            "chunked twice",
            framed(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                &chunked,
            ),
            true,
        ),
        (
            "xchunked",
            framed("Transfer-Encoding: xchunked\r\n", &chunked),
            false,
        ),
        (
            "chunked, not last",
            framed("Transfer-Encoding: chunked, identity\r\n", &chunked),
            false,
        ),
        (
            "a chunk size ended by LF",
            framed(
                "Transfer-Encoding: chunked\r\n",
                &chunked.replacen("\r\n", "\n", 1),
            ),
            false,
        ),
        (
            "a chunk size 0x",
            framed("Transfer-Encoding: chunked\r\n", &format!("0x{chunked}")),
            false,
        ),
        (
            "a negative length",
            framed("Content-Length: -1\r\n", SAFE),
            false,
        ),
        (
            "a length with plus",
            framed(&format!("Content-Length: +{}\r\n", SAFE.len()), SAFE),
            false,
        ),
        (
            "a blank before the colon",
            framed(&format!("Content-Length : {}\r\n", SAFE.len()), SAFE),
            false,
        ),
        (
            "a folded line",
            framed(&format!("X-A: b\r\n c\r\n{length}"), SAFE),
            false,
        ),
        (
            "absolute form",
            at(&format!("http://{here}/mcp"), &here),
            true,
        ),
        (
            "absolute form, other scheme",
            at(&format!("https://{here}/mcp"), &here),
            false,
        ),
        (
            "absolute form, other host",
            at("http://evil.example/mcp", &here),
            false,
        ),
        (
            "two hosts",
            at("/mcp", &format!("{here}\r\nHost: evil.example")),
            false,
        ),
        ("another host", at("/mcp", "evil.example"), false),
        ("another port", at("/mcp", "localhost:1"), false),
        ("a path in another case", at("/MCP", &here), false),
        ("an encoded path", at("/%6dcp", &here), true),
        ("a trailing slash", at("/mcp/", &here), true),
        // Servers read these in several ways, and one way could be another server's path.
        ("two slashes", at("//mcp", &here), false),
        ("a parameter", at("/mcp;a=b", &here), false),
        ("dots", at("/x/../mcp", &here), false),
    ];
    let mut faults = Vec::new();
    for (name, bytes, passes) in rows {
        let answer = talker.raw(PLACE, &bytes).await.unwrap();
        let arrived: Vec<String> = server
            .take()
            .into_iter()
            .map(|asked| String::from_utf8_lossy(&asked.body).into_owned())
            .collect();
        let right = if passes {
            arrived == [SAFE]
        } else {
            !arrived.iter().any(|body| !body.is_empty())
        };
        if !right {
            faults.push(Err(format!(
                "{name}: arrived {arrived:?}; answered {answer}"
            )));
        }
        assert!(
            !arrived.iter().any(|body| body.contains("danger")),
            "{name}"
        );
    }
    report(faults);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_other_than_those_of_mcp_are_refused() {
    let lab = Lab::new().unwrap();
    let (server, _world, talker) = world(&lab).await;
    for (method, body) in [
        ("PUT", SAFE),
        ("PATCH", SAFE),
        ("GET", SAFE),
        ("DELETE", SAFE),
    ] {
        let headers = [("x-http-method-override", "POST")];
        let request = crate::talk::request(method, "/mcp", &headers, body).unwrap();
        let reply = crate::talk::whole(talker.send(PLACE, request).await.unwrap())
            .await
            .unwrap();
        assert!(!reply.status.is_success(), "{method}: {reply:?}");
        assert!(server.take().is_empty(), "{method}");
    }
    let headers = [("x-http-method-override", "POST")];
    let request = crate::talk::request("GET", "/mcp", &headers, "").unwrap();
    let reply = crate::talk::whole(talker.send(PLACE, request).await.unwrap())
        .await
        .unwrap();
    assert_eq!(reply.status, 405, "the server's own answer");
    assert_eq!(server.take()[0].header("x-http-method-override"), None);
}
