//! What a decision is, as its caller and the record see it.

use std::time::Duration;

use exeat_policy::{Caller, Name, Reason, Source, Target, Tls, Wire, Workload, compile};

use super::in_force::{DRY_RUN, NEEDS_APPROVAL};
use super::{Decider, McpMessage};
use crate::audit::record::Effect;
use crate::channel::Disconnection;
use crate::decode::json::{Limits, parse};
use crate::identify::live::Unread;
use crate::telemetry::clock;

fn decider(egress: &str) -> Decider {
    let text = format!(
        "version: 1\nservers:\n  s:\n    purpose: p\n    owner: o@example.com\n    data: public\n    \
         review_by: 2099-01-01\n    launch: {{ command: a, user: nobody }}\n    egress: [{egress}]\n"
    );
    let source = Source {
        name: "p.yaml".into(),
        text,
    };
    Decider::new(compile(&[source]).expect("a policy"), 1)
}

const BANK: &str = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
rules:
  - { id: few, servers: [bank], tools: [pay], args: [{ field: /cents, max: 9007199254740992 }], effect: allow }
  - { id: ask, servers: [bank], tools: [refund], effect: approve }
  - { id: soon, servers: [bank], tools: [void], effect: approve, timeout: 90s }
  - { id: dry, servers: [bank], tools: [close], effect: dry_run }
limits: [{ per: [server], tools: [pay], sum: /cents, max: 9007199254740992, window: 1h }]
";

/// Effect, rule and reason as the record has them.
fn called(decider: &Decider, tool: &str, arguments: &str) -> (Effect, Option<String>, String) {
    let arguments = parse(arguments.as_bytes(), &Limits::REQUEST).expect("JSON");
    let message = McpMessage {
        server: "bank",
        method: "tools/call",
        name: Some(tool),
        arguments: arguments.as_object(),
        hints: None,
        session: None,
        within: None,
        again: false,
    };
    let judged = decider.message(Caller::default(), message, None);
    let decision = match &judged {
        Ok(permit) => permit.decision(),
        Err(refused) => refused.decision(),
    };
    assert_eq!(judged.is_ok(), decision.effect == Effect::Allow);
    (
        decision.effect,
        decision.rule.as_deref().map(str::to_owned),
        decision.reason.as_deref().expect("a reason").to_owned(),
    )
}

fn bank() -> Decider {
    let source = Source {
        name: "p.yaml".into(),
        text: BANK.into(),
    };
    Decider::new(compile(&[source]).expect("a policy"), 1)
}

#[test]
fn what_waits_for_a_person_or_is_run_dry_is_refused_and_says_so() {
    let rule = |rule: &str| Some(rule.to_owned());
    assert_eq!(
        called(&bank(), "refund", "{}"),
        (Effect::Approve, rule("ask"), NEEDS_APPROVAL.to_owned())
    );
    assert_eq!(
        called(&bank(), "close", "{}"),
        (Effect::DryRun, rule("dry"), DRY_RUN.to_owned())
    );
}

#[test]
fn an_approval_is_waited_for_as_long_as_the_rule_says_else_ten_minutes() {
    for (tool, wait) in [
        ("refund", Duration::from_mins(10)),
        ("void", Duration::from_secs(90)),
    ] {
        let message = McpMessage {
            server: "bank",
            method: "tools/call",
            name: Some(tool),
            arguments: None,
            hints: None,
            session: None,
            within: None,
            again: false,
        };
        let refused = bank().message(Caller::default(), message, None);
        let refused = refused.expect_err("it needs an approval");
        assert_eq!(refused.asks().expect("a rule asks").wait, wait, "{tool}");
    }
}

