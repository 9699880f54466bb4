//! Breakers: a server or a tool whose calls fail is called no more for a while, then once to see.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_policy::Breaker as Terms;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::bounded::Bounded;

/// Tools of one server that have a breaker: those that were called last. Names can be made up by whoever calls.
const EACH: usize = 1024;
/// The longest name of a tool that has one, in bytes.
const NAME: usize = 256;
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
    /// The server took it on, and answers elsewhere or not at all: good enough for one that is let through to see, and
    /// else neither a success nor a failure.
    TakenOn,
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
    /// Calls pass, since its place was needed for other tools.
    Forgotten,
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
    /// Not bounded: each turn takes a call, which has a record of its own.
    turns: UnboundedSender<Turn>,
}

#[derive(Debug, Default)]
struct State {
    /// Those of the policy in force; others' breakers mean nothing.
    terms: Option<Terms>,
    /// As many as the policy registers.
    servers: HashMap<Arc<str>, Server>,
}

#[derive(Debug)]
struct Server {
    all: Breaker,
    tools: Bounded<Arc<str>, Breaker>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            all: Breaker::default(),
            tools: Bounded::new(EACH),
        }
    }
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
            state.servers.clear();
        }
        let server: Arc<str> = server.into();
        let own = state.servers.entry(Arc::clone(&server)).or_default();
        let tool = Some(tool).filter(|tool| (1..=NAME).contains(&tool.len()));
        // Both are asked before either is used.
        let of_tool = tool.and_then(|tool| own.tools.get(tool)?.refuses(now));
        if let Some(wait) = own.all.refuses(now).max(of_tool) {
            return Err(wait);
        }
        let mut scopes = Vec::with_capacity(2);
        let mut begin = |tool: Option<Arc<str>>, breaker: &mut Breaker| {
            let server = Arc::clone(&server);
            let scope = Scope { server, tool };
            let (probe, turned) = breaker.begin(terms, now);
            if let Some(to) = turned {
                self.shared.turn(&scope, to);
            }
            scopes.push((scope, probe));
        };
        begin(None, &mut own.all);
        if let Some(tool) = tool.map(Arc::from) {
            if let Some(forgotten) = own.makes(&tool) {
                let scope = Scope {
                    server: Arc::clone(&server),
                    tool: Some(forgotten),
                };
                self.shared.turn(&scope, Turned::Forgotten);
            }
            if let Some(breaker) = own.tools.get(&tool) {
                begin(Some(Arc::clone(&tool)), breaker);
            }
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
        let state = self.shared.lock();
        let Some(terms) = terms.filter(|terms| state.terms == Some(*terms)) else {
            return Vec::new();
        };
        let each = state.servers.iter().flat_map(|(server, own)| {
            let tools = own.tools.iter().map(|(tool, it)| (Some(tool), it));
            let all = tools.chain([(None, &own.all)]);
            all.map(move |(tool, breaker)| (server, tool, breaker))
        });
        let mut all: Vec<Standing> = each
            .map(|(server, tool, breaker)| {
                let (calls, failed) = breaker.counts(terms, now);
                let scope = Scope {
                    server: Arc::clone(server),
                    tool: tool.cloned(),
                };
                Standing {
                    scope,
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
    fn of(&mut self, scope: &Scope) -> Option<&mut Breaker> {
        let server = self.servers.get_mut(&scope.server)?;
        match &scope.tool {
            None => Some(&mut server.all),
            Some(tool) => server.tools.get(tool),
        }
    }
}

impl Server {
    /// Makes the breaker of `tool`, if it has none. Told is the tool that loses one for it which held calls back.
    fn makes(&mut self, tool: &Arc<str>) -> Option<Arc<str>> {
        if self.tools.contains(tool) {
            return None;
        }
        let (left, breaker) = self.tools.insert(Arc::clone(tool), Breaker::default())?;
        (!matches!(breaker.mode, Mode::Closed)).then_some(left)
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
    fn counts(&self, terms: Terms, now: Instant) -> (u32, u32) {
        let parts = self.window.iter().filter(|part| part.counts(terms, now));
        parts.fold((0, 0), |(calls, failed), part| {
            (
                calls.saturating_add(part.calls),
                failed.saturating_add(part.failed),
            )
        })
    }

    fn count(&mut self, terms: Terms, failed: bool, now: Instant) {
        let is_over = |part: &Part| !part.counts(terms, now);
        while self.window.front().is_some_and(is_over) {
            self.window.pop_front();
        }
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

impl Part {
    /// Whether it is of the window that ends now.
    fn counts(&self, terms: Terms, now: Instant) -> bool {
        let window = Duration::from_millis(terms.window_ms);
        now.saturating_duration_since(self.from) < window
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
                Fate::TakenOn => probe.map(|_| false),
                Fate::Unknown => None,
            };
            let turned = state
                .of(&scope)
                .and_then(|breaker| breaker.end(terms, probe, failed, now));
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
