//! Leaves of this router: listeners with a link that are not routers.
//!
//! ```text
//!   leaf                              router
//!     | <-------- LEAF OFFER ----------- |   at once, every 30 s, and when a flag of it changes
//!     | --------- LEAF JOIN -----------> |   joins of all leaves together are a local listener's
//!     | <-------- REFUSAL -------------- |   of joins not permitted, or beyond a bound
//!     | <-------- packets -------------- |
//!     | --------- packets -------------> |   to asking groups, if its invitation permits (uplink.rs)
//! ```
//! A leaf is in no LSA and on no tree. Join state of a leaf is hard state: it ends with the link.
//!
//! Bounds apply to all leaves together; a leaf with many joins gives way to one with few.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::bucket::{Bucket, Rate};
use librecast::cert::{GroupPrefix, Member};
use librecast::channel::is_asking_group;
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::ipv6::{self, Datagram};
use librecast::mld::MAX_SOURCES;
use librecast::time::{Duration, Instant};

use crate::classify::{CarriedScopes, Flow, flow_of};
use crate::control::{Batch, Element, LeafJoin, LeafOffer, MAX_OFFERED, RefusalReason};
use crate::drops::DropReason;
use crate::header::{DataHeader, Payload};
use crate::join::Join;
use crate::outbox::Outbox;
use crate::output::{LinkFault, Links, Output};
use crate::shares::Shares;
use crate::source_filter::SourceFilter;
use crate::timers::{Timer, TimerKind, timer};
use crate::uplink::{MAX_DATA, OF_LEAF, Uplink};

/// Groups that one leaf may join. Chosen: a page shows a handful.
pub const LEAF_GROUPS: usize = 64;
/// Sources that one leaf may list for a group. Chosen.
const LEAF_SOURCES: usize = 16;
/// Groups that all leaves together may join. Chosen: an eighth of a neighbour's join states.
const GROUPS: usize = 2_048;
/// (group, source) pairs that all leaves together may list; each may need its own tree. Chosen.
const PAIRS: usize = 1_024;
/// Changes a second to the joins of all leaves together; each leaf has an equal part. Chosen: a
/// quarter of the changes that a neighbour accepts from a router.
const CHANGES: u64 = 512;
/// Changes at once to the joins of all leaves together, in equal parts. Chosen: all their groups.
const CHANGES_AT_ONCE: u64 = GROUPS as u64;
/// Joins that one leaf may change, per second and at once. Chosen: all groups and their end.
const LEAF_JOINS: Rate = Rate::per_second(32, 128);
/// Interval of offers to a leaf, with other routers. Chosen: routers come and go in hours.
const OFFER_EVERY: Duration = Duration::from_secs(30);
/// Burst in bytes to all leaves, at their full rate: a packet of 1,300 bytes to 512 of them.
const LEAF_BURST: u64 = 640 << 10;

/// Bytes of a long packet to one leaf. Chosen: as in [`LEAF_BURST`].
const LEAF_PACKET: u64 = 1_300;

#[derive(Debug)]
struct Leaf {
    peer: PeerId,
    prefixes: Vec<GroupPrefix>,
    joins: BTreeMap<Ipv6Addr, Join>,
    changes: Bucket,
    /// Changes to the joins of all leaves together.
    common_changes: Bucket,
    /// It has not received an offer yet.
    is_new: bool,
    refused: Vec<(GroupPrefix, RefusalReason)>,
    /// Packets to asking groups; none: its invitation does not permit any.
    uplink: Option<Bucket>,
    /// It broke the protocol; all its messages are dropped until the link is gone.
    faulty: bool,
}

/// A source that leaves list for a group.
#[derive(Debug)]
struct Listed {
    leaves: usize,
    /// The leaf that pays for it in the shares of all pairs.
    payer: LinkId,
}

