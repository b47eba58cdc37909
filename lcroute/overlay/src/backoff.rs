//! Pauses between attempts: doubling, with jitter from a seed.

use std::time::Duration;

/// A small deterministic generator (SplitMix64): for jitter, not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The pause after `failures` failures: between three and five quarters of the doubled first one.
    pub(crate) fn pause(&mut self, failures: u32, first: Duration, longest: Duration) -> Duration {
        let doubled = first.saturating_mul(1 << failures.min(16)).min(longest);
        doubled * 3 / 4 + doubled.mul_f64((self.next() % 1_000) as f64 / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_depend_on_the_seed() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let pauses = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..40)
                .map(|n| jitter.pause(n, first, longest))
                .collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
        assert!(pauses(1)[0] < Duration::from_millis(1_300));
        assert!(
            pauses(1)
                .iter()
                .all(|p| *p >= Duration::from_millis(750) && *p <= longest * 5 / 4)
        );
        assert!(pauses(1)[39] >= longest * 3 / 4);
    }
}
