//! Which era a message is of, and what policy sees in it.

use hyper::header::HeaderValue;

use super::*;

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

/// The policy takes rules that ask for arguments of other methods for mistakes.
#[test]
fn three_methods_have_arguments() {
    let has_arguments = |method: &&Method| {
        let message = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":{{"name":"n","uri":"u:","taskId":"t",
            "ref":{{"type":"ref/prompt","name":"n"}},"arguments":{{"a":1}},"argument":{{"a":1}}}}}}"#,
            method.name
        ));
        view(&message).is_ok_and(|view| view.arguments.is_some())
    };
    let requests = METHODS.iter().filter(|method| method.kind == Kind::Request);
    let found: Vec<&str> = requests.filter(has_arguments).map(|it| it.name).collect();
    assert_eq!(found, ["tools/call", "prompts/get", "completion/complete"]);
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
    for (method, key, most) in [
        ("tools/call", "name", 1_024),
        ("prompts/get", "name", 1_024),
        ("tasks/get", "taskId", 1_024),
        ("resources/read", "uri", 8_192),
    ] {
        let named = |bytes: usize| format!(r#"{{"{key}":"{}"}}"#, "x".repeat(bytes));
        assert_eq!(fault(method, &named(most)), None, "{method}");
        let long = fault(method, &named(most + 1));
        assert_eq!(long, Some(ViewFault::LongName), "{method}");
    }
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
fn a_method_that_the_era_has_dropped_needs_no_name() {
    let dropped = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let dropped = message(dropped);
    assert!(view(&dropped).unwrap().name.is_none());
    let mut headers = hyper::http::HeaderMap::new();
    for (name, value) in [
        (MCP_PROTOCOL_VERSION, "2026-07-28"),
        (MCP_METHOD, "resources/subscribe"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    assert_eq!(check_headers(&headers, &dropped), Ok(()));
    let alive = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{}}"#;
    assert_eq!(view(&message(alive)).err(), Some(ViewFault::Name));
}

#[test]
fn what_is_listened_to_is_named() {
    let listen = |params: &str| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#
        );
        let message = message(&text);
        let names = subscribed(&message)?;
        Ok(names
            .iter()
            .map(|name| name.text().to_owned())
            .collect::<Vec<_>>())
    };
    for none in [
        "{}",
        r#"{"notifications":null}"#,
        r#"{"notifications":{"toolsListChanged":true}}"#,
        r#"{"notifications":{"resourceSubscriptions":null}}"#,
    ] {
        assert_eq!(listen(none), Ok(Vec::new()), "{none}");
    }
    let some = r#"{"notifications":{"resourceSubscriptions":["a:b","c:d"]}}"#;
    assert_eq!(listen(some), Ok(vec!["a:b".to_owned(), "c:d".to_owned()]));
    for wrong in [
        r#"{"notifications":[]}"#,
        r#"{"Notifications":{"resourceSubscriptions":["a"]}}"#,
        r#"{"notifications":{"resourceSubscriptions":"a"}}"#,
        r#"{"notifications":{"resourceSubscriptions":[1]}}"#,
        r#"{"notifications":{"resourcesubscriptions":["a"]}}"#,
        &format!(
            r#"{{"notifications":{{"resourceSubscriptions":[{}"a"]}}}}"#,
            r#""a","#.repeat(1_024)
        ),
    ] {
        assert_eq!(listen(wrong), Err(ViewFault::Subscriptions), "{wrong}");
    }
    let long = "x".repeat(8_193);
    let long = format!(r#"{{"notifications":{{"resourceSubscriptions":["{long}"]}}}}"#);
    assert_eq!(listen(&long), Err(ViewFault::LongName));
    // Of another method they are nothing.
    let other = r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":5}}"#;
    assert_eq!(subscribed(&message(other)).unwrap().len(), 0);
}
