//! An event stream of an MCP server: every event read, judged and framed anew, without delay.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::Uri;
use hyper::body::{Body as HttpBody, Frame};
use tokio_util::sync::CancellationToken;

use super::super::describe::{Story as _, read, unread};
use super::answer;
use super::bounded::{NO_ROOM, Unacceptable};
use super::judge::Talking;
use super::observed::{From, Listening, Waiting};
use super::refusing::Refuser;
use super::until::{Over, Until};
use crate::audit::record::{Cause, Kind, Mcp, ResponseKind, Side, Stage};
use crate::audit::{AuditUnavailable, OpenRecord, Outcome, Start, Text};
use crate::decode::json::Limits as JsonLimits;
use crate::decode::mcp::Era;
use crate::decode::rpc::{Id, Message, Request, Response, parse_single};
use crate::decode::sse::{Event, Item, Limits, Parser};
use crate::forward::body::{BodyFault, HttpFault, Received};
use crate::identify::calls::{Answered, InFlight};
use crate::identify::peer::Peer;
use crate::identify::room::Taken;
use crate::refuse::{Asked, Refusal, error};

/// The request whose answer a stream carries, with its record.
pub(super) struct Answering {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) era: Era,
    pub(super) record: OpenRecord,
    pub(super) upstream_us: u64,
    /// Ends with the answer.
    pub(super) in_flight: Option<InFlight>,
}

/// What a stream is.
pub(super) enum Purpose {
    /// It answers requests (one, or those of a batch).
    Answers(Vec<Answering>),
    /// It carries what the server has to say (GET); the record is the stream's own.
    Listens(
        Box<OpenRecord>,
        #[expect(dead_code, reason = "held for as long as the stream")] Listening,
    ),
}

/// Where a stream comes from, for what must be sent back.
pub(super) struct Source {
    pub(super) talking: Talking,
    pub(super) peer: Peer,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) refuser: Refuser,
}

/// Of what a stream holds, in bytes, what is counted: a full room cuts no stream of small events.
const fn counted(held: usize) -> usize {
    if held > TOGETHER { held } else { 0 }
}

/// How much is gathered of what came together before it is sent on, in bytes: one TLS record's worth.
const TOGETHER: usize = 16 * 1024;

/// The stream as it is sent to the client.
pub(super) struct Events {
    inner: Received,
    parser: Parser,
    /// The room of what the parser keeps and of what is to be sent next.
    taken: Taken,
    source: Source,
    purpose: Purpose,
    cut: CancellationToken,
    /// What ends it before its time.
    until: Until,
    over: Pin<Box<dyn Future<Output = Told> + Send>>,
    ended: bool,
    /// What is to be sent next.
    out: String,
    /// Whether the connection that brings the events was given a turn since the last one came.
    waited: bool,
    /// What the client's connection is told after everything that came before it.
    failed: Option<BodyFault>,
    /// What waits for its records to be as safe as is promised.
    held: Option<(Bytes, Released)>,
}

/// Why a stream ends, for the records, and what whoever waits is told.
type Told = (&'static str, Refusal<'static>);

type Released = Pin<Box<dyn Future<Output = Result<(), AuditUnavailable>> + Send>>;

/// Why a stream ends whose records cannot be written.
const UNRECORDED: &str = "what could not be recorded";

/// What ends a stream before its time: what its request is subject to, or a policy that would not let it begin.
async fn over(until: Until, talking: Talking) -> Told {
    tokio::select! {
        biased;
        over = until.over() => told(over),
        () = talking.unreachable() => ("the policy does not allow it any more", Refusal::Denied),
    }
}

fn told(over: Over) -> Told {
    (over.why(), over.refusal())
}

impl Events {
    pub(super) fn new(
        inner: Received,
        source: Source,
        purpose: Purpose,
        cut: CancellationToken,
        until: Until,
        talking: Talking,
    ) -> Self {
        let parser = Parser::new(Limits::default());
        let taken = talking.actor.known.room.none();
        Self {
            inner,
            parser,
            taken,
            source,
            purpose,
            cut,
            over: Box::pin(over(until.clone(), talking)),
            until,
            ended: false,
            out: String::new(),
            waited: false,
            failed: None,
            held: None,
        }
    }

    /// Puts a message before everything that the server says.
    pub(super) fn say_first(&mut self, message: Option<Message>) {
        if let Some(message) = message {
            Event::message(message.encode()).write(&mut self.out);
        }
    }