#[derive(Debug)]
struct Group {
    /// The leaf that pays for it in the shares of all groups: one of the links below.
    payer: LinkId,
    /// Links of leaves that join all sources.
    everyone: Links,
    filtered: Vec<(LinkId, SourceFilter)>,
    /// Number of these in EXCLUDE mode.
    excluding: usize,
    sources: BTreeMap<Ipv6Addr, Listed>,
}

/// The sources that count in a leaf's share: those that it includes; EXCLUDE mode counts none.
fn listed(join: &Join) -> &[Ipv6Addr] {
    match join {
        Join::Filtered(filter) => match &**filter {
            SourceFilter::Include(sources) => sources,
            SourceFilter::Exclude(_) => &[],
        },
        Join::None | Join::All => &[],
    }
}

impl Group {
    fn new(payer: LinkId) -> Self {
        Self {
            payer,
            everyone: Links::default(),
            filtered: Vec::new(),
            excluding: 0,
            sources: BTreeMap::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.filtered.is_empty()
    }

    fn joins_all(&self) -> bool {
        !self.everyone.is_empty() || self.excluding > 0
    }

    /// The join of all leaves together. Exclusions of only some leaves apply to these alone.
    fn filter(&self) -> Option<SourceFilter> {
        match self.joins_all() {
            true => Some(SourceFilter::all()),
            false => SourceFilter::include(self.sources.keys().copied()),
        }
    }

    /// Links of leaves that join packets of this source.
    fn links(&self, source: Ipv6Addr) -> Links {
        if self.filtered.is_empty() {
            return Arc::clone(&self.everyone);
        }
        let listed = self.filtered.iter().filter(|(_, f)| f.allows(source));
        let listed = listed.map(|(link, _)| *link);
        self.everyone.iter().copied().chain(listed).collect()
    }

    fn any_leaf(&self) -> Option<LinkId> {
        let filtered = self.filtered.first().map(|(link, _)| *link);
        self.everyone.first().copied().or(filtered)
    }

    fn any_leaf_for(&self, source: Ipv6Addr) -> Option<LinkId> {
        let lists = |filter: &SourceFilter| match filter {
            SourceFilter::Include(list) => list.binary_search(&source).is_ok(),
            SourceFilter::Exclude(_) => false,
        };
        let mut filtered = self.filtered.iter();
        let (link, _) = filtered.find(|(_, filter)| lists(filter))?;
        Some(*link)
    }

    /// Number of the group's sources in a leaf's share.
    fn share(&self, link: LinkId) -> usize {
        self.sources.values().filter(|s| s.payer == link).count()
    }

    /// The leaf with the largest share of the group's sources, and its size.
    fn largest_share(&self) -> Option<(LinkId, usize)> {
        let payers = self.sources.values().map(|s| s.payer);
        let shares = payers.map(|link| (link, self.share(link)));
        shares.max_by_key(|(_, size)| *size)
    }

    /// Adds a leaf's join. True: the join of all leaves together changes.
    fn insert(
        &mut self,
        link: LinkId,
        join: &Join,
        pairs: &mut PairShares,
        group: Ipv6Addr,
    ) -> bool {
        let joined_all = self.joins_all();
        match join {
            Join::None => return false,
            Join::All => {
                let links = self.everyone.iter().copied().chain([link]);
                self.everyone = links.collect();
            }
            Join::Filtered(filter) => {
                self.filtered.push((link, (**filter).clone()));
                self.excluding += usize::from(matches!(**filter, SourceFilter::Exclude(_)));
            }
        }
        let mut sources_changed = false;
        for source in listed(join) {
            let known = self.sources.entry(*source).or_insert_with(|| {
                sources_changed = true;
                pairs.insert(link, (group, *source));
                Listed {
                    leaves: 0,
                    payer: link,
                }
            });
            known.leaves += 1;
        }
        self.joins_all() != joined_all || sources_changed && !joined_all
    }

    /// Removes a leaf's join. True: the join of all leaves together changes.
    fn remove(
        &mut self,
        link: LinkId,
        join: &Join,
        pairs: &mut PairShares,
        group: Ipv6Addr,
    ) -> bool {
        let joined_all = self.joins_all();
        match join {
            Join::None => return false,
            Join::All => {
                let others = self.everyone.iter().filter(|other| **other != link);
                self.everyone = others.copied().collect();
            }
            Join::Filtered(filter) => {
                self.filtered.retain(|(other, _)| *other != link);
                self.excluding -= usize::from(matches!(**filter, SourceFilter::Exclude(_)));
            }
        }
        let mut sources_changed = false;
        for source in listed(join) {
            let Some(known) = self.sources.get_mut(source) else {
                continue;
            };
            known.leaves -= 1;
            let payer = known.payer;
            if payer != link && known.leaves > 0 {
                continue;
            }
            pairs.remove(payer, (group, *source));
            match self.any_leaf_for(*source) {
                Some(other) => {
                    pairs.insert(other, (group, *source));
                    self.sources.entry(*source).and_modify(|s| s.payer = other);
                }
                None => {
                    self.sources.remove(source);
                    sources_changed = true;
                }
            }
        }
        self.joins_all() != joined_all || sources_changed && !self.joins_all()
    }
}

/// Shares of leaves in (group, source) pairs.
type PairShares = Shares<LinkId, (Ipv6Addr, Ipv6Addr)>;

/// Bytes that may go to all leaves.
#[derive(Debug)]
struct Budget {
    /// Bits a second, at most.
    bound: u64,
    /// Bits a second now.
    bits: u64,
    rate: Rate,
    bucket: Bucket,
}

/// All leaves.
#[derive(Debug, Default)]
pub struct Leaves {
    leaves: BTreeMap<LinkId, Leaf>,
    groups: BTreeMap<Ipv6Addr, Group>,
    group_shares: Shares<LinkId, Ipv6Addr>,
    /// Shares of leaves in the bound of (group, source) pairs.
    pair_shares: PairShares,
    /// Groups for which the join of all leaves together has changed since [`Self::take_changes`].
    changed: BTreeSet<Ipv6Addr>,
    /// A leaf was linked in this run: local senders' view of joins depends on more than interfaces.
    used: bool,
    /// Links with an offer or refusals to send.
    pending: BTreeSet<LinkId>,
    next_offer: Option<Instant>,
    /// The router has no neighbour.
    isolated: bool,
    /// Leaves are to leave it for routers that serve them.
    spare: bool,
    /// All leaves get an offer, as that has changed.
    offers: bool,
    /// Bytes that may go to all leaves.
    budget: Option<Budget>,
    /// Index of the leaf of a group that gets the next packet, where not all of them get it.
    turn: usize,
    uplink: Uplink,
}

/// Links.
impl Leaves {
    /// Sets the bound in bits a second of packets for all leaves together.
    pub fn set_bound(&mut self, bits_per_second: u64, now: Instant) {
        self.budget = Some(Budget {
            bound: bits_per_second,
            bits: bits_per_second,
            rate: Rate::bits_per_second(bits_per_second, LEAF_BURST),
            bucket: Bucket::full(now),
        });
    }

