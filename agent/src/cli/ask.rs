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
pub struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// At this socket.
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where the daemon is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and hands each part of the answer to `part` as it comes.
    pub async fn each(
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
    pub async fn follow(
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
    pub async fn one<T>(
        &self,
        command: &Command,
        take: impl Fn(Reply) -> Result<T, Reply>,
    ) -> Result<T, CliError> {
        let mut found = None;
        self.each(command, |reply| {
            found = Some(take(reply).map_err(|other| unexpected(command, &other))?);
            Ok(())
        })
        .await?;
        let incomplete = ControlError::Closed { attempt: "read the answer" };
        found.ok_or_else(|| incomplete.into())
    }

    async fn open(&self, command: &Command) -> Result<Connection, CliError> {
        Ok(patient(Connection::open(&self.socket, command, &[])).await?)
    }
}

/// That `reply` does not belong to `command`.
pub fn unexpected(command: &Command, reply: &Reply) -> CliError {
    ControlError::Unexpected { command: command.name(), reply: reply.name() }.into()
}

async fn patient<T>(
    attempt: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    timeout(PATIENCE, attempt).await.unwrap_or_else(|_elapsed| {
        let seconds = PATIENCE.as_secs();
        Err(ControlError::TooSlow { attempt: "wait for the daemon's answer", seconds })
    })
}
