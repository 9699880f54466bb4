//! Rules that look at arguments: what slips through none of them, and what they let through.

use exeat_policy::{
    Action, AsJson as _, Caller, Effect, Reason, Request, Unevaluated, evaluate, explain,
    limit_keys,
};

use crate::naive::arguments::Tree::{self, Bool, List, Map, Null, Number, Text};
use crate::support::{NOW, policy, said};

fn with<'a>(tool: &'a str, arguments: &'a Tree) -> Request<'a> {
    Request {
        caller: Caller::default(),
        action: Action::Mcp {
            server: "s",
            method: "tools/call",
            name: Some(tool),
            arguments: Some(arguments.as_json()),
            hints: None,
            session: None,
        },
        now: NOW,
        counts: &[],
    }
}

fn map(members: &[(&'static str, Tree)]) -> Tree {
    Map(members.to_vec())
}

/// What the policy of one tool says to one argument `x`.
fn answers(rules: &str, table: &[(Tree, &str)]) {
    let set = policy(&format!(
        "servers: {{ s: {{ url: 'https://s.example/' }} }}\nrules:\n{rules}"
    ));
    for (value, expected) in table {
        let arguments = map(&[("x", value.clone())]);
        let told = said(&evaluate(&set, &with("t", &arguments)));
        assert_eq!(told, *expected, "{value:?}");
    }
}

const ALLOWED: &str = "allow: a rule allows it (all)";
const DENIED: &str = "deny: a rule denies it (not)";
const OTHER_TYPE: &str = "deny: a rule could not be evaluated: an argument is of another type than its test is for (not)";

#[test]
fn tricks_do_not_slip_through() {
    let nested = List(vec![map(&[("y", List(vec![Text("a; rm -rf /")]))])]);
    answers(
        "  - { id: all, effect: allow }
  - { id: not, tools: ['*'], args: [{ any: true, matches: '(?i)rm\\s+-rf|DROP\\s+TABLE' }], effect: deny }
",
        &[
            (Text("ls"), ALLOWED),
            (Text("rm -rf /"), DENIED),
            (Text("RM\t-RF"), DENIED),
            (Text("r\u{6d} -rf"), DENIED),
            (Text("r\u{200b}m\u{a0}-rf"), DENIED),
            (Text("\u{ff52}\u{ff4d} \u{ff0d}\u{ff52}\u{ff46}"), DENIED),
            (Text("dr\u{43e}p t\u{430}ble x"), DENIED),
            (Text("r\u{0}m -rf"), DENIED),
            (nested, DENIED),
            (Number("5"), ALLOWED),
            (Null, ALLOWED),
        ],
    );
}

#[test]
fn keys_are_looked_at() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/' } }
rules:
  - { id: all, effect: allow }
  - { id: not, args: [{ any: true, keys: true, in: [__proto__, constructor] }], effect: deny }
  - { id: flat, args: [{ field: /headers, keys: true, matches: '(?i)^authorization$' }], effect: deny }
",
    );
    for (arguments, expected) in [
        (
            map(&[("a", map(&[("b", Null)]))]),
            "allow: a rule allows it (all)",
        ),
        (map(&[("__proto__", Null)]), DENIED),
        (
            map(&[("a", List(vec![map(&[("constructor", Null)])]))]),
            DENIED,
        ),
        (
            map(&[("headers", map(&[("AUTHORIZATION", Text("x"))]))]),
            "deny: a rule denies it (flat)",
        ),
        (
            map(&[("AUTHORIZATION", Text("x"))]),
            "allow: a rule allows it (all)",
        ),
    ] {
        assert_eq!(
            said(&evaluate(&set, &with("t", &arguments))),
            expected,
            "{arguments:?}"
        );
    }
}

#[test]
fn numbers_are_exact() {
    let not = "deny: a rule denies it (not)";
    answers(
        "  - { id: all, effect: allow }
  - { id: not, tools: [t], args: [{ field: /x, above: 9007199254740992 }], effect: deny }
",
        &[
            (Number("9007199254740992"), ALLOWED),
            (Number("9007199254740993"), not),
            (Number("9.007199254740992e15"), ALLOWED),
            (Number("9007199254740992.0000001"), not),
            (Number("-1e400"), ALLOWED),
            (Number("1e400"), not),
            // What a receiver would convert is not let through for its type.
            (Text("9007199254740993"), OTHER_TYPE),
            (List(vec![Number("1")]), OTHER_TYPE),
            (Null, OTHER_TYPE),
        ],
    );
}

