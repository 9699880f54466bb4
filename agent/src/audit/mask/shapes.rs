//! Secrets that are known by their shape, anywhere in a text.

use std::borrow::Cow;
use std::ops::Range;

use super::{MASK, is_telling};

/// A secret's fixed beginning, and how many letters at least follow it.
struct Shape {
    prefix: &'static [u8],
    least: usize,
}

const fn shape(prefix: &'static str, least: usize) -> Shape {
    Shape {
        prefix: prefix.as_bytes(),
        least,
    }
}

/// Published by those who give them out, so that they can be found.
const SHAPES: &[Shape] = &[
    shape("AGE-SECRET-KEY-", 16),
    shape("AIza", 30),
    shape("AKIA", 16),
    shape("ASIA", 16),
    shape("ATATT", 20),
    shape("ATCTT", 20),
    shape("PMAK-", 20),
    shape("SG.", 20),
    shape("dapi", 32),
    shape("dckr_pat_", 16),
    shape("dop_v1_", 32),
    shape("doo_v1_", 32),
    shape("eyJ", 17),
    shape("fc-", 32),
    shape("figd_", 20),
    shape("ghp_", 16),
    shape("gho_", 16),
    shape("ghu_", 16),
    shape("ghs_", 16),
    shape("ghr_", 16),
    shape("github_pat_", 16),
    shape("glpat-", 10),
    shape("gldt-", 10),
    shape("glrt-", 10),
    shape("glptt-", 10),
    shape("glcbt-", 10),
    shape("glsa_", 20),
    shape("glc_", 20),
    shape("hf_", 20),
    shape("hvb.", 20),
    shape("hvs.", 20),
    shape("lin_api_", 16),
    shape("lin_oauth_", 16),
    shape("npm_", 20),
    shape("ntn_", 20),
    shape("pypi-", 16),
    shape("rk_live_", 10),
    shape("rk_test_", 10),
    shape("rubygems_", 20),
    shape("secret_", 20),
    shape("shpat_", 16),
    shape("sk-", 16),
    shape("sk_live_", 10),
    shape("sk_test_", 10),
    shape("sq0atp-", 10),
    shape("sq0csp-", 10),
    shape("tvly-", 16),
    shape("whsec_", 16),
    shape("xapp-", 10),
    shape("xoxa-", 10),
    shape("xoxb-", 10),
    shape("xoxe-", 10),
    shape("xoxp-", 10),
    shape("xoxr-", 10),
    shape("xoxs-", 10),
    shape("ya29.", 16),
];

/// Schemes of HTTP authentication; a secret follows.
const SCHEMES: &[&[u8]] = &[
    b"apikey",
    b"basic",
    b"bearer",
    b"digest",
    b"dpop",
    b"negotiate",
    b"token",
];

/// Around the labels of PEM (RFC 7468).
const DASHES: &[u8] = b"-----";
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &[u8] = b"-----END ";

/// By the first byte of a word, which second bytes a shape or a scheme has: bit `byte % 64`.
/// Almost every word is passed over by this alone.
const BEGINS: [u64; 256] = begins();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks the bounds"
)]
const fn begins() -> [u64; 256] {
    let mut begins = [0; 256];
    let mut next = 0;
    while next < SHAPES.len() {
        let prefix = SHAPES[next].prefix;
        begins[prefix[0] as usize] |= 1 << (prefix[1] % 64);
        next += 1;
    }
    next = 0;
    while next < SCHEMES.len() {
        let (first, second) = (SCHEMES[next][0], SCHEMES[next][1]);
        let seconds = 1 << (second % 64) | 1 << (second.to_ascii_uppercase() % 64);
        begins[first as usize] |= seconds;
        begins[first.to_ascii_uppercase() as usize] |= seconds;
        next += 1;
    }
    begins
}

fn may_begin(first: u8, second: Option<&u8>) -> bool {
    let seconds = BEGINS.get(usize::from(first)).copied().unwrap_or(0);
    second.is_some_and(|second| seconds & (1 << (second % 64)) != 0)
}