    /// Reads on; a fault ends the stream, after what came before it.
    fn read(&mut self, bytes: &[u8]) {
        let mut out = std::mem::take(&mut self.out);
        // Before it is read: what is read is recorded as delivered.
        let unread = self.parser.held().saturating_add(bytes.len());
        let over = match self.taken.resize(counted(out.len().saturating_add(unread))) {
            Ok(()) => {
                let read = self.read_events(bytes, &mut out);
                read.err().map(|why| (why, Refusal::ResponseRefused))
            }
            Err(_none_left) => Some((NO_ROOM, Refusal::HeldBytes)),
        };
        // What is longer for being written anew is not counted.
        self.taken
            .shrink(counted(self.parser.held().saturating_add(out.len())));
        if let Some((why, told)) = over {
            self.stop(why, told, &mut out);
        }
        self.out = out;
    }

    /// What is sent next: with the room that it takes, where that is more than any stream is given.
    fn leaving(&mut self) -> Bytes {
        let out = std::mem::take(&mut self.out);
        let held = self.parser.held();
        if out.len() <= TOGETHER {
            self.taken.shrink(counted(held));
            return Bytes::from(out);
        }
        let kept = self.taken.split(held);
        std::mem::replace(&mut self.taken, kept).around(out)
    }

    /// What the upstream's connection gave out.
    fn take(&mut self, came: Option<Result<Frame<Bytes>, HttpFault>>) {
        self.waited = false;
        match came {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.read(data.chunk());
                }
            }
            Some(Err(error)) => self.fail(error),
            None => self.end(),
        }
    }

    fn read_events(&mut self, bytes: &[u8], out: &mut String) -> Result<(), &'static str> {
        let mut items = Vec::new();
        let parsed = self.parser.push(bytes, &mut items);
        for item in items {
            match item {
                Item::KeepAlive => Item::KeepAlive.write(out),
                Item::Event(event) => self.event(event, out)?,
            }
        }
        parsed.map_err(|fault| {
            tracing::debug!(%fault, "an event stream was cut");
            "an event stream that cannot be read"
        })
    }

    /// What ends the stream now, if it has not ended.
    fn over(&mut self, cx: &mut Context<'_>) -> Option<Told> {
        if self.ended {
            return None;
        }
        if let Some(over) = self.until.is_over() {
            return Some(told(over));
        }
        match self.over.as_mut().poll(cx) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        }
    }

    /// Ends the stream for what must not go on: whoever waits is told, and the records say why.
    fn stop(&mut self, why: &'static str, told: Refusal<'_>, out: &mut String) {
        self.ended = true;
        match self.take_purpose() {
            Purpose::Answers(waiting) => {
                for mut answering in waiting {
                    // The caller's doing, not the server's.
                    if told == Refusal::HeldBytes {
                        answering.record.forgive();
                    }
                    let told = error(told, &Asked::Request(answering.id));
                    if let Some(told) = told {
                        Event::message(told.encode()).write(out);
                    }
                    answering.record.refuse_with(why);
                }
            }
            Purpose::Listens(record, _) => record.refuse_with(why),
        }
    }

    /// The upstream failed in the middle of the stream.
    fn fail(&mut self, error: HttpFault) {
        self.ended = true;
        match self.take_purpose() {
            Purpose::Answers(waiting) => {
                for answering in waiting {
                    answering.record.fail(&error);
                }
            }
            Purpose::Listens(record, _) => record.fail(&error),
        }
        self.failed = Some(BodyFault::Read(error));
    }

    /// Nothing is passed on that could not be recorded; with each record synced, it is on the disk before.
    fn release(&mut self, out: Bytes) -> Result<Option<Bytes>, BodyFault> {
        let log = &self.source.talking.stages.log;
        if log.syncs_each() {
            let log = log.clone();
            self.held = Some((out, Box::pin(async move { log.release().await })));
            return Ok(None);
        }
        let writable = log.writable();
        writable.map_err(|_unavailable| BodyFault::Stopped(UNRECORDED))?;
        Ok(Some(out))
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        let Some((_, released)) = &mut self.held else {
            return Poll::Ready(None);
        };
        let released = std::task::ready!(released.as_mut().poll(cx));
        let out = self.held.take().map(|(out, _)| out);
        Poll::Ready(out.map(|out| match released {
            Ok(()) => Ok(out),
            Err(_unavailable) => Err(BodyFault::Stopped(UNRECORDED)),
        }))
    }

    fn take_purpose(&mut self) -> Purpose {
        std::mem::replace(&mut self.purpose, Purpose::Answers(Vec::new()))
    }

    fn event(&mut self, event: Event, out: &mut String) -> Result<(), &'static str> {
        if event.name() == Some("endpoint") {
            self.endpoint(event.data().unwrap_or_default())?;
            event.write(out);
            return Ok(());
        }
        if !event.is_message() {
            // Without data, or of a type that clients ignore; data of such a type is not sent on.
            if event.data().is_none_or(str::is_empty) {
                event.write(out);
            }
            return Ok(());
        }
        let data = event.data().unwrap_or_default();
        let message = parse_single(data.as_bytes(), &JsonLimits::RESPONSE)
            .map_err(|_fault| "an event that is not an acceptable message")?;
        if let Some(message) = self.message(message)? {
            event.with_data(message.encode()).write(out);
        }
        Ok(())
    }

    /// What of `message` reaches the client; nothing if it is refused and only the server has to be told.
    fn message(&mut self, message: Message) -> Result<Option<Message>, &'static str> {
        match message {
            Message::Response(response) => self.answer(response),
            Message::Request(_) | Message::Notification(_) => self.ask_client(message),
        }
    }

    /// An answer: to a request of this exchange, or, on a stream of its own or one taken up again, to another's.
    fn answer(&mut self, mut response: Response) -> Result<Option<Message>, &'static str> {
        let answering = self.take_answering(response.id.as_ref());
        let talking = &self.source.talking;
        let waiting = response.id.as_ref().and_then(|id| {
            let observed = &talking.stages.observed;
            observed.answered(&talking.talk, From::Client, id)
        });
        let refused = match answering {
            Some(mut answering) => {
                // Whatever the server made of it: not every client takes one for the other.
                response.id = Some(answering.id.clone());
                let Answering {
                    record,
                    method,
                    era,
                    ..
                } = &mut answering;
                let judged = answer::judge(talking, record, Some(method), *era, &mut response);
                let refused = judged.err();
                close(answering, refused, &response);
                refused
            }
            None => self.answer_elsewhere(waiting, &mut response)?,
        };
        Ok(match (refused, response.id.clone()) {
            (None, _) => Some(Message::Response(response)),
            (Some(refused), Some(id)) => error(refused.told, &Asked::Request(id)),
            (Some(_), None) => None,
        })
    }

    /// Judges an answer on another stream than its request's, whose record has ended: it has one of its own.
    fn answer_elsewhere(
        &self,
        waiting: Option<Waiting>,
        response: &mut Response,
    ) -> Result<Option<Unacceptable>, &'static str> {
        let mut record = self.open()?;
        let talking = &self.source.talking;
        if let Some(waiting) = waiting.as_ref().filter(|waiting| waiting.alone) {
            let calls = &talking.stages.calls;
            calls.answered(
                &talking.account.callee,
                waiting.record,
                answer::leaves(response),
            );
        }
        let method = waiting.as_ref().map(|waiting| waiting.method.as_str());
        talking.tell_answer(&mut record, method.unwrap_or(""), response.id.as_ref());
        record.record_mut().cause = waiting.as_ref().map(|waiting| Cause::Id(waiting.record));
        record.stage(Stage::Forward);
        let judged = answer::judge(talking, &mut record, method, Era::Legacy, response);
        answer::tell(&mut record, ResponseKind::Stream, Some(response));
        let request =
            waiting.map_or_else(|| unread("it answers no request that is known"), |_| read());
        record.tell_inspected(request, read());
        let refused = judged.err();
        match refused {
            Some(refused) => record.refuse_with(refused.why),
            // In the writer's queue before it is passed on.
            None => drop(record.close(Outcome::done())),
        }
        Ok(refused)
    }

    /// The record of what the server says. A stream must not wait inside a poll; without a place for the record
    /// nothing passes, and nothing can be said to the server either: the stream ends, so that neither side waits
    /// for the other.
    fn open(&self) -> Result<OpenRecord, &'static str> {
        let Talking { stages, actor, .. } = &self.source.talking;
        let start = Start {
            workload: Some(actor.process.clone()),
            identity: Some(actor.identity.clone()),
            ..Start::default()
        };
        let opened = stages.log.try_open(Kind::Mcp, start);
        opened.map_err(|_unavailable| UNRECORDED)
    }

    fn take_answering(&mut self, id: Option<&Id>) -> Option<Answering> {
        let (Purpose::Answers(waiting), Some(id)) = (&mut self.purpose, id) else {
            return None;
        };
        let index = waiting
            .iter()
            .position(|answering| answering.id.same_slot(id))?;
        Some(waiting.swap_remove(index))
    }

    /// A request or notification of the server. An ordinary notification belongs to the exchange on whose stream
    /// it comes; everything else is an exchange of its own.
    fn ask_client(&mut self, message: Message) -> Result<Option<Message>, &'static str> {
        let talking = &self.source.talking;
        let (judged, observed) = talking.consider_told(&message, None);
        if let (Message::Notification(notification), Ok(permit)) = (&message, &judged)
            && permit.is_plain()
            && observed.is_none()
            && self.counted(&notification.method)
        {
            return Ok(Some(message));
        }
        let mut record = self.open()?;
        let talking = &self.source.talking;
        talking.tell_considered(&mut record, Side::Server, &message, &judged);
        if let Some(observed) = observed {
            observed.tell(&mut record);
        }
        match judged {
            Ok(permit) => {
                if let Message::Request(Request { id, method, .. }) = &message {
                    let observed = &talking.stages.observed;
                    observed.wait(&talking.talk, From::Server, id, method, record.id());
                }
                drop(permit);
                // In the writer's queue before it is passed on.
                drop(record.close(Outcome::done()));
                Ok(Some(message))
            }
            Err(not_passed) => {
                self.source.refuser.tell(&message, not_passed, record);
                Ok(None)
            }
        }
    }

    /// Counts a notification that passes in the record of this stream's exchange, if there is one that has room.
    fn counted(&mut self, method: &str) -> bool {
        let Talking { stages, talk, .. } = &self.source.talking;
        // While nothing can be recorded, nothing passes.
        if stages.log.available().is_err() {
            return false;
        }
        let record = match &mut self.purpose {
            Purpose::Answers(waiting) => waiting.first_mut().map(|one| &mut one.record),
            Purpose::Listens(record, _) => Some(&mut **record),
        };
        record.is_some_and(|record| {
            let mut record = record.record_mut();
            let mcp = record.mcp.get_or_insert_with(|| Mcp {
                server: Some(Text::new(&talk.server)),
                ..Mcp::default()
            });
            mcp.notified(method)
        })
    }

    /// 2024-11-05: where messages are to be posted. Only the same origin is taken, as the SDKs do.
    fn endpoint(&self, data: &str) -> Result<(), &'static str> {
        const FOREIGN: &str = "an endpoint of another origin";
        let Source {
            talking,
            peer,
            port,
            path,
            ..
        } = &self.source;
        let uri: Uri = data
            .trim()
            .parse()
            .map_err(|_bad| "an endpoint that is not a URI")?;
        if let Some(authority) = uri.authority() {
            let (said, said_port) = Peer::parse(authority.as_str()).map_err(|_bad| FOREIGN)?;
            let default = if uri.scheme_str() == Some("https") {
                443
            } else {
                80
            };
            if said != *peer || said_port.unwrap_or(default) != *port {
                return Err(FOREIGN);
            }
        }
        let announced = exeat_policy::normalise_path(uri.path())
            .map_err(|_fault| "an endpoint with a path that has several readings")?;
        if talking.belongs_to_another(&announced, peer, *port) {
            return Err("an endpoint that is another registered server's");
        }
        let observed = &talking.stages.observed;
        observed.announce(talking.talk.workload, peer, *port, uri.path(), path);
        Ok(())
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        match self.take_purpose() {
            // A stream may end before its answer and be taken up elsewhere (2025-11-25, polling).
            Purpose::Answers(waiting) => {
                for mut answering in waiting {
                    if let Some(in_flight) = answering.in_flight.take() {
                        in_flight.answered(Answered::Elsewhere);
                    }
                    answer::tell(&mut answering.record, ResponseKind::None, None);
                    drop(answering.record.close(Outcome::done()));
                }
            }
            Purpose::Listens(record, _) => drop(record.close(Outcome::done())),
        }
    }
}

