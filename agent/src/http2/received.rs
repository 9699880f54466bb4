//! A body that comes on a stream: its sender may go on as far as it was read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::{Fault, Reply};

/// A body that comes on a stream.
pub struct Received {
    stream: RecvStream,
    /// Bytes to come, where that was said.
    left: Option<u64>,
    /// All data came; trailers may follow.
    data_over: bool,
    of: Of,
}

/// What a body belongs to.
enum Of {
    /// A request; its sender may wait to be asked for it.
    Request(Option<Reply>),
    /// An answer; the request's own body may still be on its way.
    Answer(Option<AbortHandle>),
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").finish_non_exhaustive()
    }
}

impl Received {
    /// A request's, of `length` bytes if that was said; asked for by `asks` when somebody wants it.
    pub(super) fn request(stream: RecvStream, length: Option<u64>, asks: Option<Reply>) -> Self {
        Self::new(stream, length, Of::Request(asks))
    }

    /// An answer's, while `sending` still sends the request's.
    pub(super) fn answer(
        stream: RecvStream,
        length: Option<u64>,
        sending: Option<AbortHandle>,
    ) -> Self {
        Self::new(stream, length, Of::Answer(sending))
    }

    fn new(stream: RecvStream, length: Option<u64>, of: Of) -> Self {
        let none = stream.is_end_stream().then_some(0);
        Self {
            stream,
            left: length.or(none),
            data_over: false,
            of,
        }
    }

    /// The first wait for data: who waits to be asked for it is asked.
    fn ask(&mut self) {
        if let Of::Request(asks) = &mut self.of
            && let Some(reply) = asks.take()
        {
            reply.proceed();
        }
    }

    /// An end by `error`. A server that has answered may not want the rest of the request, and say so by a reset
    /// without an error (RFC 9113 section 8.1): the answer is whole, unless it said that there is more.
    fn ended(&self, error: h2::Error) -> Option<Result<Frame<Bytes>, Fault>> {
        let stopped = error.is_reset() && error.reason() == Some(Reason::NO_ERROR);
        let whole = matches!(self.of, Of::Answer(_)) && self.left.unwrap_or(0) == 0;
        if stopped && whole {
            None
        } else {
            Some(Err(error.into()))
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if !this.data_over {
            match this.stream.poll_data(cx) {
                Poll::Pending => {
                    this.ask();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(data))) => {
                    if let Of::Request(asks) = &mut this.of {
                        *asks = None;
                    }
                    // Whoever reads has it: as much may follow.
                    if let Err(error) = this.stream.flow_control().release_capacity(data.len()) {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    let length = data.len() as u64;
                    this.left = this.left.map(|left| left.saturating_sub(length));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(this.ended(error)),
                Poll::Ready(None) => this.data_over = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(this.ended(error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    /// Whether the answer is over or nobody wants the rest of it, the rest of the request is not sent: its record ends
    /// with the answer.
    fn drop(&mut self) {
        if let Of::Answer(Some(sending)) = &self.of {
            sending.abort();
        }
    }
}
