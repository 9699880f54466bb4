//! A body on its way into a stream, as far as the peer's windows let it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;

/// An error of a body that says with what reason the stream ends that the body was for.
pub trait Resets {
    /// The reason.
    fn reason(&self) -> Reason;
}

/// Sends a body to its end, or resets the stream. Ends early when the peer does not want it, and dropped early it
/// leaves the stream to be reset by whoever else holds it.
pub(super) struct Pipe<B> {
    body: B,
    to: SendStream<Bytes>,
    /// What waits for room, and whether it is the last.
    held: Option<(Bytes, bool)>,
}

impl<B> Pipe<B> {
    pub(super) fn new(body: B, to: SendStream<Bytes>) -> Self {
        Self {
            body,
            to,
            held: None,
        }
    }
}

impl<B: Body<Data = Bytes, Error: Resets> + Unpin> Pipe<B> {
    /// Takes the next step; whether it was the last.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
        // Asked for first, so that a peer that wants no more is heard while something else is waited for.
        if let Poll::Ready(reason) = self.to.poll_reset(cx) {
            return Poll::Ready(reason.map(|_reason| true));
        }
        if self.held.is_some() {
            if !ready!(self.poll_room(cx))? {
                return Poll::Ready(Ok(true));
            }
            return Poll::Ready(match self.held.take() {
                Some((data, last)) => self.to.send_data(data, last).map(|()| last),
                None => Ok(false),
            });
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.to.send_reset(error.reason());
                return Poll::Ready(Ok(true));
            }
            None => return Poll::Ready(self.to.send_data(Bytes::new(), true).map(|()| true)),
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                let last = self.body.is_end_stream();
                if data.is_empty() && !last {
                    return Poll::Ready(Ok(false));
                }
                // Only what is in hand is asked for, and little of it: what one stream is promised, others wait
                // for. The rest is asked for when it is sent.
                self.to.reserve_capacity(data.len().min(1));
                self.held = Some((data, last));
                return Poll::Ready(Ok(false));
            }
            Err(frame) => frame,
        };
        Poll::Ready(match frame.into_trailers() {
            Ok(trailers) => {
                self.to.reserve_capacity(0);
                self.to.send_trailers(trailers).map(|()| true)
            }
            Err(_unknown) => Ok(false),
        })
    }

    /// Waits for room for the first byte of what is held; whether there is ever any.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
        let nothing = self.held.as_ref().is_some_and(|(data, _)| data.is_empty());
        while !nothing && self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<B: Body<Data = Bytes, Error: Resets> + Unpin> Future for Pipe<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.poll_step(cx)) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(()),
                Err(error) => {
                    tracing::debug!(%error, "a body was not wanted to its end");
                    return Poll::Ready(());
                }
            }
        }
    }
}