/// A receiver may take a number for the nearest double: what restricts is about either, what allows wants both.
#[test]
fn numbers_are_also_read_as_doubles() {
    let no = "deny: no rule matched";
    let ok = "allow: a rule allows it (ok)";
    // What either rule is about, what is one of a rule that restricts alone, and what of none.
    for (test, both, restricts, none) in [
        (
            "in: [5]",
            "5.0",
            "5.00000000000000000001",
            "5.000000000000001",
        ),
        ("in: [5]", "5", "4.99999999999999999999", "6"),
        ("in: [0]", "-0", "1e-400", "1e-300"),
        ("in: [0]", "0", "-1e-400", "0.1"),
        (
            "min: 100001",
            "100001",
            "100000.99999999999999999999",
            "100000.99999999",
        ),
        ("max: 60", "60", "60.00000000000000000001", "60.00000001"),
        (
            "below: 60",
            "59.99999999999999",
            "59.99999999999999999999",
            "60",
        ),
        (
            "above: 9007199254740992",
            "9007199254740994",
            "9007199254740993",
            "9007199254740992",
        ),
        (
            "in: [9007199254740993]",
            "9007199254740993",
            "9007199254740992",
            "9007199254740994",
        ),
        (
            "type: integer",
            "9007199254740993",
            "5.00000000000000000001",
            "5.5",
        ),
    ] {
        let rule = |id, effect| {
            format!(
                "  - {{ id: {id}, tools: [t], args: [{{ field: /x, {test} }}], effect: {effect} }}\n"
            )
        };
        let told = |it: [&'static str; 3]| {
            let values = [both, restricts, none].map(Number);
            values.into_iter().zip(it).collect::<Vec<_>>()
        };
        let denying = format!("  - {{ id: all, effect: allow }}\n{}", rule("not", "deny"));
        answers(&denying, &told([DENIED, DENIED, ALLOWED]));
        answers(&rule("ok", "allow"), &told([ok, no, no]));
    }
    // Of two tests, each may be met in its own reading.
    let two = "  - { id: all, effect: allow }
  - { id: not, tools: [t], args: [{ field: /x, above: 5, max: 5 }], effect: deny }\n";
    let between = Number("5.00000000000000000001");
    answers(two, &[(between, DENIED), (Number("5"), ALLOWED)]);
}

#[test]
fn what_allows_wants_all_of_it() {
    let no = "deny: no rule matched";
    let other = "deny: a rule could not be evaluated: an argument is of another type than its test is for (ok)";
    let ok = "allow: a rule allows it (ok)";
    answers(
        "  - { id: ok, tools: [t], args: [{ field: '/x/*', glob: '/srv/*' }, { field: '/x/*', length: { max: 9 } }], effect: allow }\n",
        &[
            (List(vec![Text("/srv/a"), Text("/srv/b")]), ok),
            (List(vec![Text("/srv/a"), Text("/etc/b")]), no),
            (List(vec![Text("/srv/a"), Number("1")]), other),
            (List(vec![Text("/srv/aaaaa")]), no),
            (List(Vec::new()), no),
            (Text("/srv/a"), no),
            (map(&[("a", Text("/srv/a"))]), ok),
        ],
    );
    // A receiver that resolves compatibility forms would see another segment.
    answers(
        "  - { id: ok, tools: [t], args: [{ field: /x, matches: '^[^/]*$' }], effect: allow }\n",
        &[
            (Text("a"), ok),
            (Text("\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}"), ok),
            (Text("a/b"), no),
            (Text("a\u{ff0f}b"), no),
        ],
    );
}

#[test]
fn values_types_and_lengths() {
    answers(
        "  - { id: all, effect: allow }
  - { id: not, args: [{ field: /x, in: [prod, 5, true] }], effect: deny }
",
        &[
            (Text("prod"), DENIED),
            (Text("pr\u{43e}d"), DENIED),
            (Text("dev"), ALLOWED),
            (Number("5.0"), DENIED),
            (Number("6"), ALLOWED),
            (Bool(true), DENIED),
            (Bool(false), ALLOWED),
            (Null, OTHER_TYPE),
        ],
    );
    answers(
        "  - { id: all, effect: allow }
  - { id: not, args: [{ field: /x, type: string, length: { min: 3 } }], effect: deny }
",
        &[
            (Text("ab"), ALLOWED),
            (Text("äöü"), DENIED),
            (List(vec![Null, Null, Null]), ALLOWED),
            (Null, ALLOWED),
        ],
    );
    answers(
        "  - { id: all, effect: allow }
  - { id: not, tools: [t], args: [{ field: /y, absent: true }], effect: deny }
",
        &[(Null, DENIED)],
    );
    answers(
        "  - { id: all, effect: allow }
  - { id: not, tools: [t], args: [{ field: /x, absent: false }], effect: deny }
",
        &[(Null, DENIED)],
    );
}

