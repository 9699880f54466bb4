//! An HTTP server that records what arrives: plain or behind TLS, HTTP/1.1 and HTTP/2, well-behaved or not.

mod answers;
mod broken;
mod written;

use std::collections::HashMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use serde::{Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use self::written::{Gone, Writer, written};

/// How a server behaves once a connection is there (after the handshake, where there is one).
#[derive(Debug, Clone)]
pub enum Manner {
    /// Answers by path; see [`answers`](self) for the paths.
    Http,
    /// Reads one request's head and sends these bytes, whatever they are; then closes.
    Script(Bytes),
    /// Accepts, reads, and never says a word.
    Silent,
    /// Resets the connection as soon as a byte arrives.
    Reset,
}

/// One request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Counts the server's connections from 1.
    pub connection: u64,
    /// Who connected.
    pub peer: SocketAddr,
    /// The name in the `ClientHello`.
    pub server_name: Option<String>,
    /// The protocol agreed by ALPN.
    pub alpn: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The method.
    pub method: String,
    /// `:authority` or the `Host` header.
    pub authority: Option<String>,
    /// Path and query, as sent.
    pub path: String,
    /// All headers, in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body so far; at most its first MiB.
    #[serde(serialize_with = "lossy")]
    pub body: Bytes,
    /// The body's length so far, in bytes.
    pub body_bytes: u64,
    /// Trailers, where there were any.
    pub trailers: Vec<(String, String)>,
    /// Whether the whole body has arrived.
    pub complete: bool,
}

impl Seen {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn lossy<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// A media type and the bytes.
type File = (&'static str, Bytes);

/// What a server remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    failed: Mutex<Vec<String>>,
    files: Mutex<HashMap<String, File>>,
    challenge: Mutex<Option<Challenge>>,
}

/// What a server wants to see below `/v2/`, and what it says to those who do not show it.
#[derive(Debug, Clone)]
pub(crate) struct Challenge {
    pub(crate) authorization: String,
    pub(crate) says: String,
}

impl Memory {
    pub(crate) fn requests(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn file(&self, path: &str) -> Option<File> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(path).cloned()
    }

    pub(crate) fn challenge(&self) -> Option<Challenge> {
        let challenge = self.challenge.lock();
        challenge.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, what: String) {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }
}

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) connection: u64,
    pub(crate) address: SocketAddr,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<String>,
}

/// The server; it and its connections end on drop.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    memory: Arc<Memory>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Serves `listener`, behind TLS where `tls` is given.
    pub fn serve(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        manner: Manner,
    ) -> Result<Self> {
        let address = listener.local_addr().context("read a listener's address")?;
        let memory = Arc::new(Memory::default());
        let acceptor = tls.map(TlsAcceptor::from);
        let task = tokio::spawn(accept(listener, acceptor, manner, Arc::clone(&memory)));
        Ok(Self {
            address,
            memory,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order in which their heads arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.memory.requests().clone()
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> u64 {
        self.memory.connections.load(Ordering::SeqCst)
    }

    /// Why connections ended early (handshakes that failed, broken framing); over HTTP/2 a client may leave at any time.
    pub fn failed(&self) -> Vec<String> {
        self.memory
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on it answers `path` with these bytes, as this media type.
    pub fn put(&self, path: &str, kind: &'static str, bytes: impl Into<Bytes>) {
        let mut files = self
            .memory
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        files.insert(path.to_owned(), (kind, bytes.into()));
    }

    /// From now on it answers 401 and `WWW-Authenticate: SAYS` below `/v2/` to those without this `Authorization`, as
    /// registries of images do.
    pub fn challenge(&self, authorization: &str, says: &str) {
        let challenge = Challenge {
            authorization: authorization.to_owned(),
            says: says.to_owned(),
        };
        *self
            .memory
            .challenge
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(challenge);
    }

    /// Forgets the requests and failures so far; connections go on being counted.
    pub fn forget(&self) {
        self.memory.requests().clear();
        self.memory
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    manner: Manner,
    memory: Arc<Memory>,
) {
    // Dropped with this task, and every connection with it.
    let mut tasks = JoinSet::new();
    while let Ok((stream, address)) = listener.accept().await {
        let connection = memory.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let peer = Peer {
            connection,
            address,
            server_name: None,
            alpn: None,
        };
        let (acceptor, manner, memory) = (acceptor.clone(), manner.clone(), Arc::clone(&memory));
        tasks.spawn(async move {
            if let Err(error) = connection_of(stream, acceptor, manner, peer, &memory).await {
                memory.fail(format!("{error:#}"));
            }
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn connection_of(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    manner: Manner,
    mut peer: Peer,
    memory: &Arc<Memory>,
) -> Result<()> {
    stream
        .set_nodelay(true)
        .context("send small writes at once")?;
    if matches!(manner, Manner::Reset) {
        return broken::reset(stream).await;
    }
    let Some(acceptor) = acceptor else {
        return serve(stream, manner, peer, memory).await;
    };
    let stream = acceptor.accept(stream).await.context("shake hands")?;
    let (_, session) = stream.get_ref();
    peer.server_name = session.server_name().map(str::to_owned);
    peer.alpn = session
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    serve(stream, manner, peer, memory).await
}

async fn serve<S>(stream: S, manner: Manner, peer: Peer, memory: &Arc<Memory>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match manner {
        Manner::Http => http(stream, peer, memory).await,
        Manner::Script(bytes) => broken::script(stream, &bytes, &peer, memory).await,
        Manner::Silent | Manner::Reset => broken::silent(stream).await,
    }
}

/// Whether the client closed its connection before it took what was still to be said there. One that has its answers
/// owes nobody to wait for a last frame (an acknowledgement, a window).
fn has_left(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|error| error.downcast_ref());
    cause
        .and_then(h2::Error::get_io)
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

async fn http<S>(stream: S, peer: Peer, memory: &Arc<Memory>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let modern = peer.alpn.as_deref() == Some("h2");
    let memory = Arc::clone(memory);
    let service = service_fn(move |request| {
        let (peer, memory) = (peer.clone(), Arc::clone(&memory));
        async move { answers::answer(request, peer, memory).await }
    });
    let stream = TokioIo::new(stream);
    if modern {
        let server = http2::Builder::new(TokioExecutor::new());
        match server.serve_connection(stream, service).await {
            Err(error) if has_left(&error) => Ok(()),
            done => done.context("serve HTTP/2"),
        }
    } else {
        let server = http1::Builder::new();
        server
            .serve_connection(stream, service)
            .with_upgrades()
            .await
            .context("serve HTTP/1.1")
    }
}
