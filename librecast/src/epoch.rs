//! Epochs of a network's rendezvous secret, from which names and keys of presence records follow.
//!
//! An expelled node keeps the network's key. So an expulsion makes a new secret in the same step,
//! and members pass it on over their links, which the expelled node lacks.
//!
//! ```text
//! version 8 = 1 | network 256 | number 32 | hash of the epoch before 256 | secret 256
//! | length 16, certificate of the signing issuer (none: the network's key)
//! | length 16, revocation that it was made for | ed25519 signature 512 over all of the above
//! ```
//!
//! The hash names the newest epoch that the signer knew (zeros: none), which reveals a split.
//! The revocation inside keeps members from passing the secret to the expelled node. The higher
//! number is newer; of one number, the higher hash.

pub(crate) mod secret;

use std::cmp::Ordering;
use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::cert::{CLOCK_SKEW, CertError, Certificate, Kind, MAX_CERTIFICATE};
use crate::id::{NetworkId, PeerId, SecretKey, derive};
use crate::revocation::{MAX_REVOCATION, Revocation, RevocationError};
use crate::time::UnixTime;
use crate::wire::{Reader, WireError, Writer};

pub use secret::EpochSecret;

/// Context of signatures.
const CONTEXT: &str = "lcroute 2026 rendezvous epoch";
/// Context of the hash that names epochs and orders those of one number.
const HASH: &str = "lcroute 2026 rendezvous epoch hash";
/// Version of the format.
const VERSION: u8 = 1;
/// Longest epoch in bytes.
pub const MAX_EPOCH: usize = 1 + 32 + 4 + 32 + 32 + 2 + MAX_CERTIFICATE + 2 + MAX_REVOCATION + 64;

/// The reason why an epoch is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EpochError {
    /// The bytes are not an epoch of this version.
    #[error("malformed epoch: {0}")]
    Malformed(#[from] WireError),
    /// An epoch of another network.
    #[error("epoch of another network")]
    OtherNetwork,
    /// Not signed by the key that it names.
    #[error("forged epoch")]
    Forged,
    /// The signer's certificate is not valid.
    #[error("epoch by nobody who may: {0}")]
    Signer(CertError),
    /// The revocation inside is not valid.
    #[error("epoch for no revocation: {0}")]
    Revocation(#[from] RevocationError),
}

/// A signed epoch.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    network: NetworkId,
    number: u32,
    before: [u8; 32],
    secret: EpochSecret,
    /// The issuer that signed; none: the network key itself.
    issuer: Option<Certificate>,
    revocation: Revocation,
    hash: [u8; 32],
    bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch {} by {}", self.number, self.signer())
    }
}

impl PartialOrd for Epoch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The newest is the greatest.
impl Ord for Epoch {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.number, self.hash).cmp(&(other.number, other.hash))
    }
}

impl Epoch {
    /// Signs an epoch after the one with the hash `before`: with the key and certificate of an
    /// issuer, or with the network's key and no certificate.
    pub fn sign(
        (number, before, secret): (u32, [u8; 32], EpochSecret),
        revocation: Revocation,
        issuer: Option<&Certificate>,
        key: &SecretKey,
    ) -> Result<Self, EpochError> {
        let network = issuer.map_or(key.peer_id(), Certificate::network);
        let mut w = Writer::new();
        w.u8(VERSION).put(network.public_key());
        w.u32(number).put(&before).put(secret.bytes());
        w.bytes16(issuer.map_or(&[], Certificate::as_bytes))?;
        w.bytes16(revocation.as_bytes())?;
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        let bytes = Zeroizing::new(w.into_vec());
        let epoch = Self {
            network,
            number,
            before,
            secret,
            issuer: issuer.cloned(),
            revocation,
            hash: derive(HASH, &[&bytes]),
            bytes,
        };
        // a signer without the right gets the error here, not from other nodes
        epoch.verify(&network)?;
        Ok(epoch)
    }

