//! The sending capacity, measured while more waits to be sent.

use librecast::time::{Duration, Instant};

/// Time over which it is measured.
const MEASURE: Duration = Duration::from_millis(300);
/// Bits per second above which a capacity is not a limit.
const FORGOTTEN: u64 = 10_000_000_000;

#[derive(Debug)]
pub(super) struct Capacity {
    since: Instant,
    bytes: u64,
    behind: bool,
    measured: Option<u64>,
    /// The last measurement, whatever was sent since.
    last: Option<u64>,
}

impl Capacity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            behind: false,
            measured: None,
            last: None,
        }
    }

    /// Bits per second, while more waits to be sent.
    pub(super) fn measured(&self) -> Option<u64> {
        self.measured
    }

    /// The last bits per second that left while more waited.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Counts sent bytes.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Measures from time to time. `behind`: a turn is late; `queue`: channels wait.
    pub(super) fn look(&mut self, behind: bool, queue: bool, now: Instant) {
        self.behind |= behind;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < MEASURE {
            return;
        }
        let rate = self.bytes as f64 * 8.0 / elapsed.as_secs_f64();
        // an interval with a pause in it is not a measurement
        let whole = elapsed < MEASURE * 3;
        self.measured = if self.behind && queue && whole {
            self.last = Some(rate as u64);
            self.last
        } else {
            self.measured.map(|m| m + m / 2).filter(|m| *m < FORGOTTEN)
        };
        (self.since, self.bytes, self.behind) = (now, 0, false);
    }
}
