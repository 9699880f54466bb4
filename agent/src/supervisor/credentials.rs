//! The sources of credentials: read here alone, by tasks that may hang, and told to the gate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::{Credential, SecretOrigin};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::core::{Happening, Supervisor};
use crate::channel::{Secret, ToGate};
use crate::launch::stage::chain;
use crate::secrets::{self, LIMIT, Reader, SecretFault};

/// Sources that are read at once.
const AT_ONCE: usize = 8;
/// Readers, those included that a disk does not let come back. Far fewer than the threads that all share.
const READERS: usize = 64;

/// The sources of the policy's credentials.
#[derive(Debug)]
pub(super) struct Sources {
    each: HashMap<Arc<str>, Source>,
    readers: Readers,
    rounds: u64,
}

/// Who reads them.
#[derive(Debug)]
struct Readers {
    /// Time for a reading to come back before the next one is refused.
    limit: Duration,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// One for each source, by what is read: a policy may give it other names.
    own: HashMap<SecretOrigin, Arc<Semaphore>>,
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
            readers: Readers {
                limit: LIMIT,
                turns: Arc::new(Semaphore::new(AT_ONCE)),
                places: Arc::new(Semaphore::new(READERS)),
                own: HashMap::new(),
            },
            rounds: 0,
        }
    }
}

impl Readers {
    /// Reads a source in its turn, once the reading before is back.
    fn read(
        &mut self,
        credential: Arc<Credential>,
    ) -> impl Future<Output = Result<Secret, SecretFault>> + Send + 'static {
        // Those that nobody has or waits for.
        self.own.retain(|_, own| Arc::strong_count(own) > 1);
        let origin = credential.origin.clone();
        let own = self.own.entry(origin.clone());
        let own = Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(1))));
        let limit = self.limit;
        let (turns, places) = (Arc::clone(&self.turns), Arc::clone(&self.places));
        async move {
            let Ok(Ok(own)) = timeout(limit, own.acquire_owned()).await else {
                return Err(SecretFault::Away { origin });
            };
            let _turn = turns.acquire_owned().await;
            let Ok(place) = places.try_acquire_owned() else {
                return Err(SecretFault::Busy { origin });
            };
            let reader = Reader::new(vec![own, place]);
            secrets::read(&reader, &credential).await
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
        let happenings = self.happenings.clone();
        let stop = self.stop.clone();
        let foreign = self.parts.policy.foreign.clone();
        let read = sources.readers.read(Arc::clone(&credential));
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let secret = match foreign {
                None => read.await,
                Some(path) => Err(SecretFault::Foreign { path }),
            };
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
            .map(|every| Instant::now() + Duration::from_millis(every));
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

#[cfg(test)]
mod tests {
    use exeat_policy::{Source as Text, compile};

    use super::*;

    fn credential(origin: &str) -> Arc<Credential> {
        let text = format!("version: 1\ncredentials: {{ x: {{ {origin} }} }}\n");
        let name = "/nonexistent/policy.yaml".to_owned();
        let set = compile(&[Text { name, text }]).unwrap();
        Arc::clone(set.credential("x").unwrap())
    }

    #[tokio::test]
    async fn who_is_not_back_keeps_the_next_from_that_source_alone() {
        let mut readers = Sources::default().readers;
        readers.limit = Duration::from_millis(20);
        let hung = credential("file: /nonexistent/hung");
        let other = credential("file: /nonexistent/other");
        // As a thread has it that does not come back.
        let own = Arc::new(Semaphore::new(1));
        let away = Arc::clone(&own).try_acquire_owned().unwrap();
        readers.own.insert(hung.origin.clone(), own);
        for _again in 0..3 {
            let fault = readers.read(Arc::clone(&hung)).await.unwrap_err();
            assert!(matches!(fault, SecretFault::Away { .. }), "{fault}");
            let fault = readers.read(Arc::clone(&other)).await.unwrap_err();
            assert!(matches!(fault, SecretFault::Read { .. }), "{fault}");
        }
        // One that comes back in time is waited for.
        readers.limit = LIMIT;
        let read = readers.read(Arc::clone(&hung));
        let back = async move {
            tokio::task::yield_now().await;
            drop(away);
        };
        let (read, ()) = tokio::join!(read, back);
        let fault = read.unwrap_err();
        assert!(matches!(fault, SecretFault::Read { .. }), "{fault}");
        assert_eq!(readers.places.available_permits(), READERS);
        let all = Arc::clone(&readers.places);
        let _all = all
            .acquire_many_owned(u32::try_from(READERS).unwrap())
            .await
            .unwrap();
        let fault = readers.read(other).await.unwrap_err();
        assert!(matches!(fault, SecretFault::Busy { .. }), "{fault}");
    }
}
