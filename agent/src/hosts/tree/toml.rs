//! TOML.

use std::ops::Range;

use toml_edit::{Document, Item, Key, TableLike};

use super::{Member, Node, TreeFault, Value, line_of};

pub(super) fn parse(text: &str) -> Result<Node, TreeFault> {
    let document = Document::parse(text).map_err(|error| TreeFault::Syntax {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        // The message alone: the whole text would quote the file.
        what: error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    })?;
    Ok(Node {
        span: 0..text.len(),
        value: table(document.as_table()),
    })
}

fn table(table: &dyn TableLike) -> Value {
    let member = |(name, item): (&str, &Item)| {
        let key = table.get_key_value(name).map(|(key, _)| key);
        Member {
            key: name.to_owned(),
            start: key.and_then(Key::span).unwrap_or_default().start,
            node: node(item),
        }
    };
    Value::Map(table.iter().map(member).collect())
}

fn node(item: &Item) -> Node {
    let value = match item {
        Item::Value(value) => return self::value(value),
        Item::Table(of) => table(of),
        Item::ArrayOfTables(tables) => Value::List(
            tables
                .iter()
                .map(|of| Node {
                    span: place(of.span()),
                    value: table(of),
                })
                .collect(),
        ),
        Item::None => Value::Other,
    };
    Node {
        span: place(item.span()),
        value,
    }
}

fn value(value: &toml_edit::Value) -> Node {
    let read = match value {
        toml_edit::Value::String(text) => Value::Text(text.value().clone()),
        toml_edit::Value::Array(items) => Value::List(items.iter().map(self::value).collect()),
        toml_edit::Value::InlineTable(of) => table(of),
        toml_edit::Value::Integer(_)
        | toml_edit::Value::Float(_)
        | toml_edit::Value::Boolean(_)
        | toml_edit::Value::Datetime(_) => Value::Other,
    };
    Node {
        span: place(value.span()),
        value: read,
    }
}

/// A table that is only implied by its children has no place of its own.
fn place(span: Option<Range<usize>>) -> Range<usize> {
    span.unwrap_or_default()
}