    /// Sets the rate in bits a second, within the bound. The burst allows at least a packet each.
    pub fn set_rate(&mut self, bits_per_second: u64) {
        if let Some(budget) = &mut self.budget {
            let bits = bits_per_second.min(budget.bound);
            let burst = u128::from(LEAF_BURST) * u128::from(bits) / u128::from(budget.bound.max(1));
            let burst = u64::try_from(burst).unwrap_or(LEAF_BURST);
            let each = LEAF_PACKET * self.leaves.len() as u64;
            budget.bits = bits;
            budget.rate = Rate::bits_per_second(bits, burst.max(each));
        }
    }

    /// Adds a leaf; false: the router has `max` leaves.
    pub fn link_up(&mut self, link: LinkId, member: &Member, max: usize, now: Instant) -> bool {
        if self.leaves.len() >= max {
            return false;
        }
        let leaf = Leaf {
            peer: member.peer,
            prefixes: member.prefixes.clone(),
            joins: BTreeMap::new(),
            changes: Bucket::full(now),
            common_changes: Bucket::full(now),
            is_new: true,
            refused: Vec::new(),
            uplink: member.uplink.then(|| Bucket::full(now)),
            faulty: false,
        };
        self.leaves.insert(link, leaf);
        self.pending.insert(link);
        self.next_offer = self.next_offer.or(Some(now + OFFER_EVERY));
        self.used = true;
        if let Some(bits) = self.budget.as_ref().map(|budget| budget.bits) {
            self.set_rate(bits);
        }
        true
    }

