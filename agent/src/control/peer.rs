//! Who is at the other end of a connection: what the kernel says, and nothing that the client says.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Group, Uid, User};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::access::Standing;
use super::error::ControlError;

/// The group whose listed members are administrators.
pub const ADMINISTRATORS: &str = "exeat";

/// A client, as the kernel attests it at the moment of its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The process that connected.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// The user's name; its number where it has none.
    pub user: String,
    /// The workload that the process is in, where it is managed.
    pub workload: Option<u32>,
    /// What it is to the daemon.
    pub standing: Standing,
}

/// What a cgroup is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupRole {
    /// In the managed workload of this number.
    Managed(u32),
    /// The gate's.
    Gate,
    /// None of ours.
    Other,
}

/// Tells what a cgroup is: its path in the cgroup2 hierarchy, beginning with `/`.
pub trait Cgroups: Send + Sync {
    /// What the cgroup at `path`, or one that it is below, is to the daemon.
    fn role(&self, path: &str) -> CgroupRole;
}

/// The three numbers of `SO_PEERCRED`, and a handle that keeps them from being reused.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    handle: Option<OwnedFd>,
}

/// Reads what the kernel holds on the process that connected. Does not block.
pub(super) fn credentials(socket: &impl AsFd) -> Result<Credentials, ControlError> {
    let peer =
        getsockopt(socket, sockopt::PeerCredentials).map_err(|errno| ControlError::Peer {
            attempt: "read the peer's credentials",
            source: errno.into(),
        })?;
    // Zero: a process in another pid namespace, of which nothing can be learnt here.
    let pid = u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0);
    let pid = pid.ok_or(ControlError::PeerGone { pid: 0 })?;
    // Since Linux 6.5; without it `look` compares the user instead.
    let handle = getsockopt(socket, sockopt::PeerPidfd).ok();
    Ok(Credentials {
        pid,
        uid: peer.uid(),
        gid: peer.gid(),
        handle,
    })
}

/// Completes the credentials. May block on the user database.
pub(super) fn look(credentials: &Credentials, cgroups: &dyn Cgroups) -> Result<Peer, ControlError> {
    let role = cgroups.role(&cgroup(credentials.pid)?);
    still_the_same(credentials)?;
    let user = user(credentials.uid)?;
    let (workload, standing) = match role {
        CgroupRole::Managed(workload) => (Some(workload), Standing::Managed),
        CgroupRole::Gate => (None, Standing::Gate),
        CgroupRole::Other if credentials.uid == 0 => (None, Standing::Root),
        CgroupRole::Other if administrates(credentials.uid, &user)? => {
            (None, Standing::Administrator)
        }
        CgroupRole::Other => (None, Standing::Ordinary),
    };
    let Credentials { pid, uid, gid, .. } = *credentials;
    Ok(Peer {
        pid,
        uid,
        gid,
        user,
        workload,
        standing,
    })
}

fn cgroup(pid: u32) -> Result<String, ControlError> {
    let text = process_file(pid, "cgroup", "read the peer's cgroup")?;
    // cgroups(7): the unified hierarchy's line has the number zero and no controllers.
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(str::to_owned).ok_or_else(|| ControlError::Peer {
        attempt: "read the peer's cgroup",
        source: io::Error::new(io::ErrorKind::InvalidData, "it is in no cgroup2 hierarchy"),
    })
}

/// What was read by number belongs to the process that connected only if that one still lives.
fn still_the_same(credentials: &Credentials) -> Result<(), ControlError> {
    let gone = ControlError::PeerGone {
        pid: credentials.pid,
    };
    let Some(handle) = &credentials.handle else {
        // A number may have been reused, then at least by the same user.
        let status = process_file(credentials.pid, "status", "read the peer's user")?;
        return if effective_uid(&status) == Some(credentials.uid) {
            Ok(())
        } else {
            Err(gone)
        };
    };
    let mut watched = [PollFd::new(handle, PollFlags::IN)];
    let ended = poll(
        &mut watched,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .map_err(|errno| ControlError::Peer {
        attempt: "look whether the peer lives",
        source: errno.into(),
    })?;
    if ended == 0 { Ok(()) } else { Err(gone) }
}

/// Whether the process that connected still lives.
pub(super) fn is_alive(socket: &impl AsFd) -> bool {
    credentials(socket)
        .and_then(|credentials| still_the_same(&credentials))
        .is_ok()
}

fn process_file(pid: u32, name: &str, attempt: &'static str) -> Result<String, ControlError> {
    fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ControlError::PeerGone { pid },
        _ => ControlError::Peer { attempt, source },
    })
}

/// The second number of the `Uid:` line: `proc_pid_status(5)`.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn user(uid: u32) -> Result<String, ControlError> {
    let user = User::from_uid(Uid::from_raw(uid)).map_err(|errno| ControlError::Peer {
        attempt: "read the user's name",
        source: errno.into(),
    })?;
    Ok(user.map_or_else(|| uid.to_string(), |user| user.name))
}

fn administrates(uid: u32, user: &str) -> Result<bool, ControlError> {
    if uid == 0 {
        return Ok(true);
    }
    let group = Group::from_name(ADMINISTRATORS).map_err(|errno| ControlError::Peer {
        attempt: "read the administrators' group",
        source: errno.into(),
    })?;
    // Listed members only: as its primary group the gate's own user has it too.
    Ok(group.is_some_and(|group| group.mem.iter().any(|member| member == user)))
}
