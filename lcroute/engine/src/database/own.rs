//! What this router says of itself, and when.

use std::collections::BTreeSet;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use super::advertisement::{Content, UNKNOWN_CENTRALITY};
use super::bucket::{Bucket, Rate};
use super::election::{Eligible, GROUP_RANGES, RpElection};
use super::record::Version;

/// Ordinary changes are told at most once in this time.
const ADVERTISEMENT_GAP: Duration = Duration::from_secs(5);
/// What comes shortly one after the other is originated together.
const BATCH_GAP: Duration = Duration::from_millis(50);
/// LinkQueues to routers that were out of reach are told at most once in this time: they come in crowds.
const REJOIN_GAP: Duration = Duration::from_millis(200);
/// Other new links are told at most once in this time,
const LINK_GAP: Duration = Duration::from_secs(1);
/// new prefixes at once, if there are few of them.
const PROMPT_RATE: Rate = Rate {
    burst: 8,
    interval: ADVERTISEMENT_GAP,
};
/// Lost links are told at once, but no more often than this.
const URGENT_RATE: Rate = Rate {
    burst: 8,
    interval: Duration::from_secs(1),
};
/// When half of these are used up, what is lost in such a time is told together: many neighbours have died.
const LOSS_BATCH_GAP: Duration = Duration::from_millis(100);
/// What is originated so soon after a link was lost tells others of that, too, if they have missed it.
const URGENT_FOR: Duration = Duration::from_secs(1);
/// A router that has found links learns who is there before it candidacies anything.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a router must have been better measured than the root to take its set_centrality.
const CHALLENGE: Duration = Duration::from_secs(60);
/// The own centrality is looked at no more often than this.
const CENTRALITY_GAP: Duration = Duration::from_secs(60);

/// This router, as it is told to the database.
#[derive(Debug, Clone)]
pub struct LocalRouter {
    /// Its name.
    pub origin: OriginId,
    /// Raised at every start of the daemon and persisted by the shell.
    pub incarnation: u32,
    /// Its certificates.
    pub chain: Bytes,
    /// MTU of `lc0` in bytes.
    pub mtu: u16,
    /// [`super::FLAG_CORE`] and others.
    pub flags: u8,
    /// Group prefixes that it announces.
    pub announced: BTreeSet<GroupPrefix>,
}

/// This router's part in the link state.
#[derive(Debug)]
pub(crate) struct Origination {
    pub router: LocalRouter,
    pub sequence: u32,
    pub centrality: u16,
    candidacies: u8,
    candidate: BTreeSet<GroupPrefix>,
    linked_since: Option<Instant>,
    challenges: [Option<Instant>; GROUP_RANGES as usize],
    originated: Option<Content>,
    originated_at: Option<Instant>,
    urgent: Bucket,
    /// When the loss of a link was last originated.
    lost: Option<Instant>,
    prompt: Bucket,
    /// A link leads to who was out of reach.
    pub rejoins: bool,
    /// A newer advertisement of ours than we made was seen.
    superseded: bool,
    /// It happened before: two hosts have our key, and handle_have each other in no haste.
    shares_key: bool,
    /// When the next advertisement may go out, if there is something to try_originate.
    due: Option<Instant>,
    /// The graph in which the centrality was computed, and when.
    measured: Option<(u64, Instant)>,
    measure_at: Option<Instant>,
}

impl Origination {
    pub fn new(router: LocalRouter, now: Instant) -> Self {
        Self {
            router,
            sequence: 0,
            centrality: UNKNOWN_CENTRALITY,
            candidacies: 0,
            candidate: BTreeSet::new(),
            linked_since: None,
            challenges: Default::default(),
            originated: None,
            originated_at: None,
            urgent: Bucket::full(now),
            lost: None,
            prompt: Bucket::full(now),
            rejoins: false,
            superseded: false,
            shares_key: false,
            due: None,
            measured: None,
            measure_at: None,
        }
    }

