//! YAML as Exeat's files use it: strict, bounded, every node with its place.
//!
//! [`read`] accepts one document of mappings, lists and scalars (so JSON too) and refuses what makes a
//! file read differently than it looks: duplicate keys, anchors, aliases, tags, merge keys, keys that
//! are not plain words. [`Reader`] takes typed values from the tree and gathers every fault on the way.

mod read;
mod reader;
mod suggest;
#[cfg(test)]
mod tests;

pub use self::read::read;
pub use self::reader::{Fields, Keys, Reader};
pub use self::suggest::closest;
pub use crate::fault::{Fault, Source, Span};

/// The largest file in bytes.
pub const SIZE_MAX: usize = 8 << 20;
/// The deepest nesting of mappings and lists.
pub const DEPTH_MAX: usize = 32;
/// The most scalars, lists and mappings in one file.
pub const NODES_MAX: usize = 1_000_000;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub span: Span,
}

/// A YAML value; scalars are not typed until they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// Its text, escapes resolved.
        text: String,
        /// Written without quotes, so that `true`, `12` and `null` are not texts.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Whether this is `null`, `~` or nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What the value is, for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { plain: false, .. } => "a text",
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "true or false",
                _ if is_number(text) => "a number",
                _ => "a text",
            },
        }
    }
}

/// Whether the YAML 1.2 core schema reads a plain scalar as a number (10.3.2).
fn is_number(text: &str) -> bool {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all =
        |digits: &str, radix: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    match () {
        () if matches!(bare, ".inf" | ".Inf" | ".INF") => true,
        () if matches!(text, ".nan" | ".NaN" | ".NAN") => true,
        () if text.starts_with("0x") => all(text.get(2..).unwrap_or_default(), 16),
        () if text.starts_with("0o") => all(text.get(2..).unwrap_or_default(), 8),
        () => {
            bare.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && bare.contains(|c: char| c.is_ascii_digit())
                && bare.parse::<f64>().is_ok()
        }
    }
}
