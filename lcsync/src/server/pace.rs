//! Times of scans of a share's files: after noticed changes have settled, and at intervals.

use std::time::{Duration, Instant};

/// Time without a notice after which a change has settled.
const QUIET: Duration = Duration::from_millis(300);
/// Longest time from the first notice to a scan ...
const MAX_UNREST: Duration = Duration::from_secs(10);
/// ... or this many times the time to make the last version, if that is longer.
const MAX_UNREST_FACTOR: u32 = 10;
/// Least interval of scans without a notice, if the kernel sends notices.
const NOTICED_INTERVAL: Duration = Duration::from_secs(30);
/// The same without notices.
const INTERVAL: Duration = Duration::from_secs(1);
/// Least interval of scans in durations of a scan, if the kernel sends notices.
const NOTICED_FACTOR: u32 = 20;
/// The same without notices.
const FACTOR: u32 = 5;

/// Reason of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Changes have settled, or last too long: they must be published.
    Noticed,
    /// The interval is over; changes without a notice are possible.
    Now,
}

/// The timer of one share.
#[derive(Debug)]
pub struct Pace {
    /// The first and the last notice since the last scan.
    noticed: Option<(Instant, Instant)>,
    next: Instant,
    max_unrest: Duration,
}

impl Pace {
    /// Timer of a share to be scanned soon.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            noticed: None,
            next: now + INTERVAL,
            max_unrest: MAX_UNREST,
        }
    }

    /// Notes a change.
    pub fn notice(&mut self, now: Instant) {
        let first = self.noticed.map_or(now, |(first, _)| first);
        self.noticed = Some((first, now));
    }

    /// Returns whether to scan now, and why.
    pub fn due(&self, now: Instant) -> Option<Reason> {
        let noticed = self.noticed.is_some_and(|(first, last)| {
            now.saturating_duration_since(last) >= QUIET
                || now.saturating_duration_since(first) >= self.max_unrest
        });
        if noticed {
            return Some(Reason::Noticed);
        }
        // while a change goes on, it has not settled
        (self.noticed.is_none() && now >= self.next).then_some(Reason::Now)
    }

    /// Begins a scan; later notices belong to the next one.
    pub fn look(&mut self) {
        self.noticed = None;
    }

    /// Notes the time that it took to make a version.
    pub fn made(&mut self, took: Duration) {
        self.max_unrest = MAX_UNREST.max(took * MAX_UNREST_FACTOR);
    }

    /// Ends a scan. `watching`: the kernel sends notices; `settling`: a change awaits publication.
    pub fn looked(&mut self, now: Instant, took: Duration, watching: bool, settling: bool) {
        let interval = match (watching, settling) {
            (_, true) => INTERVAL,
            (true, false) => NOTICED_INTERVAL.max(took * NOTICED_FACTOR),
            (false, false) => INTERVAL.max(took * FACTOR),
        };
        self.next = now + interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// Scans in `span`, with a notice in each tick for which `notice` holds.
    fn looks(
        pace: &mut Pace,
        from: Instant,
        span: Duration,
        notice: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Reason)> {
        let ticks = (span.as_millis() / TICK.as_millis()) as u32;
        (0..ticks)
            .filter_map(|n| {
                let now = from + TICK * n;
                if notice(n) {
                    pace.notice(now);
                }
                let reason = pace.due(now)?;
                pace.look();
                pace.looked(now, Duration::from_millis(20), true, false);
                Some((n, reason))
            })
            .collect()
    }

    #[test]
    fn a_change_is_looked_at_within_a_second_of_its_end() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.looked(now, TICK, true, false);
        let found = looks(&mut pace, now, Duration::from_secs(20), |n| {
            (50..80).contains(&n)
        });
        assert_eq!(found, [(82, Reason::Noticed)]);
    }

    #[test]
    fn what_never_rests_is_looked_at_now_and_then_the_less_often_the_more_it_costs() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let span = Duration::from_secs(120);
        assert_eq!(looks(&mut pace, now, span, |_| true).len(), 11);
        pace.made(Duration::from_secs(5));
        assert_eq!(looks(&mut pace, now + span, span, |_| true).len(), 2);
    }

    #[test]
    fn without_notices_it_is_looked_at_all_the_same() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let found = looks(&mut pace, now, Duration::from_secs(100), |_| false);
        assert_eq!(found, [10, 310, 610, 910].map(|n| (n, Reason::Now)));
        pace.looked(now, Duration::from_secs(2), false, false);
        assert_eq!(pace.due(now + Duration::from_secs(9)), None);
        assert_eq!(pace.due(now + Duration::from_secs(10)), Some(Reason::Now));
    }
}
