//! Link state advertisements: signed, each with a kind, a key and a version (RFC 2328 §12.1).
//!
//! | kind | key | version |
//! |---|---|---|
//! | 1 credential | origin | chosen by the router, from its certificate's start |
//! | 2 advertisement | origin | incarnation 32, sequence 32 |
//! | 3 revocation | first 64 bits of the hash of revoked key and signer | its end, Unix seconds |
//!
//! Of two LSAs with the same kind and key the one with the higher version counts. Kinds 1 and 3
//! begin with `key 64 | version 64`, kind 2 has both behind its version byte. So a router
//! recognises a newer LSA without a signature check.

use bytes::Bytes;
use librecast::cert::CertError;
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::drops::DropReason;

/// A router's certificates.
pub const KIND_CREDENTIAL: u8 = 1;
/// A router's links, flags and group prefixes (RFC 2328 router LSA).
pub const KIND_ADVERTISEMENT: u8 = 2;
/// A key, with certificates that no longer count.
pub const KIND_REVOCATION: u8 = 3;

/// Longest revocation in bytes.
pub const MAX_REVOCATION: usize = 8_192;

/// The version of an LSA: of two with one name the higher one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    /// The version of an advertisement.
    #[must_use]
    pub fn new(incarnation: u32, sequence: u32) -> Self {
        Self(u64::from(incarnation) << 32 | u64::from(sequence))
    }

    /// The upper half.
    #[must_use]
    pub fn incarnation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The lower half.
    #[must_use]
    pub fn sequence(self) -> u32 {
        self.0 as u32
    }
}

/// The name of an LSA. Keys order first, so that a range of keys contains all kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LsaId {
    /// Origin or hash.
    pub key: u64,
    /// Its kind, such as [`KIND_CREDENTIAL`].
    pub kind: u8,
}

/// An LSA as it is sent: the value of an LSA element is `kind 8 | bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsa {
    /// Its kind, such as [`KIND_CREDENTIAL`]; unknown kinds are skipped.
    pub kind: u8,
    /// Content by kind.
    pub bytes: Bytes,
}

impl Lsa {
    /// Appends the value of the element.
    pub fn encode(&self, w: &mut Writer) {
        w.u8(self.kind).put(&self.bytes);
    }

    /// Reads the value of an element to its end.
    ///
    /// # Errors
    /// The element is empty.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = r.u8()?;
        let bytes = Bytes::copy_from_slice(r.take(r.rest().len())?);
        Ok(Self { kind, bytes })
    }
}

/// The signed message of an LSA, and the signature at its end.
pub(super) fn signed_part(kind: u8, lsa: &[u8]) -> Result<(Vec<u8>, [u8; 64]), WireError> {
    let (message, signature) = lsa.split_last_chunk::<64>().ok_or(WireError::Truncated)?;
    Ok(([&[kind], message].concat(), *signature))
}

/// The reason why an LSA is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LsaError {
    /// The bytes cannot be read.
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
    /// Its router did not sign it: the neighbour that passed it on did not verify it.
    #[error("not signed by its router")]
    Forged,
    /// The certificates do not count: forged, expired, not valid yet by this host's clock.
    #[error(transparent)]
    Refused(CertError),
}

/// The drop reason that counts this error.
pub(super) fn drop_reason(error: LsaError) -> DropReason {
    match error {
        LsaError::Malformed(_) => DropReason::BadLsa,
        LsaError::Forged => DropReason::ForgedLsa,
        LsaError::Refused(error) => {
            tracing::debug!(%error, "credential refused");
            DropReason::CredentialRefused
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lsas_survive_the_wire(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let lsa = Lsa { kind, bytes: bytes.into() };
            let mut w = Writer::new();
            lsa.encode(&mut w);
            prop_assert_eq!(Lsa::decode(&mut Reader::new(w.as_slice())), Ok(lsa));
        }
    }
}
