//! How much may be under way: a window steered by queueing delay, fit for live traffic.
//!
//! ```text
//! start --delay over half the target, or loss over 30 %--> steer --low delay for long--> start
//!   window grows by what arrives         window follows (target - delay) / target
//! ```
//!
//! - Loss alone changes nothing below 30 %: a radio link that loses packets keeps its rate. Loss
//!   together with delay is a full queue, and answered at once.
//! - A window is never cut below what demonstrably arrives: delivered rate x (base round trip + half
//!   the target). So a wrong guess, such as a process that slept, costs little.
//! - If the delay stays although we have made room, somebody else fills the queue (TCP): then we
//!   compete, with a higher target, additive increase and a cut at loss, until the queue is seen empty.
//!
//! Delay is one way, arrival minus sending on two clocks, less the smallest of the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::feedback::{Report, micros};

/// Queueing delay that is aimed at, and that while competing, in microseconds.
const TARGET: i64 = 20_000;
const COMPETING_TARGET: i64 = 80_000;
/// Loss that is answered without any delay: the bottleneck has no queue to speak of.
const HEAVY_LOSS: f64 = 0.3;
/// Loss that together with delay says that a queue is full.
const QUEUE_LOSS: f64 = 0.02;
/// Window in bytes: at first, at least, at most.
const FIRST: f64 = 65_536.0;
const LEAST: f64 = 10_240.0;
const MOST: f64 = 67_108_864.0;
/// Most packets under way.
const MAX_PACKETS: usize = 65_000;
/// What the window grows by in a round trip besides.
const STEP: f64 = 1_200.0;
/// Most of the window that is given or taken in a round trip.
const GAIN: f64 = 0.5;
/// Without any feedback for so long (or four round trips) what is under way counts as lost.
const SILENCE: Duration = Duration::from_millis(250);
/// A round is a round trip, but at least this many microseconds.
const LEAST_ROUND: i64 = 20_000;
/// Rounds of high delay after which others are to blame; of low delay, after which we start anew.
const HIGH_ROUNDS: u32 = 6;
const LOW_ROUNDS: u32 = 3;
/// The smallest delay is that of so many spans of so long.
const SPANS: usize = 6;
const SPAN: Duration = Duration::from_secs(10);

/// A packet under way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u32,
    bytes: u16,
}

/// The sender's side of one direction of a link.
#[derive(Debug)]
pub(crate) struct Controller {
    began: Instant,
    window: f64,
    starting: bool,
    competing: bool,
    /// Packets under way from index `first` on, and their bytes.
    under_way: VecDeque<Sent>,
    first: u64,
    bytes: u64,
    /// Bytes since the last packet that asked for a report.
    unmarked: u64,
    /// Somebody had to wait since the last report.
    blocked: bool,
    progress: Instant,
    highest: Option<u64>,
    received: u64,
    srtt: Option<i64>,
    base: BaseDelay,
    delay: i64,
    rate: f64,
    loss: Option<f64>,
    round: Round,
    high_rounds: u32,
    low_rounds: u32,
}

/// What happened in about a round trip.
#[derive(Debug, Default)]
struct Round {
    /// Receiver's clock.
    since: Option<u32>,
    delivered: f64,
    expected: u64,
    received: u64,
    least_delay: Option<i64>,
    limited: bool,
    cut: bool,
}

/// The smallest one-way delay of the last minute: clocks drift, routes change.
#[derive(Debug, Default)]
struct BaseDelay {
    /// The first value seen: all others are counted from it, so that clocks may wrap.
    origin: Option<u32>,
    spans: VecDeque<(Instant, i64)>,
}

impl BaseDelay {
    /// Queueing delay of a packet that took `delay` by the two clocks.
    fn queueing(&mut self, delay: u32, now: Instant) -> i64 {
        let origin = *self.origin.get_or_insert(delay);
        let value = i64::from(delay.wrapping_sub(origin).cast_signed());
        match self.spans.back_mut() {
            Some((since, least)) if now < *since + SPAN => *least = value.min(*least),
            _ => {
                self.spans.push_back((now, value));
                if self.spans.len() > SPANS {
                    self.spans.pop_front();
                }
            }
        }
        value - self.spans.iter().map(|s| s.1).min().unwrap_or(value)
    }
}

