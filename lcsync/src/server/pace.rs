//! When to look at a share's files: when changes that were noticed have come to rest, and now and then in any case.

use std::time::{Duration, Instant};

/// Without a further notice for so long, a change has come to rest.
const QUIET: Duration = Duration::from_millis(300);
/// What never rests is scanned after this time ...
const MAX_UNREST: Duration = Duration::from_secs(10);
/// ... or after this many times of what the last version took to make, if that is longer.
const MAX_UNREST_FACTOR: u32 = 10;
/// Between two scans without a notice, where the kernel tells changes.
const NOTICED_INTERVAL: Duration = Duration::from_secs(30);
/// The same where it does not.
const INTERVAL: Duration = Duration::from_secs(1);
/// The interval is at least this many times of what a scan takes, where the kernel tells changes.
const NOTICED_FACTOR: u32 = 20;
/// The same where it does not.
const FACTOR: u32 = 5;

/// Why it is time to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// What has changed is at rest, or has not been for long: it is to be published.
    Noticed,
    /// Nothing was noticed, which need not mean that nothing has changed.
    Now,
}

/// The clock of one share.
#[derive(Debug)]
pub struct Pace {
    /// The first and the last notice since the last look.
    noticed: Option<(Instant, Instant)>,
    next: Instant,
    max_unrest: Duration,
}

impl Pace {
    /// To be looked at soon.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            noticed: None,
            next: now + INTERVAL,
            max_unrest: MAX_UNREST,
        }
    }

    /// Something has changed.
    pub fn notice(&mut self, now: Instant) {
        let first = self.noticed.map_or(now, |(first, _)| first);
        self.noticed = Some((first, now));
    }

    /// Whether to look now.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Reason> {
        let noticed = self.noticed.is_some_and(|(first, last)| {
            now.saturating_duration_since(last) >= QUIET
                || now.saturating_duration_since(first) >= self.max_unrest
        });
        if noticed {
            return Some(Reason::Noticed);
        }
        // a change that is still going on is not at rest
        (self.noticed.is_none() && now >= self.next).then_some(Reason::Now)
    }

    /// A look is about to begin: what is noticed from now on is for the next one.
    pub fn look(&mut self) {
        self.noticed = None;
    }

    /// A version was made, and took that long.
    pub fn made(&mut self, took: Duration) {
        self.max_unrest = MAX_UNREST.max(took * MAX_UNREST_FACTOR);
    }

    /// A look has ended, after `took`. `watching`: changes are noticed; `settling`: something has changed and is not
    /// published yet.
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

    /// Looks in `span`, with a notice in every tick for which `notice` holds.
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
