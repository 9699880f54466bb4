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
    /// What the host said, and what the server said, that was refused although nobody waits for an answer.
    host_told: u64,
    server_told: u64,
    failed: u64,
    violations: u64,
    notifications: BTreeMap<String, u64>,
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
                host_told: 0,
                server_told: 0,
                failed: 0,
                violations: 0,
                notifications: BTreeMap::new(),
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
        let count = match from {
            Side::Client => &mut state.host_told,
            Side::Server => &mut state.server_told,
        };
        *count = count.saturating_add(1);
        is_worth(*count)
    }

    /// The host sent what is no message, or answers nothing. Whether it has a record of its own.
    pub(super) fn refused_unread(&self) -> bool {
        let mut state = self.lock();
        state.refused = state.refused.saturating_add(1);
        state.unread = state.unread.saturating_add(1);
        is_worth(state.unread)
    }

    /// A notification was let through: it has no record of its own.
    pub(super) fn notification(&self, method: &str) {
        let mut state = self.lock();
        let notifications = &mut state.notifications;
        if let Some(count) = notifications.get_mut(method) {
            *count = count.saturating_add(1);
            return;
        }
        let apart = notifications.len() < METHODS && method.len() <= METHOD;
        let name = if apart { method } else { "other notifications" };
        let count = notifications.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
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

impl State {
    fn counts(&self) -> Vec<Counted> {
        let own = [
            ("requests", self.requests),
            ("refused", self.refused),
            ("unanswered", self.failed),
            ("violations", self.violations),
        ];
        let own = own
            .into_iter()
            .map(|(what, count)| (Text::fixed(what), count));
        let of = |(method, count): (&String, &u64)| (Text::new(method), *count);
        own.chain(self.notifications.iter().map(of))
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| Counted { what, count })
            .collect()
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
