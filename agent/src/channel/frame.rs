//! One packet: a tag, a body, descriptors beside it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use zeroize::{Zeroize as _, Zeroizing};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Descriptors that one packet may bring.
pub const MAX_DESCRIPTORS: usize = 64;
/// Largest body inside a packet; well under the default send buffer, so that no packet is refused
/// for its size alone.
pub(super) const MAX_INLINE: usize = 64 << 10;
/// Largest body beside a packet, in a sealed memory file.
pub(super) const MAX_BESIDE: usize = 32 << 20;

const INLINE: u8 = b'i';
const BESIDE: u8 = b'm';

/// Why a message was not sent or not taken.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// No socket pair could be made.
    #[error("creating the channel to the gate")]
    Create(#[source] io::Error),
    /// The socket refused.
    #[error("sending on the channel")]
    Send(#[source] io::Error),
    /// The socket refused.
    #[error("receiving on the channel")]
    Receive(#[source] io::Error),
    /// The other end takes nothing any more.
    #[error("the other end of the channel did not take a message in time")]
    Stuck,
    /// Larger than the channel carries.
    #[error("a message of {0} bytes exceeds the channel's limit")]
    TooLarge(usize),
    /// More than [`MAX_DESCRIPTORS`].
    #[error("a message with {0} descriptors exceeds the channel's limit")]
    TooManyDescriptors(usize),
    /// Not a message of this direction.
    #[error("malformed message on the channel: {0}")]
    Malformed(&'static str),
    /// Not a message of this direction.
    #[error("message on the channel does not parse")]
    Parse(#[source] serde_json::Error),
    /// A message could not be written as JSON.
    #[error("writing a message for the channel")]
    Encode(#[source] serde_json::Error),
}

/// A packet as received.
#[derive(Debug)]
pub struct Frame {
    /// Without the tag; it may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
    /// Close on exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends one packet. A body too large for a packet goes into a sealed memory file, which only a
/// receiver that asked for it takes.
pub fn send_frame(
    socket: BorrowedFd<'_>,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    if descriptors.len() >= MAX_DESCRIPTORS {
        return Err(ChannelError::TooManyDescriptors(descriptors.len()));
    }
    if body.len() <= MAX_INLINE {
        return send(socket, &[INLINE], body, descriptors);
    }
    if body.len() > MAX_BESIDE {
        return Err(ChannelError::TooLarge(body.len()));
    }
    let file = sealed(body).map_err(ChannelError::Send)?;
    let mut all = Vec::with_capacity(descriptors.len() + 1);
    all.push(file.as_fd());
    all.extend_from_slice(descriptors);
    send(socket, &[BESIDE], &[], &all)
}

fn send(
    socket: BorrowedFd<'_>,
    tag: &[u8],
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ChannelError::TooManyDescriptors(descriptors.len()));
    }
    let parts = [IoSlice::new(tag), IoSlice::new(body)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| ChannelError::Send(e.into()))
}

fn sealed(body: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("exeat-message", flags)?);
    file.write_all(body)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Receives one packet; `None` once the other end is closed. Only with `trusted` are descriptors
/// and bodies in memory files taken; without it the kernel drops what came along and the packet
/// is an error.
pub fn receive_frame(socket: BorrowedFd<'_>, trusted: bool) -> Result<Option<Frame>, ChannelError> {
    let mut bytes = vec![0; MAX_INLINE + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = if trusted {
        RecvAncillaryBuffer::new(&mut space)
    } else {
        RecvAncillaryBuffer::default()
    };
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut parts, &mut control, flags)
        .map_err(|e| ChannelError::Receive(e.into()))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(ChannelError::Malformed("packet longer than the limit"));
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(ChannelError::Malformed("unexpected descriptors"));
    }
    bytes.truncate(got.bytes);
    match bytes.split_first() {
        None => Ok(None),
        Some((&INLINE, body)) => {
            let body = Zeroizing::new(body.to_vec());
            bytes.as_mut_slice().zeroize();
            Ok(Some(Frame { body, descriptors }))
        }
        Some((&BESIDE, [])) if trusted && !descriptors.is_empty() => {
            let body = read_sealed(descriptors.remove(0))?.into();
            Ok(Some(Frame { body, descriptors }))
        }
        Some(_) => Err(ChannelError::Malformed("unknown tag")),
    }
}

fn read_sealed(file: OwnedFd) -> Result<Vec<u8>, ChannelError> {
    let failed = |e: rustix::io::Errno| ChannelError::Receive(e.into());
    let seals = rustix::fs::fcntl_get_seals(&file).map_err(failed)?;
    if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK) {
        return Err(ChannelError::Malformed("body is not sealed"));
    }
    let mut file = File::from(file);
    io::Seek::rewind(&mut file).map_err(ChannelError::Receive)?;
    let limit = u64::try_from(MAX_BESIDE).unwrap_or(u64::MAX);
    let mut body = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut body)
        .map_err(ChannelError::Receive)?;
    if body.len() > MAX_BESIDE {
        return Err(ChannelError::TooLarge(body.len()));
    }
    Ok(body)
}
