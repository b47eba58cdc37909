//! What the engine asks of its host: the clock, signatures and certificates.

use std::fmt::Debug;
use std::sync::Arc;

use librecast::cert::{CertError, Member};
use librecast::id::{NetworkId, PeerId};
use librecast::revocation::RevocationError;

/// The context under which routers sign what they say in the link state.
pub const SIGNATURE_CONTEXT: &str = "lcroute 2026 link state";

/// What [`Services::sign`] and [`Services::verify`] sign and verify under [`SIGNATURE_CONTEXT`]: a
/// node's key may serve on several networks, and what it says on one must not count on another.
#[must_use]
pub fn signed_message(network: &NetworkId, message: &[u8]) -> Vec<u8> {
    [network.public_key(), message].concat()
}

/// A router's certificates, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// What they say of it.
    pub member: Member,
    /// Every key in the chain above the router's own: issuer, invitation. If one of them is revoked,
    /// the chain does not count.
    pub keys: Vec<PeerId>,
    /// Start of the router's certificate, Unix seconds.
    pub issued: u64,
    /// It may issue certificates itself.
    pub can_issue: bool,
}

/// Certificates that go by this key do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// A node, an invitation or an issuer.
    pub key: PeerId,
    /// Signed by the network's key: issuers expel neither one another nor themselves.
    pub by_network: bool,
    /// Unix seconds: by then every certificate that goes by the key has expired.
    pub until: u64,
}

/// AES-128-GCM (RFC 5116) with one key.
pub trait Aead: Debug + Send + Sync {
    /// Seals `text` in its place; the tag. None if it is longer than the cipher takes.
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<[u8; 16]>;

    /// Opens `sealed` into `text`, which is as long. False if the tag does not fit; what `text` holds then means nothing.
    fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; 16],
        text: &mut [u8],
    ) -> bool;
}

/// What the engine cannot do alone. All answers are functions of what is handed in, and of the clock.
pub trait Services: Debug + Send + Sync {
    /// The host's clock, Unix seconds: certificates expire by it.
    fn unix_now(&self) -> u64;

    /// Signs [`signed_message`] with the key of this node.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Verifies a signature over [`signed_message`].
    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool;

    /// Verifies a chain of certificates as of now. Revocations are not its business.
    ///
    /// # Errors
    ///
    /// The chain cannot be read, belongs to another network, is forged, or is not valid by the clock.
    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, CertError>;

    /// Verifies a revocation.
    ///
    /// # Errors
    ///
    /// The revocation cannot be read, belongs to another network, or its signer may not revoke the key.
    fn verify_revocation(&self, bytes: &[u8]) -> Result<Revocation, RevocationError>;

    /// A cipher with this key; none where the host has no such cipher: it can neither seal nor open then.
    fn aead(&self, _key: &[u8; 16]) -> Option<Box<dyn Aead>> {
        None
    }
}
