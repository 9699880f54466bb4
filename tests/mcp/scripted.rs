//! An MCP server that says what a test tells it to, and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use exeat_tests::Lab;
use exeat_tests::authority::Fault;
pub(crate) use exeat_tests::upstream::Writer;
use exeat_tests::upstream::written;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Script = Arc<dyn Fn(&Asked) -> Response<Body> + Send + Sync>;

/// The server; it ends on drop.
pub(crate) struct Scripted {
    seen: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Serves HTTPS as `name` at `address` of the world.
    pub(crate) fn far(
        lab: &Lab,
        name: &str,
        address: SocketAddr,
        script: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    ) -> Result<Self> {
        let leaf = lab.authority.leaf(&[name], Fault::Sound)?;
        let config = leaf.server(&["h2", "http/1.1"], None)?;
        lab.dns.points(name, &[address.ip()]);
        let listener = lab.outside.listen(address)?;
        Ok(Self::serve(listener, Some(config.into()), Arc::new(script)))
    }

    /// Serves plain HTTP on loopback inside.
    pub(crate) fn near(
        lab: &Lab,
        address: SocketAddr,
        script: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(Self::serve(
            lab.inside.listen(address)?,
            None,
            Arc::new(script),
        ))
    }

    /// What arrived, in order.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.lock().clone()
    }

    /// What arrived since the last call.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Asked>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, script: Script) -> Self {
        let seen = Arc::<Mutex<Vec<Asked>>>::default();
        let memory = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, script, memory) = (tls.clone(), Arc::clone(&script), Arc::clone(&memory));
                tasks.spawn(async move {
                    let _small = stream.set_nodelay(true);
                    let Some(tls) = tls else {
                        return connection(stream, false, script, memory).await;
                    };
                    if let Ok(stream) = tls.accept(stream).await {
                        let second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        connection(stream, second, script, memory).await;
                    }
                });
            }
        });
        Self { seen, task }
    }
}

async fn connection<S>(stream: S, second: bool, script: Script, seen: Arc<Mutex<Vec<Asked>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await else {
                return Ok::<_, Infallible>(status(StatusCode::BAD_REQUEST));
            };
            let asked = Asked {
                method: head.method,
                path: head
                    .uri
                    .path_and_query()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                headers: head.headers,
                body: body.to_bytes(),
            };
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(asked.clone());
            Ok(script(&asked))
        }
    });
    // A client that goes away is what some tests are about.
    let io = TokioIo::new(stream);
    if second {
        let _ended = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ended = http1::Builder::new().serve_connection(io, service).await;
    }
}

/// A JSON text.
pub(crate) fn text(content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The result of what was asked.
pub(crate) fn result(asked: &Asked, result: Value) -> Response<Body> {
    let answer = json!({ "jsonrpc": "2.0", "id": asked.json()["id"], "result": result });
    text(answer.to_string())
}

/// A status without a body.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = status;
    response
}

/// An event stream, and what writes into it.
pub(crate) fn stream() -> (Writer, Response<Body>) {
    let (writer, body) = written(64);
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    (writer, response)
}

/// One event.
pub(crate) fn event(message: &Value) -> Bytes {
    format!("event: message\ndata: {message}\n\n").into()
}

/// What a well-behaved server answers: anything to a request, 202 to the rest, 405 to GET.
pub(crate) fn plain(asked: &Asked) -> Response<Body> {
    match asked.json() {
        Value::Array(entries) => {
            let answers: Vec<Value> = entries
                .iter()
                .filter(|entry| entry.get("id").is_some())
                .map(|entry| json!({ "jsonrpc": "2.0", "id": entry["id"], "result": {} }))
                .collect();
            text(json!(answers).to_string())
        }
        _ if asked.method != Method::POST => status(StatusCode::METHOD_NOT_ALLOWED),
        message if message.get("id").is_some() && message.get("method").is_some() => result(
            asked,
            json!({ "content": [{ "type": "text", "text": "ok" }] }),
        ),
        _ => status(StatusCode::ACCEPTED),
    }
}
