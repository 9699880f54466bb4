//! YAML, without what makes one value stand in several places.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{DEPTH_MAX, Member, Node, TreeFault, Value};

/// A list or mapping that is being read.
struct Open {
    start: usize,
    flow: bool,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map(Vec<Member>, Option<(String, usize)>),
}

#[expect(
    clippy::too_many_lines,
    reason = "one match over what the parser says, read line by line"
)]
pub(super) fn parse(text: &str) -> Result<Node, TreeFault> {
    let bytes = Bytes::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut documents = 0_u32;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| TreeFault::Syntax {
            line: error.marker().line(),
            what: "this is not YAML".to_owned(),
        })?;
        let refused = |what: &str| TreeFault::Syntax {
            line: span.start.line(),
            what: what.to_owned(),
        };
        let marked = |anchor: usize, tagged: bool| anchor != 0 || tagged;
        let closed = match event {
            Event::DocumentStart(_) => {
                documents = documents.saturating_add(1);
                if documents > 1 {
                    return Err(refused("a second document in the file"));
                }
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::Alias(_) => return Err(refused("an alias, which is not followed")),
            Event::Scalar(_, _, anchor, ref tag) if marked(anchor, tag.is_some()) => {
                return Err(refused("an anchor or a tag, which is not followed"));
            }
            Event::SequenceStart(anchor, ref tag) | Event::MappingStart(anchor, ref tag)
                if marked(anchor, tag.is_some()) =>
            {
                return Err(refused("an anchor or a tag, which is not followed"));
            }
            Event::Scalar(value, style, ..) => {
                let plain = style == ScalarStyle::Plain && !is_text(&value);
                Node {
                    span: bytes.of(&span),
                    value: if plain {
                        Value::Other
                    } else {
                        Value::Text(value.into_owned())
                    },
                }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= DEPTH_MAX {
                    return Err(TreeFault::Bounds);
                }
                let start = bytes.of(&span).start;
                let flow = text
                    .get(start..)
                    .is_some_and(|rest| rest.starts_with(['[', '{']));
                let kind = match event {
                    Event::SequenceStart(..) => Kind::List(Vec::new()),
                    _ => Kind::Map(Vec::new(), None),
                };
                open.push(Open { start, flow, kind });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(done) = open.pop() else { continue };
                close(done, bytes.of(&span).end)
            }
        };
        put(closed, &mut open, &mut root).map_err(|()| refused("a key that is no text"))?;
    }
    Ok(root.unwrap_or(Node {
        span: text.len()..text.len(),
        value: Value::Map(Vec::new()),
    }))
}

/// What is written without quotes and is a text all the same (YAML 1.2, core schema).
fn is_text(plain: &str) -> bool {
    let word = matches!(
        plain,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
    );
    !word && plain.parse::<f64>().is_err()
}

/// A block ends with its last value: what follows up to the next one is not its own.
fn close(done: Open, end: usize) -> Node {
    let (last, value) = match done.kind {
        Kind::List(items) => (items.last().map(|item| item.span.end), Value::List(items)),
        Kind::Map(members, _) => (
            members.last().map(|member| member.node.span.end),
            Value::Map(members),
        ),
    };
    let end = if done.flow {
        end
    } else {
        last.unwrap_or(done.start)
    };
    Node {
        span: done.start..end,
        value,
    }
}

/// Puts a value where it belongs: into what is open, as key or value.
fn put(node: Node, open: &mut [Open], root: &mut Option<Node>) -> Result<(), ()> {
    match open.last_mut().map(|open| &mut open.kind) {
        None => *root = Some(node),
        Some(Kind::List(items)) => items.push(node),
        Some(Kind::Map(members, key)) => match key.take() {
            Some((key, start)) => members.push(Member { key, start, node }),
            None => match node.value {
                Value::Text(text) => *key = Some((text, node.span.start)),
                Value::List(_) | Value::Map(_) | Value::Other => return Err(()),
            },
        },
    }
    Ok(())
}

/// The parser counts characters.
struct Bytes(Vec<usize>);

impl Bytes {
    fn new(text: &str) -> Self {
        let ends = std::iter::once(text.len());
        Self(text.char_indices().map(|(at, _)| at).chain(ends).collect())
    }

    fn of(&self, span: &Span) -> Range<usize> {
        let last = self.0.last().copied().unwrap_or_default();
        let at = |index: usize| self.0.get(index).copied().unwrap_or(last);
        at(span.start.index())..at(span.end.index())
    }
}
