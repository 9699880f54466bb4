//! What was seen of MCP servers on their way through: endpoints of the old transport, hints of tools, requests
//! that wait for the other side. All of it bounded; what is forgotten is treated as never seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use exeat_policy::Hints;

use crate::audit::RecordId;
use crate::bounded::Bounded;
use crate::decode::mcp::Mirrors;
use crate::decode::rpc::Id;
use crate::identify::peer::Peer;

/// Endpoints kept.
const ENDPOINTS: usize = 4096;
/// Tools whose hints are kept.
const TOOLS: usize = 16_384;
/// Tools of which it is kept which arguments headers repeat.
const MIRRORED: usize = 1024;
/// Longest name of a tool whose hints are kept, in bytes; beyond it the tool counts as one without hints.
const NAME: usize = 256;
/// Longest path of an endpoint that is kept, in bytes.
const PATH: usize = 2048;
/// Sessions that are remembered, some 400 bytes each. One that is not counts as its workload's.
const SESSIONS: usize = 131_072;
/// Requests of either direction that wait for an answer.
const WAITING: usize = 65_536;

/// Where a session's messages go: a workload's conversation with one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    /// Whose.
    pub workload: u32,
    /// With which registered server.
    pub server: Arc<str>,
    /// A digest of the session's id; `None` where there is no session.
    pub session: Option<String>,
}

/// Who sent a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum From {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its method.
    pub method: String,
    /// The record of its exchange.
    pub record: RecordId,
    /// Whether no other request with its id waited: an answer is surely to this one.
    pub alone: bool,
}

/// Where an old HTTP+SSE server wants messages posted.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Endpoint {
    /// The path of the registered URL, which stands for it before the policy.
    pub judged_as: String,
}

type Place = (u32, Peer, u16, String);

#[derive(Debug)]
struct State {
    endpoints: Bounded<Place, Endpoint>,
    hints: Bounded<(Arc<str>, String), Hints>,
    /// Of tools of which something is repeated.
    mirrors: Bounded<(Arc<str>, String), Arc<Mirrors>>,
    waiting: Bounded<(Talk, From, String), Waiting>,
    sessions: Bounded<Talk, ()>,
}

/// The table of what was seen.
#[derive(Debug)]
pub struct Observed {
    state: Mutex<State>,
    /// Streams on which servers say what answers no request of the same exchange.
    listening: Arc<AtomicUsize>,
}

/// An open stream of that kind; it ends with this.
#[derive(Debug)]
pub(super) struct Listening(Arc<AtomicUsize>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                endpoints: Bounded::new(ENDPOINTS),
                hints: Bounded::new(TOOLS),
                mirrors: Bounded::new(MIRRORED),
                waiting: Bounded::new(WAITING),
                sessions: Bounded::new(SESSIONS),
            }),
            listening: Arc::default(),
        }
    }
}

impl Observed {
    /// The registered path that stands for `path`, if a server announced it to this workload.
    pub(in crate::flow) fn endpoint(
        &self,
        workload: u32,
        peer: &Peer,
        port: u16,
        path: &str,
    ) -> Option<Endpoint> {
        let mut state = self.lock();
        // No server of the old transport: nothing is copied to ask for what cannot be there.
        if state.endpoints.is_empty() {
            return None;
        }
        let key = (workload, peer.clone(), port, path.to_owned());
        state.endpoints.get(&key).cloned()
    }

    /// A server announced `path` on a stream that was judged as `judged_as`.
    pub(super) fn announce(
        &self,
        workload: u32,
        peer: &Peer,
        port: u16,
        path: &str,
        judged_as: &str,
    ) {
        if path.len() > PATH {
            return;
        }
        let key = (workload, peer.clone(), port, path.to_owned());
        self.lock().endpoints.insert(
            key,
            Endpoint {
                judged_as: judged_as.to_owned(),
            },
        );
    }

    /// What `server` lists of `tool`, if it was seen.
    pub fn hints(&self, server: &Arc<str>, tool: &str) -> Option<Hints> {
        let mut state = self.lock();
        if state.hints.is_empty() {
            return None;
        }
        state
            .hints
            .get(&(Arc::clone(server), tool.to_owned()))
            .copied()
    }

    /// The tools that `server` was seen to list, by name; at most `most`.
    pub fn listed(&self, server: &str, most: usize) -> BTreeMap<String, Hints> {
        let state = self.lock();
        let of = state.hints.iter().filter(|((of, _), _)| **of == *server);
        of.map(|((_, tool), hints)| (tool.clone(), *hints))
            .take(most)
            .collect()
    }

