//! A call that waits for a person, as both processes and the disk know it.

use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::telemetry::clock;
use crate::telemetry::clock::Timestamp;

/// Calls that may wait at once, of all callers: what the supervisor keeps, and one packet of the channel carries.
pub const MOST_APPROVALS: usize = 64;
/// Longest name in an [`Approval`], in bytes, but for the tool's, which is twice that; together they fit into one packet.
pub const APPROVAL_NAME: usize = 64;

/// A tool call that needs an approval. It holds nothing of the call's arguments but digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// By which it is approved or denied: 12 hexadecimal digits.
    pub id: String,
    /// SHA-256 over caller, server and everything that is sent, in hexadecimal: only the same call is approved.
    pub call: String,
    /// SHA-256 of the arguments as they are sent, in hexadecimal.
    pub arguments: String,
    /// The server's name in the register.
    pub server: String,
    /// The tool: printable ASCII without quotes.
    pub tool: String,
    /// The rule that asks for the approval; of several the first.
    pub rule: String,
    /// The other rules that ask for it: who approves has to be an approver of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_rules: Vec<String>,
    /// Who calls.
    pub caller: ApprovalCaller,
    /// The record of the call.
    pub record: String,
    /// Since when it waits.
    pub asked: Timestamp,
    /// Until when it may be approved, and used.
    pub until: Timestamp,
    /// By whom it was approved, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Granted>,
}

/// Who calls, as the kernel attests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalCaller {
    /// Name of the workload in the policy; absent where the user alone is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The account's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The process's user.
    pub uid: u32,
    /// The beginning of a digest of whom its token and its client certificate are about, where it showed one: 16 hexadecimal
    /// digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Every user who has a part in it, ascending; none of them may approve.
    pub uids: Vec<u32>,
}

/// A person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The account's name; its number where it has none.
    pub user: String,
    /// Its number, as the kernel attests.
    pub uid: u32,
    /// When.
    pub at: Timestamp,
}

impl Approval {
    /// The rules that ask for the approval.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.rule)
            .chain(&self.other_rules)
            .map(String::as_str)
    }
}

#[cfg(test)]
impl Approval {
    /// One that waits, for tests.
    pub(crate) fn for_tests(id: &str) -> Self {
        let now = clock::wall();
        Self {
            id: id.to_owned(),
            call: "0".repeat(64),
            arguments: "0".repeat(64),
            server: "bank".to_owned(),
            tool: "pay".to_owned(),
            rule: "ask".to_owned(),
            other_rules: Vec::new(),
            caller: ApprovalCaller {
                workload: None,
                user: Some("alice".to_owned()),
                uid: 1000,
                token: None,
                uids: vec![1000],
            },
            record: String::new(),
            asked: now,
            until: Timestamp::from_microseconds(now.microseconds() + 60_000_000),
            granted: None,
        }
    }
}
