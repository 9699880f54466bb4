//! Rules with a condition in CEL (`when`).

use exeat_policy::{
    Action, AsJson as _, Caller, Effect, Outcome, Reason, Request, Unevaluated, Workload, evaluate,
    explain, listable,
};

use crate::naive::arguments::Tree::{self, Map, Number, Text};
use crate::support::{NOW, policy, said};

const POLICY: &str = "
servers: { bank: { launch: { command: bank }, tools: { show: read, pay: write } }, other: { url: 'https://o.example/' } }
hosts: { agent: { servers: [bank] } }
identities: { dave: { user: dave } }
rules:
  - { id: all, servers: [bank], tools: ['*'], effect: allow }
  - id: large
    servers: [bank]
    tools: [pay]
    when: has(args.amount) && args.amount > 1000
    effect: approve
  - { id: own, servers: [bank], tools: [close], when: args.owner != caller.user, effect: deny }
  - { id: some, servers: [other], when: \"args.kind in ['a', 'b'] && tool.startsWith('get_')\", effect: allow }
  - { id: both, servers: [other], tools: [x], args: [{ field: /n, min: 5 }], when: args.m < args.n, effect: allow }
  - { id: trial, servers: [bank], tools: [show], when: args.page > 3, effect: deny, mode: observe }
";

fn asked<T>(
    server: &str,
    tool: &str,
    members: &[(&'static str, Tree)],
    answer: impl FnOnce(&exeat_policy::PolicySet, &Request<'_>) -> T,
) -> T {
    let arguments = Map(members.to_vec());
    let request = Request {
        caller: Caller {
            user: Some("dave"),
            ..Caller::default()
        },
        action: Action::Mcp {
            server,
            method: "tools/call",
            name: Some(tool),
            arguments: Some(arguments.as_json()),
            hints: None,
            session: None,
        },
        now: NOW,
        counts: &[],
    };
    answer(&policy(POLICY), &request)
}

/// Server, tool, arguments, and what is said.
type Case<'a> = (&'a str, &'a str, &'a [(&'static str, Tree)], String);

#[test]
fn conditions_decide() {
    let failed =
        |what: &str, rule: &str| format!("deny: a rule could not be evaluated: {what} ({rule})");
    let allowed = "allow: a rule allows it (all)".to_owned();
    let amount = |text| [("amount", Number(text))];
    let cases: [Case<'_>; 14] = [
        ("bank", "pay", &amount("1000"), allowed.clone()),
        (
            "bank",
            "pay",
            &amount("1000.000001"),
            "approve: a rule asks for an approval (large)".into(),
        ),
        (
            "bank",
            "pay",
            &amount("1e400"),
            "approve: a rule asks for an approval (large)".into(),
        ),
        ("bank", "pay", &[], allowed.clone()),
        (
            "bank",
            "pay",
            &[("amount", Text("5000"))],
            failed(
                "an argument is of another type than its test is for",
                "large",
            ),
        ),
        ("bank", "close", &[("owner", Text("dave"))], allowed),
        (
            "bank",
            "close",
            &[("owner", Text("eve"))],
            "deny: a rule denies it (own)".into(),
        ),
        (
            "bank",
            "close",
            &[],
            failed("its expression asks for what is not there", "own"),
        ),
        (
            "other",
            "get_x",
            &[("kind", Text("a"))],
            "allow: a rule allows it (some)".into(),
        ),
        (
            "other",
            "set_x",
            &[("kind", Text("a"))],
            "deny: no rule matched".into(),
        ),
        (
            "other",
            "get_x",
            &[],
            failed("its expression asks for what is not there", "some"),
        ),
        (
            "other",
            "x",
            &[("n", Number("6")), ("m", Number("5")), ("kind", Text("q"))],
            "allow: a rule allows it (both)".into(),
        ),
        (
            "other",
            "x",
            &[("n", Number("4")), ("m", Number("1")), ("kind", Text("q"))],
            "deny: no rule matched".into(),
        ),
        (
            "bank",
            "show",
            &[("page", Number("4"))],
            "allow: a rule allows it (all); would deny: a rule denies it".into(),
        ),
    ];
    for (server, tool, members, expected) in cases {
        let told = asked(server, tool, members, |set, request| {
            let verdict = evaluate(set, request);
            assert_eq!(explain(set, request).verdict, verdict);
            said(&verdict)
        });
        assert_eq!(told, expected, "{server} {tool} {members:?}");
    }
}

/// What a condition asks for by name is an error where another name may be taken for it.
#[test]
fn names_that_may_be_taken_for_others_are_errors() {
    let failed = |rule: &str| {
        format!(
            "deny: a rule could not be evaluated: an argument may be taken for the one that it names ({rule})"
        )
    };
    let kind = ("kind", Text("a"));
    let cases: [Case<'_>; 5] = [
        (
            "bank",
            "pay",
            &[("Amount", Number("5000"))],
            failed("large"),
        ),
        (
            "bank",
            "pay",
            &[("amount", Number("5")), ("AMOUNT", Number("5000"))],
            failed("large"),
        ),
        (
            "bank",
            "pay",
            &[("note", Text("x")), ("Note", Text("y"))],
            "allow: a rule allows it (all)".into(),
        ),
        (
            "other",
            "get_x",
            &[kind.clone(), ("KIND", Text("z"))],
            failed("some"),
        ),
        // Another part that decides outweighs it.
        (
            "other",
            "set_x",
            &[kind, ("KIND", Text("z"))],
            "deny: no rule matched".into(),
        ),
    ];
    for (server, tool, members, expected) in cases {
        let told = asked(server, tool, members, |set, request| {
            said(&evaluate(set, request))
        });
        assert_eq!(told, expected, "{server} {tool} {members:?}");
    }
}

#[test]
fn the_explanation_shows_what_the_expression_is() {
    let explanation = asked("bank", "pay", &[("amount", Number("5000"))], explain);
    let large = explanation
        .considered
        .iter()
        .find(|item| item.subject.to_string() == "rule `large`")
        .unwrap();
    assert_eq!(large.outcome, Outcome::Matched);
    assert_eq!(
        (large.trace[0].test.as_str(), large.trace[0].holds),
        ("when: has(args.amount) && args.amount > 1000", Ok(true))
    );
    let explanation = asked("bank", "close", &[], explain);
    let own = explanation
        .considered
        .iter()
        .find(|item| item.subject.to_string() == "rule `own`");
    assert_eq!(own.unwrap().trace[0].holds, Err(Unevaluated::Missing));
    assert_eq!(
        explanation.verdict.reason,
        Reason::RuleFailed(Unevaluated::Missing)
    );
    assert_eq!(
        explanation.verdict.rule.as_deref(),
        Some("own"),
        "the reason names the rule"
    );
}

/// What some arguments could make callable is shown; what the condition rules out whatever they are is not.
#[test]
fn lists_show_what_a_condition_leaves_open() {
    let set = policy(POLICY);
    let dave = Caller {
        user: Some("dave"),
        ..Caller::default()
    };
    let shown = |server, tool| listable(&set, dave, server, tool, None, NOW);
    assert!(shown("bank", "pay") && shown("bank", "close") && shown("other", "get_x"));
    assert!(!shown("other", "set_x"), "its name rules it out");
}

/// A condition makes a rule one about calls: nobody starts a server by it, or reaches another method.
#[test]
fn a_condition_is_about_calls() {
    let set = policy(
        "servers: { bank: { launch: { command: bank } } }
identities: { dave: { user: dave } }
rules: [{ id: not, when: caller.user == 'dave', effect: deny }, { id: all, effect: allow }]",
    );
    let host = Caller {
        user: Some("dave"),
        ..Caller::default()
    };
    let ask = |action| {
        said(&evaluate(
            &set,
            &Request {
                caller: host,
                action,
                now: NOW,
                counts: &[],
            },
        ))
    };
    assert_eq!(
        ask(Action::Run {
            server: "bank",
            extra_args: &[]
        }),
        "allow: a rule allows it (all)"
    );
    let mcp = |method| Action::Mcp {
        server: "bank",
        method,
        name: None,
        arguments: None,
        hints: None,
        session: None,
    };
    assert_eq!(ask(mcp("tools/list")), "allow: a rule allows it (all)");
    assert_eq!(ask(mcp("tools/call")), "deny: a rule denies it (not)");
    let other = Caller {
        workload: Some(Workload::Server("bank")),
        ..Caller::default()
    };
    let verdict = evaluate(
        &set,
        &Request {
            caller: other,
            action: mcp("tools/call"),
            now: NOW,
            counts: &[],
        },
    );
    assert_eq!(
        (verdict.effect, verdict.rule.as_deref()),
        (Effect::Deny, Some("not")),
        "no user to compare"
    );
}

/// As agent/docs/policy.md says: a condition has one reading at a time, and what stands beside it has its own.
#[test]
fn texts_of_a_condition_are_read_in_one_way() {
    let of = |rule: &str| {
        let set = policy(&format!(
            "servers: {{ s: {{ launch: {{ command: s }} }} }}
rules: [{{ id: all, effect: allow }}, {{ id: not, tools: [t], {rule}, effect: deny }}]
"
        ));
        let full_width = Map(vec![
            ("tool", Text("\u{ff52}\u{ff4d}")),
            ("mode", Text("\u{ff53}\u{ff41}\u{ff46}\u{ff45}")),
        ]);
        let action = Action::Mcp {
            server: "s",
            method: "tools/call",
            name: Some("t"),
            arguments: Some(full_width.as_json()),
            hints: None,
            session: None,
        };
        let request = Request {
            caller: Caller::default(),
            action,
            now: NOW,
            counts: &[],
        };
        evaluate(&set, &request).effect
    };
    let together = of("when: args.tool == 'rm' && args.mode != 'safe'");
    assert_eq!(together, Effect::Allow);
    let apart = of("args: [{ field: /tool, in: [rm] }], when: args.mode != 'safe'");
    assert_eq!(apart, Effect::Deny);
}
