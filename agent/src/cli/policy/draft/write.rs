//! YAML out of a policy's tree: what is kept of the files, in blocks.

use std::fmt::Write as _;

use exeat_policy::yaml::{Entry, Node, Value};

use super::shape::yaml;

/// A scalar as it is written: quoted, unless it is a number, `true`, `false`, `null` or a plain word.
pub(super) fn scalar(node: &Node) -> Option<String> {
    let Value::Scalar { text, plain } = &node.value else {
        return None;
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let simple = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(word);
    Some(if *plain && (node.kind() != "a text" || simple) {
        text.clone()
    } else {
        yaml(text)
    })
}

/// A key; those that read as something else are quoted.
pub(super) fn key(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let simple = text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(word);
    if simple
        && !matches!(
            text,
            "true" | "false" | "null" | "y" | "n" | "yes" | "no" | "on" | "off"
        )
    {
        text.to_owned()
    } else {
        yaml(text)
    }
}

/// A value in one line.
pub(super) fn flow(node: &Node) -> String {
    match &node.value {
        Value::Scalar { .. } => scalar(node).unwrap_or_default(),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(pair).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

pub(super) fn pair(entry: &Entry) -> String {
    format!("{}: {}", key(&entry.key), flow(&entry.value))
}

/// An entry of a mapping on lines of its own, its value in one.
pub(super) fn line(out: &mut String, indent: usize, entry: &Entry) {
    // Writing to a string cannot fail.
    writeln!(out, "{:indent$}{}", "", pair(entry)).unwrap_or_default();
}
