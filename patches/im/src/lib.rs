//! The map of the crate `im` that Loro uses. That crate is MPL-2.0, and this workspace uses
//! permissive licences only. `rpds` is MIT, and its copies share structure, too.

pub use hashmap::HashMap;

/// The map.
pub mod hashmap {
    use std::borrow::Borrow;
    use std::collections::hash_map::RandomState;
    use std::fmt;
    use std::hash::{BuildHasher, Hash};

    use rpds::HashTrieMapSync;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Entries of a map, in no order.
    pub type Iter<'a, K, V> = rpds::map::hash_trie_map::Iter<'a, K, V, archery::ArcTK>;

    /// A map whose copies share equal parts.
    pub struct HashMap<K, V, S = RandomState>(HashTrieMapSync<K, V, S>)
    where
        K: Eq + Hash,
        S: BuildHasher + Clone;

    impl<K: Eq + Hash, V, S: BuildHasher + Clone> HashMap<K, V, S> {
        /// Returns the value of a key.
        pub fn get<Q>(&self, key: &Q) -> Option<&V>
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            self.0.get(key)
        }

        /// Returns whether the map has this key.
        pub fn contains_key<Q>(&self, key: &Q) -> bool
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            self.0.contains_key(key)
        }

        /// Returns an iterator over all entries.
        pub fn iter(&self) -> Iter<'_, K, V> {
            self.0.iter()
        }

        /// Returns the number of entries.
        #[must_use]
        pub fn len(&self) -> usize {
            self.0.size()
        }

        /// Returns whether the map is empty.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl<K: Eq + Hash + Clone, V: Clone, S: BuildHasher + Clone + Default> HashMap<K, V, S> {
        /// Returns the value of a key, mutable.
        pub fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            self.0.get_mut(key)
        }

        /// Inserts a value. Returns the value that it replaces.
        pub fn insert(&mut self, key: K, value: V) -> Option<V> {
            let before = self.0.get(&key).cloned();
            self.0.insert_mut(key, value);
            before
        }

        /// Removes a key. Returns its value.
        pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            let before = self.0.get(key).cloned();
            self.0.remove_mut(key);
            before
        }

        /// Removes all entries.
        pub fn clear(&mut self) {
            *self = Self::default();
        }
    }

    impl<K: Eq + Hash, V, S: BuildHasher + Clone> Clone for HashMap<K, V, S> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<K: Eq + Hash, V, S: BuildHasher + Clone + Default> Default for HashMap<K, V, S> {
        fn default() -> Self {
            Self(HashTrieMapSync::new_with_hasher_and_ptr_kind(S::default()))
        }
    }

    impl<K: Eq + Hash + fmt::Debug, V: fmt::Debug, S: BuildHasher + Clone> fmt::Debug
        for HashMap<K, V, S>
    {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_map().entries(self.0.iter()).finish()
        }
    }

    impl<K: Eq + Hash, V, S: BuildHasher + Clone + Default> FromIterator<(K, V)> for HashMap<K, V, S> {
        fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
            let mut map = Self::default();
            for (key, value) in entries {
                map.0.insert_mut(key, value);
            }
            map
        }
    }

    impl<K, V, S> Serialize for HashMap<K, V, S>
    where
        K: Eq + Hash + Serialize,
        V: Serialize,
        S: BuildHasher + Clone + Default,
    {
        fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
            self.0.serialize(serializer)
        }
    }

    impl<'de, K, V, S> Deserialize<'de> for HashMap<K, V, S>
    where
        K: Eq + Hash + Deserialize<'de>,
        V: Deserialize<'de>,
        S: BuildHasher + Clone + Default,
    {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            HashTrieMapSync::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HashMap;

    #[test]
    fn a_copy_keeps_what_it_was() {
        let mut map: HashMap<u64, i32> = (0..100).map(|n| (n, 1)).collect();
        let copy = map.clone();
        assert_eq!(map.insert(5, 2), Some(1));
        *map.get_mut(&6).expect("it is there") = 3;
        assert_eq!(map.remove(&7), Some(1));
        assert_eq!(
            (map.get(&5), map.get(&6), map.get(&7)),
            (Some(&2), Some(&3), None)
        );
        assert_eq!((map.len(), copy.len()), (99, 100));
        assert!(copy.iter().all(|(_, n)| *n == 1));
        map.clear();
        assert!(map.is_empty() && !map.contains_key(&5));
    }
}
