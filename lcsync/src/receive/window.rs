//! Number of channels of a receiver: additive increase, multiplicative decrease, by its own loss.
//!
//! Each channel has a fixed rate, so their number is the receiver's rate. A full link and a lossy
//! one both lose packets, so the window shrinks on trial. If no fewer packets arrive then, or the
//! loss ends, the link was full. If arrivals shrink, too, the loss is the link's own, and granted.
//!
//! Sizes are in channels of the normal rate. On slow links, where that is too coarse, channels of
//! the slow layer are held, each a small `unit` of one.

use librecast::time::{Duration, Instant};

use crate::stretch::STRETCH;

/// Interval of judging loss and rate. Chosen: 30 packets of a slow channel.
const INTERVAL: Duration = Duration::from_millis(300);
/// The same at the start, without loss and after [`MIN_FAST_PACKETS`]. Chosen.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
/// The same at the start, with loss or fewer packets. Chosen.
const LOSSY_INTERVAL: Duration = Duration::from_millis(150);
/// Time after which a fast grown window that loses more than half is cut. Chosen.
const OVERLOAD_INTERVAL: Duration = Duration::from_millis(30);
/// Packets that an early judgement needs. Chosen.
const MIN_FAST_PACKETS: u64 = 500;
/// Largest divisor of that cut: two cuts reach the capacity of a 5 Mbit/s link. Chosen.
const MAX_CUT: f64 = 16.0;
/// Silence that restarts an interval: pauses between blocks would hide the link's capacity.
const SILENCE: Duration = Duration::from_millis(30);
/// Divisor of packets: an interval that loses fewer counts as lossless.
const LOSSLESS: u64 = 50;
/// Packets that any judgement needs. Chosen.
const MIN_PACKETS: u64 = 64;
/// Loss above the granted one that changes nothing, as repair is free on a full link. Chosen.
const TOLERANCE: f64 = 0.08;
/// Growth factor of the rate in a trial from which on the link had room.
const MIN_GAIN: f64 = 1.15;
/// Share of the window's fall: if the rate falls by less, the link was full.
const FULL_SHARE: f64 = 0.4;
/// Difference in loss between a full and a lossy link from which on loss decides a trial.
const LOSS_DIFFERENCE: f64 = 0.17;
/// Intervals without judgement after an undecided trial.
const UNDECIDED_PAUSE: u8 = 3;
/// Most loss that is granted to the link.
const MAX_GRANTED: f64 = 0.5;
/// Factor by which a trial shrinks the window, besides its loss.
const TRIAL_STEP: f64 = 0.95;
/// Factor of the least step of a trial, and of one below a window that is known to fit.
const SMALL_STEP: f64 = 0.9;
/// Factor of the largest step of a trial.
const LARGE_STEP: f64 = 0.5;
/// Share of the rate of a full link from which on it is full again.
const FULL_RATE: f64 = 0.85;
/// Channels held for each that a full link carries: some have ended, or not begun.
const HEADROOM: f64 = 1.15;
/// Share of the usual growth beyond the window that last filled the link.
const CAUTIOUS_GROWTH: f64 = 0.25;
/// Used share of a lossless window from which on it grows, at the start.
const BUSY: f64 = 0.6;
/// Factor of that growth.
const START_STEP: f64 = 3.0;
/// Growth of a window for each lossless interval in a row, and at most: a path that has become
/// wider is filled within seconds, and a full one loses a few percent before it is noticed. Chosen.
const PROBE_STEP: f64 = 0.01;
const MAX_PROBE: f64 = 0.1;
/// Size below which channels of the slow layer are held.
const SLOW_BELOW: f64 = 3.0;
/// Size above which channels of the normal rate are held again.
const FAST_ABOVE: f64 = 6.0;
/// The same two as parts of what the server sends at once, if that is less: receivers that take
/// most of it share one layer, and so one copy. Chosen.
const SLOW_BELOW_PART: f64 = 0.4;
const FAST_ABOVE_PART: f64 = 0.7;
/// Divisor of packets: stretches are joined if the last interval lost fewer.
const LOSSLESS_FOR_STRETCHES: f64 = 256.0;

/// Time within which losses may have one cause, as a burst. Chosen: longer than a channel's turn.
const BATCH: Duration = Duration::from_millis(10);

/// Variance of loss, for the error of an interval's loss. Losses come in bursts, so it counts them
/// in batches of time (method of batch means).
#[derive(Debug, Clone, Copy)]
struct Unevenness {
    batch: Instant,
    lost: u64,
    batches: f64,
    sum: f64,
    squares: f64,
}

