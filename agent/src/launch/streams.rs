//! What the daemon gets in the place of the caller's standard streams: the streams themselves where they carry
//! messages and nobody is harmed, else pipes that are copied here.
//!
//! Standard error always is: it may be the host's own log, and the daemon's flags on it would be the host's.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::fs::{FileType, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::sync::oneshot;

/// The streams, before they are handed over.
#[derive(Debug)]
pub(super) struct Streams {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    /// Standard input itself goes to the daemon.
    gives_input: bool,
    /// Standard output itself does.
    gives_output: bool,
    copied: Vec<oneshot::Receiver<()>>,
}

/// What is still being copied to standard output and error.
#[derive(Debug)]
pub(super) struct Words(Vec<oneshot::Receiver<()>>);

impl Streams {
    pub(super) fn prepare() -> io::Result<Self> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let gives_input = carries(&stdin, OFlags::RDONLY)?;
        let gives_output = carries(&stdout, OFlags::WRONLY)?;
        let mut copied = Vec::new();
        let input = if gives_input {
            stdin.as_fd().try_clone_to_owned()?
        } else {
            let (reader, writer) = io::pipe()?;
            feed(stdin.as_fd().try_clone_to_owned()?, writer)?;
            reader.into()
        };
        let mut empty_into = |stream: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            let (reader, writer) = io::pipe()?;
            copied.push(drain(reader, stream.try_clone_to_owned()?)?);
            Ok(writer.into())
        };
        let output = if gives_output {
            stdout.as_fd().try_clone_to_owned()?
        } else {
            empty_into(stdout.as_fd())?
        };
        let errors = empty_into(stderr.as_fd())?;
        Ok(Self {
            input,
            output,
            errors,
            gives_input,
            gives_output,
            copied,
        })
    }

    /// What is sent along with the command.
    pub(super) fn handed(&self) -> [BorrowedFd<'_>; 3] {
        [self.input.as_fd(), self.output.as_fd(), self.errors.as_fd()]
    }

    /// Closes everything here that the daemon has now.
    pub(super) fn let_go(self) -> io::Result<Words> {
        let nothing = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        if self.gives_input {
            rustix::stdio::dup2_stdin(&nothing)?;
        }
        if self.gives_output {
            rustix::stdio::dup2_stdout(&nothing)?;
        }
        Ok(Words(self.copied))
    }
}

impl Words {
    /// Waits until everything was copied.
    pub(super) async fn said(self) {
        for one in self.0 {
            // A copier that is gone has nothing more to say either.
            let _said = one.await;
        }
    }
}

/// Whether the daemon takes `stream` itself: a pipe, or a Unix stream socket.
fn carries(stream: impl AsFd, direction: OFlags) -> io::Result<bool> {
    let mode = rustix::fs::fstat(&stream)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Fifo => {
            let access = rustix::fs::fcntl_getfl(&stream)? & OFlags::RWMODE;
            access == direction || access == OFlags::RDWR
        }
        FileType::Socket => {
            sockopt::socket_domain(&stream)? == AddressFamily::UNIX
                && sockopt::socket_type(&stream)? == SocketType::STREAM
        }
        _ => false,
    })
}

/// Copies to the daemon until the stream's end. In a thread: a terminal or a file cannot be waited for otherwise.
fn feed(stream: OwnedFd, mut writer: PipeWriter) -> io::Result<()> {
    thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            if let Err(error) = io::copy(&mut File::from(stream), &mut writer) {
                tracing::debug!(%error, "standard input is not copied any more");
            }
        })
        .map(drop)
}

/// Copies from the daemon until its end.
fn drain(mut reader: PipeReader, stream: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
    let (done, said) = oneshot::channel();
    thread::Builder::new()
        .name("copy".into())
        .spawn(move || {
            if let Err(error) = io::copy(&mut reader, &mut File::from(stream)) {
                tracing::debug!(%error, "a stream is not copied any more");
            }
            drop(done);
        })
        .map(|_thread| said)
}
