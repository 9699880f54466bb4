//! Tests on the arguments of a call: where to look, and what must hold there.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::glob::Glob;

/// The longest regular expression, in bytes.
const PATTERN_MAX: usize = 4096;
/// The largest compiled expression, and the largest table that it may build while matching, in bytes.
const COMPILED_MAX: usize = 1 << 20;
/// The deepest nesting of an expression.
const NEST_MAX: u32 = 64;
/// The most segments of a pointer.
const SEGMENTS_MAX: usize = 32;

/// One entry of a rule's `args`: all that it asks for must hold of the same value.
#[derive(Debug, Clone)]
pub struct ArgumentTest {
    /// Which values are looked at.
    pub place: ArgumentPlace,
    /// The names of their members are tested in place of the values.
    pub keys: bool,
    /// What must hold. Never empty; a test of the type, which says whether others make sense, comes first.
    pub tests: Vec<Test>,
}

/// Which values are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentPlace {
    /// Those that the pointer leads to.
    Field(Pointer),
    /// Every value at any depth.
    Any,
}

/// A JSON pointer (RFC 6901) in which `*` alone stands for every element or member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Arc<str>,
    pub(crate) segments: Vec<Segment>,
}

/// One step of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// To the member of this name, or the element of this number.
    Key(Box<str>),
    /// To every one.
    Each,
}

/// One test of one value.
#[derive(Debug, Clone)]
pub enum Test {
    /// It is of this type.
    Type(Type),
    /// Nothing is there (`true`), or something is (`false`).
    Absent(bool),
    /// It is a text in which the expression is found.
    Matches(Pattern),
    /// It is a text that the pattern covers whole.
    Glob(Pattern),
    /// It is a number within the bound.
    Bound(Bound, Arc<str>),
    /// It is one of these.
    In(Vec<Scalar>),
    /// It has so many characters, elements or members: at least, at most.
    Length(usize, usize),
}

/// An expression, compiled to run in time linear in the text. Globs are compiled to one as well.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    pub(crate) regex: Regex,
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// At least.
    Min,
    /// At most.
    Max,
    /// More than.
    Above,
    /// Less than.
    Below,
}

/// A type of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// Any number.
    Number,
    /// A number without a fraction, however it is written.
    Integer,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value that a policy can write down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number of the JSON grammar.
    Number(Arc<str>),
    /// A text.
    Text(Arc<str>),
}

impl Pointer {
    /// Reads a pointer.
    pub fn parse(text: &str) -> Result<Self, PointerFault> {
        let rest = text.strip_prefix('/').ok_or(PointerFault::Slash)?;
        let segments: Vec<Segment> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        if segments.len() > SEGMENTS_MAX {
            return Err(PointerFault::TooDeep);
        }
        Ok(Self {
            text: text.into(),
            segments,
        })
    }

    /// It as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// To the member with this name.
    pub(crate) fn to_member(name: &str) -> Self {
        Self {
            text: name.into(),
            segments: vec![Segment::Key(name.into())],
        }
    }

    /// Along these members; `None` where a pointer cannot say so.
    pub(crate) fn along(keys: &[&str]) -> Option<Self> {
        let segments = keys.iter().map(|key| Segment::Key((*key).into()));
        let pointer = Self {
            text: keys.last()?.to_owned().into(),
            segments: segments.collect(),
        };
        let text = pointer.written()?.into();
        Some(Self { text, ..pointer })
    }

    /// It as RFC 6901 writes it, also where the policy names a claim; `None` for a member called `*`.
    pub(crate) fn written(&self) -> Option<String> {
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            match segment {
                Segment::Each => text.push('*'),
                Segment::Key(key) if **key == *"*" => return None,
                Segment::Key(key) => text.push_str(&key.replace('~', "~0").replace('/', "~1")),
            }
        }
        Some(text)
    }

    /// The members that it leads through, the one that it means last; those that stand for all left out.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Key(key) => Some(&**key),
            Segment::Each => None,
        })
    }

    /// Whether it may lead to several values.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.segments.contains(&Segment::Each)
    }
}

