//! The IPv4 address of this router, which it assigns to itself (like prefixes in RFC 7695).
//!
//! ```text
//!               another router has it              settled            a router with a lower id has it
//!   candidate ------------------------> the next ----------> address ---------------------------------> the next
//! ```
//! A new router takes its first candidate at once, like an optimistic address of RFC 4429, so that
//! programs can start. Until it knows the other routers, it yields to any of them. So they wait a
//! moment before they yield. The address is kept on disk and advertised from the start. If networks
//! join and two routers have one address, the router with the lower id keeps it.

use std::net::Ipv4Addr;
use std::time::Duration;

use librecast::id::{OriginId, PeerId};
use librecast::time::Instant;

use crate::ipv4_network::Ipv4Network;

/// Candidates that are tried. Chosen: of 65,000 addresses, 4,096 routers take the first sixteen
/// once in 10^19 times.
const MAX_CANDIDATES: u16 = 256;
/// Time for which a router with a lower id must have the address, until this one yields: a new one
/// yields before. Chosen: a new router settles in 2 s.
const YIELD_TIME: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Assignment {
    network: Ipv4Network,
    peer: PeerId,
    own: OriginId,
    address: Option<Ipv4Addr>,
    /// Chosen in this run, before the other routers are known.
    is_new: bool,
    /// Since when a router with a lower id has the address, too.
    contested: Option<Instant>,
}

impl Assignment {
    /// The assignment with an earlier run's address, if that is of this network, else with the
    /// first candidate.
    pub fn new(
        network: Ipv4Network,
        (own, peer): (OriginId, PeerId),
        kept: Option<Ipv4Addr>,
    ) -> Self {
        let kept = kept.filter(|address| network.may_assign(*address));
        Self {
            network,
            peer,
            own,
            address: kept.or_else(|| Some(network.candidate(&peer, 0))),
            is_new: kept.is_none(),
            contested: None,
        }
    }

    /// The address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// The time from which on the address is another one, unless the other router yields.
    pub fn yields_at(&self) -> Option<Instant> {
        self.contested.map(|since| since + YIELD_TIME)
    }

    /// Chooses another address if necessary. `holder`: the other router with the lowest id that has
    /// an address. `settled`: this router knows the other routers. True: the address has changed.
    pub fn review(
        &mut self,
        holder: impl Fn(Ipv4Addr) -> Option<OriginId>,
        settled: bool,
        now: Instant,
    ) -> bool {
        let before = self.address;
        if self.must_yield(before.and_then(&holder), now) {
            self.contested = None;
            let candidates = (0..MAX_CANDIDATES).map(|n| self.network.candidate(&self.peer, n));
            let mut free = candidates.filter(|address| holder(*address).is_none());
            self.address = free.next();
        }
        self.is_new &= !settled;
        before != self.address
    }

