//! The client's side: one connection, one command, its answer.

use std::os::fd::OwnedFd;
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
    pub(super) stream: UnixStream,
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
    /// Connects to the daemon at `path` and sends `command`.
    pub async fn open(path: &Path, command: &Command) -> Result<Self, ControlError> {
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
        let sent = frame::write_all(&stream, &frame).await;
        sent.map_err(|source| ControlError::Io {
            attempt: "write a command",
            source,
        })?;
        Ok(Self {
            stream,
            incoming: Incoming::new(MAX_REPLY),
            ended: false,
        })
    }

    /// The first part of the answer to a `run`, with the descriptors that came along: three with
    /// [`Reply::Streams`], else none. To be called once, before [`Connection::next`]; not cancel-safe.
    pub async fn first(&mut self) -> Result<(Answer, Vec<OwnedFd>), ControlError> {
        let (body, descriptors) =
            descriptors::receive(&self.stream, MAX_REPLY, descriptors::STREAMS).await?;
        let answer = self.read(frame::decode(&body)?);
        let allowed = match answer {
            Answer::Reply(Reply::Streams) => descriptors::STREAMS,
            _ => 0,
        };
        let found = descriptors.len();
        if found != allowed {
            return Err(ControlError::Descriptors { found, allowed });
        }
        Ok((answer, descriptors))
    }

    /// The next part of the answer; after its end, `Done` for ever. Cancel-safe.
    pub async fn next(&mut self) -> Result<Answer, ControlError> {
        if self.ended {
            return Ok(Answer::Done);
        }
        // Without its last frame an answer is not known to be whole.
        let message = self.incoming.next::<Message>(&self.stream).await?;
        let message = message.ok_or(ControlError::Closed {
            attempt: "read the answer",
        })?;
        Ok(self.read(message))
    }

    fn read(&mut self, message: Message) -> Answer {
        let answer = match message {
            Message::Reply(reply) => return Answer::Reply(reply),
            Message::Done => Answer::Done,
            Message::Failed(failure) => Answer::Failed(failure),
        };
        self.ended = true;
        answer
    }

    /// Passes a signal on to the server that this connection's `run` started.
    pub async fn signal(&mut self, signal: Signal) -> Result<(), ControlError> {
        frame::write(&self.stream, &signal, MAX_REQUEST, SIGNAL_DEADLINE).await
    }
}
