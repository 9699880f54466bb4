//! The client's side: one connection, one command, its answer.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use super::command::{Command, Signal};
use super::descriptors;
use super::error::ControlError;
use super::frame::{self, Incoming, MAX_REPLY, MAX_REQUEST};
use super::reply::{Failure, Message, Reply};

/// How long the daemon may take to read a signal.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);

/// A command that was sent, whose answer is read from here.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    incoming: Incoming,
    ended: bool,
}

/// What came of an answer.
#[derive(Debug)]
pub enum Answer {
    /// A part.
    Reply(Reply),
    /// It is complete.
    Done,
    /// It ends with this.
    Failed(Failure),
}

impl Connection {
    /// Connects to the daemon at `path` and sends `command` with the descriptors that belong to it.
    pub async fn open(
        path: &Path,
        command: &Command,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, ControlError> {
        if descriptors.len() != command.descriptors() {
            return Err(ControlError::Descriptors {
                command: command.name(),
                found: descriptors.len(),
                expected: command.descriptors(),
            });
        }
        command
            .check()
            .map_err(|source| ControlError::Invalid { source })?;
        let frame = frame::encode(command, MAX_REQUEST)?;
        let stream =
            UnixStream::connect(path)
                .await
                .map_err(|source| ControlError::Unreachable {
                    path: path.to_owned(),
                    source,
                })?;
        descriptors::send(&stream, &frame, descriptors).await?;
        Ok(Self {
            stream,
            incoming: Incoming::new(MAX_REPLY),
            ended: false,
        })
    }

    /// The next part of the answer; after its end, `Done` for ever. Cancel-safe.
    pub async fn next(&mut self) -> Result<Answer, ControlError> {
        if self.ended {
            return Ok(Answer::Done);
        }
        let message = self.incoming.next::<Message>(&self.stream).await?;
        let answer = match message {
            Some(Message::Reply(reply)) => return Ok(Answer::Reply(reply)),
            Some(Message::Done) => Answer::Done,
            Some(Message::Failed(failure)) => Answer::Failed(failure),
            // Without its last frame an answer is not known to be whole.
            None => {
                return Err(ControlError::Closed {
                    attempt: "read the answer",
                });
            }
        };
        self.ended = true;
        Ok(answer)
    }

    /// Passes a signal on to the server that this connection's `run` started.
    pub async fn signal(&mut self, signal: Signal) -> Result<(), ControlError> {
        frame::write(&self.stream, &signal, MAX_REQUEST, SIGNAL_DEADLINE).await
    }
}
