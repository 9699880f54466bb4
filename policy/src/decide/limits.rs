//! Limits: which counters a message charges, and what they must hold for it to pass.

use std::collections::VecDeque;

use std::fmt::Write as _;

use super::arguments;
use super::explain::{Outcome, Subject};
use super::mcp::{Message, question};
use super::rules::{Arguments, Question};
use super::watch::Watch;
use super::{Action, Caller, Reason, Request, Verdict, Workload, deny};
use crate::index::position;
use crate::json::Json;
use crate::methods::TOOLS_CALL;
use crate::model::{Cap, Effect, Limit, Per, Server};
use crate::number::Amount;
use crate::set::PolicySet;
use crate::time::Timestamp;

/// A counter that a call reads and, if allowed, charges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// The limit's index in the policy set; it may change with a reload.
    pub limit: usize,
    /// Names the counter; the same after a reload that changes no more of the limit than how much it allows, and of limits
    /// that differ in no more. A call is charged to it once.
    pub key: String,
    /// What the limit allows.
    pub cap: Cap,
    /// What the call adds to [`Cap::Sum`]; `None`: its argument cannot be summed, so it is refused.
    pub amount: Option<Amount>,
    /// Whether it is given back when the call fails at the server.
    pub refund: bool,
    /// Whether the counter belongs to one session.
    pub session: bool,
}

/// What a counter stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The limit's index, from its [`LimitKey`].
    pub limit: usize,
    /// What was charged before.
    pub used: Used,
}

/// What was charged to a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// For [`Cap::Calls`]: the number of calls.
    Calls(u64),
    /// For [`Cap::Rate`] of N calls: when the Nth last call was; `None` if there were fewer.
    Nth(Option<Timestamp>),
    /// For [`Cap::Sum`].
    Sum {
        /// What the calls of the window that ends now add up to.
        used: Amount,
        /// How many there were.
        calls: usize,
        /// When enough of them have left the window for the call in question; `None`: never, or at once.
        free: Option<Timestamp>,
    },
}

/// The most calls whose amounts one counter keeps. One more within the window is refused: forgetting one would
/// lift the limit.
const SUMMED_MAX: usize = 10_000;

/// A counter. The caller keeps one for each [`LimitKey::key`], charges it when (and only when) the
/// call is allowed, and forgets it when [`Counter::is_idle`] or, for a limit per session, with the
/// session. A rate of N calls needs the last N points in time and no more, a sum one for each call of its
/// window, at most 10,000: that is the bound on one counter; the caller bounds their number and refuses when
/// there is no room for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    cap: Cap,
    calls: u64,
    /// Of a rate with nothing; of a sum with what each call added.
    recent: VecDeque<(Timestamp, Amount)>,
}

impl Counter {
    /// A counter that nothing was charged to.
    #[must_use]
    pub const fn new(cap: Cap) -> Self {
        Self {
            cap,
            calls: 0,
            recent: VecDeque::new(),
        }
    }

    /// Goes on with so many calls.
    pub const fn resume(&mut self, calls: u64) {
        self.calls = calls;
    }

    /// Goes on with one of the calls of which it keeps a point in time; in the order in which they were.
    pub fn remember(&mut self, at: Timestamp, amount: Amount) {
        self.recent.push_back((at, amount));
    }

