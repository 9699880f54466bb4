//! Finds the configuration's file, and what it refers to.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use exeat_policy::{Fault, Source};

use super::{Config, DEFAULT_FILE, parse};

/// Largest file that configuration refers to, in bytes.
const MAX_FILE: u64 = 8 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("reading `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Everything that is wrong in it, one a line.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
}

fn lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(Fault::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The configuration in `file`, or in the default place, where an absent file means the defaults.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    match read_text(path) {
        Ok(text) => {
            let source = Source {
                name: path.display().to_string(),
                text,
            };
            parse(&source).map_err(ConfigError::Faults)
        }
        Err(ConfigError::Read { cause, .. })
            if file.is_none() && cause.kind() == io::ErrorKind::NotFound =>
        {
            Ok(Config::default())
        }
        Err(e) => Err(e),
    }
}

/// The whole text of a file of at most 8 MiB.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    read_opened(&File::open(path).map_err(failed)?, path)
}

/// The same of one that is open, and was found at `path`.
pub fn read_opened(file: &File, path: &Path) -> Result<String, ConfigError> {
    let failed = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(failed(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 8 MiB",
        )));
    }
    Ok(text)
}
