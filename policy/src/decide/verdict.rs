//! What the policy answers.

use std::fmt;
use std::sync::Arc;

use super::arguments::Unevaluated;
use crate::model::{ClassSet, Credential, DryRun, Effect, Kind, Mode, Tls, Wire};
use crate::path::PathFault;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// What happens.
    pub effect: Effect,
    /// The rule that decided, where one did.
    pub rule: Option<Arc<str>>,
    /// For [`Effect::Approve`]: every rule in force that asks for an approval, in the order of the files, `rule` first.
    /// Who approves has to be an approver of each.
    pub asking: Vec<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// [`Mode::Observe`]: the call is allowed only because its denial is observed, not enforced.
    pub mode: Mode,
    /// What an observed rule, server or policy would have done, where that differs.
    pub would: Option<Would>,
    /// The identities that the caller matched.
    pub identities: Vec<Arc<str>>,
    /// The tool's class or classes, for `tools/call`.
    pub class: Option<ClassSet>,
    /// How the connection is to be treated, for what goes over the network and is allowed.
    pub egress: Option<Egress>,
    /// For [`Effect::DryRun`]: the argument by which the tool does nothing, where the register names one.
    pub dry_run: Option<Arc<DryRun>>,
    /// Milliseconds until the limit that refused lets a call pass again; `None`: not by waiting.
    pub retry_after: Option<u64>,
}

impl Verdict {
    /// One with nothing but its effect and reason, enforced.
    pub const fn of(effect: Effect, reason: Reason) -> Self {
        Self {
            effect,
            rule: None,
            asking: Vec::new(),
            reason,
            mode: Mode::Enforce,
            would: None,
            identities: Vec::new(),
            class: None,
            egress: None,
            dry_run: None,
            retry_after: None,
        }
    }
}

/// What would have happened had everything been enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Would {
    /// The effect.
    pub effect: Effect,
    /// The rule, where one would have decided.
    pub rule: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
}

/// How an allowed connection is to be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a term of its own")]
pub struct Egress {
    /// What happens to its TLS.
    pub tls: Tls,
    /// `http` is decoded; `tcp` and `udp` are passed on unread.
    pub wire: Wire,
    /// The name may resolve to private, loopback and link-local addresses.
    pub private: bool,
    /// The name is answered with a synthetic address.
    pub synthetic: bool,
    /// `Upgrade` may be tunnelled.
    pub upgrade: bool,
    /// What the destination is known to be.
    pub kind: Option<Kind>,
    /// Where the permission comes from.
    pub origin: Origin,
    /// The registered server that answers here: MCP spoken on this connection is meant for it.
    pub server: Option<Arc<str>>,
    /// A registered server answers here, and identities show themselves by certificates: the client is asked for one.
    /// Said of connections alone.
    pub asks_certificate: bool,
    /// What is put into the request, for an HTTP request over TLS.
    pub credential: Option<Arc<Credential>>,
}

/// Where the permission for a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The workload's `egress` entry with this index, from 0.
    Egress(usize),
    /// The `fetch` entry of its `launch` with this index.
    Fetch(usize),
    /// The entry with this index of the host's `servers` list; for a user, of the register.
    Server(usize),
}

/// Why a decision is as it is. Closed: whoever answers the caller names every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An allow rule matched and no deny rule did.
    RuleAllowed,
    /// The method belongs to the session itself, and the caller may reach the server.
    Reachable,
    /// An egress entry, a fetch host or a listed server allows it.
    EgressAllowed,
    /// A grant of a role matched and nothing stronger did.
    Granted,
    /// A deny rule matched.
    RuleDenied,
    /// A rule asks for an approval and none denies.
    NeedsApproval,
    /// A rule asks for a dry run, and none for anything stronger.
    DryRun,
    /// The rule could not be evaluated: one that restricts denies then, one that allows does not allow.
    RuleFailed(Unevaluated),
    /// No rule matched.
    NoRule,
    /// The method is unknown and no rule names it.
    UnknownMethod,
    /// Nothing lets the caller reach the server.
    NotReachable,
    /// The host's `servers` list does not name the server.
    NotListed,
    /// The server is not registered.
    NotRegistered,
    /// The server is not one that `exeat run` starts.
    NotLaunchable,
    /// An argument is to be added that the server's `extra_args` do not name.
    ExtraArgument,
    /// The server is disconnected: an administrator's word, not the policy's, and so never the evaluation's.
    Disconnected,
    /// Calls of the server or the tool fail, and the breaker lets none through: told by what happened, and so never
    /// the evaluation's.
    BreakerOpen,
    /// The server's review is overdue, and `strict_review` is set.
    ReviewOverdue,
    /// The request comes from no managed workload, or from one that the policy does not know.
    UnknownWorkload,
    /// The request comes from an MCP server that its host started without Exeat.
    Unregistered,
    /// No entry names the host.
    HostNotAllowed,
    /// Only a fetch host names it, and the server has spoken, or was not started to fetch.
    FetchOver,
    /// No entry covers the address.
    AddressNotAllowed,
    /// The host or address is allowed on other ports only.
    PortNotAllowed,
    /// The destination is allowed over another transport only.
    ProtocolNotAllowed,
    /// Plain HTTP where TLS is asked for, or TLS where plain HTTP is.
    TlsMismatch,
    /// HTTP on a connection that is to be passed on unread.
    NotDecoded,
    /// No entry allows the HTTP method.
    MethodNotAllowed,
    /// No entry allows the path.
    PathNotAllowed,
    /// The path cannot be compared.
    PathRefused(PathFault),
    /// No entry allows an upgrade.
    UpgradeNotAllowed,
    /// Calls in flight have different credentials, and any of them may have caused the request.
    CredentialUnclear,
    /// The limit with this index is used up.
    LimitReached(usize),
    /// The limit with this index sums an argument that is no number, negative, or finer than it can tell.
    AmountRefused(usize),
    /// The limit with this index applies, and its count was not given.
    CountMissing(usize),
}

