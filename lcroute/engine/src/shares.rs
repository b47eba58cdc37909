//! Shares of a table. Without room, the largest share gives way to smaller ones, entry by entry: no
//! share falls below another that needs more (max-min fairness).

use std::collections::{BTreeMap, BTreeSet};

/// Entries of a table, by payer.
#[derive(Debug)]
pub struct Shares<P, K> {
    parts: BTreeMap<P, BTreeSet<K>>,
    len: usize,
}

impl<P, K> Default for Shares<P, K> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<P: Ord + Copy, K: Ord + Copy> Shares<P, K> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn of(&self, payer: P) -> usize {
        self.parts.get(&payer).map_or(0, BTreeSet::len)
    }

    /// All shares with entries, and their sizes, in order.
    pub fn parts(&self) -> impl Iterator<Item = (P, usize)> + '_ {
        self.parts.iter().map(|(payer, part)| (*payer, part.len()))
    }

    pub fn insert(&mut self, payer: P, key: K) {
        let part = self.parts.entry(payer).or_default();
        self.len += usize::from(part.insert(key));
        debug_assert!(self.len >= part.len(), "the sum counts each share");
    }

    pub fn remove(&mut self, payer: P, key: K) {
        if let Some(part) = self.parts.get_mut(&payer) {
            self.len -= usize::from(part.remove(&key));
            if part.is_empty() {
                self.parts.remove(&payer);
            }
        }
        debug_assert_eq!(
            self.len == 0,
            self.parts.is_empty(),
            "a share without entries is gone"
        );
    }

    /// The first entry of a share.
    pub fn first(&self, payer: P) -> Option<K> {
        self.parts.get(&payer)?.first().copied()
    }

    pub fn last(&self, payer: P) -> Option<K> {
        self.parts.get(&payer)?.last().copied()
    }

    /// The largest share; of equal ones the last.
    pub fn largest(&self) -> Option<(P, usize)> {
        self.parts().max_by_key(|(_, size)| *size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_what_is_in_them() {
        let mut shares = Shares::default();
        for (payer, key) in [(1, 10), (1, 11), (2, 12), (1, 10)] {
            shares.insert(payer, key);
        }
        assert_eq!((shares.len(), shares.of(1), shares.of(3)), (3, 2, 0));
        assert_eq!((shares.first(1), shares.last(1)), (Some(10), Some(11)));
        assert_eq!(shares.largest(), Some((1, 2)));
        shares.remove(1, 11);
        shares.remove(1, 12);
        assert_eq!(shares.largest(), Some((2, 1)), "of equal ones the last");
        shares.remove(2, 12);
        assert_eq!(shares.parts().collect::<Vec<_>>(), [(1, 1)]);
    }
}
