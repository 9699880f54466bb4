//! Expressions: what they mean, what is refused, what they may cost; and that CEL means the same.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::decide::{Quantity, Unevaluated};
use crate::json::{AsJson, Json, List, Members};

/// A value, by serde's own reading; texts beyond JSON's come as they are.
#[derive(Debug, Clone)]
enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    fn of(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::of).collect()),
            Value::Object(map) => Self::Map(
                map.iter()
                    .map(|(key, value)| (key.clone(), Self::of(value)))
                    .collect(),
            ),
        }
    }
}

impl AsJson for Tree {
    fn as_json(&self) -> Json<'_> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(text) => Json::Number(text),
            Self::Text(text) if text == "?" => Json::Unknown,
            Self::Text(text) => Json::Text(text),
            Self::List(list) => Json::List(list as &dyn List),
            Self::Map(_) => Json::Map(self),
        }
    }
}

impl Members for Tree {
    fn count(&self) -> usize {
        let Self::Map(map) = self else { return 0 };
        map.len()
    }
    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        let Self::Map(map) = self else { return None };
        map.get(index)
            .map(|(key, value)| (key.as_str(), value.as_json()))
    }
    fn get(&self, key: &str) -> Option<Json<'_>> {
        let Self::Map(map) = self else { return None };
        let found = map.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_json())
    }
}

fn asked(
    expression: &str,
    arguments: Option<&Tree>,
    quantity: Quantity,
) -> Result<bool, Unevaluated> {
    let condition =
        Condition::parse(expression).unwrap_or_else(|faults| panic!("{expression}: {faults:?}"));
    let facts = Facts {
        arguments: arguments.map(AsJson::as_json),
        tool: "pay",
        server: "bank",
        method: "tools/call",
        user: Some("dave"),
        host: None,
        issuer: Some("https://i.example"),
        subject: Some("sub"),
        claims: arguments.map(AsJson::as_json),
    };
    hold(&condition, &facts, quantity)
}

const ARGUMENTS: &str = r#"{ "n": 5, "big": 9007199254740993, "price": 9.99, "whole": 5.0, "neg": -7,
    "s": "abc", "e": "", "t": true, "z": null, "list": [1, 2, 3], "names": ["ann", "bob"], "mixed": [1, "a"],
    "o": { "k": "v", "deep": { "n": 1 } }, "to": [{ "a": "x@corp.example" }, { "a": "y@else.example" }],
    "secret": "?", "some": [1, "?", 3] }"#;

fn arguments() -> Tree {
    let mut arguments = Tree::of(&serde_json::from_str(ARGUMENTS).unwrap());
    if let Tree::Map(map) = &mut arguments {
        map.push(("huge".into(), Tree::Number("1e400".into())));
    }
    arguments
}

fn ask(expression: &str) -> Result<bool, Unevaluated> {
    let arguments = arguments();
    let result = asked(expression, Some(&arguments), Quantity::Some);
    assert_eq!(result, asked(expression, Some(&arguments), Quantity::All));
    result
}

