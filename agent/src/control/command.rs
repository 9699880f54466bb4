//! What can be asked of the daemon: one type for the command line, the console and scripts.
//!
//! INVARIANT: every type here refuses unknown fields, and enums are externally tagged, because
//! serde's internally tagged unit variants would let unknown fields through.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::InvalidCommand;
use super::listed::ListedTool;
use crate::audit::record::Effect;
use crate::audit::{Kind, RecordId, Status};
pub use crate::decide::approvals::Verdict;
use crate::telemetry::clock::Timestamp;

/// Longest name of a server, tool, caller or host that a command may carry, in bytes.
pub const MAX_NAME: usize = 256;
/// Most extra arguments that `run` may carry.
pub const MAX_ARGUMENTS: usize = 256;
/// Longest time that calls in flight may be given when their server is disconnected, in seconds.
pub const MAX_DRAIN: u32 = 3600;
/// Most records that one query may ask for; a longer answer is read in pages.
pub const MAX_RECORDS: u32 = 100_000;

/// One request to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// What runs, what is loaded and how the log does.
    Status,
    /// Proof of enforcement: start a managed process, let it try what is forbidden, say what it saw.
    Canary,
    /// The register.
    Servers,
    /// One server of the register.
    ServerShow(ServerShow),
    /// Cut a server off from everything, at once or when its calls are answered.
    ServerDisconnect(ServerDisconnect),
    /// Take that back.
    ServerReconnect(ServerReconnect),
    /// Calls that wait for a person, those that the client may decide on or made.
    Approvals,
    /// A person's decision on one of them.
    ApprovalDecide(ApprovalDecision),
    /// The same by the link of a message, as whom that was made for.
    ApprovalLink(ApprovalLink),
    /// Records that match, oldest first, then the end.
    AuditQuery(RecordFilter),
    /// Records that match as they are written, until the client goes away.
    AuditTail(RecordFilter),
    /// Why a given call is decided as it is, by the policy that is in force.
    PolicyExplain(Box<Question>),
    /// Start a registered server; its standard streams come with the first answer.
    Run(Run),
    /// Read the policy again, all or nothing.
    Reload,
    /// The CA's certificate.
    CaExport,
    /// What the daemon knows about this machine.
    Doctor,
}

/// Names one server of the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerShow {
    /// The name in the register.
    pub name: String,
}

/// Cuts a server off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerDisconnect {
    /// The name in the register.
    pub name: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds that calls in flight may take; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
}

/// Connects a server again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerReconnect {
    /// The name in the register.
    pub name: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A person's decision on a call that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecision {
    /// As `approvals` lists it.
    pub id: String,
    /// What is decided.
    pub verdict: Verdict,
    /// Why, for the record; of a denial, the caller is told as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A link of a message about an approval.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalLink {
    /// What stands in it behind `/approvals/`.
    pub token: String,
}

impl fmt::Debug for ApprovalLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalLink").finish_non_exhaustive()
    }
}

/// Which records are wanted; what is absent does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordFilter {
    /// Not before this moment: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before this moment: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The record's `kind`, as in the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Name of the server or host that acted or was called; `*` stands for any letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the calling identity or its Unix user; `*` stands for any letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Name of the tool, prompt or resource; `*` stands for any letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// This record and those that it led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<RecordId>,
    /// A text that the record's line contains, letters' case aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The newest so many of those that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A call to be judged without making it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The managed workload that acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// Name of the Unix user that acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The token that a call shows, as it is stated: nothing of it is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<StatedToken>,
    /// The client certificate that a call shows, as it is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<StatedCertificate>,
    /// Whether the server that acts may still fetch its own code.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fetching: bool,
    /// What is done.
    pub action: Action,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(truth: &bool) -> bool {
    !*truth
}

/// What a token would say.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedToken {
    /// Who issued it.
    pub issuer: String,
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What it claims beyond that: a JSON object, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Arguments>,
}

// Claims say who people are: they are not for logs.
impl fmt::Debug for StatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatedToken")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// What a client certificate would name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedCertificate {
    /// Who vouches for it, as exeat.yaml calls it.
    pub authority: String,
    /// URIs of its alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uri: Vec<String>,
    /// Hosts' names of its alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Addresses of mail of its alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email: Vec<String>,
    /// The common name of its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
}

impl fmt::Debug for StatedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatedCertificate")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// A managed workload, by its name in the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A registered server.
    Server(String),
    /// A host of agents.
    Host(String),
}

/// What is done in a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Starting a server with `run`.
    Run(ServerShow),
    /// A protocol message to a server.
    Call(Call),
    /// An outbound HTTP request.
    Request(OutboundRequest),
    /// An outbound connection or datagram.
    Connect(OutboundConnection),
}

/// A protocol message to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The server.
    pub server: String,
    /// Such as `tools/call`.
    pub method: String,
    /// Tool, prompt or resource that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its arguments, as JSON text: a number in it keeps its digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Arguments>,
    /// What the server lists of the tool; absent: what the daemon saw it list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<ListedTool>,
}

/// JSON text that may hold what nobody else is to see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arguments(pub String);

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// An outbound HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundRequest {
    /// Such as `GET`.
    pub method: String,
    /// Such as `https://api.example.com/v1`.
    pub url: String,
    /// Whether it asks for an upgrade.
    #[serde(default, skip_serializing_if = "is_false")]
    pub upgrade: bool,
}

/// An outbound connection or datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundConnection {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Transport,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Starts a registered server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The name in the register.
    pub server: String,
    /// Arguments after those of the register.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The client's working directory, for servers that the policy starts in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The client's terminal, where its standard input is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// A terminal that a started server talks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Value of `TERM`.
    pub kind: String,
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// What a client may send after its [`Command::Run`]: a signal for the server that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Terminate,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGSTOP, for a SIGTSTP: a server leads a session that nobody else is in, where the kernel lets that stop nothing.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGWINCH.
    WindowChange,
}

