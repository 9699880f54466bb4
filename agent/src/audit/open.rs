//! The record of an exchange that is not over.

use std::any::Any;
use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::id::RecordId;
use super::log::{AuditUnavailable, Log, Receipt};
use super::record::{Open, Outcome, Record, Stage, Status};
use super::text::Text;
use crate::telemetry::clock;

/// An exchange's record, from its beginning to its end.
///
/// INVARIANT: it reaches the log exactly once. [`OpenRecord::close`] consumes it; one that is
/// dropped (an error, a cancelled task, a panic) is closed as abandoned with the stage reached.
/// One whose process dies is closed by the next start, if an effect of it was released.
#[must_use = "dropping the record closes it as abandoned"]
pub struct OpenRecord {
    log: Log,
    id: RecordId,
    running: Arc<Running>,
    stage: Stage,
    /// Taken when the record is handed over.
    place: Option<OwnedSemaphorePermit>,
    /// Given back with the record.
    share: Option<Box<dyn Any + Send + Sync>>,
    witness: Option<Box<dyn Witness>>,
}

/// Who is to know how an exchange ends.
pub trait Witness: Send + Sync + 'static {
    /// It ended, as the record says. Neither waits nor asks the log for anything.
    fn ended(self: Box<Self>, record: &Record);
}

/// What the writer sees of an exchange that is under way.
///
/// The exchange alone keeps it alive, so that what it holds is freed where it was made; the writer
/// looks whether it is still there.
pub(super) struct Running(Mutex<Held>);

struct Held {
    record: Record,
    /// The writer is to look at it.
    announced: bool,
    /// A line of the log says that it is open.
    written: bool,
    /// Its end is on its way to the writer.
    ended: bool,
}

/// Proof that the log knows of an exchange whose effect is about to be released.
///
/// Whatever lets something out takes it beside the permit. It lasts no longer than the record is left alone.
#[derive(Debug)]
#[must_use = "an intent is told before an effect is released"]
pub struct Intended<'r>(PhantomData<&'r ()>);

/// What is recorded so far, for the stages to add what they learn.
pub struct RecordMut<'r>(MutexGuard<'r, Held>);

impl Deref for RecordMut<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0.record
    }
}

impl DerefMut for RecordMut<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.0.record
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the writer: the line that says that the exchange is open, if it still is.
    pub(super) fn intent(&self) -> Option<(RecordId, Vec<u8>)> {
        let mut held = self.lock();
        held.announced = false;
        if held.ended {
            return None;
        }
        held.written = true;
        Some((held.record.id, held.record.body()))
    }
}

impl OpenRecord {
    pub(super) fn new(log: Log, place: OwnedSemaphorePermit, record: Record) -> Self {
        Self {
            log,
            id: record.id,
            running: Arc::new(Running(Mutex::new(Held {
                record,
                announced: false,
                written: false,
                ended: false,
            }))),
            stage: Stage::default(),
            place: Some(place),
            share: None,
            witness: None,
        }
    }

    /// Keeps `share`, of whatever bounds how many records one owner may have open, until the record ends.
    pub fn hold(&mut self, share: impl Send + Sync + 'static) {
        self.share = Some(Box::new(share));
    }

    /// Has `witness` told how the exchange ends.
    pub fn watch(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// Nobody is told: what ends the exchange is not the other side's doing.
    pub fn forgive(&mut self) {
        self.witness = None;
    }

    /// The record's name, for the `cause` of what follows from it.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// What is recorded so far, for the stages to add what they learn.
    pub fn record_mut(&mut self) -> RecordMut<'_> {
        RecordMut(self.running.lock())
    }

    /// Says that a stage was reached.
    pub fn stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Says that an effect of the exchange is about to be released: from now on the writer knows of
    /// it, and if it outlasts the time that records may take to the disk, a line says that it is
    /// open. With [`super::SyncPolicy::EachRecord`] that line is on the disk when this returns.
    ///
    /// What is learnt later need not be told again; say it again before an effect that makes another
    /// thing of the exchange (a connection that turns out to carry a request).
    pub async fn intend(&mut self) -> Result<Intended<'_>, AuditUnavailable> {
        self.log.writable()?;
        let announce = {
            let mut held = self.running.lock();
            held.record.open = Some(Open { stage: self.stage });
            !std::mem::replace(&mut held.announced, true)
        };
        let receipt = self.log.announce(announce.then_some(&self.running));
        receipt.recorded().await?;
        Ok(Intended(PhantomData))
    }

    /// Ends the exchange. Neither blocks nor fails; the receipt is for those who must know when
    /// the record is safe.
    pub fn close(mut self, outcome: Outcome) -> Receipt {
        match self.place.take() {
            Some(place) => {
                let witness = self.witness.take();
                self.hand_over(outcome, place, witness)
            }
            None => self.log.settled(),
        }
    }

    fn hand_over(
        &self,
        mut outcome: Outcome,
        place: OwnedSemaphorePermit,
        witness: Option<Box<dyn Witness>>,
    ) -> Receipt {
        let mut held = self.running.lock();
        let lasted = clock::monotonic().since(held.record.mono);
        outcome.latency_us = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        if outcome.status != Status::Done && outcome.stage.is_none() {
            outcome.stage = Some(self.stage);
        }
        held.record.open = None;
        held.record.outcome = Some(outcome);
        if let Some(witness) = witness {
            witness.ended(&held.record);
        }
        // Before the end is in the queue, so that the writer never takes an intent after it.
        held.ended = true;
        let ends = held.written.then_some(self.id);
        let body = held.record.body();
        drop(held);
        self.log.push(body, ends, place)
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            // Nobody is left to wait for the receipt.
            let witness = self.witness.take();
            drop(self.hand_over(Outcome::default(), place, witness));
        }
    }
}

#[cfg(test)]
impl Intended<'static> {
    /// For tests of what takes one.
    pub(crate) const fn for_tests() -> Self {
        Self(PhantomData)
    }
}

impl Outcome {
    /// Done as asked.
    pub fn done() -> Self {
        Self {
            status: Status::Done,
            ..Self::default()
        }
    }

    /// Refused; the reason stands in the decision, or in `error` where none was reached.
    pub fn refused() -> Self {
        Self {
            status: Status::Refused,
            ..Self::default()
        }
    }

    /// Permitted, but failed.
    pub fn failed(error: impl Into<Text>) -> Self {
        Self {
            status: Status::Failed,
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

impl Debug for OpenRecord {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRecord")
            .field("id", &self.id)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Debug for RecordMut<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordMut")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