    /// Whether the address must be another one; `other` has it, too.
    fn must_yield(&mut self, other: Option<OriginId>, now: Instant) -> bool {
        match other {
            None => self.contested = None,
            Some(_) if self.is_new => return true,
            Some(other) if self.own < other => self.contested = None,
            Some(_) => {
                self.contested.get_or_insert(now);
            }
        }
        self.address.is_none() || self.yields_at().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::{TestServices, start};

    fn network() -> Ipv4Network {
        "10.77.0.0/16".parse().unwrap()
    }

    fn routers(count: u16) -> Vec<Assignment> {
        let one = |n: u16| {
            let peer = TestServices::new(n).peer();
            // ids that do not depend on the order of keys
            let own = OriginId(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Assignment::new(network(), (own, peer), None)
        };
        (1..=count).map(one).collect()
    }

    /// Reviews all of `group` after their earlier addresses; returns the number of changes.
    fn turn(all: &mut [Assignment], group: &[usize], now: Instant) -> usize {
        let mut holders = BTreeMap::<_, Vec<_>>::new();
        for router in group.iter().map(|at| &all[*at]) {
            if let Some(address) = router.address {
                holders.entry(address).or_default().push(router.own);
            }
        }
        let mut changed = 0;
        for at in group {
            let own = all[*at].own;
            let lowest = |address: Ipv4Addr| {
                let others = holders.get(&address)?.iter().filter(|other| **other != own);
                others.min().copied()
            };
            changed += usize::from(all[*at].review(lowest, true, now));
        }
        changed
    }

    fn settle(all: &mut [Assignment], group: &[usize]) -> usize {
        let mut now = start();
        let mut still = 0;
        // a contest begins in one turn and may end in the next
        (1..100)
            .find(|_| {
                now += YIELD_TIME;
                still = if turn(all, group, now) == 0 {
                    still + 1
                } else {
                    0
                };
                still == 2
            })
            .expect("it settles")
    }

    fn assert_distinct(all: &[Assignment]) {
        let mut addresses: Vec<_> = all.iter().map(|r| r.address.unwrap()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all.len());
    }

    #[test]
    fn a_new_router_has_an_address_at_once_and_yields_it_to_any_other_until_it_has_settled() {
        let now = start();
        let first =
            |address: Ipv4Addr| move |asked| (asked == address).then_some(OriginId(u64::MAX));
        let mut one = routers(1).remove(0);
        let address = one.address().unwrap();
        assert!(!one.review(|_| None, false, now), "it stays");
        assert!(
            one.review(first(address), false, now),
            "though its id is lower"
        );
        let next = one.address().unwrap();
        assert!(next != address && !one.review(first(address), true, now));
        assert!(
            !one.review(first(next), true, now),
            "now the lower id counts"
        );
    }

    #[test]
    fn a_settled_router_gives_a_new_one_time_to_yield() {
        let now = start();
        let lower = |_| Some(OriginId(0));
        let mut one = routers(1).remove(0);
        let address = one.address();
        assert!(!one.review(|_| None, true, now));
        assert!(!one.review(lower, true, now) && one.yields_at() == Some(now + YIELD_TIME));
        assert!(!one.review(|_| None, true, now + YIELD_TIME / 2) && one.yields_at().is_none());
        assert!(!one.review(lower, true, now + YIELD_TIME));
        let is_free = |asked| (Some(asked) == address).then_some(OriginId(0));
        assert!(one.review(is_free, true, now + YIELD_TIME * 2) && one.address() != address);
    }

    #[test]
    fn of_two_with_one_address_the_lower_keeps_it() {
        let mut all = routers(2);
        all.sort_by_key(|router| router.own);
        let address = network().candidate(&all[0].peer, 0);
        for router in &mut all {
            (router.address, router.is_new) = (Some(address), false);
        }
        settle(&mut all, &[0, 1]);
        assert_eq!(all[0].address, Some(address));
        assert_distinct(&all);
    }

    #[test]
    fn a_thousand_at_once_have_addresses_of_their_own_after_a_few_turns() {
        let mut all = routers(1_000);
        let group: Vec<_> = (0..all.len()).collect();
        let turns = settle(&mut all, &group);
        assert!(turns <= 5, "{turns}");
        assert_distinct(&all);
    }

    #[test]
    fn after_a_partition_only_those_move_that_have_one_address() {
        let mut all = routers(600);
        let halves: [Vec<_>; 2] = [(0..300).collect(), (300..600).collect()];
        for half in &halves {
            settle(&mut all, half);
        }
        let before: Vec<_> = all.iter().map(|r| r.address).collect();
        let mut twice: Vec<_> = before.iter().flatten().copied().collect();
        twice.sort_unstable();
        let clashes = twice.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(clashes > 0, "else this shows nothing");
        settle(&mut all, &halves.concat());
        assert_distinct(&all);
        let moved = all
            .iter()
            .zip(before)
            .filter(|(r, before)| r.address != *before);
        assert_eq!(moved.count(), clashes);
    }

    #[test]
    fn what_the_disk_says_is_used_if_it_is_of_this_network() {
        let kept = |address: &str| {
            let key = (OriginId(1), TestServices::new(1).peer());
            Assignment::new(network(), key, Some(address.parse().unwrap())).address()
        };
        assert_eq!(kept("10.77.4.5"), Some(Ipv4Addr::new(10, 77, 4, 5)));
        let first = network().candidate(&TestServices::new(1).peer(), 0);
        for other in ["10.78.4.5", "10.77.0.5", "10.77.255.255"] {
            assert_eq!(kept(other), Some(first), "{other}");
        }
    }
}
