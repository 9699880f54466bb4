//! What a record holds. The published form is `docs/audit-format.md`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// When the exchange or event began, UTC.
    pub time: Timestamp,
    /// The same on the monotonic clock.
    pub mono: Monotonic,
    /// What is recorded.
    pub kind: Kind,
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
            time: at.wall,
            mono: at.mono,
            kind,
            workload: None,
            identity: None,
            session: None,
            mcp: None,
            http: None,
            tcp: None,
            dns: None,
            exec: None,
            decision: None,
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
            workload: None,
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

/// The processes in one managed cgroup and the one of them that acted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// The server's or host's name in the policy.
    pub name: Text,
    /// Server, host or unknown.
    pub kind: WorkloadKind,
    /// The kernel's number of the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When the process started; tells apart processes that had the same number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Monotonic>,
    /// Its executable's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text>,
    /// Its arguments; secrets among them are masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Text>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// SHA-256 of its executable, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Text>,
}

/// What a workload is in the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// An MCP server.
    Server,
    /// An MCP client.
    Host,
    /// Managed, but not (or no longer) in the policy.
    #[default]
    Unknown,
}

/// Who called, and how that is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The name in the policy; empty if it names none that fits.
    pub name: Text,
    /// How it was verified: `kernel`, `jwt`, `workload`.
    pub verified_by: Text,
    /// The Unix user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// The Unix user's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Who issued the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Text>,
    /// Whom the token names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text>,
    /// The roles that the policy gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Text>,
}

/// An MCP session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// A name for the session that is not the session's secret id: Exeat's own.
    pub id: Text,
    /// The client's name, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Text>,
    /// The client's version, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<Text>,
    /// The protocol's revision (`2025-11-25`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Text>,
}

/// A JSON-RPC message of MCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mcp {
    /// The MCP server's name in the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Text>,
    /// `tools/call` and its like; empty where the message could not be read.
    pub method: Text,
    /// Who sent it: the client unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Side>,
    /// The tool, prompt or resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// The tool's capability class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Text>,
    /// The arguments, masked and cut ([`super::mask::arguments`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Only the names and sizes of the arguments are recorded, since they are large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arguments_cut: bool,
    /// The request's id, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// What answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseKind>,
    /// The JSON-RPC error's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// A tool's own statement that it failed.
    #[serde(rename = "isError", skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
}

/// An end of an MCP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The host.
    Client,
    /// The MCP server.
    Server,
}

/// What answered a JSON-RPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseKind {
    /// A result.
    Result,
    /// A JSON-RPC error.
    Error,
    /// Nothing, as for a notification.
    None,
    /// A stream that carried the result.
    Stream,
    /// An HTTP answer without JSON-RPC.
    Http,
}

/// An HTTP exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Http {
    /// The name that policy judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// The address that was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Text>,
    /// `HTTP/1.1`, `HTTP/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Text>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// Path and query ([`Text::path`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// Headers that policy asks for ([`super::mask::header`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Text, Text)>,
    /// The status that the caller got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of the request's body that were sent on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Bytes of the response's body that were sent back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
}

/// A connection, or an attempt at one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tcp {
    /// `tcp`, `udp`, or what else was tried.
    pub protocol: Text,
    /// The name that the address stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// The name in the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Text>,
    /// The address that the process dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Bytes from the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Bytes to the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
}

/// A DNS query and its answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The name asked for.
    pub name: Text,
    /// The type asked for (`A`).
    #[serde(rename = "type")]
    pub record_type: Text,
    /// The response code (`NOERROR`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Text>,
    /// What was answered: addresses and aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Text>,
    /// The resolver that was asked, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Text>,
}

/// An executed program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// The executable's path.
    pub exe: Text,
    /// Its arguments; secrets among them are masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Text>,
    /// The process.
    pub pid: u32,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// SHA-256 of the executable, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Text>,
}

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
    /// The policy's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Text>,
    /// The policy's generation in this run of the daemon.
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
    /// Which limit.
    pub name: Text,
    /// What it stood at, this exchange included.
    pub value: u64,
    /// What it may reach.
    pub limit: u64,
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
    /// The bytes that the log does not count as records, for `log_cut`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
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
