//! A network in memory and virtual time, for tests and simulators: it delays, reorders, duplicates
//! and loses datagrams. The seed decides.
//!
//! ```text
//!   send ──► loss ──► duplicates ──► delay, jitter ──► cut? ──► poll
//!   post ─────────────────────────────────────────────────────► poll
//! ```
//!
//! Time is any type of the test: an `Instant`, or the `Duration` since the beginning. A
//! [`Bottleneck`] may precede `send`, which then takes its output times. A [`Kernel`] joins groups
//! at a host, a [`Firewall`] protects it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Sub};
use std::time::Duration;

use crate::random::Random;

mod firewall;
mod kernel;

pub use firewall::{Behavior, Firewall};
pub use kernel::{Joined, Kernel, Membership};

/// A point of virtual time.
pub trait Time: Copy + Ord + Add<Duration, Output = Self> + Sub<Output = Duration> {}

impl<T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>> Time for T {}

/// Future events by time; those of one moment in order of insertion.
#[derive(Debug)]
pub struct Queue<T, E> {
    events: BTreeMap<(T, u64), E>,
    number: u64,
}

impl<T, E> Default for Queue<T, E> {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            number: 0,
        }
    }
}

impl<T: Copy + Ord, E> Queue<T, E> {
    /// Adds an event at `at`.
    pub fn push(&mut self, at: T, event: E) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    /// Returns the time of the next event.
    pub fn next_at(&self) -> Option<T> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns all events in their order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.events.values()
    }

    /// Takes the next event up to `now`, with its time.
    pub fn pop(&mut self, now: T) -> Option<(T, E)> {
        let first = self.events.first_entry()?;
        let (at, _) = *first.key();
        (at <= now).then(|| (at, first.remove()))
    }
}

/// The effect of a path on datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path {
    /// Least transit time.
    pub delay: Duration,
    /// Most additional transit time, uniform: datagrams may overtake.
    pub jitter: Duration,
    /// Probability of a loss, 0 to 1.
    pub loss: f64,
    /// Probability of a duplicate, if not lost, 0 to 1.
    pub duplicates: f64,
}

impl Path {
    /// Draws the transit time of a datagram.
    fn takes(&self, random: &mut Random) -> Duration {
        self.delay + self.jitter.mul_f64(random.unit())
    }

    /// Draws the number of copies of a datagram.
    fn copies(&self, random: &mut Random) -> usize {
        if random.chance(self.loss) {
            return 0;
        }
        1 + usize::from(random.chance(self.duplicates))
    }
}

/// Hosts of type `N`, and payloads of type `P` between them.
#[derive(Debug)]
pub struct Network<T, N, P> {
    /// The path of later datagrams.
    pub path: Path,
    /// Pairs of hosts that are cut off, in both directions.
    pub cut: BTreeSet<(N, N)>,
    /// The source of all randomness.
    pub random: Random,
    on_the_way: Queue<T, (Option<(N, N)>, P)>,
    /// Arrival of the last payload in order.
    in_order: BTreeMap<(N, N), T>,
}

impl<T: Time, N: Copy + Ord, P: Clone> Network<T, N, P> {
    /// Makes a network of one path between all hosts.
    #[must_use]
    pub fn new(path: Path, seed: u64) -> Self {
        Self {
            path,
            cut: BTreeSet::new(),
            random: Random::new(seed),
            on_the_way: Queue::default(),
            in_order: BTreeMap::new(),
        }
    }

    /// Sends a datagram at `at`. Returns the number of copies: they arrive unless the link is cut.
    pub fn send(&mut self, from: N, to: N, payload: P, at: T) -> usize {
        let copies = self.path.copies(&mut self.random);
        for _ in 0..copies {
            let arrives = at + self.path.takes(&mut self.random);
            let ends = Some((from, to));
            self.on_the_way.push(arrives, (ends, payload.clone()));
        }
        copies
    }

    /// Sends a piece of a reliable stream at `at`: it arrives once, after all sent before it.
    pub fn send_in_order(&mut self, from: N, to: N, payload: P, at: T) {
        let arrives = at + self.path.takes(&mut self.random);
        let last = self.in_order.entry((from, to)).or_insert(arrives);
        *last = arrives.max(*last);
        self.on_the_way.push(*last, (Some((from, to)), payload));
    }

    /// Delivers a payload at `at` for certain: by another path, or as a local event.
    pub fn post(&mut self, payload: P, at: T) {
        self.on_the_way.push(at, (None, payload));
    }

    /// Returns the next payload that has arrived by `now`.
    pub fn poll(&mut self, now: T) -> Option<P> {
        loop {
            let (_, (ends, payload)) = self.on_the_way.pop(now)?;
            if ends.is_none_or(|(from, to)| !self.is_cut(from, to)) {
                return Some(payload);
            }
        }
    }

