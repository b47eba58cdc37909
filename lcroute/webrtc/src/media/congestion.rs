//! How much may be under way: a window that saws between an empty queue and a short one, fit for
//! live traffic.
//!
//! ```text
//! start --a queue, loss--> drain -done-> probe up --15 ms of queue, new loss--> drain ...
//!  doubles in a round       |              ever faster
//!                           \--no end of the queue, again and again--> compete --every 4 s--> drain
//!                                                                      as CUBIC
//! ```
//!
//! - A drain holds the window for a few rounds at a bit less than the path holds by itself. It drains the
//!   queue, shows what it was, and lets everybody in it learn the true base delay.
//! - Flows of ours in one queue see the same delay, cut at the same time to a share of their rate and
//!   probe up by the same steps: so they come to share evenly.
//! - If the queue does not go, somebody else fills it (TCP): we compete until it goes in a later drain.
//! - Loss that does not go in a drain has other causes (radio): it is the floor that new loss is
//!   measured by. Loss that goes was a queue too short to be felt.
//! - Pauses of the hosts look like queues and bursts: delay counts only if it stays for some time of the
//!   receiver's, and a drain costs little, because it leaves what has been seen to arrive.
//! - Packets are paced by the window over the path's round trip, so that short queues last.
//!
//! Delay is one way, arrival minus sending on two clocks, less the smallest of the last minute.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use super::feedback::{Report, micros};

