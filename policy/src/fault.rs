//! What is wrong with a policy file, and where.

use std::fmt;
use std::sync::Arc;

/// One policy (or configuration) file, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name to show in faults, usually the path.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A place in a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The line, counted from 1; 0 where the fault belongs to the whole file.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

/// A place in one of several source files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The file's name, as given in [`Source::name`].
    pub file: Arc<str>,
    /// Where in the file.
    pub span: Span,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.span.line, self.span.column)
    }
}

/// One fault of a source file; shown as `file:line:column: message (hint)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}{}", Hint(hint.as_deref()))]
pub struct Fault {
    /// The file's name, as given in [`Source::name`].
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// What is wrong and what was expected, lower case, without a full stop.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

/// Shows a hint in brackets, or nothing.
struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}
