//! One client connection that carries HTTP, and the one upstream connection that belongs to it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use super::describe::{Story as _, finding};
use super::interim::Interim;
use super::{NotAgreed, Stages, exchange, open};
use crate::audit::record::Kind;
use crate::audit::{AuditUnavailable, Intended, OpenRecord, Outcome, Text};
use crate::decide::{Connect, Permit};
use crate::forward::open::{Destination, OpenFault};
use crate::forward::upstream::{Body, Sender, Version};
use crate::identify::agree;
use crate::identify::peer::Peer;
use crate::intake::Arrived;
use crate::refuse::Refusal;
use crate::tls::leaf::Alpn;

/// What became of the upstream connection.
pub(super) type Opened = Result<Sender, OpenFault>;

/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 128;
/// Windows as towards the upstream, for the same reason.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A client connection.
pub(super) struct Connection {
    pub(super) stages: Arc<Stages>,
    pub(super) arrived: Arrived,
    pub(super) version: Version,
    /// Whether it is intercepted TLS.
    pub(super) tls: bool,
    /// Set once: by the handshake, or by the first request in clear text.
    peer: OnceLock<Peer>,
    /// The peer as records name it.
    name: OnceLock<Text>,
    upstream: AsyncMutex<Option<Opened>>,
    /// Interim answers on their way to the client, over HTTP/1.1.
    pub(super) interim: Interim,
    /// The connection's record, until its first exchange takes it over.
    record: Mutex<Option<OpenRecord>>,
}

impl Connection {
    /// A connection whose peer was agreed on in a handshake, or is not known yet.
    pub(super) fn new(
        stages: Arc<Stages>,
        arrived: Arrived,
        version: Version,
        agreed: Option<(Peer, Opened)>,
        record: OpenRecord,
    ) -> Self {
        let tls = agreed.is_some();
        let peer = OnceLock::new();
        let mut upstream = None;
        if let Some((agreed, opened)) = agreed {
            drop(peer.set(agreed));
            upstream = Some(opened);
        }
        Self {
            stages,
            arrived,
            version,
            tls,
            peer,
            name: OnceLock::new(),
            upstream: AsyncMutex::new(upstream),
            interim: Interim::default(),
            record: Mutex::new(Some(record)),
        }
    }

