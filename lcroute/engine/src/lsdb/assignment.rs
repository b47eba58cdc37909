//! The IPv4 address of this router, which it assigns to itself (like prefixes in RFC 7695).
//!
//! ```text
//!            settled: the first free candidate         a router with a lower id has it, too
//!   (none) ------------------------------> address ------------------------> the next candidate
//! ```
//! The address is kept on disk and advertised from the start. If networks join and two routers have
//! one address, the router with the lower id keeps it.

use std::net::Ipv4Addr;

use librecast::id::{OriginId, PeerId};

use crate::ipv4_network::Ipv4Network;

/// Candidates that are tried. Chosen: of 65,000 addresses, 4,096 routers take the first sixteen
/// once in 10^19 times.
const MAX_CANDIDATES: u16 = 256;

/// This router's address.
#[derive(Debug)]
pub(super) struct Assignment {
    network: Ipv4Network,
    peer: PeerId,
    own: OriginId,
    address: Option<Ipv4Addr>,
}

impl Assignment {
    /// The assignment with an earlier run's address, if that is of this network.
    pub fn new(
        network: Ipv4Network,
        (own, peer): (OriginId, PeerId),
        kept: Option<Ipv4Addr>,
    ) -> Self {
        Self {
            network,
            peer,
            own,
            address: kept.filter(|address| network.may_assign(*address)),
        }
    }

    /// The address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// Chooses an address if necessary. `holder`: the other router with the lowest id that has an
    /// address. `settled`: this router knows the other routers. True: the address has changed.
    pub fn review(&mut self, holder: impl Fn(Ipv4Addr) -> Option<OriginId>, settled: bool) -> bool {
        let keeps = |address| holder(address).is_none_or(|other| self.own < other);
        match self.address {
            Some(address) if keeps(address) => return false,
            None if !settled => return false,
            _ => {}
        }
        let candidates = (0..MAX_CANDIDATES).map(|n| self.network.candidate(&self.peer, n));
        let mut free = candidates.filter(|address| holder(*address).is_none());
        let before = std::mem::replace(&mut self.address, free.next());
        before != self.address
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::TestServices;

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
    fn turn(all: &mut [Assignment], group: &[usize]) -> usize {
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
            changed += usize::from(all[*at].review(lowest, true));
        }
        changed
    }

    fn settle(all: &mut [Assignment], group: &[usize]) -> usize {
        (1..100)
            .find(|_| turn(all, group) == 0)
            .expect("it settles")
    }

    fn assert_distinct(all: &[Assignment]) {
        let mut addresses: Vec<_> = all.iter().map(|r| r.address.unwrap()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all.len());
    }

    #[test]
    fn nothing_is_chosen_before_the_others_are_known() {
        let mut one = routers(1).remove(0);
        assert!(!one.review(|_| None, false) && one.address().is_none());
        assert!(one.review(|_| None, true) && one.address().is_some());
        assert!(!one.review(|_| None, false), "it stays");
    }

    #[test]
    fn of_two_with_one_address_the_lower_keeps_it() {
        let mut all = routers(2);
        all.sort_by_key(|router| router.own);
        let address = network().candidate(&all[0].peer, 0);
        all[0].address = Some(address);
        all[1].address = Some(address);
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
        for other in ["10.78.4.5", "10.77.0.5", "10.77.255.255"] {
            assert_eq!(kept(other), None, "{other}");
        }
    }
}
