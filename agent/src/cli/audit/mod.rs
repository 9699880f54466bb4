//! `exeat audit`: who did what.

mod verify;
mod view;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use rustix::process::geteuid;

use super::args::{AuditCommand, DirectoryArguments, FilterArguments, QueryArguments};
use super::ask::{Daemon, unexpected};
use super::error::{CliError, Kind};
use super::output::{self, Output};
use super::when::{self, Period, WhenError};
use crate::audit::{ReadError, Segments, schema};
use crate::config::Config;
use crate::control::records::{self, Owner};
use crate::control::{Command, RecordFilter, Reply};
use crate::telemetry::clock::Timestamp;

/// Asks the log.
pub(super) async fn run(
    command: &AuditCommand,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    match command {
        AuditCommand::Query(arguments) => query(arguments, config, daemon, now, output).await,
        AuditCommand::Tail(arguments) => tail(arguments, daemon, now, output).await,
        AuditCommand::Schema => output.schema(&schema()),
        AuditCommand::Verify(arguments) => {
            let directory = directory(&arguments.directory, config);
            verify::run(&directory, &arguments.known, output)
        }
    }
}

async fn query(
    arguments: &QueryArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let mut view = view::View::new(now.time_zone().clone());
    each(arguments, config, daemon, now, |line| {
        view.show(line, output)
    })
    .await?;
    view.end(output)
}

/// Hands the lines of the records that `arguments` ask for to `each`, oldest first: from the daemon, or from the
/// segments where they say so, or where root asks and the daemon does not answer.
pub(in crate::cli) async fn each(
    arguments: &QueryArguments,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    mut each: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let filter = filter(arguments, now)?;
    let directory = directory(&arguments.directory, config);
    if arguments.directory.dir.is_some() {
        return read(&directory, &filter, each);
    }
    let command = Command::AuditQuery(filter.clone());
    let asked = daemon.each(&command, |reply| match reply {
        Reply::Record(record) => each(&record.line),
        other => Err(unexpected(&command, other.name())),
    });
    match asked.await {
        Err(error) if error.kind == Kind::Unreachable && geteuid().is_root() => {
            let place = directory.display();
            output::note(&format!(
                "the daemon does not answer, so `{place}` is read directly"
            ));
            read(&directory, &filter, each)
        }
        asked => asked,
    }
}

/// Reads the segments themselves; the file system says whether this user may.
fn read(
    directory: &Path,
    filter: &RecordFilter,
    mut each: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let failed = |error: ReadError| CliError::from_error(Kind::Usage, &error);
    let segments = Segments::open(directory).map_err(failed)?;
    let mut shown = Ok(());
    records::select(&segments, filter, Owner::Anybody, |line| {
        shown = each(&line);
        if shown.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .map_err(failed)?;
    shown
}

fn directory(arguments: &DirectoryArguments, config: &Config) -> PathBuf {
    arguments
        .dir
        .clone()
        .unwrap_or_else(|| config.state_dir.join("audit"))
}

async fn tail(
    arguments: &FilterArguments,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let command = Command::AuditTail(restricted(arguments));
    let mut view = view::View::live(now.time_zone().clone());
    daemon
        .follow(&command, |reply| match reply {
            Reply::Record(record) => view.show(&record.line, output),
            other => Err(unexpected(&command, other.name())),
        })
        .await
}

/// The filter that the arguments mean at `now`.
fn filter(arguments: &QueryArguments, now: &Zoned) -> Result<RecordFilter, CliError> {
    let time = |text: &Option<String>, end: fn(Period) -> jiff::Timestamp| {
        let period = text
            .as_deref()
            .map(|text| when::parse(text, now))
            .transpose()?;
        Ok::<_, WhenError>(
            period.map(|period| Timestamp::from_microseconds(end(period).as_microsecond())),
        )
    };
    let wrong = |error: WhenError| CliError::from_error(Kind::Usage, &error);
    let since = time(&arguments.since, |period| period.start).map_err(wrong)?;
    let until = time(&arguments.until, |period| period.end).map_err(wrong)?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let message = format!("look from {since} to {until}: the end is before the beginning");
        return Err(CliError::new(Kind::Usage, message));
    }
    Ok(RecordFilter {
        since,
        until,
        limit: arguments.limit,
        ..restricted(&arguments.filter)
    })
}

fn restricted(arguments: &FilterArguments) -> RecordFilter {
    let FilterArguments {
        kind,
        server,
        caller,
        tool,
        effect,
        status,
        cause,
        text,
    } = arguments.clone();
    let (since, until, limit) = (None, None, None);
    RecordFilter {
        since,
        until,
        kind,
        server,
        caller,
        tool,
        effect,
        status,
        cause,
        text,
        limit,
    }
}

#[cfg(test)]
mod tests;
