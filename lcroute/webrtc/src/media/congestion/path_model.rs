//! Measurements of the path: delay, rate and loss. This module decides nothing.

use librecast::time::Instant;

use super::delay::PathDelay;
use super::loss::LossMeter;
use super::rate::RateMeter;

/// Least round trip for a path's content, in microseconds: hosts take longer to answer. Chosen.
const CONTENT_RTT_MIN: i64 = 4_000;

/// Delay, rate and loss of one direction of a link.
#[derive(Debug)]
pub(crate) struct PathModel {
    pub(crate) delay: PathDelay,
    pub(crate) rate: RateMeter,
    pub(crate) loss: LossMeter,
}

impl PathModel {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            delay: PathDelay::default(),
            rate: RateMeter::default(),
            loss: LossMeter::new(now),
        }
    }

    /// Returns the bytes in flight that sustain the rate, with a queue of `queue` microseconds: the
    /// bandwidth-delay product as in BBR, plus random loss.
    pub(crate) fn content(&self, queue: i64) -> f64 {
        let trip = self.delay.least_trip().max(CONTENT_RTT_MIN) + queue;
        let floor = self.loss.floor();
        self.rate.best() / (1.0 - floor) * (1.0 + floor / 2.0) * trip as f64 / 1e6
    }
}
