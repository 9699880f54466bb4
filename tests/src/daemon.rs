//! The daemon under test, in a lab.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::cgroup;
use crate::lab::{DNS, Lab};
use crate::process::{Finished, Process, must, run};
use crate::stdio::Session;
use crate::wait::wait_for;

/// How long the daemon may take until it answers its control socket.
const START: Duration = Duration::from_secs(30);

/// How long a command of the CLI may take.
const COMMAND: Duration = Duration::from_mins(1);

/// The account of the gate: nobody. It owns nothing, and exists everywhere.
const GATE: &str = "65534";

/// A daemon with everything that is its own: directories, pins, cgroups. All of it goes on drop.
#[expect(missing_debug_implementations, reason = "the lab holds a private key")]
pub struct Daemon<'lab> {
    process: Process,
    lab: &'lab Lab,
    starts: u32,
    level: &'static str,
    remains: Remains,
}

/// Removes what outlives the process, after it has gone.
struct Remains {
    pins: PathBuf,
    cgroup: PathBuf,
}

impl Drop for Remains {
    fn drop(&mut self) {
        // Programs that are no longer pinned are detached. What resists is under the lab's own name.
        let _cgroup = cgroup::remove(&self.cgroup);
        let _pins = fs::remove_dir_all(&self.pins);
    }
}

/// The binary under test: `EXEAT_BINARY`, else the one built together with this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("EXEAT_BINARY") {
        return Ok(chosen.into());
    }
    let own = env::current_exe().context("find this test's binary")?;
    // Tests lie one directory below it, other programs beside it.
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|place| place.join("exeat"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "find `exeat` near {}; run the tests with `cargo xtask test`",
            own.display()
        )
    })
}

impl Lab {
    /// Starts the daemon with this policy (the text of one file) and waits until it is ready.
    pub async fn daemon(&self, policy: &str) -> Result<Daemon<'_>> {
        self.daemon_with(policy, "").await
    }

    /// The same with diagnostics of this level (`EXEAT_LOG`).
    pub async fn daemon_at(&self, policy: &str, level: &'static str) -> Result<Daemon<'_>> {
        self.prepared(policy, "", level).await
    }

    /// The same with further settings, as text at the end of `exeat.yaml`.
    pub async fn daemon_with(&self, policy: &str, settings: &str) -> Result<Daemon<'_>> {
        self.prepared(policy, settings, "").await
    }

    /// The same with both.
    pub async fn prepared(
        &self,
        policy: &str,
        settings: &str,
        level: &'static str,
    ) -> Result<Daemon<'_>> {
        let directory = self.directory();
        fs::create_dir_all(directory.join("policy.d")).context("make the policy's directory")?;
        write_policy(directory, policy)?;
        fs::write(directory.join("exeat.yaml"), config(self, settings))
            .context("write exeat.yaml")?;
        let pins = mount_bpffs()?.join(self.name());
        let cgroup = self.cgroup()?;
        let mut daemon = Daemon {
            process: launch(self, 1, level)?,
            lab: self,
            starts: 1,
            level,
            remains: Remains { pins, cgroup },
        };
        daemon.ready().await?;
        Ok(daemon)
    }

    /// `exeat ARGUMENTS` inside, with this lab's configuration.
    pub fn exeat(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.inside.command(binary()?);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory().join("exeat.yaml"));
        Ok(command)
    }
}

