//! Routers in order of their ids, each found in a step or two.
//!
//! Ids are hashes and spread evenly, so their first bits say about where one is. Somebody who makes ids that all begin
//! alike has them searched by halves.

use std::ops::{Deref, RangeInclusive};

use librecast::id::OriginId;

/// Ids in ascending order, none twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    ids: Vec<OriginId>,
    /// Where those begin whose first bits are these, and one past the last.
    index: Vec<u32>,
    index_shift: u32,
}

impl Default for Names {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl Deref for Names {
    type Target = [OriginId];

    fn deref(&self) -> &[OriginId] {
        &self.ids
    }
}

/// Ids that are in order, at most 2^24.
impl From<Vec<OriginId>> for Names {
    fn from(ids: Vec<OriginId>) -> Self {
        // as many parts as ids, a power of two
        let bits = ids.len().max(2).next_power_of_two().ilog2();
        let index_shift = 64 - bits;
        let mut index = vec![0; (1 << bits) + 1];
        for id in &ids {
            index[(id.0 >> index_shift) as usize + 1] += 1;
        }
        for at in 1..index.len() {
            index[at] += index[at - 1];
        }
        Self {
            ids,
            index,
            index_shift,
        }
    }
}

impl Names {
    /// Where `id` is, or would be.
    pub fn find(&self, id: OriginId) -> Result<usize, usize> {
        let part = (id.0 >> self.index_shift) as usize;
        let (from, to) = (self.index[part] as usize, self.index[part + 1] as usize);
        let found = self.ids[from..to].binary_search(&id);
        found.map(|at| from + at).map_err(|at| from + at)
    }

    /// Where `id` is.
    pub fn position(&self, id: OriginId) -> Option<usize> {
        self.find(id).ok()
    }

    fn insert(&mut self, at: usize, id: OriginId) {
        self.ids.insert(at, id);
        if self.ids.len() > 2 * self.index.len() {
            *self = Self::from(std::mem::take(&mut self.ids));
            return;
        }
        self.move_parts_after(id, 1);
    }

    fn remove(&mut self, at: usize) {
        let id = self.ids.remove(at);
        self.move_parts_after(id, u32::MAX);
    }

    fn move_parts_after(&mut self, id: OriginId, by: u32) {
        let part = (id.0 >> self.index_shift) as usize;
        for begin in &mut self.index[part + 1..] {
            *begin = begin.wrapping_add(by);
        }
    }
}

/// Something for each of many routers.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    names: Names,
    values: Vec<T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self {
            names: Names::default(),
            values: Vec::new(),
        }
    }
}

impl<T> ByName<T> {
    pub fn get(&self, id: &OriginId) -> Option<&T> {
        Some(&self.values[self.names.position(*id)?])
    }

    pub fn get_mut(&mut self, id: &OriginId) -> Option<&mut T> {
        Some(&mut self.values[self.names.position(*id)?])
    }

    pub fn contains_key(&self, id: &OriginId) -> bool {
        self.names.position(*id).is_some()
    }

    pub fn insert(&mut self, id: OriginId, value: T) {
        match self.names.find(id) {
            Ok(at) => self.values[at] = value,
            Err(at) => {
                self.names.insert(at, id);
                self.values.insert(at, value);
            }
        }
    }

    pub fn remove(&mut self, id: &OriginId) -> Option<T> {
        let at = self.names.position(*id)?;
        self.names.remove(at);
        Some(self.values.remove(at))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// In ascending order, as all that follows.
    pub fn iter(&self) -> impl Iterator<Item = (OriginId, &T)> {
        self.names.iter().copied().zip(&self.values)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (OriginId, &mut T)> {
        self.names.iter().copied().zip(&mut self.values)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub fn range(&self, ids: RangeInclusive<OriginId>) -> impl Iterator<Item = (OriginId, &T)> {
        let start = self.names.find(*ids.start()).unwrap_or_else(|at| at);
        let inside = move |(id, _): &(OriginId, &T)| ids.contains(id);
        self.iter().skip(start).take_while(inside)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_in_order(
            steps in prop::collection::vec((0u64..40, 0u32..64, any::<bool>(), 0u32..4), 0..400),
        ) {
            let (mut map, mut expected) = (ByName::default(), BTreeMap::new());
            for (n, (key, shift, alike, step)) in steps.into_iter().enumerate() {
                // spread over all ids, or all of them nearly the same
                let id = OriginId(if alike { u64::MAX - key } else { key.rotate_right(shift) });
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
            }
            let all: Vec<_> = expected.iter().map(|(id, n)| (*id, n)).collect();
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), all.clone());
            prop_assert!(map.values().eq(expected.values()));
            prop_assert!(all.iter().all(|(id, n)| map.get(id) == Some(n)));
            for &(from, _) in &all {
                for to in [from, OriginId(from.0 | 0xff), OriginId(u64::MAX)] {
                    let expected = expected.range(from..=to).map(|(id, n)| (*id, n));
                    prop_assert!(map.range(from..=to).eq(expected));
                }
            }
            let names = Names::from(all.iter().map(|(id, _)| *id).collect::<Vec<_>>());
            prop_assert!(names.iter().enumerate().all(|(at, id)| names.position(*id) == Some(at)));
        }
    }
}
