//! Claims of a token: what the policy reads of them, and nothing else.

use serde_json::{Map, Value};

use super::arguments::{Pointer, arguments};
use crate::audit::text::Text;
use crate::decode::rpc::confusable;

/// How many pointers are recorded of what a policy reads.
const MAX_READ: usize = 64;
/// How many bytes of claims.
const MAX_CLAIMS: usize = 8 * 1_024;

/// Of a token's claims those to which `read` leads, masked as arguments are, and what of `read` is told by that. A claim
/// of more than 4 KiB is a note of its length; where all of them are more than 8 KiB, nothing is told.
pub fn claims<'a>(
    claims: &Value,
    read: impl IntoIterator<Item = &'a str>,
) -> (Option<Value>, Vec<Text>) {
    let read: Vec<&str> = read.into_iter().take(MAX_READ).collect();
    let pointers: Vec<_> = read.iter().map(|claim| Pointer::new(claim)).collect();
    let Value::Object(members) = only(claims, &pointers) else {
        return (None, Vec::new());
    };
    let mut told = Map::new();
    let mut budget = MAX_CLAIMS;
    for (name, value) in members {
        let bytes = value.to_string().len();
        let one = Value::Object([(name.clone(), value)].into_iter().collect());
        let masked = match arguments::<&str>(&one, &[]) {
            (Value::Object(masked), false) => masked,
            _ => [(super::text(&name).into_owned(), note(bytes))]
                .into_iter()
                .collect(),
        };
        for (name, value) in masked {
            let bytes = name.len() + value.to_string().len();
            let Some(left) = budget.checked_sub(bytes) else {
                return (None, Vec::new());
            };
            budget = left;
            told.insert(name, value);
        }
    }
    let read = read.into_iter().map(Text::new).collect();
    ((!told.is_empty()).then_some(Value::Object(told)), read)
}

/// What stands for a claim that is too long.
fn note(bytes: usize) -> Value {
    Value::String(format!("[{bytes} bytes]"))
}

/// A value without what no pointer leads to. In its place stands `null` where that it is there tells something: in a list,
/// of a name that may be taken for one that is read, and of what has nothing below where a pointer leads on.
fn only(value: &Value, pointers: &[Pointer]) -> Value {
    if pointers.iter().any(Pointer::is_here) {
        return value.clone();
    }
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter_map(|(name, member)| {
                let below = Pointer::all_below(pointers, name);
                let alike = || {
                    let names = pointers.iter().filter_map(Pointer::first);
                    names.into_iter().any(|read| confusable(name, &[read]))
                };
                let kept = if !below.is_empty() {
                    only(member, &below)
                } else if alike() {
                    Value::Null
                } else {
                    return None;
                };
                Some((name.clone(), kept))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items
                .map(
                    |(at, item)| match Pointer::all_below(pointers, &at.to_string()) {
                        below if below.is_empty() => Value::Null,
                        below => only(item, &below),
                    },
                )
                .collect()
        }
        _ => Value::Null,
    }
}
