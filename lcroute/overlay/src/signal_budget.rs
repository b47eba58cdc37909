//! Bounds of opened signalling messages: each costs half a millisecond of processor time.
//!
//! A server proves only the key of a room's member: anybody who knows the network's public key can
//! enter with any number of keys. So each sender has its own budget, and members, leaves and
//! strangers share one each, since a public token makes any number of leaves. A message that cannot
//! be opened uses up its sender's budget. For messages over links of the overlay only the last
//! neighbour is proven, which is seldom their author: it is never punished.

use std::collections::BTreeMap;

use librecast::bucket::{Bucket, Rate};
use librecast::id::PeerId;
use librecast::time::Instant;

use crate::OVERLAY_CARRIER;
use crate::event::CarrierId;

/// Bound of all members, and of all strangers, per carrier: the first messages of a mesh of 256.
const ALL: Rate = Rate::per_second(100, 1_000);
/// Bound of all leaves per carrier. Chosen: an audience of 300 at once, then six leaves a second.
const LEAVES: Rate = Rate::per_second(20, 1_000);
/// Bound of one sender: an attempt takes three messages.
const SENDER: Rate = Rate::per_second(10, 40);
/// Bound of one neighbour, which forwards messages of many nodes.
const NEIGHBOR: Rate = Rate::per_second(50, 250);
/// Maximum number of remembered senders. Chosen.
const MAX_SENDERS: usize = 1_024;
/// Maximum number of remembered carrier budgets. Chosen: three for each of 64 carriers.
const MAX_CARRIERS: usize = 192;

/// Budgets by key. If there is no room, the fullest is removed, which costs its owner nothing.
#[derive(Debug)]
struct Budgets<K> {
    buckets: BTreeMap<K, Bucket>,
    capacity: usize,
}

impl<K: Ord + Copy> Budgets<K> {
    fn new(capacity: usize) -> Self {
        Self {
            buckets: BTreeMap::new(),
            capacity,
        }
    }

    fn of(&mut self, key: K, rate: Rate, now: Instant) -> &mut Bucket {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.capacity {
            let fullest = self
                .buckets
                .iter()
                .min_by_key(|(_, b)| b.next(rate, rate.burst()));
            if let Some(key) = fullest.map(|(key, _)| *key) {
                self.buckets.remove(&key);
            }
        }
        debug_assert!(self.buckets.len() <= self.capacity, "the fullest gives way");
        self.buckets.entry(key).or_insert(Bucket::full(now))
    }
}

/// The class of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Any sender that knows the network's public key.
    Stranger,
    /// A leaf.
    Leaf,
    /// A member that is not a leaf.
    Member,
}

impl Standing {
    fn rate(self) -> Rate {
        match self {
            Self::Leaf => LEAVES,
            Self::Stranger | Self::Member => ALL,
        }
    }
}

#[derive(Debug)]
pub(crate) struct SignalBudget {
    senders: Budgets<(CarrierId, PeerId)>,
    carriers: Budgets<(CarrierId, Standing)>,
}

impl SignalBudget {
    pub(crate) fn new() -> Self {
        Self {
            senders: Budgets::new(MAX_SENDERS),
            carriers: Budgets::new(MAX_CARRIERS),
        }
    }

    /// Returns whether a message may be opened, and charges it. `sender` is the key that the server
    /// has verified, or the neighbour; `standing`: its class.
    pub(crate) fn admits(
        &mut self,
        carrier: CarrierId,
        sender: Option<PeerId>,
        standing: Standing,
        now: Instant,
    ) -> bool {
        let rate = rate_of(carrier);
        let sender = sender.map(|sender| (carrier, sender));
        // the sender's budget comes first: if it is used up, the message costs the class nothing
        if sender.is_some_and(|sender| self.senders.of(sender, rate, now).left(rate, now) == 0) {
            return false;
        }
        if !self
            .carriers
            .of((carrier, standing), standing.rate(), now)
            .take(standing.rate(), 1, now)
        {
            return false;
        }
        if let Some(sender) = sender {
            self.senders.of(sender, rate, now).spend(rate, 1, now);
        }
        true
    }

