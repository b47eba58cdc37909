//! How much more than K symbols the members of a channel have needed lately: how long bursts are to be.
//!
//! A burst should be a little shorter than most need, as what follows it is cheap: a few symbols, and a pause in which
//! PARTs come. Blocks are learnt from by what they needed themselves, long after their bursts began; so what is learnt must
//! not depend on how long bursts are by now.

use std::time::Duration;

/// Blocks of fewer symbols do not gather, nor are they repaired a few symbols at a time: what they cost is less than the time.
pub(super) const MIN_GATHERED: u32 = 64;
/// Longer than a PART takes from the last symbol to here: 10 ms in the socket's buffer, up to 12 ms in the receiver,
/// 12 ms in its kernel.
const PAUSE: Duration = Duration::from_millis(40);
/// The same on busy hosts.
const MAX_PAUSE: Duration = Duration::from_millis(160);
/// A PART that comes sooner after symbols is not because of them, as far as is learnt from it.
const SEEN: Duration = Duration::from_millis(160);
/// Weight of each block in mean and deviation (as RFC 6298's alpha, 1/8).
const GAIN: f64 = 0.125;
/// Weight of a first PART that comes sooner than expected.
const SHORTER_GAIN: f64 = 0.25;
/// Weight of a first PART that comes later.
const LONGER_GAIN: f64 = 0.03;
/// Of those who need less than the mean less one deviation, the mean need is so many deviations less again.
const BELOW: f64 = 0.7;

/// The deviation before anything is learnt.
const UNKNOWN: f64 = 0.125;
/// Deviations between a burst's length and what nearly nobody needs.
const USUAL: f64 = 4.0;

/// Shares of K, beyond K.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    mean: f64,
    deviation: f64,
    /// Seconds between the moment at which a block had been sent and its first PART.
    delay: f64,
}

impl Default for Need {
    /// Nothing learnt yet.
    fn default() -> Self {
        Self {
            mean: 0.0,
            deviation: UNKNOWN,
            delay: 0.0,
        }
    }
}

impl Need {
    /// Symbols that the burst of a block of `symbols` has beyond these.
    pub(super) fn burst(&self, symbols: u32) -> u32 {
        ((self.mean - self.deviation).max(0.0) * f64::from(symbols)) as u32
    }

    /// Symbols that follow at once when a burst and `sent` more were not enough: few at first, as not much can be missing;
    /// twice as many each time beyond what is usual. Of small blocks a quarter: they cost little, and everything waits for
    /// lists. Whoever got his one sooner than others would begin without them.
    pub(super) fn step(&self, symbols: u32, sent: u32) -> u32 {
        if symbols < MIN_GATHERED {
            return (symbols / 4).max(1);
        }
        let deviation = self.deviation * f64::from(symbols);
        let usual = (USUAL * deviation) as u32;
        ((deviation / 2.0) as u32).max(1) + sent.saturating_sub(usual)
    }

    /// Time in which the PARTs come that symbols are the reason of.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.delay).clamp(PAUSE, MAX_PAUSE)
    }

    /// A PART that comes sooner after symbols is not because of them. Too long a time makes bursts a few symbols shorter, too
    /// short a one makes them longer by what a channel brings in the difference.
    pub(super) fn seen(&self) -> Duration {
        Duration::from_secs_f64(self.delay * 1.5).max(SEEN)
    }

    /// The first member of a block has left, so long after K symbols of it had been sent.
    pub(super) fn left(&mut self, after: Duration) {
        let error = after.min(MAX_PAUSE * 2).as_secs_f64() - self.delay;
        // late ones say what their members had lost, not how long PARTs take
        self.delay += error
            * if error < 0.0 {
                SHORTER_GAIN
            } else {
                LONGER_GAIN
            };
    }

    /// The last member of a block of `symbols` has left, after `sent` of them.
    pub(super) fn needed(&mut self, symbols: u32, sent: u32) {
        self.learn(f64::from(sent) / f64::from(symbols) - 1.0);
    }

    /// It had enough by the end of the burst, which had `extra` symbols beyond `symbols`.
    pub(super) fn was_enough(&mut self, symbols: u32, extra: u32) {
        let burst = f64::from(extra) / f64::from(symbols);
        self.learn(burst - BELOW * self.deviation);
    }

    fn learn(&mut self, need: f64) {
        let error = need.clamp(0.0, 1.0) - self.mean;
        self.mean += GAIN * error;
        self.deviation += GAIN * (error.abs() - self.deviation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_a_little_shorter_than_what_blocks_needed_however_late_that_is_known() {
        let mut need = Need::default();
        assert_eq!(need.burst(200), 0);
        // what was sent to blocks meanwhile does not matter: they say what they needed
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