const TRUE: &[&str] = &[
    "args.n > 4",
    "args.n >= 5 && args.n <= 5.0",
    "args.whole == args.n",
    "args.big >= 9007199254740992",
    "args.neg < -6",
    "-args.n == -5",
    "args.s == 'abc'",
    "args['s'] != 'abd'",
    "args.t",
    "!(args.t && false)",
    "args.z == null",
    "args.s != null",
    "has(args.n) && !has(args.none)",
    "args.price * 3 == 29.97",
    "args.price + 0.01 == 10",
    "args.n - 7 == -2",
    "args.neg / 2 == -3",
    "args.neg % 2 == -1",
    "args.s + 'd' == 'abcd'",
    "args.s.size() == 3",
    "size(args.list) == 3",
    "size(args.o) == 2",
    "args.s.contains('b')",
    "args.s.startsWith('ab') && args.s.endsWith('bc')",
    "args.s.matches('^[a-c]+$')",
    "args.list[0] == 1",
    "args.o['k'] == 'v'",
    "args.o.deep.n == 1",
    "has(args.o.deep.n)",
    "2 in args.list",
    "!(9 in args.list)",
    "'k' in args.o",
    "args.n in [4, 5]",
    "args.s in ['abc', 5]",
    "args.list == [1, 2, 3.0]",
    "args.list != [1]",
    "args.n > 9 ? false : true",
    "args.list.exists(x, x > 2)",
    "args.list.all(x, x > 0)",
    "args.list.exists_one(x, x == 2)",
    "args.list.existsOne(x, x > 2)",
    "args.list.filter(x, x > 1).size() == 2",
    "args.list.map(x, x * 2) == [2, 4, 6]",
    "args.to.exists(r, !r.a.endsWith('@corp.example'))",
    "args.list.all(x, args.names.exists(y, y.size() >= x))",
    "tool == 'pay' && server.startsWith('b') || args.t",
    "method == 'tools/call'",
    "caller.user == 'dave'",
    "has(caller.user) && !has(caller.host)",
    "has(caller.issuer) && caller.issuer == 'https://i.example' && caller.subject == 'sub'",
    "has(caller.claims) && 'ann' in caller.claims.names && caller.claims.o.deep.n < 2",
    "caller.claims.names == args.names",
    "args.n == 0x5 && args.n == 5u",
    "args.s < 'abd'",
    "args.e == ''",
    "args.s == r'abc' && args.s == \"abc\"",
    // What decides outweighs what cannot be evaluated.
    "args.t || args.none == 1",
    "args.none == 1 || args.t",
    "!(args.none == 1 && false)",
    "args.mixed.exists(x, x == 'a')",
    "args.t || args.secret == 'x'",
    "args.some.exists(x, x == 3)",
    "args.s == 'abc' || args.secret > 5",
];

#[test]
fn expressions_mean_what_they_say() {
    let mut asked_both = 0;
    for expression in TRUE {
        assert_eq!(ask(expression), Ok(true), "{expression}");
        asked_both += usize::from(interpreted(expression, &arguments()) == Some(true));
    }
    // The others ask for what its interpreter does not know, or compute with a point.
    assert!(asked_both >= 55, "{asked_both} mean the same in CEL");
    let none = asked("has(args.n) || tool == 'x'", None, Quantity::Some);
    assert_eq!(none, Ok(false), "a call without arguments");
}

#[test]
fn what_cannot_be_evaluated_is_an_error() {
    use Unevaluated::{Arithmetic, Missing, OtherType, Unknown};
    for (expression, error) in [
        ("args.none > 4", Missing),
        ("args.o.none == 1", Missing),
        ("args.list[3] == 1", Missing),
        ("args.list[-1] == 1", Missing),
        ("args.list[0.5] == 1", Missing),
        ("caller.host == 'h'", Missing),
        // Receivers convert: what is of another type is not just unequal.
        ("args.s > 4", OtherType),
        ("args.s == 5", OtherType),
        ("args.names == 'ann'", OtherType),
        ("args.n.startsWith('5')", OtherType),
        ("args.n", OtherType),
        ("args.n && args.t", OtherType),
        ("args.s.exists(x, true)", OtherType),
        ("args.n in ['a']", OtherType),
        // In place of a list an object, whose names the caller chooses.
        ("args.o.exists(k, k == 'deep')", OtherType),
        ("args.o.all(k, k != 'none')", OtherType),
        ("args.o.exists_one(k, k == 'k')", OtherType),
        ("size(args.o.filter(k, true)) == 2", OtherType),
        ("args.o.map(k, k) == ['k', 'deep']", OtherType),
        ("args.o == args.list", OtherType),
        ("'a' in args.list", OtherType),
        ("args.s.k == 1", OtherType),
        ("args.mixed.all(x, x == 1 || x == 2)", OtherType),
        ("args.n / 0 == 1", Arithmetic),
        ("args.price / 2 > 1", Arithmetic),
        ("args.huge + 1 > 1", Arithmetic),
        (
            "args.price * args.price * args.price * args.price * args.price > 1",
            Arithmetic,
        ),
        ("args.secret == 'x'", Unknown),
        ("args.secret.contains('x') && args.t", Unknown),
        ("args.some.all(x, x > 0)", Unknown),
        ("args.some.exists(x, x == 7)", Unknown),
        ("args.secret == 'x' && args.none", Unknown),
        ("args.none && args.secret == 'x'", Unknown),
        ("size(args.some.filter(x, x > 1)) == 1", Unknown),
        ("args.some == [1, 2, 3]", Unknown),
        ("has(args.secret.x)", Unknown),
        ("args.some.exists_one(x, x == 1)", Unknown),
    ] {
        assert_eq!(ask(expression), Err(error), "{expression}");
    }
    assert_eq!(
        ask("args.some == [1, 2]"),
        Ok(false),
        "unequal whatever is unknown"
    );
    assert_eq!(ask("has(args.secret)"), Ok(true));
}

