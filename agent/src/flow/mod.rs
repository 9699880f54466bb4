//! THE PATH: what happens to a connection, an exchange and a query, in the order of the stages.
//!
//! `intake` says whose it is and opens the record; `identify` agrees on whom it is meant for; `tls` and `decode`
//! read; `decide` makes a permit or a refusal; `forward` takes the permit, `refuse` the refusal; the record is
//! closed exactly once, by whoever ends the exchange, or by being dropped.

mod artefacts;
mod connection;
mod credential;
mod describe;
mod dns;
mod exchange;
mod interim;
mod keys;
mod mcp;
mod recheck;
mod shown;
mod unrecorded;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Agreed, Connection};
use self::describe::{Story as _, finding};
pub use self::dns::{Names, serve_datagrams};
pub use self::keys::serve_keys;
pub use self::mcp::{Observed, Offered, Sessions, Word, serve_stdio, turn_away};
pub use self::webhooks::{Approving, Webhook, facts, serve_webhook, why_asked};
use crate::audit::record::{Kind, Stage};
use crate::audit::{AuditUnavailable, Log, OpenRecord, Start};
use crate::decide::approvals::Approvals;
use crate::decide::{Connect, Decider, Permit, Refused};
use crate::forward::credential::Credentials;
use crate::forward::open::{Destination, OpenFault, Ways};
use crate::forward::tunnel::{self, Traffic};
use crate::forward::upstream::Version;
use crate::identify::agree;
use crate::identify::bindings::Bindings;
use crate::identify::calls::Calls;
use crate::identify::certificate::{Authorities, Presented};
use crate::identify::live::Unread;
use crate::identify::peer::Peer;
use crate::identify::token::Tokens;
use crate::intake::{Actor, Arrived, Intake};
use crate::resolve::Resolver;
use crate::tls::hello::{self, Hello, Spoken};
use crate::tls::leaf::{Alpn, LeafFault, Leaves};
use crate::tls::tee::Tee;
use crate::tls::upstream::is_certificate_fault;

/// The port of DNS, by whatever address (RFC 1035 section 4.2).
const DNS: u16 = 53;

/// Why TLS to an address is not passed on unread where its network is.
const UNNAMED: &str = "TLS without a server name, at an address whose messages are read";

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
    /// Time for a server to fetch before it speaks.
    pub fetch: Duration,
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
    /// Sessions over standard streams.
    pub sessions: Sessions,
    /// The decision.
    pub decider: Arc<Decider>,
    /// Calls that wait for a person.
    pub approvals: Arc<Approvals>,
    /// How they reach people, where the configuration says.
    pub approving: Option<Arc<Approving>>,
    /// The secrets that are put into requests.
    pub credentials: Credentials,
    /// The issuers whose tokens are verified.
    pub tokens: Tokens,
    /// The authorities whose client certificates are verified, as they are now.
    pub authorities: ArcSwap<Authorities>,
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
    // Each part of a connection's life is on the heap while it lasts, so that one that idles keeps no room for
    // what is over.
    let Some((opening, stream)) = Box::pin(begin(stages, stream)).await else {
        return;
    };
    let cut = opening.arrived.registered.cut().clone();
    // What can say itself that it was cut comes first; anything else is dropped, and its records say where.
    tokio::select! {
        biased;
        () = go_on(opening, stream) => {}
        () = cut.cancelled() => {}
    }
}

/// Whose it is, and its record; `None` if that is all that becomes of it.
async fn begin(stages: Arc<Stages>, stream: TcpStream) -> Option<(Box<Opening>, TcpStream)> {
    let arrived = match stages.intake.arrive(&stream).await {
        Ok(arrived) => arrived,
        Err(stranger) => {
            finding(&stages.log, "stranger", &stranger, None).await;
            return None;
        }
    };
    if arrived.port == DNS {
        let cut = arrived.registered.cut().clone();
        let served = dns::serve_stream(&stages, &arrived, stream);
        cut.run_until_cancelled(served).await;
        return None;
    }
    let Ok(mut record) = open(&stages, &arrived.actor, Kind::Tcp).await else {
        let cut = arrived.registered.cut().clone();
        let answered = Box::pin(unrecorded::answer(&stages, &arrived, stream));
        cut.run_until_cancelled(answered).await;
        return None;
    };
    record.tell_arrival(&arrived);
    let opening = Box::new(Opening {
        stages,
        arrived,
        record,
    });
    Some((opening, stream))
}

