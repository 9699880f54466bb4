//! Names of records: 128 bit, unique, ordered by time (UUID version 7, RFC 9562 section 5.7).

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::telemetry::clock::Timestamp;

/// The name of a record, given when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(u128);

/// A text that is no record's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record's id is 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct RecordIdError;

/// Gives out names; those that one thread draws are strictly ascending.
///
/// The random part is drawn once and a counter stands before it: names are unique, not secret, and
/// one draw a record would cost more than the rest of its opening.
pub(super) struct IdSource {
    /// Milliseconds << 12 | 4096ths of a millisecond: the newest used.
    ticks: AtomicU64,
    counter: AtomicU64,
    /// Tells the sources of different processes and machines apart.
    salt: u32,
}

/// The counter's share of the 62 free bits; the salt has the other 32.
const COUNTER_MASK: u64 = (1 << 30) - 1;

impl IdSource {
    pub(super) fn new() -> Result<Self, Unspecified> {
        let mut salt = [0; 4];
        rand::fill(&mut salt)?;
        let salt = u32::from_le_bytes(salt);
        Ok(Self {
            ticks: AtomicU64::new(0),
            counter: AtomicU64::new(0),
            salt,
        })
    }

    pub(super) fn next(&self, now: Timestamp) -> RecordId {
        let microseconds = u64::try_from(now.microseconds()).unwrap_or_default();
        let (milliseconds, rest) = (microseconds / 1_000, microseconds % 1_000);
        let ticks = (milliseconds << 12) | (rest * 4_096 / 1_000);
        let count = self.counter.fetch_add(1, Ordering::SeqCst) & COUNTER_MASK;
        // A clock that is set back must not set the order back.
        let ticks = self.ticks.fetch_max(ticks, Ordering::SeqCst).max(ticks);
        let high = ((ticks >> 12) << 16) | 0x7000 | (ticks & 0xfff);
        let low = (1 << 63) | (count << 32) | u64::from(self.salt);
        RecordId((u128::from(high) << 64) | u128::from(low))
    }
}

impl RecordId {
    /// When the record was opened, in milliseconds since 1970.
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0 >> 80).unwrap_or_default()
    }
}

impl Display for RecordId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bits = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        let mut bits = 0_u128;
        if text.len() != 36 {
            return Err(RecordIdError);
        }
        for (position, byte) in text.bytes().enumerate() {
            if matches!(position, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(RecordIdError);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(RecordIdError)?;
            bits = (bits << 4) | u128::from(digit);
        }
        Ok(Self(bits))
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_ascend_even_when_the_clock_is_set_back() {
        let source = IdSource::new().unwrap();
        let names: Vec<_> = [5_000_000, 5_000_000, 4_000_000, 5_000_001, 9_000_000]
            .map(|microseconds| source.next(Timestamp::from_microseconds(microseconds)))
            .into();
        assert!(names.is_sorted_by(|left, right| left < right), "{names:?}");
        let texts: BTreeSet<_> = names.iter().map(ToString::to_string).collect();
        assert!(
            texts
                .iter()
                .map(|text| text.parse::<RecordId>().unwrap())
                .eq(names.iter().copied())
        );
        assert_eq!(names[4].milliseconds(), 9_000);
    }

    #[test]
    fn a_name_is_a_uuid_of_version_7() {
        let text = IdSource::new()
            .unwrap()
            .next(Timestamp::from_microseconds(1))
            .to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'7');
        assert!(matches!(text.as_bytes()[19], b'8'..=b'b'));
        for wrong in [
            "",
            "0",
            "g0000000-0000-7000-8000-000000000000",
            &text.replace('-', "+"),
        ] {
            assert_eq!(wrong.parse::<RecordId>(), Err(RecordIdError), "{wrong}");
        }
    }
}
