//! `exeat daemon`: hands over to the supervisor.

use std::error::Error;

use tokio::runtime::Builder;

use super::args::{DaemonArguments, Global};
use super::error::{CliError, Kind};
use crate::supervisor::{self, Options, Programs};
use crate::telemetry::logging;

/// Runs the daemon until it is told to stop.
pub(super) fn run(arguments: &DaemonArguments, global: &Global) -> Result<(), CliError> {
    let failed = |error: &(dyn Error + 'static)| CliError::from_error(Kind::Usage, error);
    logging::init(None).map_err(|error| failed(&error))?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the event loop", &error))?;
    let options = Options {
        config: global.config.clone(),
        policy: arguments.policy.clone(),
    };
    runtime
        .block_on(supervisor::daemon(options, Programs::this()))
        .map_err(|error| failed(&error))
}
