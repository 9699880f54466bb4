//! Headers that repeat arguments: `Mcp-Param-NAME`, for the properties of a tool that its server marks with
//! `x-mcp-header`. As all headers that repeat the body they are never decided on, and must not lie.
//!
//! Source: 2026-07-28 Streamable HTTP, "Custom Headers from Tool Parameters".

use std::fmt;

use hyper::http::HeaderMap;
use hyper::http::header::HeaderName;

use super::era::{Era, claim};
use super::headers::{HeaderFault, decode_value, encode_value, single};
use crate::decode::json::{Object, Value};
use crate::decode::rpc::Message;

/// What the headers are called, before the server's own part.
const PREFIX: &str = "mcp-param-";
/// The family of them, for faults: the rest of a name is the server's or the caller's text.
const ANY: &str = "mcp-param-*";
/// The mark in a schema.
const MARK: &str = "x-mcp-header";

/// Bounds of what is remembered of one tool. A tool beyond them counts as one that was never listed.
const MARKS: usize = 64;
const DEPTH: usize = 16;
const NAME: usize = 256;
/// Of the keys that lead to an argument, in bytes.
const PATH: usize = 1_024;

/// Digits up to which every client writes a number as it is meant; those with doubles for all numbers send no header
/// for what they cannot hold.
const EXACT: usize = 15;

/// Which arguments of a tool are repeated, and where.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Mirrors(Vec<Mirror>);

#[derive(Clone, PartialEq, Eq)]
struct Mirror {
    header: HeaderName,
    /// Keys from the arguments to the value.
    path: Vec<String>,
}

impl Mirrors {
    /// What the listed `tool` says. A schema with a mark that the protocol does not allow marks nothing: clients drop
    /// such a tool, and servers do not check it.
    pub fn of(tool: &Object) -> Self {
        let mut found = Vec::new();
        let schema = tool.get("inputSchema").and_then(Value::as_object);
        match schema.map(|schema| gather(schema, &mut Vec::new(), &mut found)) {
            Some(Some(())) => Self(found),
            Some(None) | None => Self::default(),
        }
    }

