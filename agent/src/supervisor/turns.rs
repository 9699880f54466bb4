//! Turns of those who look at processes: bounded altogether, and for each user and each host by itself. A thread that
//! a process or a disk holds up keeps its turn; others than its user and its host do not wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Turns altogether.
const ALL: usize = 64;
/// Of one host's processes.
const HOST: usize = 24;
/// Of one user's.
const USER: usize = 8;

/// All turns.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<Whose, Arc<Semaphore>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    /// By the workload's number: a user may have many numbers of users.
    Host(u32),
    User(u32),
    /// A user's processes that are Exeat: what hangs beside them does not keep them waiting.
    Exeat(u32),
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _held: [OwnedSemaphorePermit; 3],
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            each: Mutex::default(),
        }
    }

    /// Waits for a turn to look at a process of this host and user.
    ///
    /// # Errors
    /// None, as long as there are turns at all.
    pub(super) async fn take(&self, host: u32, uid: u32, own: bool) -> Result<Turn, AcquireError> {
        let whose = if own {
            Whose::Exeat(uid)
        } else {
            Whose::User(uid)
        };
        // What all wait for comes last: nobody has it who waits for anything else.
        let user = self.of(whose, USER).acquire_owned().await?;
        let host = self.of(Whose::Host(host), HOST).acquire_owned().await?;
        let all = Arc::clone(&self.all).acquire_owned().await?;
        Ok(Turn {
            _held: [user, host, all],
        })
    }

    fn of(&self, whose: Whose, turns: usize) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = each.get(&whose) {
            return Arc::clone(known);
        }
        // Those that nobody has or waits for.
        each.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = Arc::new(Semaphore::new(turns));
        each.insert(whose, Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn soon(turns: &Turns, host: u32, uid: u32, own: bool) -> Option<Turn> {
        let taken = timeout(Duration::from_millis(10), turns.take(host, uid, own)).await;
        taken.ok().map(Result::unwrap)
    }

    #[tokio::test]
    async fn who_hangs_is_waited_for_by_that_one_alone() {
        let turns = Turns::new();
        let mut held = Vec::new();
        while let Some(turn) = soon(&turns, 1, 7, false).await {
            held.push(turn);
        }
        assert_eq!(held.len(), USER);
        assert!(soon(&turns, 2, 7, false).await.is_none(), "nor elsewhere");
        assert!(soon(&turns, 1, 7, true).await.is_some());
        assert!(soon(&turns, 1, 8, false).await.is_some());
        // One who is many users.
        for uid in 100..200 {
            held.extend(soon(&turns, 1, uid, false).await);
        }
        assert_eq!(held.len(), HOST);
        assert!(soon(&turns, 1, 8, false).await.is_none());
        assert!(soon(&turns, 2, 8, false).await.is_some());
        // None is lost, and who is gone is not remembered.
        drop(held);
        for uid in 0..100 {
            assert!(soon(&turns, 1, uid, false).await.is_some());
        }
        assert_eq!(turns.all.available_permits(), ALL);
        assert!(turns.each.lock().unwrap().len() < 4);
    }
}