/// Queueing delay that ends probing up, in microseconds. ADR 0010.
const TARGET_DELAY: i64 = 15_000;
/// Queueing delay below which a queue counts as empty, in microseconds. Chosen: jitter of an idle path.
const EMPTY_DELAY: i64 = 4_000;
/// Queueing delay that ends the start phase, in microseconds. Chosen: the window doubles within a round trip.
const START_TARGET_DELAY: i64 = 6_000;
/// Queueing delay from which on the window does not grow even beside TCP, in microseconds. ADR 0010.
const COMPETING_TARGET_DELAY: i64 = 150_000;
/// Share of the path's own content that a drain leaves. Chosen: as BBR drains.
const DRAIN_GAIN: f64 = 0.85;
/// Share of what arrived in a drain's rounds that the window gets after it. Chosen.
const REFILL_GAIN: f64 = 0.97;
/// Share of what was under way and was not lost that a drain at loss leaves. Chosen.
const LOSS_DRAIN_GAIN: f64 = 0.9;
/// Share of the window that loss leaves while competing with TCP. Chosen, near CUBIC's 0.7 (RFC 9438 4.6).
const BETA: f64 = 0.75;
/// Share of the window that a CE mark leaves (RFC 8511 3).
const BETA_ECN: f64 = 0.8;
/// Least round trip that a path's content is counted for, in microseconds: hosts take longer to turn round. Chosen.
const CONTENT_RTT_MIN: i64 = 4_000;
/// Share of packets lost beyond the floor that may add up before a drain. Chosen.
const LOSS_SLACK: f64 = 0.02;
/// Share of packets lost beyond the floor that calls for a drain at once. Chosen.
const SUDDEN_LOSS: f64 = 0.1;
/// Highest floor of random loss, a share of packets. Chosen: at more, a path is of no use.
const LOSS_FLOOR_MAX: f64 = 0.4;
/// Packets that a round has settled when a sudden loss counts. Chosen.
const SUDDEN_LOSS_PACKETS: u64 = 16;
/// Packets that make a floor anew; fewer move it by their share. Chosen.
const LOSS_FLOOR_PACKETS: f64 = 200.0;
/// Rounds of a drain at delay, at most. Chosen: one to empty the queue, one to see it.
const DRAIN_ROUNDS_MAX: u32 = 2;
/// Rounds of a drain at loss, at most: until enough packets are settled. Chosen.
const LOSS_DRAIN_ROUNDS_MAX: u32 = 12;
/// How long a delay must be high to count, in microseconds of the receiver: a host that paused shows many packets of
/// one moment. ADR 0010.
const DELAY_PERSISTENCE: u32 = 10_000;
/// The same where the window was not all used, in microseconds. Chosen.
const DELAY_PERSISTENCE_UNUSED: u32 = 40_000;
/// Drains in a row that must not see the queue's end until others are to blame; those that saw a long one
/// count twice.
const FAILED_DRAINS: u32 = 7;
/// From a drain that failed to the next one: others of ours may not have ended their probing up, because they do not
/// know the base delay. Chosen.
const DRAIN_RETRY_INTERVAL: Duration = Duration::from_millis(400);
/// Between two drains while competing. ADR 0010.
const COMPETING_DRAIN_INTERVAL: Duration = Duration::from_secs(4);
/// From a drain that failed to the next one of another that this sender joins. Chosen.
const DRAIN_JOIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long loss starts no drain after it was found to be random. Chosen.
const RANDOM_LOSS_PAUSE: Duration = Duration::from_millis(500);
/// How long the window at which loss was ours bounds the next ones. Chosen.
const CEILING_LIFETIME: Duration = Duration::from_secs(10);
/// Window of a new path, in bytes. Chosen: some 50 packets.
const FIRST_WINDOW: f64 = 65_536.0;
/// Least window, in bytes: two packets (RFC 9002 7.2).
const MIN_WINDOW: f64 = 3_000.0;
/// Greatest window, in bytes: 5 Gbit/s at 100 ms. Chosen.
const MAX_WINDOW: f64 = 67_108_864.0;
/// Rate of a path that nothing is known of, in bytes a second. Chosen: 100 Mbit/s.
const FIRST_RATE: f64 = 12_500_000.0;
/// Most packets under way.
const MAX_PACKETS: usize = 65_000;
/// Growth of the window in a first round trip of probing up, in bytes: a packet.
const GROWTH_STEP: f64 = 1_200.0;
/// Without feedback for so long, or four round trips, what is under way counts as lost. Chosen.
const FEEDBACK_TIMEOUT: Duration = Duration::from_millis(250);
/// Least length of a round, in microseconds; else it is a round trip. Chosen.
const ROUND_MIN: i64 = 20_000;
/// Seconds in which probing up gets steeper by a packet in a round trip. Chosen.
const GROWTH_PERIOD: f64 = 0.025;
/// Rounds of which the best rate counts. Chosen.
const RATE_ROUNDS: usize = 4;
/// The base delay is the smallest of so many spans. Chosen: a minute in all.
const BASE_DELAY_SPANS: usize = 6;
/// Length of such a span.
const BASE_DELAY_SPAN: Duration = Duration::from_secs(10);
/// In the start phase packets are paced so many times as fast as a window in a round trip. Chosen: the window
/// doubles.
const START_PACING_GAIN: f64 = 2.0;
/// After it, so many times. Chosen, near the 1.25 of RFC 9002 7.7.
const PACING_GAIN: f64 = 1.2;
/// Time whose packets may leave at once, in microseconds. Chosen.
const PACING_BURST: f64 = 3_000.0;
/// Round trip from which on packets are paced, in microseconds. Chosen: below it timers are too coarse.
const PACED_RTT_MIN: i64 = 3_000;

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
    next: u64,
    bytes: u64,
    /// Bytes since the last packet that asked for a report.
    unmarked: u64,
    /// Somebody had to wait for the window since the last report.
    blocked: bool,
    /// When the next packet may go, in microseconds since `began`.
    paced: f64,
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
    /// Of the last round, and the last few rounds.
    rate: f64,
    rates: [f64; RATE_ROUNDS],
    loss: Option<f64>,
    round: Round,
    /// Since when it probes up.
    probing_since: Instant,
    /// Since when the delay has been high, by the receiver's clock.
    high_since: Option<u32>,
    /// Packets from this index on were sent since the last cut.
    recover: u64,
    /// Window and time of the last cut while competing.
    cut: Option<(f64, Instant)>,
    /// Share of packets that gets lost without our doing, and what came beyond it (a cumulative sum).
    floor: f64,
    beyond: f64,
    /// Packets judged since that sum was nothing, and those of them that are lost.
    since_known: (u64, u64),
    drain: Option<Drain>,
    next_loss: Instant,
    next_drain: Instant,
    next_join: Instant,
    failed_drains: u32,
    /// Window and rate before the first of them.
    unfailed: (f64, f64),
    /// The longest delay since the last drain.
    longest: i64,
    /// The window at which a short queue overflowed, and until when that is heeded.
    ceiling: Option<(f64, Instant)>,
}

