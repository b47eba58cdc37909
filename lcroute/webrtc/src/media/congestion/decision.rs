//! Decisions about the window: transitions to the next phase by measurements of the path.

use lcroute_lane::Report;
use librecast::time::{Duration, Instant};

use super::competition::{BETA, COMPETING_TARGET_DELAY, Competition};
use super::drain::{Cause, DRAIN_GAIN, Drain, EMPTY_DELAY, Interrupted, LOSS_DRAIN_GAIN};
use super::path_model::PathModel;
use super::phase::{HighDelay, Phase};
use super::round::Round;
use super::window::{FIRST_WINDOW, MAX_WINDOW, Window};

/// Queueing delay that ends probing up, in microseconds. From adr/packets.md.
const TARGET_DELAY: i64 = 15_000;
/// Queueing delay in microseconds that ends the start phase. Chosen: the window doubles each trip.
const START_TARGET_DELAY: i64 = 6_000;
/// Share of the bytes that arrived in a drain's rounds for the window after it. Chosen.
const REFILL_GAIN: f64 = 0.97;
/// Share of the window that a CE mark leaves (RFC 8511 3).
const BETA_ECN: f64 = 0.8;
/// Failed drains in a row before competing (CUBIC); a drain with a long queue counts twice. Chosen.
const FAILED_DRAINS: u32 = 7;
/// Interval from a failed drain to the next: other flows of ours may not have ended probing up,
/// without the base delay. Chosen.
const DRAIN_RETRY_INTERVAL: Duration = Duration::from_millis(400);
/// Interval of drains while competing. From adr/packets.md.
const COMPETING_DRAIN_INTERVAL: Duration = Duration::from_secs(4);
/// Pacing rate in slow start, in windows per round trip. Chosen: the window doubles.
const START_PACING_GAIN: f64 = 2.0;
/// Pacing rate after slow start, in windows per round trip. Chosen, near 1.25 of RFC 9002 7.7.
const PACING_GAIN: f64 = 1.2;

/// Drains that did not empty the queue.
#[derive(Debug)]
struct FailedDrains {
    /// Failed drains in a row; those with a long queue count twice.
    count: u32,
    /// Window in bytes, and rate in bytes a second, before the first of them.
    before: (f64, f64),
    /// A queue starts no drain before this time.
    next_drain: Instant,
}

#[derive(Debug)]
pub(crate) struct Decision {
    window: Window,
    phase: Phase,
    failed: FailedDrains,
}

