//! This node as a leaf: it joins groups over an active link, has a standby link, and is no router.
//!
//! ```text
//!   ACTIVE --no packet of any flow--> SUSPECTED --the standby link has one--> ACTIVE there
//!     ^                                |   |
//!     \-- one comes, or all have ended-/   \--the link is down--> LOST, or the standby link
//! ```
//! The active link is suspected, not a flow: flows end all the time. While it is suspected, both
//! links have the joins. Duplicates are dropped by (origin, incarnation, sequence).
//!
//! A timer that comes late proves no silence: packets may be waiting. It is due again at once.
//!
//! A router without a link to another router is isolated. The leaf replaces its link, and leaves it at
//! once for the standby link, unless a flow comes over it.
//!
//! A spare router asks its leaves to go to others: a helper of a station serves in its stead. The leaf
//! leaves it once another router has brought it a packet, and comes back if that one falls silent. No
//! router's word about its leaves counts.
//!
//! Packets to asking groups go to a router that takes them, the active one if it does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use bytes::{Buf, Bytes};
use librecast::bucket::Bucket;
use librecast::cert::GroupPrefix;
use librecast::channel::is_asking_group;
use librecast::drops::Drops;
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use crate::classify::{CarriedScopes, Class, Flow, trim};
use crate::control::{self, Element, LeafJoin, LeafOffer, RefusalReason};
use crate::drops::DropReason;
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, MAX_SEQUENCE, Payload};
use crate::leaves::LEAF_GROUPS;
use crate::output::LinkFault;
use crate::source_filter::SourceFilter;
use crate::uplink::OF_LEAF;

/// Links of a leaf: one active, one standby.
const LINKS: usize = 2;
/// Packets after which a flow counts as running. Chosen: fewer do not show the gap between two.
const RUNNING_PACKETS: u32 = 8;
/// Least silence of the active link while a flow is running. Chosen: a hello interval of a link.
const SUSPECT_SILENCE: Duration = Duration::from_millis(300);
/// Least silence in gaps between packets of its quickest flow. Chosen.
const SUSPECT_GAPS: u32 = 4;
/// Delay of a timer beyond which the owner was held up. Chosen: a third of [`SUSPECT_SILENCE`].
const LATE: Duration = Duration::from_millis(100);
/// Further silence that ends a flow. Chosen: longer than to compute and join.
const ENDED: Duration = Duration::from_secs(3);
/// Time for which a former active link keeps the joins, so that packets under way are not lost.
const OVERLAP: Duration = Duration::from_secs(1);
/// Least time between changes of the active link to a nearer one.
const SWAP_EVERY: Duration = Duration::from_secs(30);
/// Least gain in round trip of a nearer link, which also has at most 3/4 of the round trip.
const SWAP_GAIN: Duration = Duration::from_millis(5);
/// Time for a link with a router before the next is tried. Chosen: as long as an attempt may take.
const LINK_WITHIN: Duration = Duration::from_secs(15);
/// Longest random delay before a lost link is replaced, if one is left. Chosen: all leaves of a
/// router lose it at once.
const REPLACED_WITHIN: Duration = Duration::from_secs(4);
/// Time for which a router that failed is avoided, if there are other routers.
const AVOIDED: Duration = Duration::from_secs(30);
/// Time after which a join that was refused for lack of room is sent again.
const RETRY: Duration = Duration::from_secs(5);
/// Remembered routers. Chosen: each router offers four.
const MAX_ROUTERS: usize = 64;
/// Most routers that are remembered as those that offer another one. Chosen: a leaf has two links.
const MAX_OFFERERS: usize = 8;
/// Remembered flows. Chosen: 64 groups have a few speakers.
const MAX_FLOWS: usize = 256;
/// Remembered packets. Chosen: 2 s of 1,000 a second, and the two links differ by less.
const MAX_PASSED: usize = 2_048;

/// An action for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafOutput {
    /// Send a message on the control channel of a link.
    Control {
        /// The link.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Send a packet on the data channel of a link.
    Data {
        /// The link.
        link: LinkId,
        /// The data header.
        header: [u8; HEADER_LEN],
        /// The packet.
        packet: Bytes,
    },
    /// A packet of a group that is joined, IPv6 or IPv4.
    Packet {
        /// The packet.
        packet: Bytes,
    },
    /// The routers with which links are wanted.
    Wanted(BTreeSet<PeerId>),
    /// The active router refused a join.
    Refused {
        /// The group.
        group: Ipv6Addr,
        /// The reason.
        reason: RefusalReason,
    },
    /// The router broke the protocol: close this link.
    LinkFault {
        /// The link.
        link: LinkId,
        /// The reason.
        reason: LinkFault,
    },
}

/// State of a leaf's reception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafState {
    /// Packets come over the active link, as far as this node knows.
    Active,
    /// The active link is silent; the standby link has the joins as well.
    Suspected,
    /// No link is up.
    Lost,
}

/// A router's reason against a link with this leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkRefusal {
    /// It has no room for more leaves.
    NoRoom,
    /// The clocks differ by more than a day.
    ClockDiffers,
}

