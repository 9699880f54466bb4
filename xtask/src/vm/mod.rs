//! `cargo xtask vm`: the kernel programs' tests in virtual machines, one for each line of kernels.
//!
//! qemu emulates the processor in software, so that any machine will do and no two results differ by what a machine
//! can virtualise. The guest is a distribution's kernel, unchanged, with this machine's files read-only beneath a
//! layer of memory; it runs the binary that `cargo test` has built here.

mod guest;
mod initramfs;
mod packages;

use crate::{demo, setup, shell};
use anyhow::{Context as _, Result, bail};
use guest::Outcome;
use packages::Kernel;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};

/// What is used beside what the build needs.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Tests that are left out of every guest, and why.
pub(super) const LEFT_OUT: [(&str, &str); 1] = [(
    "storm::no_connection_is_lost_or_confused",
    "200,000 connections take an hour when each instruction is emulated",
)];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only kernels of this line, e.g. 6.1; may be given several times
    #[arg(long = "line")]
    lines: Vec<String>,
    /// One more kernel: a folder of the packages that bring its image and its modules
    #[arg(long, value_name = "FOLDER")]
    packages: Vec<PathBuf>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !setup::is_root() {
        bail!("the guests' tests run as root on this machine's files: run this as root");
    }
    setup::run(&setup::Arguments::default())?;
    setup::install_missing(&demo::PROGRAMS, "what test networks are made with")?;
    setup::install_missing(&PROGRAMS, "what virtual machines are made with")?;
    let cache = packages::cache()?;
    let mut kernels = Vec::new();
    for folder in &arguments.packages {
        kernels.push(packages::given(&cache, folder)?);
    }
    kernels.extend(packages::offered(&cache, &arguments.lines)?);
    let busybox = packages::busybox(&cache)?;
    let suite = suite()?;
    let mut failed = 0;
    for kernel in &kernels {
        shell::say(&format!("==> {}", kernel.version));
        let verdict = match guest::run(
            &cache,
            &busybox,
            kernel,
            &suite,
            arguments.filter.as_deref(),
        ) {
            Ok(outcome) => judge(kernel, &outcome),
            Err(error) => Err(format!("{error:#}")),
        };
        let line = match verdict {
            Ok(line) => format!("passed  {line}"),
            Err(line) => {
                failed += 1;
                format!("FAILED  {}: {line}", kernel.version)
            }
        };
        writeln!(stdout(), "{line}").context("print")?;
    }
    for (test, why) in LEFT_OUT {
        shell::say(&format!("left out in each: {test}: {why}"));
    }
    let passed = kernels.len() - failed;
    writeln!(stdout(), "{passed} passed, {failed} failed").context("print")?;
    if failed > 0 || kernels.is_empty() {
        bail!("{failed} of {} kernels failed", kernels.len());
    }
    Ok(())
}

fn judge(kernel: &Kernel, outcome: &Outcome) -> Result<String, String> {
    let Outcome {
        passed,
        failed,
        seconds,
        log,
    } = outcome;
    if !failed.is_empty() {
        return Err(format!(
            "{passed} tests passed, these failed: {}; see {}",
            failed.join(", "),
            log.display()
        ));
    }
    if *passed == 0 {
        return Err(format!("no test ran; see {}", log.display()));
    }
    Ok(format!("{}: {passed} tests in {seconds} s", kernel.version))
}

/// Builds the tests of the kernel programs, and finds the binary.
fn suite() -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.current_dir(shell::root()?).args([
        "test",
        "--locked",
        "--package",
        "exeat-tests",
        "--test",
        "kernel",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = cargo
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("build the tests")?;
    if !output.status.success() {
        bail!("the tests were not built");
    }
    let text = String::from_utf8(output.stdout).context("read cargo's messages")?;
    // The one member that is wanted of each message; cargo escapes nothing in an ordinary path.
    let executables = text
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'))
        .map(|(path, _)| Path::new(path));
    let is_suite = |path: &&Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("kernel-"))
    };
    let mut suites = executables.filter(is_suite);
    suites
        .next_back()
        .map(Path::to_owned)
        .context("find the tests' binary in cargo's messages")
}