impl Unevenness {
    fn new(now: Instant) -> Self {
        Self {
            batch: now,
            lost: 0,
            batches: 0.0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    /// Counts `lost` packets now.
    fn count(&mut self, lost: u64, now: Instant) {
        // few rounds, as a silence restarts the interval
        while now.saturating_duration_since(self.batch) >= BATCH {
            let lost = std::mem::take(&mut self.lost) as f64;
            self.batches += 1.0;
            self.sum += lost;
            self.squares += lost * lost;
            self.batch += BATCH;
        }
        self.lost += lost;
    }

    /// Returns the standard error of the number of lost packets.
    fn error(&self) -> f64 {
        if self.batches < 2.0 {
            return 0.0;
        }
        let spread = self.squares - self.sum * self.sum / self.batches;
        (spread.max(0.0) * self.batches / (self.batches - 1.0)).sqrt()
    }
}

/// Number of channels of a receiver, from its loss and rate.
#[derive(Debug, Clone)]
pub struct Window {
    size: f64,
    max: f64,
    /// The first size.
    start: f64,
    /// Size of one channel of the slow layer; 1 if there is none.
    slow_unit: f64,
    /// Packets per second of a channel of the normal rate.
    packet_rate: f64,
    /// Channels that the server can send at once, if it has more to send.
    server_full: Option<f64>,
    slow: bool,
    /// Growing fast until the link is found to be full.
    starting: bool,
    /// It lost most of its growth: cut until it does not.
    falling: bool,
    received: u64,
    lost: u64,
    unevenness: Unevenness,
    since: Instant,
    last: Instant,
    granted: f64,
    loss: f64,
    /// The window that last filled the link.
    ceiling: Option<f64>,
    /// Packets per second that came when it was full.
    full_rate: Option<f64>,
    trial: Option<Trial>,
    /// Whether a trial was made.
    tried: bool,
    /// Intervals until a change of the window takes effect.
    settle: u8,
    /// Lossless intervals in a row.
    lossless: u8,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    size: f64,
    rate: f64,
    loss: f64,
}

impl Window {
    /// Makes a window of `start` channels that grows up to `max`.
    #[must_use]
    pub fn new(start: usize, max: usize, now: Instant) -> Self {
        let max = max.max(1);
        Self {
            size: start.clamp(1, max) as f64,
            max: max as f64,
            start: start.clamp(1, max) as f64,
            slow_unit: 1.0,
            packet_rate: f64::INFINITY,
            server_full: None,
            slow: false,
            starting: true,
            falling: false,
            received: 0,
            lost: 0,
            unevenness: Unevenness::new(now),
            since: now,
            last: now,
            granted: 0.0,
            loss: 0.0,
            ceiling: None,
            full_rate: None,
            trial: None,
            tried: false,
            settle: 0,
            lossless: 0,
        }
    }

    /// Channels that may be held now, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        let channels = self.size.min(self.max) / self.unit();
        // half a channel too many is repaired, half a channel too few is unused
        (channels.round() as usize).max(1)
    }

    /// Channels that may be held if other receivers have joined them. They cost the server nothing,
    /// and without loss they show sooner how many fit.
    #[must_use]
    pub fn size_of_shared(&self) -> usize {
        // not after a trial that did not show own loss of the link
        let fits = !self.tried || self.granted > 0.0;
        let ahead = if self.starting && self.trial.is_none() && fits {
            START_STEP
        } else {
            1.0
        };
        let most = (self.max / self.unit()).max(1.0);
        (self.size() as f64 * ahead).min(most) as usize
    }

    /// Whether these are channels of the slow layer.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Whether this number of stretches has room, and the link is lossless.
    #[must_use]
    pub fn suits_stretches(&self, count: usize) -> bool {
        let lossless = self.granted == 0.0 && self.loss * LOSSLESS_FOR_STRETCHES < 1.0;
        let most = self.server_full.unwrap_or(self.size);
        lossless && self.size.min(most) >= (count * STRETCH) as f64
    }

    /// Loss of the last interval, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// Sets upper bound, packets per second of a channel, and the share of a slow one, if any.
    pub fn set_bounds(&mut self, max: f64, packet_rate: f64, slow_unit: Option<f64>) {
        self.packet_rate = packet_rate.max(1.0);
        self.slow_unit = slow_unit.unwrap_or(1.0).clamp(0.01, 1.0);
        self.max = max.max(self.slow_unit);
        self.choose_layer();
    }

    /// Sets the channels that the server can send at once, if it has more to send. Twice as many
    /// may be held then, so that one always comes next.
    pub fn set_server_full(&mut self, channels: Option<f64>) {
        self.server_full = channels;
        // a trial that is enlarged shows nothing
        if let (true, None, Some(channels)) = (self.starting, &self.trial, channels) {
            let twice = 2.0 * channels.min(self.start) + 2.0;
            self.size = self.size.max(twice).min(self.max);
        }
    }

    /// Counts a packet, and `lost` missing ones before it. Returns whether to judge at once.
    pub fn on_packet(&mut self, lost: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.last) > SILENCE {
            self.restart(now);
        }
        self.last = now;
        self.received += 1;
        self.lost += lost;
        self.unevenness.count(lost, now);
        self.is_flood(now)
    }