/// The window is held down for some rounds to see what follows.
#[derive(Debug)]
struct Drain {
    /// Loss before, if that is the reason.
    loss: Option<f64>,
    /// We were starting; and the window before.
    starting: bool,
    window: f64,
    /// What arrived in a round trip of the path, in bytes; and in a second.
    arrived: f64,
    rate: f64,
    /// So many packets prove something.
    proof: u64,
    /// Packets from this index on count; totals when they began to be judged, and since then.
    first: u64,
    before: Option<(u64, u64)>,
    settled: u64,
    lost: u64,
    /// Rounds since such a packet arrived, and whether the queue has been seen empty.
    rounds: u32,
    empty: bool,
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
    /// Those of them sent since the last cut; likewise packets that came with a mark of congestion.
    newly_lost: u64,
    ce: u64,
    /// The window was, or was nearly, all used; somebody waited for it.
    limited: bool,
    blocked: bool,
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
            Some((since, least)) if now < *since + BASE_DELAY_SPAN => *least = value.min(*least),
            _ => {
                self.spans.push_back((now, value));
                if self.spans.len() > BASE_DELAY_SPANS {
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
            window: FIRST_WINDOW,
            starting: true,
            competing: false,
            under_way: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            unmarked: 0,
            blocked: false,
            paced: 0.0,
            progress: now,
            highest: None,
            received: 0,
            settled: 0,
            lost: 0,
            ce: 0,
            srtt: None,
            base: BaseDelay::default(),
            least_trip: Least::default(),
            delay: 0,
            rate: 0.0,
            rates: [0.0; RATE_ROUNDS],
            loss: None,
            round: Round::default(),
            probing_since: now,
            high_since: None,
            recover: 0,
            cut: None,
            floor: 0.0,
            beyond: 0.0,
            since_known: (0, 0),
            drain: None,
            next_loss: now,
            next_drain: now,
            next_join: now,
            failed_drains: 0,
            unfailed: (FIRST_WINDOW, 0.0),
            longest: 0,
            ceiling: None,
        }
    }

    /// Whether another packet may go out, besides `pending` bytes that are about to.
    pub(crate) fn is_open(&mut self, pending: usize, now: Instant) -> bool {
        let fits = self.has_room(pending);
        self.blocked |= !fits;
        fits && self.opens_at().is_none_or(|at| at <= now)
    }

    /// Whether the window has room, asked by whoever would only use what is left over.
    pub(crate) fn has_room(&self, pending: usize) -> bool {
        ((self.bytes + pending as u64) as f64) < self.window && self.under_way.len() < MAX_PACKETS
    }

