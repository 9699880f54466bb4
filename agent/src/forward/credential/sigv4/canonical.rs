//! What a signature of AWS is about: the request in the one form that both sides write it in.
//!
//! "Create a signed AWS API request" in AWS's documentation of IAM, steps 1 and 2. What services read in different ways
//! has no form here.

use std::collections::BTreeMap;

use hyper::header::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::forward::percent;

/// How often a service wants the path encoded that it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paths {
    /// Once, and nothing resolved in it: S3, whose keys are any text.
    Once,
    /// The path as it is sent once more, without `.`, `..` and empty segments.
    Twice,
}

/// Headers that are signed: names in lower case, and values as they are signed. A session's token is among them.
pub(super) type Signed = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// The canonical request. Written at once, as are its values: text that grows leaves copies behind.
pub(super) fn request(
    method: &str,
    path: &str,
    query: &str,
    signed: &Signed,
    payload: &str,
) -> Zeroizing<Vec<u8>> {
    let names = names(signed);
    let mut parts: Vec<&[u8]> = Vec::new();
    for line in [method, path, query] {
        parts.extend([line.as_bytes(), b"\n"]);
    }
    for (name, value) in signed {
        parts.extend([name.as_bytes(), b":", value, b"\n"]);
    }
    for end in ["\n", &names, "\n", payload] {
        parts.push(end.as_bytes());
    }
    Zeroizing::new(parts.concat())
}

/// The names of what is signed, as signature and canonical request list them.
pub(super) fn names(signed: &Signed) -> String {
    let names: Vec<&str> = signed.keys().map(String::as_str).collect();
    names.join(";")
}

/// The headers that `signs` names; `host` is what the request names its host by.
pub(super) fn headers(host: &[u8], headers: &HeaderMap, signs: impl Fn(&str) -> bool) -> Signed {
    let mut signed = Signed::from([("host".to_owned(), joined([host]))]);
    for name in headers.keys().filter(|name| signs(name.as_str())) {
        let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        signed.insert(name.as_str().to_owned(), joined(values));
    }
    signed
}

/// A header's values as one: without blanks around each, and with one for each row of them.
fn joined<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Zeroizing<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for (number, value) in values.into_iter().enumerate() {
        if number > 0 {
            parts.push(b",");
        }
        let words = value.split(|byte| *byte == b' ' || *byte == b'\t');
        let words = words.filter(|word| !word.is_empty());
        for (number, word) in words.enumerate() {
            if number > 0 {
                parts.push(b" ");
            }
            parts.push(word);
        }
    }
    Zeroizing::new(parts.concat())
}

/// The path as it is sent, in the form that is signed.
///
/// # Errors
/// Why it has none.
pub(super) fn path(path: &str, paths: Paths) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("a request without a path");
    }
    let mut text = String::with_capacity(path.len().saturating_mul(2));
    match paths {
        Paths::Once if path.contains('+') => {
            return Err(
                "a path with a `+`, which services take for a blank or for itself: write `%20` or `%2B`",
            );
        }
        Paths::Once => {
            let path = percent::decode(path).ok_or("a path with a `%` that encodes nothing")?;
            percent::encode(&path, b"/", &mut text);
        }
        Paths::Twice => percent::encode(resolved(path).as_bytes(), b"/", &mut text),
    }
    Ok(text)
}

/// The path without `.`, `..` and empty segments (RFC 3986 section 5.2.4, and one `/` for each row of them).
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let directory = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    let end = if directory && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

/// The query as it is sent, in the form that is signed.
///
/// # Errors
/// Why it has none.
pub(super) fn query(query: &str) -> Result<String, &'static str> {
    if query.contains('+') {
        return Err(
            "a query with a `+`, which services take for a blank or for itself: write `%20` or `%2B`",
        );
    }
    let mut pairs = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        pairs.push((anew(name)?, anew(value)?));
    }
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Ok(pairs.join("&"))
}

/// A part of a query, encoded as signatures have it.
fn anew(text: &str) -> Result<String, &'static str> {
    let bytes = percent::decode(text).ok_or("a query with a `%` that encodes nothing")?;
    let mut text = String::with_capacity(bytes.len());
    percent::encode(&bytes, b"", &mut text);
    Ok(text)
}
