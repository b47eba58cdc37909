//! The rate at which data arrives.

use super::round::Round;

/// Rounds of which the best rate counts. Chosen.
const RATE_ROUNDS: usize = 4;
/// Rate of a path that nothing is known of, in bytes a second. Chosen: 100 Mbit/s.
const FIRST_RATE: f64 = 12_500_000.0;

/// Bytes a second that arrive: of the last round, and of the last few rounds.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    last: f64,
    recent: [f64; RATE_ROUNDS],
}

impl RateMeter {
    /// Of the last round.
    pub(crate) fn last(&self) -> f64 {
        self.last
    }

    /// The best of the last few rounds, as BBR takes the maximum of its bandwidth samples.
    pub(crate) fn best(&self) -> f64 {
        self.recent.iter().fold(0.0, |best, rate| best.max(*rate))
    }

    /// What may be expected to arrive: what did at best of late, and not less than a guess. A pause of a host, or the
    /// begin of a flow, is not the path's rate.
    pub(crate) fn capacity(&self) -> f64 {
        self.best().max(FIRST_RATE)
    }

    /// A round is over at `time` of the receiver's clock.
    pub(crate) fn end_round(&mut self, round: &Round, time: u32) {
        if round.delivered > 0.0 {
            // else probes, which have no bytes, or a host that paused
            self.last = round.rate(time).unwrap_or(self.last);
            self.recent.rotate_right(1);
            self.recent[0] = self.last;
        }
    }

    /// A round that is not over may be the best one.
    pub(crate) fn raise(&mut self, rate: f64) {
        self.recent[0] = self.recent[0].max(rate);
    }
}
