//! Calls that wait for a person's approval: who waits, who decides, and what an approval is good for.
//!
//! A call waits with a [`Ticket`]. An approval is bound to it, used once, and gone from the disk before it is used.
//! What outlives the gate is kept by the supervisor ([`Approvals::snapshots`]): a call that was waiting when the gate
//! ended, or was approved since, is taken up by the same caller's same call within its time.

mod asking;
mod deciding;
mod keeping;
mod link;
mod person;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_policy::{Caller, PolicySet};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::asking::{Asking, NotWaiting, Shown};
pub use self::deciding::{Approver, Reserved, Undecided, may_approve};
use self::keeping::Kept;
pub use self::keeping::{KeepRequest, NotKept};
pub use self::link::{Link, LinkFault, Links, Verdict};
pub use self::person::{names_of, takes_part};
use super::Admission;
use crate::audit::Text;
use crate::audit::record::Approval as Recorded;
use crate::channel::{Approval, Granted, MOST_APPROVALS};
use crate::telemetry::clock::{self, Timestamp};

/// Calls of one caller that may wait at once.
const OF_ONE: usize = 8;
/// Bytes of the names of all rules but the first of each call that waits: what one packet of the channel has room for.
const OTHER_RULES: usize = 2 << 10;

/// Everything that waits.
#[derive(Debug)]
pub struct Approvals {
    state: Mutex<State>,
    /// There is something new to keep.
    changed: Notify,
    /// Counts the calls that began to wait.
    asked: watch::Sender<u64>,
    /// What the supervisor has on its disk.
    kept: watch::Sender<Kept>,
    /// When it fires, what waits is left for the next gate.
    stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Counts changes of `entries`.
    version: u64,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    approval: Approval,
    /// What the call says; unknown while nobody waits.
    shown: Option<Shown>,
    /// Whether a call holds a ticket for it; else the gate that it waited in has ended.
    held: bool,
    /// Where that call is told what was decided; `None` once it was.
    waits: Option<oneshot::Sender<Word>>,
    /// Somebody's decision is being recorded.
    deciding: bool,
    /// Whom it was put before, a bit each.
    told: u32,
}

/// What became of a call that waited.
#[derive(Debug)]
pub enum Word {
    /// It was approved.
    Granted,
    /// It was denied.
    Denied {
        /// By whom, and when.
        by: Granted,
        /// Why, in their words.
        reason: Option<String>,
    },
    /// Nobody decided in time.
    TimedOut,
    /// The gate stops; the same call takes up what becomes of it.
    Stopping,
}

/// A call's place among those that wait. Dropped, the call waits no more.
pub struct Ticket {
    approvals: Arc<Approvals>,
    approval: Approval,
    word: oneshot::Receiver<Word>,
    spent: bool,
}

/// Proof that a person approved one call. It is gone from the disk.
#[must_use = "an approval is good for one decision"]
#[derive(Debug)]
pub struct Approved {
    by: Granted,
    admitted: Admission,
}

