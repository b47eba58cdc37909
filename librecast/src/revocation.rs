//! Expulsion from a network: signed statements that one key is not trusted any more.
//!
//! ```text
//! network key --signs--> revocation of any key
//! issuer      --signs--> revocation of a node or an invitation (its certificate lies inside)
//! ```
//!
//! Revoking a node expels it; revoking an invitation or issuer expels all that depend on it
//! ([`Member::is_expelled_by`]). A revocation is final: a node needs a new key to return.

use std::fmt;

use thiserror::Error;

use crate::cert::{CLOCK_SKEW, CertError, Certificate, Kind, MAX_CERTIFICATE, Member};
use crate::id::{NetworkId, PeerId, SecretKey};
use crate::time::UnixTime;
use crate::wire::{Reader, WireError, Writer};

/// Context of signatures.
const CONTEXT: &str = "lcroute 2026 revocation";
/// Version of the format.
const VERSION: u8 = 1;
/// Longest revocation in bytes.
pub const MAX_REVOCATION: usize = 1 + 32 + 32 + 8 + 8 + 2 + MAX_CERTIFICATE + 64;

/// The reason why a revocation is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// The bytes are not a revocation of this version.
    #[error("malformed revocation: {0}")]
    Malformed(#[from] WireError),
    /// A revocation of another network.
    #[error("revocation of another network")]
    OtherNetwork,
    /// Not signed by the key that it names.
    #[error("forged revocation")]
    Forged,
    /// The signer's certificate is not valid.
    #[error("revocation by nobody who may: {0}")]
    Signer(CertError),
    /// Neither the network's key nor the own one can be revoked.
    #[error("this key cannot be revoked")]
    Key,
}

/// A signed statement that a key is not trusted any more.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    network: NetworkId,
    key: PeerId,
    issued: u64,
    until: u64,
    /// The issuer that signed; none: the network key itself.
    issuer: Option<Certificate>,
    bytes: Vec<u8>,
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.signer();
        write!(
            f,
            "Revocation of {} by {by}, kept until {}",
            self.key, self.until
        )
    }
}

impl Revocation {
    /// Revokes the key of a node or an invitation with an issuer's key. `until`: Unix seconds.
    ///
    /// # Errors
    /// [`RevocationError::Signer`] if `secret` is not the issuer's; as [`Self::verify`].
    pub fn by_issuer(
        issuer: &Certificate,
        secret: &SecretKey,
        key: PeerId,
        now: UnixTime,
        until: u64,
    ) -> Result<Self, RevocationError> {
        if issuer.subject() != secret.peer_id() {
            return Err(RevocationError::Signer(CertError::Order));
        }
        let network = issuer.network();
        Self::sign(
            network,
            key,
            (now.as_secs(), until),
            Some(issuer.clone()),
            secret,
        )
    }

    /// Revokes any key with the network's key. `until`: Unix seconds.
    pub fn by_network(
        secret: &SecretKey,
        key: PeerId,
        now: UnixTime,
        until: u64,
    ) -> Result<Self, RevocationError> {
        Self::sign(secret.peer_id(), key, (now.as_secs(), until), None, secret)
    }

    fn sign(
        network: NetworkId,
        key: PeerId,
        (issued, until): (u64, u64),
        issuer: Option<Certificate>,
        secret: &SecretKey,
    ) -> Result<Self, RevocationError> {
        let mut w = Writer::new();
        w.u8(VERSION)
            .put(network.public_key())
            .put(key.public_key());
        w.u64(issued).u64(until);
        w.bytes16(issuer.as_ref().map_or(&[], Certificate::as_bytes))?;
        let signature = secret.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        let revocation = Self {
            network,
            key,
            issued,
            until,
            issuer,
            bytes: w.into_vec(),
        };
        // a signer without the right gets the error here, not from other nodes
        revocation.verify(&network)?;
        Ok(revocation)
    }

