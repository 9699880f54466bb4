//! The streams of `exeat run`: the client's and the server's, made here. All are Unix sockets: who holds another
//! end of a pipe can keep its lock for as long as it likes (splice from a socket that has nothing to say waits with
//! the lock held), and whoever then reads, writes or closes the pipe waits as well, whatever its flags. The gate's
//! ends go to nobody else: who holds a socket as well can read from it into memory that never comes, and the other
//! readers wait, whatever their flags. And none takes descriptors: a read that drops one closes it.

use std::io;
use std::os::fd::OwnedFd;

use exeat_ebpf::refuse_descriptors;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

/// The gate's ends of a client's input, output and error.
#[derive(Debug)]
pub(super) struct Streams([OwnedFd; 3]);

impl Streams {
    /// The gate's ends, and the client's in the order of their numbers; each carries bytes one way.
    pub(super) fn make() -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, input) = one_way()?;
        let (output, stdout) = one_way()?;
        let (errors, stderr) = one_way()?;
        Ok((Self([input, output, errors]), [stdin, stdout, stderr]))
    }

    /// In the order of their numbers.
    pub(super) const fn all(&self) -> &[OwnedFd; 3] {
        &self.0
    }
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
    refuse_descriptors(&reads)?;
    refuse_descriptors(&writes)?;
    Ok((writes, reads))
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;

    use rustix::io::Errno;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn no_end_takes_descriptors() {
        let (streams, clients) = Streams::make().unwrap();
        let (pipes, servers) = Pipes::make().unwrap();
        let gates = [pipes.input, pipes.output, pipes.errors];
        for end in streams
            .all()
            .iter()
            .chain(&clients)
            .chain(&gates)
            .chain(&servers)
        {
            let passed = [end.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&passed)));
            let part = [io::IoSlice::new(b"x")];
            let sent = sendmsg(end, &part, &mut ancillary, SendFlags::NOSIGNAL);
            // PIPE: what only reads has nobody who would take anything.
            assert!(matches!(sent, Err(Errno::PERM | Errno::PIPE)), "{sent:?}");
        }
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
