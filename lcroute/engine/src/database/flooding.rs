//! What goes over each link: news at once, what a neighbour lacks at a bounded rate.
//!
//! Most news reach both ends of a link on other ways. What is not urgent is sent by the lower router of the
//! two, and by the higher one only if it has not come by then, so that it does not cross itself. In a large
//! network it is gathered, and passed on in pacing ([`FloodPacing`]): a message costs more than a record in it. There it
//! goes along one tree that all know, that of a root; over other links it is only offered ([`super::offers`]), if
//! it has not come from there. So most records reach a router once, and a break in the tree delays them.
//!
//! The control channel of a link is reliable and in order, so a record that was sent needs no
//! acknowledgement while the link is up. Queues hold names: a record that changes while it waits is
//! sent once, as it is then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Deref;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};
use super::cost::Cost;
use super::record::LsaId;
use super::summary::{BUCKETS, MAX_ENTRIES, Summary, SummaryEntry};
use crate::sorted::SmallMap;

/// Records of one neighbour that are verified: a whole network at once, then 256 a second.
pub(crate) const VERIFY_RATE: Rate = Rate {
    burst: 16_384,
    interval: Duration::from_micros(3_906),
};
/// Summaries that one neighbour may send.
pub(crate) const SUMMARY_RATE: Rate = Rate {
    burst: 192,
    interval: Duration::from_millis(250),
};
/// Bytes of records that are sent over one link: 1 MB a second.
const SEND_RATE: Rate = Rate {
    burst: 256_000,
    interval: Duration::from_micros(1),
};
/// When that is used up, the next ones wait for one another: a message and a wake-up cost more than a record.
const SEND_BATCH_GAP: Duration = Duration::from_millis(16);
/// Who was out of reach comes in company: a neighbour is told of all of them at once.
const SETTLE: Duration = Duration::from_secs(1);

/// What is held is held for a round trip, within these bounds.
const MIN_FLOOD_WAIT: Duration = Duration::from_millis(5);
const MAX_FLOOD_WAIT: Duration = Duration::from_millis(300);

/// What its ends think of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStanding {
    /// One of them wants it, and not only for a trial.
    Wanted,
    /// None does, so far.
    Unwanted,
    /// It is about to be closed: traffic should go other ways.
    Retiring,
}

/// When news that are not urgent are passed on: from a moment on in steps of `gap`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloodPacing {
    pub started: Instant,
    pub gap: Duration,
}

impl FloodPacing {
    /// The first turn that is not before `at`.
    pub fn next(&self, at: Instant) -> Instant {
        let passed = at.saturating_duration_since(self.started);
        let over = passed.as_nanos().checked_rem(self.gap.as_nanos());
        match over.unwrap_or(0) {
            0 => at,
            // less than the gap, which is a second at most
            over => at + self.gap - Duration::from_nanos(over as u64),
        }
    }
}

/// How news that are not urgent go over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloodScope {
    /// There is no tree that both ends know: from one end, and from the other if that one does not.
    EitherEnd,
    /// It is an edge of the tree: at once.
    Tree,
    /// They go along the tree, and are offered here.
    AdvertiseOnly,
}

/// What is asked of all links in nearly every turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Activity {
    /// The link may have changed since.
    stale: bool,
    has_output: bool,
    /// The neighbour has something else than we.
    differs: bool,
    next_timeout: Option<Instant>,
}

/// One link, seen from here.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    pub neighbor: OriginId,
    activity: Activity,
    pub cost: Cost,
    pub standing: LinkStanding,
    /// Others are to know of it: part of the own advertisement, and news go over it.
    pub advertised: bool,
    /// Whose records are sent first: the lower router's.
    pub first: bool,
    pub way: FloodScope,
    pub verify: Bucket,
    pub summarize: Bucket,
    /// The neighbour's sums, which were different from ours.
    pub digest: Option<Box<[u64; BUCKETS]>>,
    /// When the neighbour was last told what we have, unreachable routers left out.
    pub summarized: Instant,
    /// One of those is reachable: when the neighbour is told again.
    pub resync_at: Option<Instant>,
    summaries: VecDeque<Summary>,
    news: BTreeSet<LsaId>,
    /// News that wait for their turn, or that the neighbour may be sending us: when they are sent, if they have
    /// not come from there.
    held: BTreeMap<LsaId, Instant>,
    /// The same in order of time. The first is always one that is held: nobody wakes up for what has come.
    held_until: VecDeque<(Instant, LsaId)>,
    /// What is offered at the end of this turn.
    offers: Vec<SummaryEntry>,
    requested: BTreeSet<LsaId>,
    /// END follows when nothing is requested.
    end: bool,
    sending: Bucket,
    /// When more is sent: too much was sent by then.
    paused_until: Instant,
}

