//! Revoked keys, and the members that they expel.

use std::collections::BTreeMap;

use bytes::Bytes;
use librecast::cert::Member;
use librecast::id::PeerId;
use tracing::warn;

/// Maximum number of revoked keys.
const MAX_REVOKED: usize = 8_192;

/// The origin of a revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Whether the network's own key signed it; such a revocation may end an issuer.
    pub by_network: bool,
    /// The signed revocation, which expelled members receive.
    pub revocation: Bytes,
}

/// Revoked keys of nodes, invitations and issuers.
#[derive(Debug, Default)]
pub(crate) struct Revocations(BTreeMap<PeerId, Revoked>);

impl Revocations {
    /// Adds a key; returns the number of keys that were dropped for want of room.
    pub(crate) fn add(&mut self, key: PeerId, revoked: Revoked) -> u64 {
        let known = self.0.get(&key);
        if !known.is_some_and(|known| known.by_network) {
            self.0.insert(key, revoked);
        }
        self.bound()
    }

    /// Replaces all keys; returns the number of keys that were dropped for want of room.
    pub(crate) fn set(&mut self, keys: BTreeMap<PeerId, Revoked>) -> u64 {
        self.0 = keys;
        self.bound()
    }

    pub(crate) fn all(&self) -> BTreeMap<PeerId, Revoked> {
        self.0.clone()
    }

    /// Drops keys beyond the bound, but none that the network's own key revoked.
    fn bound(&mut self) -> u64 {
        let mut forgotten = 0;
        while self.0.len() > MAX_REVOKED {
            let by_issuer = self.0.iter().rev().find(|(_, r)| !r.by_network);
            let Some((key, _)) = by_issuer.or(self.0.last_key_value()) else {
                break;
            };
            let key = *key;
            warn!(%key, "too many revoked keys: its links end, but it may come back");
            self.0.remove(&key);
            forgotten += 1;
        }
        debug_assert!(self.0.len() <= MAX_REVOKED, "revoked keys have a bound");
        forgotten
    }

    pub(crate) fn of(&self, member: &Member) -> Option<&Revoked> {
        expels(member, &self.0)
    }

    /// Returns whether a peer is expelled, as far as its chain is known.
    pub(crate) fn expel(&self, id: &PeerId, member: Option<&Member>) -> bool {
        member.map_or(self.0.contains_key(id), |m| self.of(m).is_some())
    }
}

/// Returns the entry of `keys` that expels `member`.
pub(crate) fn expels<'a>(
    member: &Member,
    keys: &'a BTreeMap<PeerId, Revoked>,
) -> Option<&'a Revoked> {
    let own = member.keys.iter().chain([&member.peer]);
    own.filter_map(|key| Some((key, keys.get(key)?)))
        .find(|(key, revoked)| member.is_expelled_by(key, revoked.by_network))
        .map(|(_, revoked)| revoked)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn by(network: bool) -> Revoked {
        Revoked {
            by_network: network,
            revocation: Bytes::new(),
        }
    }

    fn key(n: u16) -> PeerId {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    #[test]
    fn the_networks_own_revocations_are_not_pushed_out() {
        let mut revocations = Revocations::default();
        revocations.add(key(0), by(true));
        let forgotten: u64 = (1..9_000).map(|n| revocations.add(key(n), by(false))).sum();
        assert_eq!(forgotten, 9_000 - MAX_REVOKED as u64);
        assert_eq!(revocations.0.len(), MAX_REVOKED);
        assert_eq!(revocations.0[&key(0)], by(true));
        // a revocation by an issuer does not replace one by the network's key
        revocations.add(key(0), by(false));
        assert_eq!(revocations.0[&key(0)], by(true));
    }
}
