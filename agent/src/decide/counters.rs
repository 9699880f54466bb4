//! The counters behind limits: read and charged under one lock, so that no two calls take the last place.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use exeat_policy::{Cap, Count, Counter, LimitKey, Timestamp};

/// Counters kept at once. A call that needs one more is refused: evicting a counter would lift a limit.
const MOST: usize = 100_000;
/// A number of calls that nothing was charged to for this long belongs to a session that is over.
const IDLE_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
struct Kept {
    cap: Cap,
    counter: Counter,
    used: Timestamp,
}

impl Kept {
    /// Whether forgetting it lifts no limit.
    fn is_over(&self, now: Timestamp) -> bool {
        let abandoned = matches!(self.cap, Cap::Calls(_)) && now.millis_since(self.used) >= IDLE_MS;
        self.counter.is_idle(now) || abandoned
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    kept: Mutex<HashMap<String, Kept>>,
}

/// The counters of one decision, locked until it is made.
#[derive(Debug)]
pub(super) struct Held<'a> {
    kept: MutexGuard<'a, HashMap<String, Kept>>,
    keys: Vec<LimitKey>,
    now: Timestamp,
}

impl Counters {
    /// What one counter stands at.
    pub(super) fn count(&self, key: &LimitKey, now: Timestamp) -> Count {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.get(&key.key) {
            Some(held) => held.counter.count(key, now),
            None => Counter::new(key.cap).count(key, now),
        }
    }

    /// Locks the counters that `keys` name; those that there is no room for are left out, and a decision
    /// without a count is a refusal.
    pub(super) fn hold(&self, keys: Vec<LimitKey>, now: Timestamp) -> Held<'_> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            if kept.contains_key(&key.key) {
                continue;
            }
            if kept.len() >= MOST {
                kept.retain(|_, held| !held.is_over(now));
            }
            if kept.len() < MOST {
                let counter = Counter::new(key.cap);
                let cap = key.cap;
                let used = now;
                kept.insert(key.key.clone(), Kept { cap, counter, used });
            }
        }
        Held { kept, keys, now }
    }
}

impl Held<'_> {
    /// What the counters stand at.
    pub(super) fn counts(&self) -> Vec<Count> {
        let count = |key: &LimitKey| Some(self.kept.get(&key.key)?.counter.count(key, self.now));
        self.keys.iter().filter_map(count).collect()
    }

    /// The call is allowed: each counter is one higher.
    pub(super) fn charge(mut self) {
        for key in &self.keys {
            if let Some(held) = self.kept.get_mut(&key.key) {
                held.counter.charge(key, self.now);
                held.used = self.now;
            }
        }
    }
}
