//! Filters from options, and how records look.

use clap::Parser as _;

use super::view::rows;
use super::*;
use crate::cli::args::{Cli, Command as Commands};

fn now() -> Zoned {
    "2026-11-21T01:32:42Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::UTC)
}

fn filtered(words: &[&str]) -> Result<String, String> {
    let words = ["exeat", "audit", "query"].iter().chain(words);
    let Commands::Audit(AuditCommand::Query(arguments)) =
        Cli::try_parse_from(words).unwrap().command
    else {
        panic!()
    };
    let filter = filter(&arguments, &now()).map_err(|error| error.message)?;
    Ok(serde_json::to_string(&filter).unwrap())
}

#[test]
fn options_are_filters() {
    for (words, expected) in [
        (vec![], r"{}"),
        (
            vec!["--since", "10m", "--limit", "5"],
            r#"{"since":"2026-11-21T01:22:42.000000Z","limit":5}"#,
        ),
        (
            vec!["--since", "last tuesday", "--until", "last tuesday"],
            r#"{"since":"2026-11-17T00:00:00.000000Z","until":"2026-11-18T00:00:00.000000Z"}"#,
        ),
        (
            vec![
                "--kind", "dns", "--effect", "deny", "--status", "refused", "--caller", "d*",
            ],
            r#"{"kind":"dns","caller":"d*","effect":"deny","status":"refused"}"#,
        ),
    ] {
        assert_eq!(filtered(&words).unwrap(), expected, "{words:?}");
    }
}

#[test]
fn an_end_before_the_beginning_is_said() {
    let error = filtered(&["--since", "10m", "--until", "20m"]).unwrap_err();
    assert!(
        error.ends_with("the end is before the beginning"),
        "{error}"
    );
}

#[test]
fn records_are_rows() {
    let lines = [
        r#"{"v":1,"seq":1,"id":"01JD5Q9Y0000000000000000A1","time":"2026-11-21T01:30:00.123456Z","kind":"mcp","workload":{"name":"claude-code","kind":"host"},"identity":{"name":"dave","verified_by":"kernel"},"mcp":{"server":"github","method":"tools/call","name":"create_issue"},"decision":{"effect":"allow","rule":"writers"},"outcome":{"status":"done","latency_us":812}}"#,
        r#"{"v":1,"seq":2,"id":"01JD5Q9Y0000000000000000B2","time":"2026-11-21T01:30:00.2Z","kind":"http","workload":{"name":"github","kind":"server"},"http":{"name":"api.github.com","port":443,"method":"POST","path":"/repos/acme/x/issues","status":201},"decision":{"effect":"allow"},"cause":{"id":"01JD5Q9Y0000000000000000A1"},"outcome":{"status":"failed"}}"#,
        r#"{"v":1,"seq":3,"id":"01JD5Q9Y0000000000000000C3","time":"2026-11-21T01:30:01Z","kind":"tcp","workload":{"name":"github","kind":"server"},"tcp":{"protocol":"tcp","address":"2001:db8::1","port":8443},"decision":{"effect":"deny","reason":"x"},"cause":{"candidates":["a","b"]},"outcome":{"status":"refused"}}"#,
        r#"{"v":1,"seq":4,"id":"01JD5Q9Y0000000000000000D4","time":"2026-11-21T01:30:02Z","kind":"dns","workload":{"name":"","uid":1000},"dns":{"name":"evil.example","type":"A","code":"NXDOMAIN"},"decision":{"effect":"allow","would":"deny","mode":"observe"},"outcome":{"status":"done"}}"#,
        r#"{"v":1,"seq":5,"id":"01JD5Q9Y0000000000000000E5","time":"2026-11-21T01:30:03Z","kind":"finding","finding":{"what":"foreign_socket","detail":"a\u001b[2Jb"},"outcome":{"status":"done"}}"#,
        r#"{"v":1,"seq":6,"id":"01JD5Q9Y0000000000000000F6","open":{"stage":"forward"},"time":"2026-11-21T01:30:04Z","kind":"http","workload":{"name":"github","kind":"server"},"http":{"name":"api.github.com","method":"GET","path":"/slow"},"decision":{"effect":"allow"}}"#,
        r#"{"v":1,"seq":7,"id":"01JD5Q9Y0000000000000000G7","time":"2026-11-21T01:30:05Z","kind":"exec","workload":{"name":"agent","kind":"host"},"exec":{"exe":"/opt/notes","pid":7},"decision":{"effect":"deny","reason":"x"},"finding":{"what":"unregistered_server","detail":"its name says so; it reaches nothing"},"outcome":{"status":"refused"}}"#,
        r#"{"v":9,"seq":6,"id":"x","time":"not a time","kind":"from_the_future"}"#,
        "garbage",
    ];
    insta::assert_snapshot!(rows(&lines, &now()));
}
