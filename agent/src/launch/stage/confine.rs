//! Giving up root, in one ordered place.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use caps::CapSet;
use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::StageError;

/// Whose rights a process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Moves this process into the cgroup at `path`. Sockets that it makes from now on belong there.
pub(super) fn join(path: &Path) -> Result<(), StageError> {
    // "0" is whoever writes.
    fs::write(path.join("cgroup.procs"), "0").map_err(|cause| StageError::Path {
        attempt: "joining the cgroup",
        path: path.to_owned(),
        cause,
    })
}

/// Closes every descriptor above the standard streams but `keep`, which is close-on-exec.
///
/// Descriptors that a parent forgot are the known way for a child to keep a privilege: one open
/// `cgroup.procs` suffices to leave the cgroup.
pub(super) fn close_others(keep: &OwnedFd) -> Result<(), StageError> {
    let failed = |cause| StageError::Step {
        attempt: "closing descriptors",
        cause,
    };
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for descriptor in open {
        if descriptor > 2 && descriptor != keep.as_raw_fd() {
            match nix::unistd::close(descriptor) {
                // The directory that was just read.
                Ok(()) | Err(nix::errno::Errno::EBADF) => {}
                Err(e) => return Err(failed(e.into())),
            }
        }
    }
    Ok(())
}

/// Becomes `account` for good: no groups but its own, no capability in any set, nothing gained by
/// exec ever after. What was given up is then looked up, so that a kernel or a sandbox which
/// ignored a call does not go unnoticed.
pub fn confine(account: &Account) -> Result<(), StageError> {
    if account.uid == 0 || account.gid == 0 || account.groups.contains(&0) {
        return Err(StageError::Root);
    }
    let step = |attempt: &'static str| {
        move |e: nix::errno::Errno| StageError::Step {
            attempt,
            cause: io::Error::from(e),
        }
    };
    let core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, core).map_err(|e| StageError::Step {
        attempt: "forbidding core files",
        cause: e.into(),
    })?;
    // Dropping from the bounding set takes a capability, so it comes before the uid.
    for set in [CapSet::Bounding, CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(StageError::Capabilities)?;
    }
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(step("setting the supplementary groups"))?;
    let gid = Gid::from_raw(account.gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(step("setting the group"))?;
    let uid = Uid::from_raw(account.uid);
    nix::unistd::setresuid(uid, uid, uid).map_err(step("setting the user"))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| StageError::Step {
        attempt: "forbidding new privileges",
        cause: e.into(),
    })?;
    verify(uid)
}

fn verify(uid: Uid) -> Result<(), StageError> {
    let held = nix::unistd::getresuid().map_err(|e| StageError::Step {
        attempt: "reading the user",
        cause: e.into(),
    })?;
    if [held.real, held.effective, held.saved] != [uid; 3] {
        return Err(StageError::Remaining("the user did not change"));
    }
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
        CapSet::Bounding,
    ] {
        if !caps::read(None, set)
            .map_err(StageError::Capabilities)?
            .is_empty()
        {
            return Err(StageError::Remaining("a capability set is not empty"));
        }
    }
    match rustix::thread::no_new_privs() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StageError::Remaining("new privileges are not forbidden")),
        Err(e) => Err(StageError::Step {
            attempt: "reading no_new_privs",
            cause: e.into(),
        }),
    }
}
