//! What is asked of the policy.

use std::net::IpAddr;
use std::sync::Arc;

use super::limits::Count;
use crate::json::Json;
use crate::model::{NameKind, Protocol};
use crate::name::Name;
use crate::time::Timestamp;

/// One question. Everything that the answer depends on, apart from the policy, is in here.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: Caller<'a>,
    /// For what.
    pub action: Action<'a>,
    /// When.
    pub now: Timestamp,
    /// What the counters named by [`limit_keys`](crate::limit_keys) stand at; empty where it named none.
    pub counts: &'a [Count],
}

/// Who asks, as attested by the kernel and by an issuer; nothing that the process says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// The workload that the process belongs to.
    pub workload: Option<Workload<'a>>,
    /// The name of its Unix user.
    pub user: Option<&'a str>,
    /// A launched server before its first protocol message: its `fetch` hosts are reachable.
    pub fetching: bool,
    /// What the token of the request says, once it is verified.
    pub token: Option<Token<'a>>,
    /// What the client certificate of the connection says, once it is verified.
    pub certificate: Option<Certificate<'a>>,
    /// Identities that it has besides, by name: of a caller in a record, whose token or certificate is not at hand. Empty for
    /// one that is there.
    pub known_as: &'a [Arc<str>],
}

/// A client certificate whose chain, time and purpose are verified, and whose key the caller has. Like a token, it
/// adds to what the kernel attests.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// Who vouches for it, as the configuration calls it.
    pub authority: &'a str,
    /// Whom it is about: with the authority, what limits per identity count by where there is no token.
    pub subject: &'a str,
    /// All that it names.
    pub names: &'a [CertifiedName],
}

/// A name that a certificate gives its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiedName {
    /// Where it stands.
    pub kind: NameKind,
    /// The name; a host's in lower case.
    pub text: String,
}

/// A token whose signature, time and audience are verified. It adds to what the kernel attests and replaces
/// nothing of it.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// Who issued it, as configured.
    pub issuer: &'a str,
    /// Whom it is about: with the issuer, what limits per identity count by.
    pub subject: &'a str,
    /// All that it claims.
    pub claims: Json<'a>,
}

// Claims say who people are: they are not for logs.
impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("issuer", &self.issuer)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

/// A managed workload, by its name in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload<'a> {
    /// A registered server.
    Server(&'a str),
    /// A host: an agent, IDE or desktop application.
    Host(&'a str),
    /// An MCP server that the host of this name started without Exeat. The policy allows it nothing.
    Unregistered(&'a str),
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Starting a registered stdio server.
    Run {
        /// The server.
        server: &'a str,
        /// What is to follow the register's arguments.
        extra_args: &'a [String],
    },
    /// Looking up a name, whatever the port.
    Resolve {
        /// The name.
        name: &'a Name,
    },
    /// Connecting (TCP) or sending (UDP).
    Connect {
        /// Where to.
        target: Target<'a>,
        /// Which port.
        port: u16,
        /// Over what.
        protocol: Protocol,
    },
    /// One HTTP request on a connection that was allowed.
    Http {
        /// Where to: the name agreed on by SNI, Host and the binding.
        target: Target<'a>,
        /// Which port.
        port: u16,
        /// The method, exactly as sent.
        method: &'a str,
        /// The path without the query, exactly as sent.
        path: &'a str,
        /// Whether the connection is (intercepted) TLS.
        tls: bool,
        /// Whether the request asks for an upgrade.
        upgrade: bool,
        /// What the requests in flight that may have caused it ask for.
        calls: &'a [Underway],
    },
    /// One MCP request or notification.
    Mcp {
        /// The server that it is for, or comes from.
        server: &'a str,
        /// The JSON-RPC method.
        method: &'a str,
        /// The tool, prompt or resource URI that it names (see [`methods`](crate::methods)).
        name: Option<&'a str>,
        /// Its arguments, decoded; `None`: it has none.
        arguments: Option<Json<'a>>,
        /// The hints that the server lists for the tool.
        hints: Option<Hints>,
        /// The MCP session.
        session: Option<&'a str>,
    },
}

/// What a request in flight asks of the server that acts, as far as credentials tell requests apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Underway {
    /// A call of this tool.
    Call(Arc<str>),
    /// Something else than a call.
    Other,
    /// It is not known any more: a call of any tool, or something else.
    Unknown,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// To a name.
    Name(&'a Name),
    /// To an address for which no name is known.
    Address(IpAddr),
}

/// A tool's hints as listed by its server: untrusted, and read with the specification's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hints {
    /// `readOnlyHint`; absent means false.
    pub read_only: Option<bool>,
    /// `destructiveHint`; absent means true.
    pub destructive: Option<bool>,
    /// `openWorldHint`; absent means true.
    pub open_world: Option<bool>,
}
