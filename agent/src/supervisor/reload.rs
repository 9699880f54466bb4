//! Changing the policy: all or nothing.

use tokio::task::spawn_blocking;

use super::core::Supervisor;
use super::policy_files::{self, PolicyError};
use crate::channel::{ChannelError, Source, ToGate};
use crate::control::reply::PolicyState;
use crate::control::{Code, Reply, Responder};
use crate::telemetry::clock;

impl Supervisor {
    /// Reads the policy anew. A good one goes to the gate, and the sources of its credentials are read; a bad one
    /// leaves the last good one in force. `client` is told how it went.
    pub(super) async fn reload(&mut self, client: Option<Responder>) {
        self.reread_authorities().await;
        let files = match policy_files::read_all(&self.parts.config.policy) {
            Ok(files) => files,
            Err(error) => return self.refuse_policy(&error, client).await,
        };
        if files.sources == self.parts.policy.sources {
            self.rejected = None;
            self.parts.policy.foreign = files.foreign;
            self.read_credentials();
            if let Some(client) = client {
                self.answer_reloaded(client).await;
            }
            return;
        }
        let generation = self.generation.saturating_add(1);
        // The gate compiles it meanwhile, and drops it where it is refused here.
        let sources = for_gate(&files.sources);
        let prepare = ToGate::Prepare {
            generation,
            sources,
        };
        if let Some(gate) = &self.gate {
            match gate.send(&prepare, &[]).await {
                Ok(()) => {}
                // Nobody has read it yet, and it may be anything: text of which much is escaped grows on its way.
                Err(ChannelError::TooLarge(_)) => {
                    let error = PolicyError::TooLarge(self.parts.config.policy.clone());
                    return self.refuse_policy(&error, client).await;
                }
                Err(error) => self.gate_lost(&error).await,
            }
        }
        let compiled = spawn_blocking(|| files.compile()).await;
        let broken = |_panic| Err(PolicyError::Broken(self.parts.config.policy.clone()));
        let policy = match compiled.unwrap_or_else(broken) {
            Ok(policy) => policy,
            Err(error) => return self.refuse_policy(&error, client).await,
        };
        self.rejected = None;
        self.parts.policy = policy;
        self.generation = generation;
        self.loaded = clock::wall();
        self.tell(ToGate::Policy { generation }).await;
        self.read_credentials();
        match client {
            Some(client) if self.gate.is_some() => self.reloads.push((generation, client)),
            // The gate that is started next gets it.
            Some(client) => self.answer_reloaded(client).await,
            None => {}
        }
        self.rewatch().await;
    }

    /// Says what is wrong with a policy; the last good one stays in force.
    async fn refuse_policy(&mut self, error: &PolicyError, client: Option<Responder>) {
        let sentences = error.sentences();
        for sentence in &sentences {
            tracing::error!("policy: {sentence}");
        }
        self.rejected = Some(sentences.join("\n"));
        if let Some(client) = client {
            answer_fault(client, &sentences.join("\n")).await;
        }
        self.finding("policy_refused", None, sentences).await;
    }

    /// The gate's answer to a policy.
    pub(super) async fn reloaded(&mut self, generation: u64, faults: Vec<String>) {
        for fault in faults.iter().take(64) {
            tracing::error!(generation, "the gate did not take the policy: {fault}");
        }
        let (answered, waiting) = self
            .reloads
            .drain(..)
            .partition::<Vec<_>, _>(|(wanted, _)| *wanted <= generation || !faults.is_empty());
        self.reloads = waiting;
        for (_, client) in answered {
            if faults.is_empty() {
                self.answer_reloaded(client).await;
            } else {
                answer_fault(client, &faults.join("\n")).await;
            }
        }
    }

    async fn answer_reloaded(&self, mut client: Responder) {
        let reply = Reply::Reloaded(self.policy_state());
        let answered = match client.reply(reply).await {
            Ok(()) => client.done().await,
            failed => failed,
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a client did not wait for its answer");
        }
    }

    fn policy_state(&self) -> PolicyState {
        let set = &self.parts.policy.set;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PolicyState {
            generation: self.generation,
            fingerprint: set.fingerprint().to_owned(),
            loaded: self.loaded,
            servers: count(set.servers().count()),
            rules: count(set.written_rules().count()),
            rejected: self.rejected.clone(),
        }
    }
}

/// A policy's files, for the gate.
pub(super) fn for_gate(sources: &[exeat_policy::Source]) -> Vec<Source> {
    let source = |s: &exeat_policy::Source| Source {
        name: s.name.clone(),
        text: s.text.clone(),
    };
    sources.iter().map(source).collect()
}

async fn answer_fault(client: Responder, text: &str) {
    if let Err(error) = client.fail(Code::Invalid, text).await {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}
