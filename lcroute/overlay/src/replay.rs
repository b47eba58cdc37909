//! Detection of repeated messages: a bounded window per sender, and hashes of the last messages, as
//! a copy that came over another carrier is not a replay.

use std::collections::{BTreeMap, VecDeque};

use librecast::id::PeerId;

/// Number of messages of which copies are recognized.
const COPIES: usize = 256;
/// Number of remembered runs of a sender's process.
const SESSIONS: usize = 4;
/// Messages of a run that may come out of order.
const WINDOW: u64 = 64;

/// Sequences of one run: the highest, and a bit for each of the 64 up to it.
#[derive(Debug)]
struct Session {
    id: u64,
    highest: u64,
    seen: u64,
}

/// Hashes of the last accepted messages.
#[derive(Debug, Default)]
pub(crate) struct Copies(VecDeque<[u8; 32]>);

impl Copies {
    pub(crate) fn hash(message: &[u8]) -> [u8; 32] {
        librecast::id::derive("lcroute 2026 signalling copies", &[message])
    }

    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.0.contains(hash)
    }

    pub(crate) fn insert(&mut self, hash: [u8; 32]) {
        if self.0.len() == COPIES {
            self.0.pop_front();
        }
        self.0.push_back(hash);
        debug_assert!(self.0.len() <= COPIES, "the eldest copy gives way");
    }
}

/// Windows of all senders. Only verified members get one, so strangers cannot fill it.
#[derive(Debug)]
pub(crate) struct ReplayCache {
    senders: BTreeMap<PeerId, VecDeque<Session>>,
    /// Senders in order of arrival, to remove the oldest first.
    order: VecDeque<PeerId>,
    capacity: usize,
}

impl ReplayCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            senders: BTreeMap::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// Returns whether this message is new, and stores it.
    pub(crate) fn is_new(&mut self, sender: &PeerId, session: u64, sequence: u64) -> bool {
        if !self.senders.contains_key(sender) {
            self.make_room();
            self.order.push_back(*sender);
        }
        debug_assert!(
            self.order.len() <= self.capacity,
            "the eldest sender gives way"
        );
        let sessions = self.senders.entry(*sender).or_default();
        if let Some(known) = sessions.iter_mut().find(|s| s.id == session) {
            return known.is_new(sequence);
        }
        if sessions.len() == SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(Session {
            id: session,
            highest: sequence,
            seen: 1,
        });
        true
    }

    /// Puts a sender that has left the network first in line for removal. Its messages stay valid
    /// for a day, and must not pass twice.
    pub(crate) fn release(&mut self, sender: &PeerId) {
        if let Some(at) = self.order.iter().position(|known| known == sender) {
            self.order.remove(at);
            self.order.push_front(*sender);
        }
    }

    fn make_room(&mut self) {
        while self.order.len() >= self.capacity {
            if let Some(eldest) = self.order.pop_front() {
                self.senders.remove(&eldest);
            }
        }
    }
}

impl Session {
    fn is_new(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let step = sequence - self.highest;
            self.seen = if step >= WINDOW { 0 } else { self.seen << step };
            self.seen |= 1;
            self.highest = sequence;
            return true;
        }
        debug_assert!(self.seen & 1 == 1, "the highest sequence was received");
        let age = self.highest - sequence;
        if age >= WINDOW || self.seen & (1 << age) != 0 {
            return false;
        }
        self.seen |= 1 << age;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    proptest! {
        #[test]
        fn nothing_is_new_twice(messages in prop::collection::vec((0_u8..3, 0_u64..3, 0_u64..200), 0..400)) {
            let mut cache = ReplayCache::new(8);
            let mut accepted = BTreeSet::new();
            for (sender, session, sequence) in messages {
                if cache.is_new(&peer(sender), session, sequence) {
                    prop_assert!(accepted.insert((sender, session, sequence)));
                }
            }
        }
    }

    #[test]
    fn order_does_not_matter_within_the_window() {
        let mut cache = ReplayCache::new(8);
        assert!(cache.is_new(&peer(1), 1, 70));
        assert!(cache.is_new(&peer(1), 1, 7));
        assert!(!cache.is_new(&peer(1), 1, 6), "older than the window");
        assert!(!cache.is_new(&peer(1), 1, 7));
        assert!(cache.is_new(&peer(1), 1, u64::MAX));
        assert!(!cache.is_new(&peer(1), 1, 70));
    }

    #[test]
    fn the_last_messages_are_known_again() {
        let mut copies = Copies::default();
        for n in 0..1_000_u32 {
            let hash = Copies::hash(&n.to_be_bytes());
            assert!(!copies.contains(&hash));
            copies.insert(hash);
            assert!(copies.contains(&hash));
        }
        assert_eq!(copies.0.len(), COPIES);
        assert!(!copies.contains(&Copies::hash(&0_u32.to_be_bytes())));
    }

    #[test]
    fn those_that_have_left_make_room_before_those_that_are_there() {
        let mut cache = ReplayCache::new(4);
        assert!(cache.is_new(&peer(0), 1, 1));
        for n in 1..200 {
            assert!(cache.is_new(&peer(n), 1, 1));
            cache.release(&peer(n));
            assert!(!cache.is_new(&peer(n), 1, 1), "it has not passed twice");
        }
        assert!(!cache.is_new(&peer(0), 1, 1));
        assert_eq!((cache.senders.len(), cache.order.len()), (4, 4));
    }

    #[test]
    fn memory_is_bounded() {
        let mut cache = ReplayCache::new(4);
        for n in 0..100 {
            for session in 0..100 {
                cache.is_new(&peer(n), session, 1);
            }
        }
        assert_eq!(cache.senders.len(), 4);
        assert_eq!(cache.order.len(), 4);
        assert!(cache.senders.values().all(|s| s.len() == SESSIONS));
    }
}
