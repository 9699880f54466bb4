//! What was seen of MCP servers on their way through: endpoints of the old transport, hints of tools, requests
//! that wait for the other side. All of it bounded, and nobody's drives out what others have less of; what is forgotten
//! is treated as never seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use exeat_policy::Hints;

use crate::audit::RecordId;
use crate::bounded::Fair;
use crate::decode::mcp::{MAX_NAME, Mirrors};
use crate::decode::rpc::Id;
use crate::identify::account::{Account, Whose};
use crate::identify::calls::Callee;
use crate::identify::peer::Peer;

/// Endpoints kept.
const ENDPOINTS: usize = 4096;
/// Tools whose hints are kept, some 200 bytes each.
const TOOLS: usize = 262_144;
/// Of those, tools that one server lists to one caller.
const TOOLS_EACH: usize = 8192;
/// Tools that are kept to be shown.
const SHOWN: usize = 65_536;
/// Tools of which it is kept which arguments headers repeat.
const MIRRORED: usize = 4096;
/// Of those, one server's to one caller.
const MIRRORED_EACH: usize = 1024;
/// Longest name of a tool whose hints are kept, in bytes; beyond it the tool counts as one without hints.
const NAME: usize = 256;
/// Longest path of an endpoint that is kept, in bytes.
const PATH: usize = 2048;
/// Sessions that are remembered, some 400 bytes each. One that is not counts as its workload's.
const SESSIONS: usize = 131_072;
/// Requests of either direction that wait for an answer.
const WAITING: usize = 65_536;
/// Of those, one workload's.
const WAITING_EACH: usize = 16_384;

/// Where a session's messages go: a caller's conversation with one server. A session's id is no identity: who names
/// another's has a conversation of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    /// The workload that it comes from.
    pub workload: u32,
    /// Who of that workload talks.
    pub whose: Whose,
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

type Place = (Peer, u16, String);

/// What one caller was listed of a tool.
#[derive(Debug, Clone, Copy)]
struct Listed {
    hints: Hints,
    /// Whether headers are to repeat arguments.
    marked: bool,
}

