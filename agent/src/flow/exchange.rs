//! One HTTP exchange: agreed on, decided, and sent on as it streams, or answered with a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use exeat_policy::{Origin, Reason};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use hyper::header::{
    ACCEPT, ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT,
    HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version as HttpVersion};
use hyper_util::rt::TokioIo;

use super::artefacts::{Asked, Fetch};
use super::connection::{Connection, SendFault};
use super::credential::Due;
use super::describe::{Cut, Story as _, Why, partly, read, unread};
use super::interim::{Turn, Way};
use super::shown::{of_server, shown, unbelieved, unread_rest};
use super::{NotAgreed, credential, mcp};
use crate::audit::record::Stage;
use crate::audit::{OpenRecord, Outcome};
use crate::decide::{Exchange, HttpRequest, Permit, Within};
use crate::decode::mcp::{MCP_METHOD, MCP_NAME, MCP_SESSION_ID};
use crate::decode::scan::{self, Scanner, Verdict};
use crate::forward::body::{Drained, HttpFault, Received, Watch, Watched};
use crate::forward::headers::strip_hop_by_hop;
use crate::forward::tunnel::{self, Traffic};
use crate::forward::upstream::{Body, Version};
use crate::identify::agree;
use crate::identify::live::Unread;
use crate::identify::peer::Peer;
use crate::intake::{Actor, Acts, Arrived};
use crate::refuse::{HttpRefusal, Refusal, Timeout, Upstream};

/// Why what is no ordinary HTTP goes no further.
const SPOKEN: &str = "MCP spoken to a server that is not registered";

/// What a workload is answered.
pub(super) type Answer = Response<Body>;

/// Serves one request. Never fails: whatever happens has an answer and a record. Interim answers go by `way`.
pub(super) async fn serve(
    connection: &Arc<Connection>,
    mut request: Request<Received>,
    way: Way,
) -> Answer {
    let Ok(mut record) = connection.record().await else {
        return refusal(Refusal::AuditUnavailable);
    };
    record.tell_request(&request);
    let shown = shown(connection, &request).await;
    let actor = shown.as_ref().map_or(None, Option::as_ref);
    let actor = actor.unwrap_or(&connection.arrived.actor);
    let admitted = admit(connection, actor, &mut record, &mut request);
    let not_admitted = match admitted {
        Ok(Admitted {
            peer,
            permit,
            server: Some((server, within)),
        }) => {
            let actor = match shown.and_then(|it| of_server(connection, &request, &server, it)) {
                Ok(actor) => actor,
                Err(fault) => return unbelieved(connection, record, request, fault),
            };
            if let Some(actor) = &actor {
                record.record_mut().identity = Some(actor.identity.clone());
            }
            let place = mcp::Place {
                connection,
                peer: &peer,
                server: &server,
            };
            return mcp::serve(place, actor, permit, within, record, request).await;
        }
        Ok(Admitted {
            peer,
            permit,
            server: None,
        }) => return forward(connection, &peer, permit, record, request, way).await,
        Err(not_admitted) => not_admitted,
    };
    // A user reaches nothing but registered servers: what is refused may well have been allowed by the token.
    let acts = actor.acts;
    if let (Err(fault), NotAdmitted::NotAgreed(NotAgreed::Refused(_)), Acts::User) =
        (shown, &not_admitted, acts)
    {
        return unbelieved(connection, record, request, fault);
    }
    unread_rest(connection, request);
    match not_admitted {
        NotAdmitted::Form(form) => closing(refused(record, Refusal::HttpForm, &form)),
        NotAdmitted::NotAgreed(NotAgreed::Disagreement(disagreement)) => {
            record.stage(Stage::Identify);
            closing(refused(record, Refusal::NameDisagreement, &disagreement))
        }
        NotAdmitted::NotAgreed(NotAgreed::Refused(refused)) => {
            let answer = refusal(match refused.reason() {
                Reason::Disconnected => Refusal::Disconnected,
                _ => Refusal::Denied,
            });
            record.tell_status(answer.status());
            record.refuse(&refused);
            answer
        }
    }
}

/// A request that policy lets through, so far.
struct Admitted {
    peer: Peer,
    permit: Permit<Exchange>,
    /// The registered MCP server that it goes to: each of its messages is decided as well.
    server: Option<(Arc<str>, Within)>,
}

