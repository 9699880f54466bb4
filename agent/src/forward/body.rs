//! Bodies on their way: counted, watched for MCP where none is registered, cut at a limit.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub enum BodyFault {
    /// The sender failed.
    #[error("reading the body")]
    Read(#[source] hyper::Error),
    /// What was seen must not go on.
    #[error("the body was stopped: {0}")]
    Stopped(&'static str),
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
}

/// A body that is watched while it passes; the watcher is dropped with it, whatever happens.
pub struct Watched<W> {
    inner: Incoming,
    watch: W,
    ended: bool,
}

impl<W> fmt::Debug for Watched<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl<W: Watch> Watched<W> {
    /// Watches `inner`. A body that is empty from the start has ended.
    pub fn new(inner: Incoming, mut watch: W) -> Self {
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

impl<W: Watch + Unpin> HttpBody for Watched<W> {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let frame = match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyFault::Read(error)))),
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