impl LinkQueue {
    pub fn new(own: OriginId, neighbor: OriginId, now: Instant) -> Self {
        Self {
            neighbor,
            activity: Activity::default(),
            first: own < neighbor,
            way: FloodScope::EitherEnd,
            cost: Cost::new(now),
            standing: LinkStanding::Unwanted,
            advertised: false,
            verify: Bucket::full(now),
            summarize: Bucket::full(now),
            digest: None,
            summarized: now,
            resync_at: None,
            summaries: VecDeque::new(),
            news: BTreeSet::new(),
            held: BTreeMap::new(),
            held_until: VecDeque::new(),
            offers: Vec::new(),
            requested: BTreeSet::new(),
            end: false,
            sending: Bucket::full(now),
            paused_until: now,
        }
    }

    /// A record that the neighbour does not have.
    pub fn push_pending(&mut self, id: LsaId) {
        self.news.insert(id);
    }

    /// A record that the neighbour may have, or send us.
    pub fn pass_on(&mut self, id: LsaId, pacing: FloodPacing, now: Instant) {
        let wait = match self.way {
            FloodScope::Tree => Duration::ZERO,
            _ if self.first => Duration::ZERO,
            // its turn and one round trip: the cost is in units of 100 us
            _ => {
                let round_trip = Duration::from_micros(100) * u32::from(self.cost.get());
                pacing.gap + round_trip.min(MAX_FLOOD_WAIT) + MIN_FLOOD_WAIT
            }
        };
        let until = pacing.next(now + wait);
        if until <= now {
            self.push_pending(id);
        } else if !self.news.contains(&id) && !self.held.contains_key(&id) {
            self.held.insert(id, until);
            self.held_until.push_back((until, id));
        }
    }

    /// A record that went another way.
    pub fn push_ihave(&mut self, entry: SummaryEntry) {
        self.offers.push(entry);
    }

    /// What did not come from the neighbour is sent.
    pub fn release(&mut self, now: Instant) {
        while let Some((_, id)) = self.held_until.pop_front_if(|(at, _)| *at <= now) {
            self.held.remove(&id);
            self.news.insert(id);
            self.drop_cancelled();
        }
    }

    fn drop_cancelled(&mut self) {
        let held = &self.held;
        let has_come = |(at, id): &mut (Instant, LsaId)| held.get(id) != Some(at);
        while self.held_until.pop_front_if(has_come).is_some() {}
    }

    /// What is to be offered, in order, as many as one summary takes.
    pub fn next_ihaves(&mut self) -> Vec<SummaryEntry> {
        self.offers.sort_unstable_by_key(|entry| entry.id);
        self.offers.dedup_by_key(|entry| entry.id);
        let rest = self.offers.split_off(self.offers.len().min(MAX_ENTRIES));
        std::mem::replace(&mut self.offers, rest)
    }

    /// A record that the neighbour asked for.
    pub fn push_requested(&mut self, id: LsaId) {
        self.requested.insert(id);
    }

    pub fn push_summary(&mut self, summary: Summary) {
        self.summaries.push_back(summary);
    }

    pub fn push_end(&mut self) {
        self.end = true;
    }

    /// The neighbour has it, or it is no more.
    pub fn remove(&mut self, id: LsaId) {
        self.news.remove(&id);
        if self.held.remove(&id).is_some() {
            self.drop_cancelled();
        }
        self.offers.retain(|entry| entry.id != id);
        self.requested.remove(&id);
    }

    /// Whether there is something to be sent, now or later.
    pub fn has_output(&self) -> bool {
        self.end
            || !self.news.is_empty()
            || !self.requested.is_empty()
            || !self.summaries.is_empty()
            || !self.offers.is_empty()
    }

    /// The next summary to be sent; they go before records.
    pub fn next_summary(&mut self) -> Option<Summary> {
        if let Some(summary) = self.summaries.pop_front() {
            return Some(summary);
        }
        (self.end && self.requested.is_empty()).then(|| {
            self.end = false;
            Summary::End
        })
    }

    /// The next record to be sent, if one may be sent now.
    pub fn next_record(&mut self, now: Instant) -> Option<LsaId> {
        if now < self.paused_until {
            return None;
        }
        self.news.pop_first().or_else(|| self.requested.pop_first())
    }

