//! MCP over standard streams: the frames between a host and a server that `exeat run` started, read, judged and
//! written anew, in both directions. A session is the life of one server process.
//!
//! One task for each session, which nothing outside can make wait: every queue is bounded, and who does not
//! read is not read from. The host's frames are read until it closes its side; then the server's input is
//! closed, and the server is expected to end. Whatever ends the session, who waits for an answer gets one.

mod asked;
mod down;
mod errors;
mod fetch;
mod held;
mod ledger;
mod left;
mod sessions;
mod told;
mod turned_away;
mod up;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::asked::Tables;
pub use self::fetch::Word;
use self::held::{Arriving, Held};
use self::ledger::Ledger;
use self::left::Left;
use self::sessions::Registered;
pub use self::sessions::Sessions;
pub use self::turned_away::turn_away;
use super::judge::{NotPassed, Talking};
use super::observed::Talk;
use crate::audit::record::{Identity, Kind, ResponseKind};
use crate::audit::{AuditUnavailable, OpenRecord, Text};
use crate::channel::Session as Told;
use crate::decode::json::Limits;
use crate::decode::lines::{Lines, MAX_LINE};
use crate::decode::rpc::{Id, Message, Response};
use crate::flow::Stages;
use crate::flow::describe::{Story as _, read};
use crate::forward::outlet::Outlet;
use crate::forward::stream::{Peer, Sink, Source};
use crate::identify::calls::Callee;
use crate::identify::room::{NoRoom, Taken};
use crate::identify::workloads::Known;
use crate::intake::{Actor, Acts};
use crate::refuse::{Asked as Waits, Refusal, Upstream, error};

use super::answer;

/// Bounds of one frame, either way.
const FRAME: Limits = Limits {
    bytes: MAX_LINE,
    ..Limits::RESPONSE
};

/// A message shorter than this is, written anew, never longer than a frame may be: no character takes more than
/// three times its bytes.
const SURELY_SHORT: usize = MAX_LINE / 3;

/// Bytes of a line up to which it is not counted: no session holds more than a few such.
const SMALL: usize = 64 << 10;

/// What records say of a message for which there is no room.
const NO_ROOM: &str =
    "no room to hold a message: as much is held in memory as `limits.held_bytes` permits";

/// Time for what is on its way when a session ends: the last answers, and the server's last words.
const FLUSH: Duration = Duration::from_secs(10);
/// The same when the gate stops.
const FLUSH_STOPPING: Duration = Duration::from_millis(300);
/// How often it is looked whether a host that has closed its side is there at all.
const LOOK: Duration = Duration::from_secs(1);

/// The session ended, or a side gave up, while something was under way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Over(&'static str);

/// A session that the supervisor offers, with the descriptors that came along.
#[derive(Debug)]
pub struct Offered {
    /// Who, and which server.
    pub told: Told,
    /// In the order of [`Told`].
    pub descriptors: Vec<OwnedFd>,
}

/// A session that is recorded as begun and waits to be served.
struct Serving {
    session: Session,
    ends: Ends,
    registered: Registered,
    /// Fires when the server is disconnected, and what is under way with it is to end.
    severed: CancellationToken,
    /// Calls that begin to wait for a person.
    arriving: mpsc::Receiver<Arriving>,
}

/// The six streams.
#[derive(Debug)]
struct Ends {
    host_input: Source,
    host_output: Sink,
    host_errors: Sink,
    server_input: Sink,
    server_output: Source,
    server_errors: Source,
}

/// What the directions of one session share.
struct Session {
    talking: Talking,
    to_server: Outlet,
    to_host: Outlet,
    tables: Tables,
    /// Calls that wait for a person.
    held: Held,
    /// What the session's end finds in the middle.
    left: Left,
    ledger: Ledger,
    /// Something that was in flight is no more.
    settled: Notify,
    /// Answers that are on their way to the host, of which nothing is in the tables any more.
    answering: AtomicUsize,
    /// The server's workload.
    own: Arc<Known>,
    /// Where the supervisor is told.
    words: mpsc::Sender<Word>,
    /// What is not said yet of what its server fetched.
    owed: fetch::Owed,
}

/// What ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The policy changed, or the gate's time is up.
    Cut,
    /// The gate stops, and nothing is in flight.
    Stopped,
    /// An administrator disconnected the server.
    Severed,
    /// The server closed its output.
    Server,
    /// The host closed its side, or reads no more.
    Host,
}

