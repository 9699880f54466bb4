//! DNS over a stream: two bytes of length before each message (RFC 1035 section 4.2.2, RFC 7766).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Bounds of one stream.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The longest message read, in bytes.
    pub message: usize,
    /// How many messages one stream may carry.
    pub messages: usize,
    /// How long one message may take to arrive, counted from the end of the one before.
    pub idle: Duration,
    /// How long one answer may take to be written.
    pub write: Duration,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            message: 1024,
            messages: 256,
            idle: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

/// The stream cannot go on and is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
    /// The peer announced more than is read.
    #[error("a message of {length} bytes was announced; at most {limit} are read")]
    TooLong {
        /// As announced.
        length: usize,
        /// As configured.
        limit: usize,
    },
    /// The stream carried as many messages as it may.
    #[error("the stream carried {limit} messages already")]
    TooMany {
        /// As configured.
        limit: usize,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Cut,
    /// No whole message came in time, or the peer did not read its answer.
    #[error("the peer was idle for too long")]
    Idle,
    /// The socket failed.
    #[error("cannot use the stream")]
    Io(#[source] io::Error),
}

/// A stream of messages; reads no further than the message that is asked for.
#[derive(Debug)]
pub struct Frames<S> {
    stream: S,
    limits: FrameLimits,
    read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Wraps a connected stream.
    pub fn new(stream: S, limits: FrameLimits) -> Self {
        Self {
            stream,
            limits,
            read: 0,
        }
    }

    /// The next message; `None` at an end between messages.
    ///
    /// Not cancel-safe: after a dropped call the stream is out of step and must be closed.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FrameFault> {
        if self.read >= self.limits.messages {
            return Err(FrameFault::TooMany {
                limit: self.limits.messages,
            });
        }
        let message = timeout(
            self.limits.idle,
            read_one(&mut self.stream, self.limits.message),
        )
        .await
        .map_err(|_elapsed| FrameFault::Idle)??;
        self.read += 1;
        Ok(message)
    }

    /// Writes one message with its length.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), FrameFault> {
        timeout(self.limits.write, write_one(&mut self.stream, message))
            .await
            .map_err(|_elapsed| FrameFault::Idle)?
    }

    /// The stream, for its orderly end.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

pub(super) async fn read_one<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: usize,
) -> Result<Option<Vec<u8>>, FrameFault> {
    let mut prefix = [0_u8; 2];
    let [first, second] = &mut prefix;
    // The end of the stream is in order only before the first byte of a length.
    if stream
        .read(std::slice::from_mut(first))
        .await
        .map_err(FrameFault::Io)?
        == 0
    {
        return Ok(None);
    }
    read_all(stream, std::slice::from_mut(second)).await?;
    let length = usize::from(u16::from_be_bytes(prefix));
    if length > limit {
        return Err(FrameFault::TooLong { length, limit });
    }
    let mut message = vec![0; length];
    read_all(stream, &mut message).await?;
    Ok(Some(message))
}

async fn read_all<S: AsyncRead + Unpin>(stream: &mut S, into: &mut [u8]) -> Result<(), FrameFault> {
    match stream.read_exact(into).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Err(FrameFault::Cut),
        Err(fault) => Err(FrameFault::Io(fault)),
    }
}

pub(super) async fn write_one<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &[u8],
) -> Result<(), FrameFault> {
    let limit = usize::from(u16::MAX);
    let Ok(length) = u16::try_from(message.len()) else {
        return Err(FrameFault::TooLong {
            length: message.len(),
            limit,
        });
    };
    // One write, so that length and message travel in one segment (RFC 7766 section 8).
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await.map_err(FrameFault::Io)?;
    stream.flush().await.map_err(FrameFault::Io)
}

#[cfg(test)]
mod tests;
