//! Identities: ed25519 keys, PeerIds in libp2p's form, addresses derived from keys.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::str::FromStr;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// libp2p: identity multihash (0x00, 36 bytes) of a protobuf {type: Ed25519, data: 32 bytes}.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The reason why an identity could not be read or used.
#[derive(Debug, Error)]
pub enum IdError {
    /// Not an ed25519 PeerId in base58.
    #[error("not an ed25519 PeerId: {0}")]
    NotAPeerId(String),
    /// The bytes are not a point on the curve, or a weak one.
    #[error("not a usable ed25519 public key")]
    BadKey,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// A key file that other users can read.
    #[error("{path}: key file may be read by others (mode {mode:o}); chmod 600 it")]
    Permissions {
        /// Path of the file.
        path: String,
        /// Permission bits (07777).
        mode: u32,
    },
    /// A key file that does not hold 32 bytes.
    #[error("{0}: not a key file of ours (32 bytes expected)")]
    NotAKeyFile(String),
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// Error of the system call.
        source: io::Error,
    },
}

/// One link between two nodes; a number is never used twice within a run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// A LAN behind gateways: the first forwarder chooses it, later ones keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct LanId(pub u64);

impl fmt::Display for LanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A public identity: an ed25519 public key, shown as a libp2p PeerId (`12D3KooW...`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Makes it from the raw public key, which must be a point of full order.
    pub fn from_public_key(key: [u8; 32]) -> Result<Self, IdError> {
        let point = VerifyingKey::from_bytes(&key).map_err(|_| IdError::BadKey)?;
        if point.is_weak() {
            return Err(IdError::BadKey);
        }
        Ok(Self(key))
    }

    /// Returns the raw ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the X25519 public key of the same secret, for sealing to this identity.
    pub fn x25519(&self) -> Result<[u8; 32], IdError> {
        let point = VerifyingKey::from_bytes(&self.0).map_err(|_| IdError::BadKey)?;
        Ok(point.to_montgomery().to_bytes())
    }

    /// Returns this key blinded by `secret`, as Tor's v3 onion services do. Only holders of key and
    /// secret can connect the two. The owner of the key can sign under it.
    pub fn blinded(&self, secret: &[u8; 32]) -> Result<[u8; 32], IdError> {
        let point = CompressedEdwardsY(self.0)
            .decompress()
            .ok_or(IdError::BadKey)?;
        Ok((point * self.blinding_factor(secret)).compress().to_bytes())
    }

    fn blinding_factor(&self, secret: &[u8; 32]) -> Scalar {
        let low = derive("lcroute 2026 blinding, low", &[&self.0, secret]);
        let high = derive("lcroute 2026 blinding, high", &[&self.0, secret]);
        let mut wide = [0; 64];
        wide[..32].copy_from_slice(&low);
        wide[32..].copy_from_slice(&high);
        Scalar::from_bytes_mod_order_wide(&wide)
    }

    /// Verifies `signature` over `context || 0x00 || message` (strictly, without malleability).
    pub fn verify(
        &self,
        context: &str,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), IdError> {
        let point = VerifyingKey::from_bytes(&self.0).map_err(|_| IdError::BadKey)?;
        point
            .verify_strict(
                &signed_bytes(context, message),
                &Signature::from_bytes(signature),
            )
            .map_err(|_| IdError::BadSignature)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError::NotAPeerId(s.chars().take(80).collect());
        // 38 bytes are 52 characters of base58: longer texts are not decoded
        if s.len() > 60 {
            return Err(bad());
        }
        let bytes = bs58::decode(s).into_vec().map_err(|_| bad())?;
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).ok_or_else(bad)?;
        Self::from_public_key(key.try_into().map_err(|_| bad())?)
    }
}

impl serde::Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Implements `Debug` by the name of a type alone: its secrets stay out of logs.
#[macro_export]
macro_rules! debug_by_name {
    ($name:ident) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

/// A secret ed25519 key; wiped from memory when dropped, never shown.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Generates a key from the system's randomness.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    #[must_use]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        // without a system RNG no safe operation is possible
        getrandom::fill(seed.as_mut()).expect("the system's random number generator works");
        Self::from_seed(&seed)
    }

    /// Returns the key of this 32-byte seed (RFC 8032 secret key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the seed, for a token or a file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the X25519 secret of the same key, which opens content sealed to [`PeerId::x25519`].
    pub fn x25519(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// Returns the public key that verifies its signatures.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    /// Signs a message of TLS 1.3, and no other (RFC 8446 §4.4.3).
    #[must_use]
    pub fn sign_tls13(&self, message: &[u8]) -> Option<[u8; 64]> {
        is_tls13_message(message).then(|| self.0.sign(message).to_bytes())
    }

    /// Signs the bare `message` under this key blinded by `secret` ([`PeerId::blinded`]), for other
    /// protocols with plain ed25519 signatures. The key itself signs nothing.
    #[must_use]
    pub fn sign_blinded(&self, secret: &[u8; 32], message: &[u8]) -> [u8; 64] {
        let own = ExpandedSecretKey::from(self.0.as_bytes());
        let context = "lcroute 2026 blinding, nonce";
        let blinded = ExpandedSecretKey {
            scalar: own.scalar * self.peer_id().blinding_factor(secret),
            // nonces of different keys must differ
            hash_prefix: derive(context, &[&own.hash_prefix, secret]),
        };
        let public = VerifyingKey::from(&blinded);
        raw_sign::<Sha512>(&blinded, message, &public).to_bytes()
    }

    /// Signs `context || 0x00 || message`. A signature is invalid for any other context.
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_bytes(context, message)).to_bytes()
    }
}

