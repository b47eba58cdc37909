//! How many channels a receiver holds: additive increase, multiplicative decrease, by its own loss.
//!
//! Each channel has a fixed rate, so the number of channels is the receiver's rate. Loss alone does not tell a
//! full link from a bad one. So the window is made smaller on trial: if no less arrives then, or the loss is gone, the
//! link was full; if what arrives shrinks as the window does, the loss is the link's own, and from then on taken for
//! granted.
//!
//! Sizes are counted in channels of the normal rate. Where that is too coarse, on slow links, channels of the slow
//! layer are held, each a small `unit` of one.

use std::time::{Duration, Instant};

/// How long loss is measured before anything is concluded.
const INTERVAL: Duration = Duration::from_millis(300);
/// More than half being lost, of a window that grew fast, is believed after so long.
const FLOOD: Duration = Duration::from_millis(100);
/// Fewer packets than this tell nothing.
const ENOUGH: u64 = 64;
/// Loss that is let pass, above that taken for granted: what a code repairs for free while the link is full.
const TOLERANCE: f64 = 0.08;
/// If what arrives falls by less than this share of what the window falls by, the link was full.
const STILL_FULL: f64 = 0.4;
/// Loss that would differ by this much tells more than the rate.
const TELLING: f64 = 0.17;
/// Of the loss before, to count as the same.
const SAME: f64 = 0.8;
/// Loss beyond this is never taken for granted.
const MAX_GRANTED: f64 = 0.5;
/// A window that is known to fit is made this much smaller on trial.
const SMALL_STEP: f64 = 0.9;
/// Beyond what fitted last the window grows slowly.
const CAREFUL: f64 = 0.25;
/// Each block of the beginning lets in so many more: a round of blocks takes long beside a round trip.
const START_STEP: f64 = 2.0;
/// Channels of the slow layer are held below this size, and no more above that one.
const SLOW_BELOW: f64 = 3.0;
const FAST_ABOVE: f64 = 6.0;
/// Channels held at once, of whatever layer.
const MAX_CHANNELS: usize = 128;

/// The window.
#[derive(Debug, Clone)]
pub struct Window {
    size: f64,
    max: f64,
    /// What one channel counts on the slow layer; 1 if there is none.
    slow_unit: f64,
    /// Packets per second of a channel of the normal rate.
    packet_rate: f64,
    /// The server says that it cannot send all that is asked for.
    server_full: bool,
    slow: bool,
    /// Tripling with every round of blocks until the first decrease.
    slow_start: bool,
    /// It lost most of what it grew by: halved until it does not.
    falling: bool,
    received: u64,
    lost: u64,
    since: Instant,
    granted: f64,
    loss: f64,
    /// What the link was last found to carry.
    ceiling: Option<f64>,
    trial: Option<Trial>,
    /// Intervals to let pass until a change of the window shows.
    settle: u8,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    size: f64,
    rate: f64,
    loss: f64,
}

impl Window {
    /// A window of `start` channels that grows up to `max`.
    #[must_use]
    pub fn new(start: usize, max: usize, now: Instant) -> Self {
        let max = max.max(1);
        Self {
            size: start.clamp(1, max) as f64,
            max: max as f64,
            slow_unit: 1.0,
            packet_rate: f64::INFINITY,
            server_full: false,
            slow: false,
            slow_start: true,
            falling: false,
            received: 0,
            lost: 0,
            since: now,
            granted: 0.0,
            loss: 0.0,
            ceiling: None,
            trial: None,
            settle: 0,
        }
    }

