//! One client connection that carries HTTP, and the one upstream connection that belongs to it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::describe::{Story as _, finding};
use super::exchange::{self, Answer};
use super::interim::{Interim, Way};
use super::mcp::until::Over;
use super::{NotAgreed, Stages, open};
use crate::audit::record::Kind;
use crate::audit::{AuditUnavailable, Intended, OpenRecord, Outcome, Text};
use crate::decide::{Connect, Permit};
use crate::forward::body::{HttpFault, Received};
use crate::forward::credential::CredentialFault;
use crate::forward::open::{Destination, OpenFault};
use crate::forward::upstream::{Body, Sender, Unheard, Version};
use crate::http2;
use crate::identify::agree;
use crate::identify::certificate::Presented;
use crate::identify::peer::Peer;
use crate::intake::Arrived;
use crate::refuse::Refusal;
use crate::tls::leaf::Alpn;

/// What became of the upstream connection.
pub(super) type Opened = Result<Sender, OpenFault>;

/// What a TLS handshake came to.
pub(super) struct Agreed {
    /// Whom it is meant for.
    pub(super) peer: Peer,
    /// What became of the upstream connection.
    pub(super) opened: Opened,
    /// The client certificate, where the client was asked and has one.
    pub(super) presented: Option<Presented>,
}

/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 128;
/// How long a client that was pinged may be silent.
const SILENT: Duration = Duration::from_secs(20);

/// A client connection.
pub(super) struct Connection {
    pub(super) stages: Arc<Stages>,
    pub(super) arrived: Arrived,
    pub(super) version: Version,
    /// Whether it is intercepted TLS.
    pub(super) tls: bool,
    /// The client certificate of the handshake.
    pub(super) presented: Option<Arc<Presented>>,
    /// Set once: by the handshake, or by the first request in clear text.
    peer: OnceLock<Peer>,
    /// The peer as records name it.
    name: OnceLock<Text>,
    upstream: AsyncMutex<Option<Opened>>,
    /// The connection's record, until its first exchange takes it over.
    record: Mutex<Option<OpenRecord>>,
}

impl Connection {
    /// A connection whose peer was agreed on in a handshake, or is not known yet.
    pub(super) fn new(
        stages: Arc<Stages>,
        arrived: Arrived,
        version: Version,
        agreed: Option<Agreed>,
        record: OpenRecord,
    ) -> Self {
        let tls = agreed.is_some();
        let peer = OnceLock::new();
        let (mut upstream, mut presented) = (None, None);
        if let Some(agreed) = agreed {
            drop(peer.set(agreed.peer));
            upstream = Some(agreed.opened);
            presented = agreed.presented.map(Arc::new);
        }
        Self {
            stages,
            arrived,
            version,
            tls,
            presented,
            peer,
            name: OnceLock::new(),
            upstream: AsyncMutex::new(upstream),
            record: Mutex::new(Some(record)),
        }
    }

    /// Serves HTTP until either side ends, the gate stops or the connection is idle for too long.
    pub(super) async fn serve<S>(self: Box<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let this: Arc<Self> = Arc::from(self);
        // A child: connections that wait do not meet at one lock.
        let stopping = this.stages.stopping.child_token();
        let ended = match this.version {
            Version::Http1 => this.serve_first(stream, &stopping).await,
            Version::Http2 => this.serve_second(stream, &stopping).await,
        };
        this.finish(ended).await;
    }

    async fn serve_first<S>(
        self: &Arc<Self>,
        stream: S,
        stopping: &CancellationToken,
    ) -> Result<(), HttpFault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let interim = Interim::default();
        let io = TokioIo::new(interim.beneath(stream));
        let this = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (this, interim) = (Arc::clone(&this), interim.clone());
            // On the heap, so that an idle connection does not keep room for it; made there, since it is 16 KiB to move.
            Box::into_pin(Box::write(Box::new_uninit(), async move {
                let request = request.map(Received::Http1);
                Ok::<_, Infallible>(this.answer(request, Way::Beneath(interim)).await)
            }))
        });
        let bounds = self.stages.bounds;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.idle)
            .max_header_size(bounds.headers)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        Ok(ended?)
    }

    async fn serve_second<S>(
        self: &Arc<Self>,
        stream: S,
        stopping: &CancellationToken,
    ) -> Result<(), HttpFault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let bounds = self.stages.bounds;
        let terms = http2::Terms {
            streams: STREAMS,
            headers: bounds.headers,
            greeting: bounds.greeting,
            idle: bounds.idle / 2,
            silent: SILENT,
        };
        let serving = http2::serve(stream, terms, stopping, |request, reply| {
            let this = Arc::clone(self);
            async move {
                let request = request.map(Received::Http2);
                this.answer(request, Way::Stream(reply)).await
            }
        });
        Ok(serving.await?)
    }

    /// Answers a request; nothing is answered as done that could not be recorded.
    async fn answer(self: &Arc<Self>, request: Request<Received>, way: Way) -> Answer {
        let answer = exchange::serve(self, request, way).await;
        match self.stages.log.release().await {
            Ok(()) => answer,
            Err(_) => exchange::refusal(Refusal::AuditUnavailable),
        }
    }

    /// A connection that carried no exchange still has its record; what came later and is no request, and so
    /// was answered by the protocol alone, is a finding.
    async fn finish(&self, ended: Result<(), HttpFault>) {
        let record = self
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (record, ended) {
            (Some(record), Err(error)) => record.refuse_with(&error),
            (Some(record), Ok(())) => drop(record.close(Outcome::done())),
            (None, Err(error)) if error.is_malformed() => {
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
    /// takes a new decision. `interim` sees what comes before the answer.
    pub(super) async fn send<I>(
        &self,
        peer: &Peer,
        intended: Intended<'_>,
        request: Request<Body>,
        interim: Option<I>,
    ) -> Result<Response<Received>, SendFault>
    where
        I: Fn(StatusCode, &HeaderMap) + Send + Sync + 'static,
    {
        let mut upstream = self.upstream.lock().await;
        if let Some(Err(_)) = &*upstream
            && let Some(Err(fault)) = upstream.take()
        {
            return Err(SendFault::Open(fault));
        }
        let alive = match &mut *upstream {
            Some(Ok(sender)) => sender.ready().await.is_ok(),
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
        let answer = sender.send(intended, request, interim);
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
    ) -> Result<Response<Received>, SendFault> {
        let mut sender = self.open(peer, &intended).await?;
        sender.ready().await.map_err(SendFault::Send)?;
        let answer = sender.send(intended, request, None::<Unheard>);
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

impl SendFault {
    /// Whether nothing of the request was sent for certain.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Open(_) | Self::Mismatch | Self::Credential(_) | Self::Unrecorded(_)
        )
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
    /// HTTP failed.
    #[error("sending the request")]
    Send(#[source] HttpFault),
    /// No head of an answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It may not go on.
    #[error(transparent)]
    Over(Over),
    /// What policy wants put into it cannot be.
    #[error(transparent)]
    Credential(#[from] CredentialFault),
    /// It cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] AuditUnavailable),
}