/// Takes a session over, records its beginning, and serves it in a task of its own; `words` hears what its server
/// fetched, and when nothing more is served of it. The server may run when this has returned.
///
/// # Errors
/// Why the session cannot be served, for the caller.
pub async fn serve_stdio(
    stages: &Arc<Stages>,
    offered: Offered,
    words: mpsc::Sender<Word>,
) -> Result<(), String> {
    let serving = offered.accept(stages, words).await?;
    stages.tasks.spawn(serving.serve());
    Ok(())
}

impl Offered {
    async fn accept(
        self,
        stages: &Arc<Stages>,
        words: mpsc::Sender<Word>,
    ) -> Result<Serving, String> {
        let Self { told, descriptors } = self;
        let unavailable = |_full: AuditUnavailable| {
            "nothing can be recorded at present, so nothing is started".to_owned()
        };
        let ends = Ends::new(descriptors)?;
        let actor = actor(stages, &told).ok_or("its workload is gone")?;
        let own = stages.intake.workloads.get(told.number);
        let own = own.ok_or("its workload is gone")?;
        let server = own.server().map(Arc::from).ok_or("its workload is gone")?;
        let talk = Talk {
            workload: told.number,
            whose: actor.whose(),
            server,
            session: None,
        };
        // Watched and registered before it is checked, so that no disconnection or change of policy falls in between.
        let severed = stages.decider.watch(&talk.server);
        let asked = (&talk.server, told.extra_args);
        let registered = stages.sessions.register(told.number, &actor, asked);
        if !registered.is_permitted(&stages.decider) {
            return Err(format!("`{}` may not be started by this user", talk.server));
        }
        let begun = Ledger::begin(stages, &actor, (told.host, told.host_unknown));
        let ledger = begun.await.map_err(unavailable)?;
        fetch::begin(stages, &own);
        let callee = Callee::Workload(talk.workload);
        let talking = Talking::new(Arc::clone(stages), actor, talk, callee);
        let (held, arriving) = Held::new();
        Ok(Serving {
            session: Session {
                talking,
                to_server: Outlet::default(),
                to_host: Outlet::default(),
                tables: Tables::default(),
                held,
                left: Left::default(),
                ledger,
                settled: Notify::new(),
                answering: AtomicUsize::new(0),
                own,
                words,
                owed: fetch::Owed::default(),
            },
            ends,
            registered,
            severed,
            arriving,
        })
    }
}

/// Who speaks: the host's workload where it is managed, else the user alone.
fn actor(stages: &Stages, told: &Told) -> Option<Actor> {
    let workloads = &stages.intake.workloads;
    let (acts, number) = match told.workload {
        Some(number) => (Acts::Workload, number),
        None => (Acts::User, told.number),
    };
    let known = workloads.get(number)?;
    let pid = told.host.as_ref().map_or(0, |host| host.pid);
    let process = workloads.recorded(&known, pid);
    let name = match acts {
        Acts::Workload => Text::new(&known.workload.name),
        Acts::User => Text::fixed(""),
    };
    let identity = Identity {
        name,
        verified_by: Text::fixed("kernel"),
        user: told.user.as_deref().map(Text::new),
        uid: Some(told.uid),
        ..Identity::default()
    };
    Some(Actor {
        acts,
        known,
        uid: told.uid,
        user: told.user.as_deref().map(Arc::from),
        process,
        identity: identity.into(),
        token: None,
        certificate: None,
        shown_by: None,
    })
}

impl Ends {
    fn new(descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let [
            host_input,
            host_output,
            host_errors,
            server_input,
            server_output,
            server_errors,
        ] = <[OwnedFd; 6]>::try_from(descriptors).map_err(|_other| "its streams are missing")?;
        let unusable = |error| format!("its streams cannot be used: {error}");
        Ok(Self {
            host_input: Source::new(host_input).map_err(unusable)?,
            host_output: Sink::new(host_output).map_err(unusable)?,
            host_errors: Sink::new(host_errors).map_err(unusable)?,
            server_input: Sink::new(server_input).map_err(unusable)?,
            server_output: Source::new(server_output).map_err(unusable)?,
            server_errors: Source::new(server_errors).map_err(unusable)?,
        })
    }
}

