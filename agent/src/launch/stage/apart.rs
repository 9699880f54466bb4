//! What keeps a server from having others act for it: other processes of its user, and services behind Unix sockets.
//!
//! A Unix socket carries bytes past every check of the network: who listens there acts with its own rights, outside
//! the workload (systemd starts programs, resolved asks name servers, a display takes keys). A security layer would
//! refuse by who listens; without one, the places where such services listen are not to be seen.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::mount::{MountFlags, mount};

use super::StageError;

/// A directory whose sockets are other programs' ears.
struct Veil {
    place: &'static str,
    /// Files in it that a server needs all the same.
    kept: &'static [&'static str],
    /// As tmpfs takes it.
    mode: &'static CStr,
}

/// One that is empty.
const fn veil(place: &'static str) -> Veil {
    Veil {
        place,
        kept: &[],
        mode: c"mode=0755,size=256k",
    }
}

const VEILED: [Veil; 9] = [
    // The manager's and the buses of each user, agents of keys, and what else a session has.
    veil("/run/user"),
    veil("/run/dbus"),
    // `/etc/resolv.conf` leads there.
    Veil {
        kept: &["resolve/stub-resolv.conf", "resolve/resolv.conf"],
        ..veil("/run/systemd")
    },
    veil("/run/nscd"),
    veil("/run/containerd"),
    veil("/run/podman"),
    veil("/run/crio"),
    veil("/run/libvirt"),
    // A display of its own may listen there.
    Veil {
        mode: c"mode=1777,size=256k",
        ..veil("/tmp/.X11-unix")
    },
];

/// Longest file that is kept.
const KEPT: u64 = 64 * 1024;

const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Lays empty directories over those of [`VEILED`] that exist. To be called in a mount namespace of one's own, with a
/// umask that lets others read.
pub(super) fn hide() -> Result<(), StageError> {
    for veil in &VEILED {
        let place = Path::new(veil.place);
        // In `/tmp` anybody may place a link.
        if fs::symlink_metadata(place).is_ok_and(|found| found.is_dir()) {
            lay(veil, place).map_err(|cause| StageError::Path {
                attempt: "hiding",
                path: place.to_owned(),
                cause,
            })?;
        }
    }
    Ok(())
}

fn lay(veil: &Veil, place: &Path) -> io::Result<()> {
    let mut contents: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for path in veil.kept.iter().map(|name| place.join(name)) {
        match fs::File::open(&path) {
            Ok(file) => {
                let mut text = Vec::new();
                file.take(KEPT).read_to_end(&mut text)?;
                contents.push((path, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    mount("exeat", place, "tmpfs", QUIET, veil.mode)?;
    for (path, text) in contents {
        fs::create_dir_all(path.parent().unwrap_or(place))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Keeps this process, and all that it becomes, from tracing, reading and writing the memory of processes outside
/// (`/proc/PID/mem` too), and from Linux 6.12 on from signalling them and from sockets of theirs without a path.
/// Before 5.19 it does nothing: Landlock could not be had there without forbidding renames.
pub(super) fn fence() -> Result<(), StageError> {
    fence_as_known().map_err(StageError::Fence)
}

fn fence_as_known() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // To rename and link as before. A set has to restrict something: to make a block device takes a capability anyway.
    Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer | AccessFs::MakeBlock)?
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::Refer))?
        .restrict_self()?;
    Ok(())
}

/// How far [`fence`] reaches on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing: there is no Landlock, or one that would forbid renames.
    Nothing,
    /// Tracing and memory.
    Memory,
    /// Signals and sockets without a path too.
    All,
}

/// Asks the kernel, and changes nothing.
pub(crate) fn reach() -> Reach {
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let has = |made: Result<Ruleset, RulesetError>| made.is_ok_and(|set| set.create().is_ok());
    let renames = strict().handle_access(AccessFs::Refer);
    let scopes = strict().scope(Scope::AbstractUnixSocket | Scope::Signal);
    if !has(renames) {
        Reach::Nothing
    } else if has(scopes) {
        Reach::All
    } else {
        Reach::Memory
    }
}
