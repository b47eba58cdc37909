//! Who is present: on signalling servers, and over the links of the network.

use std::collections::{BTreeMap, BTreeSet};

use lcroute_overlay::{CarrierId, Presence};
use librecast::id::{NetworkId, NodeAddresses, OriginId, PeerId};

/// Most nodes that one server can make present; as many as it has room for.
const MAX_PRESENT: usize = 4_096;

/// Nodes that can be reached for signalling.
#[derive(Debug)]
pub(crate) struct Present {
    network: NetworkId,
    /// Servers that are connected.
    carriers: BTreeSet<CarrierId>,
    by_carrier: BTreeMap<CarrierId, BTreeSet<PeerId>>,
    /// Of all that are present on a server.
    by_origin: BTreeMap<OriginId, PeerId>,
    /// Over the links of the network; the engine bounds it.
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

    /// How many servers are connected.
    pub(crate) fn servers(&self) -> usize {
        self.carriers.len()
    }

    /// Whether this server is connected.
    pub(crate) fn is_connected(&self, server: CarrierId) -> bool {
        self.carriers.contains(&server)
    }

    pub(crate) fn origin(&self, peer: &PeerId) -> OriginId {
        NodeAddresses::derive(&self.network, peer).origin
    }

    /// The key of a node that is present on a server.
    pub(crate) fn peer(&self, origin: OriginId) -> Option<PeerId> {
        self.by_origin.get(&origin).copied()
    }

    /// A node can be reached over the links of the network.
    pub(crate) fn reached(&mut self, origin: OriginId, peer: PeerId) {
        self.reachable.insert(origin, peer);
    }

    /// A node cannot be reached over the links of the network any more; who it is.
    pub(crate) fn lost(&mut self, origin: OriginId) -> Option<PeerId> {
        self.reachable.remove(&origin)
    }

    /// Whether it can be reached over the links of the network.
    pub(crate) fn is_reachable(&self, peer: &PeerId) -> bool {
        self.reachable.get(&self.origin(peer)) == Some(peer)
    }

    /// Those that can be reached over the links of the network.
    pub(crate) fn reachable(&self) -> BTreeSet<PeerId> {
        self.reachable.values().copied().collect()
    }

    /// Notes what a server says; who has come or gone by it, looking at all servers.
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
