//! `cargo xtask build`: compiles everything, after `setup`.

use crate::{setup, shell, train};
use anyhow::{Context as _, Result};
use std::fs;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Optimise, as for use
    #[arg(long)]
    release: bool,
    /// Optimise by a run under load, as for production: as root, in some 20 minutes; implies `--release`
    #[arg(long)]
    trained: bool,
    #[command(flatten)]
    setup: setup::Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run(&arguments.setup)?;
    let root = shell::root()?;
    let mut cargo = shell::cargo();
    cargo
        .current_dir(&root)
        .args(["build", "--locked", "--workspace"]);
    if arguments.release || arguments.trained {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    if arguments.trained {
        let target = shell::target(&root)?;
        let release = target.join("release");
        let program = train::build(&root, &target, &release.join("measure"))?;
        fs::copy(program, release.join("exeat")).context("put the program in its place")?;
    }
    Ok(())
}
