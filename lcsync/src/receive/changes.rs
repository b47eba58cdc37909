//! Times at which the kernel learns of channels to join and leave.
//!
//! Linux reports a change of membership some milliseconds later, and each further change delays the
//! report: endless changes are never reported. So changes wait until the last report must have
//! left, and go together. The first change after a rest goes at once.

use std::collections::BTreeMap;

use librecast::channel::ChannelId;
use librecast::time::{Duration, Instant};

/// Changes that the kernel does not know yet.
#[derive(Debug)]
pub struct Changes {
    /// The last change of each channel: joined or left.
    waiting: BTreeMap<ChannelId, bool>,
    told_at: Option<Instant>,
    pause: Duration,
}

impl Changes {
    /// Starts without changes; `pause` is the least time between two batches.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        Self {
            waiting: BTreeMap::new(),
            told_at: None,
            pause,
        }
    }

    /// Joins or leaves a channel.
    pub fn set(&mut self, channel: ChannelId, join: bool) {
        self.waiting.insert(channel, join);
    }

    /// Returns when [`poll`](Self::poll) is due, if it must wait.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let at = self.told_at?;
        (!self.waiting.is_empty()).then_some(at + self.pause)
    }

    /// Returns all changes, if they are due.
    pub fn poll(&mut self, now: Instant) -> Option<BTreeMap<ChannelId, bool>> {
        if self.waiting.is_empty() || self.next_timeout().is_some_and(|at| now < at) {
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
        assert_eq!(changes.next_timeout(), Some(now + PAUSE));
        let both = BTreeMap::from([(2, false), (3, true)]);
        assert_eq!(changes.poll(now + PAUSE), Some(both));
        assert_eq!(changes.next_timeout(), None);
    }
}
