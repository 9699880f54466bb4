//! A connection that cannot be recorded: nothing of it leaves, and where it speaks HTTP its requests are told so.
//! The log counts it, and says how many there were when it is written again.

use std::convert::Infallible;
use std::future::ready;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::{Answer, closing, refusal};
use super::{Bounds, Stages, agreed};
use crate::forward::body::{Drained, HttpFault, Received};
use crate::forward::upstream::Version;
use crate::http2;
use crate::intake::Arrived;
use crate::refuse::Refusal;
use crate::tls::hello::{self, Hello, Spoken};
use crate::tls::leaf::Alpn;

/// Answers what can be answered, within the time that a greeting may take.
pub(super) async fn answer(stages: &Stages, arrived: &Arrived, stream: TcpStream) {
    let limit = stages.bounds.greeting;
    let told = timeout(limit, async {
        match hello::peek(&stream, limit).await {
            Ok(Spoken::Http1) => serve(stages, stream, Version::Http1).await,
            Ok(Spoken::Http2) => serve(stages, stream, Version::Http2).await,
            Ok(Spoken::Tls) => {
                if let Ok(hello) = hello::read(stream, limit).await {
                    intercept(stages, arrived, hello).await;
                }
            }
            // Whatever it is, there is no way to say it.
            Ok(Spoken::Unknown) | Err(_) => {}
        }
    });
    if told.await.is_err() {
        tracing::debug!("a connection that cannot be recorded outlasted its time");
    }
}

/// Finishes a handshake that policy would have finished too, with nothing behind it.
async fn intercept(stages: &Stages, arrived: &Arrived, hello: Hello) {
    let Ok((peer, permit)) = agreed(stages, arrived, hello.name.as_deref()) else {
        return hello.deny().await;
    };
    if permit.egress().map(|terms| terms.tls) != Some(exeat_policy::Tls::Intercept) {
        return hello.deny().await;
    }
    let (alpn, version) = match hello.offers.as_slice() {
        [] => (Alpn::None, Version::Http1),
        [Alpn::Http2] => (Alpn::Http2, Version::Http2),
        _ => (Alpn::Http1, Version::Http1),
    };
    let Ok(config) = stages.leaves.config(&peer.to_string(), alpn, None).await else {
        return hello.deny().await;
    };
    match hello.into_handshake().into_stream(config).await {
        Ok(stream) => serve(stages, stream, version).await,
        Err(error) => tracing::debug!(%error, "a handshake that could not be recorded failed"),
    }
}

/// Refuses each request of a connection.
async fn serve<S>(stages: &Stages, stream: S, version: Version)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let tasks = stages.tasks.clone();
    let told = move |body: Received| -> Answer {
        // Read on, so that the client comes to read why.
        drop(Drained::new(body, &tasks));
        closing(refusal(Refusal::AuditUnavailable))
    };
    let Bounds {
        greeting,
        idle,
        headers,
        ..
    } = stages.bounds;
    let served = match version {
        Version::Http1 => {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = told(Received::Http1(request.into_body()));
                async { Ok::<Answer, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            builder.max_header_size(headers);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            served.await.map_err(HttpFault::from)
        }
        Version::Http2 => {
            let terms = http2::Terms {
                streams: 1,
                headers,
                greeting,
                idle,
                silent: greeting,
            };
            let served = http2::serve(stream, terms, &stages.stopping, move |request, _| {
                ready(told(Received::Http2(request.into_body())))
            });
            served.await.map_err(HttpFault::from)
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection that cannot be recorded ended");
    }
}
