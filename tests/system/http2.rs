//! HTTP/2 frame by frame on both sides: interim answers, resets, windows.

use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use exeat_tests::Lab;
use exeat_tests::authority::Fault;
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Process, must};
use exeat_tests::wait::{wait_for, wait_until};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::place::{exchange, policy, start};
use crate::streams::peak;

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example, methods: [GET, POST] }";
const LIMIT: Duration = Duration::from_secs(30);
const RELAY: &str = include_str!("../mcp/relay.py");

/// A request as the far server got it.
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// A server outside that speaks HTTP/2 alone, and does with each request what the test does.
struct Far(mpsc::UnboundedReceiver<Accepted>);

impl Far {
    fn new(lab: &Lab) -> Self {
        let leaf = lab.authority.leaf(&[NAME], Fault::Sound).unwrap();
        lab.dns.points(NAME, &[WORLD]);
        let listener = lab.outside.listen(SocketAddr::new(WORLD, 443)).unwrap();
        let acceptor = TlsAcceptor::from(leaf.server(&["h2"], None).unwrap());
        let (accepted, accepts) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok(request)) = connection.accept().await {
                        // The test may have ended.
                        let _taken = accepted.send(request);
                    }
                });
            }
        });
        Self(accepts)
    }

    async fn accept(&mut self) -> Accepted {
        in_time(self.0.recv()).await.unwrap()
    }
}

/// Something that dials as the managed server.
struct Near {
    _relay: Process,
    lab: PathBuf,
}

impl Near {
    async fn new(lab: &Lab) -> Self {
        let place = lab.directory().join("relay");
        fs::create_dir(&place).unwrap();
        must("chmod", &[Path::new("777"), place.as_path()]).unwrap();
        let socket = place.join("socket");
        let program = ["/usr/bin/python3", "-c", RELAY, socket.to_str().unwrap()];
        let mut relay = start(lab, "relay", &program);
        relay.ready(LIMIT).await.unwrap();
        Self {
            _relay: relay,
            lab: lab.directory().to_owned(),
        }
    }

