//! Randomness from the seed: keys, nonces, ids, pauses with jitter.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crypto_box::aead::rand_core::{CryptoRng, Error, RngCore};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// ChaCha20, as secret as the seed. Clones share one stream, because mls-rs clones its provider.
#[derive(Clone)]
pub(crate) struct Random(Arc<Mutex<ChaCha20Rng>>);

impl Random {
    /// Creates the generator of this seed.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(ChaCha20Rng::from_seed(*seed))))
    }

    /// Draws `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_bytes(&mut bytes);
        bytes
    }

    /// `period` shortened by up to a quarter, so that members do not act simultaneously.
    pub fn jittered(&mut self, period: u64) -> u64 {
        period - self.next_u64() % (period / 4).max(1)
    }

    fn with<T>(&self, draw: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        self.with(RngCore::next_u32)
    }

    fn next_u64(&mut self) -> u64 {
        self.with(RngCore::next_u64)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.with(|rng| rng.fill_bytes(bytes));
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Random {}
