//! One direction of a standard stream: a Unix socket of whose pair this process alone holds this end.
//!
//! It is never read or written in a way that could wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::channel::watch;

/// A stream that is read.
#[derive(Debug)]
pub struct Source(AsyncFd<OwnedFd>);

/// A stream that is written.
///
/// The kernel is asked to tell of room only while it is waited for: of a Unix socket it tells whenever the other end
/// has read something, which is once for each message.
#[derive(Debug)]
pub struct Sink(OwnedFd);

impl Source {
    /// Takes over a connected Unix socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says, or that it is none.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        watch(socket(descriptor)?, Interest::READABLE).map(Self)
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
            let mut guard = self.0.readable().await?;
            match guard.try_io(|inner| receive(inner.get_ref(), buffer)) {
                Ok(Ok(length)) => {
                    // A socket that gives less than there was room for is drained, and what comes next is told of: asking
                    // for it would be a call into the kernel for each message.
                    if length > 0 && length < room {
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
}

impl Sink {
    /// Takes over a connected Unix socket.
    ///
    /// # Errors
    /// What the kernel says, or that it is none.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        socket(descriptor).map(Self)
    }

    /// To see whether the other end is there. Holds the stream open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn peer(&self) -> io::Result<Peer> {
        self.0.try_clone().map(Peer)
    }

    /// Writes all of `bytes`; waits for room. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says: nobody reads any more, or it has no memory.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !bytes.is_empty() {
            match rustix::net::send(&self.0, bytes, flags) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let room = watch(self.0.as_fd(), Interest::WRITABLE)?;
                    let _ready = room.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn socket(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    let mode = rustix::fs::fstat(&descriptor)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Socket => Ok(descriptor),
        _ => Err(io::Error::other("not a socket")),
    }
}

fn receive(descriptor: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(descriptor, spare_capacity(buffer), RecvFlags::DONTWAIT)?;
    Ok(length)
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_its_time_gets_everything() {
        let (mut reads, writes) = UnixStream::pair().unwrap();
        let sink = Sink::new(writes.into()).unwrap();
        let bytes = vec![b'x'; 4 << 20];
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reads.read_to_end(&mut all).map(|_| all.len())
        });
        sink.write_all(&bytes).await.unwrap();
        drop(sink);
        assert_eq!(read.await.unwrap().unwrap(), bytes.len());
    }

    #[tokio::test]
    async fn a_reader_that_goes_while_it_is_waited_for_is_noticed() {
        let (reads, writes) = UnixStream::pair().unwrap();
        let sink = Sink::new(writes.into()).unwrap();
        let bytes = vec![b'x'; 4 << 20];
        let (written, ()) = tokio::join!(sink.write_all(&bytes), async {
            tokio::task::yield_now().await;
            drop(reads);
        });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_taken() {
        let (reads, writes) = io::pipe().unwrap();
        Source::new(reads.into()).unwrap_err();
        Sink::new(writes.into()).unwrap_err();
    }

    #[tokio::test]
    async fn an_end_is_read_once_and_again() {
        let (reads, writes) = UnixStream::pair().unwrap();
        let source = Source::new(reads.into()).unwrap();
        let sink = Sink::new(writes.into()).unwrap();
        let mut buffer = Vec::with_capacity(16);
        sink.write_all(b"last").await.unwrap();
        drop(sink);
        assert_eq!(source.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(source.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(source.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(buffer, b"last");
    }
}
