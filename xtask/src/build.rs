//! `cargo xtask build`: compiles everything, after `setup`.

use crate::{setup, shell};
use anyhow::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Optimise, as for use
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    setup: setup::Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run(&arguments.setup)?;
    let mut cargo = shell::cargo();
    cargo
        .current_dir(shell::root()?)
        .args(["build", "--locked", "--workspace"]);
    if arguments.release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)
}
