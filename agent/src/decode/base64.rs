//! Standard base64 with padding (RFC 4648 section 4), exact: one text for each sequence of bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes of `text`; `None` unless encoding them gives `text` again.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let groups = text.as_bytes().chunks_exact(4);
    if !groups.remainder().is_empty() {
        return None;
    }
    let mut groups = groups.peekable();
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && !last) {
            return None;
        }
        let mut word = 0_u32;
        for byte in group.iter().take(4_usize.saturating_sub(padding)) {
            let digit = ALPHABET.iter().position(|letter| letter == byte)?;
            word = word.wrapping_shl(6) | u32::try_from(digit).ok()?;
        }
        word = match padding {
            0 => word,
            1 => word.wrapping_shl(6),
            _ => word.wrapping_shl(12),
        };
        let [_, bytes @ ..] = word.to_be_bytes();
        let (kept, unused) = bytes.split_at_checked(3_usize.saturating_sub(padding))?;
        // Bits that padding leaves over must be zero, or two texts would mean the same bytes.
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

/// The bytes of a text in the alphabet for URLs without padding (RFC 4648 section 5, RFC 7515 section 2); `None`
/// unless encoding them gives `text` again.
pub fn decode_url(text: &str) -> Option<Vec<u8>> {
    let mut standard = String::with_capacity(text.len().saturating_add(3));
    for letter in text.chars() {
        standard.push(match letter {
            '-' => '+',
            '_' => '/',
            '+' | '/' | '=' => return None,
            other => other,
        });
    }
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    decode(&standard)
}

/// What lenient readers make of a text, in part: letters of both alphabets count, and whatever else stands there is
/// passed over. For telling what a text is meant to be, never for what it says.
pub fn decode_leniently(text: &str) -> Vec<u8> {
    let digit = |letter: u8| {
        let standard = match letter {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let place = ALPHABET.iter().position(|known| *known == standard)?;
        u32::try_from(place).ok()
    };
    let mut out = Vec::with_capacity(text.len());
    let (mut word, mut bits) = (0_u32, 0_u32);
    for digit in text.bytes().filter_map(digit) {
        word = word.wrapping_shl(6) | digit;
        bits = bits.wrapping_add(6);
        if bits >= 8 {
            bits = bits.wrapping_sub(8);
            out.extend(u8::try_from(word.wrapping_shr(bits) & 0xff));
        }
    }
    out
}

/// Appends the text of `bytes`.
pub fn encode(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let mut word = [0_u8; 4];
        for (place, byte) in word.iter_mut().skip(1).zip(group) {
            *place = *byte;
        }
        let word = u32::from_be_bytes(word);
        for (place, shift) in [18_u32, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from(word.wrapping_shr(shift) & 0x3f).unwrap_or(0);
            let letter = if place > group.len() {
                b'='
            } else {
                *ALPHABET.get(digit).unwrap_or(&b'=')
            };
            out.push(char::from(letter));
        }
    }
}
