//! The first control message of each side: it binds the DTLS session to both identities.
//!
//! ```text
//! type 8 = 0x01 | version 8 = 1 | role 8 (0 offerer, 1 answerer) | ed25519 signature 512
//! signed: network 256 | offerer 256 | answerer 256 | offerer's DTLS fingerprint 256
//!         | answerer's 256 | attempt 256 (the offerer's nonce) | answerer's nonce 256 | role 8
//! ```
//!
//! The signature does not verify in another DTLS session, network or attempt, nor for its own
//! sender.

use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::wire::{Reader, WireError, Writer};

use crate::description::Fingerprint;

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 link";
/// First byte of Auth.
const TYPE: u8 = 1;
/// Second byte of Auth: its version.
const VERSION: u8 = 1;

/// A side of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that made the offer: the smaller PeerId.
    Offerer = 0,
    /// The side that answered.
    Answerer = 1,
}

impl Role {
    /// Returns the role of the other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Offerer => Self::Answerer,
            Self::Answerer => Self::Offerer,
        }
    }
}

/// All values that both sides must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) network: NetworkId,
    pub(crate) offerer: PeerId,
    pub(crate) answerer: PeerId,
    pub(crate) offerer_fingerprint: Fingerprint,
    pub(crate) answerer_fingerprint: Fingerprint,
    pub(crate) attempt: [u8; 32],
    pub(crate) nonce: [u8; 32],
}

impl Binding {
    /// Signs the message of this side, as `role`.
    pub(crate) fn sign(&self, key: &SecretKey, role: Role) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(TYPE).u8(VERSION).u8(role as u8);
        w.put(&key.sign(CONTEXT, &self.signed(role)));
        w.into_vec()
    }

    pub(crate) fn verify(&self, role: Role, message: &[u8]) -> bool {
        let signer = match role {
            Role::Offerer => &self.offerer,
            Role::Answerer => &self.answerer,
        };
        match parse(message) {
            Ok((claimed, signature)) => {
                claimed == role as u8
                    && signer
                        .verify(CONTEXT, &self.signed(role), &signature)
                        .is_ok()
            }
            Err(_) => false,
        }
    }

    fn signed(&self, role: Role) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(self.network.public_key());
        w.put(self.offerer.public_key())
            .put(self.answerer.public_key());
        w.put(&self.offerer_fingerprint)
            .put(&self.answerer_fingerprint);
        w.put(&self.attempt).put(&self.nonce).u8(role as u8);
        w.into_vec()
    }
}

fn parse(message: &[u8]) -> Result<(u8, [u8; 64]), WireError> {
    let mut r = Reader::new(message);
    if r.u8()? != TYPE {
        return Err(WireError::Bad("type"));
    }
    r.version(VERSION)?;
    let fields = (r.u8()?, r.array()?);
    r.finish()?;
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> (SecretKey, SecretKey) {
        (
            SecretKey::from_seed(&[1; 32]),
            SecretKey::from_seed(&[2; 32]),
        )
    }

    fn binding() -> Binding {
        let (offerer, answerer) = keys();
        Binding {
            network: SecretKey::from_seed(&[3; 32]).peer_id(),
            offerer: offerer.peer_id(),
            answerer: answerer.peer_id(),
            offerer_fingerprint: [4; 32],
            answerer_fingerprint: [5; 32],
            attempt: [6; 32],
            nonce: [7; 32],
        }
    }

    #[test]
    fn each_side_verifies_the_other() {
        let (offerer, answerer) = keys();
        let b = binding();
        assert!(b.verify(Role::Offerer, &b.sign(&offerer, Role::Offerer)));
        assert!(b.verify(Role::Answerer, &b.sign(&answerer, Role::Answerer)));
    }

    #[test]
    fn a_reflected_message_fails() {
        let (offerer, _) = keys();
        let b = binding();
        assert!(!b.verify(Role::Answerer, &b.sign(&offerer, Role::Offerer)));
        assert!(!b.verify(Role::Answerer, &b.sign(&offerer, Role::Answerer)));
    }

    #[test]
    fn every_field_is_bound() {
        let (offerer, _) = keys();
        let message = binding().sign(&offerer, Role::Offerer);
        let other = SecretKey::from_seed(&[9; 32]).peer_id();
        let changed = [
            Binding {
                network: other,
                ..binding()
            },
            Binding {
                answerer: other,
                ..binding()
            },
            Binding {
                offerer_fingerprint: [9; 32],
                ..binding()
            },
            Binding {
                answerer_fingerprint: [9; 32],
                ..binding()
            },
            Binding {
                attempt: [9; 32],
                ..binding()
            },
            Binding {
                nonce: [9; 32],
                ..binding()
            },
        ];
        for b in changed {
            assert!(!b.verify(Role::Offerer, &message), "{b:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_fails(at in 0_usize..67, by in 1_u8..) {
            let (offerer, _) = keys();
            let mut message = binding().sign(&offerer, Role::Offerer);
            message[at] ^= by;
            prop_assert!(!binding().verify(Role::Offerer, &message));
        }

        #[test]
        fn arbitrary_bytes_fail(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert!(!binding().verify(Role::Offerer, &bytes));
        }
    }
}
