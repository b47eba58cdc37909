//! Numbers from a seed: the same seed gives the same numbers.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Uniform
/// enough for jitter and choices; never for secrets, as some numbers reveal the rest.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// The increment of the state per number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Applies the finalizer of SplitMix64: every bit of the result depends on every bit of `value`.
pub fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// Makes a generator from the seed of a state machine.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Makes the stream of a seed and a name; streams are independent of each other.
    pub fn stream(seed: u64, name: &[u64]) -> Self {
        let fold = |sum: u64, part: &u64| mix(sum.rotate_left(17) ^ part.wrapping_add(STEP));
        Self(name.iter().fold(mix(seed ^ STEP), fold))
    }

    /// Returns the next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Returns a number below `bound`, which is at least 1. Its bias is `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Returns an index of a list of this length; 0 if the list is empty.
    pub fn index(&mut self, length: usize) -> usize {
        ((u128::from(self.next()) * length as u128) >> 64) as usize
    }

    /// Returns a uniform number from 0 up to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        // a double holds 53 bits
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns true with this probability, 0 to 1. Draws nothing for 0.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Returns a time from `low` up to `high`, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_millis() as u64;
        low + Duration::from_millis(self.below(span + 1))
    }

    /// Returns `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        // by words: simulations draw megabytes, without optimisation
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_different_names_differ() {
        let first = |name: &[u64]| Random::stream(7, name).next();
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1]), first(&[1, 0]));
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
    }
}
