//! URL paths: one reading for all, and the patterns over it.

use std::fmt;
use std::sync::Arc;

/// The longest path that is compared.
const PATH_MAX: usize = 8192;

/// Brings a request's path (without its query) into the form that patterns are compared with.
///
/// Escaped unreserved characters are decoded, other escapes get upper-case digits (RFC 3986, 6.2.2).
/// What servers read in more than one way is refused instead of guessed at: empty and dot segments,
/// `\`, escaped `/`, `\`, `.` and NUL, double escapes, anything that is not a URI character.
pub fn normalise_path(raw: &str) -> Result<String, PathFault> {
    if raw.len() > PATH_MAX {
        return Err(PathFault::TooLong);
    }
    let Some(rest) = raw.strip_prefix('/') else {
        return Err(PathFault::NotAbsolute);
    };
    let mut out = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next()), hex(bytes.next()));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(PathFault::BadEscape);
                };
                push_escape(&mut out, high << 4 | low)?;
            }
            b'\\' => return Err(PathFault::Backslash),
            b'?' | b'#' => return Err(PathFault::Query),
            _ if byte.is_ascii_graphic() && !b"\"<>^`{|}".contains(&byte) => {
                out.push(char::from(byte));
            }
            _ => return Err(PathFault::BadCharacter),
        }
    }
    check_segments(rest)?;
    Ok(out)
}

fn push_escape(out: &mut String, value: u8) -> Result<(), PathFault> {
    match value {
        0 => Err(PathFault::Nul),
        b'/' | b'\\' => Err(PathFault::EscapedSlash),
        b'.' => Err(PathFault::EscapedDot),
        b'%' => Err(PathFault::DoubleEscape),
        _ if value.is_ascii_alphanumeric() || b"-_~".contains(&value) => {
            out.push(char::from(value));
            Ok(())
        }
        _ => {
            out.push('%');
            for digit in [value >> 4, value & 15] {
                out.extend(
                    char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()),
                );
            }
            Ok(())
        }
    }
}

/// A segment may be empty only as the last: `//` and `..` mean different things to different servers,
/// and some drop what follows `;` before they look.
fn check_segments(path: &str) -> Result<(), PathFault> {
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let bare = segment.split(';').next().unwrap_or_default();
        if matches!(bare, "." | "..") {
            return Err(PathFault::DotSegment);
        }
        if bare.is_empty() && (segments.peek().is_some() || !segment.is_empty()) {
            return Err(PathFault::EmptySegment);
        }
    }
    Ok(())
}

const fn hex(byte: Option<u8>) -> Option<u8> {
    match byte {
        Some(byte @ b'0'..=b'9') => Some(byte - b'0'),
        Some(byte @ b'a'..=b'f') => Some(byte - b'a' + 10),
        Some(byte @ b'A'..=b'F') => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Why a path cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathFault {
    /// Longer than 8 KiB.
    #[error("the path is longer than 8192 bytes")]
    TooLong,
    /// It does not begin with `/`.
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path holds a broken escape")]
    BadEscape,
    /// `\`.
    #[error("the path holds a backslash")]
    Backslash,
    /// `?` or `#`: the query was not cut off.
    #[error("the path holds a query or fragment")]
    Query,
    /// Not a URI character.
    #[error("the path holds a character that must be escaped")]
    BadCharacter,
    /// `%00`.
    #[error("the path holds an escaped nul")]
    Nul,
    /// `%2F` or `%5C`.
    #[error("the path holds an escaped slash or backslash")]
    EscapedSlash,
    /// `%2E`.
    #[error("the path holds an escaped dot")]
    EscapedDot,
    /// `%25`.
    #[error("the path holds an escaped percent sign")]
    DoubleEscape,
    /// `.` or `..`.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// `//`.
    #[error("the path holds an empty segment")]
    EmptySegment,
}

/// A pattern over normalised paths: `*` and `?` within a segment, `**` for any number of whole ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathGlob {
    text: Arc<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// `**`: none or more segments.
    Deep,
    /// One segment.
    One(Box<str>),
}

impl PathGlob {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PathGlobFault> {
        // `?` stands for one character here; a path has none, so it is put aside for the check.
        let normal = normalise_path(&text.replace('?', "*")).map_err(PathGlobFault::Path)?;
        if normal.len() != text.len() {
            return Err(PathGlobFault::Escape(normal));
        }
        let mut segments = Vec::new();
        for segment in text.split('/').skip(1) {
            match segment {
                "**" => segments.push(Segment::Deep),
                _ if segment.contains("**") => return Err(PathGlobFault::Deep),
                _ => segments.push(Segment::One(segment.into())),
            }
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
        })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the normalised path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let mut pattern = self.segments.iter();
        let mut path = Some(path);
        let mut retry = None;
        loop {
            let matched = match (pattern.next(), path) {
                (None, None) => return true,
                (Some(Segment::Deep), _) => {
                    retry = Some((pattern.clone(), path));
                    continue;
                }
                (Some(Segment::One(want)), Some(rest)) => {
                    let (have, after) = cut(rest);
                    path = after;
                    segment_matches(want, have)
                }
                _ => false,
            };
            if !matched {
                let Some((deep, from)) = &mut retry else {
                    return false;
                };
                let Some(rest) = *from else { return false };
                *from = cut(rest).1;
                pattern = deep.clone();
                path = *from;
            }
        }
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first segment and what follows its slash.
fn cut(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(first, rest)| (first, Some(rest)))
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    if pattern.contains(['*', '?']) {
        crate::glob::wild(pattern, text)
    } else {
        pattern == text
    }
}

/// Why a text is not a pattern over paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathGlobFault {
    /// No path would ever look like this.
    #[error(transparent)]
    Path(PathFault),
    /// `**` is only part of a segment.
    #[error("`**` may only be a whole segment, as in `/repos/**`")]
    Deep,
    /// Paths are compared with unreserved characters decoded.
    #[error("paths are compared decoded; write `{0}`")]
    Escape(String),
}

#[cfg(test)]
mod tests;
