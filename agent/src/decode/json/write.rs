//! The canonical writer: compact, one line, the same bytes for the same tree.

use super::{Object, Value};
use crate::decode::bytes::before;

impl Value {
    /// Appends the canonical text to `out`.
    pub fn write(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(number) => out.push_str(number.text()),
            Value::String(text) => write_text(text, out),
            Value::Array(elements) => write_array(elements, out),
            Value::Object(object) => object.write(out),
        }
    }
}

impl Object {
    /// Appends the canonical text to `out`.
    pub fn write(&self, out: &mut String) {
        out.push('{');
        for (place, (key, value)) in self.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            write_text(key, out);
            out.push(':');
            value.write(out);
        }
        out.push('}');
    }
}

fn write_array(elements: &[Value], out: &mut String) {
    out.push('[');
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        element.write(out);
    }
    out.push(']');
}

/// Appends `text` as a JSON string with its quotes.
///
/// Besides what RFC 8259 demands, everything that some reader of lines takes for the end of one is escaped
/// (U+0085, U+2028, U+2029): Python's `splitlines` frames on them, and a frame must not be cut in two.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some((place, found)) = first_special(rest) {
        let (plain, tail) = rest.split_at_checked(place).unwrap_or((rest, ""));
        out.push_str(plain);
        write_escape(found, out);
        rest = tail.strip_prefix(found).unwrap_or("");
    }
    out.push_str(rest);
    out.push('"');
}

/// The first character of `text` that cannot stand raw. Bytes are enough to find it: `C2` and `E2` only
/// begin characters, so most text is never decoded.
fn first_special(text: &str) -> Option<(usize, char)> {
    let mut from = 0_usize;
    loop {
        let tail = text.as_bytes().get(from..)?;
        let near = before(tail, 0x20, [b'"', b'\\', 0xC2, 0xE2]);
        let place = from.saturating_add(near);
        let found = text.get(place..)?.chars().next()?;
        if matches!(
            found,
            '\0'..='\x1f' | '"' | '\\' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            return Some((place, found));
        }
        from = place.saturating_add(found.len_utf8());
    }
}

fn write_escape(found: char, out: &mut String) {
    match found {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        other => {
            out.push_str("\\u");
            let code = u32::from(other);
            for shift in [12_u32, 8, 4, 0] {
                let digit = code.wrapping_shr(shift) & 0xf;
                out.push(char::from_digit(digit, 16).unwrap_or('0'));
            }
        }
    }
}
