//! Streamable HTTP without streams: each request is answered in the response to its POST.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{rpc, show};

/// Serves until the process is ended; says a line once it listens.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    show::tell(r#"{"ready":true}"#);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        return Ok(of(StatusCode::METHOD_NOT_ALLOWED, String::new()));
    }
    let Ok(body) = request.into_body().collect().await else {
        return Ok(of(StatusCode::BAD_REQUEST, String::new()));
    };
    let Ok(message) = serde_json::from_slice(&body.to_bytes()) else {
        return Ok(of(StatusCode::BAD_REQUEST, String::new()));
    };
    Ok(match rpc::answer(&message).await {
        Some(answer) => of(StatusCode::OK, answer.to_string()),
        None => of(StatusCode::ACCEPTED, String::new()),
    })
}

fn of(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if status == StatusCode::OK {
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
