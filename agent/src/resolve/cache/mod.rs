//! What upstream said, kept as long as it said: bounded, by name and type and never by workload.
//!
//! Classes are not judged here: they depend on the grant, so each use judges them anew. Equal
//! questions under way share one resolution.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Name;
use super::fault::UpstreamFault;
use super::upstream::Unresolved;

/// The two types that are asked upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

/// What upstream said about one name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Addresses at the end of the aliases; empty if there are none.
    pub(super) addresses: Vec<IpAddr>,
    /// The name exists (with or without addresses).
    pub(super) exists: bool,
    /// The names behind the asked one, in order.
    pub(super) aliases: Vec<Name>,
    /// How long all of this holds, in seconds.
    pub(super) ttl: u32,
    /// Who said so.
    pub(super) server: SocketAddr,
    /// Datagrams dropped on the way because they matched no question.
    pub(super) dropped: u32,
}

impl Found {
    /// A fair estimate of the memory that an entry takes.
    fn weight(&self, name: &Name) -> usize {
        const OVERHEAD: usize = 256;
        let names: usize = self
            .aliases
            .iter()
            .map(|alias| alias.as_str().len() + 32)
            .sum();
        OVERHEAD + 2 * name.as_str().len() + names + self.addresses.len() * size_of::<IpAddr>()
    }
}

type Key = (Name, Family);
/// The result of one resolution, shared by all who wait for it; a fault comes with the number of
/// datagrams dropped.
pub(super) type Shared = Result<Arc<Found>, (Arc<UpstreamFault>, u32)>;

#[derive(Debug)]
struct Entry {
    found: Arc<Found>,
    until: Instant,
    weight: usize,
    number: u64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    /// Insertion order; a pair whose number is no longer the entry's is a leftover.
    order: VecDeque<(Key, u64)>,
    weight: usize,
    number: u64,
    flights: HashMap<Key, Arc<OnceCell<Shared>>>,
}

/// The cache and the questions under way.
#[derive(Debug)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
    entries: usize,
    bytes: usize,
}

/// Takes the question off the list of those under way, also if the asker went away.
struct Flight<'a> {
    cache: &'a Cache,
    key: &'a Key,
    cell: Arc<OnceCell<Shared>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut kept = self.cache.lock();
        let Some(listed) = kept.flights.get(self.key) else {
            return;
        };
        // Two owners left, the list and this: nobody else waits to take an unfinished one over.
        let last = Arc::strong_count(&self.cell) <= 2;
        if Arc::ptr_eq(listed, &self.cell) && (self.cell.initialized() || last) {
            kept.flights.remove(self.key);
        }
    }
}

impl Cache {
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            entries,
            bytes,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is still valid, and for how long.
    pub(super) fn get(
        &self,
        name: &Name,
        family: Family,
        now: Instant,
    ) -> Option<(Arc<Found>, Duration)> {
        let mut kept = self.lock();
        let key = (name.clone(), family);
        let entry = kept.entries.get(&key)?;
        if entry.until > now {
            return Some((Arc::clone(&entry.found), entry.until - now));
        }
        kept.remove(&key);
        None
    }

    /// Whether an equal question is under way already.
    pub(super) fn is_under_way(&self, name: &Name, family: Family) -> bool {
        self.lock().flights.contains_key(&(name.clone(), family))
    }

    /// The result of `resolve`, or of an equal question that is under way already.
    ///
    /// If the asker that resolves goes away, the next one that waits takes over.
    pub(super) async fn share<F>(
        &self,
        name: &Name,
        family: Family,
        resolve: impl FnOnce() -> F,
    ) -> Shared
    where
        F: Future<Output = Result<Found, Unresolved>>,
    {
        let key = (name.clone(), family);
        let cell = Arc::clone(self.lock().flights.entry(key.clone()).or_default());
        let flight = Flight {
            cache: self,
            key: &key,
            cell,
        };
        let result = flight
            .cell
            .get_or_init(|| async {
                let resolved = resolve().await;
                let found =
                    Arc::new(resolved.map_err(|none| (Arc::new(none.fault), none.dropped))?);
                self.put(name, family, &found, Instant::now());
                Ok(found)
            })
            .await;
        result.clone()
    }

    fn put(&self, name: &Name, family: Family, found: &Arc<Found>, now: Instant) {
        let weight = found.weight(name);
        if found.ttl == 0 || self.entries == 0 || weight > self.bytes {
            return;
        }
        let key = (name.clone(), family);
        let until = now + Duration::from_secs(found.ttl.into());
        let mut kept = self.lock();
        kept.remove(&key);
        while kept.entries.len() >= self.entries || kept.weight + weight > self.bytes {
            if !kept.remove_oldest() {
                break;
            }
        }
        kept.number += 1;
        let number = kept.number;
        kept.weight += weight;
        kept.order.push_back((key.clone(), number));
        kept.entries.insert(
            key,
            Entry {
                found: Arc::clone(found),
                until,
                weight,
                number,
            },
        );
        // Leftovers of replaced entries must not pile up in the order.
        if kept.order.len() > 2 * self.entries {
            let Kept { entries, order, .. } = &mut *kept;
            order.retain(|(key, number)| entries.get(key).is_some_and(|e| e.number == *number));
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize, usize) {
        let kept = self.lock();
        (
            kept.entries.len(),
            kept.weight,
            kept.order.len(),
            kept.flights.len(),
        )
    }
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight = self.weight.saturating_sub(entry.weight);
        }
    }

    /// `false` if there was nothing to remove.
    fn remove_oldest(&mut self) -> bool {
        while let Some((key, number)) = self.order.pop_front() {
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.number == number)
            {
                self.remove(&key);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