    /// A connection of HTTP/2 to the far server, through the gate.
    async fn dial(&self) -> SendRequest<Bytes> {
        let mut stream = UnixStream::connect(self.lab.join("relay/socket"))
            .await
            .unwrap();
        let line = format!("{NAME} 443\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut roots = RootCertStore::empty();
        let pem = fs::read(self.lab.join("state/ca.pem")).unwrap();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(NAME).unwrap();
        let stream = in_time(connector.connect(name, stream)).await.unwrap();
        let (sender, connection) = in_time(h2::client::handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("in time")
}

fn post(path: &str) -> Request<()> {
    let url = format!("https://{NAME}{path}");
    Request::post(url).body(()).unwrap()
}

fn interim(status: u16, headers: &[(&'static str, &'static str)]) -> Response<()> {
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        interim.headers_mut().append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    interim
}

/// Reads to the end, granting what is read.
async fn whole(mut body: RecvStream) -> usize {
    let mut length = 0;
    while let Some(data) = in_time(body.data()).await {
        let data = data.unwrap();
        assert!(data.iter().all(|byte| *byte == b'x'));
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    length
}

/// Sends `length` bytes as they are wanted; `sent` says how far it came.
async fn fill(mut to: SendStream<Bytes>, length: usize, sent: Arc<AtomicUsize>) {
    const PIECE: &[u8] = &[b'x'; 16 * 1024];
    let mut left = length;
    while left > 0 {
        to.reserve_capacity(left.min(PIECE.len()));
        let Some(room) = poll_fn(|cx| to.poll_capacity(cx)).await else {
            return;
        };
        let length = room.unwrap().min(left).min(PIECE.len());
        to.send_data(Bytes::from_static(&PIECE[..length]), left == length)
            .unwrap();
        left -= length;
        sent.fetch_add(length, Ordering::SeqCst);
    }
}

/// What `sent` comes to while nobody reads.
async fn settled(sent: &AtomicUsize) -> usize {
    let mut last = 0;
    let settled = wait_for("no more is taken", LIMIT, async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        let same = now > 0 && now == last;
        last = now;
        same.then_some(now)
    });
    settled.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_reach_curl_while_it_waits() {
    let lab = Lab::new().unwrap();
    let mut far = Far::new(&lab);
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let body = "x".repeat(2000);
    let program = [
        "curl",
        "--silent",
        "--no-buffer",
        "--http2",
        "--verbose",
        "--expect100-timeout",
        "20",
        "--header",
        "expect: 100-continue",
        "--data",
        &body,
        "https://api.lab.example/hints",
    ];
    let client = start(&lab, "hints", &program);
    let (request, mut respond) = far.accept().await;
    assert!(!request.headers().contains_key("expect"));
    assert_eq!(whole(request.into_body()).await, 2000);
    let said = |what: &str| client.stderr().contains(what);
    let asked = "< HTTP/2 100";
    wait_until(asked, LIMIT, || said(asked)).await.unwrap();
    for (status, link, line) in [
        (103, "</a>", "< link: </a>"),
        (102, "</none>", "< HTTP/2 102"),
        (103, "</b>", "< link: </b>"),
    ] {
        let headers = [("link", link), ("proxy-authenticate", "x")];
        respond
            .send_informational(interim(status, &headers))
            .unwrap();
        wait_until(line, LIMIT, || said(line)).await.unwrap();
    }
    // No interim answer of HTTP/2, and one that is MCP's.
    respond.send_informational(interim(101, &[])).unwrap();
    let session = [("mcp-session-id", "1")];
    respond.send_informational(interim(103, &session)).unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"done"), true).unwrap();
    wait_until("the answer", LIMIT, || client.stdout() == "done")
        .await
        .unwrap();
    wait_until("its head", LIMIT, || said("< HTTP/2 200"))
        .await
        .unwrap();
    let error = client.stderr();
    assert!(!error.contains("mcp-session-id") && !error.contains("HTTP/2 101"));
    assert!(!error.contains("< proxy-authenticate"));
    let heads: Vec<&str> = error
        .lines()
        .filter_map(|line| line.strip_prefix("< HTTP/2 "))
        .map(str::trim)
        .collect();
    assert_eq!(heads, ["100", "103", "102", "103", "200"], "{error}");
    let record = exchange(&daemon, "/hints").await;
    assert_eq!(record["outcome"]["status"], "done", "{record}");
    assert_eq!(record["http"]["version"], "HTTP/2", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_pass_both_ways_and_many_harm_nobody() {
    let lab = Lab::new().unwrap();
    let mut far = Far::new(&lab);
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let near = Near::new(&lab).await;
    let mut client = near.dial().await;

    // The client's, while the answer is waited for.
    let (_, mut body) = client.send_request(post("/waits"), false).unwrap();
    let (_request, mut respond) = far.accept().await;
    body.send_reset(Reason::CANCEL);
    let reset = in_time(poll_fn(|cx| respond.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, Reason::CANCEL);
    let record = exchange(&daemon, "/waits").await;
    assert_eq!(record["outcome"]["status"], "abandoned", "{record}");

    // The client's, in the middle of an answer.
    let (answer, body) = client.send_request(post("/reads"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream
        .send_data(Bytes::from_static(b"part"), false)
        .unwrap();
    let mut answer = in_time(answer).await.unwrap().into_body();
    assert_eq!(in_time(answer.data()).await.unwrap().unwrap(), "part");
    drop((answer, body));
    in_time(poll_fn(|cx| stream.poll_reset(cx))).await.unwrap();
    let record = exchange(&daemon, "/reads").await;
    assert_eq!(record["outcome"]["status"], "abandoned", "{record}");

    // The server's, before its answer and within it.
    let (answer, _body) = client.send_request(post("/refused"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    respond.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(in_time(answer).await.unwrap().status(), 502);
    let record = exchange(&daemon, "/refused").await;
    assert_eq!(record["outcome"]["status"], "failed", "{record}");
    let (answer, _body) = client.send_request(post("/breaks"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream
        .send_data(Bytes::from_static(b"part"), false)
        .unwrap();
    let mut answer = in_time(answer).await.unwrap().into_body();
    assert_eq!(in_time(answer.data()).await.unwrap().unwrap(), "part");
    stream.send_reset(Reason::ENHANCE_YOUR_CALM);
    let error = in_time(answer.data()).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error}");
    let record = exchange(&daemon, "/breaks").await;
    assert_eq!(record["outcome"]["status"], "failed", "{record}");

    // A client that resets whatever it asks for.
    let before = peak(&daemon);
    let mut hostile = near.dial().await;
    let mut sent = 0;
    for _ in 0..10_000 {
        if poll_fn(|cx| hostile.poll_ready(cx)).await.is_err() {
            break;
        }
        let Ok((_, mut body)) = hostile.send_request(post("/flood"), false) else {
            break;
        };
        body.send_reset(Reason::CANCEL);
        sent += 1;
        tokio::task::yield_now().await;
    }
    drop(hostile);
    let (answer, _body) = client.send_request(post("/after"), true).unwrap();
    let after = async {
        loop {
            let (request, respond) = far.accept().await;
            if request.uri().path() == "/after" {
                return respond;
            }
        }
    };
    let mut respond = after.await;
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(in_time(answer).await.unwrap().status(), 200);
    let grown = peak(&daemon) - before;
    assert!(grown < 32 * 1024, "{grown} KiB for {sent} streams");
    daemon.cli(&["audit", "verify"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_the_sender_and_not_the_gate() {
    const UP: usize = 4 << 20;
    const DOWN: usize = 16 << 20;
    /// A window of the gate's on one side, and what is between: its buffers, the kernel's, the relay's.
    const BETWEEN: usize = 7 << 20;
    let lab = Lab::new().unwrap();
    let mut far = Far::new(&lab);
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let near = Near::new(&lab).await;
    let mut client = near.dial().await;
    let (answer, _body) = client.send_request(post("/warm"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    respond.send_response(Response::new(()), true).unwrap();
    in_time(answer).await.unwrap();
    let before = peak(&daemon);

    let (answer, body) = client.send_request(post("/both"), false).unwrap();
    let (up, down) = (Arc::default(), Arc::default());
    let filled = tokio::spawn(fill(body, UP, Arc::clone(&up)));
    let (request, mut respond) = far.accept().await;
    let stream = respond.send_response(Response::new(()), false).unwrap();
    let served = tokio::spawn(fill(stream, DOWN, Arc::clone(&down)));
    let answer = in_time(answer).await.unwrap().into_body();
    // Nobody reads: both come to a halt.
    let (halted_up, halted_down) = tokio::join!(settled(&up), settled(&down));
    assert!(
        halted_up < UP && halted_down < BETWEEN,
        "{halted_up} {halted_down}"
    );
    // Somebody does: all of it comes.
    let (read_up, read_down) = tokio::join!(whole(request.into_body()), whole(answer));
    assert_eq!((read_up, read_down), (UP, DOWN));
    filled.await.unwrap();
    served.await.unwrap();
    let grown = peak(&daemon) - before;
    assert!(grown < 12 * 1024, "the gate grew by {grown} KiB");
    let record = exchange(&daemon, "/both").await;
    assert_eq!(record["http"]["request_bytes"], UP, "{record}");
    assert_eq!(record["http"]["response_bytes"], DOWN, "{record}");
    assert_eq!(record["outcome"]["status"], "done", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_hints_and_a_body_beyond_its_length_are_answered() {
    let lab = Lab::new().unwrap();
    let mut far = Far::new(&lab);
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let near = Near::new(&lab).await;
    let mut client = near.dial().await;
    let (answer, _body) = client.send_request(post("/endless"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    let hints = tokio::spawn(async move {
        poll_fn(|cx| {
            let reset = respond.poll_reset(cx);
            if reset.is_pending() {
                let link = [("link", "</a>; rel=preload; as=style; x=1234567890")];
                // What is not taken any more is reset.
                let _taken = respond.send_informational(interim(103, &link));
                cx.waker().wake_by_ref();
            }
            reset
        })
        .await
    });
    let answer = in_time(answer).await.unwrap();
    assert_eq!(answer.status(), 502);
    let mut body = answer.into_body();
    let told = in_time(body.data()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("upstream_protocol"), "{told}");
    assert_eq!(in_time(hints).await.unwrap().unwrap(), Reason::CANCEL);
    let record = exchange(&daemon, "/endless").await;
    assert_eq!(record["outcome"]["status"], "failed", "{record}");

    // More than the content-length of an answer, and of a request.
    let (answer, _body) = client.send_request(post("/longer"), true).unwrap();
    let (_request, mut respond) = far.accept().await;
    let mut head = Response::new(());
    let length = HeaderValue::from_static("3");
    head.headers_mut().insert("content-length", length.clone());
    let mut stream = respond.send_response(head, false).unwrap();
    stream
        .send_data(Bytes::from_static(b"12345"), true)
        .unwrap();
    // Either the head alone came, or it came too late.
    match in_time(answer).await {
        Ok(answer) if answer.status() == 200 => {
            let data = in_time(answer.into_body().data()).await.unwrap();
            data.unwrap_err();
        }
        Ok(answer) => assert_eq!(answer.status(), 502),
        Err(error) => assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}"),
    }
    let record = exchange(&daemon, "/longer").await;
    assert_eq!(record["outcome"]["status"], "failed", "{record}");
    let mut request = post("/shorter");
    request.headers_mut().insert("content-length", length);
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let (request, _respond) = far.accept().await;
    body.send_data(Bytes::from_static(b"12345"), true).unwrap();
    let error = in_time(answer).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{error}");
    let mut body = request.into_body();
    in_time(body.data()).await.unwrap().unwrap_err();
}