    /// Uses up the budget of a sender whose message could not be opened or had no valid signature.
    pub(crate) fn punish(&mut self, carrier: CarrierId, sender: Option<PeerId>, now: Instant) {
        if let Some(sender) = sender.filter(|_| carrier != OVERLAY_CARRIER) {
            let rate = rate_of(carrier);
            let budget = self.senders.of((carrier, sender), rate, now);
            budget.spend(rate, rate.burst(), now);
        }
    }
}

fn rate_of(carrier: CarrierId) -> Rate {
    if carrier == OVERLAY_CARRIER {
        NEIGHBOR
    } else {
        SENDER
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::{peer, start};

    const SERVER: CarrierId = CarrierId(1);

    #[test]
    fn a_sender_uses_up_its_own_budget_only() {
        let (mut budget, mut now) = (SignalBudget::new(), start());
        let mut admitted =
            |n: u32, now| budget.admits(SERVER, Some(peer(n)), Standing::Stranger, now);
        assert_eq!((0..100).filter(|_| admitted(1, now)).count(), 40);
        assert!(admitted(2, now));
        now += Duration::from_millis(550);
        assert_eq!((0..100).filter(|_| admitted(1, now)).count(), 5);
    }

    #[test]
    fn many_strangers_leave_members_and_other_carriers_alone() {
        let (mut budget, now) = (SignalBudget::new(), start());
        let strangers =
            (0..3_000).filter(|n| budget.admits(SERVER, Some(peer(*n)), Standing::Stranger, now));
        assert_eq!(strangers.count(), 1_000);
        assert!(budget.admits(SERVER, Some(peer(9_999)), Standing::Member, now));
        assert!(budget.admits(CarrierId(2), Some(peer(9_999)), Standing::Stranger, now));
        assert!(budget.admits(OVERLAY_CARRIER, Some(peer(9_999)), Standing::Member, now));
    }

    #[test]
    fn many_leaves_leave_members_and_strangers_alone() {
        let (mut budget, mut now) = (SignalBudget::new(), start());
        let mut leaves = |from: u32, now| {
            let mut admits = |n| budget.admits(SERVER, Some(peer(n)), Standing::Leaf, now);
            (from..from + 2_000).filter(|n| admits(*n)).count()
        };
        assert_eq!(leaves(0, now), 1_000);
        now += Duration::from_secs(1);
        assert_eq!(leaves(5_000, now), 20);
        for n in 0..1_000 {
            assert!(budget.admits(SERVER, Some(peer(20_000 + n)), Standing::Member, now));
            assert!(budget.admits(SERVER, Some(peer(30_000 + n)), Standing::Stranger, now));
        }
    }

    #[test]
    fn junk_silences_its_sender_but_not_a_neighbour_that_passed_it_on() {
        let (mut budget, now) = (SignalBudget::new(), start());
        for carrier in [SERVER, OVERLAY_CARRIER] {
            assert!(budget.admits(carrier, Some(peer(1)), Standing::Member, now));
            budget.punish(carrier, Some(peer(1)), now);
        }
        assert!(!budget.admits(SERVER, Some(peer(1)), Standing::Member, now));
        assert!(budget.admits(OVERLAY_CARRIER, Some(peer(1)), Standing::Member, now));
        let later = now + Duration::from_secs(1);
        assert!(budget.admits(SERVER, Some(peer(1)), Standing::Member, later));
    }

    #[test]
    fn who_is_forgotten_for_want_of_room_has_spent_least() {
        let (mut budget, now) = (SignalBudget::new(), start());
        budget.admits(SERVER, Some(peer(0)), Standing::Stranger, now);
        budget.punish(SERVER, Some(peer(0)), now);
        for n in 1..2 * MAX_SENDERS as u32 {
            let bucket = budget.senders.of((SERVER, peer(n)), SENDER, now);
            bucket.spend(SENDER, 1, now);
        }
        assert_eq!(budget.senders.buckets.len(), MAX_SENDERS);
        assert!(!budget.admits(SERVER, Some(peer(0)), Standing::Stranger, now));
    }
}