    /// When a packet may go that waits for its time, though there is room in the window.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        if self.path_trip() < PACED_RTT_MIN || !self.has_room(0) {
            return None;
        }
        Some(self.began + Duration::from_micros(self.paced.max(0.0) as u64))
    }

    /// A packet goes out that fills nothing and may get lost: a probe of the path.
    pub(crate) fn probed(&mut self, index: u64, now: Instant) {
        if self.under_way.is_empty() {
            self.first = index;
            self.progress = now;
        }
        let at = micros(now, self.began);
        self.under_way.push_back(Sent { at, bytes: 0 });
        self.next = index + 1;
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
        self.next = index + 1;
        self.bytes += u64::from(bytes);
        let trip = self.path_trip();
        let elapsed = now.saturating_duration_since(self.began).as_micros() as f64;
        let burst = PACING_BURST.max(trip as f64 / 8.0);
        let pace = if self.starting {
            START_PACING_GAIN
        } else {
            PACING_GAIN
        };
        let takes = f64::from(bytes) * trip as f64 / (self.window * pace);
        self.paced = self.paced.max(elapsed - burst) + takes;
    }

    /// Whether the packet that goes out next, of about `bytes`, should ask for a report: eight times in
    /// a window, so that a short one does not wait for the receiver's timer.
    pub(crate) fn asks_for_report(&mut self, bytes: usize) -> bool {
        self.unmarked += bytes as u64;
        let wants = self.unmarked as f64 * 8.0 * (1.0 + 4.0 * self.floor) >= self.window;
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
        (self.drain, self.ceiling, self.high_since) = (None, None, None);
        (self.starting, self.competing, self.failed_drains) = (true, false, 0);
        (self.delay, self.longest) = (0, 0);
    }

    /// Whether a queue stands in the path: what gets lost now is likely lost to it, and more than the data
    /// itself would make it worse.
    pub(crate) fn is_congested(&self) -> bool {
        let drains = self
            .drain
            .as_ref()
            .is_some_and(|drain| drain.loss.is_none());
        drains || self.competing || self.delay > TARGET_DELAY / 2
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
        self.window = (self.window / 2.0).max(MIN_WINDOW);
        self.starting = true;
        self.drain = None;
        self.round = Round::default();
        true
    }

    fn silence(&self) -> Duration {
        self.rtt()
            .map_or(FEEDBACK_TIMEOUT, |rtt| FEEDBACK_TIMEOUT.max(rtt * 4))
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
        let blocked = std::mem::take(&mut self.blocked);
        let limited = blocked || self.bytes as f64 * 2.0 >= self.window;
        let under_way = self.bytes as f64;
        let passed = self.pass(report.highest) as f64;
        let share = (report.received - self.received) as f64 / (most - known).max(1) as f64;
        let round = &mut self.round;
        round.peak = round.peak.max(under_way);
        round.delivered += passed * share;
        round.settled += report.settled - self.settled;
        let lost = report.lost.saturating_sub(self.lost);
        round.lost += lost;
        // what was sent before a cut knows nothing of it
        if self.settled >= self.recover {
            round.newly_lost += lost;
        }
        if known >= self.recover {
            round.ce += report.ce.saturating_sub(self.ce);
        }
        round.limited |= limited;
        round.blocked |= blocked;
        self.highest = Some(report.highest);
        (self.received, self.settled) = (report.received, report.settled);
        (self.lost, self.ce) = (report.lost, self.ce.max(report.ce));
        self.progress = now;
        if limited && self.drain.is_none() {
            self.probe_up(passed, now);
        }
        if let Some(delay) = delay {
            self.delay = delay;
            self.watch(delay, report.time, now);
        }
        if self.judge(report, delay)
            && let Some(drain) = self.drain.take()
        {
            self.end_drain(&drain, now);
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

    /// Grows the window, `passed` bytes having left the path: in the start phase to the double in a round
    /// trip, as TCP while competing, else by steps that are longer the longer all has gone well, and shorter
    /// near the target.
    fn probe_up(&mut self, passed: f64, now: Instant) {
        let rounds = now
            .saturating_duration_since(self.probing_since)
            .as_secs_f64()
            / GROWTH_PERIOD;
        let step = if self.starting {
            self.window
        } else if self.competing {
            self.cubic(now)
        } else if self.is_careful(now) {
            GROWTH_STEP
        } else {
            let left = 1.0 - self.delay as f64 / TARGET_DELAY as f64;
            let step = GROWTH_STEP * (1.0 + rounds + rounds * rounds / 32.0);
            step.min(self.window / 5.0).max(GROWTH_STEP) * left.max(0.25)
        };
        let by = step.min(self.window) * passed / self.window;
        // what arrives is known a round trip late, and may double meanwhile
        let queue = if self.competing {
            COMPETING_TARGET_DELAY
        } else {
            2 * TARGET_DELAY
        };
        let most = FIRST_WINDOW.max(self.content(queue) * 2.0).max(self.window);
        self.window = (self.window + by).min(most.min(MAX_WINDOW));
    }

    /// What TCP grows by in a round trip (RFC 9438).
    fn cubic(&self, now: Instant) -> f64 {
        if self.delay > COMPETING_TARGET_DELAY {
            return 0.0;
        }
        let Some((most, at)) = self.cut else {
            // to our share: TCP would double
            let soon = self.delay < 3 * TARGET_DELAY;
            return if soon {
                GROWTH_STEP.max(self.window / 4.0)
            } else {
                GROWTH_STEP
            };
        };
        let trip = self.rtt().unwrap_or_default();
        let seconds = (now.saturating_duration_since(at) + trip).as_secs_f64();
        let plateau = (most / GROWTH_STEP * (1.0 - BETA) / 0.4).cbrt();
        let aim = most + 0.4 * GROWTH_STEP * (seconds - plateau).powi(3);
        (aim - self.window).clamp(GROWTH_STEP * 2.25, self.window.max(GROWTH_STEP * 5.0) / 2.0)
    }

    fn shrink(&mut self, to: f64) {
        self.window = to.clamp(MIN_WINDOW, self.window.max(MIN_WINDOW));
    }

    /// Near a window at which a short queue overflowed not long ago.
    fn is_careful(&self, now: Instant) -> bool {
        let near = |(ceiling, until): (f64, Instant)| {
            now < until && (ceiling * 0.9..ceiling * 1.2).contains(&self.window)
        };
        self.ceiling.is_some_and(near)
    }

    /// Round trip of the path without any queue.
    fn path_trip(&self) -> i64 {
        self.least_trip.get().unwrap_or(0)
    }

    /// Bytes a second that may be expected to arrive: what did at best of late, and not less than a guess. A
    /// pause of a host, or the begin of a flow, is not the path's rate.
    pub(crate) fn capacity(&self) -> f64 {
        self.best_rate().max(FIRST_RATE)
    }

    /// Bytes a second that arrived at best in the last few rounds.
    fn best_rate(&self) -> f64 {
        self.rates.iter().fold(0.0, |best, rate| best.max(*rate))
    }

    /// What must be under way for all of the rate, with a queue of so many microseconds.
    fn content(&self, queue: i64) -> f64 {
        let trip = self.path_trip().max(CONTENT_RTT_MIN) + queue;
        self.best_rate() / (1.0 - self.floor) * (1.0 + self.floor / 2.0) * trip as f64 / 1e6
    }

    /// Once in a round trip: rate, loss, and what to do about them.
    fn end_round(&mut self, time: u32, now: Instant) {
        let since = *self.round.since.get_or_insert(time);
        let span = self.srtt.unwrap_or(0).max(ROUND_MIN);
        let took = time.wrapping_sub(since);
        if i64::from(took) < span {
            return;
        }
        let fresh = Round {
            since: Some(time),
            ..Round::default()
        };
        let round = std::mem::replace(&mut self.round, fresh);
        if round.delivered > 0.0 {
            // else probes, which have no bytes, or a host that paused
            self.rate = round.rate(time).unwrap_or(self.rate);
            self.rates.rotate_right(1);
            self.rates[0] = self.rate;
        }
        let loss = round.loss();
        if round.settled > 0 {
            // a few packets, such as probes, tell little
            let certainty = (round.settled as f64 / SUDDEN_LOSS_PACKETS as f64).min(1.0);
            let weight = (f64::from(took) / 1e6).min(1.0) * certainty;
            self.loss = Some(self.loss.map_or(loss, |old| old + (loss - old) * weight));
        }
        if round.ce > 0 {
            return self.give_way(&round, BETA_ECN, now);
        }
        if let Some(drain) = &mut self.drain {
            drain.rounds += u32::from(self.highest >= Some(drain.first));
            return;
        }
        if !round.limited {
            self.probing_since = now;
        }
        if self.competing {
            self.compete(&round, now);
        } else if let Some(loss) = self.new_loss(&round)
            && now >= self.next_loss
        {
            self.try_less(loss, &round);
        }
    }

    /// Cuts what was really used of the window.
    fn give_way(&mut self, round: &Round, left: f64, now: Instant) {
        self.shrink(
            self.window
                .min(round.peak.max(FIRST_WINDOW.min(self.window)))
                * left,
        );
        self.starting = false;
        self.probing_since = now;
        self.recover = self.next;
    }

    /// The share of loss once that beyond the floor has added up. A single round counts little: bursts are not queues.
    fn new_loss(&mut self, round: &Round) -> Option<f64> {
        let packets = round.settled as f64;
        let noise = self.floor * (1.0 - self.floor);
        let slack = LOSS_SLACK + noise / 8.0;
        // what chance adds up to once in a great many packets
        let much = 3.0 + 5.0 * noise / slack;
        let more = round.lost as f64 - packets * (self.floor + slack);
        self.beyond = (self.beyond + more.min(much * 0.7)).max(0.0);
        let (settled, lost) = &mut self.since_known;
        if self.beyond == 0.0 {
            (*settled, *lost) = (0, 0);
        } else {
            (*settled, *lost) = (*settled + round.settled, *lost + round.lost);
        }
        let share = *lost as f64 / (*settled).max(1) as f64;
        let sudden = more > packets * SUDDEN_LOSS && round.settled >= SUDDEN_LOSS_PACKETS;
        let new = self.beyond > much || sudden && self.starting;
        new.then_some(share)
    }

    /// Competing as TCP does.
    fn compete(&mut self, round: &Round, now: Instant) {
        let packets = round.settled as f64;
        let known = self.floor * packets;
        if now >= self.next_drain {
            self.drain();
        } else if round.newly_lost as f64 > known + 3.0 * known.sqrt() {
            // fast convergence, as in RFC 9438
            let below = self.cut.is_some_and(|(most, _)| self.window < most);
            self.cut = Some((self.window * if below { 0.85 } else { 1.0 }, now));
            self.give_way(round, BETA, now);
        }
    }

    /// Delay that stays high ends probing up.
    fn watch(&mut self, delay: i64, time: u32, now: Instant) {
        if self.drain.is_some() {
            return;
        }
        self.longest = self.longest.max(delay);
        let used = self.round.limited;
        if self.competing && delay < self.longest / 2 && used && now >= self.next_join {
            // somebody else drains: together we see the end of the queue
            self.drain();
            return;
        }
        let target = if self.starting {
            START_TARGET_DELAY
        } else {
            TARGET_DELAY
        };
        if delay < EMPTY_DELAY && !self.competing {
            self.failed_drains = 0;
        }
        if delay <= target || self.competing || now < self.next_drain {
            self.high_since = None;
            return;
        }
        let high_for = time.wrapping_sub(*self.high_since.get_or_insert(time));
        let persists = match (used, self.starting) {
            (false, _) => DELAY_PERSISTENCE_UNUSED,
            (true, false) => DELAY_PERSISTENCE,
            // a first flight is a queue by itself
            (true, true) => DELAY_PERSISTENCE.max((self.path_trip() / 4).clamp(0, 1 << 20) as u32),
        };
        if high_for < persists {
            return;
        }
        let rate = self.round.rate(time).unwrap_or(0.0);
        self.rates[0] = self.rates[0].max(rate);
        if used {
            self.drain();
        } else {
            // not much of it can be ours, yet
            self.starting = false;
            self.high_since = None;
            self.shrink(self.window.min(self.content(TARGET_DELAY)));
        }
    }

    /// Looks what becomes of a queue.
    fn drain(&mut self) {
        self.begin(None, self.content(0) * DRAIN_GAIN);
    }

    /// Looks what becomes of loss: what arrives fits, whatever else gets lost.
    fn try_less(&mut self, loss: f64, round: &Round) {
        let mut left = self.content(0) * DRAIN_GAIN * (1.0 - self.floor);
        if self.starting || !round.blocked {
            // what arrives lags behind, or is all there is
            left = left.max(round.peak * (1.0 - loss) * LOSS_DRAIN_GAIN);
        }
        self.begin(Some(loss), left);
    }

    fn begin(&mut self, loss: Option<f64>, left: f64) {
        let starting = std::mem::take(&mut self.starting);
        self.high_since = None;
        self.longest = 0;
        self.beyond = 0.0;
        self.drain = Some(Drain {
            loss,
            starting,
            window: self.window,
            first: self.next,
            before: None,
            proof: (12.0 / loss.unwrap_or(1.0)) as u64,
            arrived: self.content(0) * (1.0 - self.floor),
            rate: self.best_rate(),
            rounds: 0,
            settled: 0,
            lost: 0,
            empty: false,
        });
        self.shrink(self.window.min(left));
    }

    /// A report during a drain; whether that is over.
    fn judge(&mut self, report: &Report, delay: Option<i64>) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        if report.settled > drain.first {
            let (settled, lost) = *drain.before.get_or_insert((report.settled, report.lost));
            drain.settled = report.settled.saturating_sub(settled);
            drain.lost = report.lost.saturating_sub(lost);
        }
        if report.highest < drain.first {
            return false;
        }
        drain.empty |= delay.is_some_and(|delay| delay < EMPTY_DELAY);
        match drain.loss {
            Some(_) => drain.settled >= drain.proof || drain.rounds >= LOSS_DRAIN_ROUNDS_MAX,
            None => drain.empty || drain.rounds >= DRAIN_ROUNDS_MAX,
        }
    }

    /// A drain is over: whose queue was it, whose loss?
    fn end_drain(&mut self, drain: &Drain, now: Instant) {
        self.probing_since = now;
        match drain.loss {
            Some(before) => self.judge_loss(drain, before, now),
            None if drain.empty => {
                self.failed_drains = 0;
                self.competing = false;
                self.refill(drain);
            }
            None => self.fail(drain, now),
        }
    }

    /// Goes on at what arrives, and learns the floor.
    fn refill(&mut self, drain: &Drain) {
        if drain.settled > 0 && drain.empty {
            let weight = (drain.settled as f64 / LOSS_FLOOR_PACKETS).min(1.0);
            self.floor = (self.floor + (drain.share() - self.floor) * weight).min(LOSS_FLOOR_MAX);
        }
        let refilled = drain.arrived / (1.0 - self.floor) * REFILL_GAIN;
        self.window = refilled
            .max(self.window)
            .clamp(MIN_WINDOW, drain.window.max(MIN_WINDOW));
    }

    fn judge_loss(&mut self, drain: &Drain, before: f64, now: Instant) {
        if drain.share() < self.floor + (before - self.floor) / 3.0 {
            let fit = drain.window * (1.0 - before + self.floor);
            self.ceiling = Some((fit, now + CEILING_LIFETIME));
            return self.refill(drain);
        }
        self.floor = drain.share().min(LOSS_FLOOR_MAX);
        self.window = self.window.max(drain.window);
        self.next_loss = now + RANDOM_LOSS_PAUSE;
        self.starting = drain.starting;
    }

    /// The queue has not gone.
    fn fail(&mut self, drain: &Drain, now: Instant) {
        if self.failed_drains == 0 || self.competing {
            self.unfailed = (drain.window, drain.rate);
        }
        // little may be one of ours that has not come to the end of its probing up
        self.failed_drains += if self.delay > TARGET_DELAY { 2 } else { 1 };
        if self.failed_drains < FAILED_DRAINS {
            self.next_drain = now + DRAIN_RETRY_INTERVAL;
            return self.refill(drain);
        }
        let (window, rate) = self.unfailed;
        let mut least = window;
        if !self.competing {
            // half of what we had, as if the other were one
            least = least.max(rate * self.srtt.unwrap_or(0) as f64 / 2e6);
            self.cut = None;
        }
        self.competing = true;
        self.window = self.window.max(least).min(MAX_WINDOW);
        self.next_drain = now + COMPETING_DRAIN_INTERVAL;
        self.next_join = now + DRAIN_JOIN_INTERVAL;
    }
}

