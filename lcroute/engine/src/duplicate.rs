//! Duplicate windows: one per origin and incarnation (routing.md calls it safety 6).
//!
//! A receiver sees only those of an origin's packets that it asked for, so sequence numbers leap. A leap
//! of more than [`MAX_JUMP`] does not move the window: it opens a second one *beyond*, and only a further
//! leap from there leaves the first behind. So one wrong number blocks nothing, and a slow flow of a busy
//! origin loses nothing.
//!
//! ```text
//!  behind | current window | up to MAX_JUMP: moves it | gap | beyond window | up to MAX_JUMP: moves it
//!  refuse |  accept once   |          accept          |     |  accept once  |          accept
//! ```

/// How far one packet can move a window.
const MAX_JUMP: u64 = 1 << 20;
/// The least that a window remembers.
pub const MIN_SIZE: u64 = 4_096;
/// The most: far less than a jump, so that the two windows never overlap.
pub const MAX_SIZE: u64 = 1 << 16;

/// Sequence numbers `first..=top` of which the last `size` are remembered one by one.
#[derive(Debug)]
struct Window {
    first: u64,
    top: u64,
    seen: Box<[u64]>,
}

impl Window {
    fn starting_with(sequence: u64, size: u64) -> Self {
        let seen = vec![0; (size / 64) as usize].into_boxed_slice();
        let first = sequence.saturating_sub(size - 1);
        let mut window = Self {
            first,
            top: sequence,
            seen,
        };
        window.mark(sequence);
        window
    }

    fn size(&self) -> u64 {
        self.seen.len() as u64 * 64
    }

    fn slot(&self, sequence: u64) -> (usize, u64) {
        let at = sequence % self.size();
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Marks a number inside the window; false if it was marked.
    fn mark(&mut self, sequence: u64) -> bool {
        let (word, bit) = self.slot(sequence);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    /// Takes a number of at most `top + MAX_JUMP`; false if it was there or lies behind.
    fn accept(&mut self, sequence: u64) -> bool {
        if sequence < self.first || sequence + self.size() <= self.top {
            return false;
        }
        if sequence > self.top {
            if sequence - self.top >= self.size() {
                self.seen.fill(0);
            } else {
                for passed in self.top + 1..=sequence {
                    let (word, bit) = self.slot(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.top = sequence;
        }
        self.mark(sequence)
    }
}

/// What has passed of one origin in one incarnation.
#[derive(Debug, Default)]
pub struct Windows {
    current: Option<Window>,
    beyond: Option<Window>,
}

impl Windows {
    /// Lets each number pass once; a window remembers `size` of them.
    pub fn accept(&mut self, sequence: u64, size: u64) -> bool {
        let new = || Window::starting_with(sequence, size);
        let Some(current) = &mut self.current else {
            self.current = Some(new());
            return true;
        };
        if let Some(beyond) = &mut self.beyond
            && sequence >= beyond.first
        {
            if sequence <= beyond.top + MAX_JUMP {
                return beyond.accept(sequence);
            }
            self.current = self.beyond.replace(new());
            return true;
        }
        if sequence <= current.top + MAX_JUMP {
            return current.accept(sequence);
        }
        match self.beyond {
            None => self.beyond = Some(new()),
            // between the two, where nothing was ever accepted
            Some(_) => self.current = Some(new()),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::header::MAX_SEQUENCE;

    fn passes(windows: &mut Windows, sequence: u64) -> bool {
        windows.accept(sequence, 4096)
    }

    #[test]
    fn each_number_passes_once_in_any_order() {
        let mut d = Windows::default();
        for s in [100, 101, 105, 103, 102] {
            assert!(passes(&mut d, s));
            assert!(!passes(&mut d, s));
        }
        assert!(passes(&mut d, 105 + 4095));
        assert!(!passes(&mut d, 104), "behind the window");
        assert!(passes(&mut d, 106), "its last number");
    }

    #[test]
    fn a_window_that_moved_forgets_what_it_passed() {
        let mut d = Windows::default();
        assert!(passes(&mut d, 1));
        for s in [4097, 4098, 2 * 4096 + 1, 40 * 4096 + 1] {
            assert!(
                passes(&mut d, s),
                "{s} shares a slot with an earlier number"
            );
        }
    }

    #[test]
    fn one_wrong_number_blocks_nothing() {
        let mut d = Windows::default();
        assert!(passes(&mut d, 10));
        assert!(passes(&mut d, MAX_SEQUENCE));
        assert!(!passes(&mut d, MAX_SEQUENCE));
        for s in 11..6000 {
            assert!(passes(&mut d, s));
            assert!(!passes(&mut d, s));
        }
        assert!(passes(&mut d, 5_000_000), "an honest leap");
        assert!(passes(&mut d, 5_000_001));
        assert!(!passes(&mut d, 5_000_000));
        assert!(!passes(&mut d, MAX_SEQUENCE));
    }

    #[test]
    fn a_slow_flow_of_a_busy_origin_loses_nothing() {
        let mut d = Windows::default();
        for s in (1..50).map(|n| n * 3_000_000) {
            assert!(passes(&mut d, s));
            assert!(passes(&mut d, s - 5), "out of order");
            assert!(!passes(&mut d, s));
            assert!(!passes(&mut d, s - 5));
        }
    }

    proptest! {
        #[test]
        fn never_twice(
            steps in prop::collection::vec(prop_oneof![
                8 => -50i64..50, 2 => -5000i64..5000, 1 => -3_000_000i64..3_000_000,
                1 => Just(1i64 << 40), 1 => Just(-(1i64 << 40)),
            ], 0..400),
        ) {
            let (mut d, mut passed, mut at) = (Windows::default(), HashSet::new(), 1i64 << 30);
            for step in steps {
                at = (at + step).clamp(0, MAX_SEQUENCE as i64);
                if passes(&mut d, at as u64) {
                    prop_assert!(passed.insert(at), "{} twice", at);
                }
            }
        }
    }
}
