//! Names of Unix users, from the system's user database, kept for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::bounded::Bounded;

/// A renamed user is seen after this long.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Users that are remembered.
const MOST: usize = 4096;

/// A name, if there is one, and when it was looked up.
type Kept = Bounded<u32, (Option<Arc<str>>, Instant)>;

/// The cache of user names.
#[derive(Debug)]
pub struct Users {
    kept: Mutex<Kept>,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Bounded::new(MOST)),
        }
    }
}

impl Users {
    /// The name of `uid`; `None` when the database has none or cannot be read, and then no rule for a user matches.
    pub async fn name(&self, uid: u32) -> Option<Arc<str>> {
        if let Some((name, at)) = self.lock().get(&uid)
            && at.elapsed() < KEPT_FOR
        {
            return name.clone();
        }
        let looked = spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
        let name = match looked {
            Ok(Ok(user)) => user.map(|user| Arc::from(user.name)),
            Ok(Err(error)) => {
                tracing::warn!(uid, %error, "the user database could not be read");
                None
            }
            Err(error) => {
                tracing::warn!(uid, %error, "the look-up of a user did not finish");
                None
            }
        };
        self.lock().insert(uid, (name.clone(), Instant::now()));
        name
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
