//! Who the nodes are: keys, addresses and certificates, alike in every run.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::cert::{Certificate, Chain, Grant, GroupPrefix, Kind, Member};
use librecast::id::{NetworkId, OriginId, SecretKey};

use crate::fast;
use crate::scenario::Scenario;

/// When simulated networks begin, Unix seconds.
pub const UNIX_START: u64 = 1_800_000_000;
/// How long certificates are good.
const VALID: u64 = 365 * 86_400;

/// One node's identity.
#[derive(Debug)]
pub struct Identity {
    pub key: SecretKey,
    pub member: Member,
    pub chain: Bytes,
}

/// All nodes of a network.
#[derive(Debug)]
pub struct Population {
    identities: Vec<Identity>,
    origins: fast::Map<u64, u32>,
    pub(crate) network: NetworkId,
}

fn key(purpose: u8, number: u32) -> SecretKey {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn grant(name: String) -> Grant {
    Grant {
        not_before: UNIX_START,
        not_after: UNIX_START + VALID,
        renew_for: 0,
        core: true,
        name,
        labels: BTreeMap::new(),
        prefixes: vec![GroupPrefix::ALL],
    }
}

impl Population {
    /// The nodes of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        Self::new(scenario.nodes, scenario.topology.core)
    }

    /// `count` nodes, the share `core` of which may be roots of shared trees. The first ones are the same
    /// whatever the count.
    pub fn new(count: u32, core: f64) -> Self {
        let (top, issuing) = (key(b'n', 0), key(b'i', 0));
        let network: NetworkId = top.peer_id();
        let sign = |kind, subject, grant, by| {
            Certificate::sign(kind, network, subject, grant, by).expect("short names fit")
        };
        let above = grant(String::new());
        let issuer = sign(Kind::Issuer, issuing.peer_id(), above, &top);
        let identity = |number: u32| {
            let key = key(b'p', number);
            let grant = Grant {
                // evenly spread: 1 in 4 are 0, 4, 8 and so on
                core: (f64::from(number) * core).fract() + core >= 1.0 || core >= 1.0,
                ..grant(format!("node-{number}"))
            };
            let node = sign(Kind::Node, key.peer_id(), grant, &issuing);
            let chain = Chain::new(vec![issuer.clone(), node]).expect("an issuer, then a node");
            let member = chain.verify(&network, UNIX_START);
            Identity {
                member: member.expect("it was signed a moment ago"),
                chain: chain.encode().into(),
                key,
            }
        };
        let identities: Vec<Identity> = (0..count).map(identity).collect();
        let origins = identities
            .iter()
            .zip(0..)
            .map(|(identity, n)| (identity.member.addresses.origin.0, n))
            .collect();
        Self {
            identities,
            origins,
            network,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.identities.len() as u32
    }

    /// One of them.
    pub fn get(&self, node: u32) -> &Identity {
        &self.identities[node as usize]
    }

    /// The address of one of them.
    pub fn address(&self, node: u32) -> Ipv6Addr {
        self.get(node).member.addresses.address
    }

    /// Whose name it is.
    pub fn node(&self, origin: OriginId) -> Option<u32> {
        self.origins.get(&origin.0).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_core_as_was_asked_for() {
        for (share, expected) in [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)] {
            let population = Population::new(40, share);
            let core = (0..40).filter(|n| population.get(*n).member.core).count();
            assert_eq!(core, expected, "{share}");
        }
    }

    #[test]
    fn nodes_are_found_by_their_names() {
        let population = Population::new(5, 1.0);
        for node in 0..population.len() {
            assert_eq!(
                population.node(population.get(node).member.addresses.origin),
                Some(node)
            );
        }
    }
}
