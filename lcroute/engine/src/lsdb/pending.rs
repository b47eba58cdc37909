//! Queues of LSAs for each link: sent at once, at an interval, or only as a name in IHAVE.
//!
//! Most LSAs reach both ends of a link over other links. The router with the lower id sends an LSA
//! that is not urgent. The other router waits, and sends the LSA only if it has not come by then.
//! In a large network LSAs wait for the next interval of [`FloodPacing`], because a message costs
//! more than an LSA in it. They follow one flood tree, and other links carry only their names
//! ([`super::ihave`]). So most LSAs reach a router once; a break in the tree delays them.
//!
//! A control channel is reliable and in order, so LSAs need no acknowledgement. Queues hold names:
//! an LSA that changes while it waits is sent once, in its last version.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Deref;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use super::cost::Cost;
use super::lsa::LsaId;
use super::summary::{BUCKETS, MAX_ENTRIES, Summary, SummaryEntry};
use crate::small_map::SmallMap;
use librecast::bucket::{Bucket, Rate};

/// LSAs of one neighbour that are verified. Chosen: a whole network at once, then 256 a second.
pub(super) const VERIFY_RATE: Rate = Rate::every(Duration::from_micros(3_906), 16_384);
/// Summaries that one neighbour may send. Chosen: four a second.
pub(super) const SUMMARY_RATE: Rate = Rate::every(Duration::from_millis(250), 192);
/// Bytes of LSAs over one link. Chosen: 1 MB a second.
const SEND_RATE: Rate = Rate::every(Duration::from_micros(1), 256_000);
/// Time for which LSAs beyond [`SEND_RATE`] are gathered: a message costs more than an LSA.
const SEND_BATCH_GAP: Duration = Duration::from_millis(16);
/// Delay of a summary after a router is reachable again: other routers may follow.
const RESYNC_DELAY: Duration = Duration::from_secs(1);
/// Least wait of the higher router, which waits for a round trip.
const MIN_FLOOD_WAIT: Duration = Duration::from_millis(5);
/// Longest round trip for which the higher router waits.
const MAX_FLOOD_WAIT: Duration = Duration::from_millis(300);

/// The use of a link at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStanding {
    /// One end keeps the link, and not only on trial.
    Wanted,
    /// No end has asked to keep it so far.
    Unwanted,
    /// The link is about to close: traffic should leave it.
    Retiring,
}

/// The pace of LSAs that are not urgent: one departure every `interval` since `started`.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloodPacing {
    pub started: Instant,
    pub interval: Duration,
}

impl FloodPacing {
    /// The first departure at or after `at`.
    pub fn next(&self, at: Instant) -> Instant {
        let passed = at.saturating_duration_since(self.started);
        let over = passed.as_nanos().checked_rem(self.interval.as_nanos());
        match over.unwrap_or(0) {
            0 => at,
            // less than the interval, which is a second at most
            over => at + self.interval - Duration::from_nanos(over as u64),
        }
    }
}

/// The way of LSAs that are not urgent over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloodScope {
    /// No flood tree: the lower end sends, and the higher end if the LSA does not come in time.
    EitherEnd,
    /// The link is an edge of the flood tree: both ends send.
    Tree,
    /// The flood tree reaches the neighbour over other links: this one carries only IHAVE.
    AdvertiseOnly,
}

/// A link's state for all turns, kept until the link changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Activity {
    /// The link may have changed since.
    stale: bool,
    has_output: bool,
    /// The neighbour's database differs from this one.
    differs: bool,
    next_timeout: Option<Instant>,
}

/// One link: its cost and its queues.
#[derive(Debug)]
pub(super) struct LinkQueue {
    pub neighbor: OriginId,
    activity: Activity,
    pub cost: Cost,
    pub standing: LinkStanding,
    /// The own advertisement lists the link, and LSAs go over it.
    pub advertised: bool,
    /// This end has the lower id.
    pub is_lower: bool,
    pub scope: FloodScope,
    pub verify_rate: Bucket,
    pub summary_rate: Bucket,
    /// The neighbour's digest, if it differs from this router's.
    pub digest: Option<Box<[u64; BUCKETS]>>,
    /// Time of the last summary to the neighbour. Unreachable routers are not part of it.
    pub summarized_at: Instant,
    /// Time of the next summary, as one of these routers is reachable again.
    pub resync_at: Option<Instant>,
    summaries: VecDeque<Summary>,
    pending: BTreeSet<LsaId>,
    /// LSAs that wait for their interval or for the neighbour, with their departures.
    scheduled: BTreeMap<LsaId, Instant>,
    /// The same in order of time. The first one is still scheduled, so no timer runs in vain.
    schedule: VecDeque<(Instant, LsaId)>,
    /// Names for IHAVE at the end of this turn.
    ihaves: Vec<SummaryEntry>,
    requested: BTreeSet<LsaId>,
    /// END follows once no requested LSA is left.
    end: bool,
    send_rate: Bucket,
    /// End of the pause after [`SEND_RATE`] is used up.
    paused_until: Instant,
}

