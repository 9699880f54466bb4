//! What waits is kept by the supervisor, so that it outlives the gate: whole snapshots, one after the other.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::Approvals;
use crate::channel::Approval;

/// The least time between two snapshots: callers that ask and give up do not make the supervisor write all the time.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for a snapshot to be on the disk.
const KEEP: Duration = Duration::from_secs(5);

/// What is to be kept, on its way to the supervisor.
#[derive(Debug)]
pub struct KeepRequest {
    /// Everything that waits.
    pub waiting: Vec<Approval>,
    /// Where the answer goes; the error is the supervisor's sentence.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Why an approval cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotKept {
    /// The call has ended.
    #[error("the call has ended meanwhile")]
    Ended,
    /// The disk did not take it.
    #[error("it could not be kept: {0}")]
    Failed(String),
}

/// The newest snapshot that was answered, and how.
#[derive(Debug, Default)]
pub(super) struct Kept {
    version: u64,
    fault: Option<String>,
}

impl Approvals {
    /// Has what waits kept, again and again as it changes, for as long as somebody listens.
    pub async fn keep(self: Arc<Self>, supervisor: mpsc::Sender<KeepRequest>) {
        while !supervisor.is_closed() {
            self.changed.notified().await;
            let (version, waiting) = {
                let state = self.lock();
                let entries = state.entries.values();
                let waiting = entries.map(|entry| entry.approval.clone()).collect();
                (state.version, waiting)
            };
            let fault = keep(&supervisor, waiting).await.err();
            if let Some(fault) = &fault {
                tracing::error!(fault, "calls that wait for an approval could not be kept");
            }
            self.kept.send_replace(Kept { version, fault });
            sleep(PAUSE).await;
        }
    }

    /// Waits until this version, or one after it, is on the disk.
    pub(super) async fn kept(&self, version: u64) -> Result<(), NotKept> {
        let mut kept = self.kept.subscribe();
        let answered = kept.wait_for(|kept| kept.version >= version);
        let late = || NotKept::Failed("the supervisor did not answer in time".to_owned());
        // One that is under way comes first.
        let limit = KEEP + PAUSE + KEEP;
        let answered = timeout(limit, answered).await.map_err(|_late| late())?;
        let answered = answered.map_err(|_gone| late())?;
        match &answered.fault {
            None => Ok(()),
            Some(fault) => Err(NotKept::Failed(fault.clone())),
        }
    }
}

async fn keep(
    supervisor: &mpsc::Sender<KeepRequest>,
    waiting: Vec<Approval>,
) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let gone = || "the supervisor does not answer".to_owned();
    let asked = supervisor.send(KeepRequest { waiting, reply }).await;
    asked.map_err(|_gone| gone())?;
    match timeout(KEEP, answer).await {
        Ok(Ok(kept)) => kept,
        Ok(Err(_)) | Err(_) => Err(gone()),
    }
}
