//! Random conditions in CEL, and the naive reading of them: by trying everything, on copies.

use proptest::prelude::*;
use proptest::sample::select;

use super::arguments::{
    Digits, ONE, Reading, Tree, billionths, is_taken_for, read, value as number,
};

/// A condition as its reader would tell it.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Either(Box<Condition>, Box<Condition>, Box<Condition>),
    Has(&'static [&'static str]),
    /// A number at the end of a path, compared with one.
    Number(&'static [&'static str], &'static str, &'static str),
    /// Twice the number and one more.
    Twice(&'static [&'static str], &'static str, &'static str),
    Text(&'static [&'static str], Textual, &'static str),
    /// One of some texts.
    OneOf(&'static [&'static str], &'static [&'static str]),
    Null(&'static [&'static str]),
    /// The bare value, which may be true or false.
    Truth(&'static [&'static str]),
    Size(&'static [&'static str], &'static str, &'static str),
    /// All elements, or some: a number that is compared.
    Each(
        &'static str,
        &'static [&'static str],
        &'static str,
        &'static str,
    ),
    /// Some element (or key) holds the text.
    Holds(&'static [&'static str], &'static str),
    Tool(&'static str),
    Server(&'static str),
    User(&'static str),
    HasHost,
    HasClaims,
    /// The token's subject.
    Subject(&'static str),
    /// The claim `group` is this text.
    Group(&'static str),
    /// The claim `group` is a list with this text.
    InGroup(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Textual {
    Equal,
    Contains,
    Starts,
    Ends,
    Matches,
}

use Condition::{
    And, Each, Either, Group, Has, HasClaims, HasHost, Holds, InGroup, Not, Null, Number, OneOf,
    Or, Server, Size, Subject, Text, Tool, Truth, Twice, User,
};

/// Why it is not known whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unclear {
    /// It depends on arguments.
    Depends,
    /// It cannot be evaluated, whatever they are.
    Fails,
}

/// What a condition is asked of.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) arguments: &'a Tree,
    /// Subject and claims of the token.
    pub(crate) token: Option<(&'a str, &'a Tree)>,
    pub(crate) tool: &'a str,
    pub(crate) server: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
}

const PATHS: [&[&str]; 6] = [
    &["cmd"],
    &["n"],
    &["list"],
    &["opts"],
    &["opts", "cmd"],
    &["opts", "n"],
];
const NUMBERS: [&str; 5] = ["5", "5.5", "0", "9007199254740992", "9007199254740993"];
const TEXTS: [&str; 5] = ["rm -rf", "prod", "/srv/", "x", ""];

pub(crate) fn condition() -> impl Strategy<Value = Condition> {
    let paths = || select(PATHS.to_vec());
    let compared = || select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let numbers = || select(NUMBERS.to_vec());
    let texts = || select(TEXTS.to_vec());
    let how = select(vec![
        Textual::Equal,
        Textual::Contains,
        Textual::Starts,
        Textual::Ends,
        Textual::Matches,
    ]);
    let leaf = prop_oneof![
        3 => paths().prop_map(Has),
        3 => (paths(), compared(), numbers()).prop_map(|(path, how, bound)| Number(path, how, bound)),
        1 => (paths(), compared(), numbers()).prop_map(|(path, how, number)| Twice(path, how, number)),
        4 => (paths(), how, texts()).prop_map(|(path, how, text)| Text(path, how, text)),
        1 => paths().prop_map(|path| OneOf(path, &["prod", "/srv/x"])),
        1 => paths().prop_map(Null),
        1 => paths().prop_map(Truth),
        1 => (paths(), compared(), numbers()).prop_map(|(path, how, number)| Size(path, how, number)),
        1 => (select(vec!["all", "exists"]), paths(), compared(), numbers())
            .prop_map(|(each, path, how, number)| Each(each, path, how, number)),
        1 => (paths(), texts()).prop_map(|(path, text)| Holds(path, text)),
        1 => select(vec!["get_", "set", "file:///d/", "https://h"]).prop_map(Tool),
        1 => select(vec!["a", "b"]).prop_map(Server),
        1 => select(vec!["dave", "x"]).prop_map(User),
        1 => Just(HasHost),
        1 => Just(HasClaims),
        1 => select(vec!["u1", "u2"]).prop_map(Subject),
        1 => select(vec!["dev", "ops", "DEV"]).prop_map(Group),
        1 => select(vec!["dev", "ops", "none"]).prop_map(InGroup),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let two = || {
            (
                inner.clone().prop_map(Box::new),
                inner.clone().prop_map(Box::new),
            )
        };
        prop_oneof![
            1 => inner.clone().prop_map(|one| Not(Box::new(one))),
            2 => two().prop_map(|(left, right)| And(left, right)),
            2 => two().prop_map(|(left, right)| Or(left, right)),
            1 => (two(), inner.clone()).prop_map(|((one, yes), no)| Either(one, yes, Box::new(no))),
        ]
    })
}

const AS_SENT: (Reading, Digits) = (Reading::Sent, Digits::All);

fn path(path: &[&str]) -> String {
    format!("args.{}", path.join("."))
}

impl Condition {
    /// As it is written.
    pub(crate) fn text(&self) -> String {
        match self {
            Not(one) => format!("!({})", one.text()),
            And(left, right) => format!("({} && {})", left.text(), right.text()),
            Or(left, right) => format!("({} || {})", left.text(), right.text()),
            Either(one, yes, no) => format!("({} ? {} : {})", one.text(), yes.text(), no.text()),
            Has(at) => format!("has({})", path(at)),
            Number(at, how, number) => format!("{} {how} {number}", path(at)),
            Twice(at, how, number) => format!("{} * 2 + 1 {how} {number}", path(at)),
            Text(at, Textual::Equal, text) => format!("{} == '{text}'", path(at)),
            Text(at, Textual::Contains, text) => format!("{}.contains('{text}')", path(at)),
            Text(at, Textual::Starts, text) => format!("{}.startsWith('{text}')", path(at)),
            Text(at, Textual::Ends, text) => format!("{}.endsWith('{text}')", path(at)),
            Text(at, Textual::Matches, text) => format!("{}.matches('^{text}')", path(at)),
            OneOf(at, texts) => format!("{} in ['{}', 5]", path(at), texts.join("', '")),
            Null(at) => format!("{} == null", path(at)),
            Truth(at) => path(at),
            Size(at, how, number) => format!("size({}) {how} {number}", path(at)),
            Each(each, at, how, number) => format!("{}.{each}(x, x {how} {number})", path(at)),
            Holds(at, text) => format!("{}.exists(x, x.contains('{text}'))", path(at)),
            Tool(text) => format!("tool.startsWith('{text}')"),
            Server(text) => format!("server == '{text}'"),
            User(text) => format!("caller.user == '{text}'"),
            HasHost => "has(caller.host)".to_owned(),
            HasClaims => "has(caller.claims)".to_owned(),
            Subject(text) => format!("caller.subject == '{text}'"),
            Group(text) => format!("caller.claims.group == '{text}'"),
            InGroup(text) => format!("'{text}' in caller.claims.group"),
        }
    }

    /// Whether it holds for a rule that allows, or for one that restricts; `None`: it cannot be evaluated.
    pub(crate) fn holds(&self, allows: bool, asked: Asked<'_>) -> Option<bool> {
        let other = if allows {
            Reading::Received
        } else {
            Reading::Read
        };
        let readings = [Digits::All, Digits::Double]
            .into_iter()
            .flat_map(|digits| [(Reading::Sent, digits), (other, digits)]);
        decided(readings.map(|read| self.truth(asked, read)), !allows)
    }

    /// What it comes to where the arguments are not known.
    pub(crate) fn whatever(&self, asked: Asked<'_>) -> Result<bool, Unclear> {
        let of = |one: &Condition| one.whatever(asked);
        let both = |left: &Condition, right: &Condition, decides: bool| {
            let results = [of(left), of(right)];
            let certain = [Ok(decides), Err(Unclear::Depends), Err(Unclear::Fails)];
            let found = certain.into_iter().find(|it| results.contains(it));
            found.unwrap_or(Ok(!decides))
        };
        match self {
            Not(one) => of(one).map(|truth| !truth),
            And(left, right) => both(left, right, false),
            Or(left, right) => both(left, right, true),
            Either(one, yes, no) => of(if of(one)? { yes } else { no }),
            Tool(_) | Server(_) | User(_) | HasHost | HasClaims | Subject(_) | Group(_)
            | InGroup(_) => self.truth(asked, AS_SENT).ok_or(Unclear::Fails),
            _ => Err(Unclear::Depends),
        }
    }

    fn truth(&self, asked: Asked<'_>, reading: (Reading, Digits)) -> Option<bool> {
        let truth = |one: &Condition| one.truth(asked, reading);
        match self {
            Not(one) => truth(one).map(|truth| !truth),
            And(left, right) => match (truth(left), truth(right)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Or(left, right) => match (truth(left), truth(right)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Either(one, yes, no) => truth(if truth(one)? { yes } else { no }),
            Tool(start) => Some(asked.tool.starts_with(start)),
            Server(name) => Some(asked.server == *name),
            User(name) => Some(asked.user? == *name),
            HasHost => Some(asked.host.is_some()),
            HasClaims => Some(asked.token.is_some()),
            Subject(name) => Some(asked.token?.0 == *name),
            Group(name) => match value(asked.token?.1, &["group"])? {
                Tree::Text(text) => Some(text == name),
                _ => None,
            },
            InGroup(name) => match value(asked.token?.1, &["group"])? {
                Tree::List(list) => {
                    let of = |element: &Tree| match element {
                        Tree::Text(text) => Some(text == name),
                        _ => None,
                    };
                    decided(list.iter().map(of), true)
                }
                _ => None,
            },
            _ => self.tested(asked.arguments, reading),
        }
    }

    /// Those that look at arguments.
    fn tested(&self, arguments: &Tree, (reading, digits): (Reading, Digits)) -> Option<bool> {
        match self {
            Has(at) => {
                let (last, before) = at.split_last()?;
                match value(arguments, before)? {
                    Tree::Map(map) if map.iter().any(|(key, _)| is_taken_for(key, last)) => None,
                    Tree::Map(map) => Some(map.iter().any(|(key, _)| key == last)),
                    _ => None,
                }
            }
            Number(at, how, bound) => match value(arguments, at)? {
                Tree::Number(text) => {
                    Some(compared(number(text, digits), how, number(bound, digits)))
                }
                Tree::Null => unequal(how),
                _ => None,
            },
            Twice(at, how, bound) => match value(arguments, at)? {
                Tree::Number(text) => {
                    // What is computed has nine digits behind the point.
                    (digits == Digits::Double || billionths(text).is_some()).then(|| {
                        let twice = number(text, digits) * 2 + ONE;
                        compared(twice, how, number(bound, digits))
                    })
                }
                _ => None,
            },
            Text(at, how, wanted) => match value(arguments, at)? {
                Tree::Text(sent) => {
                    let text = read(sent, reading);
                    Some(match how {
                        Textual::Equal => text == *wanted,
                        Textual::Contains => text.contains(wanted),
                        Textual::Starts | Textual::Matches => text.starts_with(wanted),
                        Textual::Ends => text.ends_with(wanted),
                    })
                }
                Tree::Null if matches!(how, Textual::Equal) => Some(false),
                _ => None,
            },
            OneOf(at, texts) => match value(arguments, at)? {
                Tree::Text(sent) => Some(texts.contains(&read(sent, reading))),
                Tree::Number(text) => Some(number(text, digits) == 5 * ONE),
                Tree::Null => Some(false),
                _ => None,
            },
            Null(at) => Some(*value(arguments, at)? == Tree::Null),
            Truth(at) => match value(arguments, at)? {
                Tree::Bool(truth) => Some(*truth),
                _ => None,
            },
            Size(at, how, bound) => {
                let size = match value(arguments, at)? {
                    Tree::Text(sent) => read(sent, reading).chars().count(),
                    Tree::List(list) => list.len(),
                    Tree::Map(map) => map.len(),
                    _ => return None,
                };
                let size = i128::try_from(size).unwrap() * ONE;
                Some(compared(size, how, number(bound, digits)))
            }
            Each(each, at, how, bound) => {
                let all = *each == "all";
                let of = |element: &Tree| match element {
                    Tree::Number(text) => {
                        Some(compared(number(text, digits), how, number(bound, digits)))
                    }
                    Tree::Null => unequal(how),
                    _ => None,
                };
                decided(elements(value(arguments, at)?)?.iter().map(of), !all)
            }
            Holds(at, wanted) => {
                let of = |element: &Tree| match element {
                    Tree::Text(sent) => Some(read(sent, reading).contains(wanted)),
                    _ => None,
                };
                decided(elements(value(arguments, at)?)?.iter().map(of), true)
            }
            _ => None,
        }
    }
}

/// Null is no number, and unequal to each.
fn unequal(how: &str) -> Option<bool> {
    match how {
        "==" => Some(false),
        "!=" => Some(true),
        _ => None,
    }
}

fn compared(left: i128, how: &str, right: i128) -> bool {
    match how {
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "==" => left == right,
        _ => left != right,
    }
}

/// One that decides outweighs those that cannot be told.
fn decided(results: impl Iterator<Item = Option<bool>>, decides: bool) -> Option<bool> {
    let results: Vec<_> = results.collect();
    if results.contains(&Some(decides)) {
        Some(decides)
    } else if results.contains(&None) {
        None
    } else {
        Some(!decides)
    }
}

fn value<'a>(tree: &'a Tree, path: &[&str]) -> Option<&'a Tree> {
    path.iter().try_fold(tree, |tree, step| match tree {
        Tree::Map(map) if map.iter().any(|(key, _)| is_taken_for(key, step)) => None,
        Tree::Map(map) => map
            .iter()
            .find(|(key, _)| key == step)
            .map(|(_, value)| value),
        _ => None,
    })
}

fn elements(tree: &Tree) -> Option<Vec<Tree>> {
    match tree {
        Tree::List(list) => Some(list.clone()),
        _ => None,
    }
}
