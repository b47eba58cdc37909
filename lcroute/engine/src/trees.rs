//! Join state on trees: the Joins of each neighbour for (root, group), active sources, and the
//! outgoing links of a packet that follow from them.
//!
//! | advertised | towards the root | away from the root |
//! |---|---|---|
//! | **Join** joins of other links or listeners | always | if the far side sent SourceActive |
//! | **SourceActive** senders, or programs that watch joins, on this side | always | never |
//!
//! A router keeps received join state as it came, whatever its own tree is at the moment. The state
//! counts only while the link is an edge of the tree. A router advertises join state over edges of
//! its own tree only, and withdraws it from all other links. So received join state proves that the
//! neighbour has this edge too. No packet takes a new edge before that.
//!
//! A neighbour keeps a bounded number of entries of each router. All links and interfaces that need
//! entries share this room ([`link_shares`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use forwarding_entry::{ActiveEntry, EntryInputs};
use group_link::GroupLink;
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::mapped;
use librecast::time::Instant;
use link_shares::{Key, LinkShares, Room};
use position::{Moved, TreePosition};

use crate::config::Limits;
use crate::graph::{Tree, mix};
use crate::interface_id::{LC0, LocalInterfaces};
use crate::join::Join;
use crate::lan_sources::LanSources;
use crate::source_filter::SourceFilter;
use crate::table::Table;
use crate::traffic::Traffic;

mod forwarding_entry;
mod group_link;
mod link_shares;
mod position;

pub use forwarding_entry::Lookup;
pub use link_shares::Payer;
pub use position::Edge;

/// Kinds of listeners at this router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalListeners {
    /// Programs and hosts of LANs.
    pub interfaces: LocalInterfaces,
    pub leaves: bool,
}

/// One group on one tree.
#[derive(Debug, Default)]
struct Entry {
    /// Sorted by link.
    links: Vec<GroupLink>,
    /// The joins of programs on this host, of LAN hosts and of leaves.
    local: Join,
    listeners: LocalListeners,
    /// A program on this host sends.
    local_source_active: bool,
    /// This router announces or watches this group alone. On the wire that is SourceActive of the
    /// group.
    is_local_prefix: bool,
    /// It is in the list of entries for the next flush.
    dirty: bool,
    /// A Join lists sources, in INCLUDE or EXCLUDE mode.
    lists_sources: bool,
    active: Option<Box<ActiveEntry>>,
}

impl Entry {
    fn link(&self, link: LinkId) -> Option<&GroupLink> {
        let at = self.links.binary_search_by_key(&link, |l| l.link).ok()?;
        Some(&self.links[at])
    }

    fn link_mut(&mut self, link: LinkId) -> &mut GroupLink {
        let at = match self.links.binary_search_by_key(&link, |l| l.link) {
            Ok(at) => at,
            Err(at) => {
                // there may be a million of these, most with two links
                self.links.reserve_exact(1);
                self.links.insert(at, GroupLink::new(link));
                at
            }
        };
        &mut self.links[at]
    }

    /// Voids its forwarding entries and marks it for the next flush. True: it was not marked yet.
    fn touch(&mut self) -> bool {
        if let Some(active) = &mut self.active {
            active.forget_entries();
        }
        !std::mem::replace(&mut self.dirty, true)
    }

