//! Runs other programs, and says what is going on.

use anyhow::{Context as _, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tells the user something. On standard error, as results of commands go to standard output.
#[expect(
    clippy::print_stderr,
    reason = "this is the place that speaks to the user"
)]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// The workspace's directory.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map(Path::to_owned)
        .context("xtask has no parent directory")
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where cargo puts what it builds.
pub(crate) fn target(root: &Path) -> Result<PathBuf> {
    let mut metadata = cargo();
    metadata
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let output = metadata
        .output()
        .context("ask cargo for its target directory")?;
    let text = String::from_utf8(output.stdout).context("read cargo's answer")?;
    // The one member that is wanted of a large document; cargo escapes nothing in an ordinary path.
    let (_, rest) = text
        .split_once("\"target_directory\":\"")
        .context("find the target directory in cargo's answer")?;
    let (directory, _) = rest
        .split_once('"')
        .context("read the target directory in cargo's answer")?;
    Ok(directory.into())
}

/// Runs a program to its end; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// What a program says, if it runs and succeeds.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if output.status.success() {
        String::from_utf8(output.stdout).ok()
    } else {
        None
    }
}

/// The program is on PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
