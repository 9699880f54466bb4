//! `exeat policy`: is it right, does it decide as expected, and why as it does?

mod check;
mod explain;
pub(super) mod files;
mod test;

use super::args::PolicyCommand;
use super::ask::Daemon;
use super::error::CliError;
use super::output::Output;
use crate::config::Config;

/// Checks, tests or explains.
pub(super) async fn run(
    command: &PolicyCommand,
    config: &Config,
    daemon: &Daemon,
    output: Output,
) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(arguments) => check::run(arguments, config, output),
        PolicyCommand::Test(arguments) => test::run(arguments, config, output),
        PolicyCommand::Schema => output.schema(&exeat_policy::schema()),
        PolicyCommand::Explain(arguments) => explain::run(arguments, daemon, output).await,
    }
}
