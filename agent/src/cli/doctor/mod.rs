//! `exeat doctor`: what this machine supports, and the sentence to act on.

mod machine;
mod runtimes;
mod trial;

use super::args::DoctorArguments;
use super::ask::{Daemon, unexpected};
use super::error::{CliError, Kind};
use super::output::{Cell, Output, Painter, Table, Tone};
use crate::config::Config;
use crate::control::reply::{Check, Health};
use crate::control::{Command, Reply};

/// Looks at everything; fails where something does not work.
pub(super) async fn run(
    arguments: &DoctorArguments,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    let mut checks = machine::checks(config);
    checks.extend(ask(daemon).await?);
    if !arguments.no_runtimes {
        checks.extend(runtimes::checks().await?);
    }
    output.document(&checks, |painter| text(&checks, painter))?;
    let worst = checks.iter().map(|check| check.standing).max();
    if worst == Some(Health::Fail) {
        Err(CliError::found())
    } else {
        Ok(())
    }
}

/// What the daemon says of itself; its absence is a finding like any other.
async fn ask(daemon: &Daemon) -> Result<Vec<Check>, CliError> {
    let mut checks = Vec::new();
    let asked = daemon
        .each(&Command::Doctor, |reply| match reply {
            Reply::Check(check) => {
                checks.push(check);
                Ok(())
            }
            other => Err(unexpected(&Command::Doctor, other.name())),
        })
        .await;
    match asked {
        Ok(()) => {
            checks.insert(0, ok("daemon", "it answers"));
            Ok(checks)
        }
        Err(error) if error.kind == Kind::Unreachable => {
            let remedy = error.next.unwrap_or_default();
            Ok(vec![warn("daemon", error.message, remedy)])
        }
        Err(error) => Err(error),
    }
}

fn ok(subject: &str, found: impl Into<String>) -> Check {
    check(subject, Health::Ok, found, None)
}

fn warn(subject: &str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    check(subject, Health::Warn, found, Some(remedy.into()))
}

fn fail(subject: &str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    check(subject, Health::Fail, found, Some(remedy.into()))
}

fn check(
    subject: &str,
    standing: Health,
    found: impl Into<String>,
    remedy: Option<String>,
) -> Check {
    Check {
        subject: subject.to_owned(),
        standing,
        found: found.into(),
        remedy,
    }
}

fn text(checks: &[Check], painter: Painter) -> String {
    let mut table = Table::new(&["", "", ""]);
    for check in checks {
        let (tone, word) = match check.standing {
            Health::Ok => (Tone::Good, "OK"),
            Health::Warn => (Tone::Doubtful, "WARN"),
            Health::Fail => (Tone::Bad, "FAIL"),
        };
        let subject = check.subject.as_str();
        table.row([
            Cell::new(tone, word),
            Cell::new(Tone::Strong, subject),
            check.found.as_str().into(),
        ]);
        if let Some(remedy) = &check.remedy {
            table.row([
                "".into(),
                "".into(),
                Cell::new(Tone::Quiet, format!("-> {remedy}")),
            ]);
        }
    }
    table.render(painter)
}

#[cfg(test)]
mod tests;
