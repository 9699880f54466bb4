//! Why a decision is as it is: everything that was considered.

use std::fmt;
use std::sync::Arc;

use super::Verdict;
use super::arguments::Unevaluated;
use crate::fault::Place;

/// A verdict with everything that was considered on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict: the same that `evaluate` gives.
    pub verdict: Verdict,
    /// What was considered, in the order of the files.
    pub considered: Vec<Considered>,
}

/// One rule, limit or egress entry that was considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// What it is.
    pub subject: Subject,
    /// Where it is written; `None` for what follows from a `servers` list.
    pub place: Option<Place>,
    /// Whether it matched, and if not, what did not.
    pub outcome: Outcome,
    /// Each of its tests on arguments, where it came to them.
    pub trace: Vec<Tested>,
}

/// One test on arguments, and what came of it. The arguments themselves are not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The test, as it is written.
    pub test: String,
    /// Whether it holds.
    pub holds: Result<bool, Unevaluated>,
}

/// What was considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The rule with this id.
    Rule(Arc<str>),
    /// The grant with this id: its role, and its number from 1.
    Grant(Arc<str>),
    /// The limit with this index, from 0.
    Limit(usize),
    /// The egress entry with this index.
    Egress(usize),
    /// The `fetch` host with this index.
    Fetch(usize),
    /// This server of the host's list.
    Server(Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(id) => write!(f, "rule `{id}`"),
            Self::Grant(id) => write!(f, "grant `{id}`"),
            Self::Limit(index) => write!(f, "limit {}", index + 1),
            Self::Egress(index) => write!(f, "egress entry {}", index + 1),
            Self::Fetch(index) => write!(f, "fetch host {}", index + 1),
            Self::Server(name) => write!(f, "server `{name}`"),
        }
    }
}

/// Whether something matched. Where several things did not, the first in this order is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It matched and counts.
    Matched,
    /// It matched, and is only observed.
    Observed,
    /// It is about other servers.
    OtherServer,
    /// It is about other callers.
    OtherCaller,
    /// It is about other methods.
    OtherMethod,
    /// It is about other tools, prompts or resources.
    OtherName,
    /// It is about other classes of tools.
    OtherClass,
    /// It would match, and has expired.
    Expired,
    /// It is about other arguments.
    OtherArguments,
    /// It could not be evaluated: it denies if it restricts, and does not allow if it allows.
    Failed(Unevaluated),
    /// It could not be evaluated, and is only observed.
    FailedObserved(Unevaluated),
    /// It is about other hosts or addresses.
    OtherHost,
    /// It is about other ports.
    OtherPort,
    /// It is about another transport, or says otherwise about TLS.
    OtherProtocol,
    /// It is about other paths.
    OtherPath,
    /// It does not allow an upgrade.
    NoUpgrade,
    /// It is in force only until the server's first protocol message.
    FetchOver,
    /// The limit lets the call pass.
    Within,
    /// The limit is used up.
    UsedUp,
    /// The limit sums an argument that cannot be summed.
    NoAmount,
    /// The limit's count was not given.
    NoCount,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(why) => return write!(f, "could not be evaluated: {why}"),
            Self::FailedObserved(why) => {
                return write!(f, "could not be evaluated, observed only: {why}");
            }
            Self::Matched => "matched",
            Self::Observed => "matched, observed only",
            Self::OtherServer => "is about other servers",
            Self::OtherCaller => "is about other callers",
            Self::OtherMethod => "is about other methods",
            Self::OtherName => "is about other names",
            Self::OtherClass => "is about other classes",
            Self::Expired => "has expired",
            Self::OtherArguments => "is about other arguments",
            Self::OtherHost => "is about other hosts",
            Self::OtherPort => "is about other ports",
            Self::OtherProtocol => "is about another protocol",
            Self::OtherPath => "is about other paths",
            Self::NoUpgrade => "does not allow an upgrade",
            Self::FetchOver => "is in force only until the server's first protocol message",
            Self::Within => "not reached",
            Self::UsedUp => "reached",
            Self::NoAmount => "sums an argument that cannot be summed",
            Self::NoCount => "its count is missing",
        })
    }
}
