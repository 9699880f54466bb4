//! The shape of arguments: which members, of which types; and the tests by which a rule asks for exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use exeat_policy::cel::Condition;
use exeat_policy::{Pointer, confusable};
use serde_json::Value;

use crate::audit::is_whole;
use crate::cli::policy::recorded::{Kept, Recorded};

/// How deep `all` may stand in itself.
const NESTED: usize = 2;

/// What arguments look like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    /// The record leaves it out.
    Unknown,
    /// A list whose elements the record leaves out.
    AnyList,
    /// An object whose members the record leaves out.
    AnyMap,
    /// A list, and the shapes of its elements.
    List(BTreeSet<Shape>),
    Map(BTreeMap<String, Shape>),
}

/// Tests that hold of one shape only.
#[derive(Debug, Default)]
pub(super) struct Tests {
    /// Entries of `args`.
    pub(super) args: Vec<String>,
    /// Parts of `when`.
    pub(super) when: Vec<String>,
}

impl Shape {
    /// Of the arguments in a record; `None` where even their names are not recorded.
    pub(super) fn of(kept: &Kept, summary: Option<&Value>) -> Option<Self> {
        match kept {
            Kept::None => Some(Self::Map(BTreeMap::new())),
            Kept::All(Recorded::Unknown) => None,
            Kept::All(value) => Some(Self::recorded(value)),
            Kept::Nothing => Self::summed(summary?),
        }
    }

    fn recorded(value: &Recorded) -> Self {
        match value {
            Recorded::Null => Self::Null,
            Recorded::Bool(_) => Self::Boolean,
            Recorded::Number(text)
                if text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-') =>
            {
                Self::Integer
            }
            Recorded::Number(_) => Self::Number,
            Recorded::Text(_) => Self::Text,
            Recorded::Unknown => Self::Unknown,
            Recorded::List(list) => Self::List(list.iter().map(Self::recorded).collect()),
            // Arguments are recorded whole, or by their names.
            Recorded::Part(_) => Self::AnyMap,
            Recorded::Map(map) => {
                let members = map.iter();
                Self::Map(
                    members
                        .map(|(key, value)| (key.clone(), Self::recorded(value)))
                        .collect(),
                )
            }
        }
    }

    /// Of arguments that were too large to be recorded: their names, each with a kind and a size.
    fn summed(summary: &Value) -> Option<Self> {
        let members = summary.as_object()?;
        let member = |(name, value): (&String, &Value)| {
            let kind = value.as_str()?.strip_prefix('[')?;
            let kind = kind.split([' ', ']']).next()?;
            // A name that long is only the beginning of one.
            let whole = is_whole(name) && name.len() < 64;
            let shape = match kind {
                "null" => Self::Null,
                "boolean" => Self::Boolean,
                "number" => Self::Number,
                "string" => Self::Text,
                "array" => Self::AnyList,
                "object" => Self::AnyMap,
                _ => return None,
            };
            whole.then(|| (name.clone(), shape))
        };
        members
            .iter()
            .map(member)
            .collect::<Option<_>>()
            .map(Self::Map)
    }

    /// The tests that hold of this shape; `None` where no rule can tell it.
    pub(super) fn tests(&self) -> Option<Tests> {
        let Self::Map(members) = self else {
            return None;
        };
        let mut tests = Tests::default();
        tests.when.push(format!("size(args) == {}", members.len()));
        for (name, shape) in members {
            let place = format!("/{}", segment(name)?);
            tests.add(shape, &place, Some(&format!("args[{}]", quoted(name))))?;
        }
        let readable = tests.args.len() <= 64 && Condition::parse(&tests.when.join(" && ")).is_ok();
        (readable && !self.is_doubtful()).then_some(tests)
    }

    /// Whether of two members of one object a receiver may take one for the other: no rule that names them allows that.
    fn is_doubtful(&self) -> bool {
        match self {
            Self::List(elements) => elements.iter().any(Self::is_doubtful),
            Self::Map(members) => members.iter().any(|(name, below)| {
                let other = |other: &String| confusable(other, &[name]);
                members.keys().any(other) || below.is_doubtful()
            }),
            _ => false,
        }
    }

    /// What must hold of `value`, an element of a list, beyond what tests on its parts say; `None`: it cannot be told.
    fn element(&self, value: &str, depth: usize) -> Option<Vec<String>> {
        let mut parts = Vec::new();
        match self {
            Self::Map(members) => {
                parts.push(format!("size({value}) == {}", members.len()));
                for (name, shape) in members {
                    let name = quoted(name);
                    parts.push(format!("{name} in {value}"));
                    parts.extend(shape.element(&format!("{value}[{name}]"), depth)?);
                }
            }
            Self::List(elements) => parts.extend(list(elements, value, depth)?),
            _ => {}
        }
        Some(parts)
    }
}

/// What must hold of a list beyond the tests on its elements.
fn list(elements: &BTreeSet<Shape>, value: &str, depth: usize) -> Option<Vec<String>> {
    let mut all = elements.iter();
    let (Some(element), None) = (all.next(), all.next()) else {
        return elements
            .is_empty()
            .then(|| vec![format!("size({value}) == 0")]);
    };
    let mut parts = vec![format!("size({value}) > 0")];
    let variable = ["e", "f"].get(depth).copied().unwrap_or("g");
    let of_each = element.element(variable, depth + 1)?;
    if !of_each.is_empty() {
        if depth >= NESTED {
            return None;
        }
        parts.push(format!("{value}.all({variable}, {})", of_each.join(" && ")));
    }
    Some(parts)
}

impl Tests {
    /// Tests on the value at a pointer; `path` is the same in CEL, where the pointer means one value.
    fn add(&mut self, shape: &Shape, place: &str, path: Option<&str>) -> Option<()> {
        let typed = match shape {
            Shape::Null => "type: \"null\"",
            Shape::Boolean => "type: boolean",
            Shape::Integer => "type: integer",
            Shape::Number => "type: number",
            Shape::Text => "type: string",
            Shape::Unknown => "absent: false",
            Shape::AnyList | Shape::List(_) => "type: array",
            Shape::AnyMap | Shape::Map(_) => "type: object",
        };
        Pointer::parse(place).ok()?;
        self.args
            .push(format!("{{ field: {}, {typed} }}", yaml(place)));
        match shape {
            Shape::Map(members) => {
                if let Some(path) = path {
                    self.when.push(format!("size({path}) == {}", members.len()));
                }
                for (name, below) in members {
                    let path = path.map(|path| format!("{path}[{}]", quoted(name)));
                    self.add(
                        below,
                        &format!("{place}/{}", segment(name)?),
                        path.as_deref(),
                    )?;
                }
            }
            Shape::List(elements) => {
                if let Some(path) = path {
                    self.when.extend(list(elements, path, 0)?);
                }
                let mut all = elements.iter();
                match (all.next(), all.next()) {
                    // What the record leaves out makes no constraint.
                    (None | Some(Shape::Unknown), None) => {}
                    (Some(element), None) => self.add(element, &format!("{place}/*"), None)?,
                    (_, Some(_)) => return None,
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// A step of a pointer; `None` for the one that means every member.
fn segment(name: &str) -> Option<String> {
    (name != "*").then(|| name.replace('~', "~0").replace('/', "~1"))
}

/// A text in CEL.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A text in YAML, always quoted: as JSON has it.
pub(super) fn yaml(text: &str) -> String {
    Value::from(text).to_string()
}
