//! What the daemon gets in the place of the caller's standard streams: sockets, to and from which this process
//! copies. Whatever the caller's streams are, they can make this process wait and never the daemon.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How often it is looked whether a caller whose input has ended is there at all.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that are copied at once.
const PART: usize = 64 << 10;

/// The streams, before they are handed over.
#[derive(Debug)]
pub(super) struct Streams {
    handed: [OwnedFd; 3],
    words: Words,
}

/// What is still being copied.
#[derive(Debug)]
pub(super) struct Words {
    said: Vec<oneshot::Receiver<()>>,
    /// The caller's input has ended.
    fed: Arc<AtomicBool>,
}

impl Streams {
    pub(super) fn prepare() -> io::Result<Self> {
        let fed = Arc::new(AtomicBool::new(false));
        let (input, own) = UnixStream::pair()?;
        let ended = Arc::clone(&fed);
        let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        copier("stdin", move || {
            copy(&mut from, &mut &own);
            ended.store(true, Ordering::Release);
            if let Err(error) = own.shutdown(Shutdown::Write) {
                tracing::debug!(%error, "the daemon is gone");
            }
        })?;
        let mut said = Vec::new();
        let mut out = |stream: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            let (theirs, mut own) = UnixStream::pair()?;
            let mut to = File::from(stream.try_clone_to_owned()?);
            let (done, waiting) = oneshot::channel::<()>();
            copier("copy", move || {
                copy(&mut own, &mut to);
                drop(done);
            })?;
            said.push(waiting);
            Ok(theirs.into())
        };
        let output = out(io::stdout().as_fd())?;
        let errors = out(io::stderr().as_fd())?;
        Ok(Self {
            handed: [input.into(), output, errors],
            words: Words { said, fed },
        })
    }

    /// What is sent along with the command.
    pub(super) fn handed(&self) -> [BorrowedFd<'_>; 3] {
        self.handed.each_ref().map(AsFd::as_fd)
    }

    /// Lets go of what the daemon has now.
    pub(super) fn let_go(self) -> Words {
        self.words
    }
}

impl Words {
    /// Waits until everything was copied.
    pub(super) async fn said(self) {
        for one in self.said {
            // A copier that is gone has nothing more to say either.
            let _said = one.await;
        }
    }

    /// Waits until the caller is gone: its input has ended, and nobody reads what is written.
    pub(super) async fn deserted(&self) {
        loop {
            sleep(LOOK).await;
            if self.fed.load(Ordering::Acquire) && is_unread(io::stdout()) {
                return;
            }
        }
    }
}

fn is_unread(stream: impl AsFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut asked = [PollFd::new(&stream, PollFlags::OUT)];
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut asked, Some(&now)).is_ok()
        && asked.iter().any(|asked| asked.revents().intersects(gone))
}

/// In a thread: a terminal or a file cannot be waited for otherwise.
fn copier(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
}

/// Copies to the end of either. Not by `io::copy`: where one is a pipe it has the kernel copy, which holds the
/// pipe's lock while it waits for the other, and with it whoever is at the pipe's other end.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut part = vec![0; PART];
    loop {
        let copied = match from.read(&mut part) {
            Ok(0) => return,
            Ok(length) => to.write_all(part.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            return tracing::debug!(%error, "a stream is not copied any more");
        }
    }
}
