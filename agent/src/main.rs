//! The `exeat` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    exeat::cli::run(std::env::args_os())
}
