//! What can go wrong between the daemon and the kernel.

use std::io;
use std::path::{Path, PathBuf};

/// A request to the kernel that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The object did not parse, or a program was refused by the verifier.
    #[error("load the kernel program `{program}`")]
    Load {
        /// Name of the program, or `object` for the whole.
        program: String,
        /// The loader's reason.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A request about a file, directory or pin failed.
    #[error("{what} `{path}`", path = path.display())]
    Path {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// A request about a map failed.
    #[error("{what} the map `{map}`")]
    Map {
        /// What was attempted.
        what: &'static str,
        /// On which map.
        map: &'static str,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// A system call that is about neither failed.
    #[error("{what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// The map holds as many entries as it may; the new one was not added.
    #[error("the map `{0}` is full")]
    Full(&'static str),
    /// Another live daemon holds the pins.
    #[error("the pins under `{path}` are held by {holder}", path = path.display())]
    Held {
        /// Directory of the pins.
        path: PathBuf,
        /// The holder: `process <pid>`, or `another process`.
        holder: String,
    },
    /// A map was pinned with another shape than this version's.
    #[error("the pinned map `{map}` has another shape; remove the pins with `exeat uninstall`")]
    Shape {
        /// Name of the map.
        map: String,
    },
    /// The running kernel lacks what the programs need.
    #[error("{0}")]
    Missing(#[from] crate::Missing),
    /// An argument that cannot be meant.
    #[error("{0}")]
    Argument(String),
    /// A record in a ring that this version does not know.
    #[error("a ring holds a record of kind {kind} and {length} bytes")]
    Record {
        /// Kind, 0 if the record is too short to have one.
        kind: u32,
        /// Its length.
        length: usize,
    },
}

impl KernelError {
    pub(crate) fn path(what: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Path {
            what,
            path: path.to_owned(),
            cause,
        }
    }

    /// A failed request about a map; a full map is told apart.
    pub(crate) fn map(what: &'static str, map: &'static str, cause: io::Error) -> Self {
        match cause.raw_os_error() {
            // Hash maps say E2BIG, longest-prefix maps ENOSPC.
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full(map),
            _ => Self::Map { what, map, cause },
        }
    }
}
