//! Breakers: a server or a tool whose calls fail is called no more for a while, then once to see.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_policy::Breaker as Terms;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// Breakers kept at once, of servers and tools. Beyond it a tool has none of its own.
const MOST: usize = 4096;
/// Parts that a window is counted in.
const PARTS: u32 = 10;
/// When to try again while it is being seen whether calls succeed.
const PROBING: Duration = Duration::from_secs(1);

/// What a breaker is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The server.
    pub server: Arc<str>,
    /// The tool; `None`: all of them.
    pub tool: Option<Arc<str>>,
}

/// How a call came out, as far as it says something of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Answered,
    /// The tool says that it failed: this speaks against the tool alone.
    ToolFailed,
    /// It was not answered, or with an error that is not the caller's.
    Failed,
    /// Nothing is known: it was not sent, or nobody waited for its end.
    Unknown,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Calls pass.
    Closed,
    /// Calls are refused, for so long.
    Open(Duration),
    /// One call is let through, to see.
    HalfOpen,
}

/// How a breaker stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of what.
    pub scope: Scope,
    /// Where.
    pub position: Position,
    /// Calls of the window that ends now.
    pub calls: u32,
    /// How many of them failed.
    pub failed: u32,
}

/// A breaker that changed; to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Of what.
    pub scope: Scope,
    /// To what.
    pub to: Turned,
}

/// What a breaker changed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// Calls are refused.
    Open {
        /// The calls of its window and how many of them failed; `None`: the one that was let through did.
        after: Option<(u32, u32)>,
        /// For how long.
        refuses: Duration,
    },
    /// One call is let through, to see.
    HalfOpen,
    /// Calls pass.
    Closed,
}

/// All breakers.
#[derive(Debug)]
pub(super) struct Breakers {
    shared: Arc<Shared>,
    turned: Mutex<Option<UnboundedReceiver<Turn>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Not bounded: each turn takes a breaker at least a second.
    turns: UnboundedSender<Turn>,
}

#[derive(Debug, Default)]
struct State {
    /// Those of the policy in force; others' breakers mean nothing.
    terms: Option<Terms>,
    each: HashMap<Scope, Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    mode: Mode,
    window: VecDeque<Part>,
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        /// One call is on its way; past this it is not waited for any more, and another is let through.
        probed_until: Option<Instant>,
    },
}

/// A part of a window.
#[derive(Debug)]
struct Part {
    from: Instant,
    calls: u32,
    failed: u32,
}

/// One call that passes. Its end is told by [`Trial::end`]; one that is dropped says nothing.
#[derive(Debug)]
pub(super) struct Trial {
    shared: Arc<Shared>,
    /// The server's and the tool's, and until when this call is the one that is let through to see, if it is.
    scopes: Vec<(Scope, Option<Instant>)>,
    ended: bool,
}

impl Default for Breakers {
    fn default() -> Self {
        let (turns, turned) = unbounded_channel();
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                turns,
            }),
            turned: Mutex::new(Some(turned)),
        }
    }
}

impl Breakers {
    /// What opens and closes, for whoever asks first.
    pub(super) fn turns(&self) -> Option<UnboundedReceiver<Turn>> {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.take()
    }

    /// May a call of `tool` pass? If not, the time after which it is worth trying again.
    pub(super) fn admit(
        &self,
        terms: Terms,
        server: &str,
        tool: &str,
        now: Instant,
    ) -> Result<Trial, Duration> {
        let mut state = self.shared.lock();
        if state.terms != Some(terms) {
            state.terms = Some(terms);
            state.each.clear();
        }
        let server: Arc<str> = server.into();
        let tool = Some(Arc::from(tool)).filter(|tool: &Arc<str>| !tool.is_empty());
        let of_tool = tool.map(|tool| Scope {
            server: Arc::clone(&server),
            tool: Some(tool),
        });
        let scopes = [Some(Scope { server, tool: None }), of_tool];
        let mut known: Vec<Scope> = scopes.into_iter().flatten().collect();
        known.retain(|scope| state.knows(scope, terms, now));
        // Both are asked before either is used.
        let waits = known
            .iter()
            .filter_map(|scope| state.each.get(scope)?.refuses(now));
        if let Some(wait) = waits.max() {
            return Err(wait);
        }
        let mut scopes = Vec::with_capacity(known.len());
        for scope in known {
            let breaker = state.each.get_mut(&scope);
            let (probe, turned) = breaker.map_or((None, None), |it| it.begin(terms, now));
            if let Some(to) = turned {
                self.shared.turn(&scope, to);
            }
            scopes.push((scope, probe));
        }
        Ok(Trial {
            shared: Arc::clone(&self.shared),
            scopes,
            ended: false,
        })
    }

