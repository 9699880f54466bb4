//! The supervisor's side of a stage.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Listen, Listening, Report, Stage};
use crate::channel::{ChannelError, Frame, receive_frame, send_frame, watch};

/// How long a stage may take: it does nothing that waits.
const LIMIT: Duration = Duration::from_secs(20);

/// A program to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
}

impl Program {
    /// This very executable, as the kernel holds it open: also after an upgrade replaced the file.
    pub fn this(arguments: &[&str]) -> Self {
        Self {
            path: "/proc/self/exe".into(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            environment: Vec::new(),
        }
    }
}

/// Why a child did not come to be what it should.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No process.
    #[error("starting `{}`", path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The socket between.
    #[error("talking to the child")]
    Talk(#[source] ChannelError),
    /// The orders could not be written.
    #[error("writing the child's orders")]
    Orders(#[source] serde_json::Error),
    /// The stage gave up; its own words.
    #[error("{0}")]
    Failed(String),
    /// The stage said nothing in time, or what no stage says.
    #[error("the child {0}")]
    Unexpected(&'static str),
}

/// A child that has become its program.
#[derive(Debug)]
pub struct Spawned {
    /// The process; killed when this is dropped.
    pub child: Child,
    /// Its id.
    pub pid: u32,
}

/// Starts `stage` by `program` (normally [`Program::this`] with `internal`), and waits until the
/// child has executed what it is to become.
pub async fn spawn(
    program: &Program,
    stage: &Stage,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Spawned, SpawnError> {
    let (child, socket) = order(program, stage, descriptors)?;
    match answer(socket).await? {
        None => {
            let pid = child.id().ok_or(SpawnError::Unexpected("ended at once"))?;
            Ok(Spawned { child, pid })
        }
        Some(frame) => Err(failure(&frame)),
    }
}

/// Has the gate's sockets opened in its cgroup.
pub async fn listen(
    program: &Program,
    order_: Listen,
) -> Result<(Listening, Vec<OwnedFd>), SpawnError> {
    let beside = usize::from(order_.approvals.is_some());
    let (mut child, socket) = order(program, &Stage::Listen(order_), &[])?;
    let frame = answer(socket)
        .await?
        .ok_or(SpawnError::Unexpected("ended without a word"))?;
    let Ok(Report::Listening(listening)) = serde_json::from_slice(&frame.body) else {
        return Err(failure(&frame));
    };
    let pairs = if listening.v6 { 4 } else { 2 };
    if frame.descriptors.len() != pairs + beside {
        return Err(SpawnError::Unexpected("opened the wrong number of sockets"));
    }
    child.wait().await.map_err(|cause| SpawnError::Spawn {
        path: program.path.clone(),
        cause,
    })?;
    Ok((listening, frame.descriptors))
}

fn order(
    program: &Program,
    stage: &Stage,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(Child, OwnedFd), SpawnError> {
    let failed = |cause| SpawnError::Spawn {
        path: program.path.clone(),
        cause,
    };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| failed(e.into()))?;
    rustix::io::ioctl_fionbio(&ours, true).map_err(|e| failed(e.into()))?;
    let body = serde_json::to_vec(stage).map_err(SpawnError::Orders)?;
    // Sent before the child is there, so that it never waits; one packet always fits.
    send_frame(ours.as_fd(), &body, descriptors).map_err(SpawnError::Talk)?;
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    Ok((child, ours))
}

/// The stage's answer; `None`: the socket was closed, by exec.
async fn answer(socket: OwnedFd) -> Result<Option<Frame>, SpawnError> {
    let talk = |e| SpawnError::Talk(ChannelError::Receive(e));
    let socket = watch(socket, Interest::READABLE).map_err(talk)?;
    let wait = async {
        loop {
            let mut ready = socket.readable().await.map_err(talk)?;
            match receive_frame(socket.get_ref().as_fd(), true) {
                Err(ChannelError::Receive(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                other => return other.map_err(SpawnError::Talk),
            }
        }
    };
    timeout(LIMIT, wait)
        .await
        .unwrap_or(Err(SpawnError::Unexpected("did not start in time")))
}

fn failure(frame: &Frame) -> SpawnError {
    match serde_json::from_slice(&frame.body) {
        Ok(Report::Failed(text)) => SpawnError::Failed(text),
        _ => SpawnError::Unexpected("said what no stage says"),
    }
}
