//! A configuration file as a tree in which every value knows its bytes, whatever the syntax.
//!
//! A file is changed by replacing bytes at such places, so that everything else stays as it is:
//! comments, order, blanks, line ends.

mod json;
mod toml;
mod yaml;

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

/// The most values in one file.
const NODES_MAX: usize = 1_000_000;
/// The deepest nesting.
const DEPTH_MAX: usize = 128;

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// JSON, with the comments and trailing commas that editors allow.
    Json,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

/// A value and its bytes. Values may be secrets, so there is no `Debug`.
pub(super) struct Node {
    /// Where it stands in the file.
    pub(super) span: Range<usize>,
    /// What it is.
    pub(super) value: Value,
}

/// A value, as far as it matters here.
pub(super) enum Value {
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    Map(Vec<Member>),
    /// A number, truth value, date or nothing.
    Other,
}

/// A member of a mapping.
pub(super) struct Member {
    /// Its key.
    pub(super) key: String,
    /// Where the key begins.
    pub(super) start: usize,
    /// Its value.
    pub(super) node: Node,
}

/// Why a file cannot be read; never with a value of the file in it.
#[derive(Debug, thiserror::Error)]
pub enum TreeFault {
    /// The syntax is broken.
    #[error("line {line}: {what}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What was expected.
        what: String,
    },
    /// A key stands twice in one mapping, and readers differ in which one counts.
    #[error("line {line}: a key that stands twice in one mapping")]
    Twice {
        /// Counted from 1.
        line: usize,
    },
    /// Too large or too deep.
    #[error("more than {NODES_MAX} values, or nested deeper than {DEPTH_MAX}")]
    Bounds,
}

/// A replacement of bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Which bytes; an empty range inserts.
    pub(super) span: Range<usize>,
    /// What stands there afterwards.
    pub(super) text: String,
}

impl Syntax {
    /// By the ending of the file's name; JSON where it says nothing.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Self::Toml,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }

    /// Reads a file; an empty one is an empty mapping.
    pub(super) fn parse(self, text: &str) -> Result<Node, TreeFault> {
        let root = match self {
            Self::Json => json::parse(text),
            Self::Toml => toml::parse(text),
            Self::Yaml => yaml::parse(text),
        }?;
        check(&root, text, 0)?;
        Ok(root)
    }
}

impl Node {
    /// The member of this key, of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    /// The members of a mapping.
    pub(super) fn members(&self) -> &[Member] {
        match &self.value {
            Value::Map(members) => members,
            Value::Text(_) | Value::List(_) | Value::Other => &[],
        }
    }

    /// The text, of a text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::List(_) | Value::Map(_) | Value::Other => None,
        }
    }

    /// The texts of a list of nothing else.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        match &self.value {
            Value::List(items) => items
                .iter()
                .map(|item| item.text().map(str::to_owned))
                .collect(),
            Value::Text(_) | Value::Map(_) | Value::Other => None,
        }
    }
}

/// Which readers would disagree on, and what is too large to be walked.
fn check(node: &Node, text: &str, depth: usize) -> Result<usize, TreeFault> {
    if depth > DEPTH_MAX {
        return Err(TreeFault::Bounds);
    }
    let mut count = 1_usize;
    match &node.value {
        Value::List(items) => {
            for item in items {
                count = count.saturating_add(check(item, text, depth.saturating_add(1))?);
            }
        }
        Value::Map(members) => {
            let mut seen = std::collections::HashSet::new();
            for member in members {
                if !seen.insert(member.key.as_str()) {
                    let line = line_of(text, member.start);
                    return Err(TreeFault::Twice { line });
                }
                count = count.saturating_add(check(&member.node, text, depth.saturating_add(1))?);
            }
        }
        Value::Text(_) | Value::Other => {}
    }
    if count > NODES_MAX {
        return Err(TreeFault::Bounds);
    }
    Ok(count)
}

/// The line that a byte is in, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The text with its edits, which do not overlap, in any order.
pub(super) fn apply(text: &str, edits: &[Edit]) -> String {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| edit.span.start);
    let mut out = String::with_capacity(text.len());
    let mut kept = 0;
    for edit in edits {
        out.push_str(text.get(kept..edit.span.start).unwrap_or_default());
        out.push_str(&edit.text);
        kept = edit.span.end;
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

/// A text in double quotes, as all three syntaxes read it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control()
                || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                // Writing to a string cannot fail.
                write!(out, "\\u{:04x}", u32::from(character)).unwrap_or_default();
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
