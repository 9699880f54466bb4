//! Both sides against each other and against `h2` alone, over pipes in memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue, LINK};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Client, Fault, Received, Reply, STREAM_WINDOW, Terms, serve};
use crate::forward::body::BodyFault;
use crate::forward::upstream::{Body as Sent, Unheard};

const LIMIT: Duration = Duration::from_secs(20);
const STREAMS: u32 = 16;
const URL: &str = "https://api.lab.example/x";

fn terms() -> Terms {
    Terms {
        streams: STREAMS,
        headers: 64 * 1024,
        greeting: LIMIT,
        idle: LIMIT,
        silent: LIMIT,
    }
}

type Served = JoinHandle<Result<(), Fault>>;

/// The far end of a pipe on which `answer` answers.
fn served<F, A>(terms: Terms, stopping: CancellationToken, answer: F) -> (DuplexStream, Served)
where
    F: FnMut(Request<Received>, Reply) -> A + Send + 'static,
    A: Future<Output = Response<Sent>> + Send + 'static,
{
    let (ours, theirs) = duplex(64 * 1024);
    let task = tokio::spawn(async move { serve(ours, terms, &stopping, answer).await });
    (theirs, task)
}

fn answering<F, A>(answer: F) -> DuplexStream
where
    F: FnMut(Request<Received>, Reply) -> A + Send + 'static,
    A: Future<Output = Response<Sent>> + Send + 'static,
{
    served(terms(), CancellationToken::new(), answer).0
}

async fn started(stream: DuplexStream) -> Client {
    Client::start(stream, 64 * 1024, &TaskTracker::new())
        .await
        .unwrap()
}

/// A client that is `h2` alone, with the windows that it has by itself.
async fn plain(stream: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A server that is `h2` alone: what it accepts.
fn by_hand(
    stream: DuplexStream,
) -> mpsc::Receiver<(Request<h2::RecvStream>, h2::server::SendResponse<Bytes>)> {
    let (accepted, accepts) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok(request)) = connection.accept().await {
            accepted.send(request).await.unwrap();
        }
    });
    accepts
}

