//! Asking the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::error::CliError;
use crate::control::client::Answer;
use crate::control::{Command, Connection, ControlError, Reply};

/// How long the daemon may be silent in an answer that is complete at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Knows where the daemon is.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// At this socket.
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where the daemon is.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and hands each part of the answer to `part` as it comes.
    pub(super) async fn each(
        &self,
        command: &Command,
        mut part: impl FnMut(Reply) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut connection = self.open(command).await?;
        loop {
            match patient(connection.next()).await? {
                Answer::Reply(reply) => part(reply)?,
                Answer::Done => return Ok(()),
                Answer::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    /// Asks for a stream: each part may take as long as it likes.
    pub(super) async fn follow(
        &self,
        command: &Command,
        mut part: impl FnMut(Reply) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut connection = self.open(command).await?;
        loop {
            match connection.next().await? {
                Answer::Reply(reply) => part(reply)?,
                Answer::Done => return Ok(()),
                Answer::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    /// Asks for the one reply that `take` takes.
    pub(super) async fn one<T>(
        &self,
        command: &Command,
        take: impl Fn(Reply) -> Option<T>,
    ) -> Result<T, CliError> {
        let mut found = None;
        self.each(command, |reply| {
            let reply_name = reply.name();
            let taken = take(reply).ok_or_else(|| unexpected(command, reply_name))?;
            found = Some(taken);
            Ok(())
        })
        .await?;
        let incomplete = ControlError::Closed {
            attempt: "read the answer",
        };
        found.ok_or_else(|| incomplete.into())
    }

    async fn open(&self, command: &Command) -> Result<Connection, CliError> {
        Ok(patient(Connection::open(&self.socket, command)).await?)
    }
}

/// That the reply of this name does not belong to `command`.
pub(super) fn unexpected(command: &Command, reply: &'static str) -> CliError {
    ControlError::Unexpected {
        command: command.name(),
        reply,
    }
    .into()
}

async fn patient<T>(
    attempt: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    timeout(PATIENCE, attempt).await.unwrap_or_else(|_elapsed| {
        let seconds = PATIENCE.as_secs();
        Err(ControlError::TooSlow {
            attempt: "wait for the daemon's answer",
            seconds,
        })
    })
}
