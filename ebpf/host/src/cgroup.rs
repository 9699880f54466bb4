//! The cgroup2 hierarchy: where it is, how deep a cgroup sits, what its id is.

use crate::{KernelError, Missing};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Inode of the hierarchy's true root; a namespace's root has another.
const ROOT_INODE: u64 = 1;

/// The mount point of the whole hierarchy.
pub(crate) fn mount_point() -> Result<PathBuf, Missing> {
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Missing(format!("/proc/self/mountinfo is not readable ({error})")))?;
    find(&text)
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|status| status.ino() == ROOT_INODE))
        .ok_or_else(|| {
            Missing(
                "the root of cgroup2 is not mounted here: run on the host, outside a cgroup namespace, after `mount -t cgroup2 none /sys/fs/cgroup`"
                    .to_owned(),
            )
        })
}

/// Mount points of cgroup2 in a mountinfo text (proc(5)).
fn find(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let place = mount.split(' ').nth(4)?;
            kind.starts_with("cgroup2 ")
                .then(|| PathBuf::from(place.replace("\\040", " ")))
        })
        .collect()
}

/// The kernel's id of a cgroup.
pub(crate) fn id(cgroup: &Path) -> Result<u64, KernelError> {
    let status = fs::metadata(cgroup)
        .map_err(|cause| KernelError::path("find the cgroup", cgroup, cause))?;
    if !status.is_dir() {
        return Err(KernelError::Argument(format!(
            "`{}` is not a cgroup",
            cgroup.display()
        )));
    }
    Ok(status.ino())
}

/// How many levels below the root a cgroup sits.
pub(crate) fn level(cgroup: &Path, mount_point: &Path) -> Result<u32, KernelError> {
    cgroup
        .canonicalize()
        .ok()
        .as_deref()
        .and_then(|path| path.strip_prefix(mount_point).ok())
        .and_then(|below| u32::try_from(below.components().count()).ok())
        .ok_or_else(|| {
            KernelError::Argument(format!(
                "`{}` is not a cgroup under `{}`",
                cgroup.display(),
                mount_point.display()
            ))
        })
}

/// The cgroup at or below `top` that has an id.
pub(crate) fn by_id(top: &Path, wanted: u64) -> Option<PathBuf> {
    let mut queue = vec![top.to_owned()];
    while let Some(path) = queue.pop() {
        if fs::metadata(&path).is_ok_and(|status| status.ino() == wanted) {
            return Some(path);
        }
        queue.extend(children(&path));
    }
    None
}

/// The cgroups directly below one.
pub(crate) fn children(cgroup: &Path) -> Vec<PathBuf> {
    fs::read_dir(cgroup)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::PathBuf;

    #[test]
    fn finds_the_mount_among_others() {
        let text = "25 1 0:22 / /proc rw - proc proc rw\n\
                    31 25 0:27 / /sys/fs/cgroup/with\\040space rw,nosuid shared:4 - cgroup2 cgroup2 rw\n\
                    32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    broken";
        assert_eq!(find(text), [PathBuf::from("/sys/fs/cgroup/with space")]);
    }
}
