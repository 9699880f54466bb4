//! Text that may be recorded: masked and bounded by construction.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt::{self, Debug, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mask;

/// How many bytes of a text are recorded.
pub const MAX_TEXT: usize = 1_024;

/// How many bytes are looked at to find them.
const MAX_INPUT: usize = 16 * 1_024;

/// A text without known secrets, of at most [`MAX_TEXT`] bytes and a note of what was cut.
///
/// INVARIANT: strings from outside become records only through this type, and it has no
/// constructor that does not mask. (Reading a log back trusts the log.)
#[derive(Clone)]
pub struct Text(Held);

/// Cloning costs a counter at most: a decision's texts stand in many records.
#[derive(Clone)]
enum Held {
    Fixed(&'static str),
    Shared(Arc<str>),
}

impl Text {
    /// A text of the program itself, known when it was compiled.
    pub const fn fixed(text: &'static str) -> Self {
        Self(Held::Fixed(text))
    }

    /// A text from outside: secrets are masked by their shape and by the key before them.
    pub fn new(text: &str) -> Self {
        Self::bounded(text, mask::text)
    }

    /// The path and query of a request: additionally, values of query parameters with telling
    /// names are masked, and percent-encoding hides nothing.
    pub fn path(path: &str) -> Self {
        Self::bounded(path, mask::path)
    }

    /// What an error and its causes say, joined with colons.
    pub fn error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        // A chain is as long as the program made it; text beyond the bound is not looked at.
        while let Some(error) = cause.take_if(|_| text.len() < MAX_INPUT) {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self::new(&text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Held::Fixed(text) => text,
            Held::Shared(text) => text,
        }
    }

    fn bounded(text: &str, mask: impl FnOnce(&str) -> Cow<'_, str>) -> Self {
        let looked_at = prefix(text, MAX_INPUT);
        let mut masked = mask(looked_at);
        if looked_at.len() < text.len() {
            // What was cut in two may be a secret that is no longer recognised.
            let kept = masked
                .trim_end_matches(|letter: char| !letter.is_whitespace())
                .len();
            masked = Cow::Owned(prefix(&masked, kept).to_owned());
        }
        let kept = prefix(&masked, MAX_TEXT);
        let cut = text.len().saturating_sub(looked_at.len()) + (masked.len() - kept.len());
        Self(Held::Shared(if cut == 0 {
            kept.into()
        } else {
            format!("{kept}[+{cut} bytes]").into()
        }))
    }
}

/// Whether a recorded text is all that was said: nothing in it was masked, and nothing cut.
pub fn is_whole(text: &str) -> bool {
    let cut = text
        .strip_suffix(" bytes]")
        .and_then(|text| text.rsplit_once('['));
    // How many bytes were cut from a text (`+`), or how many an argument had.
    let cut = cut.is_some_and(|(_, count)| {
        let count = count.strip_prefix('+').unwrap_or(count);
        !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit())
    });
    !cut && !text.contains(mask::MASK)
}

/// The longest beginning of at most `limit` bytes.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit))
        .unwrap_or_default()
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::fixed("")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// It is ordered, compared and hashed as its text is.
impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Held::Shared(text.into())))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Debug for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(self.as_str(), f)
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self.as_str(), f)
    }
}