#[test]
fn arguments_are_judged_by_their_digits_and_summed() {
    let decider = bank();
    let effect = |arguments| called(&decider, "pay", arguments).0;
    assert_eq!(effect(r#"{"cents":9007199254740993}"#), Effect::Deny);
    assert_eq!(effect(r#"{"cents":"1"}"#), Effect::Deny);
    assert_eq!(effect("{}"), Effect::Deny);
    // What was refused was not summed; what was allowed was.
    assert_eq!(effect(r#"{"cents":9007199254740992}"#), Effect::Allow);
    assert_eq!(effect(r#"{"cents":1}"#), Effect::Deny);
    assert_eq!(effect(r#"{"cents":0}"#), Effect::Allow);
}

/// The answer to what a server asked for is decided as that, by a limit that is used up by then.
#[test]
fn what_was_counted_once_is_not_counted_again() {
    let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
rules: [{ id: ask, servers: [bank], methods: [sampling/createMessage], effect: allow }]
limits: [{ per: [server], methods: [sampling/createMessage], rate: 2/h }]
";
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    let decider = Decider::new(compile(&[source]).expect("a policy"), 1);
    let asked = |again| {
        let message = McpMessage {
            server: "bank",
            method: "sampling/createMessage",
            name: None,
            arguments: None,
            hints: None,
            session: None,
            within: None,
            again,
        };
        decider.message(Caller::default(), message, None)
    };
    for again in [false, true, true, false, true] {
        assert!(asked(again).is_ok(), "{again}");
    }
    let refused = asked(false).expect_err("it is used up");
    assert_eq!(refused.reason(), Reason::LimitReached(0));
    assert!(refused.retry_after().is_some_and(|wait| wait > 0));
    assert!(asked(true).is_ok(), "it was counted before");
}

#[test]
fn what_goes_by_unread_is_cut_when_it_is_to_be_read() {
    let caller = Caller {
        workload: Some(Workload::Server("s")),
        user: None,
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    };
    let name = Name::parse("a.example").expect("a name");
    let goes_on = |egress: &str, unread: &Unread| {
        decider(egress).goes_on(caller, Target::Name(&name), 443, Some(unread))
    };
    let passed = Unread::Bytes {
        wire: Wire::Http,
        tls: Tls::Passthrough,
    };
    assert!(goes_on("{ host: a.example, tls: passthrough }", &passed));
    assert!(!goes_on("{ host: a.example }", &passed));
    let upgraded = Unread::Upgraded {
        method: "GET".to_owned(),
        path: "/ws".to_owned(),
        tls: true,
    };
    assert!(goes_on("{ host: a.example, upgrade: true }", &upgraded));
    assert!(!goes_on("{ host: a.example }", &upgraded));
    let elsewhere = "{ host: a.example, upgrade: true, paths: [/other] }";
    assert!(!goes_on(elsewhere, &upgraded));
    assert!(decider(elsewhere).goes_on(caller, Target::Name(&name), 443, None));
}

#[test]
fn a_disconnected_server_begins_nothing_and_then_does_nothing() {
    let decider = decider("{ host: a.example }");
    let caller = Caller {
        workload: Some(Workload::Server("s")),
        user: None,
        fetching: false,
        token: None,
        certificate: None,
        known_as: &[],
    };
    let name = Name::parse("a.example").expect("a name");
    let reaches = || decider.connect(caller, Target::Name(&name), 443).is_ok();
    let watch = decider.watch("s");
    assert!(reaches() && decider.connected("s").is_ok());
    decider.disconnect(Disconnection {
        server: "s".to_owned(),
        since: clock::wall(),
        uid: 0,
        user: "root".to_owned(),
        reason: None,
    });
    let refused = decider.connected("s").expect_err("it is disconnected");
    assert_eq!(refused.reason(), Reason::Disconnected);
    assert!(decider.run(caller, "s").is_err(), "nothing begins");
    assert!(
        reaches() && !watch.is_cancelled(),
        "what is under way goes on"
    );
    decider.cut("s");
    assert!(!reaches() && watch.is_cancelled());
    assert!(decider.watch("s").is_cancelled(), "and for who comes later");
    decider.cut("another");
    assert!(
        !decider.watch("another").is_cancelled(),
        "nobody else is cut"
    );
    decider.reconnect("s");
    assert!(reaches() && decider.connected("s").is_ok());
    assert!(!decider.watch("s").is_cancelled() && watch.is_cancelled());
}

/// As it stands on the wire: the escape is JSON's.
#[test]
fn no_writing_of_an_argument_slips_past_a_rule_that_denies_it() {
    let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
rules:
  - { id: all, servers: [bank], tools: [run], effect: allow }
  - { id: no-rm, servers: [bank], tools: [run], args: [{ any: true, matches: 'rm -rf' }], effect: deny }
";
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    let decider = Decider::new(compile(&[source]).expect("a policy"), 1);
    for arguments in [
        r#"{ "command": "rm -rf /" }"#,
        r#"{ "command": "r\u006d -rf /" }"#,
        r#"{ "command": "r\u200bm -rf /" }"#,
        r#"{ "command": ["\uff52\uff4d -rf /"] }"#,
        r#"{ "command": { "r\u043c": "\u0072\u006D\u0020-\u0072f" } }"#,
    ] {
        let (effect, rule, _) = called(&decider, "run", arguments);
        assert_eq!(
            (effect, rule.as_deref()),
            (Effect::Deny, Some("no-rm")),
            "{arguments}"
        );
    }
    let (effect, ..) = called(&decider, "run", r#"{ "command": "ls" }"#);
    assert_eq!(effect, Effect::Allow);
}