/// A rule that restricts looks at a text as sent and as it reads, one that allows as sent and as received.
#[test]
fn texts_are_read_as_other_tests_on_arguments_read_them() {
    let of = |text: &str| Tree::Map(vec![("cmd".into(), Tree::Text(text.into()))]);
    let both = |expression: &str, text: &str| {
        let arguments = of(text);
        (
            asked(expression, Some(&arguments), Quantity::Some).unwrap(),
            asked(expression, Some(&arguments), Quantity::All).unwrap(),
        )
    };
    let tricks = "args.cmd.contains('rm -rf')";
    for text in ["rm -rf", "r\u{200b}m -rf", "\u{ff52}m -rf", "rm \u{2010}rf"] {
        assert!(both(tricks, text).0, "{text}");
    }
    // Whoever allows what begins with /srv/ means no slash that only a receiver makes of it.
    assert_eq!(
        both("args.cmd.startsWith('/srv/')", "/srv\u{ff0f}x"),
        (true, false)
    );
    assert_eq!(
        both("!args.cmd.contains('/')", "srv\u{ff0f}x"),
        (true, false)
    );
    assert_eq!(both("args.cmd == 'prod'", "prod"), (true, true));
}

/// A rule that restricts looks at a number as sent and as the nearest double, one that allows at both.
#[test]
fn numbers_are_read_as_other_tests_on_arguments_read_them() {
    const NEAR: &str = "5.00000000000000000001";
    let both = |expression: &str, number: &str| {
        let number = || Tree::Number(number.into());
        let list = Tree::List(vec![number(), Tree::Number("7".into())]);
        let cmd = Tree::Text("\u{ff52}m".into());
        let members = [("n", number()), ("list", list), ("cmd", cmd)];
        let arguments = Tree::Map(members.map(|(name, value)| (name.into(), value)).into());
        [Quantity::Some, Quantity::All]
            .map(|quantity| asked(expression, Some(&arguments), quantity))
    };
    for (expression, number) in [
        ("args.n == 5", NEAR),
        ("args.n != 5", NEAR),
        ("args.n in [4, 5]", NEAR),
        ("5 in args.list", NEAR),
        ("args.list == [5, 7]", NEAR),
        ("args.list.exists(x, x == 5)", NEAR),
        ("args.n == 0", "1e-400"),
        ("args.n >= 100001", "100000.99999999999999999999"),
        ("args.n < 60", "59.99999999999999999999"),
        ("args.n > 9007199254740992", "9007199254740993"),
        ("args.n == 9007199254740993", "9007199254740992"),
        ("args.n + 1 == 9007199254740993", "9007199254740993"),
        ("-args.n == -9007199254740992", "9007199254740993"),
        // Also of a text that reads otherwise, before or after.
        ("args.cmd == 'rm' && args.n == 5", NEAR),
        ("args.n == 5 && args.cmd == 'rm'", NEAR),
    ] {
        let told = both(expression, number);
        assert_eq!(told, [Ok(true), Ok(false)], "{expression} {number}");
    }
    assert_eq!(both("args.n == 5", "5"), [Ok(true), Ok(true)]);
    assert_eq!(both("args.n < 60", "59.99"), [Ok(true), Ok(true)]);
    assert_eq!(both("args.n > 1e300", "1e400"), [Ok(true), Ok(true)]);
}

