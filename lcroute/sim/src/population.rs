//! Identities of the nodes: keys, addresses and certificates, the same in every run.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::{Certificate, Chain, EPHEMERAL, Grant, Kind, Member};
use librecast::id::{NetworkId, NodeAddresses, OriginId, PeerId, SecretKey};
use librecast::revocation::Revocation;
use librecast::time::UnixTime;

use crate::fast;
use crate::scenario::{Certificates, Scenario};

/// Begin of simulated networks, in Unix seconds.
pub const UNIX_START: u64 = 1_800_000_000;
/// Validity of certificates in seconds.
const VALID: u64 = 365 * 86_400;
/// Issuer's key: that of no node, or that of node 0.
const NOBODY: (u8, u32) = (b'i', 0);
const FIRST: (u8, u32) = (b'p', 0);

/// One node's identity.
#[derive(Debug)]
pub struct Identity {
    pub key: Arc<SecretKey>,
    pub member: Member,
    pub chain: Bytes,
}

/// All nodes of a network.
#[derive(Debug)]
pub struct Population {
    identities: Vec<Identity>,
    origins: fast::Map<u64, u32>,
    pub(crate) network: NetworkId,
    top: SecretKey,
}

fn key(purpose: u8, number: u32) -> SecretKey {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn grant(name: String, valid: u64) -> Grant {
    Grant {
        core: true,
        ..Grant::new(name, (UNIX_START, UNIX_START + valid))
    }
}

impl Population {
    /// Makes the nodes of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let issuer = if scenario.whole { FIRST } else { NOBODY };
        let core = scenario.topology.core;
        Self::with(scenario.nodes, core, issuer, &scenario.certificates)
    }

    /// Makes `count` nodes, of which the share `core` may be roots of shared trees. The first nodes
    /// are the same for each count.
    pub fn new(count: u32, core: f64) -> Self {
        Self::with(count, core, NOBODY, &Certificates::default())
    }

    /// Does the same with the key of the issuer, and the settings of certificates.
    fn with(
        count: u32,
        core: f64,
        (purpose, number): (u8, u32),
        certificates: &Certificates,
    ) -> Self {
        let valid = certificates.valid.0.as_secs();
        let (top, issuing) = (key(b'n', 0), key(purpose, number));
        let network: NetworkId = top.peer_id();
        let sign = |kind, subject, grant, by| {
            Certificate::sign(kind, network, subject, grant, by).expect("short names fit")
        };
        let above = grant(String::new(), VALID);
        let issuer = sign(Kind::Issuer, issuing.peer_id(), above, &top);
        let lifetime = certificates.ephemeral.then_some(EPHEMERAL);
        let labels = lifetime.map(|(label, value)| (label.to_owned(), value.to_owned()));
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let token = certificates.token.map(|uses| {
            let invited = Grant {
                uses: Some(uses),
                renew_for: valid,
                labels: labels.clone(),
                ..grant(String::new(), valid)
            };
            let key = key(b't', 0);
            let invitation = sign(Kind::Invitation, key.peer_id(), invited, &issuing);
            (key, invitation)
        });
        let identity = |number: u32| {
            let key = key(b'p', number);
            let by_token = token.as_ref().filter(|_| number > 0);
            let labels = by_token.map(|_| labels.clone()).unwrap_or_default();
            let grant = Grant {
                // spread evenly: 1 in 4 are 0, 4, 8 and so on
                core: (f64::from(number) * core).fract() + core >= 1.0 || core >= 1.0,
                labels,
                ..grant(format!("node-{number}"), valid)
            };
            let signer = by_token.map_or(&issuing, |(key, _)| key);
            let node = sign(Kind::Node, key.peer_id(), grant, signer);
            let invitation = by_token.map(|(_, invitation)| invitation.clone());
            let chain = std::iter::once(issuer.clone()).chain(invitation);
            let chain = Chain::new(chain.chain([node]).collect());
            let chain = chain.expect("an issuer, an invitation or none, then a node");
            let member = chain.verify(&network, UnixTime::from_secs(UNIX_START));
            Identity {
                member: member.expect("it was signed a moment ago"),
                chain: chain.encode().into(),
                key: Arc::new(key),
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
            top,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.identities.len() as u32
    }

    /// Returns a node's identity.
    pub fn get(&self, node: u32) -> &Identity {
        &self.identities[node as usize]
    }

    /// Returns a node's address.
    pub fn address(&self, node: u32) -> Ipv6Addr {
        self.get(node).member.addresses.address
    }

    /// Returns the node with this key.
    pub fn by_key(&self, key: &PeerId) -> Option<u32> {
        self.node(NodeAddresses::derive(&self.network, key).origin)
    }

    /// Returns the member for all leaves, which may join every group. Routers know leaves by link.
    pub fn leaf(&self) -> Member {
        let grant = Grant {
            core: false,
            leaf: true,
            ..grant("leaf".to_owned(), VALID)
        };
        let (network, key) = (self.network, key(b'l', 0));
        let sign = |kind, subject, grant, by| {
            Certificate::sign(kind, network, subject, grant, by).expect("short names fit")
        };
        let issuing = self::key(NOBODY.0, NOBODY.1);
        let above = self::grant(String::new(), VALID);
        let issuer = sign(Kind::Issuer, issuing.peer_id(), above, &self.top);
        let leaf = sign(Kind::Node, key.peer_id(), grant, &issuing);
        let chain = Chain::new(vec![issuer, leaf]).expect("an issuer, then a node");
        let member = chain.verify(&network, UnixTime::from_secs(UNIX_START));
        member.expect("it was signed a moment ago")
    }

    /// Returns the text of a node's revocation by the network's key.
    pub fn revocation(&self, node: u32, time: UnixTime) -> String {
        let key = self.get(node).member.peer;
        let revocation = Revocation::by_network(&self.top, key, time, time.as_secs() + VALID);
        lcroute_node::revocations::text(&revocation.expect("the network's key may do so"))
    }

    /// Returns the node with this origin id.
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
