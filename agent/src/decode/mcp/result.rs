//! What policy and records look at in results.

use std::fmt;

use thiserror::Error;

use super::Era;
use super::era::META_SERVER_INFO;
use super::view::Client;
use crate::decode::json::{Object, Value};
use crate::decode::rpc::confusable;

/// A result that cannot be judged; the caller gets an error in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResultFault {
    /// A key that a client may take for one that is judged (`Tools`, `NAME`).
    #[error("key that looks like a known one")]
    ConfusableKey,
    /// A member of the wrong type, or missing.
    #[error("malformed result")]
    Shape,
    /// A `resultType` that is not a string, or not one that the era knows.
    #[error("unknown type of result")]
    Type,
}

/// `resultType`, which decides how the rest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// The method's own result. Also when absent: old servers do not send it.
    Complete,
    /// The server asks for more: see [`embedded`](super::embedded).
    InputRequired,
    /// The tasks extension: the result comes later, under `tasks/get`.
    Task,
}

/// The kind of `result`.
///
/// # Errors
/// [`ResultFault::Type`] for a value that neither the protocol nor an accepted extension defines;
/// [`ResultFault::ConfusableKey`] for a second spelling of a member that decides.
pub fn result_kind(result: &Object) -> Result<ResultKind, ResultFault> {
    check_keys(
        result,
        &["resultType", "inputRequests", "isError", "content"],
    )?;
    match result.get("resultType") {
        None => Ok(ResultKind::Complete),
        Some(value) => match value.as_str() {
            Some("complete") => Ok(ResultKind::Complete),
            Some("input_required") => Ok(ResultKind::InputRequired),
            Some("task") => Ok(ResultKind::Task),
            _ => Err(ResultFault::Type),
        },
    }
}

/// Whether a result of tools/call says that the tool failed.
pub fn is_error(result: &Object) -> bool {
    result.get("isError").and_then(Value::as_bool) == Some(true)
}

/// What a server says of itself in answer to initialize or server/discover. Unproved.
#[derive(Clone, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// Name and version.
    pub server: Option<Client<'a>>,
    /// The chosen revision (initialize), or every supported one (server/discover).
    pub revisions: Vec<&'a str>,
    /// Text that clients put before the model.
    pub instructions: Option<&'a str>,
    /// What the server offers.
    pub capabilities: Option<&'a Object>,
}

/// Reads the result of initialize (legacy) or server/discover (modern).
pub fn greeting(result: &Object, era: Era) -> Greeting<'_> {
    let (server, revisions) = match era {
        Era::Legacy => (
            result.get("serverInfo"),
            result
                .get("protocolVersion")
                .and_then(Value::as_str)
                .into_iter()
                .collect(),
        ),
        Era::Modern => (
            result
                .get("_meta")
                .and_then(|meta| meta.get(META_SERVER_INFO)),
            result
                .get("supportedVersions")
                .and_then(Value::as_array)
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_str)
                .collect(),
        ),
    };
    Greeting {
        server: server.and_then(Client::read),
        revisions,
        instructions: result.get("instructions").and_then(Value::as_str),
        capabilities: result.get("capabilities").and_then(Value::as_object),
    }
}

pub(super) fn check_keys(object: &Object, known: &[&str]) -> Result<(), ResultFault> {
    if object.keys().any(|key| confusable(key, known)) {
        return Err(ResultFault::ConfusableKey);
    }
    Ok(())
}

// Content is the caller's or the server's: not for logs.
impl fmt::Debug for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting").finish_non_exhaustive()
    }
}
