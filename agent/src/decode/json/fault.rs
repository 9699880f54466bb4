//! Why bytes were not accepted as JSON; never what they held.

use thiserror::Error;

/// The first fault of a text. Holds a place and a kind, and nothing of the content, so that it may be
/// logged and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{kind} at byte {offset}")]
pub struct Fault {
    /// Bytes from the start of the text to the place of the fault.
    pub offset: usize,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// A `\` followed by something that RFC 8259 section 7 does not name.
    #[error("unknown escape in a string")]
    BadEscape,
    /// U+FEFF before the text: half of the known servers take it, the other half do not.
    #[error("byte order mark")]
    ByteOrderMark,
    /// A character below U+0020 written raw inside a string.
    #[error("raw control character in a string")]
    ControlCharacter,
    /// A key twice in one object, compared after its escapes were decoded.
    #[error("duplicate key")]
    DuplicateKey,
    /// Nothing but whitespace.
    #[error("no value")]
    Empty,
    /// Half a surrogate pair, written as an escape.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// A number that no IEEE 754 double can hold; receivers turn it into infinity or null.
    #[error("number beyond the range of a double")]
    NotFinite,
    /// Not UTF-8 (or UTF-16 and UTF-32, which some servers guess).
    #[error("bytes that are not UTF-8")]
    NotUtf8,
    /// A number outside the grammar: leading zero, plus sign, hexadecimal, `NaN`.
    #[error("malformed number")]
    NumberSyntax,
    /// A number of more characters than the limit.
    #[error("number of more than {limit} characters")]
    NumberTooLong {
        /// [`Limits::number`](super::Limits::number).
        limit: usize,
    },
    /// Anything else that the grammar does not allow here.
    #[error("unexpected byte")]
    Syntax,
    /// More containers inside each other than the limit.
    #[error("more than {limit} levels of nesting")]
    TooDeep {
        /// [`Limits::depth`](super::Limits::depth).
        limit: u8,
    },
    /// More bytes than the limit.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// [`Limits::bytes`](super::Limits::bytes).
        limit: usize,
    },
    /// More values than the limit.
    #[error("more than {limit} values")]
    TooMany {
        /// [`Limits::values`](super::Limits::values).
        limit: usize,
    },
    /// Something other than whitespace after the value.
    #[error("data after the value")]
    TrailingData,
    /// The text ended inside a value.
    #[error("unexpected end")]
    UnexpectedEnd,
}
