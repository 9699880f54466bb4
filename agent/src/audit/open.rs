//! The record of an exchange that is not over.

use std::fmt::{self, Debug, Formatter};

use tokio::sync::OwnedSemaphorePermit;

use super::id::RecordId;
use super::log::{Log, Receipt};
use super::record::{Outcome, Record, Stage, Status};
use super::text::Text;
use crate::telemetry::clock;

/// An exchange's record, from its beginning to its end.
///
/// INVARIANT: it reaches the log exactly once. [`OpenRecord::close`] consumes it; one that is
/// dropped (an error, a cancelled task, a panic) is closed as abandoned with the stage reached.
#[must_use = "dropping the record closes it as abandoned"]
pub struct OpenRecord {
    log: Log,
    record: Box<Record>,
    stage: Stage,
    /// Taken when the record is handed over.
    place: Option<OwnedSemaphorePermit>,
    /// Given back with the record.
    share: Option<OwnedSemaphorePermit>,
}

impl OpenRecord {
    pub(super) fn new(log: Log, place: OwnedSemaphorePermit, record: Record) -> Self {
        Self {
            log,
            record: Box::new(record),
            stage: Stage::default(),
            place: Some(place),
            share: None,
        }
    }

    /// Keeps `share`, of whatever bounds how many records one owner may have open, until the record ends.
    pub fn hold(&mut self, share: OwnedSemaphorePermit) {
        self.share = Some(share);
    }

    /// The record's name, for the `cause` of what follows from it.
    pub fn id(&self) -> RecordId {
        self.record.id
    }

    /// What is recorded so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// For the stages to add what they learn.
    pub fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// Says that a stage was reached.
    pub fn stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Ends the exchange. Neither blocks nor fails; the receipt is for those who must know when
    /// the record is safe.
    pub fn close(mut self, outcome: Outcome) -> Receipt {
        match self.place.take() {
            Some(place) => self.hand_over(outcome, place),
            None => self.log.settled(),
        }
    }

    fn hand_over(&mut self, mut outcome: Outcome, place: OwnedSemaphorePermit) -> Receipt {
        let lasted = clock::monotonic().since(self.record.mono);
        outcome.latency_us = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        if outcome.status != Status::Done && outcome.stage.is_none() {
            outcome.stage = Some(self.stage);
        }
        self.record.outcome = Some(outcome);
        self.log.push(&self.record, place)
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            // Nobody is left to wait for the receipt.
            drop(self.hand_over(Outcome::default(), place));
        }
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
            .field("id", &self.record.id)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
