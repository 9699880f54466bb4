//! Exeat's part of the cgroup2 tree: `exeat/gate` and `exeat/w/NAME-NUMBER`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// How often a cgroup is looked at while its last processes die.
const INTERVAL: Duration = Duration::from_millis(10);
/// How often, at most.
const LOOKS: u32 = 500;
/// Levels below a workload's cgroup that are followed.
const MAX_DEPTH: u32 = 32;

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
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
    /// The unified hierarchy is not mounted.
    #[error(
        "no cgroup2 file system is mounted; boot with systemd.unified_cgroup_hierarchy=1, or mount one"
    )]
    NotMounted,
    /// Processes that even SIGKILL does not end.
    #[error("processes in `{}` did not end", .0.display())]
    Occupied(PathBuf),
}

fn at(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |cause| CgroupError::Path {
        attempt,
        path: path.to_owned(),
        cause,
    }
}

/// Exeat's own directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where cgroup2 is mounted.
    pub root: PathBuf,
    /// Exeat's base.
    pub base: PathBuf,
    /// The gate's.
    pub gate: PathBuf,
    /// The parent of workloads that Exeat starts.
    pub managed: PathBuf,
}

impl Tree {
    /// Creates what is missing of the tree below `root`. Its parts belong to root and are not
    /// delegated, so that no unprivileged process moves itself.
    pub fn create(root: PathBuf, name: &str) -> Result<Self, CgroupError> {
        let base = root.join(name);
        let tree = Self {
            gate: base.join("gate"),
            managed: base.join("w"),
            base,
            root,
        };
        for path in [&tree.base, &tree.gate, &tree.managed] {
            fs::create_dir_all(path).map_err(at("creating the cgroup", path))?;
        }
        Ok(tree)
    }

    /// A new cgroup for a workload.
    pub fn add(&self, name: &str, number: u32) -> Result<PathBuf, CgroupError> {
        let path = self.managed.join(format!("{name}-{number}"));
        fs::create_dir(&path).map_err(at("creating the cgroup", &path))?;
        Ok(path)
    }

    /// The workloads' cgroups that exist.
    pub fn existing(&self) -> Result<Vec<PathBuf>, CgroupError> {
        children(&self.managed)
    }
}

/// Where cgroup2 is mounted: not always `/sys/fs/cgroup`.
pub fn find_root() -> Result<PathBuf, CgroupError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(at("reading", path))?;
    parse_root(&mounts).ok_or(CgroupError::NotMounted)
}

/// `proc_pid_mountinfo(5)`: `ID PARENT DEVICE ROOT POINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS`.
fn parse_root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && file_system.split(' ').next() == Some("cgroup2"))
            .then(|| PathBuf::from(unescape(point)))
    })
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escaped, plain)| {
        text.replace(escaped, plain)
    })
}

/// The kernel's id of a cgroup: the inode of its directory.
pub fn id(path: &Path) -> Result<u64, CgroupError> {
    fs::metadata(path)
        .map(|metadata| metadata.ino())
        .map_err(at("reading the cgroup", path))
}

