//! The server: answers `tools/call` with as little work as possible.
//!
//! `echo` gives 200 bytes of JSON, `big` an answer with N bytes of text, `stream` N progress
//! notifications and then the answer, as an event stream.

use std::convert::Infallible;
use std::fs;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use exeat_tests::upstream::written;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, Infallible>;

/// Answer requests.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// PEM file of the certificate; without it plain HTTP
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long)]
    key: Option<PathBuf>,
}

/// Of a call, what the answer depends on.
#[derive(Debug, Default, Deserialize)]
struct Call {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    params: Params,
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    n: usize,
}

pub(crate) async fn serve(serve: Serve) -> Result<()> {
    let acceptor = match (&serve.cert, &serve.key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let listener = TcpListener::bind(serve.listen)
        .await
        .with_context(|| format!("listen on {}", serve.listen))?;
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    writeln!(stdout(), "{}", json!({ "ready": true, "address": address }))
        .context("say that it is ready")?;
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        // A connection that breaks is the client's to report.
        tokio::spawn(connection(stream, acceptor.clone()));
    }
}

fn acceptor(certificate: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor> {
    let chain = fs::read(certificate).with_context(|| format!("read {}", certificate.display()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .context("parse the certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("parse the key")?;
    let mut config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Result<()> {
    stream
        .set_nodelay(true)
        .context("send small writes at once")?;
    let Some(acceptor) = acceptor else {
        return speak(stream, false).await;
    };
    let stream = acceptor.accept(stream).await.context("shake hands")?;
    let modern = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    speak(stream, modern).await
}

async fn speak<S>(stream: S, modern: bool) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, service) = (TokioIo::new(stream), service_fn(answer));
    if modern {
        let server = http2::Builder::new(TokioExecutor::new());
        server
            .serve_connection(stream, service)
            .await
            .context("serve HTTP/2")
    } else {
        http1::Builder::new()
            .serve_connection(stream, service)
            .await
            .context("serve HTTP/1.1")
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let call: Call = serde_json::from_slice(&body).unwrap_or_default();
    let n = call.params.arguments.n;
    let response = match call.params.name.as_str() {
        "stream" => stream(&call.id, n),
        "big" => plain(result(&call.id, n)),
        _ => plain(result(&call.id, 103)),
    };
    Ok(response)
}

/// The answer with so many bytes of text; with 103 and an id of one digit it has 200 bytes.
fn result(id: &Value, length: usize) -> String {
    let text = "x".repeat(length);
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[{{"type":"text","text":"{text}"}}]}}}}"#
    )
}

fn plain(body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stream(id: &Value, count: usize) -> Response<Body> {
    let (sender, body) = written(16);
    let last = format!("event: message\ndata: {}\n\n", result(id, 1));
    tokio::spawn(async move {
        for progress in 1..=count {
            let params = json!({ "progressToken": 1, "progress": progress, "message": "[" });
            let message =
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
            let event = format!("event: message\ndata: {message}\n\n");
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
        }
        // The client may have gone; then nobody misses the answer.
        let _sent = sender.send_data(last.into()).await;
    });
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_200_bytes() {
        assert_eq!(result(&json!(1), 103).len(), 200);
    }
}
