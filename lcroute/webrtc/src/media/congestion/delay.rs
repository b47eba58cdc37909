//! The path's delay: round trips, and the one-way delay that a queue adds.
//!
//! As in LEDBAT (RFC 6817): a packet's one-way delay, arrival minus sending on two clocks, less the
//! base delay, the least of about the last minute.

use lcroute_lane::Report;
use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use super::in_flight::InFlight;

/// Spans of which the least delay is the base delay. Chosen: a minute in all.
const BASE_DELAY_SPANS: usize = 6;
/// Length of such a span.
const BASE_DELAY_SPAN: Duration = Duration::from_secs(10);

/// The least value of the last minute: clocks drift, routes change.
#[derive(Debug, Default)]
struct Least {
    spans: VecDeque<(Instant, i64)>,
}

impl Least {
    /// Adds a value; returns the least.
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

#[derive(Debug, Default)]
struct BaseDelay {
    /// The first value: later ones are relative to it, so that clocks may wrap.
    origin: Option<u32>,
    least: Least,
}

impl BaseDelay {
    /// Returns the queueing delay of a packet that took `delay` by the two clocks.
    fn queueing(&mut self, delay: u32, now: Instant) -> i64 {
        let origin = *self.origin.get_or_insert(delay);
        let value = i64::from(delay.wrapping_sub(origin).cast_signed());
        value - self.least.note(value, now)
    }
}

/// Delays of one direction of a link, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct PathDelay {
    smoothed_trip: Option<i64>,
    least_trip: Least,
    base: BaseDelay,
    queueing: i64,
}

impl PathDelay {
    pub(crate) fn smoothed_trip(&self) -> Option<i64> {
        self.smoothed_trip
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let trip = u64::try_from(self.smoothed_trip?).ok()?;
        Some(Duration::from_micros(trip))
    }

    /// Returns the round trip of the path without a queue; 0 before a measurement.
    pub(crate) fn least_trip(&self) -> i64 {
        self.least_trip.get().unwrap_or(0)
    }

    /// Returns the queueing delay of [`Self::set_queueing`].
    pub(crate) fn queueing(&self) -> i64 {
        self.queueing
    }

    pub(crate) fn set_queueing(&mut self, queueing: i64) {
        self.queueing = queueing;
    }

    /// Resets the delays: they belong to the old path.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            smoothed_trip: self.smoothed_trip,
            ..Self::default()
        };
    }

    /// Handles the samples of a report; returns the least queueing delay of its packets.
    pub(crate) fn handle_samples(
        &mut self,
        report: &Report,
        in_flight: &InFlight,
        now: Instant,
    ) -> Option<i64> {
        let mut least = None;
        for (n, sample) in report.samples.iter().enumerate() {
            let Some(sent) = in_flight.sent_at(sample.index) else {
                continue;
            };
            let arrived = report.time.wrapping_sub(sample.age);
            let queueing = self.base.queueing(arrived.wrapping_sub(sent), now);
            least = Some(least.map_or(queueing, |l: i64| l.min(queueing)));
            if n == 0 {
                let trip = i64::from(in_flight.clock(now).wrapping_sub(sent));
                self.handle_trip((trip - i64::from(sample.age)).max(0), now);
            }
        }
        least
    }

    /// `smoothed_rtt = 7/8 * smoothed_rtt + 1/8 * latest_rtt` (RFC 9002 5.3).
    fn handle_trip(&mut self, trip: i64, now: Instant) {
        self.least_trip.note(trip, now);
        let smoothed = self.smoothed_trip.map_or(trip, |old| (old * 7 + trip) / 8);
        self.smoothed_trip = Some(smoothed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_wrap() {
        let now = Instant::now();
        let mut base = BaseDelay::default();
        assert_eq!(base.queueing(u32::MAX - 10, now), 0);
        assert_eq!(base.queueing(20, now), 31);
        assert_eq!(base.queueing(u32::MAX - 20, now), 0);
        assert_eq!(base.queueing(0, now), 21);
    }
}
