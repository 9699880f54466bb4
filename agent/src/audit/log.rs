//! The log as the stages see it: a place is reserved when a record is opened, so that closing it
//! can neither block nor fail.

use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::chain::Head;
use super::id::{IdSource, RecordId};
use super::open::{OpenRecord, Running};
use super::record::{Cause, Identity, Kind, Record, Session, Workload};
use super::shared::Shared;
use super::writer::{self, StartError, Writer};
use crate::telemetry::clock::{self, Moment};

/// More places than any machine has memory for.
const MAX_PLACES: usize = 1 << 24;

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When records are forced to the disk.
    pub sync: SyncPolicy,
    /// A segment that has grown to this many bytes is followed by the next.
    pub segment_bytes: u64,
    /// How many records may be open or on their way to the disk at once. One takes about a
    /// kibibyte until the disk has it.
    pub places: usize,
    /// Generation of the policy that is in force as the log starts.
    pub generation: u64,
}

/// When records are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// At the latest so long after they were closed, together, and with them what is under way.
    Within(Duration),
    /// Before an effect is released, and as soon as they are closed; [`OpenRecord::intend`] and
    /// [`Receipt::recorded`] wait for it.
    EachRecord,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Within(Duration::from_millis(20)),
            segment_bytes: 64 * 1_024 * 1_024,
            places: 32_768,
            generation: 0,
        }
    }
}

/// Why no record can be opened: what it would have recorded must not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The disk fails; the log comes back by itself when the disk does.
    #[error("write the audit log: {0}")]
    Failing(Arc<str>),
    /// As many records are open or on their way as there may be.
    #[error("the audit log's queue is full")]
    Full,
    /// The log was told to end; what is open can still be closed.
    #[error("the audit log is being closed")]
    Ending,
    /// The log has ended.
    #[error("the audit log is closed")]
    Ended,
    /// The writer is gone; only a new start helps.
    #[error("the writer of the audit log has died")]
    Dead,
}

/// The audit log. Clones are handles to the same log.
#[derive(Clone)]
pub struct Log(pub(super) Arc<Inner>);

/// What the handles and the writer share.
pub(super) struct Inner {
    pub(super) places: Arc<Semaphore>,
    pub(super) state: watch::Sender<Option<AuditUnavailable>>,
    /// How many of the queue's records are safe on the disk.
    pub(super) durable: watch::Sender<u64>,
    /// The newest record that is safe on the disk.
    pub(super) head: Mutex<Head>,
    pub(super) refused: AtomicU64,
    /// Generation of the policy in force, for every record that begins.
    generation: AtomicU64,
    pub(super) options: Options,
    queue: Mutex<Queue>,
    changed: Condvar,
    ids: IdSource,
}

/// What is on its way to the writer; bounded, since each record took a place.
#[derive(Default)]
struct Queue {
    waiting: Vec<Closed>,
    /// Exchanges that are to be written as open, if they still are when the writer comes to it.
    intents: Vec<Weak<Running>>,
    /// How many of both there were.
    pushed: u64,
    urgent: bool,
    ending: Option<Ending>,
}

/// A record on its way to the writer, serialised.
pub(super) struct Closed {
    pub(super) body: Vec<u8>,
    /// The exchange that it ends, if a line says that it is open.
    pub(super) ends: Option<RecordId>,
}

/// How the writer is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// When everything is written.
    Written,
    /// Now, whatever is not written.
    Now,
}

/// What the writer finds when it looks.
pub(super) struct Taken {
    pub(super) closed: Vec<Closed>,
    pub(super) intents: Vec<Weak<Running>>,
    pub(super) urgent: bool,
    pub(super) ending: Option<Ending>,
}

/// What is known when an exchange begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// When it began, if not now.
    pub at: Option<Moment>,
    /// Which processes act.
    pub workload: Option<Shared<Workload>>,
    /// Who calls.
    pub identity: Option<Shared<Identity>>,
    /// The MCP session.
    pub session: Option<Shared<Session>>,
    /// What led to it.
    pub cause: Option<Cause>,
}

/// A record's way to the disk after it was closed.
#[must_use = "with `SyncPolicy::EachRecord` nothing may be answered before `recorded`"]
pub struct Receipt {
    log: Log,
    ticket: u64,
}

impl Log {
    /// Opens the log in `directory`, which must be writable for this process, and starts its
    /// writer. One process at a time can keep a log.
    ///
    /// The chain is taken up where it ended. What a crash tore off stays where it is, is named in
    /// a `log_cut` record, and counts no more.
    pub fn start(directory: OwnedFd, options: Options) -> Result<(Self, Writer), StartError> {
        let log = Self::new(options)?;
        let writer = writer::start(directory, &log)?;
        Ok((log, writer))
    }