#[derive(Debug, Default)]
struct Router {
    /// A carrier of signalling reports it as present.
    present: bool,
    /// Routers whose last offers name it, up to [`MAX_OFFERERS`].
    offered_by: BTreeSet<PeerId>,
    avoided_until: Option<Instant>,
    /// Since when a link with it is wanted, while none is up.
    tried: Option<Instant>,
    /// Its last reason against a link.
    refused: Option<LinkRefusal>,
    /// By its last offer it serves only leaves that no other router serves.
    spare: bool,
}

impl Router {
    fn is_present(&self) -> bool {
        self.present || !self.offered_by.is_empty()
    }
}

#[derive(Debug)]
struct Link {
    router: PeerId,
    rtt: Option<Duration>,
    joined: bool,
    /// Time at which the joins on it end.
    leaves_at: Option<Instant>,
    /// The router takes packets to asking groups.
    uplink: bool,
    /// Whether the router has no link with another one; unknown before its first offer.
    isolated: Option<bool>,
    /// It was the active link.
    tried: bool,
    /// A packet of a joined group came over it, since it was last silent.
    carries: bool,
}

#[derive(Debug)]
struct Joined {
    filter: SourceFilter,
    refused: Option<RefusalReason>,
    retry_at: Option<Instant>,
}

/// Packets of one source to one group.
#[derive(Debug)]
struct Run {
    /// Arrival of the last packet, over any link.
    last: Instant,
    packets: u32,
    /// Time from one packet to the next, smoothed.
    gap: Duration,
    /// It is silent while another flow is not.
    ended: bool,
}

impl Run {
    fn is_running(&self) -> bool {
        self.packets >= RUNNING_PACKETS && !self.ended
    }

    /// Time without a packet that counts as silence.
    fn silence(&self) -> Duration {
        (self.gap * SUSPECT_GAPS).max(SUSPECT_SILENCE)
    }

    fn silent_at(&self) -> Instant {
        self.last + self.silence()
    }

    fn ends_at(&self) -> Instant {
        self.silent_at() + ENDED
    }
}

/// Origin, incarnation and sequence of a packet.
type PacketName = (OriginId, u32, u64);

/// The last packets of all origins. Each router may invent such names, and no highest one counts:
/// an invented one blocks no other packet.
#[derive(Debug, Default)]
struct Passed {
    names: BTreeSet<PacketName>,
    /// The oldest first.
    order: VecDeque<PacketName>,
}

impl Passed {
    /// Accepts each of the last packets once.
    fn accept(&mut self, name: PacketName) -> bool {
        if !self.names.insert(name) {
            return false;
        }
        self.order.push_back(name);
        if self.order.len() > MAX_PASSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        true
    }
}

/// A listener that is not a router.
///
/// After each `handle_*`, [`Self::join`] or [`Self::part`] the owner empties [`Self::poll_output`].
/// It calls [`Self::handle_timeout`] at [`Self::next_timeout`].
#[derive(Debug)]
pub struct Leaf {
    joins: BTreeMap<Ipv6Addr, Joined>,
    links: BTreeMap<LinkId, Link>,
    active: Option<LinkId>,
    swapped_at: Option<Instant>,
    routers: BTreeMap<PeerId, Router>,
    wanted: BTreeSet<PeerId>,
    /// Earliest time to look for another link, while one is up.
    replace_at: Option<Instant>,
    flows: BTreeMap<(Ipv6Addr, Ipv6Addr), Run>,
    /// Arrival of the last packet over the active link, or since when it is active.
    heard: Instant,
    /// Since when the active link is suspected.
    suspected: Option<Instant>,
    /// A timer came late; the next one judges.
    late: Option<Instant>,
    passed: Passed,
    /// Packets to asking groups, as routers admit them.
    asked: Bucket,
    sent: u64,
    random: Random,
    outputs: VecDeque<LeafOutput>,
    drops: Drops<DropReason>,
    now: Instant,
}

