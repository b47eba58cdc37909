//! Routers in order of their ids, each found in a step or two.
//!
//! Ids are hashes and spread evenly, so the first bits of an id show its approximate position. Many
//! ids with equal first bits only cost a binary search.

use std::ops::Deref;

use librecast::id::OriginId;

use crate::small_map::{Keys, SortedMap};

/// Ids in ascending order, none twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RouterIndex {
    ids: Vec<OriginId>,
    /// Start of the ids with these first bits, and the end of the last ones.
    index: Vec<u32>,
    index_shift: u32,
}

impl Default for RouterIndex {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl Deref for RouterIndex {
    type Target = [OriginId];

    fn deref(&self) -> &[OriginId] {
        &self.ids
    }
}

/// Ids must be in order, at most 2^24.
impl From<Vec<OriginId>> for RouterIndex {
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

impl RouterIndex {
    /// The position of `id`.
    pub fn position(&self, id: OriginId) -> Option<usize> {
        self.find(id).ok()
    }

    fn move_parts_after(&mut self, id: OriginId, by: u32) {
        let part = (id.0 >> self.index_shift) as usize;
        for begin in &mut self.index[part + 1..] {
            *begin = begin.wrapping_add(by);
        }
    }
}

impl Keys for RouterIndex {
    type Key = OriginId;

    fn find(&self, id: OriginId) -> Result<usize, usize> {
        let part = (id.0 >> self.index_shift) as usize;
        let (from, to) = (self.index[part] as usize, self.index[part + 1] as usize);
        let found = self.ids[from..to].binary_search(&id);
        found.map(|at| from + at).map_err(|at| from + at)
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
}

/// A map of values of many routers.
pub(crate) type RouterMap<T> = SortedMap<RouterIndex, T>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_name_is_where_it_is(mut ids in prop::collection::vec(any::<u64>(), 0..400), shift in 0u32..64) {
            // spread over all ids, or nearly equal
            ids.iter_mut().for_each(|id| *id >>= shift);
            ids.sort_unstable();
            ids.dedup();
            let names = RouterIndex::from(ids.iter().copied().map(OriginId).collect::<Vec<_>>());
            for (at, id) in ids.iter().enumerate() {
                prop_assert_eq!(names.position(OriginId(*id)), Some(at));
                let next = id.wrapping_add(1);
                prop_assert_eq!(names.find(OriginId(next)), ids.binary_search(&next));
            }
        }
    }
}
