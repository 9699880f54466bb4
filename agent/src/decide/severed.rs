//! Servers that an administrator has disconnected: the one place that knows, and what watches for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::channel::Disconnection;

/// One server, from one reconnection to the next.
#[derive(Debug, Default)]
struct Life {
    disconnected: Option<Arc<Disconnection>>,
    /// Fires when what is under way is to end.
    cut: CancellationToken,
}

/// All servers that somebody asked about.
#[derive(Debug, Default)]
pub(super) struct Severed {
    lives: Mutex<HashMap<String, Life>>,
}

impl Severed {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disconnection that is in force.
    pub(super) fn of(&self, server: &str) -> Option<Arc<Disconnection>> {
        self.lock().get(server)?.disconnected.clone()
    }

    /// Whether nothing of the server goes on, not even what was under way.
    pub(super) fn is_cut(&self, server: &str) -> bool {
        let lives = self.lock();
        lives
            .get(server)
            .is_some_and(|life| life.disconnected.is_some() && life.cut.is_cancelled())
    }

    /// All that are in force, in the order of names.
    pub(super) fn all(&self) -> Vec<Arc<Disconnection>> {
        let lives = self.lock();
        let mut all: Vec<_> = lives
            .values()
            .filter_map(|life| life.disconnected.clone())
            .collect();
        all.sort_by(|a, b| a.server.cmp(&b.server));
        all
    }

    /// Fires when what is under way with `server` is to end; fired already where it is disconnected for good.
    /// To be taken before the decision that it guards.
    pub(super) fn watch(&self, server: &str) -> CancellationToken {
        let mut lives = self.lock();
        match lives.get(server) {
            Some(life) => life.cut.clone(),
            None => lives.entry(server.to_owned()).or_default().cut.clone(),
        }
    }

    /// From now on nothing new begins with the server; what is under way goes on until [`Self::cut`].
    pub(super) fn disconnect(&self, disconnection: Disconnection) {
        let mut lives = self.lock();
        let life = lives.entry(disconnection.server.clone()).or_default();
        life.disconnected = Some(Arc::new(disconnection));
    }

    /// Ends what is under way with a server that is disconnected.
    pub(super) fn cut(&self, server: &str) {
        if let Some(life) = self.lock().get(server)
            && life.disconnected.is_some()
        {
            life.cut.cancel();
        }
    }

    /// The server is connected again; what was cut stays cut.
    pub(super) fn reconnect(&self, server: &str) {
        let mut lives = self.lock();
        if lives
            .get(server)
            .is_some_and(|life| life.disconnected.is_some())
        {
            lives.remove(server);
        }
    }
}
