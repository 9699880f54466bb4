//! Over HTTP, a call that waits for a person: its answer begins at once, as a stream of events that is kept alive, and
//! ends with what is answered then.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::time::Interval;

use super::approving::{alive, progress};
use super::effects::Settled;
use super::judge::NotPassed;
use super::until::Over;
use super::{Encoded, Exchanging, Passed, Place, answered};
use crate::audit::OpenRecord;
use crate::channel::Approval;
use crate::decide::approvals::Ticket;
use crate::decode::json::Limits;
use crate::decode::rpc::{self, Incoming as Messages, Message};
use crate::decode::sse::{Event, Item};
use crate::flow::describe::Story as _;
use crate::flow::exchange::{Answer, json};
use crate::forward::body::BodyFault;
use crate::forward::upstream::Body;
use crate::identify::room::Taken;
use crate::refuse::{Asked, Refusal, asked, error};

/// A call in a message of its own, on its way.
pub(super) struct Call {
    pub(super) record: OpenRecord,
    pub(super) parts: Parts,
    pub(super) message: Message,
    /// The room of the message.
    pub(super) room: Taken,
    /// The room of what is sent of it.
    pub(super) body_room: Taken,
}

/// Answers, and records, what is not sent on.
pub(super) fn unsent(mut record: OpenRecord, message: &Message, settled: Settled) -> Answer {
    let not_passed = match settled {
        Settled::Answered(response, outcome) => {
            record.tell_status(StatusCode::OK);
            drop(record.close(outcome));
            return json(StatusCode::OK, Message::Response(response).encode());
        }
        Settled::Passes(_) | Settled::Waits(_) => {
            NotPassed::plain(Refusal::NeedsApproval, "it was not sent on")
        }
        Settled::Refused(not_passed) => not_passed,
    };
    let told = not_passed.told.clone();
    not_passed.record(record);
    answered(told.refusal(), &asked(message))
}

impl Exchanging<'_> {
    /// Has a call wait for a person: with a stream of events where the client takes one, else silently.
    pub(super) async fn waits(&self, call: Call, ticket: Ticket) -> Answer {
        if !takes_events(&call.parts.headers) {
            let over = AtomicBool::new(false);
            return Box::pin(self.decided(call, ticket, &over)).await;
        }
        let Place {
            connection,
            peer,
            server,
        } = self.place;
        let (connection, peer, server) = (Arc::clone(connection), peer.clone(), Arc::clone(server));
        let (talking, until) = (self.talking.clone(), self.until.clone());
        let over = Arc::new(AtomicBool::new(false));
        let waits = asked(&call.message);
        let approval = ticket.approval().clone();
        let mut vigil = Vigil::new(&call.message, approval, Arc::clone(&over));
        vigil.waiting = Some(Box::pin(async move {
            let place = Place {
                connection: &connection,
                peer: &peer,
                server: &server,
            };
            let this = Exchanging {
                place,
                talking,
                until,
            };
            let answer = Box::pin(this.decided(call, ticket, &over)).await;
            // Nothing is answered as done that could not be recorded.
            match this.talking.stages.log.release().await {
                Ok(()) => answer,
                Err(_) => answered(Refusal::AuditUnavailable, &waits),
            }
        }));
        let mut answer = Response::new(vigil.boxed_unsync());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer
    }

    /// Waits, and carries out what is decided; `over` is set when the wait is.
    async fn decided(&self, mut call: Call, mut ticket: Ticket, over: &AtomicBool) -> Answer {
        let cut = self.place.connection.arrived.registered.cut();
        let ended = |refusal, why| Settled::Refused(NotPassed::plain(refusal, why));
        let settled = tokio::select! {
            biased;
            over = self.until.clone().over() => ended(over.refusal(), match over {
                Over::Severed => "the server was disconnected",
                Over::Expired => "its token expired while it waited for an approval",
                Over::Uncertified => "its certificate ceased to count while it waited for an approval",
            }),
            () = cut.cancelled() => ended(Refusal::Denied, "the policy does not allow it any more"),
            word = ticket.wait() => {
                over.store(true, Ordering::Relaxed);
                let heard = self.talking.heard(&mut call.record, &call.message, ticket, word);
                heard.await
            }
        };
        over.store(true, Ordering::Relaxed);
        let Call {
            record,
            parts,
            message,
            room,
            body_room,
        } = call;
        let permit = match settled {
            Settled::Passes(permit) => permit,
            settled => return unsent(record, &message, settled),
        };
        let body = Encoded {
            text: message.encode(),
            room: body_room,
        };
        let passed = Passed {
            permit: *permit,
            message,
            room,
            record,
        };
        self.send(parts, body, vec![passed], Vec::new()).await
    }
}

