//! HTTP/2 towards a workload.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::body::Body;
use hyper::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::alive::{Alive, Heard};
use super::pipe::{Pipe, Resets};
use super::{CONNECTION_WINDOW, Fault, Received, Reply, SEND_BUFFER, STREAM_WINDOW, heads};

/// On what terms a connection is served.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Streams that may be open, and requests that may be under way.
    pub streams: u32,
    /// The largest header section, in bytes.
    pub headers: usize,
    /// Time for the connection to begin.
    pub greeting: Duration,
    /// Time without a byte after which the peer is pinged.
    pub idle: Duration,
    /// Time without a byte after that after which the peer is gone.
    pub silent: Duration,
}

/// Serves a connection: `answer` each request, in a task of its own that ends with the connection and when the client
/// resets the stream. When `stopping` fires, what is under way is finished and no more is taken.
///
/// # Errors
/// [`Fault`], of the connection; what ends one stream is its peer's to see.
pub async fn serve<S, F, A, B>(
    stream: S,
    terms: Terms,
    stopping: &CancellationToken,
    answer: F,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(Request<Received>, Reply) -> A,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Resets> + Send + Unpin + 'static,
{
    let (stream, heard) = Heard::new(stream);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(terms.streams)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(terms.headers).unwrap_or(u32::MAX));
    let connection = match timeout(terms.greeting, builder.handshake(stream)).await {
        Ok(connection) => connection?,
        Err(_) => return Err(Fault::Late(terms.greeting)),
    };
    let mut serving = Serving::new(connection, terms, heard, answer);
    let mut stopped = pin!(stopping.cancelled());
    let mut stops = false;
    std::future::poll_fn(|cx| {
        if !stops && stopped.as_mut().poll(cx).is_ready() {
            stops = true;
            serving.connection.graceful_shutdown();
        }
        serving.poll(cx)
    })
    .await
}

/// A connection and the requests that are under way on it.
struct Serving<S, F> {
    connection: Connection<Heard<S>, Bytes>,
    alive: Option<Alive>,
    silent: Duration,
    under_way: JoinSet<()>,
    most: usize,
    answer: F,
}

impl<S, F, A, B> Serving<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(Request<Received>, Reply) -> A,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Resets> + Send + Unpin + 'static,
{
    fn new(
        mut connection: Connection<Heard<S>, Bytes>,
        terms: Terms,
        heard: Arc<AtomicBool>,
        answer: F,
    ) -> Self {
        let pings = connection.ping_pong();
        Self {
            connection,
            alive: pings.map(|pings| Alive::new(heard, pings, terms.idle, terms.silent)),
            silent: terms.silent,
            under_way: JoinSet::new(),
            most: usize::try_from(terms.streams).unwrap_or(usize::MAX),
            answer,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if let Some(alive) = &mut self.alive
                && alive.poll_gone(cx).is_ready()
            {
                return Poll::Ready(Err(Fault::Gone(self.silent)));
            }
            while let Poll::Ready(Some(_ended)) = self.under_way.poll_join_next(cx) {}
            if self.under_way.len() >= self.most {
                // A client that resets what it asked for asks no faster than that is noticed: what it resets before
                // it is accepted counts against it.
                return self.connection.poll_closed(cx).map_err(Fault::from);
            }
            match ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let bare = *request.method() == Method::HEAD;
        let length = heads::said_length(request.headers());
        let reply = Reply::new(respond);
        let asks = heads::waits(request.headers()).then(|| reply.clone());
        let request = request.map(|stream| Received::request(stream, length, asks));
        let answer = (self.answer)(request, reply.clone());
        self.under_way.spawn(answered(answer, Owned(reply), bare));
    }
}

/// The way back, as the stream's task holds it: it ends with the task.
struct Owned(Reply);

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// Waits for the answer, unless the client does not want it any more, and sends it.
async fn answered<A, B>(answer: A, reply: Owned, bare: bool)
where
    A: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Resets> + Unpin,
{
    let answered = {
        let mut answer = pin!(answer);
        // What came is begun, even if it was reset meanwhile: it has its record.
        let mut begun = false;
        std::future::poll_fn(|cx| {
            // Asked first: what a reset breaks on the way is then no fault of anybody's.
            if begun && reply.0.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if begun => Poll::Pending,
                Poll::Pending => {
                    begun = true;
                    reply.0.poll_gone(cx).map(|()| None)
                }
            }
        })
        .await
    };
    if let Some(answer) = answered
        && let Some(respond) = reply.0.take()
    {
        send(answer, respond, bare).await;
    }
}

/// Sends an answer; its head alone where it is `bare` (RFC 9110 section 9.3.2).
async fn send<B>(answer: Response<B>, mut respond: SendResponse<Bytes>, bare: bool)
where
    B: Body<Data = Bytes, Error: Resets> + Unpin,
{
    let (head, body) = answer.into_parts();
    let mut head = Response::from_parts(head, ());
    if head.status().is_informational() {
        // No final answer, whoever means it: the client would wait for another.
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    heads::fit_answer(head.headers_mut());
    heads::say_date(head.headers_mut());
    let ends = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ends) {
        heads::say_length(head.headers_mut(), length);
    }
    match respond.send_response(head, ends || bare) {
        Ok(_whole) if ends || bare => {}
        Ok(stream) => {
            // The last that holds the stream, so that it is reset if this is dropped.
            drop(respond);
            Pipe::new(body, stream).await;
        }
        Err(error) => {
            tracing::debug!(%error, "an answer was not taken");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
