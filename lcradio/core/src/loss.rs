//! Loss of packets, before and after the copy, and the need for the copy.
//!
//! A number counts once it lies [`SETTLED`] behind the highest one, so late or repaired packets are
//! not lost. The copy group is joined above 1 % loss in 5 s, and left below 0.2 % in 60 s.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

/// Packets after which a missing one is lost: 1.3 s of 20 ms each, longer than a recording waits.
const SETTLED: u64 = 64;
/// Seconds of loss after which the copy group is joined. Chosen.
const JOIN_SECONDS: usize = 5;
/// Seconds of little loss after which the copy group is left. Chosen.
const LEAVE_SECONDS: usize = 60;
/// Lost packets below which it is not joined: 1 % of 5 s of 20-ms packets.
const JOIN_LOST: u64 = 3;
/// Lost packets of 1,000 above which sound is poor: more than each packet repairs of the one before
/// it. Chosen.
const POOR_PER_MILLE: u64 = 50;
/// Packets of a gap above which it is an outage: it counts as lost, but decides nothing.
const OUTAGE: u64 = 50;

/// Packets in a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LossCount {
    /// Sent, by their numbers.
    pub sent: u64,
    /// Lost in the group itself.
    pub lost_before_copy: u64,
    /// Lost in both groups.
    pub lost: u64,
}

impl LossCount {
    fn add(&mut self, other: Self) {
        *self = self.plus(other);
    }

    /// Returns the sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            lost_before_copy: self.lost_before_copy + other.lost_before_copy,
            lost: self.lost + other.lost,
        }
    }

    /// Returns whether more than `per_mille` of 1,000 were lost before the copy.
    fn exceeds(&self, per_mille: u64) -> bool {
        self.lost_before_copy * 1_000 > self.sent * per_mille
    }
}

/// The arrival of a packet.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    by_group: bool,
    at_all: bool,
}

/// The relation of a packet to earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Duplicate,
    TooOld,
}

/// The loss of one session.
#[derive(Debug)]
pub(crate) struct Loss {
    /// Number of the first of `recent`.
    first: u64,
    recent: VecDeque<Came>,
    total: LossCount,
    /// The last minute by seconds; the last one grows.
    seconds: VecDeque<LossCount>,
    second_ends: Instant,
    copy_joined: Option<Instant>,
}

impl Loss {
    pub fn new(now: Instant) -> Self {
        Self {
            first: 0,
            recent: VecDeque::new(),
            total: LossCount::default(),
            seconds: VecDeque::from([LossCount::default()]),
            second_ends: now + Duration::from_secs(1),
            copy_joined: None,
        }
    }

    /// Counts from the next packet on, after a pause or in another session; the decision about the
    /// copy stays.
    pub fn restart(&mut self) {
        self.settle_all();
    }

    /// Notes a packet.
    pub fn packet(&mut self, index: u64, is_copy: bool) -> Arrival {
        if self.recent.is_empty() {
            self.first = index;
        }
        let Some(at) = index.checked_sub(self.first) else {
            return Arrival::TooOld;
        };
        if at >= self.recent.len() as u64 + OUTAGE {
            // the packets between are lost; the rest of the session counts from here
            let sent = at - self.recent.len() as u64;
            self.settle_all();
            self.total.add(LossCount {
                sent,
                lost_before_copy: sent,
                lost: sent,
            });
            self.first = index;
        }
        let at = (index - self.first) as usize;
        if self.recent.len() <= at {
            self.recent.resize(at + 1, Came::default());
        }
        let came = &mut self.recent[at];
        let arrival = match came.at_all {
            false => Arrival::New,
            true => Arrival::Duplicate,
        };
        came.at_all = true;
        came.by_group |= !is_copy;
        while self.recent.len() as u64 > SETTLED {
            self.settle();
        }
        arrival
    }

    /// Counts the oldest number.
    fn settle(&mut self) {
        let Some(came) = self.recent.pop_front() else {
            return;
        };
        self.first += 1;
        let count = LossCount {
            sent: 1,
            lost_before_copy: u64::from(!came.by_group),
            lost: u64::from(!came.at_all),
        };
        self.total.add(count);
        if let Some(second) = self.seconds.back_mut() {
            second.add(count);
        }
    }

    fn settle_all(&mut self) {
        while !self.recent.is_empty() {
            self.settle();
        }
    }

    /// Returns the counts since the listener began.
    pub fn total(&self) -> LossCount {
        self.total
    }

    /// Returns whether more than 5 % of the last seconds are missing, and not a few packets alone.
    pub fn is_poor(&self) -> bool {
        let count = self.of_last(JOIN_SECONDS);
        count.lost >= JOIN_LOST && count.exceeds(POOR_PER_MILLE)
    }

    /// Returns the counts of the last `seconds`.
    fn of_last(&self, seconds: usize) -> LossCount {
        let last = self.seconds.iter().rev().take(seconds);
        last.fold(LossCount::default(), |sum, second| sum.plus(*second))
    }

