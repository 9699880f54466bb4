//! Headers that repeat the body must say what it says; what lies is refused and reaches nobody.

use std::net::{Ipv4Addr, SocketAddr};

use exeat_tests::Lab;
use serde_json::{Value, json};

use crate::scripted::{Scripted, plain, result};
use crate::smuggling::Fate::{self, Refused, Sent};
use crate::smuggling::{M, N, PLACE, SAFE, V, check, report, world};
use crate::world::World;

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
const MISMATCH: Fate = Refused(400, -32020);

/// A list of headers.
type Lines = &'static [(&'static str, &'static str)];

const HEADERS: &[(Lines, &str, Fate)] = &[
    (
        &[(V, "2026-07-28"), (M, "tools/call"), (N, "safe")],
        MODERN,
        Sent(MODERN),
    ),
    (
        &[
            (V, "2026-07-28"),
            (M, "tools/call"),
            (N, "=?base64?c2FmZQ==?="),
        ],
        MODERN,
        Sent(MODERN),
    ),
    (
        &[(V, "2026-07-28"), (M, "tools/call"), (N, "danger")],
        MODERN,
        MISMATCH,
    ),
    (
        &[(V, "2026-07-28"), (M, "tools/call"), (N, "Safe")],
        MODERN,
        MISMATCH,
    ),
    (
        &[
            (V, "2026-07-28"),
            (M, "tools/call"),
            (N, "safe"),
            (N, "danger"),
        ],
        MODERN,
        MISMATCH,
    ),
    (
        &[
            (V, "2026-07-28"),
            (M, "tools/call"),
            (N, "danger"),
            (N, "safe"),
        ],
        MODERN,
        MISMATCH,
    ),
    (
        &[(V, "2026-07-28"), (M, "tools/call"), (N, "safe, safe")],
        MODERN,
        MISMATCH,
    ),
    (
        &[
            (V, "2026-07-28"),
            (M, "tools/call"),
            (N, "=?BASE64?c2FmZQ==?="),
        ],
        MODERN,
        MISMATCH,
    ),
    (
        &[
            (V, "2026-07-28"),
            (M, "tools/call"),
            (N, "=?base64?c2FmZQ?="),
        ],
        MODERN,
        MISMATCH,
    ),
    (
        &[(V, "2026-07-28"), (M, "tools/list"), (N, "safe")],
        MODERN,
        MISMATCH,
    ),
    (&[(V, "2026-07-28"), (M, "tools/call")], MODERN, MISMATCH),
    (&[(V, "2026-07-28"), (N, "safe")], MODERN, MISMATCH),
    (
        &[(V, "2025-11-25"), (M, "tools/call"), (N, "safe")],
        MODERN,
        MISMATCH,
    ),
    (&[(M, "tools/call"), (N, "safe")], MODERN, MISMATCH),
    (
        &[(V, "2026-07-28"), (M, "tools/call"), (N, "safe")],
        SAFE,
        Refused(400, -32602),
    ),
    // The downgrade: servers do not look at these headers before 2026-07-28, and neither may a policy.
    (&[(V, "2025-11-25"), (M, "tools/list")], SAFE, MISMATCH),
    (
        &[(V, "2025-11-25"), (M, "tools/call"), (N, "other")],
        SAFE,
        MISMATCH,
    ),
    (&[(V, "2025-03-26")], SAFE, Sent(SAFE)),
    // What the body is, by its headers.
    (&[("content-encoding", "gzip")], SAFE, Refused(415, -31415)),
    (&[("content-encoding", "identity")], SAFE, Sent(SAFE)),
    (
        &[("content-type", "application/json; charset=utf-8")],
        SAFE,
        Sent(SAFE),
    ),
    (
        &[("content-type", "application/json;charset=utf-16le")],
        SAFE,
        Refused(415, -31415),
    ),
    (
        &[("content-type", "application/json;charset=utf-7")],
        SAFE,
        Refused(415, -31415),
    ),
    (
        &[("content-type", "application/jsonp")],
        SAFE,
        Refused(415, -31415),
    ),
    (
        &[("content-type", "application/json, text/plain")],
        SAFE,
        Refused(415, -31415),
    ),
    (
        &[("content-type", "text/plain; application/json")],
        SAFE,
        Refused(415, -31415),
    ),
    (
        &[("content-type", "text/plain")],
        SAFE,
        Refused(415, -31415),
    ),
    (&[("content-type", "")], SAFE, Refused(415, -31415)),
    (
        &[
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ],
        SAFE,
        Refused(415, -31415),
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_say_what_the_body_says() {
    let lab = Lab::new().unwrap();
    let (server, _world, talker) = world(&lab).await;
    let mut faults = Vec::new();
    for (headers, body, fate) in HEADERS {
        faults.push(check(&talker, &server, headers, body.as_bytes(), fate).await);
    }
    report(faults);
}

/// What `safe` is called with, and what a header says of it.
const PARAMS: &[(&str, Lines, Fate)] = &[
    (
        r#"{"path":"notes/a"}"#,
        &[("mcp-param-path", "notes/a")],
        Sent(""),
    ),
    (
        r#"{"path":"notes/a"}"#,
        &[("MCP-Param-Path", "=?base64?bm90ZXMvYQ==?=")],
        Sent(""),
    ),
    // Whoever routes by the header reads one thing, the server another.
    (
        r#"{"path":"/etc/shadow"}"#,
        &[("mcp-param-path", "notes/a")],
        MISMATCH,
    ),
    (
        r#"{"path":"/etc/shadow","note":"notes/a"}"#,
        &[("mcp-param-path", "notes/a")],
        MISMATCH,
    ),
    (
        r#"{"path":"notes/a"}"#,
        &[
            ("mcp-param-path", "notes/a"),
            ("mcp-param-path", "/etc/shadow"),
        ],
        MISMATCH,
    ),
    (
        r#"{"path":"notes/a"}"#,
        &[("mcp-param-path", "=?base64?bm90ZXMvYQ?=")],
        MISMATCH,
    ),
    (r#"{"path":"notes/a"}"#, &[], MISMATCH),
    (r#"{"path":null}"#, &[], Sent("")),
    (
        r#"{"path":null}"#,
        &[("mcp-param-path", "notes/a")],
        MISMATCH,
    ),
    (r#"{"count":7.0}"#, &[("mcp-param-count", "7")], Sent("")),
    (r#"{"count":7}"#, &[("mcp-param-count", "8")], MISMATCH),
    (
        r#"{"count":7}"#,
        &[("mcp-param-count", "7"), ("mcp-param-evil", "drop")],
        MISMATCH,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_repeat_the_arguments_that_the_tool_marks() {
    let lab = Lab::new().unwrap();
    let tools = json!([{ "name": "safe", "inputSchema": { "type": "object", "properties": {
        "path": { "type": "string", "x-mcp-header": "Path" },
        "count": { "type": "integer", "x-mcp-header": "Count" },
        "note": { "type": "string" },
    }}}]);
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PLACE.port);
    let server = Scripted::near(&lab, address, move |asked| {
        if asked.json()["method"] == "tools/list" {
            return result(asked, json!({ "tools": tools, "resultType": "complete" }));
        }
        plain(asked)
    })
    .unwrap();
    let rules = "rules: [{ id: safe, tools: [safe], effect: allow }]";
    let url = format!("http://localhost:{}/mcp", PLACE.port);
    let world = World::new(&lab, &[("notes", &url)], rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let body = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"safe","arguments":{arguments},{meta}}}}}"#
        )
    };
    let ask = async |arguments: &str, lines: Lines| {
        let mut headers = vec![(V, "2026-07-28"), (M, "tools/call"), (N, "safe")];
        headers.extend_from_slice(lines);
        let reply = talker.post(PLACE, &headers, body(arguments)).await;
        let reply = reply.unwrap();
        let arrived: Vec<_> = server.take().into_iter().map(|asked| asked.body).collect();
        (
            reply.status.as_u16(),
            reply.json()["error"]["code"].clone(),
            arrived,
        )
    };
    // Before the tool was listed: a lie is one, whatever it stands for; nothing is missed.
    let (status, code, arrived) = ask(r#"{"path":"x"}"#, &[("mcp-param-path", "y")]).await;
    assert_eq!((status, code, arrived.len()), (400, json!(-32020), 0));
    let (status, _, arrived) = ask(r#"{"path":"x"}"#, &[]).await;
    assert_eq!((status, arrived.len()), (200, 1));

    let list = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{meta}}}}}"#);
    let headers = [(V, "2026-07-28"), (M, "tools/list")];
    let reply = talker.post(PLACE, &headers, list).await.unwrap();
    assert_eq!(
        reply.json()["result"]["tools"][0]["name"],
        "safe",
        "{reply:?}"
    );
    server.take();
    let mut faults = Vec::new();
    for (arguments, lines, fate) in PARAMS {
        let (status, code, arrived) = ask(arguments, lines).await;
        let right = match fate {
            Refused(want, number) => status == *want && code == json!(number) && arrived.is_empty(),
            _ => status == 200 && code == Value::Null && arrived == [body(arguments)],
        };
        if !right {
            faults.push(Err(format!(
                "{arguments} {lines:?}: {status} {code} {arrived:?}"
            )));
        }
    }
    report(faults);
}
