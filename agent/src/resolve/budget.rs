//! How much one workload may ask at once and anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The window of the limit on new names.
const WINDOW: Duration = Duration::from_mins(1);
/// How many workloads are remembered before idle ones are forgotten.
const REMEMBERED: usize = 1024;

#[derive(Debug)]
struct Spent {
    in_flight: usize,
    window: Instant,
    fresh: usize,
}

/// Counts what workloads have under way, and the names that they asked upstream.
#[derive(Debug)]
pub(super) struct Budget {
    all: Arc<Semaphore>,
    per_workload: usize,
    fresh: usize,
    spent: Arc<Mutex<HashMap<u32, Spent>>>,
}

/// One query under way; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    workload: Option<u32>,
    spent: Arc<Mutex<HashMap<u32, Spent>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = self.workload.and_then(|workload| spent.get_mut(&workload)) {
            mine.in_flight = mine.in_flight.saturating_sub(1);
        }
    }
}

impl Budget {
    pub(super) fn new(all: usize, per_workload: usize, fresh: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_workload,
            fresh,
            spent: Arc::default(),
        }
    }

    /// A place for a workload's query; `None` if the workload or everybody has too many.
    pub(super) fn enter(&self, workload: u32, now: Instant) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= REMEMBERED && !spent.contains_key(&workload) {
            spent.retain(|_, s| s.in_flight > 0 || now.duration_since(s.window) < WINDOW);
        }
        let mine = spent.entry(workload).or_insert(Spent {
            in_flight: 0,
            window: now,
            fresh: 0,
        });
        if mine.in_flight >= self.per_workload {
            return None;
        }
        mine.in_flight += 1;
        drop(spent);
        Some(Place {
            workload: Some(workload),
            spent: Arc::clone(&self.spent),
            _permit: permit,
        })
    }

    /// A place for the proxy's own look-up.
    pub(super) fn enter_proxy(&self) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place {
            workload: None,
            spent: Arc::clone(&self.spent),
            _permit: permit,
        })
    }

    /// Counts a question that goes upstream; `false` if the workload asked too many in a minute.
    ///
    /// Labels under an allowed wildcard carry data to whoever serves the zone. They cannot be
    /// told from honest names, so their rate is bounded and each is on record.
    pub(super) fn spend_fresh(&self, workload: u32, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mine) = spent.get_mut(&workload) else {
            return false;
        };
        if now.duration_since(mine.window) >= WINDOW {
            mine.window = now;
            mine.fresh = 0;
        }
        mine.fresh += 1;
        mine.fresh <= self.fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let (budget, now) = (Budget::new(3, 2, 1), Instant::now());
        let first = budget.enter(1, now).unwrap();
        let _second = budget.enter(1, now).unwrap();
        assert!(budget.enter(1, now).is_none(), "two per workload");
        let _third = budget.enter(2, now).unwrap();
        assert!(budget.enter(3, now).is_none(), "three in all");
        drop(first);
        assert!(budget.enter(1, now).is_some());
    }

    #[test]
    fn fresh_names_are_bounded_by_the_minute() {
        let (budget, now) = (Budget::new(3, 2, 2), Instant::now());
        let _place = budget.enter(7, now).unwrap();
        assert!(budget.spend_fresh(7, now));
        assert!(budget.spend_fresh(7, now));
        assert!(!budget.spend_fresh(7, now));
        assert!(budget.spend_fresh(7, now + WINDOW));
    }

    #[test]
    fn idle_workloads_are_forgotten() {
        let (budget, now) = (Budget::new(3, 2, 2), Instant::now());
        for workload in 0..u32::try_from(REMEMBERED).unwrap() + 9 {
            drop(budget.enter(workload, now + WINDOW * workload));
        }
        assert!(budget.spent.lock().unwrap().len() <= REMEMBERED);
    }
}
