//! What can go wrong between a client and the daemon.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A failure of the local interface itself; what the daemon refuses arrives as a
/// [`Failure`](super::Failure) instead.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("connect to the daemon at `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another daemon listens there.
    #[error("listen on `{}`: another daemon answers there{}", path.display(), by(*pid))]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who listens, where the kernel says so.
        pid: Option<u32>,
    },
    /// The path holds something that is no socket; it is left alone.
    #[error("listen on `{}`: a file that is not a socket stands there", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("listen on `{}`", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("{attempt}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The other side took too long.
    #[error("{attempt}: the other side took longer than {seconds} s")]
    TooSlow {
        /// What was attempted.
        attempt: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The other side closed the connection within a frame, or before the answer's end.
    #[error("{attempt}: the other side closed the connection")]
    Closed {
        /// What was attempted.
        attempt: &'static str,
    },
    /// A frame announces more than is allowed.
    #[error("read a frame: {length} bytes announced, {limit} allowed")]
    FrameTooLarge {
        /// Announced.
        length: u64,
        /// Allowed.
        limit: usize,
    },
    /// A frame to be written would be larger than the other side takes.
    #[error("write a frame: {length} bytes, {limit} allowed")]
    FrameNotSent {
        /// The frame's.
        length: usize,
        /// Allowed.
        limit: usize,
    },
    /// A frame is not what it should be.
    #[error("read a frame")]
    Malformed {
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// A frame could not be made.
    #[error("write a frame")]
    Unwritable {
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// A command is out of bounds.
    #[error("read a command")]
    Invalid {
        /// What is wrong with it.
        #[source]
        source: InvalidCommand,
    },
    /// Other descriptors than belong to a frame.
    #[error(
        "read a frame: {found} descriptors came along, {allowed} belong there; client and daemon have to be of \
         the same version"
    )]
    Descriptors {
        /// Came, so far.
        found: usize,
        /// Belong.
        allowed: usize,
    },
    /// The kernel's word on the peer could not be had.
    #[error("learn who is asking: {attempt}")]
    Peer {
        /// What was attempted.
        attempt: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The process that connected is gone, so nothing can be said about it.
    #[error("learn who is asking: process {pid} has gone")]
    PeerGone {
        /// Its id.
        pid: u32,
    },
    /// The daemon answered with something that does not belong to the command.
    #[error("read the answer to `{command}`: a `{reply}` came")]
    Unexpected {
        /// The command's word.
        command: &'static str,
        /// The reply's word.
        reply: &'static str,
    },
}

/// What is wrong with a command that is well-formed JSON.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidCommand {
    /// Empty or too long.
    #[error("{what}: 1 to {limit} bytes are allowed")]
    Length {
        /// Field.
        what: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// A control character.
    #[error("{what}: control characters are not allowed")]
    Character {
        /// Field.
        what: &'static str,
    },
    /// Too many items.
    #[error("{what}: at most {limit} are allowed")]
    TooMany {
        /// Field.
        what: &'static str,
        /// Items.
        limit: usize,
    },
    /// Too large a number.
    #[error("{what}: at most {limit} is allowed")]
    TooLarge {
        /// Field.
        what: &'static str,
        /// Largest.
        limit: u32,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
