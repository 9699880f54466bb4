//! Headers that repeat arguments: which they are, and that they may not lie.

use hyper::http::HeaderMap;
use hyper::http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{message, object};
use crate::decode::mcp::HeaderFault as F;
use crate::decode::mcp::{HeaderFault, Mirrors, check_params};
use crate::decode::rpc::Message;

const ANY: &str = "mcp-param-*";

const TOOL: &str = r#"{"name":"t","inputSchema":{"type":"object","properties":{
    "region":{"type":"string","x-mcp-header":"Region"},
    "count":{"type":"integer","x-mcp-header":"Count"},
    "really":{"type":"boolean","x-mcp-header":"Really"},
    "where":{"type":"object","properties":{"shelf":{"type":"string","x-mcp-header":"shelf.Of"}}},
    "text":{"type":"string"}}}}"#;

fn call(arguments: &str, modern: bool) -> Message {
    let meta = if modern {
        r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#
    } else {
        ""
    };
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}{meta}}}}}"#
    ))
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

/// Arguments, headers, verdict.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Result<(), HeaderFault>,
);

const REGION: (&str, &str) = ("Mcp-Param-Region", "us-west1");

const ROWS: &[Row] = &[
    (r#"{"region":"us-west1"}"#, &[REGION], Ok(())),
    (
        r#"{"region":"us-west1"}"#,
        &[("MCP-PARAM-REGION", " us-west1\t")],
        Ok(()),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[("Mcp-Param-Region", "=?base64?dXMtd2VzdDE=?=")],
        Ok(()),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[("Mcp-Param-Region", "=?base64?dXMtd2VzdDE?=")],
        Err(F::Malformed(ANY)),
    ),
    // Without both markers it is what it says.
    (
        r#"{"region":"dXMtd2VzdDE="}"#,
        &[("Mcp-Param-Region", "dXMtd2VzdDE=")],
        Ok(()),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[("Mcp-Param-Region", "dXMtd2VzdDE=")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[("Mcp-Param-Region", "us-east1")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[("Mcp-Param-Region", "US-WEST1")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"region":"us-west1"}"#,
        &[REGION, REGION],
        Err(F::Duplicate(ANY)),
    ),
    (r#"{"region":"us-west1"}"#, &[], Err(F::Missing(ANY))),
    (r#"{"region":null}"#, &[], Ok(())),
    (r#"{"region":null}"#, &[REGION], Err(F::Mismatch(ANY))),
    ("{}", &[REGION], Err(F::Mismatch(ANY))),
    // Another argument says it, but the header is that of this one.
    (
        r#"{"region":"eu","text":"us-west1"}"#,
        &[REGION],
        Err(F::Mismatch(ANY)),
    ),
    // Numbers are compared as such.
    (r#"{"count":42}"#, &[("Mcp-Param-Count", "42")], Ok(())),
    (r#"{"count":42.0}"#, &[("Mcp-Param-Count", "42")], Ok(())),
    (r#"{"count":42}"#, &[("Mcp-Param-Count", "42.0")], Ok(())),
    (r#"{"count":4.2e1}"#, &[("Mcp-Param-Count", "42")], Ok(())),
    (r#"{"count":-0}"#, &[("Mcp-Param-Count", "0")], Ok(())),
    (r#"{"count":42}"#, &[("Mcp-Param-Count", "042")], Ok(())),
    (
        r#"{"count":42}"#,
        &[("Mcp-Param-Count", "4.2e1")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"count":42}"#,
        &[("Mcp-Param-Count", "0x2a")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"count":42}"#,
        &[("Mcp-Param-Count", "-42")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"count":42}"#,
        &[("Mcp-Param-Count", "42.5")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"count":9007199254740993}"#,
        &[("Mcp-Param-Count", "9007199254740992")],
        Err(F::Mismatch(ANY)),
    ),
    (r#"{"count":9007199254740993}"#, &[], Ok(())),
    (
        r#"{"really":true}"#,
        &[("Mcp-Param-Really", "true")],
        Ok(()),
    ),
    (
        r#"{"really":true}"#,
        &[("Mcp-Param-Really", "True")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"really":false}"#,
        &[("Mcp-Param-Really", "true")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"where":{"shelf":"a"}}"#,
        &[("Mcp-Param-Shelf.of", "a")],
        Ok(()),
    ),
    (
        r#"{"where":{"shelf":"a"}}"#,
        &[("Mcp-Param-Shelf.of", "b")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"where":"a"}"#,
        &[("Mcp-Param-Shelf.of", "a")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"region":["us-west1"]}"#,
        &[REGION],
        Err(F::Mismatch(ANY)),
    ),
    // What no mark explains has to be said somewhere all the same.
    (r#"{"text":"a"}"#, &[("Mcp-Param-Other", "a")], Ok(())),
    (
        r#"{"text":"a"}"#,
        &[("Mcp-Param-Other", "b")],
        Err(F::Mismatch(ANY)),
    ),
    (
        r#"{"text":"a"}"#,
        &[("Mcp-Param-Other", "a"), ("Mcp-Param-Other", "b")],
        Err(F::Duplicate(ANY)),
    ),
];

#[test]
fn they_repeat_what_the_tool_says_that_they_do() {
    let mirrors = Mirrors::of(&object(TOOL));
    for (arguments, lines, verdict) in ROWS {
        let checked = check_params(&headers(lines), &call(arguments, true), Some(&mirrors));
        assert_eq!(checked, *verdict, "{arguments} {lines:?}");
        let legacy = check_params(&headers(lines), &call(arguments, false), Some(&mirrors));
        let verdict = match verdict {
            Err(F::Missing(_)) => Ok(()),
            other => *other,
        };
        assert_eq!(legacy, verdict, "legacy: {arguments} {lines:?}");
    }
}

#[test]
fn what_was_never_listed_may_not_lie_either() {
    let check = |arguments, lines: &[(&str, &str)]| {
        check_params(&headers(lines), &call(arguments, true), None)
    };
    assert_eq!(check(r#"{"region":"us-west1"}"#, &[REGION]), Ok(()));
    assert_eq!(check(r#"{"a":{"b":["us-west1"]}}"#, &[REGION]), Ok(()));
    assert_eq!(check(r#"{"region":"us-west1"}"#, &[]), Ok(()));
    assert_eq!(
        check(r#"{"region":"eu"}"#, &[REGION]),
        Err(F::Mismatch(ANY))
    );
    assert_eq!(check("{}", &[REGION]), Err(F::Mismatch(ANY)));
    let ping = message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(
        check_params(&headers(&[REGION]), &ping, None),
        Err(F::Mismatch(ANY))
    );
}

#[test]
fn a_tool_with_a_mark_that_is_not_allowed_marks_nothing() {
    let of = |properties: &str| {
        let text = format!(
            r#"{{"name":"t","inputSchema":{{"type":"object","properties":{properties}}}}}"#
        );
        Mirrors::of(&object(&text)).is_empty()
    };
    assert!(!of(r#"{"a":{"type":"string","x-mcp-header":"A"}}"#));
    for properties in [
        "{}",
        r#"{"a":{"type":"string","x-mcp-header":""}}"#,
        r#"{"a":{"type":"string","x-mcp-header":"A B"}}"#,
        r#"{"a":{"type":"string","x-mcp-header":"A:"}}"#,
        r#"{"a":{"type":"string","x-mcp-header":1}}"#,
        r#"{"a":{"type":"number","x-mcp-header":"A"}}"#,
        r#"{"a":{"type":"object","x-mcp-header":"A"}}"#,
        r#"{"a":{"x-mcp-header":"A"}}"#,
        r#"{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}"#,
    ] {
        assert!(of(properties), "{properties}");
    }
    let many: Vec<String> = (0..65)
        .map(|n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"H{n}"}}"#))
        .collect();
    assert!(of(&format!("{{{}}}", many.join(","))));
}

proptest! {
    #[test]
    fn numbers_are_equal_when_they_are(number: i32, zeros in 0_usize..4, power in 0_u32..3) {
        let mirrors = Mirrors::of(&object(TOOL));
        let arguments = format!(r#"{{"count":{number}e{power}}}"#);
        let value = i64::from(number).saturating_mul(10_i64.pow(power));
        let stated = format!("{value}.0{}", "0".repeat(zeros));
        let lines = headers(&[("mcp-param-count", &stated)]);
        prop_assert_eq!(check_params(&lines, &call(&arguments, true), Some(&mirrors)), Ok(()));
        let stated = format!("{}.0{}1", value, "0".repeat(zeros));
        let lines = headers(&[("mcp-param-count", &stated)]);
        prop_assert_eq!(
            check_params(&lines, &call(&arguments, true), Some(&mirrors)),
            Err(F::Mismatch(ANY))
        );
    }
}

#[test]
fn keys_beyond_the_bound_mark_nothing() {
    let marked = |bytes: usize| {
        let key = "k".repeat(bytes);
        let tool = format!(
            r#"{{"name":"t","inputSchema":{{"properties":{{"{key}":{{"properties":{{"a":{{"type":"string","x-mcp-header":"A"}}}}}}}}}}}}"#
        );
        !Mirrors::of(&object(&tool)).is_empty()
    };
    assert!(marked(1_023));
    assert!(!marked(1_024));
}
