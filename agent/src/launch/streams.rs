//! What the daemon gives for the caller's standard streams: sockets, to and from which this process copies. Whatever the caller's streams are, they can make this process wait and never the daemon.

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

/// What is still being copied.
#[derive(Debug)]
pub(super) struct Words {
    said: Vec<oneshot::Receiver<()>>,
    /// The caller's input has ended.
    fed: Arc<AtomicBool>,
}

impl Words {
    /// Copies between the caller's standard streams and these, in the order of their numbers.
    pub(super) fn begin(ends: [OwnedFd; 3]) -> io::Result<Self> {
        let [input, output, errors] = ends.map(UnixStream::from);
        let fed = Arc::new(AtomicBool::new(false));
        let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let ended = Arc::clone(&fed);
        copier("stdin", move || {
            copy(&mut from, &mut &input);
            ended.store(true, Ordering::Release);
            if let Err(error) = input.shutdown(Shutdown::Write) {
                tracing::debug!(%error, "the daemon is gone");
            }
        })?;
        let said = vec![
            out(output, io::stdout().as_fd())?,
            out(errors, io::stderr().as_fd())?,
        ];
        Ok(Self { said, fed })
    }

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

fn out(mut from: UnixStream, to: BorrowedFd<'_>) -> io::Result<oneshot::Receiver<()>> {
    let mut to = File::from(to.try_clone_to_owned()?);
    let (done, waiting) = oneshot::channel::<()>();
    copier("copy", move || {
        copy(&mut from, &mut to);
        drop(done);
    })?;
    Ok(waiting)
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
