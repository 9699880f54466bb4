//! From the host to the server.

use tokio::time::Instant;

use super::super::answer;
use super::super::effects::Settled;
use super::super::judge::{NotPassed, answers_nothing, era};
use super::asked::{Asked, For, NotAsked, Of};
use super::left::Unsent;
use super::{FRAME, NO_ROOM, Over, Session, answered, fits, keep, outgrows, room_of};
use crate::audit::record::{ResponseKind, Side, Stage};
use crate::audit::{OpenRecord, Outcome};
use crate::decode::lines::{Frame, Lines, MAX_LINE, Skimmed};
use crate::decode::rpc::{Id, Message, Request, Response, parse_single};
use crate::flow::describe::{Story as _, partly};
use crate::forward::outlet::NotTaken;
use crate::forward::stream::Source;
use crate::identify::calls::InFlight;
use crate::identify::room::Taken;
use crate::refuse::{Asked as Waits, Refusal, Upstream, asked};

impl Session {
    /// Reads the host's frames to their end.
    pub(super) async fn up(&self, input: Source) {
        let mut lines = Lines::new(MAX_LINE);
        let mut room = self.talking.actor.known.room.none();
        loop {
            while let Some(frame) = lines.next() {
                self.heed_host(frame).await;
            }
            keep(&mut lines, &mut room);
            match input.read(lines.space()).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a host's side of a session failed");
                    break;
                }
            }
        }
        if lines.is_unfinished() {
            let why = "a last line without its end";
            self.refuse_frame(why, Refusal::ParseError, &Waits::Nothing)
                .await;
        }
    }

    async fn heed_host(&self, frame: Frame<'_>) {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::CarriageReturn => {
                let why = "a carriage return inside a line";
                return self
                    .refuse_frame(why, Refusal::ParseError, &Waits::Unreadable)
                    .await;
            }
            Frame::TooLong(skimmed) => {
                let why = "a message larger than the limit";
                return self
                    .unheard(&skimmed, why, Refusal::TooLarge, waits(&skimmed))
                    .await;
            }
            Frame::PassedOver(skimmed) => {
                let waits = waits(&skimmed);
                return self
                    .unheard(&skimmed, NO_ROOM, Refusal::HeldBytes, waits)
                    .await;
            }
        };
        let message = match parse_single(line, &FRAME) {
            Ok(message) => message,
            Err(fault) => {
                if let Some(record) = self.unread().await {
                    record.refuse_with(&fault);
                }
                return self
                    .tell_host(Refusal::from(&fault), &Waits::from(&fault))
                    .await;
            }
        };
        // The first for as long as the message is seen to.
        let Ok((_decoded, room)) = room_of(&self.talking.actor.known, &message, line.len()) else {
            let (skimmed, waits) = (Skimmed::of(&message), asked(&message));
            return self
                .unheard(&skimmed, NO_ROOM, Refusal::HeldBytes, waits)
                .await;
        };
        match message {
            Message::Response(response) => self.host_answers(response, line.len(), room).await,
            Message::Request(request) => self.host_asks(request, room).await,
            notification @ Message::Notification(_) => {
                self.host_tells(&notification, line.len(), room).await;
            }
        }
    }

    /// A message that goes no further: whoever waits for it, or for its answer, is told.
    async fn unheard(
        &self,
        skimmed: &Skimmed,
        why: &'static str,
        refusal: Refusal<'static>,
        waits: Waits,
    ) {
        if let Some(id) = skimmed.answered()
            && let For::Waiting(mut asked) = self.tables.answer(Of::Host, Some(id))
        {
            self.ledger.refused();
            self.tell_server(refusal, &asked.id);
            if let Some(mut record) = asked.record.take() {
                answer::tell(&mut record, ResponseKind::Result, None);
                record.refuse_with(why);
            }
            return;
        }
        self.refuse_frame(why, refusal, &waits).await;
    }

    /// An answer to what was cancelled, which goes to nobody. The specification lets it be: whoever asked has been told to
    /// forget it.
    pub(super) async fn late(&self, from: Side) {
        if !self.ledger.refused_told(from) {
            return;
        }
        if let Ok(mut record) = self.open().await {
            self.talking.tell_unread(&mut record, from);
            record.fail(&Over("an answer to a request that was cancelled"));
        }
    }

    /// Counts what the host sent and is refused unread; its record, if it has one.
    async fn unread(&self) -> Option<OpenRecord> {
        if !self.ledger.refused_unread() {
            return None;
        }
        let mut record = self.open().await.ok()?;
        self.talking.tell_unread(&mut record, Side::Client);
        Some(record)
    }

    async fn refuse_frame(&self, why: &'static str, refusal: Refusal<'_>, waits: &Waits) {
        if let Some(mut record) = self.unread().await {
            record.tell_inspected(partly(why), partly("not sent"));
            record.refuse_with(why);
        }
        self.tell_host(refusal, waits).await;
    }

    async fn host_asks(&self, request: Request, room: Option<Taken>) {
        let waits = Waits::Request(request.id.clone());
        let id = request.id.clone();
        let opening = self.under_way(Of::Server, &id, None);
        let opened = self.open().await;
        drop(opening.over());
        let Ok(mut record) = opened else {
            self.ledger.refused();
            return self.tell_host(Refusal::AuditUnavailable, &waits).await;
        };
        let mut message = Message::Request(request);
        self.ledger.request();
        self.ledger.learn(&message);
        record.record_mut().session = Some(self.ledger.section());
        if let Err((refusal, why)) = self.may_ask(&id) {
            self.ledger.refused();
            self.talking.tell_call(&mut record, Side::Client, &message);
            record.refuse_with(why);
            return self.tell_host(refusal, &waits).await;
        }
        let settled = self.talking.settle(&mut record, &mut message, None);
        if let Settled::Waits(ticket) = settled {
            let held = self.held.begin(id, message, record, *ticket);
            if let Err(back) = held {
                let (record, message) = *back;
                let refused = NotPassed::plain(Refusal::ApprovalsFull, "too many calls wait");
                self.refuse_call(record, refused, &message).await;
            }
            return;
        }
        self.settled(id, record, message, settled, room).await;
    }

    /// Carries out what was decided on a request.
    pub(super) async fn settled(
        &self,
        id: Id,
        mut record: OpenRecord,
        message: Message,
        settled: Settled,
        room: Option<Taken>,
    ) {
        let waits = Waits::Request(id.clone());
        let permit = match settled {
            Settled::Passes(permit) => permit,
            Settled::Answered(response, outcome) => {
                drop(record.close(outcome));
                self.no_longer_held(&id);
                return self.answer_host(&Message::Response(response), None).await;
            }
            Settled::Waits(_) => {
                let refused = NotPassed::plain(Refusal::NeedsApproval, "it waits already");
                return self.refuse_call(record, refused, &message).await;
            }
            Settled::Refused(refused) => {
                self.no_longer_held(&id);
                return self.refuse_call(record, refused, &message).await;
            }
        };
        let method = message.method().unwrap_or_default().to_owned();
        record.stage(Stage::Forward);
        let in_flight = self.talking.begin(&message, record.id());
        let under_way = self.under_way(Of::Server, &id, Some(record));
        let sent = self
            .send_on(under_way, &self.to_server, *permit, &message, room)
            .await;
        self.no_longer_held(&id);
        let record = match sent {
            Some((record, Ok(()))) => record,
            Some((record, Err(unsent))) => {
                let refusal = self.not_sent(record, in_flight, &unsent);
                return self.tell_host(refusal, &waits).await;
            }
            None => return,
        };
        // INVARIANT: nothing is waited for between the two, and the answer is read by this task: none comes before
        // it is known what it answers.
        self.tables.ask(
            Of::Server,
            Asked {
                id,
                method,
                era: era(&message),
                record: Some(record),
                since: Instant::now(),
                in_flight,
                alone: true,
            },
        );
    }

    /// Ends the record of a request that the other side has not heard; what whoever asked is told.
    pub(super) fn not_sent(
        &self,
        record: OpenRecord,
        in_flight: Option<InFlight>,
        unsent: &Unsent,
    ) -> Refusal<'static> {
        match unsent {
            Unsent::Unrecorded(unavailable) => {
                in_flight.into_iter().for_each(InFlight::unsent);
                self.ledger.refused();
                record.refuse_with(unavailable);
                Refusal::AuditUnavailable
            }
            Unsent::NotTaken(fault @ NotTaken::TooLong) => {
                in_flight.into_iter().for_each(InFlight::unsent);
                self.ledger.refused();
                record.refuse_with(fault);
                Refusal::TooLarge
            }
            Unsent::NotTaken(fault @ (NotTaken::Closed | NotTaken::Full)) => {
                self.ledger.failed();
                record.fail(fault);
                Refusal::Upstream(Upstream::Reset)
            }
        }
    }

    fn no_longer_held(&self, id: &Id) {
        if self.held.end(id).is_some() {
            self.settled.notify_waiters();
        }
    }

    /// Whether a request with this id can be taken at all.
    fn may_ask(&self, id: &Id) -> Result<(), (Refusal<'static>, &'static str)> {
        if self.talking.stages.stopping.is_cancelled() {
            return Err((Refusal::ShuttingDown, "the daemon stops"));
        }
        let free = if self.held.has(id) {
            Err(NotAsked::InUse)
        } else {
            self.tables.check(Of::Server, id)
        };
        free.map_err(|fault| match fault {
            NotAsked::InUse => (
                Refusal::InvalidRequest,
                "an id that is in use: the request with it was not answered yet",
            ),
            NotAsked::TooMany => (Refusal::LimitReached(None), "too many requests at once"),
        })
    }

    async fn refuse_call(&self, record: OpenRecord, refused: NotPassed, message: &Message) {
        self.ledger.refused();
        let told = refused.told.clone();
        refused.record(record);
        self.tell_host(told.refusal(), &asked(message)).await;
    }

    /// As with what the server tells: counted, and recorded in a way that no flood fills the log.
    async fn host_tells(&self, message: &Message, length: usize, room: Option<Taken>) {
        if self.is_unrecorded() {
            return;
        }
        let judged = self.talking.consider(Side::Client, message);
        let judged = judged.and_then(|permit| fits(message, length).map(|()| permit));
        if judged.is_ok() {
            self.ledger.learn(message);
        }
        if !self.count(Side::Client, message, &judged, None).await {
            return;
        }
        match judged {
            Ok(permit) => {
                if message.method() == Some("notifications/cancelled") && self.host_cancels(message)
                {
                    return;
                }
                if let Err(fault) = self.to_server.tell(permit, message, room).await {
                    tracing::debug!(%fault, "a notification was not taken");
                }
            }
            Err(refused) => {
                if !self.ledger.refused_told(Side::Client) {
                    return;
                }
                if let Ok(mut record) = self.open().await {
                    self.talking.tell_call(&mut record, Side::Client, message);
                    refused.record(record);
                }
            }
        }
    }

    /// The host does not wait for an answer any more, and the server need not give one. `true`: the server has never
    /// heard of the request.
    fn host_cancels(&self, message: &Message) -> bool {
        let id = message.params().and_then(|params| params.get("requestId"));
        let Some(id) = id.and_then(Id::read) else {
            return false;
        };
        if self.cancels_held(&id) {
            return true;
        }
        let Some(mut asked) = self.tables.cancel(Of::Server, &id) else {
            return false;
        };
        self.settled.notify_waiters();
        if let Some(record) = asked.record.take() {
            record.abandon(&Over("the client cancelled its request"));
        }
        false
    }

    /// The host answers what the server asked of it: decided again, as what was asked.
    async fn host_answers(&self, mut response: Response, length: usize, room: Option<Taken>) {
        let mut asked = match self.tables.answer(Of::Host, response.id.as_ref()) {
            For::Waiting(asked) => asked,
            For::Cancelled(_) => return self.late(Side::Client).await,
            For::Nobody => {
                if let Some(record) = self.unread().await {
                    answers_nothing().record(record);
                }
                return;
            }
        };
        response.id = Some(asked.id.clone());
        let Some(mut record) = asked.record.take() else {
            return;
        };
        answered(&mut record, &response);
        let upstream_us = u64::try_from(asked.since.elapsed().as_micros()).ok();
        let message = Message::Response(response);
        match self.talking.may_answer(&asked.method) {
            Ok(_) if outgrows(&message, length) => {
                record.refuse_with("the answer is larger than the limit");
                self.tell_server(Refusal::ResponseTooLarge, &asked.id);
            }
            Ok(permit) => {
                let under_way = self.under_way(Of::Host, &asked.id, Some(record));
                let sent = self
                    .send_on(under_way, &self.to_server, permit, &message, room)
                    .await;
                match sent {
                    Some((record, Ok(()))) => drop(record.close(Outcome {
                        upstream_us,
                        ..Outcome::done()
                    })),
                    Some((record, Err(Unsent::NotTaken(fault)))) => record.fail(&fault),
                    Some((record, Err(Unsent::Unrecorded(unavailable)))) => {
                        record.refuse_with(&unavailable);
                        self.tell_server(Refusal::AuditUnavailable, &asked.id);
                    }
                    None => {}
                }
            }
            Err(refused) => {
                self.ledger.refused();
                self.tell_server(refused.told.refusal(), &asked.id);
                refused.record(record);
            }
        }
    }
}

/// Who waits for an answer to a line that was too long to be read.
pub(super) fn waits(skimmed: &Skimmed) -> Waits {
    match skimmed {
        Skimmed {
            id: Some(id),
            calls: true,
            answers: false,
        } => Waits::Request(id.clone()),
        Skimmed { answers: true, .. } => Waits::Nothing,
        Skimmed { .. } => Waits::Unreadable,
    }
}
