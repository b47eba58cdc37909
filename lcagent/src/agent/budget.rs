//! Bounds the work for forged signatures: a check costs 60 µs, and anybody can send some.
//!
//! Only failed checks are charged. Each source has a share, so that one forger keeps no other
//! source out. Source addresses can be forged, so all together have a bound too, apart for sources
//! with a verified signature. A forger in their name has to outrun their share.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Instant;

use librecast::bucket::{Bucket, Rate};
use librecast::id::PeerId;

use crate::datagram::JobId;

/// Forged signatures checked of an unproven source (3 ms a second).
const STRANGER: Rate = Rate::per_second(50, 50);
/// Forged signatures checked of all unproven sources together: 1.5 % of a core.
const STRANGERS: Rate = Rate::per_second(250, 250);
/// Forged signatures checked of a source with a verified one.
const PROVEN: Rate = Rate::per_second(500, 500);
/// Forged signatures checked of all these sources together: 6 % of a core.
const ALL_PROVEN: Rate = Rate::per_second(1_000, 1_000);
/// Sources remembered of each of the two kinds.
const MAX_SOURCES: usize = 128;

/// The signature checks that sources have left.
#[derive(Debug)]
pub struct Budget {
    strangers: Sources,
    proven: Sources,
}

#[derive(Debug)]
struct Sources {
    each: Rate,
    all: Rate,
    together: Bucket,
    own: BTreeMap<Ipv6Addr, (Bucket, Instant)>,
}

impl Budget {
    /// Makes an unspent budget.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            strangers: Sources::new(STRANGER, STRANGERS, now),
            proven: Sources::new(PROVEN, ALL_PROVEN, now),
        }
    }

    /// Returns whether a signature from `source` may be checked.
    pub fn may_verify(&self, source: Ipv6Addr, now: Instant) -> bool {
        if self.proven.own.contains_key(&source) {
            return self.proven.have_left(source, now);
        }
        self.strangers.have_left(source, now)
    }

    /// Charges a failed check to `source`.
    pub fn forged(&mut self, source: Ipv6Addr, now: Instant) {
        if self.proven.own.contains_key(&source) {
            self.proven.spend(source, now);
        } else {
            self.strangers.spend(source, now);
        }
    }

    /// Notes a verified signature of `source`.
    pub fn genuine(&mut self, source: Ipv6Addr, now: Instant) {
        self.strangers.own.remove(&source);
        self.proven.remember(source, now);
    }
}

impl Sources {
    fn new(each: Rate, all: Rate, now: Instant) -> Self {
        Self {
            each,
            all,
            together: Bucket::full(now),
            own: BTreeMap::new(),
        }
    }

    fn have_left(&self, source: Ipv6Addr, now: Instant) -> bool {
        let own = self.own.get(&source);
        own.is_none_or(|(own, _)| own.ready(self.each, now)) && self.together.ready(self.all, now)
    }

    fn spend(&mut self, source: Ipv6Addr, now: Instant) {
        self.together.spend(self.all, 1, now);
        let each = self.each;
        self.remember(source, now).spend(each, 1, now);
    }

    fn remember(&mut self, source: Ipv6Addr, now: Instant) -> &mut Bucket {
        if self.own.len() >= MAX_SOURCES && !self.own.contains_key(&source) {
            let oldest = self.own.iter().min_by_key(|(_, (_, last_seen))| *last_seen);
            if let Some(source) = oldest.map(|(source, _)| *source) {
                self.own.remove(&source);
            }
        }
        let entry = self.own.entry(source);
        let (own, last_seen) = entry.or_insert((Bucket::full(now), now));
        *last_seen = now;
        own
    }
}

/// Returns the entry of a full table that gives way to one of `sponsor`: the oldest of the key with
/// the most, if `sponsor` would have no more.
pub(super) fn oldest_of_largest(
    held: impl Iterator<Item = (JobId, PeerId, Instant)>,
    sponsor: &PeerId,
) -> Option<JobId> {
    let mut of_each: BTreeMap<PeerId, Vec<(Instant, JobId)>> = BTreeMap::new();
    for (id, of, since) in held {
        of_each.entry(of).or_default().push((since, id));
    }
    let own = of_each.get(sponsor).map_or(0, Vec::len);
    let most = of_each.into_values().max_by_key(Vec::len)?;
    let oldest = most.iter().min()?.1;
    (most.len() > own + 1).then_some(oldest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    /// Sends forgeries from `sources` in turn, at `rate` a second; returns the number of checks.
    fn flood(budget: &mut Budget, sources: u16, rate: u32, seconds: u32, start: Instant) -> u64 {
        let mut looked_at = 0;
        for n in 0..rate * seconds {
            let now = start + Duration::from_secs(1) * n / rate;
            let from = source((n % u32::from(sources)) as u16);
            if budget.may_verify(from, now) {
                budget.forged(from, now);
                looked_at += 1;
            }
        }
        looked_at
    }

    #[test]
    fn a_flood_of_forged_signatures_costs_no_more_than_its_share() {
        let start = Instant::now();
        for (sources, a_second) in [(1, 50), (100, 250), (60_000, 250)] {
            let mut budget = Budget::new(start);
            let looked_at = flood(&mut budget, sources, 10_000, 10, start);
            assert!(
                looked_at <= a_second * 11 + u64::from(sources == 60_000) * 50,
                "{looked_at} of {sources} sources"
            );
        }
    }

    #[test]
    fn a_source_that_was_proven_is_heard_whatever_others_send() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let (operator, newcomer) = (source(60_001), source(60_002));
        budget.genuine(operator, start);
        flood(&mut budget, 60_000, 10_000, 2, start);
        let now = start + Duration::from_secs(2);
        // use up the rest of this moment
        for n in 0..=250 {
            if budget.may_verify(source(n), now) {
                budget.forged(source(n), now);
            }
        }
        assert!(!budget.may_verify(newcomer, now));
        assert!(budget.may_verify(operator, now));
        // a forger at another operator's address takes half of the budget, not all
        let other = source(60_003);
        budget.genuine(other, now);
        for _ in 0..10_000 {
            if budget.may_verify(other, now) {
                budget.forged(other, now);
            }
        }
        assert!(!budget.may_verify(other, now));
        assert!(budget.may_verify(operator, now));
    }

    #[test]
    fn sources_are_bounded() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for n in 0..10_000 {
            budget.genuine(source(n), start);
            budget.forged(source(n + 20_000), start);
        }
        for sources in [&budget.proven, &budget.strangers] {
            assert_eq!(sources.own.len(), MAX_SOURCES);
        }
    }
}
