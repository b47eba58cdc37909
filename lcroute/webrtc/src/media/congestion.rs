//! Bytes in flight: a window that saws between an empty queue and a short one, for live traffic.
//!
//! ```text
//! start --a queue, loss--> drain -done-> probe up --15 ms of queue, new loss--> drain ...
//!  doubles in a round       |              ever faster
//!                           \--queue stays, again and again--> compete --every 4 s--> drain
//!                                                                      as CUBIC
//! ```
//!
//! - A drain holds the window for a few rounds a bit below the path's own content. It empties the
//!   queue, shows its size, and lets all its flows measure the true base delay.
//! - Our flows in one queue see the same delay, cut at the same time to a share of their rate, and
//!   probe up by the same steps: so they converge to equal shares.
//! - If the queue does not go, another flow fills it (TCP): the sender competes until it goes.
//! - Loss that persists in a drain has other causes (radio): it is the floor for new loss. Loss
//!   that stops came from a queue too short to be measured.
//! - Pauses of the hosts look like queues and bursts. So delay counts only if it stays for some
//!   time of the receiver's clock, and a drain keeps in flight as much as arrives.
//! - Packets are paced by the window over the path's round trip, so that short queues last.
//!
//! Delay is one-way: arrival minus sending on two clocks, less the smallest of the last minute.
//!
//! | file | content |
//! |---|---|
//! | `in_flight` | packets in flight |
//! | `pacer` | time of the next packet |
//! | `round` | totals of reports, and their sums per round |
//! | `path_model`: `delay`, `rate`, `loss` | measurements of the path |
//! | `window` | the window's bounds and steps |
//! | `phase`, `drain`, `competition` | phases, and their state |
//! | `decision` | transitions between phases |

mod competition;
mod decision;
mod delay;
mod drain;
mod in_flight;
mod loss;
mod pacer;
mod path_model;
mod phase;
mod rate;
mod round;
mod window;

use lcroute_lane::Report;
use librecast::time::{Duration, Instant};

use decision::Decision;
use in_flight::InFlight;
use pacer::Pacer;
use path_model::PathModel;
use round::ReportTotals;

/// Least silence after which packets in flight count as lost; four round trips if longer. Chosen.
const FEEDBACK_TIMEOUT: Duration = Duration::from_millis(250);
/// Least round trip of a paced path, in microseconds. Chosen: below it timers are too coarse.
const PACED_RTT_MIN: i64 = 3_000;

/// Congestion control of one direction of a link, at its sender.
#[derive(Debug)]
pub(crate) struct Controller {
    in_flight: InFlight,
    pacer: Pacer,
    totals: ReportTotals,
    path: PathModel,
    decision: Decision,
}

