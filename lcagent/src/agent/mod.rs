//! The agent: [`core`] decides, with [`policy`] and [`revoked`] (who may what), `budget` (what strangers may cost) and
//! `delivery` (what is sent when).
//!
//! Around it: `shell` (sockets and time), `job` (a job's folder), `modules`, `supervisor` with `contain` (the process
//! that runs a job), `audit`, `facts`, [`metrics`], [`config`].

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

/// Seconds since 1970 by the host's clock.
#[must_use]
pub fn unix_now() -> u64 {
    since_1970().as_secs()
}

/// Milliseconds since 1970 by the host's clock.
#[must_use]
pub fn unix_now_ms() -> u64 {
    // of the next 500 million years
    since_1970().as_millis() as u64
}

/// Microseconds since 1970 by the host's clock.
#[must_use]
pub fn unix_now_us() -> u64 {
    since_1970().as_micros() as u64
}