const WRONG: &[&str] = &[
    "arg.n > 4",
    "args.n > caller.usr",
    "caller == 1",
    "tool > 5",
    "tool.x == 1",
    "args.n + 1",
    "true",
    "1 < 2",
    "args.n > ",
    "args.n == 'a' &&",
    "args.n ** 2",
    "args.s.match('a')",
    "args.s.matches(args.p)",
    "args.s.matches('(')",
    "args.s.matches('(?=a)')",
    "contain(args.s, 'a')",
    "args.s.contains('a', 'b')",
    "args.list.exists(1, true)",
    "args.list.exists(args, true)",
    "args.a.all(x, args.b.all(y, args.c.all(z, true)))",
    "args.a.all(x, x) && x",
    "{'a': 1} == args.o",
    "b'a' == args.s",
    "args.s == 'a",
    "args.n > 0.12345678901234567",
    "args.n == 99999999999999999999",
    "args.?n == 1",
    "args.é == 1",
    "'é' == 5 && args.n > arg.x",
    "args.n // five",
    "!args.n == 'a'",
    "args.n in 'abc'",
    "has(args)",
    "has(caller.usr)",
    "args.a ? 1 : 2",
    "args.t && 'x'",
    "dyn(args.n) == 1",
    "5r'x' == args.s",
    "args{}",
    "args.m['a'][true] == 1",
];

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    let shown: Vec<String> = WRONG
        .iter()
        .map(|text| {
            let faults = Condition::parse(text).err().unwrap_or_default();
            let faults: Vec<_> = faults
                .iter()
                .map(|fault| {
                    format!(
                        "  {}: {fault}{}",
                        fault.at,
                        fault
                            .hint
                            .as_ref()
                            .map(|hint| format!(" ({hint})"))
                            .unwrap_or_default()
                    )
                })
                .collect();
            format!("{text}\n{}", faults.join("\n"))
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn size_and_depth_are_bounded_before_anything_reads_them() {
    let refused = |text: String, why: &str| {
        let faults = Condition::parse(&text).expect_err(why);
        assert!(faults[0].message.contains(why), "{faults:?}");
    };
    refused(
        format!("args.n == {}", "1".repeat(5000)),
        "at most 4096 bytes",
    );
    refused(format!("args.n == 1{}", "+1".repeat(200)), "at most 256");
    refused(
        format!("{}args.t{}", "(".repeat(13), ")".repeat(13)),
        "at most 12 deep",
    );
    refused(
        format!("args.n == {}1{}", "[".repeat(13), "]".repeat(13)),
        "at most 12 deep",
    );
    refused(format!("args.t == {}true", "!".repeat(300)), "at most 256");
    refused(format!("args.n == 1{}", "+1".repeat(100)), "nested deeper");
}

/// The deepest that passes the scan is read on a small stack, however it is nested.
#[test]
fn the_deepest_expression_fits_a_small_stack() {
    let shapes = [
        format!("args{}", ".a".repeat(127)),
        format!("args.n == 1{}", "+1".repeat(124)),
        format!("args.n == {}1", "-".repeat(250)),
        format!("args.t{}", " ? args.t : args.t".repeat(31)),
        format!("{}args.t{}", "(".repeat(12), ")".repeat(12)),
        format!("{}args.t{}", "(args.a[".repeat(6), "])".repeat(6)),
        format!("{}args.t{}", "!(".repeat(12), ")".repeat(12)),
        format!("args.t{}", " && args.t".repeat(63)),
        format!("args{}", ".a.a(args)".repeat(32)),
        format!("args.t{}", " in args.t".repeat(60)),
        format!("{}1{}", "size([".repeat(6), "])".repeat(6)),
        format!("args.t == {}", "(".repeat(12)),
        format!("args.t{}", " ?".repeat(200)),
        format!("args.t{}", " : args ? ".repeat(60)),
        "args.a".to_owned() + &"[1".repeat(12),
    ];
    let read = std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || {
            for shape in shapes {
                let _read = Condition::parse(&shape);
            }
        });
    read.unwrap().join().unwrap();
}

#[test]
fn work_is_bounded() {
    let list = |count: usize| Tree::List((0..count).map(|n| Tree::Number(n.to_string())).collect());
    let arguments = Tree::Map(vec![
        ("a".into(), list(5_000)),
        ("b".into(), list(5_000)),
        ("text".into(), Tree::Text("x".repeat(600_000))),
        (
            "deep".into(),
            (0..200).fold(Tree::Null, |tree, _| Tree::List(vec![tree])),
        ),
        (
            "wide".into(),
            Tree::Map((0..1_000).map(|n| (n.to_string(), Tree::Null)).collect()),
        ),
    ]);
    for (expression, expected) in [
        (
            "args.a.all(x, args.b.all(y, x + y >= 0))",
            Err(Unevaluated::TooLarge),
        ),
        (
            "args.a.exists(x, args.b.map(y, y) == [x])",
            Err(Unevaluated::TooLarge),
        ),
        ("args.a.all(x, args.text.contains('y'))", Ok(false)),
        (
            "args.a.all(x, !args.text.contains('y'))",
            Err(Unevaluated::TooLarge),
        ),
        ("args.text + args.text == 'x'", Err(Unevaluated::TooLarge)),
        ("args.deep == args.deep", Err(Unevaluated::TooDeep)),
        ("args.a.filter(x, x >= 4999).size() == 1", Ok(true)),
        (
            "args.a.all(x, !has(args.wide.x))",
            Err(Unevaluated::TooLarge),
        ),
    ] {
        assert_eq!(
            asked(expression, Some(&arguments), Quantity::Some),
            expected,
            "{expression}"
        );
    }
}

/// Whatever a rule does: what it asks for by name must not be what another name may be taken for.
#[test]
fn names_are_told_apart() {
    let arguments = Tree::of(
        &serde_json::from_str(r#"{ "A": 1, "o": { "b": 1, "B": 2, "c": 3 }, "l": [{ "K": 1 }] }"#)
            .unwrap(),
    );
    let doubt = Err(Unevaluated::Confusable);
    for (expression, expected) in [
        ("has(args.a)", doubt),
        ("args.a == 1", doubt),
        ("args['a'] == 1", doubt),
        ("'a' in args", doubt),
        ("has(args.A)", Ok(true)),
        ("args.o.b == 1", doubt),
        ("['b'].exists(k, args.o[k] == 1)", doubt),
        ("args.o.c == 3 && size(args.o) == 3", Ok(true)),
        ("args.l.exists(e, has(e.k))", doubt),
        ("args.l.exists(e, e.K == 1)", Ok(true)),
        ("caller.claims.o.b == 1", doubt),
        ("has(args.a) || args.o.c == 3", Ok(true)),
        ("has(args.a) && args.o.c == 4", Ok(false)),
    ] {
        for quantity in [Quantity::Some, Quantity::All] {
            let told = asked(expression, Some(&arguments), quantity);
            assert_eq!(told, expected, "{expression}");
        }
    }
}

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fuzz/corpus/cel");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        oracle::expression(&std::fs::read(entry.unwrap().path()).unwrap());
        found += 1;
    }
    assert!(found >= 10, "{found} files");
}

