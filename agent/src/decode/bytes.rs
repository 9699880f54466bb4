//! Looks for bytes eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// How many bytes stand in `bytes` before the first that is below `bound` (at most 0x80) or one of `any`.
#[inline]
pub(super) fn before<const N: usize>(bytes: &[u8], bound: u8, any: [u8; N]) -> usize {
    let mut length = 0_usize;
    for block in bytes.chunks_exact(8) {
        let Ok(block) = <[u8; 8]>::try_from(block) else {
            break;
        };
        let word = u64::from_le_bytes(block);
        let equal = any
            .iter()
            .fold(0, |found, byte| found | below(word ^ repeated(*byte), 1));
        if below(word, bound) | equal != 0 {
            break;
        }
        length = length.saturating_add(8);
    }
    let near = bytes.get(length..).unwrap_or_default();
    let more = near
        .iter()
        .position(|byte| *byte < bound || any.contains(byte));
    length.saturating_add(more.unwrap_or(near.len()))
}

/// Not zero when a byte of `word` is below `bound`. Exact for the word, though not for the place: a borrow may
/// mark the byte after one that is (Hacker's Delight, section 6-1).
const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(repeated(bound)) & !word & HIGH
}

const fn repeated(byte: u8) -> u64 {
    // Widening; `u64::from` is not const.
    ONES.wrapping_mul(byte as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::before;

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), bound in 0_u8..=0x80
        ) {
            let any = [b'"', b'\\', 0xC2, 0xFF, 0x00];
            let plain = bytes.iter().position(|byte| *byte < bound || any.contains(byte));
            prop_assert_eq!(before(&bytes, bound, any), plain.unwrap_or(bytes.len()));
        }

        #[test]
        fn finds_it_behind_long_runs(run in 0_usize..70, byte in any::<u8>()) {
            let mut bytes = vec![b'a'; run];
            bytes.push(byte);
            let special = byte < 0x20 || byte == b'"';
            prop_assert_eq!(before(&bytes, 0x20, [b'"']) == run, special);
        }
    }
}