    /// What it allows.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        self.cap
    }

    /// The number of calls that were charged.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// Each call that it keeps a point in time of, and what it added.
    #[must_use]
    pub const fn recent(&self) -> &VecDeque<(Timestamp, Amount)> {
        &self.recent
    }

    /// What to give to [`evaluate`](crate::evaluate) for this limit and call.
    #[must_use]
    pub fn count(&self, key: &LimitKey, now: Timestamp) -> Count {
        // The limit may allow more or less than when the counter was made.
        let used = match key.cap {
            Cap::Calls(_) => Used::Calls(self.calls),
            Cap::Rate { calls, .. } => {
                let calls = usize::try_from(calls).unwrap_or(usize::MAX);
                let nth = self.recent.len().checked_sub(calls);
                let nth = nth.and_then(|nth| self.recent.get(nth));
                Used::Nth(nth.map(|(at, _)| *at))
            }
            Cap::Sum { max, window_ms } => {
                self.sum(max, window_ms, key.amount.unwrap_or_default(), now)
            }
        };
        Count {
            limit: key.limit,
            used,
        }
    }

    fn sum(&self, max: Amount, window_ms: u64, more: Amount, now: Timestamp) -> Used {
        let inside = |(at, _): &&(Timestamp, Amount)| now.millis_since(*at) < window_ms;
        let recent = || self.recent.iter().filter(inside);
        let used = recent().fold(Amount::default(), |sum, (_, amount)| sum.plus(*amount));
        let calls = recent().count();
        let mut left = used;
        let mut kept = calls;
        let free = recent()
            .find(|(_, amount)| {
                left = left.minus(*amount);
                kept -= 1;
                left.plus(more) <= max && kept < SUMMED_MAX
            })
            .map(|(at, _)| at.plus_millis(window_ms));
        Used::Sum { used, calls, free }
    }

    /// Takes back what a call was charged that added `amount` at this time. What has left the window is gone already.
    pub fn refund(&mut self, amount: Amount, at: Timestamp) {
        self.calls = self.calls.saturating_sub(1);
        let amount = match self.cap {
            Cap::Sum { .. } => amount,
            Cap::Calls(_) | Cap::Rate { .. } => Amount::default(),
        };
        let charged = self.recent.iter().rposition(|one| *one == (at, amount));
        if let Some(index) = charged {
            self.recent.remove(index);
        }
    }

    /// Goes on under a cap of the same kind and window; whether more calls are kept from now on. Where it allows less, what
    /// the window holds stays.
    pub const fn widen(&mut self, cap: Cap) -> bool {
        match (&mut self.cap, cap) {
            (Cap::Rate { calls, .. }, Cap::Rate { calls: more, .. }) if more > *calls => {
                *calls = more;
                true
            }
            (Cap::Calls(_) | Cap::Rate { .. } | Cap::Sum { .. }, _) => false,
        }
    }

    /// Charges one call.
    pub fn charge(&mut self, key: &LimitKey, now: Timestamp) {
        self.widen(key.cap);
        self.charge_amount(key.amount.unwrap_or_default(), now);
    }

    /// Charges one call that adds `amount` where that is summed.
    pub fn charge_amount(&mut self, amount: Amount, now: Timestamp) {
        self.calls = self.calls.saturating_add(1);
        match self.cap {
            Cap::Calls(_) => {}
            Cap::Rate { calls, window_ms } => {
                self.leave(window_ms, now);
                self.recent.push_back((now, Amount::default()));
                if u64::try_from(self.recent.len()).is_ok_and(|len| len > calls.into()) {
                    self.recent.pop_front();
                }
            }
            Cap::Sum { window_ms, .. } => {
                self.leave(window_ms, now);
                if !amount.is_zero() {
                    self.recent.push_back((now, amount));
                }
            }
        }
    }

    /// Forgets the calls that have left the window.
    fn leave(&mut self, window_ms: u64, now: Timestamp) {
        let is_out = |(at, _): &(Timestamp, Amount)| now.millis_since(*at) >= window_ms;
        while self.recent.front().is_some_and(is_out) {
            self.recent.pop_front();
        }
    }

    /// Whether the counter can be forgotten without changing any later decision: a rate or sum with no call
    /// left in its window. A number of calls is never idle.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp) -> bool {
        match self.cap {
            Cap::Calls(_) => self.calls == 0,
            Cap::Rate { window_ms, .. } | Cap::Sum { window_ms, .. } => self
                .recent
                .back()
                .is_none_or(|(last, _)| now.millis_since(*last) >= window_ms),
        }
    }
}

