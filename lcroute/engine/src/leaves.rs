//! Leaves of this router: listeners with a link that are no routers.
//!
//! ```text
//!   leaf                              router
//!     | <-------- LEAF OFFER ----------- |   at once and every 30 s
//!     | --------- LEAF JOIN -----------> |   joins of all leaves together are a local listener's
//!     | <-------- REFUSAL -------------- |   of what the certificate does not permit, or is too much
//!     | <-------- packets -------------- |
//! ```
//! A leaf is in no LSA and on no tree. Join state of a leaf is hard state: it ends with the link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::bucket::{Bucket, Rate};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::time::{Duration, Instant};

use crate::classify::CarriedScopes;
use crate::control::{Batch, Element, LeafJoin, LeafOffer, MAX_OFFERED, RefusalReason};
use crate::drops::DropReason;
use crate::join::Join;
use crate::outbox::Outbox;
use crate::output::{LinkFault, Links, Output};
use crate::source_filter::{SourceFilter, merge};
use crate::timers::{Timer, TimerKind, timer};

/// Groups that one leaf may join. Chosen: a page shows a handful.
pub const LEAF_GROUPS: usize = 64;
/// Sources that one leaf may list for a group. Chosen.
const LEAF_SOURCES: usize = 16;
/// Changes of joins that one leaf may make, per second and at once. Chosen: all its groups and their end at once.
const LEAF_JOINS: Rate = Rate::per_second(32, 128);
/// How often a leaf hears where else it may go. Chosen: routers come and go in hours.
const OFFER_EVERY: Duration = Duration::from_secs(30);
/// Bytes for all leaves that may go out at once: a packet of 1,300 bytes to 256 of them.
const LEAF_BURST: u64 = 320 << 10;

/// A leaf at the other end of a link.
#[derive(Debug)]
struct Leaf {
    peer: PeerId,
    /// Groups that it may join.
    prefixes: Vec<GroupPrefix>,
    joins: BTreeMap<Ipv6Addr, Join>,
    changes: Bucket,
    /// It has not heard yet what this router offers.
    is_new: bool,
    refused: Vec<(GroupPrefix, RefusalReason)>,
    /// It broke the protocol; nothing more is taken from it until the link is gone.
    faulty: bool,
}

/// What leaves join of one group.
#[derive(Debug, Default)]
struct Group {
    /// Links whose leaves join all sources.
    everyone: Links,
    /// Links whose leaves list sources.
    filtered: Vec<(LinkId, SourceFilter)>,
}

impl Group {
    fn remove(&mut self, link: LinkId) {
        self.filtered.retain(|(other, _)| *other != link);
        if self.everyone.contains(&link) {
            let others = self.everyone.iter().filter(|other| **other != link);
            self.everyone = others.copied().collect();
        }
    }

    fn insert(&mut self, link: LinkId, join: &Join) {
        match join {
            Join::None => {}
            Join::All => {
                let links = self.everyone.iter().copied().chain([link]);
                self.everyone = links.collect();
            }
            Join::Filtered(filter) => self.filtered.push((link, (**filter).clone())),
        }
    }

    fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.filtered.is_empty()
    }

    fn filter(&self) -> Option<SourceFilter> {
        match self.everyone.is_empty() {
            false => Some(SourceFilter::all()),
            true => merge(self.filtered.iter().map(|(_, filter)| filter)),
        }
    }

    /// Links whose leaves join packets of this source.
    fn links(&self, source: Ipv6Addr) -> Links {
        if self.filtered.is_empty() {
            return Arc::clone(&self.everyone);
        }
        let listed = self.filtered.iter().filter(|(_, f)| f.allows(source));
        let listed = listed.map(|(link, _)| *link);
        self.everyone.iter().copied().chain(listed).collect()
    }
}

/// All leaves.
#[derive(Debug, Default)]
pub struct Leaves {
    leaves: BTreeMap<LinkId, Leaf>,
    groups: BTreeMap<Ipv6Addr, Group>,
    /// Groups of which all leaves together join something else than at the last [`Self::take_changes`].
    changed: BTreeSet<Ipv6Addr>,
    /// There was a leaf in this run: what local senders see of joins depends on more than interfaces.
    used: bool,
    /// Links with something to say.
    pending: BTreeSet<LinkId>,
    next_offer: Option<Instant>,
    /// Bytes that may go to all leaves, if that is bounded.
    budget: Option<(Rate, Bucket)>,
}

/// Links.
impl Leaves {
    /// Packets for all leaves together take at most so many bits a second.
    pub fn set_rate(&mut self, bits_per_second: Option<u64>, now: Instant) {
        self.budget = bits_per_second
            .map(|bits| (Rate::bits_per_second(bits, LEAF_BURST), Bucket::full(now)));
    }

    /// A leaf has come; false: there are as many as there may be.
    pub fn link_up(&mut self, link: LinkId, member: &Member, max: usize, now: Instant) -> bool {
        if self.leaves.len() >= max {
            return false;
        }
        let leaf = Leaf {
            peer: member.peer,
            prefixes: member.prefixes.clone(),
            joins: BTreeMap::new(),
            changes: Bucket::full(now),
            is_new: true,
            refused: Vec::new(),
            faulty: false,
        };
        self.leaves.insert(link, leaf);
        self.pending.insert(link);
        self.next_offer = self.next_offer.or(Some(now + OFFER_EVERY));
        self.used = true;
        true
    }

