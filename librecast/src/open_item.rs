//! Items of open keys in a DHT (BEP 44): the record of such a key K in one period ([`crate::open`]).
//!
//! ```text
//! item   K blinded by derive("lcroute 2026 open item", K | period 64), of a sealed record of 512 bytes
//! ```
//!
//! A holder of K can compute the item's key, and only K's owner can sign it. The owner's program
//! for links has no key that signs, so the holder of K does it by request: for periods around the
//! present one, with the time as the sequence, at a bounded rate.

use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Rate};
use crate::id::{PeerId, SecretKey, derive};
use crate::open::periods;
use crate::reach::{Base58, Item, Key, Value, signed_bytes};
use crate::time::{Duration, Instant, UnixTime};

/// Bytes of a record.
pub const RECORD_LEN: usize = 512;
/// Rate of signatures. Chosen: two periods change at most every five minutes, and at starts.
const SIGNATURES: Rate = Rate::every(Duration::from_secs(20), 32);

/// A sealed record.
pub type Record = Base58<RECORD_LEN>;

/// A request for the item of a period, as the record has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemAsk {
    /// Number of the period.
    pub period: u64,
    /// The record.
    pub record: Record,
}

/// The reason for which an item is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The period is neither the present one nor a neighbour.
    #[error("the item of an open key is of a period around the present one")]
    Period,
    /// Too many signatures.
    #[error("too many items of the open key are signed")]
    Rate,
}

fn secret(open: &PeerId, period: u64) -> [u8; 32] {
    let period = period.to_be_bytes();
    derive("lcroute 2026 open item", &[open.public_key(), &period])
}

/// Returns the key of an open key's item in a period.
pub fn key_of(open: &PeerId, period: u64) -> Key {
    let secret = secret(open, period);
    // a public key is a point of the curve
    Base58(open.blinded(&secret).unwrap_or(secret))
}

/// Signs items by the open key, at a bounded rate.
#[derive(Debug)]
pub struct ItemSigner(Bucket);

impl ItemSigner {
    /// Returns a signer that has not signed yet.
    pub fn new(now: Instant) -> Self {
        Self(Bucket::full(now))
    }

    /// Returns whether another item may be signed, and counts it.
    pub fn permits(&mut self, now: Instant) -> bool {
        self.0.take(SIGNATURES, 1, now)
    }

    /// Signs the item of this key in a period. Its sequence is the time, so no request can keep
    /// later items from being held.
    ///
    /// # Errors
    /// The period is far away, or there are too many.
    pub fn sign(
        &mut self,
        key: &SecretKey,
        asked: &ItemAsk,
        time: UnixTime,
        now: Instant,
    ) -> Result<Item, Refused> {
        let open = key.peer_id();
        if periods(&open).at(time).abs_diff(asked.period) > 1 {
            return Err(Refused::Period);
        }
        if !self.permits(now) {
            return Err(Refused::Rate);
        }
        let sequence = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let value = &asked.record.0;
        let message = signed_bytes(sequence, value);
        let signature = key.sign_blinded(&secret(&open, asked.period), &message);
        Ok(Item {
            key: key_of(&open, asked.period),
            sequence,
            value: Value(value.to_vec()),
            signature: Base58(signature),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn asked(period: u64) -> ItemAsk {
        ItemAsk {
            period,
            record: Base58([5; RECORD_LEN]),
        }
    }

    #[test]
    fn golden_bytes() {
        let open = key(1).peer_id();
        assert_eq!(key_of(&open, 7).to_string(), GOLDEN);
        assert_ne!(key_of(&open, 7), key_of(&open, 8));
        assert_ne!(key_of(&open, 7), key_of(&key(2).peer_id(), 7));
    }

    const GOLDEN: &str = "HWRJxqqFMsWNM8VXbCeix92H99Pd2AEjVjZeRNpqBrjc";

    #[test]
    fn only_the_owner_signs_under_the_key_that_others_compute() {
        let open = key(1).peer_id();
        let period = periods(&open).at(NOW);
        let now = Instant::now();
        let verifies = |by: &SecretKey| {
            let item = ItemSigner::new(now).sign(by, &asked(period), NOW, now);
            let item = item.unwrap();
            let message = signed_bytes(item.sequence, &item.value.0);
            let public = ed25519_dalek::VerifyingKey::from_bytes(&key_of(&open, period).0).unwrap();
            let signature = ed25519_dalek::Signature::from_bytes(&item.signature.0);
            public.verify_strict(&message, &signature).is_ok()
        };
        assert!(verifies(&key(1)));
        let other = periods(&key(2).peer_id()).at(NOW);
        assert!(other.abs_diff(period) <= 1 && !verifies(&key(2)));
    }

    #[test]
    fn far_periods_and_floods_of_requests_are_refused() {
        let now = Instant::now();
        let period = periods(&key(1).peer_id()).at(NOW);
        let mut signer = ItemSigner::new(now);
        for far in [0, period - 2, period + 2, u64::MAX] {
            let refused = signer.sign(&key(1), &asked(far), NOW, now);
            assert_eq!(refused, Err(Refused::Period), "{far}");
        }
        for near in [period - 1, period + 1] {
            signer.sign(&key(1), &asked(near), NOW, now).unwrap();
        }
        let signed = (0..1_000).filter(|_| signer.sign(&key(1), &asked(period), NOW, now).is_ok());
        assert_eq!(signed.count(), 30, "two of 32 are used");
        let later = now + Duration::from_secs(20);
        signer.sign(&key(1), &asked(period), NOW, later).unwrap();
    }
}
