//! The own advertisement: its content, and the time of its origination (RFC 2328 §12.4).

use std::collections::BTreeSet;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::{OriginId, PeerId};
use librecast::time::{Duration, Instant};

use super::advertisement::{
    AdvertisedLan, Announced, Content, MAX_LANS, MAX_PREFIXES, UNKNOWN_CENTRALITY,
};
use super::assignment::Assignment;
use super::election::{Eligible, GROUP_RANGES, RpElection};
use super::lsa::Version;
use crate::config::Ipv4Config;
use librecast::bucket::{Bucket, Rate};

/// Least time between two advertisements with ordinary changes (RFC 2328 MinLSInterval).
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Time in which new prefixes and flags are gathered: users wait for them.
const PREFIX_INTERVAL: Duration = Duration::from_millis(50);
/// Least time between advertisements of links to unreachable routers: many of them come at once.
const REJOIN_INTERVAL: Duration = Duration::from_millis(200);
/// Least time between advertisements of other new links.
const LINK_INTERVAL: Duration = Duration::from_secs(1);
/// Rate of advertisements with new prefixes or links, which do not wait for [`MIN_INTERVAL`].
const PROMPT_RATE: Rate = Rate::every(MIN_INTERVAL, 8);
/// Rate of all advertisements; lost links wait for nothing else.
const URGENT_RATE: Rate = Rate::every(Duration::from_secs(1), 8);
/// Time for which losses are gathered once half of [`URGENT_RATE`] is used: many links are lost.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);
/// Time after a loss in which advertisements are urgent, for routers that missed the first.
const URGENT_FOR: Duration = Duration::from_secs(1);
/// Time with links before a router becomes a candidate, so that it learns the other routers.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Time for which a router must be better placed than the rendezvous point to challenge it.
const CHALLENGE_TIME: Duration = Duration::from_secs(60);
/// Least time between computations of the own centrality.
const CENTRALITY_INTERVAL: Duration = Duration::from_secs(60);

/// This router, as the engine configures it.
#[derive(Debug, Clone)]
pub struct LocalRouter {
    /// Its id.
    pub origin: OriginId,
    /// Its key.
    pub peer: PeerId,
    /// Raised at every start of the daemon and persisted by the shell.
    pub incarnation: u32,
    /// Its certificates.
    pub chain: Bytes,
    /// MTU of `lc0` in bytes.
    pub mtu: u16,
    /// Its flags, such as [`super::FLAG_CORE`].
    pub flags: u8,
    /// Group prefixes that it announces.
    pub announced: BTreeSet<GroupPrefix>,
    /// LANs of which it is a gateway.
    pub lans: Vec<AdvertisedLan>,
    /// Settings of its IPv4 address.
    pub ipv4: Option<Ipv4Config>,
}

/// The LSAs that this router originates, and their timers.
#[derive(Debug)]
pub(super) struct Origination {
    pub router: LocalRouter,
    pub sequence: u32,
    pub centrality: u16,
    /// The own IPv4 address, if it is to have one.
    pub assignment: Option<Assignment>,
    /// Bit n: this router is a candidate for group range n.
    candidacies: u8,
    prefix_candidacies: BTreeSet<GroupPrefix>,
    linked_since: Option<Instant>,
    /// Since when this router is better placed than the rendezvous point of each range.
    challenges: [Option<Instant>; GROUP_RANGES as usize],
    originated: Option<Content>,
    originated_at: Option<Instant>,
    urgent: Bucket,
    /// Time at which the loss of a link was last originated.
    lost_at: Option<Instant>,
    prompt: Bucket,
    /// A new link leads to a router that was unreachable.
    pub rejoins: bool,
    /// An advertisement of this router was seen that is newer than its last one.
    superseded: bool,
    /// That happened before: two hosts use one key, so origination backs off.
    shares_key: bool,
    /// Earliest time of the next advertisement, if there is a change.
    due: Option<Instant>,
    /// The graph of the last computed centrality, and its time.
    measured: Option<(u64, Instant)>,
    measure_at: Option<Instant>,
}

