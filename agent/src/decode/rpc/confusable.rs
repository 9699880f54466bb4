//! Keys that are not a known key but that some reader, or some parser, takes for one.
//!
//! Go's `encoding/json` matches struct fields without regard to case, with Unicode folding (`param\u017f`,
//! the Kelvin sign); CVE-2026-27896 is that property used to pass an intermediary.

/// Whether `key` is none of `known` but a lenient reader may see one of them in it: without regard to case,
/// with look-alike letters for ASCII, without what is invisible and without whitespace.
///
/// `known` are keys of the specification: printable ASCII without spaces.
pub fn confusable(key: &str, known: &[&str]) -> bool {
    if known.contains(&key) {
        return false;
    }
    // What nearly every key is; there only the case can differ.
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return known.iter().any(|known| known.eq_ignore_ascii_case(key));
    }
    // Nothing is allocated and most comparisons end at the first letter: an object may have 100,000 keys.
    known.iter().any(|known| folded(known).eq(folded(key)))
}

fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().filter_map(fold_character)
}

fn fold_character(character: char) -> Option<char> {
    let folded = match character {
        'A'..='Z' => character.to_ascii_lowercase(),
        // Invisible: soft hyphen, joiners, directional marks, variation selectors, tags, fillers.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        // Combining marks drawn over the letter before.
        | '\u{300}'..='\u{36f}' => return None,
        '\0'..='\x7f' => return (!character.is_ascii_whitespace()
            && !character.is_ascii_control()).then_some(character),
        _ if character.is_whitespace() || character.is_control() => return None,
        // Full width forms of ASCII.
        '\u{ff01}'..='\u{ff5e}' => {
            let plain = u32::from(character).wrapping_sub(0xfee0);
            return fold_character(char::from_u32(plain).unwrap_or(character));
        }
        'ſ' | 'ѕ' | 'Ѕ' | 'ꜱ' => 's',
        '\u{212a}' | 'к' | 'К' | 'κ' | 'Κ' => 'k',
        'а' | 'А' | 'α' | 'Α' | 'ɑ' => 'a',
        'с' | 'С' | 'ϲ' | 'ᴄ' => 'c',
        'ԁ' | 'ɗ' => 'd',
        'е' | 'Е' | 'ε' | 'Ε' | 'ℯ' => 'e',
        'ɡ' => 'g',
        'һ' | 'Н' | 'Η' => 'h',
        'і' | 'І' | 'ı' | 'İ' | 'ι' | 'Ι' | 'ɩ' => 'i',
        'ј' | 'Ј' | 'ϳ' => 'j',
        'ӏ' | 'ⅼ' => 'l',
        'м' | 'М' | 'Μ' | 'ⅿ' => 'm',
        'п' | 'ո' | 'Ν' => 'n',
        'о' | 'О' | 'ο' | 'Ο' | 'օ' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' => 'p',
        'ԛ' => 'q',
        'г' | 'ᴦ' => 'r',
        'т' | 'Т' | 'τ' | 'Τ' => 't',
        'υ' | 'ս' | 'Υ' => 'u',
        'ѵ' | 'ν' => 'v',
        'ԝ' | 'ѡ' => 'w',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'у' | 'У' | 'γ' => 'y',
        other => other.to_lowercase().next().unwrap_or(other),
    };
    Some(folded)
}
