//! Randomness from the seed: nonces, ephemeral keys, pauses with jitter.

use std::fmt;

use crypto_box::aead::rand_core::{CryptoRng, Error, RngCore};
use librecast::time::Duration;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// ChaCha20 generator: its output is as secret as the seed.
pub struct Random(ChaCha20Rng);

impl Random {
    /// Returns the generator of this seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Returns `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns the pause after `failures` failures: 3/4 to 5/4 of the doubled `first`, up to
    /// `longest`.
    pub(crate) fn pause(&mut self, failures: u32, first: Duration, longest: Duration) -> Duration {
        let doubled = first.saturating_mul(1 << failures.min(16)).min(longest);
        doubled * 3 / 4 + doubled.mul_f64((self.0.next_u64() % 1_000) as f64 / 2_000.0)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.try_fill_bytes(bytes)
    }
}

impl CryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_depend_on_the_seed() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let pauses = |seed| {
            let mut random = Random::new([seed; 32]);
            (0..40)
                .map(|n| random.pause(n, first, longest))
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
