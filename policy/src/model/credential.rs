//! Secrets that the gate puts into requests: where they come from and how they are sent, never what they are.

use std::fmt;
use std::sync::Arc;

use crate::fault::Place;
use crate::name::{HostPattern, Name};

/// A secret of an egress entry or a tool.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name, unique over all files.
    pub name: Arc<str>,
    /// Where the secret comes from.
    pub origin: SecretOrigin,
    /// How it is sent.
    pub placement: Placement,
    /// The only hosts that it is sent to; empty: those of the egress entries that name it.
    pub hosts: Vec<HostPattern>,
    /// How often its source is read anew, in milliseconds; `None`: with each reading of the policy.
    pub refresh_ms: Option<u64>,
    /// Where it is defined.
    pub place: Place,
}

/// What it says counts, and not where it is written.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.origin == other.origin
            && self.placement == other.placement
            && self.hosts == other.hosts
            && self.refresh_ms == other.refresh_ms
    }
}

impl Eq for Credential {}

impl Credential {
    /// Whether it may be sent to `host`, as far as its own definition goes.
    #[must_use]
    pub fn is_for(&self, host: &Name) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// Where a secret comes from: one line, or the JSON of AWS keys where it signs. Read by the supervisor alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SecretOrigin {
    /// What this file holds.
    File(String),
    /// The credential of this name that systemd gives the daemon (`$CREDENTIALS_DIRECTORY`).
    Systemd(String),
    /// What this program prints, started with these arguments and without a shell.
    Command(Vec<String>),
}

impl fmt::Display for SecretOrigin {
    /// Of a command only the program: its arguments may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{path}`"),
            Self::Systemd(name) => write!(f, "systemd credential `{name}`"),
            Self::Command(words) => {
                let program = words.first().map_or("", String::as_str);
                write!(f, "command `{program}`")
            }
        }
    }
}

impl fmt::Debug for SecretOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a secret is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// In a header, after a prefix.
    Header {
        /// In lower case.
        name: Arc<str>,
        /// Such as `Bearer `; may be empty.
        prefix: Arc<str>,
    },
    /// As the parameter of this name in the query.
    Query(Arc<str>),
    /// As the password of this user (RFC 7617).
    Basic(Arc<str>),
    /// Not at all: it signs the request (AWS Signature Version 4).
    AwsSigV4 {
        /// The region whose signature it is, such as `eu-central-1`.
        region: Arc<str>,
        /// The service's name in signatures, such as `s3`.
        service: Arc<str>,
    },
}

impl Placement {
    /// The header that carries it or its signature, in lower case; `None`: it is sent in the query.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Basic(_) | Self::AwsSigV4 { .. } => Some("authorization"),
            Self::Query(_) => None,
        }
    }
}
