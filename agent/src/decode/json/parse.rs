//! The reader: one pass, no recursion beyond the depth limit, no work that grows faster than the text.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use super::{Fault, FaultKind, Key, Number, Object, Value};
use crate::decode::bytes::before;

/// Above so many members an object's keys are checked by a hash set; below, by comparing.
const LINEAR_KEYS: usize = 12;

/// No number shorter than this without an exponent can leave the range of a double.
const SURELY_FINITE: usize = 300;

/// Bounds on what is read. The defaults are the smallest that the reference implementations accept, with room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Containers inside each other; the root counts as one. A `u8`, so that recursion fits any stack.
    pub depth: u8,
    /// Values in all, because a value costs more memory than the two bytes that it can be written in.
    pub values: usize,
    /// Characters of one number. Python refuses integers of more than 4300 digits; a 1024-bit integer has 309.
    pub number: usize,
}

impl Limits {
    /// Bounds for one request body: 4 MiB, as the TypeScript and Python servers have it.
    pub const REQUEST: Limits = Limits {
        bytes: 4 << 20,
        depth: 64,
        values: 1 << 20,
        number: 512,
    };
    /// Bounds for one response, event or frame: 10 MiB, as the TypeScript stdio reader has it.
    pub const RESPONSE: Limits = Limits {
        bytes: 10 << 20,
        depth: 64,
        values: 1 << 21,
        number: 512,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::REQUEST
    }
}