    /// Something of this length was sent.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        // a record is far shorter than 4 GB
        self.sending.spend(SEND_RATE, bytes as u32, now);
        let next = self.sending.next(SEND_RATE);
        if next > now {
            self.paused_until = next + SEND_BATCH_GAP;
        }
    }

    /// A router that was out of reach since then is reachable.
    pub fn note_reachable(&mut self, gone_since: Instant, now: Instant) {
        if gone_since <= self.summarized {
            self.resync_at.get_or_insert(now + SETTLE);
        }
    }

    /// When more can be sent, if something waits, or the neighbour is told again.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = !self.news.is_empty() || !self.requested.is_empty();
        let send_at = waits.then_some(self.paused_until);
        let held = self.held_until.front().map(|(at, _)| *at);
        [send_at, self.resync_at, held].into_iter().flatten().min()
    }

    #[inline(never)]
    fn look(&self) -> Activity {
        Activity {
            stale: false,
            has_output: self.has_output(),
            differs: self.digest.is_some(),
            next_timeout: [self.next_timeout(), self.cost.next_timeout()]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    fn activity(&self) -> Activity {
        if self.activity.stale {
            return self.look();
        }
        debug_assert_eq!(self.activity, self.look());
        self.activity
    }

    fn touch(&mut self) -> &mut Self {
        self.activity.stale = true;
        self
    }
}

/// All links. What they have to do is looked for again where one may have changed: most pacing are about none of them.
#[derive(Debug, Default)]
pub(crate) struct LinkQueues {
    links: SmallMap<LinkId, LinkQueue>,
    /// Of all together.
    activity: Activity,
}

impl Deref for LinkQueues {
    type Target = SmallMap<LinkId, LinkQueue>;

    fn deref(&self) -> &Self::Target {
        &self.links
    }
}

impl LinkQueues {
    pub fn insert(&mut self, id: LinkId, mut link: LinkQueue) {
        self.activity.stale = true;
        link.touch();
        self.links.insert(id, link);
    }

    pub fn remove(&mut self, id: LinkId) {
        self.activity.stale = true;
        self.links.remove(&id);
    }

    pub fn get_mut(&mut self, id: &LinkId) -> Option<&mut LinkQueue> {
        self.activity.stale = true;
        self.links.get_mut(id).map(LinkQueue::touch)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut LinkQueue> {
        self.activity.stale = true;
        self.links.values_mut().map(LinkQueue::touch)
    }

    /// How news go over each link: that alone gives none anything to do.
    pub fn set_flood_scopes(&mut self, way: impl Fn(OriginId) -> FloodScope) {
        for link in self.links.values_mut() {
            link.way = way(link.neighbor);
        }
    }

    /// Finds out what there is to do.
    pub fn look(&mut self) {
        if !self.activity.stale {
            return;
        }
        self.activity = Activity::default();
        for link in self.links.values_mut() {
            if link.activity.stale {
                link.activity = link.look();
            }
            self.activity.has_output |= link.activity.has_output;
            self.activity.differs |= link.activity.differs;
            let times = [self.activity.next_timeout, link.activity.next_timeout];
            self.activity.next_timeout = times.into_iter().flatten().min();
        }
    }

    /// Those that may have something to send.
    pub fn busy(&self) -> Vec<LinkId> {
        if !self.activity.stale && !self.activity.has_output {
            return Vec::new();
        }
        let busy = self
            .links
            .iter()
            .filter(|(_, link)| link.activity().has_output);
        busy.map(|(id, _)| id).collect()
    }

    /// Whether a neighbour has originated that it has something else than we.
    pub fn differ(&self) -> bool {
        if self.activity.stale {
            self.links.values().any(|link| link.activity().differs)
        } else {
            self.activity.differs
        }
    }

    /// Those with which something has to be done by now.
    pub fn due(&self, now: Instant) -> Vec<LinkId> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !self.activity.stale && !is_due(self.activity.next_timeout) {
            return Vec::new();
        }
        let due = |link: &LinkQueue| is_due(link.activity().next_timeout);
        let due = self.links.iter().filter(|(_, link)| due(link));
        due.map(|(id, _)| id).collect()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        if self.activity.stale {
            let times = self.links.values().map(|link| link.activity().next_timeout);
            return times.flatten().min();
        }
        self.activity.next_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Version;
    use super::*;
    use crate::testing::start;

    const GAP: Duration = Duration::from_millis(100);

    fn id(key: u64) -> LsaId {
        LsaId { key, kind: 2 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn all(link: &mut LinkQueue, now: Instant) -> Vec<u64> {
        link.release(now);
        std::iter::from_fn(|| link.next_record(now))
            .map(|id| id.key)
            .collect()
    }

    #[test]
    fn news_of_one_turn_leave_together() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            gap: GAP,
        };
        let (low, high) = (OriginId(1), OriginId(2));
        let mut link = LinkQueue::new(low, high, t);
        for (key, at) in [(1, 10), (2, 60), (3, 90)] {
            link.pass_on(id(key), pacing, t + ms(at));
        }
        link.pass_on(id(4), pacing, t + ms(101));
        // it has come from there meanwhile
        link.remove(id(2));
        assert_eq!(link.next_timeout(), Some(t + GAP));
        assert!(all(&mut link, t + ms(99)).is_empty());
        assert_eq!(all(&mut link, t + GAP), [1, 3]);
        assert_eq!(all(&mut link, t + 2 * GAP), [4]);
        assert_eq!(link.next_timeout(), None);
    }

    #[test]
    fn nobody_wakes_up_for_what_has_come() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            gap: GAP,
        };
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        for (key, at) in [(1, 10), (2, 110), (3, 210)] {
            link.pass_on(id(key), pacing, t + ms(at));
        }
        link.remove(id(2));
        assert_eq!(link.next_timeout(), Some(t + GAP));
        link.remove(id(1));
        assert_eq!(link.next_timeout(), Some(t + 3 * GAP));
        // another version of it: it waits from now on, not from then
        link.pass_on(id(2), pacing, t + ms(310));
        assert_eq!(all(&mut link, t + 3 * GAP), [3]);
        assert_eq!(link.next_timeout(), Some(t + 4 * GAP));
        link.remove(id(2));
        assert_eq!(link.next_timeout(), None);
    }

    #[test]
    fn the_higher_end_waits_a_turn_and_a_round_trip_longer() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            gap: GAP,
        };
        let mut link = LinkQueue::new(OriginId(2), OriginId(1), t);
        link.cost.set(ms(20), t);
        link.pass_on(id(1), pacing, t + ms(50));
        // 50, a turn, 27 as the cost has steps, and 5; then its own turn
        assert_eq!(link.next_timeout(), Some(t + 2 * GAP));
        assert!(all(&mut link, t + ms(199)).is_empty());
        assert_eq!(all(&mut link, t + 2 * GAP), [1]);
    }

    #[test]
    fn what_is_too_much_is_sent_at_the_rate_and_not_one_by_one() {
        let t = start();
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        for key in 0..4_000 {
            link.push_requested(id(key));
        }
        let (mut now, mut times) = (t, Vec::new());
        while link.next_timeout().is_some() {
            now = now.max(link.next_timeout().unwrap());
            while link.next_record(now).is_some() {
                link.sent(256, now);
                times.push(now - t);
            }
        }
        let at_once = times.iter().filter(|at| at.is_zero()).count();
        assert_eq!((times.len(), at_once), (4_000, 1_000), "256 KB");
        let took = times[3_999];
        let least = Duration::from_micros(3_000 * 256);
        assert!(
            took >= least - SEND_BATCH_GAP && took <= least + 2 * SEND_BATCH_GAP,
            "{took:?}"
        );
        times.dedup();
        assert!(times.len() < 60, "{} messages", times.len());
    }

    #[test]
    fn what_the_neighbour_has_is_not_offered() {
        let t = start();
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        let entry = |key| SummaryEntry {
            id: id(key),
            version: Version(7),
        };
        for key in [3, 1, 2, 1] {
            link.push_ihave(entry(key));
        }
        link.remove(id(2));
        assert!(link.has_output() && all(&mut link, t).is_empty());
        assert_eq!(link.next_ihaves(), [entry(1), entry(3)]);
        assert!(!link.has_output() && link.next_ihaves().is_empty());
    }

    #[test]
    fn along_the_tree_both_ends_pass_on_in_their_next_turn() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            gap: GAP,
        };
        for own in [1, 3] {
            let mut link = LinkQueue::new(OriginId(own), OriginId(2), t);
            link.way = FloodScope::Tree;
            link.pass_on(id(1), pacing, t + ms(10));
            assert_eq!(all(&mut link, t + GAP), [1]);
        }
    }

    #[test]
    fn few_routers_do_not_wait_for_turns() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            gap: Duration::ZERO,
        };
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        link.pass_on(id(1), pacing, t + ms(7));
        assert_eq!(all(&mut link, t + ms(7)), [1]);
    }
}
