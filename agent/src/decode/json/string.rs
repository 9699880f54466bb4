//! Strings: escapes decoded, and only what has one meaning.

use std::borrow::Cow;

use super::parse::Reader;
use super::{Fault, FaultKind};
use crate::decode::bytes::before;

impl<'a> Reader<'a> {
    /// The string that begins here. Borrowed when it has no escape.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
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
