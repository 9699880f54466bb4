//! Frames with the descriptors that ride along (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::error::ControlError;
use super::frame::{self, PREFIX};

/// Descriptors that come with the first reply to a `run`.
pub(super) const STREAMS: usize = 3;
/// Most that one message can bring (`SCM_MAX_FD`): with room for all, the kernel closes none in the reader's thread.
const MOST: usize = 253;

const READ: &str = "read a command";
const WRITE: &str = "write the streams";

/// Reads one frame's body of up to `limit` bytes, and the descriptors that came with it.
///
/// Takes no byte beyond the frame. With more than `allowed` descriptors it is refused, and they are closed.
pub(super) async fn receive(
    stream: &UnixStream,
    limit: usize,
    allowed: usize,
) -> Result<(Vec<u8>, Vec<OwnedFd>), ControlError> {
    let mut came = Came {
        descriptors: Vec::new(),
        allowed,
    };
    let body = read(stream, limit, &mut came).await?;
    Ok((body, mem::take(&mut came.descriptors)))
}

/// What came so far; closed with it, also where the reader is cancelled.
struct Came {
    descriptors: Vec<OwnedFd>,
    allowed: usize,
}

/// In a thread of its own: who holds another end of a pipe can make its close wait.
impl Drop for Came {
    fn drop(&mut self) {
        let descriptors = mem::take(&mut self.descriptors);
        if descriptors.is_empty() {
            return;
        }
        let closed = thread::Builder::new().spawn(move || drop(descriptors));
        if let Err(error) = closed {
            tracing::warn!(%error, "descriptors were closed where their sender can make the daemon wait");
        }
    }
}

async fn read(stream: &UnixStream, limit: usize, came: &mut Came) -> Result<Vec<u8>, ControlError> {
    let mut prefix = [0; PREFIX];
    fill(stream, &mut prefix, came).await?;
    // The limit is small, so the announced length may be taken at its word.
    let mut body = vec![0; frame::length(prefix, limit)?];
    fill(stream, &mut body, came).await?;
    Ok(body)
}

async fn fill(
    stream: &UnixStream,
    mut buffer: &mut [u8],
    came: &mut Came,
) -> Result<(), ControlError> {
    while !buffer.is_empty() {
        let part = stream
            .async_io(Interest::READABLE, || receive_some(stream, buffer))
            .await
            .map_err(|source| ControlError::Io {
                attempt: READ,
                source,
            })?;
        came.descriptors.extend(part.descriptors);
        let found = came.descriptors.len();
        if part.truncated || found > came.allowed {
            return Err(ControlError::Descriptors {
                found,
                allowed: came.allowed,
            });
        }
        if part.bytes == 0 {
            return Err(ControlError::Closed { attempt: READ });
        }
        buffer = buffer.get_mut(part.bytes..).unwrap_or_default();
    }
    Ok(())
}

struct Part {
    bytes: usize,
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

fn receive_some(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Part> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(
        stream,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        flags,
    )?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Part {
        bytes: got.bytes,
        descriptors,
        truncated: got.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Writes a frame; the descriptors ride with its first byte.
pub(super) async fn send(
    stream: &UnixStream,
    frame: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ControlError> {
    let error = |source| ControlError::Io {
        attempt: WRITE,
        source,
    };
    let sent = stream
        .async_io(Interest::WRITABLE, || send_some(stream, frame, descriptors))
        .await
        .map_err(error)?;
    let rest = frame.get(sent..).unwrap_or_default();
    frame::write_all(stream, rest).await.map_err(error)
}

fn send_some(
    stream: &UnixStream,
    frame: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        stream,
        &[IoSlice::new(frame)],
        &mut ancillary,
        flags,
    )?)
}