    /// Has the header that repeats the argument at `path` say `value`, if `headers` holds it or it is due.
    pub fn repeat<'a>(
        &self,
        headers: &mut HeaderMap,
        path: impl Iterator<Item = &'a str>,
        value: &Value,
    ) {
        let path: Vec<&str> = path.collect();
        let Some(mirror) = self.0.iter().find(|mirror| mirror.path == path) else {
            return;
        };
        let text = match value {
            Value::String(text) => encode_value(text),
            Value::Bool(_) | Value::Number(_) => encode_value(&value.to_text()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        match text {
            Some(text) => drop(headers.insert(mirror.header.clone(), text)),
            None => drop(headers.remove(&mirror.header)),
        }
    }

    /// Whether nothing is repeated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether `headers` hold any that repeats an argument.
pub fn repeats_params(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// Finds the marks below `schema`, which stands at `path`; `None` when one of them is not allowed, or there are too many.
fn gather(schema: &Object, path: &mut Vec<String>, found: &mut Vec<Mirror>) -> Option<()> {
    if let Some(mark) = schema.get(MARK) {
        let kind = schema.get("type").and_then(Value::as_str);
        let primitive = matches!(kind, Some("string" | "integer" | "boolean"));
        let name = mark.as_str().filter(|name| name.len() <= NAME)?;
        let header = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes()).ok()?;
        let known = found.iter().any(|mirror| mirror.header == header);
        let long = path.iter().map(String::len).sum::<usize>() > PATH;
        if long || !primitive || name.is_empty() || path.is_empty() || known || found.len() == MARKS
        {
            return None;
        }
        found.push(Mirror {
            header,
            path: path.clone(),
        });
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Some(());
    };
    for (key, property) in properties.iter() {
        let Some(property) = property.as_object() else {
            continue;
        };
        if path.len() == DEPTH {
            return None;
        }
        path.push(key.to_owned());
        gather(property, path, found)?;
        path.pop();
    }
    Some(())
}

/// Checks that headers which repeat arguments say what `message` says. `mirrors`: what the tool's server last listed of
/// it, if it was seen. A header that no mark explains must repeat some argument.
///
/// # Errors
/// The first [`HeaderFault`].
pub fn check_params(
    headers: &HeaderMap,
    message: &Message,
    mirrors: Option<&Mirrors>,
) -> Result<(), HeaderFault> {
    let mirrors = mirrors.map_or(&[][..], |mirrors| &mirrors.0);
    let params = message.params();
    let arguments = params.and_then(|params| params.get("arguments"));
    let modern = params.and_then(claim).is_some();
    let era = if modern { Era::Modern } else { Era::Legacy };
    for Mirror { header, path } in mirrors {
        let mut value = arguments;
        for key in path {
            value = value.and_then(|value| value.get(key));
        }
        let stated = single(headers, header, ANY)?;
        match (stated, value.filter(|value| !value.is_null())) {
            (Some(stated), Some(value)) => agree(stated, value)?,
            (Some(_), None) => return Err(HeaderFault::Mismatch(ANY)),
            (None, Some(value)) if era == Era::Modern && is_demanded(value) => {
                return Err(HeaderFault::Missing(ANY));
            }
            (None, _) => {}
        }
    }
    let unexplained = headers.keys().filter(|name| {
        let marked = || mirrors.iter().any(|mirror| mirror.header == *name);
        name.as_str().starts_with(PREFIX) && !marked()
    });
    for name in unexplained {
        let stated = single(headers, name, ANY)?.unwrap_or_default();
        let stated = decode_value(stated).ok_or(HeaderFault::Malformed(ANY))?;
        if !arguments.is_some_and(|arguments| repeats(&stated, arguments)) {
            return Err(HeaderFault::Mismatch(ANY));
        }
    }
    Ok(())
}

/// Whether any header repeats an argument: a batch has none.
pub(super) fn has_params(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

fn agree(stated: &str, value: &Value) -> Result<(), HeaderFault> {
    let stated = decode_value(stated).ok_or(HeaderFault::Malformed(ANY))?;
    if says(&stated, value) {
        Ok(())
    } else {
        Err(HeaderFault::Mismatch(ANY))
    }
}

/// Whether `stated` is `value`, as far as a header can say it.
fn says(stated: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => text == stated,
        Value::Bool(truth) => stated == if *truth { "true" } else { "false" },
        Value::Number(number) => {
            let number = number.text();
            stated == number || is_plain(stated) && Decimal::read(stated) == Decimal::read(number)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Whether any value within `arguments` is what `stated` says.
fn repeats(stated: &str, arguments: &Value) -> bool {
    match arguments {
        Value::Array(elements) => elements.iter().any(|value| repeats(stated, value)),
        Value::Object(object) => object.iter().any(|(_, value)| repeats(stated, value)),
        value => says(stated, value),
    }
}

/// Whether every client can repeat it.
fn is_demanded(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(number) => number.text().len() <= EXACT,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// A number as headers write it: digits, with a sign and a fraction at most.
fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all(whole) && all(fraction)
}

/// What a number comes to, of all its spellings one: `0.digits` times ten to the power.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    power: i64,
}

impl Decimal {
    /// Reads a number of JSON, or of a header; `None` for powers beyond any use.
    fn read(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let power: i64 = power.parse().ok()?;
        let all = [whole, fraction].concat();
        let digits = all.trim_start_matches('0');
        let leading = i64::try_from(all.len().checked_sub(digits.len())?).ok()?;
        let power = power
            .checked_add(i64::try_from(whole.len()).ok()?)?
            .checked_sub(leading)?;
        let digits = digits.trim_end_matches('0').to_owned();
        let zero = digits.is_empty();
        Some(Self {
            negative: negative && !zero,
            power: if zero { 0 } else { power },
            digits,
        })
    }
}

// Names are the server's: not for logs.
impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrors").finish_non_exhaustive()
    }
}
