//! Why the daemon does not start, or stopped.

use std::io;
use std::path::PathBuf;

use exeat_ebpf::{KernelError, Missing};

use super::accounts::AccountError;
use super::ca::CaError;
use super::cgroups::CgroupError;
use super::gate_life::GateError;
use super::policy_files::PolicyError;
use crate::config::ConfigError;
use crate::control::ControlError;
use crate::identify::certificate::AuthorityFault;
use crate::launch::stage::SpawnError;

/// Why the daemon does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not root.
    #[error(
        "the daemon must be started as root: it loads programs into the kernel and starts servers under their accounts"
    )]
    NotRoot,
    /// The kernel lacks something; one sentence a line.
    #[error("{}", .0.iter().map(Missing::to_string).collect::<Vec<_>>().join("\n"))]
    Missing(Vec<Missing>),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates of a client authority.
    #[error(transparent)]
    ClientAuthority(#[from] AuthorityFault),
    /// The policy, at start: nothing is in force that could be kept.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The gate's account.
    #[error("`gate.user`")]
    Account(#[from] AccountError),
    /// Whom messages about approvals are for.
    #[error("`approver` of a webhook in `approvals`")]
    Approver(#[source] AccountError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The programs.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The gate's sockets.
    #[error("opening the gate's sockets")]
    Listen(#[source] SpawnError),
    /// The gate.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The gate ended, or said nothing, before it was ready.
    #[error("the gate did not become ready: {0}")]
    NotReady(String),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The file of the disconnected servers: nothing is served that it may be about.
    #[error(
        "reading which servers are disconnected; no server is served before `{}` is put right, or moved away, and what \
         it held is ordered anew with `exeat servers disconnect`",
        path.display()
    )]
    Disconnected {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A directory or file of the daemon.
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
    /// Something else of the system.
    #[error("{attempt}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
}
