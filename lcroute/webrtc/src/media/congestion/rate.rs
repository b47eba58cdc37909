//! The rate at which data arrives.

use super::round::Round;

/// Rounds of which the best rate counts. Chosen.
const RATE_ROUNDS: usize = 4;
/// Rate of an unmeasured path, in bytes a second. Chosen: 100 Mbit/s.
const FIRST_RATE: f64 = 12_500_000.0;

/// Rate of arrival in bytes a second: of the last round, and of the last few rounds.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    last: f64,
    recent: [f64; RATE_ROUNDS],
}

impl RateMeter {
    pub(crate) fn last(&self) -> f64 {
        self.last
    }

    /// Returns the best rate of the last few rounds, as BBR's maximum of bandwidth samples.
    pub(crate) fn best(&self) -> f64 {
        self.recent.iter().fold(0.0, |best, rate| best.max(*rate))
    }

    /// Returns the expected rate: the best recent one, but at least a guess. A host's pause or a
    /// flow's begin does not show the path's rate.
    pub(crate) fn capacity(&self) -> f64 {
        self.best().max(FIRST_RATE)
    }

    /// Ends a round at `time` of the receiver's clock.
    pub(crate) fn end_round(&mut self, round: &Round, time: u32) {
        if round.delivered > 0.0 {
            // otherwise probes, which have no bytes, or a host's pause
            self.last = round.rate(time).unwrap_or(self.last);
            self.recent.rotate_right(1);
            self.recent[0] = self.last;
        }
    }

    /// Counts the rate of an unfinished round.
    pub(crate) fn raise(&mut self, rate: f64) {
        self.recent[0] = self.recent[0].max(rate);
    }
}