    /// How all stand of which something is known, by name; none where `terms`, those in force, are not those by which they
    /// were opened: they decide nothing any more.
    pub(super) fn standing(&self, terms: Option<Terms>, now: Instant) -> Vec<Standing> {
        let mut state = self.shared.lock();
        let Some(terms) = terms.filter(|terms| state.terms == Some(*terms)) else {
            return Vec::new();
        };
        let mut all: Vec<Standing> = state
            .each
            .iter_mut()
            .map(|(scope, breaker)| {
                let (calls, failed) = breaker.counts(terms, now);
                Standing {
                    scope: scope.clone(),
                    position: breaker.position(now),
                    calls,
                    failed,
                }
            })
            .filter(|standing| standing.calls > 0 || standing.position != Position::Closed)
            .collect();
        all.sort_by(|left, right| left.scope.cmp(&right.scope));
        all
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, scope: &Scope, to: Turned) {
        let scope = scope.clone();
        // Where nobody records it any more, the gate ends.
        let _ends = self.turns.send(Turn { scope, to });
    }
}

impl State {
    /// Whether there is a breaker of `scope`; one is made where there is room.
    fn knows(&mut self, scope: &Scope, terms: Terms, now: Instant) -> bool {
        if self.each.contains_key(scope) {
            return true;
        }
        if self.each.len() >= MOST {
            self.each.retain(|_, breaker| {
                let (calls, _) = breaker.counts(terms, now);
                calls > 0 || !matches!(breaker.mode, Mode::Closed)
            });
        }
        // A server's is made in any case: there are as many as the policy registers.
        let room = scope.tool.is_none() || self.each.len() < MOST;
        if room {
            self.each.insert(scope.clone(), Breaker::default());
        }
        room
    }
}

impl Breaker {
    /// How long a call has to wait, if it has to.
    fn refuses(&self, now: Instant) -> Option<Duration> {
        match self.position(now) {
            Position::Open(wait) => Some(wait),
            Position::HalfOpen => match self.mode {
                Mode::HalfOpen {
                    probed_until: Some(until),
                } if until > now => Some(PROBING),
                _ => None,
            },
            Position::Closed => None,
        }
    }

    /// A call passes: until when it is the one that is let through to see, if it is, and what turned by that.
    fn begin(&mut self, terms: Terms, now: Instant) -> (Option<Instant>, Option<Turned>) {
        let turned = match self.mode {
            Mode::Closed => return (None, None),
            Mode::Open { .. } => Some(Turned::HalfOpen),
            Mode::HalfOpen { .. } => None,
        };
        let probed_until = Some(now + Duration::from_millis(terms.open_for_ms));
        self.mode = Mode::HalfOpen { probed_until };
        (probed_until, turned)
    }