/// Whether a client takes a stream of events for an answer (2025-03-26 Streamable HTTP, "Sending Messages to the
/// Server"); those of HTTP with SSE do not.
fn takes_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accepted| {
        let accepted = accepted.as_bytes().to_ascii_lowercase();
        let kind = b"text/event-stream";
        accepted.windows(kind.len()).any(|part| part == kind)
    })
}

/// The stream.
struct Vigil {
    waiting: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    then: Then,
    tick: Interval,
    /// Whether it is decided, and only the answer is waited for.
    over: Arc<AtomicBool>,
    call: Message,
    approval: Approval,
    count: i64,
}

/// What follows the wait.
enum Then {
    /// A stream of events of its own.
    Events(Body),
    /// One message, to be gathered.
    Message(Pin<Box<dyn Future<Output = Said> + Send>>),
    Said(Said),
}

/// Parts of an event.
type Said = VecDeque<Bytes>;

impl Vigil {
    fn new(call: &Message, approval: Approval, over: Arc<AtomicBool>) -> Self {
        Self {
            waiting: None,
            then: Then::Said(Said::new()),
            tick: alive(),
            over,
            call: call.clone(),
            approval,
            count: 0,
        }
    }

    /// A sign of life.
    fn alive(&mut self) -> String {
        self.count = self.count.saturating_add(1);
        let mut out = String::new();
        let told = (!self.over.load(Ordering::Relaxed))
            .then(|| progress(&self.call, &self.approval, self.count))
            .flatten();
        match told {
            Some(told) => Event::message(told.encode()).write(&mut out),
            None => Item::KeepAlive.write(&mut out),
        }
        out
    }

    fn then(&self, answer: Answer) -> Then {
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
        if answer.status().is_success() && kind.starts_with(b"text/event-stream") {
            return Then::Events(answer.into_body());
        }
        let waits = asked(&self.call);
        Then::Message(Box::pin(message(answer.into_body(), waits)))
    }
}

/// The one message of an answer, as an event. What is no message cannot stand in a stream of them.
async fn message(body: Body, waits: Asked) -> Said {
    if let Ok(answer) = body.collect().await {
        let bytes = answer.to_bytes();
        let read = rpc::parse(&bytes, &Limits::RESPONSE);
        // As it was judged and written: in its own bytes, and so in the room that it has.
        if let Ok(Messages::Single(Message::Response(_))) = read
            && let Some(event) = Event::around(bytes)
        {
            return event.into();
        }
    }
    let refused = error(Refusal::ResponseRefused, &waits).map(|told| {
        let mut out = String::new();
        Event::message(told.encode()).write(&mut out);
        Bytes::from(out)
    });
    refused.into_iter().collect()
}

