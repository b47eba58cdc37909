//! How much may be under way: a window steered by queueing delay, fit for live traffic.
//!
//! ```text
//! start --delay over half the target, or a trial--> steer --low delay for long--> start
//!   window grows by what arrives         window follows (target - delay) / target
//! ```
//!
//! - Loss that appears is put to a trial: the window shrinks to what arrives for a few rounds. If the
//!   loss stays, it has other causes (radio) and is ignored from then on; if it goes, a queue too short
//!   to be felt was full, and the window grows with care.
//! - A standing queue is drained every five seconds, for a few rounds. If it is not seen empty
//!   then, somebody else fills it (TCP): we compete, with a higher target, additive increase and a cut
//!   at loss, until a later drain shows an empty queue.
//! - At high delay the window is cut to what demonstrably arrives: delivered rate x (base round trip +
//!   half the target). So a wrong guess, such as a process that slept, costs little.
//!
//! Delay is one way, arrival minus sending on two clocks, less the smallest of the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::feedback::{Report, micros};

/// Queueing delay that is aimed at, and that while competing, in microseconds.
const TARGET: i64 = 20_000;
const COMPETING_TARGET: i64 = 80_000;
/// Loss beyond what is known to be random that calls for a trial.
const NEW_LOSS: f64 = 0.02;
/// Loss that is never put up with.
const HEAVY_LOSS: f64 = 0.3;
/// Packets of a round that prove something.
const PROOF: u64 = 16;
/// Rounds of a trial or a drain that count, from a round trip and so long after its begin.
const TRIAL_ROUNDS: u32 = 2;
const LATE: Duration = Duration::from_millis(40);
/// The pause after a trial that found random loss, and how long one that found a full queue is heeded.
const TRIAL_PAUSE: Duration = Duration::from_secs(2);
const HEED: Duration = Duration::from_secs(10);
/// How often a standing queue is drained, and how soon again at high delay.
const DRAIN_EVERY: Duration = Duration::from_secs(5);
const DRAIN_AGAIN: Duration = Duration::from_secs(2);
/// Drains in a row that must fail at high delay, until others are to blame.
const FAILED_DRAINS: u32 = 2;
/// High delay, in microseconds: flows of ours that share a queue keep it below.
const HIGH: i64 = TARGET * 5 / 4;
/// What a drain leaves of the window that the path itself holds, and so many microseconds of a queue: on
/// a short path the hosts take longer to turn round than the packets do.
const DRAINED: f64 = 0.75;
const DRAIN_SLACK: f64 = 3_000.0;
/// Known random loss fades within about so many seconds once it is gone.
const FADE: f64 = 10.0;
/// Window in bytes: at first, at least, at most.
const FIRST: f64 = 65_536.0;
const LEAST: f64 = 3_000.0;
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
/// Rounds of high delay after which the queue is drained; of low delay, after which we start anew.
const HIGH_ROUNDS: u32 = 3;
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
    settled: u64,
    lost: u64,
    ce: u64,
    srtt: Option<i64>,
    base: BaseDelay,
    /// The least round trip, likewise.
    least_trip: Least,
    delay: i64,
    rate: f64,
    loss: Option<f64>,
    round: Round,
    high_rounds: u32,
    low_rounds: u32,
    /// Loss that has been found to be random.
    random_loss: f64,
    experiment: Option<Experiment>,
    next_trial: Instant,
    next_drain: Instant,
    failed_drains: u32,
    /// Up to where the window may grow fast, and until when that is heeded.
    ceiling: Option<(f64, Instant)>,
}

/// The window is held down for some rounds to see what follows.
#[derive(Debug)]
struct Experiment {
    kind: Kind,
    /// The window before.
    window: f64,
    /// Loss before.
    loss: f64,
    /// What is reported from then on counts.
    since: Instant,
    rounds: u32,
    settled: u64,
    lost: u64,
    /// The queue has been seen empty.
    empty: bool,
}

/// What an experiment is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Does loss go?
    Trial,
    /// Does the queue go, which was long before or not?
    Drain { high: bool },
}

