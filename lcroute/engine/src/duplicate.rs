//! Duplicate windows: one per origin and incarnation.
//!
//! A receiver gets only the joined packets of an origin, so sequence numbers leap. A leap of more
//! than [`MAX_JUMP`] does not move the window: it opens a second one *beyond*. Only a further leap
//! from there ends the first. So one wrong number blocks nothing, and a slow flow loses nothing.
//!
//! ```text
//!  behind | current window | up to MAX_JUMP: moves it | gap | beyond window | up to MAX_JUMP
//!  refuse |  accept once   |          accept          |     |  accept once  |          accept
//! ```

use smallvec::{SmallVec, smallvec};

/// Largest move of a window by one packet.
const MAX_JUMP: u64 = 1 << 20;
/// Smallest size of a window in sequence numbers.
pub const MIN_SIZE: u64 = 4_096;
/// Largest size of a window: far less than a jump, so that the two windows never overlap.
pub const MAX_SIZE: u64 = 1 << 16;

/// Sequence numbers up to `top`, with a bit for each of the last ones.
#[derive(Debug)]
struct Window {
    top: u64,
    /// Bits of the last numbers, in a ring: only from the first accepted number to the last. Most
    /// origins are silent most of the time, and there may be thousands.
    seen: SmallVec<[u64; 2]>,
}

impl Window {
    fn starting_with(sequence: u64) -> Self {
        let mut window = Self {
            top: sequence,
            seen: smallvec![0],
        };
        window.mark(sequence);
        window
    }

    /// Number of bits of the ring.
    fn span(&self) -> u64 {
        self.seen.len() as u64 * 64
    }

