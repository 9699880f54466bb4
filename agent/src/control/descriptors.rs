//! Commands with the descriptors that ride along (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{FileType, fstat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::error::ControlError;
use super::frame::{self, PREFIX};

/// Most descriptors that any command has.
pub(super) const MAX: usize = 3;

const READ: &str = "read a command";
const WRITE: &str = "write a command";

/// Reads one frame's body of up to `limit` bytes, and the descriptors that came with it.
///
/// Takes no byte beyond the frame. Descriptors beyond [`MAX`] are closed, by the kernel where they do
/// not fit and by their drop here where they do, and the command is refused.
pub(super) async fn receive(
    stream: &UnixStream,
    limit: usize,
) -> Result<(Vec<u8>, Vec<OwnedFd>), ControlError> {
    let mut descriptors = Vec::new();
    let read = read(stream, limit, &mut descriptors).await;
    let sockets = descriptors.iter().all(is_socket);
    match read {
        Ok(body) if sockets => Ok((body, descriptors)),
        other => {
            discard(descriptors);
            Err(other.err().unwrap_or(ControlError::ForeignDescriptor))
        }
    }
}

async fn read(
    stream: &UnixStream,
    limit: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Vec<u8>, ControlError> {
    let mut prefix = [0; PREFIX];
    fill(stream, &mut prefix, descriptors).await?;
    // The limit is small, so the announced length may be taken at its word.
    let mut body = vec![0; frame::length(prefix, limit)?];
    fill(stream, &mut body, descriptors).await?;
    Ok(body)
}

fn is_socket(descriptor: &OwnedFd) -> bool {
    fstat(descriptor)
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Socket)
}

/// Closes what a client sent. In a thread of its own: who holds another end of a pipe can make its close wait.
fn discard(descriptors: Vec<OwnedFd>) {
    if descriptors.is_empty() {
        return;
    }
    let closed = thread::Builder::new().spawn(move || drop(descriptors));
    if let Err(error) = closed {
        tracing::warn!(%error, "a client's descriptors were closed where it can make the daemon wait");
    }
}

async fn fill(
    stream: &UnixStream,
    mut buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(), ControlError> {
    while !buffer.is_empty() {
        let part = stream
            .async_io(Interest::READABLE, || receive_some(stream, buffer))
            .await
            .map_err(|source| ControlError::Io {
                attempt: READ,
                source,
            })?;
        descriptors.extend(part.descriptors);
        if part.truncated || descriptors.len() > MAX {
            return Err(ControlError::TooManyDescriptors);
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
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
