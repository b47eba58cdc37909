//! Access to a signalling server's relay: members of a network prove themselves by certificates.
//!
//! ```text
//! node                          server
//!   | -------- relay? ----------> |   once registered
//!   | <------ prove KEY --------- |   repeated before credentials end
//!   | ------- proof SEALED -----> |   the certificates, sealed to the server's key
//!   | <-- RELAY (binary), or no-relay REASON
//! ```
//! A leaf's certificates give credentials for inside: to relayed addresses of the same server
//! alone, as a leaf's token may be public.
//!
//! All messages but the credentials are text. An open relay asks for nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use crypto_box::{PublicKey, SecretKey};
use librecast::cert::{CertError, Chain, MAX_CHAIN};
use librecast::id::PeerId;
use librecast::plain::clean;
use librecast::time::UnixTime;
use thiserror::Error;

use crate::Random;
use crate::server::Room;

/// Bytes that a seal adds.
const SEAL: usize = 48;

/// A node's message to a server about its relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayRequest {
    /// A request for credentials.
    Ask,
    /// The node's sealed certificates.
    Proof(Vec<u8>),
}

/// A server's answer, except credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayReply {
    /// The node must seal its certificates to this key.
    Prove([u8; 32]),
    /// The reason for which there are no credentials.
    Refused(String),
}

impl RelayRequest {
    /// Encodes the message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Ask => "relay?".to_owned(),
            Self::Proof(sealed) => format!("proof {}", STANDARD_NO_PAD.encode(sealed)),
        }
    }

    /// Decodes text; returns none for any other message, such as one of a later version.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if text == "relay?" {
            return Some(Self::Ask);
        }
        let sealed = text.strip_prefix("proof ")?;
        let fits = sealed.len() <= (MAX_CHAIN + SEAL).div_ceil(3) * 4;
        let sealed = fits.then(|| STANDARD_NO_PAD.decode(sealed).ok())??;
        Some(Self::Proof(sealed))
    }
}

impl RelayReply {
    /// Encodes the message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Prove(key) => format!("prove {}", STANDARD_NO_PAD.encode(key)),
            Self::Refused(reason) => format!("no-relay {reason}"),
        }
    }

    /// Decodes text; returns none for any other message, such as one of a later version.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if let Some(key) = text.strip_prefix("prove ") {
            let key = STANDARD_NO_PAD.decode(key).ok()?;
            return Some(Self::Prove(key.try_into().ok()?));
        }
        let reason = text.strip_prefix("no-relay ")?;
        let reason: String = reason.chars().take(200).collect();
        Some(Self::Refused(clean(&reason)))
    }
}

/// Returns a node's proof of membership; none if it cannot be sealed.
#[must_use]
pub fn prove(chain: &Chain, key: &[u8; 32], random: &mut Random) -> Option<RelayRequest> {
    let sealed = PublicKey::from(*key).seal(random, &chain.encode());
    sealed.ok().map(RelayRequest::Proof)
}

/// The key with which a server opens proofs.
pub struct ProofKey(SecretKey);

/// The reason for which a server accepts no membership.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum NotProven {
    /// The proof is sealed to another key, or contains no chain.
    #[error("the certificates cannot be read")]
    Unreadable,
    /// The certificates belong to another node.
    #[error("the certificates are those of another node")]
    OtherNode,
    /// The certificates belong to another network.
    #[error("the certificates are those of another network")]
    OtherNetwork,
    /// The chain is not valid.
    #[error("the certificates do not hold: {0}")]
    Invalid(#[from] CertError),
}

