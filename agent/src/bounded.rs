//! Maps that never outgrow their bounds: the entry used longest ago makes room, of whoever has the most.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// A bounded map whose entries belong to owners: where there is no more room, the owner of the most makes it. Whoever
/// fills it drives out nothing of those who have less.
pub struct Fair<O, K, V> {
    limit: usize,
    each: usize,
    owned: HashMap<O, Owned<K, V>>,
    /// How many each owner has; of those that have the same, who changed it longest ago is the last.
    sizes: BTreeSet<(usize, Reverse<u64>, O)>,
    entries: usize,
    tick: u64,
}

/// What one owner has.
struct Owned<K, V> {
    all: Bounded<K, V>,
    changed: u64,
}

impl<O, K, V> Debug for Fair<O, K, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Fair")
            .field("entries", &self.entries)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<O: Ord + Hash + Clone, K: Eq + Hash + Clone, V> Fair<O, K, V> {
    /// An empty map that holds at most `limit` entries, and of one owner at most `each`; at least one of both.
    pub fn new(limit: usize, each: usize) -> Self {
        Self {
            limit: limit.max(1),
            each,
            owned: HashMap::new(),
            sizes: BTreeSet::new(),
            entries: 0,
            tick: 0,
        }
    }

    /// The owner's value of `key`, which counts as used now.
    pub fn get<Q>(&mut self, owner: &O, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.owned.get_mut(owner)?.all.get(key)
    }

    /// Whether the owner has an entry for `key`, which does not count as used by this.
    pub fn contains<Q>(&self, owner: &O, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let own = self.owned.get(owner);
        own.is_some_and(|own| own.all.contains(key))
    }

    /// Puts `value` under the owner's `key`.
    pub fn insert(&mut self, owner: &O, key: K, value: V) {
        if !self.owned.contains_key(owner) {
            let own = Owned {
                all: Bounded::new(self.each),
                changed: 0,
            };
            self.owned.insert(owner.clone(), own);
        }
        self.change(owner, |own| own.insert(key, value).is_some());
        while self.entries > self.limit {
            let Some((_, _, most)) = self.sizes.last().cloned() else {
                return;
            };
            self.change(&most, Bounded::pop_oldest);
        }
    }

    /// Takes the owner's `key` out.
    pub fn remove<Q>(&mut self, owner: &O, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.change(owner, |own| own.remove(key)).flatten()
    }

    /// Keeps what belongs to owners that `keep` says true to.
    pub fn retain(&mut self, mut keep: impl FnMut(&O) -> bool) {
        self.owned.retain(|owner, own| {
            let stays = keep(owner);
            if !stays {
                self.entries = self.entries.saturating_sub(own.all.len());
            }
            stays
        });
        self.sizes.retain(|(_, _, owner)| keep(owner));
    }

    /// What the owner has, in no order.
    pub fn of<Q>(&self, owner: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        O: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let own = self.owned.get(owner).into_iter();
        own.flat_map(|own| own.all.iter())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Changes what an owner has; `None`: it has nothing.
    fn change<T>(&mut self, owner: &O, change: impl FnOnce(&mut Bounded<K, V>) -> T) -> Option<T> {
        let own = self.owned.get_mut(owner)?;
        let before = own.all.len();
        let told = change(&mut own.all);
        let now = own.all.len();
        if now != before {
            self.tick = self.tick.wrapping_add(1);
            let changed = std::mem::replace(&mut own.changed, self.tick);
            self.sizes
                .remove(&(before, Reverse(changed), owner.clone()));
            self.entries = self.entries.saturating_sub(before).saturating_add(now);
            if now == 0 {
                self.owned.remove(owner);
            } else {
                let size = (now, Reverse(self.tick), owner.clone());
                self.sizes.insert(size);
            }
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounded, Fair};

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

    #[test]
    fn who_has_the_most_makes_room() {
        let mut map = Fair::new(8, 6);
        for n in 0..3 {
            map.insert(&"small", n, n);
        }
        for n in 0..100 {
            map.insert(&"large", n, n);
        }
        assert_eq!(map.len(), 8);
        assert!((0..3).all(|n| map.contains(&"small", &n)));
        assert!((95..100).all(|n| map.contains(&"large", &n)), "its newest");
        assert_eq!(map.get(&"small", &0), Some(&mut 0));
        assert_eq!(map.get(&"other", &0), None);
        // One that grows beside it takes from the largest until they have the same.
        for n in 3..10 {
            map.insert(&"small", n, n);
        }
        assert_eq!(map.len(), 8);
        assert_eq!((map.of("large").count(), map.of("small").count()), (4, 4));
        assert_eq!(map.remove(&"large", &99), Some(99));
        assert_eq!(map.remove(&"large", &99), None);
        map.retain(|owner| *owner == "large");
        assert_eq!((map.len(), map.sizes.len(), map.owned.len()), (3, 1, 1));
        for n in 96..99 {
            assert_eq!(map.remove(&"large", &n), Some(n));
        }
        assert!(map.is_empty() && map.sizes.is_empty() && map.owned.is_empty());
        // Of those that have the same, who has had it longest loses one.
        let mut even = Fair::new(2, 2);
        for owner in ["b", "a", "z"] {
            even.insert(&owner, 0, 0);
        }
        assert!(["a", "z"].iter().all(|owner| even.contains(owner, &0)));
        assert_eq!((even.len(), even.owned.len()), (2, 2));
        // One owner alone has no more than its own bound.
        (0..10).for_each(|n| map.insert(&"one", n, n));
        assert_eq!(map.len(), 6);
    }
}
