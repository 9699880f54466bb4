//! What is kept of a session for the log: its section of every record, and how much of what there was.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::audit::record::{
    Counted, Fetched as Recorded, Finding, HostProcess, Identity, Kind, Lifecycle, Record,
    Session as Section, Side, Workload,
};
use crate::audit::{AuditUnavailable, Shared, Text};
use crate::channel::{ARTEFACTS_AT_ONCE, Artefact, HostProcess as ToldHost};
use crate::decode::mcp::{Client, Revision, greeting};
use crate::decode::mcp::{Era, spoken, view};
use crate::decode::rpc::{Message, Outcome, Response};
use crate::flow::Stages;
use crate::flow::describe::Why;
use crate::identify::fetching::Fetched;
use crate::intake::Actor;
use crate::telemetry::clock;

/// What is no use to anybody and recorded one by one, of each kind; later ones each time their number has doubled.
const ONE_BY_ONE: u64 = 8;
/// Methods of notifications that are counted apart; the rest together.
const METHODS: usize = 32;
/// The longest name of a method that is counted apart, in bytes.
const METHOD: usize = 128;
/// What those that are not are counted as.
const OTHERS: &str = "other notifications";

/// One session's.
pub(super) struct Ledger {
    process: Shared<Workload>,
    identity: Shared<Identity>,
    state: Mutex<State>,
}

struct State {
    known: Section,
    section: Shared<Section>,
    requests: u64,
    refused: u64,
    /// Of the host's refused ones, what is no message or answers nothing.
    unread: u64,
    failed: u64,
    violations: u64,
    host: Told,
    server: Told,
}

/// What one side said to which nobody answers.
#[derive(Default)]
struct Told {
    refused: u64,
    /// Of what passed, what an observing policy would have refused.
    observed: u64,
    /// Notifications that passed, by method.
    passed: BTreeMap<String, u64>,
}

impl Ledger {
    /// Records the session's beginning, whose record gives the session its name.
    pub(super) async fn begin(
        stages: &Stages,
        actor: &Actor,
        (host, host_unknown): (Option<ToldHost>, Option<String>),
    ) -> Result<Self, AuditUnavailable> {
        let mut record = stages.log.record(Kind::Lifecycle, clock::now());
        let mut known = Section {
            id: Text::new(&record.id.to_string()),
            host: host.map(described),
            host_unknown: host_unknown.as_deref().map(Text::new),
            ..Section::default()
        };
        record.workload = Some(actor.process.clone());
        record.identity = Some(actor.identity.clone());
        record.session = Some(known.clone().into());
        record.cause = actor.cause(&stages.calls);
        record.lifecycle = Some(Lifecycle {
            event: Text::fixed("session_started"),
            ..Lifecycle::default()
        });
        stages.log.event(record).await?.recorded().await?;
        if let Some(host) = &mut known.host {
            // They stand in the record of the beginning, and would make every other one twice as long.
            host.ancestors = Vec::new();
        }
        Ok(Self {
            process: actor.process.clone(),
            identity: actor.identity.clone(),
            state: Mutex::new(State {
                section: known.clone().into(),
                known,
                requests: 0,
                refused: 0,
                unread: 0,
                failed: 0,
                violations: 0,
                host: Told::default(),
                server: Told::default(),
            }),
        })
    }

    /// The session as records name it.
    pub(super) fn section(&self) -> Shared<Section> {
        self.lock().section.clone()
    }

    /// Learns from what the host sends who it says that it is, and what it speaks.
    pub(super) fn learn(&self, message: &Message) {
        let modern = spoken(message, None).era == Era::Modern;
        if !modern && message.method() != Some("initialize") {
            return;
        }
        let Ok(seen) = view(message) else { return };
        // In the legacy era the server chooses.
        let revision = modern.then(|| spoken(message, None).revision).flatten();
        self.know(seen.client, revision.map(Revision::as_str));
    }

    /// Learns from the answer to `initialize` which revision was agreed on.
    pub(super) fn learn_agreed(&self, response: &Response) {
        if let Outcome::Result(result) = &response.outcome {
            let revisions = greeting(result, Era::Legacy).revisions;
            self.know(None, revisions.first().copied());
        }
    }

    fn know(&self, client: Option<Client<'_>>, revision: Option<&str>) {
        let mut state = self.lock();
        let mut known = state.known.clone();
        if let Some(client) = client {
            known.client = Some(Text::new(client.name));
            known.client_version = Some(Text::new(client.version));
        }
        if let Some(revision) = revision {
            known.revision = Some(Text::new(revision));
        }
        if known != state.known {
            state.section = known.clone().into();
            state.known = known;
        }
    }

