//! Runs a [`Policy`](super::policy::Policy) and manages the links that it asks for.
//!
//! A link's life, seen from one end:
//!
//! ```text
//!   wanted here ──> Wanted ──> link up ──> LinkRequest(Keep) .. LinkRequest(Release) ─┐
//!                                 ^                                     30 s of both ─┼─> Retire
//!   wanted by the peer ───────────┘           LINK REQUEST from the peer: not wanted ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use super::auto::policy;
use super::policy::{Known, LinkRequest, LinkView, Policy, Prospect, View};
use crate::config::TopologyConfig;
use crate::lsdb::LinkStanding;
use crate::small_map::SmallMap;

/// Bound of known members, and of members to which direct links fail.
pub(super) const MAX_KNOWN: usize = 4_096;
/// Time without a change after which links are decided on; changes often come in groups.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest delay of the decision after the first change.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// Time after which a link that neither end wants is no longer used.
const FADE_AFTER: Duration = Duration::from_secs(20);
/// Time after which a link that neither end wants is closed.
const RETIRE_AFTER: Duration = Duration::from_secs(30);

/// An action that the topology asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopologyEvent {
    /// The members with which links are wanted.
    Wanted(BTreeSet<OriginId>),
    /// Send the peer a LINK REQUEST.
    LinkRequest {
        /// The link.
        link: LinkId,
        /// Whether this node wants the link.
        request: LinkRequest,
    },
    /// The standing of the link changed: neither end wants it, or one wants it again.
    Standing {
        /// The link.
        link: LinkId,
    },
    /// Close the link: neither end has wanted it for 30 s.
    Retire {
        /// The link.
        link: LinkId,
    },
}

#[derive(Debug)]
struct Link {
    neighbor: OriginId,
    since: Instant,
    rtt: Option<Duration>,
    /// The peer's last LINK REQUEST. None yet: the peer may want the link.
    peer: Option<LinkRequest>,
    sent: Option<LinkRequest>,
    unwanted_since: Option<Instant>,
    faded: bool,
    retired: bool,
}

/// The policy with its inputs and outputs.
#[derive(Debug)]
pub struct Topology {
    own: OriginId,
    seed: u64,
    config: TopologyConfig,
    policy: Box<dyn Policy>,
    known: BTreeMap<OriginId, Known>,
    /// Rises when a member becomes known or is forgotten.
    members: u64,
    /// Members to which direct links fail; separate, as some are not known yet.
    failing: BTreeSet<OriginId>,
    links: SmallMap<LinkId, Link>,
    /// A known member is marked as lost.
    has_lost: bool,
    wanted: BTreeSet<OriginId>,
    /// Times of the first and the last change since the last decision.
    changed: Option<(Instant, Instant)>,
    /// The first of all timers, computed after each change.
    timer: Option<Instant>,
    events: VecDeque<TopologyEvent>,
}

impl Topology {
    /// A topology for node `own`, which knows no members. `seed` jitters trials.
    pub fn new(own: OriginId, config: TopologyConfig, seed: u64, now: Instant) -> Self {
        let mut topology = Self {
            own,
            seed,
            config,
            policy: policy(config, seed, now),
            known: BTreeMap::new(),
            members: 0,
            failing: BTreeSet::new(),
            links: SmallMap::default(),
            has_lost: false,
            wanted: BTreeSet::new(),
            changed: None,
            timer: None,
            events: VecDeque::new(),
        };
        topology.find_timer();
        topology
    }

    /// Sets the policy or degree.
    pub fn set_config(&mut self, config: TopologyConfig, now: Instant) {
        if self.config != config {
            self.config = config;
            self.policy = policy(config, self.seed, now);
            self.change(now);
        }
    }