enum NotAdmitted {
    Form(agree::Form),
    NotAgreed(NotAgreed),
}

fn admit(
    connection: &Connection,
    actor: &Actor,
    record: &mut OpenRecord,
    request: &mut Request<Received>,
) -> Result<Admitted, NotAdmitted> {
    record.stage(Stage::Identify);
    agree::form(request, connection.tls).map_err(NotAdmitted::Form)?;
    let said = agree::named(request)
        .map_err(|disagreement| NotAdmitted::NotAgreed(NotAgreed::Disagreement(disagreement)))?;
    let peer = connection
        .agree(said)
        .map_err(NotAdmitted::NotAgreed)?
        .clone();
    agree::in_origin_form(request);
    record.tell_connection_peer(&peer, connection.tls);
    record.stage(Stage::Decide);
    let port = connection.arrived.port;
    // Where an old HTTP+SSE server said that messages are to be posted: judged as the URL that it stands under.
    let observed = &connection.stages.observed;
    let path = request.uri().path();
    let endpoint = observed.endpoint(connection.arrived.actor.number(), &peer, port, path);
    let judged = endpoint
        .as_ref()
        .map_or(path, |endpoint| endpoint.judged_as.as_str());
    let meant = agree::overrides(request).map_err(NotAdmitted::Form)?;
    let causing = actor.causing(&connection.stages.calls);
    if causing.cause.is_some() {
        // The record's and the decision's are of one moment.
        record.record_mut().cause = causing.cause;
    }
    let asked = HttpRequest {
        target: peer.target(),
        port,
        method: request.method().as_str(),
        path: judged,
        tls: connection.tls,
        upgrade: request.headers().contains_key(UPGRADE),
        calls: &causing.underway,
    };
    let decide = |asked| {
        let caller = actor.caller();
        let decided = connection.stages.decider.exchange(caller, asked);
        decided.map_err(|refused| NotAdmitted::NotAgreed(NotAgreed::Refused(refused)))
    };
    for method in &meant {
        drop(decide(HttpRequest { method, ..asked })?);
    }
    let permit = decide(asked)?;
    record.tell_decision(permit.decision());
    let server = permit.egress().and_then(|terms| terms.server.clone());
    let server = server.map(|server| {
        let within = Within {
            generation: permit.decision().generation,
            peer: peer.clone(),
            port,
            method: request.method().clone(),
            path: judged.to_owned(),
            tls: connection.tls,
        };
        (server, within)
    });
    Ok(Admitted {
        peer,
        permit,
        server,
    })
}

/// Sends an ordinary request on, streaming both bodies; one that turns out to speak MCP is cut off before its
/// last byte.
async fn forward(
    connection: &Arc<Connection>,
    peer: &Peer,
    permit: Permit<Exchange>,
    mut record: OpenRecord,
    request: Request<Received>,
    way: Way,
) -> Answer {
    record.stage(Stage::Decode);
    if let Some((told, why)) = not_ordinary(&request) {
        unread_rest(connection, request);
        return refused(record, told, why);
    }
    let due = credential::due(connection, &permit, &mut record).await;
    let due = due.and_then(|due| {
        if let Some(credential) = &due {
            credential.check(&connection.stages.bounds, &request)?;
        }
        Ok(due)
    });
    match due {
        Ok(credential) => relay(connection, peer, permit, record, request, way, credential).await,
        Err(fault) => {
            unread_rest(connection, request);
            refused(record, fault.refusal(), &fault)
        }
    }
}