impl Serving {
    /// Serves the session to its end.
    #[expect(
        clippy::too_many_lines,
        reason = "what runs beside what, and in which order it ends, is read in one piece"
    )]
    async fn serve(self) {
        let Self {
            session,
            ends,
            registered,
            severed,
            arriving,
        } = self;
        let Ends {
            host_input,
            host_output,
            host_errors,
            server_input,
            server_output,
            server_errors,
        } = ends;
        let stages = Arc::clone(&session.talking.stages);
        let host = host_output.peer().ok();
        let mut to_host = pin!(session.to_host.run(host_output));
        let mut errors = pin!(errors::forward(server_errors, host_errors));
        let (mut host_reads, mut server_speaks) = (true, true);
        let end = {
            let upward = session.upward(host_input, host.as_ref());
            let (upward, to_server) = (pin!(upward), pin!(session.to_server.run(server_input)));
            let downward = pin!(session.down(server_output));
            let (mut upward, mut to_server, mut downward) = (upward, to_server, downward);
            let mut held = pin!(session.hold(arriving));
            let mut fetched = pin!(session.fetched_long_enough());
            let (mut server_reads, mut has_time) = (true, true);
            loop {
                tokio::select! {
                    biased;
                    never = session.writers_follow() => match never {},
                    () = registered.cut().cancelled() => break End::Cut,
                    () = severed.cancelled() => break End::Severed,
                    () = session.stopped(&stages.stopping) => break End::Stopped,
                    () = &mut held => {}
                    () = &mut upward => break End::Host,
                    () = &mut downward => break End::Server,
                    () = &mut to_server, if server_reads => server_reads = false,
                    () = &mut to_host, if host_reads => {
                        host_reads = false;
                        break End::Host;
                    }
                    () = &mut errors, if server_speaks => server_speaks = false,
                    () = &mut fetched, if has_time => has_time = false,
                }
            }
        };
        // The server's input is closed with what was above, and the host's output when all is written.
        drop(host);
        session.tell_over().await;
        let stopping = stages.stopping.is_cancelled();
        let limit = if stopping { FLUSH_STOPPING } else { FLUSH };
        let last = async {
            let closing = session.close(end, stopping);
            let written = async {
                if host_reads {
                    to_host.await;
                }
            };
            tokio::join!(closing, written);
            if server_speaks && !stopping {
                errors.await;
            }
        };
        // A gate that begins to stop meanwhile does not wait so long.
        let hurry = async {
            stages.stopping.cancelled().await;
            sleep(FLUSH_STOPPING).await;
        };
        tokio::select! {
            _late = timeout(limit, last) => {}
            () = hurry => {}
        }
        session.over_fetching().await;
        session.ledger.ended(&stages, reason(end, stopping)).await;
    }
}

fn reason(end: End, stopping: bool) -> &'static str {
    match end {
        End::Cut | End::Stopped if stopping => "the daemon stops",
        End::Cut | End::Stopped => "the policy does not allow it any more",
        End::Severed => "the server was disconnected",
        End::Server => "the server ended",
        End::Host => "the host ended it",
    }
}

impl Session {
    /// For a task that polls the two writers after everything that may give them something.
    async fn writers_follow(&self) -> Infallible {
        poll_fn(|_context| {
            self.to_server.expect();
            self.to_host.expect();
            Poll::Pending
        })
        .await
    }

    /// The host's frames until its end, then the wait for the server to end in its turn. Returns if the host is
    /// gone altogether.
    async fn upward(&self, input: Source, host: Option<&Peer>) {
        self.up(input).await;
        // What waits for a person may still be sent.
        if !self.lasts(host, || self.held.is_empty()).await {
            return;
        }
        self.to_server.finish();
        if !self.lasts(host, || self.is_idle()).await {
            return;
        }
        // Every answer was given: the server, which has been told, is given its time.
        self.tell_over().await;
        pending::<()>().await;
    }

    /// Waits until `over`; false: the host is gone altogether.
    async fn lasts(&self, host: Option<&Peer>, over: impl Fn() -> bool) -> bool {
        loop {
            tokio::select! {
                () = self.until(&over) => return true,
                () = sleep(LOOK) => {}
            }
            if host.is_none_or(Peer::is_gone) {
                return false;
            }
        }
    }

    /// Waits until nothing that the host asked is in flight.
    async fn idle(&self) {
        self.until(|| self.is_idle() && self.held.is_empty()).await;
    }

    /// Whether everything that the host asked of the server is answered.
    fn is_idle(&self) -> bool {
        self.tables.is_idle() && self.answering.load(Ordering::SeqCst) == 0
    }

