//! Totals of the receiver's reports, and their sums over about a round trip.

use lcroute_lane::Report;

/// Least length of a round, in microseconds; a longer round trip counts instead. Chosen.
const ROUND_MIN: i64 = 20_000;
/// Least time of a round that gives a rate, in microseconds. Chosen.
const RATE_TIME_MIN: u32 = 5_000;

/// Sums of about a round trip.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Receiver's clock.
    since: Option<u32>,
    /// Bytes that arrived.
    pub(crate) delivered: f64,
    /// Packets judged, and those lost.
    pub(crate) settled: u64,
    pub(crate) lost: u64,
    /// Losses among packets sent since the last cut; packets with an ECN mark, likewise.
    pub(crate) newly_lost: u64,
    pub(crate) ce: u64,
    /// Whether the window was used, or nearly; whether a packet waited for it.
    pub(crate) limited: bool,
    pub(crate) blocked: bool,
    /// Highest bytes in flight.
    pub(crate) peak: f64,
}

impl Round {
    /// Returns the rate in bytes a second, once the round is long enough.
    pub(crate) fn rate(&self, time: u32) -> Option<f64> {
        let span = time.wrapping_sub(self.since?);
        (span >= RATE_TIME_MIN).then(|| self.delivered * 1e6 / f64::from(span))
    }

    /// Returns the lost share of the judged packets.
    pub(crate) fn loss(&self) -> f64 {
        (self.lost as f64 / self.settled.max(1) as f64).min(1.0)
    }
}

/// Use of the window since the last report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Bytes in flight before the report.
    pub(crate) in_flight: f64,
    /// Bytes that left the path since then.
    pub(crate) passed: f64,
    pub(crate) limited: bool,
    pub(crate) blocked: bool,
}

/// Totals of the last report, and the current round.
#[derive(Debug, Default)]
pub(crate) struct ReportTotals {
    highest: Option<u64>,
    received: u64,
    settled: u64,
    lost: u64,
    ce: u64,
    /// The first packet sent since the last cut.
    recover: u64,
    round: Round,
}

impl ReportTotals {
    pub(crate) fn round(&self) -> &Round {
        &self.round
    }

    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Returns the number of packets with an ECN mark.
    pub(crate) fn congested(&self) -> u64 {
        self.ce
    }

    /// Whether a report is possible; packets from index `next` on are unsent.
    pub(crate) fn is_possible(report: &Report, next: u64) -> bool {
        // bounds the sums below: no total exceeds the packets sent
        let most = report.highest.saturating_add(1);
        report.highest < next
            && report.settled <= most
            && report.received <= most
            && report.lost <= report.settled
            && report.ce <= report.received
    }

    /// Whether a later report arrived before this one.
    pub(crate) fn is_overtaken(&self, report: &Report) -> bool {
        report.highest.saturating_add(1) < self.known()
            || report.received < self.received
            || report.settled < self.settled
    }

    /// Returns the index below which packets have been reported.
    fn known(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1)
    }

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
        // packets sent before a cut do not reflect it
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

    /// Notes a cut: packets before index `next` do not reflect it.
    pub(crate) fn cut(&mut self, next: u64) {
        self.recover = next;
    }

    /// Ends the round if it is over at `time` of the receiver's clock; returns it with its length
    /// in microseconds. `trip` is the smoothed round trip in microseconds.
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

    pub(crate) fn restart_round(&mut self) {
        self.round = Round::default();
    }
}