    pub(super) fn request(&self) {
        let mut state = self.lock();
        state.requests = state.requests.saturating_add(1);
    }

    pub(super) fn refused(&self) {
        let mut state = self.lock();
        state.refused = state.refused.saturating_add(1);
    }

    pub(super) fn failed(&self) {
        let mut state = self.lock();
        state.failed = state.failed.saturating_add(1);
    }

    /// What `from` said is refused, and whoever floods is not slowed by an answer. Whether it has a record of its own: the
    /// log must not be filled.
    pub(super) fn refused_told(&self, from: Side) -> bool {
        let mut state = self.lock();
        state.refused = state.refused.saturating_add(1);
        let told = state.told(from);
        told.refused = told.refused.saturating_add(1);
        is_worth(told.refused)
    }

    /// The host sent what is no message, or answers nothing. Whether it has a record of its own.
    pub(super) fn refused_unread(&self) -> bool {
        let mut state = self.lock();
        state.refused = state.refused.saturating_add(1);
        state.unread = state.unread.saturating_add(1);
        is_worth(state.unread)
    }

    /// A notification of `from` was let through; `observed`: an observing policy would have refused it. How many of its
    /// method there are with it, if it has a record of its own.
    pub(super) fn notification(&self, from: Side, method: &str, observed: bool) -> Option<u64> {
        self.lock().told(from).passes(method, observed)
    }

    /// One that was counted so could not be recorded, and does not pass.
    pub(super) fn unrecorded(&self, from: Side, method: &str, observed: bool) {
        let mut state = self.lock();
        state.refused = state.refused.saturating_add(1);
        state.told(from).passes_not(method, observed);
    }

    /// The server did what the protocol does not know. Recorded in a way that no flood fills the log.
    pub(super) async fn violation(&self, stages: &Stages, what: impl Why) {
        let count = {
            let mut state = self.lock();
            state.violations = state.violations.saturating_add(1);
            state.violations
        };
        if !is_worth(count) {
            return;
        }
        let mut record = self.about(stages, Kind::Finding);
        record.finding = Some(Finding {
            what: Text::fixed("stdio_violation"),
            detail: Some(what.text()),
            count: (count > ONE_BY_ONE).then_some(count),
        });
        if let Err(error) = stages.log.event(record).await {
            tracing::error!(%error, "a violation could not be recorded");
        }
    }

    /// A record of the session.
    pub(super) fn lifecycle(&self, stages: &Stages, lifecycle: Lifecycle) -> Record {
        let mut record = self.about(stages, Kind::Lifecycle);
        record.lifecycle = Some(lifecycle);
        record
    }

    /// Records the session's end.
    pub(super) async fn ended(&self, stages: &Stages, why: &'static str) {
        let lifecycle = Lifecycle {
            event: Text::fixed("session_ended"),
            detail: Some(Text::fixed(why)),
            counts: self.lock().counts(),
            ..Lifecycle::default()
        };
        let record = self.lifecycle(stages, lifecycle);
        if let Err(error) = stages.log.event(record).await {
            tracing::error!(%error, "a session's end could not be recorded");
        }
    }

