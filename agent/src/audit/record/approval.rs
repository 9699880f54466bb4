//! A person's decision on a call, in its own record and in the call's.

use serde::{Deserialize, Serialize};

use crate::audit::text::Text;
use crate::telemetry::clock::Timestamp;

/// What a person was asked, and decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id, as the approver names it.
    pub id: Text,
    /// The rules that ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Text>,
    /// `approved` or `denied`; absent: nobody decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Text>,
    /// Who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Text>,
    /// The Unix user's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver_uid: Option<u32>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Timestamp>,
    /// Why, in the approver's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// SHA-256 of the arguments as they are sent, hexadecimal.
    pub arguments_sha256: Text,
}
