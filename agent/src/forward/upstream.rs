//! HTTP towards the upstream: one connection for each client connection, HTTP/1.1 or HTTP/2 as agreed.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::audit::Intended;
use crate::forward::body::BodyFault;

/// A body on its way to either side.
pub type Body = UnsyncBoxBody<Bytes, BodyFault>;

/// HTTP versions that the gate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// The sending half of an upstream connection.
pub enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<Body>),
    /// Many at a time.
    Http2(http2::SendRequest<Body>),
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = match self {
            Self::Http1(_) => Version::Http1,
            Self::Http2(_) => Version::Http2,
        };
        f.debug_struct("Sender")
            .field("version", &version)
            .finish_non_exhaustive()
    }
}

/// Header bytes of a response beyond which it is refused.
const HEADER_BYTES: usize = 64 * 1024;
/// Windows large enough that a megabyte does not wait for acknowledgements; one client connection has one
/// upstream connection, so they are not multiplied.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

impl Sender {
    /// Starts HTTP on `stream`; the connection's own task is tracked by `tasks`.
    ///
    /// # Errors
    /// hyper's, when the stream is closed or does not speak the version.
    pub async fn start<S>(
        stream: S,
        version: Version,
        tasks: &TaskTracker,
    ) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        match version {
            Version::Http1 => {
                let (sender, connection) = http1::Builder::new()
                    .max_header_size(HEADER_BYTES)
                    .handshake(io)
                    .await?;
                tasks.spawn(async move { note(connection.with_upgrades().await) });
                Ok(Self::Http1(sender))
            }
            Version::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
                    .handshake(io)
                    .await?;
                tasks.spawn(async move { note(connection.await) });
                Ok(Self::Http2(sender))
            }
        }
    }

    /// Whether a request may still be sent on it.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// hyper's, when the connection has ended.
    pub async fn ready(&mut self) -> Result<(), hyper::Error> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Sends `request`; the returned future waits for the head of the response.
    pub fn send(
        &mut self,
        _intended: Intended<'_>,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, hyper::Error>> + Send + use<> {
        enum Either<A, B> {
            Http1(A),
            Http2(B),
        }
        let sent = match self {
            Self::Http1(sender) => Either::Http1(sender.send_request(request)),
            Self::Http2(sender) => Either::Http2(sender.send_request(request)),
        };
        async move {
            match sent {
                Either::Http1(response) => response.await,
                Either::Http2(response) => response.await,
            }
        }
    }
}

/// The exchange that was under way reports the same error; this is for those who read the log.
fn note(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an upstream connection ended");
    }
}
