//! Answers the links of messages to approvers: opened, a link shows a call and changes nothing; its form decides.

mod form;
mod page;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::approvals::{Fault, carry_out};
use super::{ACCEPT_PAUSE, stop_listening};
use crate::control::command::ApprovalDecision;
use crate::decide::approvals::{Approver, Link, LinkFault, Verdict};
use crate::flow::{Approving, Stages, why_asked};
use crate::telemetry::clock;

/// Time for one connection, from its first byte to the last of its answer.
const WHOLE: Duration = Duration::from_secs(15);
/// Time for a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// Connections at once; others are closed.
const CONNECTIONS: usize = 32;
/// Bytes of a head; the least that hyper takes.
const HEADERS: usize = 8 << 10;
/// What links lead to.
const PATH: &str = "/approvals/";

/// What is answered: a status and a page.
type Answer = (StatusCode, String);

/// Serves links until the gate stops.
pub(super) async fn serve(stages: Arc<Stages>, approving: Arc<Approving>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stages.stopping.cancelled() => return stop_listening(&listener),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection for approvals");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections for approvals at once: one is closed");
            continue;
        };
        let (stages, approving) = (Arc::clone(&stages), Arc::clone(&approving));
        let tasks = stages.tasks.clone();
        tasks.spawn(async move {
            connection(stages, approving, stream).await;
            drop(place);
        });
    }
}

async fn connection(stages: Arc<Stages>, approving: Arc<Approving>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let (stages, approving) = (Arc::clone(&stages), Arc::clone(&approving));
        async move {
            let answer = Box::pin(answer(&stages, &approving, request)).await;
            Ok::<_, Infallible>(response(answer))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WHOLE, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for approvals"),
        Err(_late) => tracing::debug!("a connection for approvals took too long"),
    }
}

fn response((status, page): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The link stays with whoever has it, and nothing but the form on the page acts.
    let policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    response
}

async fn answer(stages: &Stages, approving: &Approving, request: Request<Incoming>) -> Answer {
    let told = |status, text: &str| (status, page::told(text));
    let uri = request.uri();
    let token = uri.path().strip_prefix(PATH);
    let Some(token) = token.filter(|_| uri.query().is_none() && uri.authority().is_none()) else {
        return told(StatusCode::NOT_FOUND, "There is nothing here.");
    };
    let (link, approver) = match approving.read(token, clock::wall()) {
        Ok(read) => read,
        Err(why) => {
            let status = match why {
                LinkFault::Forged | LinkFault::Nobody => StatusCode::FORBIDDEN,
                LinkFault::Expired => StatusCode::GONE,
            };
            return told(status, &why.to_string());
        }
    };
    match *request.method() {
        Method::GET | Method::HEAD => shown(stages, &link),
        Method::POST => match confirmed(request, link.verdict).await {
            Ok(reason) => decided(stages, link, reason, approver).await,
            Err(status) => told(status, "This is not what the form on the page sends."),
        },
        _ => told(
            StatusCode::METHOD_NOT_ALLOWED,
            "Links are opened, or confirmed by their page.",
        ),
    }
}

/// The page of a link. It changes nothing.
fn shown(stages: &Stages, link: &Link) -> Answer {
    let Some((approval, shown)) = stages.approvals.undecided(&link.id) else {
        return over();
    };
    let set = &stages.decider.in_force().set;
    let why = why_asked(set, &approval);
    (
        StatusCode::OK,
        page::question(link, &approval, shown.as_ref(), why.as_deref()),
    )
}

fn over() -> Answer {
    let text =
        "Nothing waits here any more: it is decided, its time is over, or its caller has gone.";
    (StatusCode::GONE, page::told(text))
}

/// The reason that a request gives which is what the form sends; a page elsewhere or a program that follows links sends no
/// such thing.
async fn confirmed(
    request: Request<Incoming>,
    verdict: Verdict,
) -> Result<Option<String>, StatusCode> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.map(HeaderValue::as_bytes) != Some(b"application/x-www-form-urlencoded") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let body = Limited::new(request.into_body(), form::LONGEST)
        .collect()
        .await;
    let sent = body.map_err(|_other| StatusCode::BAD_REQUEST)?.to_bytes();
    form::read(&sent, verdict).map_err(|_malformed| StatusCode::BAD_REQUEST)
}

async fn decided(
    stages: &Stages,
    link: Link,
    reason: Option<String>,
    approver: &Approver,
) -> Answer {
    let decision = ApprovalDecision {
        id: link.id,
        verdict: link.verdict,
        reason,
    };
    match carry_out(stages, decision, approver, "link").await {
        Ok(decided) => {
            let word = match decided.decision {
                Verdict::Approve => "approved",
                Verdict::Deny => "denied",
            };
            let text = format!("{} of {} is {word}.", decided.tool, decided.server);
            (StatusCode::OK, page::told(&text))
        }
        Err(fault @ (Fault::Unrecorded(_) | Fault::NotKept(_))) => (
            StatusCode::SERVICE_UNAVAILABLE,
            page::told(&crate::control::chain(&fault)),
        ),
        Err(Fault::Undecided(_)) => over(),
    }
}
