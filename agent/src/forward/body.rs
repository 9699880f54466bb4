//! Bodies on their way: counted, watched for MCP where none is registered, cut at a limit.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::Reason;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::http2;

/// How much of an unwanted body is read, in bytes, and for how long.
const UNWANTED: usize = 16 << 20;
const UNWANTED_FOR: Duration = Duration::from_secs(5);

/// Why HTTP with a peer failed.
#[derive(Debug, Error)]
pub enum HttpFault {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] http2::Fault),
}

impl HttpFault {
    /// Whether what the peer sent is not HTTP.
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_parse(),
            Self::Http2(fault) => fault.is_malformed(),
        }
    }
}

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub enum BodyFault {
    /// The sender failed.
    #[error("reading the body")]
    Read(#[source] HttpFault),
    /// What was seen must not go on.
    #[error("the body was stopped: {0}")]
    Stopped(&'static str),
}

impl http2::Resets for BodyFault {
    fn reason(&self) -> Reason {
        match self {
            Self::Read(HttpFault::Http2(fault)) => fault.reason(),
            Self::Read(HttpFault::Http1(_)) | Self::Stopped(_) => Reason::INTERNAL_ERROR,
        }
    }
}

/// A body as a peer sends it.
#[derive(Debug)]
pub enum Received {
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over HTTP/2.
    Http2(http2::Received),
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = HttpFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFault>>> {
        match &mut *self {
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(HttpFault::from)))
            }
            Self::Http2(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(HttpFault::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// What looks at a body as it passes.
pub trait Watch: Send + 'static {
    /// Sees the next bytes before they are sent on; an error stops the body before them.
    ///
    /// # Errors
    /// The reason, for the record.
    fn data(&mut self, bytes: &[u8]) -> Result<(), &'static str>;
    /// The body ended as it should.
    fn end(&mut self) {}
    /// Its sender failed.
    fn fail(&mut self, _error: &HttpFault) {}
}

/// A request's body whose rest is read and forgotten when nobody wants it any more. Left unread, HTTP/2 resets the
/// stream, and clients (curl among them) lose the answer that says why.
pub struct Drained {
    inner: Option<Received>,
    tasks: TaskTracker,
}

impl fmt::Debug for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained").finish_non_exhaustive()
    }
}

impl Drained {
    /// A body of a workload; what reads its rest is tracked by `tasks`.
    pub fn new(inner: Received, tasks: &TaskTracker) -> Self {
        Self {
            inner: Some(inner),
            tasks: tasks.clone(),
        }
    }

    /// From here on the rest is left unread: the sender waits to be asked for it.
    pub fn leave(mut self) {
        self.inner = None;
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.inner.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime the connection ends as well.
        if let Ok(runtime) = Handle::try_current() {
            self.tasks.spawn_on(discard(body), &runtime);
        }
    }
}

async fn discard(mut body: Received) {
    let read = async {
        let mut left = UNWANTED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = match left.checked_sub(length) {
                Some(left) => left,
                None => return,
            };
        }
    };
    // Late or too large: the stream is reset after all.
    drop(timeout(UNWANTED_FOR, read).await);
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = HttpFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFault>>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.inner.as_ref().map_or_else(none, HttpBody::size_hint)
    }
}

/// A body that is watched while it passes; the watcher is dropped with it, whatever happens.
pub struct Watched<W, B = Received> {
    inner: B,
    watch: W,
    ended: bool,
}

impl<W, B> fmt::Debug for Watched<W, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl<W: Watch, B: HttpBody> Watched<W, B> {
    /// Watches `inner`. A body that is empty from the start has ended.
    pub fn new(inner: B, mut watch: W) -> Self {
        let ended = inner.is_end_stream();
        if ended {
            watch.end();
        }
        Self {
            inner,
            watch,
            ended,
        }
    }
}

impl<W, B> HttpBody for Watched<W, B>
where
    W: Watch + Unpin,
    B: HttpBody<Data = Bytes, Error = HttpFault> + Unpin,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                this.watch.fail(&error);
                return Poll::Ready(Some(Err(BodyFault::Read(error))));
            }
            None => {
                if !this.ended {
                    this.ended = true;
                    this.watch.end();
                }
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref()
            && let Err(why) = this.watch.data(data.chunk())
        {
            return Poll::Ready(Some(Err(BodyFault::Stopped(why))));
        }
        if this.inner.is_end_stream() && !this.ended {
            // hyper does not poll a body that says that it has ended.
            this.ended = true;
            this.watch.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
