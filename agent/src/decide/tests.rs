//! What a decision is, as its caller and the record see it.

use std::time::Duration;

use exeat_policy::{Caller, Name, Reason, Source, Target, Tls, Wire, Workload, compile};

use super::in_force::{DRY_RUN, NEEDS_APPROVAL};
use super::{Decider, McpMessage};
use crate::audit::record::{Counter, Decision, Effect};
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

/// What is decided on a call, as the record has it.
fn decided(decider: &Decider, tool: &str, arguments: &str) -> Decision {
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
    decision.clone()
}

/// Effect, rule and reason.
fn called(decider: &Decider, tool: &str, arguments: &str) -> (Effect, Option<String>, String) {
    let decision = decided(decider, tool, arguments);
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
fn a_record_says_why_the_rule_was_written() {
    let long = "x".repeat(2_000);
    let text = format!(
        "version: 1
servers: {{ bank: {{ url: 'https://bank.example/' }} }}
rules:
  - {{ id: all, servers: [bank], tools: ['*'], effect: allow }}
  - {{ id: no, servers: [bank], tools: [drop], args: [{{ field: /n, max: 3 }}], effect: deny, reason: destroys, mode: enforce }}
  - {{ id: ask, servers: [bank], tools: [refund], effect: approve, reason: 'money leaves, password=hunter2' }}
  - {{ id: dry, servers: [bank], tools: [close], effect: dry_run, reason: {long} }}
"
    );
    let source = Source {
        name: "p.yaml".into(),
        text,
    };
    let decider = Decider::new(compile(&[source]).expect("a policy"), 1);
    let why = |tool, arguments| called(&decider, tool, arguments).2;
    assert_eq!(why("drop", r#"{"n":1}"#), "a rule denies it: destroys");
    // Not why it was written, but that it cannot be told.
    let unclear = why("drop", r#"{"n":"1"}"#);
    assert!(
        unclear.starts_with("a rule could not be evaluated") && !unclear.contains("destroys"),
        "{unclear}"
    );
    let asked = why("refund", "{}");
    assert!(
        asked.starts_with("needs an approval: money leaves") && !asked.contains("hunter2"),
        "{asked}"
    );
    let dry = why("close", "{}");
    assert!(
        dry.starts_with("is run dry: xxx") && dry.len() < 1_100,
        "{dry}"
    );
    assert_eq!(why("look", "{}"), "a rule allows it");
}

#[test]
fn a_record_names_the_rule_that_is_only_observed() {
    let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
rules:
  - { id: all, servers: [bank], tools: [pay], effect: allow }
  - { id: try, servers: [bank], tools: [pay], effect: deny, mode: observe, reason: no more payments }
";
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    let decider = Decider::new(compile(&[source]).expect("a policy"), 1);
    let decision = decided(&decider, "pay", "{}");
    assert_eq!(decision.rule.as_deref(), Some("all"));
    assert_eq!(decision.would, Some(Effect::Deny));
    assert_eq!(decision.would_rule.expect("a rule").as_str(), "try");
    let why = decision.would_reason.expect("a reason");
    assert_eq!(why.as_str(), "a rule denies it: no more payments");
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

/// What limits stood at, as a record has it: name, value and limit.
fn counters(decision: &Decision) -> Vec<[String; 3]> {
    let counters = decision.counters.iter();
    let told = |one: &Counter| {
        [
            one.name.to_string(),
            one.value.to_string(),
            one.limit.to_string(),
        ]
    };
    counters.map(told).collect()
}

#[test]
fn a_record_says_what_each_limit_stood_at_and_which_one_refuses() {
    let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
rules: [{ id: all, tools: [pay, look], effect: allow }, { id: not, tools: [pay], args: [{ field: /no, absent: false }], effect: deny }]
limits:
  - { per: [session], tools: [pay], calls: 3 }
  - { per: [identity, tool], tools: [pay], rate: 9/min }
  - { per: [server], tools: [pay], sum: /cents, max: 100.5, window: 24h }
";
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    let decider = Decider::new(compile(&[source]).expect("a policy"), 1);
    let stood = |tool: &str, arguments: &str| {
        let decision = decided(&decider, tool, arguments);
        let reason = decision.reason.as_deref().expect("a reason").to_owned();
        (decision.effect, reason, counters(&decision))
    };
    let told = |values: [&str; 3]| {
        let names = [
            "3 calls per session (p.yaml:5)",
            "9 calls in 60 s per tool, identity (p.yaml:6)",
            "a sum of 100.5 in 86400 s of /cents per server (p.yaml:7)",
        ];
        let [calls, rate, sum] = values;
        let stood = [[calls, "3"], [rate, "9"], [sum, "100.5"]];
        let all = names.iter().zip(stood);
        all.map(|(name, [value, limit])| [*name, value, limit].map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let allowed = || "a rule allows it".to_owned();
    assert_eq!(
        stood("pay", r#"{"cents":60.25}"#),
        (Effect::Allow, allowed(), told(["1", "1", "60.25"]))
    );
    // What is refused does not count.
    let full = "a limit is reached: a sum of 100.5 in 86400 s of /cents per server (p.yaml:7)";
    assert_eq!(
        stood("pay", r#"{"cents":41}"#),
        (Effect::Deny, full.to_owned(), told(["1", "1", "60.25"]))
    );
    let (effect, reason, counters) = stood("pay", r#"{"no":1}"#);
    assert_eq!((effect, &*reason), (Effect::Deny, "a rule denies it"));
    assert_eq!(counters, told(["1", "1", "60.25"]));
    let (_, reason, _) = stood("pay", r#"{"cents":"1"}"#);
    let unclear = "an argument that a limit sums cannot be summed: a sum of 100.5";
    assert!(reason.starts_with(unclear), "{reason}");
    // One that no limit is about has none.
    let none = (Effect::Allow, allowed(), Vec::new());
    assert_eq!(stood("look", "{}"), none);
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
    assert!(decider.run(caller, "s", &[]).is_err(), "nothing begins");
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
