//! A strict host name: lower case, no trailing dot, at most 253 bytes.

use std::fmt;
use std::sync::Arc;

/// A host name in the one spelling that policy, DNS, TLS and HTTP compare.
///
/// Labels of 1 to 63 letters, digits, hyphens and underscores (real services use `_`), joined by
/// dots; never an address in any of the spellings that `inet_aton` takes (RFC 3696 section 2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a name as written; upper case and one trailing dot are normalised, all else refused.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > 253 || !text.split('.').all(is_label) {
            return Err(NotAName);
        }
        // WHATWG URL, "ends in a number": such a host is an address in disguise.
        let last = text.rsplit('.').next().unwrap_or(text);
        let hexadecimal = last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAName);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name without trailing dot, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a host name")]
pub struct NotAName;

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