fn children(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = || at("reading the cgroup", path);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether there are processes in cgroups below one.
pub fn has_below(path: &Path) -> bool {
    let lives = |below: &PathBuf| populated(below).unwrap_or(false);
    children(path).is_ok_and(|below| below.iter().any(lives))
}

/// The processes in a cgroup and all below it.
pub fn processes(path: &Path) -> Result<Vec<u32>, CgroupError> {
    let mut found = Vec::new();
    walk(path, MAX_DEPTH, &mut |path| {
        let text = fs::read_to_string(path.join("cgroup.procs"))?;
        // 0 stands for a process of another pid namespace, which cannot be here.
        found.extend(
            text.lines()
                .filter_map(|line| line.parse::<u32>().ok())
                .filter(|&p| p != 0),
        );
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` on a cgroup and those below, children first; those that are gone are passed over.
fn walk(
    path: &Path,
    depth: u32,
    each: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> Result<(), CgroupError> {
    if let Some(depth) = depth.checked_sub(1) {
        let below = match children(path) {
            Err(CgroupError::Path { cause, .. }) if gone(&cause) => return Ok(()),
            other => other?,
        };
        for child in below {
            walk(&child, depth, each)?;
        }
    }
    match each(path) {
        Err(e) if !gone(&e) => Err(at("working on the cgroup", path)(e)),
        _ => Ok(()),
    }
}

fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
        || e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Moves a process; sockets that it holds keep belonging where they were made.
pub fn move_process(pid: u32, path: &Path) -> Result<(), CgroupError> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
        .map_err(at("moving a process to the cgroup", path))
}

/// Whether a process is in the cgroup or below; false once the cgroup is gone.
pub fn populated(path: &Path) -> Result<bool, CgroupError> {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
        Err(e) if gone(&e) => Ok(false),
        Err(e) => Err(at("reading the cgroup", path)(e)),
    }
}

/// Kills everything in a cgroup and below. Done if it is gone already.
pub async fn empty(path: &Path) -> Result<(), CgroupError> {
    for _look in 0..LOOKS {
        if !populated(path)? {
            return Ok(());
        }
        kill(path)?;
        sleep(INTERVAL).await;
    }
    Err(CgroupError::Occupied(path.to_owned()))
}

/// Empties a cgroup, and removes it with all below.
pub async fn destroy(path: &Path) -> Result<(), CgroupError> {
    empty(path).await?;
    remove(path)
}

fn kill(path: &Path) -> Result<(), CgroupError> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Ok(()) => Ok(()),
        // Before Linux 5.14 there is no such file: one by one, and again until none is left.
        Err(e) if gone(&e) || e.kind() == io::ErrorKind::PermissionDenied => {
            for pid in processes(path)? {
                signal(pid, rustix::process::Signal::KILL);
            }
            Ok(())
        }
        Err(e) => Err(at("killing the cgroup", path)(e)),
    }
}

/// Sends a signal to a process in a cgroup; that it ended meanwhile is as good.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| rustix::process::kill_process(pid, signal)) {
        tracing::debug!(%error, "process took no signal");
    }
}

/// Removes an empty cgroup with all below; done if it is gone already.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    walk(path, MAX_DEPTH, &mut |path| fs::remove_dir(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_wherever_it_is_mounted() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_root(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let spaced = "31 30 0:27 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n";
        assert_eq!(parse_root(spaced), Some("/mnt/a b\\c".into()));
        let part = "31 30 0:27 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_root(part), None);
        assert_eq!(
            parse_root("31 30 0:27 / /x rw - cgroup cgroup rw,cpu\nshort\n"),
            None
        );
    }

    #[tokio::test]
    async fn a_cgroup_is_emptied_and_removed_with_all_below() {
        let root = find_root().unwrap();
        let name = format!("super-cgroups-{}", std::process::id());
        let tree = Tree::create(root, &name).unwrap();
        let path = tree.add("server", 7).unwrap();
        let below = path.join("below");
        fs::create_dir(&below).unwrap();
        assert!(!has_below(&path));
        let mut children: Vec<_> = [&path, &below]
            .map(|path| {
                let child = std::process::Command::new("sleep")
                    .arg("600")
                    .spawn()
                    .unwrap();
                move_process(child.id(), path).unwrap();
                child
            })
            .into_iter()
            .collect();
        let mut pids = processes(&path).unwrap();
        pids.sort_unstable();
        let mut expected: Vec<u32> = children.iter().map(std::process::Child::id).collect();
        expected.sort_unstable();
        assert_eq!(pids, expected);
        assert!(populated(&path).unwrap() && has_below(&path));
        assert_ne!(id(&path).unwrap(), id(&below).unwrap());
        destroy(&path).await.unwrap();
        assert!(!path.exists());
        for child in &mut children {
            child.wait().unwrap();
        }
        destroy(&path).await.unwrap();
        destroy(&tree.base).await.unwrap();
        assert!(!tree.base.exists());
    }
}