/// What happened in about a round trip.
#[derive(Debug, Default)]
struct Round {
    /// Receiver's clock.
    since: Option<u32>,
    delivered: f64,
    /// Packets that were judged, and those of them that are lost.
    settled: u64,
    lost: u64,
    least_delay: Option<i64>,
    limited: bool,
    cut: bool,
    /// Most bytes that were under way.
    peak: f64,
}

/// The smallest value of the last minute: clocks drift, routes change.
#[derive(Debug, Default)]
struct Least {
    spans: VecDeque<(Instant, i64)>,
}

impl Least {
    /// One more value; the smallest.
    fn note(&mut self, value: i64, now: Instant) -> i64 {
        match self.spans.back_mut() {
            Some((since, least)) if now < *since + SPAN => *least = value.min(*least),
            _ => {
                self.spans.push_back((now, value));
                if self.spans.len() > SPANS {
                    self.spans.pop_front();
                }
            }
        }
        self.get().unwrap_or(value)
    }

    fn get(&self) -> Option<i64> {
        self.spans.iter().map(|s| s.1).min()
    }
}

/// The smallest one-way delay.
#[derive(Debug, Default)]
struct BaseDelay {
    /// The first value seen: all others are counted from it, so that clocks may wrap.
    origin: Option<u32>,
    least: Least,
}

