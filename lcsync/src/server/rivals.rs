//! Hosts with a copied key: they publish other files under the key of a share (docs/adr/lcsync.md).
//!
//! ```text
//! earlier runs of this server <= floor < versions of this run and of other holders of the key
//! ```
//!
//! Servers of a share meet on a channel of their own while the share has members: each sends its
//! record to it, and receives those of the other servers.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::channel::ChannelId;
use librecast::time::{Duration, Instant};

use crate::block::BlockHash;
use crate::record::Record;

/// Channel on which servers of a share meet; a block has it with a chance of 2^-64.
pub const SERVERS_CHANNEL: ChannelId = 1;
/// Interval of records on that channel. Chosen: copied hosts run for days unnoticed.
pub const MEET_INTERVAL: Duration = Duration::from_secs(5);
/// Silence after which a host is gone: six records, of which some may get lost.
const GONE: Duration = Duration::from_secs(30);
/// Most own versions that are known again. Chosen: those of a day at one each minute.
const MAX_OWN: usize = 1_440;
/// Most known rivals, as a holder of the key can pretend to be any number.
const MAX_RIVALS: usize = 16;

/// A host that publishes other files under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Index of the interface from which its records come.
    pub interface: u32,
    /// Source address of its records.
    pub address: Ipv6Addr,
    /// Root hash of its version.
    pub root: BlockHash,
    /// Milliseconds of Unix time when it published.
    pub generation: u64,
    /// When its last record came.
    pub received: Instant,
}

/// The rivals of one share.
#[derive(Debug)]
pub struct Rivals {
    /// Versions up to this one may be of earlier runs: anybody can send recorded ones again.
    floor: u64,
    own: VecDeque<(u64, BlockHash)>,
    known: BTreeMap<(u32, Ipv6Addr), Rival>,
}

impl Rivals {
    /// `floor` is the highest generation that earlier runs have published.
    #[must_use]
    pub fn new(floor: u64) -> Self {
        Self {
            floor,
            own: VecDeque::new(),
            known: BTreeMap::new(),
        }
    }

    /// Notes that this server publishes a version.
    pub fn publish(&mut self, generation: u64, root: BlockHash) {
        if self.own.len() == MAX_OWN
            && let Some((forgotten, _)) = self.own.pop_front()
        {
            self.floor = self.floor.max(forgotten);
        }
        self.own.push_back((generation, root));
        debug_assert!(self.own.len() <= MAX_OWN, "the oldest version gives way");
        // a server of the same files is not a rival
        self.known.retain(|_, rival| rival.root != root);
    }

    /// Handles a record that is proven with the share's key. Returns its rival, if new.
    pub fn handle(
        &mut self,
        record: &Record,
        (interface, address): (u32, Ipv6Addr),
        now: Instant,
    ) -> Option<Rival> {
        let root = record.root.hash;
        let place = (interface, address);
        // a version of this run: another server of the same files sends it
        if self.own.iter().any(|(_, own)| *own == root) {
            self.known.remove(&place);
            return None;
        }
        if record.generation <= self.floor {
            return None;
        }
        self.forget(now);
        let rival = Rival {
            interface,
            address,
            root,
            generation: record.generation,
            received: now,
        };
        if let Some(known) = self.known.get_mut(&place) {
            // an older record: delayed, or replayed
            if record.generation >= known.generation {
                *known = rival;
            }
            return None;
        }
        if self.known.len() >= MAX_RIVALS {
            return None;
        }
        self.known.insert(place, rival);
        debug_assert!(self.known.len() <= MAX_RIVALS, "rivals have a bound");
        Some(rival)
    }

    /// Returns the present rivals.
    pub fn known(&self, now: Instant) -> impl Iterator<Item = &Rival> {
        let known = self.known.values();
        known.filter(move |rival| !rival.is_gone(now))
    }

    /// Forgets rivals that are gone.
    pub fn forget(&mut self, now: Instant) {
        self.known.retain(|_, rival| !rival.is_gone(now));
    }
}

impl Rival {
    fn is_gone(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.received) >= GONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 3;
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn record(generation: u64, root: u8) -> Record {
        let mut record = crate::record::tests::record(9, generation);
        record.root.hash = BlockHash([root; 32]);
        record
    }

    /// Earlier runs have published up to 100, this one root 1 as 200.
    fn rivals() -> (Rivals, Instant) {
        let mut rivals = Rivals::new(100);
        rivals.publish(200, BlockHash([1; 32]));
        (rivals, Instant::now())
    }

    #[test]
    fn another_host_is_told_once_and_known_as_long_as_it_is_heard() {
        let (mut rivals, mut now) = rivals();
        // it has published before this run began, and after the copy
        let told = rivals.handle(&record(150, 7), (LAN, OTHER), now);
        assert_eq!(told.map(|rival| rival.address), Some(OTHER));
        for generation in [150, 300, 250] {
            now += GONE / 2;
            let record = record(generation, 7);
            assert_eq!(rivals.handle(&record, (LAN, OTHER), now), None);
        }
        // the last record was older than the one before
        now += GONE / 2;
        assert_eq!(rivals.known(now).count(), 0);
        assert!(rivals.handle(&record(300, 7), (LAN, OTHER), now).is_some());
    }

    #[test]
    fn own_packets_and_those_of_earlier_runs_and_of_servers_of_the_same_files_are_no_alarm() {
        let (mut rivals, now) = rivals();
        for (generation, root) in [
            (200, 1), // looped back, or sent again
            (100, 7), // of an earlier run
            (30, 7),
            (500, 1), // of another server that has the same files
        ] {
            let record = record(generation, root);
            assert_eq!(rivals.handle(&record, (LAN, OTHER), now), None);
        }
        // other servers still send the previous own version
        rivals.publish(600, BlockHash([2; 32]));
        assert_eq!(rivals.handle(&record(200, 1), (LAN, OTHER), now), None);
        assert_eq!(rivals.known(now).count(), 0);
    }

    #[test]
    fn who_gets_the_same_files_is_a_rival_no_longer() {
        let (mut rivals, now) = rivals();
        assert!(rivals.handle(&record(300, 7), (LAN, OTHER), now).is_some());
        assert_eq!(rivals.handle(&record(400, 1), (LAN, OTHER), now), None);
        assert_eq!(rivals.known(now).count(), 0);
        assert!(rivals.handle(&record(500, 8), (LAN, OTHER), now).is_some());
        rivals.publish(600, BlockHash([8; 32]));
        assert_eq!(rivals.known(now).count(), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_alarms_nobody() {
        let (mut rivals, now) = rivals();
        for n in 0..2 * MAX_RIVALS as u16 {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
            rivals.handle(&record(300, 7), (LAN, address), now);
        }
        assert_eq!(rivals.known(now).count(), MAX_RIVALS);
        let later = now + GONE;
        for n in 0..MAX_OWN as u64 {
            rivals.publish(1_000 + n, BlockHash([2; 32]));
        }
        assert_eq!(rivals.own.len(), MAX_OWN);
        // a version that this run has forgotten
        assert_eq!(rivals.handle(&record(200, 1), (LAN, OTHER), later), None);
    }
}