impl LinkQueue {
    pub fn new(own: OriginId, neighbor: OriginId, now: Instant) -> Self {
        Self {
            neighbor,
            activity: Activity::default(),
            is_lower: own < neighbor,
            scope: FloodScope::EitherEnd,
            cost: Cost::new(now),
            standing: LinkStanding::Unwanted,
            advertised: false,
            verify_rate: Bucket::full(now),
            summary_rate: Bucket::full(now),
            digest: None,
            summarized_at: now,
            resync_at: None,
            summaries: VecDeque::new(),
            pending: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            schedule: VecDeque::new(),
            ihaves: Vec::new(),
            requested: BTreeSet::new(),
            end: false,
            send_rate: Bucket::full(now),
            paused_until: now,
        }
    }

    /// Queues an LSA that the neighbour does not have.
    pub fn push_pending(&mut self, id: LsaId) {
        self.pending.insert(id);
        self.cancel(id);
    }

    /// Schedules an LSA that the neighbour may have, or may be sending.
    pub fn schedule(&mut self, id: LsaId, pacing: FloodPacing, now: Instant) {
        let wait = match self.scope {
            FloodScope::Tree => Duration::ZERO,
            _ if self.is_lower => Duration::ZERO,
            // an interval and one round trip: the cost is in units of 100 us
            _ => {
                let round_trip = Duration::from_micros(100) * u32::from(self.cost.get());
                pacing.interval + round_trip.min(MAX_FLOOD_WAIT) + MIN_FLOOD_WAIT
            }
        };
        let at = pacing.next(now + wait);
        if at <= now {
            self.push_pending(id);
        } else if !self.pending.contains(&id) && !self.scheduled.contains_key(&id) {
            self.scheduled.insert(id, at);
            // a lower cost or another scope makes the wait shorter than that of earlier LSAs
            let place = self.schedule.partition_point(|(other, _)| *other <= at);
            self.schedule.insert(place, (at, id));
        }
        self.check(id);
    }

    /// Asserts the order of the schedule, and that an LSA waits in one place.
    fn check(&self, id: LsaId) {
        let (first, last) = (self.schedule.front(), self.schedule.back());
        debug_assert!(
            first.map(|(at, _)| at) <= last.map(|(at, _)| at),
            "the first LSA of the schedule is due first"
        );
        debug_assert!(
            first.is_none_or(|(at, id)| self.scheduled.get(id) == Some(at)),
            "no timer runs for an LSA that is not scheduled"
        );
        debug_assert!(
            self.scheduled.is_empty() == self.schedule.is_empty(),
            "each scheduled LSA has its place in the schedule"
        );
        debug_assert!(
            !(self.pending.contains(&id) && self.scheduled.contains_key(&id)),
            "an LSA that leaves now does not leave again later"
        );
    }

    /// Queues the name of an LSA that went out over another link.
    pub fn push_ihave(&mut self, entry: SummaryEntry) {
        self.ihaves.push(entry);
    }

    /// Makes scheduled LSAs that are due pending.
    pub fn release_due(&mut self, now: Instant) {
        while let Some((_, id)) = self.schedule.pop_front_if(|(at, _)| *at <= now) {
            self.scheduled.remove(&id);
            self.pending.insert(id);
            self.drop_cancelled();
            self.check(id);
        }
    }

    /// Removes an LSA from the schedule.
    fn cancel(&mut self, id: LsaId) {
        if self.scheduled.remove(&id).is_some() {
            self.drop_cancelled();
        }
        self.check(id);
    }

    fn drop_cancelled(&mut self) {
        let scheduled = &self.scheduled;
        let cancelled = |(at, id): &mut (Instant, LsaId)| scheduled.get(id) != Some(at);
        while self.schedule.pop_front_if(cancelled).is_some() {}
    }

