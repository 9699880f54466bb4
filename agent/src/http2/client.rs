//! HTTP/2 towards an upstream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use super::pipe::{Pipe, Resets};
use super::{CONNECTION_WINDOW, Fault, INTERIMS, Received, SEND_BUFFER, STREAM_WINDOW, heads};

/// The sending half of a connection; the connection ends after it and after what is under way.
pub struct Client {
    /// Never sends itself: its clones do, so that it is never the one that waits for the peer to allow a stream.
    requests: SendRequest<Bytes>,
    tasks: TaskTracker,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts HTTP/2 on `stream`, with at most `headers` bytes of a header section; the connection's own task is
    /// tracked by `tasks`.
    ///
    /// # Errors
    /// [`Fault::Protocol`], when the stream is closed.
    pub async fn start<S>(stream: S, headers: usize, tasks: &TaskTracker) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(headers).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER);
        let (requests, connection) = builder.handshake(stream).await?;
        tasks.spawn(async move {
            // The exchange that was under way reports the same error; this is for those who read the log.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let tasks = tasks.clone();
        Ok(Self { requests, tasks })
    }

    /// Whether the connection takes requests.
    ///
    /// # Errors
    /// [`Fault::Protocol`], when it has ended or the peer goes away.
    pub async fn ready(&mut self) -> Result<(), Fault> {
        Ok(std::future::poll_fn(|cx| self.requests.poll_ready(cx)).await?)
    }

    /// Sends `request`; the returned future waits for the head of the answer, and `interim` sees what comes before it.
    /// Dropped early, it resets the stream, as the answer's body does when it is dropped before its end.
    pub fn send<B, I>(
        &self,
        request: Request<B>,
        interim: Option<I>,
    ) -> impl Future<Output = Result<Response<Received>, Fault>> + Send + use<B, I>
    where
        B: Body<Data = Bytes, Error: Resets> + Send + Unpin + 'static,
        I: Fn(StatusCode, &HeaderMap) + Send,
    {
        let (head, body) = request.into_parts();
        let mut head = Request::from_parts(head, ());
        let method = head.method().clone();
        heads::fit_request(head.headers_mut(), &method, &body.size_hint());
        let ends = body.is_end_stream();
        let sent = self.requests.clone().send_request(head, ends);
        let tasks = self.tasks.clone();
        async move {
            let (response, stream) = sent?;
            let mut pipe = (!ends).then(|| Pipe::new(body, stream));
            let mut waiting = Waiting {
                response,
                interim,
                left: INTERIMS,
            };
            let answer = std::future::poll_fn(|cx| {
                if let Some(sending) = &mut pipe
                    && Pin::new(sending).poll(cx).is_ready()
                {
                    pipe = None;
                }
                waiting.poll(cx)
            });
            let answer = answer.await?;
            let sending = pipe.map(|pipe| tasks.spawn(pipe).abort_handle());
            let length = heads::said_length(answer.headers());
            Ok(answer.map(|stream| Received::answer(stream, length, sending)))
        }
    }
}

/// The wait for the head of an answer.
struct Waiting<I> {
    response: ResponseFuture,
    interim: Option<I>,
    /// How many interim answers may still come.
    left: u32,
}

impl<I: Fn(StatusCode, &HeaderMap)> Waiting<I> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<h2::RecvStream>, Fault>> {
        // To the last of them: the response itself would pass over those that it finds.
        while let Some(interim) = ready!(self.response.poll_informational(cx)) {
            let interim = interim?;
            self.left = match self.left.checked_sub(1) {
                Some(left) => left,
                None => return Poll::Ready(Err(Fault::Interims)),
            };
            if let Some(pass_on) = &self.interim {
                pass_on(interim.status(), interim.headers());
            }
        }
        Pin::new(&mut self.response).poll(cx).map_err(Fault::from)
    }
}
