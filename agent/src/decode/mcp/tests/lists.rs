//! Results: lists that are filtered, requests inside, greetings.

use super::*;

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
    let many = |count: usize| {
        let each: Vec<_> = (0..count)
            .map(|key| format!(r#""{key}":{{"method":"roots/list"}}"#))
            .collect();
        methods(&format!(r#"{{"inputRequests":{{{}}}}}"#, each.join(",")))
    };
    assert_eq!(many(64).map(|found| found.len()), Ok(64));
    assert_eq!(many(65), Err(ResultFault::Shape));
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
