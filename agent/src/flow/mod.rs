//! THE PATH: what happens to a connection, an exchange and a query, in the order of the stages.
//!
//! `intake` says whose it is and opens the record; `identify` agrees on whom it is meant for; `tls` and `decode`
//! read; `decide` makes a permit or a refusal; `forward` takes the permit, `refuse` the refusal; the record is
//! closed exactly once, by whoever ends the exchange, or by being dropped.

mod connection;
mod describe;
mod dns;
mod exchange;
mod mcp;
mod unrecorded;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
use self::describe::{Story as _, finding};
pub use self::dns::{Names, serve_datagrams};
pub use self::mcp::Observed;
use crate::audit::record::{Kind, Stage};
use crate::audit::{AuditUnavailable, Log, OpenRecord, Outcome, Start};
use crate::decide::{Connect, Decider, Permit, Refused};
use crate::forward::open::{Destination, OpenFault, Ways};
use crate::forward::tunnel::{self, Ended, Traffic};
use crate::forward::upstream::Version;
use crate::identify::agree;
use crate::identify::bindings::Bindings;
use crate::identify::calls::Calls;
use crate::identify::live::Unread;
use crate::identify::peer::Peer;
use crate::intake::{Actor, Arrived, Intake};
use crate::resolve::Resolver;
use crate::tls::hello::{self, Hello, Spoken};
use crate::tls::leaf::{Alpn, Leaves};

/// The port of DNS, by whatever address (RFC 1035 section 4.2).
const DNS: u16 = 53;

/// The kernel's bindings.
pub type KernelBindings = Bindings<Arc<exeat_ebpf::Gate>>;

/// Bounds of time and size.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Time to the end of a greeting or a request's head.
    pub greeting: Duration,
    /// Time without a request after which a connection is closed.
    pub idle: Duration,
    /// Time for an upstream to begin its answer.
    pub answer: Duration,
    /// Largest message that is held for inspection, in bytes.
    pub body: usize,
    /// Largest header section, in bytes.
    pub headers: usize,
}

/// Every stage, built once.
#[derive(Debug)]
pub struct Stages {
    /// Whose it is.
    pub intake: Intake,
    /// What the kernel was told of each workload.
    pub bindings: Arc<KernelBindings>,
    /// Tool calls in flight.
    pub calls: Calls,
    /// What was seen of MCP servers.
    pub observed: Observed,
    /// The decision.
    pub decider: Arc<Decider>,
    /// The log.
    pub log: Log,
    /// Names.
    pub resolver: Arc<Resolver<Names>>,
    /// Leaf certificates.
    pub leaves: Leaves,
    /// Ways out.
    pub ways: Ways<Names>,
    /// Bounds.
    pub bounds: Bounds,
    /// Where connections run.
    pub tasks: TaskTracker,
    /// Fires when the gate stops: finish what is under way.
    pub stopping: CancellationToken,
}

/// A connection and its record, until both belong to an exchange or end.
struct Opening {
    stages: Arc<Stages>,
    arrived: Arrived,
    record: OpenRecord,
}

/// Serves one accepted connection to its end.
pub async fn serve_connection(stages: Arc<Stages>, stream: TcpStream) {
    let arrived = match stages.intake.arrive(&stream).await {
        Ok(arrived) => arrived,
        Err(stranger) => return finding(&stages.log, "stranger", &stranger, None).await,
    };
    if arrived.port == DNS {
        return dns::serve_stream(&stages, &arrived, stream).await;
    }
    let cut = arrived.registered.cut().clone();
    let Ok(mut record) = open(&stages, &arrived.actor, Kind::Tcp).await else {
        let answered = Box::pin(unrecorded::answer(&stages, &arrived, stream));
        cut.run_until_cancelled(answered).await;
        return;
    };
    record.tell_arrival(&arrived);
    let opening = Opening {
        stages,
        arrived,
        record,
    };
    // What can say itself that it was cut comes first; anything else is dropped, and its records say where.
    tokio::select! {
        biased;
        () = opening.serve(stream) => {}
        () = cut.cancelled() => {}
    }
}

/// How long an exchange may wait for a place in the log before it is refused.
const PLACE: Duration = Duration::from_secs(5);