impl Controller {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            in_flight: InFlight::new(now),
            pacer: Pacer::new(now),
            totals: ReportTotals::default(),
            path: PathModel::new(now),
            decision: Decision::new(now),
        }
    }

    /// Whether another packet may go out, besides `pending` bytes about to.
    pub(crate) fn is_open(&mut self, pending: usize, now: Instant) -> bool {
        if !self.has_room(pending) {
            self.in_flight.block();
            return false;
        }
        self.opens_at().is_none_or(|at| at <= now)
    }

    /// Whether the window has room, for packets that only use its rest.
    pub(crate) fn has_room(&self, pending: usize) -> bool {
        self.in_flight.fits(pending, self.decision.window())
    }

    /// Returns the time at which pacing lets the next packet out, if the window has room.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        let is_paced = self.path.delay.least_trip() >= PACED_RTT_MIN;
        (is_paced && self.has_room(0)).then(|| self.pacer.opens_at())
    }

    /// Notes a sent path probe: it takes no window and may get lost.
    pub(crate) fn probed(&mut self, index: u64, now: Instant) {
        self.in_flight.push_probe(index, now);
    }

    /// Notes a sent packet; indices count up by one.
    pub(crate) fn sent(&mut self, index: u64, bytes: usize, now: Instant) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.in_flight.push_packet(index, bytes, now);
        let trip = self.path.delay.least_trip();
        self.pacer.sent(bytes, trip, self.decision.pace(), now);
    }

    /// Whether the next packet, of about `bytes`, should request a report: eight times in a window,
    /// so that a short one does not wait for the receiver's timer; and if the last report got lost.
    pub(crate) fn asks_for_report(&mut self, bytes: usize, now: Instant) -> bool {
        let (floor, window) = (self.path.loss.floor(), self.decision.window());
        let asks = self.in_flight.asks_for_report(bytes, floor, window);
        self.in_flight.misses_report(now) || asks
    }

    /// Resets the delay: it belongs to the old path.
    pub(crate) fn path_changed(&mut self) {
        self.path.delay.reset();
        self.totals.restart_round();
        self.decision.path_changed();
    }

    /// Whether a standing queue is on the path: it causes losses, and repair would add to it.
    pub(crate) fn is_congested(&self) -> bool {
        self.decision.is_congested(&self.path)
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.path.delay.rtt()
    }

    /// Returns the share of packets lost, smoothed over about a second.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.path.loss.smoothed()
    }

    /// Returns the number of packets that arrived with an ECN mark.
    pub(crate) fn congested(&self) -> u64 {
        self.totals.congested()
    }

    /// Returns the rate of arrival in the last round, in bytes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.path.rate.last()
    }

    /// Returns the expected rate of arrival, in bytes a second.
    pub(crate) fn capacity(&self) -> f64 {
        self.path.rate.capacity()
    }

    /// Returns the time of the next [`Self::poll`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waits = self.in_flight.bytes() > 0;
        waits.then(|| self.in_flight.progress() + self.silence())
    }

    /// Counts packets in flight as lost after a long silence; returns whether it did.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| now < at) {
            return false;
        }
        self.in_flight.clear(now);
        self.totals.restart_round();
        self.decision.feedback_missing();
        true
    }

    fn silence(&self) -> Duration {
        self.rtt()
            .map_or(FEEDBACK_TIMEOUT, |rtt| FEEDBACK_TIMEOUT.max(rtt * 4))
    }

    /// Handles a report of the peer; returns false if that is impossible.
    pub(crate) fn handle(&mut self, report: &Report, next: u64, now: Instant) -> bool {
        if !ReportTotals::is_possible(report, next) {
            return false;
        }
        if self.totals.is_overtaken(report) {
            return true;
        }
        let (path, decision) = (&mut self.path, &mut self.decision);
        let delay = path.delay.handle_samples(report, &self.in_flight, now);
        let usage = self.in_flight.take(report.highest, decision.window(), now);
        self.totals.take(report, usage);
        if usage.limited {
            decision.probe_up(usage.passed, path, now);
        }
        let next = self.in_flight.next_index();
        if let Some(delay) = delay {
            path.delay.set_queueing(delay);
            decision.handle_delay(delay, report.time, self.totals.round(), path, next, now);
        }
        decision.handle_report(report, delay, path, now);
        self.end_round(report.time, now);
        true
    }

    /// Updates rate and loss once per round trip, and decides on them.
    fn end_round(&mut self, time: u32, now: Instant) {
        let trip = self.path.delay.smoothed_trip();
        let Some((round, took)) = self.totals.end_round(time, trip) else {
            return;
        };
        self.path.rate.end_round(&round, time);
        self.path.loss.end_round(&round, took);
        let (highest, next) = (self.totals.highest(), self.in_flight.next_index());
        if self
            .decision
            .end_round(&round, highest, next, &mut self.path, now)
        {
            self.totals.cut(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::window::{MAX_WINDOW, MIN_WINDOW};
    use super::*;
    use lcroute_lane::Sample;
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
        assert_eq!(controller.in_flight.bytes(), 0);
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
                prop_assert!((MIN_WINDOW..=MAX_WINDOW).contains(&controller.decision.window()));
            }
            let silence = controller.silence();
            controller.poll(now + silence);
            prop_assert!(controller.is_open(0, now));
        }
    }
}
