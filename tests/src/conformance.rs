//! Runs the conformance suite and reads what it found, so that a run through Exeat can be compared
//! with a direct one: the two must have the same checks with the same results.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::fixtures::Invocation;
use crate::process::run;

/// How long a whole set may take; a direct run takes about 3 s.
const LIMIT: Duration = Duration::from_mins(3);

/// Which revision's requirements are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirements {
    /// 2025-11-25: sessions, GET streams, requests from the server.
    Legacy,
    /// 2026-07-28: stateless.
    Modern,
}

impl Requirements {
    fn name(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// One check of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// The scenario's name.
    pub scenario: String,
    /// The check's id.
    pub id: String,
    /// `SUCCESS`, `FAILURE`, `SKIPPED`, `INFO`, `WARNING`.
    pub status: String,
}

/// What a run found: each check with how often it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    checks: BTreeMap<Check, usize>,
}

impl Outcome {
    /// How many checks passed.
    pub fn passed(&self) -> usize {
        self.count("SUCCESS")
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count("FAILURE")
    }

    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.keys().filter(|check| check.status == "FAILURE")
    }

    /// Without what the suite only notes, such as each request that came in: a bridge may ask once more or less for
    /// the stream that nobody waits for.
    #[must_use]
    pub fn judged(mut self) -> Self {
        self.checks.retain(|check, _| check.status != "INFO");
        self
    }

    /// What differs between two runs, a line for each; empty: nothing.
    pub fn difference(&self, other: &Self) -> String {
        let only = |mark: &str, one: &Self, two: &Self| {
            let differs = |(check, count): &(&Check, &usize)| two.checks.get(check) != Some(*count);
            let write = |text: String, (check, count)| text + &format!("{mark} {check} x{count}\n");
            one.checks.iter().filter(differs).fold(String::new(), write)
        };
        only("-", self, other) + &only("+", other, self)
    }

    fn count(&self, status: &str) -> usize {
        self.checks
            .iter()
            .filter(|(check, _)| check.status == status)
            .map(|(_, count)| count)
            .sum()
    }

    fn read(directory: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Found {
            id: String,
            status: String,
        }
        let mut outcome = Self::default();
        for path in scenarios(directory)? {
            let name = path.strip_prefix(directory).unwrap_or(&path);
            let name = name.to_string_lossy().into_owned();
            // A scenario that broke off has written no checks; that it did is what it found.
            let found = match fs::read_to_string(path.join("checks.json")) {
                Ok(text) => serde_json::from_str(&text).context("parse checks")?,
                Err(error) if error.kind() == ErrorKind::NotFound => vec![Found {
                    id: "-".into(),
                    status: "BROKEN_OFF".into(),
                }],
                Err(error) => {
                    return Err(error).with_context(|| format!("read the checks of {name}"));
                }
            };
            for Found { id, status } in found {
                let scenario = scenario(&name).to_owned();
                let check = Check {
                    scenario,
                    id,
                    status,
                };
                *outcome.checks.entry(check).or_default() += 1;
            }
        }
        ensure!(!outcome.checks.is_empty(), "the suite made no checks");
        Ok(outcome)
    }
}

impl Display for Check {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.scenario, self.id, self.status)
    }
}

impl Display for Outcome {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for check in self.failures() {
            writeln!(formatter, "{check}")?;
        }
        write!(
            formatter,
            "{} passed, {} failed",
            self.passed(),
            self.failed()
        )
    }
}

/// The directory of each scenario; those with a slash in their names lie one level deeper.
fn scenarios(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).context("list the suite's output")? {
        let path = entry.context("list the suite's output")?.path();
        if path.to_string_lossy().ends_with('Z') {
            found.push(path);
        } else if path.is_dir() {
            found.extend(scenarios(&path)?);
        }
    }
    Ok(found)
}

/// `server-tools-list-2026-11-21T01-42-51-173Z` is `tools-list`.
fn scenario(directory: &str) -> &str {
    let name = directory.strip_prefix("server-").unwrap_or(directory);
    let stamp = "-2026-11-21T01-42-51-173Z".len();
    name.get(..name.len().saturating_sub(stamp)).unwrap_or(name)
}

/// Runs the suite's server scenarios against `url`. `launcher` says where the suite itself runs:
/// directly, or as a workload.
pub async fn conformance(
    suite: &Invocation,
    launcher: impl Fn() -> Command,
    url: &str,
    requirements: Requirements,
) -> Result<Outcome> {
    let suite = suite.clone().args(["server", "--url", url]);
    outcome(suite, launcher(), requirements).await
}

/// Runs the suite's client scenarios: the suite, started by `launcher`, serves, and runs `client` (a line for
/// the shell, to which it adds a URL) for each.
pub async fn conformance_of_client(
    suite: &Invocation,
    launcher: Command,
    client: &str,
    requirements: Requirements,
) -> Result<Outcome> {
    let suite = suite.clone().args(["client", "--command", client]);
    outcome(suite, launcher, requirements).await
}

async fn outcome(
    suite: Invocation,
    launcher: Command,
    requirements: Requirements,
) -> Result<Outcome> {
    let directory = tempfile::tempdir().context("make a directory for the suite's output")?;
    let output = directory.path().join("out");
    let suite = suite
        .args(["--requirements", requirements.name(), "-o"])
        .arg(&output);
    let done = run(&mut suite.under(launcher), LIMIT).await?;
    Outcome::read(&output)
        .with_context(|| format!("the suite ended: {}{}", done.stdout, done.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[(&str, &str, &str)]) -> Outcome {
        let mut outcome = Outcome::default();
        for (scenario, id, status) in lines {
            let check = Check {
                scenario: (*scenario).into(),
                id: (*id).into(),
                status: (*status).into(),
            };
            *outcome.checks.entry(check).or_default() += 1;
        }
        outcome
    }

    #[test]
    fn names_scenarios_and_differences() {
        assert_eq!(
            scenario("server-tools-list-2026-11-21T01-42-51-173Z"),
            "tools-list"
        );
        let direct = outcome(&[
            ("ping", "a", "SUCCESS"),
            ("ping", "a", "SUCCESS"),
            ("ping", "b", "SUCCESS"),
        ]);
        let through = outcome(&[("ping", "a", "SUCCESS"), ("ping", "b", "FAILURE")]);
        assert_eq!(direct.difference(&direct.clone()), "");
        let want =
            "- ping a SUCCESS x2\n- ping b SUCCESS x1\n+ ping a SUCCESS x1\n+ ping b FAILURE x1\n";
        assert_eq!(direct.difference(&through), want);
    }
}
