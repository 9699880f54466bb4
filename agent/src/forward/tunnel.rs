//! Opaque bytes, both ways, counted: passed-through TLS, TCP by rule, and upgraded connections.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};
use tokio_util::sync::CancellationToken;

/// Bytes that crossed a tunnel; readable while it runs and after it was cut.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes from the workload to the upstream.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from the upstream to the workload.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides closed.
    Closed,
    /// The policy changed, the gate stops, or the workload is gone.
    Cut,
    /// The same, after the workload had closed its side and all that it had sent was passed on.
    Left,
    /// A side failed.
    Failed(io::Error),
}

/// Sends `first` (bytes of the workload that were read while looking), then copies both ways until both
/// sides have closed or `cut` fires.
pub async fn run<C, U>(
    client: C,
    mut upstream: U,
    first: &[u8],
    traffic: &Arc<Traffic>,
    cut: &CancellationToken,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Counted {
        inner: client,
        traffic: Arc::clone(traffic),
    };
    let beyond = Arc::new(Traffic::default());
    let copied = async {
        upstream.write_all(first).await?;
        let first = first.len() as u64;
        traffic.sent.fetch_add(first, Ordering::Relaxed);
        beyond.received.fetch_add(first, Ordering::Relaxed);
        let mut upstream = Counted {
            inner: upstream,
            traffic: Arc::clone(&beyond),
        };
        copy_bidirectional(&mut client, &mut upstream).await
    };
    let copied = tokio::select! {
        biased;
        () = cut.cancelled() => None,
        done = copied => Some(done),
    };
    match copied {
        Some(Ok(_)) => Ended::Closed,
        // TLS that ends without saying so, as most clients' does: nothing here depends on where it ends.
        Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ended::Closed,
        Some(Err(error)) => Ended::Failed(error),
        None => {
            let all = traffic.sent() == beyond.received();
            let passed = all && beyond.received() >= first.len() as u64;
            if passed && poll_fn(|cx| Poll::Ready(has_closed(&mut client.inner, cx))).await {
                Ended::Left
            } else {
                Ended::Cut
            }
        }
    }
}

/// Whether nothing more comes from `side`, as far as is known now.
fn has_closed<S: AsyncRead + Unpin>(side: &mut S, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    let mut read = ReadBuf::new(&mut byte);
    let polled = Pin::new(side).poll_read(cx, &mut read);
    matches!(polled, Poll::Ready(Ok(()))) && read.filled().is_empty()
}

/// A side, counting what is read from it as sent and what is written to it as received.
struct Counted<S> {
    inner: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.traffic.sent.fetch_add(read as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.traffic
                .received
                .fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// How a tunnel ends that is cut after the process had sent `hello`, with room for so many bytes beyond it.
    async fn cut(room: usize, closes: bool) -> Ended {
        let (mut process, client) = duplex(64);
        let (upstream, _far) = duplex(room);
        let (traffic, token) = (Arc::default(), CancellationToken::new());
        process.write_all(b"hello").await.unwrap();
        let running = run(client, upstream, &[], &traffic, &token);
        tokio::pin!(running);
        poll_fn(|cx| {
            assert!(running.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let process = Some(process).filter(|_| !closes);
        token.cancel();
        let ended = running.await;
        drop(process);
        ended
    }

    #[tokio::test]
    async fn what_had_closed_and_was_passed_on_had_left() {
        for (room, closes, expected) in [(64, true, "Left"), (64, false, "Cut"), (2, true, "Cut")] {
            let ended = cut(room, closes).await;
            assert_eq!(format!("{ended:?}"), expected, "{room}, {closes}");
        }
    }
}
