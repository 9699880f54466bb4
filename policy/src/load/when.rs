//! `when`: the condition of a rule, and where in the file its faults stand.

use super::Loader;
use crate::cel::Condition;
use crate::model::{ArgumentTest, Effect};
use crate::yaml::{Fields, Node, Span};

impl Loader<'_> {
    /// The `args` and the `when` of a rule; `None` after a fault.
    pub(super) fn conditions(
        &mut self,
        fields: Fields<'_>,
        effect: Option<Effect>,
    ) -> Option<(Vec<ArgumentTest>, Option<Condition>)> {
        let args = self.arguments(fields, effect);
        let Some(node) = fields.get("when") else {
            return Some((args?, None));
        };
        let when = self.condition(node)?;
        Some((args?, Some(when)))
    }

    fn condition(&mut self, node: &Node) -> Option<Condition> {
        let text = self.reader.text(node, "an expression")?;
        crate::text::prepare();
        match Condition::parse(text) {
            Ok(condition) => Some(condition),
            Err(faults) => {
                for fault in faults {
                    let span = self.within(node, text, fault.at);
                    self.reader.hinted(span, fault.message, fault.hint);
                }
                None
            }
        }
    }

    /// The place in the file of the character `at` of an expression, whose white space the file may write
    /// otherwise (lines are folded, blocks indented). Behind an escape it is the place of the expression.
    fn within(&self, node: &Node, text: &str, at: usize) -> Span {
        let quoted = Span {
            column: node.span.column.saturating_add(1),
            ..node.span
        };
        let mut places = [node.span, quoted].into_iter();
        let found = places.find_map(|begin| self.follow(begin, text, at));
        found.unwrap_or(node.span)
    }

    /// Where the character `at` of `text` stands, if the text begins here.
    fn follow(&self, begin: Span, text: &str, at: usize) -> Option<Span> {
        let line = usize::try_from(begin.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(begin.column).ok()?.checked_sub(1)?;
        let lines = self.text.split_inclusive('\n').skip(line);
        let mut written = lines.flat_map(str::chars).skip(column).peekable();
        let mut span = begin;
        let mut pass = |c: char| {
            if c == '\n' {
                span = Span {
                    line: span.line.saturating_add(1),
                    column: 1,
                };
            } else {
                span.column = span.column.saturating_add(1);
            }
            span
        };
        let mut here = begin;
        for (index, wanted) in text.chars().enumerate() {
            while !wanted.is_whitespace()
                && let Some(space) = written.next_if(|c| c.is_whitespace())
            {
                here = pass(space);
            }
            if index == at {
                return Some(here);
            }
            if !wanted.is_whitespace() {
                here = pass(written.next_if_eq(&wanted)?);
            }
        }
        Some(here)
    }
}
