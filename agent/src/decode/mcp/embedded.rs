//! Requests of a server that travel inside results (the modern era has no other).

use std::fmt;

use super::result::ResultFault;
use crate::decode::json::{Object, Value};
use crate::decode::rpc::confusable;

/// How deep results stand inside each other: tasks/get inlines the result of the call that it is about.
const MAX_INLINE: u8 = 4;
/// How many requests one result may make: each has a record.
const MAX_REQUESTS: usize = 64;

/// One request inside a result; decided like a request that the server sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Embedded<'a> {
    /// The key under which the client answers.
    pub key: &'a str,
    /// sampling/createMessage, elicitation/create or roots/list.
    pub method: &'a str,
    /// Its parameters.
    pub params: Option<&'a Object>,
}

/// Every request inside `result`, also in a result that it inlines (`tasks/get`, `notifications/tasks`).
///
/// # Errors
/// [`ResultFault`] when there is something in the place of a request that cannot be judged as one, or too many of them.
pub fn embedded(result: &Object) -> Result<Vec<Embedded<'_>>, ResultFault> {
    let mut found = Vec::new();
    collect(result, MAX_INLINE, &mut found)?;
    Ok(found)
}

fn collect<'a>(
    result: &'a Object,
    depth: u8,
    found: &mut Vec<Embedded<'a>>,
) -> Result<(), ResultFault> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(ResultFault::Shape);
    };
    for key in result.keys() {
        if confusable(key, &["inputRequests", "resultType"]) {
            return Err(ResultFault::ConfusableKey);
        }
    }
    match result.get("inputRequests") {
        None | Some(Value::Null) => {}
        Some(Value::Object(requests)) => {
            for (key, request) in requests.iter() {
                if found.len() >= MAX_REQUESTS {
                    return Err(ResultFault::Shape);
                }
                found.push(read(key, request)?);
            }
        }
        Some(_) => return Err(ResultFault::Shape),
    }
    match result.get("result") {
        Some(Value::Object(inner)) => collect(inner, depth, found),
        _ => Ok(()),
    }
}

fn read<'a>(key: &'a str, request: &'a Value) -> Result<Embedded<'a>, ResultFault> {
    let request = request.as_object().ok_or(ResultFault::Shape)?;
    for key in request.keys() {
        if confusable(key, &["method", "params"]) {
            return Err(ResultFault::ConfusableKey);
        }
    }
    let method = request
        .get("method")
        .and_then(Value::as_str)
        .ok_or(ResultFault::Shape)?;
    let params = match request.get("params") {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(ResultFault::Shape),
    };
    Ok(Embedded {
        key,
        method,
        params,
    })
}

// Content is the caller's or the server's: not for logs.
impl fmt::Debug for Embedded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}
