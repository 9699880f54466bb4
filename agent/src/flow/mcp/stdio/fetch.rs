//! When a server may fetch its own code: from before its first instruction until it writes its first message, or has
//! taken too long, or its session is over. Then it has what its egress allows, and nothing else stays open.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};

use super::Session;
use super::ledger::described_fetched;
use crate::audit::Log;
use crate::audit::record::{Lifecycle, Record};
use crate::flow::Stages;
use crate::identify::fetching::Fetched;
use crate::identify::workloads::Known;

/// Time for what was fetched to be recorded before a server is told to end.
const RECORDED: Duration = Duration::from_secs(1);

/// What a session tells the supervisor.
#[derive(Debug)]
pub enum Word {
    /// What the server of this workload fetched.
    Fetched(u32, Arc<Fetched>),
    /// Nothing more is served of the session of this workload.
    Over(u32),
}

/// What is still to be said of the phase, once it has ended. It stays here until it is said: who says it may be
/// dropped in the middle, and the next comes to the rest.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Option<Unsaid>>);

#[derive(Debug)]
struct Unsaid {
    fetched: Arc<Fetched>,
    why: &'static str,
    told: bool,
    /// How many of its records there are.
    recorded: usize,
    /// A record that could not be written was complained of.
    faulted: bool,
}

/// To be called before the server runs: it may fetch, if its entry names where from.
pub(super) fn begin(stages: &Stages, own: &Known) {
    let state = stages.decider.in_force();
    let server = own.server().and_then(|name| state.set.server(name));
    let launch = server.and_then(exeat_policy::Server::launch);
    if launch.is_some_and(|launch| !launch.fetch.is_empty()) {
        own.fetching.begin();
    }
}

impl Session {
    /// The server has said something that is a message.
    pub(super) async fn spoke(&self) {
        self.stop_fetching("the server's first message").await;
    }

    /// Ends when the server has had its time to fetch, and has it fetch no more.
    pub(super) async fn fetched_long_enough(&self) {
        if !self.own.fetching.is_open() {
            return pending().await;
        }
        sleep(self.talking.stages.bounds.fetch).await;
        self.stop_fetching("its time was up").await;
    }

    /// Nothing more is served of the session.
    pub(super) async fn tell_over(&self) {
        // A log that takes nothing keeps no server from its end; what is owed to it is said at the session's own.
        let _late = timeout(RECORDED, self.over_fetching()).await;
        // With a full queue the supervisor is told by the server's closed streams alone.
        if let Err(error) = self.words.try_send(Word::Over(self.talking.talk.workload)) {
            tracing::warn!(%error, "the supervisor is not told of a session");
        }
    }

    /// The session's end, for whatever was not said of the phase before.
    pub(super) async fn over_fetching(&self) {
        self.stop_fetching("the session's end").await;
    }

    /// Ends the phase, unless it has ended, and returns when what was fetched is told and recorded.
    async fn stop_fetching(&self, why: &'static str) {
        let stages = &self.talking.stages;
        let end = || self.shut(why);
        let record = |lifecycle| self.ledger.lifecycle(stages, lifecycle);
        let number = self.talking.talk.workload;
        self.owed
            .say(end, why, &stages.log, record, number, &self.words)
            .await;
    }

    /// Ends the phase, unless it has ended: for every decision after this, then in the kernel, then for what is open.
    fn shut(&self, why: &'static str) -> Option<Fetched> {
        let fetched = self.own.fetching.end()?;
        let stages = &self.talking.stages;
        let number = self.talking.talk.workload;
        if let Err(error) = stages.agree_names(&self.own) {
            tracing::error!(%error, number, "shutting what a server fetched from");
        }
        let cut = stages.cut_disallowed(|workload| workload == number);
        tracing::info!(number, cut, why, "a server fetches no more");
        Some(fetched)
    }
}

impl Owed {
    /// Says what `end` ends with, and what was left unsaid before. Whatever cannot be recorded now stays owed.
    async fn say(
        &self,
        end: impl FnOnce() -> Option<Fetched>,
        why: &'static str,
        log: &Log,
        record: impl Fn(Lifecycle) -> Record,
        number: u32,
        words: &mpsc::Sender<Word>,
    ) {
        let mut owed = self.0.lock().await;
        // Nothing is awaited between the phase's end and this.
        if let Some(fetched) = end() {
            *owed = Some(Unsaid::new(fetched, why));
        }
        let Some(unsaid) = owed.as_mut() else { return };
        unsaid.tell(number, words).await;
        if unsaid.record(log, record).await {
            *owed = None;
        }
    }
}

