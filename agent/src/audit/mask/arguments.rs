//! Masking of JSON arguments.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::super::text::prefix;
use super::{MASK, is_telling, text};
use crate::decode::rpc::confusable;

/// How many bytes of arguments are recorded, about.
const MAX_ARGUMENTS: usize = 4 * 1_024;

/// How many bytes of one string.
const MAX_STRING: usize = 512;

/// How many names are listed of arguments that are too large.
const MAX_NAMES: usize = 64;

/// A tool's arguments without secrets and without what `masked` points to (JSON pointers of
/// RFC 6901, with `*` for any one key or index), which is left out whole.
///
/// Arguments of more than 4 KiB are not recorded in part, which would mislead: their top-level
/// names are, each with the kind and size of its value. `true` says that this was done.
pub fn arguments<P: AsRef<str>>(arguments: &Value, masked: &[P]) -> (Value, bool) {
    let pointers: Vec<_> = masked
        .iter()
        .map(|pointer| Pointer::new(pointer.as_ref()))
        .collect();
    let mut budget = MAX_ARGUMENTS;
    match copy(arguments, &pointers, false, &mut budget) {
        Some(copy) => (copy, false),
        None => (summary(arguments), true),
    }
}

/// What is left of a pointer below the value that is being looked at.
#[derive(Clone, Debug)]
pub struct Pointer(VecDeque<String>);

impl Pointer {
    /// All of it.
    pub fn new(pointer: &str) -> Self {
        let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
        Self(pointer.split('/').skip(1).map(unescape).collect())
    }

    /// Whether it means the value itself.
    pub fn is_here(&self) -> bool {
        self.0.is_empty()
    }

    /// The member or element that it leads through; `*` stands for every one.
    pub fn first(&self) -> Option<&str> {
        self.0.front().map(String::as_str)
    }

    /// Those of `all` that lead through the member of exactly this name, below it.
    pub fn all_below(all: &[Self], name: &str) -> Vec<Self> {
        let through = |pointer: &&Self| pointer.first().is_some_and(|it| it == "*" || it == name);
        let below = all.iter().filter(through).map(|pointer| {
            let mut rest = pointer.clone();
            rest.0.pop_front();
            rest
        });
        below.collect()
    }

    /// The pointer below `key`, if it leads there.
    fn below(&self, key: &str) -> Option<Self> {
        let mut rest = self.clone();
        let first = rest.0.pop_front()?;
        // Whoever reads the arguments may take one for the other.
        (first == "*" || first == key || confusable(key, &[first.as_str()])).then_some(rest)
    }
}

fn copy(value: &Value, pointers: &[Pointer], hide: bool, budget: &mut usize) -> Option<Value> {
    // Whole: its names and its size are as telling as what stands in it.
    if pointers.iter().any(|pointer| pointer.0.is_empty()) {
        *budget = budget.checked_sub(MASK.len())?;
        return Some(Value::String(MASK.to_owned()));
    }
    let below = |key: &str| -> Vec<_> {
        pointers
            .iter()
            .filter_map(|pointer| pointer.below(key))
            .collect()
    };
    *budget = budget.checked_sub(cost(value, hide))?;
    Some(match value {
        Value::Array(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| copy(item, &below(&index.to_string()), hide, budget))
                .collect::<Option<_>>()?,
        ),
        Value::Object(members) => {
            let mut copied = Map::new();
            for (key, member) in members {
                *budget = budget.checked_sub(key.len() + 4)?;
                let hide = hide || hides(key, member);
                copied.insert(
                    text(key).into_owned(),
                    copy(member, &below(key), hide, budget)?,
                );
            }
            Value::Object(copied)
        }
        Value::Null => Value::Null,
        _ if hide => Value::String(MASK.to_owned()),
        Value::String(string) => Value::String(shortened(string)),
        Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// Whether the key says that what stands under it is secret. A number of tokens is not.
fn hides(key: &str, member: &Value) -> bool {
    let counts = member.is_number() && key.to_ascii_lowercase().ends_with("tokens");
    is_telling(key) && !counts && !member.is_boolean()
}

fn cost(value: &Value, hide: bool) -> usize {
    match value {
        Value::String(_) if hide => MASK.len(),
        Value::String(string) => string.len().min(MAX_STRING + 32) + 2,
        _ => 8,
    }
}

fn shortened(string: &str) -> String {
    let masked = text(prefix(string, 16 * MAX_STRING));
    let kept = prefix(&masked, MAX_STRING);
    if kept.len() == string.len() {
        return kept.to_owned();
    }
    if kept.len() == masked.len() && string.len() <= 16 * MAX_STRING {
        return masked.into_owned();
    }
    // What was cut in two may be a secret that is no longer recognised.
    let whole = kept.trim_end_matches(|letter: char| !letter.is_whitespace());
    format!("{whole}[{} bytes]", string.len())
}

fn summary(arguments: &Value) -> Value {
    let Value::Object(members) = arguments else {
        return Value::String(size(arguments));
    };
    let mut names: Map<_, _> = members
        .iter()
        .take(MAX_NAMES)
        .map(|(key, member)| {
            let name = text(prefix(key, MAX_STRING)).into_owned();
            (prefix(&name, 64).to_owned(), Value::String(size(member)))
        })
        .collect();
    if members.len() > MAX_NAMES {
        names.insert("[more]".to_owned(), Value::from(members.len() - MAX_NAMES));
    }
    Value::Object(names)
}

fn size(value: &Value) -> String {
    match value {
        Value::Null => "[null]".to_owned(),
        Value::Bool(_) => "[boolean]".to_owned(),
        Value::Number(_) => "[number]".to_owned(),
        Value::String(string) => format!("[string of {} bytes]", string.len()),
        Value::Array(items) => format!("[array of {}]", items.len()),
        Value::Object(members) => format!("[object of {}]", members.len()),
    }
}
