//! What a session's end finds in the middle of being said: a request that is neither in the tables nor refused, an answer
//! that the host has not. Whoever waits is answered all the same, and the record says what happened.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::asked::{Asked, Of};
use super::held::Call;
use super::{End, Over, Session};
use crate::audit::{AuditUnavailable, OpenRecord};
use crate::decide::{Message as AboutMessage, Permit};
use crate::decode::rpc::{Id, Message};
use crate::flow::describe::Story as _;
use crate::forward::outlet::{NotTaken, Outlet};
use crate::identify::room::Taken;

/// A message of one side that is being seen to.
struct Begun {
    of: Of,
    id: Id,
    /// Absent until there is one.
    record: Option<OpenRecord>,
}

/// What was dropped in the middle.
#[derive(Default)]
pub(super) struct Left(Mutex<State>);

#[derive(Default)]
struct State {
    begun: Vec<Begun>,
    /// Answers that are due to the host.
    answers: Vec<Message>,
}

impl Left {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a permitted message was not sent on.
pub(super) enum Unsent {
    /// Nothing can be recorded.
    Unrecorded(AuditUnavailable),
    /// Whom it is for does not take it.
    NotTaken(NotTaken),
}

/// Keeps a message and its record for the session's end, if it is dropped before it is [`UnderWay::over`].
pub(super) struct UnderWay<'a> {
    session: &'a Session,
    begun: Option<Begun>,
}

impl UnderWay<'_> {
    /// The record so far; there is one until this is over.
    pub(super) fn record(&mut self) -> Option<&mut OpenRecord> {
        self.begun.as_mut()?.record.as_mut()
    }

    /// It is seen to, or about to be by somebody else.
    pub(super) fn over(mut self) -> Option<OpenRecord> {
        self.begun.take()?.record
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.session.left.lock().begun.push(begun);
        }
    }
}

/// Keeps an answer for the session's end, if it is dropped before it is [`Due::said`].
pub(super) struct Due<'a> {
    session: &'a Session,
    answer: Option<&'a Message>,
}

impl Due<'_> {
    /// The host's outlet has it, or takes nothing more.
    pub(super) fn said(mut self) {
        self.answer = None;
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.session.left.lock().answers.push(answer.clone());
        }
    }
}

impl Session {
    /// To be held while what was asked `of` a side under this id is in neither table, nor held for a person.
    pub(super) fn under_way(&self, of: Of, id: &Id, record: Option<OpenRecord>) -> UnderWay<'_> {
        let id = id.clone();
        UnderWay {
            session: self,
            begun: Some(Begun { of, id, record }),
        }
    }

    /// To be held while `answer` waits for the log and for the host to read.
    pub(super) fn due<'a>(&'a self, answer: &'a Message) -> Due<'a> {
        Due {
            session: self,
            answer: Some(answer),
        }
    }

    /// Sends on what was permitted, as soon as the log knows of it and there is room, and gives the record back.
    pub(super) async fn send_on(
        &self,
        mut under_way: UnderWay<'_>,
        to: &Outlet,
        permit: Permit<AboutMessage>,
        message: &Message,
        room: Option<Taken>,
    ) -> Option<(OpenRecord, Result<(), Unsent>)> {
        let record = under_way.record()?;
        let sent = match record.intend().await {
            Ok(intended) => {
                let passed = to.pass(permit, &intended, message, room).await;
                passed.map_err(Unsent::NotTaken)
            }
            Err(unavailable) => Err(Unsent::Unrecorded(unavailable)),
        };
        Some((under_way.over()?, sent))
    }

    /// The host gave up a request that waited for the server to read.
    pub(super) fn cancels_left(&self, id: &Id) {
        let begun = {
            let mut left = self.left.lock();
            let at = left.begun.iter().position(|begun| begun.id.same_slot(id));
            at.map(|at| left.begun.swap_remove(at))
        };
        if let Some(record) = begun.and_then(|begun| begun.record) {
            record.abandon(&Over("the client cancelled its request"));
        }
    }

    /// Ends the records of everything that is under way when the session ends. What the host is to be told: answers, and
    /// the ids of requests that have none.
    pub(super) fn end_all(&self, end: End, why: &'static str) -> (Vec<Message>, Vec<Id>) {
        let State { begun, answers } = std::mem::take(&mut *self.left.lock());
        let mut waiting: Vec<Id> = Vec::new();
        let (of_server, of_host) = self.tables.empty();
        let (begun_server, begun_host): (Vec<_>, Vec<_>) =
            begun.into_iter().partition(|begun| begun.of == Of::Server);
        let asked = |Asked { id, record, .. }: Asked| (id, record);
        let begun = |Begun { id, record, .. }: Begun| (id, record);
        let of_server = of_server.into_iter().map(asked);
        for (id, record) in of_server.chain(begun_server.into_iter().map(begun)) {
            self.ledger.failed();
            match record {
                Some(record) if end == End::Server => record.fail(&Over(why)),
                Some(record) => record.abandon(&Over(why)),
                None => {}
            }
            waiting.push(id);
        }
        for Call { id, record, .. } in self.held.empty() {
            // One that was being sent on is among those above.
            if record.is_none() && waiting.iter().any(|other| other.same_slot(&id)) {
                continue;
            }
            self.ledger.refused();
            if let Some(record) = record {
                record.fail(&Over(why));
            }
            waiting.push(id);
        }
        let of_host = of_host.into_iter().map(asked);
        for (_, record) in of_host.chain(begun_host.into_iter().map(begun)) {
            if let Some(record) = record {
                record.fail(&Over(why));
            }
        }
        (answers, waiting)
    }
}
