//! The project's own commands: `cargo xtask <command>`. One file per command.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod fixtures;
mod setup;
mod shell;
mod test;
mod tidy;
mod train;
mod vm;

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
    /// Install the servers, clients and suites that tests run against, and print where they are
    Fixtures,
    /// Show allowed and refused calls with their records, after installing and building what that takes
    Demo,
    /// Run every test; as root
    Test(test::Arguments),
    /// Check what compilers do not
    Tidy,
    /// Run the kernel programs' tests on older and newer kernels, in virtual machines; as root
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo => demo::run(),
        Command::Fixtures => fixtures::print(),
        Command::Test(arguments) => test::run(&arguments),
        Command::Tidy => tidy::run(),
        Command::Vm(arguments) => vm::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_one() {
        Arguments::command().debug_assert();
    }
}