    /// `server` lists `tool` with `hints`.
    pub(super) fn list(&self, server: &Arc<str>, tool: &str, hints: Hints) {
        if tool.len() > NAME {
            return;
        }
        self.lock()
            .hints
            .insert((Arc::clone(server), tool.to_owned()), hints);
    }

    /// Headers repeat arguments of `tool` as `server` lists it.
    pub(super) fn mirror(&self, server: &Arc<str>, tool: &str, mirrors: Mirrors) {
        if tool.len() > NAME {
            return;
        }
        let key = (Arc::clone(server), tool.to_owned());
        let mut state = self.lock();
        if mirrors.is_empty() {
            // Only if it was otherwise before: most tools repeat nothing.
            if !state.mirrors.is_empty() {
                drop(state.mirrors.remove(&key));
            }
        } else {
            state.mirrors.insert(key, Arc::new(mirrors));
        }
    }

    /// Which arguments of `tool` headers repeat, as far as it was seen.
    pub(super) fn mirrors(&self, server: &Arc<str>, tool: &str) -> Option<Arc<Mirrors>> {
        let mut state = self.lock();
        if state.mirrors.is_empty() {
            return None;
        }
        let key = (Arc::clone(server), tool.to_owned());
        state.mirrors.get(&key).cloned()
    }

    /// A client opens a stream of its own to hear from a server.
    pub(super) fn listen(&self) -> Listening {
        self.listening.fetch_add(1, Ordering::AcqRel);
        Listening(Arc::clone(&self.listening))
    }

    /// Whether a request may be answered on another stream than its own. A client that begins to listen only
    /// after it asked gets answers judged without knowing the question: whatever could be a list is one.
    pub(super) fn anybody_listens(&self) -> bool {
        self.listening.load(Ordering::Acquire) > 0
    }

    /// The server opened the session of `talk`.
    pub(super) fn open_session(&self, talk: Talk) {
        self.lock().sessions.insert(talk, ());
    }

    /// Whether the session of `talk` is one that its server opened for its workload, as far as is remembered.
    pub(super) fn is_open(&self, talk: &Talk) -> bool {
        self.lock().sessions.get(talk).is_some()
    }

    /// A request was sent on and waits for its answer.
    pub(super) fn wait(&self, talk: &Talk, from: From, id: &Id, method: &str, record: RecordId) {
        let key = (talk.clone(), from, slot(id));
        let mut state = self.lock();
        let before = state.waiting.get(&key);
        let alone = before.is_none_or(|before| before.record == record && before.alone);
        let waiting = Waiting {
            method: method.to_owned(),
            record,
            alone,
        };
        state.waiting.insert(key, waiting);
    }

    /// The request that an answer with `id` answers; it waits no longer.
    pub(super) fn answered(&self, talk: &Talk, from: From, id: &Id) -> Option<Waiting> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return None;
        }
        state.waiting.remove(&(talk.clone(), from, slot(id)))
    }

    /// A workload is gone, and its conversations with it.
    pub fn forget(&self, workload: u32) {
        let mut state = self.lock();
        state.endpoints.retain(|(owner, ..), _| *owner != workload);
        state
            .waiting
            .retain(|(talk, ..), _| talk.workload != workload);
        state.sessions.retain(|talk, ()| talk.workload != workload);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One text for what clients take for one id: the number 1 and the string "1".
pub(super) fn slot(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exeat_policy::Hints;

    use super::{Observed, Talk};

    #[test]
    fn a_session_is_one_that_the_server_opened_for_the_workload() {
        let observed = Observed::default();
        let talk = |workload, session: &str| Talk {
            workload,
            server: Arc::from("crm"),
            session: Some(session.to_owned()),
        };
        assert!(!observed.is_open(&talk(1, "made up")));
        observed.open_session(talk(1, "given"));
        assert!(observed.is_open(&talk(1, "given")));
        assert!(!observed.is_open(&talk(2, "given")), "it is not another's");
        observed.forget(1);
        assert!(!observed.is_open(&talk(1, "given")));
        // As many as are to live at once, each with counts of its own.
        let digest = |number: usize| talk(1, &format!("{number:064x}"));
        for number in 0..100_000 {
            observed.open_session(digest(number));
        }
        assert!((0..100_000).all(|number| observed.is_open(&digest(number))));
    }

    #[test]
    fn what_a_server_names_is_kept_within_bounds() {
        let observed = Observed::default();
        let server: Arc<str> = Arc::from("crm");
        let reads = Hints {
            read_only: Some(true),
            ..Hints::default()
        };
        observed.list(&server, &"x".repeat(257), reads);
        assert!(observed.hints(&server, &"x".repeat(257)).is_none());
        observed.list(&server, "get", reads);
        assert_eq!(observed.hints(&server, "get"), Some(reads));
    }
}
