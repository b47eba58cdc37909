//! Hash tables with keys from the engine's seed. They cannot be iterated in hash order, so no
//! output depends on it. No node can choose keys that collide.

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;

/// Keys of the hash. AHash withstands chosen keys and takes a third of the time of SipHash, which
/// was a third of the time of a packet.
fn seeded(seed: u64) -> RandomState {
    let next = |n: u64| crate::graph::mix(seed.wrapping_add(n));
    RandomState::with_seeds(next(0), next(1), next(2), next(3))
}

/// A hash table without an iteration order.
#[derive(Debug)]
pub struct Table<K, V>(HashMap<K, V, RandomState>);

impl<K: Hash + Eq + Ord + Copy, V> Table<K, V> {
    pub fn new(seed: u64) -> Self {
        Self(HashMap::with_hasher(seeded(seed)))
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// The value of `key`, created if missing.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.0.entry(key).or_insert_with(make)
    }

    /// Replaces the value of `key`.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Removes the value of `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.0.remove(key);
        // returns memory that many entries once needed
        if self.0.capacity() > 1024 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        value
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All keys in their own order: for rare work on the whole table.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that brings keys into an order"
    )]
    pub fn sorted_keys(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.0.keys().copied().collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_order() {
        let mut table = Table::new(3);
        for n in [5, 1, 9, 3] {
            table.insert(n, ());
        }
        table.remove(&9);
        assert_eq!(table.sorted_keys(), [1, 3, 5]);
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = Table::new(3);
        for n in 0..100_000 {
            table.insert(n, [0u64; 4]);
        }
        for n in 0..100_000 {
            table.remove(&n);
        }
        assert_eq!(table.len(), 0);
        assert!(table.0.capacity() < 4096, "{}", table.0.capacity());
    }
}
