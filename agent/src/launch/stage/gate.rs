//! Becoming the gate.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::confine::{Account, close_others, confine, join};
use super::syscalls::refuse_programs;
use super::{Program, StageError};

/// Descriptors that the gate may hold, where the hard limit lets it.
const DESCRIPTORS: u64 = 65_536;

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
    raise_descriptors()?;
    confine(&order.account)?;
    refuse_programs()?;
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

/// The gate holds two descriptors for each connection; the usual soft limit of 1024 would end
/// service at some hundred. The hard limit is the service manager's to set: going beyond it takes
/// `CAP_SYS_RESOURCE`, which the daemon need not have.
fn raise_descriptors() -> Result<(), StageError> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let current = hard.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
    let limit = Rlimit {
        current: Some(current),
        maximum: hard,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).map_err(|e| StageError::Step {
        attempt: "raising the limit of descriptors",
        cause: e.into(),
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