impl BaseDelay {
    /// Queueing delay of a packet that took `delay` by the two clocks.
    fn queueing(&mut self, delay: u32, now: Instant) -> i64 {
        let origin = *self.origin.get_or_insert(delay);
        let value = i64::from(delay.wrapping_sub(origin).cast_signed());
        value - self.least.note(value, now)
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
            settled: 0,
            lost: 0,
            ce: 0,
            srtt: None,
            base: BaseDelay::default(),
            delay: 0,
            rate: 0.0,
            loss: None,
            round: Round::default(),
            high_rounds: 0,
            low_rounds: 0,
            least_trip: Least::default(),
            random_loss: 0.0,
            experiment: None,
            next_trial: now,
            next_drain: now + DRAIN_EVERY,
            failed_drains: 0,
            ceiling: None,
        }
    }

    /// Whether another packet may go out, besides `pending` bytes that are about to.
    pub(crate) fn is_open(&mut self, pending: usize) -> bool {
        let open = ((self.bytes + pending as u64) as f64) < self.window
            && self.under_way.len() < MAX_PACKETS;
        self.blocked |= !open;
        open
    }

    /// A packet goes out that fills nothing and may get lost: a probe of the path.
    pub(crate) fn probed(&mut self, index: u64, now: Instant) {
        if self.under_way.is_empty() {
            self.first = index;
            self.progress = now;
        }
        let at = micros(now, self.began);
        self.under_way.push_back(Sent { at, bytes: 0 });
    }

    /// The same, asked by whoever would only use what is left over.
    pub(crate) fn has_room(&self, pending: usize) -> bool {
        ((self.bytes + pending as u64) as f64) < self.window && self.under_way.len() < MAX_PACKETS
    }

    /// Whether a queue stands in the path: more than the data itself would make it worse.
    pub(crate) fn is_congested(&self) -> bool {
        let drain = matches!(&self.experiment, Some(e) if e.kind != Kind::Trial);
        drain || self.competing || self.delay > TARGET / 2
    }

    /// A packet goes out; indices count up by one.
    pub(crate) fn sent(&mut self, index: u64, bytes: usize, now: Instant) {
        if self.bytes == 0 {
            // probes, if any
            self.under_way.clear();
            self.first = index;
            self.progress = now;
        }
        let at = micros(now, self.began);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.under_way.push_back(Sent { at, bytes });
        self.bytes += u64::from(bytes);
    }

    /// Whether the packet that goes out next, of about `bytes`, should ask for a report: eight times in
    /// a window, so that a short one does not wait for the receiver's timer.
    pub(crate) fn wants_report(&mut self, bytes: usize) -> bool {
        self.unmarked += bytes as u64;
        let wants = self.unmarked as f64 * 8.0 >= self.window;
        if wants {
            self.unmarked = 0;
        }
        wants
    }

    /// The path is another one: its delay has nothing to do with that of the old.
    pub(crate) fn path_changed(&mut self) {
        self.base = BaseDelay::default();
        self.least_trip = Least::default();
        self.round = Round::default();
        (self.experiment, self.ceiling) = (None, None);
        (self.starting, self.competing) = (true, false);
    }

    /// Round trip, smoothed.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let srtt = u64::try_from(self.srtt?).ok()?;
        Some(Duration::from_micros(srtt))
    }

    /// Share of packets that do not arrive, smoothed over about a second.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Packets that met a filling queue, as its mark says.
    pub(crate) fn congested(&self) -> u64 {
        self.ce
    }

    /// Bytes a second that arrive, of the last round.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.bytes > 0).then(|| self.progress + self.silence())
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
        self.experiment = None;
        self.round = Round::default();
        true
    }

    fn silence(&self) -> Duration {
        self.rtt().map_or(SILENCE, |rtt| SILENCE.max(rtt * 4))
    }

    /// A report of the far side; false if it cannot be true.
    pub(crate) fn handle(&mut self, report: &Report, next: u64, now: Instant) -> bool {
        // what follows adds up: no total may be more than we have sent
        let most = report.highest.saturating_add(1);
        let sane = report.received <= most
            && report.lost <= report.settled
            && report.ce <= report.received;
        if report.highest >= next || report.settled > most || !sane {
            return false;
        }
        let known = self.highest.map_or(0, |highest| highest + 1);
        let older = report.received < self.received || report.settled < self.settled;
        if most < known || older {
            // overtaken by a later one
            return true;
        }
        let delay = self.handle_samples(report, now);
        let limited = std::mem::take(&mut self.blocked) || self.bytes as f64 * 2.0 >= self.window;
        let under_way = self.bytes as f64;
        let passed = self.pass(report.highest) as f64;
        let expected = most - known;
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
        round.settled += report.settled.saturating_sub(self.settled);
        round.lost += report.lost.saturating_sub(self.lost);
        (self.settled, self.lost) = (report.settled, report.lost);
        self.ce = self.ce.max(report.ce);
        round.limited |= limited;
        round.peak = round.peak.max(under_way);
        if let Some(delay) = delay {
            self.delay = delay;
            round.least_delay = Some(round.least_delay.map_or(delay, |d| d.min(delay)));
            if self.experiment.is_none() {
                self.steer(delay, passed, limited, report.time, now);
            }
        }
        self.end_round(report.time, now);
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
                self.least_trip.note(trip, now);
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
    fn steer(&mut self, delay: i64, passed: f64, limited: bool, time: u32, now: Instant) {
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
        } else if limited && (self.competing || self.is_careful(now)) {
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

    /// Near a window at which a queue was full not long ago.
    fn is_careful(&self, now: Instant) -> bool {
        let near = |(ceiling, until): (f64, Instant)| now < until && self.window > ceiling * 0.95;
        self.ceiling.is_some_and(near)
    }

    /// Leaves half the target of a queue at the rate that arrives.
    fn cut_to_rate(&mut self, time: u32) {
        let rate = self.round.rate(time).unwrap_or(0.0).max(self.rate);
        self.shrink(rate * (self.path_trip() + TARGET / 2) as f64 / 1e6);
    }

    /// Round trip of the path without any queue.
    fn path_trip(&self) -> i64 {
        self.least_trip.get().unwrap_or(LEAST_ROUND)
    }

    /// Once in a round trip: rate, loss, and who fills the queue.
    fn end_round(&mut self, time: u32, now: Instant) {
        let since = *self.round.since.get_or_insert(time);
        let span = self.srtt.unwrap_or(0).max(LEAST_ROUND);
        if i64::from(time.wrapping_sub(since)) < span {
            return;
        }
        let fresh = Round {
            since: Some(time),
            ..Round::default()
        };
        let round = std::mem::replace(&mut self.round, fresh);
        self.rate = round.rate(time).unwrap_or(self.rate);
        if round.settled == 0 {
            return;
        }
        let loss = (round.lost as f64 / round.settled as f64).min(1.0);
        let seconds = span as f64 / 1e6;
        self.loss = Some(
            self.loss
                .map_or(loss, |old| old + (loss - old) * seconds.min(1.0)),
        );
        if loss < self.random_loss {
            let fade = (loss - self.random_loss) * (seconds / FADE).min(1.0);
            self.random_loss = (self.random_loss + fade).max(0.0);
        }
        let delay = round.least_delay.unwrap_or(self.delay);
        if self.experiment.is_some() {
            self.judge(&round, delay, now);
        } else {
            self.judge_loss(&round, loss, delay, now);
            self.judge_delay(&round, delay, now);
        }
    }

    /// Loss that is new: a cut while competing, else a trial.
    fn judge_loss(&mut self, round: &Round, loss: f64, delay: i64, now: Instant) {
        let packets = round.settled as f64;
        let known = self.random_loss * packets;
        let beyond = loss * packets - known - 3.0 * known.sqrt();
        if self.competing {
            if beyond > 0.5 && delay > TARGET / 2 {
                self.shrink(self.window * 0.7);
            }
        } else if beyond > NEW_LOSS * packets && round.settled >= PROOF && now >= self.next_trial {
            self.begin(Kind::Trial, loss, now);
            self.shrink(self.window.min(round.peak) * (1.0 - loss).max(0.2));
        }
    }

    fn judge_delay(&mut self, round: &Round, delay: i64, now: Instant) {
        // a queue that is not ours to make is not ours to drain
        self.high_rounds = if delay > HIGH && round.limited {
            self.high_rounds + 1
        } else {
            0
        };
        let low = delay < TARGET / 4 && round.limited;
        self.low_rounds = if low { self.low_rounds + 1 } else { 0 };
        let again = self.next_drain - DRAIN_EVERY + DRAIN_AGAIN;
        let high = self.high_rounds >= HIGH_ROUNDS && !self.competing && now >= again;
        let standing = delay > TARGET / 4 && round.limited && now >= self.next_drain;
        if self.experiment.is_some() || self.starting {
            return;
        }
        if high || standing {
            self.next_drain = now + DRAIN_EVERY;
            self.begin(Kind::Drain { high }, 0.0, now);
            let left = self.path_trip() as f64 * DRAINED + DRAIN_SLACK;
            self.shrink(self.rate * left / 1e6);
        } else if self.low_rounds >= LOW_ROUNDS && !self.is_careful(now) {
            self.starting = true;
        }
    }

    fn begin(&mut self, kind: Kind, loss: f64, now: Instant) {
        // reports tell of loss a round trip and 30 ms late
        let since = now + self.rtt().unwrap_or_default() + LATE;
        self.starting = false;
        (self.high_rounds, self.low_rounds) = (0, 0);
        self.experiment = Some(Experiment {
            kind,
            window: self.window,
            loss,
            since,
            rounds: 0,
            settled: 0,
            lost: 0,
            empty: false,
        });
    }

    /// A round of an experiment.
    fn judge(&mut self, round: &Round, delay: i64, now: Instant) {
        let Some(mut experiment) = self.experiment.take() else {
            return;
        };
        // it goes on when the queue seems empty: that the base delay was too high shows only then
        experiment.empty |= delay < TARGET / 4;
        let empty = experiment.empty;
        if now >= experiment.since {
            experiment.rounds += 1;
            experiment.settled += round.settled;
            experiment.lost += round.lost;
        }
        let over = experiment.rounds >= TRIAL_ROUNDS;
        match experiment.kind {
            Kind::Drain { high } if over => {
                let blamed = self.failed_drains + u32::from(high);
                self.failed_drains = if empty { 0 } else { blamed };
                self.competing = self.failed_drains >= FAILED_DRAINS;
                self.window = experiment.window;
                if empty {
                    // whose queue it was, there is no need for all of it
                    self.cut_to_rate_of(self.rate / DRAINED);
                }
            }
            Kind::Trial if over && experiment.settled > 0 => self.conclude(&experiment, now),
            _ => self.experiment = Some(experiment),
        }
    }

    fn cut_to_rate_of(&mut self, rate: f64) {
        self.shrink(rate * (self.path_trip() + TARGET) as f64 / 1e6);
    }

    /// A trial is over: was it us?
    fn conclude(&mut self, trial: &Experiment, now: Instant) {
        let loss = trial.lost as f64 / trial.settled as f64;
        let ours = loss < self.random_loss + (trial.loss - self.random_loss) / 2.0;
        if ours || loss > HEAVY_LOSS {
            self.ceiling = Some((self.window, now + HEED));
        } else {
            self.random_loss = self.random_loss.max(loss).min(HEAVY_LOSS);
            self.window = self.window.max(trial.window);
            self.next_trial = now + TRIAL_PAUSE;
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

#[cfg(test)]
mod tests {
    use super::super::feedback::Sample;
    use super::*;
    use proptest::prelude::*;

    fn sent(count: u64) -> (Controller, Instant) {
        let now = Instant::now();
        let mut controller = Controller::new(now);
        for index in 0..count {
            controller.sent(index, 1_200, now);
        }
        (controller, now)
    }

    fn report(highest: u64) -> Report {
        Report {
            highest,
            received: highest + 1,
            settled: highest + 1,
            ..Report::default()
        }
    }

    #[test]
    fn a_full_window_shuts_until_a_report_or_a_long_silence() {
        let (mut controller, now) = sent(60);
        assert!(!controller.is_open(0));
        let soon = now + Duration::from_millis(10);
        assert!(controller.handle(&report(29), 60, soon));
        assert!(controller.is_open(0));
        let (mut controller, now) = sent(60);
        assert!(!controller.poll(now + SILENCE / 2));
        assert!(controller.poll(now + SILENCE));
        assert!(controller.is_open(0) && controller.deadline().is_none());
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let (mut controller, now) = sent(10);
        assert!(!controller.handle(&report(10), 10, now), "not sent yet");
        for wrong in [
            Report {
                received: 11,
                ..report(9)
            },
            Report {
                settled: 11,
                ..report(9)
            },
            Report {
                settled: 5,
                lost: 6,
                ..report(9)
            },
            Report {
                ce: 11,
                ..report(9)
            },
        ] {
            assert!(!controller.handle(&wrong, 10, now), "{wrong:?}");
        }
        assert!(controller.handle(&report(9), 10, now));
        assert!(
            controller.handle(&report(3), 10, now),
            "an old one is no crime"
        );
        assert_eq!(controller.bytes, 0);
    }

    #[test]
    fn clocks_may_wrap() {
        let now = Instant::now();
        let mut base = BaseDelay::default();
        assert_eq!(base.queueing(u32::MAX - 10, now), 0);
        assert_eq!(base.queueing(20, now), 31);
        assert_eq!(base.queueing(u32::MAX - 20, now), 0);
        assert_eq!(base.queueing(0, now), 21);
    }

    proptest! {
        #[test]
        fn no_report_makes_it_panic_or_shut_for_ever(reports in prop::collection::vec(
            (0_u64..100, 0_u64..120, 0_u64..120, 0_u64..120, 0_u64..120, any::<u32>(), any::<u32>(),
                0_u64..10_000), 0..60)) {
            let (mut controller, mut now) = sent(100);
            for (highest, received, settled, lost, ce, time, age, millis) in reports {
                now += Duration::from_millis(millis);
                let samples = vec![Sample { index: highest, age }];
                let words = Vec::new();
                let report = Report { highest, received, settled, lost, ce, time, samples, words };
                controller.handle(&report, 100, now);
                prop_assert!((LEAST..=MOST).contains(&controller.window));
            }
            let silence = controller.silence();
            controller.poll(now + silence);
            prop_assert!(controller.is_open(0));
        }
    }
}
