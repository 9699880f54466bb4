//! The sources of credentials: read here alone, by tasks that may hang, and told to the gate.

use std::collections::HashMap;
use std::sync::Arc;

use exeat_policy::Credential;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::core::{Happening, Supervisor};
use crate::channel::{Secret, ToGate};
use crate::launch::stage::chain;
use crate::secrets::{self, SecretFault};

/// Sources that are read at once.
const READERS: usize = 8;

/// The sources of the policy's credentials.
#[derive(Debug)]
pub(super) struct Sources {
    each: HashMap<Arc<str>, Source>,
    readers: Arc<Semaphore>,
    rounds: u64,
}

/// How one source stands.
#[derive(Debug, Default)]
struct Source {
    /// The newest reading; what older ones bring means nothing.
    round: u64,
    /// When it is to be read anew.
    due: Option<Instant>,
    /// Why it told no secret last.
    fault: Option<String>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            each: HashMap::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            rounds: 0,
        }
    }
}

/// What came of a reading.
#[derive(Debug)]
pub(super) struct Asked {
    credential: Arc<Credential>,
    round: u64,
    secret: Result<Secret, String>,
}

impl Supervisor {
    /// Reads every source anew. Nothing of them is kept here: another gate has them read for itself.
    pub(super) fn read_credentials(&mut self) {
        let policy = Arc::clone(&self.parts.policy.set);
        let each = &mut self.credentials.each;
        each.retain(|name, _| policy.credential(name).is_some());
        for credential in policy.credentials() {
            self.read_credential(credential);
        }
    }

    /// Reads the sources that are due.
    pub(super) fn refresh_credentials(&mut self, now: Instant) {
        let policy = Arc::clone(&self.parts.policy.set);
        for credential in policy.credentials() {
            let source = self.credentials.each.get(&credential.name);
            let due = source.and_then(|source| source.due);
            if due.is_some_and(|due| due <= now) {
                self.read_credential(credential);
            }
        }
    }

    fn read_credential(&mut self, credential: &Arc<Credential>) {
        let sources = &mut self.credentials;
        sources.rounds = sources.rounds.wrapping_add(1);
        let round = sources.rounds;
        let source = sources.each.entry(Arc::clone(&credential.name));
        let source = source.or_default();
        source.round = round;
        source.due = None;
        let credential = Arc::clone(credential);
        let (readers, happenings) = (Arc::clone(&sources.readers), self.happenings.clone());
        let stop = self.stop.clone();
        let foreign = self.parts.policy.foreign.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let place = readers.acquire_owned().await;
            let secret = match foreign {
                None => secrets::read(&credential).await,
                Some(path) => Err(SecretFault::Foreign { path }),
            };
            drop(place);
            let secret = secret.map_err(|fault| chain(&fault));
            let asked = Asked {
                credential,
                round,
                secret,
            };
            // Where nobody hears it any more, the daemon ends.
            let _heard = happenings
                .send(Happening::Credential(Box::new(asked)))
                .await;
        }));
    }

    /// Tells the gate what came of a reading, unless another began since.
    pub(super) async fn credential_read(&mut self, asked: Asked) {
        let Asked {
            credential,
            round,
            secret,
        } = asked;
        let Some(source) = self.credentials.each.get_mut(&credential.name) else {
            return;
        };
        if source.round != round {
            return;
        }
        source.due = credential
            .refresh_ms
            .map(|every| Instant::now() + std::time::Duration::from_millis(every));
        let fault = secret.as_ref().err().cloned();
        let before = std::mem::replace(&mut source.fault, fault.clone());
        let name = credential.name.to_string();
        let said = format!("credential `{name}`");
        self.tell(ToGate::Credential { name, secret }).await;
        match (before, fault) {
            (before, Some(fault)) if before.as_ref() != Some(&fault) => {
                let details = vec![format!("{said}: {fault}")];
                self.finding("credential_unavailable", None, details).await;
            }
            (Some(_), None) => self.record("credential_available", None, vec![said]).await,
            _ => {}
        }
    }
}
