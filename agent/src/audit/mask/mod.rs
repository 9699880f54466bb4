//! Masking: what must not be read in a record is replaced before the record exists.
//!
//! Secrets are found by the name that they stand under (a header, a query parameter, a JSON key,
//! a flag) and by their shape, whatever they stand under. Masking too much is a nuisance, masking
//! too little cannot be undone, so doubtful cases are masked.

mod arguments;
mod claims;
mod shapes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use arguments::{Pointer, arguments};
pub use claims::claims;
pub use shapes::{key_ends, leaves_key_open, text};

use super::text::Text;

/// What stands in the place of a secret.
pub const MASK: &str = "[masked]";
/// What stands for the arguments of a command that are left out.
pub const MORE: &str = "[more]";

/// How many arguments of a command are recorded.
const MAX_COMMAND: usize = 64;

/// How many letters of a name are looked at.
const MAX_NAME: usize = 128;

/// How often percent-encoding is undone in search of a secret.
const MAX_DECODE: usize = 3;

/// Anywhere in a name that is in lower case and reduced to letters and digits.
const TELLING: &[&str] = &[
    "accesskey",
    "apikey",
    "applicationkey",
    "assertion",
    "authkey",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "functionskey",
    "jwt",
    "onetimecode",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "sessionid",
    "signature",
    "subscriptionkey",
    "token",
];

/// The whole of such a name.
const TELLING_WHOLE: &[&str] = &[
    "auth", "code", "csrf", "dpop", "key", "otp", "pass", "pin", "psk", "pwd", "session", "sid",
    "sig", "xauth", "xsrf",
];

/// Whether what stands under this name is taken for a secret: `access_token`, `X-Api-Key`,
/// `clientSecret`.
pub fn is_telling(name: &str) -> bool {
    let mut letters = [0; MAX_NAME];
    let mut length = 0;
    let reduced = name.bytes().filter(u8::is_ascii_alphanumeric);
    for (letter, byte) in letters.iter_mut().zip(reduced) {
        *letter = byte.to_ascii_lowercase();
        length += 1;
    }
    let reduced = letters.get(..length).unwrap_or_default();
    if TELLING_WHOLE
        .iter()
        .any(|whole| whole.as_bytes() == reduced)
    {
        return true;
    }
    // Each place is looked at once, and almost all letters begin nothing.
    reduced.iter().enumerate().any(|(at, letter)| {
        TELLING.iter().any(|part| {
            part.as_bytes().first() == Some(letter)
                && reduced
                    .get(at..)
                    .is_some_and(|rest| rest.starts_with(part.as_bytes()))
        })
    })
}

/// A path with its query, percent-encoded as it was sent.
pub fn path(path: &str) -> Cow<'_, str> {
    let query = path.find(['?', '#']).unwrap_or(path.len());
    let (head, query) = path.split_at_checked(query).unwrap_or((path, ""));
    // As a whole, since the parts of a URL would not show a user's password in it.
    let head = text(head);
    if query.is_empty() && !head.contains(['%', ';', '=']) {
        return head;
    }
    let mut masked = String::with_capacity(path.len());
    for part in [&*head, query] {
        // Pieces with the separator that ends each.
        for piece in part.split_inclusive(['/', '?', '&', ';', '#']) {
            let content = piece.trim_end_matches(['/', '?', '&', ';', '#']);
            match content.split_once('=') {
                Some((key, _)) if is_telling(&decoded(key)) => {
                    masked.push_str(key);
                    masked.push('=');
                    masked.push_str(MASK);
                }
                _ if hides_secret(content) => masked.push_str(MASK),
                _ => masked.push_str(&text(content)),
            }
            masked.push_str(piece.get(content.len()..).unwrap_or_default());
        }
    }
    Cow::Owned(masked)
}

/// The arguments of a command, without secrets that stand in them or after a telling flag.
pub fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<Text> {
    let mut after_flag = false;
    let mut arguments = arguments.into_iter();
    let mut masked: Vec<_> = arguments
        .by_ref()
        .take(MAX_COMMAND)
        .map(|argument| {
            let is_flag = argument.starts_with('-');
            let secret = after_flag && !is_flag;
            after_flag = is_flag && !argument.contains('=') && is_telling(argument);
            if secret {
                Text::fixed(MASK)
            } else {
                Text::new(argument)
            }
        })
        .collect();
    if arguments.next().is_some() {
        masked.push(Text::fixed(MORE));
    }
    masked
}

fn hides_secret(content: &str) -> bool {
    content.contains('%') && matches!(text(&decoded(content)), Cow::Owned(_))
}

/// Without percent-encoding, even where that was applied several times.
fn decoded(content: &str) -> Cow<'_, str> {
    let mut decoded = Cow::Borrowed(content);
    for _ in 0..MAX_DECODE {
        if !decoded.contains('%') {
            break;
        }
        decoded = Cow::Owned(decode_once(&decoded));
    }
    decoded
}

fn decode_once(content: &str) -> String {
    let mut bytes = content.bytes();
    let mut decoded = Vec::with_capacity(content.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        if byte == b'%'
            && let Some(high) = digit(ahead.next())
            && let Some(low) = digit(ahead.next())
            && let Ok(value) = u8::try_from(high * 16 + low)
        {
            decoded.push(value);
            bytes = ahead;
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
