//! JSON with comments.

use jsonc_parser::ast::{self, ObjectPropName};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::{Member, Node, TreeFault, Value, line_of};

/// What editors accept and no more: comments and trailing commas.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn parse(text: &str) -> Result<Node, TreeFault> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let offset = text.len().saturating_sub(bare.len());
    let parsed = parse_to_ast(bare, &CollectOptions::default(), &OPTIONS).map_err(|error| {
        TreeFault::Syntax {
            line: line_of(bare, error.range().start),
            // The kind alone: the whole text would quote the file.
            what: error.kind().to_string(),
        }
    })?;
    Ok(match &parsed.value {
        Some(value) => node(value, offset),
        None => Node {
            span: text.len()..text.len(),
            value: Value::Map(Vec::new()),
        },
    })
}

fn node(value: &ast::Value<'_>, offset: usize) -> Node {
    let range = value.range();
    let span = range.start.saturating_add(offset)..range.end.saturating_add(offset);
    let value = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.clone().into_owned()),
        ast::Value::Array(array) => Value::List(
            array
                .elements
                .iter()
                .map(|item| node(item, offset))
                .collect(),
        ),
        ast::Value::Object(object) => Value::Map(
            object
                .properties
                .iter()
                .map(|property| Member {
                    key: match &property.name {
                        ObjectPropName::String(text) => text.value.clone().into_owned(),
                        ObjectPropName::Word(word) => word.value.to_owned(),
                    },
                    start: property.range.start.saturating_add(offset),
                    node: node(&property.value, offset),
                })
                .collect(),
        ),
        ast::Value::NumberLit(_) | ast::Value::BooleanLit(_) | ast::Value::NullKeyword(_) => {
            Value::Other
        }
    };
    Node { span, value }
}
