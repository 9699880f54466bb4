//! Everything that a known server executes is recognised; ordinary traffic is not.

use hyper::http::HeaderMap;
use hyper::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{Scanner, Verdict, headers};
use crate::decode::json::Value;
use crate::decode::oracle;

fn verdict(bytes: impl AsRef<[u8]>) -> Verdict {
    let mut scanner = Scanner::new(&HeaderMap::new());
    scanner.push(bytes.as_ref());
    scanner.finish()
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;

/// Texts that at least one server of each row's list was seen to execute, however malformed they are.
#[test]
fn what_servers_execute_is_recognised() {
    let rows: &[&[u8]] = &[
        CALL.as_bytes(),
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#,
        br#"{"jsonrpc":"1.0","jsonrpc":"2.0","method":"x","method":"ping","id":1}"#,
        br#"{"m\u0065thod":"tools\/call","\u006asonrpc":"2\u002e0","id":1}"#,
        br#"{"method":"t\u006Fols/call","id":1,"params":{},"jsonrpc":"2.0"}"#,
        br#"{"params":{"arguments":{"a":NaN,"b":1e400,"c":"\ud800"}},"method":"tools/call","id":1,"jsonrpc":"2.0"}"#,
        br#"{"id":1,"result":{},"method":"tools/call","params":{"name":"x"},"jsonrpc":"2.0"}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","extra":[[[{}]]]}"#,
        br#"{"JSONRPC":"2.0","Method":"tools/call","ID":1}"#,
        br#"{"j\u017fonrpc":"2.0","method":"tools/call"}"#,
        "{\"j\u{17f}onrpc\":\"2.0\",\"method\":\"tools/call\"}".as_bytes(),
        b"\xEF\xBB\xBF{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"id\":1}",
        b" \r\n\t{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1}",
        b"{\"jsonrpc\":\"2.0\",\"a\xff\":\"\xed\xa0\x80\",\"method\":\"tools/call\",\"id\":1}",
        br#"[{"jsonrpc":"2.0","id":1,"method":"tools/call"},{"jsonrpc":"2.0","id":2,"method":"tools/call"}]"#,
        br#"["x",5,{"a":{}},{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#,
        br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"vendor/thing","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        br#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"s"}}}"#,
        br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","inputSchema":{}}]}}"#,
        br#"{"result":{"_meta":{"io.modelcontextprotocol/serverInfo":1}},"jsonrpc":"2.0"}"#,
    ];
    for row in rows {
        assert_eq!(
            verdict(row),
            Verdict::Mcp,
            "{}",
            String::from_utf8_lossy(row)
        );
    }
    let deep = format!(
        r#"{{"params":{}{},"jsonrpc":"2.0","method":"tools/call"}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(verdict(deep), Verdict::Mcp);
    let long = format!(
        r#"{{"{0}":"{0}","params":{{"{0}":1}},"jsonrpc":"2.0","method":"tools/call"}}"#,
        "x".repeat(100_000)
    );
    assert_eq!(verdict(long), Verdict::Mcp);
}

#[test]
fn wide_encodings_are_recognised() {
    for mark in ["", "\u{feff}"] {
        let text = format!("{mark}{CALL}");
        let wide: Vec<u16> = text.encode_utf16().collect();
        let le: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let be: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let le32: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect();
        let be32: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect();
        for bytes in [le, be, le32, be32] {
            assert_eq!(verdict(&bytes), Verdict::Mcp, "{:?}", &bytes[..8]);
        }
    }
}

#[test]
fn ordinary_traffic_is_not_mcp() {
    let rows: &[&[u8]] = &[
        b"",
        b"  \n",
        b"name=tools%2Fcall&jsonrpc=2.0",
        b"<xml/>",
        b"--boundary\r\nContent-Disposition: form-data\r\n\r\n{\"jsonrpc\":\"2.0\",\"method\":\"ping\"}",
        b"\x1f\x8b\x08",
        b"\0\0\0\0\x05proto",
        br#""tools/call""#,
        br#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"textDocument/hover","params":{}}"#,
        br#"{"query":"{ jsonrpc method }","variables":{"jsonrpc":"2.0","method":"tools/call"}}"#,
        br#"{"message":"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}"}"#,
        br#"{"messages":[{"jsonrpc":"2.0","method":"tools/call"}]}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":{"tools/call":1},"x":"tools/call"}"#,
        br#"{"id":1,"method":"tools/call"}"#,
        br#"{"jsonrpc":2.0,"method":"tools/call"}"#,
        br#"{"jsonrpc":"2.0"}"#,
        br#"[{"jsonrpc":"2.0"},{"method":"tools/call"}]"#,
        br#"[["jsonrpc","2.0","method","tools/call"]]"#,
        br#"{"tools":[{"inputSchema":{}}]}"#,
        b"{}",
        b"[]",
    ];
    for row in rows {
        assert_eq!(
            verdict(row),
            Verdict::NotMcp,
            "{}",
            String::from_utf8_lossy(row)
        );
    }
}

#[test]
fn what_cannot_be_known_is_said_to_be_so() {
    assert_eq!(
        verdict(r#"{"jsonrpc":"2.0","params":{"#),
        Verdict::Undecided
    );
    assert_eq!(verdict("{"), Verdict::Undecided);
    let with_type = |media: &str, body: &str| {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_str(media).unwrap());
        let mut scanner = Scanner::new(&map);
        scanner.push(body.as_bytes());
        scanner.finish()
    };
    // express decodes UTF-7, in which any letter can be spelled otherwise.
    let hidden = r#"{"jsonrpc":"2.0","me+AHQ-hod":"tools/call"}"#;
    assert_eq!(
        with_type("application/json; charset=utf-7", hidden),
        Verdict::Undecided
    );
    assert_eq!(
        with_type("application/json; charset=utf-7", "+AHs-"),
        Verdict::Undecided
    );
    assert_eq!(
        with_type("application/json; charset=utf-7", CALL),
        Verdict::Mcp
    );
    assert_eq!(
        with_type("application/json; Charset=\"UTF-8\"", "{}"),
        Verdict::NotMcp
    );
    assert_eq!(
        with_type("application/json; charset=utf-16le", CALL),
        Verdict::Mcp
    );
    assert_eq!(with_type("text/plain", CALL), Verdict::Mcp);
}

#[test]
fn the_verdict_comes_before_the_message_is_whole() {
    let mut scanner = Scanner::new(&HeaderMap::new());
    assert_eq!(
        scanner.push(br#"{"jsonrpc":"2.0","method":"tools/call"#),
        Verdict::Undecided
    );
    assert_eq!(scanner.push(b"\""), Verdict::Mcp);
    assert_eq!(scanner.push(b"anything"), Verdict::Mcp);
    assert_eq!(scanner.finish(), Verdict::Mcp);
    let mut scanner = Scanner::new(&HeaderMap::new());
    assert_eq!(scanner.push(b"form=1"), Verdict::NotMcp);
}

#[test]
fn headers_of_mcp_are_enough() {
    let one = |name: &'static str| {
        let mut map = HeaderMap::new();
        map.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        headers(&map)
    };
    for name in [
        "mcp-session-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
    ] {
        assert_eq!(one(name), Verdict::Mcp);
    }
    assert_eq!(one("accept"), Verdict::Undecided);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_order_and_no_neighbour_hides_a_call(
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        argument in any::<String>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let argument = Value::from(argument.as_str()).to_text();
        let members = [
            r#""jsonrpc":"2.0""#.to_owned(),
            r#""method":"tools/call""#.to_owned(),
            r#""id":1"#.to_owned(),
            format!(r#""params":{{"name":{argument},"arguments":{{{argument}:[{argument}]}}}}"#),
        ];
        let text = order.iter().map(|place| members[*place].as_str()).collect::<Vec<_>>().join(" , ");
        let text = format!("{{{text}}}");
        let place = cut.index(text.len());
        let mut scanner = Scanner::new(&HeaderMap::new());
        scanner.push(&text.as_bytes()[..place]);
        scanner.push(&text.as_bytes()[place..]);
        prop_assert_eq!(scanner.finish(), Verdict::Mcp, "{}", text);
        oracle::scan(text.as_bytes());
    }

    #[test]
    fn division_never_shows(text in "[\\[\\]{}:,\"\\\\u0-9a-f ]{0,30}") {
        oracle::scan(text.as_bytes());
    }
}