    /// Removes a leaf; false: the link is no leaf's.
    pub fn link_down(&mut self, link: LinkId) -> bool {
        let Some(leaf) = self.leaves.remove(&link) else {
            return false;
        };
        self.pending.remove(&link);
        self.uplink.link_down(link);
        for (group, join) in &leaf.joins {
            self.remove(link, *group, join);
        }
        if self.leaves.is_empty() {
            self.next_offer = None;
        }
        debug_assert!(
            !self.leaves.is_empty() || self.groups.is_empty(),
            "joins of a leaf end with its link"
        );
        true
    }

    /// Whether a leaf is at the other end.
    pub fn contains(&self, link: LinkId) -> bool {
        self.leaves.contains_key(&link)
    }

    /// Number of leaves.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether a leaf was linked in this run.
    pub fn were_used(&self) -> bool {
        self.used
    }

    fn insert(&mut self, link: LinkId, group: Ipv6Addr, join: &Join) {
        let (groups, group_shares) = (&mut self.groups, &mut self.group_shares);
        let entry = groups.entry(group).or_insert_with(|| {
            group_shares.insert(link, group);
            Group::new(link)
        });
        if entry.insert(link, join, &mut self.pair_shares, group) {
            self.changed.insert(group);
        }
        self.check();
    }

    /// Asserts that each group has one payer, among the leaves.
    fn check(&self) {
        debug_assert_eq!(
            self.groups.len(),
            self.group_shares.len(),
            "each group has one payer"
        );
        debug_assert!(self.groups.len() <= GROUPS, "groups have a bound");
        debug_assert!(self.pair_shares.len() <= PAIRS, "pairs have a bound");
        debug_assert!(
            !self.groups.is_empty() || self.pair_shares.len() == 0,
            "sources are listed for groups"
        );
    }

    fn remove(&mut self, link: LinkId, group: Ipv6Addr, join: &Join) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        if entry.remove(link, join, &mut self.pair_shares, group) {
            self.changed.insert(group);
        }
        if entry.payer == link || entry.is_empty() {
            self.group_shares.remove(entry.payer, group);
            match entry.any_leaf() {
                Some(other) => {
                    entry.payer = other;
                    self.group_shares.insert(other, group);
                }
                None => {
                    self.groups.remove(&group);
                }
            }
        }
        self.check();
    }
}

/// Bounds of all leaves together.
impl Leaves {
    /// The changes to the joins of all leaves together that one leaf may make.
    fn part_of_changes(&self) -> Rate {
        let leaves = self.leaves.len().max(1) as u64;
        Rate::new(
            CHANGES,
            Duration::from_secs(leaves),
            CHANGES_AT_ONCE / leaves,
        )
    }

