//! Tests of the whole engine by its public interface.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
mod engine;
mod gateways;
mod hostile;
mod ipv4;
mod lans;
mod leaves;
mod network;
mod segments;

/// Seeds of random runs: all of them with as many cases of property tests as `make test-all` has, else each
/// `every`th.
fn seeds(all: std::ops::Range<u64>, every: usize) -> impl Iterator<Item = u64> {
    let is_thorough = proptest::test_runner::Config::default().cases >= 256;
    all.step_by(if is_thorough { 1 } else { every })
}
