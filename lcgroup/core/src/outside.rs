//! The network of a group's own, and the texts that lead into it.
//!
//! ```text
//! network      seed derive("lcgroup 2026 network", the group's secret key)
//! text         derive("lcgroup 2026 network text", S), with the group as its public key
//! invitation   seed derive("lcgroup 2026 network invitation", S)
//! S            the secret in lcg1; for mailboxes derive("lcgroup 2026 network of mailboxes", the
//!              group's secret key), which lch1 has
//! ```
//!
//! Who has no more than the read key, and who was removed, can enter by none of them: the invitation
//! by which a removed member came is expelled with it.

use librecast::id::{PeerId, SecretKey, derive};
use librecast::text_network::{TextKey, attest};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::group::Group;

/// The way into the network of a group, by its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkSecret(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetworkSecret")
    }
}

impl NetworkSecret {
    /// Returns the keys of the text of this group.
    #[must_use]
    pub fn text(&self, group: PeerId) -> TextKey {
        let secret = Zeroizing::new(derive("lcgroup 2026 network text", &[&self.0[..]]));
        TextKey::new(group, *secret)
    }

    /// Returns the key of the invitation in the network.
    #[must_use]
    pub fn invitation(&self) -> SecretKey {
        let seed = Zeroizing::new(derive("lcgroup 2026 network invitation", &[&self.0[..]]));
        SecretKey::from_seed(&seed)
    }
}

/// An invitation of the owner that leads into the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvitation {
    /// Its secret.
    pub secret: NetworkSecret,
    /// When it expires (ms since 1970).
    pub expires: u64,
}

/// Returns the seed of the network of a group with this key.
#[must_use]
pub fn network_seed(group: &SecretKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(derive("lcgroup 2026 network", &[&group.seed()[..]]))
}

/// Returns the secret by which mailboxes of a group with this key enter its network.
#[must_use]
pub fn mailboxes(group: &SecretKey) -> NetworkSecret {
    let secret = derive("lcgroup 2026 network of mailboxes", &[&group.seed()[..]]);
    NetworkSecret(Zeroizing::new(secret))
}

/// Returns the statement of a group with this key about its network.
#[must_use]
pub fn attestation(group: &SecretKey, text: &TextKey, network: &PeerId) -> [u8; 64] {
    attest(group, text, network)
}

impl Group {
    /// Returns the owner's invitations that somebody may use, the earliest end first.
    #[must_use]
    pub fn open_invitations(&self, now: UnixTime) -> Vec<OpenInvitation> {
        let kept = self
            .owner
            .iter()
            .flat_map(|owner| owner.invitations.values());
        let gone = self.former_members();
        let mut open: Vec<_> = kept
            .filter(|kept| kept.expires > now.as_millis() && kept.used.len() < kept.uses as usize)
            .filter(|kept| kept.used.iter().all(|author| !gone.contains(author)))
            .map(|kept| OpenInvitation {
                secret: NetworkSecret(kept.secret.clone()),
                expires: kept.expires,
            })
            .collect();
        open.sort_by_key(|open| open.expires);
        open
    }

    /// Returns, for the owner, the members that were removed or left.
    #[must_use]
    pub fn former_members(&self) -> Vec<PeerId> {
        let former = self.owner.iter().flat_map(|owner| &owner.commits.former);
        former.map(|(author, _)| *author).collect()
    }

    /// Returns the keys that are expelled from the network: of former members, and of the
    /// invitations by which they came.
    #[must_use]
    pub fn expelled_from_network(&self) -> Vec<PeerId> {
        let mut all = self.former_members();
        let kept = self
            .owner
            .iter()
            .flat_map(|owner| owner.invitations.values());
        let used = kept.filter(|kept| kept.used.iter().any(|author| all.contains(author)));
        let keys: Vec<_> = used
            .map(|kept| NetworkSecret(kept.secret.clone()).invitation().peer_id())
            .collect();
        // first, so that who came by one has no way back
        all.splice(0..0, keys);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn derivations_are_frozen() {
        let group = SecretKey::from_seed(&[1; 32]);
        let secret = NetworkSecret(Zeroizing::new([2; 32]));
        let all = [
            hex(&network_seed(&group)[..4]),
            hex(&mailboxes(&group).0[..4]),
            hex(&secret.text(group.peer_id()).secret()[..4]),
            hex(&secret.invitation().peer_id().public_key()[..4]),
        ];
        assert_eq!(all, ["d6436a95", "50f18591", "5d82e6ae", "22db8f18"]);
    }

    #[test]
    fn the_group_states_its_network_for_each_text() {
        let group = SecretKey::from_seed(&[1; 32]);
        let network = SecretKey::from_seed(&network_seed(&group)).peer_id();
        let [one, other] = [2, 3].map(|n| NetworkSecret(Zeroizing::new([n; 32])));
        let [one, other] = [one, other].map(|secret| secret.text(group.peer_id()));
        let stated = attestation(&group, &one, &network);
        assert!(one.attests(&network, &stated) && !other.attests(&network, &stated));
    }
}
