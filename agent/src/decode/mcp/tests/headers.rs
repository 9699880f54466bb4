//! Headers that lie, and the encoding of those that do not.

use hyper::http::HeaderMap;
use hyper::http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{LEGACY, MODERN, message};
use crate::decode::base64;
use crate::decode::json::Value;
use crate::decode::mcp::HeaderFault as F;
use crate::decode::mcp::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

const V: (&str, &str) = ("MCP-Protocol-Version", "2026-07-28");
const M: (&str, &str) = ("Mcp-Method", "tools/call");
const N: (&str, &str) = ("Mcp-Name", "danger");

/// Message, headers, verdict.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Result<(), HeaderFault>,
);

const HEADERS: &[Row] = &[
    (MODERN, &[V, M, N], Ok(())),
    (MODERN, &[V, M, ("Mcp-Name", "  danger\t")], Ok(())),
    (MODERN, &[V, M, ("Mcp-Name", "=?base64?ZGFuZ2Vy?=")], Ok(())),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?BASE64?ZGFuZ2Vy?=")],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?base64?ZGFuZ2V=?=")],
        Err(F::Malformed(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?base64?ZGFuZ2Vyc?=")],
        Err(F::Malformed(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?base64?c2FmZQ==?=")],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?base64?c2FmZQ?=")],
        Err(F::Malformed(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "=?base64?/w==?=")],
        Err(F::Malformed(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "safe")],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "Danger")],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "danger, danger")],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, M, ("Mcp-Name", "dang\u{e9}r")],
        Err(F::Malformed(MCP_NAME)),
    ),
    (MODERN, &[V, M, N, N], Err(F::Duplicate(MCP_NAME))),
    (
        MODERN,
        &[V, M, N, ("mcp-name", "safe")],
        Err(F::Duplicate(MCP_NAME)),
    ),
    (
        MODERN,
        &[V, V, M, N],
        Err(F::Duplicate(MCP_PROTOCOL_VERSION)),
    ),
    (MODERN, &[V, M, M, N], Err(F::Duplicate(MCP_METHOD))),
    (MODERN, &[V, M], Err(F::Missing(MCP_NAME))),
    (MODERN, &[V, N], Err(F::Missing(MCP_METHOD))),
    (MODERN, &[M, N], Err(F::Missing(MCP_PROTOCOL_VERSION))),
    (
        MODERN,
        &[V, ("Mcp-Method", "tools/list"), N],
        Err(F::Mismatch(MCP_METHOD)),
    ),
    (
        MODERN,
        &[V, ("Mcp-Method", "Tools/call"), N],
        Err(F::Mismatch(MCP_METHOD)),
    ),
    // The downgrade: a modern body under an old header, or an old body under a modern one.
    (
        MODERN,
        &[("MCP-Protocol-Version", "2025-03-26"), M, N],
        Err(F::Mismatch(MCP_PROTOCOL_VERSION)),
    ),
    (LEGACY, &[V, M, N], Err(F::Envelope)),
    (
        LEGACY,
        &[("MCP-Protocol-Version", "2027-01-01")],
        Err(F::Envelope),
    ),
    (LEGACY, &[], Ok(())),
    (LEGACY, &[("MCP-Protocol-Version", "2025-11-25")], Ok(())),
    (LEGACY, &[("Mcp-Name", "safe")], Err(F::Mismatch(MCP_NAME))),
    (
        LEGACY,
        &[("Mcp-Method", "ping")],
        Err(F::Mismatch(MCP_METHOD)),
    ),
    (LEGACY, &[M, N], Ok(())),
    // A response must not carry headers of a call, nor may a method without a name.
    (
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        &[M],
        Err(F::Mismatch(MCP_METHOD)),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        &[N],
        Err(F::Mismatch(MCP_NAME)),
    ),
    (
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
        &[V],
        Ok(()),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"v/x","params":{"uri":"danger"}}"#,
        &[N],
        Ok(()),
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"v/x","params":{}}"#,
        &[N],
        Err(F::Mismatch(MCP_NAME)),
    ),
];

#[test]
fn headers_that_lie_are_refused() {
    for (text, lines, expected) in HEADERS {
        assert_eq!(
            check_headers(&headers(lines), &message(text)),
            *expected,
            "{lines:?}"
        );
    }
}

#[test]
fn batches_allow_no_header_that_describes_one_message() {
    let check = |lines: &[(&str, &str)]| check_batch_headers(&headers(lines));
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[("MCP-Protocol-Version", "2025-03-26")]), Ok(()));
    for version in ["2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28", "x"] {
        let lines = [("MCP-Protocol-Version", version)];
        assert_eq!(
            check(&lines),
            Err(HeaderFault::Mismatch(MCP_PROTOCOL_VERSION))
        );
    }
    assert_eq!(
        check(&[("Mcp-Name", "a")]),
        Err(HeaderFault::Mismatch(MCP_NAME))
    );
}

/// The table of "Value Encoding" in the specification.
#[test]
fn header_values_are_encoded_as_specified() {
    let rows = [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ];
    for (value, encoded) in rows {
        assert_eq!(encode_value(value).unwrap(), encoded);
        assert_eq!(decode_value(encoded).unwrap(), value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn encoded_names_agree_with_the_body(name in any::<String>()) {
        let encoded = encode_value(&name).unwrap();
        let stated = encoded.to_str().unwrap();
        prop_assert_eq!(decode_value(stated).unwrap(), name.as_str());
        let text = MODERN.replace("\"danger\"", &Value::from(name.as_str()).to_text());
        let lines = headers(&[
            ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", stated),
        ]);
        prop_assert_eq!(check_headers(&lines, &message(&text)), Ok(()));
    }

    #[test]
    fn base64_has_one_text_for_each_value(text in "[A-Za-z0-9+/=]{0,12}") {
        if let Some(bytes) = base64::decode(&text) {
            let mut again = String::new();
            base64::encode(&bytes, &mut again);
            prop_assert_eq!(again, text);
        }
    }
}
