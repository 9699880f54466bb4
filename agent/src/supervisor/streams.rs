//! The streams of `exeat run`: those that a client hands in, checked and opened for the gate alone, and the
//! server's pipes.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};

/// Why a stream is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFault {
    /// There are other than three.
    #[error("a server is started with three streams")]
    Number,
    /// It is something from which or to which messages are not carried.
    #[error("{stream} is neither a pipe nor a Unix stream socket")]
    Kind { stream: &'static str },
    /// It cannot be read from, or written to.
    #[error("{stream} is not open for this direction")]
    Direction { stream: &'static str },
    /// It could not be looked at or opened.
    #[error("opening {stream} for the gate")]
    Open {
        stream: &'static str,
        #[source]
        cause: io::Error,
    },
}

/// A client's input, output and error.
#[derive(Debug)]
pub(super) struct Streams([OwnedFd; 3]);

impl Streams {
    /// Takes what a client handed in. Pipes are opened anew: their descriptions belong to the client as well,
    /// who could make the gate wait by a change of their flags.
    pub(super) fn own(descriptors: Vec<OwnedFd>) -> Result<Self, StreamFault> {
        let [input, output, errors] =
            <[OwnedFd; 3]>::try_from(descriptors).map_err(|_other| StreamFault::Number)?;
        Ok(Self([
            own("standard input", input, OFlags::RDONLY)?,
            own("standard output", output, OFlags::WRONLY)?,
            own("standard error", errors, OFlags::WRONLY)?,
        ]))
    }

    /// In the order of their numbers.
    pub(super) const fn all(&self) -> &[OwnedFd; 3] {
        &self.0
    }
}

fn own(
    stream: &'static str,
    descriptor: OwnedFd,
    direction: OFlags,
) -> Result<OwnedFd, StreamFault> {
    let failed = |cause: rustix::io::Errno| StreamFault::Open {
        stream,
        cause: cause.into(),
    };
    let mode = rustix::fs::fstat(&descriptor).map_err(failed)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Socket => {
            let unix = sockopt::socket_domain(&descriptor).map_err(failed)? == AddressFamily::UNIX;
            let kind = sockopt::socket_type(&descriptor).map_err(failed)?;
            if unix && kind == SocketType::STREAM {
                return Ok(descriptor);
            }
            Err(StreamFault::Kind { stream })
        }
        FileType::Fifo => {
            // Opened here with root's rights, so never further than the client has opened it. With O_PATH the
            // client has opened nothing, whatever the other flags say.
            let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(failed)?;
            let access = flags & OFlags::RWMODE;
            if flags.contains(OFlags::PATH) || (access != direction && access != OFlags::RDWR) {
                return Err(StreamFault::Direction { stream });
            }
            let own = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
            let flags = direction | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            rustix::fs::open(own, flags, Mode::empty()).map_err(failed)
        }
        _ => Err(StreamFault::Kind { stream }),
    }
}

/// The gate's ends of a server's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

impl Pipes {
    /// The gate's ends, and the server's in the order of their numbers. No description is shared between the
    /// two, so that no flag of one is the other's.
    pub(super) fn make() -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, input) = pipe_with(PipeFlags::CLOEXEC)?;
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipes = Self {
            input,
            output,
            errors,
        };
        Ok((pipes, [stdin, stdout, stderr]))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn three(input: OwnedFd) -> Result<Streams, StreamFault> {
        let (_, output) = UnixStream::pair().unwrap();
        let (_, errors) = UnixStream::pair().unwrap();
        Streams::own(vec![input, output.into(), errors.into()])
    }

    #[test]
    fn a_pipe_is_opened_anew_and_a_socket_is_not() {
        let (reader, writer) = io::pipe().unwrap();
        let before = rustix::fs::fcntl_getfl(&reader).unwrap();
        let shared = reader.try_clone().unwrap();
        let streams = three(reader.into()).unwrap();
        let own = rustix::fs::fcntl_getfl(&streams.all()[0]).unwrap();
        assert!(own.contains(OFlags::NONBLOCK));
        assert_eq!(rustix::fs::fcntl_getfl(&shared).unwrap(), before);
        rustix::io::write(&writer, b"x").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(rustix::io::read(&streams.all()[0], &mut buffer), Ok(1));
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(three(socket.into()).is_ok());
    }

    #[test]
    fn nothing_is_opened_further_than_its_owner_had_it() {
        let (_reader, writer) = io::pipe().unwrap();
        let wrong = three(writer.into());
        assert!(
            matches!(wrong, Err(StreamFault::Direction { .. })),
            "{wrong:?}"
        );
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let path = rustix::fs::open(&fifo, OFlags::PATH, Mode::empty()).unwrap();
        let wrong = three(path);
        assert!(
            matches!(wrong, Err(StreamFault::Direction { .. })),
            "{wrong:?}"
        );
        for other in [
            OwnedFd::from(File::open("/dev/null").unwrap()),
            UnixDatagram::pair().unwrap().0.into(),
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        ] {
            let wrong = three(other);
            assert!(matches!(wrong, Err(StreamFault::Kind { .. })), "{wrong:?}");
        }
    }
}
