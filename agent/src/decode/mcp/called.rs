//! The results of tool calls, wherever a server says them: what policy bounds.

use std::fmt;

use super::result::ResultFault;
use crate::decode::json::{Object, Value};
use crate::decode::rpc::confusable;

/// The result of a tool call.
#[derive(Clone, Copy)]
pub struct Called<'a> {
    /// The result.
    pub result: &'a Object,
    /// Whether it is what the tool came to, and not that it goes on or asks for more.
    pub ended: bool,
}

// Content is the server's: not for logs.
impl fmt::Debug for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Called").finish_non_exhaustive()
    }
}

/// The methods whose result is that of a tool call.
const CALLS: [&str; 2] = ["tools/call", "tasks/result"];
/// The methods that carry it within.
const CARRY: [&str; 3] = [
    "tasks/get",
    "notifications/tasks",
    "notifications/tasks/status",
];
/// What only results of tool calls hold.
const OWN: [&str; 2] = ["content", "structuredContent"];
/// What is looked at in one.
const KNOWN: [&str; 6] = [
    "content",
    "structuredContent",
    "isError",
    "resultType",
    "result",
    "task",
];
/// How deep results stand inside each other, as [`embedded`](super::embedded) has it.
const MAX_INLINE: u8 = 4;

/// Every result of a tool call in `said`, the answer to a request with `method` or what a notification with it says.
/// Where the method is not known, or another's, what holds content is one: ids are the client's to use twice.
///
/// # Errors
/// [`ResultFault`] where a client may see one that cannot be judged.
pub fn called<'a>(method: Option<&str>, said: &'a Object) -> Result<Vec<Called<'a>>, ResultFault> {
    let said_to = match method {
        Some(method) if CALLS.contains(&method) => SaidTo::Call,
        Some(method) if CARRY.contains(&method) => SaidTo::Carrier,
        Some(_) | None => SaidTo::Other,
    };
    let mut found = Vec::new();
    collect(said_to, said, MAX_INLINE, &mut found)?;
    Ok(found)
}

/// What a result is said to answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SaidTo {
    Call,
    /// What a call came to stands within.
    Carrier,
    Other,
}

fn collect<'a>(
    said_to: SaidTo,
    said: &'a Object,
    depth: u8,
    found: &mut Vec<Called<'a>>,
) -> Result<(), ResultFault> {
    let depth = depth.checked_sub(1).ok_or(ResultFault::Shape)?;
    if said.keys().any(|key| confusable(key, &KNOWN)) {
        return Err(ResultFault::ConfusableKey);
    }
    let holds = OWN.iter().any(|key| said.get(key).is_some());
    if said_to == SaidTo::Call || holds {
        let kind = said.get("resultType").and_then(Value::as_str);
        let goes_on = matches!(kind, Some("task" | "input_required")) || said.get("task").is_some();
        found.push(Called {
            result: said,
            ended: holds || !goes_on,
        });
    }
    match said.get("result") {
        Some(Value::Object(inner)) => {
            let within = match said_to {
                SaidTo::Carrier => SaidTo::Call,
                SaidTo::Call | SaidTo::Other => SaidTo::Other,
            };
            collect(within, inner, depth, found)
        }
        // What some clients show all the same.
        Some(other) if said_to == SaidTo::Carrier && !other.is_null() => Err(ResultFault::Shape),
        _ => Ok(()),
    }
}

/// The types of the content in the result of a tool call.
///
/// # Errors
/// [`ResultFault`] for content that is no list, and for a block whose type one reader takes for another's.
pub fn content(result: &Object) -> Result<Vec<&str>, ResultFault> {
    let blocks = match result.get("content") {
        None => return Ok(Vec::new()),
        Some(blocks) => blocks.as_array().ok_or(ResultFault::Shape)?,
    };
    blocks.iter().map(kind).collect()
}

fn kind(block: &Value) -> Result<&str, ResultFault> {
    let block = block.as_object().ok_or(ResultFault::Shape)?;
    if block.keys().any(|key| confusable(key, &["type"])) {
        return Err(ResultFault::ConfusableKey);
    }
    let kind = block.get("type").and_then(Value::as_str);
    kind.ok_or(ResultFault::Shape)
}

/// Whether the result of a tool call holds structured content.
pub fn is_structured(result: &Object) -> bool {
    let found = result.get("structuredContent");
    found.is_some_and(|found| !found.is_null())
}
