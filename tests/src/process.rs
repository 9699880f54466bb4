//! Processes that end with the test that started them, and whose output is shown when it fails.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait::wait_for;

/// How long a process may take to obey SIGTERM.
const GRACE: Duration = Duration::from_mins(1);

/// How much of a log is shown when a test fails, in bytes.
const SHOWN: usize = 16 * 1024;

/// A process that the harness started; it is ended by its pid on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in files `name.out` and `name.err` under `logs`.
    ///
    /// Its standard input is empty unless the caller has set one.
    pub fn start(name: &str, logs: &Path, command: &mut Command) -> Result<Self> {
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        command.stdout(File::create(&stdout).context("create a log")?);
        command.stderr(File::create(&stderr).context("create a log")?);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("look after {}", self.name))
    }

    /// Waits for the first line of its standard output and reads it as JSON: the way in which the
    /// fixtures say that they are ready.
    pub async fn ready(&mut self, limit: Duration) -> Result<Value> {
        let what = format!("{} says that it is ready", self.name);
        let line = wait_for(&what, limit, async || {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            let out = self.stdout();
            let line = out.split_once('\n').map(|(line, _)| line.to_owned());
            line.or_else(|| ended.then(String::new))
        })
        .await?;
        serde_json::from_str(&line)
            .with_context(|| format!("{} did not start: {}", self.name, self.stderr()))
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_for(&what, limit, async || self.child.try_wait().ok().flatten()).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let raw = i32::try_from(self.child.id()).context("read a pid")?;
        let pid = Pid::from_raw(raw).context("read a pid")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Ends it with SIGTERM; what does not end by that has failed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(GRACE).await
    }

    /// The end of both logs, for a failure's report.
    pub fn report(&self) -> String {
        let tail = |text: String| {
            let skip = text.chars().count().saturating_sub(SHOWN);
            text.chars().skip(skip).collect::<String>()
        };
        format!(
            "--- {} stdout ---\n{}\n--- {} stderr ---\n{}\n",
            self.name,
            tail(self.stdout()),
            self.name,
            tail(self.stderr())
        )
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "a failing test shows its processes' logs"
    )]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.report());
        }
        // It may have ended already; then there is nothing to end.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// What a command that ran to its end has left.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON, or its last line: the clients' one line.
    pub fn json(&self) -> Result<Value> {
        if let Ok(whole) = serde_json::from_str(&self.stdout) {
            return Ok(whole);
        }
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .with_context(|| format!("read the answer in `{line}`; {}", self.stderr))
    }
}

/// Runs `command` to its end, at most for `limit`.
pub async fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let name = command.get_program().display().to_string();
    let logs = tempfile::tempdir().context("make a directory for logs")?;
    command.stdin(Stdio::null());
    let mut process =
        Process::start("command", logs.path(), command).with_context(|| name.clone())?;
    let status = process.wait(limit).await.with_context(|| name)?;
    Ok(Finished {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
    })
}

/// Runs `program` and fails unless it succeeds; its output is returned.
pub fn must(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    let shown: Vec<_> = arguments
        .iter()
        .map(|a| a.as_ref().to_string_lossy())
        .collect();
    anyhow::ensure!(
        output.status.success(),
        "{program} {}: {}: {}",
        shown.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Resident memory of the process `pid`, in bytes (proc(5), `VmRSS`).
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS")
}

/// What of it is the process's own, and of no file (`RssAnon`).
pub fn anonymous(pid: u32) -> Result<u64> {
    memory(pid, "RssAnon")
}

fn memory(pid: u32, what: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("read the memory of {pid}"))?;
    let mut lines = text.lines();
    let number = lines.find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let number = number.and_then(|rest| rest.split_ascii_whitespace().next());
    let kibibytes: u64 = number
        .with_context(|| format!("find {what}"))?
        .parse()
        .with_context(|| format!("read {what}"))?;
    Ok(kibibytes * 1024)
}

/// Whether `text` is anywhere in the memory, the environment or the command line of the process `pid`.
pub fn holds(pid: u32, text: &str) -> Result<bool> {
    let place = |file: &str| format!("/proc/{pid}/{file}");
    // Both are of the standard library, which is optimised also here.
    let found = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
    for file in ["environ", "cmdline"] {
        if found(&fs::read(place(file)).with_context(|| place(file))?) {
            return Ok(true);
        }
    }
    let memory = File::open(place("mem")).with_context(|| place("mem"))?;
    let maps = fs::read_to_string(place("maps")).with_context(|| place("maps"))?;
    let mut read = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("read a mapping")?;
        let (from, to) = range.split_once('-').context("read a mapping")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        if !rest.starts_with('r') || rest.contains("[vvar") || rest.contains("[vsyscall") {
            continue;
        }
        // What is reserved and not there cannot be read; pages are looked at one by one then.
        let mut bytes = vec![0; usize::try_from(to - from)?];
        if memory.read_exact_at(&mut bytes, from).is_err() {
            for (page, bytes) in (0..).zip(bytes.chunks_mut(4096)) {
                let _absent = memory.read_exact_at(bytes, from + 4096 * page);
            }
        }
        read += bytes.len();
        if found(&bytes) {
            return Ok(true);
        }
    }
    anyhow::ensure!(read > 1 << 20, "the memory of {pid} cannot be read");
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_the_ready_line_and_ends_the_process() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo '{"ready":true}'; exec sleep 60"#]);
        let mut process = Process::start("sleeper", logs.path(), &mut command).unwrap();
        let line = process.ready(Duration::from_secs(5)).await.unwrap();
        assert_eq!(line["ready"], true);
        assert!(!process.stop().await.unwrap().success());
    }

    #[tokio::test]
    async fn shows_why_a_process_did_not_start() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let mut process = Process::start("broken", logs.path(), &mut command).unwrap();
        let error = process.ready(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error:#}");
    }
}
