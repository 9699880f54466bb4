//! MCP over HTTP: Streamable HTTP of every revision, and the old HTTP with server-sent events. Over standard
//! streams: `stdio`, which judges by the same functions.
//!
//! What is forwarded is what was judged: messages are parsed strictly and written anew, in both directions.

mod answer;
mod approving;
mod bounded;
mod collect;
mod effects;
mod inside;
mod judge;
mod observed;
mod refusing;
mod returned;
mod stdio;
mod stream;
mod tasks;
pub(super) mod until;
mod vigil;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{
    ACCEPT_ENCODING, ALT_SVC, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue,
};
use hyper::http::request::Parts;
use hyper::http::response::Parts as Head;
use hyper::{Method, Request, Response};

use self::collect::Uncollected;
use self::effects::{Beside, Settled};
use self::judge::{Talking, Told, digest_of, recorded_session};
pub use self::observed::Observed;
use self::observed::{From as Sender, Talk};
use self::refusing::Refuser;
use self::returned::Came;
pub use self::stdio::{Offered, Sessions, Word, serve_stdio, turn_away};
use self::stream::{Events, Purpose};
use self::until::{Over, Until};
use self::vigil::{Call, unsent};
use super::connection::{Connection, SendFault};
use super::describe::{Story as _, partly, read};
use super::exchange::{Answer, full, json, refusal, told};
use super::shown::challenging;
use super::{credential, open};
use crate::audit::record::{Kind, Stage};
use crate::audit::{AuditUnavailable, Intended, OpenRecord, Outcome, Text};
use crate::decide::{Exchange, Message as AboutMessage, Permit, Within};
use crate::decode::http::{Body as Media, check_request, response_body};
use crate::decode::json::Limits;
use crate::decode::mcp::{
    HeaderFault, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, check_batch_headers, check_headers,
    check_params,
};
use crate::decode::rpc::{self, Incoming as Messages, Message, Response as RpcResponse};
use crate::forward::body::{Drained, Received};
use crate::forward::headers::{strip_hop_by_hop, strip_overrides};
use crate::forward::upstream::{Body as Sent, Unheard};
use crate::forward::whole::{Incomplete, collect};
use crate::identify::calls::{Callee, InFlight};
use crate::identify::peer::Peer;
use crate::identify::room::{NoRoom, Taken};
use crate::intake::Actor;
use crate::refuse::{Asked, Refusal, answer_batch, asked};

/// Bytes of an answer that is no message (an error page) that are sent on.
const OTHER_BODY: usize = 1 << 20;

/// Where an MCP exchange takes place.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) connection: &'a Arc<Connection>,
    pub(super) peer: &'a Peer,
    pub(super) server: &'a Arc<str>,
}

/// One message of the client that policy let through, on its way.
struct Passed {
    permit: Permit<AboutMessage>,
    message: Message,
    /// The room of the message.
    room: Taken,
    record: OpenRecord,
}

/// What is sent of a request's body, with its room.
struct Encoded {
    text: String,
    room: Taken,
}

/// Serves one request to a registered MCP server.
pub(super) async fn serve(
    place: Place<'_>,
    shown: Option<Actor>,
    permit: Permit<Exchange>,
    within: Within,
    mut record: OpenRecord,
    mut request: Request<Received>,
) -> Answer {
    record.stage(Stage::Decode);
    let session = single(request.headers(), MCP_SESSION_ID);
    let session = session.as_deref().map(digest_of);
    let revision = single(request.headers(), MCP_PROTOCOL_VERSION);
    record.record_mut().session =
        recorded_session(session.as_deref(), revision.as_deref()).map(Into::into);
    let actor = shown.unwrap_or_else(|| place.connection.arrived.actor.clone());
    let talk = Talk {
        workload: actor.number(),
        whose: actor.whose(),
        server: Arc::clone(place.server),
        session,
    };
    let callee = Callee::Server(Arc::clone(place.server));
    let mut talking = Talking::new(Arc::clone(&place.connection.stages), actor, talk, callee);
    talking.within = Some(Arc::new(within));
    credential::withhold(place.connection, place.server, request.headers_mut());
    // Before anything is decided: what is let through from here on ends with it.
    let severed = talking.stages.decider.watch(place.server);
    let until = Until::new(severed, &talking.actor, &talking.stages);
    let exchange = Exchanging {
        place,
        talking,
        until,
    };
    match *request.method() {
        Method::POST => exchange.post(record, request).await,
        Method::GET | Method::DELETE | Method::OPTIONS | Method::HEAD => {
            match exchange.talking.stages.decider.connected(place.server) {
                Ok(()) => exchange.without_message(permit, record, request).await,
                Err(refused) => {
                    let answer = refusal(Refusal::Disconnected);
                    record.tell_status(answer.status());
                    record.refuse(&refused);
                    answer
                }
            }
        }
        _ => {
            record.refuse_with("an HTTP method that MCP does not use");
            refusal(Refusal::HttpForm)
        }
    }
}

