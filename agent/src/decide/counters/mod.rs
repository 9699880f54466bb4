//! The counters behind limits: read and charged under one lock, so that no two calls take the last place. What
//! they stand at is told as text, line by line, so that the next gate goes on with it.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use exeat_policy::{Amount, Caller, Cap, Count, Counter, LimitKey, Timestamp};
use serde_json::Number;

use self::text::Line;
pub use self::text::MalformedLine;

mod text;

/// Counters kept at once. A call that needs one more is refused: evicting a counter would lift a limit.
pub(super) const MOST: usize = 400_000;
/// Calls that all counters of rates and sums together keep a point in time of.
pub(super) const MOST_RECENT: usize = 1_000_000;
/// A session whose number of calls nothing was charged to for this long is over.
const IDLE_MS: u64 = 24 * 60 * 60 * 1000;
/// How often room is looked for where there is none.
const SWEEP_MS: u64 = 1000;
/// Changes that wait to be written, in bytes; beyond it all is written anew.
const PENDING: usize = 4 << 20;
/// What is written may be so many bytes longer than what it says, before it is written anew.
const SLACK: u64 = 4 << 20;
/// Bytes of one counter, or of one call, in what is written anew; at most.
const LINE: u64 = 160;

/// A counter's name, or a session's: the beginning of a SHA-256, so that a long name takes no more room.
type Name = [u8; 16];

/// Whose calls made a counter, as [`Counters::owner`] tells it; none of one that an earlier gate made.
type Owner = Option<u64>;

/// What a caller's calls have taken of all that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Share {
    counters: usize,
    /// Calls that those keep a point in time of.
    recent: usize,
}

/// One counter.
#[derive(Debug)]
struct Kept {
    counter: Counter,
    used: Timestamp,
    owner: Owner,
    /// The session that it belongs to, if it belongs to one.
    session: Option<Name>,
}

impl Kept {
    /// Whether forgetting it lifts no limit.
    fn is_over(&self, now: Timestamp) -> bool {
        self.counter.is_idle(now) || (self.session.is_some() && self.is_unused(now))
    }

    /// It as it is written.
    fn lines(&self, name: Name) -> impl Iterator<Item = Line> {
        let counter = &self.counter;
        let recent = counter.recent().iter();
        [
            Line::New(name, counter.cap(), self.session),
            Line::Calls(name, counter.calls(), self.used),
        ]
        .into_iter()
        .chain(recent.map(move |(at, amount)| Line::Recent(name, *at, *amount)))
    }

    /// Whether it is a number of calls that nothing was charged to for long.
    fn is_unused(&self, now: Timestamp) -> bool {
        matches!(self.counter.cap(), Cap::Calls(_)) && now.millis_since(self.used) >= IDLE_MS
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    state: Mutex<State>,
    /// Nobody can choose to be taken for another.
    owners: RandomState,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Name, Kept>,
    shares: HashMap<Owner, Share>,
    /// Calls that they keep a point in time of.
    recent: usize,
    /// When room was looked for last.
    swept: Option<Timestamp>,
    /// Sessions that an earlier gate counted.
    sessions: HashSet<Name>,
    /// What changed and is not written.
    pending: String,
    /// All is to be written anew.
    anew: bool,
}

/// What is to be written.
#[derive(Debug)]
pub struct Unwritten {
    /// Lines.
    pub text: String,
    /// Whether they take the place of all that was written before.
    pub anew: bool,
}

/// What a call was charged, where it may be given back.
#[derive(Debug)]
pub(super) struct Charge {
    name: Name,
    amount: Amount,
    at: Timestamp,
}

/// What a counter stands at, for the record.
#[derive(Debug)]
pub(super) struct Standing {
    /// The limit's index.
    pub(super) limit: usize,
    /// What was charged.
    pub(super) value: Number,
    /// What may be.
    pub(super) most: Number,
}

/// The counters of one decision, locked until it is made.
#[derive(Debug)]
pub(super) struct Held<'a> {
    state: MutexGuard<'a, State>,
    owner: u64,
    keys: Vec<(Name, LimitKey)>,
    now: Timestamp,
}

