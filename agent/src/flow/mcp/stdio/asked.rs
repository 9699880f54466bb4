//! What is in flight in a session, by the side that asked: ids belong to whoever made them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::super::observed::slot;
use crate::audit::{OpenRecord, RecordId};
use crate::bounded::Bounded;
use crate::decode::mcp::Era;
use crate::decode::rpc::Id;
use crate::identify::calls::InFlight;

/// Requests of one side that may wait at once.
const AT_ONCE: usize = 1024;
/// Ids of cancelled requests that are still known. What is more is counted alone ([`Forgotten`]).
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
    /// Whether an answer with its id is surely to it: no other was asked under it that is not answered.
    pub(super) alone: bool,
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
    /// One that was cancelled, so that nobody does; its record, if its server acts for it.
    Cancelled(Option<RecordId>),
    /// None that was seen.
    Nobody,
}

/// What was cancelled under one id and is not answered.
#[derive(Debug, Clone, Copy)]
enum Cancelled {
    /// This record's request, if its server acts for it.
    One(Option<RecordId>),
    /// So many requests, and the id was used anew meanwhile: whom an answer is for is not told any more.
    Several(usize),
}

impl Cancelled {
    const fn count(self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(count) => count,
        }
    }
}

/// What was cancelled, is not answered, and had no room among [`Cancelled`].
#[derive(Default)]
struct Forgotten {
    count: usize,
    /// The greatest of their ids, as [`place`] orders them: a host that counts its requests asks none of them anew.
    greatest: i64,
}

impl Forgotten {
    fn take(&mut self, slot: &str, count: usize) {
        let place = place(slot);
        self.greatest = if self.count == 0 {
            place
        } else {
            self.greatest.max(place)
        };
        self.count = self.count.saturating_add(count);
    }

    /// Whether one of them may have had this id.
    fn may_have(&self, slot: &str) -> bool {
        self.count > 0 && place(slot) <= self.greatest
    }

    /// An answer came that may be to one of them.
    fn answered(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// Numbers in their order; what is none comes after them.
fn place(slot: &str) -> i64 {
    slot.parse().unwrap_or(i64::MAX)
}

struct Table {
    waiting: HashMap<String, Asked>,
    cancelled: Bounded<String, Cancelled>,
    forgotten: Forgotten,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            cancelled: Bounded::new(CANCELLED),
            forgotten: Forgotten::default(),
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
    pub(super) fn ask(&self, of: Of, mut asked: Asked) {
        let mut table = self.lock(of);
        let slot = slot(&asked.id);
        if let Some(before) = table.cancelled.get(&slot) {
            *before = Cancelled::Several(before.count());
            asked.alone = false;
        }
        if table.forgotten.may_have(&slot) {
            asked.alone = false;
        }
        table.waiting.insert(slot, asked);
    }

    /// Whom the response with `id` is for. Without an id it is the one request that there is.
    pub(super) fn answer(&self, of: Of, id: Option<&Id>) -> For {
        let mut table = self.lock(of);
        let slot = match id {
            Some(id) => slot(id),
            None if table.waiting.len() == 1 => {
                let alone = table.cancelled.is_empty() && table.forgotten.count == 0;
                let mut only = table.waiting.drain().map(|(_, asked)| asked);
                return only.next().map_or(For::Nobody, |mut asked| {
                    asked.alone = asked.alone && alone;
                    For::Waiting(Box::new(asked))
                });
            }
            None => return For::Nobody,
        };
        if let Some(asked) = table.waiting.remove(&slot) {
            return For::Waiting(Box::new(asked));
        }
        match table.cancelled.get(&slot).copied() {
            Some(Cancelled::One(record)) => {
                table.cancelled.remove(&slot);
                For::Cancelled(record)
            }
            Some(Cancelled::Several(count)) => {
                // One answer each, and then there is nothing to answer.
                if count <= 1 {
                    table.cancelled.remove(&slot);
                } else if let Some(left) = table.cancelled.get(&slot) {
                    *left = Cancelled::Several(count - 1);
                }
                For::Cancelled(None)
            }
            None if table.forgotten.may_have(&slot) => {
                table.forgotten.answered();
                For::Cancelled(None)
            }
            None => For::Nobody,
        }
    }

    /// Whoever asked for `id` does not wait any more.
    pub(super) fn cancel(&self, of: Of, id: &Id) -> Option<Asked> {
        let mut table = self.lock(of);
        let slot = slot(id);
        let asked = table.waiting.remove(&slot)?;
        let cancelled = if asked.alone {
            Cancelled::One(asked.in_flight.as_ref().map(InFlight::record))
        } else {
            let before = table.cancelled.get(&slot);
            Cancelled::Several(before.map_or(0, |before| before.count()).saturating_add(1))
        };
        if let Some((slot, gone)) = table.cancelled.insert(slot, cancelled) {
            table.forgotten.take(&slot, gone.count());
        }
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

    use super::{AT_ONCE, Asked, CANCELLED, For, NotAsked, Of, Tables};
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
            alone: true,
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
            For::Cancelled(None)
        ));
        assert!(matches!(tables.answer(Of::Server, Some(&id)), For::Nobody));
    }

