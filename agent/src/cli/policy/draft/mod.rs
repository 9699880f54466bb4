//! `exeat policy draft`: the least privilege that allows what was recorded as allowed, and nothing else.
//!
//! The register stays as it is written; its egress lists, the allow rules and the grants are written anew, each no
//! wider than what was seen. Rules that restrict stay, and what the rule that allowed it asks for, so that nothing becomes
//! allowed that the policy refuses.

mod compose;
mod seen;
mod shape;
#[cfg(test)]
mod tests;
mod who;
mod write;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use exeat_policy::Timestamp;
use jiff::Zoned;
use serde::Serialize;

use self::compose::Draft;
use self::seen::{Left, Seen};
use super::files;
use crate::cli::args::{DraftArguments, FilterArguments, QueryArguments};
use crate::cli::ask::Daemon;
use crate::cli::audit;
use crate::cli::error::{CliError, Kind};
use crate::cli::output::{Output, note, raw};
use crate::cli::unused::{UnusedGrant, Use};
use crate::config::Config;

/// How far back is looked where nothing is said.
const SINCE: &str = "14d";

/// The draft, for programs.
#[derive(Debug, Serialize)]
struct Report {
    /// Recorded exchanges that were allowed.
    exchanges: u64,
    /// Those that the draft leaves out, by why.
    left_out: Vec<LeftOut>,
    /// Grants of the policy that nothing needed; absent where only some of the records were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<Vec<UnusedGrant>>,
    /// The draft; absent where it was written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    why: &'static str,
    count: u64,
}

/// Drafts.
pub(super) async fn run(
    arguments: &DraftArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let path = arguments.policy.as_ref().unwrap_or(&config.policy);
    let sources = files::read(std::slice::from_ref(path))?;
    let set = files::compiled(path, &sources)?;
    let at = Timestamp::from_millis(now.timestamp().as_millisecond());
    let mut records = arguments.records.clone();
    records.since.get_or_insert_with(|| SINCE.to_owned());
    let mut seen = Seen::default();
    let mut used = Use::new(at);
    audit::each(&records, config, daemon, now, |line| {
        let record = serde_json::from_str(line)
            .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
        seen.note(&set, &record, at);
        used.note(&set, &record);
        Ok(())
    })
    .await?;
    seen.end();
    let since = records.since.clone().unwrap_or_default();
    // Of some of the records, nobody can tell what the others needed.
    let unused = is_all(&records).then(|| used.end(&set, since));
    let unused = unused.map(|unused| unused.grants);
    let mut draft = Draft::new(&set, &sources, seen)?;
    draft.unused.extend(unused.iter().flatten().cloned());
    let drafted = draft.policy()?;
    let mut report = Report {
        exchanges: drafted.seen.exchanges,
        left_out: drafted.left_out(),
        unused,
        policy: None,
    };
    match &arguments.output {
        Some(file) => write(file, &drafted.text)?,
        None => report.policy = Some(drafted.text),
    }
    if output.json() {
        output.document(&report, |_| String::new())?;
    } else if let Some(policy) = &report.policy {
        raw(policy)?;
    }
    for LeftOut { why, count } in &report.left_out {
        note(&format!("left out: {count} {why}"));
    }
    match &report.unused {
        None => note("unused grants are named where all records of the time are looked at"),
        Some(unused) => {
            for grant in unused {
                note(&format!("unused grant: {grant} ({})", grant.place));
            }
        }
    }
    if report.left_out.is_empty() {
        return Ok(());
    }
    Err(CliError::new(Kind::Refused, ""))
}

/// Whether nothing but a time narrows the records.
fn is_all(records: &QueryArguments) -> bool {
    records.filter == FilterArguments::default() && records.limit.is_none()
}

/// A new file: a draft replaces nothing.
fn write(file: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error| CliError::io(format_args!("write `{}`", file.display()), &error);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o640);
    let mut file = options.open(file).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

impl Left {
    const fn words(self) -> &'static str {
        match self {
            Self::Caller => {
                "of which the record does not tell whose token or certificate was shown"
            }
            Self::Unreadable => "of which the record does not tell what was asked",
            Self::Refused => "that the policy refuses by now",
            Self::Untellable => "that no rule can tell from others",
            Self::Unused => "lookups and connections without a request",
            Self::Overruled => "that rules of the policy leave no room for",
        }
    }
}
