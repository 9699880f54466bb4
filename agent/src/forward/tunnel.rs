//! Opaque bytes, both ways, counted: passed-through TLS, TCP by rule, and upgraded connections.

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
    /// The policy changed, or the gate stops.
    Cut,
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
    let copied = async {
        upstream.write_all(first).await?;
        traffic
            .sent
            .fetch_add(first.len() as u64, Ordering::Relaxed);
        let mut client = Counted {
            inner: client,
            traffic: Arc::clone(traffic),
        };
        copy_bidirectional(&mut client, &mut upstream).await
    };
    tokio::select! {
        () = cut.cancelled() => Ended::Cut,
        done = copied => match done {
            Ok(_) => Ended::Closed,
            // TLS that ends without saying so, as most clients' does: nothing here depends on where it ends.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ended::Closed,
            Err(error) => Ended::Failed(error),
        },
    }
}

/// The workload's side, counting.
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