/// Whether one more call passes; the wait in milliseconds where waiting would help.
fn admits(cap: Cap, used: Used, more: Amount, now: Timestamp) -> Result<(), Option<u64>> {
    match (cap, used) {
        (Cap::Calls(most), Used::Calls(calls)) if calls < most => Ok(()),
        (Cap::Rate { .. }, Used::Nth(None)) => Ok(()),
        (Cap::Rate { window_ms, .. }, Used::Nth(Some(nth))) => {
            let wait = window_ms.saturating_sub(now.millis_since(nth));
            if wait == 0 { Ok(()) } else { Err(Some(wait)) }
        }
        (Cap::Sum { max, .. }, Used::Sum { used, calls, free }) => {
            // A call that adds nothing takes nothing.
            if more.is_zero() || (used.plus(more) <= max && calls < SUMMED_MAX) {
                Ok(())
            } else {
                Err(free.map(|free| free.millis_since(now)))
            }
        }
        // Used up, or a count of another kind.
        (Cap::Calls(_) | Cap::Rate { .. } | Cap::Sum { .. }, _) => Err(None),
    }
}

/// What a call adds to a limit's sum: nothing where the argument is absent; `None` where it is no number, or
/// one that cannot be summed exactly.
fn amount(limit: &Limit, arguments: Option<Json<'_>>) -> Option<Amount> {
    let Some(pointer) = &limit.sum else {
        return Some(Amount::default());
    };
    arguments::sum(pointer, arguments).ok()
}

/// The counters that a request reads and, if allowed, charges. Only messages of MCP have any.
///
/// A request without a session shares one counter for "no session" with all others of its kind, so give
/// something in its place where the protocol has none: the stdio process, or the connection.
#[must_use]
pub fn limit_keys(set: &PolicySet, request: &Request<'_>) -> Vec<LimitKey> {
    let Action::Mcp {
        server,
        method,
        name,
        arguments,
        hints,
        session,
    } = request.action
    else {
        return Vec::new();
    };
    let message = Message {
        server,
        method,
        name,
        arguments: Arguments::Given(arguments),
        hints,
        session,
    };
    let Some((server, limits)) = applicable(set, &message) else {
        return Vec::new();
    };
    limits
        .into_iter()
        .map(|(index, limit)| LimitKey {
            limit: index,
            key: key(limit, &request.caller, server, &message),
            cap: limit.cap,
            amount: amount(limit, arguments),
            refund: limit.refund,
            session: limit.per.contains(&Per::Session),
        })
        .collect()
}

/// Denies where a limit is reached or its count is missing.
pub(super) fn apply(
    set: &PolicySet,
    request: &Request<'_>,
    message: &Message<'_>,
    verdict: Verdict,
    watch: &mut impl Watch,
) -> Verdict {
    let Some((_, limits)) = applicable(set, message) else {
        return verdict;
    };
    let mut refusal: Option<(Reason, Option<u64>)> = None;
    for (index, limit) in limits {
        let count = request.counts.iter().find(|count| count.limit == index);
        let Arguments::Given(arguments) = message.arguments else {
            continue;
        };
        let (outcome, refused) = match (count, amount(limit, arguments)) {
            (_, None) => (
                Outcome::NoAmount,
                Some((Reason::AmountRefused(index), None)),
            ),
            (None, _) => (Outcome::NoCount, Some((Reason::CountMissing(index), None))),
            (Some(count), Some(more)) => match admits(limit.cap, count.used, more, request.now) {
                Ok(()) => (Outcome::Within, None),
                Err(wait) => (Outcome::UsedUp, Some((Reason::LimitReached(index), wait))),
            },
        };
        watch.note(|| Subject::Limit(index), Some(&limit.place), outcome);
        // The first one is named; the wait is that of the longest, or none if one never ends.
        refusal = match (refusal, refused) {
            (Some((reason, before)), Some((_, wait))) => Some((
                reason,
                before.zip(wait).map(|(before, wait)| before.max(wait)),
            )),
            (before, refused) => before.or(refused),
        };
    }
    match refusal {
        None => verdict,
        Some((reason, retry_after)) => Verdict {
            class: verdict.class,
            retry_after,
            ..deny(reason)
        },
    }
}

