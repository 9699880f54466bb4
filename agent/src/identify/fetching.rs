//! The phase in which a stdio server may fetch its own code, and what came by in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::channel::{Artefact, MOST_ARTEFACTS};

/// One workload's phase: none, then at most one, then none for good.
#[derive(Debug, Default)]
pub struct Fetching {
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: bool,
    fetched: Fetched,
}

/// What was fetched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// In the order in which the answers began.
    pub artefacts: Vec<Artefact>,
    /// How many more there were than are kept.
    pub left_out: u64,
}

/// The place of something that is on its way.
#[derive(Debug)]
pub struct Place(usize);

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
        self.open
            .swap(false, Ordering::SeqCst)
            .then(|| std::mem::take(&mut state.fetched))
    }

    /// Something begins to arrive; its place, as long as the phase lasts and there is room.
    pub fn arrives(&self, artefact: Artefact) -> Option<Place> {
        let mut state = self.lock();
        if !self.is_open() {
            return None;
        }
        let Fetched {
            artefacts,
            left_out,
        } = &mut state.fetched;
        if artefacts.len() >= MOST_ARTEFACTS {
            *left_out = left_out.saturating_add(1);
            return None;
        }
        artefacts.push(artefact);
        Some(Place(artefacts.len().saturating_sub(1)))
    }

    /// So much of it came by; its digest is known if that is all of it. After the phase it means nothing.
    pub fn arrived(&self, place: &Place, bytes: u64, sha256: Option<String>) {
        let mut state = self.lock();
        if let Some(artefact) = state.fetched.artefacts.get_mut(place.0) {
            artefact.bytes = bytes;
            artefact.sha256 = sha256;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Fetching;
    use crate::channel::{Artefact, MOST_ARTEFACTS};

    fn artefact(path: &str) -> Artefact {
        Artefact::new("packages.example.com", path, None)
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
        fetching.arrived(&whole, 3, Some("ab".to_owned()));
        let fetched = fetching.end().unwrap();
        assert!(!fetching.is_open() && fetching.end().is_none());
        fetching.arrived(&part, 9, Some("cd".to_owned()));
        fetching.begin();
        assert!(!fetching.is_open(), "it does not begin again");
        assert!(fetching.arrives(artefact("/late")).is_none());
        let shown: Vec<_> = fetched
            .artefacts
            .iter()
            .map(|artefact| (&*artefact.path, artefact.bytes, artefact.sha256.as_deref()))
            .collect();
        assert_eq!(shown, [("/whole", 3, Some("ab")), ("/part", 0, None)]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_rest_is_counted() {
        let fetching = Fetching::default();
        fetching.begin();
        let kept = (0..MOST_ARTEFACTS + 3)
            .filter(|number| fetching.arrives(artefact(&format!("/{number}"))).is_some())
            .count();
        let fetched = fetching.end().unwrap();
        assert_eq!((kept, fetched.left_out), (MOST_ARTEFACTS, 3));
        assert_eq!(fetched.artefacts.len(), MOST_ARTEFACTS);
    }
}