/// Joins.
impl Leaf {
    /// A leaf without links and groups.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            joins: BTreeMap::new(),
            links: BTreeMap::new(),
            active: None,
            swapped_at: None,
            routers: BTreeMap::new(),
            wanted: BTreeSet::new(),
            replace_at: None,
            flows: BTreeMap::new(),
            heard: now,
            suspected: None,
            late: None,
            passed: Passed::default(),
            asked: Bucket::full(now),
            sent: 0,
            random: Random::new(seed),
            outputs: VecDeque::new(),
            drops: Drops::default(),
            now,
        }
    }

    /// Joins a group, or changes its filter. False: the joins have reached the bound of a router.
    pub fn join(&mut self, group: Ipv6Addr, filter: SourceFilter, now: Instant) -> bool {
        self.now = now;
        if !self.joins.contains_key(&group) && self.joins.len() >= LEAF_GROUPS {
            return false;
        }
        self.tell_joined(group, Some(&filter));
        let joined = Joined {
            filter,
            refused: None,
            retry_at: None,
        };
        self.joins.insert(group, joined);
        true
    }

    /// Leaves a group.
    pub fn part(&mut self, group: Ipv6Addr, now: Instant) {
        self.now = now;
        if self.joins.remove(&group).is_some() {
            self.flows.retain(|(_, of), _| *of != group);
            self.tell_joined(group, None);
            self.trust_without_flows();
        }
    }

    /// The state of its reception.
    pub fn state(&self) -> LeafState {
        match self.active {
            None => LeafState::Lost,
            Some(_) if self.suspected.is_some() => LeafState::Suspected,
            Some(_) => LeafState::Active,
        }
    }

    /// The router at the other end of the active link.
    pub fn active(&self) -> Option<PeerId> {
        Some(self.links.get(&self.active?)?.router)
    }

    /// Number of links.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Dropped packets and messages so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.by_name()
    }

    /// The reason for which no known router gives this leaf a link, if all have one.
    pub fn refusal(&self) -> Option<LinkRefusal> {
        if !self.links.is_empty() {
            return None;
        }
        let mut reasons = self.refusals();
        let first = reasons.next()??;
        reasons.all(|reason| reason == Some(first)).then_some(first)
    }

    /// Whether this leaf has no link, and a router had no room for it.
    pub fn waits_for_room(&self) -> bool {
        let is_full = |reason| reason == Some(LinkRefusal::NoRoom);
        self.links.is_empty() && self.refusals().any(is_full)
    }

    /// The last refusal of each router that is present.
    fn refusals(&self) -> impl Iterator<Item = Option<LinkRefusal>> {
        let present = self.routers.values().filter(|router| router.is_present());
        present.map(|router| router.refused)
    }
}

/// Links.
impl Leaf {
    /// A carrier reports a router as present, or as gone.
    pub fn handle_router(&mut self, router: PeerId, present: bool, now: Instant) {
        self.now = now;
        if present {
            if let Some(known) = self.know(router) {
                known.present = true;
            }
        } else if let Some(known) = self.routers.get_mut(&router) {
            known.present = false;
            known.offered_by.clear();
        }
        self.choose();
    }

    /// Attempts at a link with a router fail; `refused`: its reason, if it has told one.
    pub fn handle_failure(&mut self, router: PeerId, refused: Option<LinkRefusal>, now: Instant) {
        self.now = now;
        self.avoid(router);
        if let Some(known) = self.routers.get_mut(&router) {
            known.refused = refused.or(known.refused);
        }
        self.choose();
    }

    /// A link with a router is up.
    pub fn handle_link_up(&mut self, link: LinkId, router: PeerId, now: Instant) {
        self.now = now;
        let up = Link {
            router,
            rtt: None,
            joined: false,
            leaves_at: None,
            uplink: false,
            isolated: None,
            tried: false,
            carries: false,
        };
        self.links.insert(link, up);
        if let Some(known) = self.know(router) {
            (known.tried, known.avoided_until, known.refused) = (None, None, None);
        }
        if self.active.is_none() {
            self.activate(link);
        } else if self.suspected.is_some() {
            self.join_over(link);
        }
        self.choose();
    }

    /// A link is gone.
    pub fn handle_link_down(&mut self, link: LinkId, now: Instant) {
        self.now = now;
        let Some(gone) = self.links.remove(&link) else {
            return;
        };
        self.avoid(gone.router);
        if !self.links.is_empty() {
            let wait = self.random.between(Duration::ZERO, REPLACED_WITHIN);
            self.replace_at = Some(now + wait);
        }
        if self.active == Some(link) {
            self.active = None;
            if let Some(other) = self.standby() {
                self.activate(other);
            }
        }
        self.choose();
    }

