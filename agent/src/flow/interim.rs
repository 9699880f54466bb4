//! Interim answers of an upstream (1xx, RFC 9110 section 15.2) on their way to a workload.
//!
//! Over HTTP/2 each request has a way back that takes them. Over HTTP/1.1 hyper sends none on a server's behalf. So they
//! are written beneath it, between what it writes: only where all that it wrote is out, and only until it has the final
//! answer of the request that they belong to. What has found no such moment by then is dropped; no answer depends on it.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::decode::scan::{self, Verdict};
use crate::forward::headers::strip_hop_by_hop;
use crate::http2::Reply;

/// Bytes of interim answers that wait on one connection; beyond it they are dropped.
const WAITING: usize = 16 * 1024;

/// Where interim answers of one connection wait for their moment.
#[derive(Clone, Default)]
pub(super) struct Interim(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: BytesMut,
    /// Something that hyper wrote may not be out yet: an answer may be cut in two there.
    busy: bool,
}

/// By what way the interim answers to one request reach the client.
pub(super) enum Way {
    /// Between what hyper writes.
    Beneath(Interim),
    /// As frames of their own.
    Stream(Reply),
}

/// One request whose final answer is waited for.
pub(super) struct Turn(To);

#[derive(Clone)]
enum To {
    Beneath {
        interim: Interim,
        over: Arc<Mutex<bool>>,
        /// Of the connection's task, which writes.
        waker: Waker,
    },
    Stream(Reply),
}

/// The connection as hyper writes to it.
pub(super) struct Beneath<S> {
    inner: S,
    interim: Interim,
    /// Being written.
    saying: Bytes,
}

impl Interim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `inner`, with room for interim answers between what is written to it.
    pub(super) fn beneath<S>(&self, inner: S) -> Beneath<S> {
        Beneath {
            inner,
            interim: self.clone(),
            saying: Bytes::new(),
        }
    }
}

impl Way {
    /// Begins the wait for a final answer. Over HTTP/1.1 it must be awaited in the task of the connection.
    pub(super) async fn turn(self) -> Turn {
        Turn(match self {
            Self::Beneath(interim) => To::Beneath {
                interim,
                over: Arc::default(),
                waker: std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await,
            },
            Self::Stream(reply) => To::Stream(reply),
        })
    }
}

impl Turn {
    /// What passes interim answers on, while this lasts.
    pub(super) fn pass_on(&self) -> impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static {
        let to = self.0.clone();
        move |status, headers| {
            if let Some(headers) = fit(status, headers) {
                to.pass(status, headers);
            }
        }
    }
}

impl To {
    fn pass(&self, status: StatusCode, headers: HeaderMap) {
        match self {
            Self::Beneath {
                interim,
                over,
                waker,
            } => {
                let Some(head) = head(status, &headers) else {
                    return;
                };
                // Held until it is queued, so that nothing comes after the final answer.
                let over = over.lock().unwrap_or_else(PoisonError::into_inner);
                let mut state = interim.lock();
                if !*over && state.waiting.len() + head.len() <= WAITING {
                    state.waiting.extend_from_slice(head.as_bytes());
                    waker.wake_by_ref();
                }
            }
            Self::Stream(reply) => reply.interim(status, headers),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The way back of a stream ends with its final answer by itself.
        let To::Beneath { interim, over, .. } = &self.0 else {
            return;
        };
        *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut state = interim.lock();
        // The final answer follows what is under way without a gap.
        if state.busy {
            state.waiting.clear();
        }
    }
}

/// The headers of an interim answer as they go on; none for those that the gate gives itself, that change the protocol,
/// or that are MCP's.
fn fit(status: StatusCode, headers: &HeaderMap) -> Option<HeaderMap> {
    let passes = status.is_informational()
        && status != StatusCode::CONTINUE
        && status != StatusCode::SWITCHING_PROTOCOLS
        && scan::headers(headers) != Verdict::Mcp;
    if !passes {
        return None;
    }
    let mut headers = headers.clone();
    strip_hop_by_hop(&mut headers);
    Some(headers)
}

/// An interim answer as HTTP/1.1 has it.
fn head(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let mut head = String::new();
    let reason = status.canonical_reason().unwrap_or_default();
    write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_u16()).ok()?;
    for (name, value) in headers {
        // A value that is no text could only be hurt.
        write!(head, "{name}: {}\r\n", value.to_str().ok()?).ok()?;
    }
    head.push_str("\r\n");
    Some(head)
}

