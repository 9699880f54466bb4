//! Control groups that a test makes: foreign workloads, matched by policy rather than launched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait::wait_until;

/// Where cgroup2 is mounted on this machine.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_source, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target))
    });
    found.context("find a cgroup2 mount; run: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// A cgroup directly under the mount; its processes are killed and it is removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup `name`.
    pub fn create(name: &str) -> Result<Self> {
        let path = mount()?.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes `launcher` to one whose program starts in this cgroup: it is there before its
    /// first instruction.
    pub fn launcher(&self, mut launcher: Command) -> Command {
        launcher
            .args(["sh", "-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.path);
        launcher
    }

    /// The processes in it.
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until nothing runs in it.
    pub async fn empty(&self, limit: Duration) -> Result<()> {
        let what = format!("{} is empty", self.path.display());
        wait_until(&what, limit, || self.processes().is_empty()).await
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What cannot be removed is left behind under the lab's own name, where it harms nobody.
        let _left = remove(&self.path);
    }
}

/// Kills what runs in `path` and below, and removes it.
pub fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1").context("kill a cgroup's processes")?;
    for entry in fs::read_dir(path).context("list a cgroup")? {
        let child = entry.context("list a cgroup")?.path();
        if child.is_dir() {
            remove(&child)?;
        }
    }
    // The kernel takes a moment to let go of killed processes.
    let mut last = fs::remove_dir(path);
    for _ in 0..200 {
        if last.is_ok() {
            break;
        }
        park_timeout(Duration::from_millis(10));
        last = fs::remove_dir(path);
    }
    last.with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[tokio::test]
    async fn a_program_starts_in_its_cgroup_and_ends_with_it() {
        let cgroup = Cgroup::create(&format!("exltest{}", std::process::id())).unwrap();
        let logs = tempfile::tempdir().unwrap();
        let mut command = cgroup.launcher(Command::new("env"));
        command.args(["sleep", "60"]);
        let mut process = Process::start("sleeper", logs.path(), &mut command).unwrap();
        wait_until("the process is there", Duration::from_secs(5), || {
            cgroup.processes() == [process.pid()]
        })
        .await
        .unwrap();
        let path = cgroup.path().to_owned();
        drop(cgroup);
        assert!(
            !process
                .wait(Duration::from_secs(5))
                .await
                .unwrap()
                .success()
        );
        assert!(!path.exists());
    }
}
