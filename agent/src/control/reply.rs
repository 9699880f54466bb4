//! What the daemon answers: frames of [`Message`], each reply typed by the command that it answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::Verdict;
pub use super::listed::ListedTool;
use crate::channel::Disconnection;
use crate::telemetry::clock::Timestamp;

/// One frame of an answer. `done` or `failed` is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// A part of the answer.
    Reply(Reply),
    /// The answer is complete.
    Done,
    /// The answer ends here, because of this.
    Failed(Failure),
}

/// Why a command was not done; all of it is for the client's eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind, for scripts.
    pub code: Code,
    /// One sentence: what failed, on what, why.
    pub message: String,
}

impl Failure {
    /// Of this kind, for the client's eyes.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not allowed to this client.
    Refused,
    /// No such server, record or name.
    NotFound,
    /// The command or the policy that it names is wrong.
    Invalid,
    /// A bound of the daemon is reached.
    Busy,
    /// A part of the daemon that the command needs is down.
    Unavailable,
    /// Something failed within the daemon.
    Internal,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To `status`.
    Status(Box<Status>),
    /// To `canary`.
    Canary(Canary),
    /// To `servers`: one frame a server.
    Server(Box<Server>),
    /// To `audit query` and `audit tail`: one frame a record.
    Record(Record),
    /// To `policy explain`.
    Explanation(Explanation),
    /// To `run`, first: the server may be started. Brings the client's ends of its standard input, output and
    /// error.
    Streams,
    /// To `run`: the server's process exists.
    Started(Started),
    /// To `run`: the server's process has ended.
    Exited(Exited),
    /// To `reload`.
    Reloaded(PolicyState),
    /// To `servers disconnect` and `servers reconnect`.
    Word(Word),
    /// To `approvals`: one frame a call.
    Waiting(Box<Waiting>),
    /// To `approvals approve` and `approvals deny`.
    Decided(Decided),
    /// To `ca export`.
    Certificate(Certificate),
    /// To `doctor`: one frame a fact.
    Check(Check),
}

impl Reply {
    /// The reply's word, as an error names it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Canary(_) => "canary",
            Self::Server(_) => "server",
            Self::Record(_) => "record",
            Self::Explanation(_) => "explanation",
            Self::Streams => "streams",
            Self::Started(_) => "started",
            Self::Exited(_) => "exited",
            Self::Reloaded(_) => "reloaded",
            Self::Word(_) => "word",
            Self::Waiting(_) => "waiting",
            Self::Decided(_) => "decided",
            Self::Certificate(_) => "certificate",
            Self::Check(_) => "check",
        }
    }
}

/// The state of everything, or of what an ordinary user owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of the running daemon.
    pub version: String,
    /// The supervisor.
    pub supervisor: Process,
    /// The gate; absent while it is being started anew.
    pub gate: Option<Process>,
    /// How often the gate was started anew since the supervisor started.
    pub gate_restarts: u32,
    /// The programs in the kernel.
    pub kernel: KernelState,
    /// The policy in force.
    pub policy: PolicyState,
    /// The audit log; absent while the gate, which writes it, is being started anew.
    pub audit: Option<AuditState>,
    /// The issuers whose keys are fetched; for administrators, like credentials and webhooks.
    #[serde(default)]
    pub issuers: Vec<IssuerState>,
    /// The credentials that the policy defines.
    #[serde(default)]
    pub credentials: Vec<CredentialState>,
    /// Where approvers are told of calls that wait.
    #[serde(default)]
    pub webhooks: Vec<WebhookState>,
    /// The breakers of which something is known: of servers, and of tools. For an ordinary user, of the own servers.
    #[serde(default)]
    pub breakers: Vec<BreakerState>,
    /// The managed workloads, those of the client only where it is an ordinary user.
    pub workloads: Vec<Workload>,
    /// The servers that are disconnected, of an ordinary user's own.
    pub disconnected: Vec<Disconnected>,
    /// The newest findings, newest first.
    pub findings: Vec<Finding>,
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
}

/// The programs in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelState {
    /// Whether they were taken over from a daemon that ran before.
    pub adopted: bool,
    /// What this kernel lacks, one sentence each; empty: everything holds.
    pub degraded: Vec<String>,
    /// Kernel events that were lost because nobody read them in time.
    pub lost_events: u64,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyState {
    /// Counts the sets that were taken since the daemon started.
    pub generation: u64,
    /// SHA-256 over the set, as records name it.
    pub fingerprint: String,
    /// When it was taken.
    pub loaded: Timestamp,
    /// Servers in the register.
    pub servers: u32,
    /// Rules.
    pub rules: u32,
    /// Why the newest files were not taken, where they were not; who is no administrator is told that alone.
    pub rejected: Option<String>,
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditState {
    /// Whether records reach the disk.
    pub healthy: bool,
    /// Where.
    pub directory: String,
    /// Sequence number of the newest record.
    pub sequence: u64,
    /// Records that wait for the disk.
    pub queued: u64,
    /// Why not, where it is not healthy.
    pub problem: Option<String>,
}

/// A credential that the policy defines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialState {
    /// Its name.
    pub name: String,
    /// When its source was read last; absent: it is being read for the first time.
    pub read: Option<Timestamp>,
    /// Why its source told no secret, where it told none: then requests that need it are refused.
    pub problem: Option<String>,
}

