//! The reader: one pass, no recursion beyond the depth limit, no work that grows faster than the text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use super::{Fault, FaultKind, Key, Limits, Number, Object, Value};

/// Above so many members an object's keys are checked by a hash set; below, by comparing.
const LINEAR_KEYS: usize = 12;

/// No number shorter than this without an exponent can leave the range of a double.
const SURELY_FINITE: usize = 300;

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

pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    depth: u8,
    values: usize,
    limits: &'a Limits,
    /// Keyed at random, made when the first large object is met: who chooses the keys cannot choose collisions.
    hasher: Option<RandomState>,
}

impl Reader<'_> {
    pub(super) fn fault(&self, kind: FaultKind) -> Fault {
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

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn advance(&mut self, by: usize) {
        self.at = self.at.saturating_add(by);
    }

    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.advance(1);
        }
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
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
}

/// The keys of ordinary messages, which are not worth an allocation each.
fn known_key(key: Cow<'_, str>) -> Key {
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
        "progress" => "progress",
        "total" => "total",
        "message" => "message",
        "level" => "level",
        "data" => "data",
        "inputSchema" => "inputSchema",
        "annotations" => "annotations",
        "resultType" => "resultType",
        _ => return Key::Owned(key.into_owned()),
    };
    Key::Borrowed(known)
}
