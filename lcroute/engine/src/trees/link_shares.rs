//! The room for this router's join state at a neighbour, shared by all payers.
//!
//! | for | share of the entries |
//! |---|---|
//! | this host's programs | half, and the rest of the other half |
//! | LANs and other neighbours | half, and the rest of the other half, in equal parts |
//! | leaves | the rest, at most half |
//!
//! Entries without room wait. A hash with a secret key chooses the entries of a share that wait. So
//! no node displaces another node's entries behind the same link by its choice of groups.

use std::net::Ipv6Addr;

use librecast::id::{LinkId, OriginId};

use crate::interface_id::LocalInterfaceId;
use crate::join::Join;
use crate::shares::Shares;

/// A party for which a router advertises join state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// Programs of this host.
    Own,
    /// Hosts of a LAN.
    Lan(LocalInterfaceId),
    /// Another neighbour, and all nodes behind it.
    Link(LinkId),
    /// Leaves of this router.
    Leaves,
}

impl Payer {
    /// The order of join state in messages: own programs first, leaves last.
    pub fn turn(self) -> u8 {
        match self {
            Self::Own => 0,
            Self::Lan(_) | Self::Link(_) => 1,
            Self::Leaves => 2,
        }
    }

    /// A LAN or a neighbour.
    fn is_peer(self) -> bool {
        matches!(self, Self::Lan(_) | Self::Link(_))
    }
}

/// An entry: its rank within a share, the root and the group.
pub(super) type Key = (u64, OriginId, Ipv6Addr);

/// Bounds of a neighbour for one router's join state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// (root, group) entries.
    pub entries: usize,
    /// Sources in all filters.
    pub sources: usize,
}

#[derive(Debug, Default)]
pub(super) struct LinkShares {
    /// Entries that are advertised.
    kept: Shares<Payer, Key>,
    /// Entries for which there is no room.
    waiting: Shares<Payer, Key>,
    /// Sources in all filters that are advertised.
    sources: usize,
}

impl LinkShares {
    /// Entries that are advertised, by share.
    pub fn kept(&self) -> &Shares<Payer, Key> {
        &self.kept
    }

    /// Whether each further entry displaces another.
    pub fn is_full(&self, room: Room) -> bool {
        self.kept.len() >= room.entries
    }

