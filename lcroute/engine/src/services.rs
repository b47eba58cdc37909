//! The engine's requests to its host: clock, signatures and certificates.

use std::fmt::Debug;
use std::sync::Arc;

use librecast::cert::{CertError, Member};
use librecast::id::{NetworkId, PeerId};
use librecast::revocation::RevocationError;
use librecast::time::UnixTime;

/// The context of routers' signatures in the link state.
pub const SIGNATURE_CONTEXT: &str = "lcroute 2026 link state";

/// The bytes for [`Services::sign`] and [`Services::verify`], under [`SIGNATURE_CONTEXT`]. A node's
/// key may serve several networks, and a signature of one must not count on another.
#[must_use]
pub fn signed_message(network: &NetworkId, message: &[u8]) -> Vec<u8> {
    [network.public_key(), message].concat()
}

/// A router's certificates, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Their content.
    pub member: Member,
    /// Keys above the router's own: issuer, invitation. The chain counts only if none is revoked.
    pub keys: Vec<PeerId>,
    /// Start of the router's certificate, Unix seconds.
    pub issued: u64,
    /// It may issue certificates.
    pub can_issue: bool,
}

/// The end of a key, and of all certificates that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// A node, an invitation or an issuer.
    pub key: PeerId,
    /// Signed by the network's key: issuers expel neither one another nor themselves.
    pub by_network: bool,
    /// Unix seconds: all certificates that depend on the key have expired by then.
    pub until: u64,
}

/// AES-128-GCM (RFC 5116) with one key.
pub trait Aead: Debug + Send + Sync {
    /// Seals `text` in place; returns the tag. None if it is too long for the cipher.
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<[u8; 16]>;

    /// Opens `sealed` into `text` of equal length. False if the tag is wrong; `text` is void then.
    fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; 16],
        text: &mut [u8],
    ) -> bool;
}

/// Services of the host. All answers are functions of the arguments and of the clock.
pub trait Services: Debug + Send + Sync {
    /// The host's clock, by which certificates expire.
    fn unix_now(&self) -> UnixTime;

    /// Signs [`signed_message`] with the key of this node.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Verifies a signature over [`signed_message`].
    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool;

    /// Verifies a chain of certificates at the present time, without revocations.
    ///
    /// # Errors
    /// The chain cannot be read, or is of another network, forged, or not valid by the clock.
    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, CertError>;

    /// Verifies a revocation.
    ///
    /// # Errors
    /// The revocation cannot be read, is of another network, or its signer may not revoke the key.
    fn verify_revocation(&self, bytes: &[u8]) -> Result<Revocation, RevocationError>;

    /// A cipher with this key; none if the host has no such cipher.
    fn aead(&self, _key: &[u8; 16]) -> Option<Box<dyn Aead>> {
        None
    }
}