/// An expression out of parts that fit and parts that do not.
fn expression() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "args.n",
        "args.s",
        "args.list",
        "args.o.k",
        "args.none",
        "args.t",
        "args.z",
        "args.neg",
        "args.price",
        "5",
        "-7",
        "0",
        "9.99",
        "'abc'",
        "'a'",
        "''",
        "true",
        "false",
        "null",
        "[1, 2]",
        "args.names",
        "tool",
        "args.secret",
        "args.mixed",
        "args.some",
        "x",
    ]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(4, 24, 3, |inner| {
            let two = (inner.clone(), inner.clone());
            let operator = select(vec![
                "==", "!=", "<", "<=", ">", ">=", "&&", "||", "+", "-", "*", "/", "%", "in",
            ]);
            let method = select(vec!["contains", "startsWith", "endsWith"]);
            let each = select(vec!["all", "exists", "exists_one", "filter", "map"]);
            prop_oneof![
                6 => (two.clone(), operator).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
                1 => inner.clone().prop_map(|a| format!("!{a}")),
                1 => inner.clone().prop_map(|a| format!("size({a})")),
                2 => (two.clone(), method).prop_map(|((a, b), name)| format!("{a}.{name}({b})")),
                2 => (two.clone(), each).prop_map(|((a, b), name)| format!("{a}.{name}(x, {b})")),
                1 => (two.clone(), inner).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
                1 => two.prop_map(|(a, b)| format!("{a}[{b}]")),
            ]
        })
}