impl Decision {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            window: Window::new(now),
            phase: Phase::default(),
            failed: FailedDrains {
                count: 0,
                before: (FIRST_WINDOW, 0.0),
                next_drain: now,
            },
        }
    }

    /// Returns the window in bytes.
    pub(crate) fn window(&self) -> f64 {
        self.window.bytes()
    }

    /// Returns the pace in bytes per round trip of the path.
    pub(crate) fn pace(&self) -> f64 {
        let gain = if self.phase.is_slow_start() {
            START_PACING_GAIN
        } else {
            PACING_GAIN
        };
        self.window.bytes() * gain
    }

    pub(crate) fn is_congested(&self, path: &PathModel) -> bool {
        self.phase.has_queue() || path.delay.queueing() > TARGET_DELAY / 2
    }

    /// Resets the phase: the queue belonged to the old path.
    pub(crate) fn path_changed(&mut self) {
        self.phase = Phase::default();
        self.window.clear_ceiling();
        self.failed.count = 0;
    }

    /// Handles a silence: packets in flight count as lost.
    pub(crate) fn feedback_missing(&mut self) {
        self.window.halve();
        self.phase.restart();
    }

    /// Grows the window after `passed` bytes have left the path.
    pub(crate) fn probe_up(&mut self, passed: f64, path: &PathModel, now: Instant) {
        let window = self.window.bytes();
        let step = match &self.phase {
            Phase::Start(_) => window,
            Phase::ProbeUp(_) => {
                let queue_share = path.delay.queueing() as f64 / TARGET_DELAY as f64;
                self.window.growth_step(queue_share, now)
            }
            Phase::Compete(competition) => competition.growth_step(window, &path.delay, now),
            Phase::Drain(_) => return,
        };
        // the rate of arrival is known a round trip late, and may double meanwhile
        let queue = match &self.phase {
            Phase::Compete(_) => COMPETING_TARGET_DELAY,
            _ => 2 * TARGET_DELAY,
        };
        self.window.grow(step, passed, path.content(queue) * 2.0);
    }

    /// Handles a queueing delay of `delay` microseconds at `time` of the receiver's clock, within
    /// the current round. A lasting high delay ends probing up. The next packet has index `next`.
    pub(crate) fn handle_delay(
        &mut self,
        delay: i64,
        time: u32,
        round: &Round,
        path: &mut PathModel,
        next: u64,
        now: Instant,
    ) {
        let persistence = self
            .phase
            .delay_persistence(round.limited, path.delay.least_trip());
        let (high, target) = match &mut self.phase {
            Phase::Start(high) => (high, START_TARGET_DELAY),
            Phase::ProbeUp(high) => (high, TARGET_DELAY),
            Phase::Drain(_) => return,
            Phase::Compete(competition) => {
                if competition.joins_drain(delay, round.limited, now) {
                    self.drain_queue(path, next);
                }
                return;
            }
        };
        if delay < EMPTY_DELAY {
            self.failed.count = 0;
        }
        if delay <= target || now < self.failed.next_drain {
            return high.clear();
        }
        if !high.persists(time, persistence) {
            return;
        }
        path.rate.raise(round.rate(time).unwrap_or(0.0));
        if round.limited {
            self.drain_queue(path, next);
        } else {
            // this flow causes little of it so far
            self.phase = Phase::ProbeUp(HighDelay::default());
            self.window.shrink(path.content(TARGET_DELAY));
        }
    }

    /// Handles a report, with the least queueing delay of its packets; may end a drain.
    pub(crate) fn handle_report(
        &mut self,
        report: &Report,
        delay: Option<i64>,
        path: &mut PathModel,
        now: Instant,
    ) {
        if let Phase::Drain(drain) = &mut self.phase
            && drain.handle(report, delay)
            && let Phase::Drain(drain) = std::mem::take(&mut self.phase)
        {
            self.window.restart_growth(now);
            self.phase = self.end_drain(drain, path, now);
        }
    }

    /// Ends a round; returns whether it cut the window. `highest` is the highest packet that has
    /// arrived, `next` the next one to send.
    pub(crate) fn end_round(
        &mut self,
        round: &Round,
        highest: Option<u64>,
        next: u64,
        path: &mut PathModel,
        now: Instant,
    ) -> bool {
        if round.ce > 0 {
            self.cut(round, BETA_ECN, now);
            return true;
        }
        if let Phase::Drain(drain) = &mut self.phase {
            drain.end_round(highest);
            return false;
        }
        if !round.limited {
            self.window.restart_growth(now);
        }
        if let Phase::Compete(competition) = &mut self.phase {
            if now >= self.failed.next_drain {
                self.drain_queue(path, next);
            } else if path.loss.is_exceeded_by(round) {
                competition.cut(self.window.bytes(), now);
                self.cut(round, BETA, now);
                return true;
            }
        } else {
            let is_start = self.phase.is_slow_start();
            if let Some(loss) = path.loss.new_loss(round, is_start, now) {
                self.drain_loss(loss, round, path, next);
            }
        }
        false
    }

    /// Cuts the used part of the window.
    fn cut(&mut self, round: &Round, left: f64, now: Instant) {
        let window = self.window.bytes();
        let used = window.min(round.peak.max(FIRST_WINDOW.min(window)));
        self.window.shrink(used * left);
        self.window.restart_growth(now);
        self.phase.end_slow_start();
    }

    /// Drains to test whether the queue goes.
    fn drain_queue(&mut self, path: &mut PathModel, next: u64) {
        let left = path.content(0) * DRAIN_GAIN;
        self.begin_drain(Cause::Queue, left, path, next);
    }

    /// Drains to test whether the loss goes, down to the bytes that arrive.
    fn drain_loss(&mut self, loss: f64, round: &Round, path: &mut PathModel, next: u64) {
        let mut left = path.content(0) * DRAIN_GAIN * (1.0 - path.loss.floor());
        if self.phase.is_slow_start() || !round.blocked {
            // the rate of arrival lags behind, or the flow sends no more
            left = left.max(round.peak * (1.0 - loss) * LOSS_DRAIN_GAIN);
        }
        self.begin_drain(Cause::Loss(loss), left, path, next);
    }

    /// Begins a drain that leaves `left` bytes of the window.
    fn begin_drain(&mut self, cause: Cause, left: f64, path: &mut PathModel, next: u64) {
        let Some(interrupted) = self.phase.interrupt() else {
            return;
        };
        path.loss.restart_sum();
        let drain = Drain::new(cause, interrupted, self.window.bytes(), next, path);
        self.phase = Phase::Drain(drain);
        self.window.shrink(left);
    }

    /// Ends a drain, and returns the phase after it, by the cause of queue or loss.
    fn end_drain(&mut self, drain: Drain, path: &mut PathModel, now: Instant) -> Phase {
        match drain.cause {
            Cause::Loss(before) => self.judge_loss(drain, before, path, now),
            Cause::Queue if drain.is_empty() => {
                self.failed.count = 0;
                self.refill(&drain, path)
            }
            Cause::Queue => self.fail(drain, path, now),
        }
    }

    /// Continues at the rate of arrival, and updates the floor of loss.
    fn refill(&mut self, drain: &Drain, path: &mut PathModel) -> Phase {
        if drain.settled() > 0 && drain.is_empty() {
            path.loss.learn_floor(drain.share(), drain.settled());
        }
        let refilled = drain.arrived / (1.0 - path.loss.floor()) * REFILL_GAIN;
        self.window.raise(refilled, drain.window);
        Phase::ProbeUp(HighDelay::default())
    }

    /// Loss that has gone came from a queue too short to be measured; loss that stays is the floor.
    fn judge_loss(
        &mut self,
        drain: Drain,
        before: f64,
        path: &mut PathModel,
        now: Instant,
    ) -> Phase {
        let floor = path.loss.floor();
        if drain.share() < floor + (before - floor) / 3.0 {
            let fits = drain.window * (1.0 - before + floor);
            self.window.set_ceiling(fits, now);
            return self.refill(&drain, path);
        }
        path.loss.set_floor(drain.share(), now);
        self.window.raise(drain.window, drain.window);
        match drain.interrupted {
            Interrupted::Start => Phase::default(),
            Interrupted::ProbeUp => Phase::ProbeUp(HighDelay::default()),
            Interrupted::Compete(competition) => Phase::Compete(competition),
        }
    }

    /// Handles a queue that stays: after some such drains other flows are filling it.
    fn fail(&mut self, drain: Drain, path: &mut PathModel, now: Instant) -> Phase {
        if let Interrupted::Compete(mut competition) = drain.interrupted {
            competition.resume(now);
            return self.compete(competition, drain.window, now);
        }
        if self.failed.count == 0 {
            self.failed.before = (drain.window, drain.rate);
        }
        // a short queue may belong to a flow of ours that still probes up
        let is_long = path.delay.queueing() > TARGET_DELAY;
        self.failed.count += if is_long { 2 } else { 1 };
        if self.failed.count < FAILED_DRAINS {
            self.failed.next_drain = now + DRAIN_RETRY_INTERVAL;
            return self.refill(&drain, path);
        }
        let (window, rate) = self.failed.before;
        // half of the former rate, as beside one other flow
        let half = rate * path.delay.smoothed_trip().unwrap_or(0) as f64 / 2e6;
        self.compete(Competition::new(now), window.max(half), now)
    }

    /// Competes, with a window of at least `least` bytes.
    fn compete(&mut self, competition: Competition, least: f64, now: Instant) -> Phase {
        self.window.raise(least, MAX_WINDOW);
        self.failed.next_drain = now + COMPETING_DRAIN_INTERVAL;
        Phase::Compete(competition)
    }
}