/// Closes the record of an answered request before its answer leaves.
fn close(mut answering: Answering, refused: Option<Unacceptable>, response: &Response) {
    answering.record.stage(Stage::Forward);
    answer::tell(&mut answering.record, ResponseKind::Stream, Some(response));
    answer::over(answering.in_flight.take(), response);
    if let Some(refused) = refused {
        return answering.record.refuse_with(refused.why);
    }
    let upstream_us = Some(answering.upstream_us);
    drop(answering.record.close(Outcome {
        upstream_us,
        ..Outcome::done()
    }));
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        if this.cut.is_cancelled() {
            return Poll::Ready(Some(Err(BodyFault::Stopped("the policy changed"))));
        }
        loop {
            if let Some(held) = std::task::ready!(this.poll_held(cx)) {
                return Poll::Ready(Some(held.map(Frame::data)));
            }
            if let Some((why, told)) = this.over(cx) {
                let mut out = std::mem::take(&mut this.out);
                this.stop(why, told, &mut out);
                this.out = out;
            }
            if !this.ended && this.out.len() < TOGETHER {
                match Pin::new(&mut this.inner).poll_frame(cx) {
                    Poll::Ready(came) => {
                        this.take(came);
                        continue;
                    }
                    Poll::Pending if this.out.is_empty() => return Poll::Pending,
                    // The upstream's connection gives out one chunk at a time: it gets one turn to say whether
                    // more came together with this. No event waits for one that has not come.
                    Poll::Pending if !this.waited => {
                        this.waited = true;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Pending => {}
                }
            }
            if this.out.is_empty() {
                return Poll::Ready(this.failed.take().map(Err));
            }
            let out = this.leaving();
            if let Some(out) = this.release(out).transpose() {
                return Poll::Ready(Some(out.map(Frame::data)));
            }
        }
    }
}
