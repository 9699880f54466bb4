//! The sessions that are alive, so that a change of policy and the gate's end reach them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::decide::Decider;
use crate::intake::Actor;

struct Entry {
    actor: Actor,
    server: Arc<str>,
    extra_args: Vec<String>,
    cut: CancellationToken,
}

impl Entry {
    fn is_permitted(&self, decider: &Decider) -> bool {
        let caller = self.actor.caller();
        decider.run(caller, &self.server, &self.extra_args).is_ok()
    }
}

type Table = Arc<Mutex<HashMap<u32, Entry>>>;

/// The table of sessions, by the number of the server's workload.
#[derive(Default)]
pub struct Sessions {
    table: Table,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("alive", &self.len())
            .finish_non_exhaustive()
    }
}

/// One session; leaves the table when dropped.
pub(super) struct Registered {
    table: Table,
    number: u32,
    cut: CancellationToken,
}

impl Sessions {
    pub(super) fn register(
        &self,
        number: u32,
        actor: &Actor,
        (server, extra_args): (&Arc<str>, Vec<String>),
    ) -> Registered {
        let cut = CancellationToken::new();
        let entry = Entry {
            actor: actor.clone(),
            server: Arc::clone(server),
            extra_args,
            cut: cut.clone(),
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(number, entry);
        Registered {
            table: Arc::clone(&self.table),
            number,
            cut,
        }
    }

    /// Cuts every session that the policy in force would not let begin. Returns how many.
    pub fn recheck(&self, decider: &Decider) -> usize {
        self.cut(|entry| !entry.is_permitted(decider))
    }

    /// Cuts all: the gate's time is up.
    pub fn cut_all(&self) -> usize {
        self.cut(|_| true)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn cut(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = table.values().filter(|entry| wanted(entry));
        cut.map(|entry| entry.cut.cancel()).count()
    }
}

impl Registered {
    /// Whether the policy in force lets it begin.
    pub(super) fn is_permitted(&self, decider: &Decider) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.get(&self.number);
        entry.is_some_and(|entry| entry.is_permitted(decider))
    }

    /// Fires when the session is to end.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&self.number);
    }
}