/// A text from outside, with known shapes masked, and what follows `password=` and its like.
pub fn text(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let Some(mut secret) = next_secret(bytes, 0) else {
        return Cow::Borrowed(text);
    };
    let mut masked = String::with_capacity(text.len());
    let mut kept_to = 0;
    loop {
        // Ranges begin and end beside ASCII bytes, so they lie on the boundaries of characters.
        masked.push_str(text.get(kept_to..secret.start).unwrap_or_default());
        masked.push_str(MASK);
        kept_to = secret.end;
        match next_secret(bytes, kept_to) {
            Some(next) => secret = next,
            None => break,
        }
    }
    masked.push_str(text.get(kept_to..).unwrap_or_default());
    Cow::Owned(masked)
}

fn next_secret(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut inside_word = from > 0 && text.get(from - 1).is_some_and(u8::is_ascii_alphanumeric);
    for (at, byte) in text.iter().enumerate().skip(from) {
        let found = match byte {
            b'=' => assigned(text, at),
            b':' => user_information(text, at).or_else(|| assigned(text, at)),
            // After a letter, too: what ended the line before may be written as `\n`.
            b'-' => private_key(text, at).map(|key| key.in_text(text)),
            _ if !inside_word && may_begin(*byte, text.get(at + 1)) => {
                shaped(text, at).or_else(|| after_scheme(text, at))
            }
            _ => None,
        };
        if let Some(found) = found {
            return Some(with_keys(text, found));
        }
        inside_word = byte.is_ascii_alphanumeric();
    }
    None
}

fn shaped(text: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    let shape = SHAPES.iter().find(|shape| rest.starts_with(shape.prefix))?;
    let length = rest.iter().take_while(|byte| is_token(**byte)).count();
    (length >= shape.prefix.len() + shape.least).then_some(at..at + length)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'=')
}

fn after_scheme(text: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    let scheme = SCHEMES.iter().find(|scheme| {
        rest.get(..scheme.len())
            .is_some_and(|word| word.eq_ignore_ascii_case(scheme))
    })?;
    let gap = rest
        .iter()
        .skip(scheme.len())
        .take_while(|byte| **byte == b' ')
        .count();
    let value = rest.get(scheme.len() + gap..).filter(|_| gap > 0)?;
    let length = value
        .iter()
        .take_while(|byte| is_token(**byte) || matches!(byte, b'+' | b'/' | b'~' | b':'))
        .count();
    let value = value.get(..length)?;
    // "basic authentication" and "token exchange" are no secrets.
    let random = value
        .iter()
        .any(|byte| !byte.is_ascii_lowercase() && *byte != b'.');
    let start = at + scheme.len() + gap;
    (length >= 6 && random).then_some(start..start + length)
}

/// The value of `password=x`, `"token": "x"` and their like, from the separator's place.
fn assigned(text: &[u8], separator: usize) -> Option<Range<usize>> {
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let before = text.get(..separator)?;
    let before = before
        .strip_suffix(b"\"")
        .or_else(|| before.strip_suffix(b"'"))
        .unwrap_or(before);
    let before = before.strip_suffix(b"\\").unwrap_or(before);
    let length = before
        .iter()
        .rev()
        .take(64)
        .take_while(|byte| is_key(byte))
        .count();
    let key = str::from_utf8(before.get(before.len() - length..)?).ok()?;
    if key.is_empty() || !is_telling(key) {
        return None;
    }
    // A header in a text, with its scheme and its parts, goes to the end of its line.
    let reduced = key.to_ascii_lowercase();
    let whole_line = reduced.contains("authorization") || reduced.contains("cookie");
    let after = text.get(separator + 1..)?;
    let blank = after.iter().take_while(|byte| **byte == b' ').count();
    let value = after.get(blank..)?;
    let escaped = usize::from(value.first() == Some(&b'\\'));
    let (quotes, length) = match value.get(escaped) {
        Some(quote @ (b'"' | b'\'')) => {
            let quotes = escaped + 1;
            (quotes, quoted(value.get(quotes..)?, *quote, escaped > 0))
        }
        _ => (0, unquoted(value, whole_line)),
    };
    let start = separator + 1 + blank + quotes;
    (length > 0).then_some(start..start + length)
}

