//! Percent-encoding (RFC 3986 section 2.1), with capitals, of all but unreserved characters.

/// Appends `bytes` to `out`, encoded but for unreserved characters (RFC 3986 section 2.3) and those in `plain`.
pub(super) fn encode(bytes: &[u8], plain: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || plain.contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or_default();
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
}

/// The bytes of `text` with what is encoded decoded once; `None`: a `%` without two digits.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            out.push(octet(*digits)?);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

/// The byte that two digits mean.
pub(super) fn octet([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16);
        digit.and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percent_sign_has_two_digits_or_is_a_fault() {
        assert_eq!(decode("a%2fB%2F+%zz"), None);
        assert_eq!(decode("%"), None);
        assert_eq!(decode("%2"), None);
        assert_eq!(decode("%+1"), None);
        assert_eq!(decode("a%2fB%2F+%00").unwrap(), b"a/B/+\0");
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_as_it_was(bytes: Vec<u8>) {
            let mut text = String::new();
            encode(&bytes, b"/", &mut text);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)));
            prop_assert_eq!(decode(&text), Some(bytes));
        }
    }
}
