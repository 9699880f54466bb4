//! A Rust client as others are: rustls with the roots of `SSL_CERT_FILE`, hyper over HTTP/1.1; `get URL`.
//!
//! Prints one line of JSON: {"status": number, "body": text}.

#![forbid(unsafe_code)]

use std::env;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url: Uri = env::args()
        .nth(1)
        .context("get URL")?
        .parse()
        .context("read the URL")?;
    let host = url.host().context("find a host in the URL")?.to_owned();
    let mut roots = RootCertStore::empty();
    let file = env::var("SSL_CERT_FILE").context("read SSL_CERT_FILE")?;
    for certificate in CertificateDer::pem_file_iter(&file).context("open the roots")? {
        roots
            .add(certificate.context("read a root")?)
            .context("add a root")?;
    }
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((host.as_str(), url.port_u16().unwrap_or(443)))
        .await
        .context("connect")?;
    let name = ServerName::try_from(host.clone()).context("name the server")?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .context("shake hands")?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.context("begin")?;
    let driver = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .context("make the request")?;
    let response = sender.send_request(request).await.context("ask")?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.context("read")?;
    driver.abort();
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    writeln!(
        std::io::stdout(),
        "{}",
        json!({ "status": status, "body": body })
    )
    .context("print")
}