    /// Makes room for a leaf's join within the common bounds, by ending joins of larger shares.
    fn make_room(
        &mut self,
        link: LinkId,
        group: Ipv6Addr,
        join: &Join,
        outbox: &mut Outbox,
    ) -> bool {
        while !self.groups.contains_key(&group) && self.group_shares.len() >= GROUPS {
            let fair = self.group_shares.of(link) + 1;
            let victim = self.group_shares.largest().filter(|(_, size)| *size > fair);
            let victim = victim.and_then(|(v, _)| Some((v, self.group_shares.last(v)?)));
            let Some((victim, other)) = victim else {
                return false;
            };
            self.end_join(victim, other, outbox);
        }
        loop {
            let known = self.groups.get(&group);
            let is_new = |s: &&Ipv6Addr| known.is_none_or(|g| !g.sources.contains_key(*s));
            let sources = listed(join).iter().filter(is_new).count();
            let of_group = known.map_or(0, |g| g.sources.len());
            let victim = if sources > 0 && of_group + sources > MAX_SOURCES {
                let largest = known.and_then(|g| g.largest_share());
                let fair = known.map_or(0, |g| g.share(link)) + sources;
                largest
                    .filter(|(_, size)| *size > fair)
                    .map(|(victim, _)| (victim, group))
            } else if sources > 0 && self.pair_shares.len() + sources > PAIRS {
                let fair = self.pair_shares.of(link) + sources;
                let largest = self.pair_shares.largest().filter(|(_, size)| *size > fair);
                largest.and_then(|(v, _)| self.pair_shares.last(v).map(|(other, _)| (v, other)))
            } else {
                return true;
            };
            let Some((victim, other)) = victim else {
                return false;
            };
            self.end_join(victim, other, outbox);
        }
    }

    /// Ends a leaf's join with a refusal; the leaf asks again later.
    fn end_join(&mut self, link: LinkId, group: Ipv6Addr, outbox: &mut Outbox) {
        outbox.drops.count(DropReason::LeafJoinLimited);
        let Some(leaf) = self.leaves.get_mut(&link) else {
            return;
        };
        let join = leaf.joins.remove(&group).unwrap_or_default();
        let reason = RefusalReason::TooManyGroups;
        leaf.refused.push((GroupPrefix::group(group), reason));
        self.pending.insert(link);
        self.remove(link, group, &join);
    }
}

/// Messages from leaves.
impl Leaves {
    /// Handles the elements of a leaf's control message.
    pub fn handle_elements(
        &mut self,
        link: LinkId,
        elements: Vec<Element>,
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), LinkFault> {
        for element in elements {
            let Element::LeafJoin(join) = element else {
                return Err(LinkFault::LeafRoutes);
            };
            let group = join.group;
            if let Err((drop, reason)) = self.handle_join(link, join, scopes, outbox, now) {
                outbox.drops.count(drop);
                if let Some(leaf) = self.leaves.get_mut(&link) {
                    leaf.refused.push((group, reason));
                    self.pending.insert(link);
                }
            }
        }
        Ok(())
    }

    fn handle_join(
        &mut self,
        link: LinkId,
        LeafJoin { group, join }: LeafJoin,
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), (DropReason, RefusalReason)> {
        let part_of_changes = self.part_of_changes();
        let Some(leaf) = self.leaves.get_mut(&link) else {
            return Ok(());
        };
        let refused = |reason| Err((DropReason::JoinRefused, reason));
        let Some(address) = group.as_group() else {
            return refused(RefusalReason::JoinedPrefix);
        };
        let before = leaf.joins.get(&address).cloned().unwrap_or_default();
        let Some(filter) = join else {
            // the join has paid for its end
            leaf.joins.remove(&address);
            self.remove(link, address, &before);
            return Ok(());
        };
        let permits = |prefix: &GroupPrefix| prefix.contains(address);
        let is_permitted = leaf.prefixes.iter().any(permits) && scopes.contains(address);
        // questions of leaves go to members alone
        if !is_permitted || is_asking_group(address) {
            return Err((DropReason::LeafNotPermitted, RefusalReason::NotPermitted));
        }
        if !before.is_some() && leaf.joins.len() >= LEAF_GROUPS
            || !leaf.changes.take(LEAF_JOINS, 1, now)
        {
            return refused(RefusalReason::TooManyGroups);
        }
        if filter.sources().len() > LEAF_SOURCES {
            return refused(RefusalReason::TooManySources);
        }
        let join = Join::from(Some(filter));
        if join == before {
            return Ok(());
        }
        let limited = (DropReason::LeafJoinLimited, RefusalReason::TooManyGroups);
        if self.changes_with(address, &join)
            && let Some(leaf) = self.leaves.get_mut(&link)
            && !leaf.common_changes.take(part_of_changes, 1, now)
        {
            return Err(limited);
        }
        if !self.make_room(link, address, &join, outbox) {
            return Err(limited);
        }
        self.remove(link, address, &before);
        self.insert(link, address, &join);
        if let Some(leaf) = self.leaves.get_mut(&link) {
            leaf.joins.insert(address, join);
        }
        Ok(())
    }

