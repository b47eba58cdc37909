//! Totals of the receiver's reports, and what they add up to in about a round trip.

use crate::media::feedback::Report;

/// Least length of a round, in microseconds; else it is a round trip. Chosen.
const ROUND_MIN: i64 = 20_000;
/// Least time of a round that gives a rate, in microseconds. Chosen.
const RATE_TIME_MIN: u32 = 5_000;

/// What happened in about a round trip.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Receiver's clock.
    since: Option<u32>,
    /// Bytes that arrived.
    pub(crate) delivered: f64,
    /// Packets that were judged, and those of them that are lost.
    pub(crate) settled: u64,
    pub(crate) lost: u64,
    /// Those of them sent since the last cut; likewise packets that came with a mark of congestion.
    pub(crate) newly_lost: u64,
    pub(crate) ce: u64,
    /// The window was, or was nearly, all used; a packet waited for it.
    pub(crate) limited: bool,
    pub(crate) blocked: bool,
    /// Most bytes that were in flight.
    pub(crate) peak: f64,
}

impl Round {
    /// Bytes a second, once the round has lasted long enough.
    pub(crate) fn rate(&self, time: u32) -> Option<f64> {
        let span = time.wrapping_sub(self.since?);
        (span >= RATE_TIME_MIN).then(|| self.delivered * 1e6 / f64::from(span))
    }

    /// Share of the packets that were judged.
    pub(crate) fn loss(&self) -> f64 {
        (self.lost as f64 / self.settled.max(1) as f64).min(1.0)
    }
}

/// How the window was used since the last report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Bytes in flight before the report.
    pub(crate) in_flight: f64,
    /// Those of them that left the path.
    pub(crate) passed: f64,
    pub(crate) limited: bool,
    pub(crate) blocked: bool,
}

/// Totals of the last report, and the round that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct ReportTotals {
    highest: Option<u64>,
    received: u64,
    settled: u64,
    lost: u64,
    ce: u64,
    /// Packets from this index on were sent since the last cut.
    recover: u64,
    round: Round,
}

impl ReportTotals {
    pub(crate) fn round(&self) -> &Round {
        &self.round
    }

    /// The highest packet that has arrived.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Packets that met a filling queue, as its mark says.
    pub(crate) fn congested(&self) -> u64 {
        self.ce
    }

    /// Whether a report can be true; packets from index `next` on are not sent yet.
    pub(crate) fn is_possible(report: &Report, next: u64) -> bool {
        // what follows adds up: no total may be more than we have sent
        let most = report.highest.saturating_add(1);
        report.highest < next
            && report.settled <= most
            && report.received <= most
            && report.lost <= report.settled
            && report.ce <= report.received
    }

    /// Whether a later report came before this one.
    pub(crate) fn is_overtaken(&self, report: &Report) -> bool {
        report.highest.saturating_add(1) < self.known()
            || report.received < self.received
            || report.settled < self.settled
    }

    /// Packets below this index have been reported.
    fn known(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1)
    }

    /// Adds a report to its round.
    pub(crate) fn take(&mut self, report: &Report, usage: Usage) {
        let known = self.known();
        let reported = (report.highest.saturating_add(1) - known).max(1);
        let share = (report.received - self.received) as f64 / reported as f64;
        let round = &mut self.round;
        round.peak = round.peak.max(usage.in_flight);
        round.delivered += usage.passed * share;
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
        round.limited |= usage.limited;
        round.blocked |= usage.blocked;
        self.highest = Some(report.highest);
        (self.received, self.settled) = (report.received, report.settled);
        (self.lost, self.ce) = (report.lost, self.ce.max(report.ce));
    }

    /// The window was cut: what was sent before index `next` knows nothing of it.
    pub(crate) fn cut(&mut self, next: u64) {
        self.recover = next;
    }

    /// The round, if it is over at `time` of the receiver's clock, and how many microseconds it took. `trip` is the
    /// smoothed round trip in microseconds.
    pub(crate) fn end_round(&mut self, time: u32, trip: Option<i64>) -> Option<(Round, u32)> {
        let since = *self.round.since.get_or_insert(time);
        let took = time.wrapping_sub(since);
        if i64::from(took) < trip.unwrap_or(0).max(ROUND_MIN) {
            return None;
        }
        let next = Round {
            since: Some(time),
            ..Round::default()
        };
        Some((std::mem::replace(&mut self.round, next), took))
    }

    /// Forgets the round so far.
    pub(crate) fn restart_round(&mut self) {
        self.round = Round::default();
    }
}
