//! Leaves that do not accept joined packets: the queue of such a link must not use memory for ever.
//!
//! ```text
//!   draining ── queue full ──> full since t ── full again at t + 5 s ──> slow: its link is closed
//!       ^                          │
//!       └──── a packet went in ────┘                                          (`leaf_slow`)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use lcroute_overlay::SendError;
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};

/// Time with a full queue after which a leaf's link is closed. Chosen: no network pauses as long.
const LEAF_STUCK: Duration = Duration::from_secs(5);

/// Links with leaves, and the times since which their queues are full.
#[derive(Debug, Default)]
pub(crate) struct SlowLeaves {
    leaves: BTreeSet<LinkId>,
    full_since: BTreeMap<LinkId, Instant>,
}

impl SlowLeaves {
    pub(crate) fn link_up(&mut self, link: LinkId) {
        self.leaves.insert(link);
    }

    /// Removes a link; returns whether it was a leaf's.
    pub(crate) fn link_down(&mut self, link: LinkId) -> bool {
        self.full_since.remove(&link);
        self.leaves.remove(&link)
    }

    pub(crate) fn contains(&self, link: LinkId) -> bool {
        self.leaves.contains(&link)
    }

    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Handles the result of a send on a link. True: the link is a leaf's, which is too slow.
    pub(crate) fn is_slow(
        &mut self,
        link: LinkId,
        sent: Result<(), SendError>,
        now: Instant,
    ) -> bool {
        match sent {
            Ok(()) => {
                if !self.full_since.is_empty() {
                    self.full_since.remove(&link);
                }
                return false;
            }
            // the leaf has taken nothing
            Err(SendError::TooLarge | SendError::NoSuchLink) => return false,
            Err(SendError::QueueFull) => {}
        }
        if !self.leaves.contains(&link) {
            return false;
        }
        let since = *self.full_since.entry(link).or_insert(now);
        since + LEAF_STUCK <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const LEAF: LinkId = LinkId(1);
    const OTHER: LinkId = LinkId(2);
    const ROUTER: LinkId = LinkId(3);
    const FULL: Result<(), SendError> = Err(SendError::QueueFull);

    fn leaves() -> SlowLeaves {
        let mut leaves = SlowLeaves::default();
        leaves.link_up(LEAF);
        leaves.link_up(OTHER);
        leaves
    }

    #[test]
    fn a_leaf_that_takes_nothing_for_five_seconds_is_slow_and_nobody_else_is() {
        let (mut leaves, now) = (leaves(), start());
        for tenths in 0..50 {
            let now = now + Duration::from_millis(100 * tenths);
            assert!(!leaves.is_slow(LEAF, FULL, now), "{tenths}");
            assert!(!leaves.is_slow(OTHER, Ok(()), now));
            assert!(!leaves.is_slow(ROUTER, FULL, now));
        }
        let now = now + LEAF_STUCK;
        assert!(leaves.is_slow(LEAF, FULL, now));
        assert!(!leaves.is_slow(OTHER, FULL, now));
        assert!(!leaves.is_slow(ROUTER, FULL, now));
    }

    #[test]
    fn one_packet_that_went_in_begins_the_time_anew() {
        let (mut leaves, now) = (leaves(), start());
        assert!(!leaves.is_slow(LEAF, FULL, now));
        let later = now + LEAF_STUCK - Duration::from_millis(1);
        assert!(!leaves.is_slow(LEAF, Ok(()), later));
        assert!(!leaves.is_slow(LEAF, FULL, now + LEAF_STUCK));
        assert!(leaves.is_slow(LEAF, FULL, now + 2 * LEAF_STUCK));
    }

    #[test]
    fn a_packet_that_is_too_large_did_not_go_in() {
        let (mut leaves, now) = (leaves(), start());
        assert!(!leaves.is_slow(LEAF, FULL, now));
        assert!(!leaves.is_slow(LEAF, Err(SendError::TooLarge), now));
        assert!(leaves.is_slow(LEAF, FULL, now + LEAF_STUCK));
    }

    #[test]
    fn what_was_known_of_a_link_goes_with_it() {
        let (mut leaves, now) = (leaves(), start());
        assert!(!leaves.is_slow(LEAF, FULL, now));
        assert!(leaves.link_down(LEAF));
        assert!(!leaves.link_down(LEAF) && !leaves.link_down(ROUTER));
        assert_eq!((leaves.len(), leaves.full_since.len()), (1, 0));
        assert!(!leaves.is_slow(LEAF, FULL, now + LEAF_STUCK));
    }
}
