//! What the scenes happen on: the lab, the world's servers, the daemon, and the library.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::process::{Finished, Process, must, run};
use exeat_tests::upstream::Upstream;
use exeat_tests::{Lab, cgroup};

/// The policy, in which `EXE` stands for this program's copy.
const POLICY: &str = include_str!("policy.yaml");

/// The account of what does not need root; every Linux has it.
const NOBODY: &str = "daemon";

/// Where the daemon pins what the kernel holds.
const BPFFS: &str = "/sys/fs/bpf";

/// How long a part may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the library listens.
pub(crate) const LIBRARY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

/// A server that everyone reaches who is not managed.
pub(crate) const ELSEWHERE: SocketAddr = SocketAddr::new(WORLD_OTHER, 443);

/// Everything that runs beside the scenes; it ends on drop, in this order.
pub(crate) struct Stage<'lab> {
    pub(crate) daemon: Daemon<'lab>,
    /// `https://api.lab.example`.
    pub(crate) api: Upstream,
    /// `https://rogue.lab.example`, an MCP server that nobody has registered.
    pub(crate) rogue: Upstream,
    program: PathBuf,
    library: Process,
    lab: &'lab Lab,
}

impl<'lab> Stage<'lab> {
    /// Builds it.
    pub(crate) async fn build(lab: &'lab Lab) -> Result<Self> {
        let api = lab.https(&["api.lab.example"], SocketAddr::new(WORLD, 443))?;
        let rogue = lab.https(&["rogue.lab.example"], ELSEWHERE)?;
        // A copy: servers run without rights, and this build may lie in somebody's home.
        let program = lab.directory().join("demo");
        let own = env::current_exe().context("find this program")?;
        fs::copy(own, &program).context("copy this program")?;
        let policy = POLICY.replace("EXE", &program.display().to_string());
        let daemon = lab.daemon(&policy).await?;
        let mut command = part(lab, &program);
        command
            .arg("library")
            .arg("--listen")
            .arg(LIBRARY.to_string());
        trust(lab, &mut command);
        let mut library = Process::start("library", lab.directory(), &mut command)?;
        library.ready(LIMIT).await?;
        Ok(Self {
            daemon,
            api,
            rogue,
            program,
            library,
            lab,
        })
    }

    /// Runs `demo agent URL TOOL`, as a host that the policy knows by its executable.
    pub(crate) async fn agent(&self, url: &str, tool: &str) -> Result<Finished> {
        let mut command = part(self.lab, &self.program);
        command.args(["agent", url, tool]);
        trust(self.lab, &mut command);
        run(&mut command, LIMIT).await
    }

    /// Runs `demo dial ADDRESS` as a process that nobody manages.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Result<Finished> {
        let mut command = part(self.lab, &self.program);
        command.arg("dial").arg(address.to_string());
        run(&mut command, LIMIT).await
    }

    /// What `exeat ARGUMENTS` prints.
    pub(crate) async fn exeat(&self, arguments: &[&str]) -> Result<Finished> {
        run(&mut self.lab.exeat(arguments)?, LIMIT).await
    }

    /// How often the world's name server was asked for a name.
    pub(crate) fn asked(&self, name: &str) -> usize {
        let asked = self.lab.dns.asked();
        asked
            .iter()
            .filter(|question| question.name == name)
            .count()
    }

    /// Ends the processes in order, and has what the kernel holds removed.
    pub(crate) async fn strike(mut self) -> Result<()> {
        self.library.stop().await?;
        self.daemon.stop().await?;
        let done = self.exeat(&["uninstall"]).await?;
        anyhow::ensure!(done.status.success(), "exeat uninstall: {}", done.stderr);
        Ok(())
    }
}

/// This program inside the lab, without rights.
fn part(lab: &Lab, program: &Path) -> Command {
    let mut command = lab.inside.command("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(program)
        .current_dir("/");
    command
}

/// What `exeat ca install` does for a whole machine, for one process.
fn trust(lab: &Lab, command: &mut Command) {
    command.env(
        "SSL_CERT_FILE",
        lab.directory().join("run/trust/ca-bundle.pem"),
    );
}

/// What was there before, so that the end can be compared with it.
#[derive(Debug)]
pub(crate) struct Remains {
    mounted: bool,
}

impl Remains {
    /// Notes whether a bpf file system is mounted.
    pub(crate) fn look() -> Result<Self> {
        Ok(Self {
            mounted: mounted()?,
        })
    }

    /// Undoes the mount, and fails if anything of this demonstration is left.
    pub(crate) fn check(self) -> Result<()> {
        let own = format!("exl{}n", process::id());
        let places = [
            Path::new("/run/netns").to_owned(),
            PathBuf::from(BPFFS),
            cgroup::mount()?,
            env::temp_dir(),
        ];
        let left: Vec<String> = places
            .iter()
            .filter_map(|place| fs::read_dir(place).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&own))
            })
            .map(|path| path.display().to_string())
            .collect();
        anyhow::ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        if !self.mounted && mounted()? && fs::read_dir(BPFFS)?.next().is_none() {
            must("umount", &[BPFFS])?;
        }
        Ok(())
    }
}

fn mounted() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(BPFFS)))
}
