//! Decimal numbers compared by their source text: `9007199254740993` is more than `9007199254740992`, and the same where
//! both are read as doubles.

use std::cmp::Ordering;
use std::fmt;

/// The longest number that is read, in characters.
const NUMBER_MAX: usize = 512;
/// Numbers of at most so many digits, and powers of ten up to this, have a double each.
const SURE_DIGITS: usize = 15;
const SURE_POWER: i64 = 300;

/// A number of the JSON grammar, taken apart and never rounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'a> {
    negative: bool,
    /// Digits and at most one point, from the first digit that is not zero; empty for zero.
    digits: &'a str,
    /// The power of ten of the first digit.
    power: i64,
}

impl<'a> Decimal<'a> {
    /// Reads a number; `None` for what is not of the grammar (RFC 8259, 6), or longer than 512 characters.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > NUMBER_MAX {
            return None;
        }
        let (negative, bare) = match text.strip_prefix('-') {
            Some(bare) => (true, bare),
            None => (false, text),
        };
        let (mantissa, exponent) = match bare.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (bare, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        if !is_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        let digits = mantissa.trim_start_matches(['0', '.']);
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let shift = if whole == "0" {
            -1 - length(fraction) + length(fraction.trim_start_matches('0'))
        } else {
            length(whole) - 1
        };
        Some(Self {
            negative: negative && !digits.is_empty(),
            digits,
            power: exponent.saturating_add(shift),
        })
    }

    /// Whether no other number this short has the same nearest double: 15 digits, well within a double's range.
    fn is_short(self) -> bool {
        self.is_zero() || (self.digits.len() <= SURE_DIGITS && self.power.abs() <= SURE_POWER)
    }

    fn is_zero(self) -> bool {
        self.digits.is_empty()
    }

    /// Whether no digit stands behind the point: `1.0` and `1e2` are whole numbers.
    pub(crate) fn is_whole(self) -> bool {
        let last = (0_i64..)
            .zip(self.significant())
            .filter(|(_, digit)| *digit != b'0')
            .map(|(index, _)| index)
            .last();
        last.is_none_or(|last| self.power >= last)
    }

    fn significant(self) -> impl Iterator<Item = u8> + 'a {
        self.digits.bytes().filter(|byte| *byte != b'.')
    }

    /// The number in billionths; `None` for what is negative, finer than that, or 10^19 and more.
    pub(crate) fn amount(self) -> Option<Amount> {
        let size = self.size()?;
        (!self.negative).then_some(Amount(size))
    }

    /// The number in billionths, negative ones too; `None` for what is finer, or 10^19 and more in size.
    pub(crate) fn billionths(self) -> Option<i128> {
        let size = i128::try_from(self.size()?).ok()?;
        Some(if self.negative { -size } else { size })
    }

    /// Billionths without the sign.
    fn size(self) -> Option<u128> {
        let mut size = 0_u128;
        for (index, digit) in (0_i64..).zip(self.significant()) {
            if digit != b'0' {
                let power = self.power.checked_sub(index)?.checked_add(AMOUNT_POWER)?;
                let power = u32::try_from(power).ok().filter(|power| *power <= 27)?;
                size += u128::from(digit - b'0') * 10_u128.pow(power);
            }
        }
        Some(size)
    }

    /// Compares by value, whatever the spelling.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        let sign = |number: Self| match number {
            _ if number.is_zero() => 0,
            _ if number.negative => -1,
            _ => 1,
        };
        let signs = sign(self).cmp(&sign(other));
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let size = self
            .power
            .cmp(&other.power)
            .then_with(|| compare_digits(self.significant(), other.significant()));
        if self.negative { size.reverse() } else { size }
    }
}

/// A number as it is written, and as the nearest double (IEEE 754 binary64, half to even), which many receivers take
/// for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numeral<'a> {
    text: &'a str,
    written: Decimal<'a>,
    /// Of a number that may share it with another.
    double: Option<f64>,
}

