//! A bound for what this router forwards for others, in bytes that leave on links.
//!
//! All groups together have the configured rate. When they want more, each has at most a level: what
//! those below it leave, in equal parts (max-min fairness), by the demand of the second before.
//! Unicast counts as one group.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::bucket::{Bucket, Rate};
use librecast::time::{Duration, Instant};

/// Between two computations of the level. Chosen: many packets at low rates, a short time for users.
const WINDOW: Duration = Duration::from_secs(1);
/// Groups with a count of their own; all others share one. Chosen: 100 kB.
const MAX_GROUPS: usize = 1024;
/// Bytes at once at the lowest rates: two packets.
const MIN_BURST: u64 = 3000;

/// What one group wants and gets.
#[derive(Debug)]
struct Share {
    bucket: Bucket,
    /// Bytes in this window, dropped ones too.
    wanted: u64,
}

/// The limit, and the shares of groups.
#[derive(Debug)]
pub struct PassOn {
    bits: u64,
    /// Bits a second of a group at most.
    level: u64,
    all: Bucket,
    shares: BTreeMap<Ipv6Addr, Share>,
    window: Instant,
    now: Instant,
}

impl PassOn {
    pub fn new(bits: u64, now: Instant) -> Self {
        Self {
            bits,
            level: bits,
            all: Bucket::full(now),
            shares: BTreeMap::new(),
            window: now,
            now,
        }
    }

    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        let passed = now.saturating_duration_since(self.window);
        if passed >= WINDOW {
            self.level = level(self.bits, passed, self.shares.values().map(|s| s.wanted));
            self.shares.retain(|_, share| share.wanted > 0);
            for share in self.shares.values_mut() {
                share.wanted = 0;
            }
            self.window = now;
        }
    }

    /// Whether `bytes` of a group may leave now.
    pub fn admit(&mut self, group: Ipv6Addr, bytes: u64) -> bool {
        let is_own = group.is_multicast()
            && (self.shares.len() < MAX_GROUPS || self.shares.contains_key(&group));
        let key = if is_own { group } else { Ipv6Addr::UNSPECIFIED };
        let now = self.now;
        let share = self.shares.entry(key).or_insert_with(|| Share {
            bucket: Bucket::full(now),
            wanted: 0,
        });
        share.wanted = share.wanted.saturating_add(bytes);
        let (of_all, of_group) = (rate(self.bits), rate(self.level));
        let fits = share.bucket.ready(of_group, now) && self.all.ready(of_all, now);
        if fits {
            share.bucket.spend(of_group, bytes, now);
            self.all.spend(of_all, bytes, now);
        }
        fits
    }
}

/// A tenth of a second at once.
fn rate(bits: u64) -> Rate {
    Rate::bits_per_second(bits, (bits / 80).max(MIN_BURST))
}

/// The bits a second that a group has at most, by what groups wanted in `passed`.
fn level(bits: u64, passed: Duration, wanted: impl Iterator<Item = u64>) -> u64 {
    let millis = passed.as_millis().max(1);
    let rate = |bytes: u64| u128::from(bytes) * 8000 / millis;
    let mut demands: Vec<_> = wanted.map(rate).collect();
    demands.sort_unstable();
    // a twentieth for those who come within the window
    let mut left = u128::from(bits) * 19 / 20;
    let mut groups = demands.len() as u128;
    for demand in demands {
        let part = left / groups;
        if demand > part {
            return u64::try_from(part).unwrap_or(bits).max(1);
        }
        left -= demand;
        groups -= 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    /// Bytes that pass in ten seconds: group n sends a packet of 1,000 bytes each `every[n]` ms.
    fn run(bits: u64, every: &[u64]) -> Vec<u64> {
        let start = crate::testing::start();
        let mut limit = PassOn::new(bits, start);
        let mut passed = vec![0; every.len()];
        for ms in 1..12_000u64 {
            limit.advance(start + Duration::from_millis(ms));
            for (n, every) in every.iter().enumerate() {
                if ms % every == 0 && limit.admit(group(n as u16), 1000) && ms >= 2000 {
                    passed[n] += 1000;
                }
            }
        }
        passed
    }

    #[test]
    fn all_passes_below_the_limit() {
        assert_eq!(run(1_000_000, &[20, 40]), [500_000, 250_000]);
    }

    #[test]
    fn the_sum_keeps_the_limit_and_a_small_group_loses_nothing() {
        // 8 Mbit/s, 4 Mbit/s and 80 kbit/s want to pass 1 Mbit/s
        let passed = run(1_000_000, &[1, 2, 100]);
        let sum: u64 = passed.iter().sum();
        assert!((1_100_000..=1_300_000).contains(&sum), "{passed:?}");
        assert!(passed[0].abs_diff(passed[1]) < 50_000, "{passed:?}");
        assert_eq!(passed[2], 100_000, "{passed:?}");
    }

    #[test]
    fn more_groups_than_are_counted_share_one_count() {
        let mut limit = PassOn::new(1_000_000, crate::testing::start());
        for n in 0..5000 {
            limit.admit(group(n), 1000);
        }
        assert_eq!(limit.shares.len(), MAX_GROUPS + 1);
    }
}
