//! `exeat run`: a registered server on these standard streams.

use std::env;
use std::io;
use std::path::Path;

use rustix::termios::tcgetwinsize;

use super::args::RunArguments;
use super::error::{CliError, Kind};
use crate::control::{Run, Terminal};
use crate::launch::client::{self, RunError};

/// Runs the server by the daemon at `socket`; the status is the server's own.
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
    client::run(socket, run).await.map_err(|error| match error {
        RunError::Control(error) => error.into(),
        RunError::Failed(failure) => failure.into(),
        RunError::Over(_) => CliError::from_error(Kind::Unreachable, &error),
        RunError::NoStreams
        | RunError::Streams(_)
        | RunError::Deserted
        | RunError::Signals(_)
        | RunError::Unknown(_) => CliError::from_error(Kind::Refused, &error),
    })
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
