//! Frames: a length as four bytes, most significant first, then that many bytes of JSON.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::ControlError;

/// Bytes of a frame's length.
pub const PREFIX: usize = 4;
/// Largest frame that a client may send, in bytes of JSON.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Largest frame that the daemon sends, in bytes of JSON: room for one audit record.
pub const MAX_REPLY: usize = 4 * 1024 * 1024;

/// Bytes taken from the socket at once.
const CHUNK: usize = 8 * 1024;

/// The announced length of a frame, where `limit` allows it.
pub fn length(prefix: [u8; PREFIX], limit: usize) -> Result<usize, ControlError> {
    let announced = u32::from_be_bytes(prefix);
    usize::try_from(announced)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or_else(|| ControlError::FrameTooLarge {
            length: u64::from(announced),
            limit,
        })
}

/// The bytes of a frame that holds `value`.
pub fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, ControlError> {
    let mut frame = vec![0; PREFIX];
    serde_json::to_writer(&mut frame, value)
        .map_err(|source| ControlError::Unwritable { source })?;
    let length = frame.len().saturating_sub(PREFIX);
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= limit)
        .ok_or(ControlError::FrameNotSent { length, limit })?;
    if let Some(place) = frame.first_chunk_mut() {
        *place = prefix.to_be_bytes();
    }
    Ok(frame)
}

/// The value in a frame's body; trailing data is an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|source| ControlError::Malformed { source })
}

/// What has arrived of the frames to come; survives the cancellation of [`Incoming::next`].
#[derive(Debug)]
pub struct Incoming {
    buffer: Vec<u8>,
    limit: usize,
}

impl Incoming {
    /// Takes frames of up to `limit` bytes of JSON.
    pub const fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            limit,
        }
    }

    /// The next frame; `None`: the other side closed between frames. Cancel-safe.
    pub async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
    ) -> Result<Option<T>, ControlError> {
        const ATTEMPT: &str = "read a frame";
        // A plain read discards descriptors that ride along, so none can be left behind here.
        loop {
            if let Some(frame) = self.take()? {
                return decode(&frame).map(Some);
            }
            match read_some(stream, &mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(ControlError::Closed { attempt: ATTEMPT }),
                Ok(_more) => {}
                Err(source) => {
                    return Err(ControlError::Io {
                        attempt: ATTEMPT,
                        source,
                    });
                }
            }
        }
    }

    /// Takes the first frame's body out of the buffer, once it is complete.
    fn take(&mut self) -> Result<Option<Vec<u8>>, ControlError> {
        let Some((prefix, body)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = length(*prefix, self.limit)?;
        let Some(frame) = body.get(..length) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.buffer.drain(..length.saturating_add(PREFIX));
        Ok(Some(frame))
    }
}

/// Writes one frame within `deadline`: who does not read is let go.
pub async fn write<T: Serialize>(
    stream: &UnixStream,
    value: &T,
    limit: usize,
    deadline: Duration,
) -> Result<(), ControlError> {
    const ATTEMPT: &str = "write a frame";
    let frame = encode(value, limit)?;
    match timeout(deadline, write_all(stream, &frame)).await {
        Ok(written) => written.map_err(|source| ControlError::Io {
            attempt: ATTEMPT,
            source,
        }),
        Err(_elapsed) => Err(ControlError::TooSlow {
            attempt: ATTEMPT,
            seconds: deadline.as_secs(),
        }),
    }
}

async fn read_some(stream: &UnixStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        buffer.reserve(CHUNK);
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

pub(super) async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
