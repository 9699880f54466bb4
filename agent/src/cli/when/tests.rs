//! Times as people write them, seen from one Saturday.

use proptest::prelude::*;

use super::*;

fn now() -> Zoned {
    // A zone with summer time; jiff reads POSIX zones without any database.
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    "2026-11-21T01:32:42Z"
        .parse::<Timestamp>()
        .unwrap()
        .to_zoned(zone)
}

fn check(text: &str, start: &str, end: &str) {
    let period = parse(text, &now()).unwrap();
    assert_eq!(
        (
            period.start.to_string().as_str(),
            period.end.to_string().as_str()
        ),
        (start, end),
        "{text}"
    );
}

fn check_moment(text: &str, expected: &str) {
    check(text, expected, expected);
}

#[test]
fn an_age_is_counted_back_from_now() {
    check_moment("10m", "2026-11-21T01:22:42Z");
    check_moment("2h", "2026-11-20T23:32:42Z");
    check_moment("2 hours ago", "2026-11-20T23:32:42Z");
    check_moment("90s", "2026-11-21T01:31:12Z");
    check_moment("1w", "2026-11-14T01:32:42Z");
    // Over the end of summer time a day has 25 hours.
    check_moment("30d", "2026-10-22T00:32:42Z");
}

#[test]
fn a_day_is_the_local_day() {
    check("today", "2026-11-20T23:00:00Z", "2026-11-21T23:00:00Z");
    check("Yesterday", "2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z");
    check(
        "last tuesday",
        "2026-11-16T23:00:00Z",
        "2026-11-17T23:00:00Z",
    );
    check("tue", "2026-11-16T23:00:00Z", "2026-11-17T23:00:00Z");
    check("2026-11-20", "2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z");
    check("2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    check("last week", "2026-11-08T23:00:00Z", "2026-11-15T23:00:00Z");
}

#[test]
fn the_day_that_it_is_was_a_week_ago() {
    check("saturday", "2026-11-13T23:00:00Z", "2026-11-14T23:00:00Z");
}

#[test]
fn a_time_without_a_zone_is_local() {
    check_moment("2026-11-20 14:05", "2026-11-20T13:05:00Z");
    check_moment("2026-11-20T14:05:30", "2026-11-20T13:05:30Z");
    check_moment("01:30", "2026-11-21T00:30:00Z");
    check_moment("2026-11-20T14:05:00Z", "2026-11-20T14:05:00Z");
    check_moment("2026-11-20T14:05:00+05:30", "2026-11-20T08:35:00Z");
}

#[test]
fn what_is_no_time_is_said() {
    for text in [
        "",
        "10",
        "m",
        "10y",
        "last",
        "last year",
        "2026-13-01",
        "2026-02-30",
        "25:00",
    ] {
        let error = parse(text, &now()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_upsets_it(text in "\\PC{0,40}|[0-9]{1,25} ?[a-z]{1,6}") {
        if let Ok(period) = parse(&text, &now()) {
            prop_assert!(period.start <= period.end);
        }
    }
}
