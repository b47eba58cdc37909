//! Delivers one answer: decides which bytes of the stream go when. Has no bytes, clocks or sockets.
//!
//! ```text
//! 0 ....... received ........ next ............ length
//!           |  flying, some  |  not sent yet   |
//!           |  acknowledged  |
//! ```
//!
//! Sends segments in order, as many at once as the window allows, and resends those that an
//! acknowledgement shows as missing. Without acknowledgements it resends the oldest at growing
//! intervals, then rests until the operator asks: the stream stays on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use librecast::random::Random;

use crate::acknowledgement::Progress;
use crate::answer::SEGMENT;

/// Time that a segment that is not full waits for more of the stream.
const COALESCE: Duration = Duration::from_millis(15);
/// Time without an acknowledgement after which segments are resent; doubled each time.
const RETRY: Duration = Duration::from_millis(600);
/// Upper bound of that doubling.
const MAX_RETRY: Duration = Duration::from_secs(8);
/// Retries in a row after which the operator counts as gone.
const MAX_TRIES: u32 = 8;
/// Segments of one retry.
const RETRY_SEGMENTS: usize = 4;
/// Time after which a segment in an acknowledged gap is lost.
const LOST_IN_GAP: Duration = Duration::from_millis(40);
/// Time after which a segment behind all acknowledged ones is lost.
const LOST_AT_END: Duration = Duration::from_millis(250);

/// The state of one answer.
#[derive(Debug)]
pub struct Delivery {
    length: u32,
    ended: bool,
    received: u32,
    next: u32,
    flying: BTreeMap<u32, Flight>,
    again: BTreeSet<u32>,
    window: usize,
    not_before: Instant,
    /// When a segment that is not full will be sent.
    ripe: Option<Instant>,
    retry: Option<Instant>,
    tries: u32,
    counter: Option<u32>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    length: u32,
    sent: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// Rests until the operator asks.
    Resting,
    Delivered,
}

/// A piece of the stream to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the stream, in bytes.
    pub offset: u32,
    /// Its length in bytes, at most [`SEGMENT`].
    pub length: u32,
}

impl Delivery {
    /// Begins with an empty stream; sends from `not_before` on.
    #[must_use]
    pub fn new(not_before: Instant, window: u8) -> Self {
        Self {
            length: 0,
            ended: false,
            received: 0,
            next: 0,
            flying: BTreeMap::new(),
            again: BTreeSet::new(),
            window: usize::from(window.max(1)),
            not_before,
            ripe: None,
            retry: None,
            tries: 0,
            counter: None,
            state: State::Active,
        }
    }

    /// Sends nothing before the operator asks.
    #[must_use]
    pub fn resting(now: Instant) -> Self {
        Self {
            state: State::Resting,
            ..Self::new(now, 1)
        }
    }

    /// Takes the new length of the stream; `ended`: its final length.
    pub fn grow(&mut self, length: u32, ended: bool, now: Instant) {
        if length > self.length {
            self.length = length;
            self.ripe.get_or_insert(now + COALESCE);
        }
        self.ended |= ended;
    }

    /// Returns the length of an ended stream.
    #[must_use]
    pub fn final_length(&self) -> Option<u32> {
        self.ended.then_some(self.length)
    }

