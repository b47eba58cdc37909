//! Symbols beyond K that members of a channel recently needed; they set the length of bursts.
//!
//! A burst is a little shorter than most members need, as a few symbols after a pause for PARTs are
//! cheap. A block's need is known long after its burst began, so the measure must not depend on the
//! present length of bursts.

use std::time::Duration;

/// Symbols below which a block neither gathers nor is repaired in small steps, to save time.
pub(super) const MIN_GATHERED: u32 = 64;
/// Least pause for PARTs: 10 ms in the socket's buffer, 12 in the receiver, 12 in its kernel.
const PAUSE: Duration = Duration::from_millis(40);
/// Longest pause for PARTs, on busy hosts.
const MAX_PAUSE: Duration = Duration::from_millis(160);
/// Least time between symbols and a PART that they can have caused, for learning.
const SEEN: Duration = Duration::from_millis(160);
/// Weight of each block in mean and deviation: 1/8, as RFC 6298's alpha.
const GAIN: f64 = 0.125;
/// Weight of a first PART that comes earlier than expected.
const SHORTER_GAIN: f64 = 0.25;
/// Weight of a first PART that comes later than expected.
const LONGER_GAIN: f64 = 0.03;
/// Deviations by which the mean need of blocks that a burst satisfied is below its length.
const BELOW: f64 = 0.7;

/// Deviation before the first measurement.
const UNKNOWN: f64 = 0.125;
/// Deviations beyond which a need is unusual.
const USUAL: f64 = 4.0;

/// Need beyond K, as shares of K.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    mean: f64,
    deviation: f64,
    /// Seconds between a block's K-th symbol and its first PART.
    delay: f64,
}

impl Default for Need {
    /// State before the first measurement.
    fn default() -> Self {
        Self {
            mean: 0.0,
            deviation: UNKNOWN,
            delay: 0.0,
        }
    }
}

impl Need {
    /// Returns the symbols beyond K in the burst of a block of `symbols`.
    pub(super) fn burst(&self, symbols: u32) -> u32 {
        ((self.mean - self.deviation).max(0.0) * f64::from(symbols)) as u32
    }

    /// Returns the symbols that follow a burst and `sent` more. They are few at first, as little
    /// can be missing; beyond the usual need, each step doubles the sum. A small block gets a
    /// quarter at once, as all members wait for lists.
    pub(super) fn step(&self, symbols: u32, sent: u32) -> u32 {
        if symbols < MIN_GATHERED {
            return (symbols / 4).max(1);
        }
        let deviation = self.deviation * f64::from(symbols);
        let usual = (USUAL * deviation) as u32;
        ((deviation / 2.0) as u32).max(1) + sent.saturating_sub(usual)
    }

    /// Returns the pause in which PARTs for the last symbols arrive.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.delay).clamp(PAUSE, MAX_PAUSE)
    }

    /// Returns the least time between symbols and a PART that they caused. If too long, bursts are
    /// a few symbols too short; if too short, too long by the symbols sent in the difference.
    pub(super) fn seen(&self) -> Duration {
        Duration::from_secs_f64(self.delay * 1.5).max(SEEN)
    }

    /// Notes the first PART of a block, `after` its K-th symbol.
    pub(super) fn left(&mut self, after: Duration) {
        let error = after.min(MAX_PAUSE * 2).as_secs_f64() - self.delay;
        // late PARTs measure losses of members, not the delay of PARTs
        self.delay += error
            * if error < 0.0 {
                SHORTER_GAIN
            } else {
                LONGER_GAIN
            };
        debug_assert!(self.delay >= 0.0, "a PART comes after its cause");
    }

    /// Notes that the last member of a block of `symbols` left after `sent` of them.
    pub(super) fn needed(&mut self, symbols: u32, sent: u32) {
        self.learn(f64::from(sent) / f64::from(symbols) - 1.0);
    }

    /// Notes that the last member left by the end of the burst of `symbols` and `extra`.
    pub(super) fn was_enough(&mut self, symbols: u32, extra: u32) {
        let burst = f64::from(extra) / f64::from(symbols);
        self.learn(burst - BELOW * self.deviation);
    }

    fn learn(&mut self, need: f64) {
        let error = need.clamp(0.0, 1.0) - self.mean;
        self.mean += GAIN * error;
        self.deviation += GAIN * (error.abs() - self.deviation);
        debug_assert!(
            (0.0..=1.0).contains(&self.mean) && (0.0..=1.0).contains(&self.deviation),
            "a burst is at most twice as long as a block"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_a_little_shorter_than_what_blocks_needed_however_late_that_is_known() {
        let mut need = Need::default();
        assert_eq!(need.burst(200), 0);
        // the present length of bursts does not matter, only the need of blocks
        for n in 0..200 {
            need.needed(200, 250 + n % 11);
        }
        assert!((48..55).contains(&need.burst(200)), "{need:?}");
        assert!((1..4).contains(&need.step(200, 0)), "{need:?}");
        for _ in 0..100 {
            let extra = need.burst(200);
            need.was_enough(200, extra);
        }
        assert_eq!((need.burst(200), need.step(200, 0)), (0, 1));
    }

    #[test]
    fn what_everything_waits_for_is_not_repaired_symbol_by_symbol() {
        let mut need = Need::default();
        for _ in 0..100 {
            need.needed(200, 200);
        }
        let steps = [(1, 0), (24, 0), (24, 6), (63, 15)].map(|(k, sent)| need.step(k, sent));
        assert_eq!(steps, [1, 6, 6, 15]);
    }

    #[test]
    fn who_needs_far_more_than_usual_gets_twice_as_much_each_time() {
        let mut need = Need::default();
        for _ in 0..100 {
            need.needed(200, 200);
        }
        let mut sent = 0;
        let steps = [(); 6].map(|()| {
            let step = need.step(200, sent);
            sent += step;
            step
        });
        assert_eq!(steps, [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn pauses_are_as_long_as_parts_take_within_bounds() {
        let mut need = Need::default();
        assert_eq!(need.pause(), PAUSE);
        for _ in 0..1_000 {
            need.left(Duration::from_secs(5));
        }
        assert_eq!(need.pause(), MAX_PAUSE);
        for _ in 0..60 {
            need.left(Duration::from_millis(50));
        }
        assert!(need.pause() < Duration::from_millis(55), "{need:?}");
    }
}
