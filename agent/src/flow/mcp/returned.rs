//! What comes back from an MCP server: an answer, a stream or something else, judged before it is delivered.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{ALT_SVC, CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::http::response::Parts as Head;
use hyper::{Response, StatusCode};

use super::super::describe::{Story as _, partly, read};
use super::super::exchange::{Answer, full};
use super::bounded::{NO_ROOM, Unacceptable};
use super::judge::{Talking, Told, digest_of, era};
use super::observed::{From as Sender, Talk};
use super::refusing::Refuser;
use super::stream::{Answering, Events, Purpose, Source};
use super::until::Over;

use crate::audit::record::ResponseKind;
use crate::audit::{Outcome, RecordId};
use crate::decode::http::{Body as Media, response_body};
use crate::decode::json::Limits;
use crate::decode::mcp::MCP_SESSION_ID;
use crate::decode::rpc::{self, Incoming as Messages, Message, Request, Response as RpcResponse};
use crate::forward::body::Received;
use crate::forward::headers::strip_hop_by_hop;
use crate::forward::upstream::Body;
use crate::identify::calls::{Answered, InFlight};
use crate::refuse::{Asked, Refusal, asked};

use super::answer;
use super::{Exchanging, OTHER_BODY, Passed, answered, batch_answer, single};

/// What came back belongs to this.
pub(super) struct Came {
    pub(super) passed: Vec<Passed>,
    pub(super) refused: Vec<(Told, Asked)>,
    pub(super) waiting: Vec<InFlight>,
    pub(super) back: Refuser,
    pub(super) path: String,
    pub(super) upstream_us: u64,
}

