//! What a verified chain proves of a node, and whose revocation ends its membership.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Kind;
use super::prefix::{GroupPrefix, SourcePrefix};
use crate::id::{NodeAddresses, PeerId};
use crate::time::Duration;

/// Most keys of earlier certificates that a renewed one remembers.
pub const MAX_PREVIOUS: usize = 8;

/// The label of ephemeral members, and its value: they live without a disk, and come back as somebody else. A label, because
/// every version keeps those of an invitation, and issuers of every version renew them.
pub const EPHEMERAL: (&str, &str) = ("lifetime", "ephemeral");
/// An ephemeral member is forgotten so long after the last path to it has gone. Chosen: a host that restarts and a network that
/// comes back take less, and who restarts once a second fills no table of routers in that time.
pub const EPHEMERAL_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Whether these are the labels of an ephemeral member.
#[must_use]
pub fn is_ephemeral(labels: &BTreeMap<String, String>) -> bool {
    let (label, value) = EPHEMERAL;
    labels.get(label).is_some_and(|known| known == value)
}

/// Keys that a membership stands on: whoever revokes one of them ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysAbove {
    /// The chain's issuer first, then those of earlier certificates.
    pub issuers: Vec<PeerId>,
    /// The invitation, if there was one, and those of earlier certificates.
    pub invitations: Vec<PeerId>,
}

impl KeysAbove {
    /// Issuers first, then invitations.
    pub fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.into_iter()
    }

    /// Whether the membership of `peer` ends once `key` is revoked. The network's key can expel everyone; issuers
    /// (`by_network` is false) neither one another nor themselves.
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

/// A verified node: what its chain proves of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Public key of the node.
    pub peer: PeerId,
    /// The name it gave itself.
    pub name: String,
    /// Labels of its certificate.
    pub labels: BTreeMap<String, String>,
    /// Groups it may send to; that a leaf may join.
    pub prefixes: Vec<GroupPrefix>,
    /// Hosts without lcroute for which it may speak, by their addresses.
    pub gateway: Vec<SourcePrefix>,
    /// May be the root of shared trees.
    pub core: bool,
    /// A leaf: it listens, sends nothing and is no router.
    pub leaf: bool,
    /// Unix seconds: when its certificate ends, the first of its chain to do so.
    pub not_after: u64,
    /// Addresses derived from network key and node key.
    pub addresses: NodeAddresses,
    /// The keys that its membership stands on.
    pub keys: KeysAbove,
    /// The bound of the token that it goes by; none once it is renewed, or if there is none.
    pub bound: Option<TokenBound>,
}

/// How many nodes a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBound {
    /// So many.
    pub uses: u32,
    /// Unix seconds: when the token ends, and with it the memberships that go by it.
    pub until: u64,
}

impl Member {
    /// Whether it holds an issuer certificate: may invite, renew and revoke. The chain begins with that
    /// certificate; keys of earlier certificates make nobody an issuer.
    #[must_use]
    pub fn is_issuer(&self) -> bool {
        self.keys.issuers.first() == Some(&self.peer)
    }

    /// The invitation that it came by, if it was one.
    #[must_use]
    pub fn invitation(&self) -> Option<&PeerId> {
        self.keys.invitations.first()
    }

    /// Whether it is forgotten some minutes after it has gone.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        is_ephemeral(&self.labels)
    }

    /// Whether it is out once `key` is revoked: [`KeysAbove::end_with`].
    #[must_use]
    pub fn is_expelled_by(&self, key: &PeerId, by_network: bool) -> bool {
        self.keys.end_with(&self.peer, key, by_network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::fixture::{NOW, grant, network, token};
    use crate::cert::{Certificate, Chain};
    use crate::id::SecretKey;

    #[test]
    fn issuers_expel_nodes_and_invitations_and_only_the_network_expels_issuers() {
        let n = network();
        let net = n.key.peer_id();
        let token = token(&n, grant(""));
        let node = SecretKey::generate().peer_id();
        let member = token
            .join(node, "a", NOW)
            .unwrap()
            .verify(&net, NOW)
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
        let founder = founder.verify(&net, NOW).unwrap();
        assert!(founder.is_issuer());
        assert!(!founder.is_expelled_by(&issuer, false));
        assert!(founder.is_expelled_by(&issuer, true));
    }
}