    /// Whether this join changes the join of all leaves together: no other leaf has joined as much.
    fn changes_with(&self, group: Ipv6Addr, join: &Join) -> bool {
        let Some(known) = self.groups.get(&group) else {
            return true;
        };
        let is_new = |source| !known.sources.contains_key(source);
        match listed(join) {
            [] => !known.joins_all(),
            sources => sources.iter().any(is_new),
        }
    }

    /// Drops further messages of this leaf; its link is to be closed. False: it was faulty already.
    pub fn set_faulty(&mut self, link: LinkId) -> bool {
        let leaf = self.leaves.get_mut(&link);
        leaf.is_some_and(|leaf| !std::mem::replace(&mut leaf.faulty, true))
    }

    /// Whether its messages are dropped.
    pub fn is_faulty(&self, link: LinkId) -> bool {
        self.leaves.get(&link).is_some_and(|leaf| leaf.faulty)
    }
}

/// Packets from leaves.
impl Leaves {
    /// Admits a leaf's packet to an asking group, and returns it as one from `source`.
    pub fn admit_uplink(
        &mut self,
        link: LinkId,
        header: Option<DataHeader>,
        packet: &[u8],
        source: Ipv6Addr,
        now: Instant,
    ) -> Result<(Flow, Vec<u8>), DropReason> {
        let leaf = self.leaves.get_mut(&link).ok_or(DropReason::UnknownLink)?;
        let asked = leaf.uplink.as_mut().ok_or(DropReason::LeafSent)?;
        let header = header.ok_or(DropReason::BadHeader)?;
        let flow = flow_of(packet).filter(|_| header.payload == Payload::of(packet));
        let group = flow.ok_or(DropReason::BadHeader)?.group;
        let permits = |prefix: &GroupPrefix| prefix.contains(group);
        if !is_asking_group(group) || !leaf.prefixes.iter().any(permits) {
            return Err(DropReason::LeafUplinkGroup);
        }
        let is_rested = asked.left(OF_LEAF, now) == OF_LEAF.burst();
        if !asked.take(OF_LEAF, 1, now) {
            return Err(DropReason::LeafUplinkRate);
        }
        let fits = |datagram: &Datagram<'_>| datagram.data.len() <= MAX_DATA;
        if !Datagram::of_packet(packet).as_ref().is_some_and(fits) {
            return Err(DropReason::Malformed);
        }
        if !self.uplink.take(link, group, is_rested, now) {
            return Err(DropReason::LeafUplinkRate);
        }
        let packet = ipv6::udp_from(packet, source).ok_or(DropReason::Malformed)?;
        Ok((Flow { source, group }, packet))
    }
}

/// The join of all leaves together.
impl Leaves {
    /// The filter for a group.
    pub fn filter(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        self.groups.get(&group)?.filter()
    }