    /// Returns whether the operator has the whole stream.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.state == State::Delivered
    }

    /// Takes an acknowledgement of the whole stream; returns whether it is news. If nothing was
    /// sent, it was meant for an agent with the same key or hash.
    pub fn whole(&mut self, counter: u32) -> bool {
        if self.next == 0 || !self.is_newer(counter) {
            return false;
        }
        self.deliver()
    }

    /// Takes an acknowledgement that names this node; returns whether it is the first of the whole.
    pub fn progress(
        &mut self,
        progress: &Progress,
        counter: u32,
        window: u8,
        now: Instant,
    ) -> bool {
        if !self.is_newer(counter) {
            return false;
        }
        self.window = usize::from(window.max(1));
        let received = progress.received.min(self.length);
        if self.final_length() == Some(received) {
            return self.deliver();
        }
        if received < self.received || self.state == State::Delivered {
            self.restart(received);
        }
        self.state = State::Active;
        if received > self.received {
            self.tries = 0;
        }
        self.received = received;
        self.next = self.next.max(received);
        let covered = |from: u32, to: u32| {
            to <= received || progress.ranges.iter().any(|&(a, b)| a <= from && to <= b)
        };
        self.flying
            .retain(|from, flight| !covered(*from, from + flight.length));
        let highest = progress.ranges.last().map_or(received, |r| r.1);
        for (from, flight) in &self.flying {
            let limit = if *from < highest {
                LOST_IN_GAP
            } else {
                LOST_AT_END
            };
            if now.saturating_duration_since(flight.sent) >= limit {
                self.again.insert(*from);
            }
        }
        self.again.retain(|from| self.flying.contains_key(from));
        self.retry = (!self.flying.is_empty()).then_some(now + RETRY);
        false
    }

    /// Returns the next piece to send, if one is due.
    pub fn poll(&mut self, now: Instant, random: &mut Random) -> Option<Piece> {
        if self.state != State::Active || now < self.not_before {
            return None;
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry_oldest(now, random);
        }
        let piece = self.next_again().or_else(|| self.next_new(now))?;
        self.flying.insert(
            piece.offset,
            Flight {
                length: piece.length,
                sent: now,
            },
        );
        self.retry.get_or_insert(now + RETRY);
        Some(piece)
    }

    /// Returns when [`poll`](Self::poll) may return a piece.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.state != State::Active {
            return None;
        }
        let new = if !self.again.is_empty() || self.full_segment() {
            Some(self.not_before)
        } else if self.next < self.length && self.flying.len() < self.window {
            let ripe = if self.ended { None } else { self.ripe };
            Some(ripe.map_or(self.not_before, |at| at.max(self.not_before)))
        } else {
            None
        };
        [new, self.retry].into_iter().flatten().min()
    }

    fn full_segment(&self) -> bool {
        (self.length - self.next) as usize >= SEGMENT && self.flying.len() < self.window
    }

    fn next_again(&mut self) -> Option<Piece> {
        let offset = self.again.pop_first()?;
        let length = self.flying.get(&offset)?.length;
        Some(Piece { offset, length })
    }

    fn next_new(&mut self, now: Instant) -> Option<Piece> {
        let left = self.length - self.next;
        if left == 0 || self.flying.len() >= self.window {
            return None;
        }
        let full = left as usize >= SEGMENT;
        if !full && !self.ended && self.ripe.is_some_and(|at| now < at) {
            return None;
        }
        // SEGMENT is a small constant
        let piece = Piece {
            offset: self.next,
            length: left.min(SEGMENT as u32),
        };
        self.next += piece.length;
        self.ripe = (self.next < self.length).then_some(now + COALESCE);
        Some(piece)
    }

    fn retry_oldest(&mut self, now: Instant, random: &mut Random) {
        self.tries += 1;
        if self.tries > MAX_TRIES {
            self.retry = None;
            self.state = State::Resting;
            return;
        }
        self.again.extend(self.flying.keys().take(RETRY_SEGMENTS));
        let pause = (RETRY * 2_u32.pow(self.tries)).min(MAX_RETRY);
        self.retry = Some(now + random.between(pause / 2, pause));
    }

    fn is_newer(&mut self, counter: u32) -> bool {
        let newer = self.counter.is_none_or(|last| counter > last);
        if newer {
            self.counter = Some(counter);
        }
        newer
    }

    fn deliver(&mut self) -> bool {
        if !self.ended || self.state == State::Delivered {
            return false;
        }
        self.state = State::Delivered;
        self.received = self.length;
        self.next = self.length;
        self.flying.clear();
        self.again.clear();
        self.retry = None;
        true
    }

    fn restart(&mut self, from: u32) {
        self.received = from;
        self.next = from;
        self.flying.clear();
        self.again.clear();
        self.retry = None;
        self.tries = 0;
        self.ripe = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datagram::push_range;

    const MS: Duration = Duration::from_millis(1);

    struct Bench {
        delivery: Delivery,
        random: Random,
        now: Instant,
        counter: u32,
    }

    impl Bench {
        fn new(length: u32, window: u8) -> Self {
            let now = Instant::now();
            let mut delivery = Delivery::new(now, window);
            delivery.grow(length, true, now);
            Self {
                delivery,
                random: Random::new(1),
                now,
                counter: 0,
            }
        }

        fn sent(&mut self) -> Vec<u32> {
            std::iter::from_fn(|| self.delivery.poll(self.now, &mut self.random))
                .map(|p| p.offset)
                .collect()
        }

        fn has(&mut self, received: u32, ranges: &[(u32, u32)]) -> bool {
            self.counter += 1;
            let progress = Progress {
                node: [0; 8],
                received,
                ranges: ranges.to_vec(),
            };
            self.delivery.progress(&progress, self.counter, 4, self.now)
        }

        fn wait_due(&mut self) {
            self.now = self.now.max(self.delivery.due().unwrap());
        }
    }

    const S: u32 = SEGMENT as u32;

    #[test]
    fn no_more_than_a_window_is_under_way() {
        let mut b = Bench::new(10 * S, 4);
        assert_eq!(b.sent(), [0, S, 2 * S, 3 * S]);
        b.has(2 * S, &[]);
        assert_eq!(b.sent(), [4 * S, 5 * S]);
    }

    #[test]
    fn gap_is_filled_as_soon_as_it_is_told() {
        let mut b = Bench::new(4 * S, 4);
        b.sent();
        b.now += 50 * MS;
        b.has(S, &[(2 * S, 3 * S)]);
        assert_eq!(b.sent(), [S], "the last may still be on its way");
        assert!(b.has(4 * S, &[]));
        assert!(b.delivery.is_delivered());
        assert_eq!(b.delivery.due(), None);
    }

    #[test]
    fn what_nobody_acknowledges_is_repeated_ever_more_rarely_and_then_rests() {
        let mut b = Bench::new(10, 4);
        assert_eq!(b.sent(), [0]);
        let (mut times, mut last, mut pauses) = (0, b.now, Vec::new());
        while b.delivery.due().is_some() {
            b.wait_due();
            let sent = b.sent();
            times += sent.len();
            if !sent.is_empty() {
                pauses.push(b.now - last);
                last = b.now;
            }
        }
        assert_eq!(times, MAX_TRIES as usize);
        assert!(pauses[0] >= RETRY && pauses[5] > 2 * pauses[0]);
        b.has(0, &[]);
        assert_eq!(b.sent(), [0], "the operator is back and asks");
    }

    #[test]
    fn small_pieces_wait_for_more_and_not_long() {
        let now = Instant::now();
        let mut b = Bench::new(0, 4);
        b.delivery = Delivery::new(now, 4);
        b.now = now;
        b.delivery.grow(10, false, now);
        assert!(b.sent().is_empty());
        b.wait_due();
        assert!(b.now > now);
        assert_eq!(b.sent(), [0]);
        b.delivery.grow(20, true, b.now);
        assert_eq!(b.sent(), [10], "nothing follows: no reason to wait");
    }

    #[test]
    fn operator_that_has_lost_what_came_gets_it_again() {
        let mut b = Bench::new(2 * S, 4);
        b.sent();
        b.counter += 1;
        assert!(b.delivery.whole(b.counter));
        assert!(!b.delivery.whole(b.counter), "no news");
        b.has(0, &[]);
        assert_eq!(b.sent(), [0, S]);
        // a replayed acknowledgement has no effect
        assert!(!b.delivery.whole(1));
    }

    #[test]
    fn what_was_never_sent_has_not_come() {
        let mut b = Bench::new(S, 4);
        assert!(
            !b.delivery.whole(1),
            "that of another with the same key has"
        );
        assert_eq!(b.sent(), [0]);
        assert!(b.delivery.whole(2));
    }

    #[test]
    fn unfinished_stream_is_never_delivered() {
        let now = Instant::now();
        let mut delivery = Delivery::new(now, 4);
        delivery.grow(10, false, now);
        assert!(!delivery.whole(1));
        assert_eq!(delivery.final_length(), None);
    }

    proptest! {
        /// All arrives under any losses, and each piece at its place.
        #[test]
        fn all_arrives_over_a_lossy_path(length in 1..30_000_u32, window in 1..20_u8, seed in any::<u64>(), loss in 0..60_u64) {
            let mut b = Bench::new(length, window);
            let mut dice = Random::new(seed);
            let mut has: BTreeSet<u32> = BTreeSet::new();
            let mut rounds = 0;
            while !b.delivery.is_delivered() {
                rounds += 1;
                prop_assert!(rounds < 20_000, "it does not end");
                while let Some(piece) = b.delivery.poll(b.now, &mut b.random) {
                    prop_assert!(piece.length > 0 && piece.offset + piece.length <= length);
                    prop_assert!(b.delivery.flying.len() <= usize::from(window.max(4)));
                    if dice.next() % 100 >= loss {
                        has.extend(piece.offset..piece.offset + piece.length);
                    }
                }
                b.now += 60 * MS;
                if dice.next() % 100 >= loss {
                    let received = (0..length).find(|n| !has.contains(n)).unwrap_or(length);
                    let ranges = ranges_behind(&has, received);
                    b.has(received, &ranges);
                }
            }
            prop_assert_eq!(has.len() as u32, length);
        }
    }

    fn ranges_behind(has: &BTreeSet<u32>, received: u32) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for n in has.range(received..) {
            if !push_range(&mut ranges, *n, n + 1) {
                break;
            }
        }
        ranges
    }
}
