//! `exeat run`: a registered server on these standard streams.

use std::env;
use std::io;
use std::path::Path;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::termios::tcgetwinsize;
use signal_hook::low_level::emulate_default_handler;

use super::args::RunArguments;
use super::error::{CliError, Kind};
use crate::control::reply::ExitStatus;
use crate::control::{Run, Terminal};
use crate::launch::client::{self, RunError};

/// Runs the server by the daemon at `socket` and ends as it does: the status is the server's own, and if a signal ended
/// it, the same one ends this process. It returns for one that ends nothing, with what a shell would say.
pub(super) async fn run(arguments: &RunArguments, socket: &Path) -> Result<u8, CliError> {
    let run = Run {
        server: arguments.name.clone(),
        arguments: arguments.arguments.clone(),
        // Said in JSON, which holds no other path.
        directory: env::current_dir()
            .ok()
            .filter(|directory| directory.to_str().is_some()),
        terminal: terminal(),
    };
    let ended = client::run(socket, run).await;
    let status = ended.map_err(|error| match error {
        RunError::Control(error) => error.into(),
        RunError::Failed(failure) => failure.into(),
        RunError::Over(_) => CliError::from_error(Kind::Unreachable, &error),
        RunError::NoStreams
        | RunError::Streams(_)
        | RunError::Deserted
        | RunError::Signals(_)
        | RunError::Unknown(_) => CliError::from_error(Kind::Refused, &error),
    })?;
    if let ExitStatus::Signal(signal) = status {
        // A core of this process would say nothing of the server's fault.
        let quiet = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let ended = emulate_default_handler(i32::from(signal));
        tracing::debug!(
            signal,
            ?quiet,
            ?ended,
            "the server's signal did not end this"
        );
    }
    Ok(status.shell())
}

/// The terminal that standard input is, where it is one.
fn terminal() -> Option<Terminal> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    let kind = env::var("TERM").ok().filter(|kind| !kind.is_empty())?;
    Some(Terminal {
        kind,
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