impl Drain {
    /// Share of its packets that got lost.
    fn share(&self) -> f64 {
        self.lost as f64 / self.settled.max(1) as f64
    }
}

impl Round {
    /// Bytes a second, once there is enough to tell.
    fn rate(&self, time: u32) -> Option<f64> {
        let span = time.wrapping_sub(self.since?);
        (span >= 5_000).then(|| self.delivered * 1e6 / f64::from(span))
    }

    /// Share of the packets that were judged.
    fn loss(&self) -> f64 {
        (self.lost as f64 / self.settled.max(1) as f64).min(1.0)
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
        assert!(!controller.is_open(0, now));
        let soon = now + Duration::from_millis(10);
        assert!(controller.handle(&report(29), 60, soon));
        assert!(controller.is_open(0, now));
        let (mut controller, now) = sent(60);
        assert!(!controller.poll(now + FEEDBACK_TIMEOUT / 2));
        assert!(controller.poll(now + FEEDBACK_TIMEOUT));
        assert!(controller.is_open(0, now) && controller.deadline().is_none());
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
                prop_assert!((MIN_WINDOW..=MAX_WINDOW).contains(&controller.window));
            }
            let silence = controller.silence();
            controller.poll(now + silence);
            prop_assert!(controller.is_open(0, now));
        }
    }
}