impl Approvals {
    /// With what waited when the gate before this one ended.
    pub fn new(kept: Vec<Approval>, stopping: CancellationToken) -> Arc<Self> {
        let mut state = State::default();
        let now = clock::wall();
        for approval in kept.into_iter().filter(|approval| approval.until > now) {
            let entry = Entry {
                approval,
                shown: None,
                held: false,
                waits: None,
                deciding: false,
                told: 0,
            };
            state.entries.insert(entry.approval.id.clone(), entry);
        }
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            asked: watch::Sender::new(0),
            kept: watch::Sender::new(Kept::default()),
            stopping,
        })
    }

    /// Has a call wait. The same call of the same caller that waited when a gate ended is taken up.
    pub fn ask(self: &Arc<Self>, asking: Asking<'_>) -> Result<Ticket, NotWaiting> {
        if !asking.is_showable() {
            return Err(NotWaiting::Unshowable);
        }
        let call = asking.digest();
        let now = clock::wall();
        let (sender, word) = oneshot::channel();
        let mut state = self.lock();
        state.forget_old(now);
        let asked = asking.approval(call.clone(), now)?;
        // Where other rules ask by now, others may answer: it waits anew.
        state.entries.retain(|_, entry| {
            let one = &entry.approval;
            let rules = (&one.rule, &one.other_rules) == (&asked.rule, &asked.other_rules);
            entry.held || entry.deciding || one.call != call || rules
        });
        let mut entries = state.entries.values_mut();
        let left =
            entries.find(|entry| !entry.held && !entry.deciding && entry.approval.call == call);
        let approval = if let Some(entry) = left {
            entry.held = true;
            entry.shown = Some(asking.shown);
            entry.approval.until = entry.approval.until.min(asked.until);
            if entry.approval.granted.is_some() {
                // Its receiver is here.
                drop(sender.send(Word::Granted));
            } else {
                entry.waits = Some(sender);
            }
            entry.approval.clone()
        } else {
            let approval = asked;
            state.room(&approval)?;
            let entry = Entry {
                approval: approval.clone(),
                shown: Some(asking.shown),
                held: true,
                waits: Some(sender),
                deciding: false,
                told: 0,
            };
            state.entries.insert(approval.id.clone(), entry);
            approval
        };
        state.version += 1;
        drop(state);
        self.changed.notify_one();
        self.asked.send_modify(|count| *count += 1);
        Ok(Ticket {
            approvals: Arc::clone(self),
            approval,
            word,
            spent: false,
        })
    }

    /// What waits, with what is shown of it, for whom `sees` says so; the oldest first.
    pub fn waiting(&self, sees: impl Fn(&Approval) -> bool) -> Vec<(Approval, Option<Shown>)> {
        let mut state = self.lock();
        state.forget_old(clock::wall());
        let mut waiting: Vec<_> = state
            .entries
            .values()
            .filter(|entry| sees(&entry.approval))
            .map(|entry| (entry.approval.clone(), entry.shown.clone()))
            .collect();
        waiting.sort_by_key(|(approval, _)| approval.asked);
        waiting
    }

    /// Fires as calls begin to wait.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// The oldest call that waits for a decision and was not put before the person of this `place` (below 32) yet, if
    /// `sees` says that it may be; from now on it counts as put.
    pub fn put_before(
        &self,
        place: u32,
        sees: impl Fn(&Approval, Option<&Shown>) -> bool,
    ) -> Option<(Approval, Shown)> {
        let bit = 1_u32.checked_shl(place)?;
        let mut state = self.lock();
        state.forget_old(clock::wall());
        let untold = state.entries.values_mut().filter(|entry| {
            entry.told & bit == 0
                && !entry.deciding
                && entry.approval.granted.is_none()
                && sees(&entry.approval, entry.shown.as_ref())
        });
        // What a gate before this one left is put before people once somebody waits for it again.
        let untold = untold.filter(|entry| entry.shown.is_some());
        let entry = untold.min_by_key(|entry| entry.approval.asked)?;
        entry.told |= bit;
        Some((entry.approval.clone(), entry.shown.clone()?))
    }

    /// The call that waits for a decision under this id, with what is shown of it.
    pub fn undecided(&self, id: &str) -> Option<(Approval, Option<Shown>)> {
        let mut state = self.lock();
        state.forget_old(clock::wall());
        let entry = state.entries.get(id)?;
        let waits = entry.approval.granted.is_none() && !entry.deciding;
        waits.then(|| (entry.approval.clone(), entry.shown.clone()))
    }

    fn remove(&self, id: &str) -> u64 {
        let mut state = self.lock();
        if state.entries.remove(id).is_some() {
            state.version += 1;
        }
        let version = state.version;
        drop(state);
        self.changed.notify_one();
        version
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record says of it: by whom it was decided, how and why.
pub fn recorded(
    approval: &Approval,
    decided: Option<(&Granted, &'static str, Option<&str>)>,
) -> Recorded {
    let by = decided.map(|(by, _, _)| by);
    Recorded {
        id: Text::new(&approval.id),
        rules: approval.rules().map(Text::new).collect(),
        decision: decided.map(|(_, word, _)| Text::fixed(word)),
        approver: by.map(|by| Text::new(&by.user)),
        approver_uid: by.map(|by| by.uid),
        decided: by.map(|by| by.at),
        reason: decided.and_then(|(_, _, reason)| reason.map(Text::new)),
        arguments_sha256: Text::new(&approval.arguments),
    }
}

impl State {
    /// Forgets what nobody may use any more. A call that waits for it learns by that that its time is over: it may not
    /// see to it itself, where its client reads nothing.
    fn forget_old(&mut self, now: Timestamp) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.approval.until > now);
        if self.entries.len() != before {
            self.version += 1;
        }
    }

    fn room(&self, approval: &Approval) -> Result<(), NotWaiting> {
        let caller = &approval.caller;
        let waiting = self.entries.values().map(|entry| &entry.approval);
        let rules = waiting.chain([approval]).flat_map(|one| &one.other_rules);
        // Each in quotes, with a comma.
        let names: usize = rules.map(|rule| rule.len() + 3).sum();
        if self.entries.len() >= MOST_APPROVALS || names > OTHER_RULES {
            return Err(NotWaiting::TooMany);
        }
        let own = self.entries.values().filter(|entry| {
            let one = &entry.approval.caller;
            (&one.workload, one.uid, &one.token) == (&caller.workload, caller.uid, &caller.token)
        });
        if own.count() >= OF_ONE {
            return Err(NotWaiting::TooManyOfCaller);
        }
        Ok(())
    }
}

