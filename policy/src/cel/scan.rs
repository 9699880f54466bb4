//! What an expression may be before anyone reads it: its size bounds how deep a reader can go.

use super::ConditionFault;

/// The longest expression, in bytes.
const TEXT_MAX: usize = 4096;
/// The most words, numbers, texts and signs. A reader's recursion grows with them: `1+1+1+…`, `a.b.c…`.
const TOKENS_MAX: usize = 256;
/// How deep parentheses and brackets may nest.
const NEST_MAX: usize = 12;
/// The most digits of a number with a point or an exponent: as many as CEL's doubles keep.
const DIGITS_MAX: usize = 15;

/// Bounds the text, and refuses characters that have no place outside texts.
pub(super) fn check(text: &str) -> Result<(), ConditionFault> {
    if text.len() > TEXT_MAX {
        let message = format!("an expression has at most {TEXT_MAX} bytes");
        return Err(ConditionFault::new(0, message));
    }
    let mut scan = Scan {
        rest: text,
        at: 0,
        tokens: 0,
        open: 0,
    };
    while scan.token()? {}
    Ok(())
}

struct Scan<'a> {
    rest: &'a str,
    /// In characters.
    at: usize,
    tokens: usize,
    open: usize,
}

impl<'a> Scan<'a> {
    /// Takes characters as long as they are wanted.
    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        self.at += taken.chars().count();
        taken
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        self.at += 1;
        Some(c)
    }

    /// Takes one token; `false` at the end.
    fn token(&mut self) -> Result<bool, ConditionFault> {
        self.take(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        let start = self.at;
        let Some(first) = self.rest.chars().next() else {
            return Ok(false);
        };
        self.tokens += 1;
        if self.tokens > TOKENS_MAX {
            let message = format!("an expression has at most {TOKENS_MAX} words and signs");
            return Err(ConditionFault::new(start, message));
        }
        match first {
            '\'' | '"' => self.quoted(false)?,
            '0'..='9' => self.number(start)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let word = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
                if self.rest.starts_with(['\'', '"']) {
                    if !matches!(word, "r" | "R") {
                        let message = format!("`{word}` cannot stand before a text");
                        return Err(ConditionFault::new(start, message));
                    }
                    self.quoted(true)?;
                }
            }
            '/' if self.rest.starts_with("//") => {
                return Err(ConditionFault::new(
                    start,
                    "comments stand in the file, not in an expression",
                ));
            }
            c => self.sign(c, start)?,
        }
        Ok(true)
    }

    fn sign(&mut self, c: char, start: usize) -> Result<(), ConditionFault> {
        match c {
            '(' | '[' => self.open += 1,
            ')' | ']' => self.open = self.open.saturating_sub(1),
            '.' | ',' | ':' | '?' | '+' | '-' | '*' | '/' | '%' | '!' | '=' | '<' | '>' | '&'
            | '|' => {}
            '{' | '}' => {
                return Err(ConditionFault::new(
                    start,
                    "maps and messages are not supported",
                ));
            }
            other => {
                let message = format!("`{}` has no place in an expression", other.escape_debug());
                return Err(ConditionFault::new(start, message));
            }
        }
        if self.open > NEST_MAX {
            let message = format!("parentheses and brackets nest at most {NEST_MAX} deep");
            return Err(ConditionFault::new(start, message));
        }
        self.next();
        Ok(())
    }

    fn number(&mut self, start: usize) -> Result<(), ConditionFault> {
        let mut last = ' ';
        let text = self.take(|c| {
            let sign = matches!(c, '+' | '-') && matches!(last, 'e' | 'E');
            last = c;
            sign || c == '.' || c.is_ascii_alphanumeric()
        });
        let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
        let whole = hexadecimal || !text.contains(['.', 'e', 'E']);
        let digits = text.split(['e', 'E']).next().unwrap_or_default();
        let digits = digits.trim_start_matches(['0', '.']);
        if !whole && digits.bytes().filter(u8::is_ascii_digit).count() > DIGITS_MAX {
            let message = format!("a number with a point has at most {DIGITS_MAX} digits");
            return Err(ConditionFault::new(start, message));
        }
        if self.rest.starts_with(['\'', '"']) {
            return Err(ConditionFault::new(
                self.at,
                "expected a sign before the text",
            ));
        }
        Ok(())
    }

    /// A text, to its end.
    fn quoted(&mut self, raw: bool) -> Result<(), ConditionFault> {
        let start = self.at;
        let quote = self.next().unwrap_or('"');
        let mut marks = [0; 12];
        let single: &str = quote.encode_utf8(&mut marks[..4]);
        let triple = single.repeat(3);
        let end = if format!("{quote}{}", self.rest).starts_with(&triple) {
            self.next();
            self.next();
            triple.as_str()
        } else {
            single
        };
        loop {
            if self.rest.starts_with(end) {
                self.take_some(end.len());
                return Ok(());
            }
            match self.next() {
                Some('\\') if !raw => {
                    self.next();
                }
                Some('\n' | '\r') if end.len() == 1 => break,
                Some(_) => {}
                None => break,
            }
        }
        Err(ConditionFault::new(start, "the text has no end"))
    }

    fn take_some(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }
}