/// A tool, what it is called with, and what the policy says to that.
type Called<'a> = (&'a str, Vec<(&'static str, Tree)>, &'a str);

fn called(rules: &str, cases: Vec<Called<'_>>) {
    let set = policy(&format!(
        "servers: {{ s: {{ url: 'https://s.example/' }} }}\nrules:\n{rules}"
    ));
    for (tool, members, expected) in cases {
        let arguments = map(&members);
        let request = with(tool, &arguments);
        let verdict = evaluate(&set, &request);
        assert_eq!(said(&verdict), expected, "{tool} {members:?}");
        assert_eq!(explain(&set, &request).verdict, verdict);
    }
}

/// A receiver that passes over case, or reads look-alikes, finds no argument that no rule saw.
#[test]
fn what_restricts_sees_what_may_be_taken_for_what_it_names() {
    let large = "approve: a rule asks for an approval (large)";
    let (forced, nested) = (
        "deny: a rule denies it (forced)",
        "deny: a rule denies it (nested)",
    );
    let few = || Number("5");
    let many = || Number("500");
    let deep = List(vec![Null, map(&[("KEY", map(&[("x", Null)]))])]);
    called(
        "  - { id: large, args: [{ field: /amountCents, above: 100 }], effect: approve }
  - { id: forced, args: [{ field: /force, absent: false }], effect: deny }
  - { id: nested, args: [{ field: '/items/*/key', keys: true, in: [x] }], effect: deny }
  - { id: all, effect: allow }
",
        vec![
            ("t", vec![("amountCents", few())], ALLOWED),
            ("t", vec![("AmountCents", many())], large),
            ("t", vec![("amountCent\u{17f}", many())], large),
            ("t", vec![("\u{430}mountCents", many())], large),
            (
                "t",
                vec![("amountCents", few()), ("AMOUNTCENTS", many())],
                large,
            ),
            ("t", vec![("amount_cents", many())], ALLOWED),
            ("t", vec![("FORCE", Null)], forced),
            ("t", vec![("Items", deep)], nested),
            // No rule asks for these names.
            ("t", vec![("id", few()), ("ID", many())], ALLOWED),
        ],
    );
}

