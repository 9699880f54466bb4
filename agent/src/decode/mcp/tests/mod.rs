//! Views, eras, headers and lists, hostile ones first.

mod headers;
mod lists;
mod params;
mod views;

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

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"2"}}}}"#;
const LEGACY: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{}}}"#;

#[test]
fn what_a_task_came_to_is_an_object_or_nothing_yet() {
    let task = |rest: &str| object(&format!(r#"{{"taskId":"t","status":"completed"{rest}}}"#));
    for method in [
        "tasks/get",
        "notifications/tasks",
        "notifications/tasks/status",
    ] {
        for rest in [
            r#","result":[{"type":"audio"}]"#,
            r#","result":"audio""#,
            r#","result":7"#,
        ] {
            let said = task(rest);
            let fault = called(Some(method), &said).map(|_| ()).unwrap_err();
            assert_eq!(fault, ResultFault::Shape, "{method} {rest}");
        }
        for (rest, results) in [("", 0), (r#","result":null"#, 0), (r#","result":{}"#, 1)] {
            let said = task(rest);
            assert_eq!(
                called(Some(method), &said).unwrap().len(),
                results,
                "{rest}"
            );
        }
    }
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

#[test]
fn each_side_sends_what_the_protocol_has_it_send() {
    use Era::{Legacy, Modern};
    // To the server in the legacy era and in the modern one, to the client likewise, and inside results.
    let ways = |name: &str| {
        let known = method(name).unwrap();
        let ways = [
            known.goes_to_server(Legacy),
            known.goes_to_server(Modern),
            known.goes_to_client(Legacy),
            known.goes_to_client(Modern),
            known.stands_in_results(),
        ];
        ways.map(u8::from)
    };
    for (name, expected) in [
        ("tools/call", [1, 1, 0, 0, 0]),
        ("initialize", [1, 1, 0, 0, 0]),
        ("tasks/update", [1, 1, 0, 0, 0]),
        ("notifications/roots/list_changed", [1, 1, 0, 0, 0]),
        ("ping", [1, 1, 1, 1, 0]),
        ("notifications/cancelled", [1, 1, 1, 1, 0]),
        ("notifications/progress", [1, 0, 1, 1, 0]),
        ("tasks/get", [1, 1, 1, 0, 0]),
        ("tasks/cancel", [1, 1, 1, 0, 0]),
        ("tasks/result", [1, 1, 1, 1, 0]),
        ("notifications/message", [0, 0, 1, 1, 0]),
        ("notifications/tasks", [0, 0, 1, 1, 0]),
        ("sampling/createMessage", [0, 0, 1, 0, 1]),
        ("elicitation/create", [0, 0, 1, 0, 1]),
        ("roots/list", [0, 0, 1, 0, 1]),
    ] {
        assert_eq!(ways(name), expected, "{name}");
    }
    let inside = METHODS.iter().filter(|method| method.stands_in_results());
    assert_eq!(inside.count(), 3);
}
