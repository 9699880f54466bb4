//! Bounds on how many clients are served at once, together and for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many clients may be served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Together, ordinary users.
    pub all: usize,
    /// Each user but root.
    pub each: usize,
    /// Above `all`, for root alone: a flood must not lock out the operator.
    pub reserved: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            all: 512,
            each: 64,
            reserved: 32,
        }
    }
}

/// Counts clients against [`Limits`].
#[derive(Clone, Debug)]
pub struct Slots {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<u32, usize>,
}

/// A place that is held until this is dropped.
#[derive(Debug)]
pub struct Slot {
    uid: u32,
    taken: Arc<Mutex<Taken>>,
}

impl Slots {
    /// With nobody served.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Arc::default(),
        }
    }

    /// A place for `uid`, unless the bounds are reached.
    pub fn take(&self, uid: u32) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_user.get(&uid).copied().unwrap_or(0);
        let free = if uid == 0 {
            taken.all < self.limits.all.saturating_add(self.limits.reserved)
        } else {
            taken.all < self.limits.all && own < self.limits.each
        };
        if !free {
            return None;
        }
        taken.all = taken.all.saturating_add(1);
        taken.by_user.insert(uid, own.saturating_add(1));
        Some(Slot {
            uid,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let left = taken
            .by_user
            .get(&self.uid)
            .map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            taken.by_user.remove(&self.uid);
        } else {
            taken.by_user.insert(self.uid, left);
        }
    }
}