    /// The round trip of a link.
    pub fn handle_link_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.now = now;
        if let Some(known) = self.links.get_mut(&link) {
            known.rtt = Some(rtt);
        }
        let rtt_of = |link: LinkId| self.links.get(&link).and_then(|l| l.rtt);
        let (Some(active), Some(other)) = (self.active, self.standby()) else {
            return;
        };
        let (Some(far), Some(near)) = (rtt_of(active), rtt_of(other)) else {
            return;
        };
        let rests = self.swapped_at.is_some_and(|at| now < at + SWAP_EVERY);
        let leads = self.links.get(&other);
        let is_spare = leads.is_some_and(|link| self.is_spare(&link.router));
        if !rests && !is_spare && near <= far * 3 / 4 && near + SWAP_GAIN <= far {
            self.swapped_at = Some(now);
            self.activate(other);
        }
    }

    fn standby(&self) -> Option<LinkId> {
        let others = self.links.keys().copied();
        others
            .filter(|link| Some(*link) != self.active)
            .min_by_key(|link| (self.links.get(link).and_then(|l| l.rtt), *link))
    }

    /// Makes a link the active one; the former active link keeps its joins for [`OVERLAP`].
    fn activate(&mut self, link: LinkId) {
        let before = self.active.replace(link);
        (self.suspected, self.heard) = (None, self.now);
        self.join_over(link);
        if let Some(new) = self.links.get_mut(&link) {
            new.tried = true;
        }
        if let Some(old) = before.and_then(|old| self.links.get_mut(&old)) {
            old.leaves_at = Some(self.now + OVERLAP);
        }
    }

    /// Whether a link is to be replaced: its router is isolated, and it is not the active one with a
    /// flow.
    fn is_idle(&self, link: LinkId) -> bool {
        let isolated = self.links.get(&link).and_then(|known| known.isolated);
        let hears = self.suspected.is_none() && self.flows.values().any(Run::is_running);
        isolated == Some(true) && !(hears && self.active == Some(link))
    }

    /// Leaves an isolated router for the standby link, if the router there is not isolated.
    fn leave_isolated(&mut self) {
        let is_isolated = |link: LinkId| self.links.get(&link).and_then(|known| known.isolated);
        let (Some(active), Some(standby)) = (self.active, self.standby()) else {
            return;
        };
        if self.is_idle(active) && is_isolated(standby) == Some(false) {
            self.activate(standby);
        }
    }

    fn is_spare(&self, router: &PeerId) -> bool {
        self.routers.get(router).is_some_and(|known| known.spare)
    }

    /// Whether a link's router is neither isolated nor spare.
    fn serves(&self, link: &Link) -> bool {
        link.isolated == Some(false) && !self.is_spare(&link.router)
    }

    /// Leaves a spare router for another one that brings packets, or was not tried yet.
    fn leave_spare(&mut self) {
        if !self.active().is_some_and(|router| self.is_spare(&router)) {
            return;
        }
        let mut others = self.links.iter().filter(|(_, link)| self.serves(link));
        let other = others.find(|(_, link)| link.carries || !link.tried);
        if let Some(other) = other.map(|(id, _)| *id) {
            self.activate(other);
        }
    }

    /// The spare routers that this leaf does not need, as another one brings it packets. One whose
    /// link has joins is needed.
    fn unneeded(&self) -> BTreeSet<PeerId> {
        let active = self.active.and_then(|active| self.links.get(&active));
        if !active.is_some_and(|link| link.carries && self.serves(link)) {
            return BTreeSet::new();
        }
        let joined = self.links.values().filter(|link| link.joined);
        let joined: BTreeSet<_> = joined.map(|link| link.router).collect();
        let spare = self.routers.iter().filter(|(_, known)| known.spare);
        let spare = spare.map(|(id, _)| *id);
        spare.filter(|id| !joined.contains(id)).collect()
    }

    /// The routers of links that stay: all but those to be replaced, and at least the active one.
    fn kept(&self) -> BTreeSet<PeerId> {
        let links = self.links.iter();
        let kept = links.filter(|(link, _)| !self.is_idle(**link));
        let kept: BTreeSet<_> = kept.map(|(_, link)| link.router).collect();
        match kept.is_empty() {
            true => self.active().into_iter().collect(),
            false => kept,
        }
    }

    /// Chooses the routers with which links are wanted: those with links, then any others, and
    /// isolated ones if there are no others. Spare ones only if no other brings packets.
    fn choose(&mut self) {
        let now = self.now;
        self.leave_isolated();
        self.leave_spare();
        let unneeded = self.unneeded();
        let mut wanted = self.kept();
        wanted.retain(|id| !unneeded.contains(id));
        let linked: BTreeSet<_> = self.links.values().map(|link| link.router).collect();
        let trying = self.wanted.iter().filter(|router| {
            let known = self.routers.get(*router);
            known.is_some_and(|known| known.tried.is_some()) && !unneeded.contains(*router)
        });
        for router in trying {
            if wanted.len() < LINKS {
                wanted.insert(*router);
            }
        }
        let waits = self.replace_at.is_some_and(|at| now < at);
        let waits = waits && !self.links.is_empty();
        while wanted.len() < LINKS {
            let is_out = |id: &PeerId| wanted.contains(id) || unneeded.contains(id);
            let is_free = |id: &PeerId| !waits && !linked.contains(id) && !is_out(id);
            let candidates = self.routers.iter();
            let candidates = candidates.filter(|(id, r)| r.is_present() && is_free(id));
            let rests = |r: &Router| r.avoided_until.is_some_and(|until| now < until);
            let (rested, others): (Vec<_>, Vec<_>) = candidates.partition(|(_, r)| rests(r));
            let idle = linked.iter().find(|id| !is_out(id));
            let chosen = match (others.is_empty(), idle) {
                (false, _) => *others[self.random.index(others.len())].0,
                (true, Some(idle)) => *idle,
                // one that failed is better than none
                (true, None) if !rested.is_empty() => *rested[self.random.index(rested.len())].0,
                (true, None) => break,
            };
            wanted.insert(chosen);
        }
        for (id, known) in &mut self.routers {
            let tries = wanted.contains(id) && !linked.contains(id);
            known.tried = tries.then(|| known.tried.unwrap_or(now));
        }
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            self.outputs.push_back(LeafOutput::Wanted(wanted));
        }
    }

    fn avoid(&mut self, router: PeerId) {
        let until = self.now + AVOIDED;
        if let Some(known) = self.routers.get_mut(&router) {
            (known.avoided_until, known.tried) = (Some(until), None);
        }
    }

    /// The entry of a router. A new one may displace a router without a link that no carrier and no
    /// linked router reports.
    fn know(&mut self, router: PeerId) -> Option<&mut Router> {
        if !self.routers.contains_key(&router) && self.routers.len() >= MAX_ROUTERS {
            let linked = |id: &PeerId| self.links.values().any(|link| link.router == *id);
            let mut idle = self.routers.iter();
            let is_offered = |known: &Router| known.offered_by.iter().any(linked);
            let idle = idle.find(|(id, known)| !known.present && !is_offered(known) && !linked(id));
            let idle = idle.map(|(id, _)| *id)?;
            self.routers.remove(&idle);
        }
        Some(self.routers.entry(router).or_default())
    }
}

