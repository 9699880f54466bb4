//! What went over the wire, and what was executed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::id::RecordId;
use crate::audit::text::Text;

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
    /// The arguments, masked and cut ([`crate::audit::mask::arguments`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Only the names and sizes of the arguments are recorded, since they are large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arguments_cut: bool,
    /// The request's id, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The record of the call whose work is the task that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_of: Option<RecordId>,
    /// What answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseKind>,
    /// The JSON-RPC error's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// A tool's own statement that it failed.
    #[serde(rename = "isError", skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// That the call was run dry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
    /// Notifications of the server that passed on the stream of this exchange, by method
    /// ([`Mcp::notified`]).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notifications: BTreeMap<Text, u64>,
    /// Of a notification that passed over standard streams: how many of its method there were with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// How a call was run dry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DryRun {
    /// Whether it was sent, with `argument` set; else it was answered in the server's place.
    pub sent: bool,
    /// The argument that was set, as a pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<Text>,
}

/// How many methods of notifications one record counts.
const NOTIFICATIONS: usize = 16;

impl Mcp {
    /// Counts a notification with `method` that passed. `false` if this record has no room for one more method:
    /// then the notification needs a record of its own.
    #[must_use]
    pub fn notified(&mut self, method: &str) -> bool {
        if let Some(count) = self.notifications.get_mut(method) {
            *count = count.saturating_add(1);
            return true;
        }
        let full = self.notifications.len() >= NOTIFICATIONS;
        let masked = Text::new(method);
        match self.notifications.get_mut(&masked) {
            Some(count) => *count = count.saturating_add(1),
            None if full => return false,
            None => drop(self.notifications.insert(masked, 1)),
        }
        true
    }
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
    /// Name of the credential that was put into the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text>,
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