/// The length of a value that ends with a quote, which in JSON inside JSON is escaped itself.
fn quoted(value: &[u8], quote: u8, escaped: bool) -> usize {
    let mut inside_escape = false;
    let ends = |byte: &u8| {
        if escaped {
            return *byte == b'\\';
        }
        let ends = *byte == quote && !inside_escape;
        inside_escape = *byte == b'\\' && !inside_escape;
        ends
    };
    value.iter().position(ends).unwrap_or(value.len())
}

fn unquoted(value: &[u8], whole_line: bool) -> usize {
    let ends = |byte: &u8| match byte {
        b'\n' | b'\r' | b'"' | b'\'' => true,
        b'&' | b',' | b';' | b')' | b'}' | b'\\' => !whole_line,
        _ => byte.is_ascii_whitespace() && !whole_line,
    };
    value.iter().position(ends).unwrap_or(value.len())
}

/// `user:password` of `scheme://user:password@host`, from the colon's place.
fn user_information(text: &[u8], colon: usize) -> Option<Range<usize>> {
    let rest = text.get(colon..)?.strip_prefix(b"://")?;
    let authority = rest.iter().take(1_024).take_while(|byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'')
    });
    let length = authority.clone().count();
    let end = rest.get(..length)?.iter().rposition(|byte| *byte == b'@')?;
    (end > 0).then_some(colon + 3..colon + 3 + end)
}

/// Whether a private key in PEM begins in `text` and does not end there: what follows the text belongs to it, up to
/// where [`key_ends`] says.
pub fn leaves_key_open(text: &str) -> bool {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(KEY_BEGINS)) {
        // None of the text is looked at twice: whoever writes it must not make that cost more than it is long.
        from = match private_key(text.as_bytes(), from + at) {
            None => from + at + KEY_BEGINS.len(),
            Some(PrivateKey {
                ends: Some(end), ..
            }) => end,
            Some(PrivateKey { ends: None, .. }) => return true,
        };
    }
    false
}

/// Where a private key that began before this text ends: after the last line of its PEM.
pub fn key_ends(text: &str) -> Option<usize> {
    ends_of_key(text.as_bytes())
}

/// A secret, and the private keys that begin in it: `key=-----BEGIN PRIVATE KEY-----` is more than one word.
fn with_keys(text: &[u8], secret: Range<usize>) -> Range<usize> {
    let mut at = secret.start;
    while at < secret.end {
        at = private_key(text, at).map_or(at + 1, |key| key.in_text(text).end);
    }
    secret.start..at.max(secret.end)
}

/// A private key in PEM (RFC 7468).
struct PrivateKey {
    begins: usize,
    /// Not within the text, where there is none.
    ends: Option<usize>,
}

impl PrivateKey {
    fn in_text(&self, text: &[u8]) -> Range<usize> {
        self.begins..self.ends.unwrap_or(text.len())
    }
}

fn private_key(text: &[u8], at: usize) -> Option<PrivateKey> {
    let rest = text.get(at..)?.strip_prefix(KEY_BEGINS.as_bytes())?;
    let label = rest.get(..rest.iter().take(64).position(|byte| *byte == b'-')?)?;
    // Of OpenPGP they are blocks (RFC 9580 section 6.2).
    let label = label.strip_suffix(b" BLOCK").unwrap_or(label);
    label.ends_with(b"PRIVATE KEY").then(|| PrivateKey {
        begins: at,
        ends: ends_of_key(rest).map(|end| text.len() - rest.len() + end),
    })
}

fn ends_of_key(text: &[u8]) -> Option<usize> {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|it| it == what);
    let footer = find(text, KEY_ENDS)? + KEY_ENDS.len();
    let rest = text.get(footer..)?;
    let length = rest.iter().take(64).take_while(|byte| byte.is_ascii());
    let label = rest.get(..length.count())?;
    let end = find(label, DASHES).map_or(label.len(), |end| end + DASHES.len());
    // The dashes may be those of another, which would not be seen without them.
    let looked_at = rest.len().min(end + KEY_BEGINS.len() - 1);
    let begins = find(rest.get(..looked_at)?, KEY_BEGINS.as_bytes());
    Some(footer + begins.map_or(end, |begins| begins.min(end)))
}
