//! The two ends of the channel, for tasks.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use exeat_ebpf::refuse_descriptors;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::frame::{ChannelError, Frame, MAX_INLINE, receive_frame, send_frame};
use super::message::{Message, ToGate, ToSupervisor};

/// How long a message may wait for room in the other end's queue.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The supervisor's end.
pub type SupervisorEnd = Channel<ToGate, ToSupervisor>;
/// The gate's end.
pub type GateEnd = Channel<ToSupervisor, ToGate>;

/// One end. Packets are atomic, so any number of tasks may send through a shared reference; the
/// kernel's socket buffer is the bounded queue.
pub struct Channel<Out, In> {
    socket: AsyncFd<OwnedFd>,
    direction: PhantomData<fn(Out) -> In>,
}

impl<Out, In> fmt::Debug for Channel<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// A message with the descriptors that came along.
#[derive(Debug)]
pub struct Received<In> {
    /// What was said.
    pub message: In,
    /// In the order of sending.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected sockets, both close-on-exec and non-blocking: the supervisor's and the gate's.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ChannelError> {
    let (supervisor, gate) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| ChannelError::Create(e.into()))?;
    // To close what the gate sends could make the supervisor wait.
    refuse_descriptors(&supervisor).map_err(ChannelError::Create)?;
    Ok((supervisor, gate))
}

/// Makes a descriptor wait-able by tasks, for what `interest` names. It has to be non-blocking. Needs a tokio runtime.
#[expect(
    deprecated,
    reason = "deprecated for types whose as_raw_fd may lie; one that is `AsFd` keeps one descriptor open"
)]
pub(crate) fn watch<T: AsFd + AsRawFd>(
    descriptor: T,
    interest: Interest,
) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(descriptor, interest)
}

impl GateEnd {
    /// The gate's end, which its supervisor left as standard input. Needs a tokio runtime.
    pub fn from_stdin() -> Result<Self, ChannelError> {
        let socket = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(ChannelError::Create)?;
        Self::new(socket)
    }
}

impl<Out: Message, In: Message> Channel<Out, In> {
    /// Takes one socket of a [`pair`]. Needs a tokio runtime.
    pub fn new(socket: OwnedFd) -> Result<Self, ChannelError> {
        let socket =
            watch(socket, Interest::READABLE | Interest::WRITABLE).map_err(ChannelError::Create)?;
        Ok(Self {
            socket,
            direction: PhantomData,
        })
    }

    /// Sends `message` with `descriptors`.
    ///
    /// # Errors
    /// [`ChannelError::Stuck`] if the other end takes nothing for five seconds.
    pub async fn send(
        &self,
        message: &Out,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_within(SEND_LIMIT, message, descriptors).await
    }

    pub(super) async fn send_within(
        &self,
        limit: Duration,
        message: &Out,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        // With room for all of a secret, so that growing leaves no copy of it behind.
        let room = if message.is_secret() { MAX_INLINE } else { 0 };
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *body, message).map_err(ChannelError::Encode)?;
        match timeout(limit, self.send_body(&body, descriptors)).await {
            Ok(sent) => sent,
            Err(_elapsed) => Err(ChannelError::Stuck),
        }
    }

    async fn send_body(
        &self,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        loop {
            let mut ready = self.socket.writable().await.map_err(ChannelError::Send)?;
            match send_frame(self.socket.get_ref().as_fd(), body, descriptors) {
                Err(ChannelError::Send(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                Err(ChannelError::Send(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// The next message; `None` once the other end is closed. Safe to cancel.
    pub async fn receive(&self) -> Result<Option<Received<In>>, ChannelError> {
        loop {
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(ChannelError::Receive)?;
            match receive_frame(self.socket.get_ref().as_fd(), In::TRUSTED) {
                Err(ChannelError::Receive(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                Err(ChannelError::Receive(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(ChannelError::Receive(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Err(e) => return Err(e),
                Ok(None) => return Ok(None),
                Ok(Some(Frame { body, descriptors })) => {
                    let message = serde_json::from_slice(&body).map_err(ChannelError::Parse)?;
                    return Ok(Some(Received {
                        message,
                        descriptors,
                    }));
                }
            }
        }
    }
}
