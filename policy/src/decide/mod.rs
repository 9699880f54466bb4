//! Deciding: one engine for `evaluate` and `explain`; total, deterministic, closed.
//!
//! `mode: observe` on a rule makes it count for nothing but the record. On a server, or on the whole
//! policy, it turns denials of MCP messages and of HTTP requests (method, path, upgrade) into allowed
//! ones with [`Verdict::would`] set. It never opens the network: whether a workload may start, resolve,
//! connect, or speak HTTP to a host at all is enforced in every mode.

mod arguments;
mod explain;
mod limits;
mod matrix;
mod mcp;
mod network;
mod request;
mod rules;
mod verdict;
mod watch;

pub use self::arguments::Unevaluated;
pub(crate) use self::arguments::{Quantity, Work, claims, could_pass, distinct, quantity};
pub use self::explain::{Considered, Explanation, Outcome, Subject, Tested};
pub use self::limits::{Count, Counter, LimitKey, Used, limit_keys};
pub use self::matrix::callable;
pub use self::network::{Binding, Range, ports_for, ranges};
pub use self::request::{
    Action, Caller, Certificate, CertifiedName, Hints, Request, Target, Token, Underway, Workload,
};
pub use self::verdict::{Egress, Origin, Reason, Verdict, Would};
use self::watch::{Blind, Notes, Watch};
use crate::index::Id;
use crate::methods::TOOLS_CALL;
use crate::model::{Effect, Mode, Server};
use crate::set::PolicySet;
use crate::time::Timestamp;

/// Decides. Deny beats approve beats dry run beats allow, and what nothing allows is denied.
pub fn evaluate(set: &PolicySet, request: &Request<'_>) -> Verdict {
    decide(set, request, &mut Blind)
}

/// Decides, and tells what was considered.
#[must_use]
pub fn explain(set: &PolicySet, request: &Request<'_>) -> Explanation {
    let mut notes = Notes::default();
    let verdict = decide(set, request, &mut notes);
    Explanation {
        verdict,
        considered: notes.0,
    }
}

fn decide(set: &PolicySet, request: &Request<'_>, watch: &mut impl Watch) -> Verdict {
    let callers = Callers::of(set, &request.caller);
    let verdict = match request.action {
        Action::Run { server, extra_args } => {
            mcp::run(set, request, &callers, (server, extra_args), watch)
        }
        Action::Mcp {
            server,
            method,
            name,
            arguments,
            hints,
            session,
        } => {
            let message = mcp::Message {
                server,
                method,
                name,
                arguments: rules::Arguments::Given(arguments),
                hints,
                session,
            };
            mcp::message(set, request, &callers, &message, watch)
        }
        Action::Resolve { name } => network::resolve(set, request, name, watch),
        Action::Connect {
            target,
            port,
            protocol,
        } => network::connect(set, request, target, port, protocol, watch),
        Action::Http {
            target,
            port,
            method,
            path,
            tls,
            upgrade,
            calls,
        } => {
            let http = network::Http {
                target,
                port,
                method,
                path,
                tls,
                upgrade,
                calls,
            };
            network::http(set, request, &callers, &http, watch)
        }
    };
    Verdict {
        identities: callers.names(set),
        ..verdict
    }
}

/// Whether a tool is shown to the caller: whether some arguments could make it callable. Limits do not
/// count, and an observed denial does not hide.
#[must_use]
pub fn listable(
    set: &PolicySet,
    caller: Caller<'_>,
    server: &str,
    tool: &str,
    hints: Option<Hints>,
    now: Timestamp,
) -> bool {
    let message = mcp::Message {
        server,
        method: TOOLS_CALL,
        name: Some(tool),
        arguments: rules::Arguments::Open,
        hints,
        session: None,
    };
    let callers = Callers::of(set, &caller);
    // What needs an approval or is run dry can be called.
    mcp::by_rules(set, &callers, &message, now, &mut Blind).effect != Effect::Deny
}

/// Whether the caller may start a server that is started here, or talk to another one at all.
#[must_use]
pub fn reachable(set: &PolicySet, caller: Caller<'_>, server: &str, now: Timestamp) -> bool {
    let launched = set.server(server).and_then(Server::launch).is_some();
    let action = if launched {
        Action::Run {
            server,
            extra_args: &[],
        }
    } else {
        Action::Mcp {
            server,
            method: "initialize",
            name: None,
            arguments: None,
            hints: None,
            session: None,
        }
    };
    let mut request = Request {
        caller,
        action,
        now,
        counts: &[],
    };
    // A limit that is used up for a while takes nothing away.
    let unused = |key: &LimitKey| Counter::new(key.cap).count(key, now);
    let counts: Vec<Count> = limit_keys(set, &request).iter().map(unused).collect();
    request.counts = &counts;
    decide(set, &request, &mut Blind).effect == Effect::Allow
}

/// The caller as numbers: the host that it is, and the identities that its user, its token and its certificate have.
struct Callers<'a> {
    caller: Caller<'a>,
    /// Ascending.
    ids: Vec<Id>,
    host: Option<Id>,
    /// Why the workload may nothing at all, if it may not.
    barred: Option<Reason>,
}

impl<'a> Callers<'a> {
    fn of(set: &PolicySet, caller: &Caller<'a>) -> Self {
        let host = match caller.workload {
            Some(Workload::Host(name)) => set.index().host(name),
            Some(Workload::Server(_) | Workload::Unregistered(_)) | None => None,
        };
        let unknown = |unknown: bool| unknown.then_some(Reason::UnknownWorkload);
        let barred = match caller.workload {
            Some(Workload::Host(_)) => unknown(host.is_none()),
            Some(Workload::Server(name)) => unknown(set.index().server(name).is_none()),
            Some(Workload::Unregistered(_)) => Some(Reason::Unregistered),
            None => None,
        };
        let mut ids = Vec::new();
        ids.extend(host);
        if let Some(user) = caller.user {
            set.index().of_user(user, &mut ids);
        }
        set.index().of_shown(caller, &mut ids);
        let known = caller.known_as.iter();
        ids.extend(known.filter_map(|name| set.identity_id(name)));
        // Hosts are numbered before identities, so the host stays first.
        ids.sort_unstable();
        ids.dedup();
        Self {
            caller: *caller,
            ids,
            host,
            barred,
        }
    }

    /// The names of the identities.
    fn names(&self, set: &PolicySet) -> Vec<std::sync::Arc<str>> {
        let host = usize::from(self.host.is_some());
        self.ids
            .iter()
            .skip(host)
            .filter_map(|id| set.identity_at(*id))
            .map(std::sync::Arc::clone)
            .collect()
    }
}

fn deny(reason: Reason) -> Verdict {
    Verdict::of(Effect::Deny, reason)
}

/// Lets pass what is not allowed and only observed, and says what it would have been.
fn observed(verdict: Verdict) -> Verdict {
    if verdict.effect == Effect::Allow {
        return verdict;
    }
    let would = Would {
        effect: verdict.effect,
        rule: verdict.rule.clone(),
        reason: verdict.reason,
    };
    Verdict {
        effect: Effect::Allow,
        asking: Vec::new(),
        mode: Mode::Observe,
        would: Some(would),
        dry_run: None,
        ..verdict
    }
}
