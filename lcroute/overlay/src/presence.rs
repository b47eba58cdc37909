//! Presence: over which carriers a peer can be reached for signalling.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::PeerId;

use crate::OVERLAY_CARRIER;
use crate::event::CarrierId;

/// Most carriers of a peer.
const MAX_CARRIERS: usize = 16;

/// Peers that are present, with their carriers.
#[derive(Debug)]
pub(crate) struct Reachable {
    peers: BTreeMap<PeerId, BTreeSet<CarrierId>>,
    capacity: usize,
}

/// The effect of a presence message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Not present on this carrier before.
    New,
    /// Present before: a server repeats it when a node registers again.
    Again,
    /// The table is full.
    Full,
}

impl Reachable {
    /// Returns a table for at most `capacity` peers.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            peers: BTreeMap::new(),
            capacity,
        }
    }

    /// Adds `id` on `carrier`. In a full table, a wanted peer replaces an unwanted one.
    pub(crate) fn insert(
        &mut self,
        id: PeerId,
        carrier: CarrierId,
        wanted: &BTreeSet<PeerId>,
    ) -> Noted {
        if !self.peers.contains_key(&id) && self.peers.len() >= self.capacity {
            let other = self.peers.keys().find(|known| !wanted.contains(known));
            match other.copied().filter(|_| wanted.contains(&id)) {
                Some(other) => self.peers.remove(&other),
                None => return Noted::Full,
            };
        }
        let carriers = self.peers.entry(id).or_default();
        if carriers.len() >= MAX_CARRIERS && !carriers.contains(&carrier) {
            return Noted::Again;
        }
        let noted = match carriers.insert(carrier) {
            true => Noted::New,
            false => Noted::Again,
        };
        debug_assert!(carriers.len() <= MAX_CARRIERS, "carriers have a bound");
        debug_assert!(self.peers.len() <= self.capacity, "peers have a bound");
        noted
    }

    /// Removes `id` from `carrier`.
    pub(crate) fn remove(&mut self, id: &PeerId, carrier: CarrierId) {
        if let Some(carriers) = self.peers.get_mut(id) {
            carriers.remove(&carrier);
            if carriers.is_empty() {
                self.peers.remove(id);
            }
        }
    }

    /// Returns the peers on `carrier`.
    pub(crate) fn on(&self, carrier: CarrierId) -> Vec<PeerId> {
        let present = self.peers.iter().filter(|(_, on)| on.contains(&carrier));
        present.map(|(id, _)| *id).collect()
    }

    /// Returns whether it is present on any carrier.
    pub(crate) fn knows(&self, id: &PeerId) -> bool {
        self.peers.contains_key(id)
    }

    /// Returns whether it can be reached over links of the overlay, and over a signalling server.
    pub(crate) fn carriers(&self, id: &PeerId) -> (bool, bool) {
        let Some(carriers) = self.peers.get(id) else {
            return (false, false);
        };
        let over_links = carriers.contains(&OVERLAY_CARRIER);
        (over_links, carriers.len() > usize::from(over_links))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn a_peer_is_known_while_one_carrier_has_it() {
        let (mut reachable, nobody) = (Reachable::new(4), BTreeSet::new());
        let server = CarrierId(1);
        assert_eq!(reachable.insert(peer(1), server, &nobody), Noted::New);
        assert_eq!(reachable.insert(peer(1), server, &nobody), Noted::Again);
        assert_eq!(reachable.carriers(&peer(1)), (false, true));
        assert_eq!(
            reachable.insert(peer(1), OVERLAY_CARRIER, &nobody),
            Noted::New
        );
        assert_eq!(reachable.carriers(&peer(1)), (true, true));
        assert_eq!(reachable.on(server), [peer(1)]);
        reachable.remove(&peer(1), server);
        assert_eq!(reachable.carriers(&peer(1)), (true, false));
        reachable.remove(&peer(1), OVERLAY_CARRIER);
        assert!(!reachable.knows(&peer(1)) && reachable.peers.is_empty());
    }

    #[test]
    fn a_wanted_peer_finds_room_among_strangers() {
        let (mut reachable, carrier) = (Reachable::new(3), CarrierId(1));
        let wanted = BTreeSet::from([peer(1), peer(9)]);
        for n in 1..=3 {
            assert_eq!(reachable.insert(peer(n), carrier, &wanted), Noted::New);
        }
        assert_eq!(reachable.insert(peer(4), carrier, &wanted), Noted::Full);
        assert_eq!(reachable.insert(peer(9), carrier, &wanted), Noted::New);
        assert!(reachable.knows(&peer(1)) && reachable.knows(&peer(9)));
        assert_eq!(reachable.peers.len(), 3);
    }

    #[test]
    fn carriers_of_a_peer_are_bounded() {
        let (mut reachable, nobody) = (Reachable::new(4), BTreeSet::new());
        for n in 0..100 {
            reachable.insert(peer(1), CarrierId(n), &nobody);
        }
        assert_eq!(reachable.peers[&peer(1)].len(), MAX_CARRIERS);
    }
}