    pub fn has_waiting(&self) -> bool {
        self.waiting.len() > 0
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Advertises an entry if its share allows it, else it waits. Displaced ones go to `evicted`.
    pub fn admit(&mut self, payer: Payer, key: Key, room: Room, evicted: &mut Vec<Key>) -> bool {
        while !self.has_room(payer, room) {
            let Some((victim, other)) = self.victim(payer, key, room) else {
                self.waiting.insert(payer, key);
                return false;
            };
            self.kept.remove(victim, other);
            evicted.push(other);
        }
        self.kept.insert(payer, key);
        debug_assert!(
            self.kept.len() <= room.entries,
            "the neighbour has room for each"
        );
        true
    }

    fn has_room(&self, payer: Payer, room: Room) -> bool {
        let is_within = payer != Payer::Leaves || self.kept.of(payer) < room.entries / 2;
        is_within && !self.is_full(room)
    }

    /// The entry that this one displaces.
    fn victim(&self, payer: Payer, key: Key, room: Room) -> Option<(Payer, Key)> {
        let (own, half) = (self.kept.of(Payer::Own), room.entries / 2);
        let peers = self.kept.len() - own - self.kept.of(Payer::Leaves);
        let last = |payer| Some((payer, self.kept.last(payer)?));
        if payer != Payer::Leaves
            && let Some(leaves) = last(Payer::Leaves)
        {
            return Some(leaves);
        }
        if payer.is_peer() && peers < half && own > 0 {
            return last(Payer::Own);
        }
        let parts = self.kept.parts().filter(|(payer, _)| payer.is_peer());
        let largest = parts.max_by_key(|(_, size)| *size);
        let gives_way = |(_, size): &(Payer, usize)| match payer {
            Payer::Own => own < half,
            Payer::Leaves => false,
            Payer::Lan(_) | Payer::Link(_) => *size > self.kept.of(payer) + 1,
        };
        if let Some((victim, _)) = largest.filter(gives_way) {
            return last(victim);
        }
        last(payer).filter(|(_, other)| key < *other)
    }

    /// Moves an entry to another share.
    pub fn pass(&mut self, from: Payer, to: Payer, key: Key) {
        self.kept.remove(from, key);
        self.kept.insert(to, key);
    }

    /// Removes an entry that is neither advertised nor waits any more.
    pub fn release(&mut self, payer: Payer, key: Key) {
        self.kept.remove(payer, key);
        self.waiting.remove(payer, key);
    }

    /// The next entry for which there is room, and its share.
    pub fn next_waiting(&self, room: Room) -> Option<(Payer, Key)> {
        let payers = self.waiting.parts().map(|(payer, _)| payer);
        let payers = payers.filter(|payer| self.has_room(*payer, room));
        let next = payers.min_by_key(|payer| (payer.turn(), self.kept.of(*payer)))?;
        Some((next, self.waiting.first(next)?))
    }

    /// The Join to advertise in place of `before`: for all sources, if these do not fit.
    pub fn fit(&self, payer: Payer, before: &Join, join: Join, room: Room) -> Join {
        let most = match payer {
            Payer::Own => room.sources,
            Payer::Lan(_) | Payer::Link(_) | Payer::Leaves => room.sources / 2,
        };
        let others = self.sources - before.sources();
        match join.sources() {
            0 => join,
            sources if others + sources <= most => join,
            _ => Join::All,
        }
    }

    pub fn book_sources(&mut self, before: &Join, after: &Join) {
        debug_assert!(
            self.sources >= before.sources(),
            "the sources before were booked"
        );
        self.sources = self.sources + after.sources() - before.sources();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        entries: 64,
        sources: 8,
    };

    fn key(n: u64) -> Key {
        (n, OriginId(1), Ipv6Addr::LOCALHOST)
    }

    fn link(n: u32) -> Payer {
        Payer::Link(LinkId(n))
    }

    /// Numbers of advertised entries, after each payer has asked for these in this order.
    fn shared(demands: &[(Payer, u64)]) -> Vec<usize> {
        let mut shares = LinkShares::default();
        let mut next = 0;
        for (payer, demand) in demands {
            for _ in 0..*demand {
                next += 1;
                let mut evicted = Vec::new();
                shares.admit(*payer, key(next), ROOM, &mut evicted);
                // an evicted entry waits in its payer's share
                for other in evicted {
                    let mut of = demands.iter().scan(0, |sum, (payer, demand)| {
                        *sum += demand;
                        Some((*payer, *sum))
                    });
                    let (owner, _) = of.find(|(_, sum)| other.0 <= *sum).unwrap();
                    shares.waiting.insert(owner, other);
                }
            }
        }
        let kept = demands.iter().map(|(payer, _)| shares.kept.of(*payer));
        kept.collect()
    }

    #[test]
    fn whoever_comes_first_own_programs_and_peers_have_half_each_and_leaves_the_rest() {
        let (own, leaves) = (Payer::Own, Payer::Leaves);
        assert_eq!(shared(&[(own, 200), (link(1), 200)]), [32, 32]);
        assert_eq!(shared(&[(link(1), 200), (own, 200)]), [32, 32]);
        assert_eq!(shared(&[(link(1), 200), (own, 5)]), [59, 5]);
        assert_eq!(shared(&[(own, 200), (link(1), 5)]), [59, 5]);
        assert_eq!(shared(&[(leaves, 200), (own, 5), (link(1), 5)]), [32, 5, 5]);
        assert_eq!(shared(&[(leaves, 200), (link(1), 200)]), [0, 64]);
        assert_eq!(shared(&[(link(1), 200), (leaves, 200)]), [64, 0]);
    }

    #[test]
    fn peers_have_what_they_want_up_to_equal_parts() {
        let lan = Payer::Lan(LocalInterfaceId(3));
        assert_eq!(shared(&[(link(1), 200), (link(2), 200)]), [32, 32]);
        assert_eq!(
            shared(&[(link(1), 200), (lan, 3), (link(2), 200)]),
            [31, 3, 30]
        );
        let many: Vec<_> = (1..=16).map(|n| (link(n), 100)).collect();
        assert!(shared(&many).iter().all(|kept| *kept == 4));
    }

    #[test]
    fn room_goes_to_own_programs_then_to_the_smallest_share_then_to_leaves() {
        let mut shares = LinkShares::default();
        for n in 0..64 {
            shares.admit(Payer::Own, key(n), ROOM, &mut Vec::new());
        }
        for (payer, n) in [(Payer::Own, 99), (link(1), 100), (Payer::Leaves, 101)] {
            shares.waiting.insert(payer, key(n));
        }
        assert_eq!(shares.next_waiting(ROOM), None);
        let mut order = Vec::new();
        for n in 0..3 {
            shares.release(Payer::Own, key(n));
            let (payer, key) = shares.next_waiting(ROOM).unwrap();
            shares.release(payer, key);
            assert!(shares.admit(payer, key, ROOM, &mut Vec::new()));
            order.push(payer);
        }
        assert_eq!(order, [Payer::Own, link(1), Payer::Leaves]);
    }

    #[test]
    fn sources_that_do_not_fit_become_all_of_them_and_half_is_for_own_programs() {
        let mut shares = LinkShares::default();
        let some = |from: u16, to: u16| -> Join {
            let sources = (from..to).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
            crate::source_filter::SourceFilter::include(sources).into()
        };
        let (three, none) = (some(0, 3), Join::None);
        assert_eq!(shares.fit(link(1), &none, three.clone(), ROOM), three);
        shares.book_sources(&none, &three);
        assert_eq!(shares.fit(link(2), &none, some(0, 2), ROOM), Join::All);
        let own = shares.fit(Payer::Own, &none, some(0, 5), ROOM);
        assert_eq!(own, some(0, 5));
        shares.book_sources(&none, &own);
        assert_eq!(shares.fit(link(1), &three, some(0, 3), ROOM), Join::All);
        shares.book_sources(&own, &none);
        assert_eq!(shares.fit(link(1), &three, some(0, 4), ROOM), some(0, 4));
    }
}
