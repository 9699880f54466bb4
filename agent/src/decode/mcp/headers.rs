//! Headers that repeat the body: they are never decided on, and they must not say anything else than the body.
//!
//! Source: 2026-07-28 Streamable HTTP, "Standard Request Headers", "Value Encoding" and "Server Validation".

use hyper::http::HeaderMap;
use hyper::http::header::{AsHeaderName, HeaderValue};
use thiserror::Error;

use super::era::{Era, Revision, claim};
use super::methods::{Subject, method};
use super::params::has_params;
use crate::decode::base64;
use crate::decode::json::Value;
use crate::decode::rpc::Message;

/// `MCP-Protocol-Version`, in the case of the map's keys.
pub const MCP_PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// `Mcp-Method`.
pub const MCP_METHOD: &str = "mcp-method";
/// `Mcp-Name`.
pub const MCP_NAME: &str = "mcp-name";
/// `Mcp-Session-Id`.
pub const MCP_SESSION_ID: &str = "mcp-session-id";

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// A disagreement. Answered with 400 and -32020, [`HeaderFault::Envelope`] with 400 and -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// One of the headers stands twice; which one counts differs between servers.
    #[error("header `{0}` more than once")]
    Duplicate(&'static str),
    /// A modern request without `_meta` naming its revision, although the header says that it is modern.
    #[error("a modern version header on a message that names no revision")]
    Envelope,
    /// A value that is not visible ASCII, or a base64 form that is not exact.
    #[error("header `{0}` is not readable")]
    Malformed(&'static str),
    /// The header says something else than the body.
    #[error("header `{0}` disagrees with the body")]
    Mismatch(&'static str),
    /// The era demands the header.
    #[error("header `{0}` is missing")]
    Missing(&'static str),
}

/// Checks that the headers say what `message` says. Call it for every message that came as a POST body; a
/// legacy message may lack the headers but not lie in them, since servers execute it all the same.
///
/// # Errors
/// The first [`HeaderFault`].
pub fn check_headers(headers: &HeaderMap, message: &Message) -> Result<(), HeaderFault> {
    let version = standard(headers, MCP_PROTOCOL_VERSION)?;
    let stated_method = standard(headers, MCP_METHOD)?;
    let stated_name = standard(headers, MCP_NAME)?;
    let claimed = message.params().and_then(claim);
    let era = if claimed.is_some() {
        Era::Modern
    } else {
        Era::Legacy
    };
    let request = matches!(message, Message::Request(_));

    check_version(version, claimed, request)?;
    let demanded = era == Era::Modern && request;
    match (stated_method, message.method()) {
        (Some(stated), Some(method)) if stated == method => {}
        (Some(_), _) => return Err(HeaderFault::Mismatch(MCP_METHOD)),
        (None, _) if demanded => return Err(HeaderFault::Missing(MCP_METHOD)),
        (None, _) => {}
    }
    let names = mirrored_names(message);
    match stated_name {
        Some(stated) => {
            let stated = decode_value(stated).ok_or(HeaderFault::Malformed(MCP_NAME))?;
            if names.into_iter().flatten().any(|name| stated == name) {
                Ok(())
            } else {
                Err(HeaderFault::Mismatch(MCP_NAME))
            }
        }
        None if demanded && is_named(message) => Err(HeaderFault::Missing(MCP_NAME)),
        None => Ok(()),
    }
}

/// Checks the headers of a batch, which no header can describe.
///
/// # Errors
/// A [`HeaderFault`] when a header speaks of one message or names a revision that has no batches.
pub fn check_batch_headers(headers: &HeaderMap) -> Result<(), HeaderFault> {
    for name in [MCP_METHOD, MCP_NAME] {
        if headers.contains_key(name) {
            return Err(HeaderFault::Mismatch(name));
        }
    }
    if has_params(headers) {
        return Err(HeaderFault::Mismatch("mcp-param-*"));
    }
    match standard(headers, MCP_PROTOCOL_VERSION)?.map(Revision::parse) {
        None => Ok(()),
        Some(Some(revision)) if revision.has_batches() => Ok(()),
        Some(_) => Err(HeaderFault::Mismatch(MCP_PROTOCOL_VERSION)),
    }
}

fn check_version(
    header: Option<&str>,
    claimed: Option<&Value>,
    request: bool,
) -> Result<(), HeaderFault> {
    match (header, claimed) {
        (None, Some(_)) if request => Err(HeaderFault::Missing(MCP_PROTOCOL_VERSION)),
        (Some(stated), Some(claimed)) => {
            if claimed.as_str() == Some(stated) {
                Ok(())
            } else {
                Err(HeaderFault::Mismatch(MCP_PROTOCOL_VERSION))
            }
        }
        // Notifications and responses carry no envelope in either era.
        (Some(stated), None) if request && is_modern(stated) => Err(HeaderFault::Envelope),
        (_, _) => Ok(()),
    }
}

/// Whether a version header speaks of the modern era: 2026-07-28, or a later date.
fn is_modern(stated: &str) -> bool {
    stated >= Revision::V2026_07_28.as_str() && stated.starts_with('2')
}

/// Whether a modern message must be named: the protocol says so for methods with a subject of their own, as far
/// as they exist in that era; of the others servers say that they do not.
fn is_named(message: &Message) -> bool {
    message
        .method()
        .and_then(method)
        .is_some_and(|known| known.exists_in(Era::Modern) && key_of(known.subject).is_some())
}

/// The member of `params` that `Mcp-Name` repeats.
fn key_of(subject: Subject) -> Option<&'static str> {
    match subject {
        Subject::Tool | Subject::Prompt => Some("name"),
        Subject::Resource => Some("uri"),
        Subject::Task => Some("taskId"),
        Subject::None | Subject::Reference => None,
    }
}

/// What `Mcp-Name` may repeat: the subject of a known method; of a vendor's, any member that can be one.
fn mirrored_names(message: &Message) -> [Option<&str>; 3] {
    let member = |key: &str| message.params()?.get(key)?.as_str();
    match message.method().map(method) {
        Some(Some(known)) => [key_of(known.subject).and_then(member), None, None],
        Some(None) => [member("name"), member("uri"), member("taskId")],
        None => [None; 3],
    }
}

fn standard<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<&'a str>, HeaderFault> {
    single(headers, name, name)
}

/// The only value of a header, without surrounding blanks (RFC 9110 section 5.5); faults speak of `called`.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: impl AsHeaderName,
    called: &'static str,
) -> Result<Option<&'a str>, HeaderFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HeaderFault::Duplicate(called));
    }
    let text = value
        .to_str()
        .map_err(|_unreadable| HeaderFault::Malformed(called))?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

/// Reads a header value that may be in the base64 form. `None` when it has the markers and between them
/// anything but padded standard base64 (RFC 4648 section 4) of UTF-8.
pub fn decode_value(stated: &str) -> Option<std::borrow::Cow<'_, str>> {
    let Some(encoded) = stated
        .strip_prefix(OPEN)
        .and_then(|rest| rest.strip_suffix(CLOSE))
    else {
        return Some(stated.into());
    };
    let bytes = base64::decode(encoded)?;
    String::from_utf8(bytes).ok().map(Into::into)
}

/// Writes a value for a header that repeats the body: as it is where that is unambiguous, else in base64.
/// `None` when the header library refuses it, which no output of this function has been seen to cause.
pub fn encode_value(value: &str) -> Option<HeaderValue> {
    let visible = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let padded = value.trim_matches(' ').len() != value.len();
    let looks_encoded = value.starts_with(OPEN) && value.ends_with(CLOSE);
    if visible && !padded && !looks_encoded && !value.is_empty() {
        return HeaderValue::from_str(value).ok();
    }
    let mut encoded = String::from(OPEN);
    base64::encode(value.as_bytes(), &mut encoded);
    encoded.push_str(CLOSE);
    HeaderValue::from_str(&encoded).ok()
}
