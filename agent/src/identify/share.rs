//! What the servers of one user take together: nobody who starts many of them takes what all others need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Table = Arc<Mutex<HashMap<u32, Weak<Share>>>>;

/// By user; a share is in it for as long as anybody has it.
#[derive(Debug, Default)]
pub struct Shares(Table);

/// One user's.
#[derive(Debug)]
pub struct Share {
    uid: u32,
    exchanges: Arc<Semaphore>,
    table: Table,
}

/// A place for one exchange, until this is dropped.
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
    /// A share that is made anew meanwhile would not know of it.
    _share: Arc<Share>,
}

impl Shares {
    /// That of `uid`; a new one with so many exchanges, if it has none.
    pub fn of(&self, uid: u32, exchanges: usize) -> Arc<Share> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = table.get(&uid).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Share {
            uid,
            exchanges: Arc::new(Semaphore::new(exchanges)),
            table: Arc::clone(&self.0),
        });
        table.insert(uid, Arc::downgrade(&share));
        share
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Share {
    /// A place for one exchange more, unless all are taken.
    pub fn exchange(self: &Arc<Self>) -> Option<Place> {
        let place = Arc::clone(&self.exchanges).try_acquire_owned().ok()?;
        Some(Place {
            _place: place,
            _share: Arc::clone(self),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Its user may have a new one by now.
        let gone = |share: &Weak<Self>| share.strong_count() == 0;
        if table.get(&self.uid).is_some_and(gone) {
            table.remove(&self.uid);
        }
    }
}
