//! Reproducible randomness for forgeries.

/// A xorshift generator: the same numbers in every run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Creates a generator; `seed` becomes odd.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Fills `bytes` up to `length`.
    pub fn fill(&mut self, bytes: &mut Vec<u8>, length: usize) {
        while bytes.len() < length {
            bytes.extend(self.roll().to_ne_bytes());
        }
        bytes.truncate(length);
    }
}