    /// Decodes a revocation; [`Revocation::verify`] checks the signer.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_REVOCATION {
            return Err(WireError::Bad("length of the revocation"));
        }
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let key = |r: &mut Reader<'_>| {
            PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("public key"))
        };
        let (network, revoked) = (key(&mut r)?, key(&mut r)?);
        let (issued, until) = (r.u64()?, r.u64()?);
        let issuer = match r.bytes16()? {
            [] => None,
            certificate => Some(Certificate::decode(certificate)?),
        };
        r.array::<64>()?;
        r.finish()?;
        Ok(Self {
            network,
            key: revoked,
            issued,
            until,
            issuer,
            bytes: bytes.to_vec(),
        })
    }

    /// Verifies that it counts in `network`: signed by its key, or by an issuer with a certificate
    /// valid then, and not about the network's key or that issuer's own. It is kept at most a day
    /// longer than that certificate: an issuer cannot fill the room for ever.
    ///
    /// # Errors
    /// It is of another network, forged, by a wrong signer, or about a key that cannot be revoked.
    pub fn verify(&self, network: &NetworkId) -> Result<(), RevocationError> {
        if self.network != *network {
            return Err(RevocationError::OtherNetwork);
        }
        if self.until < self.issued {
            return Err(WireError::Bad("time to keep").into());
        }
        if let Some(issuer) = &self.issuer {
            if issuer.kind() != Kind::Issuer {
                return Err(RevocationError::Signer(CertError::Order));
            }
            issuer
                .verify_by(
                    network,
                    network,
                    UnixTime::from_secs(self.issued),
                    CLOCK_SKEW,
                )
                .map_err(RevocationError::Signer)?;
            if self.until > issuer.grant().not_after.saturating_add(CLOCK_SKEW) {
                return Err(WireError::Bad("time to keep").into());
            }
        }
        let signer = self.signer();
        let split = self.bytes.split_last_chunk::<64>();
        let (message, signature) = split.ok_or(WireError::Truncated)?;
        signer
            .verify(CONTEXT, message, signature)
            .map_err(|_| RevocationError::Forged)?;
        if self.key == *network || self.key == signer {
            return Err(RevocationError::Key);
        }
        Ok(())
    }

    fn signer(&self) -> PeerId {
        self.issuer
            .as_ref()
            .map_or(self.network, Certificate::subject)
    }

    /// Returns the revoked key: a node's, an invitation's, or (by the network) an issuer's.
    pub fn key(&self) -> PeerId {
        self.key
    }

    /// Returns when it was signed, in Unix seconds.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Returns until when it must be kept, in Unix seconds: no chain on the key is valid then.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Returns whether the network's key signed it: then it may be about an issuer.
    pub fn is_by_network(&self) -> bool {
        self.issuer.is_none()
    }

    /// Returns whether it expels `member`.
    pub fn expels(&self, member: &Member) -> bool {
        member.is_expelled_by(&self.key, self.is_by_network())
    }

    /// Returns the signed bytes, at most [`MAX_REVOCATION`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cert::Grant;

    const NOW: u64 = 1_800_000_000;
    const TODAY: UnixTime = UnixTime::from_secs(NOW);
    const YEAR: u64 = 365 * 86_400;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    /// Returns a certificate of the network of `key(1)`, for the issuer `key(2)`.
    fn certificate(kind: Kind) -> Certificate {
        let grant = Grant::new("", (NOW, NOW + YEAR));
        Certificate::sign(kind, key(1).peer_id(), key(2).peer_id(), grant, &key(1)).unwrap()
    }

    fn by_issuer(revoked: PeerId, now: u64) -> Result<Revocation, RevocationError> {
        Revocation::by_issuer(
            &certificate(Kind::Issuer),
            &key(2),
            revoked,
            UnixTime::from_secs(now),
            NOW + YEAR + CLOCK_SKEW,
        )
    }

    #[test]
    fn issuer_and_network_revoke_a_node() {
        let (network, node) = (key(1).peer_id(), key(3).peer_id());
        let by_network = Revocation::by_network(&key(1), node, TODAY, NOW + 5).unwrap();
        for revocation in [by_issuer(node, NOW).unwrap(), by_network.clone()] {
            let read = Revocation::decode(revocation.as_bytes()).unwrap();
            assert_eq!(read, revocation);
            assert_eq!(read.verify(&network), Ok(()));
            assert_eq!(read.key(), node);
            let other = read.verify(&key(9).peer_id());
            assert_eq!(other, Err(RevocationError::OtherNetwork));
        }
        assert!(by_network.is_by_network() && !by_issuer(node, NOW).unwrap().is_by_network());
        assert_eq!((by_network.issued(), by_network.until()), (NOW, NOW + 5));
    }

    #[test]
    fn who_may_not_revoke_is_refused() {
        let node = key(3).peer_id();
        let widely = [key(1).peer_id(), key(2).peer_id()];
        for revoked in widely {
            assert_eq!(by_issuer(revoked, NOW), Err(RevocationError::Key));
        }
        let own = Revocation::by_network(&key(1), key(1).peer_id(), TODAY, NOW);
        assert_eq!(own, Err(RevocationError::Key));
        let invitation = certificate(Kind::Invitation);
        assert_eq!(
            Revocation::by_issuer(&invitation, &key(2), node, TODAY, NOW),
            Err(RevocationError::Signer(CertError::Order))
        );
        assert_eq!(
            Revocation::by_issuer(&certificate(Kind::Issuer), &key(3), node, TODAY, NOW),
            Err(RevocationError::Signer(CertError::Order))
        );
        // an unknown signer with an issuer certificate of his own making
        let forged = Certificate::sign(
            Kind::Issuer,
            key(1).peer_id(),
            key(4).peer_id(),
            certificate(Kind::Issuer).grant().clone(),
            &key(4),
        )
        .unwrap();
        assert_eq!(
            Revocation::by_issuer(&forged, &key(4), node, TODAY, NOW),
            Err(RevocationError::Signer(CertError::Forged(Kind::Issuer)))
        );
    }

    #[test]
    fn the_issuer_must_have_been_one_when_it_signed_and_not_for_ever() {
        let node = key(3).peer_id();
        assert!(by_issuer(node, NOW + YEAR).is_ok());
        let end = NOW + YEAR + CLOCK_SKEW + 1;
        let issuer = certificate(Kind::Issuer);
        let late = Revocation::by_issuer(&issuer, &key(2), node, UnixTime::from_secs(end), end);
        let expired = RevocationError::Signer(CertError::Expired(Kind::Issuer));
        assert_eq!(late, Err(expired));
        let long = Revocation::by_issuer(&issuer, &key(2), node, TODAY, end);
        assert_eq!(long, Err(WireError::Bad("time to keep").into()));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let network = key(1).peer_id();
        let revocation = by_issuer(key(3).peer_id(), NOW).unwrap();
        for i in 0..revocation.as_bytes().len() {
            let mut bad = revocation.as_bytes().to_vec();
            bad[i] ^= 1;
            let verdict = Revocation::decode(&bad).map(|r| r.verify(&network));
            assert!(!matches!(verdict, Ok(Ok(()))), "byte {i}");
        }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let node = key(3).peer_id();
        let revocation =
            Revocation::by_network(&key(1), node, UnixTime::from_secs(0x0102), 0x0304).unwrap();
        let mut golden = vec![1];
        golden.extend(key(1).peer_id().public_key());
        golden.extend(node.public_key());
        golden.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0]);
        golden.extend(key(1).sign("lcroute 2026 revocation", &golden));
        assert_eq!(revocation.as_bytes(), golden);
        let issuer = certificate(Kind::Issuer);
        let by_issuer = Revocation::by_issuer(&issuer, &key(2), node, TODAY, NOW).unwrap();
        let inside = &by_issuer.as_bytes()[1 + 32 + 32 + 16..by_issuer.as_bytes().len() - 64];
        assert_eq!(&inside[2..], issuer.as_bytes());
        assert_eq!(
            usize::from(u16::from_be_bytes([inside[0], inside[1]])),
            issuer.as_bytes().len()
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
            if let Ok(revocation) = Revocation::decode(&bytes) {
                prop_assert!(revocation.verify(&key(1).peer_id()).is_err());
            }
        }

        #[test]
        fn revocations_survive_the_wire(seed in 10u8.., issued: u64, until: u64, cut in 1usize..60) {
            let made = Revocation::by_network(&key(1), key(seed).peer_id(), UnixTime::from_secs(issued), until);
            prop_assert_eq!(made.is_ok(), issued <= until);
            if let Ok(made) = made {
                prop_assert_eq!(Revocation::decode(made.as_bytes()).unwrap(), made.clone());
                prop_assert!(Revocation::decode(&made.as_bytes()[..made.as_bytes().len() - cut]).is_err());
            }
        }
    }
}