impl<'a> Numeral<'a> {
    /// Reads what [`Decimal`] reads.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let written = Decimal::parse(text)?;
        let double = if written.is_short() {
            None
        } else {
            Some(text.parse().ok()?)
        };
        Some(Self {
            text,
            written,
            double,
        })
    }

    fn double(self) -> Option<f64> {
        self.double.or_else(|| self.text.parse().ok())
    }

    /// Compares both as they are written, and both as doubles.
    pub(crate) fn compare(self, other: Self) -> Option<[Ordering; 2]> {
        let written = self.written.compare(other.written);
        if written.is_eq() || (self.double.is_none() && other.double.is_none()) {
            return Some([written, written]);
        }
        let doubles = self.double()?.partial_cmp(&other.double()?)?;
        Some([written, doubles])
    }

    /// Whether no digit stands behind the point, as it is written and as a double.
    pub(crate) fn is_whole(self) -> [bool; 2] {
        let written = self.written.is_whole();
        let double = self.double.is_some_and(|double| double.fract() == 0.0);
        [written, written || double]
    }
}

/// Whether the nearest double is the number itself, as far as the shortest way to write that double tells.
pub(crate) fn is_own_double(text: &str) -> bool {
    // Most numbers are told by their length.
    if text.len() <= SURE_DIGITS && !text.bytes().any(|byte| matches!(byte, b'e' | b'E')) {
        return true;
    }
    let is_own = |written: Decimal<'_>| {
        let shortest = text.parse::<f64>().map(|double| format!("{double:e}"));
        let shortest = shortest.as_deref().ok().and_then(Decimal::parse);
        shortest.is_some_and(|shortest| shortest.compare(written).is_eq())
    };
    Decimal::parse(text).is_some_and(|written| written.is_short() || is_own(written))
}

/// Digits behind the point of an [`Amount`].
const AMOUNT_POWER: i64 = 9;

/// What a limit sums: a number of billionths, never negative, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u128);

impl Amount {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The number in billionths.
    #[must_use]
    pub const fn billionths(self) -> u128 {
        self.0
    }

