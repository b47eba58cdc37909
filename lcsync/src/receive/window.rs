//! How many channels a receiver holds: additive increase, multiplicative decrease, by its own loss.
//!
//! Each channel has a fixed rate, so the number of channels is the receiver's rate. Loss alone does not tell a
//! full link from a bad one. So the window is halved on trial: if no less arrives then, the link was full; if what
//! arrives is halved too, the loss is the link's own, and from then on taken for granted.

use std::time::{Duration, Instant};

/// How long loss is measured before anything is concluded.
const INTERVAL: Duration = Duration::from_millis(300);
/// Fewer packets than this tell nothing.
const ENOUGH: u64 = 64;
/// Loss that is let pass, above that taken for granted.
const TOLERANCE: f64 = 0.08;
/// After a decrease at least this share of the packets must still arrive to say that the link was full.
const STILL_FULL: f64 = 0.8;
/// Loss beyond this is never taken for granted.
const MAX_GRANTED: f64 = 0.5;

/// The window.
#[derive(Debug, Clone)]
pub struct Window {
    size: f64,
    max: usize,
    /// Tripling with every round of blocks until the first decrease.
    slow_start: bool,
    received: u64,
    lost: u64,
    since: Instant,
    granted: f64,
    loss: f64,
    trial: Option<Trial>,
    /// Intervals to let pass until a change of the window shows.
    settle: u8,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    size: f64,
    rate: f64,
}

impl Window {
    /// A window of `start` channels that grows up to `max`.
    #[must_use]
    pub fn new(start: usize, max: usize, now: Instant) -> Self {
        let max = max.max(1);
        Self {
            size: start.clamp(1, max) as f64,
            max,
            slow_start: true,
            received: 0,
            lost: 0,
            since: now,
            granted: 0.0,
            loss: 0.0,
            trial: None,
            settle: 0,
        }
    }

    /// Channels that may be held now, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        (self.size as usize).clamp(1, self.max)
    }

    /// Loss of the last interval, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// A new upper bound.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
        self.size = self.size.min(self.max as f64);
    }

    /// A packet came, and `lost` before it did not.
    pub fn on_packet(&mut self, lost: u64) {
        self.received += 1;
        self.lost += lost;
    }

    /// A block is complete: the moment to grow.
    pub fn on_block(&mut self) {
        if self.trial.is_some() || self.settle > 0 {
            return;
        }
        let step = if self.slow_start {
            1.0
        } else {
            1.0 / self.size
        };
        self.size = (self.size + step).min(self.max as f64);
    }

    /// Draws conclusions when it is time to.
    pub fn on_tick(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let total = self.received + self.lost;
        if elapsed < INTERVAL || total < ENOUGH {
            // silence is no interval
            if elapsed > INTERVAL * 10 {
                self.restart(now);
            }
            return;
        }
        let rate = self.received as f64 / elapsed.as_secs_f64();
        let loss = self.lost as f64 / total as f64;
        self.loss = loss;
        self.restart(now);
        if self.settle > 0 {
            self.settle -= 1;
            return;
        }
        match self.trial.take() {
            Some(trial) => self.conclude(trial, rate, loss),
            None if loss > self.granted + TOLERANCE && self.size > 1.0 => {
                self.slow_start = false;
                self.trial = Some(Trial {
                    size: self.size,
                    rate,
                });
                self.size = (self.size / 2.0).max(1.0);
                self.settle = 1;
            }
            None => self.granted = self.granted.min(loss + TOLERANCE),
        }
    }

    fn conclude(&mut self, trial: Trial, rate: f64, loss: f64) {
        if rate >= trial.rate * STILL_FULL {
            // the link was full: what it carried fits, with its own loss
            let fits = trial.size * (1.0 - TOLERANCE / 2.0) * (1.0 - loss).max(0.5);
            if loss <= self.granted + TOLERANCE {
                let carried = self.size * trial.rate / rate.max(1.0);
                self.size = carried.clamp(self.size, fits.max(self.size));
            }
        } else {
            self.granted = loss.min(MAX_GRANTED);
            self.size = trial.size.min(self.max as f64);
        }
    }

    fn restart(&mut self, now: Instant) {
        (self.received, self.lost, self.since) = (0, 0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `capacity` channels with random loss, for `seconds`; gives the mean window of the last third.
    fn simulate(capacity: f64, own_loss: f64, start: usize, seconds: u64) -> f64 {
        let begin = Instant::now();
        let mut window = Window::new(start, 128, begin);
        let (mut sizes, mut blocks, mut carry) = (Vec::new(), 0.0, 0.0);
        for step in 0..seconds * 100 {
            let now = begin + Duration::from_millis(step * 10);
            let size = window.size() as f64;
            // 2,272 packets a second and channel
            let offered = size * 22.72;
            let arriving = offered.min(capacity * 22.72) * (1.0 - own_loss);
            carry += offered - arriving;
            for n in 0..arriving as u64 {
                let lost = if n == 0 { carry as u64 } else { 0 };
                window.on_packet(lost);
            }
            carry -= carry.floor();
            blocks += arriving / 256.0;
            while blocks >= 1.0 {
                window.on_block();
                blocks -= 1.0;
            }
            window.on_tick(now);
            if step > seconds * 66 {
                sizes.push(size);
            }
        }
        sizes.iter().sum::<f64>() / sizes.len() as f64
    }

    #[test]
    fn a_clean_fast_link_is_filled() {
        assert!(simulate(1e9, 0.0, 8, 5) > 120.0);
    }

    #[test]
    fn a_full_link_is_left_some_air() {
        for capacity in [5.0, 20.0, 50.0] {
            let mean = simulate(capacity, 0.0, 16, 60);
            assert!(
                mean > capacity * 0.75 && mean < capacity * 1.25 + 1.0,
                "{mean} of {capacity}"
            );
        }
    }

    #[test]
    fn a_link_slower_than_one_channel_gets_one_channel() {
        assert!(simulate(0.5, 0.0, 16, 30) < 1.5);
    }

    #[test]
    fn random_loss_is_no_reason_to_slow_down() {
        assert!(simulate(1e9, 0.05, 8, 10) > 120.0);
        assert!(simulate(1e9, 0.20, 8, 30) > 100.0);
    }

    #[test]
    fn random_loss_on_a_full_link_is_told_apart() {
        let mean = simulate(20.0, 0.15, 16, 60);
        assert!(mean > 12.0 && mean < 30.0, "{mean}");
    }
}