/// A breaker, of a server or of one of its tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerState {
    /// The server.
    pub server: String,
    /// The tool; absent: all of the server's calls.
    pub tool: Option<String>,
    /// Whether calls pass.
    pub position: BreakerPosition,
    /// Milliseconds for which calls are refused, where they are.
    pub retry_after_ms: Option<u64>,
    /// Calls that ended within the window.
    pub calls: u32,
    /// How many of them failed.
    pub failed: u32,
}

/// Whether a breaker lets calls pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerPosition {
    /// All.
    Closed,
    /// None.
    Open,
    /// One, to see.
    HalfOpen,
}

/// An issuer whose keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerState {
    /// As tokens name it.
    pub issuer: String,
    /// How many of its keys count; with none, its tokens are refused.
    pub keys: usize,
    /// When they were fetched.
    pub fetched: Option<Timestamp>,
    /// Why they could not be fetched last, where they could not.
    pub problem: Option<String>,
}

impl IssuerState {
    /// How it stands, for people.
    pub fn check(&self) -> Check {
        let Self {
            issuer,
            keys,
            fetched,
            problem,
        } = self;
        let (standing, found) = match (keys, fetched, problem) {
            (0, None, None) => (
                Health::Warn,
                format!("{issuer}: its keys are being fetched"),
            ),
            (0, _, Some(why)) => (
                Health::Fail,
                format!("{issuer}: NO KEYS, so its tokens are refused: {why}"),
            ),
            (0, Some(since), None) => (
                Health::Fail,
                format!("{issuer}: NO KEYS, so its tokens are refused; the last are of {since}"),
            ),
            (_, since, problem) => {
                let since = since.map_or_else(String::new, |since| format!(" since {since}"));
                let found = format!("{issuer}: {keys} keys{since}");
                match problem {
                    None => (Health::Ok, found),
                    Some(why) => (Health::Warn, format!("{found}, not renewed: {why}")),
                }
            }
        };
        let remedy = "see that this machine reaches the issuer over HTTPS, that `tls.extra_roots` holds its root where it has one of its own, and `issuers` in exeat.yaml";
        Check {
            subject: "issuer".to_owned(),
            standing,
            found,
            remedy: (standing != Health::Ok).then(|| remedy.to_owned()),
        }
    }
}

/// Where an approver is told of calls that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookState {
    /// Who is told.
    pub approver: String,
    /// The webhook's host.
    pub host: String,
    /// Why the last message was not delivered, where it was not.
    pub problem: Option<String>,
}

impl WebhookState {
    /// How it stands, for people.
    pub fn check(&self) -> Check {
        let Self {
            approver,
            host,
            problem,
        } = self;
        let (standing, found) = match problem {
            None => (
                Health::Ok,
                format!("{approver} is told of approvals at {host}"),
            ),
            Some(why) => (
                Health::Warn,
                format!(
                    "{approver} is NOT TOLD of approvals, which wait for `exeat approvals`: {why}"
                ),
            ),
        };
        let remedy = "see that this machine reaches the webhook over HTTPS, that its URL still counts, and `approvals` in exeat.yaml";
        Check {
            subject: "webhook".to_owned(),
            standing,
            found,
            remedy: (standing != Health::Ok).then(|| remedy.to_owned()),
        }
    }
}

/// A managed workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its number.
    pub number: u32,
    /// Server or host in the register.
    pub name: String,
    /// `server` or `host`.
    pub kind: WorkloadKind,
    /// Its cgroup.
    pub cgroup: String,
    /// The user that it was started for.
    pub uid: u32,
    /// Processes in it.
    pub processes: u32,
    /// Open connections through the gate.
    pub connections: u32,
    /// When it began.
    pub started: Timestamp,
}

/// What a workload is in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// A server.
    Server,
    /// A host of agents.
    Host,
    /// Servers that the host of this name started without Exeat.
    Unregistered,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// When.
    pub time: Timestamp,
    /// The record that holds it.
    pub record: String,
    /// Server or host that it is about.
    pub workload: Option<String>,
    /// One sentence.
    pub text: String,
}

/// What a managed process met when it tried what is forbidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Whether every attempt was refused and every refusal was seen by the kernel's programs.
    pub enforced: bool,
    /// Each attempt.
    pub attempts: Vec<Attempt>,
}

/// One attempt of the canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// What was tried, such as `connect 192.0.2.1:443`.
    pub tried: String,
    /// What the process saw, such as `connection refused`.
    pub saw: String,
    /// Whether that is a refusal.
    pub refused: bool,
    /// Microseconds until the process was told.
    pub micros: u64,
}