    /// To be held from before a request is taken out of the tables until the host has its answer: a session that is
    /// idle may end at once.
    fn answering(&self) -> Answering<'_> {
        self.answering.fetch_add(1, Ordering::SeqCst);
        Answering(self)
    }

    /// Waits for something in flight to end, until `over`.
    async fn until(&self, over: impl Fn() -> bool) {
        loop {
            let settled = self.settled.notified();
            if over() {
                return;
            }
            settled.await;
        }
    }

    /// Waits until the gate stops and nothing is in flight.
    async fn stopped(&self, stopping: &CancellationToken) {
        stopping.cancelled().await;
        self.idle().await;
    }

    /// Answers everyone who waits, and takes nothing more.
    async fn close(&self, end: End, stopping: bool) {
        let why = reason(end, stopping);
        let refusal = match end {
            End::Cut | End::Stopped if stopping => Refusal::ShuttingDown,
            End::Cut | End::Stopped => Refusal::Denied,
            End::Severed => Refusal::Disconnected,
            End::Server | End::Host => Refusal::Upstream(Upstream::Reset),
        };
        // Every record first: a host that does not read keeps none of them waiting.
        let (answers, waiting) = self.end_all(end, why);
        if end != End::Host {
            for answer in &answers {
                self.answer_host(answer, None).await;
            }
            for id in waiting {
                self.tell_host(refusal, &Waits::Request(id)).await;
            }
        }
        self.to_host.finish();
    }

    /// Opens the record of an exchange of this session.
    async fn open(&self) -> Result<OpenRecord, AuditUnavailable> {
        let Talking { stages, actor, .. } = &self.talking;
        let mut record = super::super::open(stages, actor, Kind::Mcp).await?;
        record.record_mut().session = Some(self.ledger.section());
        Ok(record)
    }

    /// Whether nothing can be recorded, so that what needs no answer is dropped: it could not be counted for good.
    fn is_unrecorded(&self) -> bool {
        let unrecorded = self.talking.stages.log.writable().is_err();
        if unrecorded {
            self.ledger.refused();
        }
        unrecorded
    }

    /// Tells the host that something is refused, if it waits for an answer.
    async fn tell_host(&self, refusal: Refusal<'_>, waits: &Waits) {
        if let Some(told) = error(refusal, waits) {
            self.answer_host(&told, None).await;
        }
    }

    /// Gives the host an answer; nothing is answered as done that could not be recorded.
    async fn answer_host(&self, answer: &Message, room: Option<Taken>) {
        let due = self.due(answer);
        let unrecorded = self.talking.stages.log.release().await.is_err();
        let instead = answer
            .id()
            .cloned()
            .filter(|_| unrecorded)
            .and_then(|id| error(Refusal::AuditUnavailable, &Waits::Request(id)));
        if let Err(fault) = self
            .to_host
            .say(instead.as_ref().unwrap_or(answer), room)
            .await
        {
            tracing::debug!(%fault, "a host was not answered");
        }
        due.said();
    }

    /// Tells the server that something is refused. A server that does not read is not waited for: it may be
    /// waiting itself, to be read.
    fn tell_server(&self, refusal: Refusal<'_>, id: &Id) {
        let told = error(refusal, &Waits::Request(id.clone()));
        if let Some(Err(fault)) = told.map(|told| self.to_server.try_say(&told)) {
            tracing::debug!(%fault, "a server was not told of a refusal");
        }
    }
}

/// The host is being answered.
struct Answering<'a>(&'a Session);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::SeqCst);
        self.0.settled.notify_waiters();
    }
}

/// Keeps what was read of a line that is not whole, within the room of who writes it.
fn keep(lines: &mut Lines, room: &mut Taken) {
    let held = lines.held();
    let counted = if held > SMALL { held } else { 0 };
    if room.resize(counted).is_err() {
        lines.pass_over();
        room.shrink(0);
    }
}

/// The room of a message, read from a line of `length` bytes: of what it was decoded to, and of the line that it is
/// sent on as.
fn room_of(
    known: &Known,
    message: &Message,
    length: usize,
) -> Result<(Option<Taken>, Option<Taken>), NoRoom> {
    if length <= SMALL {
        return Ok((None, None));
    }
    let decoded = known.room.take(message.weight())?;
    Ok((Some(decoded), Some(known.room.take(length)?)))
}

/// Whether `message`, read from a line of `length` bytes, is longer than a frame may be when written anew.
fn outgrows(message: &Message, length: usize) -> bool {
    length > SURELY_SHORT && message.encode().len() > MAX_LINE
}

/// A notification that would outgrow its frame does not pass.
fn fits(message: &Message, length: usize) -> Result<(), NotPassed> {
    if outgrows(message, length) {
        let why = "it is larger than the limit when it is written anew";
        return Err(NotPassed::plain(Refusal::TooLarge, why));
    }
    Ok(())
}

/// Ends a record with what answered.
fn answered(record: &mut OpenRecord, response: &Response) {
    record.tell_inspected(read(), read());
    answer::tell(record, ResponseKind::Result, Some(response));
}
