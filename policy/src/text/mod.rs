//! Text as its receiver may normalise it, and as a person would read it: what looks like `rm -rf` is matched
//! as `rm -rf`.
//!
//! Invisible characters and controls are dropped and compatibility forms resolved (NFKC): that much a receiver
//! may do. Then characters beyond ASCII that look like ASCII ones are replaced by them (UTS 39's table of
//! confusables). ASCII itself stays as it is: a pattern means what it says. Names of members are compared by
//! [`confusable`], which passes over case as well.

mod confusable;

use std::borrow::Cow;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

pub use self::confusable::confusable;

/// The text without what is not seen, in NFKC; borrowed where that changes nothing.
pub(crate) fn compatible(text: &str) -> Cow<'_, str> {
    normal(text, |c| if c.is_ascii() { None } else { space(c) })
}

/// The text as it reads; borrowed where that is the text itself.
pub(crate) fn readable(text: &str) -> Cow<'_, str> {
    normal(text, |c| {
        if c.is_ascii() {
            None
        } else {
            lookalike(c).or_else(|| space(c))
        }
    })
}

fn normal(text: &str, replace: impl Fn(char) -> Option<&'static str>) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let seen = text.chars().filter(|c| !is_dropped(*c));
    let mut out = String::with_capacity(text.len());
    for c in seen.nfkc() {
        match replace(c) {
            Some(other) => out.push_str(other),
            None => out.push(c),
        }
    }
    if out == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(out)
    }
}

/// Makes the table now, so that no decision waits for it.
pub(crate) fn prepare() {
    LazyLock::force(&LOOKALIKES);
}

/// Whether it is ASCII that is read as it stands.
pub(crate) fn is_plain(text: &str) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    // A block without a way out is compared at once.
    let are_plain = |block: &[u8]| block.iter().fold(true, |all, byte| all & is_plain(byte));
    text.as_bytes().chunks(32).all(are_plain)
}

/// Controls; white space among them separates words and stays.
fn is_dropped(c: char) -> bool {
    (c.is_control() && !c.is_whitespace()) || (!c.is_ascii() && lookalike(c) == Some(""))
}

fn space(c: char) -> Option<&'static str> {
    c.is_whitespace().then_some(" ")
}

/// What a character beyond ASCII looks like: some ASCII, or nothing for what is not seen.
fn lookalike(c: char) -> Option<&'static str> {
    let table = &*LOOKALIKES;
    let at = table.binary_search_by_key(&c, |(c, _)| *c).ok()?;
    table.get(at).map(|(_, ascii)| &**ascii)
}

/// The characters beyond ASCII that are read as ASCII or are not seen, ascending: some thousands. Han, Hangul and
/// the private planes have none and are left out, for the table is made when the first policy needs it.
static LOOKALIKES: LazyLock<Vec<(char, Box<str>)>> = LazyLock::new(|| {
    ('\u{80}'..'\u{5000}')
        .chain('\u{a000}'..'\u{ac00}')
        .chain('\u{d7b0}'..'\u{20000}')
        .chain('\u{e0000}'..='\u{e0fff}')
        .filter_map(|c| Some((c, ascii(c)?.into_boxed_str())))
        .collect()
});

/// A compatibility form is read as what it is a form of (`ſ` is an `s`, and looks like an `f`). UTS 39 gives one
/// prototype to what looks alike, whatever it is; among the ASCII characters of one prototype the one of the
/// character's own kind is taken.
fn ascii(c: char) -> Option<String> {
    let normal: String = std::iter::once(c).nfkc().collect();
    if normal.is_ascii() {
        return Some(normal);
    }
    let mut buffer = [0; 4];
    let skeleton: String = unicode_security::skeleton(c.encode_utf8(&mut buffer)).collect();
    if !skeleton.is_ascii() {
        return None;
    }
    Some(match skeleton.as_str() {
        "l" if c.is_uppercase() => "I".to_owned(),
        "l" if c.is_numeric() => "1".to_owned(),
        "O" if c.is_numeric() => "0".to_owned(),
        "O" if c.is_lowercase() => "o".to_owned(),
        "rn" => "m".to_owned(),
        _ => skeleton,
    })
}

#[cfg(test)]
mod tests;