impl Exchanging<'_> {
    pub(super) async fn returned(&self, came: Came, response: Response<Received>) -> Answer {
        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(ALT_SVC);
        // Only in answer to a client without one: what a server merely says after its client opens nothing.
        if head.status.is_success()
            && self.talking.talk.session.is_none()
            && let Some(session) = single(&head.headers, MCP_SESSION_ID)
        {
            let session = Some(digest_of(&session));
            let talk = Talk {
                session,
                ..self.talking.talk.clone()
            };
            self.talking.stages.observed.open_session(talk);
        }
        let media = response_body(&head.headers);
        match media {
            Ok(Some(Media::Events)) if head.status.is_success() => {
                let body = self.events(came, head.status, body);
                head.headers.remove(CONTENT_LENGTH);
                Response::from_parts(head, body)
            }
            Ok(Some(Media::Json)) => self.message(came, head, body).await,
            Ok(Some(Media::Events) | None) | Err(_) => self.other(came, head, body).await,
        }
    }

    /// A stream that answers what passed, and what was refused first of all.
    fn events(&self, came: Came, status: StatusCode, body: Received) -> Body {
        let Came {
            passed,
            refused,
            mut waiting,
            back,
            path,
            upstream_us,
        } = came;
        let answering = passed
            .into_iter()
            .filter_map(|one| {
                let Passed {
                    permit,
                    message,
                    room: _room,
                    mut record,
                } = one;
                record.tell_status(status);
                record.tell_inspected(read(), read());
                drop(permit);
                if let Message::Request(request) = &message {
                    // A stream may be cut, and taken up again by a GET.
                    let Talking { stages, talk, .. } = &self.talking;
                    let observed = &stages.observed;
                    let Request { id, method, .. } = request;
                    observed.wait(talk, Sender::Client, id, method, record.id());
                }
                let record_id = record.id();
                let era = era(&message);
                match message {
                    Message::Request(request) => Some(Answering {
                        era,
                        id: request.id,
                        method: request.method,
                        record,
                        upstream_us,
                        in_flight: taken(&mut waiting, record_id),
                    }),
                    Message::Notification(_) | Message::Response(_) => {
                        drop(record.close(Outcome::done()));
                        None
                    }
                }
            })
            .collect();
        let source = self.source(back, path);
        let cut = self.place.connection.arrived.registered.cut().clone();
        let mut events = Events::new(
            body,
            source,
            Purpose::Answers(answering),
            cut,
            self.until.clone(),
            self.talking.clone(),
        );
        for (told, waits) in refused {
            events.say_first(crate::refuse::error(told.refusal(), &waits));
        }
        events.boxed_unsync()
    }

    pub(super) fn source(&self, back: Refuser, path: String) -> Source {
        Source {
            talking: self.talking.clone(),
            peer: self.place.peer.clone(),
            port: self.place.connection.arrived.port,
            path,
            refuser: back,
        }
    }

    /// One JSON text: an answer, or the answers to a batch.
    async fn message(&self, came: Came, mut head: Head, body: Received) -> Answer {
        let mut taken = self.talking.actor.known.room.none();
        let most = Limits::RESPONSE.bytes;
        let bytes = match self.collected(body, most, &mut taken).await {
            Ok(bytes) => bytes,
            Err(fault) => return self.withheld(came, fault.refusal()),
        };
        let batch = came.passed.len() > 1 || !came.refused.is_empty();
        let responses = match rpc::parse(&bytes, &Limits::RESPONSE) {
            Ok(Messages::Single(Message::Response(response))) => vec![response],
            Ok(Messages::Batch(entries)) if batch => {
                let mut responses = Vec::new();
                for entry in entries {
                    let Ok(Message::Response(response)) = entry else {
                        return self.withheld(came, Refusal::ResponseRefused);
                    };
                    responses.push(response);
                }
                responses
            }
            // Not a message: clients do not take it for one unless the status says success.
            Ok(_) | Err(_) if !head.status.is_success() => {
                return self.pass_other(came, head, taken.around(bytes));
            }
            Ok(_) | Err(_) => return self.withheld(came, Refusal::ResponseRefused),
        };
        let Came {
            mut passed,
            waiting,
            refused,
            upstream_us,
            ..
        } = came;
        for one in &mut passed {
            one.record
                .tell_status(if batch { StatusCode::OK } else { head.status });
        }
        let judged = self.deliver(passed, waiting, responses, upstream_us);
        if batch {
            let mut answer = batch_answer(&refused, judged, taken);
            keep_session(&head.headers, answer.headers_mut());
            return answer;
        }
        let Some(response) = judged.into_iter().next() else {
            // Nobody waits for an answer: there was nothing to answer, whatever the server said.
            return answered(Refusal::ResponseRefused, &Asked::Nothing);
        };
        let text = Message::Response(response).encode();
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        Response::from_parts(head, full(taken.around(text)))
    }

    /// Judges responses and closes the records of what they answer.
    fn deliver(
        &self,
        mut passed: Vec<Passed>,
        mut waiting: Vec<InFlight>,
        responses: Vec<RpcResponse>,
        upstream_us: u64,
    ) -> Vec<RpcResponse> {
        let mut delivered = Vec::new();
        for mut response in responses {
            let position = passed
                .iter()
                .position(|one| match (&one.message, &response.id) {
                    (Message::Request(request), Some(id)) => request.id.same_slot(id),
                    _ => false,
                });
            // An error without an id answers the one request there is.
            let position =
                position.or_else(|| (response.id.is_none() && passed.len() == 1).then_some(0));
            let Some(position) = position else { continue };
            let mut one = passed.swap_remove(position);
            answer::over(taken(&mut waiting, one.record.id()), &response);
            if let (Message::Request(request), Some(id)) = (&one.message, &mut response.id) {
                let observed = &self.talking.stages.observed;
                observed.answered(&self.talking.talk, Sender::Client, id);
                // Not every client takes "1" for 1. An error without an id stays one: the status says whose it is.
                *id = request.id.clone();
            }
            let method = one.message.method().map(str::to_owned);
            let spoken = era(&one.message);
            let (talking, record) = (&self.talking, &mut one.record);
            let judged = answer::judge(talking, record, method.as_deref(), spoken, &mut response);
            if let Some(refused) = close(one, judged.err(), &response, upstream_us) {
                response = refused;
            }
            delivered.push(response);
        }
        for one in passed {
            let waits = asked(&one.message);
            if waits == Asked::Nothing {
                drop(one.record.close(Outcome::done()));
                continue;
            }
            one.record
                .refuse_with("the server's answer does not answer this request");
            if let Some(Message::Response(error)) =
                crate::refuse::error(Refusal::ResponseRefused, &waits)
            {
                delivered.push(error);
            }
        }
        delivered
    }

    /// Neither a message nor a stream: 202, 204, errors of HTTP.
    async fn other(&self, came: Came, head: Head, body: Received) -> Answer {
        let mut taken = self.talking.actor.known.room.none();
        let bytes = match self.collected(body, OTHER_BODY, &mut taken).await {
            Ok(bytes) => bytes,
            Err(fault) => return self.withheld(came, fault.refusal()),
        };
        // A success with a body that is no message may still be read as one by some client.
        if head.status.is_success() && !bytes.is_empty() {
            return self.withheld(came, Refusal::ResponseRefused);
        }
        self.pass_other(came, head, taken.around(bytes))
    }

    fn pass_other(&self, came: Came, mut head: Head, bytes: Bytes) -> Answer {
        // Taken on (202): answered on another stream, as by the old HTTP with server-sent events. An error of HTTP that
        // the server finds with its caller ends it; of another kind it may come from what stands before the server.
        let later = head.status == StatusCode::ACCEPTED;
        for in_flight in came.waiting {
            if later {
                in_flight.answered(Answered::Elsewhere);
            } else if head.status.is_client_error() {
                in_flight.answered(Answered::Whole);
            }
        }
        for mut one in came.passed {
            if let Message::Request(request) = &one.message
                && !later
            {
                let observed = &self.talking.stages.observed;
                observed.answered(&self.talking.talk, Sender::Client, &request.id);
            }
            one.record.tell_status(head.status);
            one.record.tell_inspected(
                read(),
                if bytes.is_empty() {
                    read()
                } else {
                    partly("an answer of HTTP, not of MCP")
                },
            );
            let kind = if bytes.is_empty() {
                ResponseKind::None
            } else {
                ResponseKind::Http
            };
            answer::tell(&mut one.record, kind, None);
            let upstream_us = Some(came.upstream_us);
            drop(one.record.close(Outcome {
                upstream_us,
                ..Outcome::done()
            }));
        }
        if head.headers.contains_key(CONTENT_LENGTH) {
            head.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        Response::from_parts(head, full(bytes))
    }

    /// The answer is not delivered; the caller gets an error in its place.
    fn withheld(&self, came: Came, why: Refusal<'static>) -> Answer {
        let Came {
            passed, refused, ..
        } = came;
        let over = Over::ALL.into_iter().find(|over| over.refusal() == why);
        self.in_place(passed, refused, why, |mut record| {
            if over.is_none() {
                answer::tell(&mut record, ResponseKind::Http, None);
            }
            // The caller's doing: it holds too much, or does not read its answers.
            if why == Refusal::HeldBytes {
                record.forgive();
                return record.refuse_with(NO_ROOM);
            }
            let unacceptable = Unacceptable::from(why);
            record.refuse_with(over.map_or(unacceptable.why, Over::why));
        })
    }
}

/// Closes the record of an answered request; returns the error that takes the answer's place.
fn close(
    one: Passed,
    refused: Option<Unacceptable>,
    response: &RpcResponse,
    upstream_us: u64,
) -> Option<RpcResponse> {
    let Passed {
        permit,
        message,
        room: _room,
        mut record,
    } = one;
    drop(permit);
    record.tell_inspected(read(), read());
    answer::tell(&mut record, ResponseKind::Result, Some(response));
    let Some(refused) = refused else {
        let upstream_us = Some(upstream_us);
        drop(record.close(Outcome {
            upstream_us,
            ..Outcome::done()
        }));
        return None;
    };
    record.refuse_with(refused.why);
    match crate::refuse::error(refused.told, &asked(&message)) {
        Some(Message::Response(response)) => Some(response),
        _ => None,
    }
}

/// The call in flight of this record, of those of a batch.
fn taken(waiting: &mut Vec<InFlight>, record: RecordId) -> Option<InFlight> {
    let index = waiting.iter().position(|call| call.record() == record)?;
    Some(waiting.swap_remove(index))
}

fn keep_session(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(session) = from.get(MCP_SESSION_ID) {
        to.insert(MCP_SESSION_ID, session.clone());
    }
}
