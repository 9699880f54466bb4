//! The streams of `exeat run`: those that a client hands in, and the server's. All are Unix sockets: who holds
//! another end of a pipe can keep its lock for as long as it likes (splice from a socket that has nothing to say
//! waits with the lock held), and whoever then reads, writes or closes the pipe waits as well, whatever its flags.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair, sockopt,
};

/// Why a stream is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFault {
    /// There are other than three.
    #[error("a server is started with three streams")]
    Number,
    /// It is something that could make the daemon wait.
    #[error("{stream} is not a Unix stream socket")]
    Kind { stream: &'static str },
    /// It could not be looked at.
    #[error("examining {stream}")]
    Look {
        stream: &'static str,
        #[source]
        cause: io::Error,
    },
}

/// A client's input, output and error.
#[derive(Debug)]
pub(super) struct Streams([OwnedFd; 3]);

impl Streams {
    /// Takes what a client handed in.
    pub(super) fn own(descriptors: Vec<OwnedFd>) -> Result<Self, StreamFault> {
        let [input, output, errors] =
            <[OwnedFd; 3]>::try_from(descriptors).map_err(|_other| StreamFault::Number)?;
        check("standard input", &input)?;
        check("standard output", &output)?;
        check("standard error", &errors)?;
        Ok(Self([input, output, errors]))
    }

    /// In the order of their numbers.
    pub(super) const fn all(&self) -> &[OwnedFd; 3] {
        &self.0
    }
}

fn check(stream: &'static str, descriptor: &OwnedFd) -> Result<(), StreamFault> {
    let failed = |cause: rustix::io::Errno| StreamFault::Look {
        stream,
        cause: cause.into(),
    };
    let mode = rustix::fs::fstat(descriptor).map_err(failed)?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::Socket
        && sockopt::socket_domain(descriptor).map_err(failed)? == AddressFamily::UNIX
        && sockopt::socket_type(descriptor).map_err(failed)? == SocketType::STREAM
    {
        return Ok(());
    }
    Err(StreamFault::Kind { stream })
}

/// The gate's ends of a server's streams.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

impl Pipes {
    /// The gate's ends, and the server's in the order of their numbers; each carries bytes one way.
    pub(super) fn make() -> io::Result<(Self, [OwnedFd; 3])> {
        let (input, stdin) = one_way()?;
        let (stdout, output) = one_way()?;
        let (stderr, errors) = one_way()?;
        let pipes = Self {
            input,
            output,
            errors,
        };
        Ok((pipes, [stdin, stdout, stderr]))
    }
}

/// A pair of which the first writes and the second reads.
fn one_way() -> io::Result<(OwnedFd, OwnedFd)> {
    let (writes, reads) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    shutdown(&reads, Shutdown::Write)?;
    Ok((writes, reads))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn only_stream_sockets_of_this_machine_are_taken() {
        let three = |input: OwnedFd| {
            let (output, errors) = UnixStream::pair().unwrap();
            Streams::own(vec![input, output.into(), errors.into()])
        };
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(three(socket.into()).is_ok());
        let (reader, _writer) = io::pipe().unwrap();
        for other in [
            reader.into(),
            OwnedFd::from(File::open("/dev/null").unwrap()),
            UnixDatagram::pair().unwrap().0.into(),
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        ] {
            let wrong = three(other);
            assert!(matches!(wrong, Err(StreamFault::Kind { .. })), "{wrong:?}");
        }
        assert!(matches!(Streams::own(Vec::new()), Err(StreamFault::Number)));
    }

    #[test]
    fn each_stream_carries_bytes_one_way() {
        let (pipes, [stdin, stdout, _stderr]) = Pipes::make().unwrap();
        let mut buffer = [0; 4];
        rustix::io::write(&pipes.input, b"in").unwrap();
        assert_eq!(rustix::io::read(&stdin, &mut buffer), Ok(2));
        rustix::io::write(&stdout, b"out").unwrap();
        assert_eq!(rustix::io::read(&pipes.output, &mut buffer), Ok(3));
        drop(pipes.input);
        assert_eq!(
            rustix::io::read(&stdin, &mut buffer),
            Ok(0),
            "an end is an end"
        );
    }
}
