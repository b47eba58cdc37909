//! When the kernel is told which channels to join and to leave.
//!
//! Linux reports a change of membership some milliseconds after it, and each further change puts the report off again:
//! changes that never cease would never be reported. So they are gathered and told together, no sooner than the last
//! report has had time to go out. The first change after a rest is told at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use librecast::channel::ChannelId;

/// Changes that have not been told.
#[derive(Debug)]
pub struct Changes {
    /// Joined or left, whichever came last.
    waiting: BTreeMap<ChannelId, bool>,
    told_at: Option<Instant>,
    pause: Duration,
}

impl Changes {
    /// None yet; they are told no more often than each `pause`.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        Self {
            waiting: BTreeMap::new(),
            told_at: None,
            pause,
        }
    }

    /// A channel is to be joined, or left.
    pub fn set(&mut self, channel: ChannelId, join: bool) {
        self.waiting.insert(channel, join);
    }

    /// When [`poll`](Self::poll) has something again, if it had to wait.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let at = self.told_at?;
        (!self.waiting.is_empty()).then_some(at + self.pause)
    }

    /// All changes, if they can be told now.
    pub fn poll(&mut self, now: Instant) -> Option<BTreeMap<ChannelId, bool>> {
        if self.waiting.is_empty() || self.poll_timeout().is_some_and(|at| now < at) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(12);

    #[test]
    fn the_first_change_is_told_at_once_and_further_ones_together() {
        let now = Instant::now();
        let mut changes = Changes::new(PAUSE);
        changes.set(1, true);
        assert_eq!(changes.poll(now), Some(BTreeMap::from([(1, true)])));
        changes.set(2, true);
        assert_eq!(changes.poll(now), None);
        changes.set(3, true);
        changes.set(2, false);
        assert_eq!(changes.poll_timeout(), Some(now + PAUSE));
        let both = BTreeMap::from([(2, false), (3, true)]);
        assert_eq!(changes.poll(now + PAUSE), Some(both));
        assert_eq!(changes.poll_timeout(), None);
    }
}
