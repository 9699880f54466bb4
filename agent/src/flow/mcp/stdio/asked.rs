//! What is in flight in a session, by the side that asked: ids belong to whoever made them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::super::observed::slot;
use crate::audit::OpenRecord;
use crate::bounded::Bounded;
use crate::decode::mcp::Era;
use crate::decode::rpc::Id;
use crate::identify::calls::InFlight;

/// Requests of one side that may wait at once.
const AT_ONCE: usize = 1024;
/// Cancelled requests whose answer is still known for one.
const CANCELLED: usize = 256;

/// A request that was sent on and waits for its answer.
pub(super) struct Asked {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) era: Era,
    /// Absent only where it was taken out.
    pub(super) record: Option<OpenRecord>,
    pub(super) since: Instant,
    /// Ends with the answer.
    pub(super) in_flight: Option<InFlight>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// Its id is in use: the number 1 and the string "1" are one id for the known clients.
    InUse,
    /// Too many wait.
    TooMany,
}

/// Whom a response is for.
pub(super) enum For {
    /// A request that waits.
    Waiting(Box<Asked>),
    /// One that was cancelled, so that nobody does.
    Cancelled,
    /// None that was seen.
    Nobody,
}

struct Table {
    waiting: HashMap<String, Asked>,
    cancelled: Bounded<String, ()>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            cancelled: Bounded::new(CANCELLED),
        }
    }
}

/// Both directions.
#[derive(Default)]
pub(super) struct Tables {
    of_server: Mutex<Table>,
    of_host: Mutex<Table>,
}

/// Of whom something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Server,
    Host,
}

impl Tables {
    /// Whether a request with `id` could be asked `of` that side now.
    pub(super) fn check(&self, of: Of, id: &Id) -> Result<(), NotAsked> {
        let table = self.lock(of);
        if table.waiting.contains_key(&slot(id)) {
            return Err(NotAsked::InUse);
        }
        if table.waiting.len() >= AT_ONCE {
            return Err(NotAsked::TooMany);
        }
        Ok(())
    }

    /// A request is on its way; to be checked before.
    pub(super) fn ask(&self, of: Of, asked: Asked) {
        let mut table = self.lock(of);
        let slot = slot(&asked.id);
        table.cancelled.remove(&slot);
        table.waiting.insert(slot, asked);
    }

    /// Whom the response with `id` is for. Without an id it is the one request that there is.
    pub(super) fn answer(&self, of: Of, id: Option<&Id>) -> For {
        let mut table = self.lock(of);
        let slot = match id {
            Some(id) => slot(id),
            None if table.waiting.len() == 1 => {
                let mut only = table.waiting.drain().map(|(_, asked)| asked);
                return only
                    .next()
                    .map_or(For::Nobody, |asked| For::Waiting(Box::new(asked)));
            }
            None => return For::Nobody,
        };
        match table.waiting.remove(&slot) {
            Some(asked) => For::Waiting(Box::new(asked)),
            None if table.cancelled.remove(&slot).is_some() => For::Cancelled,
            None => For::Nobody,
        }
    }

    /// Whoever asked for `id` does not wait any more.
    pub(super) fn cancel(&self, of: Of, id: &Id) -> Option<Asked> {
        let mut table = self.lock(of);
        let slot = slot(id);
        let asked = table.waiting.remove(&slot)?;
        table.cancelled.insert(slot, ());
        Some(asked)
    }

    /// Takes out everything: what the server was asked, and what the host was.
    pub(super) fn empty(&self) -> (Vec<Asked>, Vec<Asked>) {
        let take = |of| {
            self.lock(of)
                .waiting
                .drain()
                .map(|(_, asked)| asked)
                .collect()
        };
        (take(Of::Server), take(Of::Host))
    }

    /// Whether the server was asked nothing that it has not answered.
    pub(super) fn is_idle(&self) -> bool {
        self.lock(Of::Server).waiting.is_empty()
    }

    fn lock(&self, of: Of) -> MutexGuard<'_, Table> {
        let table = match of {
            Of::Server => &self.of_server,
            Of::Host => &self.of_host,
        };
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{AT_ONCE, Asked, For, NotAsked, Of, Tables};
    use crate::decode::mcp::Era;
    use crate::decode::rpc::Id;

    fn asked(id: Id) -> Asked {
        Asked {
            id,
            method: "ping".into(),
            era: Era::Legacy,
            record: None,
            since: Instant::now(),
            in_flight: None,
        }
    }

    #[tokio::test]
    async fn ids_are_slots_and_each_side_has_its_own() {
        let tables = Tables::default();
        let (number, text) = (Id::Number(1), Id::Text("1".into()));
        tables.ask(Of::Server, asked(number.clone()));
        assert_eq!(tables.check(Of::Server, &text), Err(NotAsked::InUse));
        assert_eq!(tables.check(Of::Host, &text), Ok(()));
        assert!(matches!(
            tables.answer(Of::Host, Some(&number)),
            For::Nobody
        ));
        let For::Waiting(found) = tables.answer(Of::Server, Some(&text)) else {
            panic!("it waits")
        };
        assert_eq!(found.id, number);
        assert!(matches!(
            tables.answer(Of::Server, Some(&text)),
            For::Nobody
        ));
        assert!(tables.is_idle());
    }

    #[tokio::test]
    async fn what_was_cancelled_is_answered_to_nobody_once() {
        let tables = Tables::default();
        let id = Id::Number(1);
        assert!(tables.cancel(Of::Server, &id).is_none());
        tables.ask(Of::Server, asked(id.clone()));
        assert!(tables.cancel(Of::Server, &id).is_some());
        assert_eq!(tables.check(Of::Server, &id), Ok(()));
        assert!(matches!(
            tables.answer(Of::Server, Some(&id)),
            For::Cancelled
        ));
        assert!(matches!(tables.answer(Of::Server, Some(&id)), For::Nobody));
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let tables = Tables::default();
        for id in 0..AT_ONCE {
            tables.ask(Of::Host, asked(Id::Text(format!("a{id}"))));
        }
        let one = Id::Number(1);
        assert_eq!(tables.check(Of::Host, &one), Err(NotAsked::TooMany));
        assert!(matches!(tables.answer(Of::Host, None), For::Nobody));
        assert_eq!(tables.empty().1.len(), AT_ONCE);
        tables.ask(Of::Host, asked(one));
        assert!(matches!(tables.answer(Of::Host, None), For::Waiting(_)));
    }
}