#[test]
fn what_is_to_be_there_is_so_for_every_receiver() {
    let bare = "deny: a rule denies it (bare)";
    let opts = |members: &[(&'static str, Tree)]| ("opts", map(members));
    let yes = || ("dryRun", Bool(true));
    let no = || ("DryRun", Bool(false));
    called(
        "  - { id: bare, args: [{ field: /opts/dryRun, absent: true }], effect: deny }
  - { id: all, effect: allow }
",
        vec![
            ("t", vec![opts(&[yes()])], ALLOWED),
            ("t", vec![opts(&[no()])], bare),
            ("t", vec![opts(&[yes()]), ("Opts", map(&[]))], bare),
            ("t", vec![opts(&[yes(), no()])], ALLOWED),
        ],
    );
}

#[test]
fn what_allows_wants_no_other_name() {
    let ok = "allow: a rule allows it (ok)";
    let bad = "deny: no rule matched";
    let doubt = "deny: a rule could not be evaluated: an argument may be taken for the one that it names (ok)";
    let sent = |text| ("amountCents", Number(text));
    let other = |text| ("AMOUNTCENTS", Number(text));
    called(
        "  - { id: ok, tools: [send], args: [{ field: /amountCents, max: 1000 }, { field: /raw, absent: true }], effect: allow }
  - { id: there, tools: [look], args: [{ field: /key, absent: false }], effect: allow }
",
        vec![
            ("send", vec![sent("5")], ok),
            ("send", vec![sent("5"), ("id", Null), ("ID", Null)], ok),
            ("send", vec![], bad),
            ("send", vec![sent("5"), other("5")], doubt),
            ("send", vec![other("5")], doubt),
            ("send", vec![sent("5"), ("Raw", Null)], doubt),
            // What is there as it is named, and fails, is enough.
            ("send", vec![other("5"), sent("5000")], bad),
            ("look", vec![("key", Null)], "allow: a rule allows it (there)"),
            (
                "look",
                vec![("key", Null), ("KEY", Null)],
                &doubt.replace("(ok)", "(there)"),
            ),
        ],
    );
}

#[test]
fn a_name_that_may_be_taken_for_the_summed_one_is_not_passed_over() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/' } }
rules: [{ id: all, effect: allow }]
limits: [{ per: [server], sum: '/items/*/amountCents', max: 10, window: 1h }]
",
    );
    let item = |members: &[(&'static str, Tree)]| map(&[("items", List(vec![map(members)]))]);
    for (arguments, amount) in [
        (item(&[("amountCents", Number("5"))]), Some("5")),
        (item(&[("note", Number("5"))]), Some("0")),
        (item(&[("AmountCents", Number("5"))]), None),
        (
            item(&[("amountCents", Number("5")), ("amountcents", Number("7"))]),
            None,
        ),
        (map(&[("ITEMS", Null)]), None),
        (map(&[("a", item(&[("AmountCents", Null)]))]), Some("0")),
    ] {
        let keys = limit_keys(&set, &with("t", &arguments));
        let told = keys[0].amount.map(|amount| amount.to_string());
        assert_eq!(told.as_deref(), amount, "{arguments:?}");
    }
    let arguments = item(&[("AmountCents", Number("5"))]);
    let verdict = evaluate(&set, &with("t", &arguments));
    assert_eq!(verdict.effect, Effect::Deny);
}

#[test]
fn what_is_too_much_is_refused() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/' } }
rules:
  - { id: all, effect: allow }
  - { id: not, args: [{ any: true, matches: never }], effect: deny }
",
    );
    let mut deep = Null;
    for _ in 0..70 {
        deep = List(vec![deep]);
    }
    let deep = map(&[("x", deep)]);
    let wide = map(&[("x", List(vec![Null; 100_001]))]);
    let long: &'static str = "a".repeat((1 << 20) + 1).leak();
    let long = map(&[("x", Text(long))]);
    let names = Map(vec![("n", Null); 600_000]);
    let verdict = evaluate(
        &policy(
            "servers: { s: { url: 'https://s.example/' } }
rules:
  - { id: all, effect: allow }
  - { id: not, tools: [t], args: [{ field: /x, absent: true }, { field: /y, absent: true }], effect: deny }
",
        ),
        &with("t", &names),
    );
    assert_eq!(verdict.reason, Reason::RuleFailed(Unevaluated::TooLarge));
    for (arguments, why) in [
        (deep, Unevaluated::TooDeep),
        (wide, Unevaluated::TooLarge),
        (long, Unevaluated::TooLarge),
    ] {
        let verdict = evaluate(&set, &with("t", &arguments));
        assert_eq!(verdict.effect, Effect::Deny);
        assert_eq!(verdict.reason, Reason::RuleFailed(why));
        assert_eq!(verdict.rule.as_deref(), Some("not"));
    }
}

#[test]
fn an_explanation_traces_each_test_and_shows_no_value() {
    let set = policy(
        "servers: { s: { url: 'https://s.example/' } }
rules:
  - { id: all, effect: allow }
  - id: not
    tools: [t]
    args: [{ field: /n, above: 5, max: 10 }, { any: true, matches: 'rm' }, { field: '/l/*', in: [a, 1] }]
    effect: deny
",
    );
    let arguments = map(&[("n", Number("7")), ("l", Text("hunter2"))]);
    let explained = explain(&set, &with("t", &arguments));
    let trace: Vec<_> = explained.considered[1]
        .trace
        .iter()
        .map(|tested| format!("{}: {:?}", tested.test, tested.holds))
        .collect();
    assert_eq!(
        trace,
        [
            "field: /n, max: 10, above: 5: Ok(true)",
            "any: true, matches: 'rm': Ok(false)",
            "field: /l/*, in: ['a', 1]: Ok(false)",
        ]
    );
    let shown = format!("{explained:?} {:?}", with("t", &arguments));
    assert!(!shown.contains("hunter2"), "{shown}");
}
