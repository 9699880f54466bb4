//! Help, and what the command line takes.

use clap::error::ErrorKind;
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

/// The pages that users read.
const PAGES: [&str; 4] = [
    include_str!("../../../README.md"),
    include_str!("../../docs/audit-format.md"),
    include_str!("../../docs/config.md"),
    include_str!("../../docs/policy.md"),
];

/// The words of a command as a shell reads it, up to a comment, a pipe or a redirection; `None` if it is none of Exeat's.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let line = line.strip_prefix("sudo ").unwrap_or(line);
    let (mut words, mut quote) = (vec![String::new()], None);
    for letter in line.strip_prefix("exeat ")?.chars() {
        let is_first = words.len() == 1;
        let word = words.last_mut().unwrap();
        match (quote, letter) {
            (None, '#' | '|' | '>') => break,
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            // Two spaces, behind which it is explained.
            (None, ' ') if word.is_empty() && !is_first => break,
            (None, ' ') => words.push(String::new()),
            _ => word.push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    Some(words)
}

/// What `words` are not, of a command line.
fn fault(words: &[String]) -> Option<clap::Error> {
    let words = std::iter::once("exeat").chain(words.iter().map(String::as_str));
    Cli::try_parse_from(words).err()
}

#[test]
fn every_documented_command_is_one() {
    let mut command = Cli::command().term_width(200);
    command.build();
    let mut help = String::new();
    collect(&mut command, "", &mut help);
    let examples = help.lines().filter(|line| !line.starts_with("=== "));
    let blocks = PAGES
        .iter()
        .flat_map(|page| page.split("\n```").skip(1).step_by(2));
    let typed = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    let typed = typed.flat_map(str::lines);
    let mut whole = 0;
    for words in examples.chain(typed).filter_map(words) {
        let fault = fault(&words);
        assert!(fault.is_none(), "{words:?}: {}", fault.unwrap());
        whole += 1;
    }
    // Within a sentence a command may stand without what it needs.
    let mut named = 0;
    let spans = PAGES
        .iter()
        .flat_map(|page| page.split('`').skip(1).step_by(2));
    for words in spans.filter(|span| !span.contains('\n')).filter_map(words) {
        let lacks = |fault: clap::Error| {
            matches!(
                fault.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::DisplayHelp
            )
        };
        assert!(fault(&words).is_none_or(lacks), "{words:?}");
        named += 1;
    }
    assert!(whole > 100 && named > 50, "{whole} commands, {named} named");
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