    /// Returns the next arrival.
    pub fn next_timeout(&self) -> Option<T> {
        self.on_the_way.next_at()
    }

    fn is_cut(&self, a: N, b: N) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }
}

/// A link of a rate, with a queue before it.
#[derive(Debug, Clone, Copy)]
pub struct Bottleneck<T> {
    /// Bits per second.
    pub rate: f64,
    /// Time in which the full queue empties.
    pub queue: Duration,
    /// When the queue is empty.
    free_at: T,
}

impl<T: Time> Bottleneck<T> {
    /// Makes an idle link.
    pub fn new(rate: f64, queue: Duration, now: T) -> Self {
        Self {
            rate,
            queue,
            free_at: now,
        }
    }

    /// Returns the time in which the queue empties.
    pub fn wait(&self, now: T) -> Duration {
        self.free_at.max(now) - now
    }

    /// Sends `bytes` at `now`; returns when they are through, none if the queue is full.
    pub fn pass(&mut self, bytes: usize, now: T) -> Option<T> {
        if self.wait(now) > self.queue {
            return None;
        }
        let transfer = Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate);
        self.free_at = self.free_at.max(now) + transfer;
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `count` datagrams, one a millisecond; returns those that arrive, in order.
    fn carried(path: Path, seed: u64, count: u32) -> Vec<u32> {
        let mut network = Network::new(path, seed);
        (0..count).for_each(|n| {
            network.send('a', 'b', n, MS * n);
        });
        std::iter::from_fn(|| network.poll(Duration::MAX)).collect()
    }

    #[test]
    fn events_come_by_time_and_then_in_order() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (1, 'd'), (3, 'e')] {
            queue.push(at, event);
        }
        assert_eq!(queue.pop(0), None);
        assert_eq!(queue.pop(9), Some((1, 'd')));
        queue.push(3, 'f');
        assert_eq!(queue.next_at(), Some(3));
        let rest: String = std::iter::from_fn(|| queue.pop(9))
            .map(|(_, e)| e)
            .collect();
        assert_eq!(rest, "befac");
        assert_eq!(queue.next_at(), None);
    }

    #[test]
    fn a_path_without_flaws_delays_only() {
        let mut network = Network::new(Path::default(), 1);
        network.path.delay = MS * 20;
        assert_eq!(network.send(1, 2, 'x', MS), 1);
        assert_eq!(network.next_timeout(), Some(MS * 21));
        assert_eq!(network.poll(MS * 20), None);
        assert_eq!(network.poll(MS * 21), Some('x'));
    }

    #[test]
    fn loss_duplicates_and_reordering_are_what_the_path_says() {
        let path = Path {
            delay: MS * 10,
            jitter: MS * 5,
            loss: 0.1,
            duplicates: 0.05,
        };
        let came = carried(path, 1, 20_000);
        assert_eq!(came, carried(path, 1, 20_000));
        assert_ne!(came, carried(path, 2, 20_000));
        // 0.9 * 1.05
        assert!((18_600..19_200).contains(&came.len()), "{}", came.len());
        let different: BTreeSet<_> = came.iter().collect();
        assert!((17_850..18_150).contains(&different.len()));
        // reordered, by no more than the jitter allows
        assert!(!came.is_sorted());
        assert!(came.windows(2).all(|two| two[1] + 5 >= two[0]));
    }

    #[test]
    fn a_stream_comes_whole_and_in_order() {
        let path = Path {
            jitter: MS * 50,
            loss: 0.5,
            duplicates: 0.5,
            ..Path::default()
        };
        let mut network = Network::new(path, 1);
        (0..200).for_each(|n| network.send_in_order(1, 2, n, MS * n));
        let came: Vec<_> = std::iter::from_fn(|| network.poll(Duration::MAX)).collect();
        assert_eq!(came, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_passes_between_hosts_that_are_cut_off() {
        let mut network = Network::new(Path::default(), 1);
        network.cut.insert((1, 2));
        for (from, to) in [(1, 2), (2, 1), (1, 3)] {
            network.send(from, to, (from, to), MS);
        }
        network.post((2, 1), MS);
        assert_eq!(network.poll(MS), Some((1, 3)));
        assert_eq!(network.poll(MS), Some((2, 1)), "by another way");
        assert_eq!(network.poll(MS), None);
    }

    #[test]
    fn a_full_queue_delays_and_then_drops() {
        // 1,000 bytes a millisecond
        let mut bottleneck = Bottleneck::new(8e6, MS * 5, MS);
        let through: Vec<_> = (0..8).map(|_| bottleneck.pass(1_000, MS)).collect();
        assert_eq!(through[..3], [2, 3, 4].map(|n| Some(MS * n)));
        assert_eq!(through[5..], [Some(MS * 7), None, None]);
        assert_eq!(bottleneck.wait(MS * 3), MS * 4);
        assert_eq!(bottleneck.pass(500, MS * 20), Some(MS * 20 + MS / 2));
    }
}