impl Daemon<'_> {
    /// Its directory of pins.
    pub fn pins(&self) -> &Path {
        &self.remains.pins
    }

    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Runs `exeat ARGUMENTS --json` to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.lab.exeat(arguments)?;
        run(command.arg("--json"), COMMAND).await
    }

    /// What `exeat status` says, without the canary.
    pub async fn status(&self) -> Result<Value> {
        let done = self.cli(&["status", "--no-canary"]).await?;
        let mut report: Value = serde_json::from_str(&done.stdout)
            .with_context(|| format!("read a status: {}{}", done.stdout, done.stderr))?;
        let status = report.get_mut("status").context("read a status")?;
        Ok(status.take())
    }

    /// Starts the registered stdio server `server`, as a host would.
    pub fn run(&self, server: &str) -> Result<Session> {
        let log = self.lab.directory().join(format!("run-{server}.err"));
        Session::start(self.lab.exeat(&["run", server])?, &log)
    }

    /// Replaces the policy by rename(2), as an editor does. It does not wait for the reload.
    pub fn replace_policy(&self, policy: &str) -> Result<()> {
        write_policy(self.lab.directory(), policy)
    }

    /// Replaces the policy and waits until it is in force.
    pub async fn put_in_force(&self, policy: &str) -> Result<()> {
        let before = self.reloads()?;
        self.replace_policy(policy)?;
        wait_for("the policy is in force", START, async || {
            (self.reloads().ok()? > before).then_some(())
        })
        .await
    }

    /// How often a policy was replaced.
    fn reloads(&self) -> Result<usize> {
        let records = self.audit()?;
        let reloaded = |record: &&Value| {
            let action = record.pointer("/policy/action");
            action.is_some_and(|action| action == "reloaded")
        };
        Ok(records.iter().filter(reloaded).count())
    }

    /// Every record of what is over, in the order of the audit log.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let mut lines = self.audit_lines()?;
        lines.retain(|line| line.get("open").is_none());
        Ok(lines)
    }

    /// Every line of the audit log, those of exchanges that are under way included.
    pub fn audit_lines(&self) -> Result<Vec<Value>> {
        let directory = self.lab.directory().join("state/audit");
        let mut segments: Vec<PathBuf> = fs::read_dir(&directory)
            .with_context(|| format!("list {}", directory.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "jsonl")
            })
            .collect();
        segments.sort();
        let mut records = Vec::new();
        for segment in segments {
            let text = fs::read_to_string(&segment).context("read a segment")?;
            // The last line may still be on its way.
            records.extend(
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok()),
            );
        }
        Ok(records)
    }

    /// Waits until a record holds for which `wanted` is true, and returns it.
    pub async fn record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(what, START, async || {
            self.audit().ok()?.into_iter().find(|record| wanted(record))
        })
        .await
    }

    /// The finished records that are `wanted`, once there are so many. A record is written after what it is about was answered.
    pub async fn records(
        &self,
        what: &str,
        least: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>> {
        wait_for(what, START, async || {
            let mut records = self.audit().ok()?;
            records.retain(&wanted);
            (records.len() >= least).then_some(records)
        })
        .await
    }

    /// Has it read the policy and the sources of credentials anew (SIGHUP). It does not wait for that.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Kills the supervisor with SIGKILL and waits until it is gone. What is pinned stays.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(START).await.map(drop)
    }

    /// Ends the daemon in order (SIGTERM).
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.stop().await?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// Waits until it has ended by itself or by a signal of the test's.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.wait(START).await
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::stop`], and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.starts += 1;
        self.process = launch(self.lab, self.starts, self.level)?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        wait_for("the daemon answers `exeat status`", START, async || {
            if let Ok(Some(_)) = self.process.ended() {
                return Some(false);
            }
            let status = self.cli(&["status", "--no-canary"]).await;
            status
                .is_ok_and(|done| done.status.success())
                .then_some(true)
        })
        .await
        .and_then(|alive| {
            if alive {
                Ok(())
            } else {
                bail!("the daemon has ended")
            }
        })
        .with_context(|| self.process.report())
    }
}

fn launch(lab: &Lab, start: u32, level: &str) -> Result<Process> {
    let mut command = lab.exeat(&["daemon"])?;
    command.env("EXEAT_LOG", level).env("RUST_BACKTRACE", "1");
    // As systemd has it for a unit with `LoadCredential=`; what is in it is the test's.
    command.env("CREDENTIALS_DIRECTORY", lab.directory().join("credentials"));
    Process::start(&format!("daemon-{start}"), lab.directory(), &mut command)
}

fn config(lab: &Lab, settings: &str) -> String {
    let (directory, name) = (lab.directory().display(), lab.name());
    // A test that says `tls:` itself says all of it.
    let tls = if settings.contains("tls:") {
        String::new()
    } else {
        format!("tls: {{ extra_roots: [{directory}/world-ca.pem] }}")
    };
    format!(
        "version: 1
policy: {directory}/policy.d
state_dir: {directory}/state
run_dir: {directory}/run
bpffs: /sys/fs/bpf/{name}
cgroup: {name}
gate: {{ user: \"{GATE}\" }}
dns: {{ upstream: [\"{DNS}\"] }}
{tls}
{settings}
"
    )
}

fn write_policy(directory: &Path, policy: &str) -> Result<()> {
    let (draft, place) = (
        directory.join("policy.draft"),
        directory.join("policy.d/10-test.yaml"),
    );
    fs::write(&draft, policy).context("write the policy")?;
    fs::rename(&draft, &place).context("put the policy in its place")
}

/// The bpf file system, mounted where it is not yet.
fn mount_bpffs() -> Result<PathBuf> {
    const PLACE: &str = "/sys/fs/bpf";
    // Tests start at once, and one mount over another hides what is pinned there. Daemons lock it likewise.
    let place = fs::File::open(PLACE).context("open the place for bpffs")?;
    place.lock().context("lock the place for bpffs")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    if !mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(PLACE))
    {
        must("mount", &["-t", "bpf", "bpf", PLACE])?;
    }
    Ok(PLACE.into())
}