    fn tidy(&mut self) {
        self.links.retain(|l| !l.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.links.is_empty() && !self.local.is_some() && !self.has_local_source()
    }

    fn has_local_source(&self) -> bool {
        self.local_source_active || self.is_local_prefix
    }

    /// Whether Joins of the group go over an edge: to the parent, or to a child with SourceActive.
    fn asks_over(
        &self,
        edge: &Edge,
        prefixes: &BTreeMap<GroupPrefix, PrefixEntry>,
        group: Ipv6Addr,
    ) -> bool {
        edge.is_parent
            || self
                .link(edge.link)
                .is_some_and(|l| l.received_source_active)
            || received_for_prefix(prefixes, edge.link, group)
    }

    /// Whether SourceActive for the group goes over an edge: to the parent, if this side sends.
    fn tells_parent(
        &self,
        edge: &Edge,
        position: &TreePosition,
        prefixes: &BTreeMap<GroupPrefix, PrefixEntry>,
        group: Ipv6Addr,
    ) -> bool {
        edge.is_parent
            && self.is_source_active_below(position)
            && !advertised_for_prefix(prefixes, edge.link, group)
    }

    /// The Join for one edge: the union of the other Joins, with sources behind the edge only.
    fn join_over(&self, edge: &Edge, position: &TreePosition, lans: &LanSources) -> Join {
        let others = self.links.iter().filter(|l| joins_over(l, edge, position));
        let mut join = self.local.clone();
        for other in others {
            if join == Join::All {
                break;
            }
            join = join.union(&other.received);
        }
        let Join::Filtered(filter) = join else {
            return join;
        };
        let leads_to = |origin| position.towards(origin) == Some(edge.link);
        let behind = |s| leads_to(OriginId::of(s)) || lans.gateways_of(s).into_iter().any(leads_to);
        filter.retain(behind).into()
    }

    /// Whether a local sender or a router below sends to the group.
    fn is_source_active_below(&self, position: &TreePosition) -> bool {
        let mut links = self.links.iter();
        self.has_local_source() || links.any(|l| is_source_active_below(l, position))
    }

    /// Whether a listener or another link joins sources that lie behind this edge.
    fn is_joined_over(&self, edge: &Edge, position: &TreePosition, lans: &LanSources) -> bool {
        if self.lists_sources {
            return self.join_over(edge, position, lans).is_some();
        }
        let mut links = self.links.iter();
        self.local.is_some() || links.any(|l| joins_over(l, edge, position))
    }

    /// The payer of join state over an edge: this host's programs, else a LAN or link, else leaves.
    /// Of several peers the previous payer stays; at a crowded neighbour the smallest share pays.
    fn payer(
        &self,
        edge: &Edge,
        position: &TreePosition,
        before: Option<Payer>,
        crowd: Option<&LinkShares>,
    ) -> Payer {
        let local = self.listeners;
        let sends = edge.is_parent && self.has_local_source();
        if local.interfaces.contains(LC0) || sends {
            return Payer::Own;
        }
        let wants = |l: &GroupLink| {
            let sends = || edge.is_parent && is_source_active_below(l, position);
            l.link != edge.link && (joins_over(l, edge, position) || sends())
        };
        let wants_still = |payer: &Payer| match payer {
            Payer::Own | Payer::Leaves => false,
            Payer::Lan(interface) => local.interfaces.contains(*interface),
            Payer::Link(link) => self.link(*link).is_some_and(wants),
        };
        let lans = local.interfaces.lans().map(Payer::Lan);
        let links = self.links.iter().filter(|l| wants(l));
        let mut peers = lans.chain(links.map(|l| Payer::Link(l.link)));
        let peer = match crowd {
            Some(shares) => peers.min_by_key(|payer| shares.kept().of(*payer)),
            None => before.filter(wants_still).or_else(|| peers.next()),
        };
        peer.unwrap_or(Payer::Leaves)
    }

    /// Checks all Joins again; returns whether one lists sources.
    fn note_sources(&mut self) -> bool {
        let received = |l: &GroupLink| l.received.lists_sources();
        self.lists_sources = self.local.lists_sources() || self.links.iter().any(received);
        self.lists_sources
    }
}

/// Whether a neighbour's Join for a group is part of this router's Join over an edge.
fn joins_over(other: &GroupLink, edge: &Edge, position: &TreePosition) -> bool {
    other.link != edge.link
        && other.received.is_some()
        // a former parent joins sources on this side, not those behind the present parent
        && match position.edge(other.link) {
            Some(_) => true,
            None if edge.is_parent => position.was_below(other.link),
            None => position.former_edge(other.link).is_some(),
        }
}

/// Whether a neighbour other than the parent advertises SourceActive.
fn is_source_active_below(other: &GroupLink, position: &TreePosition) -> bool {
    let edge = || position.current_or_former_edge(other.link);
    other.received_source_active && edge().is_some_and(|edge| !edge.is_parent)
}

/// SourceActive for many groups at once.
#[derive(Debug, Default)]
struct PrefixEntry {
    received: BTreeSet<LinkId>,
    advertised: Option<LinkId>,
    /// The parent until a moment ago, to which SourceActive was advertised.
    former: Option<LinkId>,
    local: bool,
}

#[derive(Debug)]
struct TreeState {
    position: TreePosition,
    entries: Table<Ipv6Addr, Entry>,
    prefixes: BTreeMap<GroupPrefix, PrefixEntry>,
    /// Groups with Joins that list sources: their Joins depend on the place of the sources.
    filtered: BTreeSet<Ipv6Addr>,
}

impl TreeState {
    fn new(seed: u64) -> Self {
        Self {
            position: TreePosition::default(),
            entries: Table::new(seed),
            prefixes: BTreeMap::new(),
            filtered: BTreeSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.prefixes.is_empty()
    }
}

/// Whether SourceActive was received over `link` for a prefix that `group` lies in.
fn received_for_prefix(
    prefixes: &BTreeMap<GroupPrefix, PrefixEntry>,
    link: LinkId,
    group: Ipv6Addr,
) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.received.contains(&link) && prefix.contains(group))
}

/// Whether SourceActive is advertised over `link` for a prefix that `group` lies in.
fn advertised_for_prefix(
    prefixes: &BTreeMap<GroupPrefix, PrefixEntry>,
    link: LinkId,
    group: Ipv6Addr,
) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.advertised == Some(link) && prefix.contains(group))
}