    /// Names for one IHAVE, in order; empty: none is left.
    pub fn next_ihaves(&mut self) -> Vec<SummaryEntry> {
        self.ihaves.sort_unstable_by_key(|entry| entry.id);
        self.ihaves.dedup_by_key(|entry| entry.id);
        let rest = self.ihaves.split_off(self.ihaves.len().min(MAX_ENTRIES));
        std::mem::replace(&mut self.ihaves, rest)
    }

    /// Queues an LSA that the neighbour requested.
    pub fn push_requested(&mut self, id: LsaId) {
        self.requested.insert(id);
    }

    pub fn push_summary(&mut self, summary: Summary) {
        self.summaries.push_back(summary);
    }

    pub fn push_end(&mut self) {
        self.end = true;
    }

    /// Removes an LSA that the neighbour has, or that is gone.
    pub fn remove(&mut self, id: LsaId) {
        self.pending.remove(&id);
        self.cancel(id);
        self.ihaves.retain(|entry| entry.id != id);
        self.requested.remove(&id);
    }

    /// Whether anything waits to be sent.
    pub fn has_output(&self) -> bool {
        self.end
            || !self.pending.is_empty()
            || !self.requested.is_empty()
            || !self.summaries.is_empty()
            || !self.ihaves.is_empty()
    }

    /// The next summary. Summaries go before LSAs.
    pub fn next_summary(&mut self) -> Option<Summary> {
        if let Some(summary) = self.summaries.pop_front() {
            return Some(summary);
        }
        (self.end && self.requested.is_empty()).then(|| {
            self.end = false;
            Summary::End
        })
    }

    /// The next LSA, if the rate permits one now.
    pub fn next_lsa(&mut self, now: Instant) -> Option<LsaId> {
        if now < self.paused_until {
            return None;
        }
        self.pending
            .pop_first()
            .or_else(|| self.requested.pop_first())
    }

    /// Accounts for a sent LSA of this length.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        self.send_rate.spend(SEND_RATE, bytes as u64, now);
        let next = self.send_rate.next(SEND_RATE, 1);
        if next > now {
            self.paused_until = next + SEND_BATCH_GAP;
        }
    }

    /// Notes that a router is reachable again that was unreachable since `gone_since`.
    pub fn note_reachable(&mut self, gone_since: Instant, now: Instant) {
        if gone_since <= self.summarized_at {
            self.resync_at.get_or_insert(now + RESYNC_DELAY);
        }
    }

    /// The time of the next message.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = !self.pending.is_empty() || !self.requested.is_empty();
        let send_at = waits.then_some(self.paused_until);
        let scheduled = self.schedule.front().map(|(at, _)| *at);
        [send_at, self.resync_at, scheduled]
            .into_iter()
            .flatten()
            .min()
    }

    #[inline(never)]
    fn find_activity(&self) -> Activity {
        let times = [self.next_timeout(), self.cost.next_timeout()];
        Activity {
            stale: false,
            has_output: self.has_output(),
            differs: self.digest.is_some(),
            next_timeout: times.into_iter().flatten().min(),
        }
    }

    fn activity(&self) -> Activity {
        if self.activity.stale {
            return self.find_activity();
        }
        debug_assert_eq!(self.activity, self.find_activity());
        self.activity
    }

    fn touch(&mut self) -> &mut Self {
        self.activity.stale = true;
        self
    }
}

/// All links. Most turns concern none of them, so only links that may have changed are examined.
#[derive(Debug, Default)]
pub(super) struct LinkQueues {
    links: SmallMap<LinkId, LinkQueue>,
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

    /// Sets the scope of each link, by its neighbour. That alone creates no output.
    pub fn set_scopes(&mut self, scope: impl Fn(OriginId) -> FloodScope) {
        for link in self.links.values_mut() {
            link.scope = scope(link.neighbor);
        }
    }

    /// Computes the activity of all links that may have changed.
    pub fn refresh(&mut self) {
        if !self.activity.stale {
            return;
        }
        self.activity = Activity::default();
        for link in self.links.values_mut() {
            if link.activity.stale {
                link.activity = link.find_activity();
            }
            self.activity.has_output |= link.activity.has_output;
            self.activity.differs |= link.activity.differs;
            let times = [self.activity.next_timeout, link.activity.next_timeout];
            self.activity.next_timeout = times.into_iter().flatten().min();
        }
    }

