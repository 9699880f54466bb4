//! A body that a task writes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// What comes by the channel. http-body-util's own `Channel` (0.1.5) looks for a frame, then whether the sender is gone,
/// and ends without what was sent between the two looks.
struct Written(mpsc::Receiver<Frame<Bytes>>);

impl Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// By what the frames of such a body are sent; it ends when this is dropped.
#[derive(Debug)]
pub struct Writer(mpsc::Sender<Frame<Bytes>>);

/// Nobody reads the body any more.
#[derive(Debug)]
pub struct Gone;

impl Writer {
    /// Sends a part of the body, once there is room for it.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send_data(&self, data: Bytes) -> Result<(), Gone> {
        self.send(Frame::data(data)).await
    }

    /// Sends what stands behind the body.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send_trailers(&self, trailers: HeaderMap) -> Result<(), Gone> {
        self.send(Frame::trailers(trailers)).await
    }

    async fn send(&self, frame: Frame<Bytes>) -> Result<(), Gone> {
        self.0.send(frame).await.map_err(|_frame| Gone)
    }
}

/// A body, and what writes it; `room` frames wait.
#[must_use]
pub fn written(room: usize) -> (Writer, BoxBody<Bytes, Infallible>) {
    let (sender, receiver) = mpsc::channel(room);
    (Writer(sender), Written(receiver).boxed())
}
