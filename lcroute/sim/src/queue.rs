//! What will happen, by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Nanos;

/// Events in the order of their time; those of one moment in the order in which they were put in.
///
/// The heap holds only times and places; events stay where they are.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    number: u64,
}

impl<E> Queue<E> {
    /// Nothing will happen.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            number: 0,
        }
    }

    /// At `at`, `event` happens.
    pub fn push(&mut self, at: Nanos, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.number += 1;
        self.heap.push(Reverse((at, self.number, place)));
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next event.
    pub fn pop(&mut self) -> Option<(Nanos, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events[place as usize].take()?;
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_order() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (1, 'd'), (3, 'e')] {
            queue.push(at, event);
        }
        assert_eq!(queue.pop(), Some((1, 'd')));
        queue.push(3, 'f');
        assert_eq!(queue.next_at(), Some(3));
        let rest: String = std::iter::from_fn(|| queue.pop()).map(|(_, e)| e).collect();
        assert_eq!(rest, "befac");
        assert_eq!(queue.next_at(), None);
        assert!(queue.events.len() <= 5, "places are used again");
    }
}
