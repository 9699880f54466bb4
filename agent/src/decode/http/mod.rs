//! The header rules for MCP bodies that are stricter than HTTP's own: what a body is must not be open to
//! interpretation, because servers differ in what they make of it.

use hyper::http::HeaderMap;
use hyper::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Why a body was not read as MCP. Answered with 415.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyFault {
    /// No media type, one that is not acceptable here, or one with other parameters than `charset=utf-8`.
    #[error("media type other than one in UTF-8 that is due here")]
    MediaType,
    /// The header stands twice; which one counts differs between servers.
    #[error("header more than once")]
    Duplicate,
    /// A coding other than identity: the same header makes one server inflate and the other not.
    #[error("encoded body")]
    Encoding,
}

/// What a response of an MCP server holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    Events,
}

/// Checks the headers of a POST to an MCP server: exactly `application/json`, `charset=utf-8` at most, once,
/// and not encoded.
///
/// # Errors
/// A [`BodyFault`].
pub fn check_request(headers: &HeaderMap) -> Result<(), BodyFault> {
    not_encoded(headers)?;
    match media_type(headers)? {
        Some(Body::Json) => Ok(()),
        _ => Err(BodyFault::MediaType),
    }
}

/// What the body of a response is; `None` when there is no media type (202, 204). The body must have been
/// decoded, and `Content-Encoding` removed, before.
///
/// # Errors
/// A [`BodyFault`] for other media types and charsets, which clients read differently.
pub fn response_body(headers: &HeaderMap) -> Result<Option<Body>, BodyFault> {
    not_encoded(headers)?;
    media_type(headers)
}

fn not_encoded(headers: &HeaderMap) -> Result<(), BodyFault> {
    match single(headers, CONTENT_ENCODING)? {
        None => Ok(()),
        Some(coding) if coding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => Err(BodyFault::Encoding),
    }
}

fn media_type(headers: &HeaderMap) -> Result<Option<Body>, BodyFault> {
    let Some(value) = single(headers, CONTENT_TYPE)? else {
        return Ok(None);
    };
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let essence = trim(essence);
    let body = if essence.eq_ignore_ascii_case("application/json") {
        Body::Json
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Body::Events
    } else {
        return Err(BodyFault::MediaType);
    };
    let parameters = trim(parameters);
    let utf8 = parameters.is_empty()
        || parameters.split_once('=').is_some_and(|(name, charset)| {
            name.eq_ignore_ascii_case("charset")
                && (charset.eq_ignore_ascii_case("utf-8")
                    || charset.eq_ignore_ascii_case("\"utf-8\""))
        });
    if utf8 {
        Ok(Some(body))
    } else {
        Err(BodyFault::MediaType)
    }
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, BodyFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(BodyFault::Duplicate);
    }
    value
        .to_str()
        .map(|text| Some(trim(text)))
        .map_err(|_unreadable| BodyFault::MediaType)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
