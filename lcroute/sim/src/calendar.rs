//! Future inputs of a shard's nodes: slots of time as long as the least latency of a message.
//!
//! ```text
//!   first                first + SLOTS
//!     | slot | slot | ... | slot |  far: slots by number, moved here when near
//! ```

use std::collections::BTreeMap;

use crate::time::Nanos;

/// Slots of the wheel. Chosen: a power of two.
const SLOTS: u64 = 1 << 12;

#[derive(Debug)]
struct Slot<T> {
    items: Vec<(Nanos, T)>,
    earliest: Nanos,
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self {
            items: Vec::new(),
            earliest: Nanos::MAX,
        }
    }

    fn push(&mut self, at: Nanos, item: T) {
        self.earliest = self.earliest.min(at);
        self.items.push((at, item));
    }
}

/// Items by time. They are unordered within a slot: the caller sorts them.
#[derive(Debug)]
pub struct Calendar<T> {
    /// Length of a slot.
    width: Nanos,
    /// Number of the current slot; earlier ones are empty.
    first: u64,
    /// Slot n has the index n modulo [`SLOTS`].
    near: Vec<Slot<T>>,
    in_near: usize,
    far: BTreeMap<u64, Slot<T>>,
}

impl<T> Calendar<T> {
    pub fn new(width: Nanos) -> Self {
        Self {
            width: width.max(1),
            first: 0,
            near: (0..SLOTS).map(|_| Slot::new()).collect(),
            in_near: 0,
            far: BTreeMap::new(),
        }
    }

    pub fn slot_end(&self, at: Nanos) -> Nanos {
        (at / self.width + 1).saturating_mul(self.width)
    }

    /// Adds an item at `at`, no earlier than the last taken time.
    pub fn push(&mut self, at: Nanos, item: T) {
        let number = (at / self.width).max(self.first);
        if number - self.first < SLOTS {
            self.in_near += 1;
            self.near[(number % SLOTS) as usize].push(at, item);
        } else {
            let slot = self.far.entry(number).or_insert_with(Slot::new);
            slot.push(at, item);
        }
    }

    pub fn next_at(&self) -> Option<Nanos> {
        if self.in_near == 0 {
            return self.far.values().next().map(|slot| slot.earliest);
        }
        let numbers = self.first..self.first + SLOTS;
        let mut slots = numbers.map(|n| &self.near[(n % SLOTS) as usize]);
        let slot = slots.find(|slot| !slot.items.is_empty())?;
        Some(slot.earliest)
    }

    /// Returns the number of items in the slot of this time.
    pub fn len_at(&self, at: Nanos) -> usize {
        let number = at / self.width;
        if number < self.first || number - self.first >= SLOTS {
            return 0;
        }
        self.near[(number % SLOTS) as usize].items.len()
    }

    /// Moves all items before `until` into `due`; they are in one slot.
    pub fn take(&mut self, until: Nanos, due: &mut Vec<(Nanos, T)>) {
        let number = until.saturating_sub(1) / self.width;
        self.advance(number);
        let slot = &mut self.near[(number % SLOTS) as usize];
        let before = due.len();
        if slot.earliest >= until {
            return;
        }
        due.extend(slot.items.extract_if(.., |(at, _)| *at < until));
        let left = slot.items.iter().map(|(at, _)| *at).min();
        slot.earliest = left.unwrap_or(Nanos::MAX);
        self.in_near -= due.len() - before;
    }

    fn advance(&mut self, to: u64) {
        if to <= self.first {
            return;
        }
        self.first = to;
        while let Some(entry) = self.far.first_entry()
            && *entry.key() < to + SLOTS
        {
            let (number, slot) = entry.remove_entry();
            self.in_near += slot.items.len();
            self.near[(number % SLOTS) as usize] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draw as _, Random};

    #[test]
    fn everything_comes_in_its_slot_and_nothing_twice() {
        let (mut calendar, mut random) = (Calendar::new(10), Random::stream(1, &[]));
        let (mut waiting, mut now) = (BTreeMap::new(), 0);
        let mut number = 0;
        for _ in 0..5_000 {
            for _ in 0..random.index(4) {
                // near, and far beyond the wheel
                let reach = if random.chance(0.1) { 200_000 } else { 300 };
                let at = now + random.time(0, reach);
                calendar.push(at, number);
                waiting.insert((at, number), ());
                number += 1;
            }
            let first = waiting.keys().next().map(|(at, _)| *at);
            assert_eq!(calendar.next_at(), first);
            let Some(next) = first else { continue };
            // to the end of the slot, or to a time inside it
            let end = calendar.slot_end(next);
            let until = random.time(next + 1, end + 1).min(end);
            let mut due = Vec::new();
            calendar.take(until, &mut due);
            due.sort_unstable();
            let later = waiting.split_off(&(until, 0));
            let expected: Vec<_> = waiting.into_keys().collect();
            assert_eq!(due, expected);
            (waiting, now) = (later, until);
        }
        assert!(number > 5_000);
    }
}