impl<S: AsyncWrite + Unpin> Beneath<S> {
    /// Writes what waits, if this is the moment.
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.saying.is_empty() {
                let mut state = self.interim.lock();
                if state.busy || state.waiting.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.saying = state.waiting.split().freeze();
            }
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.saying))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.saying.advance(written);
        }
    }

    fn writes(&self) {
        self.interim.lock().busy = true;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Beneath<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Beneath<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_say(cx))?;
        self.writes();
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_say(cx))?;
        self.writes();
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has given out everything that it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_say(cx))?;
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            let mut state = self.interim.lock();
            state.busy = false;
            if state.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hyper::StatusCode;
    use hyper::header::{CONNECTION, HeaderMap, HeaderValue, LINK};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::{Interim, Way, fit, head};

    fn queue(interim: &Interim, text: &str) {
        interim.lock().waiting.extend_from_slice(text.as_bytes());
    }

    #[test]
    fn what_is_sent_is_a_head_without_what_belongs_to_one_hop() {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_static("</a>"));
        headers.insert(CONNECTION, HeaderValue::from_static("x-own"));
        headers.insert("x-own", HeaderValue::from_static("1"));
        let early = StatusCode::EARLY_HINTS;
        let sent = fit(early, &headers).and_then(|headers| head(early, &headers));
        assert_eq!(
            sent.as_deref(),
            Some("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        );
        for other in [
            StatusCode::CONTINUE,
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::OK,
        ] {
            assert_eq!(fit(other, &headers), None, "{other}");
        }
        headers.insert("mcp-session-id", HeaderValue::from_static("1"));
        assert_eq!(fit(early, &headers), None);
    }

    #[tokio::test]
    async fn what_waits_goes_between_answers_and_never_into_one() {
        let interim = Interim::default();
        let (ours, mut theirs) = duplex(4);
        let mut beneath = interim.beneath(ours);
        let mut got = Vec::new();
        let writes = async {
            queue(&interim, "(one)");
            beneath.write_all(b"answer").await.unwrap();
            // Written, and not flushed: more of it may follow.
            queue(&interim, "(two)");
            beneath.write_all(b", rest").await.unwrap();
            beneath.flush().await.unwrap();
            // Flushed alone, it does not wait for the next answer.
            queue(&interim, "(three)");
            beneath.flush().await.unwrap();
            beneath.write_all(b"next").await.unwrap();
            queue(&interim, "(late)");
            drop(Way::Beneath(interim.clone()).turn().await);
            beneath.flush().await.unwrap();
            drop(beneath);
        };
        let reads = theirs.read_to_end(&mut got);
        let ((), read) = tokio::join!(writes, reads);
        read.unwrap();
        assert_eq!(
            String::from_utf8(got).unwrap(),
            "(one)answer, rest(two)(three)next"
        );
    }

    #[tokio::test]
    async fn a_blocked_client_gets_what_began_before_anything_else() {
        let interim = Interim::default();
        let (ours, mut theirs) = duplex(3);
        let mut beneath = interim.beneath(ours);
        queue(&interim, "(interim)");
        {
            let mut flush = pin!(beneath.flush());
            let pending = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(flush.as_mut().poll(cx).is_pending())
            });
            assert!(pending.await);
        }
        // The final answer is there while the other is half out.
        drop(Way::Beneath(interim.clone()).turn().await);
        let mut got = Vec::new();
        let writes = async {
            beneath.write_all(b"final").await.unwrap();
            beneath.flush().await.unwrap();
            drop(beneath);
        };
        let ((), read) = tokio::join!(writes, theirs.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), "(interim)final");
    }
}