    /// Decodes an epoch; [`Self::verify`] checks the signer.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_EPOCH {
            return Err(WireError::Bad("length of the epoch"));
        }
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let network =
            PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("public key"))?;
        let (number, before) = (r.u32()?, r.array()?);
        let secret = EpochSecret::new(r.array()?);
        let issuer = match r.bytes16()? {
            [] => None,
            certificate => Some(Certificate::decode(certificate)?),
        };
        let revocation = Revocation::decode(r.bytes16()?)?;
        r.array::<64>()?;
        r.finish()?;
        if number == 0 {
            return Err(WireError::Bad("number of the epoch"));
        }
        Ok(Self {
            network,
            number,
            before,
            secret,
            issuer,
            revocation,
            hash: derive(HASH, &[bytes]),
            bytes: Zeroizing::new(bytes.to_vec()),
        })
    }

    /// Verifies that it counts in `network`: for a valid revocation, and signed by the network's
    /// key or by an issuer that was valid then. Does not know a later expulsion of that issuer, or
    /// the time of signing: see [`Self::is_over`].
    ///
    /// # Errors
    /// It is of another network, forged, by a wrong signer, or for an invalid revocation.
    pub fn verify(&self, network: &NetworkId) -> Result<(), EpochError> {
        if self.network != *network {
            return Err(EpochError::OtherNetwork);
        }
        if self.number == 0 {
            return Err(WireError::Bad("number of the epoch").into());
        }
        if let Some(issuer) = &self.issuer {
            if issuer.kind() != Kind::Issuer {
                return Err(EpochError::Signer(CertError::Order));
            }
            issuer
                .verify_by(
                    network,
                    network,
                    UnixTime::from_secs(self.revocation.issued()),
                    CLOCK_SKEW,
                )
                .map_err(EpochError::Signer)?;
        }
        let split = self.bytes.split_last_chunk::<64>();
        let (message, signature) = split.ok_or(WireError::Truncated)?;
        self.signer()
            .verify(CONTEXT, message, signature)
            .map_err(|_| EpochError::Forged)?;
        Ok(self.revocation.verify(network)?)
    }

    /// Returns the signer: an issuer's key, or the network's.
    pub fn signer(&self) -> PeerId {
        let issuer = self.issuer.as_ref();
        issuer.map_or(self.network, Certificate::subject)
    }

    /// Returns whether the signer's certificate ended before `now`, with a day for clocks: the
    /// epoch may have been made after that.
    pub fn is_over(&self, now: UnixTime) -> bool {
        let end = |issuer: &Certificate| issuer.grant().not_after.saturating_add(CLOCK_SKEW);
        self.issuer
            .as_ref()
            .is_some_and(|issuer| end(issuer) < now.as_secs())
    }

    /// Returns its number: 1 is the first one of a network, before which nobody was expelled.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the hash that names it, and orders epochs of one number.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Returns the hash of the newest epoch that its signer knew; zeros: none.
    pub fn before(&self) -> &[u8; 32] {
        &self.before
    }

    /// Returns the source of names and keys.
    pub fn secret(&self) -> &EpochSecret {
        &self.secret
    }

    /// Returns the revocation that it was made for.
    pub fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Returns the signed bytes, at most [`MAX_EPOCH`], secret included.
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

    /// Returns a certificate of the network of `key(1)`, for `key(2)`.
    fn certificate(kind: Kind) -> Certificate {
        let grant = Grant::new("", (NOW, NOW + YEAR));
        Certificate::sign(kind, key(1).peer_id(), key(2).peer_id(), grant, &key(1)).unwrap()
    }

    fn revocation() -> Revocation {
        Revocation::by_network(&key(1), key(3).peer_id(), TODAY, NOW + YEAR).unwrap()
    }

    fn secret(byte: u8) -> EpochSecret {
        EpochSecret::new([byte; 32])
    }

    fn sign(
        number: u32,
        revocation: Revocation,
        issuer: Option<&Certificate>,
        signer: u8,
    ) -> Result<Epoch, EpochError> {
        let new = (number, [4; 32], secret(7));
        Epoch::sign(new, revocation, issuer, &key(signer))
    }

    fn by_issuer(number: u32) -> Result<Epoch, EpochError> {
        sign(number, revocation(), Some(&certificate(Kind::Issuer)), 2)
    }

    #[test]
    fn network_and_issuer_make_epochs_and_nobody_else() {
        let network = key(1).peer_id();
        let by_network = sign(3, revocation(), None, 1).unwrap();
        for epoch in [by_network, by_issuer(3).unwrap()] {
            let read = Epoch::decode(epoch.as_bytes()).unwrap();
            assert_eq!((&read, read.verify(&network)), (&epoch, Ok(())));
            assert_eq!((read.number(), read.secret()), (3, &secret(7)));
            assert_eq!(read.revocation().key(), key(3).peer_id());
            let other = read.verify(&key(9).peer_id());
            assert_eq!(other, Err(EpochError::OtherNetwork));
            assert!(!format!("{read:?} {:?}", read.secret()).contains("7, 7"));
        }
        let end = NOW + YEAR + CLOCK_SKEW;
        let made = by_issuer(3).unwrap();
        assert_eq!(
            [end, end + 1].map(|now| made.is_over(UnixTime::from_secs(now))),
            [false, true]
        );
        let by_network = sign(3, revocation(), None, 1).unwrap();
        assert!(!by_network.is_over(UnixTime::from_secs(u64::MAX)));
        assert!(by_issuer(0).is_err(), "epoch 0 needs no signature");
        let other_key = sign(3, revocation(), Some(&certificate(Kind::Issuer)), 3);
        assert_eq!(other_key, Err(EpochError::Forged));
        let invitation = certificate(Kind::Invitation);
        let invited = sign(3, revocation(), Some(&invitation), 2);
        assert_eq!(invited, Err(EpochError::Signer(CertError::Order)));
        let foreign = Revocation::by_network(&key(8), key(3).peer_id(), TODAY, NOW).unwrap();
        let for_another = sign(3, foreign, None, 1);
        assert!(matches!(for_another, Err(EpochError::Revocation(_))));
    }

    #[test]
    fn an_issuer_must_have_been_one_when_it_expelled() {
        let late = Revocation::by_network(
            &key(1),
            key(3).peer_id(),
            UnixTime::from_secs(NOW + 2 * YEAR),
            NOW + 3 * YEAR,
        );
        let epoch = sign(3, late.unwrap(), Some(&certificate(Kind::Issuer)), 2);
        let expired = EpochError::Signer(CertError::Expired(Kind::Issuer));
        assert_eq!(epoch, Err(expired));
    }

    #[test]
    fn the_higher_number_is_newer_and_of_one_number_the_order_is_total() {
        let made = |number, byte| {
            Epoch::sign((number, [4; 32], secret(byte)), revocation(), None, &key(1))
        };
        let made = |number, byte| made(number, byte).unwrap();
        assert!(made(2, 1) > made(1, 9) && made(2, 9) > made(1, 1));
        let (a, b) = (made(2, 1), made(2, 2));
        assert_ne!(a.cmp(&b), Ordering::Equal);
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        assert_eq!(
            a.cmp(&Epoch::decode(a.as_bytes()).unwrap()),
            Ordering::Equal
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let epoch = by_issuer(5).unwrap();
        for i in 0..epoch.as_bytes().len() {
            let mut bad = epoch.as_bytes().to_vec();
            bad[i] ^= 1;
            let verdict = Epoch::decode(&bad).map(|epoch| epoch.verify(&key(1).peer_id()));
            assert!(!matches!(verdict, Ok(Ok(()))), "byte {i}");
        }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let epoch = sign(0x0102, revocation(), None, 1).unwrap();
        let mut golden = vec![1];
        golden.extend(key(1).peer_id().public_key());
        golden.extend([0, 0, 1, 2]);
        golden.extend([4; 32]);
        golden.extend([7; 32]);
        golden.extend([0, 0]);
        let revocation = revocation();
        golden.extend((revocation.as_bytes().len() as u16).to_be_bytes());
        golden.extend(revocation.as_bytes());
        golden.extend(key(1).sign("lcroute 2026 rendezvous epoch", &golden));
        assert_eq!(epoch.as_bytes(), golden);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            if let Ok(epoch) = Epoch::decode(&bytes) {
                prop_assert!(epoch.verify(&key(1).peer_id()).is_err());
            }
        }
    }
}
