//! `exeat policy`: is it right, does it decide as expected, why as it does, what would another, and what is needed?

mod check;
mod diff;
mod draft;
mod explain;
pub(super) mod files;
mod manifest;
pub(super) mod recorded;
mod test;

use jiff::Zoned;

use super::args::PolicyCommand;
use super::ask::Daemon;
use super::error::CliError;
use super::output::Output;
use crate::config::Config;

/// Checks, tests, explains or compares.
pub(super) async fn run(
    command: &PolicyCommand,
    config: &Config,
    daemon: &Daemon,
    now: &Zoned,
    output: Output,
) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(arguments) => check::run(arguments, config, daemon, output).await,
        PolicyCommand::Test(arguments) => test::run(arguments, config, output),
        PolicyCommand::Diff(arguments) => diff::run(arguments, config, daemon, now, output).await,
        PolicyCommand::Draft(arguments) => draft::run(arguments, config, daemon, now, output).await,
        PolicyCommand::Schema => output.schema(&exeat_policy::schema()),
        PolicyCommand::Explain(arguments) => explain::run(arguments, daemon, output).await,
    }
}
