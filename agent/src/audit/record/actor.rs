//! Who acted: processes, identities, sessions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::text::Text;
use crate::telemetry::clock::Monotonic;

/// The processes in one managed cgroup and the one of them that acted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// The server's or host's name in the policy.
    pub name: Text,
    /// Server, host, unregistered, unmanaged or unknown.
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
    /// An MCP server that the host of this name started without Exeat.
    Unregistered,
    /// No workload's: a user's process that came to a server which listens on this machine.
    Unmanaged,
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
    /// How it was verified: `kernel`, `jwt`, `certificate`, `workload`.
    pub verified_by: Text,
    /// The Unix user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// The Unix user's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Who issued the token; without one, the authority of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Text>,
    /// Whom the token names; without one, the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text>,
    /// Those of the token's claims that the policy reads, masked ([`crate::audit::mask::claims`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Value>,
    /// What it reads, as pointers: of that, `claims` holds all that there is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims_read: Vec<Text>,
    /// The client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// All identities that token and certificate show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Text>,
    /// The roles that the policy gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Text>,
}

/// A verified client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// Who vouches for it, as the configuration calls it.
    pub authority: Text,
    /// Whom it is about: its first URI, address of mail, host's name, or its common name.
    pub subject: Text,
    /// SHA-256 of it, hexadecimal.
    pub sha256: Text,
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
    /// The process that started the session's server with `exeat run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostProcess>,
    /// Why that, or its executable's hash, is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_unknown: Option<Text>,
}

/// A process that called `exeat run`, as the kernel described it at that time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostProcess {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks after boot; tells apart processes that had the same number.
    pub started: u64,
    /// Its executable's path.
    pub exe: Text,
    /// SHA-256 of its executable, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Text>,
    /// Number and executable of those that it comes from, nearest first; where the session began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Text>,
}
