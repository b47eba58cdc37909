//! LSAs on the flood tree, until IHAVE has named them over all other links (Plumtree).
//!
//! One to two seconds after an LSA, the lower router of each link sends its name, and a second
//! later the higher one. A router sends none if it knows by then that the neighbour has the LSA.

use std::collections::{BTreeMap, VecDeque};

use librecast::id::LinkId;
use librecast::time::{Duration, Instant};
use smallvec::SmallVec;

use super::lsa::{LsaId, Version};
use super::pending::FloodPacing;
use super::summary::SummaryEntry;

/// Interval of IHAVE. Chosen: the flood tree is faster by far.
const IHAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Links, mostly of a router with few links.
pub(super) type LinkSet = SmallVec<[LinkId; 8]>;

#[derive(Debug)]
struct Waiting {
    version: Version,
    /// Links to neighbours that have the LSA, or get it over the tree.
    known_by: LinkSet,
    /// The lower routers have sent its name.
    lower_done: bool,
}

#[derive(Debug)]
pub(super) struct DueIhave {
    pub entry: SummaryEntry,
    /// For links on which this end has the lower id; else for the other links.
    pub by_lower: bool,
    /// Links to leave out.
    pub known_by: LinkSet,
}

#[derive(Debug, Default)]
pub(super) struct IhaveSchedule {
    waiting: BTreeMap<LsaId, Waiting>,
    due: VecDeque<(Instant, LsaId)>,
}

impl IhaveSchedule {
    /// Adds an LSA, with the links that need no IHAVE.
    pub fn add(&mut self, entry: SummaryEntry, known_by: LinkSet, started: Instant, now: Instant) {
        let SummaryEntry { id, version } = entry;
        let waiting = Waiting {
            version,
            known_by,
            lower_done: false,
        };
        if self.waiting.insert(id, waiting).is_none() {
            let interval = IHAVE_INTERVAL;
            let at = FloodPacing { started, interval }.next(now + interval);
            self.schedule(at, id);
        }
    }

    /// Adds an LSA in order of time: a late timer puts its next one behind newer LSAs otherwise.
    fn schedule(&mut self, at: Instant, id: LsaId) {
        let place = self.due.partition_point(|(other, _)| *other <= at);
        self.due.insert(place, (at, id));
        let (first, last) = (self.due.front(), self.due.back());
        debug_assert!(
            first.map(|(at, _)| at) <= last.map(|(at, _)| at),
            "the first LSA is due first"
        );
        debug_assert_eq!(
            self.due.len(),
            self.waiting.len(),
            "each LSA that waits is due once"
        );
    }

    /// Notes that the neighbour on this link has the LSA.
    pub fn note_known(&mut self, id: LsaId, link: LinkId) {
        if let Some(waiting) = self.waiting.get_mut(&id)
            && !waiting.known_by.contains(&link)
        {
            waiting.known_by.push(link);
        }
    }

    /// Whether the LSA waits in this version.
    pub fn contains(&self, entry: &SummaryEntry) -> bool {
        let waiting = self.waiting.get(&entry.id);
        waiting.is_some_and(|waiting| waiting.version == entry.version)
    }

    /// Removes an LSA: no IHAVE names it.
    pub fn remove(&mut self, id: LsaId) {
        if self.waiting.remove(&id).is_some() {
            self.due.retain(|(_, due)| *due != id);
        }
    }

    /// The next LSA that is due.
    pub fn next(&mut self, now: Instant) -> Option<DueIhave> {
        let (_, id) = self.due.pop_front_if(|(at, _)| *at <= now)?;
        let waiting = self.waiting.get_mut(&id)?;
        let by_lower = !waiting.lower_done;
        let version = waiting.version;
        let known_by = if by_lower {
            waiting.lower_done = true;
            let known_by = waiting.known_by.clone();
            self.schedule(now + IHAVE_INTERVAL, id);
            known_by
        } else {
            self.waiting.remove(&id)?.known_by
        };
        Some(DueIhave {
            entry: SummaryEntry { id, version },
            by_lower,
            known_by,
        })
    }

    /// The time of the next LSA.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const ID: LsaId = LsaId { key: 1, kind: 2 };
    const ENTRY: SummaryEntry = SummaryEntry {
        id: ID,
        version: Version(7),
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn next(ihaves: &mut IhaveSchedule, now: Instant) -> Option<(bool, Vec<LinkId>)> {
        let due = ihaves.next(now)?;
        assert_eq!(due.entry, ENTRY);
        Some((due.by_lower, due.known_by.to_vec()))
    }

    #[test]
    fn names_go_out_from_the_lower_and_then_from_the_higher_router() {
        let (mut ihaves, t) = (IhaveSchedule::default(), start());
        let [a, b, c] = [1, 2, 3].map(LinkId);
        ihaves.add(ENTRY, [a].into_iter().collect(), t, t + ms(300));
        ihaves.note_known(ID, b);
        assert_eq!(ihaves.next_timeout(), Some(t + ms(2_000)));
        assert_eq!(next(&mut ihaves, t + ms(1_999)), None);
        let first = next(&mut ihaves, t + ms(2_000));
        assert_eq!(first, Some((true, vec![a, b])));
        ihaves.note_known(ID, c);
        ihaves.note_known(ID, c);
        assert_eq!(next(&mut ihaves, t + ms(2_999)), None);
        let second = next(&mut ihaves, t + ms(3_000));
        assert_eq!(second, Some((false, vec![a, b, c])));
        assert_eq!(ihaves.next_timeout(), None);
    }

    #[test]
    fn a_late_timer_of_the_lower_router_delays_the_higher_one_by_no_more() {
        let (mut ihaves, t) = (IhaveSchedule::default(), start());
        ihaves.add(ENTRY, LinkSet::new(), t, t);
        let other = SummaryEntry {
            id: LsaId { key: 2, kind: 2 },
            ..ENTRY
        };
        ihaves.add(other, LinkSet::new(), t, t + ms(1_100));
        assert!(next(&mut ihaves, t + ms(1_300)).is_some_and(|(by_lower, _)| by_lower));
        assert_eq!(ihaves.next_timeout(), Some(t + ms(2_300)));
    }

    #[test]
    fn a_newer_lsa_is_named_to_all_again_and_a_removed_one_to_nobody() {
        let (mut ihaves, t) = (IhaveSchedule::default(), start());
        let [a, b] = [1, 2].map(LinkId);
        ihaves.add(ENTRY, [a].into_iter().collect(), t, t);
        assert!(ihaves.contains(&ENTRY));
        let newer = SummaryEntry {
            version: Version(8),
            ..ENTRY
        };
        assert!(!ihaves.contains(&newer));
        assert!(next(&mut ihaves, t + ms(1_000)).is_some());
        ihaves.add(ENTRY, [b].into_iter().collect(), t, t + ms(1_500));
        let first = next(&mut ihaves, t + ms(2_000));
        assert_eq!(first, Some((true, vec![b])));
        ihaves.remove(ID);
        assert_eq!(
            (next(&mut ihaves, t + ms(9_000)), ihaves.next_timeout()),
            (None, None)
        );
    }
}
