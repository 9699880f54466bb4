//! `exeat audit`: who did what.

mod view;

use jiff::Zoned;

use super::args::{AuditCommand, FilterArguments, QueryArguments};
use super::ask::{Daemon, unexpected};
use super::error::{CliError, Kind};
use super::output::Output;
use super::when::{self, Period, WhenError};
use crate::control::{Command, RecordFilter, Reply};
use crate::telemetry::clock::Timestamp;

/// Asks the log.
pub(super) async fn run(
    command: &AuditCommand,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    match command {
        AuditCommand::Query(arguments) => query(arguments, daemon, now, output).await,
        AuditCommand::Tail(arguments) => tail(arguments, daemon, now, output).await,
    }
}

async fn query(
    arguments: &QueryArguments,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    let command = Command::AuditQuery(filter(arguments, now)?);
    let mut view = view::View::new(now.time_zone().clone());
    daemon
        .each(&command, |reply| match reply {
            Reply::Record(record) => view.show(&record.line, output),
            other => Err(unexpected(&command, other.name())),
        })
        .await?;
    view.end(output)
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
        tool,
        effect,
        text,
    } = arguments.clone();
    RecordFilter {
        kind,
        server,
        tool,
        effect,
        text,
        ..RecordFilter::default()
    }
}

#[cfg(test)]
mod tests;
