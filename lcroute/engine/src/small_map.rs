//! Maps in order of their keys, which are contiguous: a search reads one or two cache lines. In a
//! B-tree of large values keys lie far apart.

use std::ops::RangeInclusive;

use smallvec::SmallVec;

/// Keys in ascending order, none twice.
pub trait Keys: Default + std::ops::Deref<Target = [Self::Key]> {
    /// The type of a key.
    type Key: Copy + Ord;

    /// The position of a key, or that at which it would be.
    fn find(&self, key: Self::Key) -> Result<usize, usize>;

    /// Inserts a key at its position.
    fn insert(&mut self, at: usize, key: Self::Key);

    /// Removes a key.
    fn remove(&mut self, at: usize);
}

impl<K: Copy + Ord, const N: usize> Keys for SmallVec<[K; N]>
where
    [K; N]: smallvec::Array<Item = K>,
{
    type Key = K;

    fn find(&self, key: K) -> Result<usize, usize> {
        self.binary_search(&key)
    }

    fn insert(&mut self, at: usize, key: K) {
        self.insert(at, key);
    }

    fn remove(&mut self, at: usize) {
        self.remove(at);
    }
}

/// A map with insertion and removal in linear time.
#[derive(Debug)]
pub struct SortedMap<K, V> {
    keys: K,
    values: Vec<V>,
}

/// A map of a few elements, such as links.
pub type SmallMap<K, V> = SortedMap<SmallVec<[K; 12]>, V>;

impl<K: Keys, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self {
            keys: K::default(),
            values: Vec::new(),
        }
    }
}

impl<K: Keys, V> SortedMap<K, V> {
    /// The value of this key.
    pub fn get(&self, key: &K::Key) -> Option<&V> {
        Some(&self.values[self.keys.find(*key).ok()?])
    }

    /// The value of this key.
    pub fn get_mut(&mut self, key: &K::Key) -> Option<&mut V> {
        Some(&mut self.values[self.keys.find(*key).ok()?])
    }

    /// Whether it has this key.
    pub fn contains_key(&self, key: &K::Key) -> bool {
        self.keys.find(*key).is_ok()
    }

    /// Inserts or replaces the value of this key.
    pub fn insert(&mut self, key: K::Key, value: V) {
        match self.keys.find(key) {
            Ok(at) => self.values[at] = value,
            Err(at) => {
                self.keys.insert(at, key);
                self.values.insert(at, value);
            }
        }
        debug_assert_eq!(self.keys.len(), self.values.len(), "each key has a value");
    }

    /// Removes the value of this key.
    pub fn remove(&mut self, key: &K::Key) -> Option<V> {
        let at = self.keys.find(*key).ok()?;
        self.keys.remove(at);
        Some(self.values.remove(at))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All keys, in ascending order.
    pub fn keys(&self) -> &[K::Key] {
        &self.keys
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.values.iter()
    }

    /// All values, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.values.iter_mut()
    }

    /// All keys with values, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (K::Key, &V)> + Clone {
        self.keys.iter().copied().zip(&self.values)
    }

    /// All keys with values, in ascending order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K::Key, &mut V)> {
        self.keys.iter().copied().zip(&mut self.values)
    }

    /// All keys with values from one key to another, both included.
    pub fn range(&self, keys: RangeInclusive<K::Key>) -> impl Iterator<Item = (K::Key, &V)> {
        let start = self.keys.find(*keys.start()).unwrap_or_else(|at| at);
        let inside = move |(key, _): &(K::Key, &V)| keys.contains(key);
        self.iter().skip(start).take_while(inside)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use librecast::id::OriginId;
    use proptest::prelude::*;

    use super::*;
    use crate::router_index::RouterIndex;

    type Steps = Vec<(OriginId, u32)>;

    fn steps() -> impl Strategy<Value = Steps> {
        // spread over all ids, or nearly equal
        let id = |(key, shift, alike): (u64, u32, bool)| {
            OriginId(if alike {
                u64::MAX - key
            } else {
                key.rotate_right(shift)
            })
        };
        let id = (0u64..40, 0u32..64, any::<bool>()).prop_map(id);
        prop::collection::vec((id, 0u32..4), 0..400)
    }

    fn is_a_map_in_order<K: Keys<Key = OriginId>>(steps: Steps) -> Result<(), TestCaseError> {
        let (mut map, mut expected) = (SortedMap::<K, usize>::default(), BTreeMap::new());
        for (n, (id, step)) in steps.into_iter().enumerate() {
            if step == 0 {
                prop_assert_eq!(map.remove(&id), expected.remove(&id));
            } else {
                map.insert(id, n);
                expected.insert(id, n);
            }
            prop_assert_eq!(map.get(&id), expected.get(&id));
            prop_assert_eq!(map.get_mut(&id), expected.get_mut(&id));
            prop_assert_eq!(map.contains_key(&id), expected.contains_key(&id));
            prop_assert_eq!(map.len(), expected.len());
            prop_assert_eq!(map.is_empty(), expected.is_empty());
        }
        prop_assert!(map.keys().iter().eq(expected.keys()));
        prop_assert!(map.values().eq(expected.values()));
        prop_assert!(map.iter().eq(expected.iter().map(|(id, n)| (*id, n))));
        prop_assert!(expected.iter().all(|(id, n)| map.get(id) == Some(n)));
        for from in expected.keys().copied() {
            for to in [from, OriginId(from.0 | 0xff), OriginId(u64::MAX)] {
                let expected = expected.range(from..=to).map(|(id, n)| (*id, n));
                prop_assert!(map.range(from..=to).eq(expected));
            }
        }
        map.values_mut().for_each(|n| *n += 1);
        map.iter_mut().for_each(|(_, n)| *n += 1);
        prop_assert!(map.values().copied().eq(expected.values().map(|n| n + 2)));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_map_of_a_few_things_is_a_map_in_order(steps in steps()) {
            is_a_map_in_order::<SmallVec<[OriginId; 12]>>(steps)?;
        }

        #[test]
        fn a_map_by_names_is_a_map_in_order(steps in steps()) {
            is_a_map_in_order::<RouterIndex>(steps)?;
        }
    }
}
