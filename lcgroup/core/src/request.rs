//! A joiner's request to the owner: a datagram of its own, which holders keep for a day.
//!
//! ```text
//! sealed box to the group key (X25519, XSalsa20-Poly1305; 48 bytes more than its content):
//!   version 8 = 1 | author 256 | time 64 (ms since 1970) | invitation 64
//!   | proof 256: keyed BLAKE3 by the invitation's secret over all the rest
//!   | key package (length 16, bytes) | ed25519 signature 512 by the author over all of the above
//! ```
//!
//! The owner checks in the order of cost: the box, the proof, the signature, the key package.

use crypto_box::{PublicKey, SecretKey as BoxKey};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::wire::{Reader, WireError, Writer};

use crate::invitation::Invitation;
use crate::random::Random;

/// Version of requests, their first byte.
const VERSION: u8 = 1;
const CONTEXT: &str = "lcgroup 2026 request";
/// Bytes of a request: it fits into a packet of the log.
pub const MAX_REQUEST: usize = 1_000;

/// The content of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The author key that asks to join.
    pub author: PeerId,
    /// When the request was made, by the joiner's clock (ms since 1970).
    pub time: u64,
    /// Id of the invitation.
    pub invitation: u64,
    proof: [u8; 32],
    /// MLS key package.
    pub key_package: Vec<u8>,
    signature: [u8; 64],
}

impl Request {
    /// Decodes the content of the box.
    ///
    /// # Errors
    /// [`WireError`] if the bytes break the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let author = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("author"))?;
        let request = Self {
            author,
            time: r.u64()?,
            invitation: r.u64()?,
            proof: r.array()?,
            key_package: r.bytes16()?.to_vec(),
            signature: r.array()?,
        };
        r.finish()?;
        Ok(request)
    }

    /// All fields but the signature; without the proof while that is computed.
    fn content(&self, proof: Option<&[u8; 32]>) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION)
            .put(self.author.public_key())
            .u64(self.time)
            .u64(self.invitation)
            .put(proof.map_or(&[][..], |proof| proof))
            // the constructor and the decoder allow less
            .u16(self.key_package.len() as u16)
            .put(&self.key_package);
        w.into_vec()
    }

    fn proof_by(&self, secret: &[u8; 32]) -> blake3::Hash {
        let key = derive("lcgroup 2026 invitation's proof", &[secret]);
        blake3::keyed_hash(&key, &self.content(None))
    }

    /// Whether the joiner had the secret of the invitation; in constant time.
    pub(crate) fn proves(&self, secret: &[u8; 32]) -> bool {
        self.proof_by(secret) == blake3::Hash::from(self.proof)
    }

    /// Whether the author key signed it.
    pub(crate) fn is_signed(&self) -> bool {
        let content = self.content(Some(&self.proof));
        self.author
            .verify(CONTEXT, &content, &self.signature)
            .is_ok()
    }
}

/// Seals a request for the owner of the invitation's group; `None` if the key package is too long.
pub(crate) fn seal(
    invitation: &Invitation,
    author: &SecretKey,
    key_package: &[u8],
    time: u64,
    random: &mut Random,
) -> Option<Vec<u8>> {
    let mut request = Request {
        author: author.peer_id(),
        time,
        invitation: invitation.id,
        proof: [0; 32],
        key_package: key_package.to_vec(),
        signature: [0; 64],
    };
    request.proof = *request.proof_by(&invitation.secret).as_bytes();
    let mut content = request.content(Some(&request.proof));
    let signature = author.sign(CONTEXT, &content);
    content.extend_from_slice(&signature);
    let sealed = seal_to(&invitation.to, &content, random)?;
    (sealed.len() <= MAX_REQUEST).then_some(sealed)
}

/// Opens and reads a request with the group's key.
pub(crate) fn open(group: &SecretKey, sealed: &[u8]) -> Option<Request> {
    if sealed.len() > MAX_REQUEST {
        return None;
    }
    Request::decode(&open_with(group, sealed)?).ok()
}

/// Seals to the X25519 key of an ed25519 key; `None` if that key is unusable.
pub(crate) fn seal_to(to: &PeerId, content: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    PublicKey::from(to.x25519().ok()?)
        .seal(random, content)
        .ok()
}

/// Opens the output of [`seal_to`].
pub(crate) fn open_with(key: &SecretKey, sealed: &[u8]) -> Option<Vec<u8>> {
    BoxKey::from(*key.x25519()).unseal(sealed).ok()
}