    fn slot(&self, sequence: u64) -> (usize, u64) {
        let at = sequence % self.span();
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Marks a number inside the ring; false if it was marked.
    fn mark(&mut self, sequence: u64) -> bool {
        let (word, bit) = self.slot(sequence);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    /// The result of [`Self::accept`], without a change.
    fn would_accept(&self, sequence: u64, size: u64) -> bool {
        if sequence + size <= self.top {
            return false;
        }
        if sequence > self.top || self.top - sequence >= self.span() {
            return true;
        }
        let (word, bit) = self.slot(sequence);
        self.seen[word] & bit == 0
    }

    /// Accepts a number of at most `top + MAX_JUMP`; false: a duplicate, or behind the last `size`.
    fn accept(&mut self, sequence: u64, size: u64) -> bool {
        if sequence + size <= self.top {
            return false;
        }
        if sequence > self.top {
            self.move_to(sequence, size);
        } else if self.top - sequence >= self.span() {
            self.stretch(self.top - sequence, size);
        }
        debug_assert!(self.span() <= size, "a ring is no longer than the window");
        self.mark(sequence)
    }

    fn move_to(&mut self, top: u64, size: u64) {
        if self.span() < size
            && let Some(lowest) = self.lowest_from((top + 1).saturating_sub(size))
            && top - lowest >= self.span()
        {
            self.stretch(top - lowest, size);
        }
        if top - self.top >= self.span() {
            self.seen.fill(0);
        } else {
            for passed in self.top + 1..=top {
                let (word, bit) = self.slot(passed);
                self.seen[word] &= !bit;
            }
        }
        self.top = top;
    }

    /// The lowest accepted number from `least` on.
    fn lowest_from(&self, least: u64) -> Option<u64> {
        let bottom = (self.top + 1).saturating_sub(self.span()).max(least);
        let mut words = bottom / 64..=self.top / 64;
        words.find_map(|word| {
            let (first, last) = (word * 64, word * 64 + 63);
            // one end of the ring shares a word with the other
            let from = u64::MAX << bottom.saturating_sub(first);
            let to = u64::MAX >> last.saturating_sub(self.top);
            let bits = self.seen[(word % self.seen.len() as u64) as usize] & from & to;
            (bits != 0).then(|| first + u64::from(bits.trailing_zeros()))
        })
    }

    /// Makes the ring long enough for a number `back` behind another; `size` is more than that.
    fn stretch(&mut self, back: u64, size: u64) {
        let mut words = self.seen.len();
        while words as u64 * 64 <= back {
            words *= 2;
        }
        let longer = smallvec![0; words.min((size / 64) as usize)];
        let before = Self {
            top: self.top,
            seen: std::mem::replace(&mut self.seen, longer),
        };
        let mut next = before.lowest_from(0);
        while let Some(number) = next {
            self.mark(number);
            next = before.lowest_from(number + 1);
        }
    }
}

/// A window far ahead, and the first number that belongs to it.
#[derive(Debug)]
struct Beyond {
    first: u64,
    window: Window,
}

impl Beyond {
    fn new(sequence: u64, size: u64) -> Self {
        Self {
            first: sequence.saturating_sub(size - 1),
            window: Window::starting_with(sequence),
        }
    }
}

/// The duplicate windows of one origin in one incarnation.
#[derive(Debug, Default)]
pub struct Windows {
    current: Option<Window>,
    /// Few origins have one.
    beyond: Option<Box<Beyond>>,
}

impl Windows {
    /// The result of [`Self::accept`], without a change.
    pub fn would_accept(&self, sequence: u64, size: u64) -> bool {
        let Some(current) = &self.current else {
            return true;
        };
        let window = match &self.beyond {
            Some(beyond) if sequence >= beyond.first => &beyond.window,
            _ => current,
        };
        sequence > window.top + MAX_JUMP || window.would_accept(sequence, size)
    }

    /// Accepts each number once; a window remembers `size` of them, a multiple of 64.
    pub fn accept(&mut self, sequence: u64, size: u64) -> bool {
        let Some(current) = &mut self.current else {
            self.current = Some(Window::starting_with(sequence));
            return true;
        };
        if let Some(beyond) = &mut self.beyond
            && sequence >= beyond.first
        {
            if sequence <= beyond.window.top + MAX_JUMP {
                return beyond.window.accept(sequence, size);
            }
            let before = std::mem::replace(&mut **beyond, Beyond::new(sequence, size));
            self.current = Some(before.window);
            return true;
        }
        if sequence <= current.top + MAX_JUMP {
            return current.accept(sequence, size);
        }
        match self.beyond {
            None => self.beyond = Some(Box::new(Beyond::new(sequence, size))),
            // between both windows, where no number was ever accepted
            Some(_) => self.current = Some(Window::starting_with(sequence)),
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
        let expected = windows.would_accept(sequence, 4096);
        let passes = windows.accept(sequence, 4096);
        assert_eq!(passes, expected, "{sequence}");
        passes
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

    #[test]
    fn a_window_holds_no_more_than_from_the_first_number_to_the_last() {
        let mut d = Windows::default();
        let words = |d: &Windows| d.current.as_ref().unwrap().seen.len();
        for (sequence, expected) in [
            (1_000, 1),
            (1_063, 1),
            (1_064, 2),
            (1_127, 2),
            (1_300, 8),
            (500_000, 8),
            (500_000 - 4_095, 64),
        ] {
            assert!(passes(&mut d, sequence));
            assert_eq!(words(&d), expected, "{sequence}");
        }
    }

    proptest! {
        /// As if all numbers of the window were remembered from the start.
        #[test]
        fn a_short_ring_is_as_good_as_a_long_one(
            steps in prop::collection::vec(prop_oneof![
                8 => -70i64..70, 2 => -5000i64..5000, 1 => -20_000i64..20_000,
            ], 0..400),
        ) {
            let (mut d, mut passed, mut at) = (Windows::default(), HashSet::new(), 1i64 << 30);
            let mut top = 0;
            for step in steps {
                at += step;
                let expected = at + 4_096 > top && passed.insert(at);
                prop_assert_eq!(passes(&mut d, at as u64), expected);
                top = top.max(at);
            }
        }

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