/// What the crate's own interpreter says; whole numbers as its integers, others as its doubles.
fn of_cel(value: &Tree) -> cel::Value {
    match value {
        Tree::Null => cel::Value::Null,
        Tree::Bool(truth) => cel::Value::Bool(*truth),
        Tree::Number(text) => match text.parse() {
            Ok(whole) => cel::Value::Int(whole),
            Err(_) => cel::Value::Float(text.parse().unwrap()),
        },
        Tree::Text(text) => cel::Value::String(Arc::new(text.clone())),
        Tree::List(list) => cel::Value::List(Arc::new(list.iter().map(of_cel).collect())),
        Tree::Map(map) => {
            let map: HashMap<String, cel::Value> = map
                .iter()
                .map(|(key, value)| (key.clone(), of_cel(value)))
                .collect();
            map.into()
        }
    }
}

/// `None`: numbers of two kinds are computed here and not there.
fn interpreted(text: &str, arguments: &Tree) -> Option<bool> {
    let mut context = cel::Context::default();
    context.add_variable_from_value("args", of_cel(arguments));
    for (name, value) in [
        ("tool", "pay"),
        ("server", "bank"),
        ("method", "tools/call"),
    ] {
        context.add_variable_from_value(name, cel::Value::String(Arc::new(value.to_owned())));
    }
    match cel::Program::compile(text).unwrap().execute(&context) {
        Ok(cel::Value::Bool(truth)) => Some(truth),
        Ok(other) => panic!("{text}: {other:?}"),
        Err(error) => {
            let error = error.to_string();
            let kinds = ["overload", "operator", "reference", "compared", "key"];
            let known = kinds.iter().any(|kind| error.contains(kind));
            assert!(known, "{text}: {error}");
            None
        }
    }
}

proptest! {
    /// Where an expression is true or false here, it is the same in CEL.
    #[test]
    fn cel_means_the_same(text in expression()) {
        let Ok(condition) = Condition::parse(&text) else { return Ok(()) };
        let arguments = Tree::of(&serde_json::from_str(ARGUMENTS).unwrap());
        let facts = Facts { arguments: Some(arguments.as_json()), tool: "pay", server: "bank", method: "m", user: None, host: None, issuer: None, subject: None, claims: None };
        let Ok(truth) = hold(&condition, &facts, Quantity::Some) else { return Ok(()) };
        if let Some(other) = interpreted(&text, &arguments) {
            prop_assert_eq!(other, truth, "{}", text);
        }
    }

    /// Nothing panics, and what is not known never decides.
    #[test]
    fn every_expression_keeps_the_laws(text in expression()) {
        oracle::expression(format!("{text}\n{ARGUMENTS}").replace('?', "q").as_bytes());
    }

    #[test]
    fn every_text_is_answered(text in "[a-z0-9 .()'\"\\[\\]<>=!&|?:,+*/%é\\\\-]{0,60}") {
        oracle::expression(format!("{text}\n{{\"a\": [1]}}").as_bytes());
        oracle::expression(format!("args.a == {text}\n{{\"a\": [1]}}").as_bytes());
    }
}
