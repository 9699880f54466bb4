//! The one place that reads clocks; everything else is given the time.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds, always six digits, so that times of one log sort as text.
static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Civil time, UTC.
    pub wall: Timestamp,
    /// The machine's monotonic clock.
    pub mono: Monotonic,
}

/// Civil time: microseconds since 1970-01-01T00:00:00Z.
///
/// Written and read as RFC 3339 in UTC with six digits of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock of the kernel's events (`bpf_ktime_get_ns`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Monotonic(u64);

/// A text that is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("read `{text}` as an RFC 3339 time")]
pub struct TimestampError {
    text: String,
    source: jiff::Error,
}

/// Reads both clocks.
pub fn now() -> Moment {
    Moment {
        wall: wall(),
        mono: monotonic(),
    }
}

/// Reads civil time.
pub fn wall() -> Timestamp {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    Timestamp(
        tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(tv_nsec / 1_000),
    )
}

/// Reads the monotonic clock.
pub fn monotonic() -> Monotonic {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let nanoseconds = tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec);
    // The monotonic clock starts at boot and never is negative.
    Monotonic(u64::try_from(nanoseconds).unwrap_or_default())
}

impl Timestamp {
    /// From microseconds since 1970-01-01T00:00:00Z.
    pub const fn from_microseconds(microseconds: i64) -> Self {
        Self(microseconds)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn microseconds(self) -> i64 {
        self.0
    }

    /// This time, `earlier` before; the first representable time if there is none.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        let microseconds = i64::try_from(earlier.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(microseconds))
    }
}

impl Timestamp {
    /// To the second, in the basic form of ISO 8601, as signatures of AWS have it: `20150830T123600Z`.
    pub fn compact(self) -> String {
        let timestamp = jiff::Timestamp::from_microsecond(self.0).unwrap_or_default();
        timestamp.strftime("%Y%m%dT%H%M%SZ").to_string()
    }
}

impl Monotonic {
    /// From nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// This time, `later` after; the last representable time if there is none.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Display for Timestamp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let timestamp = jiff::Timestamp::from_microsecond(self.0).unwrap_or_default();
        // The printer's only error is the formatter's, which holds nothing.
        PRINTER
            .print_timestamp(&timestamp, StdFmtWrite(f))
            .or(Err(fmt::Error))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Self(timestamp.as_microsecond()))
            .map_err(|source| TimestampError {
                text: text.chars().take(64).collect(),
                source,
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_with_six_digits_and_read_back() {
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_795_224_773_000_001, "2026-11-21T01:32:53.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            let timestamp = Timestamp::from_microseconds(microseconds);
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), timestamp);
        }
    }

    #[test]
    fn the_clocks_run_forward() {
        let (first, second) = (now(), now());
        assert!(second.mono >= first.mono);
        assert!(first.wall.microseconds() > 1_700_000_000_000_000);
    }
}