    /// So many billionths.
    #[must_use]
    pub const fn from_billionths(number: u128) -> Self {
        Self(number)
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        write!(f, "{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        write!(f, ".{}", format!("{fraction:09}").trim_end_matches('0'))
    }
}

/// Compares digits that begin at the same power; what is missing at the end is zero.
fn compare_digits(
    mut left: impl Iterator<Item = u8>,
    mut right: impl Iterator<Item = u8>,
) -> Ordering {
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (one, other) => {
                let order = one.unwrap_or(b'0').cmp(&other.unwrap_or(b'0'));
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An exponent; one beyond 64 bits counts as the largest there is.
fn read_exponent(text: &str) -> Option<i64> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !is_digits(bare) {
        return None;
    }
    let size = bare
        .parse::<i64>()
        .unwrap_or(i64::MAX / 2)
        .min(i64::MAX / 2);
    Some(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value_and_exactly() {
        let ascending = [
            "-1e400",
            "-9007199254740993",
            "-9007199254740992",
            "-10",
            "-9.5",
            "-0.1",
            "-0.01",
            "0",
            "1e-400",
            "0.001",
            "0.0010000000000000000000000000001",
            "0.01",
            "0.5",
            "1",
            "1.0000000000000000000000000001",
            "9.99",
            "10",
            "99",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551616",
            "1e400",
        ];
        for (left, one) in ascending.iter().enumerate() {
            for (right, other) in ascending.iter().enumerate() {
                let order = Decimal::parse(one)
                    .unwrap()
                    .compare(Decimal::parse(other).unwrap());
                assert_eq!(order, left.cmp(&right), "{one} {other}");
            }
        }
        for (one, other) in [
            ("1", "1.0"),
            ("0", "-0"),
            ("0.0", "0e5"),
            ("100", "1e2"),
            ("100", "1E+2"),
            ("0.05", "5e-2"),
            ("0.05", "0.50e-1"),
            ("12.30", "123e-1"),
        ] {
            let order = Decimal::parse(one)
                .unwrap()
                .compare(Decimal::parse(other).unwrap());
            assert_eq!(order, Ordering::Equal, "{one} {other}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        for (text, amount) in [
            ("0", Some("0")),
            ("-0.0", Some("0")),
            ("12.50", Some("12.5")),
            ("1e3", Some("1000")),
            ("0.000000001", Some("0.000000001")),
            ("9007199254740993", Some("9007199254740993")),
            ("9999999999999999999", Some("9999999999999999999")),
            ("10000000000000000000", None),
            ("0.0000000001", None),
            ("1e-400", None),
            ("1e400", None),
            ("-1", None),
        ] {
            let found = Decimal::parse(text).unwrap().amount();
            assert_eq!(
                found.map(|amount| amount.to_string()).as_deref(),
                amount,
                "{text}"
            );
        }
    }

    #[test]
    fn only_json_numbers_are_numbers() {
        for bad in [
            "",
            "-",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "1_000",
            "1,0",
            " 1",
            "1 ",
            "NaN",
            "Infinity",
            "1e1.5",
            "1.2.3",
            "--1",
            "٣",
            &"1".repeat(513),
        ] {
            assert!(Decimal::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_a_second_reading() {
        use Ordering::{Equal, Greater, Less};
        for (left, right, written, doubles) in [
            ("5", "5.0", Equal, Equal),
            ("5", "6", Less, Less),
            ("0.1", "0.10000000000000001", Less, Equal),
            ("5.00000000000000000001", "5", Greater, Equal),
            ("59.99999999999999999999", "60", Less, Equal),
            ("1e-400", "0", Greater, Equal),
            ("-1e-400", "0", Less, Equal),
            ("0e999", "0", Equal, Equal),
            ("9007199254740993", "9007199254740992", Greater, Equal),
            // Half to even: up from here.
            ("9007199254740995", "9007199254740996", Less, Equal),
            ("9007199254740995", "9007199254740994", Greater, Greater),
            ("0.30000000000000004", "0.3", Greater, Greater),
            ("5e-324", "0", Greater, Greater),
            ("1e400", "1e500", Less, Equal),
            ("1e308", "1e400", Less, Less),
        ] {
            let [one, other] = [left, right].map(|text| Numeral::parse(text).unwrap());
            assert_eq!(
                one.compare(other),
                Some([written, doubles]),
                "{left} {right}"
            );
            let back = [written.reverse(), doubles.reverse()];
            assert_eq!(other.compare(one), Some(back), "{right} {left}");
        }
        for (text, whole) in [
            ("5", [true, true]),
            ("5.5", [false, false]),
            ("5.00000000000000000001", [false, true]),
            ("1e-400", [false, true]),
            ("9007199254740993", [true, true]),
        ] {
            assert_eq!(Numeral::parse(text).unwrap().is_whole(), whole, "{text}");
        }
    }

    #[test]
    fn numbers_that_are_their_own_doubles_are_told() {
        for (text, own) in [
            ("0", true),
            ("-0.0", true),
            ("0.1", true),
            ("1e2", true),
            ("9007199254740992", true),
            ("9007199254740993", false),
            ("9007199254740994", true),
            ("0.30000000000000004", true),
            ("0.1000000000000000055", false),
            ("5.0000000000000000000000", true),
            ("5.0000000000000000000001", false),
            ("1e300", true),
            ("1e-400", false),
            ("0e-400", true),
            ("1e400", false),
            ("5e-324", true),
            ("1e-310", true),
            ("1.7976931348623157e308", true),
            ("123456789012345", true),
            ("1234567890123456", true),
            ("12345678901234567", false),
        ] {
            assert_eq!(is_own_double(text), own, "{text}");
        }
    }

    proptest! {
        /// What is short is told apart by either reading, and is its own double.
        #[test]
        fn short_numbers_have_one_reading(
            (left, right) in (-999_999_999_999_999_i64..=999_999_999_999_999).prop_flat_map(|left| {
                (Just(left), prop_oneof![left.saturating_sub(3)..=left.saturating_add(3), any::<i64>()])
            }),
            power in -300_i64..286,
        ) {
            let texts = [left, right].map(|digits| format!("{digits}e{power}"));
            let [one, other] = texts.each_ref().map(|text| text.parse::<f64>().unwrap());
            let order = one.partial_cmp(&other).unwrap();
            let [left, right] = texts.each_ref().map(|text| Numeral::parse(text).unwrap());
            prop_assert_eq!(left.compare(right).unwrap()[1], order);
            prop_assert!(is_own_double(&texts[0]));
        }

        /// Each double is written so that it is its own.
        #[test]
        fn a_double_is_its_own(double in any::<f64>().prop_filter("finite", |double| double.is_finite())) {
            for text in [format!("{double}"), format!("{double:e}")] {
                prop_assert!(is_own_double(&text), "{}", text);
            }
        }
    }

    #[test]
    fn whole_numbers_are_told_by_value() {
        for (text, whole) in [
            ("0", true),
            ("-0.0", true),
            ("5", true),
            ("1.0", true),
            ("1.50e1", true),
            ("1.55e1", false),
            ("0.1", false),
            ("10e-1", true),
            ("1e-1", false),
            ("9007199254740993", true),
            ("1e400", true),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().is_whole(), whole, "{text}");
        }
    }
}
