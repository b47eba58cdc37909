//! The member that a verified chain proves, and revocations that end its membership.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Kind;
use super::prefix::{GroupPrefix, SourcePrefix};
use crate::id::{NodeAddresses, PeerId};
use crate::time::Duration;

/// Keys of earlier certificates in a renewed one.
pub const MAX_PREVIOUS: usize = 8;

/// Label and value of ephemeral members: they have no disk, and return under another key. A label,
/// because members keep those of their invitation, and issuers renew them.
pub const EPHEMERAL: (&str, &str) = ("lifetime", "ephemeral");
/// Label of gateways: the segment of LANs for which they may speak. A token's holder cannot add it.
pub const SEGMENT: &str = "segment";
/// Time after the loss of the last path to an ephemeral member until it is forgotten. Chosen:
/// restarts take less, and one that restarts each second does not fill routers' tables in it.
pub const EPHEMERAL_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Returns whether these are the labels of an ephemeral member.
pub fn is_ephemeral(labels: &BTreeMap<String, String>) -> bool {
    let (label, value) = EPHEMERAL;
    labels.get(label).is_some_and(|known| known == value)
}

/// Keys that a membership depends on: revoking one of them ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysAbove {
    /// The chain's issuer first, then issuers of earlier certificates.
    pub issuers: Vec<PeerId>,
    /// The invitation, if there was one, and invitations of earlier certificates.
    pub invitations: Vec<PeerId>,
}

impl KeysAbove {
    /// Returns issuers first, then invitations.
    pub fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.into_iter()
    }

    /// Returns whether the membership of `peer` ends once `key` is revoked. The network's key can
    /// expel any member; issuers (`by_network` is false) neither one another nor themselves.
    #[must_use]
    pub fn end_with(&self, peer: &PeerId, key: &PeerId, by_network: bool) -> bool {
        let node = peer == key || self.invitations.contains(key);
        if by_network {
            node || self.issuers.contains(key)
        } else {
            node && self.issuers.first() != Some(key)
        }
    }

    pub(super) fn len(&self) -> usize {
        self.issuers.len() + self.invitations.len()
    }

    pub(super) fn add(&mut self, kind: Kind, key: PeerId) {
        let list = match kind {
            Kind::Issuer => &mut self.issuers,
            Kind::Invitation => &mut self.invitations,
            Kind::Node => return,
        };
        if !list.contains(&key) {
            list.push(key);
        }
    }
}

impl<'a> IntoIterator for &'a KeysAbove {
    type Item = &'a PeerId;
    type IntoIter = std::iter::Chain<std::slice::Iter<'a, PeerId>, std::slice::Iter<'a, PeerId>>;

    fn into_iter(self) -> Self::IntoIter {
        self.issuers.iter().chain(&self.invitations)
    }
}

/// A verified node, with the rights that its chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Public key of the node.
    pub peer: PeerId,
    /// Its chosen name.
    pub name: String,
    /// Labels of its certificate.
    pub labels: BTreeMap<String, String>,
    /// Groups it may send to; for a leaf, groups that it may join.
    pub prefixes: Vec<GroupPrefix>,
    /// Addresses of hosts without lcroute for which it may speak.
    pub gateway: Vec<SourcePrefix>,
    /// May be the root of shared trees.
    pub core: bool,
    /// A leaf: it is not a router, and sends nothing without `uplink`.
    pub leaf: bool,
    /// A leaf that may send to asking groups.
    pub uplink: bool,
    /// End of its certificate in Unix seconds, the earliest of its chain.
    pub not_after: u64,
    /// Addresses derived from network key and node key.
    pub addresses: NodeAddresses,
    /// The keys that its membership depends on.
    pub keys: KeysAbove,
    /// The bound of its token; none after a renewal, or without one.
    pub bound: Option<TokenBound>,
}

/// The number of nodes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBound {
    /// That number.
    pub uses: u32,
    /// End of the token in Unix seconds, and of memberships by it.
    pub until: u64,
}

impl Member {
    /// Returns whether it has an issuer certificate: may invite, renew and revoke. Its chain begins
    /// with that certificate; keys of earlier certificates make no node an issuer.
    pub fn is_issuer(&self) -> bool {
        self.keys.issuers.first() == Some(&self.peer)
    }

    /// Returns the invitation that it joined by, if any.
    pub fn invitation(&self) -> Option<&PeerId> {
        self.keys.invitations.first()
    }

    /// Returns whether it is forgotten some minutes after it has gone.
    pub fn is_ephemeral(&self) -> bool {
        is_ephemeral(&self.labels)
    }

    /// Returns whether it is expelled once `key` is revoked: [`KeysAbove::end_with`].
    pub fn is_expelled_by(&self, key: &PeerId, by_network: bool) -> bool {
        self.keys.end_with(&self.peer, key, by_network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::fixture::{TODAY, grant, network, token};
    use crate::cert::{Certificate, Chain};
    use crate::id::SecretKey;

    #[test]
    fn issuers_expel_nodes_and_invitations_and_only_the_network_expels_issuers() {
        let n = network();
        let net = n.key.peer_id();
        let token = token(&n, grant(""));
        let node = SecretKey::generate().peer_id();
        let member = token
            .join(node, "a", TODAY)
            .unwrap()
            .verify(&net, TODAY)
            .unwrap();
        let (issuer, invitation) = (n.issuer_key.peer_id(), token.invitation().subject());
        for (key, by_issuer, by_network) in [
            (node, true, true),
            (invitation, true, true),
            (issuer, false, true),
            (SecretKey::generate().peer_id(), false, false),
        ] {
            assert_eq!(member.is_expelled_by(&key, false), by_issuer);
            assert_eq!(member.is_expelled_by(&key, true), by_network);
        }
        assert!(!member.is_issuer());
        // a founder: issuer and node with one key
        let founder =
            Certificate::sign(Kind::Node, net, issuer, grant("f"), &n.issuer_key).unwrap();
        let founder = Chain::new(vec![n.issuer.clone(), founder]).unwrap();
        let founder = founder.verify(&net, TODAY).unwrap();
        assert!(founder.is_issuer());
        assert!(!founder.is_expelled_by(&issuer, false));
        assert!(founder.is_expelled_by(&issuer, true));
    }
}
