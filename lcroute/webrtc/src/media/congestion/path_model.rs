//! What the sender knows of its path: delay, rate and loss. Nothing in here decides.

use librecast::time::Instant;

use super::delay::PathDelay;
use super::loss::LossMeter;
use super::rate::RateMeter;

/// Least round trip that a path's content is counted for, in microseconds: hosts take longer to turn round. Chosen.
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

    /// Bytes that must be in flight for all of the rate, with a queue of so many microseconds: the bandwidth-delay
    /// product, as BBR has it, and what gets lost of it at random.
    pub(crate) fn content(&self, queue: i64) -> f64 {
        let trip = self.delay.least_trip().max(CONTENT_RTT_MIN) + queue;
        let floor = self.loss.floor();
        self.rate.best() / (1.0 - floor) * (1.0 + floor / 2.0) * trip as f64 / 1e6
    }
}
