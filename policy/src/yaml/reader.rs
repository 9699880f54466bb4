//! Typed values out of a tree; what is wrong is gathered, so that one look shows it all.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Entry, Node, Value, closest};
use crate::fault::{Fault, Place, Span};

/// The keys of one kind of mapping.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// What the mapping describes, with its article: `a server`.
    pub what: &'static str,
    /// The keys that may stand in it.
    pub known: &'static [&'static str],
    /// Keys that are documented and that this version cannot honour: refused by name, never ignored.
    pub later: &'static [&'static str],
}

/// Takes typed values from the nodes of one file and gathers the faults.
#[derive(Debug)]
pub struct Reader {
    file: Arc<str>,
    faults: Vec<Fault>,
}

/// A mapping whose keys were checked.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'n> {
    /// Where the mapping begins.
    pub span: Span,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of a key; `None` where it is not written.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }
}

impl Reader {
    /// A reader for the file of this name.
    #[must_use]
    pub fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            faults: Vec::new(),
        }
    }

    /// The faults so far.
    #[must_use]
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// How many faults there are so far.
    #[must_use]
    pub fn fault_count(&self) -> usize {
        self.faults.len()
    }

    /// The place of a node of this file.
    #[must_use]
    pub fn place(&self, span: Span) -> Place {
        Place {
            file: Arc::clone(&self.file),
            span,
        }
    }

    /// Notes a fault.
    pub fn fault(&mut self, span: Span, message: impl Into<String>) {
        self.hinted(span, message, None);
    }

    /// Notes a fault, with what to write instead.
    pub fn hinted(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        let Span { line, column } = span;
        let file = self.file.to_string();
        self.faults.push(Fault {
            file,
            line,
            column,
            message: message.into(),
            hint,
        });
    }

    /// Notes that something else was expected.
    pub fn expected(&mut self, node: &Node, expected: &str) {
        self.fault(
            node.span,
            format!("expected {expected}, found {}", node.kind()),
        );
    }

    /// Takes a mapping with fixed keys; every key outside them is a fault.
    pub fn fields<'n>(&mut self, node: &'n Node, keys: &Keys) -> Option<Fields<'n>> {
        let entries = self.entries(node, keys.what)?;
        for Entry { key, span, .. } in entries {
            let shown = key.escape_debug();
            if keys.later.contains(&key.as_str()) {
                self.fault(*span, format!("`{shown}` is not supported by this version"));
            } else if !keys.known.contains(&key.as_str()) {
                let hint = match closest(key, keys.known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known are {}", listed(keys.known.iter().copied())),
                };
                self.hinted(
                    *span,
                    format!("unknown key `{shown}` in {}", keys.what),
                    Some(hint),
                );
            }
        }
        Some(Fields {
            span: node.span,
            entries,
        })
    }

    /// Takes a mapping with free keys.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, &format!("{what} as a mapping"));
            return None;
        };
        Some(entries)
    }

    /// Takes a key that must be there.
    pub fn required<'n>(&mut self, fields: Fields<'n>, key: &str, what: &str) -> Option<&'n Node> {
        let node = fields.get(key);
        if node.is_none() {
            self.fault(fields.span, format!("`{key}` is missing in {what}"));
        }
        node
    }

    /// Takes a text. A number, `true` or `null` without quotes is not one.
    pub fn text<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match (&node.value, node.kind()) {
            (Value::Scalar { text, .. }, "a text") if !text.is_empty() => Some(text),
            (Value::Scalar { plain: true, .. }, kind) if !node.is_null() => {
                let message = format!("expected {expected}, found {kind}");
                self.hinted(node.span, message, Some("put it in quotes".to_owned()));
                None
            }
            (Value::Scalar { plain: false, .. }, _) => {
                self.fault(
                    node.span,
                    format!("expected {expected}, found an empty text"),
                );
                None
            }
            _ => {
                self.expected(node, expected);
                None
            }
        }
    }

    /// Takes a text that may be empty.
    pub fn text_or_empty<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, plain: false } if text.is_empty() => Some(""),
            _ => self.text(node, expected),
        }
    }

    /// Takes a text and reads it further; the reader's error follows the text in the fault.
    pub fn parsed<T, E: Display>(
        &mut self,
        node: &Node,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(node, expected)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let shown = shorten(text);
                self.fault(
                    node.span,
                    format!("expected {expected}, found `{shown}`: {error}"),
                );
                None
            }
        }
    }

    /// Like [`Reader::parsed`], for texts that people put secrets into: the fault does not show it.
    pub fn parsed_unseen<T, E: Display>(
        &mut self,
        node: &Node,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(node, expected)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(node.span, format!("expected {expected}: {error}"));
                None
            }
        }
    }

    /// Takes a whole number (decimal).
    pub fn integer(
        &mut self,
        node: &Node,
        expected: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let number = match &node.value {
            Value::Scalar { text, plain: true }
                if text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                text.parse::<u64>().ok()
            }
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (from, to) = range.into_inner();
            let wanted = if from == to {
                format!("`{from}`")
            } else {
                format!("between {from} and {to}")
            };
            let found = match &node.value {
                Value::Scalar { text, plain: true } if !text.is_empty() => {
                    format!("`{}`", shorten(text))
                }
                _ => node.kind().to_owned(),
            };
            self.fault(
                node.span,
                format!("expected {expected} {wanted}, found {found}"),
            );
        }
        number
    }

    /// Takes `true` or `false`.
    pub fn flag(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.expected(node, "`true` or `false`");
                None
            }
        }
    }

    /// Takes a list.
    pub fn list<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [Node]> {
        let Value::List(items) = &node.value else {
            self.expected(node, &format!("a list of {expected}"));
            return None;
        };
        Some(items)
    }

    /// Takes a list, or one value that stands for a list of one.
    pub fn one_or_list<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
        }
    }

    /// Takes one of a few words; `later` are those that this version cannot honour.
    pub fn choice<T: Clone>(
        &mut self,
        node: &Node,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let names = || words.iter().map(|(word, _)| *word);
        let text = match &node.value {
            Value::Scalar { text, .. } if !text.is_empty() => text,
            _ => {
                self.expected(node, &listed(names()));
                return None;
            }
        };
        let found = words
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, value)| value.clone());
        if found.is_none() {
            let shown = shorten(text);
            if later.contains(&text.as_str()) {
                self.fault(
                    node.span,
                    format!("`{shown}` is not supported by this version"),
                );
            } else {
                let hint = closest(text, names()).map(|meant| format!("did you mean `{meant}`?"));
                let message = format!("expected one of {}, found `{shown}`", listed(names()));
                self.hinted(node.span, message, hint);
            }
        }
        found
    }
}

/// Words in backticks with commas.
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// At most 80 characters of a text, on one line.
fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}
