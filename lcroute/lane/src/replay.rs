//! Indices of packets: their replay window, a sliding bitmap (RFC 3711, section 3.3.2), and the
//! extension of their low bits.

/// Bits of an index (RFC 3711, section 3.3.1).
pub const INDEX_BITS: u32 = 48;

/// A window of the last `64 x words` indices, rounded down to whole words.
#[derive(Debug)]
pub struct ReplayWindow {
    words: Box<[u64]>,
    /// The highest index seen, if any.
    highest: Option<u64>,
}

impl ReplayWindow {
    /// Makes a window over at least `64 x (words - 1)` indices; `words` is a power of two.
    #[must_use]
    pub fn new(words: usize) -> Self {
        debug_assert!(words.is_power_of_two());
        Self {
            words: vec![0; words].into_boxed_slice(),
            highest: None,
        }
    }

    /// Returns the highest index seen, if any.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether `index` is acceptable: neither seen nor too old.
    pub fn is_new(&self, index: u64) -> bool {
        match self.highest {
            Some(highest) if index <= highest => {
                self.covers(index, highest) && self.word(index) & bit(index) == 0
            }
            _ => true,
        }
    }

    /// Marks an authentic index for which [`Self::is_new`] is true.
    pub fn mark(&mut self, index: u64) {
        let from = match self.highest {
            Some(highest) if index <= highest => None,
            Some(highest) => Some(highest / 64 + 1),
            None => Some(0),
        };
        if let Some(from) = from {
            let (word, size) = (index / 64, self.words.len() as u64);
            // bounded by the window's size after an outage of any length
            for fresh in from.max((word + 1).saturating_sub(size))..=word {
                self.words[slot(fresh, size)] = 0;
            }
            self.highest = Some(index);
        }
        let size = self.words.len() as u64;
        self.words[slot(index / 64, size)] |= bit(index);
    }

    /// Whether `index` was seen, within the window.
    pub fn was_seen(&self, index: u64) -> bool {
        self.highest.is_some_and(|highest| {
            index <= highest && self.covers(index, highest) && self.word(index) & bit(index) != 0
        })
    }

    /// Returns the number of unseen indices from `from` to `to`, including those before the window.
    pub fn missing(&self, from: u64, to: u64) -> u64 {
        let Some(highest) = self.highest.filter(|_| from <= to) else {
            return 0;
        };
        let oldest = (highest / 64 + 1).saturating_sub(self.words.len() as u64);
        let words = (from / 64).max(oldest)..=(to / 64).min(highest / 64);
        let seen = words.map(|word| {
            let below = if word == from / 64 {
                !0 << (from % 64)
            } else {
                !0
            };
            let above = if word == to / 64 {
                !0 >> (63 - to % 64)
            } else {
                !0
            };
            u64::from((self.word(word * 64) & below & above).count_ones())
        });
        to - from + 1 - seen.sum::<u64>()
    }

    fn covers(&self, index: u64, highest: u64) -> bool {
        highest / 64 - index / 64 < self.words.len() as u64
    }

    fn word(&self, index: u64) -> u64 {
        self.words[slot(index / 64, self.words.len() as u64)]
    }
}

/// Returns the index with these low `bits`, at most 32, that is nearest to `highest`.
#[must_use]
pub fn extend(low: u32, bits: u32, highest: u64) -> u64 {
    let round = 1_u64 << bits;
    let near = (highest & !(round - 1)) | u64::from(low);
    if near > highest + round / 2 && near >= round {
        near - round
    } else if near + round / 2 < highest && near + round < 1 << INDEX_BITS {
        near + round
    } else {
        near
    }
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

fn slot(word: u64, size: u64) -> usize {
    // less than the number of words, which is a usize
    usize::try_from(word & (size - 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_index_counts_once() {
        let mut w = ReplayWindow::new(4);
        for index in [0, 5, 3, 200, 199, 140] {
            assert!(w.is_new(index));
            w.mark(index);
            assert!(!w.is_new(index), "{index}");
        }
        assert!(w.is_new(4));
        w.mark(256);
        assert!(!w.is_new(4), "too old");
        assert!(w.is_new(64));
    }

    #[test]
    fn a_jump_forgets_all() {
        let mut w = ReplayWindow::new(4);
        (0..256).for_each(|i| w.mark(i));
        w.mark(1 << 40);
        assert!(w.is_new((1 << 40) - 1) && !w.is_new(255) && !w.is_new(1 << 40));
    }

    proptest! {
        /// Against a set that keeps everything.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0_u64..500), 1..300)) {
            let (mut w, mut seen, mut top) = (ReplayWindow::new(4), BTreeSet::new(), 0_u64);
            for (ahead, by) in steps {
                let index = if ahead { top + by } else { top.saturating_sub(by) };
                let old = top / 64 - index.min(top) / 64 >= 4;
                prop_assert_eq!(w.is_new(index), !seen.contains(&index) && !old);
                if w.is_new(index) {
                    w.mark(index);
                    seen.insert(index);
                    top = top.max(index);
                    prop_assert!(w.was_seen(index));
                }
            }
            let oldest = (top / 64 + 1).saturating_sub(4) * 64;
            for (from, to) in [(oldest, top), (oldest + 1, top), (top / 2, top), (top, top)] {
                let count = (from..=to).filter(|i| *i < oldest || !seen.contains(i)).count();
                prop_assert_eq!(w.missing(from, to), count as u64);
            }
        }
    }
}
