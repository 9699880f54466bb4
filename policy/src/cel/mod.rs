//! Conditions of rules (`when`), written in CEL: read and checked with the policy, evaluated with each request.
//!
//! The syntax is CEL's, by a crate that knows its grammar, behind [`Syntax`]. What an expression means is
//! decided here, on the decoder's own tree: the values that a request brings are exact, may be unknown, and
//! never make it cost more than a bounded number of steps. Where CEL converts or takes two types for unequal,
//! this is an error, as everywhere in rules.

mod check;
mod claims;
mod evaluate;
mod number;
pub mod oracle;
mod parse;
mod scan;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::fmt;
use std::sync::Arc;

use self::check::Node;
pub(crate) use self::evaluate::{Facts, hold};
use self::parse::Cel;
use self::tree::{Syntax, Tree};
use crate::model::Pointer;

/// What a rule's `when` asks for. Cheap to copy.
#[derive(Clone)]
pub struct Condition {
    text: Arc<str>,
    root: Arc<Node>,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionFault {
    /// Where, in characters from the expression's beginning, counted from 0.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl Condition {
    /// Reads and checks an expression; never empty where it fails.
    pub fn parse(text: &str) -> Result<Self, Vec<ConditionFault>> {
        Self::read::<Cel>(text)
    }

    fn read<S: Syntax>(text: &str) -> Result<Self, Vec<ConditionFault>> {
        scan::check(text).map_err(|fault| vec![fault])?;
        let tree: Tree = S::read(text).map_err(|fault| vec![fault])?;
        let root = check::check(&tree)?;
        Ok(Self {
            text: text.into(),
            root: Arc::new(root),
        })
    }

    /// Whether it may ask for the name of what is called; sometimes said of one that does not.
    pub(crate) fn may_ask_name(&self) -> bool {
        self.text.contains("tool")
    }

    /// The claims of a token that it asks for, as far as that can be said beforehand.
    pub(crate) fn claims(&self) -> Vec<Pointer> {
        let mut read = Vec::new();
        claims::read(&self.root, &mut read);
        read
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

/// As it is written in a policy.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "when: {}", self.text)
    }
}

impl ConditionFault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            hint: None,
        }
    }
}