    /// Serves HTTP until either side ends, the gate stops or the connection is idle for too long.
    pub(super) async fn serve<S>(self: Box<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let this: Arc<Self> = Arc::from(self);
        let service = {
            let this = Arc::clone(&this);
            service_fn(move |request: Request<Incoming>| {
                let this = Arc::clone(&this);
                // In HTTP/2 hyper would send a body all the same (RFC 9110 section 9.3.2).
                let bare = this.version == Version::Http2 && *request.method() == Method::HEAD;
                // On the heap, so that an idle connection does not keep room for it.
                Box::pin(async move {
                    let answer = exchange::serve(&this, request).await;
                    // Nothing is answered as done that could not be recorded.
                    let answer = match this.stages.log.release().await {
                        Ok(()) => answer,
                        Err(_) => Ok(exchange::refusal(Refusal::AuditUnavailable)),
                    };
                    answer.map(|answer| if bare { exchange::bare(answer) } else { answer })
                })
            })
        };
        let bounds = this.stages.bounds;
        // A child: connections that wait do not meet at one lock.
        let stopping = this.stages.stopping.child_token();
        let ended = match this.version {
            Version::Http1 => {
                let io = TokioIo::new(this.interim.beneath(stream));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(bounds.idle)
                    .max_header_size(bounds.headers)
                    .serve_connection(io, service)
                    .with_upgrades();
                tokio::pin!(connection);
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stopping.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
            Version::Http2 => {
                let io = TokioIo::new(stream);
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(bounds.idle / 2)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_concurrent_streams(STREAMS)
                    .max_header_list_size(u32::try_from(bounds.headers).unwrap_or(u32::MAX))
                    .serve_connection(io, service);
                tokio::pin!(connection);
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stopping.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        this.finish(ended).await;
    }

    /// A connection that carried no exchange still has its record; what came later and is no request, and so
    /// was answered by hyper, is a finding.
    async fn finish(&self, ended: Result<(), hyper::Error>) {
        let record = self
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (record, ended) {
            (Some(record), Err(error)) => record.refuse_with(&error),
            (Some(record), Ok(())) => drop(record.close(Outcome::done())),
            (None, Err(error)) if error.is_parse() => {
                let workload = Some(self.arrived.actor.process.clone());
                finding(&self.stages.log, "malformed_request", &error, workload).await;
            }
            (None, Err(error)) => tracing::debug!(%error, "a workload's connection ended"),
            (None, Ok(())) => {}
        }
    }

    /// The record of the next exchange: the connection's own for the first.
    pub(super) async fn record(&self) -> Result<OpenRecord, AuditUnavailable> {
        let first = self
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut record = match first {
            Some(mut record) => {
                let mut so_far = record.record_mut();
                so_far.kind = Kind::Http;
                so_far.tcp = None;
                drop(so_far);
                record
            }
            None => open(&self.stages, &self.arrived.actor, Kind::Http).await?,
        };
        let name = self.peer.get().map(|peer| {
            let name = self.name.get_or_init(|| Text::new(&peer.to_string()));
            name.clone()
        });
        record.tell_connection(&self.arrived, self.version, self.tls, name);
        Ok(record)
    }

    /// The peer of a request that names `said`: the connection's, or the one that the first request decides.
    pub(super) fn agree(&self, said: (Peer, Option<u16>)) -> Result<&Peer, NotAgreed> {
        if self.peer.get().is_none() {
            let Arrived {
                actor,
                address,
                port: _,
                registered,
            } = &self.arrived;
            registered.set_peer(&said.0);
            agree::bound(&self.stages.bindings, actor.number(), *address, &said.0)?;
            // A second request on the same HTTP/2 connection may have come first; then it must agree with that.
            drop(self.peer.set(said.0.clone()));
        }
        let Some(peer) = self.peer.get() else {
            return Err(NotAgreed::Disagreement(agree::Disagreement::Hosts(0)));
        };
        agree::same_host(said, peer, self.arrived.port, self.tls)?;
        Ok(peer)
    }

    /// Sends `request` on the upstream connection; opens it (again) if there is none that is alive, which
    /// takes a new decision.
    pub(super) async fn send(
        &self,
        peer: &Peer,
        intended: Intended<'_>,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFault> {
        let mut upstream = self.upstream.lock().await;
        if let Some(Err(_)) = &*upstream
            && let Some(Err(fault)) = upstream.take()
        {
            return Err(SendFault::Open(fault));
        }
        let alive = match &mut *upstream {
            Some(Ok(sender)) => sender.is_open() && sender.ready().await.is_ok(),
            _ => false,
        };
        if !alive {
            let sender = self.open(peer, &intended).await?;
            *upstream = Some(Ok(sender));
        }
        let Some(Ok(sender)) = &mut *upstream else {
            return Err(SendFault::Closed);
        };
        sender.ready().await.map_err(SendFault::Send)?;
        let answer = sender.send(intended, request);
        drop(upstream);
        match timeout(self.stages.bounds.answer, answer).await {
            Ok(answer) => answer.map_err(SendFault::Send),
            Err(_) => Err(SendFault::Timeout),
        }
    }

    /// Sends `request` on a connection of its own, which ends with the answer: for what is said to the server
    /// beside the client's own requests.
    pub(super) async fn send_aside(
        &self,
        peer: &Peer,
        intended: Intended<'_>,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFault> {
        let mut sender = self.open(peer, &intended).await?;
        sender.ready().await.map_err(SendFault::Send)?;
        let answer = sender.send(intended, request);
        match timeout(self.stages.bounds.answer, answer).await {
            Ok(answer) => answer.map_err(SendFault::Send),
            Err(_) => Err(SendFault::Timeout),
        }
    }

    /// Ends the upstream connection, with whatever is under way on it.
    pub(super) async fn hang_up(&self) {
        drop(self.upstream.lock().await.take());
    }

    async fn open(&self, peer: &Peer, intended: &Intended<'_>) -> Result<Sender, SendFault> {
        let Arrived {
            actor,
            address,
            port,
            ..
        } = &self.arrived;
        let permit: Permit<Connect> = self
            .stages
            .decider
            .connect(actor.caller(), peer.target(), *port)
            .map_err(|refused| SendFault::Refused(Box::new(refused)))?;
        if let Some(server) = permit.egress().and_then(|terms| terms.server.as_deref()) {
            let connected = self.stages.decider.connected(server);
            connected.map_err(|refused| SendFault::Refused(Box::new(refused)))?;
        }
        let to = Destination {
            workload: actor.number(),
            peer,
            port: *port,
            dialled: *address,
        };
        let clear = permit
            .egress()
            .is_some_and(|terms| terms.tls == exeat_policy::Tls::Off);
        let opened = match (self.tls, clear) {
            (true, false) => {
                let offer = if self.version == Version::Http2 {
                    Alpn::Http2
                } else {
                    Alpn::Http1
                };
                let opened = self.stages.ways.tls(permit, intended, to, &[offer]).await;
                // A server that chose otherwise before: many streams do not fit in one connection of HTTP/1.1.
                if let Ok((_, chosen)) = &opened
                    && (*chosen == Alpn::Http2) != (offer == Alpn::Http2)
                {
                    return Err(SendFault::Closed);
                }
                opened.map(|(sender, _)| sender)
            }
            (false, true) => {
                let ways = &self.stages.ways;
                ways.clear(permit, intended, to, self.version).await
            }
            // Clear text where the rule wants TLS, or the reverse.
            (true, true) | (false, false) => return Err(SendFault::Mismatch),
        };
        opened.map_err(SendFault::Open)
    }
}

/// Why a request was not answered by the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendFault {
    /// No connection.
    #[error("opening the upstream connection")]
    Open(#[source] OpenFault),
    /// The policy refuses the connection by now.
    #[error("the policy refuses the connection by now")]
    Refused(Box<crate::decide::Refused>),
    /// Clear text where TLS is due, or the reverse.
    #[error("clear text where the egress rule asks for tls, or the reverse")]
    Mismatch,
    /// The connection ended.
    #[error("the upstream connection ended")]
    Closed,
    /// hyper failed.
    #[error("sending the request")]
    Send(#[source] hyper::Error),
    /// No head of an answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] AuditUnavailable),
}
