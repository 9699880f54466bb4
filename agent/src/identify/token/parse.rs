//! A JSON Web Token in parts: what it says before anything is verified, in one reading only.

use super::fault::TokenFault;
use crate::decode::base64;
use crate::decode::json::{Limits, Object, Value, parse};

/// Bytes of a token beyond which it is not looked into.
pub(super) const LARGEST: usize = 16 << 10;
/// Bytes of a key id.
const KEY_ID: usize = 256;
/// Bounds on header and payload.
const LIMITS: Limits = Limits {
    bytes: LARGEST,
    depth: 16,
    values: 4096,
    number: 32,
};

/// A token that was read and not verified.
pub(super) struct Unverified {
    header: Object,
    /// What it claims.
    pub(super) claims: Object,
}

// Nothing of a token is for logs.
impl std::fmt::Debug for Unverified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unverified").finish_non_exhaustive()
    }
}

/// What the header says that matters.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    /// The algorithm, by its name.
    pub(super) algorithm: &'a str,
    /// Under what its key is looked up, and nothing else.
    pub(super) key_id: Option<&'a str>,
}

/// Reads a bearer value. `None`: it is none of ours by its form, a token of the upstream's own.
///
/// What has three parts, of which the first or the second holds an object of JSON, is a token, and so is what has
/// another number of parts, of which both do. It must then be readable: whether it is one is asked as the most lenient
/// reader would, and what it says is read strictly, so that nobody takes for a token what passes here as none.
///
/// # Errors
/// [`TokenFault::TooLarge`] and [`TokenFault::Malformed`].
pub(super) fn read(text: &str) -> Result<Option<Unverified>, TokenFault> {
    if text.len() > LARGEST {
        return Err(TokenFault::TooLarge);
    }
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [header, payload, _signature] if opens(header) || opens(payload) => {
            let header = object(header).ok_or(TokenFault::Malformed("header"))?;
            let claims = object(payload).ok_or(TokenFault::Malformed("payload"))?;
            Ok(Some(Unverified { header, claims }))
        }
        [_, _, _] => Ok(None),
        [header, payload, ..] if opens(header) && opens(payload) => {
            Err(TokenFault::Malformed("form"))
        }
        _ => Ok(None),
    }
}

/// Whether a part begins as an object does: random bytes hardly ever do.
fn opens(part: &str) -> bool {
    let bytes = base64::decode_leniently(part);
    let rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let inner = rest.trim_ascii_start().strip_prefix(b"{");
    inner.is_some_and(|inner| matches!(inner.trim_ascii_start(), [b'"' | b'}', ..]))
}

fn object(part: &str) -> Option<Object> {
    match parse(&base64::decode_url(part)?, &LIMITS) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

impl Unverified {
    /// Who is said to have issued it; `None`: nobody, so it is none of ours.
    ///
    /// # Errors
    /// An issuer that is no text: some receivers take a list.
    pub(super) fn issuer(&self) -> Result<Option<&str>, TokenFault> {
        match self.claims.get("iss") {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or(TokenFault::Malformed("issuer")),
        }
    }

    /// The header, as far as it matters. `jku`, `jwk`, `x5u` and `x5c` do not: a token brings no keys.
    ///
    /// # Errors
    /// What must not be in it, or is of another type.
    pub(super) fn header(&self) -> Result<Header<'_>, TokenFault> {
        if self.header.get("crit").is_some() {
            return Err(TokenFault::Critical);
        }
        let text = |name: &'static str| match self.header.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or(TokenFault::Malformed("header")),
        };
        let fits = |kind: &str| {
            ["JWT", "at+jwt", "application/at+jwt"]
                .iter()
                .any(|known| kind.eq_ignore_ascii_case(known))
        };
        if !text("typ")?.is_none_or(fits) {
            return Err(TokenFault::Type);
        }
        let key_id = text("kid")?;
        if key_id.is_some_and(|id| id.len() > KEY_ID) {
            return Err(TokenFault::Malformed("key id"));
        }
        Ok(Header {
            algorithm: text("alg")?.ok_or(TokenFault::Malformed("header"))?,
            key_id,
        })
    }

    /// Whom it is about.
    ///
    /// # Errors
    /// [`TokenFault::Claim`].
    pub(super) fn subject(&self) -> Result<&str, TokenFault> {
        self.claims
            .get("sub")
            .and_then(Value::as_str)
            .filter(|subject| !subject.is_empty())
            .ok_or(TokenFault::Claim("sub"))
    }
}
