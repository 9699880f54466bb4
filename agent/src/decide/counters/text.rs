//! What counters stand at, as lines of text.

use std::fmt;

use exeat_policy::{Amount, Cap, Timestamp};

use super::{Name, shown};

/// One line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Line {
    /// `n NAME CAP SESSION`: a counter; without a session, `-`.
    New(Name, Cap, Option<Name>),
    /// `= NAME CALLS USED`: the calls that were charged to it, and when the last was.
    Calls(Name, u64, Timestamp),
    /// `@ NAME TIME AMOUNT`: one of those calls, which its window holds.
    Recent(Name, Timestamp, Amount),
    /// `+ NAME TIME AMOUNT`: one more call.
    More(Name, Timestamp, Amount),
    /// `- NAME TIME AMOUNT`: that call took nothing.
    Less(Name, Timestamp, Amount),
}

/// A line that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line that is not one of a counter")]
pub struct MalformedLine;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timed =
            |f: &mut fmt::Formatter<'_>, word, name: &Name, at: &Timestamp, amount: &Amount| {
                write!(
                    f,
                    "{word} {} {} {}",
                    shown(name),
                    at.as_millis(),
                    amount.billionths()
                )
            };
        match self {
            Self::New(name, cap, session) => {
                write!(f, "n {} ", shown(name))?;
                match cap {
                    Cap::Calls(calls) => write!(f, "c{calls}")?,
                    Cap::Rate { calls, window_ms } => write!(f, "r{calls}/{window_ms}")?,
                    Cap::Sum { max, window_ms } => write!(f, "s{}/{window_ms}", max.billionths())?,
                }
                let session = session.as_ref().map_or_else(|| "-".to_owned(), shown);
                write!(f, " {session}")
            }
            Self::Calls(name, calls, used) => {
                write!(f, "= {} {calls} {}", shown(name), used.as_millis())
            }
            Self::Recent(name, at, amount) => timed(f, '@', name, at, amount),
            Self::More(name, at, amount) => timed(f, '+', name, at, amount),
            Self::Less(name, at, amount) => timed(f, '-', name, at, amount),
        }
    }
}

impl Line {
    /// Reads a line without its end.
    pub(super) fn parse(line: &str) -> Result<Self, MalformedLine> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(MalformedLine);
        let (kind, own) = (word()?, name(word()?)?);
        let (first, second) = (word()?, word()?);
        if words.next().is_some() {
            return Err(MalformedLine);
        }
        let timed = || Ok((time(first)?, Amount::from_billionths(number(second)?)));
        Ok(match kind {
            "n" => {
                let session = match second {
                    "-" => None,
                    session => Some(name(session)?),
                };
                Self::New(own, cap(first)?, session)
            }
            "=" => Self::Calls(own, number(first)?, time(second)?),
            "@" => timed().map(|(at, amount)| Self::Recent(own, at, amount))?,
            "+" => timed().map(|(at, amount)| Self::More(own, at, amount))?,
            "-" => timed().map(|(at, amount)| Self::Less(own, at, amount))?,
            _ => return Err(MalformedLine),
        })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, MalformedLine> {
    text.parse().map_err(|_bad| MalformedLine)
}

fn time(text: &str) -> Result<Timestamp, MalformedLine> {
    number(text).map(Timestamp::from_millis)
}

fn name(text: &str) -> Result<Name, MalformedLine> {
    let mut name = Name::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != name.len() || !rest.is_empty() {
        return Err(MalformedLine);
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    for (to, [high, low]) in name.iter_mut().zip(pairs) {
        let byte = digit(*high).zip(digit(*low)).ok_or(MalformedLine)?;
        *to = byte.0 << 4 | byte.1;
    }
    Ok(name)
}

fn cap(text: &str) -> Result<Cap, MalformedLine> {
    let (kind, rest) = text.split_at_checked(1).ok_or(MalformedLine)?;
    let windowed = || rest.split_once('/').ok_or(MalformedLine);
    match kind {
        "c" => number(rest).map(Cap::Calls),
        "r" => {
            let (calls, window) = windowed()?;
            Ok(Cap::Rate {
                calls: number(calls)?,
                window_ms: number(window)?,
            })
        }
        "s" => {
            let (max, window) = windowed()?;
            Ok(Cap::Sum {
                max: Amount::from_billionths(number(max)?),
                window_ms: number(window)?,
            })
        }
        _ => Err(MalformedLine),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cap() -> impl Strategy<Value = Cap> {
        prop_oneof![
            any::<u64>().prop_map(Cap::Calls),
            (any::<u32>(), any::<u64>())
                .prop_map(|(calls, window_ms)| Cap::Rate { calls, window_ms }),
            (any::<u128>(), any::<u64>()).prop_map(|(max, window_ms)| Cap::Sum {
                max: Amount::from_billionths(max),
                window_ms
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(
            own: Name, cap in cap(), session: Option<Name>, calls: u64, at: i64, amount: u128,
        ) {
            let (at, amount) = (Timestamp::from_millis(at), Amount::from_billionths(amount));
            for line in [
                Line::New(own, cap, session),
                Line::Calls(own, calls, at),
                Line::Recent(own, at, amount),
                Line::More(own, at, amount),
                Line::Less(own, at, amount),
            ] {
                prop_assert_eq!(Line::parse(&line.to_string()), Ok(line));
            }
        }

        #[test]
        fn nothing_breaks_the_reader(text: String) {
            let _read = Line::parse(&text);
        }
    }

    #[test]
    fn other_lines_are_none() {
        let name = "00".repeat(16);
        for bad in [
            String::new(),
            format!("n {name} c1"),
            format!("n {name} c1 - -"),
            format!("n {name} x1 -"),
            format!("n {name} r1 -"),
            format!("n {name} é -"),
            format!("+ {name} 1 -1"),
            "+ 00 1 1".to_owned(),
            format!("? {name} 1 1"),
        ] {
            assert_eq!(Line::parse(&bad), Err(MalformedLine), "{bad}");
        }
    }
}