/// The same once nothing speaks against it any more.
async fn relay(
    connection: &Arc<Connection>,
    peer: &Peer,
    permit: Permit<Exchange>,
    mut record: OpenRecord,
    mut request: Request<Received>,
    way: Way,
    credential: Option<Due>,
) -> Answer {
    record.stage(Stage::Forward);
    record.tell_inspected(
        read(),
        unread("responses of ordinary requests are not looked into"),
    );
    let upgrade = permit.egress().is_some_and(|terms| terms.upgrade)
        && request.headers().contains_key(UPGRADE)
        && connection.version == Version::Http1;
    let client = upgrade.then(|| {
        let unread = upgraded(&request, connection.tls);
        (hyper::upgrade::on(&mut request), unread)
    });
    withhold_token(&permit, &mut request);
    let fetch = Asked::of(&permit, &request);
    let sent = Arc::new(Sent::default());
    // HTTP/1.0 knows of none.
    let interim = (request.version() != HttpVersion::HTTP_10).then_some(way);
    let request = outgoing(request, connection, upgrade, &sent);
    let put = credential::put(connection, credential, request).await;
    let request = match put {
        Ok(request) => request,
        Err(_) if sent.recognised() => return refused(record, Refusal::Unregistered, SPOKEN),
        Err(fault) => return refused(record, fault.refusal(), &fault),
    };
    let asked = tokio::time::Instant::now();
    let answered = answered(connection, peer, &mut record, request, interim).await;
    let waited = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
    record.tell_request_bytes(sent.bytes.load(Ordering::Relaxed));
    if sent.recognised() {
        return refused(record, Refusal::Unregistered, SPOKEN);
    }
    let mut response = match answered {
        Ok(response) => response,
        Err(fault) => return unanswered(record, &fault),
    };
    let status = response.status();
    record.tell_status(status);
    if scan::headers(response.headers()) == Verdict::Mcp {
        return refused(
            record,
            Refusal::Unregistered,
            "an answer of MCP from a server that is not registered",
        );
    }
    if let Some((client, unread)) = client.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS) {
        if !goes_on_unread(connection, peer, unread) {
            record.fail(&Cut);
            return closing(refusal(Refusal::Denied));
        }
        let server = hyper::upgrade::on(&mut response);
        tunnel_upgraded(connection, record, client, server);
        return response.map(|_| empty());
    }
    let fetch = fetch.and_then(|asked| asked.answered(connection, peer, &response));
    passed(response, Closing::new(record, sent, waited, fetch))
}

/// Beside a registered server, where clients learn how to log in, nobody needs to show a token.
fn withhold_token(permit: &Permit<Exchange>, request: &mut Request<Received>) {
    let origin = permit.egress().map(|terms| terms.origin);
    if matches!(origin, Some(Origin::Server(_))) {
        request.headers_mut().remove(AUTHORIZATION);
    }
}

/// An answer as it is passed on.
fn passed(mut response: Response<Received>, closing: Closing) -> Answer {
    strip_hop_by_hop(response.headers_mut());
    // Another way to the same name would not pass the gate.
    response.headers_mut().remove(ALT_SVC);
    response.map(|body| Watched::new(body, closing).boxed_unsync())
}

/// Sends `request` and waits for the head of its answer; what comes before that goes by `interim`.
async fn answered(
    connection: &Connection,
    peer: &Peer,
    record: &mut OpenRecord,
    request: Request<Body>,
    interim: Option<Way>,
) -> Result<Response<Received>, SendFault> {
    let turn = match interim {
        Some(way) => Some(way.turn().await),
        None => None,
    };
    let pass_on = turn.as_ref().map(Turn::pass_on);
    let intended = record.intend().await?;
    connection.send(peer, intended, request, pass_on).await
}

/// Why a request is not one of ordinary HTTP, as far as its head shows.
fn not_ordinary(request: &Request<Received>) -> Option<(Refusal<'static>, &'static str)> {
    if !only_learns(request) && scan::headers(request.headers()) == Verdict::Mcp {
        return Some((Refusal::Unregistered, SPOKEN));
    }
    hides_json(request).then_some((
        Refusal::BodyType,
        "a JSON body in a content coding, which is not inspected",
    ))
}

/// Whether a request with a header of MCP says no more than its client's revision: clients name it also where
/// they learn how to log in (2025-03-26 Authorization, "Server Metadata Discovery"), at any path that a server or
/// its issuer names. A stream of events, a session or a message is more.
fn only_learns(request: &Request<Received>) -> bool {
    let headers = request.headers();
    let listens = headers.get_all(ACCEPT).iter().any(|accepted| {
        let accepted = accepted.as_bytes().to_ascii_lowercase();
        accepted.windows(12).any(|part| part == b"event-stream")
    });
    let speaks = [MCP_SESSION_ID, MCP_METHOD, MCP_NAME]
        .into_iter()
        .any(|name| headers.contains_key(name));
    request.method() == Method::GET && !listens && !speaks
}

