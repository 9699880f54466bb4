//! An expression as it is written, and the seam to whoever reads it.

use std::sync::Arc;

use super::ConditionFault;

/// Reads the grammar of CEL. What stands behind it may be replaced: nothing else in the crate knows it.
pub(super) trait Syntax {
    /// Reads an expression that [`scan`](super::scan) has let through. Macros are left as the calls that they are.
    fn read(text: &str) -> Result<Tree, ConditionFault>;
}

/// A part of an expression.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where it stands, in characters from 0; of an operator or a call, where that itself stands.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// As JSON writes it.
    Number(Arc<str>),
    Text(Arc<str>),
    List(Vec<Tree>),
    Name(String),
    /// `operand.field`
    Select(Box<Tree>, String),
    /// A function by its name, an operator by the name that CEL gives its function: `_&&_`.
    Call {
        name: String,
        target: Option<Box<Tree>>,
        arguments: Vec<Tree>,
    },
}
