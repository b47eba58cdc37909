//! A router's certificates as an LSA, and the keys of credentials and revocations.

use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::{CertError, MAX_CHAIN};
use librecast::id::{OriginId, PeerId, derive};
use librecast::wire::{Reader, WireError, Writer};

use super::advertisement::Advertisement;
use super::election::{ElectionHashes, election_hashes};
use super::lsa::{
    KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, LsaError, Version, signed_part,
};
use crate::services::{Credential, Services};

/// Key and version of an LSA with an unverified signature; `None` for kinds of later versions.
pub(super) fn peek(kind: u8, bytes: &[u8]) -> Result<Option<(u64, Version)>, WireError> {
    match kind {
        KIND_CREDENTIAL | KIND_REVOCATION => {
            let mut r = Reader::new(bytes);
            Ok(Some((r.u64()?, Version(r.u64()?))))
        }
        KIND_ADVERTISEMENT => {
            Advertisement::peek(bytes).map(|(origin, version)| Some((origin.0, version)))
        }
        _ => Ok(None),
    }
}

/// A router's certificates, signed by itself, so that only it replaces them.
///
/// `origin 64 | version 64 | chain | signature 512`
#[derive(Debug, PartialEq, Eq)]
pub struct CredentialLsa {
    bytes: Bytes,
    credential: Arc<Credential>,
    version: Version,
    /// Its router's hashes, which depend on its origin id only; elections need them often.
    election_hashes: ElectionHashes,
}

impl CredentialLsa {
    /// Reads an LSA, and verifies its signature and certificates.
    pub fn verify<S: Services + ?Sized>(lsa: &[u8], services: &S) -> Result<Self, LsaError> {
        let mut r = Reader::new(lsa);
        let (origin, version) = (OriginId(r.u64()?), Version(r.u64()?));
        let chain = r
            .rest()
            .split_last_chunk::<64>()
            .ok_or(WireError::Truncated)?
            .0;
        if chain.len() > MAX_CHAIN {
            return Err(WireError::Bad("length of the chain").into());
        }
        let credential = services.verify_chain(chain).map_err(LsaError::Refused)?;
        if credential.member.leaf {
            return Err(LsaError::Refused(CertError::Leaf));
        }
        if credential.member.addresses.origin != origin {
            return Err(WireError::Bad("origin of a credential").into());
        }
        let (message, signature) = signed_part(KIND_CREDENTIAL, lsa)?;
        if !services.verify(&credential.member.peer, &message, &signature) {
            return Err(LsaError::Forged);
        }
        Ok(Self {
            // a copy: `lsa` may be a part of something far larger
            bytes: Bytes::copy_from_slice(lsa),
            credential,
            version,
            election_hashes: election_hashes(origin),
        })
    }

    /// Builds and signs the LSA of this node.
    pub(super) fn sign<S: Services + ?Sized>(
        origin: OriginId,
        version: Version,
        chain: &[u8],
        services: &S,
    ) -> Result<Self, LsaError> {
        let mut w = Writer::new();
        w.u64(origin.0).u64(version.0).put(chain);
        let signature = services.sign(&[&[KIND_CREDENTIAL], w.as_slice()].concat());
        w.put(&signature);
        Self::verify(w.as_slice(), services)
    }

    /// The signed form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its router's hashes in RP elections.
    pub(super) fn election_hashes(&self) -> &ElectionHashes {
        &self.election_hashes
    }

    /// The certificates.
    pub fn chain(&self) -> &[u8] {
        &self.bytes[16..self.bytes.len() - 64]
    }

    /// The verified content of the certificates.
    pub fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// The version: of two credentials of a router the higher one counts.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// Version of a router's first credential with a chain: that of later certificates is higher.
pub(super) fn first_version(issued: u64, chain: &[u8]) -> Version {
    let hash = derive("lcroute 2026 credential", &[chain]);
    let low = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    Version(issued << 32 | u64::from(low))
}

/// The key of the revocation of `key`: different if an issuer or the network signed it.
pub(super) fn revocation_key(key: &PeerId, by_network: bool) -> u64 {
    let by_network = [u8::from(by_network)];
    let hash = derive("lcroute 2026 revocation", &[key.public_key(), &by_network]);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestServices;

    fn example(services: &TestServices) -> CredentialLsa {
        let origin = services.origin();
        CredentialLsa::sign(origin, Version(9), &services.chain(), services).unwrap()
    }

    #[test]
    fn a_credential_survives_the_wire() {
        let (one, two) = (TestServices::new(1), TestServices::new(2));
        let lsa = example(&one);
        assert_eq!(lsa.bytes[..8], one.origin().0.to_be_bytes());
        assert_eq!(lsa.bytes[8..16], 9u64.to_be_bytes());
        assert_eq!(lsa.chain(), one.chain());
        assert_eq!(CredentialLsa::verify(&lsa.bytes, &two), Ok(lsa));
    }

    #[test]
    fn a_credential_is_published_by_its_router_alone() {
        let (one, two) = (TestServices::new(1), TestServices::new(2));
        let by_another = CredentialLsa::sign(one.origin(), Version(9), &one.chain(), &two);
        assert_eq!(by_another, Err(LsaError::Forged));
        let for_another = CredentialLsa::sign(two.origin(), Version(9), &one.chain(), &one);
        assert!(matches!(for_another, Err(LsaError::Malformed(_))));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let services = TestServices::new(1);
        let lsa = example(&services);
        for i in 0..lsa.bytes.len() {
            let mut bad = lsa.bytes.to_vec();
            bad[i] ^= 1;
            assert!(CredentialLsa::verify(&bad, &services).is_err(), "byte {i}");
        }
    }

    #[test]
    fn later_certificates_count_more() {
        assert!(first_version(2, b"a") > first_version(1, b"b"));
        assert_ne!(first_version(1, b"a"), first_version(1, b"b"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..5, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = peek(kind, &bytes);
            let _ = CredentialLsa::verify(&bytes, &TestServices::new(1));
        }
    }
}
