//! Which version of a share a receiver takes, of those whose records it hears.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::block::BlockHash;
use crate::record::Record;

/// A server not heard for so long does not hold a receiver to its version: records come five times a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Versions remembered of which nothing came.
const MAX_HOLLOW: usize = 64;

/// What a record means for the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first one, or the version in hand again.
    Current,
    /// Another version takes its place: what has been fetched so far is checked against it.
    Changed,
    /// Not taken: another server has another version under the same name. Said once.
    Conflict,
    /// Not taken.
    Ignored,
}

/// The version in hand.
#[derive(Debug)]
pub struct Choice {
    pinned: Option<BlockHash>,
    record: Option<Record>,
    /// Where that record came from.
    from: Ipv6Addr,
    heard: Instant,
    conflict_said: bool,
    /// Versions of which nothing came: taken only where there is no other.
    hollow: VecDeque<BlockHash>,
}

impl Choice {
    /// None yet; with `pinned`, no other root hash will do.
    #[must_use]
    pub fn new(pinned: Option<BlockHash>, now: Instant) -> Self {
        Self {
            pinned,
            record: None,
            from: Ipv6Addr::UNSPECIFIED,
            heard: now,
            conflict_said: false,
            hollow: VecDeque::new(),
        }
    }

    /// The newest record of the version in hand, by the server that is followed: it also sets the limits.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Nothing of the version in hand comes, not even its root node: any other that is heard takes its place.
    pub fn nothing_comes(&mut self) {
        let Some(record) = &self.record else {
            return;
        };
        if !self.hollow.contains(&record.root.hash) {
            if self.hollow.len() == MAX_HOLLOW {
                self.hollow.pop_front();
            }
            self.hollow.push_back(record.root.hash);
        }
    }

    /// A record was heard. Only the server that is followed may replace its version, from the address it has: its
    /// number alone is seen by everybody.
    pub fn handle(&mut self, record: &Record, from: Ipv6Addr, now: Instant) -> Verdict {
        if self.pinned.is_some_and(|pinned| pinned != record.root.hash) {
            return self.conflict();
        }
        let Some(current) = &self.record else {
            self.follow(record, from, now);
            return Verdict::Current;
        };
        let is_hollow = |hash| self.hollow.contains(hash);
        let orphaned = now.saturating_duration_since(self.heard) >= PATIENCE
            || (is_hollow(&current.root.hash) && !is_hollow(&record.root.hash));
        let followed = record.server == current.server && from == self.from;
        if record.root == current.root && record.metadata == current.metadata {
            if followed || orphaned {
                self.follow(record, from, now);
            }
            return Verdict::Current;
        }
        if orphaned || (followed && record.generation > current.generation) {
            self.follow(record, from, now);
            return Verdict::Changed;
        }
        // the same files with other times, an old record that was late, or one by another way
        if record.root == current.root || record.server == current.server {
            return Verdict::Ignored;
        }
        self.conflict()
    }

    fn follow(&mut self, record: &Record, from: Ipv6Addr, now: Instant) {
        self.record = Some(record.clone());
        (self.from, self.heard) = (from, now);
    }

    fn conflict(&mut self) -> Verdict {
        if std::mem::replace(&mut self.conflict_said, true) {
            Verdict::Ignored
        } else {
            Verdict::Conflict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockRef;
    use crate::tree::{ROOT_SIZE, Stream};

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn record(server: u32, generation: u64, root: u8) -> Record {
        Record {
            server,
            generation,
            root: BlockRef {
                hash: BlockHash([root; 32]),
                length: ROOT_SIZE as u32,
            },
            metadata: Stream::default(),
            channel_rate: 1,
            total_rate: 0,
            max_channels: 1,
            authentication: Vec::new(),
            sending: Vec::new(),
        }
    }

    #[test]
    fn the_first_version_counts_and_a_conflict_is_said_once() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        assert_eq!(
            choice.handle(&record(1, 5, 1), host(1), now),
            Verdict::Current
        );
        assert_eq!(
            choice.handle(&record(2, 9, 2), host(2), now),
            Verdict::Conflict
        );
        assert_eq!(
            choice.handle(&record(2, 9, 2), host(2), now),
            Verdict::Ignored
        );
        assert_eq!(
            choice.handle(&record(3, 1, 1), host(3), now),
            Verdict::Current
        );
    }

    #[test]
    fn a_newer_generation_of_the_same_server_replaces_an_older_does_not() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(
            choice.handle(&record(1, 4, 2), host(1), now),
            Verdict::Ignored
        );
        assert_eq!(
            choice.handle(&record(1, 6, 2), host(1), now),
            Verdict::Changed
        );
        assert_eq!(choice.record().unwrap().generation, 6);
    }

    #[test]
    fn nobody_replaces_or_slows_a_server_under_its_number() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        let taken_over = choice.handle(&record(1, 6, 2), host(9), now);
        assert_eq!(taken_over, Verdict::Ignored);
        let slowed = Record {
            channel_rate: 1_000,
            ..record(1, 6, 1)
        };
        assert_eq!(choice.handle(&slowed, host(9), now), Verdict::Current);
        assert_eq!(choice.record(), Some(&record(1, 5, 1)));
    }

    #[test]
    fn another_server_of_the_same_version_is_followed_when_the_first_is_gone() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        let later = now + PATIENCE;
        choice.handle(&record(2, 3, 1), host(2), later);
        let changed = choice.handle(&record(2, 4, 2), host(2), later);
        assert_eq!(changed, Verdict::Changed);
    }

    #[test]
    fn when_the_server_is_gone_another_version_is_taken() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(
            choice.handle(&record(2, 1, 2), host(2), now + PATIENCE),
            Verdict::Changed
        );
    }

    #[test]
    fn a_version_of_which_nothing_comes_gives_way_to_another() {
        let now = Instant::now();
        let mut choice = Choice::new(None, now);
        choice.handle(&record(1, 5, 1), host(1), now);
        choice.nothing_comes();
        let same = choice.handle(&record(1, 5, 1), host(1), now);
        assert_eq!(same, Verdict::Current);
        let other = choice.handle(&record(2, 5, 2), host(2), now);
        assert_eq!(other, Verdict::Changed);
        let back = choice.handle(&record(1, 5, 1), host(1), now);
        assert_ne!(back, Verdict::Changed);
    }

    #[test]
    fn a_pinned_root_admits_no_other() {
        let now = Instant::now();
        let mut choice = Choice::new(Some(BlockHash([7; 32])), now);
        assert_eq!(
            choice.handle(&record(1, 5, 1), host(1), now),
            Verdict::Conflict
        );
        assert!(choice.record().is_none());
        assert_eq!(
            choice.handle(&record(2, 5, 7), host(2), now),
            Verdict::Current
        );
        assert_eq!(
            choice.handle(&record(2, 6, 8), host(2), now + PATIENCE * 2),
            Verdict::Ignored
        );
    }
}