/// The tool that a call names.
pub(super) fn tool(message: &Message) -> Option<&str> {
    let name = message.params()?.get("name")?;
    name.as_str()
}

struct Exchanging<'a> {
    place: Place<'a>,
    talking: Talking,
    /// When what is under way is to end.
    until: Until,
}

impl Exchanging<'_> {
    async fn post(&self, record: OpenRecord, request: Request<Received>) -> Answer {
        let (parts, body) = request.into_parts();
        // What is refused early is read on, so that the client comes to read why.
        let body = Drained::new(body, &self.talking.stages.tasks);
        if let Err(fault) = check_request(&parts.headers) {
            record.refuse_with(&fault);
            return answered(Refusal::from(fault), &Asked::Unreadable);
        }
        let limit = self.talking.stages.bounds.body;
        let mut taken = self.talking.actor.known.room.none();
        let idle = self.talking.stages.bounds.idle;
        let bytes = match collect(body, limit, idle, &mut taken).await {
            Ok(bytes) => bytes,
            Err(Incomplete::TooLarge) => return too_large(record),
            Err(Incomplete::NoRoom(fault)) => return no_room(record, fault, &Asked::Unreadable),
            Err(fault) => {
                record.fail(&fault);
                return refusal(Refusal::HttpForm);
            }
        };
        let limits = Limits {
            bytes: limit,
            ..Limits::REQUEST
        };
        let read = rpc::parse(&bytes, &limits);
        // From here on the bytes' room is that of what is written anew.
        drop(bytes);
        let weight = read.as_ref().map_or(0, Messages::weight);
        let room = match self.talking.actor.known.room.take(weight) {
            Ok(room) => room,
            Err(fault) => {
                let waits = match &read {
                    Ok(Messages::Single(message)) => asked(message),
                    Ok(Messages::Batch(_)) | Err(_) => Asked::Unreadable,
                };
                return no_room(record, fault, &waits);
            }
        };
        match read {
            Ok(Messages::Single(message)) => self.single(record, parts, message, room, taken).await,
            // Rare, and no room is kept for it elsewhere.
            Ok(Messages::Batch(entries)) => {
                Box::pin(self.batch(record, parts, entries, room, taken)).await
            }
            Err(fault) => {
                record.refuse_with(&fault);
                answered(Refusal::from(&fault), &Asked::from(&fault))
            }
        }
    }

    async fn single(
        &self,
        mut record: OpenRecord,
        mut parts: Parts,
        mut message: Message,
        room: Taken,
        body_room: Taken,
    ) -> Answer {
        let agreed = check_headers(&parts.headers, &message).and_then(|()| {
            let tool = tool(&message).unwrap_or_default();
            let Talking {
                stages, account, ..
            } = &self.talking;
            let mirrors = stages.observed.mirrors(account, tool);
            check_params(&parts.headers, &message, mirrors.as_deref())
        });
        if let Err(fault) = agreed {
            record.refuse_with(&fault);
            return answered(Refusal::from(fault), &asked(&message));
        }
        let beside = Some(Beside {
            uri: &parts.uri,
            headers: &mut parts.headers,
        });
        let settled = self.talking.settle(&mut record, &mut message, beside);
        match settled {
            Settled::Passes(permit) => {
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
            // Rare, and no room is kept for it elsewhere.
            Settled::Waits(ticket) => {
                let call = Call {
                    record,
                    parts,
                    message,
                    room,
                    body_room,
                };
                Box::pin(self.waits(call, *ticket)).await
            }
            settled => unsent(record, &message, settled),
        }
    }

    /// 2025-03-26 alone has batches: each entry is decided, and those that are refused are answered among the others.
    async fn batch(
        &self,
        record: OpenRecord,
        parts: Parts,
        entries: Vec<Result<Message, rpc::Fault>>,
        mut room: Taken,
        body_room: Taken,
    ) -> Answer {
        let headers = check_batch_headers(&parts.headers);
        let mut refused: Vec<(Told, Asked)> = Vec::new();
        let mut passed = Vec::new();
        let mut first = Some(record);
        // One entry that waited for a place in vain has waited for all.
        let mut full = false;
        for entry in entries {
            let record = match first.take() {
                Some(record) => Ok(record),
                None if full => Err(AuditUnavailable::Full),
                None => open(&self.talking.stages, &self.talking.actor, Kind::Mcp).await,
            };
            full = full || record.is_err();
            let waits = match &entry {
                Ok(message) => asked(message),
                Err(fault) => Asked::from(fault),
            };
            let Ok(mut record) = record else {
                refused.push((Told::Plain(Refusal::AuditUnavailable), waits));
                continue;
            };
            // Ends with the entry, whatever becomes of it.
            let entry_room = room.split(entry.as_ref().map_or(0, Message::weight));
            let mut message = match readable(&headers, entry) {
                Ok(message) => message,
                Err((refusal, why)) => {
                    record.refuse_with(why);
                    refused.push((Told::Plain(refusal), waits));
                    continue;
                }
            };
            let settled = self.talking.settle(&mut record, &mut message, None);
            match settled.within_batch() {
                Ok(permit) => passed.push(Passed {
                    permit,
                    message,
                    room: entry_room,
                    record,
                }),
                Err(not_passed) => {
                    refused.push((not_passed.told.clone(), waits));
                    not_passed.record(record);
                }
            }
        }
        if passed.is_empty() {
            let none = self.talking.actor.known.room.none();
            return batch_answer(&refused, Vec::new(), none);
        }
        let body = Encoded {
            text: together(&passed),
            room: body_room,
        };
        self.send(parts, body, passed, refused).await
    }

    /// Sends what passed, and judges what comes back.
    async fn send(
        &self,
        mut parts: Parts,
        body: Encoded,
        mut passed: Vec<Passed>,
        refused: Vec<(Told, Asked)>,
    ) -> Answer {
        outgoing(&mut parts.headers, body.text.len());
        // The policy that let the messages pass may say so since the request began.
        credential::withhold(self.place.connection, self.place.server, &mut parts.headers);
        let back = Refuser::new(self.place, &parts.uri, &parts.headers);
        let path = parts.uri.path().to_owned();
        let request = Request::from_parts(parts, full(body.room.around(body.text)));
        let records = passed.iter_mut().map(|one| &mut one.record);
        let request = match self.credentialed(request, records).await {
            Ok(request) => request,
            Err(fault) => return self.unanswered(passed, refused, &fault),
        };
        let waiting: Vec<InFlight> = self.begin(&passed);
        let asked_at = tokio::time::Instant::now();
        let answered = match intend(&mut passed).await {
            Ok(intended) => self.exchanged(intended, request).await,
            Err(unavailable) => Err(unavailable.into()),
        };
        let response = match answered {
            Ok(response) => response,
            Err(fault) => {
                if fault.is_unsent() {
                    waiting.into_iter().for_each(InFlight::unsent);
                }
                return self.unanswered(passed, refused, &fault);
            }
        };
        let upstream_us = u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let came = Came {
            passed,
            refused,
            waiting,
            back,
            path,
            upstream_us,
        };
        self.returned(came, response).await
    }

    /// `request` with what policy wants put into it, which these records name.
    async fn credentialed(
        &self,
        request: Request<Sent>,
        records: impl IntoIterator<Item = &mut OpenRecord>,
    ) -> Result<Request<Sent>, SendFault> {
        let Place {
            connection, server, ..
        } = self.place;
        let due = credential::due_to_server(connection, server, records).await?;
        Ok(credential::put(connection, due, request).await?)
    }

    /// Sends `request`, and waits for the head of its answer while that may go on.
    async fn exchanged(
        &self,
        intended: Intended<'_>,
        request: Request<Sent>,
    ) -> Result<Response<Received>, SendFault> {
        let connection = self.place.connection;
        let over = tokio::select! {
            biased;
            over = self.until.clone().over() => over,
            answered = connection.send(self.place.peer, intended, request, None::<Unheard>) => {
                return answered;
            }
        };
        if over != Over::Severed {
            return Err(SendFault::Over(over));
        }
        connection.hang_up().await;
        let decider = &self.talking.stages.decider;
        Err(match decider.connected(self.place.server) {
            Err(refused) => SendFault::Refused(Box::new(refused)),
            // Connected again by now; what was cut stays cut.
            Ok(()) => SendFault::Closed,
        })
    }

    /// A whole answer, while that may go on.
    async fn collected(
        &self,
        body: Received,
        most: usize,
        taken: &mut Taken,
    ) -> Result<Bytes, Uncollected> {
        let limit = self.talking.stages.bounds.answer;
        tokio::select! {
            biased;
            over = self.until.clone().over() => {
                if over == Over::Severed {
                    self.place.connection.hang_up().await;
                }
                Err(Uncollected::Over(over))
            }
            collected = collect(body, most, limit, taken) => Ok(collected?),
        }
    }

    /// What passed is on its way: calls are in flight, answers are waited for.
    fn begin(&self, passed: &[Passed]) -> Vec<InFlight> {
        let mut in_flight = Vec::new();
        for one in passed {
            if let Message::Request(request) = &one.message {
                let observed = &self.talking.stages.observed;
                // Only what is answered on another stream needs to be known beyond this exchange.
                if observed.anybody_listens() {
                    observed.wait(
                        &self.talking.talk,
                        Sender::Client,
                        &request.id,
                        &request.method,
                        one.record.id(),
                    );
                }
            }
            in_flight.extend(self.talking.begin(&one.message, one.record.id()));
        }
        in_flight
    }

    fn unanswered(
        &self,
        passed: Vec<Passed>,
        refused: Vec<(Told, Asked)>,
        fault: &SendFault,
    ) -> Answer {
        self.in_place(passed, refused, told(fault), |record| match fault {
            SendFault::Refused(by) => record.refuse(by),
            SendFault::Credential(_) | SendFault::Unrecorded(_) | SendFault::Over(_) => {
                record.refuse_with(fault);
            }
            _ => record.fail(fault),
        })
    }

    fn in_place(
        &self,
        passed: Vec<Passed>,
        mut refused: Vec<(Told, Asked)>,
        why: Refusal<'static>,
        end: impl Fn(OpenRecord),
    ) -> Answer {
        let batch = passed.len() > 1 || !refused.is_empty();
        for one in passed {
            let waits = asked(&one.message);
            if let Asked::Request(id) = &waits {
                self.talking
                    .stages
                    .observed
                    .answered(&self.talking.talk, Sender::Client, id);
            }
            refused.push((Told::Plain(why), waits));
            end(one.record);
        }
        match refused.as_slice() {
            [(told, waits)] if !batch => answered(told.refusal(), waits),
            several => batch_answer(several, Vec::new(), self.talking.actor.known.room.none()),
        }
    }

    /// GET (the server's stream), DELETE (the session's end), and what browsers ask first.
    async fn without_message(
        &self,
        permit: Permit<Exchange>,
        mut record: OpenRecord,
        request: Request<Received>,
    ) -> Answer {
        use hyper::body::Body as _;
        drop(permit);
        let (mut parts, body) = request.into_parts();
        if !body.is_end_stream() {
            record.refuse_with("a body where MCP has none");
            return refusal(Refusal::HttpForm);
        }
        record.stage(Stage::Forward);
        strip_hop_by_hop(&mut parts.headers);
        strip_overrides(&mut parts.headers);
        parts
            .headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let back = Refuser::new(self.place, &parts.uri, &parts.headers);
        let path = parts.uri.path().to_owned();
        let listens = parts.method == Method::GET;
        let request = Request::from_parts(parts, full(Bytes::new()));
        let request = match self.credentialed(request, [&mut record]).await {
            Ok(request) => request,
            Err(fault) => return super::exchange::unanswered(record, &fault),
        };
        let answered = match record.intend().await {
            Ok(intended) => self.exchanged(intended, request).await,
            Err(unavailable) => Err(unavailable.into()),
        };
        let response = match answered {
            Ok(response) => response,
            Err(fault) => return super::exchange::unanswered(record, &fault),
        };
        let (mut head, body) = response.into_parts();
        record.tell_status(head.status);
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(ALT_SVC);
        let events = matches!(response_body(&head.headers), Ok(Some(Media::Events)));
        if listens && events && head.status.is_success() {
            record.tell_inspected(read(), read());
            let cut = self.place.connection.arrived.registered.cut().clone();
            let source = self.source(back, path);
            let events = Events::new(
                body,
                source,
                Purpose::Listens(Box::new(record), self.talking.stages.observed.listen()),
                cut,
                self.until.clone(),
                self.talking.clone(),
            );
            head.headers.remove(CONTENT_LENGTH);
            return Response::from_parts(head, events.boxed_unsync());
        }
        self.without_stream(record, head, body, listens).await
    }

    /// An answer of HTTP to what carries no message.
    async fn without_stream(
        &self,
        mut record: OpenRecord,
        head: Head,
        body: Received,
        listens: bool,
    ) -> Answer {
        let mut taken = self.talking.actor.known.room.none();
        let bytes = match self.collected(body, OTHER_BODY, &mut taken).await {
            Ok(bytes) => bytes,
            Err(fault) => {
                let told = fault.refusal();
                record.refuse_with(&fault);
                return refusal(told);
            }
        };
        if head.status.is_success() && listens && !bytes.is_empty() {
            record.refuse_with("an answer that is no event stream");
            return refusal(Refusal::ResponseRefused);
        }
        record.tell_inspected(read(), partly("an answer of HTTP, not of MCP"));
        drop(record.close(Outcome::done()));
        Response::from_parts(head, full(taken.around(bytes)))
    }
}