    /// Returns whether the copy group shall be joined.
    pub fn wants_copy(&self) -> bool {
        self.copy_joined.is_some()
    }

    /// Returns when [`poll`](Self::poll) must be called.
    pub fn next(&self) -> Instant {
        self.second_ends
    }

    /// Decides once a second.
    pub fn poll(&mut self, now: Instant) {
        while now >= self.second_ends {
            self.decide(self.second_ends);
            self.second_ends += Duration::from_secs(1);
            self.seconds.push_back(LossCount::default());
            if self.seconds.len() > LEAVE_SECONDS {
                self.seconds.pop_front();
            }
            if now.saturating_duration_since(self.second_ends) > Duration::from_secs(120) {
                // the host slept
                self.second_ends = now + Duration::from_secs(1);
            }
        }
    }

    fn decide(&mut self, now: Instant) {
        match self.copy_joined {
            None => {
                let count = self.of_last(JOIN_SECONDS);
                if count.lost_before_copy >= JOIN_LOST && count.exceeds(10) {
                    self.copy_joined = Some(now);
                }
            }
            Some(since) => {
                let long = Duration::from_secs(LEAVE_SECONDS as u64);
                let long_enough = now.saturating_duration_since(since) >= long;
                if long_enough && !self.of_last(LEAVE_SECONDS).exceeds(2) {
                    self.copy_joined = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs seconds of 50 packets; `lost` selects the lost ones, and the copy's.
    struct Run {
        loss: Loss,
        now: Instant,
        index: u64,
    }

    impl Run {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        fn new() -> Self {
            let now = Instant::now();
            Self {
                loss: Loss::new(now),
                now,
                index: 1_000,
            }
        }

        fn seconds(&mut self, seconds: u64, is_lost: impl Fn(u64) -> bool) {
            for _ in 0..seconds * 50 {
                if !is_lost(self.index) {
                    assert_eq!(self.loss.packet(self.index, false), Arrival::New);
                }
                self.index += 1;
                self.now += Duration::from_millis(20);
                self.loss.poll(self.now);
            }
        }
    }

    #[test]
    fn the_copy_is_joined_above_one_per_cent_for_five_seconds_and_left_after_a_good_minute() {
        let mut run = Run::new();
        run.seconds(60, |n| n % 130 == 0);
        assert!(!run.loss.wants_copy(), "0.8 % is not more than 1 %");
        run.seconds(2, |n| n % 40 == 0);
        assert!(!run.loss.wants_copy(), "2.5 % for two seconds");
        run.seconds(6, |n| n % 40 == 0);
        assert!(run.loss.wants_copy(), "2.5 % for eight seconds");
        run.seconds(70, |n| n % 400 == 0);
        assert!(run.loss.wants_copy(), "0.25 % is not below 0.2 %");
        run.seconds(60, |_| false);
        assert!(!run.loss.wants_copy(), "a minute without loss");
    }

    #[test]
    fn sound_is_poor_while_more_than_a_twentieth_is_missing() {
        let mut run = Run::new();
        run.seconds(10, |n| n % 30 == 0);
        assert!(!run.loss.is_poor(), "3.3 %");
        run.seconds(8, |n| n % 10 == 0);
        assert!(run.loss.is_poor(), "10 %");
        run.seconds(8, |_| false);
        assert!(!run.loss.is_poor(), "no loss for eight seconds");
    }

    #[test]
    fn loss_is_counted_before_and_after_the_copy() {
        let mut run = Run::new();
        run.seconds(10, |n| n % 10 == 3);
        // the copies of every second one arrive
        let repaired = (run.index - SETTLED..run.index).filter(|n| n % 20 == 3);
        let mut copies = 0;
        for n in repaired {
            assert_eq!(run.loss.packet(n, true), Arrival::New);
            assert_eq!(run.loss.packet(n, true), Arrival::Duplicate);
            copies += 1;
        }
        run.seconds(2, |_| false);
        let total = run.loss.total();
        assert_eq!(total.sent, 500 + 100 - SETTLED);
        assert_eq!(total.lost_before_copy, 50);
        assert_eq!(total.lost, 50 - copies);
    }

    #[test]
    fn an_outage_counts_as_lost_and_joins_nothing() {
        let mut run = Run::new();
        run.seconds(10, |_| false);
        run.index += 500;
        run.seconds(10, |_| false);
        assert_eq!(run.loss.total().lost, 500);
        assert!(!run.loss.wants_copy());
    }

    #[test]
    fn what_is_reordered_or_comes_twice_is_not_lost() {
        let mut run = Run::new();
        for n in [0, 2, 1, 4, 3, 3, 0] {
            run.loss.packet(1_000 + n, false);
        }
        assert_eq!(run.loss.packet(900, false), Arrival::TooOld);
        run.index += 5;
        run.seconds(2, |_| false);
        assert_eq!(run.loss.total().lost, 0);
    }
}
