//! What was decided, what was looked into, and how it ended.

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::audit::text::Text;

/// What was decided, by which rule of which policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What was done.
    pub effect: Effect,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// Why; for operators, never shown to the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// Whether what was decided was done.
    #[serde(default)]
    pub mode: Mode,
    /// What would have been done, were every observing rule enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would: Option<Effect>,
    /// The rule that would have decided so, where one would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_rule: Option<Box<Text>>,
    /// Why; for operators, never shown to the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_reason: Option<Box<Text>>,
    /// Fingerprint of the policy that decided; absent where something else did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Text>,
    /// Its generation in this run of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What the limits' counters stood at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<Counter>,
}

/// The effects of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Let through.
    Allow,
    /// Refused.
    Deny,
    /// Answered without doing it.
    DryRun,
    /// Held for a person.
    Approve,
}

/// Whether a decision is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Carried out.
    #[default]
    Enforce,
    /// Recorded only.
    Observe,
}

/// A limit's counter at the time of the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// Which limit: what it says, and where it is written.
    pub name: Text,
    /// What it stood at, this exchange included where it counts.
    pub value: Number,
    /// What it may reach.
    pub limit: Number,
}

/// How much of an exchange was looked into.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspected {
    /// The request.
    pub request: Inspection,
    /// The response.
    pub response: Inspection,
}

/// How much of one direction was looked into.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspection {
    /// How much.
    pub extent: Extent,
    /// Why not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Text>,
}

/// All, some, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Every byte.
    Full,
    /// Some; the reason stands beside it.
    Partial,
    /// Nothing.
    #[default]
    None,
}

/// An exchange that was under way when the line was written; one of the same id follows when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Open {
    /// The stage at which its effect was about to be released.
    pub stage: Stage,
}

/// How an exchange ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Whether it was done.
    pub status: Status,
    /// The stage that it reached, where it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Text>,
    /// Microseconds from opening to closing; filled in on closing.
    pub latency_us: u64,
    /// Microseconds of it spent waiting for the other side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_us: Option<u64>,
    /// Bytes that left the machine for this exchange, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Whether an exchange was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Done as asked.
    Done,
    /// Refused by policy, or because something on the way to a decision failed.
    Refused,
    /// Permitted, but failed.
    Failed,
    /// Neither: dropped on the way.
    #[default]
    Abandoned,
}

/// The stages of an exchange, in order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Accepted.
    #[default]
    Intake,
    /// Asking who calls.
    Identify,
    /// In the TLS handshake.
    Tls,
    /// Reading the message.
    Decode,
    /// Asking the policy.
    Decide,
    /// Sending it on and its answer back.
    Forward,
    /// Answering a refusal.
    Refuse,
}
