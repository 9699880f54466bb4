//! Becoming the first process of a workload.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::CloneFlags;
use rustix::fs::{FileType, Mode};
use rustix::mount::MountPropagationFlags;
use rustix::net::{AddressFamily, sockopt};
use serde::{Deserialize, Serialize};

use super::confine::{Account, close_others, confine, join};
use super::gate::new_session;
use super::syscalls;
use super::{StageError, apart};

/// File systems through which a descriptor is a privilege: `CGROUP2_SUPER_MAGIC`, `BPF_FS_MAGIC`,
/// `CGROUP_SUPER_MAGIC` (linux/magic.h).
const PRIVILEGED_FILE_SYSTEMS: [u64; 3] = [0x6367_7270, 0xcafe_4a11, 0x0027_e0eb];

/// Orders for the process that becomes a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The workload's cgroup, managed already.
    pub cgroup: PathBuf,
    /// The register's user.
    pub account: Account,
    /// Working directory.
    pub directory: PathBuf,
    /// Program: a path, or a name that is looked for in the environment's `PATH`.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// What takes the place of the system's certificates, for this process and its children alone. These have a mount
    /// namespace for it, in which services of this machine are not to be seen.
    pub trust: Option<Trust>,
}

/// Whom servers trust, and what of the system's it takes the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// World-readable PEM file.
    pub bundle: PathBuf,
    /// The same certificates in a world-readable key store (JKS), without a password.
    pub java: PathBuf,
    /// What lies over what.
    pub covers: Vec<Cover>,
}

/// A file that is seen in another's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cover {
    /// What is seen.
    pub laid: PathBuf,
    /// An existing file of the system.
    pub over: PathBuf,
}

pub(super) fn run(
    order: &Start,
    descriptors: Vec<OwnedFd>,
    socket: &OwnedFd,
) -> Result<Infallible, StageError> {
    let count = descriptors.len();
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(StageError::Descriptors(count));
    };
    check_stream("stdin", &stdin)?;
    check_stream("stdout", &stdout)?;
    check_stream("stderr", &stderr)?;
    join(&order.cgroup)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(trust) = &order.trust {
        cover(trust)?;
        apart::hide()?;
    }
    let placed = |e: rustix::io::Errno| StageError::Step {
        attempt: "placing the standard streams",
        cause: e.into(),
    };
    rustix::stdio::dup2_stdin(&stdin).map_err(placed)?;
    rustix::stdio::dup2_stdout(&stdout).map_err(placed)?;
    rustix::stdio::dup2_stderr(&stderr).map_err(placed)?;
    drop((stdin, stdout, stderr));
    close_others(socket)?;
    new_session()?;
    confine(&order.account)?;
    apart::fence()?;
    syscalls::refuse()?;
    // As its user: where that one may not enter, neither may the server.
    rustix::process::chdir(&order.directory).map_err(|e| StageError::Path {
        attempt: "entering the directory",
        path: order.directory.clone(),
        cause: e.into(),
    })?;
    let error = Command::new(&order.program)
        .args(&order.arguments)
        .env_clear()
        .envs(order.environment.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(StageError::Path {
        attempt: "starting",
        path: order.program.clone(),
        cause: error,
    })
}

/// A caller hands in its own streams; what it hands in must not carry bytes past the kernel's
/// checks: a network socket keeps its creator's cgroup, and so its creator's freedom.
pub(super) fn check_stream(stream: &'static str, file: impl AsFd) -> Result<(), StageError> {
    let refuse = |reason| Err(StageError::Stream { stream, reason });
    let failed = |e: rustix::io::Errno| StageError::Step {
        attempt: "examining a stream",
        cause: e.into(),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(failed)?.st_mode);
    match kind {
        FileType::Socket => match sockopt::socket_domain(&file) {
            Ok(AddressFamily::UNIX) => Ok(()),
            Ok(_) => refuse("a network socket"),
            Err(e) => Err(failed(e)),
        },
        FileType::RegularFile | FileType::CharacterDevice => {
            let file_system = rustix::fs::fstatfs(&file).map_err(failed)?.f_type;
            let magic = u64::try_from(file_system).unwrap_or_default() & 0xffff_ffff;
            if PRIVILEGED_FILE_SYSTEMS.contains(&magic) {
                return refuse("a file of a cgroup or bpf file system");
            }
            Ok(())
        }
        FileType::Fifo => Ok(()),
        FileType::Directory => refuse("a directory"),
        FileType::BlockDevice => refuse("a block device"),
        FileType::Symlink | FileType::Unknown => refuse("of unknown kind"),
    }
}

/// Lays Exeat's certificates over the system's, in a mount namespace that ends with these processes.
fn cover(trust: &Trust) -> Result<(), StageError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|e| StageError::Step {
        attempt: "making a mount namespace",
        cause: e.into(),
    })?;
    // Nothing mounted here is seen outside; what is unmounted outside goes here as well, so that
    // a server does not keep a disk busy.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|e| StageError::Step {
        attempt: "separating the mount namespace",
        cause: e.into(),
    })?;
    for Cover { laid, over } in &trust.covers {
        rustix::mount::mount_bind(laid, over).map_err(|e| StageError::Path {
            attempt: "laying the trusted certificates over",
            path: over.clone(),
            cause: e.into(),
        })?;
    }
    Ok(())
}