    /// Links with output.
    pub fn busy(&self) -> Vec<LinkId> {
        if !self.activity.stale && !self.activity.has_output {
            return Vec::new();
        }
        let busy = self.links.iter();
        let busy = busy.filter(|(_, link)| link.activity().has_output);
        busy.map(|(id, _)| id).collect()
    }

    /// Whether a neighbour's database differs from this one.
    pub fn differ(&self) -> bool {
        if self.activity.stale {
            self.links.values().any(|link| link.activity().differs)
        } else {
            self.activity.differs
        }
    }

    /// Links with expired timers.
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
    use super::super::lsa::Version;
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
        link.release_due(now);
        std::iter::from_fn(|| link.next_lsa(now))
            .map(|id| id.key)
            .collect()
    }

    #[test]
    fn pending_lsas_of_one_interval_leave_together() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        let (low, high) = (OriginId(1), OriginId(2));
        let mut link = LinkQueue::new(low, high, t);
        for (key, at) in [(1, 10), (2, 60), (3, 90)] {
            link.schedule(id(key), pacing, t + ms(at));
        }
        link.schedule(id(4), pacing, t + ms(101));
        // the neighbour sent it meanwhile
        link.remove(id(2));
        assert_eq!(link.next_timeout(), Some(t + GAP));
        assert!(all(&mut link, t + ms(99)).is_empty());
        assert_eq!(all(&mut link, t + GAP), [1, 3]);
        assert_eq!(all(&mut link, t + 2 * GAP), [4]);
        assert_eq!(link.next_timeout(), None);
    }

    #[test]
    fn no_timer_waits_for_an_lsa_that_came_from_the_neighbour() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        for (key, at) in [(1, 10), (2, 110), (3, 210)] {
            link.schedule(id(key), pacing, t + ms(at));
        }
        link.remove(id(2));
        assert_eq!(link.next_timeout(), Some(t + GAP));
        link.remove(id(1));
        assert_eq!(link.next_timeout(), Some(t + 3 * GAP));
        // another version waits from now on
        link.schedule(id(2), pacing, t + ms(310));
        assert_eq!(all(&mut link, t + 3 * GAP), [3]);
        assert_eq!(link.next_timeout(), Some(t + 4 * GAP));
        link.remove(id(2));
        assert_eq!(link.next_timeout(), None);
    }

    #[test]
    fn the_higher_end_waits_an_interval_and_a_round_trip_longer() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        let mut link = LinkQueue::new(OriginId(2), OriginId(1), t);
        link.cost.set(ms(20), t);
        link.schedule(id(1), pacing, t + ms(50));
        // 50, an interval, 27 as the cost has steps, and 5; then the next interval
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
            while link.next_lsa(now).is_some() {
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
    fn an_lsa_that_the_neighbour_has_is_not_in_ihave() {
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
    fn along_the_tree_both_ends_send_in_their_next_interval() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        for own in [1, 3] {
            let mut link = LinkQueue::new(OriginId(own), OriginId(2), t);
            link.scope = FloodScope::Tree;
            link.schedule(id(1), pacing, t + ms(10));
            assert_eq!(all(&mut link, t + GAP), [1]);
        }
    }

    #[test]
    fn an_lsa_that_is_due_first_leaves_first_after_the_link_became_shorter() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        let mut link = LinkQueue::new(OriginId(2), OriginId(1), t);
        link.schedule(id(1), pacing, t + ms(10));
        assert_eq!(link.next_timeout(), Some(t + 2 * GAP));
        // this link is an edge of the flood tree now
        link.scope = FloodScope::Tree;
        link.schedule(id(2), pacing, t + ms(20));
        assert_eq!(link.next_timeout(), Some(t + GAP));
        assert_eq!(all(&mut link, t + GAP), [2]);
        assert_eq!(all(&mut link, t + 2 * GAP), [1]);
    }

    #[test]
    fn an_lsa_that_turns_urgent_while_it_waits_leaves_once() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: GAP,
        };
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        link.schedule(id(1), pacing, t + ms(10));
        link.push_pending(id(1));
        assert_eq!(all(&mut link, t + ms(10)), [1]);
        assert_eq!(link.next_timeout(), None);
    }

    #[test]
    fn few_routers_send_without_pacing() {
        let t = start();
        let pacing = FloodPacing {
            started: t,
            interval: Duration::ZERO,
        };
        let mut link = LinkQueue::new(OriginId(1), OriginId(2), t);
        link.schedule(id(1), pacing, t + ms(7));
        assert_eq!(all(&mut link, t + ms(7)), [1]);
    }
}
