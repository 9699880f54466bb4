//! Talks HTTP as the managed host, byte by byte where a test wants that.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use exeat_tests::fixtures::Invocation;
use exeat_tests::process::{Process, must};

use crate::world::{LIMIT, NAME, World};

/// A server as the host names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) host: &'static str,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) path: &'static str,
}

/// The server of the world.
pub(crate) const FAR: Place = Place {
    host: NAME,
    port: 443,
    tls: true,
    path: "/mcp",
};

/// Another, beside it at a port of its own, and its URL.
pub(crate) const OTHER: Place = Place {
    host: "other.lab.example",
    port: 8443,
    ..FAR
};
pub(crate) const OTHER_URL: &str = "https://other.lab.example:8443/mcp";

/// Says the newest revision with sessions.
pub(crate) const LEGACY: (&str, &str) = ("mcp-protocol-version", "2025-11-25");

/// The revision without sessions.
pub(crate) const MODERN: &str = "2026-07-28";

impl Place {
    pub(crate) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_owned(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Bytes both ways.
pub(crate) trait Bidirectional: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bidirectional for T {}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The JSON-RPC error's code.
    pub(crate) fn code(&self) -> Option<i64> {
        self.json()["error"]["code"].as_i64()
    }
}

/// The managed host's end.
pub(crate) struct Talker {
    _relay: Process,
    socket: std::path::PathBuf,
    trust: Arc<ClientConfig>,
}

impl World<'_> {
    /// Something that dials as the host.
    pub(crate) async fn talker(&self) -> Result<Talker> {
        self.talker_of("root").await
    }

    /// The same in a process of this user's.
    pub(crate) async fn talker_of(&self, user: &str) -> Result<Talker> {
        let place = self.lab.directory().join(format!("relay-{user}"));
        fs::create_dir_all(&place).context("make the relay's directory")?;
        must("chown", &[user.as_ref(), place.as_os_str()])?;
        let socket = place.join("relay.sock");
        let relay = Invocation {
            program: "/usr/bin/python3".into(),
            arguments: vec![
                "-c".into(),
                include_str!("relay.py").into(),
                (&socket).into(),
            ],
            variables: Vec::new(),
        };
        let mut launcher = self.managed();
        launcher.args(["setpriv", "--reuid", user, "--clear-groups", "--", "env"]);
        let mut command = relay.under(launcher);
        let mut relay =
            Process::start(&format!("relay-{user}"), self.lab.directory(), &mut command)?;
        relay.ready(LIMIT).await?;
        let mut roots = RootCertStore::empty();
        let pem = fs::read(self.trust()).context("read the daemon's certificate")?;
        roots
            .add(CertificateDer::from_pem_slice(&pem).context("read the daemon's certificate")?)?;
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Talker {
            _relay: relay,
            socket,
            trust: Arc::new(config),
        })
    }
}

impl Talker {
    /// A connection; `protocols` for ALPN.
    pub(crate) async fn dial(
        &self,
        place: Place,
        protocols: &[&str],
    ) -> Result<Box<dyn Bidirectional>> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .context("reach the relay")?;
        let line = format!("{} {}\n", place.host, place.port);
        stream
            .write_all(line.as_bytes())
            .await
            .context("tell the relay")?;
        if !place.tls {
            return Ok(Box::new(stream));
        }
        let mut config = (*self.trust).clone();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(place.host).context("name the server")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        Ok(Box::new(stream.await.context("shake hands with the gate")?))
    }

    /// Sends a request on a connection of its own and returns the answer with its body unread.
    pub(crate) async fn send(
        &self,
        place: Place,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        let (mut head, body) = request.into_parts();
        head.headers
            .insert("host", HeaderValue::from_str(&place.authority())?);
        let io = TokioIo::new(self.dial(place, &["http/1.1"]).await?);
        let (mut sender, connection) = http1::handshake(io).await.context("speak HTTP/1.1")?;
        tokio::spawn(connection);
        let answer = sender.send_request(Request::from_parts(head, body));
        timeout(LIMIT, answer)
            .await
            .context("wait for an answer")?
            .context("send a request")
    }

    /// The same over HTTP/2.
    pub(crate) async fn send_h2(
        &self,
        place: Place,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        let (mut head, body) = request.into_parts();
        let uri = format!("https://{}{}", place.authority(), head.uri.path());
        head.uri = uri.parse().context("write a uri")?;
        let io = TokioIo::new(self.dial(place, &["h2"]).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .context("speak HTTP/2")?;
        tokio::spawn(connection);
        let answer = sender.send_request(Request::from_parts(head, body));
        timeout(LIMIT, answer)
            .await
            .context("wait for an answer")?
            .context("send a request")
    }

    /// Posts `body` with these further headers.
    pub(crate) async fn post(
        &self,
        place: Place,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        whole(
            self.send(place, request("POST", place.path, headers, body)?)
                .await?,
        )
        .await
    }

    /// Sends raw bytes and reads what comes until the other side closes, or a whole answer is there.
    pub(crate) async fn raw(&self, place: Place, bytes: &[u8]) -> Result<String> {
        let mut stream = self.dial(place, &["http/1.1"]).await?;
        stream.write_all(bytes).await.context("send bytes")?;
        let mut all = Vec::new();
        let mut buffer = vec![0; 65536];
        loop {
            let read = timeout(LIMIT, stream.read(&mut buffer))
                .await
                .context("wait for bytes")?;
            match read {
                Ok(0) | Err(_) => break,
                Ok(length) => all.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
            if is_whole(&all) {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// A request with the headers that MCP wants, unless `headers` has others; an empty value leaves one out.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body.into()))
        .context("write a request")?;
    let usual = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let map = request.headers_mut();
    for (name, value) in usual {
        map.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    for (name, _) in headers {
        map.remove(*name);
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        map.append(name, HeaderValue::from_bytes(value.as_bytes())?);
    }
    Ok(request)
}

/// Reads an answer to its end.
pub(crate) async fn whole(response: Response<Incoming>) -> Result<Reply> {
    let (head, body) = response.into_parts();
    let body = timeout(LIMIT, body.collect())
        .await
        .context("wait for a body")?;
    Ok(Reply {
        status: head.status,
        body: body.context("read a body")?.to_bytes(),
    })
}

/// The events of an answer, one by one.
pub(crate) struct EventReader {
    body: Incoming,
    rest: String,
}

impl EventReader {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            rest: String::new(),
        }
    }

    /// The next event's text, comments too; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let event = event.to_owned();
                self.rest = rest.to_owned();
                return Ok(Some(event));
            }
            let frame = timeout(LIMIT, self.body.frame())
                .await
                .context("wait for an event")?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.context("read an event")?;
            if let Some(data) = frame.data_ref() {
                self.rest
                    .push_str(std::str::from_utf8(data).context("read an event")?);
            }
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Result<Option<Value>> {
        while let Some(event) = self.next().await? {
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data:")) {
                return Ok(Some(
                    serde_json::from_str(data.trim()).context("read a message")?,
                ));
            }
        }
        Ok(None)
    }
}
