//! One guest from its start to its end.

use super::packages::Kernel;
use super::{LEFT_OUT, initramfs};
use crate::test::now;
use anyhow::{Context as _, Result, bail};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How long a guest may take, in seconds: several times what the slowest took.
const LIMIT: &str = "2400";

/// What the tests in a guest came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How many passed.
    pub(super) passed: u64,
    /// Which did not.
    pub(super) failed: Vec<String>,
    /// How long it all took.
    pub(super) seconds: u64,
    /// What they said.
    pub(super) log: PathBuf,
}

/// Boots `kernel` and runs `suite` in it, with `filter` if there is one.
pub(super) fn run(
    cache: &Path,
    busybox: &Path,
    kernel: &Kernel,
    suite: &Path,
    filter: Option<&str>,
) -> Result<Outcome> {
    let out = cache.join("out").join(&kernel.version);
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let start = out.join("initramfs");
    initramfs::write(busybox, kernel, &start)?;
    fs::write(out.join("run.sh"), script(suite, filter)).context("write the guest's script")?;
    let console = out.join("console");
    let begun = now();
    let status = emulator(kernel, &start, &out)
        .stdin(Stdio::null())
        .stdout(File::create(&console).context("create the console's log")?)
        .status()
        .context("start qemu")?;
    if !status.success() {
        bail!(
            "the guest did not end by itself ({status}); see {}",
            console.display()
        );
    }
    let log = out.join("log");
    let text = fs::read_to_string(&log)
        .with_context(|| format!("no test was started; see {}", console.display()))?;
    let ended = |end: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(end));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let passed = ended(" ... ok").len();
    let mut failed = ended(" ... FAILED");
    if failed.is_empty() && !text.contains("test result: ok.") {
        failed.push("(the run itself)".to_owned());
    }
    Ok(Outcome {
        passed: u64::try_from(passed).context("count tests")?,
        failed,
        seconds: begun.elapsed().as_secs(),
        log,
    })
}

/// What runs in the guest: the suite, and the guest's end.
fn script(suite: &Path, filter: Option<&str>) -> String {
    let mut text = String::from("export PATH=/usr/sbin:/usr/bin:/sbin:/bin\ncd /tmp\n");
    // Each test by itself: an emulated processor is slow, and tests tell "at once" from "late".
    let mut line = format!("'{}' --test-threads=1", suite.display());
    for (test, _) in LEFT_OUT {
        // Writing to a String cannot fail.
        let _infallible = write!(line, " --skip {test}");
    }
    if let Some(filter) = filter {
        let _infallible = write!(line, " '{filter}'");
    }
    let _infallible = writeln!(text, "{line} > /run/out/log 2>&1");
    text.push_str("sync\necho o > /proc/sysrq-trigger\nsleep 60\n");
    text
}

fn emulator(kernel: &Kernel, start: &Path, out: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg("qemu-system-x86_64");
    // One thread: several have been seen to break guests whose code changes while it runs.
    command.args(["-machine", "q35", "-accel", "tcg,thread=single"]);
    command.args(["-cpu", "max", "-m", "1536", "-smp", "2"]);
    command.args(["-nographic", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(&kernel.image);
    command.arg("-initrd").arg(start);
    let share = |path: &Path, tag: &str, more: &str| {
        format!(
            "local,path={},mount_tag={tag},security_model=none{more}",
            path.display()
        )
    };
    let host = share(Path::new("/"), "host", ",readonly=on,multidevs=remap");
    command.args(["-virtfs", &host]);
    command.args(["-virtfs", &share(out, "out", "")]);
    command.args([
        "-append",
        "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check",
    ]);
    command
}
