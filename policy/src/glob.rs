//! Patterns over tools, prompts, resources, methods and user names: `*` and `?`.

use std::fmt;
use std::sync::Arc;

/// The longest pattern.
const GLOB_MAX: usize = 256;

/// A pattern: `*` stands for any characters or none, `?` for one character, all else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob {
    text: Arc<str>,
    /// Bytes before the first `*` or `?`.
    literal: usize,
}

impl Glob {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobFault> {
        if text.is_empty() {
            return Err(GlobFault::Empty);
        }
        if text.len() > GLOB_MAX {
            return Err(GlobFault::TooLong);
        }
        if let Some(bad) = text
            .chars()
            .find(|c| c.is_control() || "[]{}\\".contains(*c))
        {
            return Err(GlobFault::Character(bad));
        }
        Ok(Self::of(text))
    }

    /// The pattern that a checked one comes to in other letters.
    pub(crate) fn of(text: &str) -> Self {
        Self {
            text: text.into(),
            literal: text.find(['*', '?']).unwrap_or(text.len()),
        }
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, where the pattern stands for one text only.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (self.literal == self.text.len()).then_some(&*self.text)
    }

    /// What every match begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.text.get(..self.literal).unwrap_or_default()
    }

    /// What every match ends with.
    #[must_use]
    pub fn suffix(&self) -> &str {
        let after = self.text.rfind(['*', '?']).map_or(0, |at| at + 1);
        self.text.get(after..).unwrap_or_default()
    }

    /// Whether the pattern stands for every text.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.text.bytes().all(|byte| byte == b'*')
    }

    /// Whether `text` matches; linear in its length for each `*`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix()) else {
            return false;
        };
        let pattern = self.text.get(self.literal..).unwrap_or_default();
        match pattern {
            "" => rest.is_empty(),
            "*" => true,
            _ => wild(pattern, rest),
        }
    }

    /// Whether every text that `other` matches is matched by this pattern; `false` where that is not
    /// obvious.
    #[must_use]
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // Reading the other pattern as a text is sound while this one has no `?`: the other's `*` and
        // `?` can then only be taken up by a `*` of this one, which takes whatever they stand for.
        self == other || (!self.text.contains('?') && self.matches(&other.text))
    }
}

/// Matches with one point of return, the last `*`: quadratic at worst, never exponential.
pub(crate) fn wild(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        match (pattern.next(), text.clone().next()) {
            (None, None) => return true,
            (Some('*'), _) => retry = Some((pattern.clone(), text.clone())),
            (Some('?'), Some(_)) => drop(text.next()),
            (Some(want), Some(have)) if want == have => drop(text.next()),
            _ => {
                let Some((star, from)) = &mut retry else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                pattern = star.clone();
                text = from.clone();
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobFault {
    /// Nothing.
    #[error("a pattern may not be empty")]
    Empty,
    /// More than 256 bytes.
    #[error("a pattern may not be longer than 256 bytes")]
    TooLong,
    /// A character that means something in other pattern languages, or a control character.
    #[error("`{}` has no meaning in a pattern; `*` and `?` do", .0.escape_default())]
    Character(char),
}