/// What goes by unread when the server does what `request` asks.
fn upgraded(request: &Request<Received>, tls: bool) -> Unread {
    Unread::Upgraded {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        tls,
    }
}

/// Whether the policy still lets it: a change before this found nothing to cut.
fn goes_on_unread(connection: &Connection, peer: &Peer, unread: Unread) -> bool {
    let Arrived {
        actor,
        port,
        registered,
        ..
    } = &connection.arrived;
    registered.set_unread(unread.clone());
    let decider = &connection.stages.decider;
    decider.goes_on(actor.caller(), peer.target(), *port, Some(&unread))
}

/// The request as it is sent on.
fn outgoing(
    request: Request<Received>,
    connection: &Connection,
    upgrade: bool,
    sent: &Arc<Sent>,
) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let asked = parts.headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut parts.headers);
    // The workload's body is asked for when the upstream is ready for it; the expectation is answered then.
    parts.headers.remove(EXPECT);
    if let Some(asked) = asked.filter(|_| upgrade) {
        parts.headers.insert(UPGRADE, asked);
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if parts.version == HttpVersion::HTTP_10 {
        parts.version = HttpVersion::HTTP_11;
    }
    if connection.version == Version::Http1
        && !body.is_end_stream()
        && body.size_hint().exact().is_none()
    {
        // Without it hyper sends no body with methods that rarely have one, such as GET.
        let chunked = HeaderValue::from_static("chunked");
        parts.headers.insert(TRANSFER_ENCODING, chunked);
    }
    let scanner = Scanner::new(&parts.headers);
    let watch = Recognising {
        scanner,
        sent: Arc::clone(sent),
    };
    let body = Drained::new(body, &connection.stages.tasks);
    Request::from_parts(parts, Watched::new(body, watch).boxed_unsync())
}

/// Whether a coding stands between the scanner and what a server would read as JSON.
fn hides_json(request: &Request<Received>) -> bool {
    let coded = request
        .headers()
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let mut kinds = request.headers().get_all(CONTENT_TYPE).iter().peekable();
    let json = kinds.peek().is_none()
        || kinds.any(|kind| {
            let kind = kind.as_bytes().to_ascii_lowercase();
            kind.windows(4).any(|part| part == b"json") || kind.starts_with(b"text/")
        });
    coded && json
}

/// Bytes of an upgraded connection go by unread, for as long as both sides live.
fn tunnel_upgraded(
    connection: &Arc<Connection>,
    mut record: OpenRecord,
    client: hyper::upgrade::OnUpgrade,
    server: hyper::upgrade::OnUpgrade,
) {
    record.tell_inspected(partly("upgraded"), partly("upgraded"));
    let connection = Arc::clone(connection);
    connection.stages.tasks.clone().spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok((client, server)) => (TokioIo::new(client), TokioIo::new(server)),
            Err(error) => return record.fail(&error),
        };
        let traffic = Arc::new(Traffic::default());
        let cut = connection.arrived.registered.cut();
        let ended = tunnel::run(client, server, &[], &traffic, cut).await;
        record.end_tunnel(ended, connection.stages.is_gone(&connection.arrived));
    });
}

/// What became of a request's body so far.
#[derive(Default)]
struct Sent {
    recognised: AtomicBool,
    bytes: AtomicU64,
}

impl Sent {
    fn recognised(&self) -> bool {
        self.recognised.load(Ordering::Acquire)
    }
}

/// Watches a request's body for MCP.
struct Recognising {
    scanner: Scanner,
    sent: Arc<Sent>,
}

