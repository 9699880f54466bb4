//! Limits: which counters a call charges, and what they must hold for it to pass.

use std::collections::VecDeque;

use crate::model::Cap;
use crate::time::Timestamp;

/// A counter that a call reads and, if allowed, charges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// The limit's index in the policy set; it may change with a reload.
    pub limit: usize,
    /// Names the counter; the same after a reload that leaves the limit as it is.
    pub key: String,
    /// What the limit allows.
    pub cap: Cap,
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
}

/// A counter. The caller keeps one for each [`LimitKey::key`], charges it when (and only when) the
/// call is allowed, and forgets it when [`Counter::is_idle`] or, for a limit per session, with the
/// session. A rate of N calls needs the last N points in time and no more: that is the bound on one
/// counter; the caller bounds their number and refuses when there is no room for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    cap: Cap,
    calls: u64,
    recent: VecDeque<Timestamp>,
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

    /// What to give to [`evaluate`](crate::evaluate) for the limit with this index.
    #[must_use]
    pub fn count(&self, limit: usize) -> Count {
        let used = match self.cap {
            Cap::Calls(_) => Used::Calls(self.calls),
            Cap::Rate { calls, .. } => {
                let full = u64::try_from(self.recent.len()).is_ok_and(|len| len >= calls.into());
                Used::Nth(if full {
                    self.recent.front().copied()
                } else {
                    None
                })
            }
        };
        Count { limit, used }
    }

    /// Charges one call.
    pub fn charge(&mut self, now: Timestamp) {
        self.calls = self.calls.saturating_add(1);
        if let Cap::Rate { calls, .. } = self.cap {
            self.recent.push_back(now);
            if u64::try_from(self.recent.len()).is_ok_and(|len| len > calls.into()) {
                self.recent.pop_front();
            }
        }
    }

    /// Whether the counter can be forgotten without changing any later decision: a rate with no call
    /// left in its window. A number of calls is never idle.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp) -> bool {
        match self.cap {
            Cap::Calls(_) => self.calls == 0,
            Cap::Rate { window_ms, .. } => self
                .recent
                .back()
                .is_none_or(|last| now.millis_since(*last) >= window_ms),
        }
    }
}

/// Whether one more call passes; the wait in milliseconds where waiting would help.
pub(super) fn admits(cap: Cap, used: Used, now: Timestamp) -> Result<(), Option<u64>> {
    match (cap, used) {
        (Cap::Calls(most), Used::Calls(calls)) if calls < most => Ok(()),
        (Cap::Rate { .. }, Used::Nth(None)) => Ok(()),
        (Cap::Rate { window_ms, .. }, Used::Nth(Some(nth))) => {
            let wait = window_ms.saturating_sub(now.millis_since(nth));
            if wait == 0 { Ok(()) } else { Err(Some(wait)) }
        }
        // Used up, or a count of the other kind.
        (Cap::Calls(_), _) | (Cap::Rate { .. }, Used::Calls(_)) => Err(None),
    }
}