fn full(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn get() -> Request<Sent> {
    let mut request = Request::new(full(""));
    *request.uri_mut() = URL.parse().unwrap();
    request
}

fn post(body: Sent) -> Request<Sent> {
    let mut request = get().map(|_| body);
    *request.method_mut() = Method::POST;
    request
}

fn head() -> Request<()> {
    post(full("")).map(drop)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("in time")
}

/// A body without end, which counts what it gave and says when it is dropped.
struct Endless {
    given: Arc<AtomicUsize>,
    _kept: Kept,
}

/// Counts itself while it lasts.
struct Kept(Arc<AtomicUsize>);

impl Kept {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        const PIECE: &[u8] = &[b'x'; 16 * 1024];
        self.given.fetch_add(PIECE.len(), Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }
}

#[derive(Default, Clone)]
struct Counts {
    given: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
}

impl Counts {
    fn body(&self) -> Sent {
        let (given, kept) = (Arc::clone(&self.given), Kept::new(&self.alive));
        Endless { given, _kept: kept }.boxed_unsync()
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    /// Until nobody holds a body.
    async fn dropped(&self) {
        in_time(async {
            while self.alive.load(Ordering::SeqCst) > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Until no more is taken; how much was.
    async fn settled(&self) -> usize {
        in_time(async {
            let mut last = 0;
            loop {
                sleep(Duration::from_millis(100)).await;
                let now = self.given();
                if now > 0 && now == last {
                    return now;
                }
                last = now;
            }
        })
        .await
    }
}

#[tokio::test]
async fn interim_answers_pass_in_order_and_before_the_final_one() {
    let (kept, mut late) = mpsc::unbounded_channel();
    let stream = answering(move |_, reply: Reply| {
        let kept = kept.clone();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("connection", HeaderValue::from_static("x-hop"));
            headers.insert("x-hop", HeaderValue::from_static("1"));
            for (status, link) in [(103, "</a>"), (102, "</b>"), (101, "</c>"), (103, "</d>")] {
                headers.insert(LINK, HeaderValue::from_static(link));
                reply.interim(StatusCode::from_u16(status).unwrap(), headers.clone());
            }
            kept.send(reply).unwrap();
            Response::new(full("final"))
        }
    });
    let client = started(stream).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let answer = client.send(
        get(),
        Some(move |status: StatusCode, headers: &HeaderMap| {
            let link = headers.get(LINK).cloned().unwrap();
            note.lock()
                .unwrap()
                .push((status.as_u16(), link, headers.len()));
        }),
    );
    let answer = in_time(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key(DATE));
    assert_eq!(answer.headers().get(CONTENT_LENGTH).unwrap(), "5");
    let expected = [(103, "</a>"), (102, "</b>"), (103, "</d>")]
        .map(|(status, link)| (status, HeaderValue::from_static(link), 1));
    assert_eq!(*seen.lock().unwrap(), expected);
    // Whoever still holds the way back can say no more.
    let reply = late.recv().await.unwrap();
    reply.interim(StatusCode::EARLY_HINTS, HeaderMap::new());
    let body = in_time(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "final");
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let stream = answering(|request: Request<Received>, _| async move {
        if request.method() == Method::PUT {
            return Response::new(full("unwanted"));
        }
        let body = request.into_body().collect().await.unwrap();
        Response::new(full(body.to_bytes()))
    });
    let mut sender = plain(stream).await;
    let mut request = head();
    let expects = HeaderValue::from_static("100-continue");
    request.headers_mut().insert(EXPECT, expects);
    let (mut answer, mut body) = sender.send_request(request.clone(), false).unwrap();
    let asked = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let asked = in_time(asked).await.unwrap().unwrap();
    assert_eq!(asked.status(), StatusCode::CONTINUE);
    body.send_data(Bytes::from_static(b"wanted"), true).unwrap();
    let answer = in_time(answer).await.unwrap();
    assert_eq!(answer.headers().get(CONTENT_LENGTH).unwrap(), "6");
    // What nobody reads is not asked for.
    *request.method_mut() = Method::PUT;
    let (mut answer, _body) = sender.send_request(request, false).unwrap();
    let asked = std::future::poll_fn(|cx| answer.poll_informational(cx));
    assert!(in_time(asked).await.is_none());
    assert_eq!(in_time(answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn interim_answers_are_bounded_both_ways() {
    // Towards a client, which may not read.
    let stream = answering(|_, reply: Reply| async move {
        let mut headers = HeaderMap::new();
        let long = HeaderValue::try_from("x".repeat(1000)).unwrap();
        headers.insert(LINK, long);
        for _ in 0..10_000 {
            reply.interim(StatusCode::EARLY_HINTS, headers.clone());
        }
        Response::new(full(""))
    });
    let count = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&count);
    let answer = started(stream).await.send(
        get(),
        Some(move |_: StatusCode, _: &HeaderMap| {
            counts.fetch_add(1, Ordering::SeqCst);
        }),
    );
    assert_eq!(in_time(answer).await.unwrap().status(), 200);
    assert_eq!(count.load(Ordering::SeqCst), 15);

    // From a server that never comes to an answer.
    let (ours, theirs) = duplex(64 * 1024);
    let mut accepts = by_hand(theirs);
    let client = started(ours).await;
    let answer = tokio::spawn(client.send(get(), None::<Unheard>));
    let (_request, mut respond) = in_time(accepts.recv()).await.unwrap();
    let mut said = 0;
    let reset = in_time(std::future::poll_fn(|cx| {
        if let Poll::Ready(reset) = respond.poll_reset(cx) {
            return Poll::Ready(reset);
        }
        if said < 5000 {
            let mut hint = Response::new(());
            *hint.status_mut() = StatusCode::EARLY_HINTS;
            respond.send_informational(hint).unwrap();
            said += 1;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }))
    .await;
    assert_eq!(reset.unwrap(), Reason::CANCEL);
    let fault = in_time(answer).await.unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Interims) && fault.is_malformed());
}

#[tokio::test]
async fn a_reset_ends_what_is_under_way_for_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    let (begun, mut begins) = mpsc::unbounded_channel();
    let counts = Arc::clone(&alive);
    let stream = answering(move |request: Request<Received>, _| {
        let (kept, begun) = (Kept::new(&counts), begun.clone());
        async move {
            begun.send(()).unwrap();
            let _kept = (kept, request);
            std::future::pending().await
        }
    });
    let gone = async || {
        while alive.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let client = started(stream).await;
    let upload = Counts::default();
    // The wait for an answer is given up: the stream is reset, and with it the request's body.
    let waiting = tokio::spawn(client.send(post(upload.body()), None::<Unheard>));
    in_time(begins.recv()).await.unwrap();
    waiting.abort();
    in_time(gone()).await;
    upload.dropped().await;
    // The connection itself ends.
    let waiting = tokio::spawn(client.send(get(), None::<Unheard>));
    in_time(begins.recv()).await.unwrap();
    drop(client);
    waiting.abort();
    in_time(gone()).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_is_reset_with_its_request() {
    let (download, upload) = (Counts::default(), Counts::default());
    let body = download.clone();
    let (held, mut holds) = mpsc::unbounded_channel();
    let stream = answering(move |request: Request<Received>, _| {
        held.send(request.into_body()).unwrap();
        std::future::ready(Response::new(body.body()))
    });
    let client = started(stream).await;
    let answer = client.send(post(upload.body()), None::<Unheard>);
    let mut answer = in_time(answer).await.unwrap().into_body();
    let mut request = holds.recv().await.unwrap();
    for body in [&mut answer, &mut request] {
        in_time(body.frame()).await.unwrap().unwrap();
    }
    drop(answer);
    download.dropped().await;
    upload.dropped().await;
    // Whoever still reads the request is told that it did not end.
    let failed = in_time(async {
        loop {
            if let Err(fault) = request.frame().await.expect("no end as it should be") {
                return fault;
            }
        }
    });
    let fault = failed.await;
    assert_eq!(fault.reason(), Reason::CANCEL, "{fault}");
    assert!(!fault.is_malformed());
}

#[tokio::test]
async fn no_more_is_taken_than_the_reader_lets_come() {
    let download = Counts::default();
    let body = download.clone();
    let stream = answering(move |_, _| std::future::ready(Response::new(body.body())));
    let mut sender = plain(stream).await;
    let (answer, _) = sender.send_request(get().map(drop), true).unwrap();
    let mut answer = in_time(answer).await.unwrap().into_body();
    let most = 65_535 + 64 * 1024;
    let before = download.settled().await;
    assert!(before <= most, "{before}");
    let mut read = 0;
    while read < 512 * 1024 {
        let data = in_time(answer.data()).await.unwrap().unwrap();
        read += data.len();
        answer.flow_control().release_capacity(data.len()).unwrap();
    }
    let after = download.settled().await;
    assert!(after >= read && after <= read + most, "{after}");
    drop((answer, sender));
    download.dropped().await;

    // A reader that never lets anything come: one piece is in hand, and no more.
    let download = Counts::default();
    let body = download.clone();
    let stream = answering(move |_, _| std::future::ready(Response::new(body.body())));
    let mut closed = h2::client::Builder::new();
    closed.initial_window_size(0);
    let (mut sender, connection) = closed.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let (answer, _) = sender.send_request(get().map(drop), true).unwrap();
    let answer = in_time(answer).await.unwrap();
    assert_eq!(download.settled().await, 16 * 1024);
    drop((answer, sender));
    download.dropped().await;

    // The same on the way up: a server that reads nothing, within the window that it gave.
    let upload = Counts::default();
    let (held, mut holds) = mpsc::unbounded_channel();
    let stream = answering(move |request: Request<Received>, _| {
        held.send(request.into_body()).unwrap();
        std::future::pending()
    });
    let client = started(stream).await;
    let waiting = tokio::spawn(client.send(post(upload.body()), None::<Unheard>));
    let _unread = in_time(holds.recv()).await.unwrap();
    let taken = upload.settled().await;
    let window = usize::try_from(STREAM_WINDOW).unwrap();
    assert!(taken >= window && taken <= 2 * window, "{taken}");
    waiting.abort();
    upload.dropped().await;
}

/// A client that lets everything come and reads nothing from its connection: a frame waits for it, and what is in hand.
#[tokio::test]
async fn little_waits_for_a_client_that_does_not_read() {
    let download = Counts::default();
    let body = download.clone();
    let stream = answering(move |_, _| std::future::ready(Response::new(body.body())));
    let mut open = h2::client::Builder::new();
    open.initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30);
    let (mut sender, mut connection) = open.handshake::<_, Bytes>(stream).await.unwrap();
    let (answer, _) = sender.send_request(get().map(drop), true).unwrap();
    let answer = in_time(async {
        tokio::select! {
            biased;
            answer = answer => answer.unwrap(),
            ended = &mut connection => panic!("it ended: {ended:?}"),
        }
    });
    let answer = answer.await;
    let taken = download.settled().await;
    // The pipe's bytes, and those that the client read with the head, perhaps in several turns. By itself `h2` would keep
    // 400 KiB more.
    let most = 4 * 64 * 1024 + super::SEND_BUFFER + 2 * 16 * 1024;
    assert!(taken <= most, "{taken}");
    drop((answer, sender, connection));
    download.dropped().await;
}

#[tokio::test]
async fn lengths_are_held_to() {
    // More than was said, and less.
    let (outcome, mut outcomes) = mpsc::unbounded_channel();
    let stream = answering(move |request: Request<Received>, _| {
        let outcome = outcome.clone();
        async move {
            outcome.send(None).unwrap();
            let body = request.into_body().collect().await;
            outcome.send(Some(body.map(|_whole| ()))).unwrap();
            std::future::pending().await
        }
    });
    let mut sender = plain(stream).await;
    for sent in ["12345", "12"] {
        let mut request = head();
        let length = HeaderValue::from_static("3");
        request.headers_mut().insert(CONTENT_LENGTH, length);
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        assert!(in_time(outcomes.recv()).await.unwrap().is_none());
        body.send_data(Bytes::from_static(sent.as_bytes()), true)
            .unwrap();
        let error = in_time(answer).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{error}");
        // It may have been ended by the reset before it read why.
        let outcome = timeout(Duration::from_millis(100), outcomes.recv()).await;
        assert!(!matches!(outcome, Ok(Some(Some(Ok(()))))), "{outcome:?}");
    }
    // Less than was said, by a reset that claims to be no error.
    for (length, whole) in [(Some("9"), false), (None, true)] {
        let (ours, theirs) = duplex(64 * 1024);
        let mut accepts = by_hand(theirs);
        let client = started(ours).await;
        let answer = tokio::spawn(client.send(post(Counts::default().body()), None::<Unheard>));
        let (_request, mut respond) = in_time(accepts.recv()).await.unwrap();
        let mut head = Response::new(());
        if let Some(length) = length {
            let length = HeaderValue::from_static(length);
            head.headers_mut().insert(CONTENT_LENGTH, length);
        }
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"part"), false).unwrap();
        let answer = in_time(answer).await.unwrap().unwrap();
        let mut answer = answer.into_body();
        in_time(answer.frame()).await.unwrap().unwrap();
        body.send_reset(Reason::NO_ERROR);
        let end = in_time(answer.frame()).await;
        assert_eq!(end.is_none(), whole, "{end:?}");
    }
}

#[tokio::test]
async fn trailers_pass_and_heads_stay_heads() {
    let stream = answering(|request: Request<Received>, _| async move {
        if request.method() == Method::HEAD {
            return Response::new(full("a body that HEAD does not get"));
        }
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let body = full(body.to_bytes()).with_trailers(std::future::ready(trailers.map(Ok)));
        Response::new(body.boxed_unsync())
    });
    let client = started(stream).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("5"));
    let body = full("abcde").with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
    let answer = client.send(post(body.boxed_unsync()), None::<Unheard>);
    let body = in_time(answer).await.unwrap().into_body().collect();
    let body = in_time(body).await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "abcde");
    let mut request = get();
    *request.method_mut() = Method::HEAD;
    let answer = in_time(client.send(request, None::<Unheard>))
        .await
        .unwrap();
    assert_eq!(answer.headers().get(CONTENT_LENGTH).unwrap(), "29");
    assert!(answer.body().is_end_stream());
}

#[tokio::test]
async fn resets_do_not_outrun_the_limit_of_what_is_under_way() {
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, peak) = (Arc::clone(&alive), Arc::clone(&most));
    let answer = move |request, _| {
        let kept = Kept::new(&counts);
        peak.fetch_max(counts.load(Ordering::SeqCst), Ordering::SeqCst);
        async move {
            let _kept = (kept, request);
            std::future::pending().await
        }
    };
    let (stream, served) = served(terms(), CancellationToken::new(), answer);
    let mut sender = plain(stream).await;
    let mut refused = None;
    for _ in 0..10_000 {
        if let Err(error) = std::future::poll_fn(|cx| sender.poll_ready(cx)).await {
            refused = Some(error);
            break;
        }
        match sender.send_request(head(), false) {
            Ok((_, mut body)) => body.send_reset(Reason::CANCEL),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    drop(sender);
    let ended = in_time(served).await.unwrap();
    // Whether or not it was told to calm down, no more was under way than may be.
    assert!(most.load(Ordering::SeqCst) <= usize::try_from(STREAMS).unwrap());
    assert_eq!(ended.is_err(), refused.is_some(), "{ended:?} {refused:?}");
    in_time(async {
        while alive.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_silent_is_gone_and_one_that_answers_pings_is_not() {
    let hasty = Terms {
        idle: Duration::from_millis(50),
        silent: Duration::from_millis(200),
        ..terms()
    };
    let never = CancellationToken::new();
    let empty = |_, _| std::future::ready(Response::new(full("")));
    let (mut stream, gone) = served(hasty, never.clone(), empty);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let ended = in_time(gone).await.unwrap();
    assert!(matches!(ended, Err(Fault::Gone(_))), "{ended:?}");

    let (stream, served) = served(hasty, never, empty);
    let mut sender = plain(stream).await;
    sleep(Duration::from_secs(1)).await;
    let (answer, _) = sender.send_request(head(), true).unwrap();
    assert_eq!(in_time(answer).await.unwrap().status(), 200);
    drop(sender);
    in_time(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_begin_is_late() {
    let hasty = Terms {
        greeting: Duration::from_millis(50),
        ..terms()
    };
    let empty = |_, _| std::future::ready(Response::new(full("")));
    let (_stream, served) = served(hasty, CancellationToken::new(), empty);
    let ended = in_time(served).await.unwrap();
    assert!(matches!(ended, Err(Fault::Late(_))), "{ended:?}");
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_finish() {
    let stopping = CancellationToken::new();
    let (go, goes) = oneshot::channel::<()>();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let mut goes = Some(goes);
    let (stream, served) = served(terms(), stopping.clone(), move |_, _| {
        begun.send(()).unwrap();
        let goes = goes.take();
        async move {
            goes.expect("one request alone").await.unwrap();
            Response::new(full("finished"))
        }
    });
    let mut client = started(stream).await;
    let answer = tokio::spawn(client.send(get(), None::<Unheard>));
    in_time(begins.recv()).await.unwrap();
    stopping.cancel();
    in_time(async {
        while client.ready().await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    go.send(()).unwrap();
    let answer = in_time(answer).await.unwrap().unwrap();
    let body = in_time(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "finished");
    in_time(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_fails_resets_the_stream() {
    struct Failing(Option<BodyFault>);
    impl Body for Failing {
        type Data = Bytes;
        type Error = BodyFault;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
            Poll::Ready(self.0.take().map(Err))
        }
    }
    let stream = answering(|request: Request<Received>, _| async move {
        let fault = match request.method() {
            &Method::GET => BodyFault::Stopped("why"),
            _ => BodyFault::Read(Fault::Protocol(Reason::PROTOCOL_ERROR.into()).into()),
        };
        Response::new(Failing(Some(fault)).boxed_unsync())
    });
    let client = started(stream).await;
    for request in [get(), post(full(""))] {
        // The head may not have left before the stream was reset.
        let fault = match in_time(client.send(request, None::<Unheard>)).await {
            Ok(answer) => in_time(answer.into_body().collect()).await.unwrap_err(),
            Err(fault) => fault,
        };
        assert_eq!(fault.reason(), Reason::INTERNAL_ERROR);
        assert!(
            matches!(&fault, Fault::Protocol(error) if error.is_remote()),
            "{fault}"
        );
    }
}
