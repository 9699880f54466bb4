//! `exeat policy`: is it right, and why does it decide as it does?

mod check;
mod explain;
pub(super) mod files;

use super::args::PolicyCommand;
use super::ask::Daemon;
use super::error::CliError;
use super::output::Output;
use crate::config::Config;

/// Checks or explains.
pub(super) async fn run(
    command: &PolicyCommand,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(arguments) => check::run(arguments, config, output),
        PolicyCommand::Schema => output.schema(&exeat_policy::schema()),
        PolicyCommand::Explain(arguments) => explain::run(arguments, daemon, output).await,
    }
}