    /// Groups that they join, in order.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.groups.keys().copied()
    }

    /// Number of leaves that join a group.
    pub fn listeners(&self, group: Ipv6Addr) -> usize {
        let group = self.groups.get(&group);
        group.map_or(0, |g| g.everyone.len() + g.filtered.len())
    }

    /// Groups whose filter has changed since the last call.
    pub fn take_changes(&mut self) -> BTreeSet<Ipv6Addr> {
        std::mem::take(&mut self.changed)
    }

    /// The links over which a packet goes to leaves; `None`: no leaf listens. Beyond the rate, only some leaves get it, and
    /// other leaves the next: a burst to all of them would fill the queue of a narrow line.
    pub fn admit(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        len: usize,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Option<Links> {
        let links = self.groups.get(&group)?.links(source);
        let all = links.len();
        if all == 0 {
            return None;
        }
        let Some(Budget { rate, bucket, .. }) = &mut self.budget else {
            return Some(links);
        };
        let left = bucket.left(*rate, now) / len.max(1) as u64;
        let left = left.max(u64::from(bucket.ready(*rate, now)));
        let some = usize::try_from(left).unwrap_or(all).min(all);
        bucket.spend(*rate, (len * some) as u64, now);
        if some == all {
            return Some(links);
        }
        outbox.drops.add(DropReason::LeafRate, (all - some) as u64);
        let first = self.turn % all;
        self.turn = first + some;
        let others = links.iter().cycle().skip(first).take(some);
        Some(others.copied().collect())
    }
}

/// Messages to leaves.
impl Leaves {
    /// Sets whether this router has no neighbour, which its leaves get to know at once.
    pub fn set_isolated(&mut self, isolated: bool) {
        self.offers |= std::mem::replace(&mut self.isolated, isolated) != isolated;
    }

    /// Sets whether leaves are to leave this router for others that serve them; false: that is no
    /// change.
    pub fn set_spare(&mut self, spare: bool) -> bool {
        let is_new = std::mem::replace(&mut self.spare, spare) != spare;
        self.offers |= is_new;
        is_new
    }

    /// Sends offers and refusals. `routers`: the other routers that leaves may use.
    pub fn flush(
        &mut self,
        max: usize,
        routers: impl FnOnce() -> Vec<(OriginId, PeerId)>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let is_due = self.next_offer.is_some_and(|at| at <= now);
        if is_due {
            self.next_offer = Some(now + OFFER_EVERY);
        }
        let to_all = std::mem::take(&mut self.offers) || is_due;
        if to_all {
            self.pending.extend(self.leaves.keys());
        }
        if self.pending.is_empty() {
            return;
        }
        let room = max.saturating_sub(self.leaves.len());
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        let mut routers = Some(routers);
        let mut others = None;
        for link in std::mem::take(&mut self.pending) {
            let Some(leaf) = self.leaves.get_mut(&link) else {
                continue;
            };
            let mut batch = Batch::default();
            if std::mem::take(&mut leaf.is_new) || to_all {
                // looked up once, and only for an offer
                let all = others.get_or_insert_with(|| routers.take().map(|all| all()));
                let all = all.as_deref().unwrap_or_default();
                batch.push(&Element::LeafOffer(LeafOffer {
                    uplink: leaf.uplink.is_some(),
                    isolated: self.isolated,
                    spare: self.spare,
                    groups: LEAF_GROUPS as u16,
                    room,
                    others: part_of(all, link, leaf.peer),
                }));
            }
            for (prefix, reason) in leaf.refused.drain(..) {
                let root = OriginId(0);
                batch.push(&Element::Refusal {
                    reason,
                    root,
                    prefix,
                });
            }
            for message in batch.finish() {
                outbox.counters.control_tx_messages += 1;
                outbox.counters.control_tx_bytes += message.len() as u64;
                outbox.push(Output::Control { link, message });
            }
        }
    }

    /// Time of the next offers.
    pub fn next_timeout(&self) -> Timer {
        timer(self.next_offer, TimerKind::LeafOffer)
    }
}

/// The routers in one leaf's offer: different ones for each, so that leaves spread.
fn part_of(routers: &[(OriginId, PeerId)], link: LinkId, leaf: PeerId) -> Vec<PeerId> {
    let first = link.0 as usize * MAX_OFFERED;
    let count = routers.len().min(MAX_OFFERED);
    let chosen = (0..count).map(|n| routers[(first + n) % routers.len()].1);
    chosen.filter(|router| *router != leaf).collect()
}