impl Watch for Recognising {
    fn data(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.scanner.push(bytes) == Verdict::Mcp {
            self.sent.recognised.store(true, Ordering::Release);
            return Err(SPOKEN);
        }
        let count = bytes.len() as u64;
        self.sent.bytes.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

/// Closes the record when the response has gone by.
struct Closing {
    record: Option<OpenRecord>,
    sent: Arc<Sent>,
    upstream_us: u64,
    bytes: u64,
    /// What it is a part of, where the server fetches.
    fetch: Option<Fetch>,
}

impl Closing {
    fn new(record: OpenRecord, sent: Arc<Sent>, upstream_us: u64, fetch: Option<Fetch>) -> Self {
        Self {
            record: Some(record),
            sent,
            upstream_us,
            bytes: 0,
            fetch,
        }
    }

    fn fetched(&mut self, ended: bool) {
        if let Some(fetch) = self.fetch.take() {
            fetch.over(ended);
        }
    }

    fn take(&mut self) -> Option<OpenRecord> {
        let mut record = self.record.take()?;
        record.tell_request_bytes(self.sent.bytes.load(Ordering::Relaxed));
        record.tell_response_bytes(self.bytes);
        Some(record)
    }
}

impl Drop for Closing {
    /// A response that did not get to its end: the record says how far it came, and closes as abandoned.
    fn drop(&mut self) {
        self.fetched(false);
        if let Some(record) = self.take()
            && self.sent.recognised()
        {
            // The server gave up when the request was cut off.
            record.refuse_with(SPOKEN);
        }
    }
}

impl Watch for Closing {
    fn data(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if let Some(fetch) = &mut self.fetch {
            fetch.data(bytes);
        }
        Ok(())
    }

    fn fail(&mut self, error: &HttpFault) {
        if let Some(record) = self.take() {
            if self.sent.recognised() {
                return record.refuse_with(SPOKEN);
            }
            record.fail(error);
        }
    }

    fn end(&mut self) {
        self.fetched(true);
        if let Some(record) = self.take() {
            if self.sent.recognised() {
                return record.refuse_with(SPOKEN);
            }
            let upstream_us = Some(self.upstream_us);
            drop(record.close(Outcome {
                upstream_us,
                ..Outcome::done()
            }));
        }
    }
}

/// The answer to a request that the upstream did not answer.
pub(super) fn unanswered(mut record: OpenRecord, fault: &SendFault) -> Answer {
    let answer = refusal(told(fault));
    record.tell_status(answer.status());
    match fault {
        SendFault::Refused(refused) => record.refuse(refused),
        SendFault::Mismatch
        | SendFault::Over(_)
        | SendFault::Credential(_)
        | SendFault::Unrecorded(_) => record.refuse_with(fault),
        SendFault::Open(_) | SendFault::Closed | SendFault::Send(_) | SendFault::Timeout => {
            record.fail(fault);
        }
    }
    closing(answer)
}

/// What the caller is told of a fault.
pub(super) fn told(fault: &SendFault) -> Refusal<'static> {
    match fault {
        SendFault::Open(fault) => fault.refusal(),
        SendFault::Refused(refused) if refused.reason() == Reason::Disconnected => {
            Refusal::Disconnected
        }
        SendFault::Refused(_) | SendFault::Mismatch => Refusal::Denied,
        SendFault::Credential(fault) => fault.refusal(),
        SendFault::Unrecorded(_) => Refusal::AuditUnavailable,
        SendFault::Over(over) => over.refusal(),
        SendFault::Send(fault) if fault.is_malformed() => Refusal::Upstream(Upstream::Protocol),
        SendFault::Closed | SendFault::Send(_) => Refusal::Upstream(Upstream::Reset),
        SendFault::Timeout => Refusal::TimedOut(Timeout::Headers),
    }
}

/// Ends the record of an exchange that is refused, and answers it.
pub(super) fn refused(mut record: OpenRecord, told: Refusal<'_>, why: impl Why) -> Answer {
    let answer = refusal(told);
    record.tell_status(answer.status());
    record.refuse_with(why);
    answer
}

/// A refusal as an HTTP answer.
pub(super) fn refusal(refusal: Refusal<'_>) -> Answer {
    let refusal = HttpRefusal::from(refusal);
    json(refusal.status, refusal.body())
}

/// An answer that ends an HTTP/1.1 connection; HTTP/2 sends no such header.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A JSON text as an answer; none for an empty one.
pub(super) fn json(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let text = text.into();
    let empty = text.is_empty();
    let mut answer = Response::new(full(text));
    *answer.status_mut() = status;
    if !empty {
        let kind = HeaderValue::from_static(HttpRefusal::MEDIA_TYPE);
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

/// A body of known bytes.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn empty() -> Body {
    full(Bytes::new())
}