    /// A leaf has gone; false: there was none.
    pub fn link_down(&mut self, link: LinkId) -> bool {
        let Some(leaf) = self.leaves.remove(&link) else {
            return false;
        };
        self.pending.remove(&link);
        for group in leaf.joins.keys() {
            self.set(link, *group, &Join::None);
        }
        if self.leaves.is_empty() {
            self.next_offer = None;
        }
        true
    }

    /// Whether a leaf is at the other end.
    pub fn contains(&self, link: LinkId) -> bool {
        self.leaves.contains_key(&link)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there was one in this run.
    pub fn were_used(&self) -> bool {
        self.used
    }

    /// What one leaf joins of a group is this from now on.
    fn set(&mut self, link: LinkId, group: Ipv6Addr, join: &Join) {
        let entry = self.groups.entry(group).or_default();
        let before = entry.filter();
        entry.remove(link);
        entry.insert(link, join);
        if entry.filter() != before {
            self.changed.insert(group);
        }
        if entry.is_empty() {
            self.groups.remove(&group);
        }
    }
}

/// What leaves say.
impl Leaves {
    /// Elements of a leaf's control message.
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
            if let Err((prefix, reason)) = self.handle_join(link, join, scopes, now) {
                outbox.drops.count(match reason {
                    RefusalReason::NotPermitted => DropReason::LeafNotPermitted,
                    _ => DropReason::JoinRefused,
                });
                if let Some(leaf) = self.leaves.get_mut(&link) {
                    leaf.refused.push((prefix, reason));
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
        now: Instant,
    ) -> Result<(), (GroupPrefix, RefusalReason)> {
        let Some(leaf) = self.leaves.get_mut(&link) else {
            return Ok(());
        };
        let refused = |reason| Err((group, reason));
        let Some(address) = group.as_group() else {
            return refused(RefusalReason::JoinedPrefix);
        };
        let Some(filter) = join else {
            // the end of a join is paid with its beginning
            if leaf.joins.remove(&address).is_some() {
                self.set(link, address, &Join::None);
            }
            return Ok(());
        };
        let permits = |prefix: &GroupPrefix| prefix.contains(address);
        if !leaf.prefixes.iter().any(permits) || !scopes.contains(address) {
            return refused(RefusalReason::NotPermitted);
        }
        let is_new = !leaf.joins.contains_key(&address);
        if is_new && leaf.joins.len() >= LEAF_GROUPS || !leaf.changes.take(LEAF_JOINS, 1, now) {
            return refused(RefusalReason::TooManyGroups);
        }
        if filter.sources().len() > LEAF_SOURCES {
            return refused(RefusalReason::TooManySources);
        }
        let join = Join::from(Some(filter));
        leaf.joins.insert(address, join.clone());
        self.set(link, address, &join);
        Ok(())
    }

    /// Nothing more is taken from this leaf; its link is to be closed. False: that is known.
    pub fn set_faulty(&mut self, link: LinkId) -> bool {
        let leaf = self.leaves.get_mut(&link);
        leaf.is_some_and(|leaf| !std::mem::replace(&mut leaf.faulty, true))
    }

    /// Whether nothing is taken from it.
    pub fn is_faulty(&self, link: LinkId) -> bool {
        self.leaves.get(&link).is_some_and(|leaf| leaf.faulty)
    }
}

/// What leaves join together.
impl Leaves {
    /// Of a group.
    pub fn filter(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        self.groups.get(&group)?.filter()
    }

    /// Groups that they join, in order.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.groups.keys().copied()
    }

    /// How many of them join a group.
    pub fn listeners(&self, group: Ipv6Addr) -> usize {
        let group = self.groups.get(&group);
        group.map_or(0, |g| g.everyone.len() + g.filtered.len())
    }

    /// Groups of which they join something else since the last call.
    pub fn take_changes(&mut self) -> BTreeSet<Ipv6Addr> {
        std::mem::take(&mut self.changed)
    }

    /// Over which links a packet goes to leaves; none where its bytes are beyond their rate.
    pub fn admit(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        len: usize,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Links {
        let Some(known) = self.groups.get(&group) else {
            return Links::default();
        };
        let links = known.links(source);
        if let Some((rate, bucket)) = self.budget.as_mut().filter(|_| !links.is_empty()) {
            if !bucket.ready(*rate, now) {
                let lost = links.len() as u64;
                outbox.drops.add(DropReason::LeafRate, lost);
                return Links::default();
            }
            bucket.spend(*rate, (len * links.len()) as u64, now);
        }
        links
    }
}

/// What leaves are told.
impl Leaves {
    /// Offers and refusals leave. `routers`: where else leaves may go.
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
            if std::mem::take(&mut leaf.is_new) || is_due {
                // looked up once, and only if somebody is told
                let all = others.get_or_insert_with(|| routers.take().map(|all| all()));
                let all = all.as_deref().unwrap_or_default();
                batch.push(&Element::LeafOffer(LeafOffer {
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

    /// When offers go out again.
    pub fn next_timeout(&self) -> Timer {
        timer(self.next_offer, TimerKind::LeafOffer)
    }
}

/// The routers that one leaf is told of: others for each, so that leaves spread.
fn part_of(routers: &[(OriginId, PeerId)], link: LinkId, leaf: PeerId) -> Vec<PeerId> {
    let first = link.0 as usize * MAX_OFFERED;
    let count = routers.len().min(MAX_OFFERED);
    let chosen = (0..count).map(|n| routers[(first + n) % routers.len()].1);
    chosen.filter(|router| *router != leaf).collect()
}