impl Origination {
    pub fn new(router: LocalRouter, now: Instant) -> Self {
        let assign = |ipv4: Ipv4Config| {
            let key = (router.origin, router.peer);
            Assignment::new(ipv4.network, key, ipv4.kept)
        };
        Self {
            assignment: router.ipv4.map(assign),
            router,
            sequence: 0,
            centrality: UNKNOWN_CENTRALITY,
            candidacies: 0,
            prefix_candidacies: BTreeSet::new(),
            linked_since: None,
            challenges: Default::default(),
            originated: None,
            originated_at: None,
            urgent: Bucket::full(now),
            lost_at: None,
            prompt: Bucket::full(now),
            rejoins: false,
            superseded: false,
            shares_key: false,
            due: None,
            measured: None,
            measure_at: None,
        }
    }

    /// Sets whether this router has links.
    pub fn set_linked(&mut self, linked: bool, now: Instant) {
        if linked {
            self.linked_since.get_or_insert(now);
        } else {
            // a router that comes back leaves rendezvous points as they are
            self.linked_since = None;
            self.candidacies = 0;
            self.prefix_candidacies.clear();
            self.centrality = UNKNOWN_CENTRALITY;
            self.measured = None;
            self.measure_at = None;
        }
    }

    /// Whether this router knows the other routers.
    pub fn settled(&self, now: Instant) -> bool {
        self.linked_since
            .is_some_and(|since| now >= since + SETTLE_TIME)
    }

    /// Becomes a candidate for ranges for which it was elected, and withdraws if another router
    /// was. Challenges rendezvous points that are far worse placed.
    pub fn review_candidacies(
        &mut self,
        elections: &[RpElection; GROUP_RANGES as usize],
        eligible: impl Fn(OriginId) -> Option<Eligible>,
        now: Instant,
    ) {
        let own = self.router.origin;
        let settled = self.settled(now);
        for (range, election) in elections.iter().enumerate() {
            let bit = 1 << range;
            let challenge = &mut self.challenges[range];
            if election.elected == Some(own) {
                *challenge = None;
                if settled {
                    self.candidacies |= bit;
                }
                continue;
            }
            let better = election.preferred == Some(own)
                && match (eligible(own), election.elected.and_then(&eligible)) {
                    (Some(own), Some(rp)) => own.may_challenge(&rp),
                    _ => false,
                };
            if !better || !settled {
                self.candidacies &= !bit;
                *challenge = None;
            } else if self.candidacies & bit == 0 {
                let since = *challenge.get_or_insert(now);
                if now >= since + CHALLENGE_TIME {
                    self.candidacies |= bit;
                }
            }
        }
    }

    /// The same for the announced prefixes.
    pub fn review_prefix_candidacies(
        &mut self,
        root: impl Fn(&GroupPrefix) -> Option<OriginId>,
        now: Instant,
    ) {
        let settled = self.settled(now);
        for prefix in &self.router.announced {
            if root(prefix) != Some(self.router.origin) {
                self.prefix_candidacies.remove(prefix);
            } else if settled {
                self.prefix_candidacies.insert(*prefix);
            }
        }
        self.prefix_candidacies
            .retain(|prefix| self.router.announced.contains(prefix));
    }

    /// Whether the own centrality must be computed now, in the graph of this digest.
    pub fn centrality_is_due(&mut self, graph: u64, now: Instant) -> bool {
        let Some(since) = self.linked_since else {
            return false;
        };
        self.measure_at = match self.measured {
            None => Some(since + SETTLE_TIME),
            Some((measured, _)) if measured == graph => None,
            Some((_, at)) if self.centrality == UNKNOWN_CENTRALITY => Some(at + SETTLE_TIME),
            Some((_, at)) => Some(at + CENTRALITY_INTERVAL),
        };
        self.measure_at.take_if(|at| now >= *at).is_some()
    }

