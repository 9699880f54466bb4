//! When a server may fetch its own code: from before its first instruction until it writes its first message, or has
//! taken too long, or its session is over. Then it has what its egress allows, and nothing else stays open.

use std::future::pending;

use tokio::time::sleep;

use super::Session;
use crate::channel::Artefact;
use crate::flow::Stages;
use crate::identify::workloads::Known;

/// What a session tells the supervisor.
#[derive(Debug)]
pub enum Word {
    /// What the server of this workload fetched.
    Fetched(u32, Vec<Artefact>),
    /// Nothing more is served of the session of this workload.
    Over(u32),
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
        self.stop_fetching("the session's end").await;
        // With a full queue the supervisor is told by the server's closed streams alone.
        self.tell(Word::Over(self.talking.talk.workload));
    }

    /// Ends the phase, unless it has ended: for every decision after this, then in the kernel, then for what is open.
    async fn stop_fetching(&self, why: &'static str) {
        let Some(fetched) = self.own.fetching.end() else {
            return;
        };
        let stages = &self.talking.stages;
        let number = self.talking.talk.workload;
        if let Err(error) = stages.agree_names(&self.own) {
            tracing::error!(%error, number, "shutting what a server fetched from");
        }
        let cut = stages.cut_disallowed(|workload| workload == number);
        tracing::info!(number, cut, why, "a server fetches no more");
        self.ledger.fetched(stages, why, &fetched).await;
        if !fetched.artefacts.is_empty() {
            self.tell(Word::Fetched(number, fetched.artefacts));
        }
    }

    fn tell(&self, word: Word) {
        if let Err(error) = self.words.try_send(word) {
            tracing::warn!(%error, "the supervisor is not told of a session");
        }
    }
}
