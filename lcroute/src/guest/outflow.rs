//! The rate at which packets of the program inside leave this host, found from what links drop.
//!
//! A program that sends more than leaves loses it here, after all receivers have asked for
//! different parts of it. One that knows the rate lets parts wait instead, and receivers join them
//! meanwhile (docs/adr/guests.md).
//!
//! ```text
//! no limit --several links drop--> what came through --drops: less; none: more--> ...
//!     ^                                  \--less and less was sent, as much is dropped
//!     +------------------------------------------------------------------------+
//! ```

use librecast::time::{Duration, Instant};

/// Packets of an interval that show anything. Chosen.
const LEAST_PACKETS: u64 = 200;
/// Divisor of an interval's packets: fewer drops change nothing. Chosen: bursts of a few channels
/// that meet at one link lose as many.
const TOLERATED: u64 = 20;
/// Full links at once from which on it is this host's uplink: one alone is its far side's.
const LEAST_FULL: usize = 2;
/// Divisors of the limit: so much is taken in an interval with drops, and added in one without.
/// Chosen: one interval without a processor is no narrower uplink.
const LESS: u64 = 8;
const MORE: u64 = 12;
/// Divisor of the highest rate so far, below which no limit falls: members whose links are full as
/// they please hold nobody up for more. Chosen.
const LEAST_PART: u64 = 4;
/// No limit is below, in bits a second. Chosen: a limit that is wrong does not stop a transfer.
const LEAST_LIMIT: u64 = 1_000_000;
/// Intervals of drops in a row after which the limit is in vain: two until the program knows it,
/// and some to empty queues. Chosen.
const MOST_CUTS: u32 = 6;
/// No limit for this long after that. Chosen.
const IN_VAIN_FOR: Duration = Duration::from_secs(60);

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Bytes that the program has sent.
    pub offered: u64,
    /// Packets that links have taken.
    pub taken: u64,
    /// Those of them that waited too long.
    pub dropped: u64,
}

/// The rate, and the counters from which it is found.
#[derive(Debug)]
pub(super) struct Outflow {
    counted: Counted,
    looked_at: Instant,
    /// Bits a second that came through, the most of an interval.
    most: u64,
    limit: Option<u64>,
    cuts: u32,
    in_vain_until: Option<Instant>,
}

impl Outflow {
    /// Starts without a limit.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            counted: Counted::default(),
            looked_at: now,
            most: 0,
            limit: None,
            cuts: 0,
            in_vain_until: None,
        }
    }

    /// Takes the interval since the last look, in which `full` links held packets back. Returns the
    /// bits a second that the program should send at most.
    pub(super) fn look(&mut self, counted: Counted, full: usize, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.looked_at).as_millis();
        let millis = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        let offered = counted.offered.saturating_sub(self.counted.offered);
        let offered = offered.saturating_mul(8_000) / millis;
        let taken = counted.taken.saturating_sub(self.counted.taken);
        let dropped = counted.dropped.saturating_sub(self.counted.dropped);
        (self.counted, self.looked_at) = (counted, now);
        if taken < LEAST_PACKETS {
            return self.limit;
        }
        let dropped = dropped.min(taken);
        let through = u128::from(offered) * u128::from(taken - dropped) / u128::from(taken);
        let through = u64::try_from(through).unwrap_or(u64::MAX);
        self.most = self.most.max(through);
        if dropped <= taken / TOLERATED {
            self.cuts = 0;
            // an unused limit shows nothing
            let used = self.limit.filter(|limit| offered > limit / 2);
            self.limit = used.map(|limit| limit + limit / MORE).or(self.limit);
            return self.limit;
        }
        let in_vain = self.in_vain_until.is_some_and(|until| now < until);
        if full < LEAST_FULL || in_vain {
            return self.limit;
        }
        self.cuts += 1;
        if self.cuts > MOST_CUTS {
            (self.limit, self.cuts) = (None, 0);
            self.in_vain_until = Some(now + IN_VAIN_FOR);
            return None;
        }
        let less = self.limit.map_or(self.most, |limit| limit - limit / LESS);
        let least = (self.most / LEAST_PART).max(LEAST_LIMIT);
        self.limit = Some(less.max(least));
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A program that sends what it wants, or less if it was told so a second ago.
    struct World {
        outflow: Outflow,
        counted: Counted,
        told: Option<u64>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                outflow: Outflow::new(now),
                counted: Counted::default(),
                told: None,
                now,
            }
        }

        fn second(&mut self, wanted: u64, drops: impl Fn(u64) -> u64, full: usize) -> Option<u64> {
            let offered = self.told.map_or(wanted, |told| told.min(wanted));
            let taken = offered / 9_600;
            self.counted.offered += offered / 8;
            self.counted.taken += taken;
            self.counted.dropped += (taken * drops(offered)).checked_div(offered).unwrap_or(0);
            self.now += SECOND;
            self.told = self.outflow.look(self.counted, full, self.now);
            self.told
        }
    }

    #[test]
    fn the_limit_is_what_comes_through_and_follows_a_wider_uplink() {
        let mut world = World::new();
        let uplink = |rate: u64| move |offered: u64| offered.saturating_sub(rate);
        for _ in 0..10 {
            assert_eq!(world.second(10_000_000, uplink(20_000_000), 0), None);
        }
        for _ in 0..5 {
            world.second(90_000_000, uplink(20_000_000), 5);
        }
        let mut all = Vec::new();
        for _ in 0..60 {
            all.extend(world.second(90_000_000, uplink(20_000_000), 5));
        }
        assert_eq!(all.len(), 60);
        assert!(
            all.iter().all(|l| (16_000_000..24_000_000).contains(l)),
            "{all:?}"
        );
        for _ in 0..60 {
            world.second(90_000_000, uplink(80_000_000), 5);
        }
        assert!(world.told > Some(60_000_000), "{:?}", world.told);
        // a program that sends little finds no wider uplink
        let before = world.told;
        world.second(1_000_000, uplink(80_000_000), 5);
        assert_eq!(world.told, before);
    }

    #[test]
    fn one_full_link_is_its_far_sides_and_drops_that_less_does_not_end_are_nobodys() {
        let mut world = World::new();
        let part = |offered: u64| offered / 5;
        for _ in 0..20 {
            assert_eq!(world.second(50_000_000, part, 1), None);
        }
        // two members whose links are full whatever comes
        let all: Vec<_> = (0..300)
            .map(|_| world.second(50_000_000, part, 2))
            .collect();
        let least = all.iter().flatten().min();
        assert!(least >= Some(&10_000_000), "{least:?}");
        let limited = all.iter().filter(|limit| limit.is_some()).count();
        assert!(limited < 40, "{limited} of 300 s");
    }
}
