//! What the engine asks of its host: signatures, certificates, and (simulator) shared results.

use std::fmt::Debug;
use std::sync::Arc;

use librecast::cert::Member;
use librecast::id::{NetworkId, OriginId, PeerId};

use crate::database::{Advertisement, CredentialRecord};
use crate::graph::{Graph, Tree};

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

/// What the engine cannot do alone. All answers are functions of what is handed in, and of the clock.
pub trait Services: Debug + Send + Sync {
    /// The host's clock, Unix seconds: certificates expire by it.
    fn unix_now(&self) -> u64;

    /// Signs [`signed_message`] with the key of this node.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Verifies a signature over [`signed_message`].
    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool;

    /// Verifies a chain of certificates as of now. Whether one of its keys is revoked is not asked here.
    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, &'static str>;

    /// Verifies a revocation.
    fn verify_revocation(&self, bytes: &[u8]) -> Result<Revocation, &'static str>;

    /// Verifies the record of a router's credential. A simulator of a thousand nodes keeps each
    /// record once.
    fn verify_credential(&self, record: &[u8]) -> Result<Arc<CredentialRecord>, RecordError> {
        CredentialRecord::verify(record, self).map(Arc::new)
    }

    /// Verifies an advertisement of `signer`. A simulator keeps each once.
    fn verify_advertisement(
        &self,
        signer: &PeerId,
        record: &[u8],
    ) -> Result<Arc<Advertisement>, RecordError> {
        Advertisement::verify(record, signer, self).map(Arc::new)
    }

    /// The graph whose content `digest` names. A simulator builds each once.
    fn graph(&self, digest: u64, build: &mut dyn FnMut() -> Graph) -> Arc<Graph> {
        let _ = digest;
        Arc::new(build())
    }

    /// The tree of `root`; `None` if the graph does not contain it. `before`: what it was. A simulator
    /// computes each once.
    fn tree(
        &self,
        graph: &Arc<Graph>,
        root: OriginId,
        before: Option<&Arc<Tree>>,
    ) -> Option<Arc<Tree>> {
        Tree::of(graph, root, before)
    }
}

/// Why a record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// It cannot be read.
    Malformed(librecast::wire::WireError),
    /// The signature of its router is not right: whoever passed it on had not verified it either.
    Forged,
    /// Its certificates do not count: forged, expired, not valid yet by our clock.
    Refused(&'static str),
}

impl From<librecast::wire::WireError> for RecordError {
    fn from(error: librecast::wire::WireError) -> Self {
        Self::Malformed(error)
    }
}