impl Controller {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            window: FIRST,
            starting: true,
            competing: false,
            under_way: VecDeque::new(),
            first: 0,
            bytes: 0,
            unmarked: 0,
            blocked: false,
            progress: now,
            highest: None,
            received: 0,
            srtt: None,
            base: BaseDelay::default(),
            delay: 0,
            rate: 0.0,
            loss: None,
            round: Round::default(),
            high_rounds: 0,
            low_rounds: 0,
        }
    }

    /// Whether another packet may go out, besides `pending` bytes that are about to.
    pub(crate) fn is_open(&mut self, pending: usize) -> bool {
        let open = ((self.bytes + pending as u64) as f64) < self.window
            && self.under_way.len() < MAX_PACKETS;
        self.blocked |= !open;
        open
    }

    /// A packet goes out; indices count up by one.
    pub(crate) fn sent(&mut self, index: u64, bytes: usize, now: Instant) {
        if self.under_way.is_empty() {
            self.first = index;
            self.progress = now;
        }
        let at = micros(now, self.began);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.under_way.push_back(Sent { at, bytes });
        self.bytes += u64::from(bytes);
    }

    /// Whether the packet that goes out next, of about `bytes`, should ask for a report: four times in
    /// a window, so that a short one does not wait for the receiver's timer.
    pub(crate) fn wants_report(&mut self, bytes: usize) -> bool {
        self.unmarked += bytes as u64;
        let wants = self.unmarked as f64 * 4.0 >= self.window;
        if wants {
            self.unmarked = 0;
        }
        wants
    }

    /// The path is another one: its delay has nothing to do with that of the old.
    pub(crate) fn path_changed(&mut self) {
        self.base = BaseDelay::default();
        self.round = Round::default();
        (self.starting, self.competing) = (true, false);
    }

    /// Round trip, smoothed.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let srtt = u64::try_from(self.srtt?).ok()?;
        Some(Duration::from_micros(srtt))
    }

    /// Share of packets that do not arrive, smoothed over about a second.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.loss.map(|loss| loss.max(0.0))
    }

    /// Bytes a second that arrive, of the last round.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.under_way.is_empty()).then(|| self.progress + self.silence())
    }

    /// Gives up on feedback for what is under way, if none has come for long; whether it did.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| now < at) {
            return false;
        }
        self.under_way.clear();
        self.bytes = 0;
        self.progress = now;
        self.window = (self.window / 2.0).max(LEAST);
        self.starting = true;
        self.round = Round::default();
        true
    }

    fn silence(&self) -> Duration {
        self.rtt().map_or(SILENCE, |rtt| SILENCE.max(rtt * 4))
    }

    /// A report of the far side; false if it cannot be true.
    pub(crate) fn handle(&mut self, report: &Report, next: u64, now: Instant) -> bool {
        if report.highest >= next || report.received > report.highest.saturating_add(1) {
            return false;
        }
        let known = self.highest.map_or(0, |highest| highest + 1);
        if report.highest + 1 < known || report.received < self.received {
            // overtaken by a later one
            return true;
        }
        let delay = self.handle_samples(report, now);
        let limited = std::mem::take(&mut self.blocked) || self.bytes as f64 * 2.0 >= self.window;
        let passed = self.pass(report.highest) as f64;
        let expected = report.highest + 1 - known;
        let received = report.received - self.received;
        self.highest = Some(report.highest);
        self.received = report.received;
        self.progress = now;
        let share = if expected == 0 {
            0.0
        } else {
            received as f64 / expected as f64
        };
        let round = &mut self.round;
        round.delivered += passed * share;
        round.expected += expected;
        round.received += received;
        round.limited |= limited;
        if let Some(delay) = delay {
            self.delay = delay;
            round.least_delay = Some(round.least_delay.map_or(delay, |d| d.min(delay)));
            self.steer(delay, passed, limited, report.time);
        }
        self.end_round(report.time);
        true
    }

    /// The least queueing delay of the packets that a report tells of.
    fn handle_samples(&mut self, report: &Report, now: Instant) -> Option<i64> {
        let mut least = None;
        for (n, sample) in report.samples.iter().enumerate() {
            let Some(sent) = self.sent_at(sample.index) else {
                continue;
            };
            let arrived = report.time.wrapping_sub(sample.age);
            let queueing = self.base.queueing(arrived.wrapping_sub(sent), now);
            least = Some(least.map_or(queueing, |l: i64| l.min(queueing)));
            if n == 0 {
                let trip = i64::from(micros(now, self.began).wrapping_sub(sent));
                let trip = (trip - i64::from(sample.age)).max(0);
                self.srtt = Some(self.srtt.map_or(trip, |srtt| (srtt * 7 + trip) / 8));
            }
        }
        least
    }

    fn sent_at(&self, index: u64) -> Option<u32> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.under_way.get(at).map(|sent| sent.at)
    }

    /// Takes away what is under way up to `highest`; its bytes.
    fn pass(&mut self, highest: u64) -> u64 {
        let before = self.bytes;
        while self.first <= highest
            && let Some(sent) = self.under_way.pop_front()
        {
            self.bytes -= u64::from(sent.bytes);
            self.first += 1;
        }
        before - self.bytes
    }

    fn target(&self) -> i64 {
        if self.competing {
            COMPETING_TARGET
        } else {
            TARGET
        }
    }

    /// Moves the window, `passed` bytes having left the path.
    fn steer(&mut self, delay: i64, passed: f64, limited: bool, time: u32) {
        let target = self.target();
        if self.starting {
            if delay > target / 2 {
                self.starting = false;
                self.cut_to_rate(time);
            } else if limited {
                self.grow(passed);
            }
            return;
        }
        let off = ((target - delay) as f64 / target as f64).clamp(-1.0, 1.0);
        let trip = self.srtt.unwrap_or(LEAST_ROUND) as f64;
        // what is given in a round trip shows after one: with more the delay would swing
        let gain = (0.4 * target as f64 / trip).min(GAIN);
        let share = passed / self.window;
        if off < 0.0 {
            self.shrink(self.window + passed * gain * off);
        } else if limited && self.competing {
            self.grow(STEP * share);
        } else if limited {
            self.grow(passed * gain * off + STEP * share);
        }
        if delay > 2 * target && !self.round.cut {
            self.round.cut = true;
            self.cut_to_rate(time);
        }
    }

    fn grow(&mut self, by: f64) {
        self.window = (self.window + by).min(MOST);
    }

    fn shrink(&mut self, to: f64) {
        self.window = to.clamp(LEAST, self.window.max(LEAST));
    }

    /// Leaves half the target of a queue at the rate that arrives.
    fn cut_to_rate(&mut self, time: u32) {
        let rate = self.round.rate(time).unwrap_or(0.0).max(self.rate);
        let srtt = self.srtt.unwrap_or(LEAST_ROUND);
        let trip = (srtt - self.delay).max(0) + TARGET / 2;
        self.shrink(rate * trip as f64 / 1e6);
    }

    /// Once in a round trip: rate, loss, and who fills the queue.
    fn end_round(&mut self, time: u32) {
        let since = *self.round.since.get_or_insert(time);
        let span = self.srtt.unwrap_or(0).max(LEAST_ROUND);
        if i64::from(time.wrapping_sub(since)) < span {
            return;
        }
        let round = std::mem::replace(
            &mut self.round,
            Round {
                since: Some(time),
                ..Round::default()
            },
        );
        if round.expected == 0 {
            return;
        }
        self.rate = round.rate(time).unwrap_or(self.rate);
        // less than none where packets were late: they count against the rounds before
        let loss = 1.0 - round.received as f64 / round.expected as f64;
        let weight = (span as f64 / 1e6).min(1.0);
        self.loss = Some(self.loss.map_or(loss, |old| old + (loss - old) * weight));
        let delay = round.least_delay.unwrap_or(self.delay);
        let full = loss > QUEUE_LOSS && delay > TARGET / 2;
        // a few packets prove nothing
        if round.expected >= 16 && (loss > HEAVY_LOSS || full) {
            self.starting = false;
            let keep = if self.competing { 0.7 } else { 0.85 };
            self.shrink(self.window * keep);
        }
        self.judge_delay(delay, round.limited, time);
    }

    fn judge_delay(&mut self, delay: i64, limited: bool, time: u32) {
        if delay < TARGET / 2 {
            (self.high_rounds, self.competing) = (0, false);
        } else if delay > TARGET {
            self.high_rounds += 1;
        }
        if self.high_rounds == HIGH_ROUNDS / 2 {
            self.cut_to_rate(time);
        } else if self.high_rounds >= HIGH_ROUNDS {
            self.competing = true;
        }
        self.low_rounds = if delay < TARGET / 4 && limited {
            self.low_rounds + 1
        } else {
            0
        };
        if self.low_rounds >= LOW_ROUNDS {
            self.starting = true;
        }
    }
}

impl Round {
    /// Bytes a second, once there is enough to tell.
    fn rate(&self, time: u32) -> Option<f64> {
        let span = time.wrapping_sub(self.since?);
        (span >= 5_000).then(|| self.delivered * 1e6 / f64::from(span))
    }
}
