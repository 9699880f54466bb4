//! The command line: a thin client of [`control`](crate::control), and what needs no daemon.

mod approvals;
pub mod args;
mod ask;
mod audit;
mod ca;
mod daemon;
mod discover;
mod doctor;
mod error;
mod hosts;
mod internal;
mod listed;
mod output;
mod policy;
mod register;
mod run;
mod servers;
mod status;
mod uninstall;
mod unused;
mod when;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use jiff::Zoned;
use jiff::tz::TimeZone;

use self::args::{Cli, Command, InternalCommand};
use self::ask::Daemon;
use self::error::{CliError, Kind};
use self::output::Output;
use crate::config::{self, Config};
use crate::launch::stage;
use crate::telemetry::clock;

/// Does what the command line says; the exit status tells scripts what came of it.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Before any thread is started, which this one must not have.
    if matches!(cli.command, Command::Internal(InternalCommand::Stage)) {
        return stage::run();
    }
    let output = Output::new(cli.global.json);
    match perform(&cli, output) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.kind.status())
        }
    }
}

/// Help and version are answers; everything else that clap has to say is a mistake of usage.
fn usage(error: &clap::Error) -> ExitCode {
    let told = error.print();
    match (told, error.use_stderr()) {
        (Err(failure), _) if failure.kind() != io::ErrorKind::BrokenPipe => {
            ExitCode::from(Kind::Usage.status())
        }
        (_, true) => ExitCode::from(Kind::Usage.status()),
        (_, false) => ExitCode::SUCCESS,
    }
}

/// The exit status of what succeeded: 0, but for `run`, which has the server's.
fn perform(cli: &Cli, output: Output) -> Result<u8, CliError> {
    if let Command::Internal(InternalCommand::Canary { targets }) = &cli.command {
        return internal::canary(targets).map(|()| 0);
    }
    if matches!(cli.command, Command::Internal(InternalCommand::Started)) {
        return internal::started().map(|()| 0);
    }
    if let Command::Internal(InternalCommand::Container {
        cgroup,
        name,
        deadline,
        command,
    }) = &cli.command
    {
        return internal::container(cgroup, name, *deadline, command);
    }
    if let Command::Internal(InternalCommand::Uncontain { name, wait }) = &cli.command {
        return internal::uncontain(name, *wait).map(|()| 0);
    }
    if let Command::Daemon(arguments) = &cli.command {
        return daemon::run(arguments, &cli.global).map(|()| 0);
    }
    if matches!(cli.command, Command::Gate) {
        return daemon::gate().map(|()| 0);
    }
    let config = config::load(cli.global.config.as_deref())
        .map_err(|error| CliError::from_error(Kind::Usage, &error))?;
    let socket = cli.global.socket.clone();
    let daemon = Daemon::new(socket.unwrap_or_else(|| config.run_dir.join("control.sock")));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the event loop", &error))?;
    if let Command::Run(arguments) = &cli.command {
        return runtime.block_on(run::run(arguments, daemon.socket()));
    }
    runtime
        .block_on(client(&cli.command, &config, &daemon, output))
        .map(|()| 0)
}

async fn client(
    command: &Command,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    match command {
        Command::Status(arguments) => status::run(arguments, daemon, output).await,
        Command::Servers(arguments) => {
            servers::run(arguments, config, daemon, &now(), output).await
        }
        Command::Approvals(arguments) => approvals::run(arguments, daemon, output).await,
        Command::Audit(command) => audit::run(command, config, daemon, &now(), output).await,
        Command::Policy(command) => policy::run(command, config, daemon, &now(), output).await,
        Command::Ca(command) => ca::run(command, daemon, output).await,
        Command::Hosts(command) => hosts::run(command, config, daemon, output).await,
        Command::Discover(arguments) => {
            discover::run(arguments, config, daemon, &now(), output).await
        }
        Command::Doctor(arguments) => doctor::run(arguments, config, daemon, output).await,
        Command::Uninstall => uninstall::run(config, output),
        // Done before, since they are no clients.
        Command::Daemon(_) | Command::Gate | Command::Run(_) | Command::Internal(_) => Ok(()),
    }
}

/// Now, in the user's time zone.
fn now() -> Zoned {
    let microseconds = clock::wall().microseconds();
    let timestamp = jiff::Timestamp::from_microsecond(microseconds).unwrap_or_default();
    timestamp.to_zoned(TimeZone::system())
}

#[cfg(test)]
mod tests;