async fn go_on(opening: Box<Opening>, stream: TcpStream) {
    match Box::pin(opening.serve(stream)).await {
        Next::Over => {}
        Next::Clear(connection, stream) => Box::pin(connection.serve(stream)).await,
        Next::Tls(connection, stream) => Box::pin(connection.serve(stream)).await,
    }
}

/// What follows the opening of a connection.
enum Next {
    /// Nothing.
    Over,
    /// HTTP in clear text.
    Clear(Box<Connection>, TcpStream),
    /// HTTP in TLS.
    Tls(Box<Connection>, Box<TlsStream<Tee<TcpStream>>>),
}

/// Why TLS with a client was not finished.
enum Unshaken {
    /// There is no certificate to show it.
    Leaf(LeafFault),
    /// TLS failed.
    Failed(std::io::Error),
    /// It took too long.
    Late,
}

impl Unshaken {
    /// Ends the connection's record.
    fn record(self, record: OpenRecord) {
        match self {
            Self::Leaf(fault) => record.fail(&fault),
            // What the client showed is malformed, or is not its own.
            Self::Failed(error) if is_certificate_fault(&error) => {
                record.refuse_with(&describe::Handshake(error));
            }
            Self::Failed(error) => record.fail(&describe::Handshake(error)),
            Self::Late => record.refuse_with("the TLS handshake took too long"),
        }
    }
}

/// How long an exchange may wait for a place in the log before it is refused.
pub(crate) const PLACE: Duration = Duration::from_secs(5);

/// Opens the record of an exchange of `actor`, with what caused it as things stand now. Never waits for long:
/// each caller is answered.
async fn open(stages: &Stages, actor: &Actor, kind: Kind) -> Result<OpenRecord, AuditUnavailable> {
    let share = actor.known.exchange().ok_or(AuditUnavailable::Full)?;
    let mut record = open_briefly(stages, actor, kind).await?;
    record.hold(share);
    Ok(record)
}

