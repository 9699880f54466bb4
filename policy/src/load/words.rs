//! Names, users, dates, rates: the small words of the policy language.

use crate::model::{Cap, Directory};
use crate::time::Date;

/// The most calls that a rate may count: each needs a point in time kept for it.
const RATE_MAX: u32 = 10_000;

/// A name of a server, host, identity, rule or secret: also part of paths and keys, so kept plain.
pub(super) fn check_name(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.len() > 64 {
        Err("a name has at most 64 characters")
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Err("a name begins with a letter or digit")
    } else if text.bytes().all(plain) {
        Ok(())
    } else {
        Err("a name holds letters, digits, `-`, `_` and `.` only")
    }
}

/// A Unix user's name, as useradd accepts it.
pub(super) fn user(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = text.strip_suffix('$').unwrap_or(text);
    if name == "root" {
        Err("a server never runs as root")
    } else if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 32
        && name.chars().all(plain)
    {
        Ok(text.to_owned())
    } else {
        Err("a user's name begins with a letter and holds letters, digits, `-`, `_` and `.`")
    }
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Result<(), &'static str> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        Ok(())
    } else {
        Err("a variable's name holds letters, digits and `_`, and does not begin with a digit")
    }
}

/// A day.
pub(super) fn date(text: &str) -> Result<Date, &'static str> {
    Date::parse(text).ok_or("there is no such day")
}

/// An absolute path without empty or dot segments.
pub(super) fn absolute(text: &str) -> Result<String, &'static str> {
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(|part| !matches!(part, "" | "." | "..")) => {
            Ok(text.to_owned())
        }
        Some(_) => Err("a path holds no empty segments, `.` or `..`"),
        None => Err("a path begins with `/`"),
    }
}

/// A server's working directory.
pub(super) fn directory(text: &str) -> Result<Directory, &'static str> {
    if text == "caller" {
        return Ok(Directory::Caller);
    }
    absolute(text).map(Directory::At)
}

/// A systemd unit that holds processes.
pub(super) fn unit(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    let stem = [".service", ".scope", ".slice"]
        .into_iter()
        .find_map(|suffix| text.strip_suffix(suffix));
    match stem {
        Some(stem) if !stem.is_empty() && text.chars().all(plain) => Ok(text.to_owned()),
        _ => Err("a unit ends in `.service`, `.scope` or `.slice`"),
    }
}

/// 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], &'static str> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Option<Vec<u8>> = digits.map(|digits| {
        digits
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[high, low]| high << 4 | low)
            .collect()
    });
    bytes
        .filter(|_| text.len() == 64)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("it has 64 hexadecimal digits")
}

/// An HTTP method, in capitals as on the wire.
pub(super) fn http_method(text: &str) -> Result<String, &'static str> {
    let upper =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(upper)
    {
        // What goes through a tunnel would be decided on by nobody.
        if text == "CONNECT" {
            return Err(
                "CONNECT is never let through: write an entry for where its tunnel would lead",
            );
        }
        Ok(text.to_owned())
    } else {
        Err("methods are compared as sent, in capitals; leave `methods` out to allow all")
    }
}

/// `60/min`.
pub(super) fn rate(text: &str) -> Result<Cap, String> {
    let (calls, unit) = text
        .split_once('/')
        .ok_or("the unit is missing, as in `60/min`")?;
    let window_ms = match unit {
        "s" | "sec" | "second" => 1_000,
        "min" | "minute" => 60_000,
        "h" | "hour" => 3_600_000,
        "d" | "day" => 86_400_000,
        _ => return Err("the unit is `s`, `min`, `h` or `d`".to_owned()),
    };
    let decimal = calls.bytes().all(|byte| byte.is_ascii_digit()) && !calls.starts_with('0');
    let calls = calls
        .parse::<u32>()
        .ok()
        .filter(|calls| decimal && *calls <= RATE_MAX)
        .ok_or_else(|| format!("the number is between 1 and {RATE_MAX}"))?;
    Ok(Cap::Rate { calls, window_ms })
}

/// `20%`.
pub(super) fn percent(text: &str) -> Result<u8, &'static str> {
    let number = text.strip_suffix('%').unwrap_or_default();
    let decimal = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    number
        .parse::<u8>()
        .ok()
        .filter(|share| decimal && (1..=100).contains(share))
        .ok_or("the share is a whole number between 1% and 100%")
}

/// `1MiB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    /// What is read of an answer at all is less by far.
    const MOST: u64 = 1 << 30;
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or("the unit is missing, as in `1MiB`")?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "B" => 1_u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("the unit is `B`, `KiB`, `MiB` or `GiB`"),
    };
    Some(number)
        .filter(|number| !number.starts_with('0'))
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size <= MOST)
        .ok_or("the size is between 1B and 1GiB")
}

/// `10m`, in milliseconds.
pub(super) fn duration(text: &str) -> Result<u64, &'static str> {
    /// A year: what waits longer waits forever.
    const MOST: u64 = 366 * 86_400_000;
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or("the unit is missing, as in `10m`")?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "s" => 1_000_u64,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("the unit is `s`, `m`, `h` or `d`"),
    };
    Some(number)
        .filter(|number| !number.starts_with('0'))
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|duration| *duration <= MOST)
        .ok_or("the time is between 1s and 366d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_strictly() {
        assert_eq!((percent("20%"), percent("100%")), (Ok(20), Ok(100)));
        for bad in [
            "20", "%", "0%", "020%", "101%", "-1%", "+1%", "2.5%", "20 %", "20%%",
        ] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_strictly() {
        assert_eq!((size("1MiB"), size("200B")), (Ok(1 << 20), Ok(200)));
        for bad in [
            "",
            "1",
            "MiB",
            "0B",
            "01B",
            "1.5MiB",
            "-1B",
            "2GiB",
            "1 MiB",
            "1MB",
            "1m",
            "99999999999999999999B",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_read_strictly() {
        assert_eq!(
            rate("60/min"),
            Ok(Cap::Rate {
                calls: 60,
                window_ms: 60_000
            })
        );
        for bad in [
            "60", "60/", "/min", "0/min", "06/min", "-1/s", "1.5/s", "10001/s", "60/week",
            "60 /min", "6/min/2",
        ] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("10m"), Ok(600_000));
        assert_eq!(duration("24h"), Ok(86_400_000));
        for bad in [
            "",
            "10",
            "m",
            "0m",
            "05m",
            "1.5h",
            "-1s",
            "367d",
            "10 m",
            "1w",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "-x", ".x", "a b", "a/b", "é", "a\n", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for bad in ["root", "0", "", "-x", "a b", "../x", "root$"] {
            assert!(user(bad).is_err(), "{bad}");
        }
        for bad in ["", "a", "/a/../b", "//a", "/a/", "/", "a/b", "/./a"] {
            assert!(absolute(bad).is_err(), "{bad}");
        }
        for bad in ["nginx", ".service", "a b.service", "x.timer"] {
            assert!(unit(bad).is_err(), "{bad}");
        }
        assert_eq!(sha256(&"0f".repeat(32)), Ok([15; 32]));
        for bad in [
            "",
            "0f",
            &"0g".repeat(32),
            &"é".repeat(32),
            &"0f".repeat(33),
        ] {
            assert!(sha256(bad).is_err(), "{bad}");
        }
        for bad in ["get", "GET ", "", "*", "G\u{c9}T", "CONNECT"] {
            assert!(http_method(bad).is_err(), "{bad}");
        }
    }
}
