//! The counters behind limits: read and charged under one lock, so that no two calls take the last place.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use exeat_policy::{Count, Counter, LimitKey, Timestamp};

/// Counters kept at once. A call that needs one more is refused: evicting a counter would lift a limit.
const MOST: usize = 100_000;
/// A number of calls that nothing was charged to for this long belongs to a session that is over.
const IDLE_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
struct Kept {
    counter: Counter,
    used: Timestamp,
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
    pub(super) fn count(&self, key: &LimitKey) -> Count {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.get(&key.key) {
            Some(held) => held.counter.count(key.limit),
            None => Counter::new(key.cap).count(key.limit),
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
                kept.retain(|_, held| {
                    !held.counter.is_idle(now) && now.millis_since(held.used) < IDLE_MS
                });
            }
            if kept.len() < MOST {
                let counter = Counter::new(key.cap);
                kept.insert(key.key.clone(), Kept { counter, used: now });
            }
        }
        Held { kept, keys, now }
    }
}

impl Held<'_> {
    /// What the counters stand at.
    pub(super) fn counts(&self) -> Vec<Count> {
        let count = |key: &LimitKey| Some(self.kept.get(&key.key)?.counter.count(key.limit));
        self.keys.iter().filter_map(count).collect()
    }

    /// The call is allowed: each counter is one higher.
    pub(super) fn charge(mut self) {
        for key in &self.keys {
            if let Some(held) = self.kept.get_mut(&key.key) {
                held.counter.charge(self.now);
                held.used = self.now;
            }
        }
    }
}
