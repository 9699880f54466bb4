//! Recorded JSON, lent to the policy: what the record leaves out is unknown.

use exeat_policy::{AsJson, Json, List, Members};
use serde_json::{Map, Value};

use crate::audit::mask::Pointer;
use crate::audit::{Text, is_whole};

/// A value; what was masked or cut of it is unknown.
#[derive(Debug)]
pub(in crate::cli) enum Recorded {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    /// An object of which only these members are recorded.
    Part(Part),
    Unknown,
}

/// Some members of an object.
#[derive(Debug)]
pub(in crate::cli) struct Part {
    members: Vec<(String, Recorded)>,
    /// The names of those that would be recorded if they were there; `*` for all.
    names: Vec<String>,
}

impl Recorded {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) if !is_whole(text) => Self::Unknown,
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(elements) => Self::List(elements.iter().map(Self::of).collect()),
            // A name that is masked may be the one that is asked for.
            Value::Object(members) if !is_named(members) => Self::Unknown,
            Value::Object(members) => Self::Map(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value)))
                    .collect(),
            ),
        }
    }

    /// Of the claims of a token what the record holds, where the policy read what these pointers lead to.
    pub(super) fn claims(claims: Option<&Value>, read: &[Text]) -> Self {
        let read = read.iter().map(Text::as_str);
        let read: Vec<_> = read
            .filter(|claim| is_whole(claim))
            .map(Pointer::new)
            .collect();
        let none = Value::Object(Map::new());
        Self::part(claims.unwrap_or(&none), &read)
    }

    fn part(value: &Value, read: &[Pointer]) -> Self {
        if read.iter().any(Pointer::is_here) {
            return Self::of(value);
        }
        let below = |name: &str, value: &Value| match Pointer::all_below(read, name) {
            read if read.is_empty() => Self::Unknown,
            read => Self::part(value, &read),
        };
        match value {
            Value::Object(members) if !is_named(members) => Self::Unknown,
            Value::Object(members) => Self::Part(Part {
                members: members
                    .iter()
                    .map(|(name, value)| (name.clone(), below(name, value)))
                    .collect(),
                names: read
                    .iter()
                    .filter_map(Pointer::first)
                    .map(str::to_owned)
                    .collect(),
            }),
            Value::Array(items) => Self::List(
                (0_usize..)
                    .zip(items)
                    .map(|(at, item)| below(&at.to_string(), item))
                    .collect(),
            ),
            // `null` stands for whatever it was: only what is below was read, and there is nothing.
            _ => Self::Unknown,
        }
    }

    fn pairs(&self) -> &[(String, Self)] {
        match self {
            Self::Map(members) | Self::Part(Part { members, .. }) => members,
            _ => &[],
        }
    }
}

fn is_named(members: &Map<String, Value>) -> bool {
    members.keys().all(|name| is_whole(name))
}

impl AsJson for Recorded {
    fn as_json(&self) -> Json<'_> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(text) => Json::Number(text),
            Self::Text(text) => Json::Text(text),
            Self::List(elements) => Json::List(elements as &dyn List),
            Self::Map(_) | Self::Part(_) => Json::Map(self as &dyn Members),
            Self::Unknown => Json::Unknown,
        }
    }
}

impl Members for Recorded {
    fn count(&self) -> usize {
        self.pairs().len()
    }

    fn at(&self, index: usize) -> Option<(&str, Json<'_>)> {
        let (name, value) = self.pairs().get(index)?;
        Some((name, value.as_json()))
    }

    fn get(&self, key: &str) -> Option<Json<'_>> {
        let found = self.pairs().iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_json())
    }

    fn withholds(&self, key: Option<&str>) -> bool {
        let Self::Part(part) = self else {
            return false;
        };
        let told = |name: &String| name == "*" || key == Some(name);
        !part.names.iter().any(told)
    }
}