/// Control messages.
impl Leaf {
    /// One message of a control channel.
    pub fn handle_control(&mut self, link: LinkId, message: &[u8], now: Instant) {
        self.now = now;
        if !self.links.contains_key(&link) {
            self.drops.count(DropReason::UnknownLink);
            return;
        }
        let Ok(elements) = control::decode(message) else {
            self.drops.count(DropReason::BadControl);
            let reason = LinkFault::Unreadable;
            self.outputs
                .push_back(LeafOutput::LinkFault { link, reason });
            return;
        };
        for element in elements {
            match element {
                Element::LeafOffer(offer) => {
                    self.handle_offer(link, &offer);
                    self.handle_offered(link, offer.others);
                }
                Element::Refusal { reason, prefix, .. } => {
                    self.handle_refusal(link, prefix, reason);
                }
                // of a router that does not take this node for a leaf
                _ => self.drops.count(DropReason::BadControl),
            }
        }
        self.choose();
    }

    fn handle_offer(&mut self, link: LinkId, offer: &LeafOffer) {
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        known.uplink = offer.uplink;
        let (router, before) = (known.router, known.isolated.replace(offer.isolated));
        if let Some(known) = self.routers.get_mut(&router) {
            known.spare = offer.spare;
        }
        let active = self.active.and_then(|active| self.links.get(&active));
        let is_silent = active.is_some_and(|active| !active.carries);
        if offer.spare && before.is_none() && is_silent && self.active != Some(link) {
            // whoever asks for others is where packets come from; the active router may withhold them
            self.activate(link);
        }
        if offer.isolated && before != Some(true) {
            // so do all leaves of this router
            let wait = self.random.between(Duration::ZERO, REPLACED_WITHIN);
            self.replace_at = Some(self.now + wait);
        }
    }

    /// Notes the routers of an offer in the place of those that this router has offered before: it
    /// may invent them.
    fn handle_offered(&mut self, link: LinkId, routers: Vec<PeerId>) {
        let Some(by) = self.links.get(&link).map(|known| known.router) else {
            return;
        };
        for known in self.routers.values_mut() {
            known.offered_by.remove(&by);
        }
        for router in routers {
            if let Some(known) = self.know(router)
                && known.offered_by.len() < MAX_OFFERERS
            {
                known.offered_by.insert(by);
            }
        }
    }

    fn handle_refusal(&mut self, link: LinkId, prefix: GroupPrefix, reason: RefusalReason) {
        let group = prefix.as_group();
        let Some(joined) = group.and_then(|group| self.joins.get_mut(&group)) else {
            return;
        };
        if self.active != Some(link) {
            return;
        }
        joined.retry_at = match reason {
            RefusalReason::TooManyGroups => Some(self.now + RETRY),
            _ => None,
        };
        if joined.refused.replace(reason) != Some(reason)
            && let Some(group) = group
        {
            self.outputs
                .push_back(LeafOutput::Refused { group, reason });
        }
    }

    fn join_over(&mut self, link: LinkId) {
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        known.leaves_at = None;
        if std::mem::replace(&mut known.joined, true) {
            return;
        }
        let joins = self.joins.iter();
        let joins: Vec<_> = joins
            .map(|(group, joined)| leaf_join(*group, Some(joined.filter.clone())))
            .collect();
        self.send(link, &joins);
    }

    /// Ends all joins over a link.
    fn part_over(&mut self, link: LinkId) {
        let Some(known) = self.links.get_mut(&link) else {
            return;
        };
        known.leaves_at = None;
        if std::mem::replace(&mut known.joined, false) {
            let parts: Vec<_> = self.joins.keys().map(|g| leaf_join(*g, None)).collect();
            self.send(link, &parts);
        }
    }

    fn tell_joined(&mut self, group: Ipv6Addr, filter: Option<&SourceFilter>) {
        let joined = self.links.iter().filter(|(_, link)| link.joined);
        let links: Vec<_> = joined.map(|(link, _)| *link).collect();
        for link in links {
            self.send(link, &[leaf_join(group, filter.cloned())]);
        }
    }

    fn send(&mut self, link: LinkId, elements: &[Element]) {
        let messages = control::encode(elements).into_iter();
        let outputs = messages.map(|message| LeafOutput::Control { link, message });
        self.outputs.extend(outputs);
    }
}

fn leaf_join(group: Ipv6Addr, join: Option<SourceFilter>) -> Element {
    let group = GroupPrefix::group(group);
    Element::LeafJoin(LeafJoin { group, join })
}