/// The server of a message and the limits that are about it, in the order of the files.
fn applicable<'a>(
    set: &'a PolicySet,
    message: &Message<'a>,
) -> Option<(&'a Server, Vec<(usize, &'a Limit)>)> {
    let id = set.index().server(message.server)?;
    let server = set.server_at(id)?;
    let limits = set.index().limits.get(position(id))?.iter();
    let mut limits: Vec<_> = limits
        .filter_map(|index| Some((position(*index), set.limits().get(position(*index))?)))
        .filter(|(_, limit)| counts(limit, message.method))
        .collect();
    // What it names is read for those alone.
    if !limits.is_empty() {
        let question = question(set, id, message);
        limits.retain(|(_, limit)| is_about(limit, &question));
    }
    Some((server, limits))
}

/// Whether messages of this method count.
fn counts(limit: &Limit, method: &str) -> bool {
    match &limit.methods {
        None => method == TOOLS_CALL,
        Some(globs) => globs.iter().any(|glob| glob.matches(method)),
    }
}

/// As a rule that restricts is about what it names.
fn is_about(limit: &Limit, question: &Question<'_>) -> bool {
    let Limit { tools, also, .. } = limit;
    let meets = |named| question.classes.is_some_and(|classes| classes.meets(named));
    tools
        .names()
        .is_none_or(|globs| question.is_named(globs, also, Effect::Deny))
        && tools.classes().is_none_or(meets)
}

/// Names a counter: what the limit counts, and whose call it is, not how much it allows: who changes that does not forget
/// what was counted. The parts are told apart by their lengths, so that no tool or session can be named to share
/// another's counter.
fn key(limit: &Limit, caller: &Caller<'_>, server: &Server, message: &Message<'_>) -> String {
    let mut out = match limit.cap {
        Cap::Calls(_) => "calls".to_owned(),
        Cap::Rate { window_ms, .. } => format!("rate {window_ms}"),
        Cap::Sum { window_ms, .. } => format!("sum {window_ms}"),
    };
    let mut part = |word: &str, text: &str| {
        // Writing to a string cannot fail.
        let _written = write!(out, " {word}={}:{text}", text.len());
    };
    if let Some(pointer) = &limit.sum {
        part("sum", &pointer.to_string());
    }
    if limit.refund {
        part("refund", "");
    }
    for name in &limit.servers {
        part("of", name);
    }
    for glob in limit.methods.as_deref().unwrap_or_default() {
        part("method", glob.as_str());
    }
    for glob in limit.tools.names().unwrap_or_default() {
        part("like", glob.as_str());
    }
    if let Some(classes) = limit.tools.classes() {
        part("class", &classes.to_string());
    }
    for per in &limit.per {
        match per {
            Per::Session => {
                part("at", &server.name);
                part("session", message.session.unwrap_or_default());
            }
            Per::Tool => {
                let word = if message.method == TOOLS_CALL {
                    "tool"
                } else {
                    "prompt"
                };
                part("at", &server.name);
                part(word, message.name.unwrap_or_default());
            }
            Per::Server => part("server", &server.name),
            Per::Identity if let Some(token) = &caller.token => {
                part("issuer", token.issuer);
                part("subject", token.subject);
            }
            Per::Identity if let Some(certificate) = &caller.certificate => {
                part("authority", certificate.authority);
                part("subject", certificate.subject);
            }
            Per::Identity => match (caller.user, caller.workload) {
                (Some(user), _) => part("user", user),
                (None, Some(Workload::Host(host))) => part("host", host),
                (None, Some(Workload::Server(server))) => part("workload", server),
                (None, Some(Workload::Unregistered(host))) => part("unregistered", host),
                (None, None) => part("nobody", ""),
            },
        }
    }
    out
}
