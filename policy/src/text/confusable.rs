//! Names that are not a known name but that some reader, or some parser, takes for one.
//!
//! Go's `encoding/json` matches struct fields without regard to case, with Unicode folding (`param\u017f`,
//! the Kelvin sign); CVE-2026-27896 is that property used to pass an intermediary.

use unicode_normalization::UnicodeNormalization as _;

use super::{is_dropped, lookalike};

/// Whether `name` is none of `known` but a lenient reader may see one of them in it: without regard to case,
/// with look-alike letters, in a compatibility form, without what is invisible and without white space.
#[must_use]
pub fn confusable(name: &str, known: &[&str]) -> bool {
    !known.contains(&name) && known.iter().any(|known| is_alike(name, known))
}

// Nothing is allocated and most comparisons end at the first letter: an object may have 100,000 members.
fn is_alike(name: &str, known: &str) -> bool {
    if let (Some(one), Some(other)) = (name.bytes().next(), known.bytes().next())
        && one.is_ascii_graphic()
        && other.is_ascii_graphic()
        && !one.eq_ignore_ascii_case(&other)
    {
        return false;
    }
    if known.is_ascii() || name.is_ascii() {
        let (ascii, other) = if known.is_ascii() {
            (known, name)
        } else {
            (name, known)
        };
        let folded = other.chars().flat_map(read).filter_map(seen);
        return folded.eq(ascii.chars().filter_map(seen));
    }
    // Also as they are: `Н` looks like `H`, and `н`, of which it is the capital, like no letter of ASCII.
    form(name, read).eq(form(known, read)) || form(name, itself).eq(form(known, itself))
}

/// What is seen of a name, in NFKC and in one case, each character as `read` has it.
fn form<T: Iterator<Item = char>>(name: &str, read: fn(char) -> T) -> impl Iterator<Item = char> {
    let seen_of_it = name.chars().filter(|c| !is_dropped(*c)).nfkc();
    // Lower last: `ẞ` is its own upper case. Upper before: that tells what `ß`, `ſ` and `ς` are.
    seen_of_it
        .flat_map(read)
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter_map(seen)
}

/// A character, in lower case if it is ASCII; `None` for white space, controls and marks drawn over the letter
/// before.
fn seen(c: char) -> Option<char> {
    let unseen = c.is_whitespace() || c.is_control() || matches!(c, '\u{300}'..='\u{36f}');
    (!unseen).then_some(c.to_ascii_lowercase())
}

/// A character as ASCII, where it may be read so.
fn read(c: char) -> impl Iterator<Item = char> {
    let other = if c.is_ascii() {
        None
    } else {
        letter(c).or_else(|| lookalike(c))
    };
    let itself = other.is_none().then_some(c);
    other.unwrap_or_default().chars().chain(itself)
}

fn itself(c: char) -> impl Iterator<Item = char> {
    std::iter::once(c)
}

/// What is not seen, of which a name may hold any number, and so without a look into the table; and letters that
/// Unicode's tables do not read as ASCII, and people may.
fn letter(c: char) -> Option<&'static str> {
    Some(match c {
        // Soft hyphen, joiners, directional marks, variation selectors, tags, fillers, marks over the letter before.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}'
        | '\u{300}'..='\u{36f}' => "",
        _ if c.is_whitespace() || c.is_control() => "",
        'ɗ' => "d",
        'ε' => "e",
        'İ' => "i",
        'к' | 'κ' => "k",
        'м' => "m",
        'п' => "n",
        'т' | 'τ' => "t",
        'χ' => "x",
        _ => return None,
    })
}
