//! Points in time and calendar days; always given, never read from a clock.

use std::fmt;

const DAY_MS: i64 = 86_400_000;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From seconds since the epoch; saturates at the ends.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// So many milliseconds later; saturates at the end.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add_unsigned(millis))
    }

    /// Milliseconds from `earlier` to this point; 0 where the clock went backwards.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        let elapsed = self.0.saturating_sub(earlier.0);
        if elapsed < 0 {
            0
        } else {
            elapsed.unsigned_abs()
        }
    }
}

/// A calendar day (proleptic Gregorian, UTC), written `2027-02-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// Parses `YYYY-MM-DD`; nothing else is a date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str, length: usize| {
            (part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| part.parse::<u16>().ok())
                .flatten()
        };
        let mut parts = text.split('-');
        let year = digits(parts.next()?, 4)?;
        let month = u8::try_from(digits(parts.next()?, 2)?).ok()?;
        let day = u8::try_from(digits(parts.next()?, 2)?).ok()?;
        (parts.next().is_none() && year >= 1970 && (1..=days_in(year, month)).contains(&day))
            .then_some(Self { year, month, day })
    }

    /// Whether `now` is later than the last moment (UTC) of this day.
    #[must_use]
    pub fn is_past(self, now: Timestamp) -> bool {
        now.0 >= self.days().saturating_add(1).saturating_mul(DAY_MS)
    }

    /// The middle of this day (UTC).
    #[must_use]
    pub fn noon(self) -> Timestamp {
        Timestamp(
            self.days()
                .saturating_mul(DAY_MS)
                .saturating_add(DAY_MS / 2),
        )
    }

    /// Days since 1970-01-01 (the civil-from-days identity, H. Hinnant).
    fn days(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// The days of a month; 0 for a month that does not exist.
const fn days_in(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_end_with_their_day() {
        let date = Date::parse("2027-02-01").unwrap();
        // `date -u -d 2027-02-02 +%s`
        assert!(!date.is_past(Timestamp::from_millis(1_801_526_399_999)));
        assert!(date.is_past(Timestamp::from_seconds(1_801_526_400)));
        assert_eq!(date.to_string(), "2027-02-01");
    }

    #[test]
    fn only_real_days_are_dates() {
        for bad in [
            "2027-2-1",
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-01-00",
            "27-01-01",
            "2027-01-01T00:00",
            "+027-01-01",
            "2027-01-01-",
            "",
            "1969-12-31",
            "2100-02-29",
        ] {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        for good in ["2028-02-29", "2000-02-29", "1970-01-01", "2026-12-31"] {
            assert!(Date::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_counts_as_standing_still() {
        let (early, late) = (Timestamp::from_seconds(5), Timestamp::from_seconds(9));
        assert_eq!(early.millis_since(late), 0);
        assert_eq!(late.millis_since(early), 4000);
    }
}
