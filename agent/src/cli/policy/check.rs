//! `exeat policy check`: every fault, with the line that it is in.

use std::fmt::Write as _;

use exeat_policy::{Fault, PolicySet, Source};
use serde::Serialize;

use super::files;
use crate::cli::args::CheckArguments;
use crate::cli::error::{CliError, Kind};
use crate::cli::output::{Output, Painter, Tone, safe};
use crate::config::Config;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    valid: bool,
    files: Vec<String>,
    /// Of a valid set.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<usize>,
    faults: Vec<FaultLine>,
}

/// A fault, for editors.
#[derive(Debug, Serialize)]
struct FaultLine {
    file: String,
    line: u32,
    column: u32,
    message: String,
    hint: Option<String>,
}

/// Checks; needs no daemon.
pub(super) fn run(
    arguments: &CheckArguments,
    config: &Config,
    output: Output,
) -> Result<(), CliError> {
    let mut paths = arguments.paths.clone();
    paths.extend(arguments.policy.clone());
    if paths.is_empty() {
        paths.push(config.policy.clone());
    }
    let sources = files::read(&paths)?;
    let compiled = exeat_policy::compile(&sources);
    let report = Report::of(&sources, &compiled);
    output.document(&report, |painter| match &compiled {
        Ok(set) => valid(set, &sources, painter),
        Err(faults) => invalid(faults, &sources, painter),
    })?;
    // A wrong policy is what status 2 stands for.
    if report.valid {
        Ok(())
    } else {
        Err(CliError::new(Kind::Usage, ""))
    }
}

impl Report {
    fn of(sources: &[Source], compiled: &Result<PolicySet, Vec<Fault>>) -> Self {
        let set = compiled.as_ref().ok();
        let faults = compiled
            .as_ref()
            .err()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Self {
            valid: set.is_some(),
            files: sources.iter().map(|source| source.name.clone()).collect(),
            fingerprint: set.map(|set| set.fingerprint().to_owned()),
            servers: set.map(|set| set.servers().count()),
            rules: set.map(|set| set.rules().len()),
            faults: faults.iter().map(FaultLine::of).collect(),
        }
    }
}

impl FaultLine {
    fn of(fault: &Fault) -> Self {
        let Fault {
            file,
            line,
            column,
            message,
            hint,
        } = fault.clone();
        Self {
            file,
            line,
            column,
            message,
            hint,
        }
    }
}

fn valid(set: &PolicySet, sources: &[Source], painter: Painter) -> String {
    let counts = format!(
        ": {}, {}, {}, {}, {}\n",
        count(sources.len(), "file"),
        count(set.servers().count(), "server"),
        count(set.hosts().count(), "host"),
        count(set.identities().count(), "identity"),
        count(set.rules().len(), "rule"),
    );
    format!(
        "{}{counts}fingerprint {}\n",
        painter.paint(Tone::Good, "valid"),
        set.fingerprint()
    )
}

fn invalid(faults: &[Fault], sources: &[Source], painter: Painter) -> String {
    let mut text = String::new();
    for fault in faults {
        describe(&mut text, fault, sources, painter);
    }
    text.push_str(&painter.paint(Tone::Bad, &count(faults.len(), "fault")));
    text.push('\n');
    text
}

/// `file:line:column: message`, then the line with a caret under the column, then the hint.
fn describe(text: &mut String, fault: &Fault, sources: &[Source], painter: Painter) {
    let place = format!("{}:{}:{}", fault.file, fault.line, fault.column);
    let place = painter.paint(Tone::Strong, &place);
    let message = painter.paint(Tone::Bad, &fault.message);
    let mut lines = vec![format!("{place}: {message}")];
    if let Some((line, before)) = excerpt(fault, sources) {
        let number = fault.line.to_string();
        let margin = " ".repeat(number.len());
        lines.push(format!(" {number} | {}", safe(&line)));
        lines.push(format!(
            " {margin} | {before}{}",
            painter.paint(Tone::Bad, "^")
        ));
    }
    if let Some(hint) = &fault.hint {
        lines.push(format!("   {}", painter.paint(Tone::Quiet, hint)));
    }
    for line in lines {
        // Writing to a string cannot fail.
        writeln!(text, "{line}").unwrap_or_default();
    }
    text.push('\n');
}

/// The line of a fault with tabs as spaces, and as many spaces as stand before its column.
fn excerpt(fault: &Fault, sources: &[Source]) -> Option<(String, String)> {
    let source = sources.iter().find(|source| source.name == fault.file)?;
    let index = usize::try_from(fault.line.checked_sub(1)?).ok()?;
    let line = source.text.lines().nth(index)?;
    let column = usize::try_from(fault.column.saturating_sub(1)).ok()?;
    let before: String = line.chars().take(column).collect();
    let width = safe(&before.replace('\t', " ")).chars().count();
    Some((line.replace('\t', " "), " ".repeat(width)))
}

fn count(number: usize, what: &str) -> String {
    match (number, what) {
        (1, _) => format!("1 {what}"),
        (_, "identity") => format!("{number} identities"),
        _ => format!("{number} {what}s"),
    }
}
