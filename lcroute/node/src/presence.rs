//! Present nodes: on signalling servers, and over the links of the network.

use std::collections::{BTreeMap, BTreeSet};

use lcroute_overlay::{CarrierId, Presence};
use librecast::id::{NetworkId, NodeAddresses, OriginId, PeerId};

/// Maximum number of nodes that one server can report: the bound of its room.
const MAX_PRESENT: usize = 4_096;

/// Nodes that can be reached for signalling.
#[derive(Debug)]
pub(crate) struct Present {
    network: NetworkId,
    /// Connected servers.
    carriers: BTreeSet<CarrierId>,
    by_carrier: BTreeMap<CarrierId, BTreeSet<PeerId>>,
    /// All nodes that are present on a server.
    by_origin: BTreeMap<OriginId, PeerId>,
    /// Nodes reachable over the links of the network; the engine bounds them.
    reachable: BTreeMap<OriginId, PeerId>,
}

impl Present {
    pub(crate) fn new(network: NetworkId) -> Self {
        Self {
            network,
            carriers: BTreeSet::new(),
            by_carrier: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            reachable: BTreeMap::new(),
        }
    }

    pub(crate) fn servers(&self) -> usize {
        self.carriers.len()
    }

    pub(crate) fn is_connected(&self, server: CarrierId) -> bool {
        self.carriers.contains(&server)
    }

    pub(crate) fn origin(&self, peer: &PeerId) -> OriginId {
        NodeAddresses::derive(&self.network, peer).origin
    }

    pub(crate) fn peer(&self, origin: OriginId) -> Option<PeerId> {
        self.by_origin.get(&origin).copied()
    }

    /// Adds a node that is reachable over the links of the network.
    pub(crate) fn reached(&mut self, origin: OriginId, peer: PeerId) {
        self.reachable.insert(origin, peer);
    }

    /// Removes a node that is not reachable over the links any more; returns its key.
    pub(crate) fn lost(&mut self, origin: OriginId) -> Option<PeerId> {
        self.reachable.remove(&origin)
    }

    pub(crate) fn is_reachable(&self, peer: &PeerId) -> bool {
        self.reachable.get(&self.origin(peer)) == Some(peer)
    }

    /// Returns the nodes that are reachable over the links of the network.
    pub(crate) fn reachable(&self) -> BTreeSet<PeerId> {
        self.reachable.values().copied().collect()
    }

    /// Handles a server's report; returns the nodes that came or left over all servers.
    pub(crate) fn note(&mut self, carrier: CarrierId, presence: Presence) -> Vec<(OriginId, bool)> {
        let changed = match presence {
            Presence::CarrierUp => {
                self.carriers.insert(carrier);
                Vec::new()
            }
            Presence::CarrierDown => {
                self.carriers.remove(&carrier);
                let all = self.by_carrier.remove(&carrier).unwrap_or_default();
                all.into_iter().collect()
            }
            Presence::Online(peer) => {
                let on = self.by_carrier.entry(carrier).or_default();
                if on.len() < MAX_PRESENT {
                    on.insert(peer);
                }
                vec![peer]
            }
            Presence::Offline(peer) => {
                if let Some(on) = self.by_carrier.get_mut(&carrier) {
                    on.remove(&peer);
                }
                vec![peer]
            }
        };
        let mut came_and_went = Vec::new();
        for peer in changed {
            let origin = self.origin(&peer);
            let online = self.by_carrier.values().any(|on| on.contains(&peer));
            let before = self.by_origin.get(&origin) == Some(&peer);
            if online {
                self.by_origin.insert(origin, peer);
            } else if before {
                self.by_origin.remove(&origin);
            }
            if online != before {
                came_and_went.push((origin, online));
            }
        }
        came_and_went
    }
}