impl Unsaid {
    fn new(fetched: Fetched, why: &'static str) -> Self {
        Self {
            told: fetched.artefacts.is_empty(),
            fetched: Arc::new(fetched),
            why,
            recorded: 0,
            faulted: false,
        }
    }

    /// Tells the supervisor. It does not wait for the log: a server that has gone meanwhile is forgotten there.
    async fn tell(&mut self, number: u32, words: &mpsc::Sender<Word>) {
        if !self.told {
            let word = Word::Fetched(number, Arc::clone(&self.fetched));
            if words.send(word).await.is_err() {
                tracing::warn!(number, "nobody is left to be told what a server fetched");
            }
            self.told = true;
        }
    }

    /// Writes the records that there are not yet; whether that is all of them.
    async fn record(&mut self, log: &Log, record: impl Fn(Lifecycle) -> Record) -> bool {
        while let Some(lifecycle) = described_fetched(&self.fetched, self.why, self.recorded) {
            if let Err(error) = log.event(record(lifecycle)).await {
                if !self.faulted {
                    tracing::error!(%error, "what a server fetched cannot be recorded now");
                }
                self.faulted = true;
                return false;
            }
            self.recorded = self.recorded.saturating_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::{Owed, Word};
    use crate::audit::record::{Kind, Lifecycle};
    use crate::audit::{Log, Options, Segments, Start, SyncPolicy, Writer};
    use crate::channel::{ARTEFACTS_AT_ONCE, Artefact};
    use crate::identify::fetching::Fetched;
    use crate::telemetry::clock;

    /// Enough for two records.
    fn fetched() -> Fetched {
        let artefact = |number| Artefact::new("packages.example.com", &format!("/{number}"), None);
        let artefacts = (0..=ARTEFACTS_AT_ONCE).map(artefact).collect();
        Fetched {
            artefacts,
            rest: None,
        }
    }

    fn start(directory: &tempfile::TempDir) -> (Log, Writer) {
        let options = Options {
            places: 2,
            // What is recorded keeps its place so long.
            sync: SyncPolicy::Within(Duration::from_millis(300)),
            ..Options::default()
        };
        Log::start(File::open(directory.path()).unwrap().into(), options).unwrap()
    }

    async fn say(
        owed: &Owed,
        end: impl FnOnce() -> Option<Fetched>,
        log: &Log,
        words: &mpsc::Sender<Word>,
    ) {
        let record = |lifecycle: Lifecycle| {
            let mut record = log.record(Kind::Lifecycle, clock::now());
            record.lifecycle = Some(lifecycle);
            record
        };
        owed.say(end, "it spoke", log, record, 7, words).await;
    }

    /// How far it comes by itself.
    fn poll(future: impl Future<Output = ()>) -> Poll<()> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_dropped_in_the_middle_is_said_by_the_next_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let (log, writer) = start(&directory);
        let (words, mut heard) = mpsc::channel(1);
        let owed = Owed::default();
        // The supervisor does not listen: dropped where it is told.
        words.try_send(Word::Over(1)).unwrap();
        assert!(poll(say(&owed, || Some(fetched()), &log, &words)).is_pending());
        assert!(matches!(heard.try_recv(), Ok(Word::Over(1))));
        // The log has no place: dropped before the first record. Then it has one: dropped before the second.
        let open = async || log.open(Kind::Mcp, Start::default()).await.unwrap();
        let (first, second) = (open().await, open().await);
        assert!(poll(say(&owed, || None, &log, &words)).is_pending());
        drop(first);
        log.flush().await.unwrap();
        while log.queued() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(poll(say(&owed, || None, &log, &words)).is_pending());
        drop(second);
        say(&owed, || None, &log, &words).await;
        say(&owed, || None, &log, &words).await;
        let Ok(Word::Fetched(7, told)) = heard.try_recv() else {
            panic!("the supervisor is told");
        };
        assert_eq!(*told, fetched());
        heard.try_recv().unwrap_err();
        writer.finish(Duration::from_secs(10)).await;
        let segments = Segments::open(directory.path()).unwrap();
        let pieces: Vec<usize> = segments
            .records()
            .map(|entry| entry.unwrap().record)
            .filter_map(|record| record.lifecycle)
            .filter(|lifecycle| lifecycle.event.as_str() == "session_fetched")
            .map(|lifecycle| lifecycle.fetched.len())
            .collect();
        assert_eq!(pieces, [ARTEFACTS_AT_ONCE, 1]);
    }
}
