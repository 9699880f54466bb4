//! Random arguments and tests on them, and the naive reading of both.

use exeat_policy::{AsJson, Json, Members};
use proptest::prelude::*;
use proptest::sample::select;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(&'static str),
    Text(&'static str),
    List(Vec<Tree>),
    Map(Vec<(&'static str, Tree)>),
}

impl AsJson for Tree {
    fn as_json(&self) -> Json<'_> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(text) => Json::Number(text),
            Self::Text(text) => Json::Text(text),
            Self::List(list) => Json::List(list),
            Self::Map(_) => Json::Map(self),
        }
    }
}

impl Tree {
    fn members(&self) -> &[(&'static str, Tree)] {
        match self {
            Self::Map(map) => map,
            _ => &[],
        }
    }
}

impl Members for Tree {
    fn count(&self) -> usize {
        self.members().len()
    }
    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        let (key, value) = self.members().get(index)?;
        Some((key, value.as_json()))
    }
    fn get(&self, key: &str) -> Option<Json<'_>> {
        let found = self.members().iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| value.as_json())
    }
}

/// Texts: as sent, as a receiver may normalise them, as a person reads them.
const TEXTS: [(&str, &str, &str); 13] = [
    ("rm -rf", "rm -rf", "rm -rf"),
    ("r\u{200b}m -rf", "rm -rf", "rm -rf"),
    ("\u{ff52}m -rf", "rm -rf", "rm -rf"),
    ("/\u{455}rv/x", "/\u{455}rv/x", "/srv/x"),
    ("/srv/x", "/srv/x", "/srv/x"),
    ("/srv\u{ff0f}y", "/srv/y", "/srv/y"),
    ("prod", "prod", "prod"),
    ("pr\u{43e}d", "pr\u{43e}d", "prod"),
    ("", "", ""),
    ("\u{441}md", "\u{441}md", "cmd"),
    // Names are texts, too.
    ("\u{ff4e}", "n", "n"),
    ("li\u{17f}t", "list", "list"),
    ("rm\u{200b}-rf", "rm-rf", "rm-rf"),
];
/// Numbers: as sent, the same in plain decimals, and the nearest double in those.
const NUMBERS: [(&str, &str, &str); 14] = [
    ("0", "0", "0"),
    ("-0.0", "0", "0"),
    ("1e-400", TINY, "0"),
    ("4.99999999999999999999", "4.99999999999999999999", "5"),
    ("5", "5", "5"),
    ("5.0", "5", "5"),
    ("0.5e1", "5", "5"),
    ("5.00000000000000000001", "5.00000000000000000001", "5"),
    ("5.49999999999999999999", "5.49999999999999999999", "5.5"),
    ("5.5", "5.5", "5.5"),
    (
        "9007199254740991.999999",
        "9007199254740991.999999",
        "9007199254740992",
    ),
    ("9007199254740992", "9007199254740992", "9007199254740992"),
    ("9007199254740993", "9007199254740993", "9007199254740992"),
    ("9007199254740994", "9007199254740994", "9007199254740994"),
];
/// Stands for every number between zero and what is counted here.
const TINY: &str = "0.00000000000000000001";
const KEYS: [&str; 5] = ["cmd", "n", "list", "opts", "rm -rf"];
/// Names that some receiver takes for one of those.
const TAKEN: [(&str, &str); 7] = [
    ("CMD", "cmd"),
    ("\u{441}md", "cmd"),
    ("N", "n"),
    ("\u{ff4e}", "n"),
    ("li\u{17f}t", "list"),
    ("Opts", "opts"),
    ("rm\u{200b}-rf", "rm -rf"),
];

/// Whether a receiver may take `name` for `other`, which is another.
pub(crate) fn is_taken_for(name: &str, other: &str) -> bool {
    let meant = |name| {
        let found = TAKEN.into_iter().find(|(taken, _)| *taken == name);
        found.map_or(name, |(_, meant)| meant)
    };
    name != other && meant(name) == meant(other)
}

