//! Times of searches for expired entries, and trust in the wall clock.

use librecast::time::{Duration, Instant, UnixTime};

/// Time after a start, or after the clock was set ahead, in which no entry expires. Chosen: people
/// or NTP have corrected the clock by then.
const TRUSTED_AFTER: Duration = Duration::from_secs(3_600);

/// Lead of the wall clock over the monotonic clock from which on it counts as set. Chosen.
const CLOCK_STEP: Duration = Duration::from_secs(3_600);

/// Interval between two searches for expired entries.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// Decides when entries are searched, and whether they may expire.
#[derive(Debug)]
pub(super) struct Expiry {
    due: Instant,
    /// Both clocks at the last search.
    last: Option<(UnixTime, Instant)>,
    /// Since when both clocks run evenly.
    even_since: Instant,
}

impl Expiry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now,
            last: None,
            even_since: now,
        }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.due
    }

    /// Returns whether a search is due now, and sets the time of the next one.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.due = now + EXPIRY_INTERVAL;
        }
        is_due
    }

    /// Notes both clocks at a search; returns whether the wall clock is trusted.
    pub(super) fn trusts(&mut self, time: UnixTime, now: Instant) -> bool {
        let last = self.last.replace((time, now));
        let steps = last
            .is_some_and(|(then, at)| time > then + now.saturating_duration_since(at) + CLOCK_STEP);
        if steps {
            self.even_since = now;
        }
        now.saturating_duration_since(self.even_since) >= TRUSTED_AFTER
    }
}
