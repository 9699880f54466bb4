//! What the well-behaved server answers, by path.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | JSON of the request as it arrived |
//! | `/big?bytes=N` | N bytes in pieces of 64 KiB (default 1 MiB) |
//! | `/sse?events=N&every_ms=M` | an event stream (default 3, 0) |
//! | `/trailers` | a body with the trailer `x-checksum` |
//! | `/slow?ms=N` | like `/echo`, after N milliseconds (default 1000) |
//! | `/upload` | `{"bytes": N}`, after the whole body |
//! | `/status?code=N` | that status |
//! | `/redirect?to=URL` | 307 to URL |
//! | `/upgrade` | 101, then sends back what it gets (HTTP/1.1) |
//! | `/mcp` | a minimal MCP server: any request gets a result of 200 bytes |
//! | others | the bytes that a test has put there, or else 404 |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, LOCATION, TRAILER, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{copy, split};
use tokio::time::sleep;

use super::written::{Writer, written};
use super::{Memory, Peer, Seen};

type Body = BoxBody<Bytes, Infallible>;

/// How much of a body is kept, in bytes.
const KEPT: usize = 1024 * 1024;

/// The size of a piece of a streamed answer, in bytes.
const PIECE: usize = 64 * 1024;

pub(super) async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    memory: Arc<Memory>,
) -> Result<Response<Body>, Infallible> {
    let index = note(&request, peer, &memory);
    let upgrade = (request.uri().path() == "/upgrade").then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let seen = read(body, index, &memory).await;
    let query = head.uri.query().unwrap_or_default().to_owned();
    if let Some(response) = unauthorized(head.uri.path(), &head.headers, &memory) {
        let is_head = head.method == Method::HEAD;
        return Ok(if is_head { bare(response) } else { response });
    }
    let response = match head.uri.path() {
        "/echo" => of(json!(seen)),
        "/big" => big(number(&query, "bytes", KEPT as u64)),
        "/sse" => events(number(&query, "events", 3), number(&query, "every_ms", 0)),
        "/trailers" => trailers(),
        "/slow" => {
            sleep(Duration::from_millis(number(&query, "ms", 1000))).await;
            of(json!(seen))
        }
        "/upload" => of(json!({ "bytes": seen.as_ref().map(|seen| seen.body_bytes) })),
        "/status" => {
            let code = u16::try_from(number(&query, "code", 200)).unwrap_or(500);
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            with(of(json!({ "status": code })), status)
        }
        "/redirect" => redirect(&query),
        "/upgrade" => switch(upgrade),
        "/mcp" => mcp(seen.as_ref()),
        path => match memory.file(path) {
            Some((kind, bytes)) => {
                let mut response = Response::new(full(bytes));
                let kind = HeaderValue::from_static(kind);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            None => with(
                of(json!({ "error": "no such path" })),
                StatusCode::NOT_FOUND,
            ),
        },
    };
    Ok(if head.method == Method::HEAD {
        bare(response)
    } else {
        response
    })
}

/// What is said to those who do not show what is wanted.
fn unauthorized(path: &str, headers: &HeaderMap, memory: &Memory) -> Option<Response<Body>> {
    let challenge = memory.challenge().filter(|_| path.starts_with("/v2/"))?;
    let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if shown == Some(challenge.authorization.as_bytes()) {
        return None;
    }
    let mut response = with(of(json!({ "errors": [] })), StatusCode::UNAUTHORIZED);
    let says = HeaderValue::from_str(&challenge.says).ok()?;
    response.headers_mut().insert(WWW_AUTHENTICATE, says);
    Some(response)
}

/// In HTTP/2 hyper would send the body of an answer to HEAD.
fn bare(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact() {
        let length = HeaderValue::from(length);
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    response.map(|_unsent| full(Bytes::new()))
}

/// Records the head at once, so that a request whose body never ends is seen too.
fn note(request: &Request<Incoming>, peer: Peer, memory: &Memory) -> usize {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|value| value.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or(host);
    let mut all = memory.requests();
    all.push(Seen {
        connection: peer.connection,
        peer: peer.address,
        server_name: peer.server_name,
        alpn: peer.alpn,
        version: format!("{:?}", request.version()),
        method: request.method().to_string(),
        authority: authority.map(str::to_owned),
        path: request
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: pairs(request.headers()),
        body: Bytes::new(),
        body_bytes: 0,
        trailers: Vec::new(),
        complete: false,
    });
    all.len() - 1
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    headers.iter().map(pair).collect()
}

/// Reads the body to its end and completes the record; `None` where the test has forgotten it.
async fn read(mut body: Incoming, index: usize, memory: &Memory) -> Option<Seen> {
    let mut kept = BytesMut::new();
    let (mut length, mut trailers, mut complete) = (0, Vec::new(), true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            complete = false;
            break;
        };
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            let room = KEPT.saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(data.get(..room).unwrap_or_default());
        } else if let Some(last) = frame.trailers_ref() {
            trailers = pairs(last);
        }
    }
    let mut all = memory.requests();
    let seen = all.get_mut(index)?;
    seen.body = kept.freeze();
    seen.body_bytes = length;
    seen.trailers = trailers;
    seen.complete = complete;
    Some(seen.clone())
}

