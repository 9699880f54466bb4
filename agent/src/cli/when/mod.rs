//! Times as people write them: `10m`, `yesterday`, `last tuesday`, `2026-11-20 14:05`.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{Span, Timestamp, ToSpan as _, Zoned};
use thiserror::Error;

/// A stretch of time; for a moment, both ends are it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// Its first moment.
    pub(super) start: Timestamp,
    /// The moment after its last.
    pub(super) end: Timestamp,
}

/// A text that names no time.
#[derive(Debug, Error)]
pub(super) enum WhenError {
    /// Not understood.
    #[error(
        "read `{text}` as a time: write `10m`, `2h`, `yesterday`, `last tuesday`, `2026-11-20`, \
         `2026-11-20 14:05` or `2026-11-20T14:05:00Z`"
    )]
    Unknown {
        /// As written.
        text: String,
    },
    /// Understood, but outside of the calendar.
    #[error("read `{text}` as a time")]
    Beyond {
        /// As written.
        text: String,
        /// Cause.
        #[source]
        source: jiff::Error,
    },
}

/// What `text` means at `now`, in `now`'s time zone.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<Period, WhenError> {
    let written = text.trim().to_ascii_lowercase();
    let read = named(&written, now)
        .or_else(|| ago(&written, now))
        .or_else(|| exact(text.trim(), now))
        .ok_or_else(|| WhenError::Unknown {
            text: text.to_owned(),
        })?;
    read.map_err(|source| WhenError::Beyond {
        text: text.to_owned(),
        source,
    })
}

type Read = Result<Period, jiff::Error>;

fn named(text: &str, now: &Zoned) -> Option<Read> {
    match text {
        "now" => return Some(Ok(moment(now.timestamp()))),
        "today" => return Some(day(now.date(), now)),
        "yesterday" => return Some(now.date().yesterday().and_then(|date| day(date, now))),
        "last week" => return Some(last_week(now)),
        _ => {}
    }
    let name = text.strip_prefix("last ").unwrap_or(text).trim_start();
    let weekday = weekday(name)?;
    // Always a day that is over: on a Tuesday, `tuesday` was seven days ago.
    Some(
        now.date()
            .nth_weekday(-1, weekday)
            .and_then(|date| day(date, now)),
    )
}

fn last_week(now: &Zoned) -> Read {
    let monday = now.date().checked_sub(days_since_monday(now.date()))?;
    let start = monday
        .checked_sub(7.days())?
        .to_zoned(now.time_zone().clone())?;
    let end = monday.to_zoned(now.time_zone().clone())?;
    Ok(Period {
        start: start.timestamp(),
        end: end.timestamp(),
    })
}

fn days_since_monday(date: Date) -> Span {
    i64::from(date.weekday().to_monday_zero_offset()).days()
}

fn weekday(name: &str) -> Option<Weekday> {
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    days.into_iter()
        .find(|(long, _)| *long == name || (name.len() == 3 && long.starts_with(name)))
        .map(|(_, day)| day)
}

fn ago(text: &str, now: &Zoned) -> Option<Read> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: i64 = number.parse().ok()?;
    let span = match unit.trim_start() {
        "s" | "sec" | "second" | "seconds" => Span::new().try_seconds(number),
        "m" | "min" | "minute" | "minutes" => Span::new().try_minutes(number),
        "h" | "hour" | "hours" => Span::new().try_hours(number),
        "d" | "day" | "days" => Span::new().try_days(number),
        "w" | "week" | "weeks" => Span::new().try_weeks(number),
        "month" | "months" => Span::new().try_months(number),
        _ => return None,
    };
    let then = span.and_then(|span| now.checked_sub(span));
    Some(then.map(|then| moment(then.timestamp())))
}

fn exact(text: &str, now: &Zoned) -> Option<Read> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(Ok(moment(timestamp)));
    }
    // A date alone would be taken for midnight by the two that follow it.
    let has_time = text.contains(':');
    if !has_time {
        return text.parse::<Date>().ok().map(|date| day(date, now));
    }
    let local = text.parse::<DateTime>().ok();
    let local = local.or_else(|| {
        text.parse::<Time>()
            .ok()
            .map(|time| now.date().to_datetime(time))
    });
    Some(
        local?
            .to_zoned(now.time_zone().clone())
            .map(|zoned| moment(zoned.timestamp())),
    )
}

fn day(date: Date, now: &Zoned) -> Read {
    let start = date.to_zoned(now.time_zone().clone())?;
    let end = date.tomorrow()?.to_zoned(now.time_zone().clone())?;
    Ok(Period {
        start: start.timestamp(),
        end: end.timestamp(),
    })
}

const fn moment(timestamp: Timestamp) -> Period {
    Period {
        start: timestamp,
        end: timestamp,
    }
}

#[cfg(test)]
mod tests;
