//! News that went along the tree, until they have been offered over all other links.
//!
//! A second after it came, in steps of a second, the lower router of each two offers it by name, and a
//! second later the higher one: whoever has heard meanwhile that the other has it leaves it.

use std::collections::{BTreeMap, VecDeque};

use librecast::id::LinkId;
use librecast::time::{Duration, Instant};
use smallvec::SmallVec;

use super::flooding::FloodPacing;
use super::record::{LsaId, Version};
use super::summary::SummaryEntry;

/// In steps of this.
const IHAVE_STEP: Duration = Duration::from_secs(1);

/// LinkQueues, mostly those of a router that has few.
pub(crate) type LinkSet = SmallVec<[LinkId; 8]>;

#[derive(Debug)]
struct News {
    version: Version,
    /// LinkQueues whose other ends have it, or get it on their way.
    told: LinkSet,
    /// The lower routers have offered it.
    second: bool,
}

/// What is to be offered.
#[derive(Debug)]
pub(crate) struct DueIhave {
    pub entry: SummaryEntry,
    /// By the lower router of two, or by the higher one.
    pub by_lower: bool,
    /// Not over these links.
    pub told: LinkSet,
}

/// News that wait for it.
#[derive(Debug, Default)]
pub(crate) struct IhaveSchedule {
    news: BTreeMap<LsaId, News>,
    due: VecDeque<(Instant, LsaId)>,
}

impl IhaveSchedule {
    /// News, and the links that need no offer.
    pub fn add(&mut self, entry: SummaryEntry, told: LinkSet, started: Instant, now: Instant) {
        let SummaryEntry { id, version } = entry;
        let news = News {
            version,
            told,
            second: false,
        };
        if self.news.insert(id, news).is_none() {
            let gap = IHAVE_STEP;
            let at = FloodPacing { started, gap }.next(now + gap);
            self.due.push_back((at, id));
        }
    }

    /// The other end of this link has it.
    pub fn told(&mut self, id: LsaId, link: LinkId) {
        if let Some(news) = self.news.get_mut(&id)
            && !news.told.contains(&link)
        {
            news.told.push(link);
        }
    }

    /// Whether it waits here in just this version.
    pub fn waits(&self, entry: &SummaryEntry) -> bool {
        let news = self.news.get(&entry.id);
        news.is_some_and(|news| news.version == entry.version)
    }

    /// Nobody needs to hear of it.
    pub fn remove(&mut self, id: LsaId) {
        if self.news.remove(&id).is_some() {
            self.due.retain(|(_, due)| *due != id);
        }
    }

    /// The next one whose time has come.
    pub fn next(&mut self, now: Instant) -> Option<DueIhave> {
        let (_, id) = self.due.pop_front_if(|(at, _)| *at <= now)?;
        let news = self.news.get_mut(&id)?;
        let by_lower = !news.second;
        let version = news.version;
        let told = if by_lower {
            news.second = true;
            self.due.push_back((now + IHAVE_STEP, id));
            news.told.clone()
        } else {
            self.news.remove(&id)?.told
        };
        let entry = SummaryEntry { id, version };
        Some(DueIhave {
            entry,
            by_lower,
            told,
        })
    }

    /// When there is something to be offered.
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

    fn next(offers: &mut IhaveSchedule, now: Instant) -> Option<(bool, Vec<LinkId>)> {
        let offer = offers.next(now)?;
        assert_eq!(offer.entry, ENTRY);
        Some((offer.by_lower, offer.told.to_vec()))
    }

    #[test]
    fn news_are_offered_by_the_lower_and_then_by_the_higher_router() {
        let (mut offers, t) = (IhaveSchedule::default(), start());
        let [a, b, c] = [1, 2, 3].map(LinkId);
        offers.add(ENTRY, [a].into_iter().collect(), t, t + ms(300));
        offers.told(ID, b);
        assert_eq!(offers.next_timeout(), Some(t + ms(2_000)));
        assert_eq!(next(&mut offers, t + ms(1_999)), None);
        let first = next(&mut offers, t + ms(2_000));
        assert_eq!(first, Some((true, vec![a, b])));
        offers.told(ID, c);
        offers.told(ID, c);
        assert_eq!(next(&mut offers, t + ms(2_999)), None);
        let second = next(&mut offers, t + ms(3_000));
        assert_eq!(second, Some((false, vec![a, b, c])));
        assert_eq!(offers.next_timeout(), None);
    }

    #[test]
    fn what_is_newer_is_offered_to_all_again_and_what_is_gone_to_nobody() {
        let (mut offers, t) = (IhaveSchedule::default(), start());
        let [a, b] = [1, 2].map(LinkId);
        offers.add(ENTRY, [a].into_iter().collect(), t, t);
        assert!(offers.waits(&ENTRY));
        let newer = SummaryEntry {
            version: Version(8),
            ..ENTRY
        };
        assert!(!offers.waits(&newer));
        assert!(next(&mut offers, t + ms(1_000)).is_some());
        offers.add(ENTRY, [b].into_iter().collect(), t, t + ms(1_500));
        let first = next(&mut offers, t + ms(2_000));
        assert_eq!(first, Some((true, vec![b])));
        offers.remove(ID);
        assert_eq!(
            (next(&mut offers, t + ms(9_000)), offers.next_timeout()),
            (None, None)
        );
    }
}
