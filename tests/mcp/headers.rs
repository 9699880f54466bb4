//! Headers that repeat the body must say what it says; what lies is refused and reaches nobody.

use exeat_tests::Lab;

use crate::smuggling::Fate::{self, Refused, Sent};
use crate::smuggling::{M, N, SAFE, V, check, report, world};

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
