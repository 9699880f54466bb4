//! Asking a listener whether it speaks MCP, politely: one connection at a time to each, few requests, small
//! answers, and a session that was opened is closed.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For each request, its answer's beginning included.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// Where servers listen by convention.
const PATHS: [&str; 3] = ["/mcp", "/sse", "/"];

/// What a listener that speaks MCP said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The path at which it answered.
    pub path: &'static str,
    /// Its name, as it says.
    pub name: Option<String>,
}

/// Asks; `None`: it does not speak MCP where it was asked.
pub(super) async fn ask(address: SocketAddr) -> Option<Spoken> {
    for path in PATHS {
        match timeout(PATIENCE.saturating_mul(4), at(address, path)).await {
            Ok(Some(Answer::Mcp(name))) => return Some(Spoken { path, name }),
            Ok(Some(Answer::Http)) => {}
            // Whoever does not speak HTTP is not asked again.
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

enum Answer {
    /// MCP, with the server's name.
    Mcp(Option<String>),
    /// HTTP, and no MCP here.
    Http,
}

async fn at(address: SocketAddr, path: &'static str) -> Option<Answer> {
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "exeat-discover", "version": env!("CARGO_PKG_VERSION") },
        },
    });
    let asked = exchange(address, post(address, path, &initialize, &[])?).await?;
    let told = judge(&asked);
    if let Some(session) = asked.headers.get("mcp-session-id") {
        let request = base(address, Method::DELETE, path).header("mcp-session-id", session);
        let request = request.body(Full::default()).ok()?;
        if exchange(address, request).await.is_none() {
            tracing::debug!(%address, "the session was not closed");
        }
    }
    if let Told::Mcp(name) = told {
        return Some(Answer::Mcp(name));
    }
    if matches!(told, Told::Rpc) {
        // Of the revision without `initialize`, or no MCP at all.
        let discover = json!({
            "jsonrpc": "2.0", "id": 2, "method": "server/discover",
            "params": { "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            } },
        });
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "server/discover"),
        ];
        let asked = exchange(address, post(address, path, &discover, &headers)?).await?;
        if let Told::Mcp(name) = judge(&asked) {
            return Some(Answer::Mcp(name));
        }
    }
    if path == "/sse" {
        let request = base(address, Method::GET, path).header(ACCEPT, "text/event-stream");
        let asked = exchange(address, request.body(Full::default()).ok()?).await?;
        if asked.is_stream()
            && asked
                .text
                .lines()
                .any(|line| line.trim_end() == "event: endpoint")
        {
            return Some(Answer::Mcp(None));
        }
    }
    Some(Answer::Http)
}

fn base(address: SocketAddr, method: Method, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
}

fn post(
    address: SocketAddr,
    path: &str,
    message: &Value,
    headers: &[(&str, &str)],
) -> Option<Request<Full<Bytes>>> {
    let mut builder = base(address, Method::POST, path)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::from(message.to_string())).ok()
}

/// An answer's head, and as much of its body as came in time.
struct Asked {
    headers: HeaderMap,
    text: String,
}

impl Asked {
    fn is_stream(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
    }
}

/// One request on a connection of its own; `None`: nobody there speaks HTTP.
async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Asked> {
    let stream = timeout(PATIENCE, TcpStream::connect(address))
        .await
        .ok()?
        .ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut answer = pin!(converse(sender, request));
    // Both end together: nothing goes on in the background.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            tracing::debug!(%address, ?ended, "a connection ended");
            // What came before its end is there to be read.
            answer.await
        }
    }
}

async fn converse(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Option<Asked> {
    let response = timeout(PATIENCE, sender.send_request(request))
        .await
        .ok()?
        .ok()?;
    let (head, body) = response.into_parts();
    let text = beginning(Response::from_parts(head.clone(), body)).await;
    Some(Asked {
        headers: head.headers,
        text,
    })
}

/// A stream stays open: its first message is enough.
async fn beginning(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
            let message = holds_message(&bytes);
            if bytes.len() >= MAX_ANSWER || message {
                break;
            }
        }
    };
    if timeout(PATIENCE, read).await.is_err() {
        tracing::debug!("an answer did not end in time");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether an event that says something is complete; the first one may only name a place to go on from
/// (2025-11-25, "Resumability").
fn holds_message(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).replace('\r', "");
    let mut events: Vec<&str> = text.split("\n\n").collect();
    // What follows the last blank line is not complete.
    events.pop();
    let says = |line: &str| {
        line.strip_prefix("data:")
            .is_some_and(|data| !data.trim().is_empty())
    };
    events.iter().any(|event| event.lines().any(says))
}

enum Told {
    Mcp(Option<String>),
    /// JSON-RPC that may be anything.
    Rpc,
    Other,
}

fn judge(asked: &Asked) -> Told {
    let text = if asked.is_stream() {
        let data = asked
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"));
        data.map(str::trim)
            .find(|data| !data.is_empty())
            .unwrap_or_default()
    } else {
        asked.text.as_str()
    };
    let Ok(message) = serde_json::from_str::<Value>(text) else {
        return Told::Other;
    };
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Told::Other;
    }
    let result = message.get("result");
    let of = |key: &str| result.and_then(|result| result.get(key));
    let legacy = of("protocolVersion").is_some_and(Value::is_string) && of("serverInfo").is_some();
    let modern = of("supportedVersions").is_some_and(Value::is_array);
    if !legacy && !modern {
        return Told::Rpc;
    }
    let meta = of("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/serverInfo"));
    let information = of("serverInfo").or(meta);
    let name = information
        .and_then(|of| of.get("name"))
        .and_then(Value::as_str);
    Told::Mcp(name.map(|name| name.chars().take(64).collect()))
}