/// Opens the record of an exchange of `actor`, with what caused it as things stand now. Never waits for long:
/// each caller is answered.
async fn open(stages: &Stages, actor: &Actor, kind: Kind) -> Result<OpenRecord, AuditUnavailable> {
    let start = Start {
        at: None,
        workload: Some(actor.process.clone()),
        identity: Some(actor.identity.clone()),
        session: None,
        cause: actor
            .known
            .server()
            .and_then(|server| stages.calls.cause(server)),
    };
    let share = actor.known.exchange().ok_or(AuditUnavailable::Full)?;
    let opened = timeout(PLACE, stages.log.open(kind, start)).await;
    let mut record = opened.map_err(|_late| AuditUnavailable::Full)??;
    record.hold(share);
    Ok(record)
}

/// Agrees on the peer that `name` (none: the dialled address) means, and decides on it.
fn agreed(
    stages: &Stages,
    arrived: &Arrived,
    name: Option<&str>,
) -> Result<(Peer, Permit<Connect>), NotAgreed> {
    let Arrived {
        actor,
        address,
        port,
        registered,
    } = arrived;
    let peer = match name {
        Some(name) => Peer::parse_host(name).map_err(agree::Disagreement::from)?,
        None => Peer::Address(*address),
    };
    registered.set_peer(&peer);
    agree::bound(&stages.bindings, actor.number(), *address, &peer)?;
    let permit = stages
        .decider
        .connect(actor.caller(), peer.target(), *port)?;
    Ok((peer, permit))
}

impl Opening {
    /// Finds out what is spoken, and to whom.
    async fn serve(mut self, stream: TcpStream) {
        if let Some((peer, permit)) = self.opaque() {
            return self.pass(stream, &[], &peer, permit).await;
        }
        match hello::peek(&stream, self.stages.bounds.greeting).await {
            Ok(Spoken::Tls) => Box::pin(self.serve_tls(stream)).await,
            Ok(Spoken::Http1) => self.serve_clear(stream, Version::Http1).await,
            Ok(Spoken::Http2) => self.serve_clear(stream, Version::Http2).await,
            Ok(Spoken::Unknown) => {
                self.record.stage(Stage::Decode);
                self.record
                    .refuse_with("neither TLS nor HTTP, and no rule for opaque TCP");
            }
            Err(fault) => {
                self.record.stage(Stage::Decode);
                self.record.fail(&fault);
            }
        }
    }

    /// A destination whose bytes policy passes on unread: by synthetic address or by address range.
    fn opaque(&self) -> Option<(Peer, Permit<Connect>)> {
        let Arrived {
            actor,
            address,
            port,
            ..
        } = &self.arrived;
        let peer = match self
            .stages
            .bindings
            .synthetic_name(actor.number(), *address)
        {
            Some(name) => Peer::Name(name),
            None => Peer::Address(*address),
        };
        let permit = self
            .stages
            .decider
            .connect(actor.caller(), peer.target(), *port)
            .ok()?;
        permit
            .egress()
            .is_some_and(|terms| terms.wire == exeat_policy::Wire::Tcp)
            .then_some(())?;
        Some((peer, permit))
    }

    async fn serve_tls(mut self, stream: TcpStream) {
        self.record.stage(Stage::Tls);
        let hello = match hello::read(stream, self.stages.bounds.greeting).await {
            Ok(hello) => hello,
            Err(fault) => return self.record.refuse_with(&fault),
        };
        self.record.tell_server_name(hello.name.as_deref());
        let name = hello.name.as_deref();
        let (peer, permit) = match agreed(&self.stages, &self.arrived, name) {
            Ok(agreed) => agreed,
            Err(refusal) => {
                hello.deny().await;
                return refusal.record(self.record);
            }
        };
        match permit.egress().map(|terms| terms.tls) {
            Some(exeat_policy::Tls::Intercept) => self.intercept(hello, peer, permit).await,
            Some(exeat_policy::Tls::Passthrough) => {
                let (stream, first) = hello.into_parts();
                self.pass(stream, &first, &peer, permit).await;
            }
            Some(exeat_policy::Tls::Off) | None => {
                hello.deny().await;
                self.record.tell_decision(permit.decision());
                self.record
                    .refuse_with("TLS where the egress rule says `tls: off`");
            }
        }
    }