/// Whether some name in it may be taken for another.
pub(crate) fn is_doubtful(tree: &Tree) -> bool {
    match tree {
        Tree::List(list) => list.iter().any(is_doubtful),
        Tree::Map(map) => map.iter().any(|(key, value)| {
            TAKEN.into_iter().any(|(taken, _)| taken == *key) || is_doubtful(value)
        }),
        _ => false,
    }
}

/// A test on arguments, as it is written.
#[derive(Debug, Clone)]
pub(crate) struct GenArg {
    /// `None`: any.
    pub(crate) field: Option<&'static str>,
    keys: bool,
    tests: Vec<(&'static str, GenTest)>,
}

#[derive(Debug, Clone)]
enum GenTest {
    Type(&'static str),
    Absent(bool),
    /// A text that stands in it.
    Contains(&'static str),
    /// What it begins with.
    Begins(&'static str),
    /// `min`, `max`, `above` or `below`.
    Bound(&'static str, &'static str),
    In(Vec<Tree>),
    Length(usize, usize),
}

use GenTest::{Absent, Begins, Bound, Contains, In, Length, Type};

impl GenArg {
    pub(crate) fn text(&self) -> String {
        let place = match self.field {
            Some(pointer) => format!("field: \"{pointer}\""),
            None => "any: true".to_owned(),
        };
        let keys = if self.keys { ", keys: true" } else { "" };
        let tests: Vec<_> = self.tests.iter().map(|(text, _)| *text).collect();
        format!("{{ {place}{keys}, {} }}", tests.join(", "))
    }
}

/// A test, mostly of a field.
pub(crate) fn argument() -> impl Strategy<Value = GenArg> {
    let fields = [
        "/cmd",
        "/n",
        "/list",
        "/list/*",
        "/list/0",
        "/opts/cmd",
        "/opts",
        "/*",
        "/rm -rf",
    ];
    let tests: Vec<Vec<(&'static str, GenTest)>> = vec![
        vec![("matches: 'rm -rf'", Contains("rm -rf"))],
        vec![("matches: 'prod'", Contains("prod"))],
        vec![("glob: '/srv/*'", Begins("/srv/"))],
        vec![
            ("type: string", Type("string")),
            ("glob: '/srv/*'", Begins("/srv/")),
        ],
        vec![("min: 5", Bound("min", "5"))],
        vec![("max: 5", Bound("max", "5"))],
        vec![("below: 5", Bound("below", "5"))],
        vec![(
            "above: 9007199254740992",
            Bound("above", "9007199254740992"),
        )],
        vec![("min: 9007199254740993", Bound("min", "9007199254740993"))],
        vec![(
            "in: [5.00000000000000000001, 0]",
            In(vec![
                Tree::Number("5.00000000000000000001"),
                Tree::Number("0"),
            ]),
        )],
        vec![
            ("below: 5.5", Bound("below", "5.5")),
            ("min: 0", Bound("min", "0")),
        ],
        vec![
            ("type: number", Type("number")),
            ("above: 5", Bound("above", "5")),
        ],
        vec![(
            "in: [prod, 5, null]",
            In(vec![Tree::Text("prod"), Tree::Number("5"), Tree::Null]),
        )],
        vec![("in: [true]", In(vec![Tree::Bool(true)]))],
        vec![("length: { max: 2 }", Length(0, 2))],
        vec![
            ("length: { min: 1, max: 6 }", Length(1, 6)),
            ("matches: 'rm'", Contains("rm")),
        ],
        vec![("type: integer", Type("integer"))],
        vec![("type: array", Type("array"))],
        vec![("type: object", Type("object"))],
        vec![("type: boolean", Type("boolean"))],
        vec![("type: \"null\"", Type("null"))],
    ];
    let absent = vec![
        ("absent: true", Absent(true)),
        ("absent: false", Absent(false)),
    ];
    let of_keys: Vec<Vec<(&'static str, GenTest)>> = vec![
        vec![("matches: 'rm -rf'", Contains("rm -rf"))],
        vec![("in: [cmd, n]", In(vec![Tree::Text("cmd"), Tree::Text("n")]))],
        vec![("length: { max: 3 }", Length(0, 3))],
    ];
    let field = |field: &'static str| {
        move |tests| GenArg {
            field: Some(field),
            keys: false,
            tests,
        }
    };
    prop_oneof![
        6 => (select(fields.to_vec()), select(tests.clone())).prop_map(move |(at, tests)| field(at)(tests)),
        2 => (select(fields.to_vec()), select(absent)).prop_map(move |(at, test)| field(at)(vec![test])),
        2 => select(tests).prop_map(|tests| GenArg { field: None, keys: false, tests }),
        1 => (select(vec![None, Some("/opts"), Some("/list/*")]), select(of_keys))
            .prop_map(|(field, tests)| GenArg { field, keys: true, tests }),
    ]
}

/// Arguments: an object of a few known keys.
pub(crate) fn arguments() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        1 => Just(Tree::Null),
        1 => any::<bool>().prop_map(Tree::Bool),
        2 => select(NUMBERS.to_vec()).prop_map(|(text, _, _)| Tree::Number(text)),
        3 => select(TEXTS.to_vec()).prop_map(|(text, _, _)| Tree::Text(text)),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::List),
            object(inner),
        ]
    });
    let object = object(value);
    prop_oneof![
        2 => object.clone(),
        4 => usual(),
        1 => (object, usual()).prop_map(|both| match both {
            (Tree::Map(mut odd), Tree::Map(usual)) => {
                odd.retain(|(key, _)| TAKEN.into_iter().any(|(taken, _)| taken == *key));
                Tree::Map([odd, usual].concat())
            }
            (_, usual) => usual,
        }),
    ]
}