impl ProofKey {
    /// Returns the key of this seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self(SecretKey::from(seed))
    }

    /// Returns the public key to which nodes seal.
    pub fn public(&self) -> [u8; 32] {
        *self.0.public_key().as_bytes()
    }

    /// Checks that a node of this room is a member at `time` (seconds), and returns whether it is a
    /// leaf. Revocations are not known.
    ///
    /// # Errors
    /// The reason for which the membership is not proven.
    pub fn check(
        &self,
        sealed: &[u8],
        (node, room): (&PeerId, &Room),
        time: UnixTime,
    ) -> Result<bool, NotProven> {
        if sealed.len() > MAX_CHAIN + SEAL {
            return Err(NotProven::Unreadable);
        }
        let opened = self.0.unseal(sealed).ok();
        let chain = opened.and_then(|bytes| Chain::decode(&bytes).ok());
        let chain = chain.ok_or(NotProven::Unreadable)?;
        // cheap checks come before signatures
        if chain.node().subject() != *node {
            return Err(NotProven::OtherNode);
        }
        let network = chain.node().network();
        if Room::of(&network) != *room {
            return Err(NotProven::OtherNetwork);
        }
        Ok(chain.verify(&network, time)?.leaf)
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use librecast::cert::{Grant, Kind};
    use librecast::id;
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> id::SecretKey {
        id::SecretKey::from_seed(&[n; 32])
    }

    fn chain(network: u8, node: u8) -> Chain {
        let grant = |name| Grant::new(name, (NOW, NOW + 60));
        let node = (key(node).peer_id(), grant("node"));
        Chain::sign(&key(network), (&key(50), grant("")), node).unwrap()
    }

    fn sealed(chain: &Chain, to: &ProofKey) -> Vec<u8> {
        let request = prove(chain, &to.public(), &mut Random::new([3; 32])).unwrap();
        let text = request.encode();
        match RelayRequest::decode(&text) {
            Some(RelayRequest::Proof(sealed)) => sealed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_of_the_rooms_network_are_told_from_all_others() {
        let server = ProofKey::new([7; 32]);
        let (node, room) = (key(1).peer_id(), Room::of(&key(9).peer_id()));
        let check = |sealed: &[u8], time| server.check(sealed, (&node, &room), time);
        let good = sealed(&chain(9, 1), &server);
        assert_eq!(check(&good, UnixTime::from_secs(NOW)), Ok(false));
        let leaf = |name, leaf| Grant {
            leaf,
            ..Grant::new(name, (NOW, NOW + 60))
        };
        let leaf = Chain::sign(
            &key(9),
            (&key(50), leaf("", false)),
            (node, leaf("node", true)),
        );
        let leaf = sealed(&leaf.unwrap(), &server);
        assert_eq!(check(&leaf, UnixTime::from_secs(NOW)), Ok(true));
        assert_eq!(
            check(&sealed(&chain(9, 2), &server), UnixTime::from_secs(NOW)),
            Err(NotProven::OtherNode)
        );
        assert_eq!(
            check(&sealed(&chain(8, 1), &server), UnixTime::from_secs(NOW)),
            Err(NotProven::OtherNetwork)
        );
        let other = ProofKey::new([8; 32]);
        assert_eq!(
            check(&sealed(&chain(9, 1), &other), UnixTime::from_secs(NOW)),
            Err(NotProven::Unreadable)
        );
        assert_eq!(
            check(&[], UnixTime::from_secs(NOW)),
            Err(NotProven::Unreadable)
        );
        // a clock difference of a day is allowed
        let expired = CertError::Expired(Kind::Issuer).into();
        assert_eq!(
            check(&good, UnixTime::from_secs(NOW + 60 + 86_401)),
            Err(expired)
        );
        // a chain that names the network but is not signed by it
        let id = key(9).peer_id();
        let sign = |kind, subject: &id::SecretKey, by: &id::SecretKey| {
            let name = if kind == Kind::Node { "node" } else { "" };
            let (subject, grant) = (subject.peer_id(), Grant::new(name, (NOW, NOW + 60)));
            librecast::cert::Certificate::sign(kind, id, subject, grant, by).unwrap()
        };
        let issuer = sign(Kind::Issuer, &key(50), &key(50));
        let forged = Chain::new(vec![issuer, sign(Kind::Node, &key(1), &key(50))]).unwrap();
        let forged = check(&sealed(&forged, &server), UnixTime::from_secs(NOW));
        assert_eq!(forged, Err(CertError::Forged(Kind::Issuer).into()));
    }

    #[test]
    fn the_path_reads_neither_names_nor_the_network() {
        let (chain, server) = (chain(9, 1), ProofKey::new([7; 32]));
        let sealed = sealed(&chain, &server);
        let shows = |what: &[u8]| sealed.windows(what.len()).any(|w| w == what);
        assert!(!shows(b"node") && !shows(key(9).peer_id().public_key()));
    }

    proptest! {
        #[test]
        fn words_survive_the_wire(bytes in prop::collection::vec(any::<u8>(), 0..200), key: [u8; 32]) {
            for request in [RelayRequest::Ask, RelayRequest::Proof(bytes)] {
                prop_assert_eq!(RelayRequest::decode(&request.encode()), Some(request));
            }
            for reply in [RelayReply::Prove(key), RelayReply::Refused("no".into())] {
                prop_assert_eq!(RelayReply::decode(&reply.encode()), Some(reply));
            }
        }

        #[test]
        fn arbitrary_text_and_bytes_never_panic(text: String, tail in "[a-zA-Z0-9+/]{0,100}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for text in [text, format!("proof {tail}"), format!("prove {tail}")] {
                let _ = (RelayRequest::decode(&text), RelayReply::decode(&text));
            }
            let room = Room([1; 32]);
            let node = id::SecretKey::from_seed(&[1; 32]).peer_id();
            prop_assert!(ProofKey::new([7; 32]).check(&bytes, (&node, &room), UnixTime::from_secs(NOW)).is_err());
        }
    }
}
