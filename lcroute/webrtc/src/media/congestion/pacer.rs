//! When a packet may go that fits into the window: packets are spread over a round trip (RFC 9002 7.7), so that short
//! queues last.

use librecast::time::{Duration, Instant};

/// Time whose packets may leave at once, in microseconds. Chosen.
const BURST: f64 = 3_000.0;
/// The same as a share of the round trip, if that is more. Chosen.
const BURST_SHARE: f64 = 8.0;

/// Spaces packets.
#[derive(Debug)]
pub(crate) struct Pacer {
    began: Instant,
    /// When the next packet may go, in microseconds since `began`.
    next: f64,
}

impl Pacer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            next: 0.0,
        }
    }

    /// When the next packet may go.
    pub(crate) fn opens_at(&self) -> Instant {
        self.began + Duration::from_micros(self.next.max(0.0) as u64)
    }

    /// A packet goes out, of a path with a round trip of `trip` microseconds, at a pace of `pace` bytes in a round trip.
    pub(crate) fn sent(&mut self, bytes: u16, trip: i64, pace: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began).as_micros() as f64;
        let burst = BURST.max(trip as f64 / BURST_SHARE);
        let takes = f64::from(bytes) * trip as f64 / pace;
        self.next = self.next.max(elapsed - burst) + takes;
    }
}