/// Returns whether TLS 1.3 signs messages with this beginning (RFC 8446 §4.4.3); none is ours.
#[must_use]
pub fn is_tls13_message(message: &[u8]) -> bool {
    message.len() <= MAX_TLS13_MESSAGE
        && message.starts_with(&[b' '; 64])
        && message[64..].starts_with(b"TLS 1.3, ")
}

/// Longest message that TLS 1.3 signs: 64 spaces, 33 bytes of context, a zero, 64 bytes of hash.
const MAX_TLS13_MESSAGE: usize = 64 + 33 + 1 + 64;

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.peer_id())
    }
}

fn signed_bytes(context: &str, message: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], message].concat()
}

/// Returns the hash of the concatenated `parts` under a BLAKE3 `derive_key` context.
#[must_use]
pub fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A network: the public key at the root of its certificates.
pub type NetworkId = PeerId;

/// Low 64 bits of a node's address: its name in data headers and trees.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct OriginId(pub u64);

impl OriginId {
    /// Returns the origin id in a node's address, global or link-local.
    #[must_use]
    pub fn of(address: Ipv6Addr) -> Self {
        // the low half
        Self(address.to_bits() as u64)
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's addresses in a network, derived from its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The unique local address (network /48, 80 bits of the node's hash).
    pub address: Ipv6Addr,
    /// fe80::/64 and the origin id.
    pub link_local: Ipv6Addr,
    /// The low 64 bits of `address`.
    pub origin: OriginId,
}

/// Returns the /48 of a network's addresses.
#[must_use]
pub fn network_prefix(network: &NetworkId) -> [u8; 6] {
    let net = derive("lcroute 2026 network", &[network.public_key()]);
    [0xfd, net[0], net[1], net[2], net[3], net[4]]
}

impl NodeAddresses {
    /// Returns the addresses of `node` on `network`.
    #[must_use]
    pub fn derive(network: &NetworkId, node: &PeerId) -> Self {
        let host = derive("lcroute 2026 node", &[node.public_key()]);
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&network_prefix(network));
        octets[6..].copy_from_slice(&host[..10]);
        let address = Ipv6Addr::from(octets);
        let mut low = [0; 8];
        low.copy_from_slice(&octets[8..]);
        Self {
            address,
            link_local: link_local(low),
            origin: OriginId(u64::from_be_bytes(low)),
        }
    }
}

fn link_local(low: [u8; 8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[0] = 0xfe;
    octets[1] = 0x80;
    octets[8..].copy_from_slice(&low);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_blinded_key_signs_verifies_under_the_key_that_others_compute() {
        let key = SecretKey::from_seed(&[5; 32]);
        let (secret, other) = ([1; 32], [2; 32]);
        let signature = Signature::from_bytes(&key.sign_blinded(&secret, b"value"));
        let public = |secret| VerifyingKey::from_bytes(&key.peer_id().blinded(secret).unwrap());
        let verify = |secret, message| public(secret).unwrap().verify_strict(message, &signature);
        verify(&secret, b"value").unwrap();
        verify(&secret, b"another").unwrap_err();
        verify(&other, b"value").unwrap_err();
        let plain = VerifyingKey::from_bytes(key.peer_id().public_key()).unwrap();
        plain.verify_strict(b"value", &signature).unwrap_err();
    }

    #[test]
    fn peer_id_has_libp2p_form() {
        // the example of the libp2p specification: key and PeerId share this prefix and length
        let id = SecretKey::from_seed(&[7; 32]).peer_id();
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse::<PeerId>().unwrap(), id);
    }

    #[test]
    fn peer_id_refuses_garbage() {
        for text in [
            "",
            "12D3KooW",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
            &"1".repeat(1000),
        ] {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
        assert!(PeerId::from_public_key([0; 32]).is_err(), "weak point");
    }

    #[test]
    fn signature_holds_for_its_context_only() {
        let key = SecretKey::generate();
        let signature = key.sign("a", b"message");
        assert!(key.peer_id().verify("a", b"message", &signature).is_ok());
        assert!(key.peer_id().verify("b", b"message", &signature).is_err());
        assert!(key.peer_id().verify("a", b"massage", &signature).is_err());
        assert!(
            SecretKey::generate()
                .peer_id()
                .verify("a", b"message", &signature)
                .is_err()
        );
    }

    #[test]
    fn addresses_follow_the_keys() {
        let (net, node) = (
            SecretKey::from_seed(&[1; 32]).peer_id(),
            SecretKey::from_seed(&[2; 32]).peer_id(),
        );
        let a = NodeAddresses::derive(&net, &node);
        assert_eq!(a.address.octets()[0], 0xfd);
        assert_eq!(a.address.octets()[8..], a.link_local.octets()[8..]);
        assert_eq!(a.origin.0.to_be_bytes(), a.address.octets()[8..]);
        assert_eq!(a.link_local.segments()[..4], [0xfe80, 0, 0, 0]);
        let other = NodeAddresses::derive(&SecretKey::from_seed(&[3; 32]).peer_id(), &node);
        assert_eq!(a.address.octets()[6..], other.address.octets()[6..]);
        assert_ne!(a.address.octets()[..6], other.address.octets()[..6]);
    }
}