    /// An answer to what was cancelled must not end what was asked under its id since.
    #[tokio::test]
    async fn an_id_that_is_used_anew_says_no_more_what_is_answered() {
        let tables = Tables::default();
        let id = Id::Number(1);
        let answered = || match tables.answer(Of::Server, Some(&id)) {
            For::Waiting(asked) => Some(asked.alone),
            For::Cancelled(None) => None,
            For::Cancelled(Some(_)) | For::Nobody => panic!("it is known"),
        };
        tables.ask(Of::Server, asked(id.clone()));
        assert_eq!(answered(), Some(true));
        tables.ask(Of::Server, asked(id.clone()));
        assert!(tables.cancel(Of::Server, &id).is_some());
        tables.ask(Of::Server, asked(id.clone()));
        assert_eq!(answered(), Some(false));
        assert_eq!(answered(), None);
        // All are answered, and it begins anew.
        tables.ask(Of::Server, asked(id.clone()));
        assert!(tables.cancel(Of::Server, &id).is_some());
        assert_eq!(answered(), None);
        tables.ask(Of::Server, asked(id.clone()));
        assert_eq!(answered(), Some(true));
        // As many answers as there were requests, and not one more.
        for _ in 0..3 {
            tables.ask(Of::Server, asked(id.clone()));
            assert!(tables.cancel(Of::Server, &id).is_some());
        }
        tables.ask(Of::Server, asked(id.clone()));
        let answers = [(); 4].map(|()| answered());
        assert_eq!(answers, [Some(false), None, None, None]);
        let more = tables.answer(Of::Server, Some(&id));
        assert!(matches!(more, For::Nobody));
    }

    fn cancelled(tables: &Tables, of: Of, id: Id) {
        tables.ask(of, asked(id.clone()));
        assert!(tables.cancel(of, &id).is_some());
    }

    /// Ask under id 1, cancel it, have it forgotten among others, and ask under its id again: the answer to the first must
    /// not end the second.
    #[tokio::test]
    async fn an_id_that_may_have_been_forgotten_says_no_more_what_is_answered() {
        let tables = Tables::default();
        let one = Id::Number(1);
        let answered = |id: &Id| match tables.answer(Of::Server, Some(id)) {
            For::Waiting(asked) => Some(asked.alone),
            For::Cancelled(None) => None,
            For::Cancelled(Some(_)) | For::Nobody => panic!("it is known"),
        };
        (1..=257).for_each(|id| cancelled(&tables, Of::Server, Id::Number(id)));
        tables.ask(Of::Server, asked(one.clone()));
        assert_eq!(answered(&one), Some(false));
        assert_eq!(answered(&one), None, "the other's own comes late");
        // All is answered that was forgotten: it is certain again.
        tables.ask(Of::Server, asked(one.clone()));
        assert_eq!(answered(&one), Some(true));
        assert!(matches!(tables.answer(Of::Server, Some(&one)), For::Nobody));
        // Where no answer comes, whoever counts its requests is certain all the same.
        cancelled(&tables, Of::Server, Id::Number(258));
        for (id, alone) in [(1, false), (2, false), (259, true)] {
            tables.ask(Of::Server, asked(Id::Number(id)));
            assert_eq!(answered(&Id::Number(id)), Some(alone), "{id}");
        }
        // The one that there is may be what an answer without an id is not for.
        (3..=258).for_each(|id| assert_eq!(answered(&Id::Number(id)), None, "{id}"));
        tables.ask(Of::Server, asked(Id::Number(300)));
        let For::Waiting(only) = tables.answer(Of::Server, None) else {
            panic!("it waits")
        };
        assert!(!only.alone);
    }

    #[tokio::test]
    async fn each_that_was_cancelled_may_be_answered_however_many_there_were() {
        for of in [Of::Server, Of::Host] {
            for text in [false, true] {
                let tables = Tables::default();
                let id = |number: usize| {
                    if text {
                        Id::Text(format!("r{number}"))
                    } else {
                        Id::Number(number.try_into().unwrap())
                    }
                };
                let all = CANCELLED + 144;
                (0..all).for_each(|number| cancelled(&tables, of, id(number)));
                let stray = tables.answer(of, Some(&Id::Text("x".into())));
                // Of what is no number it is not known whether it was there.
                assert_eq!(matches!(stray, For::Cancelled(None)), text);
                let answers = if text { 1..all } else { 0..all };
                for number in answers {
                    let found = tables.answer(of, Some(&id(number)));
                    assert!(matches!(found, For::Cancelled(None)), "{number}");
                }
                for number in [0, all] {
                    let more = tables.answer(of, Some(&id(number)));
                    assert!(matches!(more, For::Nobody), "{number}");
                }
            }
        }
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