    fn position(&self, now: Instant) -> Position {
        match self.mode {
            Mode::Closed => Position::Closed,
            Mode::Open { until } if until > now => {
                Position::Open(until.saturating_duration_since(now))
            }
            Mode::Open { .. } | Mode::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// The calls of the window that ends now, and how many of them failed.
    fn counts(&mut self, terms: Terms, now: Instant) -> (u32, u32) {
        let window = Duration::from_millis(terms.window_ms);
        while self
            .window
            .front()
            .is_some_and(|part| now.saturating_duration_since(part.from) >= window)
        {
            self.window.pop_front();
        }
        self.window.iter().fold((0, 0), |(calls, failed), part| {
            (
                calls.saturating_add(part.calls),
                failed.saturating_add(part.failed),
            )
        })
    }

    fn count(&mut self, terms: Terms, failed: bool, now: Instant) {
        let length = Duration::from_millis(terms.window_ms) / PARTS;
        let over = |part: &Part| now.saturating_duration_since(part.from) >= length;
        if self.window.back().is_none_or(over) {
            self.window.push_back(Part {
                from: now,
                calls: 0,
                failed: 0,
            });
        }
        if let Some(part) = self.window.back_mut() {
            part.calls = part.calls.saturating_add(1);
            part.failed = part.failed.saturating_add(u32::from(failed));
        }
    }

    fn open(&mut self, terms: Terms, now: Instant) -> Duration {
        let refuses = Duration::from_millis(terms.open_for_ms);
        self.mode = Mode::Open {
            until: now + refuses,
        };
        self.window.clear();
        refuses
    }

    /// Takes the end of a call; what turned, if something did. `failed`: `None` where it says nothing.
    fn end(
        &mut self,
        terms: Terms,
        probe: Option<Instant>,
        failed: Option<bool>,
        now: Instant,
    ) -> Option<Turned> {
        // One that is not waited for any more decides nothing over the one after it.
        let probes = |probed_until: &Option<Instant>| probe.is_some() && *probed_until == probe;
        match (&self.mode, failed) {
            (Mode::HalfOpen { probed_until }, None) if probes(probed_until) => {
                self.mode = Mode::HalfOpen { probed_until: None };
                None
            }
            (Mode::HalfOpen { probed_until }, Some(true)) if probes(probed_until) => {
                let refuses = self.open(terms, now);
                Some(Turned::Open {
                    after: None,
                    refuses,
                })
            }
            (Mode::HalfOpen { probed_until }, Some(false)) if probes(probed_until) => {
                self.mode = Mode::Closed;
                Some(Turned::Closed)
            }
            (Mode::Closed, Some(failed)) => {
                self.count(terms, failed, now);
                let (calls, failures) = self.counts(terms, now);
                let share = u64::from(failures).saturating_mul(100);
                let most = u64::from(terms.error_rate).saturating_mul(calls.into());
                if failures == 0 || calls < terms.min_calls || share < most {
                    return None;
                }
                let refuses = self.open(terms, now);
                Some(Turned::Open {
                    after: Some((calls, failures)),
                    refuses,
                })
            }
            // Begun before it opened, or of breakers that are no more.
            _ => None,
        }
    }
}

impl Trial {
    /// Tells how the call came out.
    pub(super) fn end(mut self, fate: Fate, now: Instant) {
        self.tell(fate, now);
    }

    fn tell(&mut self, fate: Fate, now: Instant) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut state = self.shared.lock();
        let Some(terms) = state.terms else { return };
        for (scope, probe) in self.scopes.drain(..) {
            let failed = match fate {
                Fate::Answered => Some(false),
                Fate::ToolFailed => Some(scope.tool.is_some()),
                Fate::Failed => Some(true),
                Fate::Unknown => None,
            };
            let breaker = state.each.get_mut(&scope);
            let turned = breaker.and_then(|breaker| breaker.end(terms, probe, failed, now));
            if let Some(to) = turned {
                self.shared.turn(&scope, to);
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.tell(Fate::Unknown, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        error_rate: 50,
        window_ms: 10_000,
        min_calls: 4,
        open_for_ms: 5_000,
    };

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Calls `tool` once.
    fn call(breakers: &Breakers, tool: &str, fate: Fate, now: Instant) -> Result<(), Duration> {
        breakers
            .admit(TERMS, "s", tool, now)
            .map(|trial| trial.end(fate, now))
    }

    /// What turned, `*` standing for the server.
    fn turns(turned: &mut UnboundedReceiver<Turn>) -> Vec<String> {
        std::iter::from_fn(|| turned.try_recv().ok())
            .map(|turn| {
                let to = match turn.to {
                    Turned::Open { .. } => "open",
                    Turned::HalfOpen => "half open",
                    Turned::Closed => "closed",
                };
                format!("{} {to}", turn.scope.tool.as_deref().unwrap_or("*"))
            })
            .collect()
    }

    fn position(breakers: &Breakers, now: Instant) -> Position {
        breakers.standing(Some(TERMS), now)[0].position
    }

    #[test]
    fn it_opens_at_its_share_is_tried_and_closes() {
        let breakers = Breakers::default();
        let mut turned = breakers.turns().unwrap();
        let start = Instant::now();
        for (ms, fate) in [
            (0, Fate::Failed),
            (1, Fate::Answered),
            (2, Fate::Unknown),
            (3, Fate::Answered),
        ] {
            call(&breakers, "t", fate, at(start, ms)).unwrap();
        }
        assert!(turns(&mut turned).is_empty(), "three calls say too little");
        call(&breakers, "t", Fate::Failed, at(start, 4)).unwrap();
        assert_eq!(turns(&mut turned), ["* open", "t open"]);
        let left = Duration::from_millis(4_999);
        assert_eq!(position(&breakers, at(start, 5)), Position::Open(left));
        let wait = call(&breakers, "t", Fate::Answered, at(start, 5)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(4_999));
        // Another tool of the same server.
        call(&breakers, "u", Fate::Answered, at(start, 5)).unwrap_err();
        // One call is let through, whose end decides; a second one waits.
        assert_eq!(position(&breakers, at(start, 5_004)), Position::HalfOpen);
        assert!(turns(&mut turned).is_empty(), "nobody asked yet");
        let probe = breakers.admit(TERMS, "s", "t", at(start, 5_005)).unwrap();
        assert_eq!(turns(&mut turned), ["* half open", "t half open"]);
        let wait = call(&breakers, "t", Fate::Answered, at(start, 5_006)).unwrap_err();
        assert_eq!(wait, PROBING);
        probe.end(Fate::Failed, at(start, 5_007));
        assert_eq!(turns(&mut turned), ["* open", "t open"]);
        call(&breakers, "t", Fate::Answered, at(start, 10_006)).unwrap_err();
        // One that is dropped says nothing, and makes room for another, which turns nothing either.
        drop(breakers.admit(TERMS, "s", "t", at(start, 10_008)).unwrap());
        call(&breakers, "t", Fate::Answered, at(start, 10_009)).unwrap();
        assert_eq!(
            turns(&mut turned),
            ["* half open", "t half open", "* closed", "t closed"]
        );
        let standing = breakers.standing(Some(TERMS), at(start, 10_009));
        assert!(standing.is_empty(), "closed, and not called since");
        call(&breakers, "t", Fate::Failed, at(start, 10_010)).unwrap();
        call(&breakers, "t", Fate::Answered, at(start, 10_011)).unwrap();
    }

    #[test]
    fn what_a_tool_says_of_itself_speaks_against_no_other() {
        let breakers = Breakers::default();
        let now = Instant::now();
        for _ in 0..4 {
            call(&breakers, "t", Fate::ToolFailed, now).unwrap();
        }
        call(&breakers, "t", Fate::Answered, now).unwrap_err();
        call(&breakers, "u", Fate::Answered, now).unwrap();
        let shown = breakers.standing(Some(TERMS), now);
        let positions: Vec<_> = shown.iter().map(|one| (one.calls, one.failed)).collect();
        assert_eq!(positions, [(5, 0), (0, 0), (1, 0)]);
        assert!(matches!(shown[1].position, Position::Open(_)));
    }

    #[test]
    fn what_failed_before_the_window_does_not_count() {
        let breakers = Breakers::default();
        let start = Instant::now();
        for ms in [0, 1, 2] {
            call(&breakers, "t", Fate::Failed, at(start, ms)).unwrap();
        }
        for ms in [10_003, 10_004, 10_005, 10_006, 10_007] {
            call(&breakers, "t", Fate::Answered, at(start, ms)).unwrap();
        }
        assert_eq!(
            breakers.standing(Some(TERMS), at(start, 10_008))[0].failed,
            0
        );
    }

    #[test]
    fn what_began_before_it_opened_does_not_decide_afterwards() {
        let breakers = Breakers::default();
        let start = Instant::now();
        let early = breakers.admit(TERMS, "s", "t", start).unwrap();
        for _ in 0..4 {
            call(&breakers, "t", Fate::Failed, start).unwrap();
        }
        let probe = breakers.admit(TERMS, "s", "t", at(start, 5_001)).unwrap();
        early.end(Fate::Answered, at(start, 5_002));
        call(&breakers, "t", Fate::Answered, at(start, 5_003)).unwrap_err();
        probe.end(Fate::Answered, at(start, 5_004));
        call(&breakers, "t", Fate::Answered, at(start, 5_005)).unwrap();
    }

    #[test]
    fn a_probe_that_is_not_waited_for_decides_nothing_over_the_next() {
        for late in [Fate::Answered, Fate::Failed, Fate::Unknown] {
            let breakers = Breakers::default();
            let start = Instant::now();
            for _ in 0..4 {
                call(&breakers, "t", Fate::Failed, start).unwrap();
            }
            let probe = |ms| breakers.admit(TERMS, "s", "t", at(start, ms));
            let hangs = probe(5_001).unwrap();
            let fails = probe(10_002).unwrap();
            fails.end(Fate::Failed, at(start, 10_003));
            let third = probe(15_004).unwrap();
            hangs.end(late, at(start, 15_005));
            probe(15_006).unwrap_err();
            third.end(Fate::Answered, at(start, 15_007));
            probe(15_008)
                .unwrap()
                .end(Fate::Answered, at(start, 15_009));
            probe(15_010).unwrap();
        }
    }

    #[test]
    fn other_terms_begin_anew_and_names_have_a_bound() {
        let breakers = Breakers::default();
        let now = Instant::now();
        for _ in 0..4 {
            call(&breakers, "t", Fate::Failed, now).unwrap();
        }
        call(&breakers, "t", Fate::Answered, now).unwrap_err();
        let other = Terms {
            error_rate: 60,
            ..TERMS
        };
        // Of what the policy in force does not have, nothing is told.
        assert_eq!(breakers.standing(Some(TERMS), now).len(), 2);
        for terms in [None, Some(other)] {
            assert!(breakers.standing(terms, now).is_empty(), "{terms:?}");
        }
        drop(breakers.admit(other, "s", "t", now).unwrap());
        for tool in 0..2 * MOST {
            call(&breakers, &tool.to_string(), Fate::Answered, now).unwrap();
        }
        assert!(breakers.shared.lock().each.len() <= MOST);
        // Without a breaker of its own, a tool's failures are its server's.
        for _ in 0..3 * MOST {
            if call(&breakers, "one more", Fate::Failed, now).is_err() {
                return;
            }
        }
        panic!("never opened");
    }
}
