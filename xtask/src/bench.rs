//! `cargo xtask bench`: measures Exeat beside a direct way, HAProxy and mitmproxy, and prints a table.
//!
//! It builds optimised programs, installs what it compares with (saying so before), and hands over to
//! `measure` of the tests' package, which needs root. No time passes or fails.

use crate::{fixtures, setup, shell, train};
use anyhow::{Result, bail};
use std::process::Command;

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
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
    /// Measure the program as `build --trained` builds it, which takes some 20 minutes more
    #[arg(long)]
    trained: bool,
    /// What `measure` takes beside that, after `--`; `-- --help` says what
    #[arg(last = true)]
    more: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !setup::is_root() {
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
    let target = shell::target(&root)?;
    let programs = target.join("release");
    let program = if arguments.trained {
        train::build(&root, &target, &programs.join("measure"))?
    } else {
        programs.join("exeat")
    };
    let mut measure = Command::new(programs.join("measure"));
    measure
        .env("EXEAT_BINARY", program)
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
