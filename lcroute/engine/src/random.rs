//! Jitter from the engine's seed.

pub use librecast::random::Random;