/// Says of each message of a request that it is on its way. There is at least one.
async fn intend(passed: &mut [Passed]) -> Result<Intended<'_>, AuditUnavailable> {
    let mut intended = None;
    for one in passed {
        one.record.stage(Stage::Forward);
        intended = Some(one.record.intend().await?);
    }
    intended.ok_or(AuditUnavailable::Ended)
}

/// What passed of a batch, as it is sent.
fn together(passed: &[Passed]) -> String {
    let mut body = String::from("[");
    for (index, one) in passed.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        one.message.write(&mut body);
    }
    body.push(']');
    body
}

fn no_room(mut record: OpenRecord, fault: NoRoom, waits: &Asked) -> Answer {
    record.tell_inspected(partly("no room to hold it"), partly("not sent"));
    record.refuse_with(&fault);
    answered(Refusal::HeldBytes, waits)
}

fn too_large(record: OpenRecord) -> Answer {
    let mut record = record;
    record.tell_inspected(partly("larger than the limit"), partly("not sent"));
    record.refuse_with("a message larger than the limit");
    answered(Refusal::TooLarge, &Asked::Unreadable)
}

/// An entry of a batch, if it can be judged.
fn readable(
    headers: &Result<(), HeaderFault>,
    entry: Result<Message, rpc::Fault>,
) -> Result<Message, (Refusal<'static>, Text)> {
    match (headers, entry) {
        (Ok(()), Ok(message)) => Ok(message),
        (Ok(()), Err(fault)) => Err((Refusal::from(&fault), Text::error(&fault))),
        (Err(fault), _) => Err((Refusal::InvalidRequest, Text::error(fault))),
    }
}

/// The only value of a header, as text.
fn single(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.to_owned())
}

/// Headers of a POST that carries what was judged.
fn outgoing(headers: &mut HeaderMap, length: usize) {
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    strip_overrides(headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// A refusal of one message.
fn answered(refusal: Refusal<'_>, waits: &Asked) -> Answer {
    let answer = crate::refuse::answer(refusal, waits);
    let answer = json(answer.status, answer.body);
    if refusal == Refusal::InvalidToken {
        return challenging(answer);
    }
    answer
}

/// The answers of a batch, in the room that is `taken` for those of the server.
fn batch_answer(refused: &[(Told, Asked)], delivered: Vec<RpcResponse>, taken: Taken) -> Answer {
    let refused: Vec<(Refusal<'_>, Asked)> = refused
        .iter()
        .map(|(told, waits)| (told.refusal(), waits.clone()))
        .collect();
    let answer = answer_batch(&refused, delivered);
    json(answer.status, taken.around(answer.body))
}