    /// LinkQueues came or went.
    pub fn set_linked(&mut self, linked: bool, now: Instant) {
        if linked {
            self.linked_since.get_or_insert(now);
        } else {
            // who comes back takes nothing back
            self.linked_since = None;
            self.candidacies = 0;
            self.candidate.clear();
            self.centrality = UNKNOWN_CENTRALITY;
            self.measured = None;
            self.measure_at = None;
        }
    }

    fn settled(&self, now: Instant) -> bool {
        self.linked_since.is_some_and(|since| now >= since + SETTLE)
    }

    /// Claims what it was elected to without a claim, gives up what another was elected to, and
    /// challenges roots that are far worse measured.
    pub fn review_candidacies(
        &mut self,
        roots: &[RpElection; GROUP_RANGES as usize],
        candidate: impl Fn(OriginId) -> Option<Eligible>,
        now: Instant,
    ) {
        let own = self.router.origin;
        let settled = self.settled(now);
        for (slot, roots) in roots.iter().enumerate() {
            let bit = 1 << slot;
            let challenge = &mut self.challenges[slot];
            if roots.elected == Some(own) {
                *challenge = None;
                if settled {
                    self.candidacies |= bit;
                }
                continue;
            }
            let better = roots.best == Some(own)
                && match (candidate(own), roots.elected.and_then(&candidate)) {
                    (Some(me), Some(root)) => me.may_challenge(&root),
                    _ => false,
                };
            if !better || !settled {
                self.candidacies &= !bit;
                *challenge = None;
            } else if self.candidacies & bit == 0 {
                let since = *challenge.get_or_insert(now);
                if now >= since + CHALLENGE {
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
                self.candidate.remove(prefix);
            } else if settled {
                self.candidate.insert(*prefix);
            }
        }
        self.candidate
            .retain(|prefix| self.router.announced.contains(prefix));
    }

    /// Whether the own centrality is to be computed now, in the graph of this digest.
    pub fn centrality_is_due(&mut self, graph: u64, now: Instant) -> bool {
        let Some(since) = self.linked_since else {
            return false;
        };
        self.measure_at = match self.measured {
            None => Some(since + SETTLE),
            Some((measured, _)) if measured == graph => None,
            Some((_, at)) if self.centrality == UNKNOWN_CENTRALITY => Some(at + SETTLE),
            Some((_, at)) => Some(at + CENTRALITY_GAP),
        };
        self.measure_at.take_if(|at| now >= *at).is_some()
    }

    /// The own centrality is this: it is told if it is at least a quarter off.
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

    /// All that there is to try_originate, with the prefixes that the own certificate permits.
    pub fn content(&self, permitted: &[GroupPrefix], links: Vec<(OriginId, u16)>) -> Content {
        let inside = |prefix: &GroupPrefix| permitted.iter().any(|p| p.covers(prefix));
        let prefixes = self
            .router
            .announced
            .iter()
            .filter(|prefix| inside(prefix))
            .take(super::MAX_PREFIXES)
            .map(|prefix| super::Announced {
                prefix: *prefix,
                candidate: self.candidate.contains(prefix),
            })
            .collect();
        Content {
            flags: self.router.flags,
            mtu: self.router.mtu,
            centrality: self.centrality,
            candidacies: self.candidacies,
            prefixes,
            links,
        }
    }

    /// Whether this is to be originated now; if so, it counts as originated. `up`: whether there is a link with this
    /// neighbour.
    pub fn try_originate(
        &mut self,
        content: &Content,
        up: impl Fn(OriginId) -> bool,
        now: Instant,
    ) -> bool {
        self.due = None;
        if self.originated.as_ref() == Some(content) && !self.superseded {
            return false;
        }
        let originated = self.originated.as_ref();
        let lost = originated.is_some_and(|originated| has_lost(originated, content, up));
        let first = originated.is_none_or(|s| s.links.is_empty() && !content.links.is_empty());
        let urgent = self.superseded && !self.shares_key || first || lost;
        let prefixes = |c: &Content| c.prefixes.iter().map(|p| p.prefix).collect::<Vec<_>>();
        let gap = match originated {
            _ if lost && self.urgent.left(URGENT_RATE, now) <= URGENT_RATE.burst / 2 => {
                LOSS_BATCH_GAP
            }
            _ if urgent => Duration::ZERO,
            _ if self.rejoins => REJOIN_GAP,
            Some(originated) if prefixes(originated) != prefixes(content) => BATCH_GAP,
            Some(originated) if !has_links(originated, content) => LINK_GAP,
            _ => ADVERTISEMENT_GAP,
        };
        let prompt = !urgent && !self.rejoins && gap < ADVERTISEMENT_GAP;
        let mut due = self.urgent.next(URGENT_RATE);
        if let Some(last) = self.originated_at {
            due = due.max(last + gap);
        }
        if prompt {
            due = due.max(self.prompt.next(PROMPT_RATE));
        }
        if now < due {
            self.due = Some(due);
            return false;
        }
        self.urgent.spend(URGENT_RATE, 1, now);
        if lost {
            self.lost = Some(now);
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

    /// Whether healing waits for what is originated now.
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.lost.is_some_and(|lost| now < lost + URGENT_FOR)
    }

    /// The next version to sign.
    pub fn next_version(&mut self) -> Version {
        // 2^32 advertisements last for centuries at one in 5 s
        self.sequence = self.sequence.saturating_add(1);
        Version::new(self.router.incarnation, self.sequence)
    }

    /// An advertisement of ours that is newer than we made: of an earlier run whose number was lost, or
    /// of another host with our key. Ours will be newer; true if that takes a higher incarnation.
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

    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let settled = self.linked_since.map(|since| since + SETTLE);
        let challenges = self
            .challenges
            .iter()
            .flatten()
            .map(|since| *since + CHALLENGE);
        // a moment that has passed was looked at when it came
        let looked_at = settled.into_iter().chain(challenges).filter(|at| *at > now);
        looked_at.chain(self.due).chain(self.measure_at).min()
    }
}

/// Whether all links of `of` are among those of `content`.
fn has_links(content: &Content, of: &Content) -> bool {
    let known = |origin: &OriginId| content.links.binary_search_by_key(origin, |l| l.0).is_ok();
    of.links.iter().all(|(origin, _)| known(origin))
}

/// A link was lost, not given up.
fn has_lost(originated: &Content, content: &Content, up: impl Fn(OriginId) -> bool) -> bool {
    let still = |origin: OriginId| {
        up(origin) || content.links.binary_search_by_key(&origin, |l| l.0).is_ok()
    };
    !originated.links.iter().all(|(origin, _)| still(*origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn own(now: Instant) -> Origination {
        let router = LocalRouter {
            origin: OriginId(9),
            incarnation: 1,
            chain: Bytes::new(),
            mtu: 1280,
            flags: 0,
            announced: BTreeSet::new(),
        };
        Origination::new(router, now)
    }

    #[test]
    fn a_lost_link_is_told_at_once_and_one_that_was_given_up_in_its_time() {
        let now = start();
        let moment = Duration::from_millis(10);
        let mut own = own(now);
        let links = |to: &[u64]| to.iter().map(|n| (OriginId(*n), 10)).collect();
        let [three, two, one] = [&[1, 2, 3][..], &[1, 2], &[1]].map(links);
        let [three, two, one] = [three, two, one].map(|links| own.content(&[], links));
        assert!(own.try_originate(&three, |_| true, now), "the first");
        // given up: it is up still, and is left out
        let soon = now + moment;
        assert!(!own.try_originate(&two, |_| true, soon));
        let due = now + ADVERTISEMENT_GAP;
        assert_eq!(own.next_timeout(soon), Some(due));
        assert!(own.try_originate(&two, |_| true, due));
        // gone: healing waits for it
        assert!(own.try_originate(&one, |to| to != OriginId(2), due + moment));
    }
}
