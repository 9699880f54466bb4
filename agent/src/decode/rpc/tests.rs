//! The messages of hostile peers, each with the fault that it must meet.

use proptest::prelude::*;

use super::{FaultKind, Id, Incoming, Message, Outcome, confusable, parse, parse_single};
use crate::decode::json::{Limits, Value};
use crate::decode::oracle;
use FaultKind as F;

fn read(text: &str) -> Result<Message, super::Fault> {
    parse_single(text.as_bytes(), &Limits::REQUEST)
}

/// A call with the members `rest` after its version.
fn call(rest: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{rest}}}"#)
}

/// Members after the version, and the fault that they must meet.
const REFUSED: &[(&str, FaultKind)] = &[
    (
        r#""id":1,"result":{},"method":"tools/call","params":{}"#,
        F::Hybrid,
    ),
    (
        r#""id":1,"error":{"code":1,"message":""},"method":"ping""#,
        F::Hybrid,
    ),
    (
        r#""id":1,"result":{},"error":{"code":1,"message":""}"#,
        F::Hybrid,
    ),
    (r#""id":1,"result":{},"params":{}"#, F::Hybrid),
    (r#""id":1,"method":"ping","extra":1"#, F::UnknownMember),
    (
        r#""id":1,"method":"ping","Method":"tools/call""#,
        F::ConfusableKey,
    ),
    (r#""id":1,"method":"ping","PARAMS":{}"#, F::ConfusableKey),
    (
        r#""id":1,"method":"ping","param\u017f":{}"#,
        F::ConfusableKey,
    ),
    (
        "\"id\":1,\"method\":\"ping\",\"par\u{430}ms\":{}",
        F::ConfusableKey,
    ),
    (
        "\"id\":1,\"method\":\"ping\",\"params\u{200b}\":{}",
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"ping","\uff4dethod":"x""#,
        F::ConfusableKey,
    ),
    (r#""id":1,"method":"ping"," id":2"#, F::ConfusableKey),
    (
        r#""id":1,"method":"tools/call","params":{"name":"a","Name":"b"}"#,
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"tools/call","params":{"NAME":"b"}"#,
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"resources/read","params":{"uri":"a","URI":"b"}"#,
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"tools/call","params":{"name":"a","argument\u017f":{}}"#,
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"tools/call","params":{"name":"a","_META":{}}"#,
        F::ConfusableKey,
    ),
    (
        r#""id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/ProtocolVersion":"x"}}"#,
        F::ConfusableKey,
    ),
    (r#""id":9007199254740993,"method":"ping""#, F::Id),
    (r#""id":9007199254740992,"method":"ping""#, F::Id),
    (
        r#""id":100000000000000000000000000000,"method":"ping""#,
        F::Id,
    ),
    (r#""id":1.0,"method":"ping""#, F::Id),
    (r#""id":1.5,"method":"ping""#, F::Id),
    (r#""id":1e2,"method":"ping""#, F::Id),
    (r#""id":-0,"method":"ping""#, F::Id),
    (r#""id":true,"method":"ping""#, F::Id),
    (r#""id":null,"method":"ping""#, F::Id),
    (r#""id":[1],"method":"ping""#, F::Id),
    (r#""id":1,"method":5"#, F::Method),
    (r#""id":1,"method":"""#, F::Method),
    (r#""id":1,"method":null"#, F::Method),
    (r#""id":1,"method":"ping","params":[]"#, F::Params),
    (r#""id":1,"method":"ping","params":null"#, F::Params),
    (
        r#""method":"tools/call","params":{"name":"a"}"#,
        F::NotificationOfRequest,
    ),
    (r#""method":"ping""#, F::NotificationOfRequest),
    (
        r#""id":1,"method":"notifications/initialized""#,
        F::RequestOfNotification,
    ),
    (
        r#""id":1,"method":"notifications/anything""#,
        F::RequestOfNotification,
    ),
    (r#""id":1"#, F::Neither),
    (r#""id":1,"result":5"#, F::ResultShape),
    (r#""result":{}"#, F::Id),
    (r#""id":null,"result":{}"#, F::Id),
    (r#""id":1,"error":"x""#, F::ErrorShape),
    (r#""id":1,"error":{"code":1.5,"message":""}"#, F::ErrorShape),
    (r#""id":1,"error":{"code":1}"#, F::ErrorShape),
];

#[test]
fn messages_that_are_read_differently_are_refused() {
    for (rest, kind) in REFUSED {
        assert_eq!(read(&call(rest)).expect_err(rest).kind, *kind, "{rest}");
    }
}

#[test]
fn versions_and_roots() {
    let rows = [
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, F::Version),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, F::Version),
        (r#"{"id":1,"method":"ping"}"#, F::Version),
        ("5", F::NotAnObject),
        ("null", F::NotAnObject),
        (r#""tools/call""#, F::NotAnObject),
        ("[]", F::BatchUnexpected),
    ];
    for (text, kind) in rows {
        assert_eq!(read(text).expect_err(text).kind, kind, "{text}");
    }
    let long = "x".repeat(257);
    let rows = [
        (
            format!(r#"{{"jsonrpc":"2.0","id":"{long}","method":"ping"}}"#),
            F::Id,
        ),
        (
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#),
            F::Method,
        ),
    ];
    for (text, kind) in rows {
        assert_eq!(read(&text).expect_err(&text).kind, kind);
    }
}

#[test]
fn refusals_can_answer_the_id() {
    let fault = read(&call(r#""id":7,"method":"ping","extra":1"#)).unwrap_err();
    assert_eq!(fault.id, Some(Id::Number(7)));
    let fault = read(&call(r#""id":"a","method":"tools/call","params":[]"#)).unwrap_err();
    assert_eq!(fault.id, Some(Id::Text("a".into())));
    // A response's id belongs to the other side.
    assert_eq!(read(&call(r#""id":7,"result":5"#)).unwrap_err().id, None);
    assert!(read("{").unwrap_err().is_parse_error());
}

#[test]
fn messages_are_written_in_one_form() {
    let rows = [
        (
            "{\"params\":{\"name\":\"a\",\"arguments\":{\"n\":9007199254740993}},\r\"method\":\"tools\\/call\",\"id\":\"x\",\"jsonrpc\":\"2.0\"}",
            r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"a","arguments":{"n":9007199254740993}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/vendor","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/vendor","params":{}}"#,
        ),
        (
            r#"{"result":{"content":[]},"id":-9007199254740991,"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":-9007199254740991,"result":{"content":[]}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","error":{"message":"m","code":-32700,"data":[1],"more":1}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m","data":[1]}}"#,
        ),
    ];
    for (text, canonical) in rows {
        assert_eq!(read(text).expect(text).encode(), canonical);
        assert_eq!(read(canonical).expect(canonical).encode(), canonical);
    }
}

#[test]
fn a_frame_hidden_behind_a_carriage_return_is_one_string_or_nothing() {
    // Python's stdio reader frames on a lone CR: the inner call would run.
    let hidden = "{\"jsonrpc\":\"2.0\",\"id\":50,\"method\":\"ping\",\"params\":{\"_meta\":{\"a\":\r{\"jsonrpc\":\"2.0\",\"id\":51,\"method\":\"tools/call\"}\r}}}";
    let written = read(hidden).unwrap().encode();
    assert!(!written.contains(['\r', '\n']));
}

#[test]
fn batches_are_judged_entry_by_entry() {
    let batch = |text: &str| parse(text.as_bytes(), &Limits::REQUEST);
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let kinds = |text: &str| match batch(text).unwrap() {
        Incoming::Batch(entries) => entries
            .into_iter()
            .map(|entry| entry.err().map(|fault| fault.kind))
            .collect(),
        Incoming::Single(_) => vec![],
    };
    assert_eq!(batch("[]").unwrap_err().kind, FaultKind::BatchEmpty);
    let many = format!("[{}]", vec![one; 101].join(","));
    assert_eq!(batch(&many).unwrap_err().kind, FaultKind::BatchTooLong);
    assert_eq!(
        kinds(&format!("[{one},5,[],{}]", one.replace(":1,", ":2,"))),
        [
            None,
            Some(FaultKind::NotAnObject),
            Some(FaultKind::NotAnObject),
            None
        ]
    );
    assert_eq!(
        kinds(&format!("[{one},{one}]")),
        [None, Some(FaultKind::BatchSameId)]
    );
    let text = one.replace(":1,", ":\"1\",");
    assert_eq!(
        kinds(&format!("[{one},{text}]")),
        [None, Some(FaultKind::BatchSameId)]
    );
    assert!(matches!(
        batch(one).unwrap(),
        Incoming::Single(Message::Request(_))
    ));
}

#[test]
fn ids_that_clients_confuse_share_a_slot() {
    assert!(Id::Number(1).same_slot(&Id::Text("1".into())));
    assert!(Id::Text("-5".into()).same_slot(&Id::Number(-5)));
    assert!(!Id::Number(1).same_slot(&Id::Text("01".into())));
    assert!(!Id::Number(1).same_slot(&Id::Number(2)));
    assert_ne!(Id::Number(1), Id::Text("1".into()));
}

#[test]
fn errors_may_lack_an_id_and_results_may_not() {
    let message = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#);
    let Ok(Message::Response(response)) = message else {
        panic!("a response")
    };
    assert_eq!(response.id, None);
    assert!(matches!(response.outcome, Outcome::Error(_)));
}

#[test]
fn ordinary_keys_are_not_confusable() {
    let known = ["name", "uri", "arguments", "_meta", "argument", "taskId"];
    for key in [
        "name",
        "names",
        "meta",
        "task_id",
        "user-name",
        "argument",
        "nom",
        "日本",
        "名前",
    ] {
        assert!(!confusable(key, &known), "{key}");
    }
    for key in [
        "Name",
        "nam\u{435}",
        "n\u{e000}ame".replace('\u{e000}', "\u{2060}").as_str(),
        "URI",
        "TASKID",
        "name ",
    ] {
        assert!(confusable(key, &known), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_case_of_a_known_key_is_refused(upper in proptest::collection::vec(any::<bool>(), 9)) {
        let key: String = "arguments".chars().zip(&upper)
            .map(|(letter, upper)| if *upper { letter.to_ascii_uppercase() } else { letter })
            .collect();
        let text = call(&format!(r#""id":1,"method":"tools/call","params":{{"name":"a","{key}":{{}}}}"#));
        prop_assert_eq!(read(&text).is_ok(), key == "arguments");
    }

    #[test]
    fn messages_survive_writing(
        id in prop_oneof![any::<i32>().prop_map(|id| id.to_string()), "\"[a-z0-9\u{e9}\u{2028}]{0,20}\""],
        method in "[a-z/]{1,20}",
        argument in any::<String>(),
    ) {
        let argument = Value::from(argument.as_str()).to_text();
        let text = call(&format!(r#""id":{id},"method":"x{method}","params":{{"arguments":{{"a":{argument}}}}}"#));
        oracle::rpc(text.as_bytes());
        prop_assert!(read(&text).is_ok());
    }
}