impl Command {
    /// The command's word, as a log line and an error name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Canary => "canary",
            Self::Servers => "servers",
            Self::ServerShow(_) => "servers show",
            Self::ServerDisconnect(_) => "servers disconnect",
            Self::ServerReconnect(_) => "servers reconnect",
            Self::Approvals => "approvals",
            Self::ApprovalDecide(ApprovalDecision {
                verdict: Verdict::Approve,
                ..
            }) => "approvals approve",
            Self::ApprovalDecide(_) => "approvals deny",
            Self::ApprovalLink(_) => "approvals decide",
            Self::AuditQuery(_) => "audit query",
            Self::AuditTail(_) => "audit tail",
            Self::PolicyExplain(_) => "policy explain",
            Self::Run(_) => "run",
            Self::Reload => "reload",
            Self::CaExport => "ca export",
            Self::Doctor => "doctor",
        }
    }

    /// Checks the bounds that the frame's own limit does not give.
    pub fn check(&self) -> Result<(), InvalidCommand> {
        match self {
            Self::ServerShow(show) => name("server", &show.name),
            Self::ServerDisconnect(order) => {
                name("server", &order.name)?;
                optional("reason", order.reason.as_deref())?;
                if order
                    .drain_seconds
                    .is_some_and(|seconds| seconds > MAX_DRAIN)
                {
                    return Err(InvalidCommand::TooLarge {
                        what: "drain_seconds",
                        limit: MAX_DRAIN,
                    });
                }
                Ok(())
            }
            Self::ServerReconnect(order) => {
                name("server", &order.name)?;
                optional("reason", order.reason.as_deref())
            }
            Self::ApprovalDecide(decision) => {
                name("id", &decision.id)?;
                optional("reason", decision.reason.as_deref())
            }
            Self::ApprovalLink(link) => name("token", &link.token),
            Self::Run(run) => run.check(),
            Self::AuditQuery(filter) | Self::AuditTail(filter) => filter.check(),
            Self::PolicyExplain(question) => question.check(),
            Self::Status
            | Self::Canary
            | Self::Servers
            | Self::Approvals
            | Self::Reload
            | Self::CaExport
            | Self::Doctor => Ok(()),
        }
    }
}

impl Run {
    fn check(&self) -> Result<(), InvalidCommand> {
        name("server", &self.server)?;
        if self.arguments.len() > MAX_ARGUMENTS {
            return Err(InvalidCommand::TooMany {
                what: "arguments",
                limit: MAX_ARGUMENTS,
            });
        }
        // execve takes C strings: a NUL would end the argument early, so it would not be what was
        // decided on.
        if self
            .arguments
            .iter()
            .any(|argument| argument.contains('\0'))
        {
            return Err(InvalidCommand::Character { what: "argument" });
        }
        if self.directory.as_ref().is_some_and(|directory| {
            !directory.is_absolute() || directory.as_os_str().as_encoded_bytes().contains(&0)
        }) {
            return Err(InvalidCommand::Character { what: "directory" });
        }
        self.terminal
            .as_ref()
            .map_or(Ok(()), |terminal| name("terminal", &terminal.kind))
    }
}

impl RecordFilter {
    fn check(&self) -> Result<(), InvalidCommand> {
        for (what, value) in [
            ("server", &self.server),
            ("caller", &self.caller),
            ("tool", &self.tool),
            ("text", &self.text),
        ] {
            optional(what, value.as_deref())?;
        }
        if self.limit.is_some_and(|limit| limit > MAX_RECORDS) {
            return Err(InvalidCommand::TooLarge {
                what: "limit",
                limit: MAX_RECORDS,
            });
        }
        Ok(())
    }
}

impl Question {
    fn check(&self) -> Result<(), InvalidCommand> {
        match &self.caller {
            Some(Caller::Server(caller) | Caller::Host(caller)) => name("caller", caller)?,
            None => {}
        }
        optional("user", self.user.as_deref())?;
        if let Some(token) = &self.token {
            name("issuer", &token.issuer)?;
            optional("subject", token.subject.as_deref())?;
        }
        if let Some(certificate) = &self.certificate {
            certificate.check()?;
        }
        match &self.action {
            Action::Run(run) => name("server", &run.name),
            Action::Call(call) => {
                name("server", &call.server)?;
                name("method", &call.method)?;
                optional("name", call.name.as_deref())
            }
            // Parsed strictly where they are judged.
            Action::Request(request) => name("method", &request.method),
            Action::Connect(connection) => name("host", &connection.host),
        }
    }
}

impl StatedCertificate {
    fn check(&self) -> Result<(), InvalidCommand> {
        name("authority", &self.authority)?;
        optional("common name", self.common_name.as_deref())?;
        let mut names = [&self.uri, &self.dns, &self.email].into_iter().flatten();
        names.try_for_each(|stated| name("name of the certificate", stated))
    }
}

fn optional(what: &'static str, value: Option<&str>) -> Result<(), InvalidCommand> {
    value.map_or(Ok(()), |value| name(what, value))
}

/// Names go into log lines and terminals, so they carry no control characters.
fn name(what: &'static str, value: &str) -> Result<(), InvalidCommand> {
    if value.is_empty() || value.len() > MAX_NAME {
        return Err(InvalidCommand::Length {
            what,
            limit: MAX_NAME,
        });
    }
    if value.chars().any(char::is_control) {
        return Err(InvalidCommand::Character { what });
    }
    Ok(())
}
