//! A small HTTP client that trusts what `SSL_CERT_FILE` names, as OpenSSL's programs do.

use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::dns;

const LIMIT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends one request over a connection of its own.
pub(crate) async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Answer> {
    let sent = timeout(LIMIT, exchange(method, url, headers, body));
    sent.await.context("no answer in time")?
}

async fn exchange(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Answer> {
    let uri: Uri = url.parse().context("read a URL")?;
    let host = uri.host().context("find the URL's host")?;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .context("write a request")?;
    let address = SocketAddr::new(dns::look_up(host).await?, port);
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect {address}"))?;
    if !secure {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).context("name the server")?;
    let stream = TlsConnector::from(trusting()?)
        .connect(name, stream)
        .await
        .context("shake hands")?;
    send(stream, request).await
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn trusting() -> Result<Arc<ClientConfig>> {
    let file = env::var_os("SSL_CERT_FILE").context("find SSL_CERT_FILE")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).context("read SSL_CERT_FILE")? {
        // As elsewhere, a root that cannot be used is passed over.
        let (_used, _ignored) =
            roots.add_parsable_certificates([certificate.context("read a certificate")?]);
    }
    if roots.is_empty() {
        bail!("SSL_CERT_FILE names no certificate");
    }
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Connects, and says what came of it and how fast.
pub(crate) async fn dial(address: SocketAddr) -> Result<String> {
    let start = Instant::now();
    let made = timeout(LIMIT, TcpStream::connect(address)).await;
    let took = start.elapsed().as_micros();
    Ok(match made {
        Ok(Ok(_stream)) => format!("connected to {address}"),
        Ok(Err(error)) => format!("{error} after {took} µs"),
        Err(_late) => format!("no answer from {address}"),
    })
}
