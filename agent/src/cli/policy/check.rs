//! `exeat policy check`: every fault, with the line that it is in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use exeat_policy::{
    Credential, Effect, Fault, PolicySet, Proof, Rule, Selector, Source, Timestamp,
};
use rustix::process::geteuid;
use serde::Serialize;

use super::{files, manifest};
use crate::cli::args::CheckArguments;
use crate::cli::ask::Daemon;
use crate::cli::error::{CliError, Kind};
use crate::cli::listed::listed;
use crate::cli::output::{Output, Painter, Tone, note, safe};
use crate::config::Config;
use crate::launch::stage::chain;
use crate::secrets;
use crate::telemetry::clock;

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
    /// What is no fault and should be looked at.
    warnings: Vec<FaultLine>,
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

/// Checks; a daemon that answers helps.
pub(super) async fn run(
    arguments: &CheckArguments,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let mut paths = arguments.paths.clone();
    paths.extend(arguments.policy.clone());
    if paths.is_empty() {
        paths.push(config.policy.clone());
    }
    let sources = files::read(&paths)?;
    let compiled = exeat_policy::compile(&sources);
    let now = Timestamp::from_millis(clock::wall().microseconds().div_euclid(1000));
    let mut warnings = Vec::new();
    let compiled = match compiled {
        Err(faults) => Err(faults),
        Ok(set) => {
            warnings = self::warnings(&set, &sources, now);
            if arguments.manifest.is_empty() {
                warnings.extend(seen(&set, daemon).await);
                warnings.sort();
                Ok(set)
            } else {
                let faults = set.unlisted(&manifest::read(&arguments.manifest, &set)?);
                if faults.is_empty() {
                    Ok(set)
                } else {
                    Err(faults)
                }
            }
        }
    };
    let report = Report::of(&sources, &compiled, &warnings);
    output.document(&report, |painter| match &compiled {
        Ok(set) => valid(set, &warnings, &sources, painter),
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
    fn of(
        sources: &[Source],
        compiled: &Result<PolicySet, Vec<Fault>>,
        warnings: &[Fault],
    ) -> Self {
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
            rules: set.map(|set| set.written_rules().count()),
            faults: faults.iter().map(FaultLine::of).collect(),
            warnings: warnings.iter().map(FaultLine::of).collect(),
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

/// What the policy's own warnings are, rules that hardly anybody can approve, and sources of credentials that fail.
fn warnings(set: &PolicySet, sources: &[Source], now: Timestamp) -> Vec<Fault> {
    // A token approves nothing: `exeat approvals` knows Unix users.
    let is_user = |name: &Arc<str>| {
        let identity = set.identity(name);
        identity.is_some_and(|identity| matches!(identity.proof, Proof::User(_)))
    };
    let asks = |rule: &&Rule| rule.effect == Effect::Approve && !rule.approvers.iter().any(is_user);
    let lonely = set.rules().iter().filter(asks).map(|rule| Fault {
        file: rule.place.file.to_string(),
        line: rule.place.span.line,
        column: rule.place.span.column,
        message: format!(
            "rule `{}` names no Unix user in `approvers`: only root can approve",
            rule.id
        ),
        hint: None,
    });
    let mut warnings = set.warnings(now);
    warnings.extend(lonely);
    warnings.extend(sources_at_fault(set, sources));
    warnings.sort();
    warnings
}

/// Names of tools that fit nothing which the daemon saw listed. Servers may list less to some, so these are no faults.
async fn seen(set: &PolicySet, daemon: &Daemon) -> Vec<Fault> {
    let why = match listed(set, daemon).await {
        Ok(Some(listed)) if !listed.is_empty() => {
            let names = |(server, tools): (Arc<str>, BTreeMap<String, _>)| {
                (server, tools.into_keys().collect())
            };
            return set.unlisted(&listed.into_iter().map(names).collect());
        }
        Ok(Some(_)) => "the daemon tells of no tools that servers listed".to_owned(),
        Ok(None) => "the daemon does not answer".to_owned(),
        Err(error) => error.message,
    };
    if names_tools(set) {
        note(&format!(
            "{why}, so names of tools are not compared with what servers list; `--manifest` names a file"
        ));
    }
    Vec::new()
}

/// Whether there is anything to compare.
fn names_tools(set: &PolicySet) -> bool {
    let named = |tools: &Selector| tools.names().is_some();
    set.servers().any(|server| !server.tools.is_empty())
        || set.rules().iter().any(|rule| named(&rule.tools))
        || set.limits().iter().any(|limit| named(&limit.tools))
}

/// Sources of credentials that tell no secret, as far as root can see without running anything.
fn sources_at_fault(set: &PolicySet, sources: &[Source]) -> Vec<Fault> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let fault = |credential: &Arc<Credential>| {
        let all = sources.iter().map(|source| Path::new(&*source.name));
        let foreign = all.map(secrets::root_alone).find_map(Result::err);
        let why = foreign.or_else(|| secrets::look(credential)?.err())?;
        Some(Fault {
            file: credential.place.file.to_string(),
            line: credential.place.span.line,
            column: credential.place.span.column,
            message: format!(
                "credential `{}` cannot be had: {}",
                credential.name,
                chain(&why)
            ),
            hint: None,
        })
    };
    set.credentials().into_iter().filter_map(fault).collect()
}

fn valid(set: &PolicySet, warnings: &[Fault], sources: &[Source], painter: Painter) -> String {
    let mut text = String::new();
    for warning in warnings {
        describe(&mut text, Tone::Doubtful, warning, sources, painter);
    }
    let counts = format!(
        ": {}, {}, {}, {}, {}\n",
        count(sources.len(), "file"),
        count(set.servers().count(), "server"),
        count(set.hosts().count(), "host"),
        count(set.identities().count(), "identity"),
        count(set.written_rules().count(), "rule"),
    );
    let valid = painter.paint(Tone::Good, "valid");
    let fingerprint = set.fingerprint();
    // Writing to a string cannot fail.
    writeln!(text, "{valid}{counts}fingerprint {fingerprint}").unwrap_or_default();
    text
}

fn invalid(faults: &[Fault], sources: &[Source], painter: Painter) -> String {
    let mut text = String::new();
    for fault in faults {
        describe(&mut text, Tone::Bad, fault, sources, painter);
    }
    text.push_str(&painter.paint(Tone::Bad, &count(faults.len(), "fault")));
    text.push('\n');
    text
}

/// `file:line:column: message`, then the line with a caret under the column, then the hint.
fn describe(text: &mut String, tone: Tone, fault: &Fault, sources: &[Source], painter: Painter) {
    let place = format!("{}:{}:{}", fault.file, fault.line, fault.column);
    let place = painter.paint(Tone::Strong, &place);
    let message = painter.paint(tone, &fault.message);
    let mut lines = vec![format!("{place}: {message}")];
    if let Some((line, before)) = excerpt(fault, sources) {
        let number = fault.line.to_string();
        let margin = " ".repeat(number.len());
        lines.push(format!(" {number} | {}", safe(&line)));
        lines.push(format!(" {margin} | {before}{}", painter.paint(tone, "^")));
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