    /// A log without a writer.
    pub(super) fn new(options: Options) -> Result<Self, StartError> {
        let ids = IdSource::new().map_err(StartError::Random)?;
        let places = options.places.clamp(1, MAX_PLACES);
        Ok(Self(Arc::new(Inner {
            places: Arc::new(Semaphore::new(places)),
            state: watch::Sender::new(None),
            durable: watch::Sender::new(0),
            head: Mutex::default(),
            refused: AtomicU64::new(0),
            generation: AtomicU64::new(options.generation),
            options: Options { places, ..options },
            queue: Mutex::default(),
            changed: Condvar::new(),
            ids,
        })))
    }

    /// Opens the record of an exchange, once there is room in the queue for its end.
    ///
    /// Fails at once if the log cannot be written. A full queue waits; bound that with a time-out
    /// of the caller's.
    pub async fn open(&self, kind: Kind, start: Start) -> Result<OpenRecord, AuditUnavailable> {
        let place = self.place().await?;
        Ok(self.begin(kind, start, place))
    }

    /// Opens the record of an exchange where nothing may wait: fails also when the queue is full.
    pub fn try_open(&self, kind: Kind, start: Start) -> Result<OpenRecord, AuditUnavailable> {
        self.available()?;
        let place =
            Arc::clone(&self.0.places)
                .try_acquire_owned()
                .map_err(|error| match error {
                    TryAcquireError::Closed => self.gone(),
                    TryAcquireError::NoPermits => AuditUnavailable::Full,
                })?;
        Ok(self.begin(kind, start, place))
    }

    fn begin(&self, kind: Kind, start: Start, place: OwnedSemaphorePermit) -> OpenRecord {
        let Start {
            at,
            workload,
            identity,
            session,
            cause,
        } = start;
        let mut record = self.record(kind, at.unwrap_or_else(clock::now));
        record.workload = workload;
        record.identity = identity;
        record.session = session;
        record.cause = cause;
        OpenRecord::new(self.clone(), place, record)
    }

    /// An empty record with its name, its time and the policy's generation, for [`Log::event`].
    pub fn record(&self, kind: Kind, at: Moment) -> Record {
        let mut record = Record::new(self.0.ids.next(at.wall), at, kind);
        record.generation = self.0.generation.load(Ordering::Relaxed);
        record
    }

    /// Says that another policy is in force, once it is: no record names one that is newer than what decided it.
    pub fn in_force(&self, generation: u64) {
        self.0.generation.store(generation, Ordering::Relaxed);
    }

    /// Records something that has no end of its own. Like [`Log::open`], this fails at once if
    /// the log cannot be written, and waits for room.
    pub async fn event(&self, record: Record) -> Result<Receipt, AuditUnavailable> {
        let place = self.place().await?;
        Ok(self.push(record.body(), None, place))
    }

    /// Whether what was recorded may be answered now: waits for the disk where each record is synced, and is an
    /// error while the log cannot be written.
    pub async fn release(&self) -> Result<(), AuditUnavailable> {
        match self.0.options.sync {
            SyncPolicy::Within(_) => self.available(),
            SyncPolicy::EachRecord => self.flush().await,
        }
    }

    /// Whether [`Log::release`] waits for the disk.
    pub fn syncs_each(&self) -> bool {
        self.0.options.sync == SyncPolicy::EachRecord
    }

    /// Records that are open or on their way to the disk.
    pub fn queued(&self) -> u64 {
        let taken = self
            .0
            .options
            .places
            .saturating_sub(self.0.places.available_permits());
        taken as u64
    }

