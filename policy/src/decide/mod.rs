//! Deciding: one engine for `evaluate` and `explain`; total, deterministic, closed.

mod explain;
mod limits;
mod request;
mod verdict;

pub use self::explain::{Considered, Explanation, Outcome, Subject};
pub use self::limits::{Count, Counter, LimitKey, Used};
pub use self::request::{Action, Caller, Hints, Request, Target, Workload};
pub use self::verdict::{Egress, Origin, Reason, Verdict, Would};
use crate::model::{Cidr, Effect, Mode, Protocol};
use crate::name::Name;
use crate::set::PolicySet;
use crate::time::Timestamp;

/// Decides. Deny beats allow, and what nothing allows is denied.
pub fn evaluate(_set: &PolicySet, _request: &Request<'_>) -> Verdict {
    Verdict {
        effect: Effect::Deny,
        rule: None,
        reason: Reason::NoRule,
        mode: Mode::Enforce,
        would: None,
        identities: Vec::new(),
        class: None,
        egress: None,
        retry_after: None,
    }
}

/// Decides, and tells what was considered.
#[must_use]
pub fn explain(set: &PolicySet, request: &Request<'_>) -> Explanation {
    Explanation {
        verdict: evaluate(set, request),
        considered: Vec::new(),
    }
}

/// The counters that a request reads and, if allowed, charges; most requests have none.
#[must_use]
pub fn limit_keys(_set: &PolicySet, _request: &Request<'_>) -> Vec<LimitKey> {
    Vec::new()
}

/// Whether a tool is shown to the caller: whether some arguments could make it callable. Limits do not
/// count, an observed denial does not hide.
#[must_use]
pub fn listable(
    set: &PolicySet,
    caller: Caller<'_>,
    server: &str,
    tool: &str,
    hints: Option<Hints>,
    now: Timestamp,
) -> bool {
    let action = Action::Mcp {
        server,
        method: "tools/call",
        name: Some(tool),
        hints,
        session: None,
    };
    evaluate(
        set,
        &Request {
            caller,
            action,
            now,
            counts: &[],
        },
    )
    .effect
        == Effect::Allow
}

/// A port on which a workload may reach a name, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The port.
    pub port: u16,
    /// How; its transport is always TCP, since UDP is allowed by address only.
    pub egress: Egress,
}

/// The ports on which a workload may reach a name, ascending: what to bind the name's addresses to.
#[must_use]
pub fn ports_for(_set: &PolicySet, _caller: Caller<'_>, _name: &Name) -> Vec<Binding> {
    Vec::new()
}

/// Addresses that a workload may reach without asking for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The network.
    pub net: Cidr,
    /// The ports, never empty.
    pub ports: Vec<u16>,
    /// Over what.
    pub protocol: Protocol,
    /// How.
    pub egress: Egress,
}

/// The addresses that a workload may reach without asking for a name, for the kernel.
#[must_use]
pub fn ranges(_set: &PolicySet, _workload: Workload<'_>) -> Vec<Range> {
    Vec::new()
}
