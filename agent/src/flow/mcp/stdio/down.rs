//! From the server to the host. Whatever is not one message is never forwarded; a server that does not read
//! what it is answered is not waited for.

use tokio::time::Instant;

use super::super::answer;
use super::super::judge::Talking;
use super::asked::{Asked, For, NotAsked, Of};
use super::{FRAME, NO_ROOM, Over, Session, answered, fits, keep, outgrows, room_of};
use crate::audit::Outcome;
use crate::audit::record::{ResponseKind, Side, Stage};
use crate::decode::lines::{Frame, Lines, MAX_LINE, Skimmed};
use crate::decode::mcp::Era;
use crate::decode::rpc::{Id, Message, Request, Response, parse_single};
use crate::flow::describe::{Story as _, Why};
use crate::forward::stream::Source;
use crate::identify::room::Taken;
use crate::refuse::{Asked as Waits, Refusal, error};

impl Session {
    /// Reads the server's frames to their end.
    pub(super) async fn down(&self, output: Source) {
        let mut lines = Lines::new(MAX_LINE);
        let mut room = self.own.room.none();
        loop {
            while let Some(frame) = lines.next() {
                self.heed_server(frame).await;
            }
            keep(&mut lines, &mut room);
            match output.read(lines.space()).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a server's side of a session failed");
                    break;
                }
            }
        }
        if lines.is_unfinished() {
            self.violation("a last line without its end").await;
        }
    }

    async fn violation(&self, what: impl Why) {
        self.ledger.violation(&self.talking.stages, what).await;
    }

    async fn heed_server(&self, frame: Frame<'_>) {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::CarriageReturn => {
                return self.violation("a carriage return inside a line").await;
            }
            Frame::TooLong(skimmed) => {
                self.spoke().await;
                return self.too_long(skimmed).await;
            }
            Frame::PassedOver(skimmed) => {
                self.spoke().await;
                return self.not_held(skimmed).await;
            }
        };
        let message = match parse_single(line, &FRAME) {
            Ok(message) => message,
            Err(fault) => return self.violation(&fault).await,
        };
        self.spoke().await;
        // The first for as long as the message is seen to.
        let Ok((_decoded, room)) = room_of(&self.own, &message, line.len()) else {
            return self.not_held(Skimmed::of(&message)).await;
        };
        match message {
            Message::Response(response) => self.server_answers(response, line.len(), room).await,
            Message::Request(request) => self.server_asks(request, room).await,
            notification @ Message::Notification(_) => {
                self.server_tells(&notification, line.len(), room).await;
            }
        }
    }

    /// An answer that nobody can take ends the wait for it.
    async fn too_long(&self, skimmed: Skimmed) {
        self.violation("a line longer than the limit").await;
        let Skimmed {
            id: Some(id),
            calls: false,
            answers: true,
        } = skimmed
        else {
            return;
        };
        let why = "the answer is larger than the limit";
        self.withhold(&id, why, Refusal::ResponseTooLarge).await;
    }

    /// There is no room for what the server says: whoever waits is told, and nobody else hears of it.
    async fn not_held(&self, skimmed: Skimmed) {
        let Skimmed { id, calls, answers } = skimmed;
        if let Some(id) = id {
            if answers && !calls && self.withhold(&id, NO_ROOM, Refusal::HeldBytes).await {
                return;
            }
            if calls && !answers {
                self.tell_server(Refusal::HeldBytes, &id);
            }
        }
        if !self.ledger.refused_told(Side::Server) {
            return;
        }
        if let Ok(mut record) = self.open().await {
            self.talking.tell_unread(&mut record, Side::Server);
            record.refuse_with(NO_ROOM);
        }
    }

    /// An answer that is not delivered ends the wait for it. Whether anybody has waited.
    async fn withhold(&self, id: &Id, why: &'static str, refusal: Refusal<'static>) -> bool {
        let _answering = self.answering();
        let mut asked = match self.tables.answer(Of::Server, Some(id)) {
            For::Waiting(asked) => asked,
            For::Cancelled(_) => {
                self.late(Side::Server).await;
                return true;
            }
            For::Nobody => return false,
        };
        if let Some(mut record) = asked.record.take() {
            answer::tell(&mut record, ResponseKind::Result, None);
            // A host that does not read its answers takes the room of its server.
            if refusal == Refusal::HeldBytes {
                record.forgive();
            }
            record.refuse_with(why);
        }
        let waits = Waits::Request(asked.id);
        self.tell_host(refusal, &waits).await;
        true
    }

    async fn server_answers(&self, mut response: Response, length: usize, room: Option<Taken>) {
        let _answering = self.answering();
        let mut asked = match self.tables.answer(Of::Server, response.id.as_ref()) {
            For::Waiting(asked) => asked,
            For::Cancelled(record) => {
                if let Some(record) = record {
                    let Talking {
                        stages, account, ..
                    } = &self.talking;
                    stages
                        .calls
                        .answered(&account.callee, record, answer::leaves(&response));
                }
                return self.late(Side::Server).await;
            }
            For::Nobody => return self.violation("an answer to nothing").await,
        };
        response.id = Some(asked.id.clone());
        let Some(mut record) = asked.record.take() else {
            return;
        };
        let (method, era) = (Some(asked.method.as_str()), asked.era);
        let judged = answer::judge(&self.talking, &mut record, method, era, &mut response);
        answered(&mut record, &response);
        // What was asked before under the same id may be what is answered: it is not told which of them has ended.
        answer::over(asked.in_flight.take().filter(|_| asked.alone), &response);
        let upstream_us = u64::try_from(asked.since.elapsed().as_micros()).ok();
        if asked.method == "initialize" {
            self.ledger.learn_agreed(&response);
        }
        let message = Message::Response(response);
        let judged = judged.and_then(|()| {
            if outgrows(&message, length) {
                return Err(Refusal::ResponseTooLarge.into());
            }
            Ok(())
        });
        let instead = match judged {
            Ok(()) => {
                drop(record.close(Outcome {
                    upstream_us,
                    ..Outcome::done()
                }));
                None
            }
            Err(refused) => {
                self.ledger.refused();
                record.refuse_with(refused.why);
                error(refused.told, &Waits::Request(asked.id))
            }
        };
        self.answer_host(instead.as_ref().unwrap_or(&message), room)
            .await;
    }

    async fn server_asks(&self, request: Request, room: Option<Taken>) {
        let id = request.id.clone();
        let method = request.method.clone();
        let message = Message::Request(request);
        let Ok(mut record) = self.open().await else {
            self.ledger.refused();
            return self.tell_server(Refusal::AuditUnavailable, &id);
        };
        if let Err(fault) = self.tables.check(Of::Host, &id) {
            self.ledger.refused();
            let (refusal, why) = match fault {
                NotAsked::InUse => (
                    Refusal::InvalidRequest,
                    "an id that is in use: the request with it was not answered yet",
                ),
                NotAsked::TooMany => (Refusal::LimitReached(None), "too many requests at once"),
            };
            self.talking.tell_call(&mut record, Side::Server, &message);
            record.refuse_with(why);
            return self.tell_server(refusal, &id);
        }
        let permit = match self.talking.judge_call(&mut record, Side::Server, &message) {
            Ok(permit) => permit,
            Err(refused) => {
                self.ledger.refused();
                self.tell_server(refused.told.refusal(), &id);
                return refused.record(record);
            }
        };
        record.stage(Stage::Forward);
        let under_way = self.under_way(Of::Host, &id, Some(record));
        let sent = self
            .send_on(under_way, &self.to_host, permit, &message, room)
            .await;
        let record = match sent {
            Some((record, Ok(()))) => record,
            Some((record, Err(unsent))) => {
                let refusal = self.not_sent(record, None, &unsent);
                return self.tell_server(refusal, &id);
            }
            None => return,
        };
        // As with what the host asks: nothing is waited for before it is known what will be answered.
        self.tables.ask(
            Of::Host,
            Asked {
                id,
                method,
                era: Era::Legacy,
                record: Some(record),
                since: Instant::now(),
                in_flight: None,
                alone: true,
            },
        );
    }

    /// Notifications are counted, and recorded in a way that no flood fills the log.
    async fn server_tells(&self, message: &Message, length: usize, room: Option<Taken>) {
        if self.is_unrecorded() {
            return;
        }
        let (judged, observed) = self
            .talking
            .consider_told(message, Some(self.ledger.section()));
        let judged = judged.and_then(|permit| fits(message, length).map(|()| permit));
        let observed = observed.as_ref();
        if !self.count(Side::Server, message, &judged, observed).await {
            return;
        }
        let refused = match judged {
            Ok(permit) => {
                if message.method() == Some("notifications/cancelled") {
                    self.server_cancels(message);
                }
                if let Err(fault) = self.to_host.tell(permit, message, room).await {
                    tracing::debug!(%fault, "a notification was not taken");
                }
                return;
            }
            Err(refused) => refused,
        };
        if !self.ledger.refused_told(Side::Server) {
            return;
        }
        if let Ok(mut record) = self.open().await {
            self.talking.tell_call(&mut record, Side::Server, message);
            refused.record(record);
        }
    }

    /// The server does not wait for an answer any more.
    fn server_cancels(&self, message: &Message) {
        let id = message.params().and_then(|params| params.get("requestId"));
        if let Some(mut asked) = id
            .and_then(Id::read)
            .and_then(|id| self.tables.cancel(Of::Host, &id))
            && let Some(record) = asked.record.take()
        {
            record.fail(&Over("the server cancelled its request"));
        }
    }
}
