//! Docker's daemon on the machine under test: Debian's, with everything of its own in the lab's directory.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::process::{Finished, Process, run};
use crate::wait::wait_for;

/// The client.
pub const CLIENT: &str = "/usr/bin/docker";
/// How long it may take to start.
const START: Duration = Duration::from_mins(1);
/// How long one command may take.
const COMMAND: Duration = Duration::from_mins(1);

/// In a mount name space of its own, so that it sees cgroup2 where it looks for it, as on machines without the older
/// hierarchies. `nobody` may use it.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
if [ "$(stat --file-system --format=%T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
PATH="/usr/sbin:/usr/bin:$PATH" exec dockerd --config-file "$0/docker.json" --group nogroup --host "unix://$0/docker.sock" \
    --data-root "$0/docker" --exec-root "$0/docker.run" --pidfile "$0/docker.pid" \
    --bridge none --iptables=false --ip6tables=false --storage-driver vfs \
    --exec-opt "native.cgroupdriver=$1"
"#;

/// The daemon; it ends on drop, and what it runs with it.
#[derive(Debug)]
pub struct Docker {
    process: Process,
    socket: PathBuf,
}

impl Docker {
    /// Starts it in the lab's inside, with this driver of cgroups.
    pub async fn start(lab: &Lab, driver: &str) -> Result<Self> {
        let directory = lab.directory();
        std::fs::write(directory.join("docker.json"), "{}").context("write docker.json")?;
        let mut command = lab.inside.command("unshare");
        command
            .args(["--mount", "sh", "-c", SCRIPT])
            .arg(directory)
            .arg(driver);
        let process = Process::start("dockerd", directory, &mut command)?;
        let docker = Self {
            process,
            socket: directory.join("docker.sock"),
        };
        wait_for("Docker's daemon answers", START, async || {
            let done = docker.run(&["version"]).await.ok()?;
            done.status.success().then_some(())
        })
        .await
        .with_context(|| docker.process.report())?;
        Ok(docker)
    }

    /// As `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs `docker ARGUMENTS` to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(CLIENT);
        command
            .args(["--config", "/nonexistent", "--host", &self.host()])
            .args(arguments);
        run(&mut command, COMMAND).await
    }

    /// The containers there are, whatever their state.
    pub async fn containers(&self) -> Result<Vec<String>> {
        let done = self.run(&["ps", "--all", "--quiet", "--no-trunc"]).await?;
        anyhow::ensure!(done.status.success(), "{}", done.stderr);
        Ok(done.stdout.lines().map(str::to_owned).collect())
    }

    /// The names of the images there are.
    pub async fn images(&self) -> Result<Vec<String>> {
        let format = "{{.Repository}}:{{.Tag}}";
        let done = self.run(&["images", "--format", format]).await?;
        anyhow::ensure!(done.status.success(), "{}", done.stderr);
        Ok(done.stdout.lines().map(str::to_owned).collect())
    }

    /// What it logged.
    pub fn report(&self) -> String {
        self.process.report()
    }
}