impl Ticket {
    /// What waits.
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    /// Waits for a person, the end of the time, or the gate's end. To be called until it returns.
    pub async fn wait(&mut self) -> Word {
        let left = self.approval.until.microseconds() - clock::wall().microseconds();
        let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let stopping = self.approvals.stopping.clone();
        tokio::select! {
            biased;
            word = &mut self.word => word.unwrap_or(Word::TimedOut),
            () = stopping.cancelled() => Word::Stopping,
            () = tokio::time::sleep(left) => Word::TimedOut,
        }
    }

    /// Uses the approval up, after [`Word::Granted`] and for a call that is `admitted`: from here on the disk knows none.
    ///
    /// # Errors
    /// It could not be used, and so must not be.
    pub async fn redeem(mut self, admitted: Admission) -> Result<(Approval, Approved), NotKept> {
        let granted = self.granted();
        // Whoever waits may have read nothing for long.
        let in_time = self.approval.until > clock::wall();
        let by = granted.filter(|_| in_time).ok_or(NotKept::Ended)?;
        self.spent = true;
        let version = self.approvals.remove(&self.approval.id);
        self.approvals.kept(version).await?;
        let approval = Approval {
            granted: Some(by.clone()),
            ..self.approval.clone()
        };
        Ok((approval, Approved { by, admitted }))
    }

    /// Leaves what was decided unused: within its time, the same caller's same call takes it up. Returns the approval.
    pub fn leave(mut self) -> Approval {
        let granted = self.granted();
        self.spent = true;
        self.let_go();
        Approval {
            granted,
            ..self.approval.clone()
        }
    }

    fn granted(&self) -> Option<Granted> {
        let state = self.approvals.lock();
        let entry = state.entries.get(&self.approval.id)?;
        entry.approval.granted.clone()
    }

    fn let_go(&self) {
        if let Some(entry) = self.approvals.lock().entries.get_mut(&self.approval.id) {
            entry.held = false;
            entry.waits = None;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.spent {
            return;
        }
        if !self.approvals.stopping.is_cancelled() {
            self.approvals.remove(&self.approval.id);
            return;
        }
        self.let_go();
    }
}

impl Approved {
    /// What breakers said of the call.
    pub(super) fn admitted(self) -> Admission {
        self.admitted
    }

    /// Whether who calls approved it, as the policy knows people.
    pub fn is_by(&self, caller: &Caller<'_>, set: &PolicySet) -> bool {
        person::shares(&names_of(caller, set), &self.by.user, set)
    }

    /// Whether it is an approval of what all of `rules` of the policy in force ask for.
    pub(super) fn suits(&self, set: &PolicySet, rules: &[Arc<str>]) -> bool {
        let rules = rules.iter().map(|rule| &**rule);
        may_approve(set, rules, self.by.uid, &self.by.user)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("approval", &self.approval)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("approval", &self.approval)
            .finish_non_exhaustive()
    }
}
