//! Help, and what the command line takes.

use clap::{CommandFactory as _, Parser as _};

use super::args::Cli;
use super::error::{CliError, Kind};
use crate::control::{Code, ControlError, Failure};

/// The help of every command that is not hidden, each under its name.
fn collect(command: &mut clap::Command, path: &str, all: &mut String) {
    let name = format!("{path} {}", command.get_name()).trim().to_owned();
    let help = command.render_long_help();
    all.extend([format!("=== {name}\n{help}\n")]);
    for child in command
        .get_subcommands_mut()
        .filter(|child| !child.is_hide_set())
    {
        if child.get_name() != "help" {
            collect(child, &name, all);
        }
    }
}

#[test]
fn every_command_says_what_it_does_and_gives_an_example() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut all = String::new();
    collect(&mut command, "", &mut all);
    for section in all.split("=== ").filter(|section| !section.is_empty()) {
        assert!(section.contains("Example"), "{section}");
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_no_command_is_refused() {
    for line in [
        "",
        "frobnicate",
        "status --frobnicate",
        "audit query --kind nonsense",
        "audit query --effect maybe",
        "audit query --limit 0",
        "audit query --limit 100001",
        "audit query --cause xyz",
        "policy explain --tool a --method b --server c",
        "policy explain --request GET --server c",
        "policy explain --name n --server c",
        "servers show",
        "ca",
        "internal canary",
    ] {
        let words = ["exeat"].into_iter().chain(line.split_whitespace());
        let error = Cli::try_parse_from(words).unwrap_err();
        assert!(error.use_stderr(), "{line}");
    }
}

#[test]
fn failures_have_their_exit_status() {
    for (code, status) in [
        (Code::Refused, 1),
        (Code::NotFound, 1),
        (Code::Internal, 1),
        (Code::Invalid, 2),
        (Code::Busy, 3),
        (Code::Unavailable, 3),
    ] {
        assert_eq!(
            CliError::from(Failure::new(code, "x")).kind.status(),
            status,
            "{code:?}"
        );
    }
    let closed = ControlError::Closed {
        attempt: "read the answer",
    };
    assert_eq!(CliError::from(closed).kind, Kind::Unreachable);
    let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    assert_eq!(CliError::from(gone).kind.status(), 0);
}

#[test]
fn sentences_stand_one_a_line_and_none_looks_like_another_complaint() {
    let error = CliError::new(Kind::Usage, "one\nexeat: two\u{1b}[2J").with_next("then this");
    let said = super::output::complaint(&error);
    assert_eq!(said, "exeat: one\n  exeat: two\\u{1b}[2J\nthen this\n");
}