    /// The newest record that is safe on the disk: what [`crate::audit::Segments::verify`] must at
    /// least find, if this is kept where who could rewrite the log cannot reach it.
    pub fn head(&self) -> Head {
        *self.0.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether records can be opened now.
    pub fn available(&self) -> Result<(), AuditUnavailable> {
        match &*self.0.state.borrow() {
            None => Ok(()),
            Some(unavailable) => Err(unavailable.clone()),
        }
    }

    /// Whether what is open may go on. A log that is being ended takes what comes of it.
    pub fn writable(&self) -> Result<(), AuditUnavailable> {
        match &*self.0.state.borrow() {
            Some(unavailable) if is_hopeless(Some(unavailable)) => Err(unavailable.clone()),
            _ => Ok(()),
        }
    }

    /// Changes of [`Log::available`]; `None` is available.
    pub fn watch(&self) -> watch::Receiver<Option<AuditUnavailable>> {
        self.0.state.subscribe()
    }

    /// Waits until everything that was closed before is safe on the disk.
    pub async fn flush(&self) -> Result<(), AuditUnavailable> {
        let ticket = {
            let mut queue = self.queue();
            queue.urgent = true;
            queue.pushed
        };
        self.0.changed.notify_one();
        Receipt {
            log: self.clone(),
            ticket,
        }
        .durable()
        .await
    }

    /// The receipt of something that is recorded already.
    pub(super) fn settled(&self) -> Receipt {
        Receipt {
            log: self.clone(),
            ticket: 0,
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, AuditUnavailable> {
        let place = match self.available() {
            Ok(()) => self.free_place().await,
            Err(unavailable) => Err(unavailable),
        };
        if place.is_err() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    async fn free_place(&self) -> Result<OwnedSemaphorePermit, AuditUnavailable> {
        match Arc::clone(&self.0.places).try_acquire_owned() {
            Ok(place) => return Ok(place),
            Err(TryAcquireError::Closed) => return Err(self.gone()),
            Err(TryAcquireError::NoPermits) => {}
        }
        let mut state = self.watch();
        select! {
            place = Arc::clone(&self.0.places).acquire_owned() => place.ok().ok_or_else(|| self.gone()),
            _ = state.wait_for(Option::is_some) => Err(self.gone()),
        }
    }

    /// Why there is no place; a log that closed its places says why beforehand.
    fn gone(&self) -> AuditUnavailable {
        self.available().err().unwrap_or(AuditUnavailable::Dead)
    }

    /// Hands a record to the writer. Never blocks for room: the place was reserved.
    pub(super) fn push(
        &self,
        body: Vec<u8>,
        ends: Option<RecordId>,
        place: OwnedSemaphorePermit,
    ) -> Receipt {
        // The writer gives the place back when the record is safe.
        place.forget();
        self.enqueue(|queue| {
            queue.waiting.push(Closed { body, ends });
            queue.pushed += 1;
        })
    }

    /// Tells the writer of an exchange whose effect is about to be released; `None`: it knows already.
    pub(super) fn announce(&self, running: Option<&Arc<Running>>) -> Receipt {
        self.enqueue(|queue| {
            if let Some(running) = running {
                queue.intents.push(Arc::downgrade(running));
                queue.pushed += 1;
            }
        })
    }

    fn enqueue(&self, add: impl FnOnce(&mut Queue)) -> Receipt {
        let mut queue = self.queue();
        let wake = queue.is_empty();
        add(&mut queue);
        let ticket = queue.pushed;
        drop(queue);
        // One that was woken takes all that comes until it looks.
        if wake {
            self.0.changed.notify_one();
        }
        Receipt {
            log: self.clone(),
            ticket,
        }
    }

    pub(super) fn end(&self, ending: Ending) {
        self.queue().ending = Some(ending);
        self.0.changed.notify_one();
    }

    /// For the writer: what was closed, as soon as there is something, `linger` after that so
    /// that more comes along, or after `limit`.
    pub(super) fn take(&self, limit: Option<Duration>, linger: Duration) -> Taken {
        let idle = |queue: &mut Queue| queue.is_empty() && !queue.urgent && queue.ending.is_none();
        let mut queue = self.queue();
        queue = if let Some(limit) = limit {
            let waited = self.0.changed.wait_timeout_while(queue, limit, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let waited = self.0.changed.wait_while(queue, idle);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
        if !linger.is_zero() && !queue.is_empty() {
            let calm = |queue: &mut Queue| !queue.urgent && queue.ending.is_none();
            let waited = self.0.changed.wait_timeout_while(queue, linger, calm);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Taken {
            closed: mem::take(&mut queue.waiting),
            intents: mem::take(&mut queue.intents),
            urgent: mem::take(&mut queue.urgent),
            ending: queue.ending,
        }
    }

    /// For the writer: waits before it tries a failing disk again.
    pub(super) fn pause(&self, limit: Duration) -> Option<Ending> {
        let queue = self.queue();
        let waited = self
            .0
            .changed
            .wait_timeout_while(queue, limit, |queue| queue.ending != Some(Ending::Now));
        waited.unwrap_or_else(PoisonError::into_inner).0.ending
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic happens under the lock.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.intents.is_empty()
    }
}

impl Receipt {
    /// Waits until the record is as safe as the configuration promises: at once with
    /// [`SyncPolicy::Within`], when it is on the disk with [`SyncPolicy::EachRecord`].
    pub async fn recorded(self) -> Result<(), AuditUnavailable> {
        match self.log.0.options.sync {
            SyncPolicy::Within(_) => Ok(()),
            SyncPolicy::EachRecord => self.durable().await,
        }
    }

    /// Waits until the record is on the disk. While the disk fails this is an error, although the
    /// record is kept and written when the disk comes back.
    pub async fn durable(self) -> Result<(), AuditUnavailable> {
        let mut durable = self.log.0.durable.subscribe();
        let mut state = self.log.watch();
        select! {
            biased;
            _ = durable.wait_for(|durable| *durable >= self.ticket) => Ok(()),
            _ = state.wait_for(|state| is_hopeless(state.as_ref())) => Err(self.log.gone()),
        }
    }
}

/// Whether a closed record will not come to the disk now. A log that is being ended writes on.
fn is_hopeless(state: Option<&AuditUnavailable>) -> bool {
    match state {
        None | Some(AuditUnavailable::Ending) => false,
        Some(
            AuditUnavailable::Failing(_)
            | AuditUnavailable::Full
            | AuditUnavailable::Ended
            | AuditUnavailable::Dead,
        ) => true,
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