/// Arguments of the types that tests are mostly for.
fn usual() -> impl Strategy<Value = Tree> {
    let text = || select(TEXTS.to_vec()).prop_map(|(text, _, _)| Tree::Text(text));
    let number = || select(NUMBERS.to_vec()).prop_map(|(text, _, _)| Tree::Number(text));
    let list = prop::collection::vec(prop_oneof![number(), text()], 0..3).prop_map(Tree::List);
    let some = prop::option::weighted::<BoxedStrategy<Tree>>;
    let opts = (some(0.7, text().boxed()), some(0.7, number().boxed()))
        .prop_map(|(cmd, n)| members([("cmd", cmd), ("n", n)]));
    (
        some(0.8, text().boxed()),
        some(0.8, number().boxed()),
        some(0.5, list.boxed()),
        some(0.5, opts.boxed()),
    )
        .prop_map(|(cmd, n, list, opts)| {
            members([("cmd", cmd), ("n", n), ("list", list), ("opts", opts)])
        })
}

fn members<const N: usize>(members: [(&'static str, Option<Tree>); N]) -> Tree {
    let some = members
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Tree::Map(some.collect())
}

fn object(value: impl Strategy<Value = Tree> + Clone) -> impl Strategy<Value = Tree> + Clone {
    let taken = TAKEN.map(|(name, _)| name).to_vec();
    (
        prop::sample::subsequence(KEYS.to_vec(), 0..=3),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::sample::subsequence(taken, 1..=2)],
        prop::collection::vec(value, 5),
    )
        .prop_map(|(keys, taken, values)| {
            let keys = taken.into_iter().chain(keys);
            Tree::Map(keys.zip(values).collect())
        })
}

/// Whether all tests hold of the arguments; `None`: they cannot be evaluated.
pub(crate) fn hold(args: &[GenArg], allows: bool, arguments: Option<&Tree>) -> Option<bool> {
    all(args.iter().map(|arg| holds(arg, allows, arguments)))
}

fn all(results: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let results: Vec<_> = results.collect();
    if results.contains(&Some(false)) {
        Some(false)
    } else if results.contains(&None) {
        None
    } else {
        Some(true)
    }
}

/// Where a receiver may read the arguments in several ways, a rule that restricts means every one of them, and one that
/// allows none.
fn holds(arg: &GenArg, allows: bool, arguments: Option<&Tree>) -> Option<bool> {
    let mut readings = match (arguments, arg.field) {
        (None, _) => vec![Vec::new()],
        (Some(tree), Some(pointer)) => {
            let steps: Vec<_> = pointer.split('/').skip(1).collect();
            readings(tree, &steps)
        }
        (Some(tree), None) if arg.keys => vec![[vec![tree.clone()], below(tree)].concat()],
        (Some(tree), None) => vec![below(tree)],
    };
    if arg.keys {
        for found in &mut readings {
            *found = found.iter().flat_map(keys).collect();
        }
    }
    let read: Vec<_> = readings
        .iter()
        .map(|found| read_so(arg, allows, found))
        .collect();
    match read.as_slice() {
        [one] => *one,
        // What is there as it is written, and fails, is enough.
        [as_written, ..] if allows => as_written.filter(|holds| !holds && !readings[0].is_empty()),
        _ if read.contains(&Some(true)) => Some(true),
        _ if read.contains(&None) => None,
        _ => Some(false),
    }
}

/// Whether all tests hold of what is found.
fn read_so(arg: &GenArg, allows: bool, found: &[Tree]) -> Option<bool> {
    if let [(_, Absent(absent))] = arg.tests.as_slice() {
        return Some(found.is_empty() == *absent);
    }
    let results: Vec<Option<bool>> = found
        .iter()
        .map(|value| {
            all(arg
                .tests
                .iter()
                .map(|(_, test)| passes(test, allows, value)))
        })
        .map(|passed| {
            if arg.field.is_none() {
                Some(passed == Some(true))
            } else {
                passed
            }
        })
        .collect();
    if allows {
        if results.is_empty() {
            Some(false)
        } else {
            all(results.into_iter())
        }
    } else if results.contains(&Some(true)) {
        Some(true)
    } else if results.contains(&None) {
        None
    } else {
        Some(false)
    }
}

/// What a pointer leads to, in each way in which a receiver may read the names; as they are written first.
fn readings(tree: &Tree, steps: &[&str]) -> Vec<Vec<Tree>> {
    let Some((step, rest)) = steps.split_first() else {
        return vec![vec![tree.clone()]];
    };
    let children: Vec<&Tree> = match tree {
        Tree::List(list) => list.iter().collect(),
        Tree::Map(map) => map.iter().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    if *step == "*" {
        // Of each in each way.
        return children.into_iter().fold(vec![Vec::new()], |all, child| {
            let with = |before: &Vec<Tree>| {
                let ways = readings(child, rest).into_iter();
                ways.map(|way| [before.clone(), way].concat())
                    .collect::<Vec<_>>()
            };
            all.iter().flat_map(with).collect()
        });
    }
    let mut own = None;
    let mut others = Vec::new();
    match tree {
        Tree::List(list) => own = step.parse::<usize>().ok().and_then(|at| list.get(at)),
        Tree::Map(map) => {
            for (key, value) in map {
                if key == step {
                    own = Some(value);
                } else if is_taken_for(key, step) {
                    others.push(value);
                }
            }
        }
        _ => {}
    }
    let mut ways = own.map_or_else(|| vec![Vec::new()], |value| readings(value, rest));
    ways.extend(others.into_iter().flat_map(|value| readings(value, rest)));
    ways
}

fn below(tree: &Tree) -> Vec<Tree> {
    let children = match tree {
        Tree::List(list) => list.clone(),
        Tree::Map(map) => map.iter().map(|(_, value)| value.clone()).collect(),
        _ => Vec::new(),
    };
    children
        .iter()
        .flat_map(|child| [vec![child.clone()], below(child)].concat())
        .collect()
}

fn keys(tree: &Tree) -> Vec<Tree> {
    match tree {
        Tree::Map(map) => map.iter().map(|(key, _)| Tree::Text(key)).collect(),
        _ => Vec::new(),
    }
}

/// How a text is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    /// As it was sent.
    Sent,
    /// As a receiver may normalise it.
    Received,
    /// As a person reads it.
    Read,
}

/// A text of the table as it is read; another is what it is.
pub(crate) fn read(sent: &'static str, reading: Reading) -> &'static str {
    let found = TEXTS.into_iter().find(|(text, _, _)| *text == sent);
    let (sent, received, read) = found.unwrap_or((sent, sent, sent));
    match reading {
        Reading::Sent => sent,
        Reading::Received => received,
        Reading::Read => read,
    }
}

/// How a number is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Digits {
    /// As it was sent.
    All,
    /// As the nearest double.
    Double,
}

/// One in the unit in which numbers are counted here.
pub(crate) const ONE: i128 = 100_000_000_000_000_000_000;

/// A number of the table as it is read.
pub(crate) fn value(number: &str, digits: Digits) -> i128 {
    let (_, plain, double) = NUMBERS
        .into_iter()
        .find(|(text, _, _)| *text == number)
        .unwrap();
    let read = if digits == Digits::All { plain } else { double };
    let (whole, fraction) = read.split_once('.').unwrap_or((read, ""));
    let fraction: i128 = format!("{fraction:0<20}").parse().unwrap();
    whole.parse::<i128>().unwrap() * ONE + fraction
}

/// A number in billionths as it was sent; `None` for what is finer.
pub(crate) fn billionths(number: &str) -> Option<i128> {
    let unit = ONE / 1_000_000_000;
    let value = value(number, Digits::All);
    (value % unit == 0).then_some(value / unit)
}

/// Whether it holds of a number: in one of its readings for what restricts, in both for what allows.
fn of_number(allows: bool, holds: impl Fn(Digits) -> bool) -> bool {
    let (sent, double) = (holds(Digits::All), holds(Digits::Double));
    if allows {
        sent && double
    } else {
        sent || double
    }
}

fn passes(asked: &GenTest, allows: bool, found: &Tree) -> Option<bool> {
    let text = |holds: &dyn Fn(&str) -> bool| match found {
        Tree::Text(sent) => {
            let (_, received, read) = TEXTS
                .into_iter()
                .find(|(text, _, _)| text == sent)
                .unwrap_or((sent, sent, sent));
            Some(if allows {
                holds(sent) && holds(received)
            } else {
                holds(sent) || holds(read)
            })
        }
        _ => None,
    };
    match asked {
        Type(name) => Some(match found {
            Tree::Null => *name == "null",
            Tree::Bool(_) => *name == "boolean",
            Tree::Number(number) => {
                let whole = || of_number(allows, |digits| value(number, digits) % ONE == 0);
                *name == "number" || (*name == "integer" && whole())
            }
            Tree::Text(_) => *name == "string",
            Tree::List(_) => *name == "array",
            Tree::Map(_) => *name == "object",
        }),
        Absent(absent) => Some(!absent),
        Contains(part) => text(&|form| form.contains(part)),
        Begins(start) => text(&|form| form.starts_with(start)),
        Bound(how, bound) => match found {
            Tree::Number(number) => Some(of_number(allows, |digits| {
                let (number, bound) = (value(number, digits), value(bound, digits));
                match *how {
                    "min" => number >= bound,
                    "max" => number <= bound,
                    "above" => number > bound,
                    _ => number < bound,
                }
            })),
            _ => None,
        },
        In(listed) => {
            let mut comparable = listed
                .iter()
                .filter(|one| std::mem::discriminant(*one) == std::mem::discriminant(found))
                .peekable();
            comparable.peek()?;
            Some(comparable.any(|one| match (one, found) {
                (Tree::Number(one), Tree::Number(number)) => {
                    of_number(allows, |digits| value(one, digits) == value(number, digits))
                }
                (Tree::Text(one), Tree::Text(sent)) => {
                    let read = TEXTS
                        .into_iter()
                        .find(|(text, _, _)| text == sent)
                        .map_or(*sent, |(_, _, read)| read);
                    one == sent || (!allows && *one == read)
                }
                (one, found) => one == found,
            }))
        }
        Length(least, most) => {
            let length = match found {
                Tree::Text(text) => text.chars().count(),
                Tree::List(list) => list.len(),
                Tree::Map(map) => map.len(),
                _ => return None,
            };
            Some((*least..=*most).contains(&length))
        }
    }
}
