//! The client: so many connections, each with one `tools/call` after the other.

use std::fs;
use std::future::pending;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode, Uri, Version, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::report::{Tally, document, spent};

/// How long one request may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(30);

/// Measure a server, or a way to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Where to send requests; its name is used for TLS and `Host` whatever `--connect` says
    #[arg(long)]
    url: Uri,
    /// Connect here instead of resolving the URL's name
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// PEM file of the authorities to trust; needed for https
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Connections at the same time
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to run before measuring
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Requests per second of all connections together; as many as there can be without it
    #[arg(long)]
    rate: Option<u32>,
    /// Open a connection for each request
    #[arg(long)]
    new: bool,
    /// Version of HTTP
    #[arg(long, value_enum, default_value_t = Protocol::Http1)]
    protocol: Protocol,
    /// The tool that is called: echo, big (an answer of N bytes), stream (an answer of N events)
    #[arg(long, default_value = "echo")]
    tool: String,
    /// The argument `n` of the tool
    #[arg(long, default_value_t = 1)]
    n: u64,
    /// Processes whose processor time is measured
    #[arg(long)]
    watch: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Http1,
    Http2,
}

/// What all connections share.
struct Plan {
    run: Run,
    host: String,
    tls: Option<TlsConnector>,
    body: Bytes,
    start: Instant,
    end: Instant,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Opens connections, makes one request on each, says so, and keeps them until it is ended.
pub(crate) async fn hold(run: Run) -> Result<()> {
    let plan = plan(run)?;
    let mut held = Vec::new();
    for _ in 0..plan.run.connections {
        let mut sender = None;
        timeout(LIMIT, once(&plan, &mut sender))
            .await
            .context("wait for an answer")??;
        held.push(sender);
    }
    writeln!(stdout(), "{}", json!({ "ready": true, "held": held.len() }))
        .context("say that it is ready")?;
    pending().await
}

fn plan(run: Run) -> Result<Plan> {
    let host = run.url.host().context("find a host in the URL")?.to_owned();
    let tls = match run.url.scheme_str() {
        Some("https") => Some(connector(&run)?),
        Some("http") => None,
        _ => bail!("`{}` is neither http nor https", run.url),
    };
    let start = Instant::now() + Duration::from_secs(run.warm_up);
    let window = Duration::from_secs(run.seconds);
    let body = call(&run.tool, run.n);
    Ok(Plan {
        run,
        host,
        tls,
        body,
        start,
        end: start + window,
    })
}

pub(crate) async fn run(run: Run) -> Result<Value> {
    let plan = Arc::new(plan(run)?);
    let window = plan.end - plan.start;
    // Each connection has its share of the rate.
    let share = f64::from(u32::try_from(plan.run.connections).unwrap_or(u32::MAX));
    let pace = plan
        .run
        .rate
        .map(|rate| Duration::from_secs_f64(share / f64::from(rate.max(1))));
    let mut tasks = JoinSet::new();
    for _ in 0..plan.run.connections {
        tasks.spawn(connection(Arc::clone(&plan), pace));
    }
    sleep_until(plan.start).await;
    let before = spent(&plan.run.watch)?;
    sleep_until(plan.end).await;
    let after = spent(&plan.run.watch)?;
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(tally.context("join a connection's task")?);
    }
    let times = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after - before);
    let watched: Vec<(u32, f64)> = plan.run.watch.iter().copied().zip(times).collect();
    Ok(document(all, window, &watched))
}

fn connector(run: &Run) -> Result<TlsConnector> {
    let file = run.ca.as_ref().context("--ca is needed for https")?;
    let pem = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.context("parse a certificate")?)
            .context("trust a certificate")?;
    }
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = if run.protocol == Protocol::Http2 {
        b"h2"
    } else {
        b"http/1.1"
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    // Handshakes are what `--new` measures; a ticket would hide them.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn call(tool: &str, n: u64) -> Bytes {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let arguments = json!({ "message": "hello", "n": n });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
        .to_string()
        .into()
}

