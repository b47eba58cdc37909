//! The agent: [`core`] decides, with [`policy`] and [`revoked`] (permissions), `budget` (bounds the
//! cost of forgeries) and `delivery` (timing of answers).
//!
//! Around it: `shell` (sockets and time), `job` (a job's folder), `modules`, `supervisor` with
//! `contain` (runs a job), `audit`, `facts`, [`metrics`], [`config`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod audit;
mod budget;
pub mod config;
mod contain;
pub mod core;
mod delivery;
mod facts;
mod job;
pub mod metrics;
pub(crate) mod modules;
pub mod policy;
pub mod reasons;
pub mod revoked;
pub(crate) mod shell;
pub(crate) mod supervisor;

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Returns Unix time by the host's clock, in seconds.
#[must_use]
pub fn unix_now() -> u64 {
    since_1970().as_secs()
}

/// Returns Unix time by the host's clock, in milliseconds.
#[must_use]
pub fn unix_now_ms() -> u64 {
    // fits for 500 million years
    since_1970().as_millis() as u64
}

/// Returns Unix time by the host's clock, in microseconds.
#[must_use]
pub fn unix_now_us() -> u64 {
    since_1970().as_micros() as u64
}
