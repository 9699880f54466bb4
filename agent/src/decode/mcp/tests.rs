//! Views, eras, headers and lists, hostile ones first.

use hyper::http::HeaderMap;
use hyper::http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::decode::json::{Limits, Object, Value, parse};
use crate::decode::rpc::{Message, parse_single};

fn message(text: &str) -> Message {
    parse_single(text.as_bytes(), &Limits::REQUEST).expect(text)
}

fn object(text: &str) -> Object {
    match parse(text.as_bytes(), &Limits::RESPONSE).expect(text) {
        Value::Object(object) => object,
        _ => panic!("an object"),
    }
}

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

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"2"}}}}"#;
const LEGACY: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{}}}"#;

use HeaderFault as F;
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

#[test]
fn the_body_decides_the_era() {
    let era = |text: &str, header| spoken(&message(text), header);
    let modern = Spoken {
        era: Era::Modern,
        revision: Some(Revision::V2026_07_28),
    };
    assert_eq!(era(MODERN, None), modern);
    assert_eq!(era(MODERN, Some("2025-03-26")), modern);
    let legacy = |revision| Spoken {
        era: Era::Legacy,
        revision,
    };
    assert_eq!(era(LEGACY, None), legacy(Some(Revision::V2025_03_26)));
    assert_eq!(
        era(LEGACY, Some("2025-11-25")),
        legacy(Some(Revision::V2025_11_25))
    );
    assert_eq!(era(LEGACY, Some("2026-07-28")), legacy(None));
    let odd = MODERN.replace("\"2026-07-28\"", "5");
    assert_eq!(
        era(&odd, None),
        Spoken {
            era: Era::Modern,
            revision: None
        }
    );
}