    /// Counts an overtaken packet, which counted as lost.
    pub fn on_overtaken(&mut self, now: Instant) {
        self.on_packet(0, now);
        self.lost = self.lost.saturating_sub(1);
        self.unevenness.lost = self.unevenness.lost.saturating_sub(1);
    }

    fn is_flood(&self, now: Instant) -> bool {
        (self.starting || self.falling)
            && self.settle == 0
            && self.lost > self.received
            && self.received + self.lost >= MIN_FAST_PACKETS
            && now.saturating_duration_since(self.since) >= OVERLOAD_INTERVAL
    }

    /// Grows, after a whole block.
    pub fn on_block(&mut self) {
        if self.trial.is_some() || self.settle > 0 || self.size >= self.max {
            return;
        }
        let unit = self.unit();
        let step = match self.ceiling {
            Some(ceiling) if self.size >= ceiling => CAUTIOUS_GROWTH * unit * unit / self.size,
            _ => unit * unit / self.size,
        };
        self.size = (self.size + step).min(self.max);
        if self.ceiling.is_some_and(|c| self.size > c * 1.5) {
            self.ceiling = None;
        }
        self.choose_layer();
    }

    /// Judges loss and rate when an interval is over.
    pub fn on_tick(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let total = self.received + self.lost;
        let flood = self.is_flood(now);
        let calm = self.trial.is_none() && self.lost * LOSSLESS < total;
        let interval = match self.is_new() {
            true if calm && total >= MIN_FAST_PACKETS => FIRST_INTERVAL,
            true => LOSSY_INTERVAL,
            false => INTERVAL,
        };
        if (elapsed < interval && !flood) || total < MIN_PACKETS {
            // silence is not an interval
            if elapsed > INTERVAL * 10 {
                self.restart(now);
            }
            return;
        }
        let rate = self.received as f64 / elapsed.as_secs_f64();
        let loss = self.lost as f64 / total as f64;
        let error = self.unevenness.error() / total as f64;
        self.loss = loss;
        self.restart(now);
        let is_lossless = loss * LOSSLESS as f64 <= 1.0 + self.granted * LOSSLESS as f64;
        self.lossless = match is_lossless && self.trial.is_none() {
            true => self.lossless.saturating_add(1),
            false => 0,
        };
        if self.settle > 0 {
            self.settle -= 1;
            return;
        }
        match self.trial.take() {
            Some(trial) => self.judge(trial, rate, (loss, error)),
            None if flood => {
                // far too much at once: the arriving rate is the link's capacity
                (self.starting, self.falling) = (false, true);
                // but a receiver without a processor for a moment has a higher one
                let least = (self.size / MAX_CUT).max(self.slow_unit);
                self.size = self.filling(rate).clamp(least, self.size.max(least));
                self.full_rate = Some(rate);
                self.settle = 1;
            }
            None if std::mem::take(&mut self.falling) => {}
            None if loss > self.granted + TOLERANCE && self.size > self.slow_unit => {
                if self.full_rate.is_some_and(|full| rate > full * FULL_RATE) {
                    let excess = loss - self.granted - TOLERANCE / 2.0;
                    self.size = (self.size * (1.0 - excess)).max(self.slow_unit);
                    self.ceiling = Some(self.size);
                    (self.full_rate, self.settle) = (Some(rate), 1);
                } else {
                    self.begin_trial(rate, loss);
                }
            }
            None => {
                self.granted = self.granted.min(loss + TOLERANCE);
                let sent = self.server_full.unwrap_or(f64::INFINITY).min(self.size);
                if self.carrying(rate) > sent * BUSY {
                    let step = match self.starting {
                        true => START_STEP,
                        // all that the server sends is enough, also if others asked for it
                        false if self.server_full.is_some_and(|full| self.size >= full) => 1.0,
                        false => 1.0 + (PROBE_STEP * f64::from(self.lossless)).min(MAX_PROBE),
                    };
                    self.size = (self.size * step).min(self.max);
                }
            }
        }
        self.choose_layer();
        debug_assert!(
            self.size.is_finite() && self.size > 0.0,
            "a window of {}",
            self.size
        );
        debug_assert!(
            (0.0..1.0).contains(&self.granted),
            "granted loss of {}",
            self.granted
        );
    }

    /// Whether nothing is known yet.
    fn is_new(&self) -> bool {
        self.starting && self.server_full.is_none()
    }

