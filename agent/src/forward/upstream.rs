//! HTTP towards the upstream: one connection for each client connection, HTTP/1.1 or HTTP/2 as agreed.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::audit::Intended;
use crate::forward::body::{BodyFault, HttpFault, Received};
use crate::http2;

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
    Http2(http2::Client),
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

/// What sees the interim answers to a request that nobody wants to hear of.
pub type Unheard = fn(StatusCode, &HeaderMap);

impl Sender {
    /// Starts HTTP on `stream`; the connection's own task is tracked by `tasks`.
    ///
    /// # Errors
    /// [`HttpFault`], when the stream is closed or does not speak the version.
    pub async fn start<S>(
        stream: S,
        version: Version,
        tasks: &TaskTracker,
    ) -> Result<Self, HttpFault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match version {
            Version::Http1 => {
                let io = TokioIo::new(stream);
                let (sender, connection) = http1::Builder::new()
                    .max_header_size(HEADER_BYTES)
                    .handshake(io)
                    .await?;
                tasks.spawn(async move { note(connection.with_upgrades().await) });
                Ok(Self::Http1(sender))
            }
            Version::Http2 => {
                let client = http2::Client::start(stream, HEADER_BYTES, tasks).await?;
                Ok(Self::Http2(client))
            }
        }
    }

    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// [`HttpFault`], when the connection has ended.
    pub async fn ready(&mut self) -> Result<(), HttpFault> {
        match self {
            Self::Http1(sender) => sender.ready().await?,
            Self::Http2(client) => client.ready().await?,
        }
        Ok(())
    }

    /// Sends `request`; the returned future waits for the head of the response, and `interim` sees what comes before
    /// it (1xx).
    pub fn send<I>(
        &mut self,
        _intended: Intended<'_>,
        mut request: Request<Body>,
        interim: Option<I>,
    ) -> impl Future<Output = Result<Response<Received>, HttpFault>> + Send + use<I>
    where
        I: Fn(StatusCode, &HeaderMap) + Send + Sync + 'static,
    {
        enum Either<A, B> {
            Http1(A),
            Http2(B),
        }
        let sent = match self {
            Self::Http1(sender) => {
                if let Some(interim) = interim {
                    hyper::ext::on_informational(&mut request, move |answer| {
                        interim(answer.status(), answer.headers());
                    });
                }
                Either::Http1(sender.send_request(request))
            }
            Self::Http2(client) => Either::Http2(client.send(request, interim)),
        };
        async move {
            Ok(match sent {
                Either::Http1(response) => response.await?.map(Received::Http1),
                Either::Http2(response) => response.await?.map(Received::Http2),
            })
        }
    }
}

/// The exchange that was under way reports the same error; this is for those who read the log.
fn note(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an upstream connection ended");
    }
}