    /// Sets all other routers reachable in the link state, ascending, with their stub flags.
    pub fn set_reachable(
        &mut self,
        routers: impl IntoIterator<Item = (OriginId, bool)>,
        now: Instant,
    ) {
        let mut routers = routers.into_iter().peekable();
        let (mut changed, mut gone, mut new) = (false, Vec::new(), Vec::new());
        for (origin, known) in &mut self.known {
            new.extend(std::iter::from_fn(|| routers.next_if(|r| r.0 < *origin)));
            let found = routers.next_if(|r| r.0 == *origin);
            let reachable = found.is_some();
            let stub = found.map_or(known.stub, |(_, stub)| stub);
            changed |= reachable != known.reachable || stub != known.stub;
            self.members += u64::from(stub != known.stub);
            (known.reachable, known.stub) = (reachable, stub);
            if !reachable && !known.present {
                gone.push(*origin);
            }
        }
        new.extend(routers);
        for origin in gone {
            self.forget(origin);
        }
        for (origin, stub) in new {
            if origin != self.own && self.has_room() {
                changed = true;
                let known = self.entry(origin);
                (known.reachable, known.stub) = (true, stub);
            }
        }
        if changed {
            self.change(now);
        }
    }

    /// A carrier of signalling reports this member as online or offline.
    pub fn set_present(&mut self, origin: OriginId, online: bool, now: Instant) {
        if origin == self.own {
            return;
        }
        if let Some(known) = self.known.get_mut(&origin) {
            if known.present == online {
                return;
            }
            known.present = online;
            if !online && !known.reachable {
                self.forget(origin);
            }
        } else if online && self.known.len() < MAX_KNOWN {
            self.entry(origin).present = true;
        } else {
            return;
        }
        self.change(now);
    }

    /// Attempts at a direct link with this member fail, or no longer do.
    pub fn set_direct_failure(&mut self, origin: OriginId, failing: bool, now: Instant) {
        let changed = if !failing {
            self.failing.remove(&origin)
        } else {
            self.failing.len() < MAX_KNOWN && self.failing.insert(origin)
        };
        if !changed {
            return;
        }
        if let Some(known) = self.known.get_mut(&origin) {
            known.direct_fails = failing;
            self.change(now);
        }
    }

    /// A link has come up.
    pub fn link_up(&mut self, link: LinkId, neighbor: OriginId, now: Instant) {
        self.links.insert(
            link,
            Link {
                neighbor,
                since: now,
                rtt: None,
                peer: None,
                sent: None,
                unwanted_since: None,
                faded: false,
                retired: false,
            },
        );
        if std::mem::take(&mut self.has_lost) {
            self.known.values_mut().for_each(|known| known.lost = false);
        }
        self.review_links(now);
        self.change(now);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, now: Instant) {
        if let Some(link) = self.links.remove(&link) {
            if let Some(known) = self.known.get_mut(&link.neighbor) {
                (known.lost, self.has_lost) = (true, true);
            }
            self.change(now);
        }
    }

    /// A link's round trip.
    pub fn set_rtt(&mut self, link: LinkId, rtt: Duration) {
        if let Some(link) = self.links.get_mut(&link) {
            link.rtt = Some(rtt);
        }
    }

    /// Handles the peer's LINK REQUEST.
    pub fn set_peer_request(&mut self, link: LinkId, request: LinkRequest, now: Instant) {
        let link = self.links.get_mut(&link);
        if let Some(link) = link.filter(|link| link.peer != Some(request)) {
            link.peer = Some(request);
            self.review_links(now);
            self.find_timer();
        }
    }

    /// The standing of a link, from both ends' requests.
    pub fn standing(&self, link: LinkId) -> LinkStanding {
        match self.links.get(&link) {
            Some(link) if [link.sent, link.peer].contains(&Some(LinkRequest::Keep)) => {
                LinkStanding::Wanted
            }
            Some(link) if link.faded => LinkStanding::Retiring,
            _ => LinkStanding::Unwanted,
        }
    }

    /// The members with which links are wanted.
    pub fn wanted(&self) -> &BTreeSet<OriginId> {
        &self.wanted
    }

    /// Handles expired timers; a policy that is looking for links gets `prospects`.
    pub fn handle_timeout(&mut self, prospects: impl FnOnce() -> Vec<Prospect>, now: Instant) {
        let policy = self.policy.next_timeout().is_some_and(|at| at <= now);
        if policy || self.decision_at().is_some_and(|at| at <= now) {
            let looking = self.policy.is_looking(now);
            let prospects = looking.then(prospects).unwrap_or_default();
            self.decide(&prospects, now);
        }
        for (id, link) in self.links.iter_mut() {
            let over = |after| link.unwanted_since.is_some_and(|t| t + after <= now);
            if over(FADE_AFTER) && !link.faded {
                link.faded = true;
                self.events.push_back(TopologyEvent::Standing { link: id });
            }
            if over(RETIRE_AFTER) && !link.retired {
                link.retired = true;
                self.events.push_back(TopologyEvent::Retire { link: id });
            }
        }
        self.find_timer();
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        debug_assert_eq!(self.timer, self.first_timer());
        self.timer
    }