/// By workload, or by what one caller has with one server: where two see one server differently, or two instances of it
/// differ, what one was listed decides nothing of the other's.
#[derive(Debug)]
struct State {
    endpoints: Fair<u32, Place, Endpoint>,
    listed: Fair<Account, Arc<str>, Listed>,
    /// The same by server, for people: it decides nothing.
    shown: Fair<Arc<str>, Arc<str>, Hints>,
    /// Of tools of which something is repeated.
    mirrors: Fair<Account, Arc<str>, Arc<Mirrors>>,
    /// The same for whoever was not listed the tool, and by whose listing: it asks more of a call, and who never had the list
    /// could leave out what is asked.
    mirrored: Fair<Callee, Arc<str>, (Whose, Arc<Mirrors>)>,
    waiting: Fair<u32, (Talk, From, String), Waiting>,
    sessions: Fair<u32, Talk, ()>,
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
                endpoints: Fair::new(ENDPOINTS, ENDPOINTS),
                listed: Fair::new(TOOLS, TOOLS_EACH),
                shown: Fair::new(SHOWN, TOOLS_EACH),
                mirrors: Fair::new(MIRRORED, MIRRORED_EACH),
                mirrored: Fair::new(MIRRORED, MIRRORED_EACH),
                waiting: Fair::new(WAITING, WAITING_EACH),
                sessions: Fair::new(SESSIONS, SESSIONS),
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
        let key = (peer.clone(), port, path.to_owned());
        state.endpoints.get(&workload, &key).cloned()
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
        let key = (peer.clone(), port, path.to_owned());
        self.lock().endpoints.insert(
            &workload,
            key,
            Endpoint {
                judged_as: judged_as.to_owned(),
            },
        );
    }

    /// What the callee listed of `tool` to this caller, if it was seen.
    pub(super) fn hints(&self, account: &Account, tool: &str) -> Option<Hints> {
        let mut state = self.lock();
        state.listed.get(account, tool).map(|listed| listed.hints)
    }

    /// The tools that `server` was seen to list since the gate began, by name, as it listed them last, to whomever; at most
    /// `most`.
    pub fn listed(&self, server: &str, most: usize) -> BTreeMap<String, Hints> {
        let state = self.lock();
        let tools = state.shown.of(server);
        tools
            .map(|(tool, hints)| (String::from(&**tool), *hints))
            .take(most)
            .collect()
    }

    /// The same of one tool.
    pub fn lists(&self, server: &Arc<str>, tool: &str) -> Option<Hints> {
        self.lock().shown.get(server, tool).copied()
    }

    /// `server` lists `tool` to this caller, with `hints`, and headers are to repeat these of its arguments.
    pub(super) fn list(
        &self,
        account: &Account,
        server: &Arc<str>,
        tool: &str,
        (hints, mirrors): (Hints, Mirrors),
    ) {
        // Beyond it nobody can call it.
        if tool.len() > MAX_NAME {
            return;
        }
        let tool: Arc<str> = Arc::from(tool);
        let mut state = self.lock();
        if tool.len() <= NAME {
            let marked = !mirrors.is_empty();
            let listed = Listed { hints, marked };
            state.listed.insert(account, Arc::clone(&tool), listed);
            state.shown.insert(server, Arc::clone(&tool), hints);
        }
        state.mirror(account, tool, mirrors);
    }

    /// Which arguments of `tool` headers repeat: as it was listed to this caller, else to anybody.
    pub(super) fn mirrors(&self, account: &Account, tool: &str) -> Option<Arc<Mirrors>> {
        let mut state = self.lock();
        if let Some(mirrors) = state.mirrors.get(account, tool) {
            return Some(Arc::clone(mirrors));
        }
        let listed = state.listed.get(account, tool);
        // Marks have less room than names.
        if listed.is_some_and(|listed| !listed.marked) {
            return None;
        }
        let others = state.mirrored.get(&account.callee, tool);
        others.map(|(_, mirrors)| Arc::clone(mirrors))
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
        let owner = talk.workload;
        self.lock().sessions.insert(&owner, talk, ());
    }

    /// Whether the session of `talk` is one that its server opened for its caller, as far as is remembered.
    pub(super) fn is_open(&self, talk: &Talk) -> bool {
        self.lock().sessions.get(&talk.workload, talk).is_some()
    }

    /// A request was sent on and waits for its answer.
    pub(super) fn wait(&self, talk: &Talk, from: From, id: &Id, method: &str, record: RecordId) {
        let key = (talk.clone(), from, slot(id));
        let mut state = self.lock();
        let before = state.waiting.get(&talk.workload, &key);
        let alone = before.is_none_or(|before| before.record == record && before.alone);
        let waiting = Waiting {
            method: method.to_owned(),
            record,
            alone,
        };
        state.waiting.insert(&talk.workload, key, waiting);
    }

    /// The request that an answer with `id` answers; it waits no longer.
    pub(super) fn answered(&self, talk: &Talk, from: From, id: &Id) -> Option<Waiting> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return None;
        }
        let key = (talk.clone(), from, slot(id));
        state.waiting.remove(&talk.workload, &key)
    }

    /// A workload is gone, and its conversations with it.
    pub fn forget(&self, workload: u32) {
        let mut state = self.lock();
        let others = |owner: &u32| *owner != workload;
        state.endpoints.retain(others);
        state.waiting.retain(others);
        state.sessions.retain(others);
        let lasts = |callee: &Callee| *callee != Callee::Workload(workload);
        state.listed.retain(|account| lasts(&account.callee));
        state.mirrors.retain(|account| lasts(&account.callee));
        state.mirrored.retain(lasts);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn mirror(&mut self, account: &Account, tool: Arc<str>, mirrors: Mirrors) {
        let Account { callee, whose } = account;
        if mirrors.is_empty() {
            drop(self.mirrors.remove(account, &*tool));
            // What another was listed stays.
            if let Some((by, _)) = self.mirrored.get(callee, &*tool)
                && by == whose
            {
                drop(self.mirrored.remove(callee, &*tool));
            }
            return;
        }
        let mirrors = Arc::new(mirrors);
        let by = (whose.clone(), Arc::clone(&mirrors));
        self.mirrored.insert(callee, Arc::clone(&tool), by);
        self.mirrors.insert(account, tool, mirrors);
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

    use super::{Account, Callee, MIRRORED, Mirrors, Observed, TOOLS, TOOLS_EACH, Talk};
    use crate::decode::json::{Limits, parse};
    use crate::identify::account::Whose;

    #[test]
    fn a_session_is_one_that_the_server_opened_for_the_workload() {
        let observed = Observed::default();
        let talk = |workload, session: &str| Talk {
            workload,
            whose: Whose::nobody(),
            server: Arc::from("crm"),
            session: Some(session.to_owned()),
        };
        assert!(!observed.is_open(&talk(1, "made up")));
        observed.open_session(talk(1, "given"));
        assert!(observed.is_open(&talk(1, "given")));
        assert!(!observed.is_open(&talk(2, "given")), "it is not another's");
        let other = Talk {
            whose: Whose::of_user(7),
            ..talk(1, "given")
        };
        assert!(!observed.is_open(&other), "nor of who else is there");
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
    fn what_one_is_listed_takes_no_mark_from_another() {
        let observed = Observed::default();
        let account = |uid| Account {
            callee: Callee::Server(Arc::from("crm")),
            whose: Whose::of_user(uid),
        };
        let [marked, plain, unlisted] = [1, 2, 3].map(account);
        let tool = parse(
            br#"{"inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#,
            &Limits::REQUEST,
        );
        let marks = Mirrors::of(tool.unwrap().as_object().unwrap());
        assert!(!marks.is_empty());
        let crm: Arc<str> = Arc::from("crm");
        let list = |account: &Account, marks: &Mirrors| {
            observed.list(account, &crm, "show", (Hints::default(), marks.clone()));
        };
        let is_marked = |account: &Account| observed.mirrors(account, "show").is_some();
        list(&marked, &marks);
        list(&plain, &Mirrors::default());
        assert!(is_marked(&marked) && !is_marked(&plain) && is_marked(&unlisted));
        // Where others drive its marks out, they are those of the server.
        for uid in 4..4 + 2 * u32::try_from(MIRRORED).unwrap() {
            list(&account(uid), &marks);
        }
        assert!(is_marked(&marked) && !is_marked(&plain));
        for uid in [1, 3 + 2 * u32::try_from(MIRRORED).unwrap()] {
            list(&account(uid), &Mirrors::default());
        }
        assert!(!is_marked(&marked) && !is_marked(&unlisted));
    }

    #[test]
    fn what_a_server_lists_is_kept_within_bounds_and_for_whom_it_was_listed() {
        let observed = Observed::default();
        let account = |callee| Account {
            callee,
            whose: Whose::nobody(),
        };
        let one = account(Callee::Workload(1));
        let other = account(Callee::Workload(2));
        let reads = Hints {
            read_only: Some(true),
            open_world: Some(false),
            ..Hints::default()
        };
        let crm: Arc<str> = Arc::from("crm");
        observed.list(&one, &crm, &"x".repeat(257), (reads, Mirrors::default()));
        assert!(observed.hints(&one, &"x".repeat(257)).is_none());
        observed.list(&one, &crm, "wipe", (reads, Mirrors::default()));
        assert_eq!(observed.hints(&one, "wipe"), Some(reads));
        assert_eq!(observed.hints(&other, "wipe"), None, "another's instance");
        // People are shown what was listed last, to whomever.
        observed.list(&other, &crm, "wipe", (Hints::default(), Mirrors::default()));
        assert_eq!(observed.hints(&one, "wipe"), Some(reads));
        assert_eq!(observed.lists(&crm, "wipe"), Some(Hints::default()));
        for number in 0..TOOLS {
            observed.list(
                &other,
                &crm,
                &number.to_string(),
                (Hints::default(), Mirrors::default()),
            );
        }
        assert_eq!(observed.hints(&one, "wipe"), Some(reads), "not driven out");
        assert_eq!(observed.listed("crm", usize::MAX).len(), TOOLS_EACH);
        assert!(observed.listed("linear", 9).is_empty());
        observed.forget(1);
        assert_eq!(observed.hints(&one, "wipe"), None);
    }
}