/// Packets.
impl Leaf {
    /// Sends a packet to an asking group. Its router checks the certificate.
    pub fn send_packet(&mut self, packet: Bytes, now: Instant) {
        self.now = now;
        if let Err(reason) = self.try_send(packet) {
            self.drops.count(reason);
        }
    }

    fn try_send(&mut self, packet: Bytes) -> Result<(), DropReason> {
        let flow = match CarriedScopes::ON_LINKS.classify(&packet) {
            Class::Carried(flow) => flow,
            Class::Dropped(reason) => return Err(reason),
            Class::Mld | Class::Unicast(_) => return Err(DropReason::LeafSent),
        };
        if !is_asking_group(flow.group) {
            return Err(DropReason::LeafSent);
        }
        let takes = |link: &LinkId| self.links.get(link).is_some_and(|known| known.uplink);
        let link = self.active.into_iter().chain(self.standby()).find(takes);
        let link = link.ok_or(DropReason::NoRoute)?;
        if !self.asked.take(OF_LEAF, 1, self.now) {
            return Err(DropReason::LeafUplinkRate);
        }
        self.sent = (self.sent + 1) & MAX_SEQUENCE;
        // the router puts its own tree, origin and number in their places
        let header = DataHeader {
            payload: Payload::Ipv6,
            flags: 0,
            hop_limit: HOP_LIMIT,
            root: OriginId(0),
            origin: OriginId(0),
            incarnation: 0,
            sequence: self.sent,
        };
        let header = header.encode();
        self.outputs.push_back(LeafOutput::Data {
            link,
            header,
            packet,
        });
        Ok(())
    }

    /// Whether a router takes packets to asking groups.
    pub fn has_uplink(&self) -> bool {
        self.links.values().any(|link| link.uplink)
    }

    /// One message of a data channel: data header and packet.
    pub fn handle_data(&mut self, link: LinkId, mut message: Bytes, now: Instant) {
        self.now = now;
        let header = DataHeader::decode(&message).ok().map(|(header, _)| header);
        message.advance(HEADER_LEN.min(message.len()));
        match self.receive(link, header, &message) {
            Ok(flow) => {
                trim(&mut message);
                self.note(link, flow);
                let packet = message;
                self.outputs.push_back(LeafOutput::Packet { packet });
                self.note_carries(link);
            }
            Err(reason) => {
                // what came over the other link before shows that this one works, too
                if matches!(reason, DropReason::Duplicate) {
                    if self.active == Some(link) {
                        self.heard = now;
                    }
                    self.note_carries(link);
                }
                self.drops.count(reason);
            }
        }
    }

    /// Checks what could cost this node something. The router has checked the rights of the origin.
    fn receive(
        &mut self,
        link: LinkId,
        header: Option<DataHeader>,
        packet: &Bytes,
    ) -> Result<Flow, DropReason> {
        if !self.links.contains_key(&link) {
            return Err(DropReason::UnknownLink);
        }
        let header = header.ok_or(DropReason::BadHeader)?;
        if header.payload != Payload::of(packet) {
            return Err(DropReason::BadHeader);
        }
        let flow = match CarriedScopes::ON_LINKS.classify(packet) {
            Class::Carried(flow) => flow,
            Class::Dropped(reason) => return Err(reason),
            Class::Mld => return Err(DropReason::LinkControl),
            Class::Unicast(_) => return Err(DropReason::NotJoined),
        };
        let joined = self.joins.get(&flow.group);
        if !joined.is_some_and(|joined| joined.filter.allows(flow.source)) {
            return Err(DropReason::NotJoined);
        }
        let name = (header.origin, header.incarnation, header.sequence);
        match self.passed.accept(name) {
            true => Ok(flow),
            false => Err(DropReason::Duplicate),
        }
    }

    fn note_carries(&mut self, link: LinkId) {
        let known = self.links.get_mut(&link);
        let is_new = known.is_some_and(|known| !std::mem::replace(&mut known.carries, true));
        if is_new && self.routers.values().any(|known| known.spare) {
            self.choose();
        }
    }

    /// Notes that nothing comes over the active link.
    fn note_silent(&mut self) {
        if let Some(silent) = self.active.and_then(|active| self.links.get_mut(&active)) {
            silent.carries = false;
        }
    }

    /// Notes a packet of a flow that did not come over the other link before.
    fn note(&mut self, link: LinkId, flow: Flow) {
        let now = self.now;
        let key = (flow.source, flow.group);
        if !self.flows.contains_key(&key) && self.flows.len() >= MAX_FLOWS {
            let oldest = self.flows.iter().min_by_key(|(_, run)| run.last);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.map(|oldest| self.flows.remove(&oldest));
        }
        let run = self.flows.entry(key).or_insert(Run {
            last: now,
            packets: 0,
            gap: Duration::ZERO,
            ended: false,
        });
        let gap = now.saturating_duration_since(run.last);
        run.gap = match run.packets {
            0 | 1 => gap,
            // one pause is no slower flow
            _ if run.is_running() => (run.gap * 7 + gap.min(run.silence())) / 8,
            _ => (run.gap * 7 + gap) / 8,
        };
        (run.last, run.packets) = (now, run.packets.saturating_add(1));
        run.ended = false;
        let is_active = self.active == Some(link);
        if is_active {
            self.heard = now;
        }
        if self.suspected.is_none() {
            return;
        }
        if is_active {
            self.suspected = None;
            let silent = self.flows.values_mut().filter(|run| run.silent_at() <= now);
            silent.for_each(|run| run.ended = true);
            self.leave_standby();
        } else {
            // the standby link has packets that the active one lacks
            self.note_silent();
            self.activate(link);
        }
    }

