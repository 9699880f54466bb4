//! What happens beside exchanges, and what led to what.

use serde::{Deserialize, Serialize};

use super::traffic::Side;
use crate::audit::id::RecordId;
use crate::audit::text::Text;

/// What led to a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Exactly this one.
    Id(RecordId),
    /// One of these, which were in flight together.
    Candidates(Vec<RecordId>),
}

/// A change of policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyChange {
    /// `loaded`, `reloaded`, `refused`.
    pub action: Text,
    /// The fingerprint of the set that is in force after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Text>,
    /// Its generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What was wrong with a refused set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Text>,
}

/// Something an operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// Which: a short name that stays (`foreign_socket`, `audit_unavailable`).
    pub what: Text,
    /// The particulars, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text>,
    /// How often, where one record stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A step in the life of the daemon, the log or a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// Which: a short name that stays (`log_started`, `log_cut`, `log_stopped`).
    pub event: Text,
    /// The particulars, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text>,
    /// What was to follow the arguments that the register names, for `run`; secrets among them are masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<Text>,
    /// The bytes that the log does not count as records, for `log_cut`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// How much of what there was, for `session_ended`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Counted>,
    /// What the server fetched before it spoke, for `session_fetched`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fetched: Vec<Fetched>,
}

/// Something that was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fetched {
    /// The host.
    pub host: Text,
    /// The path.
    pub path: Text,
    /// The registry and the package, `npm:express`, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Text>,
    /// The package's version; absent of what a registry says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Text>,
    /// How many bytes of the body came by.
    pub bytes: u64,
    /// SHA-256 of the body as it was sent, hexadecimal; absent where not all of it came by, and of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Text>,
}

/// How often something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// What: `requests`, `refused`, `violations`, or the method of a notification.
    pub what: Text,
    /// Who sent it, of a notification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Side>,
    /// How often.
    pub count: u64,
}

/// The end of a segment that does not count: a tail torn by a crash, or bytes that the disk
/// would not confirm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cut {
    /// The number of the segment.
    pub segment: u64,
    /// How many of its bytes count.
    pub offset: u64,
    /// How many bytes follow them.
    pub bytes: u64,
    /// SHA-256 of those that follow, hexadecimal.
    pub sha256: Text,
}
