//! Who the nodes are: keys, addresses and certificates, alike in every run.

use std::net::Ipv6Addr;

use librecast::id::{NetworkId, NodeAddresses, PeerId, SecretKey};

use crate::fast;

/// One node's identity.
#[derive(Debug)]
pub struct Identity {
    pub key: SecretKey,
    pub peer_id: PeerId,
    pub addresses: NodeAddresses,
}

/// All nodes of a network.
#[derive(Debug)]
pub struct Population {
    identities: Vec<Identity>,
    origins: fast::Map<u64, u32>,
}

fn key(purpose: u8, number: u32) -> SecretKey {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

impl Population {
    /// `count` nodes. The first ones are the same whatever the count.
    pub fn new(count: u32) -> Self {
        let network: NetworkId = key(b'n', 0).peer_id();
        let identity = |number| {
            let key = key(b'p', number);
            let peer_id = key.peer_id();
            Identity {
                addresses: NodeAddresses::derive(&network, &peer_id),
                peer_id,
                key,
            }
        };
        let identities: Vec<Identity> = (0..count).map(identity).collect();
        let origins = identities
            .iter()
            .enumerate()
            .map(|(n, i)| (i.addresses.origin.0, n as u32))
            .collect();
        Self {
            identities,
            origins,
        }
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.identities.len() as u32
    }

    /// One of them.
    pub fn get(&self, node: u32) -> &Identity {
        &self.identities[node as usize]
    }

    /// The address of one of them.
    pub fn address(&self, node: u32) -> Ipv6Addr {
        self.get(node).addresses.address
    }

    /// Whose origin id it is.
    pub fn node(&self, origin: u64) -> Option<u32> {
        self.origins.get(&origin).copied()
    }
}
