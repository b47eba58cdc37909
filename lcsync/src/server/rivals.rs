//! Hosts that publish under the key of a share what its own server does not: a copied image. Why it is told so:
//! docs/adr/0062.
//!
//! ```text
//! earlier runs of this server <= floor < versions of this run, and those of whoever else has the key
//! ```
//!
//! Servers of one share meet on a channel of their own while somebody listens: each sends its record there and hears those
//! of others.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::channel::ChannelId;

use crate::block::BlockHash;
use crate::record::Record;

/// Where servers of a share meet: no block has this channel but by a chance of 2^-64.
pub const SERVERS_CHANNEL: ChannelId = 1;
/// Between two records on that channel. Chosen: two copied hosts run for days before somebody looks.
pub const MEET_INTERVAL: Duration = Duration::from_secs(5);
/// A host that is not heard for so long is gone: six records of which some may be lost.
const GONE: Duration = Duration::from_secs(30);
/// Versions of this run that are known again. Chosen: of who changes files once a minute, those of a day.
const MAX_OWN: usize = 1_440;
/// Hosts that are named: who has the key can pretend to be any number.
const MAX_RIVALS: usize = 16;

/// A host that publishes something else under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Where it is heard.
    pub interface: u32,
    /// Where its records come from.
    pub address: Ipv6Addr,
    /// What it publishes.
    pub root: BlockHash,
    /// Milliseconds of Unix time when it has.
    pub generation: u64,
    /// When its last record was.
    pub received: Instant,
}

/// What one share knows of them.
#[derive(Debug)]
pub struct Rivals {
    /// Versions up to this one may be of earlier runs: whoever has recorded them can send them again.
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

    /// This server publishes a version.
    pub fn publish(&mut self, generation: u64, root: BlockHash) {
        if self.own.len() == MAX_OWN
            && let Some((forgotten, _)) = self.own.pop_front()
        {
            self.floor = self.floor.max(forgotten);
        }
        self.own.push_back((generation, root));
        // who has the same files now is none
        self.known.retain(|_, rival| rival.root != root);
    }

    /// A record came in that is proven to be made with the key of the share. A rival that was not known, if it is of one.
    pub fn handle(
        &mut self,
        record: &Record,
        (interface, address): (u32, Ipv6Addr),
        now: Instant,
    ) -> Option<Rival> {
        let root = record.root.hash;
        let place = (interface, address);
        // what this run has published, as another server of the same files passes it on
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
            // one that was late, or is sent again by somebody
            if record.generation >= known.generation {
                *known = rival;
            }
            return None;
        }
        if self.known.len() >= MAX_RIVALS {
            return None;
        }
        self.known.insert(place, rival);
        Some(rival)
    }

    /// Those that are there.
    pub fn known(&self, now: Instant) -> impl Iterator<Item = &Rival> {
        let known = self.known.values();
        known.filter(move |rival| !rival.is_gone(now))
    }

    /// Forgets those that are gone.
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
        // it has begun before this run, and after the copy
        let told = rivals.handle(&record(150, 7), (LAN, OTHER), now);
        assert_eq!(told.map(|rival| rival.address), Some(OTHER));
        for generation in [150, 300, 250] {
            now += GONE / 2;
            let record = record(generation, 7);
            assert_eq!(rivals.handle(&record, (LAN, OTHER), now), None);
        }
        // the last was older than what it had said
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
        // the own one before is still passed on
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
        // the first one, which this run no longer knows
        assert_eq!(rivals.handle(&record(200, 1), (LAN, OTHER), later), None);
    }
}
