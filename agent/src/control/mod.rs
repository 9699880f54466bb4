//! The local interface on a Unix socket: one [`Command`] type in, typed [`Reply`] frames out.
//!
//! A connection carries one command. The client writes one length-prefixed JSON [`Command`]; the
//! daemon answers with frames ([`Message`]): any number of replies, then `done` or `failed`. The
//! first reply to a `run` brings its three standard streams along as descriptors; none else comes
//! with any, and the daemon takes none. During a `run` the client may send [`Signal`] frames;
//! closing the connection ends what the command started.
//!
//! Who asks is what the kernel says (`SO_PEERCRED`); the socket's file mode decides nothing. What
//! they may ask stands in one table ([`access`]).

use std::error::Error;
use std::iter;

pub mod access;
pub mod canary;
pub mod client;
pub mod command;
pub mod describe;
mod descriptors;
pub mod error;
pub mod explain;
pub mod frame;
mod listed;
pub mod peer;
pub mod records;
pub mod reply;
pub mod server;
pub mod slots;

pub use access::{Place, Scope, Standing};
pub use client::Connection;
pub use command::{Command, Question, RecordFilter, Run, Signal, Terminal};
pub use error::ControlError;
pub use peer::Peer;
pub use reply::{Code, Failure, Message, Reply};
pub use server::{Client, Facts, Handover, Listener, Responder};
pub use slots::{Limits as ClientLimits, Slots};

/// An error and its causes, joined with colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    iter::successors(Some(error), |error| Error::source(*error))
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Where the daemon listens unless its configuration says otherwise.
pub const SOCKET: &str = "/run/exeat/control.sock";

#[cfg(test)]
mod tests;
