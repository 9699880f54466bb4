//! A map that never outgrows its bound: the entry used longest ago makes room.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::hash::Hash;

/// A bounded map with least-recently-used eviction. Look-ups and insertions cost O(log n).
pub struct Bounded<K, V> {
    limit: usize,
    tick: u64,
    entries: HashMap<K, (V, u64)>,
    order: BTreeMap<u64, K>,
}

impl<K, V> Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Bounded")
            .field("entries", &self.entries.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone, V> Bounded<K, V> {
    /// An empty map that holds at most `limit` entries (at least one).
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            tick: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// The value of `key`, which counts as used now.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.tick = self.tick.wrapping_add(1);
        let (value, used) = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(used) {
            self.order.insert(self.tick, key);
        }
        *used = self.tick;
        Some(value)
    }

    /// Whether there is an entry for `key`, which does not count as used by this.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.contains_key(key)
    }

    /// Puts `value` under `key`. Returns the entry that had to leave for it, if any.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        let evicted = if self.entries.len() >= self.limit {
            self.pop_oldest()
        } else {
            None
        };
        self.tick = self.tick.wrapping_add(1);
        self.order.insert(self.tick, key.clone());
        self.entries.insert(key, (value, self.tick));
        evicted
    }

    /// Takes `key` out.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (value, used) = self.entries.remove(key)?;
        self.order.remove(&used);
        Some(value)
    }

    /// Keeps what `keep` says true to.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, (value, used)| {
            let stays = keep(key, value);
            if !stays {
                order.remove(used);
            }
            stays
        });
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn pop_oldest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        let (value, _) = self.entries.remove(&key)?;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::Bounded;

    #[test]
    fn the_entry_used_longest_ago_leaves() {
        let mut map = Bounded::new(2);
        assert!(map.insert("a", 1).is_none());
        assert!(map.insert("b", 2).is_none());
        assert_eq!(map.get("a"), Some(&mut 1));
        assert_eq!(map.insert("c", 3), Some(("b", 2)));
        assert_eq!(map.len(), 2);
        assert_eq!(
            map.insert("a", 4),
            None,
            "a key that is there takes its own place"
        );
        assert_eq!(map.remove("a"), Some(4));
        assert_eq!(map.get("a"), None);
    }

    #[test]
    fn what_is_not_kept_leaves_no_trace() {
        let mut map = Bounded::new(8);
        for n in 0..8 {
            map.insert(n, n);
        }
        map.retain(|key, _| key % 2 == 0);
        assert_eq!(map.len(), 4);
        assert_eq!(map.order.len(), 4);
    }
}