    fn about(&self, stages: &Stages, kind: Kind) -> Record {
        let mut record = stages.log.record(kind, clock::now());
        record.workload = Some(self.process.clone());
        record.identity = Some(self.identity.clone());
        record.session = Some(self.section());
        record
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the `count`-th of its kind has a record.
fn is_worth(count: u64) -> bool {
    count <= ONE_BY_ONE || count.is_power_of_two()
}

impl Told {
    fn passes(&mut self, method: &str, observed: bool) -> Option<u64> {
        if observed {
            self.observed = self.observed.saturating_add(1);
        }
        let count = self.count(method, |count| count.saturating_add(1));
        let due = count.is_power_of_two() || (observed && is_worth(self.observed));
        due.then_some(count)
    }

    /// Takes it back, so that the next one is recorded in its place.
    fn passes_not(&mut self, method: &str, observed: bool) {
        if observed {
            self.observed = self.observed.saturating_sub(1);
        }
        self.count(method, |count| count.saturating_sub(1));
    }

    fn count(&mut self, method: &str, change: impl Fn(u64) -> u64) -> u64 {
        if let Some(count) = self.passed.get_mut(method) {
            *count = change(*count);
            return *count;
        }
        let apart = self.passed.len() < METHODS && method.len() <= METHOD;
        let name = if apart { method } else { OTHERS };
        let count = self.passed.entry(name.to_owned()).or_default();
        *count = change(*count);
        *count
    }
}

impl State {
    fn told(&mut self, from: Side) -> &mut Told {
        match from {
            Side::Client => &mut self.host,
            Side::Server => &mut self.server,
        }
    }

    fn counts(&self) -> Vec<Counted> {
        let own = [
            ("requests", self.requests),
            ("refused", self.refused),
            ("unanswered", self.failed),
            ("violations", self.violations),
        ];
        let own = own.into_iter().map(|(what, count)| Counted {
            what: Text::fixed(what),
            from: None,
            count,
        });
        let sides = [(Side::Client, &self.host), (Side::Server, &self.server)];
        let told = sides.into_iter().flat_map(|(from, told)| {
            told.passed.iter().map(move |(method, count)| Counted {
                what: Text::new(method),
                from: Some(from),
                count: *count,
            })
        });
        own.chain(told).filter(|one| one.count > 0).collect()
    }
}

/// What the server fetched, now that it may fetch no more: in as many records as it takes, of which this is the one at
/// `place`, and in one if it was nothing.
pub(super) fn described_fetched(
    fetched: &Fetched,
    why: &'static str,
    place: usize,
) -> Option<Lifecycle> {
    let mut pieces = fetched.artefacts.chunks(ARTEFACTS_AT_ONCE).skip(place);
    let piece = match pieces.next() {
        None if place == 0 => &[],
        piece => piece?,
    };
    let detail = match (pieces.next(), &fetched.rest) {
        (Some(_), _) => "more in the next record".to_owned(),
        (None, None) => why.to_owned(),
        (None, Some(rest)) => format!(
            "{why}; {} more are not listed; all of them together have sha256 {}",
            rest.count, rest.sha256
        ),
    };
    Some(Lifecycle {
        event: Text::fixed("session_fetched"),
        detail: Some(Text::new(&detail)),
        fetched: piece.iter().map(recorded).collect(),
        ..Lifecycle::default()
    })
}

fn recorded(artefact: &Artefact) -> Recorded {
    let package = artefact.package.as_ref();
    Recorded {
        host: Text::new(&artefact.host),
        path: Text::path(&artefact.path),
        package: package.map(|package| Text::new(&package.to_string())),
        version: package
            .and_then(|package| package.version.as_deref())
            .map(Text::new),
        bytes: artefact.bytes,
        sha256: artefact.sha256.as_deref().map(Text::new),
    }
}

fn described(told: ToldHost) -> HostProcess {
    HostProcess {
        pid: told.pid,
        started: told.started,
        exe: Text::new(&told.exe),
        sha256: told.sha256.as_deref().map(Text::new),
        ancestors: told
            .ancestors
            .iter()
            .map(|(pid, exe)| Text::new(&format!("{pid} {exe}")))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_notifications_have_records_whenever_their_number_has_doubled() {
        let mut told = Told::default();
        let recorded: Vec<u64> = (0..20).filter_map(|_| told.passes("a", false)).collect();
        assert_eq!(recorded, [1, 2, 4, 8, 16]);
        assert_eq!(told.passes("b", false), Some(1), "each method's own");
        // What could not be recorded has not passed: the next has its record.
        told.passes_not("b", false);
        assert_eq!(told.passes("b", false), Some(1));
        assert_eq!((told.passed["a"], told.passed["b"]), (20, 1));
    }

    #[test]
    fn what_would_have_been_refused_has_records_as_what_is() {
        let mut told = Told::default();
        let recorded: Vec<u64> = (0..40).filter_map(|_| told.passes("a", true)).collect();
        assert_eq!(recorded, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32]);
        // However many passed before.
        let mut told = Told::default();
        for _ in 0..100 {
            told.passes("a", false);
        }
        assert_eq!(told.passes("a", true), Some(101));
        told.passes_not("a", true);
        assert_eq!(told.observed, 0);
    }

    #[test]
    fn methods_without_end_are_counted_together() {
        let mut told = Told::default();
        let long = "x".repeat(METHOD + 1);
        assert_eq!(told.passes(&long, false), Some(1));
        let recorded =
            (0..10_000).filter(|number| told.passes(&number.to_string(), false).is_some());
        assert!(recorded.count() < METHODS + 16);
        assert_eq!(told.passed.len(), METHODS);
        assert_eq!(told.passed[OTHERS], 10_002 - METHODS as u64);
        assert!(!told.passed.contains_key(&long));
    }
}
