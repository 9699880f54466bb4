//! Connections that are open, so that a change of policy reaches them: registered before they are checked,
//! re-checked at every change, cut when no longer allowed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exeat_policy::{Tls, Wire};
use tokio_util::sync::CancellationToken;

use crate::identify::peer::Peer;

/// What goes by unread on a connection, so that no message of it is decided on again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Its bytes, as the terms of its permit said.
    Bytes {
        /// What is spoken on it.
        wire: Wire,
        /// What is done with TLS.
        tls: Tls,
    },
    /// What follows the upgrade that this request asked for.
    Upgraded {
        /// Its method.
        method: String,
        /// Its path, as it was judged.
        path: String,
        /// Whether the connection is intercepted TLS.
        tls: bool,
    },
}

/// What one open connection is.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Whose it is.
    pub workload: u32,
    /// Where it goes, once that is agreed on.
    pub peer: Option<Peer>,
    /// The port that the workload asked for.
    pub port: u16,
    /// Whether its client was asked for a certificate; `None`: TLS is not finished with it.
    pub asked: Option<bool>,
    /// What goes by unread; `None`: each request is decided on.
    pub unread: Option<Unread>,
}

#[derive(Debug)]
struct Entry {
    connected: Connected,
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    entries: HashMap<u64, Entry>,
    per_workload: HashMap<u32, usize>,
}

/// The table of open connections.
#[derive(Debug, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
}

/// One registered connection; leaves the table when dropped.
#[derive(Debug)]
pub struct Registered {
    state: Arc<Mutex<State>>,
    id: u64,
    cut: CancellationToken,
}

impl Live {
    /// Registers a connection, unless its workload already has `most`.
    pub fn register(&self, workload: u32, port: u16, most: usize) -> Option<Registered> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open = state.per_workload.entry(workload).or_insert(0);
        if *open >= most {
            return None;
        }
        *open = open.saturating_add(1);
        state.next = state.next.wrapping_add(1);
        let id = state.next;
        let cut = CancellationToken::new();
        let connected = Connected {
            workload,
            peer: None,
            port,
            asked: None,
            unread: None,
        };
        state.entries.insert(
            id,
            Entry {
                connected,
                cut: cut.clone(),
            },
        );
        Some(Registered {
            state: Arc::clone(&self.state),
            id,
            cut,
        })
    }

    /// Cuts every connection that `allowed` says false to. Returns how many.
    pub fn recheck(&self, allowed: impl Fn(&Connected) -> bool) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = state
            .entries
            .values()
            .filter(|entry| !allowed(&entry.connected));
        cut.map(|entry| entry.cut.cancel()).count()
    }

    /// How many connections one workload has open.
    pub fn of(&self, workload: u32) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .per_workload
            .get(&workload)
            .copied()
            .unwrap_or_default()
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entries
            .len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Registered {
    /// Fires when the connection is no longer allowed.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Says where the connection goes, as soon as that is known and before it is decided.
    pub fn set_peer(&self, peer: &Peer) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.connected.peer = Some(peer.clone());
        }
    }

    /// Says whether the client is asked for a certificate; to be decided again after this, so that no change of policy
    /// falls in between.
    pub fn set_asked(&self, asked: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.connected.asked = Some(asked);
        }
    }

    /// Says that something goes by unread from now on; to be decided after this, so that no change of policy
    /// falls in between.
    pub fn set_unread(&self, unread: Unread) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.connected.unread = Some(unread);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = state.entries.remove(&self.id) else {
            return;
        };
        let workload = entry.connected.workload;
        if let Some(open) = state.per_workload.get_mut(&workload) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                state.per_workload.remove(&workload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Tls, Wire};

    use super::{Live, Unread};

    #[test]
    fn a_connection_is_counted_cut_and_forgotten() {
        let live = Live::default();
        let first = live.register(1, 443, 2).expect("there is room");
        let second = live.register(1, 80, 2).expect("there is room");
        assert!(
            live.register(1, 443, 2).is_none(),
            "a workload has its bound"
        );
        assert!(live.register(2, 443, 2).is_some(), "and another its own");
        assert_eq!(live.recheck(|connected| connected.port == 443), 1);
        assert!(second.cut().is_cancelled() && !first.cut().is_cancelled());
        drop(second);
        assert!(live.register(1, 443, 2).is_some());
        first.set_unread(Unread::Bytes {
            wire: Wire::Tcp,
            tls: Tls::Passthrough,
        });
        assert_eq!(
            live.recheck(|connected| connected.unread.is_none()),
            1,
            "what goes by unread is told to those who check"
        );
        drop(first);
        assert!(live.is_empty());
    }
}
