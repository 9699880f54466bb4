//! What a record holds. The published form is `docs/audit-format.md`.

mod actor;
mod approval;
mod event;
mod result;
mod traffic;

use serde::{Deserialize, Serialize};

pub use actor::{Certificate, HostProcess, Identity, Session, Workload, WorkloadKind};
pub use approval::Approval;
pub use event::{Cause, Counted, Cut, Fetched, Finding, Lifecycle, PolicyChange};
pub use result::{
    Counter, Decision, Effect, Extent, Inspected, Inspection, Mode, Open, Outcome, Stage, Status,
};
pub use traffic::{Dns, DryRun, Exec, Http, Mcp, ResponseKind, Side, Tcp};

use super::id::RecordId;
use super::shared::Shared;
use super::text::Text;
use crate::telemetry::clock::{Moment, Monotonic, Timestamp};

/// What most records take.
const BODY: usize = 1_024;

/// What no record exceeds.
const MAX_BODY: usize = 64 * 1_024;

/// One record, without what the writer adds (`v`, `seq`, `prev`, `hash`).
///
/// Sections that do not apply stay empty and are left out of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unique and ordered by opening.
    pub id: RecordId,
    /// Present while the exchange is under way; then `outcome` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// When the exchange or event began, UTC.
    pub time: Timestamp,
    /// The same on the monotonic clock.
    pub mono: Monotonic,
    /// What is recorded.
    pub kind: Kind,
    /// Generation of the policy that was in force then, in this run of the daemon; 0: not known.
    #[serde(default)]
    pub generation: u64,
    /// Which processes acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Shared<Workload>>,
    /// Who called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Shared<Identity>>,
    /// The MCP session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Shared<Session>>,
    /// The JSON-RPC message and what answered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<Mcp>,
    /// The HTTP request and its response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// The transport connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// The DNS query and its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// The program that was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What a person was asked, and decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// How much of the exchange was looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspected: Option<Inspected>,
    /// The record that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// A change of policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyChange>,
    /// Something an operator should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// A step in the life of the daemon, the log or a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Record {
    pub(super) fn new(id: RecordId, at: Moment, kind: Kind) -> Self {
        Self {
            id,
            open: None,
            time: at.wall,
            mono: at.mono,
            kind,
            generation: 0,
            workload: None,
            identity: None,
            session: None,
            mcp: None,
            http: None,
            tcp: None,
            dns: None,
            exec: None,
            decision: None,
            approval: None,
            inspected: None,
            cause: None,
            policy: None,
            finding: None,
            lifecycle: None,
            outcome: None,
        }
    }

    /// The record as a JSON object, to which the writer adds its members.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BODY);
        match serde_json::to_writer(&mut body, self) {
            Ok(()) if body.len() <= MAX_BODY => body,
            // Too large (or, against all types, not representable): what it is and how it ended
            // is recorded whatever happens.
            _ => self.essence(),
        }
    }

    fn essence(&self) -> Vec<u8> {
        let finding = Finding {
            what: Text::fixed("record_too_large"),
            ..Finding::default()
        };
        let essence = Self {
            open: self.open,
            generation: self.generation,
            decision: self.decision.clone().map(|decision| Decision {
                counters: Vec::new(),
                ..decision
            }),
            outcome: self.outcome.clone(),
            finding: Some(finding),
            ..Self::new(
                self.id,
                Moment {
                    wall: self.time,
                    mono: self.mono,
                },
                self.kind,
            )
        };
        serde_json::to_vec(&essence).unwrap_or_default()
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A JSON-RPC message of MCP.
    Mcp,
    /// An HTTP exchange without MCP.
    Http,
    /// A connection, or an attempt at one, whose content is not HTTP or was not seen.
    Tcp,
    /// A DNS query.
    Dns,
    /// An executed program.
    Exec,
    /// A request for a person's consent.
    Approval,
    /// A change of policy.
    Policy,
    /// Something an operator should look at.
    Finding,
    /// A step in the life of the daemon, the log or a workload.
    Lifecycle,
}