/// Join state that was advertised over a link.
#[derive(Debug)]
pub struct Advertised {
    pub root: OriginId,
    pub prefix: GroupPrefix,
    pub join: Join,
    pub source_active: bool,
}

/// Join state to advertise over a link, before and after.
#[derive(Debug)]
pub struct JoinUpdate<'a> {
    /// The neighbour.
    pub link: LinkId,
    /// The tree.
    pub root: OriginId,
    pub prefix: GroupPrefix,
    /// Join and SourceActive as they were advertised so far.
    pub before: (&'a Join, bool),
    /// Join and SourceActive from now on.
    pub after: (&'a Join, bool),
    /// The payer: the entry counts in its share of the neighbour's room.
    pub payer: Payer,
}

/// A neighbour's earlier join state for a group, to account for the room that it takes here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReceivedBefore {
    /// There was an entry of it.
    pub existed: bool,
    /// Sources that it listed.
    pub sources: usize,
    /// Its Join and SourceActive, for the audit.
    pub was: (Join, bool),
}

/// All trees in use.
#[derive(Debug)]
pub struct Trees {
    seed: u64,
    states: Table<OriginId, TreeState>,
    /// Roots in use, in order.
    roots: BTreeSet<OriginId>,
    /// Entries for the next flush.
    dirty: Vec<(OriginId, Ipv6Addr)>,
    dirty_prefixes: BTreeSet<OriginId>,
    /// Single groups that this router announces or watches.
    local_groups: BTreeSet<(OriginId, Ipv6Addr)>,
    unplaced: Vec<OriginId>,
    entries: usize,
    lans: Arc<LanSources>,
    /// Bounds of the entries and sources that each neighbour keeps.
    room: Room,
    shares: BTreeMap<LinkId, LinkShares>,
    /// Neighbours for which entries wait.
    crowded: BTreeSet<LinkId>,
    /// Entries that began to wait since [`Self::take_withheld`].
    withheld: u64,
}

/// The order of an entry within its share. It depends on the group only, as a group is of no use on
/// a part of its trees. Nobody outside can choose groups that come first.
fn rank(seed: u64, group: Ipv6Addr) -> u64 {
    let group = u128::from(group);
    let words = [(group >> 64) as u64, group as u64];
    words.into_iter().fold(seed, |rank, word| mix(rank ^ word))
}

impl Trees {
    pub fn new(limits: &Limits, seed: u64) -> Self {
        Self {
            room: Room {
                entries: limits.join_states_per_neighbor,
                sources: limits.sources_per_neighbor,
            },
            shares: BTreeMap::new(),
            crowded: BTreeSet::new(),
            withheld: 0,
            seed,
            states: Table::new(seed),
            roots: BTreeSet::new(),
            dirty: Vec::new(),
            dirty_prefixes: BTreeSet::new(),
            local_groups: BTreeSet::new(),
            unplaced: Vec::new(),
            entries: 0,
            lans: Arc::default(),
        }
    }

    /// Sets the gateways of LAN hosts and the routers of IPv4 addresses: Joins that list sources
    /// may change direction. Returns a test for the affected groups; `None`: nothing has changed.
    pub fn set_lans(
        &mut self,
        lans: &Arc<LanSources>,
    ) -> Option<impl Fn(Ipv6Addr) -> bool + use<>> {
        if Arc::ptr_eq(&self.lans, lans) {
            return None;
        }
        let is_ipv4_alone = self.lans.has_same_hosts(lans);
        let is_affected = move |group| !is_ipv4_alone || mapped::is_group_name(group);
        self.lans = Arc::clone(lans);
        for root in self.roots.clone() {
            let filtered = self.states.get(&root).map(|state| state.filtered.clone());
            let groups = filtered.into_iter().flatten();
            for group in groups.filter(|group| is_affected(*group)) {
                self.touch(root, group);
            }
        }
        Some(is_affected)
    }

    /// The tree of `root`, made if it is missing.
    fn state(&mut self, root: OriginId) -> &mut TreeState {
        let seed = self.seed;
        if self.roots.insert(root) {
            self.unplaced.push(root);
        }
        self.states
            .get_or_insert_with(root, || TreeState::new(seed))
    }

    pub fn is_used(&self, root: OriginId) -> bool {
        self.roots.contains(&root)
    }

    pub fn roots(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.roots.iter().copied()
    }

    /// Trees that came into use since the last call.
    pub fn take_unplaced(&mut self) -> Vec<OriginId> {
        std::mem::take(&mut self.unplaced)
    }

