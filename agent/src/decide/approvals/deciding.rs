//! A person's decision: who may take it, and that it counts once it is recorded.

use std::sync::Arc;

use exeat_policy::PolicySet;
use thiserror::Error;
use tokio::sync::oneshot;

use super::asking::is_showable;
use super::person::takes_part;
use super::{Approvals, NotKept, Word};
use crate::channel::{Approval, Granted};
use crate::telemetry::clock;

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Undecided {
    /// Nothing waits under this id, or not any more. Also what who may not decide is told.
    #[error("no call waits for an approval under this id")]
    NotFound,
    /// The approver is the caller, by any name that is known.
    #[error("who calls cannot approve: another of the approvers has to")]
    OwnCall,
    /// Somebody else was faster.
    #[error("it is decided already")]
    Decided,
}

/// Who decides, as the kernel attests.
#[derive(Debug, Clone)]
pub struct Approver {
    /// The user.
    pub uid: u32,
    /// Its name; its number where it has none.
    pub user: String,
}

/// Whether this user may approve what `rules` of the policy in force ask for, some of them: root, and who is an approver
/// of each.
pub fn may_approve<'a>(
    set: &PolicySet,
    rules: impl IntoIterator<Item = &'a str>,
    uid: u32,
    user: &str,
) -> bool {
    let mut rules = rules.into_iter().peekable();
    rules.peek().is_some() && (uid == 0 || rules.all(|rule| set.approves(rule, user)))
}

impl Approvals {
    /// Reserves the decision on `id` for `approver`, who has to record it before it counts.
    pub fn reserve(
        self: &Arc<Self>,
        id: &str,
        approver: &Approver,
        set: &PolicySet,
    ) -> Result<Reserved, Undecided> {
        let mut state = self.lock();
        state.forget_old(clock::wall());
        let entry = state.entries.get_mut(id).ok_or(Undecided::NotFound)?;
        let approval = &entry.approval;
        if takes_part(&approval.caller, entry.shown.as_ref(), approver, set) {
            return Err(Undecided::OwnCall);
        }
        let Approver { uid, user } = approver;
        if !is_showable(user) || !may_approve(set, approval.rules(), *uid, user) {
            return Err(Undecided::NotFound);
        }
        if entry.deciding || entry.approval.granted.is_some() {
            return Err(Undecided::Decided);
        }
        entry.deciding = true;
        let by = Granted {
            user: approver.user.clone(),
            uid: approver.uid,
            at: clock::wall(),
        };
        Ok(Reserved {
            approvals: Arc::clone(self),
            approval: entry.approval.clone(),
            by,
        })
    }
}

/// The right to decide on one call, until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    approvals: Arc<Approvals>,
    approval: Approval,
    by: Granted,
}

impl Reserved {
    /// What is decided on.
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    /// Who decides, and when.
    pub fn by(&self) -> &Granted {
        &self.by
    }

    /// Approves. Where nobody waits for it at present, it is on the disk when this returns.
    ///
    /// # Errors
    /// The call has ended meanwhile, or the approval could not be kept; then it is none.
    pub async fn grant(self) -> Result<(), NotKept> {
        let (version, waits) = self.note().ok_or(NotKept::Ended)?;
        self.approvals.changed.notify_one();
        if let Some(waits) = waits {
            return waits.send(Word::Granted).map_err(|_gone| NotKept::Ended);
        }
        let kept = self.approvals.kept(version).await;
        if kept.is_err()
            && let Some(entry) = self.approvals.lock().entries.get_mut(&self.approval.id)
        {
            entry.approval.granted = None;
        }
        kept
    }

    /// Notes the approval: which version of the state holds it, and who waits for it.
    fn note(&self) -> Option<(u64, Option<oneshot::Sender<Word>>)> {
        let mut state = self.approvals.lock();
        let entry = state.entries.get_mut(&self.approval.id)?;
        entry.approval.granted = Some(self.by.clone());
        let waits = entry.waits.take();
        state.version += 1;
        Some((state.version, waits))
    }

    /// Denies: the call ends.
    ///
    /// # Errors
    /// It has ended meanwhile.
    pub fn deny(self, reason: Option<String>) -> Result<(), NotKept> {
        let mut state = self.approvals.lock();
        let Some(entry) = state.entries.remove(&self.approval.id) else {
            return Err(NotKept::Ended);
        };
        state.version += 1;
        drop(state);
        self.approvals.changed.notify_one();
        let by = self.by.clone();
        if let Some(waits) = entry.waits {
            let told = waits.send(Word::Denied { by, reason });
            return told.map_err(|_gone| NotKept::Ended);
        }
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(entry) = self.approvals.lock().entries.get_mut(&self.approval.id) {
            entry.deciding = false;
        }
    }
}