#[test]
fn views_show_what_is_decided_on() {
    let call = |method: &str, params: &str| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#
        ))
    };
    let named = |method, params| {
        view(&call(method, params)).map(|view| {
            view.name
                .map(|name| (format!("{name:?}"), name.text().to_owned()))
        })
    };
    let some = |kind: &str, name: &str| Ok(Some((kind.to_owned(), name.to_owned())));
    assert_eq!(
        named("tools/call", r#"{"name":"d\u0061nger"}"#),
        some("tool", "danger")
    );
    assert_eq!(
        named("tools/call", r#"{"name":"danger "}"#),
        some("tool", "danger ")
    );
    assert_eq!(named("prompts/get", r#"{"name":"p"}"#), some("prompt", "p"));
    assert_eq!(
        named("resources/read", r#"{"uri":"file:///x"}"#),
        some("resource", "file:///x")
    );
    assert_eq!(
        named("resources/subscribe", r#"{"uri":"u"}"#),
        some("resource", "u")
    );
    assert_eq!(named("tasks/get", r#"{"taskId":"t"}"#), some("task", "t"));
    let prompt = r#"{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}}"#;
    assert_eq!(named("completion/complete", prompt), some("prompt", "p"));
    let resource = r#"{"ref":{"type":"ref/resource","uri":"u"},"argument":null}"#;
    assert_eq!(
        named("completion/complete", resource),
        some("resource", "u")
    );
    assert_eq!(named("vendor/call", r#"{"name":"x"}"#), Ok(None));
}

#[test]
fn calls_without_what_they_are_decided_by_are_refused() {
    let fault = |method: &str, params: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        view(&message(&text)).err()
    };
    for params in ["{}", r#"{"name":5}"#, r#"{"name":null}"#, r#"{"uri":"x"}"#] {
        assert_eq!(
            fault("tools/call", params),
            Some(ViewFault::Name),
            "{params}"
        );
    }
    assert_eq!(
        fault("completion/complete", r#"{"ref":{"type":"x"}}"#),
        Some(ViewFault::Name)
    );
    assert_eq!(
        fault("tools/call", r#"{"name":"a","arguments":[]}"#),
        Some(ViewFault::Arguments)
    );
    assert_eq!(
        fault("tools/call", r#"{"name":"a","_meta":[]}"#),
        Some(ViewFault::Meta)
    );
    assert_eq!(
        fault("tools/call", r#"{"name":"a","arguments":null}"#),
        None
    );
}

#[test]
fn views_show_who_speaks() {
    let modern = message(MODERN);
    let client = view(&modern).unwrap().client.unwrap();
    assert_eq!((client.name, client.version), ("c", "2"));
    let initialize = message(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"i","version":"1"},"capabilities":{}}}"#,
    );
    let shown = view(&initialize).unwrap();
    assert_eq!(
        (shown.client.unwrap().name, shown.asks_for),
        ("i", Some("2025-11-25"))
    );
    assert_eq!(
        view(&message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).unwrap_err(),
        ViewFault::Response
    );
}

#[test]
fn lists_lose_what_is_not_kept() {
    let tools = r#"{"tools":[{"name":"a"},{"name":"b","x":1},{"name":"c"}],"nextCursor":"n"}"#;
    let mut result = object(tools);
    let filtered = filter(&mut result, List::Tools, Era::Legacy, |tool| {
        tool.name == "b"
    })
    .unwrap();
    assert_eq!(
        filtered,
        Filtered {
            kept: 1,
            removed: 2
        }
    );
    let text = Value::from(result).to_text();
    assert_eq!(text, r#"{"tools":[{"name":"b","x":1}],"nextCursor":"n"}"#);

    let scope = |text: &str, era| {
        let mut result = object(text);
        filter(&mut result, List::Tools, era, |_| true).unwrap();
        result
            .get("cacheScope")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let private = Some("private".to_owned());
    assert_eq!(
        scope(r#"{"tools":[],"cacheScope":"public"}"#, Era::Modern),
        private
    );
    assert_eq!(
        scope(r#"{"tools":[],"cacheScope":"public"}"#, Era::Legacy),
        private
    );
    assert_eq!(scope(r#"{"tools":[]}"#, Era::Modern), private);
    assert_eq!(scope(r#"{"tools":[]}"#, Era::Legacy), None);
}

#[test]
fn lists_that_a_client_could_read_differently_are_refused() {
    use ResultFault as F;
    let rows = [
        (r#"{"tools":[],"Tools":[{"name":"x"}]}"#, F::ConfusableKey),
        (r#"{"Tools":[]}"#, F::ConfusableKey),
        (r#"{"tools":[{"name":"a","Name":"b"}]}"#, F::ConfusableKey),
        (
            r#"{"tools":[],"cache\u017fcope":"public"}"#,
            F::ConfusableKey,
        ),
        (
            r#"{"tools":[{"name":"a","annotations":{"ReadOnlyHint":true}}]}"#,
            F::ConfusableKey,
        ),
        (r#"{"tools":{}}"#, F::Shape),
        (r"{}", F::Shape),
        (r#"{"tools":[{}]}"#, F::Shape),
        (r#"{"tools":[{"name":1}]}"#, F::Shape),
        (r#"{"tools":["a"]}"#, F::Shape),
    ];
    for (text, fault) in rows {
        assert_eq!(
            filter(&mut object(text), List::Tools, Era::Modern, |_| true),
            Err(fault),
            "{text}"
        );
    }
}

#[test]
fn absent_hints_are_the_dangerous_ones() {
    let hints = |annotations: &str| {
        let result = object(&format!(
            r#"{{"tools":[{{"name":"a","annotations":{annotations}}}]}}"#
        ));
        let hints = listed(&result, List::Tools).unwrap()[0].hints;
        (
            hints.is_read_only(),
            hints.is_destructive(),
            hints.is_open_world(),
        )
    };
    assert_eq!(hints("{}"), (false, true, true));
    assert_eq!(hints("null"), (false, true, true));
    assert_eq!(hints(r#"{"readOnlyHint":"true"}"#), (false, true, true));
    assert_eq!(hints(r#"{"readOnlyHint":true}"#), (true, false, true));
    assert_eq!(
        hints(r#"{"destructiveHint":false,"openWorldHint":false}"#),
        (false, false, false)
    );
}

#[test]
fn results_are_told_apart() {
    let kind = |text: &str| result_kind(&object(text));
    assert_eq!(kind(r#"{"content":[]}"#), Ok(ResultKind::Complete));
    assert_eq!(
        kind(r#"{"resultType":"complete"}"#),
        Ok(ResultKind::Complete)
    );
    assert_eq!(
        kind(r#"{"resultType":"input_required"}"#),
        Ok(ResultKind::InputRequired)
    );
    assert_eq!(kind(r#"{"resultType":"task"}"#), Ok(ResultKind::Task));
    assert_eq!(kind(r#"{"resultType":"other"}"#), Err(ResultFault::Type));
    assert_eq!(kind(r#"{"resultType":null}"#), Err(ResultFault::Type));
    assert_eq!(
        kind(r#"{"ResultType":"input_required"}"#),
        Err(ResultFault::ConfusableKey)
    );
    assert!(is_error(&object(r#"{"isError":true}"#)));
    assert!(!is_error(&object(r#"{"isError":"true"}"#)));
}

#[test]
fn requests_inside_results_are_found() {
    let methods = |text: &str| {
        let result = object(text);
        embedded(&result).map(|found| {
            found
                .iter()
                .map(|one| (one.key.to_owned(), one.method.to_owned()))
                .collect::<Vec<_>>()
        })
    };
    let pair = |key: &str, method: &str| (key.to_owned(), method.to_owned());
    assert_eq!(methods(r#"{"content":[]}"#), Ok(vec![]));
    assert_eq!(
        methods(
            r#"{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage","params":{}},"b":{"method":"roots/list"}},"requestState":"x"}"#
        ),
        Ok(vec![
            pair("a", "sampling/createMessage"),
            pair("b", "roots/list")
        ])
    );
    // tasks/get inlines the result of the call.
    assert_eq!(
        methods(
            r#"{"taskId":"t","result":{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{}}}}}"#
        ),
        Ok(vec![pair("a", "elicitation/create")])
    );
    for text in [
        r#"{"inputRequests":[]}"#,
        r#"{"inputRequests":{"a":5}}"#,
        r#"{"inputRequests":{"a":{}}}"#,
        r#"{"inputRequests":{"a":{"method":"roots/list","params":5}}}"#,
        r#"{"result":{"result":{"result":{"result":{"inputRequests":{}}}}}}"#,
    ] {
        assert_eq!(methods(text), Err(ResultFault::Shape), "{text}");
    }
    for text in [
        r#"{"InputRequests":{"a":{"method":"roots/list"}}}"#,
        r#"{"inputRequests":{"a":{"method":"roots/list","Method":"sampling/createMessage"}}}"#,
    ] {
        assert_eq!(methods(text), Err(ResultFault::ConfusableKey), "{text}");
    }
}

#[test]
fn greetings_of_both_eras() {
    let legacy = object(
        r#"{"protocolVersion":"2025-11-25","serverInfo":{"name":"s","version":"1"},"capabilities":{},"instructions":"i"}"#,
    );
    let greeting_legacy = greeting(&legacy, Era::Legacy);
    assert_eq!(greeting_legacy.server.unwrap().name, "s");
    assert_eq!(greeting_legacy.revisions, ["2025-11-25"]);
    assert_eq!(greeting_legacy.instructions, Some("i"));
    let modern = object(
        r#"{"resultType":"complete","supportedVersions":["2026-07-28","x"],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}}}"#,
    );
    let greeting_modern = greeting(&modern, Era::Modern);
    assert_eq!(greeting_modern.server.unwrap().version, "2");
    assert_eq!(greeting_modern.revisions, ["2026-07-28", "x"]);
}

#[test]
fn the_table_of_methods_is_consistent() {
    for entry in METHODS {
        let notification = entry.name.starts_with("notifications/");
        assert_eq!(
            notification,
            entry.kind == Kind::Notification,
            "{}",
            entry.name
        );
        assert_eq!(
            METHODS
                .iter()
                .filter(|other| other.name == entry.name)
                .count(),
            1
        );
        assert!(entry.exists_in(Era::Legacy) || entry.exists_in(Era::Modern));
    }
    assert!(method("Tools/call").is_none());
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
