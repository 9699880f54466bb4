//! `exeat internal`: the short life between fork and exec, in safe code.
//!
//! A stage finds a socket as its standard input, and in it one packet: what to do ([`Stage`]),
//! with descriptors. A failure is answered in a packet; success is the socket closed by exec.

mod apart;
mod confine;
mod gate;
mod holder;
mod listen;
mod spawn;
mod start;
mod syscalls;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::channel::{ChannelError, receive_frame, send_frame};

pub(crate) use apart::{Reach, reach};
pub use confine::{Account, confine};
pub use gate::EnterGate;
pub use listen::{Listen, Listening};
pub use spawn::{Program, SpawnError, Spawned, listen, spawn};
pub use start::{Cover, Start, Trust};
pub(crate) use syscalls::container_profile;

/// What a child is to do before, or instead of, becoming another program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// Open the gate's sockets from within the gate's cgroup, and send them back.
    Listen(Listen),
    /// Become the gate; brings its end of the channel.
    Gate(EnterGate),
    /// Become a workload's first process; brings stdin, stdout and stderr.
    Start(Start),
}

/// What a stage says on its socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Report {
    /// What was attempted, and each cause.
    Failed(String),
    /// The sockets come along, in the order of [`Listening`].
    Listening(Listening),
}

/// Why a stage ended.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The order could not be read.
    #[error("taking the stage's orders")]
    Orders(#[source] ChannelError),
    /// Nobody gave orders: `exeat internal` is not for people.
    #[error("a stage is started by the daemon alone")]
    NoOrders,
    /// The orders came with the wrong number of descriptors.
    #[error("the stage's orders came with {0} descriptors")]
    Descriptors(usize),
    /// A step on a file or directory failed.
    #[error("{attempt} `{}`", path.display())]
    Path {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A step failed.
    #[error("{attempt}")]
    Step {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A capability set could not be read or emptied.
    #[error("emptying the capability sets")]
    Capabilities(#[source] caps::errors::CapsError),
    /// The filter of system calls was not taken.
    #[error("refusing system calls")]
    Syscalls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Landlock refused.
    #[error("keeping the server out of other processes")]
    Fence(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something was still there after it had been given up.
    #[error("privileges remain: {0}")]
    Remaining(&'static str),
    /// A workload or the gate would be root.
    #[error("refusing to run as root")]
    Root,
    /// A standard stream that would be a way out.
    #[error("refusing {stream}: {reason}")]
    Stream {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// What it is.
        reason: &'static str,
    },
    /// A port is taken.
    #[error("listening on {address} ({protocol}){}", held(holder.as_deref()))]
    Listen {
        /// Address and port.
        address: std::net::SocketAddr,
        /// TCP or UDP.
        protocol: &'static str,
        /// Who has the port, where somebody has.
        holder: Option<String>,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
}

fn held(holder: Option<&str>) -> String {
    holder
        .map(|holder| format!(", held by {holder}"))
        .unwrap_or_default()
}

/// Runs the stage whose orders wait on standard input. To be called before any thread is started.
pub fn run() -> ExitCode {
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => socket,
        Err(error) => {
            return fail(
                None,
                &StageError::Step {
                    attempt: "reading orders",
                    cause: error,
                },
            );
        }
    };
    let result = match orders(&socket) {
        Ok((Stage::Listen(order), _none)) => {
            return match listen::run(&order, &socket) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(Some(&socket), &error),
            };
        }
        Ok((Stage::Gate(order), descriptors)) => gate::run(&order, descriptors, &socket),
        Ok((Stage::Start(order), descriptors)) => start::run(&order, descriptors, &socket),
        Err(error) => Err(error),
    };
    let Err::<Infallible, _>(error) = result;
    fail(Some(&socket), &error)
}

fn orders(socket: &OwnedFd) -> Result<(Stage, Vec<OwnedFd>), StageError> {
    let frame = receive_frame(socket.as_fd(), true).map_err(StageError::Orders)?;
    let frame = frame.ok_or(StageError::NoOrders)?;
    let stage = serde_json::from_slice(&frame.body)
        .map_err(|e| StageError::Orders(ChannelError::Parse(e)))?;
    Ok((stage, frame.descriptors))
}

fn fail(socket: Option<&OwnedFd>, error: &StageError) -> ExitCode {
    let report = Report::Failed(chain(error));
    let told = socket.is_some_and(|socket| {
        serde_json::to_vec(&report).is_ok_and(|body| send_frame(socket.as_fd(), &body, &[]).is_ok())
    });
    if told {
        ExitCode::FAILURE
    } else {
        ExitCode::from(2)
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