    #[inline(never)]
    fn find_timer(&mut self) {
        self.timer = self.first_timer();
    }

    fn first_timer(&self) -> Option<Instant> {
        let unwanted = self.links.values().filter(|link| !link.retired);
        let retire = unwanted.filter_map(|link| {
            let after = if link.faded { RETIRE_AFTER } else { FADE_AFTER };
            Some(link.unwanted_since? + after)
        });
        retire
            .chain(self.decision_at())
            .chain(self.policy.next_timeout())
            .min()
    }

    /// The next action.
    pub fn poll_event(&mut self) -> Option<TopologyEvent> {
        self.events.pop_front()
    }

    fn entry(&mut self, origin: OriginId) -> &mut Known {
        let direct_fails = self.failing.contains(&origin);
        let members = &mut self.members;
        self.known.entry(origin).or_insert_with(|| {
            *members += 1;
            Known {
                direct_fails,
                ..Known::default()
            }
        })
    }

    fn forget(&mut self, origin: OriginId) -> bool {
        self.members += 1;
        self.known.remove(&origin).is_some()
    }

    /// Makes room for a router of the link state, in place of one that only a carrier reports.
    fn has_room(&mut self) -> bool {
        if self.known.len() < MAX_KNOWN {
            return true;
        }
        let weak = self.known.iter().rev().find(|(_, k)| !k.reachable);
        let weak = weak.map(|(origin, _)| *origin);
        weak.is_some_and(|origin| self.forget(origin))
    }

    fn change(&mut self, now: Instant) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
        self.find_timer();
    }

    fn decision_at(&self) -> Option<Instant> {
        self.changed
            .map(|(first, last)| (last + DEBOUNCE).min(first + MAX_DEBOUNCE))
    }

    fn decide(&mut self, prospects: &[Prospect], now: Instant) {
        self.changed = None;
        // a linked member is present, even if the link state does not show it
        let mut known = std::borrow::Cow::Borrowed(&self.known);
        let mut links = BTreeMap::new();
        for link in self.links.values().filter(|link| !link.retired) {
            if !known.contains_key(&link.neighbor) {
                known.to_mut().insert(link.neighbor, Known::default());
            }
            let (rtt, since) = (link.rtt, link.since);
            links.insert(link.neighbor, LinkView { rtt, since });
        }
        let is_whole = matches!(known, std::borrow::Cow::Borrowed(_));
        let view = View {
            own: self.own,
            known: &known,
            members: is_whole.then_some(self.members),
            links: &links,
            prospects,
        };
        let wanted = self.policy.wanted(&view, now);
        if wanted != self.wanted {
            self.events.push_back(TopologyEvent::Wanted(wanted.clone()));
            self.wanted = wanted;
        }
        self.review_links(now);
    }

    /// Sends link requests that have changed and notes links that neither end wants.
    fn review_links(&mut self, now: Instant) {
        let on_trial = self.policy.on_trial();
        for (id, link) in self.links.iter_mut() {
            let request = match link.neighbor {
                neighbor if Some(neighbor) == on_trial => LinkRequest::Trial,
                neighbor if self.wanted.contains(&neighbor) => LinkRequest::Keep,
                _ => LinkRequest::Release,
            };
            if link.sent != Some(request) {
                link.sent = Some(request);
                self.events
                    .push_back(TopologyEvent::LinkRequest { link: id, request });
            }
            if request != LinkRequest::Release || link.peer != Some(LinkRequest::Release) {
                link.unwanted_since = None;
                if std::mem::take(&mut link.faded) {
                    self.events.push_back(TopologyEvent::Standing { link: id });
                }
            } else {
                link.unwanted_since.get_or_insert(now);
            }
        }
    }
}