fn number(query: &str, name: &str, otherwise: u64) -> u64 {
    value(query, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

fn value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed()
}

fn of(value: Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn with(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

/// A body that a task writes; the task ends with the connection, when nobody reads any more.
fn streamed() -> (Writer, Response<Body>) {
    let (writer, body) = written(4);
    (writer, Response::new(body))
}

fn big(bytes: u64) -> Response<Body> {
    let (sender, response) = streamed();
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b'x'; PIECE]);
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            if sender.send_data(piece.slice(..length)).await.is_err() {
                return;
            }
            left -= length as u64;
        }
    });
    response
}

fn events(count: u64, every: u64) -> Response<Body> {
    let (sender, mut response) = streamed();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    tokio::spawn(async move {
        for number in 1..=count {
            let event = format!("id: {number}\nevent: message\ndata: {{\"number\":{number}}}\n\n");
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
            if every > 0 {
                sleep(Duration::from_millis(every)).await;
            }
        }
    });
    response
}

fn trailers() -> Response<Body> {
    let (sender, mut response) = streamed();
    response
        .headers_mut()
        .insert(TRAILER, HeaderValue::from_static("x-checksum"));
    tokio::spawn(async move {
        let mut last = HeaderMap::new();
        last.insert("x-checksum", HeaderValue::from_static("abc123"));
        if sender
            .send_data(Bytes::from_static(b"with a trailer"))
            .await
            .is_ok()
        {
            // The peer may have gone; then nobody misses it.
            let _sent = sender.send_trailers(last).await;
        }
    });
    response
}

fn redirect(query: &str) -> Response<Body> {
    let target = value(query, "to").and_then(|to| HeaderValue::from_str(to).ok());
    let mut response = with(of(json!({})), StatusCode::TEMPORARY_REDIRECT);
    if let Some(target) = target {
        response.headers_mut().insert(LOCATION, target);
    }
    response
}

fn switch(upgrade: Option<hyper::upgrade::OnUpgrade>) -> Response<Body> {
    if let Some(upgrade) = upgrade {
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            let (mut from, mut to) = split(TokioIo::new(stream));
            // Ends when either side does.
            let _copied = copy(&mut from, &mut to).await;
        });
    }
    let mut response = with(Response::new(full("")), StatusCode::SWITCHING_PROTOCOLS);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

fn mcp(seen: Option<&Seen>) -> Response<Body> {
    let message: Option<Value> = seen.and_then(|seen| serde_json::from_slice(&seen.body).ok());
    let Some(id) = message
        .as_ref()
        .and_then(|message| message.get("id"))
        .cloned()
    else {
        return with(Response::new(full("")), StatusCode::ACCEPTED);
    };
    let content = json!([{ "type": "text", "text": "x".repeat(90) }]);
    of(
        json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content, "resultType": "complete" } }),
    )
}
