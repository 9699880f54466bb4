//! Whether a peer is there: whatever it sends shows that it is, and it is pinged when it has been silent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream that notes when something came.
pub(super) struct Heard<S> {
    inner: S,
    heard: Arc<AtomicBool>,
}

/// The watch over a peer.
pub(super) struct Alive {
    heard: Arc<AtomicBool>,
    pings: PingPong,
    interval: Duration,
    silent: Duration,
    /// Until it is looked again.
    sleep: Pin<Box<Sleep>>,
    asked: bool,
}

impl<S> Heard<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<AtomicBool>) {
        let heard = Arc::default();
        let this = Self {
            inner,
            heard: Arc::clone(&heard),
        };
        (this, heard)
    }
}

impl Alive {
    /// A peer that is asked when nothing came for `interval`, and has `silent` to show itself.
    pub(super) fn new(
        heard: Arc<AtomicBool>,
        pings: PingPong,
        interval: Duration,
        silent: Duration,
    ) -> Self {
        Self {
            heard,
            pings,
            interval,
            silent,
            sleep: Box::pin(sleep(interval)),
            asked: false,
        }
    }

    /// Ready when the peer is gone.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let heard = self.heard.swap(false, Ordering::Relaxed);
            if self.asked && !heard {
                return Poll::Ready(());
            }
            self.asked = !heard;
            let next = if heard {
                self.interval
            } else {
                // What answered the last one is taken away first.
                let _answered = self.pings.poll_pong(cx).is_ready();
                if let Err(error) = self.pings.send_ping(Ping::opaque()) {
                    tracing::debug!(%error, "a peer could not be pinged");
                }
                self.silent
            };
            self.sleep.as_mut().reset(Instant::now() + next);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
