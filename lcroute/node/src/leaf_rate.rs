//! The rate of packets to all leaves together: packets of members must not wait behind them.
//!
//! ```text
//!   every 100 ms with packets for leaves:
//!     queues in the paths of most of their links,  --> 0.7 of the rate in use, at most every 200 ms
//!     or of a quarter, and in that of a member's link
//!     else, while half of the rate is in use       --> 1.5 times until the first cut, then 1.02
//! ```
//! Queues at most links at once are in the router's upload. One slow leaf or member has no effect.
//!
//! Up to [`FEW`] links begin at the full rate, and only a queue in a member's path as well cuts it: the
//! congestion control of each link shares the upload, and loses less than this rate.

use std::collections::BTreeSet;

use librecast::id::LinkId;
use librecast::time::{Duration, Instant};

/// Interval between changes of the rate. Chosen: longer than a round trip of most paths.
const INTERVAL: Duration = Duration::from_millis(100);
/// Minimum time between two cuts. Chosen: links react to the first cut before the second.
const CUT_EVERY: Duration = Duration::from_millis(200);
/// Minimum rate of leaves, in bit/s. Chosen: speech for a handful of them.
const FLOOR: u64 = 256_000;
/// Initial rate in bit/s. Chosen: most uplinks carry it; 50 Mbit/s follow within a second.
const START: u64 = 2_000_000;

/// Links with leaves that have no slow start. Chosen: members keep a fifth of the upload meanwhile.
const FEW: usize = 4;

#[derive(Debug)]
pub(crate) struct LeafRate {
    /// Maximum rate in bit/s.
    limit: u64,
    /// Present rate in bit/s.
    rate: u64,
    /// Links with leaves that carried a packet in this interval.
    links: BTreeSet<LinkId>,
    /// Bytes to them in this interval.
    bytes: u64,
    /// Bytes in the previous interval: a pause in a flow does not lower the rate in use.
    bytes_before: u64,
    /// At most [`FEW`] leaves are linked.
    few: bool,
    next: Option<Instant>,
    last_cut: Option<Instant>,
}

impl LeafRate {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            rate: START.min(limit),
            links: BTreeSet::new(),
            bytes: 0,
            bytes_before: 0,
            few: false,
            next: None,
            last_cut: None,
        }
    }

    pub(crate) fn bits_per_second(&self) -> u64 {
        match self.few && self.last_cut.is_none() {
            true => self.limit,
            false => self.rate,
        }
    }

    pub(crate) fn set_leaves(&mut self, count: usize) {
        self.few = count <= FEW;
    }

    pub(crate) fn sent(&mut self, link: LinkId, bytes: usize, now: Instant) {
        self.links.insert(link);
        self.bytes += bytes as u64;
        self.next.get_or_insert(now + INTERVAL);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Returns a changed rate. `is_congested`: a link's path has a queue; `member`: a member's too.
    pub(crate) fn poll(
        &mut self,
        is_congested: impl Fn(LinkId) -> bool,
        member: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<u64> {
        if self.next.is_none_or(|at| now < at) {
            return None;
        }
        self.next = None;
        let links = std::mem::take(&mut self.links);
        let bytes = std::mem::take(&mut self.bytes);
        let before = std::mem::replace(&mut self.bytes_before, bytes);
        let congested = links.iter().filter(|link| is_congested(**link)).count();
        let is_shared = match self.few {
            true => congested > 0 && member(),
            false => {
                congested > 0
                    && (2 * congested > links.len() || 4 * congested >= links.len() && member())
            }
        };
        let before_cut = self.bits_per_second();
        let in_use = bytes.max(before) * 8 * 1_000 / INTERVAL.as_millis() as u64;
        let rate = match (is_shared, self.last_cut) {
            (true, Some(cut)) if now < cut + CUT_EVERY => self.rate,
            (true, _) => {
                self.last_cut = Some(now);
                in_use.min(before_cut) / 10 * 7
            }
            (false, _) if in_use < self.rate / 2 => self.rate,
            (false, None) => self.rate / 2 * 3,
            (false, Some(_)) => self.rate / 50 * 51,
        };
        let rate = rate.max(FLOOR).min(self.limit);
        self.rate = rate;
        let rate = self.bits_per_second();
        (rate != before_cut).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const LIMIT: u64 = 50_000_000;

    /// Runs intervals with these congested links out of ten; returns the last rate.
    fn run(
        rate: &mut LeafRate,
        now: &mut Instant,
        intervals: usize,
        congested: u32,
        member: bool,
    ) -> u64 {
        for _ in 0..intervals {
            for link in 0..10 {
                rate.sent(LinkId(link), 12_500, *now);
            }
            *now += INTERVAL;
            rate.poll(|link| link.0 < congested, || member, *now);
        }
        rate.rate
    }

    #[test]
    fn a_queue_of_many_cuts_the_rate_in_use_and_use_brings_it_back() {
        let (mut rate, mut now) = (LeafRate::new(LIMIT), start());
        // 10 Mbit/s are in use
        assert_eq!(run(&mut rate, &mut now, 1, 0, false), 3_000_000);
        assert_eq!(run(&mut rate, &mut now, 100, 0, false), 22_781_250);
        assert_eq!(run(&mut rate, &mut now, 1, 6, false), 7_000_000);
        assert_eq!(run(&mut rate, &mut now, 1, 6, false), 7_000_000, "too soon");
        assert_eq!(run(&mut rate, &mut now, 1, 6, false), 4_900_000);
        assert_eq!(run(&mut rate, &mut now, 1, 0, false), 4_998_000);
        let unused = run(&mut rate, &mut now, 1_000, 0, true);
        assert!((20_000_000..20_500_000).contains(&unused), "{unused}");
        assert_eq!(run(&mut rate, &mut now, 100, 10, true), FLOOR);
    }

    #[test]
    fn a_slow_leaf_or_a_slow_member_lowers_nothing_and_both_of_many_do() {
        let (mut rate, mut now) = (LeafRate::new(8_000_000), start());
        assert_eq!(run(&mut rate, &mut now, 10, 0, true), 8_000_000);
        assert_eq!(run(&mut rate, &mut now, 10, 5, false), 8_000_000);
        assert_eq!(run(&mut rate, &mut now, 10, 2, true), 8_000_000);
        assert_eq!(run(&mut rate, &mut now, 1, 3, true), 5_600_000);
    }

    #[test]
    fn a_few_leaves_begin_at_the_full_rate_and_give_way_to_a_member_alone() {
        let (mut rate, mut now) = (LeafRate::new(LIMIT), start());
        rate.set_leaves(FEW);
        assert_eq!(rate.bits_per_second(), LIMIT);
        run(&mut rate, &mut now, 3, 10, false);
        assert_eq!(rate.bits_per_second(), LIMIT);
        run(&mut rate, &mut now, 3, 0, true);
        assert_eq!(rate.bits_per_second(), LIMIT);
        run(&mut rate, &mut now, 1, 1, true);
        assert_eq!(rate.bits_per_second(), 7_000_000);
        let mut rate = LeafRate::new(LIMIT);
        rate.set_leaves(FEW);
        rate.set_leaves(FEW + 1);
        assert_eq!(rate.bits_per_second(), START);
    }

    #[test]
    fn nothing_runs_while_leaves_get_nothing_and_the_bound_may_be_below_the_floor() {
        let mut now = start();
        let mut rate = LeafRate::new(FLOOR / 2);
        assert_eq!(rate.next_timeout(), None);
        assert_eq!(run(&mut rate, &mut now, 3, 10, true), FLOOR / 2);
        assert_eq!(rate.next_timeout(), None);
    }
}
