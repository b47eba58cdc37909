//! Signatures of versions: the right to define a share's content.
//!
//! The signature covers the version, not its server or rate: any server of the files sends it.

use std::collections::VecDeque;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::Instant;
use librecast::wire::Writer;

use crate::record::{Record, Version};

const CONTEXT: &str = "lcsync 2026 version";
/// Bytes of public key and signature.
const SIZE: usize = 32 + 64;
/// Most verified records that are known again.
const MAX_KNOWN: usize = 16;
/// Records verified: 500 a second, 250 at once (30 µs each: 1.5 % of a core).
const VERIFIED: Rate = Rate::per_second(500, 250);

/// Returns the authentication of a record: `key` states that this is a version of the share NAME.
#[must_use]
pub fn sign(key: &SecretKey, name: &str, version: &Version) -> Vec<u8> {
    let signature = key.sign(CONTEXT, &statement(name, version));
    [&key.peer_id().public_key()[..], &signature].concat()
}

fn statement(name: &str, version: &Version) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(name.len() as u32).put(name.as_bytes());
    w.u64(version.generation);
    w.put(&version.root.hash.0).u32(version.root.length);
    version.metadata.write(&mut w);
    w.into_vec()
}

/// A trusted public key, and verified records.
#[derive(Debug)]
pub struct Trust {
    key: PeerId,
    name: String,
    /// Hashes of statements with their signatures; the latest last.
    good: VecDeque<[u8; 32]>,
    bad: VecDeque<[u8; 32]>,
    budget: TokenBucket,
}

impl Trust {
    /// Trusts versions of NAME that `key` has signed.
    #[must_use]
    pub fn new(key: PeerId, name: &str, now: Instant) -> Self {
        Self {
            key,
            name: name.to_owned(),
            good: VecDeque::new(),
            bad: VecDeque::new(),
            budget: TokenBucket::of(VERIFIED, now),
        }
    }

    /// The key.
    pub fn key(&self) -> &PeerId {
        &self.key
    }

    /// Whether the key has signed this version. Each record is verified once. A flood of forged
    /// ones exceeds the bound, but an honest one repeats.
    pub fn accepts(&mut self, record: &Record, now: Instant) -> bool {
        let Some((key, signature)) = record.authentication.split_first_chunk::<32>() else {
            return false;
        };
        let Ok(signature) = <&[u8; SIZE - 32]>::try_from(signature) else {
            return false;
        };
        if key != self.key.public_key() {
            return false;
        }
        let statement = statement(&self.name, &record.version());
        let hash = derive("lcsync 2026 verified", &[&statement, signature]);
        if self.good.contains(&hash) {
            return true;
        }
        if self.bad.contains(&hash) || !self.budget.take(1, now) {
            return false;
        }
        let good = self.key.verify(CONTEXT, &statement, signature).is_ok();
        let known = if good { &mut self.good } else { &mut self.bad };
        if known.len() == MAX_KNOWN {
            known.pop_front();
        }
        known.push_back(hash);
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::records;
    use proptest::prelude::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn trust(n: u8) -> Trust {
        Trust::new(key(n).peer_id(), "photos", Instant::now())
    }

    proptest! {
        #[test]
        fn what_makes_the_version_is_signed_and_nothing_else(record in records(), server: u32, rate in 1..u32::MAX) {
            let now = Instant::now();
            let authentication = sign(&key(1), "photos", &record.version());
            let signed = Record { authentication, ..record };
            let passed_on = Record { server, channel_rate: rate, sending: Vec::new(), ..signed.clone() };
            prop_assert!(trust(1).accepts(&signed, now) && trust(1).accepts(&passed_on, now));

            prop_assert!(!trust(2).accepts(&signed, now));
            let other_name = Trust { name: "photo".into(), ..trust(1) }.accepts(&signed, now);
            prop_assert!(!other_name);
            let mut others = vec![signed.clone(); 5];
            others[0].generation = signed.generation.wrapping_add(1);
            others[1].root.hash.0[7] ^= 1;
            others[2].metadata.length ^= 1;
            others[3].authentication[40] ^= 1;
            others[4].authentication.pop();
            for other in others {
                prop_assert!(!trust(1).accepts(&other, now), "{:?}", other);
            }
        }
    }

    #[test]
    fn the_key_of_another_is_not_enough() {
        let record = |authentication| Record {
            authentication,
            ..crate::record::tests::record(1, 1)
        };
        let unsigned = record(Vec::new());
        assert!(!trust(1).accepts(&unsigned, Instant::now()));
        let mut claimed = sign(&key(2), "photos", &unsigned.version());
        claimed[..32].copy_from_slice(key(1).peer_id().public_key());
        assert!(!trust(1).accepts(&record(claimed), Instant::now()));
    }

    #[test]
    fn a_flood_of_forged_records_costs_a_bounded_number_of_verifications() {
        let now = Instant::now();
        let mut trust = trust(1);
        let mut record = crate::record::tests::record(1, 1);
        record.authentication = sign(&key(1), "photos", &record.version());
        let honest = record.clone();
        assert!(trust.accepts(&honest, now));
        for generation in 2..10_000 {
            record.generation = generation;
            assert!(!trust.accepts(&record, now));
        }
        assert!(!trust.budget.take(1, now), "not every one is verified");
        assert!(trust.accepts(&honest, now), "what is known stays known");
        let mut next = crate::record::tests::record(1, 20_000);
        next.authentication = sign(&key(1), "photos", &next.version());
        assert!(trust.accepts(&next, now + std::time::Duration::from_secs(1)));
    }
}