    /// Ends the joins over other links: the active link carries all flows.
    fn leave_standby(&mut self) {
        let active = self.active;
        let others = self.links.keys().copied();
        let others: Vec<_> = others.filter(|link| Some(*link) != active).collect();
        others.into_iter().for_each(|link| self.part_over(link));
    }
}

/// Time and outputs.
impl Leaf {
    /// Handles all timers that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.judge();
        let leaving = self.links.iter().filter(|(_, link)| is_due(link.leaves_at));
        let leaving: Vec<_> = leaving.map(|(link, _)| *link).collect();
        leaving.into_iter().for_each(|link| self.part_over(link));
        self.retry();
        let late = self.routers.iter().filter(|(_, known)| {
            let until = known.tried.map(|since| since + LINK_WITHIN);
            is_due(until)
        });
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        late.into_iter().for_each(|router| self.avoid(router));
        self.replace_at = self.replace_at.filter(|at| now < *at);
        for known in self.routers.values_mut() {
            known.avoided_until = known.avoided_until.filter(|until| now < *until);
        }
        self.choose();
    }

    /// Suspects the active link, or takes silent flows for ended.
    fn judge(&mut self) {
        let now = self.now;
        let due = self.judged_at().filter(|at| *at <= now);
        let Some(due) = due else {
            return;
        };
        if self.late.take().is_none() && now > due + LATE {
            self.late = Some(now);
            return;
        }
        if self.suspected.is_none() && self.silent_at().is_some_and(|at| at <= now) {
            self.suspected = Some(now);
            if let Some(standby) = self.standby() {
                self.join_over(standby);
            }
        }
        self.flows.retain(|_, run| now < run.ends_at());
        self.trust_without_flows();
    }

    /// Ends the suspicion if no flow is left that could be silent.
    fn trust_without_flows(&mut self) {
        let runs = self.flows.values().any(Run::is_running);
        if !runs && self.suspected.take().is_some() {
            self.note_silent();
            self.leave_standby();
        }
    }

    /// When the active link is silent; none: no flow is running.
    fn silent_at(&self) -> Option<Instant> {
        let running = self.flows.values().filter(|run| run.is_running());
        running.map(|run| self.heard + run.silence()).min()
    }

    fn judged_at(&self) -> Option<Instant> {
        let silent_at = self.silent_at().filter(|_| self.suspected.is_none());
        let end = self.flows.values().map(Run::ends_at).min();
        self.late.or_else(|| silent_at.into_iter().chain(end).min())
    }

    /// Sends joins again that were refused for lack of room.
    fn retry(&mut self) {
        let now = self.now;
        let Some(active) = self.active else {
            return;
        };
        let mut again = Vec::new();
        for (group, joined) in &mut self.joins {
            if joined.retry_at.take_if(|at| *at <= now).is_some() {
                again.push(leaf_join(*group, Some(joined.filter.clone())));
            }
        }
        if !again.is_empty() {
            self.send(active, &again);
        }
    }

    /// Latest time of the next call of [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(|link| link.leaves_at);
        let retries = self.joins.values().filter_map(|joined| joined.retry_at);
        let retries = retries.filter(|_| self.active.is_some());
        let routers = self.routers.values().filter_map(|known| {
            let tried = known.tried.map(|since| since + LINK_WITHIN);
            tried.or(known.avoided_until)
        });
        let judged = self.judged_at().into_iter();
        let others = judged.chain(links).chain(retries).chain(routers);
        others.chain(self.replace_at).min()
    }

    /// The next action.
    pub fn poll_output(&mut self) -> Option<LeafOutput> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use crate::control::MAX_OFFERED;
    use crate::testing::{start, udp_packet};

    const LINK: LinkId = LinkId(1);
    const OTHER: LinkId = LinkId(2);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1);

    fn router(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    /// A message of a data channel with a packet of one origin.
    fn message(group: Ipv6Addr, incarnation: u32, sequence: u64) -> Bytes {
        let source = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
        let header = DataHeader {
            payload: Payload::Ipv6,
            flags: 0,
            hop_limit: HOP_LIMIT,
            root: OriginId(1),
            origin: OriginId(1),
            incarnation,
            sequence,
        };
        let packet = udp_packet(source, group, b"sound");
        [&header.encode()[..], &packet[..]].concat().into()
    }

    fn offer() -> LeafOffer {
        LeafOffer {
            groups: LEAF_GROUPS as u16,
            room: 1,
            ..LeafOffer::default()
        }
    }

    /// Returns a leaf of one group with links to these routers, up in this order; router 1 is spare.
    fn beside_spare(routers: [(LinkId, u16); 2], now: Instant) -> Leaf {
        let mut leaf = Leaf::new(1, now);
        for (_, n) in routers {
            leaf.handle_router(router(n), true, now);
        }
        assert!(leaf.join(GROUP, SourceFilter::all(), now));
        for (link, n) in routers {
            leaf.handle_link_up(link, router(n), now);
            let offer = LeafOffer {
                spare: n == 1,
                ..offer()
            };
            for message in control::encode(&[Element::LeafOffer(offer)]) {
                leaf.handle_control(link, &message, now);
            }
        }
        leaf
    }

    /// Has a hundred packets come over a link in 2 s; returns the time after them.
    fn hear(leaf: &mut Leaf, link: LinkId, incarnation: u32, from: Instant) -> Instant {
        let mut now = from;
        for sequence in 0..100 {
            now += Duration::from_millis(20);
            leaf.handle_data(link, message(GROUP, incarnation, sequence), now);
            leaf.handle_timeout(now);
        }
        now
    }

    #[test]
    fn a_router_that_brings_nothing_takes_no_leaf_from_a_spare_one() {
        let now = start();
        for routers in [[(OTHER, 2), (LINK, 1)], [(LINK, 1), (OTHER, 2)]] {
            let mut leaf = beside_spare(routers, now);
            let later = hear(&mut leaf, LINK, 1, now);
            assert_eq!(leaf.active(), Some(router(1)), "{routers:?}");
            assert_eq!(leaf.wanted, BTreeSet::from([1, 2].map(router)));
            // a packet that was here before shows as much
            leaf.handle_data(OTHER, message(GROUP, 1, 99), later);
            assert_eq!(leaf.active(), Some(router(2)));
            assert!(leaf.wanted.contains(&router(1)), "packets are under way");
            leaf.handle_timeout(later + OVERLAP);
            assert_eq!(leaf.wanted, BTreeSet::from([router(2)]));
        }
    }

    #[test]
    fn a_router_that_falls_silent_loses_its_leaf_to_the_spare_one() {
        let now = start();
        let mut leaf = beside_spare([(LINK, 1), (OTHER, 2)], now);
        assert_eq!(leaf.active(), Some(router(2)), "it is tried at once");
        let mut later = hear(&mut leaf, OTHER, 1, now);
        assert_eq!(leaf.wanted, BTreeSet::from([router(2)]));
        leaf.handle_link_down(LINK, later);
        assert_eq!(leaf.wanted, BTreeSet::from([router(2)]));
        let silent = later + REPLACED_WITHIN + ENDED;
        while later < silent {
            later += Duration::from_millis(20);
            leaf.handle_timeout(later);
        }
        assert!(leaf.wanted.contains(&router(1)), "{:?}", leaf.wanted);
    }

    #[test]
    fn names_that_a_router_invents_block_no_packet_of_another_router() {
        let group = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1);
        let now = start();
        let mut leaf = Leaf::new(1, now);
        leaf.handle_link_up(LINK, router(1), now);
        leaf.handle_link_up(OTHER, router(2), now);
        assert!(leaf.join(group, SourceFilter::all(), now));
        let mut hear = |link, incarnation, sequence| {
            leaf.handle_data(link, message(group, incarnation, sequence), now);
            let outputs = std::iter::from_fn(|| leaf.poll_output());
            outputs
                .filter(|output| matches!(output, LeafOutput::Packet { .. }))
                .count()
        };
        assert_eq!(hear(LINK, 5, 100), 1);
        for (incarnation, sequence) in [(5, 200_000), (5, MAX_SEQUENCE), (u32::MAX, 1)] {
            hear(OTHER, incarnation, sequence);
        }
        for sequence in 101..110 {
            assert_eq!(hear(LINK, 5, sequence), 1, "{sequence}");
            assert_eq!(hear(OTHER, 5, sequence), 0, "a duplicate: {sequence}");
        }
        for sequence in 0..2 * MAX_PASSED as u64 {
            hear(LINK, 6, sequence);
        }
        assert_eq!(leaf.passed.names.len(), MAX_PASSED);
    }

    #[test]
    fn a_router_that_invents_routers_hides_no_other_router() {
        let now = start();
        let mut leaf = Leaf::new(1, now);
        leaf.handle_link_up(LINK, router(1), now);
        for n in 0..2 * MAX_ROUTERS as u16 {
            let first = 100 + n * MAX_OFFERED as u16;
            let offer = LeafOffer {
                others: (first..first + MAX_OFFERED as u16).map(router).collect(),
                ..offer()
            };
            for message in control::encode(&[Element::LeafOffer(offer)]) {
                leaf.handle_control(LINK, &message, now);
            }
        }
        let present = leaf.routers.values().filter(|known| known.is_present());
        assert_eq!(present.count(), MAX_OFFERED);
        leaf.handle_router(router(2), true, now);
        assert!(leaf.routers.get(&router(2)).is_some_and(Router::is_present));
        assert!(leaf.routers.len() <= MAX_ROUTERS);
    }
}
