//! Keys that are fetched: which ones count, when the next are due, and who waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::keys::{Keys, KeysFault};
use crate::config::{Issuer, KeySource, TokenAlgorithm};
use crate::telemetry::clock::{self, Timestamp};

/// Between two rounds that somebody asks for, whoever it is, and after one that failed.
const PAUSE: Duration = Duration::from_secs(10);

/// The fetched keys of an issuer.
///
/// One task fetches ([`Supply::due`], [`Supply::settle`]); requests look, and wait for it within a deadline.
#[derive(Debug)]
pub struct Supply {
    /// As tokens name it.
    pub issuer: Arc<str>,
    /// Where the keys are.
    pub source: KeySource,
    /// Whether that may have private addresses.
    pub private: bool,
    /// Time for a round of fetching, and for whoever waits for it.
    pub limit: Duration,
    refresh: Duration,
    max_age: Duration,
    algorithms: Vec<TokenAlgorithm>,
    standing: watch::Sender<State>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// Rounds that are over.
    rounds: u64,
    /// When the last one ended.
    ended: Option<Instant>,
    /// One is under way.
    fetching: bool,
    /// What was wrong with the last one.
    fault: Option<String>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<Keys>,
    since: Instant,
    fetched: Timestamp,
}

/// What stands of an issuer's keys, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many keys count.
    pub keys: usize,
    /// When they were fetched.
    pub fetched: Option<Timestamp>,
    /// Why the last round brought none.
    pub fault: Option<String>,
}

impl Supply {
    pub(super) fn new(issuer: &Issuer, limit: Duration) -> Self {
        Self {
            issuer: issuer.issuer.as_str().into(),
            source: issuer.jwks.clone(),
            private: issuer.private,
            limit,
            refresh: issuer.refresh,
            max_age: issuer.max_age,
            algorithms: issuer.algorithms.clone(),
            standing: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    /// The keys, while they are not too old.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        let state = self.standing.borrow();
        let held = state.held.as_ref();
        let fresh = held.filter(|held| held.since.elapsed() < self.max_age);
        fresh.map(|held| Arc::clone(&held.keys))
    }

    /// Waits until a round is over that was under way or begins for this; not at all where the last one is too
    /// recent, so that nobody makes the gate ask the issuer more often. Whether one came to its end.
    pub(super) async fn renewed(&self) -> bool {
        let mut standing = self.standing.subscribe();
        let rounds = {
            let state = standing.borrow();
            if !state.fetching && self.is_recent(&state) {
                return false;
            }
            state.rounds
        };
        self.wanted.notify_one();
        let over = standing.wait_for(|state| state.rounds > rounds);
        timeout(self.limit, over)
            .await
            .is_ok_and(|over| over.is_ok())
    }

    fn is_recent(&self, state: &State) -> bool {
        let pause = PAUSE.min(self.refresh);
        state.ended.is_some_and(|ended| ended.elapsed() < pause)
    }

    /// Waits until the next round is due: in time before the keys age, or as somebody asks for one.
    pub async fn due(&self) {
        let next = {
            let state = self.standing.borrow();
            let pause = match state.fault {
                None => self.refresh,
                Some(_) => PAUSE.min(self.refresh),
            };
            state.ended.map(|ended| ended + pause)
        };
        if let Some(next) = next {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.asked() => {}
            }
        }
        self.standing.send_modify(|state| state.fetching = true);
    }

    async fn asked(&self) {
        loop {
            self.wanted.notified().await;
            if !self.is_recent(&self.standing.borrow()) {
                return;
            }
        }
    }

    /// Takes the text of a key set.
    ///
    /// # Errors
    /// Why its keys cannot be used.
    pub fn read(&self, set: &[u8]) -> Result<Fresh, KeysFault> {
        Keys::read(set, &self.algorithms).map(Fresh)
    }

    /// A round is over: its keys count from now on, and no others; or those from before, for as long as they may.
    /// Whether the issuer began to fail.
    pub fn settle(&self, fetched: Result<Fresh, String>) -> bool {
        let mut begins = false;
        self.standing.send_modify(|state| {
            state.rounds = state.rounds.saturating_add(1);
            state.ended = Some(Instant::now());
            state.fetching = false;
            match fetched {
                Ok(Fresh(keys)) => {
                    state.fault = None;
                    state.held = Some(Held {
                        keys: Arc::new(keys),
                        since: Instant::now(),
                        fetched: clock::wall(),
                    });
                }
                Err(fault) => begins = state.fault.replace(fault).is_none(),
            }
        });
        begins
    }

    /// What stands now.
    pub fn standing(&self) -> Standing {
        let keys = self.keys().map_or(0, |keys| keys.count());
        let state = self.standing.borrow();
        Standing {
            keys,
            fetched: state.held.as_ref().map(|held| held.fetched),
            fault: state.fault.clone(),
        }
    }
}

/// Keys that were read and do not count yet.
#[derive(Debug)]
pub struct Fresh(Keys);
