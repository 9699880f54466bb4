//! HTTP/2 on both sides, by `h2` itself: it carries interim answers (1xx), which hyper's HTTP/2 neither reads nor sends.
//!
//! What hyper would do around `h2` is here: bodies within flow control ([`Received`], `Pipe`), heads as the version
//! wants them, one task for each stream of a workload, and pings for peers that are gone.

mod alive;
mod client;
mod heads;
mod pipe;
mod received;
mod reply;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

use h2::Reason;
use thiserror::Error;

pub use self::client::Client;
pub use self::pipe::Resets;
pub use self::received::Received;
pub use self::reply::Reply;
pub use self::server::{Terms, serve};

/// Windows large enough that a megabyte does not wait for acknowledgements; one client connection has one
/// upstream connection, so they are not multiplied.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What waits to be written on one stream, in bytes, beside what takes room of its own: a frame. A peer that opens many
/// streams, grants all that they ask for and then reads nothing has each of them hold so much.
const SEND_BUFFER: usize = 16 << 10;

/// Interim answers to one request beyond which a server does not mean to answer it.
const INTERIMS: u32 = 1024;

/// Why HTTP/2 with a peer ended before its time.
#[derive(Debug, Error)]
pub enum Fault {
    /// What `h2` met: the peer broke the protocol, reset a stream, went away, or the connection failed.
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    /// A peer sent nothing, not even the answer to a ping.
    #[error("the peer is gone: it answered no ping within {}s", .0.as_secs())]
    Gone(Duration),
    /// A peer did not begin.
    #[error("no HTTP/2 preface within {}s", .0.as_secs())]
    Late(Duration),
    /// A server goes on with interim answers and sends none.
    #[error("more than {INTERIMS} interim answers to one request")]
    Interims,
}

impl Fault {
    /// Whether the peer broke the protocol.
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Protocol(error) => error.is_library(),
            Self::Interims => true,
            Self::Gone(_) | Self::Late(_) => false,
        }
    }

    /// With what reason a stream that leads on from a failed one is reset: the peer's own, if it reset its stream for
    /// one. What is wrong with a peer is nothing that the other side did.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Protocol(error) if error.is_remote() && error.is_reset() => error
                .reason()
                .filter(|reason| *reason != Reason::NO_ERROR)
                .unwrap_or(Reason::INTERNAL_ERROR),
            _ => Reason::INTERNAL_ERROR,
        }
    }
}