    /// Sets the own centrality in a graph. Only a change of a quarter is originated.
    pub fn set_centrality(&mut self, graph: u64, mean: Option<u16>, now: Instant) {
        self.measured = Some((graph, now));
        let old = self.centrality;
        match mean {
            Some(mean) => {
                if old == UNKNOWN_CENTRALITY || u32::from(mean.abs_diff(old)) * 4 >= u32::from(old)
                {
                    self.centrality = mean;
                }
            }
            None => self.centrality = UNKNOWN_CENTRALITY,
        }
    }

    /// The content of the next advertisement, with the prefixes that the own certificate permits.
    pub fn content(&self, permitted: &[GroupPrefix], links: Vec<(OriginId, u16)>) -> Content {
        let inside = |prefix: &&GroupPrefix| permitted.iter().any(|p| p.covers(prefix));
        let prefixes = self
            .router
            .announced
            .iter()
            .filter(inside)
            .take(MAX_PREFIXES);
        let prefixes = prefixes.map(|prefix| Announced {
            prefix: *prefix,
            candidate: self.prefix_candidacies.contains(prefix),
        });
        let ipv4 = self.assignment.as_ref().and_then(Assignment::address);
        let room = MAX_LANS - usize::from(ipv4.is_some());
        Content {
            flags: self.router.flags,
            mtu: self.router.mtu,
            centrality: self.centrality,
            candidacies: self.candidacies,
            prefixes: prefixes.collect(),
            links,
            lans: self.router.lans.iter().take(room).cloned().collect(),
            ipv4,
        }
    }

    /// Whether to originate this content now; if so, notes it. `up`: a link with this neighbour is
    /// up.
    pub fn try_originate(
        &mut self,
        content: &Content,
        up: impl Fn(OriginId) -> bool,
        now: Instant,
    ) -> bool {
        self.due = None;
        let before = self.originated.as_ref();
        if before == Some(content) && !self.superseded {
            return false;
        }
        let lost = before.is_some_and(|before| has_lost(before, content, up));
        let first = before.is_none_or(|b| b.links.is_empty() && !content.links.is_empty());
        let urgent = self.superseded && !self.shares_key || first || lost;
        let prefixes = |c: &Content| c.prefixes.iter().map(|p| p.prefix).collect::<Vec<_>>();
        let interval = match before {
            _ if lost && self.urgent.left(URGENT_RATE, now) <= URGENT_RATE.burst() / 2 => {
                LOSS_INTERVAL
            }
            _ if urgent => Duration::ZERO,
            _ if self.rejoins => REJOIN_INTERVAL,
            Some(before)
                if prefixes(before) != prefixes(content)
                    || before.flags != content.flags
                    || before.lans != content.lans
                    || before.ipv4 != content.ipv4 =>
            {
                PREFIX_INTERVAL
            }
            Some(before) if !has_links(before, content) => LINK_INTERVAL,
            _ => MIN_INTERVAL,
        };
        let prompt = !urgent && !self.rejoins && interval < MIN_INTERVAL;
        let mut due = self.urgent.next(URGENT_RATE, 1);
        if let Some(last) = self.originated_at {
            due = due.max(last + interval);
        }
        if prompt {
            due = due.max(self.prompt.next(PROMPT_RATE, 1));
        }
        if now < due {
            self.due = Some(due);
            return false;
        }
        self.urgent.spend(URGENT_RATE, 1, now);
        if lost {
            self.lost_at = Some(now);
        }
        self.rejoins = false;
        if prompt {
            self.prompt.spend(PROMPT_RATE, 1, now);
        }
        self.originated_at = Some(now);
        self.originated = Some(content.clone());
        self.shares_key |= std::mem::take(&mut self.superseded);
        true
    }

