//! Leaves that other routers serve in this node's stead.
//!
//! ```text
//!  a leaf asks ──> routers elsewhere have room ──> refused, until it has asked for 8 s
//!              └─> none has room ──> taken
//! ```
//! A leaf that reaches another router leaves this one by itself: no router's word about its leaves
//! counts.

use std::collections::BTreeMap;

use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

/// Time for a leaf to reach a router elsewhere. Chosen: a link takes some 3 s, with a relay 6.
const REACHES_WITHIN: Duration = Duration::from_secs(8);
/// Time without a request after which a leaf begins anew. Chosen: leaves ask each 30 s.
const ASKS_WITHIN: Duration = Duration::from_secs(120);
/// Maximum number of leaves whose requests are remembered. Chosen: twice the places of a router.
const MAX_ASKING: usize = 1_024;

/// The other routers of leaves, as their offers describe them.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    has_room: bool,
    /// First and last request of leaves that were refused here.
    asking: BTreeMap<PeerId, (Instant, Instant)>,
}

impl Elsewhere {
    /// Sets whether a router elsewhere, one that some leaf reaches, takes more.
    pub(crate) fn set(&mut self, has_room: bool) {
        self.has_room = has_room;
        if !has_room {
            self.asking.clear();
        }
    }

    /// Returns whether this node takes a leaf that asks for a link.
    pub(crate) fn takes(&mut self, leaf: PeerId, now: Instant) -> bool {
        if !self.has_room {
            return true;
        }
        let is_current = |(_, last): &(Instant, Instant)| now < *last + ASKS_WITHIN;
        if self.asking.len() >= MAX_ASKING && !self.asking.contains_key(&leaf) {
            self.asking.retain(|_, asked| is_current(asked));
            if self.asking.len() >= MAX_ASKING {
                // a leaf that asks under many keys keeps none out
                return true;
            }
        }
        let asked = self.asking.entry(leaf).or_insert((now, now));
        if !is_current(asked) {
            asked.0 = now;
        }
        asked.1 = now;
        asked.0 + REACHES_WITHIN <= now
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

    fn with_room() -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        elsewhere.set(true);
        elsewhere
    }

    #[test]
    fn a_leaf_that_reaches_no_other_router_is_taken_once_it_has_tried() {
        let (cy, now) = (leaf(2), start());
        let mut others = with_room();
        assert!(!others.takes(cy, now));
        assert!(!others.takes(cy, now + REACHES_WITHIN / 2));
        assert!(others.takes(cy, now + REACHES_WITHIN));
        // after a long pause it begins anew
        let again = now + REACHES_WITHIN + ASKS_WITHIN;
        assert!(!others.takes(cy, again));
        assert!(others.takes(cy, again + REACHES_WITHIN));
    }

    #[test]
    fn without_room_elsewhere_all_leaves_are_taken_at_once() {
        let (bob, now) = (leaf(1), start());
        let mut others = with_room();
        assert!(!others.takes(bob, now));
        others.set(false);
        assert!(others.takes(bob, now));
        assert!(Elsewhere::default().takes(bob, now));
    }

    #[test]
    fn requests_under_many_keys_use_little_memory_and_keep_nobody_out() {
        let now = start();
        let mut others = with_room();
        let refused = (1..=1_030).filter(|n| !others.takes(leaf(*n), now));
        assert_eq!(refused.count(), MAX_ASKING);
        assert_eq!(others.asking.len(), MAX_ASKING);
        let later = now + ASKS_WITHIN;
        assert!(!others.takes(leaf(2_000), later));
        assert_eq!(others.asking.len(), 1);
    }
}
