//! From text to a tree: one pass over the parser's events, without recursion.

use std::collections::HashSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::{DEPTH_MAX, Entry, NODES_MAX, Node, SIZE_MAX, Value};
use crate::fault::{Fault, Source, Span};

/// Reads one document. Every refused construct is reported; a syntax error or a bound ends the reading.
pub fn read(source: &Source) -> Result<Node, Vec<Fault>> {
    let mut tree = Tree {
        file: &source.name,
        open: Vec::new(),
        root: None,
        nodes: 0,
        faults: Vec::new(),
    };
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    match tree.check_text(text).and_then(|()| tree.take_events(text)) {
        Ok(()) => {}
        Err(fatal) => tree.faults.push(*fatal),
    }
    if !tree.faults.is_empty() {
        return Err(tree.faults);
    }
    tree.root.ok_or_else(|| {
        vec![fault(
            &source.name,
            Span { line: 1, column: 1 },
            "the file is empty",
        )]
    })
}

/// So many names are compared one by one; most mappings have no more, and need nothing beside them.
const FEW: usize = 16;

/// A list or mapping that is being read.
struct Open {
    span: Span,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The names of the entries, once there are [many](FEW).
        seen: HashSet<String>,
        key: Option<(String, Span)>,
    },
    /// A key that is a list or mapping: reported, read to its end, dropped.
    Key,
}

struct Tree<'a> {
    file: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    faults: Vec<Fault>,
}

type Fatal = Box<Fault>;

impl Tree<'_> {
    /// Control characters are refused before anything else reads them.
    fn check_text(&self, text: &str) -> Result<(), Fatal> {
        let start = Span { line: 1, column: 1 };
        if text.len() > SIZE_MAX {
            return Err(self.fatal(start, format!("the file is larger than {SIZE_MAX} bytes")));
        }
        let bad = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        let Some((before, _)) = text.split_once(bad) else {
            return Ok(());
        };
        let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let span = Span {
            line: saturate(line),
            column: saturate(column),
        };
        Err(self.fatal(span, "the file holds a control character".to_owned()))
    }

    fn take_events(&mut self, text: &str) -> Result<(), Fatal> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0_u32;
        while let Some(next) = parser.next_event() {
            let (event, place) =
                next.map_err(|error| self.fatal(at(error.marker()), error.info().to_owned()))?;
            let span = at(&place.start);
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(
                            self.fatal(span, "only one document may stand in a file".to_owned())
                        );
                    }
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::Alias(_) => {
                    self.refuse(span, "aliases (`*name`) are not allowed");
                    self.take_scalar(String::new(), true, span)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.check_properties(anchor, tag.is_some(), span);
                    let plain = style == ScalarStyle::Plain;
                    self.take_scalar(text.into_owned(), plain, span)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.check_properties(anchor, tag.is_some(), span);
                    self.open(OpenKind::List(Vec::new()), span)?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.check_properties(anchor, tag.is_some(), span);
                    let kind = OpenKind::Map {
                        entries: Vec::new(),
                        seen: HashSet::new(),
                        key: None,
                    };
                    self.open(kind, span)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(span),
            }
        }
        Ok(())
    }

    fn check_properties(&mut self, anchor: usize, tagged: bool, span: Span) {
        if anchor != 0 {
            self.refuse(span, "anchors (`&name`) are not allowed");
        }
        if tagged {
            self.refuse(span, "tags (`!name`) are not allowed");
        }
    }

    fn open(&mut self, kind: OpenKind, span: Span) -> Result<(), Fatal> {
        self.count(span)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(self.fatal(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let is_key = matches!(
            self.open.last(),
            Some(Open {
                kind: OpenKind::Map { key: None, .. },
                ..
            })
        );
        if is_key {
            self.refuse(span, "a key must be a plain word or a quoted text");
        }
        let kind = if is_key { OpenKind::Key } else { kind };
        self.open.push(Open { span, kind });
        Ok(())
    }

    fn close(&mut self, end: Span) {
        let Some(Open { span, kind }) = self.open.pop() else {
            return;
        };
        match kind {
            OpenKind::List(items) => self.take_value(Node {
                value: Value::List(items),
                span,
            }),
            OpenKind::Map { entries, .. } => self.take_value(Node {
                value: Value::Map(entries),
                span,
            }),
            OpenKind::Key => {
                if let Some(Open {
                    kind: OpenKind::Map { key, .. },
                    ..
                }) = self.open.last_mut()
                {
                    *key = Some((String::new(), end));
                }
            }
        }
    }

    fn take_scalar(&mut self, text: String, plain: bool, span: Span) -> Result<(), Fatal> {
        self.count(span)?;
        let Some(Open {
            kind:
                OpenKind::Map {
                    entries,
                    seen,
                    key: key @ None,
                },
            ..
        }) = self.open.last_mut()
        else {
            self.take_value(Node {
                value: Value::Scalar { text, plain },
                span,
            });
            return Ok(());
        };
        let message = match text.as_str() {
            "<<" if plain => Some("merge keys (`<<`) are not allowed".to_owned()),
            "" | "~" if plain => Some("a key is missing before `:`".to_owned()),
            _ if stands_twice(&text, entries, seen) => {
                Some(format!("`{}` stands here twice", text.escape_debug()))
            }
            _ => None,
        };
        *key = Some((text, span));
        if let Some(message) = message {
            self.refuse(span, &message);
        }
        Ok(())
    }

    fn take_value(&mut self, node: Node) {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::Key) => {}
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, key, .. }) => {
                if let Some((key, span)) = key.take() {
                    entries.push(Entry {
                        key,
                        span,
                        value: node,
                    });
                }
            }
        }
    }

    fn count(&mut self, span: Span) -> Result<(), Fatal> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.fatal(span, format!("more than {NODES_MAX} values in one file")));
        }
        Ok(())
    }

    fn refuse(&mut self, span: Span, message: &str) {
        self.faults.push(fault(self.file, span, message));
    }

    #[expect(
        clippy::unnecessary_box_returns,
        reason = "a small error keeps every result small"
    )]
    fn fatal(&self, span: Span, message: String) -> Fatal {
        Box::new(fault(self.file, span, &message))
    }
}

/// Whether a name is that of an entry already; `seen` is kept here alone.
fn stands_twice(name: &str, entries: &[Entry], seen: &mut HashSet<String>) -> bool {
    if entries.len() < FEW {
        return entries.iter().any(|entry| entry.key == name);
    }
    if seen.is_empty() {
        seen.extend(entries.iter().map(|entry| entry.key.clone()));
    }
    !seen.insert(name.to_owned())
}

fn fault(file: &str, span: Span, message: &str) -> Fault {
    let Span { line, column } = span;
    Fault {
        file: file.to_owned(),
        line,
        column,
        message: message.to_owned(),
        hint: None,
    }
}

/// The parser counts lines from 1 and columns from 0.
fn at(marker: &Marker) -> Span {
    Span {
        line: saturate(marker.line()),
        column: saturate(marker.col().saturating_add(1)),
    }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