fn named(text: &str) -> Name {
    let digest = digest(&SHA256, text.as_bytes());
    let mut name = Name::default();
    for (to, from) in name.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    name
}

impl Counters {
    /// What one counter stands at.
    pub(super) fn count(&self, key: &LimitKey, now: Timestamp) -> Count {
        match self.lock().kept.get(&named(&key.key)) {
            Some(held) => held.counter.count(key, now),
            None => Counter::new(key.cap).count(key, now),
        }
    }

    /// Whose counters those are that a call of `caller` makes: its workload's and identity's, so that users of one
    /// workload have no common share.
    pub(super) fn owner(&self, caller: &Caller<'_>) -> u64 {
        let token = caller.token.as_ref();
        let token = token.map(|token| (token.issuer, token.subject));
        let certificate = caller.certificate.as_ref();
        let certificate = certificate.map(|shown| (shown.authority, shown.subject));
        let who = (caller.workload, caller.user, token, certificate);
        self.owners.hash_one(who)
    }

    /// Locks the counters that `keys` name; those that there is no room for are left out, and a decision
    /// without a count is a refusal. `session`: of the call, which is one of `owner`.
    pub(super) fn hold(
        &self,
        keys: Vec<LimitKey>,
        owner: u64,
        session: Option<&str>,
        now: Timestamp,
    ) -> Held<'_> {
        let session = session.map(named);
        let mut state = self.lock();
        let keys: Vec<(Name, LimitKey)> =
            keys.into_iter().map(|key| (named(&key.key), key)).collect();
        for (name, key) in &keys {
            if state.kept.contains_key(name) {
                state.widen(*name, key.cap);
                continue;
            }
            state.sweep(owner, now);
            if state.has_room(owner) {
                let kept = Kept {
                    counter: Counter::new(key.cap),
                    used: now,
                    owner: Some(owner),
                    session: session.filter(|_| key.session),
                };
                let share = state.shares.entry(kept.owner).or_default();
                share.counters = share.counters.saturating_add(1);
                state.tell(Line::New(*name, key.cap, kept.session));
                state.kept.insert(*name, kept);
            }
        }
        Held {
            state,
            owner,
            keys,
            now,
        }
    }

    /// Whether an earlier gate counted calls of this session.
    pub(super) fn knows(&self, session: &str) -> bool {
        self.lock().sessions.contains(&named(session))
    }

    /// Takes back what a call was charged that failed.
    pub(super) fn refund(&self, charges: Vec<Charge>) {
        let mut state = self.lock();
        for Charge { name, amount, at } in charges {
            state.change(name, |counter| counter.refund(amount, at));
            state.tell(Line::Less(name, at, amount));
        }
    }

    /// What is to be written by now, beside the `length` bytes that are written.
    pub(super) fn unwritten(&self, length: u64, now: Timestamp) -> Unwritten {
        let mut state = self.lock();
        let lines = state.kept.len().saturating_add(state.recent);
        let needed = u64::try_from(lines)
            .unwrap_or(u64::MAX)
            .saturating_mul(LINE);
        if !std::mem::take(&mut state.anew) && length <= needed.saturating_add(SLACK) {
            return Unwritten {
                text: std::mem::take(&mut state.pending),
                anew: false,
            };
        }
        state.pending = String::new();
        state.forget(|kept| kept.is_over(now));
        Unwritten {
            text: state.whole(),
            anew: true,
        }
    }

    /// All is to be written anew: what was to be written is lost.
    pub(super) fn write_anew(&self) {
        self.lock().anew = true;
    }

    /// Goes on with what an earlier gate wrote, sessions included where they may still live. A last line without its end
    /// was never written.
    pub(super) fn restore(
        &self,
        text: &str,
        sessions: bool,
        now: Timestamp,
    ) -> Result<usize, MalformedLine> {
        let mut state = State::default();
        let whole = text.rfind('\n').and_then(|end| text.get(..=end));
        for line in whole.unwrap_or_default().lines() {
            state.take(Line::parse(line)?);
        }
        state
            .kept
            .retain(|_, kept| (sessions || kept.session.is_none()) && !kept.is_over(now));
        state.sessions = state
            .kept
            .values()
            .filter_map(|kept| kept.session)
            .collect();
        state.recount();
        // So that what is over, and of another life, is not read again.
        state.anew = true;
        let count = state.kept.len();
        *self.lock() = state;
        Ok(count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the caller may make one more counter: none has more than there is room left for the others, so that there
    /// is always some for one that has none.
    fn has_room(&self, owner: u64) -> bool {
        self.share(owner).counters < MOST.saturating_sub(self.kept.len())
    }

    /// The same of calls that a point in time is kept of.
    fn has_time(&self, owner: u64) -> bool {
        self.share(owner).recent < MOST_RECENT.saturating_sub(self.recent)
    }

    fn share(&self, owner: u64) -> Share {
        self.shares.get(&Some(owner)).copied().unwrap_or_default()
    }

    /// Makes room where there is none.
    fn sweep(&mut self, owner: u64, now: Timestamp) {
        // Not for every call that finds none.
        let looked = self.swept.is_some_and(|at| now.millis_since(at) < SWEEP_MS);
        if !self.is_full(owner) || looked {
            return;
        }
        self.swept = Some(now);
        self.forget(|kept| kept.is_over(now));
        // Whom these are of may never come again, and nobody else could come at all. Not before: no caller lifts limits by
        // what it fills.
        if self.kept.len() >= MOST {
            self.forget(|kept| kept.is_unused(now));
        }
    }

    fn is_full(&self, owner: u64) -> bool {
        !(self.has_room(owner) && self.has_time(owner))
    }

    fn forget(&mut self, which: impl Fn(&Kept) -> bool) {
        self.kept.retain(|_, kept| !which(kept));
        self.recount();
    }

    fn recount(&mut self) {
        self.shares.clear();
        self.recent = 0;
        for kept in self.kept.values() {
            let recent = kept.counter.recent().len();
            let share = self.shares.entry(kept.owner).or_default();
            share.counters = share.counters.saturating_add(1);
            share.recent = share.recent.saturating_add(recent);
            self.recent = self.recent.saturating_add(recent);
        }
    }

    /// Changes a counter; `false` if there is none of that name.
    fn change(&mut self, name: Name, change: impl FnOnce(&mut Counter)) -> bool {
        let Some(kept) = self.kept.get_mut(&name) else {
            return false;
        };
        let before = kept.counter.recent().len();
        change(&mut kept.counter);
        let after = kept.counter.recent().len();
        let moved = |of: usize| of.saturating_add(after).saturating_sub(before);
        self.recent = moved(self.recent);
        if after != before {
            let share = self.shares.entry(kept.owner).or_default();
            share.recent = moved(share.recent);
        }
        true
    }

    fn tell(&mut self, line: Line) {
        if self.pending.len() > PENDING {
            self.pending = String::new();
            self.anew = true;
        }
        if !self.anew {
            // Writing to a string cannot fail.
            writeln!(self.pending, "{line}").unwrap_or_default();
        }
    }

    fn whole(&self) -> String {
        let mut text = String::new();
        for (name, kept) in &self.kept {
            for line in kept.lines(*name) {
                writeln!(text, "{line}").unwrap_or_default();
            }
        }
        text
    }

    /// Has the counter keep as many calls as the limit allows by now. What is written says so, or the next gate would read
    /// no more of them than were kept before.
    fn widen(&mut self, name: Name, cap: Cap) {
        let Some(kept) = self.kept.get_mut(&name) else {
            return;
        };
        if kept.counter.widen(cap) {
            let lines: Vec<Line> = kept.lines(name).collect();
            for line in lines {
                self.tell(line);
            }
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::New(name, cap, session) => {
                let kept = Kept {
                    counter: Counter::new(cap),
                    used: Timestamp::from_millis(0),
                    owner: None,
                    session,
                };
                // One that was over was forgotten, and begins anew.
                if self.kept.len() < MOST || self.kept.contains_key(&name) {
                    self.kept.insert(name, kept);
                }
            }
            Line::Calls(name, calls, used) => {
                if let Some(kept) = self.kept.get_mut(&name) {
                    kept.counter.resume(calls);
                    kept.used = used;
                }
            }
            Line::Recent(name, at, amount) => {
                self.change(name, |counter| counter.remember(at, amount));
            }
            Line::More(name, at, amount) => {
                self.change(name, |counter| counter.charge_amount(amount, at));
                if let Some(kept) = self.kept.get_mut(&name) {
                    kept.used = at;
                }
            }
            Line::Less(name, at, amount) => {
                self.change(name, |counter| counter.refund(amount, at));
            }
        }
    }
}

impl Held<'_> {
    /// What the counters stand at. None of a rate or sum where no more calls can be kept.
    pub(super) fn counts(&self) -> Vec<Count> {
        let full = !self.state.has_time(self.owner);
        let count = |(name, key): &(Name, LimitKey)| {
            let kept = self.state.kept.get(name)?;
            let keeps = !matches!(key.cap, Cap::Calls(_));
            (!(full && keeps)).then(|| kept.counter.count(key, self.now))
        };
        self.keys.iter().filter_map(count).collect()
    }

    /// What the counters stand at, for the record; with the call where it is `charged`.
    pub(super) fn standing(&self, charged: bool) -> impl Iterator<Item = Standing> {
        self.keys.iter().filter_map(move |(name, key)| {
            let counter = &self.state.kept.get(name)?.counter;
            let recent = counter.recent();
            // In the order of time.
            let within = |window_ms| {
                let gone =
                    recent.partition_point(|(at, _)| self.now.millis_since(*at) >= window_ms);
                recent.iter().skip(gone)
            };
            let more = u64::from(charged);
            let (value, most) = match key.cap {
                Cap::Calls(most) => (counter.calls().saturating_add(more).into(), most.into()),
                Cap::Rate { calls, window_ms } => {
                    let made = u64::try_from(within(window_ms).len()).unwrap_or(u64::MAX);
                    (made.saturating_add(more).into(), calls.into())
                }
                Cap::Sum { max, window_ms } => {
                    let more = key.amount.filter(|_| charged).unwrap_or_default();
                    let sum = within(window_ms).fold(more, |sum, (_, amount)| sum.plus(*amount));
                    (number(sum), number(max))
                }
            };
            Some(Standing {
                limit: key.limit,
                value,
                most,
            })
        })
    }

    /// The call is allowed: each counter is one higher. What of it is given back if the call fails.
    pub(super) fn charge(mut self) -> Vec<Charge> {
        let mut charges = Vec::new();
        let (now, keys) = (self.now, std::mem::take(&mut self.keys));
        let mut done = Vec::with_capacity(keys.len());
        for (name, key) in keys {
            // Limits that differ in how much they allow alone share a counter.
            if done.contains(&name) {
                continue;
            }
            done.push(name);
            let amount = key.amount.unwrap_or_default();
            if !self.state.change(name, |counter| counter.charge(&key, now)) {
                continue;
            }
            if let Some(kept) = self.state.kept.get_mut(&name) {
                kept.used = now;
            }
            self.state.tell(Line::More(name, now, amount));
            if key.refund {
                let at = now;
                charges.push(Charge { name, amount, at });
            }
        }
        charges
    }
}

/// As JSON writes it. A sum of whole numbers is exact.
fn number(amount: Amount) -> Number {
    let read = amount.to_string().parse();
    read.unwrap_or_else(|_beyond| u64::MAX.into())
}

/// A name as it is written: in hexadecimal. Each call that is counted writes some.
fn shown(name: &Name) -> String {
    let digits = name.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests;