/// Reads one JSON text.
///
/// # Errors
/// The first [`Fault`]: RFC 8259 syntax, what RFC 7493 leaves to chance, or a limit.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Fault> {
    if bytes.len() > limits.bytes {
        return Err(Fault {
            offset: limits.bytes,
            kind: FaultKind::TooLarge {
                limit: limits.bytes,
            },
        });
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Fault {
            offset: 0,
            kind: FaultKind::ByteOrderMark,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Fault {
        offset: error.valid_up_to(),
        kind: FaultKind::NotUtf8,
    })?;
    let mut reader = Reader {
        text,
        bytes,
        at: 0,
        depth: 0,
        values: 0,
        limits,
        hasher: None,
    };
    reader.skip_whitespace();
    if reader.peek().is_none() {
        return Err(reader.fault(FaultKind::Empty));
    }
    let value = reader.value()?;
    reader.skip_whitespace();
    if reader.peek().is_some() {
        return Err(reader.fault(FaultKind::TrailingData));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u8,
    values: usize,
    limits: &'a Limits,
    /// Keyed at random, made when the first large object is met: who chooses the keys cannot choose collisions.
    hasher: Option<RandomState>,
}

impl<'a> Reader<'a> {
    fn fault(&self, kind: FaultKind) -> Fault {
        Fault {
            offset: self.at,
            kind,
        }
    }

    /// The fault for a byte that cannot stand here, or for the end.
    fn unexpected(&self) -> Fault {
        self.fault(if self.peek().is_none() {
            FaultKind::UnexpectedEnd
        } else {
            FaultKind::Syntax
        })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn advance(&mut self, by: usize) {
        self.at = self.at.saturating_add(by);
    }

    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.advance(1);
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected());
        }
        self.advance(1);
        Ok(())
    }

    fn value(&mut self) -> Result<Value, Fault> {
        self.values = self.values.saturating_add(1);
        if self.values > self.limits.values {
            return Err(self.fault(FaultKind::TooMany {
                limit: self.limits.values,
            }));
        }
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?.into_owned())),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        for byte in word.bytes() {
            self.expect(byte)?;
        }
        Ok(value)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        if self.depth >= self.limits.depth {
            return Err(self.fault(FaultKind::TooDeep {
                limit: self.limits.depth,
            }));
        }
        self.depth = self.depth.saturating_add(1);
        self.advance(1);
        self.skip_whitespace();
        let value = read(self)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, Fault> {
        let mut elements = Vec::new();
        if self.peek() == Some(b']') {
            self.advance(1);
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            if self.ends(b']')? {
                return Ok(Value::Array(elements));
            }
        }
    }

    /// After a member: whether the container ends, or (after a comma) another follows.
    fn ends(&mut self, close: u8) -> Result<bool, Fault> {
        self.skip_whitespace();
        if self.peek() == Some(close) {
            self.advance(1);
            return Ok(true);
        }
        self.expect(b',')?;
        self.skip_whitespace();
        Ok(false)
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let mut object = Object::new();
        let mut seen = HashSet::new();
        if self.peek() == Some(b'}') {
            self.advance(1);
            return Ok(Value::Object(object));
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let key = known_key(self.string()?);
            if self.is_duplicate(&object, &mut seen, &key) {
                return Err(Fault {
                    offset: start,
                    kind: FaultKind::DuplicateKey,
                });
            }
            self.skip_whitespace();
            self.expect(b':')?;
            self.skip_whitespace();
            let value = self.value()?;
            object.push_distinct(key, value);
            if self.ends(b'}')? {
                return Ok(Value::Object(object));
            }
        }
    }

    /// Whether `object` has `key`. `seen` holds hashes only; equal hashes are settled by comparing, which
    /// happens once for a real duplicate and by a keyed hash practically never otherwise.
    fn is_duplicate(&mut self, object: &Object, seen: &mut HashSet<u64>, key: &str) -> bool {
        if object.len() < LINEAR_KEYS {
            return object.get(key).is_some();
        }
        let hasher = &*self.hasher.get_or_insert_with(RandomState::new);
        if seen.is_empty() {
            seen.extend(object.keys().map(|known| hasher.hash_one(known)));
        }
        !seen.insert(hasher.hash_one(key)) && object.get(key).is_some()
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.advance(1);
        }
        match self.peek() {
            Some(b'0') => self.advance(1),
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.number_fault()),
        }
        if let Some(b'0'..=b'9') = self.peek() {
            return Err(self.fault(FaultKind::NumberSyntax));
        }
        let mut plain = true;
        if self.peek() == Some(b'.') {
            self.advance(1);
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            plain = false;
            self.advance(1);
            if let Some(b'+' | b'-') = self.peek() {
                self.advance(1);
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let limit = self.limits.number;
        if text.len() > limit {
            return Err(Fault {
                offset: start,
                kind: FaultKind::NumberTooLong { limit },
            });
        }
        let finite =
            (plain && text.len() < SURELY_FINITE) || text.parse::<f64>().is_ok_and(f64::is_finite);
        if !finite {
            return Err(Fault {
                offset: start,
                kind: FaultKind::NotFinite,
            });
        }
        Ok(Value::Number(Number::checked(text)))
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.advance(1);
        }
        if self.at == start {
            Err(self.number_fault())
        } else {
            Ok(())
        }
    }

    fn number_fault(&self) -> Fault {
        let ended = self.peek().is_none();
        self.fault(if ended {
            FaultKind::UnexpectedEnd
        } else {
            FaultKind::NumberSyntax
        })
    }

    /// The string that begins here. Borrowed when it has no escape.
    fn string(&mut self) -> Result<std::borrow::Cow<'a, str>, Fault> {
        self.expect(b'"')?;
        let plain = self.plain();
        if self.peek() == Some(b'"') {
            self.advance(1);
            return Ok(plain.into());
        }
        let mut decoded = String::from(plain);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.advance(1);
                    return Ok(decoded.into());
                }
                Some(b'\\') => decoded.push(self.escape()?),
                Some(_) => return Err(self.fault(FaultKind::ControlCharacter)),
                None => return Err(self.fault(FaultKind::UnexpectedEnd)),
            }
            decoded.push_str(self.plain());
        }
    }

    /// The longest run from here without quote, backslash or control character.
    fn plain(&mut self) -> &'a str {
        let start = self.at;
        let tail = self.bytes.get(start..).unwrap_or_default();
        self.advance(before(tail, 0x20, [b'"', b'\\']));
        // Both ends are next to ASCII bytes or ends of the text, so they are character boundaries.
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let start = self.at;
        self.advance(1);
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(start),
            Some(_) => {
                return Err(Fault {
                    offset: start,
                    kind: FaultKind::BadEscape,
                });
            }
            None => return Err(self.fault(FaultKind::UnexpectedEnd)),
        };
        self.advance(1);
        Ok(simple)
    }

    fn unicode(&mut self, start: usize) -> Result<char, Fault> {
        let lone = Fault {
            offset: start,
            kind: FaultKind::LoneSurrogate,
        };
        self.advance(1);
        let first = self.hexadecimal(start)?;
        if let Some(character) = char::from_u32(u32::from(first)) {
            return Ok(character);
        }
        // A high surrogate must be followed by the escape of a low one (RFC 8259 section 7).
        if self
            .bytes
            .get(self.at..)
            .is_none_or(|tail| !tail.starts_with(b"\\u"))
        {
            return Err(lone);
        }
        self.advance(2);
        let second = self.hexadecimal(start)?;
        let mut pair = char::decode_utf16([first, second]);
        match (pair.next(), pair.next()) {
            (Some(Ok(character)), None) => Ok(character),
            _ => Err(lone),
        }
    }

    fn hexadecimal(&mut self, start: usize) -> Result<u16, Fault> {
        let mut code = 0_u16;
        for _ in 0..4 {
            let byte = self
                .peek()
                .ok_or_else(|| self.fault(FaultKind::UnexpectedEnd))?;
            let digit = char::from(byte)
                .to_digit(16)
                .and_then(|digit| u16::try_from(digit).ok())
                .ok_or(Fault {
                    offset: start,
                    kind: FaultKind::BadEscape,
                })?;
            code = code.wrapping_shl(4) | digit;
            self.advance(1);
        }
        Ok(code)
    }
}

/// The keys of ordinary messages, which are not worth an allocation each.
fn known_key(key: std::borrow::Cow<'_, str>) -> Key {
    let known = match &*key {
        "jsonrpc" => "jsonrpc",
        "id" => "id",
        "method" => "method",
        "params" => "params",
        "result" => "result",
        "error" => "error",
        "name" => "name",
        "arguments" => "arguments",
        "_meta" => "_meta",
        "uri" => "uri",
        "content" => "content",
        "type" => "type",
        "text" => "text",
        "isError" => "isError",
        "description" => "description",
        "title" => "title",
        "properties" => "properties",
        "progressToken" => "progressToken",
        "inputSchema" => "inputSchema",
        "annotations" => "annotations",
        "resultType" => "resultType",
        _ => return Key::Owned(key.into_owned()),
    };
    Key::Borrowed(known)
}
