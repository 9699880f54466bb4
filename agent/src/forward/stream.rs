//! One direction of a standard stream: a pipe's end or a Unix socket, which others may hold too.
//!
//! A socket is never read or written in a way that could wait, whatever flags its description has: who gave it
//! holds it as well and may change them. Pipes are opened anew for this process alone before they come here.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, Ready};

use crate::channel::watch;

/// One direction of a standard stream.
#[derive(Debug)]
pub struct Stream {
    inner: AsyncFd<OwnedFd>,
    socket: bool,
}

impl Stream {
    /// Takes over a descriptor that is a pipe's end, opened for this process alone and non-blocking, or a
    /// connected Unix socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says, or that it is neither.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let mode = rustix::fs::fstat(&descriptor)?.st_mode;
        let socket = match FileType::from_raw_mode(mode) {
            FileType::Fifo => false,
            FileType::Socket => true,
            _ => return Err(io::Error::other("neither a pipe nor a socket")),
        };
        if !socket {
            rustix::io::ioctl_fionbio(&descriptor, true)?;
        }
        let inner = watch(descriptor)?;
        Ok(Self { inner, socket })
    }

    /// To see whether the other end is there. Holds the stream open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn peer(&self) -> io::Result<Peer> {
        self.inner.get_ref().try_clone().map(Peer)
    }

    /// Appends what can be read to `buffer`, up to its capacity, and says how much that is; 0 is the end. Waits until
    /// there is something.
    ///
    /// # Errors
    /// What the kernel says, or that `buffer` has no room.
    pub async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity().saturating_sub(buffer.len());
        if room == 0 {
            return Err(io::Error::other("no room to read to"));
        }
        loop {
            let mut guard = self.inner.readable().await?;
            match guard.try_io(|_| self.receive(buffer)) {
                Ok(Ok(length)) => {
                    // A socket that gives less than there was room for is drained, and what comes next is told of: asking
                    // for it would be a call into the kernel for each message.
                    if self.socket && length > 0 && length < room {
                        guard.clear_ready_matching(Ready::READABLE);
                    }
                    return Ok(length);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // A process that ended without reading what it was sent: its end all the same.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                Ok(Err(error)) => return Err(error),
                Err(_would_wait) => {}
            }
        }
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let descriptor = self.inner.get_ref().as_fd();
        let room = spare_capacity(buffer);
        Ok(if self.socket {
            rustix::net::recv(descriptor, room, RecvFlags::DONTWAIT)?.0
        } else {
            rustix::io::read(descriptor, room)?
        })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let descriptor = self.inner.get_ref().as_fd();
        Ok(if self.socket {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::send(descriptor, bytes, flags)?
        } else {
            rustix::io::write(descriptor, bytes)?
        })
    }
}

/// The other end of a stream that is written to.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl Peer {
    /// Whether nobody is there any more, so that nothing written is read.
    pub fn is_gone(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut asked = [PollFd::new(&self.0, PollFlags::OUT)];
        let gone = PollFlags::ERR | PollFlags::HUP;
        poll(&mut asked, Some(&now)).is_ok()
            && asked.iter().any(|asked| asked.revents().intersects(gone))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(cx))?;
            match guard.try_io(|_| self.send(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_wait) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// What was written is with the kernel; the end is that this is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