    /// Whether packets get lost until other routers have the next advertisement.
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.lost_at.is_some_and(|lost| now < lost + URGENT_FOR)
    }

    /// The next version to sign.
    pub fn next_version(&mut self) -> Version {
        // 2^32 advertisements last for centuries at one in 5 s
        self.sequence = self.sequence.saturating_add(1);
        Version::new(self.router.incarnation, self.sequence)
    }

    /// A newer advertisement of this router was seen: of a run with a lost number, or of another
    /// host with the same key. Makes the next one newer. True: with a higher incarnation.
    pub fn supersede(&mut self, seen: Version) -> bool {
        self.superseded = true;
        if seen.incarnation() == self.router.incarnation && seen.sequence() < u32::MAX {
            self.sequence = self.sequence.max(seen.sequence());
            return false;
        }
        self.router.incarnation = seen.incarnation().saturating_add(1);
        self.sequence = 0;
        true
    }

    /// The time of the next review.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let settled = self.linked_since.map(|since| since + SETTLE_TIME);
        let challenges = self.challenges.iter().flatten();
        let challenges = challenges.map(|since| *since + CHALLENGE_TIME);
        let yields = self.assignment.as_ref().and_then(Assignment::yields_at);
        // past times were reviewed when they came
        let reviews = settled
            .into_iter()
            .chain(yields)
            .chain(challenges)
            .filter(|at| *at > now);
        reviews.chain(self.due).chain(self.measure_at).min()
    }
}

/// Whether all links of `of` are among those of `content`.
fn has_links(content: &Content, of: &Content) -> bool {
    let known = |origin: &OriginId| content.links.binary_search_by_key(origin, |l| l.0).is_ok();
    of.links.iter().all(|(origin, _)| known(origin))
}

/// Whether a link went down that was not left out before.
fn has_lost(before: &Content, content: &Content, up: impl Fn(OriginId) -> bool) -> bool {
    let still = |origin: OriginId| {
        up(origin) || content.links.binary_search_by_key(&origin, |l| l.0).is_ok()
    };
    !before.links.iter().all(|(origin, _)| still(*origin))
}

#[cfg(test)]
mod tests {
    use super::super::FLAG_STREAMS;
    use super::*;
    use crate::testing::start;

    fn own(now: Instant) -> Origination {
        let router = LocalRouter {
            origin: OriginId(9),
            peer: crate::testing::TestServices::new(9).peer(),
            incarnation: 1,
            chain: Bytes::new(),
            mtu: 1280,
            flags: 0,
            announced: BTreeSet::new(),
            lans: Vec::new(),
            ipv4: None,
        };
        Origination::new(router, now)
    }

    #[test]
    fn a_lost_link_is_originated_at_once_and_a_closed_one_in_its_time() {
        let now = start();
        let moment = Duration::from_millis(10);
        let mut own = own(now);
        let links = |to: &[u64]| to.iter().map(|n| (OriginId(*n), 10)).collect();
        let [three, two, one] = [&[1, 2, 3][..], &[1, 2], &[1]].map(links);
        let [three, two, one] = [three, two, one].map(|links| own.content(&[], links));
        assert!(own.try_originate(&three, |_| true, now), "the first");
        // a retiring link is up, and left out
        let soon = now + moment;
        assert!(!own.try_originate(&two, |_| true, soon));
        let due = now + MIN_INTERVAL;
        assert_eq!(own.next_timeout(soon), Some(due));
        assert!(own.try_originate(&two, |_| true, due));
        // lost: packets get lost until other routers know
        assert!(own.try_originate(&one, |to| to != OriginId(2), due + moment));
    }

    #[test]
    fn a_new_flag_does_not_wait_and_one_that_flaps_does() {
        let mut now = start();
        let mut own = own(now);
        let mut content = own.content(&[], vec![(OriginId(1), 10)]);
        assert!(own.try_originate(&content, |_| true, now), "the first");
        let flap = (1..=60).filter(|n| {
            content.flags = if n % 2 == 0 { 0 } else { FLAG_STREAMS };
            now += PREFIX_INTERVAL;
            own.try_originate(&content, |_| true, now)
        });
        let first = flap.take(1).collect::<Vec<_>>();
        assert_eq!(first, [1]);
        let flap = (1..=60).filter(|n| {
            content.flags = if n % 2 == 0 { FLAG_STREAMS } else { 0 };
            now += PREFIX_INTERVAL;
            own.try_originate(&content, |_| true, now)
        });
        assert!(flap.count() <= 8, "60 changes in 3 s");
    }
}
