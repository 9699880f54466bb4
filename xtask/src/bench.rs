//! `cargo xtask bench`: measures Exeat beside a direct way, HAProxy and mitmproxy, and prints a table.
//!
//! It builds optimised programs, installs what it compares with (saying so before), and hands over to
//! `measure` of the tests' package, which needs root. No time passes or fails.

use crate::{fixtures, setup, shell};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A look in two minutes instead of figures to publish
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Leave mitmproxy out, which takes an installation from `PyPI`
    #[arg(long)]
    without_mitmproxy: bool,
    /// What `measure` takes beside that, after `--`; `-- --help` says what
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if shell::output("id", &["-u"]).as_deref().map(str::trim) != Some("0") {
        bail!("measuring takes root: it makes network namespaces and loads Exeat's programs");
    }
    setup::run(&setup::Arguments::default())?;
    let root = shell::root()?;
    if fixtures::haproxy().is_err() {
        setup::install(&["haproxy"], "what Exeat is compared with")?;
    }
    let haproxy = fixtures::haproxy()?;
    let mitmdump = if arguments.without_mitmproxy {
        None
    } else {
        setup::install(&fixtures::missing(), "what mitmproxy is installed with")?;
        Some(fixtures::install_mitmproxy(&root, shell::say)?)
    };
    shell::say("building optimised programs: some minutes the first time");
    shell::run(shell::cargo().current_dir(&root).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "exeat",
        "--package",
        "exeat-tests",
        "--bins",
    ]))?;
    let programs = target(&root)?.join("release");
    let mut measure = Command::new(programs.join("measure"));
    measure
        .env("EXEAT_BINARY", programs.join("exeat"))
        .arg("--haproxy")
        .arg(haproxy);
    if let Some(mitmdump) = mitmdump {
        measure.arg("--mitmdump").arg(mitmdump);
    }
    for (flag, wanted) in [("--quick", arguments.quick), ("--json", arguments.json)] {
        if wanted {
            measure.arg(flag);
        }
    }
    shell::run(measure.args(&arguments.more))
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> Result<PathBuf> {
    let mut metadata = shell::cargo();
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