impl HttpBody for Vigil {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        if let Some(waiting) = &mut this.waiting
            && let Poll::Ready(answer) = waiting.as_mut().poll(cx)
        {
            this.waiting = None;
            this.then = this.then(answer);
        }
        let out = if this.waiting.is_some() {
            std::task::ready!(this.tick.poll_tick(cx));
            this.alive()
        } else {
            match &mut this.then {
                Then::Events(events) => return Pin::new(events).poll_frame(cx),
                Then::Message(message) => {
                    let mut said = std::task::ready!(message.as_mut().poll(cx));
                    let first = said.pop_front();
                    this.then = Then::Said(said);
                    return Poll::Ready(first.map(|part| Ok(Frame::data(part))));
                }
                Then::Said(said) => {
                    let next = said.pop_front();
                    return Poll::Ready(next.map(|part| Ok(Frame::data(part))));
                }
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::interval;

    use super::*;
    use crate::identify::room::{Left, Room};

    /// A stream over a call with these parameters, and what answers the call.
    fn vigil(params: &str) -> (Vigil, oneshot::Sender<Answer>, Arc<AtomicBool>) {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"pay"{params}}}}}"#
        );
        let Ok(Messages::Single(call)) = rpc::parse(call.as_bytes(), &Limits::REQUEST) else {
            panic!("it is a call")
        };
        let over = Arc::new(AtomicBool::new(false));
        let approval = Approval::for_tests("0123456789ab");
        let mut vigil = Vigil::new(&call, approval, Arc::clone(&over));
        let (answers, answer) = oneshot::channel();
        vigil.waiting = Some(Box::pin(async { answer.await.unwrap() }));
        (vigil, answers, over)
    }

    /// What the client reads next; empty at the end.
    async fn next(vigil: &mut Vigil) -> String {
        let Some(frame) = vigil.frame().await else {
            return String::new();
        };
        let bytes = frame.unwrap().into_data().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// What it reads to the end.
    async fn rest(vigil: &mut Vigil) -> String {
        let mut rest = String::new();
        loop {
            let part = next(vigil).await;
            if part.is_empty() {
                return rest;
            }
            rest += &part;
        }
    }

    #[tokio::test]
    async fn a_stream_begins_at_once_lives_by_comments_and_ends_with_the_answer() {
        let (mut vigil, answers, _over) = vigil("");
        assert_eq!(vigil.tick.period(), Duration::from_secs(10));
        // Before anything is decided, and although no time passes.
        let first = tokio::time::timeout(Duration::from_secs(5), next(&mut vigil));
        assert_eq!(first.await.unwrap(), ":\n\n");
        vigil.tick = interval(Duration::from_millis(1));
        for _ in 0..3 {
            assert_eq!(next(&mut vigil).await, ":\n\n");
        }
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let sent = answers.send(json(StatusCode::OK, answer.to_owned()));
        sent.unwrap();
        let mut last = next(&mut vigil).await;
        while last == ":\n\n" {
            last = next(&mut vigil).await;
        }
        last += &rest(&mut vigil).await;
        assert_eq!(last, format!("data: {answer}\n\n"));
    }

    #[tokio::test]
    async fn an_answer_takes_no_more_room_than_it_has() {
        let (mut vigil, answers, _over) = vigil("");
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let room = Room::new(answer.len(), Arc::new(Left::new(answer.len())));
        let held = room.take(answer.len()).unwrap().around(answer);
        answers.send(json(StatusCode::OK, held)).unwrap();
        vigil.tick = interval(Duration::from_hours(1));
        let said = rest(&mut vigil).await;
        assert!(said.ends_with(&format!("data: {answer}\n\n")), "{said}");
        room.take(answer.len()).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_answer_of_one_line_is_refused_in_its_place() {
        for wrong in [
            "",
            "no",
            "<html>",
            "[]",
            r#"{"jsonrpc":"2.0","method":"m"}"#,
            "{\"jsonrpc\":\"2.0\",\n\"id\":1,\"result\":{}}",
        ] {
            let (mut vigil, answers, _over) = vigil("");
            let sent = answers.send(json(StatusCode::BAD_GATEWAY, wrong));
            sent.unwrap();
            let said = rest(&mut vigil).await;
            assert!(said.contains("response_refused"), "{wrong}: {said}");
            assert!(said.contains(r#""id":1"#), "{said}");
        }
    }

    #[tokio::test]
    async fn a_client_that_asked_for_progress_gets_it_until_it_is_decided() {
        let (mut vigil, _answers, over) = vigil(r#","_meta":{"progressToken":"t"}"#);
        vigil.tick = interval(Duration::from_millis(1));
        for count in 1..4 {
            let told = next(&mut vigil).await;
            assert!(told.contains("notifications/progress"), "{told}");
            assert!(told.contains(r#""progressToken":"t""#), "{told}");
            assert!(told.contains(&format!("{count}e-9")), "{told}");
        }
        // The server is asked by now, and its own progress must not fall behind.
        over.store(true, Ordering::Relaxed);
        assert_eq!(next(&mut vigil).await, ":\n\n");
    }
}
