//! The project's own commands: `cargo xtask <command>`. One file per command.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod fixtures;
mod setup;
mod shell;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Exeat's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what compiling the kernel programs takes
    Setup(setup::Arguments),
    /// Compile everything, after `setup`
    Build(build::Arguments),
    /// Measure Exeat beside other ways to the same server
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