    /// Sets the form of the tree and its edges at this router. Packets are accepted over the
    /// earlier edges until [`PREVIOUS_TREE`] from now.
    pub fn place(
        &mut self,
        root: OriginId,
        tree: Option<Arc<Tree>>,
        edges: Vec<Edge>,
        now: Instant,
    ) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let groups: Vec<_> = match state.position.set(tree, edges, now) {
            Moved::No => return,
            Moved::Sources => state.filtered.iter().copied().collect(),
            Moved::Edges => {
                self.dirty_prefixes.insert(root);
                state.entries.sorted_keys()
            }
        };
        for group in groups {
            self.touch(root, group);
        }
    }

    /// Forgets previous trees that have expired; returns the time of the next expiry.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let (mut next, mut over) = (None, Vec::new());
        for root in &self.roots {
            let Some(state) = self.states.get_mut(root) else {
                continue;
            };
            if state.position.expire(now) {
                over.push((*root, state.entries.sorted_keys()));
            }
            next = next.into_iter().chain(state.position.next_expiry()).min();
        }
        // withdraws join state from edges of previous trees
        for (root, groups) in over {
            self.dirty_prefixes.insert(root);
            for group in groups {
                self.touch(root, group);
            }
        }
        next
    }

    /// The tree as it was placed.
    pub fn tree(&self, root: OriginId) -> Option<Arc<Tree>> {
        self.states.get(&root)?.position.tree.clone()
    }

    fn touch(&mut self, root: OriginId, group: Ipv6Addr) {
        let state = self.states.get_mut(&root);
        if let Some(entry) = state.and_then(|s| s.entries.get_mut(&group))
            && entry.touch()
        {
            self.dirty.push((root, group));
        }
    }

    fn entry(&mut self, root: OriginId, group: Ipv6Addr) -> &mut Entry {
        let state = self.state(root);
        let is_new = state.entries.get(&group).is_none();
        self.entries += usize::from(is_new);
        self.state(root)
            .entries
            .get_or_insert_with(group, Entry::default)
    }

    fn note_sources(&mut self, root: OriginId, group: Ipv6Addr) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let entry = state.entries.get_mut(&group);
        if entry.is_some_and(Entry::note_sources) {
            state.filtered.insert(group);
        } else if !state.filtered.is_empty() {
            state.filtered.remove(&group);
        }
    }

    /// The join state that this router keeps of a neighbour for (root, group).
    pub fn received(&self, link: LinkId, root: OriginId, group: Ipv6Addr) -> ReceivedBefore {
        let entry = self.states.get(&root).and_then(|s| s.entries.get(&group));
        let Some(state) = entry.and_then(|e| e.link(link)) else {
            return ReceivedBefore::default();
        };
        ReceivedBefore {
            existed: state.received_source_active || state.received.is_some(),
            sources: state.received.sources(),
            was: (state.received.clone(), state.received_source_active),
        }
    }

    /// Sets a neighbour's join state for (root, group): its Join and its SourceActive.
    pub fn set_received(
        &mut self,
        link: LinkId,
        root: OriginId,
        group: Ipv6Addr,
        join: Join,
        sending: bool,
    ) {
        if !join.is_some()
            && !sending
            && self.received(link, root, group) == ReceivedBefore::default()
        {
            return;
        }
        let state = self.entry(root, group).link_mut(link);
        (state.received, state.received_source_active) = (join, sending);
        self.touch(root, group);
        self.note_sources(root, group);
    }

    pub fn has_received_prefix(&self, link: LinkId, root: OriginId, prefix: GroupPrefix) -> bool {
        let state = self.states.get(&root).and_then(|s| s.prefixes.get(&prefix));
        state.is_some_and(|p| p.received.contains(&link))
    }

    /// A neighbour advertises SourceActive for a prefix, or withdraws it.
    pub fn set_received_prefix(
        &mut self,
        link: LinkId,
        root: OriginId,
        prefix: GroupPrefix,
        sending: bool,
    ) {
        if sending {
            let prefixes = &mut self.state(root).prefixes;
            prefixes.entry(prefix).or_default().received.insert(link);
        } else if let Some(state) = self.states.get_mut(&root)
            && let Some(known) = state.prefixes.get_mut(&prefix)
        {
            known.received.remove(&link);
        }
        self.touch_prefix(root, prefix);
    }

    fn touch_prefix(&mut self, root: OriginId, prefix: GroupPrefix) {
        self.dirty_prefixes.insert(root);
        let Some(state) = self.states.get(&root) else {
            return;
        };
        let groups = state.entries.sorted_keys();
        for group in groups.into_iter().filter(|g| prefix.contains(*g)) {
            self.touch(root, group);
        }
    }

    /// Sets the joins of local listeners for (root, group).
    pub fn set_local(
        &mut self,
        root: OriginId,
        group: Ipv6Addr,
        join: Join,
        listeners: LocalListeners,
    ) {
        if !join.is_some() && self.lookup(root, group).is_none() {
            return;
        }
        let entry = self.entry(root, group);
        (entry.local, entry.listeners) = (join, listeners);
        self.touch(root, group);
        self.note_sources(root, group);
    }

    pub fn set_local_source_active(&mut self, root: OriginId, group: Ipv6Addr, sending: bool) {
        if !sending && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).local_source_active = sending;
        self.touch(root, group);
    }

    /// Sets all prefixes for which this router itself advertises SourceActive.
    pub fn set_local_prefixes(&mut self, own: &BTreeSet<(OriginId, GroupPrefix)>) {
        let groups = |(root, prefix): &(OriginId, GroupPrefix)| Some((*root, prefix.as_group()?));
        let groups: BTreeSet<_> = own.iter().filter_map(groups).collect();
        let ended: Vec<_> = self.local_groups.difference(&groups).copied().collect();
        for (root, group) in ended {
            self.set_local_prefix(root, group, false);
        }
        for (root, group) in &groups {
            self.set_local_prefix(*root, *group, true);
        }
        self.local_groups = groups;
        for root in self.roots.clone() {
            let Some(state) = self.states.get_mut(&root) else {
                continue;
            };
            for (prefix, known) in &mut state.prefixes {
                if known.local && !own.contains(&(root, *prefix)) {
                    known.local = false;
                    self.dirty_prefixes.insert(root);
                }
            }
        }
        for (root, prefix) in own.iter().filter(|(_, p)| p.as_group().is_none()) {
            let known = self.state(*root).prefixes.entry(*prefix).or_default();
            if !known.local {
                known.local = true;
                self.dirty_prefixes.insert(*root);
            }
        }
    }

    fn set_local_prefix(&mut self, root: OriginId, group: Ipv6Addr, local: bool) {
        if !local && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).is_local_prefix = local;
        self.touch(root, group);
    }

    fn lookup(&self, root: OriginId, group: Ipv6Addr) -> Option<&Entry> {
        self.states.get(&root)?.entries.get(&group)
    }

    /// Removes a link, with its join state in both directions.
    pub fn link_down(&mut self, link: LinkId) {
        self.shares.remove(&link);
        self.crowded.remove(&link);
        for root in self.roots.clone() {
            let Some(state) = self.states.get_mut(&root) else {
                continue;
            };
            for known in state.prefixes.values_mut() {
                if known.received.remove(&link) || known.advertised == Some(link) {
                    self.dirty_prefixes.insert(root);
                }
                known.advertised = known.advertised.filter(|advertised| *advertised != link);
                known.former = known.former.filter(|former| *former != link);
            }
            if state.position.remove_link(link) {
                self.dirty_prefixes.insert(root);
            }
            for group in state.entries.sorted_keys() {
                let Some(entry) = state.entries.get_mut(&group) else {
                    continue;
                };
                if let Ok(at) = entry.links.binary_search_by_key(&link, |l| l.link) {
                    entry.links.remove(at);
                    if entry.touch() {
                        self.dirty.push((root, group));
                    }
                }
            }
        }
    }

    /// All join state received over a link in some buckets of the audit.
    pub fn received_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, GroupPrefix) -> bool,
    ) -> Vec<(OriginId, GroupPrefix)> {
        let mut received = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            let known =
                |(p, s): (&GroupPrefix, &PrefixEntry)| s.received.contains(&link).then_some(*p);
            let prefixes = state.prefixes.iter().filter_map(known);
            let groups = state.entries.sorted_keys().into_iter();
            let groups = groups.filter(|g| self.received(link, *root, *g).existed);
            let all = prefixes.chain(groups.map(GroupPrefix::group));
            received.extend(all.filter(|p| lies_in(*root, *p)).map(|p| (*root, p)));
        }
        received
    }

    /// All join state advertised over a link in some buckets of the audit.
    pub fn advertised_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, GroupPrefix) -> bool,
    ) -> Vec<Advertised> {
        let mut advertised = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            for (prefix, known) in &state.prefixes {
                let advertised_for_prefix =
                    known.advertised == Some(link) || known.former == Some(link);
                if advertised_for_prefix && lies_in(*root, *prefix) {
                    advertised.push(Advertised {
                        root: *root,
                        prefix: *prefix,
                        join: Join::None,
                        source_active: true,
                    });
                }
            }
            for group in state.entries.sorted_keys() {
                let known = state.entries.get(&group).and_then(|e| e.link(link));
                if let Some(known) =
                    known.filter(|l| l.advertised_source_active || l.advertised.is_some())
                    && lies_in(*root, GroupPrefix::group(group))
                {
                    advertised.push(Advertised {
                        root: *root,
                        prefix: GroupPrefix::group(group),
                        join: known.advertised.clone(),
                        source_active: known.advertised_source_active,
                    });
                }
            }
        }
        advertised
    }

    /// The join state advertised over a link for a group or prefix.
    pub fn advertised_to(
        &self,
        link: LinkId,
        root: OriginId,
        prefix: GroupPrefix,
    ) -> Option<(Join, bool)> {
        let Some(group) = prefix.as_group() else {
            let known = self.states.get(&root)?.prefixes.get(&prefix)?;
            let advertised_for_prefix =
                known.advertised == Some(link) || known.former == Some(link);
            return advertised_for_prefix.then_some((Join::None, true));
        };
        let known = self.lookup(root, group)?.link(link)?;
        (known.advertised_source_active || known.advertised.is_some())
            .then(|| (known.advertised.clone(), known.advertised_source_active))
    }

    /// Advertises all changes; returns the groups whose outgoing links may have changed.
    pub fn flush(&mut self, emit: &mut dyn FnMut(JoinUpdate<'_>)) -> Vec<(OriginId, Ipv6Addr)> {
        for root in std::mem::take(&mut self.dirty_prefixes) {
            self.flush_prefixes(root, emit);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        self.share_room(&mut dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for (root, group) in &dirty {
            self.flush_entry(*root, *group, emit);
        }
        debug_assert_eq!(
            self.roots.len(),
            self.states.len(),
            "each tree in use is in order"
        );
        debug_assert!(
            self.dirty.is_empty() && self.dirty_prefixes.is_empty(),
            "a flush leaves nothing to advertise"
        );
        let entries = |root| self.states.get(root).map_or(0, |state| state.entries.len());
        debug_assert_eq!(
            self.entries,
            self.roots.iter().map(entries).sum::<usize>(),
            "entries of all trees are counted"
        );
        dirty
    }

    /// Decides which of these entries are advertised. Adds entries that gain or lose room by it.
    fn share_room(&mut self, dirty: &mut Vec<(OriginId, Ipv6Addr)>) {
        let mut at = 0;
        loop {
            while let Some((root, group)) = dirty.get(at) {
                let evicted = self.share_entry(*root, *group);
                at += 1;
                for (link, (_, root, group)) in evicted {
                    self.take_from_share(link, root, group);
                    dirty.push((root, group));
                }
            }
            let Some((link, payer, key)) = self.next_waiting() else {
                return;
            };
            let (_, root, group) = key;
            if let Some(shares) = self.shares.get_mut(&link) {
                shares.release(payer, key);
            }
            self.take_from_share(link, root, group);
            dirty.push((root, group));
        }
    }

    /// The next waiting entry that a neighbour has room for.
    fn next_waiting(&mut self) -> Option<(LinkId, Payer, Key)> {
        let (shares, room) = (&self.shares, self.room);
        let has_waiting = |link: &LinkId| shares.get(link).is_some_and(LinkShares::has_waiting);
        self.crowded.retain(has_waiting);
        self.crowded.iter().find_map(|link| {
            let (payer, key) = shares.get(link)?.next_waiting(room)?;
            Some((*link, payer, key))
        })
    }

    fn take_from_share(&mut self, link: LinkId, root: OriginId, group: Ipv6Addr) {
        let state = self.states.get_mut(&root);
        if let Some(entry) = state.and_then(|s| s.entries.get_mut(&group)) {
            let known = entry.link_mut(link);
            (known.payer, known.waits) = (None, false);
        }
    }

    /// Number of entries that began to wait for room since the last call.
    pub fn take_withheld(&mut self) -> u64 {
        std::mem::take(&mut self.withheld)
    }

    /// Number of entries that wait for room at neighbours.
    pub fn waiting(&self) -> usize {
        let crowded = self.crowded.iter().filter_map(|link| self.shares.get(link));
        crowded.map(LinkShares::waiting).sum()
    }

    pub fn waits_at(&self, root: OriginId, group: Ipv6Addr) -> impl Iterator<Item = LinkId> + '_ {
        let links = self.lookup(root, group).map(|entry| &entry.links);
        let waiting = links.into_iter().flatten().filter(|l| l.waits);
        waiting.map(|l| l.link)
    }

    /// Decides over which edges (root, group) may be advertised; returns the evicted entries.
    fn share_entry(&mut self, root: OriginId, group: Ipv6Addr) -> Vec<(LinkId, Key)> {
        let (room, seed) = (self.room, self.seed);
        let mut evicted = Vec::new();
        let Some(state) = self.states.get_mut(&root) else {
            return evicted;
        };
        let (position, prefixes) = (&state.position, &state.prefixes);
        let Some(entry) = state.entries.get_mut(&group) else {
            return evicted;
        };
        for edge in &position.edges {
            let advertises = entry.asks_over(edge, prefixes, group)
                && entry.is_joined_over(edge, position, &self.lans)
                || entry.tells_parent(edge, position, prefixes, group);
            let before = entry.link(edge.link).and_then(|l| l.payer);
            if before.is_none() && !advertises {
                continue;
            }
            let waited = entry.link(edge.link).is_some_and(|l| l.waits);
            let shares = self.shares.entry(edge.link).or_default();
            let crowd = (waited || shares.is_full(room)).then_some(&*shares);
            let after = advertises.then(|| entry.payer(edge, position, before, crowd));
            if before == after && !waited {
                continue;
            }
            let key = (rank(seed, group), root, group);
            let mut waits = false;
            match (before, after) {
                (Some(from), Some(to)) if !waited => shares.pass(from, to, key),
                (before, after) => {
                    if let Some(payer) = before {
                        shares.release(payer, key);
                    }
                    let mut others = Vec::new();
                    waits = after.is_some_and(|to| !shares.admit(to, key, room, &mut others));
                    evicted.extend(others.into_iter().map(|other| (edge.link, other)));
                }
            }
            if waits {
                self.crowded.insert(edge.link);
                self.withheld += u64::from(!waited);
            }
            let known = entry.link_mut(edge.link);
            (known.payer, known.waits) = (after, waits);
        }
        evicted
    }

    /// Advertises SourceActive for prefixes to the root, before single groups that they cover.
    fn flush_prefixes(&mut self, root: OriginId, emit: &mut dyn FnMut(JoinUpdate<'_>)) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let parent = state.position.parent().map(|e| e.link);
        let edges: Vec<LinkId> = state.position.edges.iter().map(|e| e.link).collect();
        let mut changed = Vec::new();
        for (prefix, known) in &mut state.prefixes {
            let below = |l: &LinkId| Some(*l) != parent && edges.contains(l);
            let sends = known.local || known.received.iter().any(below);
            let advertised = parent.filter(|_| sends);
            let mut withdrawn = Vec::new();
            let stays = |link: LinkId| sends && state.position.former_edge(link).is_some();
            let mut is_new = advertised != known.advertised;
            if is_new {
                let former = known.former.take();
                // the former parent is the parent again, and SourceActive was not withdrawn from it
                is_new = former.is_none() || former != advertised;
                withdrawn.extend(former.filter(|_| is_new));
                match known.advertised {
                    Some(old) if stays(old) => known.former = Some(old),
                    old => withdrawn.extend(old),
                }
            } else if let Some(former) = known.former.filter(|former| !stays(*former)) {
                known.former = None;
                withdrawn.push(former);
            } else {
                continue;
            }
            let new = advertised.filter(|_| is_new).into_iter();
            let new = new.map(|link| (link, true));
            for (link, sending) in withdrawn.into_iter().map(|l| (l, false)).chain(new) {
                emit(JoinUpdate {
                    link,
                    root,
                    prefix: *prefix,
                    before: (&Join::None, !sending),
                    after: (&Join::None, sending),
                    payer: Payer::Own,
                });
            }
            known.advertised = advertised;
            changed.push(*prefix);
        }
        state.prefixes.retain(|_, known| {
            let advertised = known.advertised.is_some() || known.former.is_some();
            known.local || advertised || !known.received.is_empty()
        });
        for prefix in changed {
            // single groups may be covered now, or no longer
            let groups = self.states.get(&root).map(|s| s.entries.sorted_keys());
            for group in groups.into_iter().flatten() {
                if prefix.contains(group) {
                    self.touch(root, group);
                }
            }
        }
        self.tidy(root);
    }

    fn flush_entry(
        &mut self,
        root: OriginId,
        group: Ipv6Addr,
        emit: &mut dyn FnMut(JoinUpdate<'_>),
    ) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let (position, prefixes) = (&state.position, &state.prefixes);
        let Some(entry) = state.entries.get_mut(&group) else {
            return;
        };
        entry.dirty = false;
        let prefix = GroupPrefix::group(group);
        for edge in &position.edges {
            let known = entry.link(edge.link);
            let kept = known.filter(|l| l.is_kept());
            let payer = kept.and_then(|l| l.payer);
            let shares = self.shares.entry(edge.link).or_default();
            let join = match payer.filter(|_| entry.asks_over(edge, prefixes, group)) {
                Some(payer) => {
                    let join = entry.join_over(edge, position, &self.lans);
                    let before = known.map_or(&Join::None, |l| &l.advertised);
                    shares.fit(payer, before, join, self.room)
                }
                None => Join::None,
            };
            let tells = || entry.tells_parent(edge, position, prefixes, group);
            let sending = payer.is_some() && tells();
            let before = known.map_or((&Join::None, false), |l| {
                (&l.advertised, l.advertised_source_active)
            });
            if before == (&join, sending) {
                continue;
            }
            shares.book_sources(before.0, &join);
            emit(JoinUpdate {
                link: edge.link,
                root,
                prefix,
                before,
                after: (&join, sending),
                payer: payer.unwrap_or(Payer::Leaves),
            });
            let advertised = entry.link_mut(edge.link);
            (advertised.advertised, advertised.advertised_source_active) = (join, sending);
        }
        // withdraws join state from links that are not edges; former edges keep it for late packets
        let kept: Vec<LinkId> = entry
            .links
            .iter()
            .filter(|l| l.is_kept())
            .filter_map(|l| position.former_edge(l.link))
            .filter(|edge| {
                let joined = entry.join_over(edge, position, &self.lans).is_some();
                joined || entry.is_source_active_below(position)
            })
            .map(|edge| edge.link)
            .collect();
        for advertised in &mut entry.links {
            if position.edge(advertised.link).is_some() || kept.contains(&advertised.link) {
                continue;
            }
            if let Some(payer) = advertised.payer.take() {
                let key = (rank(self.seed, group), root, group);
                let shares = self.shares.entry(advertised.link).or_default();
                shares.release(payer, key);
                advertised.waits = false;
            }
            if advertised.advertised_source_active || advertised.advertised.is_some() {
                let shares = self.shares.entry(advertised.link).or_default();
                shares.book_sources(&advertised.advertised, &Join::None);
                emit(JoinUpdate {
                    link: advertised.link,
                    root,
                    prefix,
                    before: (&advertised.advertised, advertised.advertised_source_active),
                    after: (&Join::None, false),
                    payer: Payer::Leaves,
                });
                (advertised.advertised, advertised.advertised_source_active) = (Join::None, false);
            }
        }
        entry.tidy();
        if entry.is_empty() {
            state.entries.remove(&group);
            state.filtered.remove(&group);
            self.entries -= 1;
            self.tidy(root);
        }
    }

    fn tidy(&mut self, root: OriginId) {
        if self.states.get(&root).is_some_and(|s| s.is_empty()) {
            self.states.remove(&root);
            self.roots.remove(&root);
        }
    }

    /// The forwarding entry for packets of `source` that enter the network at `origin`; `None` if
    /// the tree has no entry for the group.
    pub fn forward(
        &mut self,
        root: OriginId,
        group: Ipv6Addr,
        (source, origin): (Ipv6Addr, OriginId),
    ) -> Option<Lookup<'_>> {
        let state = self.states.get_mut(&root)?;
        let entry = state.entries.get_mut(&group)?;
        let inputs = EntryInputs {
            position: &state.position,
            links: &entry.links,
            lists_sources: entry.lists_sources,
        };
        let active = entry.active.get_or_insert_default();
        Some(active.lookup(inputs, (source, origin)))
    }

    /// The union of all neighbours' Joins on the tree for (root, group).
    pub fn joined_of(&self, root: OriginId, group: Ipv6Addr) -> Option<SourceFilter> {
        let state = self.states.get(&root)?;
        let entry = state.entries.get(&group)?;
        let mut merged = Join::None;
        for l in entry
            .links
            .iter()
            .filter(|l| state.position.edge(l.link).is_some())
        {
            merged = merged.union(&l.received);
        }
        merged.filter()
    }

    pub fn is_joined(&self, root: OriginId, group: Ipv6Addr) -> bool {
        !self.links(root, group).is_empty()
    }

    /// The links over which (root, group) is joined, for any source.
    pub fn links(&self, root: OriginId, group: Ipv6Addr) -> Vec<LinkId> {
        let Some(state) = self.states.get(&root) else {
            return Vec::new();
        };
        let Some(entry) = state.entries.get(&group) else {
            return Vec::new();
        };
        let links = entry.links.iter();
        links
            .filter(|l| l.received.is_some() && state.position.edge(l.link).is_some())
            .map(|l| l.link)
            .collect()
    }

    pub fn traffic(&self, root: OriginId, group: Ipv6Addr) -> Option<&Traffic> {
        Some(&self.lookup(root, group)?.active.as_deref()?.traffic)
    }

    /// All (root, group) in order.
    pub fn keys(&self) -> Vec<(OriginId, Ipv6Addr)> {
        let groups = |root: &OriginId| {
            let state = self.states.get(root);
            let keys = state.map(|s| s.entries.sorted_keys()).unwrap_or_default();
            let root = *root;
            keys.into_iter().map(move |group| (root, group))
        };
        self.roots.iter().flat_map(groups).collect()
    }

    /// All groups; a group on several trees occurs more than once.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + use<> {
        self.keys().into_iter().map(|(_, group)| group)
    }

    /// Number of (root, group) entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Number of SourceActive prefixes, received or our own.
    pub fn prefixes(&self) -> usize {
        let states = self.roots.iter().filter_map(|root| self.states.get(root));
        states.map(|s| s.prefixes.len()).sum()
    }
}
