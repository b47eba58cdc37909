//! Digests of the join state of a link, which show whether both ends hold the same.
//!
//! Join state is hard state: state lost by a fault stays lost. Every 30 s each side sends one
//! digest of all that it advertised. If the other side received something else, it answers with its
//! digests by bucket. The first side then advertises the differing buckets again.

use std::hash::Hasher;

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::Duration;
use siphasher::sip::SipHasher13;

use crate::control::AUDIT_BUCKETS;
use crate::join::Join;
use crate::source_filter::SourceFilter;

/// Interval of each side's digests.
pub const AUDIT_EVERY: Duration = Duration::from_secs(30);
/// Time by which a digest may leave early, with other digests: idle hosts wake once for all links.
pub const AUDIT_SLACK: Duration = Duration::from_secs(15);
/// Least time between comparisons of buckets, and between repairs.
pub const REPAIR_GAP: Duration = Duration::from_secs(10);

/// XOR of the hashes of all join state advertised in one direction of a link, by bucket.
#[derive(Debug)]
pub struct Digests {
    key: (u64, u64),
    buckets: Box<[u64; AUDIT_BUCKETS]>,
}

impl Digests {
    /// Empty digests. The key is the salt of the advertising router's HELLO, and its origin id.
    pub fn new(salt: u64, advertiser: OriginId) -> Self {
        Self {
            key: (salt, advertiser.0),
            buckets: Box::new([0; AUDIT_BUCKETS]),
        }
    }

    pub fn bucket(&self, root: OriginId, prefix: GroupPrefix) -> usize {
        let mut hasher = self.hasher(root, prefix);
        hasher.write_u8(0);
        (hasher.finish() % AUDIT_BUCKETS as u64) as usize
    }

    fn hasher(&self, root: OriginId, prefix: GroupPrefix) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(&root.0.to_be_bytes());
        hasher.write(&prefix.addr().octets());
        hasher.write_u8(prefix.prefix_len());
        hasher
    }

    /// Adds join state, or removes it if present. Empty join state changes nothing.
    pub fn toggle(&mut self, root: OriginId, prefix: GroupPrefix, want: &Join, sending: bool) {
        if !sending && !want.is_some() {
            return;
        }
        let mut hasher = self.hasher(root, prefix);
        hasher.write_u8(1 + u8::from(sending));
        match want {
            Join::None => hasher.write_u8(0),
            Join::All => hasher.write_u8(1),
            Join::Filtered(filter) => {
                hasher.write_u8(if matches!(**filter, SourceFilter::Include(_)) {
                    2
                } else {
                    3
                });
                for source in filter.sources() {
                    hasher.write(&source.octets());
                }
            }
        }
        let bucket = self.bucket(root, prefix);
        self.buckets[bucket] ^= hasher.finish();
    }

    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |all, bucket| all ^ bucket)
    }

    pub fn buckets(&self) -> &[u64; AUDIT_BUCKETS] {
        &self.buckets
    }

    /// The buckets that differ: bit n is bucket n.
    pub fn differing(&self, theirs: &[u64; AUDIT_BUCKETS]) -> [u64; AUDIT_BUCKETS / 64] {
        let mut bits = [0; AUDIT_BUCKETS / 64];
        for (at, (ours, theirs)) in self.buckets.iter().zip(theirs).enumerate() {
            if ours != theirs {
                bits[at / 64] |= 1 << (at % 64);
            }
        }
        bits
    }
}

pub fn is_in(bits: &[u64; AUDIT_BUCKETS / 64], bucket: usize) -> bool {
    bits[bucket / 64] >> (bucket % 64) & 1 != 0
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const ROOT: OriginId = OriginId(1);

    fn prefix(n: u16) -> GroupPrefix {
        GroupPrefix::group(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n))
    }

    #[test]
    fn what_is_taken_out_again_leaves_no_trace() {
        let mut digests = Digests::new(7, OriginId(2));
        for n in 0..1000 {
            digests.toggle(ROOT, prefix(n), &Join::All, n % 2 == 0);
        }
        assert_ne!(digests.total(), 0);
        for n in 0..1000 {
            digests.toggle(ROOT, prefix(n), &Join::All, n % 2 == 0);
        }
        assert_eq!(
            (digests.total(), *digests.buckets()),
            (0, [0; AUDIT_BUCKETS])
        );
    }

    #[test]
    fn a_difference_shows_in_its_bucket_only() {
        let (mut a, mut b) = (Digests::new(7, OriginId(2)), Digests::new(7, OriginId(2)));
        for n in 0..100 {
            a.toggle(ROOT, prefix(n), &Join::All, false);
            b.toggle(ROOT, prefix(n), &Join::All, n == 42);
        }
        let bits = a.differing(b.buckets());
        let differing: Vec<_> = (0..AUDIT_BUCKETS).filter(|n| is_in(&bits, *n)).collect();
        assert_eq!(differing, [a.bucket(ROOT, prefix(42))]);
        assert_ne!(a.total(), b.total());
    }

    #[test]
    fn modes_filters_and_keys_count() {
        let source = || [Ipv6Addr::LOCALHOST];
        let wants = [
            Join::All,
            SourceFilter::include(source()).into(),
            Some(SourceFilter::exclude(source())).into(),
        ];
        let mut totals = Vec::new();
        for key in [1, 2] {
            for want in &wants {
                for sending in [false, true] {
                    let mut digests = Digests::new(key, ROOT);
                    digests.toggle(ROOT, prefix(1), want, sending);
                    totals.push(digests.total());
                }
            }
        }
        totals.sort_unstable();
        totals.dedup();
        assert_eq!(totals.len(), 12);
    }
}
