//! CoDel (RFC 8289): whether a queue stands, and when to drop from its head.

use librecast::time::{Duration, Instant};

/// Target of the shortest wait in a queue, and interval for which it may be exceeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) target: Duration,
    pub(crate) interval: Duration,
}

impl Limits {
    /// Returns 5 and 100 ms; less if `bound`, the longest wait, is a few times the target or less.
    pub(crate) fn within(bound: Duration) -> Self {
        let target = Duration::from_millis(5).min(bound / 4);
        Self {
            target,
            interval: target * 20,
        }
    }

    /// Returns the time of the drop after that at `at`: sooner, the more there have been.
    fn after(&self, at: Instant, count: u32) -> Instant {
        at + self.interval.div_f64(f64::from(count.max(1)).sqrt())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// When the queue counts as standing, if it stays above its target.
    standing_at: Option<Instant>,
    /// Time of the next drop while the queue stands, or of the one that did not happen.
    next: Option<Instant>,
    dropping: bool,
    count: u32,
    last_count: u32,
}

impl Codel {
    /// Whether to drop the message at the head, which has waited for `waited`; `alone`: hardly any
    /// other waits. If it drops, the caller asks for the next message.
    pub(crate) fn drops(
        &mut self,
        limits: &Limits,
        waited: Duration,
        alone: bool,
        now: Instant,
    ) -> bool {
        if !self.stands(limits, waited, alone, now) {
            self.dropping = false;
            return false;
        }
        if !self.dropping {
            self.begin(limits, now);
            return true;
        }
        let due = self.next.filter(|next| *next <= now);
        if let Some(due) = due {
            self.count += 1;
            self.next = Some(limits.after(due, self.count));
        }
        due.is_some()
    }

    fn stands(&mut self, limits: &Limits, waited: Duration, alone: bool, now: Instant) -> bool {
        if waited < limits.target || alone {
            self.standing_at = None;
            return false;
        }
        now >= *self.standing_at.get_or_insert(now + limits.interval)
    }

    /// Begins to drop, at the last frequency if that was recent.
    fn begin(&mut self, limits: &Limits, now: Instant) {
        let more = self.count.saturating_sub(self.last_count);
        let recent = self
            .next
            .is_some_and(|next| now < next + limits.interval * 16);
        self.count = if more > 1 && recent { more } else { 1 };
        self.last_count = self.count;
        self.next = Some(limits.after(now, self.count));
        self.dropping = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn count(codel: &mut Codel, waited: Duration, from: Instant, millis: u32) -> u32 {
        let limits = Limits::within(MILLI * 20);
        let at = |n| from + MILLI * n;
        (0..millis)
            .map(|n| u32::from(codel.drops(&limits, waited, false, at(n))))
            .sum()
    }

    #[test]
    fn a_standing_queue_is_dropped_from_ever_more_often() {
        let (mut codel, now) = (Codel::default(), Instant::now());
        assert_eq!(count(&mut codel, MILLI * 6, now, 100), 0, "a burst");
        let first = count(&mut codel, MILLI * 6, now + MILLI * 100, 500);
        let second = count(&mut codel, MILLI * 6, now + MILLI * 600, 500);
        assert!(
            (5..20).contains(&first) && second > first,
            "{first}, {second}"
        );
    }

    #[test]
    fn short_waits_and_single_messages_are_left_alone() {
        let (mut codel, now) = (Codel::default(), Instant::now());
        assert_eq!(count(&mut codel, MILLI * 4, now, 1_000), 0);
        let limits = Limits::within(MILLI * 20);
        for n in 0..1_000 {
            assert!(!codel.drops(&limits, MILLI * 15, true, now + MILLI * n));
        }
    }

    #[test]
    fn the_limits_shrink_with_the_bound() {
        let limits = Limits::within(MILLI * 8);
        assert_eq!((limits.target, limits.interval), (MILLI * 2, MILLI * 40));
        assert_eq!(Limits::within(Duration::ZERO).interval, Duration::ZERO);
    }
}
