//! Pacing: packets are spread over a round trip (RFC 9002 7.7), for the sake of short queues.

use librecast::time::{Duration, Instant};

/// Burst that may leave at once, in microseconds of the pace. Chosen.
const BURST: f64 = 3_000.0;
/// Divisor of the round trip for the burst, if that is longer. Chosen.
const BURST_SHARE: f64 = 8.0;

#[derive(Debug)]
pub(crate) struct Pacer {
    began: Instant,
    /// Time of the next packet, in microseconds since `began`.
    next: f64,
}

impl Pacer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            next: 0.0,
        }
    }

    pub(crate) fn opens_at(&self) -> Instant {
        self.began + Duration::from_micros(self.next.max(0.0) as u64)
    }

    /// Notes a sent packet; `trip`: round trip in microseconds, `pace`: bytes per round trip.
    pub(crate) fn sent(&mut self, bytes: u16, trip: i64, pace: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began).as_micros() as f64;
        let burst = BURST.max(trip as f64 / BURST_SHARE);
        let takes = f64::from(bytes) * trip as f64 / pace;
        self.next = self.next.max(elapsed - burst) + takes;
    }
}