    /// Channels that bring this number of packets per second.
    fn carrying(&self, rate: f64) -> f64 {
        rate / self.packet_rate / (1.0 - self.granted)
    }

    /// Channels that fill a link of this rate: some have ended, or not begun.
    fn filling(&self, rate: f64) -> f64 {
        self.carrying(rate) * HEADROOM
    }

    fn begin_trial(&mut self, rate: f64, loss: f64) {
        self.size = self.size.min(self.max);
        self.trial = Some(Trial {
            size: self.size,
            rate,
            loss,
        });
        let known = self.ceiling.filter(|c| *c > self.size / 2.0);
        let step = ((1.0 - loss + self.granted) * TRIAL_STEP).clamp(LARGE_STEP, SMALL_STEP);
        let smaller = known.map_or(self.size * step, |c| c.min(self.size) * SMALL_STEP);
        self.size = smaller.max(self.slow_unit);
        (self.tried, self.settle) = (true, 1);
        tracing::debug!(
            "a trial: {loss:.3} of {rate:.0}/s lost, {:.1} channels",
            self.size
        );
    }

    fn judge(&mut self, trial: Trial, rate: f64, (loss, error): (f64, f64)) {
        let (kept, shrunk) = (rate / trial.rate.max(1.0), self.size / trial.size);
        let excess = |loss: f64| (loss - self.granted).max(0.0);
        let gone = excess(loss + error) < 0.3 * excess(trial.loss);
        // with a smaller window, a full link loses less; a lossy one loses the same, even if
        // arrivals stay equal, as the server sends no faster than either window allows
        let if_full = (1.0 - (1.0 - trial.loss) / shrunk).max(0.0);
        let telling = if_full == 0.0 || trial.loss - if_full > LOSS_DIFFERENCE;
        let same = telling && loss + error > f64::midpoint(if_full, trial.loss);
        let as_much = kept >= 1.0 - (1.0 - shrunk) * FULL_SHARE;
        let full = gone || loss > MAX_GRANTED || (as_much && !same && kept < MIN_GAIN);
        if full {
            let carried = rate.max(trial.rate);
            self.size = self.filling(carried).clamp(self.slow_unit, trial.size);
            // the first estimate is too small
            self.ceiling = (!self.starting).then_some(self.size);
            self.full_rate = Some(carried);
            (self.starting, self.settle) = (false, 1);
        } else {
            self.size = trial.size;
            // without fewer sent packets, nothing is shown, unless the server is full
            let told = !as_much || self.server_full.is_some();
            if told && loss < trial.loss + TOLERANCE {
                self.granted = loss.min(MAX_GRANTED);
            } else {
                self.settle = UNDECIDED_PAUSE;
            }
        }
        tracing::debug!(
            "tried: {loss:.3} of {rate:.0}/s lost; full {full}, {:.3} is the link's own, {:.1} channels",
            self.granted,
            self.size
        );
    }

    fn choose_layer(&mut self) {
        let size = self.size.min(self.max);
        let (least, part) = match self.slow {
            true => (FAST_ABOVE, FAST_ABOVE_PART),
            false => (SLOW_BELOW, SLOW_BELOW_PART),
        };
        let least = self
            .server_full
            .map_or(least, |full| least.min(full * part));
        self.slow = self.slow_unit < 1.0 && size < least;
    }

    fn unit(&self) -> f64 {
        if self.slow { self.slow_unit } else { 1.0 }
    }

    fn restart(&mut self, now: Instant) {
        (self.received, self.lost, self.since) = (0, 0, now);
        self.unevenness = Unevenness::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `capacity` channels with random loss, for `seconds`; returns the last mean window.
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
                window.on_packet(carry as u64, now);
                carry -= carry.floor();
                ready -= 1.0;
            }
            while ready >= 1.0 {
                window.on_packet(0, now);
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
    fn a_server_that_turns_out_to_be_full_changes_no_trial() {
        let begin = Instant::now();
        let mut window = Window::new(16, 128, begin);
        window.set_bounds(128.0, 2_272.0, None);
        // each receiver's link loses a fifth; the server sends more to it in the end than before
        for step in 0..250 {
            let now = begin + Duration::from_millis(10) * step;
            window.set_server_full(Some(13.0));
            for n in 0..if step < 60 { 120 } else { 150 } {
                window.on_packet(u64::from(n % 4 == 3), now);
            }
            window.on_tick(now);
        }
        assert!(window.tried && window.granted > 0.15, "{window:?}");
    }

    #[test]
    fn random_loss_on_a_full_link_is_told_apart() {
        let mean = simulate(20.0, 0.15, 16, 60);
        assert!(mean > 12.0 && mean < 30.0, "{mean}");
    }
}
