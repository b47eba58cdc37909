//! Leaves that other routers have in this node's stead.
//!
//! ```text
//!  a leaf asks ──> a router elsewhere has it ──> refused
//!              └─> none has it ── no router there has room, or it has asked for 8 s ──> taken
//! ```
//! So each leaf that reaches another router has its link there, and one that reaches none has it here.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

use crate::helper_offer::LeafTag;

/// Time for a leaf to reach a router elsewhere. Chosen: a link takes some 3 s, with a relay 6.
const REACHES_WITHIN: Duration = Duration::from_secs(8);
/// Time without a request after which a leaf begins anew. Chosen: leaves ask each 30 s.
const ASKS_WITHIN: Duration = Duration::from_secs(120);
/// Maximum number of leaves whose requests are remembered. Chosen: twice the places of a router.
const MAX_ASKING: usize = 1_024;

/// The other routers of leaves, as their offers describe them.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    leaves: BTreeSet<LeafTag>,
    has_room: bool,
    /// First and last request of leaves that were refused here.
    asking: BTreeMap<PeerId, (Instant, Instant)>,
}

impl Elsewhere {
    /// Replaces the leaves of other routers; `has_room`: one that some leaf reaches takes more.
    pub(crate) fn set(&mut self, leaves: BTreeSet<LeafTag>, has_room: bool) {
        (self.leaves, self.has_room) = (leaves, has_room);
        if self.leaves.is_empty() {
            self.asking.clear();
        }
    }

    /// Returns whether another router has this leaf.
    pub(crate) fn has(&self, leaf: &PeerId) -> bool {
        self.leaves.contains(&LeafTag::of(leaf))
    }

    /// Returns whether this node takes a leaf that asks for a link.
    pub(crate) fn takes(&mut self, leaf: PeerId, now: Instant) -> bool {
        let is_there = self.has(&leaf);
        if !is_there && !self.has_room {
            return true;
        }
        let is_current = |(_, last): &(Instant, Instant)| now < *last + ASKS_WITHIN;
        if self.asking.len() >= MAX_ASKING && !self.asking.contains_key(&leaf) {
            self.asking.retain(|_, asked| is_current(asked));
            if self.asking.len() >= MAX_ASKING {
                // whoever asks under many keys keeps none out
                return !is_there;
            }
        }
        let asked = self.asking.entry(leaf).or_insert((now, now));
        if !is_current(asked) {
            asked.0 = now;
        }
        asked.1 = now;
        !is_there && asked.0 + REACHES_WITHIN <= now
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use crate::tests::start;

    fn leaf(n: u16) -> PeerId {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    fn elsewhere(leaves: &[PeerId], has_room: bool) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        elsewhere.set(leaves.iter().map(LeafTag::of).collect(), has_room);
        elsewhere
    }

    #[test]
    fn a_leaf_that_reaches_no_other_router_is_taken_once_it_has_tried() {
        let (bob, cy, now) = (leaf(1), leaf(2), start());
        let mut others = elsewhere(&[bob], true);
        assert!(!others.takes(cy, now));
        assert!(!others.takes(cy, now + REACHES_WITHIN / 2));
        assert!(others.takes(cy, now + REACHES_WITHIN));
        // after a long pause it begins anew
        let again = now + REACHES_WITHIN + ASKS_WITHIN;
        assert!(!others.takes(cy, again));
        assert!(others.takes(cy, again + REACHES_WITHIN));
    }

    #[test]
    fn a_leaf_that_another_router_has_is_not_taken_until_it_is_lost_there() {
        let (bob, cy, now) = (leaf(1), leaf(2), start());
        let mut others = elsewhere(&[bob], true);
        let asks = |n: u32| now + n * ASKS_WITHIN / 2;
        assert!((0..10).all(|n| !others.takes(bob, asks(n))));
        others.set(BTreeSet::from([LeafTag::of(&cy)]), true);
        assert!(others.takes(bob, asks(10)));
    }

    #[test]
    fn without_room_elsewhere_all_but_the_leaves_there_are_taken_at_once() {
        let (bob, cy, now) = (leaf(1), leaf(2), start());
        let mut others = elsewhere(&[bob], false);
        assert!(!others.takes(bob, now));
        assert!(others.takes(cy, now));
        assert!(Elsewhere::default().takes(bob, now));
    }

    #[test]
    fn requests_under_many_keys_use_little_memory_and_keep_nobody_out() {
        let (bob, now) = (leaf(0), start());
        let mut others = elsewhere(&[bob], true);
        let refused = (1..=1_030).filter(|n| !others.takes(leaf(*n), now));
        assert_eq!(refused.count(), MAX_ASKING);
        assert_eq!(others.asking.len(), MAX_ASKING);
        assert!(!others.takes(bob, now));
        let later = now + ASKS_WITHIN;
        assert!(!others.takes(leaf(2_000), later));
        assert_eq!(others.asking.len(), 1);
    }
}