    /// Channels that may be held now, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        let channels = self.size.min(self.max) / self.unit();
        // half a channel too many is lost and repaired, half a channel too few is not used
        (channels.round() as usize).clamp(1, MAX_CHANNELS)
    }

    /// Whether these are channels of the slow layer.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Loss of the last interval, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// A new upper bound, packets per second of a channel, and what one of the slow layer has of that, if there are
    /// such.
    pub fn set_bounds(&mut self, max: f64, packet_rate: f64, slow_unit: Option<f64>) {
        self.packet_rate = packet_rate.max(1.0);
        self.slow_unit = slow_unit.unwrap_or(1.0).clamp(0.01, 1.0);
        self.max = max.max(self.slow_unit);
        self.choose_layer();
    }

    /// Whether the server has more to send than it can.
    pub fn set_server_full(&mut self, full: bool) {
        self.server_full = full;
    }

    /// A packet came, and `lost` before it did not.
    pub fn on_packet(&mut self, lost: u64) {
        self.received += 1;
        self.lost += lost;
    }

    /// A block is complete: the moment to grow.
    pub fn on_block(&mut self) {
        if self.trial.is_some() || self.settle > 0 || self.size >= self.max {
            return;
        }
        let unit = self.unit();
        let step = match self.ceiling {
            _ if self.slow_start => START_STEP * unit,
            Some(ceiling) if self.size >= ceiling => CAREFUL * unit * unit / self.size,
            _ => unit * unit / self.size,
        };
        self.size = (self.size + step).min(self.max);
        if self.ceiling.is_some_and(|c| self.size > c * 1.5) {
            self.ceiling = None;
        }
        self.choose_layer();
    }

    /// Draws conclusions when it is time to.
    pub fn on_tick(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let total = self.received + self.lost;
        let flood = (self.slow_start || self.falling)
            && elapsed >= FLOOD
            && self.lost as f64 > MAX_GRANTED * total as f64;
        if (elapsed < INTERVAL && !flood) || total < ENOUGH {
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
            None if flood => {
                // far too much at once; how much the link carries is found out below
                (self.slow_start, self.falling) = (false, true);
                self.size = (self.size.min(self.max) / 2.0).max(self.slow_unit);
                self.settle = 1;
            }
            None if std::mem::take(&mut self.falling) => {}
            None if loss > self.granted + TOLERANCE && self.size > self.slow_unit => {
                // what a window has lost that was growing says little
                if std::mem::take(&mut self.slow_start) && self.server_full {
                    return;
                }
                self.begin_trial(rate, loss);
            }
            None => self.granted = self.granted.min(loss + TOLERANCE),
        }
        self.choose_layer();
    }

    fn begin_trial(&mut self, rate: f64, loss: f64) {
        self.size = self.size.min(self.max);
        self.trial = Some(Trial {
            size: self.size,
            rate,
            loss,
        });
        let known = self.ceiling.filter(|c| *c > self.size / 2.0);
        let smaller = known.map_or(self.size / 2.0, |c| c.min(self.size) * SMALL_STEP);
        self.size = smaller.max(self.slow_unit);
        self.settle = 1;
    }

    fn conclude(&mut self, trial: Trial, rate: f64, loss: f64) {
        let (kept, shrunk) = (rate / trial.rate.max(1.0), self.size / trial.size);
        let excess = |loss: f64| (loss - self.granted).max(0.0);
        let gone = excess(loss) < 0.3 * excess(trial.loss);
        // a full link loses less of less; one that loses on its own the same, even where what arrives stays the same
        // because the server sends no faster than either window allows
        let if_full = (1.0 - (1.0 - trial.loss) / shrunk).max(0.0);
        let telling = if_full == 0.0 || trial.loss - if_full > TELLING;
        let own = self.server_full && telling && loss > trial.loss * SAME;
        let full = gone || (kept >= 1.0 - (1.0 - shrunk) * STILL_FULL && !own);
        if full {
            // the link was full: what it carried fits, with its own loss
            let exact = loss <= self.granted + TOLERANCE;
            let carried = if exact {
                self.size * trial.rate / rate.max(1.0)
            } else {
                // where nearly everything is lost, only what arrives tells how much it was
                rate.max(trial.rate) / self.packet_rate / (1.0 - self.granted)
            };
            self.size = carried.clamp(self.slow_unit, trial.size);
            self.ceiling = Some(self.size);
            self.settle = 1;
        } else {
            self.granted = loss.min(MAX_GRANTED);
            self.size = trial.size;
        }
    }

    fn choose_layer(&mut self) {
        let size = self.size.min(self.max);
        self.slow = self.slow_unit < 1.0 && size < if self.slow { FAST_ABOVE } else { SLOW_BELOW };
    }

    fn unit(&self) -> f64 {
        if self.slow { self.slow_unit } else { 1.0 }
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
        simulate_layers(capacity, own_loss, start, None, seconds)
    }

    fn simulate_layers(
        capacity: f64,
        own_loss: f64,
        start: usize,
        slow: Option<f64>,
        seconds: u64,
    ) -> f64 {
        let begin = Instant::now();
        let mut window = Window::new(start, 128, begin);
        window.set_bounds(128.0, 2_272.0, slow);
        let (mut sizes, mut blocks, mut carry, mut ready) = (Vec::new(), 0.0, 0.0, 0.0);
        for step in 0..seconds * 100 {
            let now = begin + Duration::from_millis(step * 10);
            let size = window.size() as f64 * window.unit();
            // 2,272 packets a second and channel
            let offered = size * 22.72;
            let arriving = offered.min(capacity * 22.72) * (1.0 - own_loss);
            carry += offered - arriving;
            ready += arriving;
            if ready >= 1.0 {
                window.on_packet(carry as u64);
                carry -= carry.floor();
                ready -= 1.0;
            }
            while ready >= 1.0 {
                window.on_packet(0);
                ready -= 1.0;
            }
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
    fn a_slow_link_is_filled_by_channels_of_the_slow_layer() {
        for capacity in [0.5, 1.0, 2.0] {
            let mean = simulate_layers(capacity, 0.0, 32, Some(0.1), 60);
            assert!(
                mean > capacity * 0.85 && mean < capacity * 1.2,
                "{mean} of {capacity}"
            );
        }
        let mean = simulate_layers(20.0, 0.0, 32, Some(0.1), 60);
        assert!(mean > 15.0 && mean < 25.0, "{mean}");
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
