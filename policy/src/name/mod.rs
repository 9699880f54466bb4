//! DNS names and the wildcard patterns over them: one strict reading for policy, DNS, SNI and Host.

use std::fmt;
use std::sync::Arc;

/// The longest name in text form, without the final dot (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
/// The longest label.
const LABEL_MAX: usize = 63;

/// A DNS name: lower case, no final dot, one or more labels of letters, digits, `-` and `_`.
///
/// What an address parser could read as an IPv4 address (`127.1`, `0x7f.1`, `2130706433`) is never a
/// name: the last label may not be a number (WHATWG URL, "ends in a number").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a name strictly; upper case is folded and one final dot dropped.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(NameFault::Empty);
        }
        if !bare.is_ascii() {
            return Err(NameFault::NotAscii);
        }
        if bare.len() > NAME_MAX {
            return Err(NameFault::TooLong);
        }
        bare.split('.').try_for_each(check_label)?;
        if bare.rsplit('.').next().is_some_and(is_numeric) {
            return Err(NameFault::Numeric);
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is one or more labels below `apex`; a name is not below itself.
    #[must_use]
    pub fn is_below(&self, apex: &Self) -> bool {
        self.0
            .strip_suffix(apex.as_str())
            .is_some_and(|rest| rest.ends_with('.'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing, or only a dot.
    #[error("the name is empty")]
    Empty,
    /// Two dots in a row, or a leading one.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label is longer than 63 characters")]
    LabelTooLong,
    /// More than 253 bytes.
    #[error("the name is longer than 253 characters")]
    TooLong,
    /// A byte outside letters, digits, `-` and `_`.
    #[error("only letters, digits, `-` and `_` may stand in a label")]
    BadCharacter,
    /// A label that begins or ends with `-`.
    #[error("a label may not begin or end with `-`")]
    Hyphen,
    /// Internationalised names are written as A-labels (RFC 5890).
    #[error("internationalised names are written in their `xn--` form")]
    NotAscii,
    /// An address in one of the forms that address parsers accept.
    #[error("this is an address or a number, not a name")]
    Numeric,
}

fn check_label(label: &str) -> Result<(), NameFault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if label.is_empty() {
        Err(NameFault::EmptyLabel)
    } else if !label.bytes().all(allowed) {
        Err(NameFault::BadCharacter)
    } else if label.len() > LABEL_MAX {
        Err(NameFault::LabelTooLong)
    } else if label.starts_with('-') || label.ends_with('-') {
        Err(NameFault::Hyphen)
    } else {
        Ok(())
    }
}

/// Whether an address parser could take the label for a number: decimal, octal or hexadecimal.
fn is_numeric(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A host in an egress rule: one name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name and no other.
    Exact(Name),
    /// `*.apex`: every name one or more labels below the apex, not the apex.
    Below(Name),
}

impl HostPattern {
    /// Reads `name` or `*.name`.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        let Some(apex) = text.strip_prefix("*.") else {
            return match text {
                "*" => Err(HostFault::Everything),
                _ if text.contains('*') => Err(HostFault::Star),
                _ => Ok(Self::Exact(Name::parse(text)?)),
            };
        };
        if apex.contains('*') {
            return Err(HostFault::Star);
        }
        let apex = Name::parse(apex)?;
        if is_registry(apex.as_str()) {
            Err(HostFault::Registry)
        } else {
            Ok(Self::Below(apex))
        }
    }

    /// Whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(apex) => name.is_below(apex),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(apex) => write!(f, "*.{apex}"),
        }
    }
}

/// Why a text is not a usable host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// `*` alone.
    #[error("`*` would allow every host")]
    Everything,
    /// `*` anywhere but as the whole first label.
    #[error("`*` may only be the whole first label, as in `*.example.com`")]
    Star,
    /// A wildcard below a top-level domain or a registry's second level, where strangers register names.
    #[error("anyone can register a name below this suffix")]
    Registry,
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameFault),
}

/// Whether strangers can register names directly below: one label, or `co.uk` and its like.
fn is_registry(apex: &str) -> bool {
    const SECOND: [&str; 8] = ["ac", "co", "com", "edu", "gov", "net", "or", "org"];
    match apex.split_once('.') {
        None => true,
        Some((second, top)) => top.len() == 2 && SECOND.contains(&second),
    }
}

#[cfg(test)]
mod tests;