impl Reason {
    /// The reason in words; those of [`Reason::PathRefused`] say what is wrong with the path in its display only.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a line for each reason")]
    pub const fn text(self) -> &'static str {
        match self {
            Self::RuleAllowed => "a rule allows it",
            Self::Reachable => "follows from reaching the server",
            Self::EgressAllowed => "the egress list allows it",
            Self::Granted => "a role grants it",
            Self::RuleDenied => "a rule denies it",
            Self::NeedsApproval => "a rule asks for an approval",
            Self::DryRun => "a rule asks for a dry run",
            Self::RuleFailed(Unevaluated::TooDeep) => {
                "a rule could not be evaluated: the arguments are nested too deeply"
            }
            Self::RuleFailed(Unevaluated::TooLarge) => {
                "a rule could not be evaluated: the arguments are too large"
            }
            Self::RuleFailed(Unevaluated::OtherType) => {
                "a rule could not be evaluated: an argument is of another type than its test is for"
            }
            Self::RuleFailed(Unevaluated::Confusable) => {
                "a rule could not be evaluated: an argument may be taken for the one that it names"
            }
            Self::RuleFailed(Unevaluated::Missing) => {
                "a rule could not be evaluated: its expression asks for what is not there"
            }
            Self::RuleFailed(Unevaluated::Arithmetic) => {
                "a rule could not be evaluated: its expression computes what has no exact result"
            }
            Self::RuleFailed(Unevaluated::Unknown) => {
                "a rule could not be evaluated: the record leaves out an argument"
            }
            Self::NoRule => "no rule matched",
            Self::UnknownMethod => "unknown method that no rule names",
            Self::NotReachable => "the caller may not reach the server",
            Self::NotListed => "the host does not list the server",
            Self::NotRegistered => "the server is not registered",
            Self::NotLaunchable => "the server is not started by run",
            Self::ExtraArgument => "the server's `extra_args` do not cover what is added",
            Self::Disconnected => "the server is disconnected",
            Self::BreakerOpen => "calls fail, and the breaker is open",
            Self::ReviewOverdue => "the server's review is overdue",
            Self::UnknownWorkload => "no managed workload",
            Self::Unregistered => "an mcp server that its host started without exeat",
            Self::HostNotAllowed => "the host is not allowed",
            Self::FetchOver => {
                "the host may be fetched from only until the server's first protocol message"
            }
            Self::AddressNotAllowed => "the address is not allowed",
            Self::PortNotAllowed => "the port is not allowed",
            Self::ProtocolNotAllowed => "the protocol is not allowed",
            Self::TlsMismatch => "tls and plain http do not agree with the egress list",
            Self::NotDecoded => "the connection is not one to be decoded",
            Self::MethodNotAllowed => "the http method is not allowed",
            Self::PathNotAllowed => "the path is not allowed",
            Self::PathRefused(_) => "the path is refused",
            Self::UpgradeNotAllowed => "an upgrade is not allowed",
            Self::CredentialUnclear => {
                "calls in flight have different credentials, and any of them may have caused it"
            }
            Self::LimitReached(_) => "a limit is reached",
            Self::AmountRefused(_) => "an argument that a limit sums cannot be summed",
            Self::CountMissing(_) => "a limit's count is missing",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathRefused(fault) => fault.fmt(f),
            reason => f.write_str(reason.text()),
        }
    }
}