async fn connection(plan: Arc<Plan>, pace: Option<Duration>) -> Tally {
    let mut due = Instant::now();
    let mut tally = Tally::default();
    let mut sender = None;
    while Instant::now() < plan.end {
        if let Some(pace) = pace {
            sleep_until(due).await;
            // What comes late is not made up for by a burst.
            due = (due + pace).max(Instant::now());
        }
        let began = Instant::now();
        let counts = began >= plan.start;
        let outcome = timeout(LIMIT, once(&plan, &mut sender)).await;
        let outcome = outcome
            .context("wait for an answer")
            .and_then(|inner| inner);
        if plan.run.new || outcome.is_err() {
            sender = None;
        }
        match outcome {
            Ok((opened, bytes, events)) if counts && Instant::now() <= plan.end => {
                tally.finished(began.elapsed());
                tally.bytes += bytes;
                tally.events += events;
                tally.connections += u64::from(opened);
            }
            Ok(_) => {}
            Err(error) => tally.fail(&error),
        }
    }
    tally
}

/// One request: whether a connection had to be opened, and the answer's bytes and events.
async fn once(plan: &Plan, sender: &mut Option<Sender>) -> Result<(bool, u64, u64)> {
    let opened = sender.is_none();
    if opened {
        *sender = Some(open(plan).await?);
    }
    let request = Request::post(target(plan)?)
        .header("host", &plan.host)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", &plan.run.tool)
        .body(Full::new(plan.body.clone()))
        .context("build a request")?;
    let response = match sender.as_mut().context("keep a connection")? {
        Sender::Http1(sender) => {
            sender.ready().await.context("wait for the connection")?;
            sender.send_request(request).await
        }
        Sender::Http2(sender) => {
            sender.ready().await.context("wait for the connection")?;
            let (mut head, body) = request.into_parts();
            head.version = Version::HTTP_2;
            head.headers.remove("host");
            sender.send_request(Request::from_parts(head, body)).await
        }
    };
    let (bytes, events) = read(response.context("send a request")?).await?;
    Ok((opened, bytes, events))
}

/// HTTP/1.1 wants the path alone, HTTP/2 the whole URL.
fn target(plan: &Plan) -> Result<Uri> {
    if plan.run.protocol == Protocol::Http2 {
        return Ok(plan.run.url.clone());
    }
    let path = plan
        .run
        .url
        .path_and_query()
        .map_or("/", |path| path.as_str());
    path.parse().context("build a path")
}

async fn read(response: Response<Incoming>) -> Result<(u64, u64)> {
    let status = response.status();
    let streamed = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/event-stream");
    let mut body = response.into_body();
    let (mut bytes, mut events) = (0, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("read an answer")?;
        if let Some(data) = frame.data_ref() {
            bytes += data.len() as u64;
            // Counted by a byte that the upstream puts once into each event and nowhere else.
            events += data
                .iter()
                .filter(|byte| streamed && **byte == b'[')
                .count() as u64;
        }
    }
    ensure!(status == StatusCode::OK, "the answer's status is {status}");
    Ok((bytes, events))
}

async fn open(plan: &Plan) -> Result<Sender> {
    let port = plan
        .run
        .url
        .port_u16()
        .unwrap_or_else(|| if plan.tls.is_some() { 443 } else { 80 });
    let address = match plan.run.connect {
        Some(address) => address,
        None => lookup_host((plan.host.as_str(), port))
            .await
            .with_context(|| format!("resolve {}", plan.host))?
            .next()
            .with_context(|| format!("find an address of {}", plan.host))?,
    };
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect {address}"))?;
    stream
        .set_nodelay(true)
        .context("send small writes at once")?;
    let Some(tls) = &plan.tls else {
        return speak(plan, stream).await;
    };
    let name = ServerName::try_from(plan.host.clone()).context("read the server's name")?;
    let stream = tls.connect(name, stream).await.context("shake hands")?;
    speak(plan, stream).await
}

async fn speak<S>(plan: &Plan, stream: S) -> Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    if plan.run.protocol == Protocol::Http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .context("start HTTP/2")?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(stream).await.context("start HTTP/1.1")?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}
