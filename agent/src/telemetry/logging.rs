//! The daemon's diagnostics: one line each on standard error, by level.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The variable that overrides the configured level: a level (`debug`) or directives
/// (`info,exeat::resolve=trace`).
pub const LEVEL_VARIABLE: &str = "EXEAT_LOG";

/// The level without configuration.
pub const DEFAULT_LEVEL: &str = "info";

/// Why diagnostics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level from the environment or the configuration is not one.
    #[error("read `{directives}` from {origin} as a log level")]
    Level {
        /// What was given.
        directives: String,
        /// Where it was given.
        origin: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The variable holds bytes that are no text.
    #[error("read {LEVEL_VARIABLE} as text")]
    NotText,
    /// Something set up diagnostics before.
    #[error("install the diagnostics")]
    Install(#[source] TryInitError),
}

/// Sends diagnostics of `configured` level and above to standard error, in colours only where
/// that is a terminal. [`LEVEL_VARIABLE`] comes before `configured`, which comes before
/// [`DEFAULT_LEVEL`]. To be called once, before any task is started.
pub fn init(configured: Option<&str>) -> Result<(), LoggingError> {
    let filter = filter(env::var_os(LEVEL_VARIABLE), configured)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .finish()
        .try_init()
        .map_err(LoggingError::Install)
}

fn filter(
    environment: Option<OsString>,
    configured: Option<&str>,
) -> Result<EnvFilter, LoggingError> {
    let environment = environment
        .filter(|value| !value.is_empty())
        .map(|value| value.into_string().or(Err(LoggingError::NotText)))
        .transpose()?;
    let (directives, origin) = match (environment, configured) {
        (Some(value), _) => (value, LEVEL_VARIABLE),
        (None, Some(value)) => (value.to_owned(), "the configuration"),
        (None, None) => (DEFAULT_LEVEL.to_owned(), "the default"),
    };
    EnvFilter::builder()
        .parse(&directives)
        .map_err(|source| LoggingError::Level {
            directives,
            origin,
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn the_environment_comes_before_the_configuration_before_the_default() {
        let chosen = |environment: Option<&str>, configured| {
            filter(environment.map(OsString::from), configured)
                .unwrap()
                .to_string()
        };
        assert_eq!(chosen(Some("trace"), Some("warn")), "trace");
        assert_eq!(chosen(Some(""), Some("warn")), "warn");
        assert_eq!(
            chosen(None, Some("exeat::resolve=debug")),
            "exeat::resolve=debug"
        );
        assert_eq!(chosen(None, None), "info");
    }

    #[test]
    fn a_wrong_level_is_an_error_that_says_where_it_stands() {
        let error = filter(None, Some("exeat=loudest")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read `exeat=loudest` from the configuration as a log level"
        );
        let error = filter(Some(OsString::from_vec(vec![0xff])), None).unwrap_err();
        assert_eq!(error.to_string(), "read EXEAT_LOG as text");
    }
}
