//! The time of a page.

use librecast::time::Instant;

/// The moment of a page's `performance.now()`. On a host it counts from the first call.
#[cfg(target_family = "wasm")]
#[must_use]
pub fn at(now: f64) -> Instant {
    Instant::from_millis(now)
}

/// The moment of a page's `performance.now()`. On a host it counts from the first call.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn at(now: f64) -> Instant {
    thread_local! {
        static BEGIN: Instant = Instant::now();
    }
    BEGIN.with(|begin| *begin + librecast::time::Duration::from_secs_f64(now / 1_000.0))
}