/// A server of the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Who answers for it.
    pub owner: String,
    /// How it is reached: `stdio`, a URL, or where it listens.
    pub reached: String,
    /// Workloads that run it now.
    pub running: u32,
    /// `enforce` or `observe`.
    pub mode: String,
    /// When its registration is to be reviewed: a date.
    pub review_by: Option<String>,
    /// By whom and why it is disconnected, if it is.
    pub disconnected: Option<Disconnected>,
    /// What its processes may reach, one line each; only for `servers show`.
    pub egress: Vec<String>,
    /// Classes of its tools by pattern; only for `servers show`.
    pub tools: BTreeMap<String, String>,
    /// What it was seen to list since the gate began, by name; only for `servers show`, and for administrators.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listed: BTreeMap<String, ListedTool>,
}

/// A server that nobody reaches and that reaches nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnected {
    /// The server's name.
    pub server: String,
    /// When it was disconnected.
    pub since: Timestamp,
    /// The administrator who did it.
    pub by: String,
    /// Why, in that administrator's words.
    pub reason: Option<String>,
}

impl From<&Disconnection> for Disconnected {
    fn from(disconnection: &Disconnection) -> Self {
        Self {
            server: disconnection.server.clone(),
            since: disconnection.since,
            by: disconnection.user.clone(),
            reason: disconnection.reason.clone(),
        }
    }
}

/// What became of an administrator's word on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// The server's name.
    pub server: String,
    /// `disconnected`, `draining` or `connected`.
    pub state: String,
    /// Workloads that this was done to in the kernel.
    pub workloads: u32,
    /// What could not be done, one sentence each; the kernel holds the server to it all the same.
    pub problems: Vec<String>,
}

/// A tool call that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// By which it is approved or denied.
    pub id: String,
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// The rule that asks for the approval; of several the first.
    pub rule: String,
    /// The other rules that ask for it: who approves has to be an approver of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_rules: Vec<String>,
    /// The host or server that calls; absent where a user alone does.
    pub host: Option<String>,
    /// The calling user's name.
    pub user: Option<String>,
    /// Every user who has a part in the call; none of them may approve it.
    pub uids: Vec<u32>,
    /// Whom the call's token is about, where it shows one and the caller is there.
    pub subject: Option<String>,
    /// Since when it waits.
    pub asked: Timestamp,
    /// Until when it may be approved, and used.
    pub until: Timestamp,
    /// Whether the caller is there; else the daemon was started anew since, and the caller has to repeat the call.
    pub connected: bool,
    /// The arguments as the record has them: masked, long texts cut; absent where the caller is not there.
    pub arguments: Option<serde_json::Value>,
    /// Names of further parameters of the call, which are not shown.
    pub further: Vec<String>,
    /// SHA-256 of the arguments as they are sent.
    pub arguments_sha256: String,
    /// The record of the call.
    pub record: String,
    /// Who approved it, where it waits for nothing but its caller.
    pub approved_by: Option<String>,
}

/// What was decided on a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// The id.
    pub id: String,
    /// What.
    pub decision: Verdict,
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
}

/// One line of the audit log, byte for byte, so that its hash can be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The line, without its line feed.
    pub line: String,
}

/// Why a call is decided as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// `allow`, `deny`, ...
    pub effect: String,
    /// `enforce`, or `observe` where a denial is only recorded.
    pub mode: String,
    /// What would have happened had everything been enforced, where that differs.
    pub would: Option<String>,
    /// The rule that decided; absent: none did.
    pub rule: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// The identities that the caller matched.
    pub identities: Vec<String>,
    /// The tool's class, for a tool call.
    pub class: Option<String>,
    /// The policy that was asked.
    pub fingerprint: String,
    /// Everything that was considered, in the order of the files.
    pub considered: Vec<Considered>,
}

/// A rule, limit or egress entry that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Considered {
    /// Such as "rule `no-shell-tricks`".
    pub subject: String,
    /// `file:line:column`, where it is written.
    pub place: Option<String>,
    /// Whether it matched.
    pub matched: bool,
    /// What made it match or not.
    pub why: String,
    /// Its tests on arguments, where it came to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Tested>,
}

/// One test on arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tested {
    /// As it is written in the policy.
    pub test: String,
    /// Whether it holds; absent: it could not be evaluated.
    pub holds: Option<bool>,
    /// The same in words.
    pub why: String,
}

/// A server's process exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Its id.
    pub pid: u32,
    /// The workload's number.
    pub workload: u32,
}

/// A server's process has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exited {
    /// How.
    pub status: ExitStatus,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl ExitStatus {
    /// What a shell would report: the status, or 128 and the signal's number.
    pub const fn shell(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// The CA's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// As PEM.
    pub pem: String,
    /// SHA-256 of the DER form, in hexadecimal.
    pub fingerprint: String,
}

/// A fact about this machine, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What was looked at.
    pub subject: String,
    /// How it stands.
    pub standing: Health,
    /// What was found.
    pub found: String,
    /// The sentence to act on, where something is to be done.
    pub remedy: Option<String>,
}

/// How a checked thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, with less than all.
    Warn,
    /// Does not work.
    Fail,
}