    async fn intercept(mut self, hello: Hello, peer: Peer, permit: Permit<Connect>) {
        self.record.tell_decision(permit.decision());
        let offers = hello.offers.clone();
        let to = self.destination(&peer);
        let server = permit.egress().and_then(|terms| terms.server.as_deref());
        let connected = server.is_none_or(|server| self.stages.decider.connected(server).is_ok());
        let opened = match self.record.intend().await {
            Ok(_) if !connected => Err(OpenFault::Disconnected),
            Ok(intended) => self.stages.ways.tls(permit, &intended, to, &offers).await,
            Err(unavailable) => Err(unavailable.into()),
        };
        let alpn = match &opened {
            Ok((_, alpn)) => *alpn,
            // The caller is to read why: HTTP is finished with it although nothing is behind.
            Err(_) if offers.is_empty() => Alpn::None,
            Err(_) if offers.contains(&Alpn::Http1) => Alpn::Http1,
            Err(_) => Alpn::Http2,
        };
        let config = match self.stages.leaves.config(&peer.to_string(), alpn).await {
            Ok(config) => config,
            Err(fault) => return self.record.fail(&fault),
        };
        let shaken = hello.into_handshake().into_stream(config);
        let stream = match timeout(self.stages.bounds.greeting, shaken).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.record.fail(&describe::Handshake(error)),
            Err(_) => return self.record.refuse_with("the TLS handshake took too long"),
        };
        let version = if alpn == Alpn::Http2 {
            Version::Http2
        } else {
            Version::Http1
        };
        let agreed = Some((peer, opened.map(|(sender, _)| sender)));
        let Self {
            stages,
            arrived,
            record,
        } = self;
        Connection::new(stages, arrived, version, agreed, record)
            .serve(stream)
            .await;
    }

    /// HTTP in clear text: the first request says whom it is for, so that agreement and decision wait for it.
    async fn serve_clear(self, stream: TcpStream, version: Version) {
        let Self {
            stages,
            arrived,
            record,
        } = self;
        Connection::new(stages, arrived, version, None, record)
            .serve(stream)
            .await;
    }

    /// Passes bytes on unread, and says so.
    async fn pass(mut self, stream: TcpStream, first: &[u8], peer: &Peer, permit: Permit<Connect>) {
        self.record.stage(Stage::Forward);
        self.record.tell_decision(permit.decision());
        self.record.tell_passed(peer);
        let unread = permit.egress().map(|terms| Unread::Bytes {
            wire: terms.wire,
            tls: terms.tls,
        });
        if let Some(unread) = unread {
            let Arrived {
                actor,
                port,
                registered,
                ..
            } = &self.arrived;
            registered.set_peer(peer);
            registered.set_unread(unread.clone());
            // A change of policy before this found nothing to cut.
            let decider = &self.stages.decider;
            if !decider.goes_on(actor.caller(), peer.target(), *port, Some(&unread)) {
                return self.record.fail(&describe::Cut);
            }
        }
        let to = self.destination(peer);
        let opened = match self.record.intend().await {
            Ok(intended) => self.stages.ways.raw(permit, &intended, to).await,
            Err(unavailable) => return self.record.refuse_with(&unavailable),
        };
        let upstream = match opened {
            Ok(upstream) => upstream,
            Err(fault) => return self.record.fail(&fault),
        };
        let traffic = Arc::new(Traffic::default());
        let cut = self.arrived.registered.cut();
        let ended = tunnel::run(stream, upstream, first, &traffic, cut).await;
        self.record.tell_traffic(&traffic);
        match ended {
            Ended::Closed => drop(self.record.close(Outcome::done())),
            Ended::Cut => self.record.fail(&describe::Cut),
            Ended::Failed(error) => self.record.fail(&error),
        }
    }

    fn destination<'a>(&self, peer: &'a Peer) -> Destination<'a> {
        Destination {
            workload: self.arrived.actor.number(),
            peer,
            port: self.arrived.port,
            dialled: self.arrived.address,
        }
    }
}

/// Why a connection's peer was not agreed on.
enum NotAgreed {
    /// Names and addresses do not belong together.
    Disagreement(agree::Disagreement),
    /// Policy refuses the peer.
    Refused(Refused),
}

impl From<agree::Disagreement> for NotAgreed {
    fn from(disagreement: agree::Disagreement) -> Self {
        Self::Disagreement(disagreement)
    }
}

impl From<Refused> for NotAgreed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl NotAgreed {
    fn record(self, mut record: OpenRecord) {
        match self {
            Self::Disagreement(disagreement) => {
                record.stage(Stage::Identify);
                record.refuse_with(&disagreement);
            }
            Self::Refused(refused) => {
                record.stage(Stage::Decide);
                record.refuse(&refused);
            }
        }
    }
}
