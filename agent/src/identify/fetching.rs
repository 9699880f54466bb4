//! The phase in which a stdio server may fetch its own code, and what came by in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::together::Together;
use crate::channel::{Artefact, ArtefactRest, MOST_ARTEFACT_BYTES, MOST_ARTEFACTS};

/// One workload's phase: none, then at most one, then none for good.
#[derive(Debug, Default)]
pub struct Fetching {
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: bool,
    artefacts: Vec<Artefact>,
    /// What they take, by [`Artefact::weight`].
    bytes: usize,
    beyond: Option<Beyond>,
}

/// Those for which there is no room one by one.
#[derive(Debug, Default)]
struct Beyond {
    count: u64,
    together: Together,
}

/// What was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// In the order in which the answers began.
    pub artefacts: Vec<Artefact>,
    /// What there was beyond them.
    pub rest: Option<ArtefactRest>,
}

/// The place of something that is on its way.
#[derive(Debug)]
pub struct Place(Kept);

#[derive(Debug)]
enum Kept {
    At(usize),
    /// Its key, and whether its bytes are expected to stay.
    Beyond(String, bool),
}

impl Fetching {
    /// Begins the phase, unless there was one.
    pub fn begin(&self) {
        let mut state = self.lock();
        if !state.begun {
            state.begun = true;
            self.open.store(true, Ordering::SeqCst);
        }
    }

    /// Whether the workload may fetch now.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// Ends the phase for good; what was fetched, if it was this call that ended it.
    pub fn end(&self) -> Option<Fetched> {
        let mut state = self.lock();
        if !self.open.swap(false, Ordering::SeqCst) {
            return None;
        }
        let artefacts = std::mem::take(&mut state.artefacts);
        let rest = state.beyond.take().map(|beyond| beyond.with(&artefacts));
        Some(Fetched { artefacts, rest })
    }

    /// Something begins to arrive; its place, as long as the phase lasts.
    pub fn arrives(&self, artefact: Artefact) -> Option<Place> {
        let mut state = self.lock();
        if !self.is_open() {
            return None;
        }
        let bytes = state.bytes.saturating_add(artefact.weight());
        if state.artefacts.len() < MOST_ARTEFACTS && bytes <= MOST_ARTEFACT_BYTES {
            state.bytes = bytes;
            state.artefacts.push(artefact);
            let last = state.artefacts.len().saturating_sub(1);
            return Some(Place(Kept::At(last)));
        }
        let beyond = state.beyond.get_or_insert_default();
        beyond.count = beyond.count.saturating_add(1);
        let key = artefact.key();
        beyond.together.add(&key, "");
        Some(Place(Kept::Beyond(key, artefact.stays())))
    }

    /// So much of it came by; its digest is known if that is all of it. After the phase it means nothing.
    pub fn arrived(&self, place: Place, bytes: u64, sha256: Option<String>) {
        let mut state = self.lock();
        match place.0 {
            Kept::At(at) => {
                if let Some(artefact) = state.artefacts.get_mut(at) {
                    artefact.bytes = bytes;
                    artefact.sha256 = sha256;
                }
            }
            Kept::Beyond(key, true) => {
                if let (Some(beyond), Some(sha256)) = (&mut state.beyond, sha256) {
                    beyond.together.add(&key, &sha256);
                }
            }
            Kept::Beyond(_, false) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beyond {
    /// The digest is of those that are kept as well: which ones are differs with the order in which they came.
    fn with(mut self, kept: &[Artefact]) -> ArtefactRest {
        for artefact in kept {
            let key = artefact.key();
            self.together.add(&key, "");
            if let Some(sha256) = artefact.sha256.as_ref().filter(|_| artefact.stays()) {
                self.together.add(&key, sha256);
            }
        }
        ArtefactRest {
            count: self.count,
            sha256: self.together.sha256(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fetched, Fetching};
    use crate::channel::{Artefact, MOST_ARTEFACT_BYTES, MOST_ARTEFACTS};

    fn artefact(path: &str) -> Artefact {
        Artefact::new("packages.example.com", path, None)
    }

    /// A phase in which these came by whole, each with the digest that `sha256` tells.
    fn fetched(paths: impl IntoIterator<Item = String>, sha256: fn(&str) -> &str) -> Fetched {
        let fetching = Fetching::default();
        fetching.begin();
        for path in paths {
            let place = fetching.arrives(artefact(&path)).unwrap();
            fetching.arrived(place, 1, Some(sha256(&path).to_owned()));
        }
        fetching.end().unwrap()
    }

    #[test]
    fn there_is_one_phase_and_what_comes_after_it_is_none_of_it() {
        let fetching = Fetching::default();
        assert!(!fetching.is_open() && fetching.end().is_none());
        assert!(fetching.arrives(artefact("/early")).is_none());
        fetching.begin();
        assert!(fetching.is_open());
        let whole = fetching.arrives(artefact("/whole")).unwrap();
        let part = fetching.arrives(artefact("/part")).unwrap();
        fetching.arrived(whole, 3, Some("ab".to_owned()));
        let fetched = fetching.end().unwrap();
        assert!(!fetching.is_open() && fetching.end().is_none());
        fetching.arrived(part, 9, Some("cd".to_owned()));
        fetching.begin();
        assert!(!fetching.is_open(), "it does not begin again");
        assert!(fetching.arrives(artefact("/late")).is_none());
        let shown: Vec<_> = fetched
            .artefacts
            .iter()
            .map(|artefact| (&*artefact.path, artefact.bytes, artefact.sha256.as_deref()))
            .collect();
        assert_eq!(shown, [("/whole", 3, Some("ab")), ("/part", 0, None)]);
        assert_eq!(fetched.rest, None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_change_in_the_rest_is_seen() {
        let all = || (0..MOST_ARTEFACTS + 3).map(|number| format!("/{number}"));
        let first = fetched(all(), |_| "aa");
        assert_eq!(first.artefacts.len(), MOST_ARTEFACTS);
        let rest = first.rest.unwrap();
        assert_eq!(rest.count, 3);
        // Others are kept in another order; all together they are the same.
        let turned = fetched(all().rev(), |_| "aa");
        assert_ne!(turned.artefacts, first.artefacts);
        assert_eq!(turned.rest.unwrap(), rest);
        for (what, other) in [
            (
                "one of the rest",
                fetched(all(), |path| if path == "/4097" { "bb" } else { "aa" }),
            ),
            (
                "one that is kept",
                fetched(all(), |path| if path == "/7" { "bb" } else { "aa" }),
            ),
            (
                "another name",
                fetched(all().chain(["/x".to_owned()]), |_| "aa"),
            ),
        ] {
            assert_ne!(other.rest.unwrap().sha256, rest.sha256, "{what}");
        }
    }

    #[test]
    fn long_paths_take_the_room_of_more_of_them() {
        let path = |number| format!("/{number}/{}", "x".repeat(500));
        let most = MOST_ARTEFACT_BYTES / artefact(&path(1000)).weight();
        let fetched = fetched((1000..1000 + most + 7).map(path), |_| "aa");
        assert_eq!(fetched.artefacts.len(), most);
        assert_eq!(fetched.rest.unwrap().count, 7);
    }
}
