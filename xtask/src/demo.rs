//! `cargo xtask demo`: installs what is missing, builds, and shows what Exeat does.

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Programs of the demonstration's network, each with the Debian package that brings it.
pub(crate) const PROGRAMS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

pub(crate) fn run() -> Result<()> {
    shell::say(
        "1/3  what the build needs: a Rust compiler with `core` for BPF and bpf-linker (found, or installed by apt-get \
         and into ~/.cache/exeat), and iproute2",
    );
    setup::install_missing(&PROGRAMS, "what the demonstration's network is made with")?;
    setup::run(&setup::Arguments::default())?;
    shell::say("2/3  building (some minutes the first time)");
    shell::run(
        shell::cargo()
            .current_dir(shell::root()?)
            .args(["build", "--locked", "--package", "exeat"])
            .args([
                "--package",
                "exeat-tests",
                "--bin",
                "exeat",
                "--bin",
                "demo",
            ]),
    )?;
    shell::say(
        "3/3  the demonstration, in network namespaces of its own: no traffic leaves this machine",
    );
    let program = built()?;
    let mut command = if setup::is_root() {
        Command::new(program)
    } else if shell::has("sudo") {
        let mut command = Command::new("sudo");
        command.arg("--").arg(program);
        command
    } else {
        bail!("loading kernel programs takes root: run this as root, or install sudo");
    };
    // In this process's place, so that Ctrl-C goes to the one who cleans up, and its end is awaited.
    let error = command.arg("show").exec();
    Err(error).context("start the demonstration")
}

/// Where cargo has put it: beside this program, which the same profile built.
fn built() -> Result<PathBuf> {
    let own = env::current_exe().context("find this program")?;
    let program = own.with_file_name("demo");
    if program.is_file() {
        return Ok(program);
    }
    bail!("the build has not made `{}`", program.display())
}