fn segment(text: &str) -> Result<Segment, PointerFault> {
    if text == "*" {
        return Ok(Segment::Each);
    }
    let escapes = text.matches('~').count();
    if escapes != text.matches("~0").count() + text.matches("~1").count() {
        return Err(PointerFault::Escape);
    }
    let key = text.replace("~1", "/").replace("~0", "~");
    Ok(Segment::Key(key.into()))
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerFault {
    /// It does not begin with `/`.
    #[error("a pointer begins with `/`, as in `/customer/email`")]
    Slash,
    /// `~` without `0` or `1`.
    #[error("`~` is written `~0` and `/` is written `~1` in a pointer")]
    Escape,
    /// More than 32 segments.
    #[error("a pointer has at most 32 segments")]
    TooDeep,
}

impl Pattern {
    /// Compiles a regular expression.
    pub fn matches(text: &str) -> Result<Self, PatternFault> {
        if text.len() > PATTERN_MAX {
            return Err(PatternFault::TooLong);
        }
        Self::compile(text, text)
    }

    /// Compiles a glob.
    pub fn glob(text: &str) -> Result<Self, PatternFault> {
        let glob = Glob::parse(text).map_err(PatternFault::Glob)?;
        let mut expression = String::from(r"(?s)\A");
        let mut buffer = [0; 4];
        for c in glob.as_str().chars() {
            match c {
                '*' => expression.push_str(".*"),
                '?' => expression.push('.'),
                c => expression.push_str(&regex::escape(c.encode_utf8(&mut buffer))),
            }
        }
        expression.push_str(r"\z");
        Self::compile(text, &expression)
    }

    fn compile(text: &str, expression: &str) -> Result<Self, PatternFault> {
        let regex = RegexBuilder::new(expression)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .nest_limit(NEST_MAX)
            .build()
            .map_err(|error| PatternFault::of(&error))?;
        Ok(Self {
            text: text.into(),
            regex,
        })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Why a text is not a usable pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// More than 4 KiB.
    #[error("an expression has at most {PATTERN_MAX} bytes")]
    TooLong,
    /// Too large when compiled: a bounded repetition of a large class, mostly.
    #[error("the expression takes more than 1 MiB when compiled")]
    TooLarge,
    /// Not a regular expression.
    #[error("{0}")]
    Syntax(String),
    /// Not a glob.
    #[error(transparent)]
    Glob(crate::glob::GlobFault),
}

impl PatternFault {
    fn of(error: &regex::Error) -> Self {
        match error {
            regex::Error::CompiledTooBig(_) => Self::TooLarge,
            // The last line says what is wrong, those before show where.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                Self::Syntax(last.trim_start_matches("error: ").to_owned())
            }
        }
    }
}

impl Bound {
    /// Whether a value that compares so with the bound is within it.
    pub(crate) const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Min => order.is_ge(),
            Self::Max => order.is_le(),
            Self::Above => order.is_gt(),
            Self::Below => order.is_lt(),
        }
    }

    /// It with the bound itself.
    pub(crate) const fn inclusive(self) -> Self {
        match self {
            Self::Min | Self::Above => Self::Min,
            Self::Max | Self::Below => Self::Max,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl Type {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// As it is written in a policy, so that an explanation can be compared with the file.
impl fmt::Display for ArgumentTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            ArgumentPlace::Field(pointer) => write!(f, "field: {pointer}")?,
            ArgumentPlace::Any => f.write_str("any: true")?,
        }
        if self.keys {
            f.write_str(", keys: true")?;
        }
        self.tests.iter().try_for_each(|test| write!(f, ", {test}"))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(kind) => write!(f, "type: {}", kind.word()),
            Self::Absent(absent) => write!(f, "absent: {absent}"),
            Self::Matches(pattern) => write!(f, "matches: '{}'", pattern.text),
            Self::Glob(pattern) => write!(f, "glob: '{}'", pattern.text),
            Self::Bound(bound, number) => write!(f, "{}: {number}", bound.word()),
            Self::In(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                write!(f, "in: [{}]", values.join(", "))
            }
            Self::Length(0, most) => write!(f, "length: {{ max: {most} }}"),
            Self::Length(least, usize::MAX) => write!(f, "length: {{ min: {least} }}"),
            Self::Length(least, most) => write!(f, "length: {{ min: {least}, max: {most} }}"),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}
