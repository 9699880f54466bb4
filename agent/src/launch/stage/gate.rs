//! Becoming the gate.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::confine::{Account, close_others, confine, join};
use super::{Program, StageError};

/// Orders for the process that becomes the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnterGate {
    /// The gate's cgroup.
    pub cgroup: PathBuf,
    /// The gate's account.
    pub account: Account,
    /// What it becomes.
    pub program: Program,
}

pub(super) fn run(
    order: &EnterGate,
    descriptors: Vec<OwnedFd>,
    socket: &OwnedFd,
) -> Result<Infallible, StageError> {
    let count = descriptors.len();
    let Ok([channel]) = <[OwnedFd; 1]>::try_from(descriptors) else {
        return Err(StageError::Descriptors(count));
    };
    join(&order.cgroup)?;
    rustix::stdio::dup2_stdin(&channel).map_err(|e| StageError::Step {
        attempt: "placing the channel",
        cause: e.into(),
    })?;
    drop(channel);
    close_others(socket)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    new_session()?;
    confine(&order.account)?;
    let error = Command::new(&order.program.path)
        .args(&order.program.arguments)
        .env_clear()
        .envs(
            order
                .program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir("/")
        .exec();
    Err(StageError::Path {
        attempt: "starting the gate from",
        path: order.program.path.clone(),
        cause: error,
    })
}

/// Leaves the session of whoever runs the daemon: an interrupt on that terminal is for the
/// supervisor, which then stops its children in order.
pub(super) fn new_session() -> Result<(), StageError> {
    match rustix::process::setsid() {
        // Already leads a process group of its own.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(e) => Err(StageError::Step {
            attempt: "starting a session",
            cause: e.into(),
        }),
    }
}