/// The same for what is over as soon as it is recorded, and no exchange under way: who has as many of those as it may can
/// still cancel one.
async fn open_briefly(
    stages: &Stages,
    actor: &Actor,
    kind: Kind,
) -> Result<OpenRecord, AuditUnavailable> {
    let start = Start {
        at: None,
        workload: Some(actor.process.clone()),
        identity: Some(actor.identity.clone()),
        session: None,
        cause: actor.cause(&stages.calls),
    };
    let opened = timeout(PLACE, stages.log.open(kind, start)).await;
    opened.map_err(|_late| AuditUnavailable::Full)?
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
    async fn serve(mut self: Box<Self>, stream: TcpStream) -> Next {
        if let Some((peer, permit)) = self.opaque() {
            self.pass(stream, &[], &peer, permit).await;
            return Next::Over;
        }
        match hello::peek(&stream, self.stages.bounds.greeting).await {
            Ok(Spoken::Tls) => return Box::pin(self.serve_tls(stream)).await,
            Ok(Spoken::Http1) => return self.clear(stream, Version::Http1),
            Ok(Spoken::Http2) => return self.clear(stream, Version::Http2),
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
        Next::Over
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
        (!self.is_read(&peer)).then_some((peer, permit))
    }

    /// Whether what is sent there is read, although a network is passed on that it belongs to.
    fn is_read(&self, peer: &Peer) -> bool {
        let Arrived { actor, port, .. } = &self.arrived;
        self.stages
            .is_read(actor.caller(), actor.number(), peer, *port)
    }

    async fn serve_tls(mut self, stream: TcpStream) -> Next {
        self.record.stage(Stage::Tls);
        let hello = match hello::read(stream, self.stages.bounds.greeting).await {
            Ok(hello) => hello,
            Err(fault) => {
                self.record.refuse_with(&fault);
                return Next::Over;
            }
        };
        self.record.tell_server_name(hello.name.as_deref());
        let name = hello.name.as_deref();
        let (peer, permit) = match agreed(&self.stages, &self.arrived, name) {
            Ok(agreed) => agreed,
            Err(refusal) => {
                hello.deny().await;
                refusal.record(self.record);
                return Next::Over;
            }
        };
        match permit.egress().map(|terms| terms.tls) {
            Some(exeat_policy::Tls::Intercept) => return self.intercept(hello, peer, permit).await,
            // Without a name, where a name's messages are read.
            Some(exeat_policy::Tls::Passthrough) if self.is_read(&peer) => {
                hello.deny().await;
                self.record.tell_decision(permit.decision());
                self.record.refuse_with(UNNAMED);
            }
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
        Next::Over
    }

    async fn intercept(mut self, hello: Hello, peer: Peer, permit: Permit<Connect>) -> Next {
        self.record.tell_decision(permit.decision());
        let asks = permit.egress().is_some_and(|terms| terms.asks_certificate);
        if !self.still(&peer, asks) {
            hello.deny().await;
            self.record.fail(&describe::Cut);
            return Next::Over;
        }
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
        let stream = match self.shake(hello, &peer, alpn, asks).await {
            Ok(stream) => stream,
            Err(unshaken) => {
                unshaken.record(self.record);
                return Next::Over;
            }
        };
        let version = if alpn == Alpn::Http2 {
            Version::Http2
        } else {
            Version::Http1
        };
        let (_, tls) = stream.get_ref();
        let agreed = Some(Agreed {
            peer,
            opened: opened.map(|(sender, _)| sender),
            presented: tls.peer_certificates().map(Presented::new),
        });
        let Self {
            stages,
            arrived,
            record,
        } = self;
        let connection = Connection::new(stages, arrived, version, agreed, record);
        Next::Tls(Box::new(connection), stream)
    }

    /// Notes whether the client is asked for a certificate. `false`: it is not, and would be by the policy in force by
    /// now, whose coming found nothing to cut.
    fn still(&self, peer: &Peer, asked: bool) -> bool {
        let Arrived {
            actor,
            port,
            registered,
            ..
        } = &self.arrived;
        registered.set_asked(asked);
        let decider = &self.stages.decider;
        asked || !decider.asks_certificate(actor.caller(), peer.target(), *port)
    }

    /// Finishes TLS with the client in the name of `peer`.
    async fn shake(
        &self,
        hello: Hello,
        peer: &Peer,
        alpn: Alpn,
        asks: bool,
    ) -> Result<Box<TlsStream<Tee<TcpStream>>>, Unshaken> {
        let asking = asks.then(|| self.stages.authorities.load_full());
        let leaves = &self.stages.leaves;
        let name = peer.to_string();
        let config = leaves.config(&name, alpn, asking.as_ref()).await;
        let config = config.map_err(Unshaken::Leaf)?;
        let shaken = hello.into_handshake().into_stream(config);
        match timeout(self.stages.bounds.greeting, shaken).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Unshaken::Failed(error)),
            Err(_) => Err(Unshaken::Late),
        }
    }

    /// HTTP in clear text: the first request says whom it is for, so that agreement and decision wait for it.
    fn clear(self, stream: TcpStream, version: Version) -> Next {
        let Self {
            stages,
            arrived,
            record,
        } = self;
        let connection = Connection::new(stages, arrived, version, None, record);
        Next::Clear(Box::new(connection), stream)
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
            let (caller, number) = (actor.caller(), actor.number());
            let stages = &self.stages;
            if !stages.goes_on(caller, number, peer, *port, Some(&unread)) {
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
        let gone = self.stages.is_gone(&self.arrived);
        self.record.end_tunnel(ended, gone);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that `begin` makes.
    fn size<A, B, F: Future>(_begin: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_keeps_little() {
        type Stream = Box<TlsStream<Tee<TcpStream>>>;
        // What a connection's task is for its whole life, and what it keeps beside that while HTTP goes on.
        let task = size(serve_connection);
        let serving = size(|connection: Box<Connection>, stream: Stream| connection.serve(stream));
        assert!(
            task <= 512 && serving <= 8192,
            "a connection's task takes {task} bytes, and serving HTTP {serving}"
        );
    }
}
