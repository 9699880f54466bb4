//! Calls of a session that wait for a person; everything else goes on meanwhile.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::approving::{alive, progress, word};
use super::super::observed::slot;
use super::asked::Of;
use super::{Over, Session};
use crate::audit::OpenRecord;
use crate::channel::MOST_APPROVALS;
use crate::decide::approvals::{Ticket, Word};
use crate::decode::rpc::{Id, Message};
use crate::flow::describe::Story as _;

/// A call that begins to wait.
pub(super) struct Arriving {
    id: Id,
    ticket: Ticket,
    cancelled: CancellationToken,
}

/// The calls that wait, by their ids.
pub(super) struct Held {
    calls: Mutex<HashMap<String, Call>>,
    arriving: mpsc::Sender<Arriving>,
}

/// One of them.
pub(super) struct Call {
    pub(super) id: Id,
    message: Message,
    /// Absent while it is being decided.
    pub(super) record: Option<OpenRecord>,
    cancelled: CancellationToken,
}

type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Held {
    /// With what tells a session of calls that begin to wait.
    pub(super) fn new() -> (Self, mpsc::Receiver<Arriving>) {
        let (arriving, receiver) = mpsc::channel(MOST_APPROVALS);
        let held = Self {
            calls: Mutex::default(),
            arriving,
        };
        (held, receiver)
    }

    /// Whether the call with `id` waits.
    pub(super) fn has(&self, id: &Id) -> bool {
        self.lock().contains_key(&slot(id))
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A call begins to wait. One more than can be seen to gets its record back.
    pub(super) fn begin(
        &self,
        id: Id,
        message: Message,
        record: OpenRecord,
        ticket: Ticket,
    ) -> Result<(), Box<(OpenRecord, Message)>> {
        let cancelled = CancellationToken::new();
        let arriving = Arriving {
            id: id.clone(),
            ticket,
            cancelled: cancelled.clone(),
        };
        if self.arriving.try_send(arriving).is_err() {
            return Err(Box::new((record, message)));
        }
        let call = Call {
            id: id.clone(),
            message,
            record: Some(record),
            cancelled,
        };
        self.lock().insert(slot(&id), call);
        Ok(())
    }

    /// The call with `id` waits no more.
    pub(super) fn end(&self, id: &Id) -> Option<Call> {
        self.lock().remove(&slot(id))
    }

    /// Takes out everything.
    pub(super) fn empty(&self) -> Vec<Call> {
        self.lock().drain().map(|(_, call)| call).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Sees to the calls that wait, for as long as the session lasts.
    pub(super) async fn hold(&self, mut arriving: mpsc::Receiver<Arriving>) {
        let mut waiting: Vec<Waiting<'_>> = Vec::new();
        loop {
            tokio::select! {
                Some(call) = arriving.recv() => waiting.push(Box::pin(self.wait(call))),
                () = any(&mut waiting) => {}
            }
        }
    }

    async fn wait(&self, call: Arriving) {
        let Arriving {
            id,
            mut ticket,
            cancelled,
        } = call;
        let word = tokio::select! {
            biased;
            // Whoever cancelled it ended its record.
            () = cancelled.cancelled() => return,
            word = self.word(&id, &mut ticket) => word,
        };
        let taken = {
            let mut calls = self.held.lock();
            let call = calls.get_mut(&slot(&id));
            call.and_then(|call| Some((call.record.take()?, call.message.clone())))
        };
        let Some((record, message)) = taken else {
            return;
        };
        let mut under_way = self.under_way(Of::Server, &id, Some(record));
        let settled = match under_way.record() {
            Some(record) => self.talking.heard(record, &message, ticket, word).await,
            None => return,
        };
        let Some(record) = under_way.over() else {
            return;
        };
        if cancelled.is_cancelled() {
            return record.fail(&Over("the client cancelled its request"));
        }
        let is_over = tokio::select! {
            biased;
            // It waits for the server to read, which has heard nothing of it.
            () = cancelled.cancelled() => false,
            () = self.settled(id.clone(), record, message, settled, None) => true,
        };
        if !is_over {
            self.cancels_left(&id);
        }
    }

    /// What is decided, with a word to the host now and then.
    async fn word(&self, id: &Id, ticket: &mut Ticket) -> Word {
        let approval = ticket.approval().clone();
        word(ticket, alive(), |count| {
            let told = {
                let calls = self.held.lock();
                let call = calls.get(&slot(id));
                call.and_then(|call| progress(&call.message, &approval, count))
            };
            // A host that does not read is told later.
            if let Some(Err(fault)) = told.map(|told| self.to_host.try_say(&told)) {
                tracing::debug!(%fault, "a host was not told that its call waits");
            }
        })
        .await
    }

    /// The host does not wait for a call any more that waits for a person. The server has never heard of it.
    pub(super) fn cancels_held(&self, id: &Id) -> bool {
        let Some(call) = self.held.end(id) else {
            return false;
        };
        call.cancelled.cancel();
        self.settled.notify_waiters();
        if let Some(record) = call.record {
            record.fail(&Over("the client cancelled its request"));
        }
        true
    }
}

/// Goes on with all of them until one is done; without any, for ever.
async fn any(waiting: &mut Vec<Waiting<'_>>) {
    poll_fn(|cx| {
        let before = waiting.len();
        waiting.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if waiting.len() < before {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
