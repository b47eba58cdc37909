//! JoinState on trees: who wants what of (root, group), who sends to it, and over which links a packet
//! therefore goes on.
//!
//! | | rootward | away from the root |
//! |---|---|---|
//! | **W** wanted beyond me | always | where the far side known S |
//! | **S** somebody beyond me sends, or wants to know who listens | always | never |
//!
//! What a neighbour says is kept as it was known, whatever this router believes of the tree at the moment.
//! It counts only while the link is an edge of the present tree. Whoever tells interest does so over the
//! edges of its own tree only and withdraws it from all others: so interest that is there is at once the
//! neighbour's word that it has this edge too, and nothing is sent over a new edge before that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};
use routes::{Active, EntryInputs};

use crate::control::Prefix;
use crate::graph::Tree;
use crate::join::Join;
use crate::table::Table;
use crate::traffic::Traffic;

mod routes;

pub use routes::Lookup;

/// How long packets are taken over the edges that a tree had before its last change.
pub const PREVIOUS_TREE: Duration = Duration::from_secs(1);
/// So many of them are kept: changes come in crowds.
const MAX_PREVIOUS: usize = 4;

/// One end of a tree's edge at this router.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// The router at the other end.
    pub neighbor: OriginId,
    /// The link to it.
    pub link: LinkId,
    /// It is nearer to the root.
    pub is_parent: bool,
    /// Numbers in the tree, from and to: of those behind a child; of this router and those behind it, for the parent.
    pub span: (u32, u32),
}

impl Edge {
    /// What does not change with every tree.
    fn ends(&self) -> (OriginId, LinkId, bool) {
        (self.neighbor, self.link, self.is_parent)
    }

    fn leads_to(&self, number: u32) -> bool {
        let (from, to) = self.span;
        self.is_parent != (from..to).contains(&number)
    }
}

fn are_same(a: &[Edge], b: &[Edge]) -> bool {
    a.iter().map(Edge::ends).eq(b.iter().map(Edge::ends))
}

/// What is known of a group over one link, in both directions.
#[derive(Debug)]
struct GroupLink {
    link: LinkId,
    received_source_active: bool,
    advertised_source_active: bool,
    received: Join,
    advertised: Join,
}

impl GroupLink {
    fn new(link: LinkId) -> Self {
        Self {
            link,
            received_source_active: false,
            advertised_source_active: false,
            received: Join::None,
            advertised: Join::None,
        }
    }

    fn is_empty(&self) -> bool {
        !(self.received_source_active
            || self.advertised_source_active
            || self.received.is_some()
            || self.advertised.is_some())
    }
}

/// One group on one tree.
#[derive(Debug, Default)]
struct Entry {
    /// Sorted by link.
    links: Vec<GroupLink>,
    /// What programs on this host want.
    local: Join,
    /// A program on this host sends.
    local_source_active: bool,
    /// It is in the list of what the next flush looks at.
    dirty: bool,
    /// Somebody wants some sources only, or all but some.
    lists_sources: bool,
    active: Option<Box<Active>>,
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

    /// Its routes are void, and the next flush looks at it. True: that is new.
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
        self.links.is_empty() && !self.local.is_some() && !self.local_source_active
    }

    /// Looks at what is wanted anew; whether it lists sources.
    fn note_sources(&mut self) -> bool {
        let received = |l: &GroupLink| l.received.lists_sources();
        self.lists_sources = self.local.lists_sources() || self.links.iter().any(received);
        self.lists_sources
    }
}

/// S for many groups at once.
#[derive(Debug, Default)]
struct PrefixEntry {
    received: BTreeSet<LinkId>,
    advertised: Option<LinkId>,
    /// The parent until a moment ago, who was advertised.
    former: Option<LinkId>,
    local: bool,
}

/// Where this router stands in a tree.
#[derive(Debug, Default)]
struct TreePosition {
    tree: Option<Arc<Tree>>,
    /// The trees of a moment ago, the last one at the end.
    previous: VecDeque<Previous>,
    /// They had edges that are none any more.
    has_former_edges: bool,
    /// Parent and children, sorted by link.
    edges: Vec<Edge>,
    /// Rises with every change.
    version: u32,
}

/// A tree as far as this router is concerned.
#[derive(Debug)]
struct TreeState {
    place: TreePosition,
    entries: Table<Ipv6Addr, Entry>,
    prefixes: BTreeMap<Prefix, PrefixEntry>,
    /// Groups of which not everything is wanted: what is advertised of them depends on where sources lie.
    filtered: BTreeSet<Ipv6Addr>,
}

/// The tree as it was.
#[derive(Debug)]
struct Previous {
    tree: Arc<Tree>,
    edges: Vec<Edge>,
    until: Instant,
}

impl TreeState {
    fn new(seed: u64) -> Self {
        Self {
            place: TreePosition::default(),
            entries: Table::new(seed),
            prefixes: BTreeMap::new(),
            filtered: BTreeSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.prefixes.is_empty()
    }
}

impl TreePosition {
    fn edge(&self, link: LinkId) -> Option<&Edge> {
        self.edges.iter().find(|e| e.link == link)
    }

    /// To be called when edges have changed, or trees of before.
    fn note_former_edges(&mut self) {
        let mut edges = self.previous.iter().flat_map(|p| &p.edges);
        self.has_former_edges = edges.any(|e| self.edge(e.link).is_none());
        self.version = self.version.wrapping_add(1);
    }

    /// The edge of the trees of a moment ago, if it is none any more.
    fn former_edge(&self, link: LinkId) -> Option<&Edge> {
        if !self.has_former_edges {
            return None;
        }
        let mut edges = self.previous.iter().rev().flat_map(|p| &p.edges);
        let former = edges.find(|e| e.link == link);
        former.filter(|_| self.edge(link).is_none())
    }

    /// An edge, or one of a moment ago: who is behind it may not have known it elsewhere yet.
    fn current_or_former_edge(&self, link: LinkId) -> Option<&Edge> {
        self.edge(link).or_else(|| self.former_edge(link))
    }

    fn parent(&self) -> Option<&Edge> {
        self.edges.iter().find(|e| e.is_parent)
    }

    /// The link over which `origin` is reached on this tree.
    fn towards(&self, origin: OriginId) -> Option<LinkId> {
        towards(self.tree.as_ref()?, &self.edges, origin)
    }

    /// Whether `origin` was reached over this link in a tree of a moment ago.
    fn was_towards(&self, origin: OriginId, link: LinkId) -> bool {
        let mut previous = self.previous.iter();
        previous.any(|p| towards(&p.tree, &p.edges, origin) == Some(link))
    }

    /// W for one edge: what all others want, of the sources that lie behind it.
    fn join_over(&self, entry: &Entry, edge: &Edge) -> Join {
        let others = entry
            .links
            .iter()
            .filter(|l| l.link != edge.link && l.received.is_some())
            .filter(|l| self.current_or_former_edge(l.link).is_some());
        let mut want = entry.local.clone();
        for other in others {
            if want == Join::All {
                break;
            }
            want = want.union(&other.received);
        }
        let Join::Filtered(filter) = want else {
            return want;
        };
        let behind = |s: Ipv6Addr| self.towards(OriginId::of(s)) == Some(edge.link);
        filter.retain(behind).into()
    }

    /// Whether a program here or somebody below sends to the group.
    fn is_source_active_below(&self, entry: &Entry) -> bool {
        let below = |l: &GroupLink| {
            l.received_source_active
                && self
                    .current_or_former_edge(l.link)
                    .is_some_and(|edge| !edge.is_parent)
        };
        entry.local_source_active || entry.links.iter().any(below)
    }
}

/// Whether somebody behind `link` known S for a prefix that `group` lies in.
fn received_for_prefix(
    prefixes: &BTreeMap<Prefix, PrefixEntry>,
    link: LinkId,
    group: Ipv6Addr,
) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.received.contains(&link) && prefix.contains(group))
}

/// Whether `link` was advertised S for a prefix that `group` lies in.
fn advertised_for_prefix(
    prefixes: &BTreeMap<Prefix, PrefixEntry>,
    link: LinkId,
    group: Ipv6Addr,
) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.advertised == Some(link) && prefix.contains(group))
}

fn towards(tree: &Tree, edges: &[Edge], origin: OriginId) -> Option<LinkId> {
    let (number, _) = tree.span(origin)?;
    Some(edges.iter().find(|e| e.leads_to(number))?.link)
}

/// Something to be known over a link, and what was known before.
#[derive(Debug)]
pub struct JoinUpdate<'a> {
    /// To whom.
    pub link: LinkId,
    /// The tree.
    pub root: OriginId,
    /// The groups.
    pub prefix: Prefix,
    /// W and S as they were advertised so far.
    pub before: (&'a Join, bool),
    /// W and S from now on.
    pub after: (&'a Join, bool),
}

/// What a neighbour known before, for the account of what it keeps here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReceivedBefore {
    /// There was an entry of it.
    pub existed: bool,
    /// Sources that it listed.
    pub sources: usize,
    /// W and S, for the audit.
    pub was: (Join, bool),
}

/// All trees that somebody uses.
#[derive(Debug)]
pub struct Trees {
    seed: u64,
    states: Table<OriginId, TreeState>,
    /// Roots in use, in order.
    roots: BTreeSet<OriginId>,
    /// What the next flush looks at.
    dirty: Vec<(OriginId, Ipv6Addr)>,
    dirty_prefixes: BTreeSet<OriginId>,
    unplaced: Vec<OriginId>,
    entries: usize,
}

impl Trees {
    /// No tree is in use.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            states: Table::new(seed),
            roots: BTreeSet::new(),
            dirty: Vec::new(),
            dirty_prefixes: BTreeSet::new(),
            unplaced: Vec::new(),
            entries: 0,
        }
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

    /// Whether the tree is in use.
    pub fn is_used(&self, root: OriginId) -> bool {
        self.roots.contains(&root)
    }

    /// Roots of all trees in use.
    pub fn roots(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.roots.iter().copied()
    }

    /// Trees that came into use since the last call.
    pub fn take_unplaced(&mut self) -> Vec<OriginId> {
        std::mem::take(&mut self.unplaced)
    }

    /// The tree has this form now, and these are its edges here. Packets are taken over the edges that it
    /// had until [`PREVIOUS_TREE`] from now.
    pub fn place(
        &mut self,
        root: OriginId,
        tree: Option<Arc<Tree>>,
        mut edges: Vec<Edge>,
        now: Instant,
    ) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        edges.sort_unstable_by_key(|e| e.link);
        let place = &mut state.place;
        let same_tree = match (&place.tree, &tree) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut edges_changed = !are_same(&place.edges, &edges);
        if same_tree && !edges_changed {
            return;
        }
        let old_edges = std::mem::replace(&mut place.edges, edges);
        if let Some(old) = std::mem::replace(&mut place.tree, tree) {
            if place.previous.len() == MAX_PREVIOUS {
                place.previous.pop_front();
                edges_changed |= place.has_former_edges;
            }
            place.previous.push_back(Previous {
                tree: old,
                edges: old_edges,
                until: now + PREVIOUS_TREE,
            });
        }
        place.note_former_edges();
        let groups: Vec<_> = if edges_changed {
            self.dirty_prefixes.insert(root);
            state.entries.sorted_keys()
        } else {
            state.filtered.iter().copied().collect()
        };
        for group in groups {
            self.touch(root, group);
        }
    }

    /// Forgets trees of before whose time is over; when the next one is to be forgotten.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let (mut next, mut over) = (None, Vec::new());
        for root in &self.roots {
            let Some(state) = self.states.get_mut(root) else {
                continue;
            };
            let place = &mut state.place;
            let before = (place.previous.len(), place.has_former_edges);
            place.previous.retain(|p| p.until > now);
            if place.previous.len() < before.0 {
                place.note_former_edges();
                if before.1 {
                    over.push((*root, state.entries.sorted_keys()));
                }
            }
            if let Some(Previous { until, .. }) = place.previous.front() {
                next = Some(next.map_or(*until, |n: Instant| n.min(*until)));
            }
        }
        // what was advertised over edges of before is withdrawn now
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
        self.states.get(&root)?.place.tree.clone()
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

    /// What a neighbour keeps here of (root, group).
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

    /// A neighbour says what it wants of (root, group) from now on, and whether somebody there sends.
    pub fn set_received(
        &mut self,
        link: LinkId,
        root: OriginId,
        group: Ipv6Addr,
        want: Join,
        sending: bool,
    ) {
        if !want.is_some()
            && !sending
            && self.received(link, root, group) == ReceivedBefore::default()
        {
            return;
        }
        let state = self.entry(root, group).link_mut(link);
        (state.received, state.received_source_active) = (want, sending);
        self.touch(root, group);
        self.note_sources(root, group);
    }

    /// Whether a neighbour known S for a prefix.
    pub fn has_received_prefix(&self, link: LinkId, root: OriginId, prefix: Prefix) -> bool {
        let state = self.states.get(&root).and_then(|s| s.prefixes.get(&prefix));
        state.is_some_and(|p| p.received.contains(&link))
    }

    /// A neighbour says S for a prefix, or withdraws it.
    pub fn set_received_prefix(
        &mut self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
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

    /// What lies in the prefix is advertised or withdrawn with the next flush.
    fn touch_prefix(&mut self, root: OriginId, prefix: Prefix) {
        self.dirty_prefixes.insert(root);
        let Some(state) = self.states.get(&root) else {
            return;
        };
        let groups = state.entries.sorted_keys();
        for group in groups.into_iter().filter(|g| prefix.contains(*g)) {
            self.touch(root, group);
        }
    }

    /// What programs on this host want of (root, group).
    pub fn set_local(&mut self, root: OriginId, group: Ipv6Addr, want: Join) {
        if !want.is_some() && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).local = want;
        self.touch(root, group);
        self.note_sources(root, group);
    }

    /// Whether a program on this host sends to the group.
    pub fn set_local_source_active(&mut self, root: OriginId, group: Ipv6Addr, sending: bool) {
        if !sending && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).local_source_active = sending;
        self.touch(root, group);
    }

    /// The prefixes of which this router itself says S, all of them.
    pub fn set_local_prefixes(&mut self, wanted: &BTreeSet<(OriginId, Prefix)>) {
        for root in self.roots.clone() {
            let Some(state) = self.states.get_mut(&root) else {
                continue;
            };
            for (prefix, known) in &mut state.prefixes {
                if known.local && !wanted.contains(&(root, *prefix)) {
                    known.local = false;
                    self.dirty_prefixes.insert(root);
                }
            }
        }
        for (root, prefix) in wanted {
            let known = self.state(*root).prefixes.entry(*prefix).or_default();
            if !known.local {
                known.local = true;
                self.dirty_prefixes.insert(*root);
            }
        }
    }

    fn lookup(&self, root: OriginId, group: Ipv6Addr) -> Option<&Entry> {
        self.states.get(&root)?.entries.get(&group)
    }

    /// A link is gone, and all that was known over it in both directions.
    pub fn link_down(&mut self, link: LinkId) {
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
            let place = &mut state.place;
            for previous in &mut place.previous {
                previous.edges.retain(|e| e.link != link);
            }
            if place.edge(link).is_some() {
                place.edges.retain(|e| e.link != link);
                self.dirty_prefixes.insert(root);
            }
            place.note_former_edges();
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

    /// All that was received over a link in some buckets of the audit.
    pub fn received_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, Prefix) -> bool,
    ) -> Vec<(OriginId, Prefix)> {
        let mut received = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            let known = |(p, s): (&Prefix, &PrefixEntry)| s.received.contains(&link).then_some(*p);
            let prefixes = state.prefixes.iter().filter_map(known);
            let groups = state.entries.sorted_keys().into_iter();
            let groups = groups.filter(|g| self.received(link, *root, *g).existed);
            let all = prefixes.chain(groups.map(Prefix::group));
            received.extend(all.filter(|p| lies_in(*root, *p)).map(|p| (*root, p)));
        }
        received
    }

    /// All that was advertised over a link in some buckets of the audit.
    pub fn advertised_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, Prefix) -> bool,
    ) -> Vec<(OriginId, Prefix, Join, bool)> {
        let mut advertised = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            for (prefix, known) in &state.prefixes {
                let advertised_for_prefix =
                    known.advertised == Some(link) || known.former == Some(link);
                if advertised_for_prefix && lies_in(*root, *prefix) {
                    advertised.push((*root, *prefix, Join::None, true));
                }
            }
            for group in state.entries.sorted_keys() {
                let known = state.entries.get(&group).and_then(|e| e.link(link));
                if let Some(known) =
                    known.filter(|l| l.advertised_source_active || l.advertised.is_some())
                    && lies_in(*root, Prefix::group(group))
                {
                    let prefix = Prefix::group(group);
                    advertised.push((
                        *root,
                        prefix,
                        known.advertised.clone(),
                        known.advertised_source_active,
                    ));
                }
            }
        }
        advertised
    }

    /// What was advertised over a link of a group or prefix.
    pub fn advertised_to(
        &self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
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

    /// Says what changed since the last flush; returns the groups whose outgoing links may be others now.
    pub fn flush(&mut self, emit: &mut dyn FnMut(JoinUpdate<'_>)) -> Vec<(OriginId, Ipv6Addr)> {
        for root in std::mem::take(&mut self.dirty_prefixes) {
            self.flush_prefixes(root, emit);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for (root, group) in &dirty {
            self.flush_entry(*root, *group, emit);
        }
        dirty
    }

    /// S for prefixes, towards the root. It covers single groups, so it is known before them.
    fn flush_prefixes(&mut self, root: OriginId, emit: &mut dyn FnMut(JoinUpdate<'_>)) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let parent = state.place.parent().map(|e| e.link);
        let edges: Vec<LinkId> = state.place.edges.iter().map(|e| e.link).collect();
        let mut changed = Vec::new();
        for (prefix, known) in &mut state.prefixes {
            let below = |l: &LinkId| Some(*l) != parent && edges.contains(l);
            let sends = known.local || known.received.iter().any(below);
            let advertised = parent.filter(|_| sends);
            let mut withdrawn = Vec::new();
            let stays = |link: LinkId| sends && state.place.former_edge(link).is_some();
            let mut is_news = advertised != known.advertised;
            if is_news {
                let former = known.former.take();
                // back again, and not withdrawn yet
                is_news = former.is_none() || former != advertised;
                withdrawn.extend(former.filter(|_| is_news));
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
            let news = advertised.filter(|_| is_news).into_iter();
            let news = news.map(|link| (link, true));
            for (link, sending) in withdrawn.into_iter().map(|l| (l, false)).chain(news) {
                emit(JoinUpdate {
                    link,
                    root,
                    prefix: *prefix,
                    before: (&Join::None, !sending),
                    after: (&Join::None, sending),
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
        let (place, prefixes) = (&state.place, &state.prefixes);
        let Some(entry) = state.entries.get_mut(&group) else {
            return;
        };
        entry.dirty = false;
        let prefix = Prefix::group(group);
        for edge in &place.edges {
            let known = entry.link(edge.link);
            let asks = edge.is_parent
                || known.is_some_and(|l| l.received_source_active)
                || received_for_prefix(prefixes, edge.link, group);
            let want = if asks {
                place.join_over(entry, edge)
            } else {
                Join::None
            };
            let sending = edge.is_parent
                && place.is_source_active_below(entry)
                && !advertised_for_prefix(prefixes, edge.link, group);
            let before = known.map_or((&Join::None, false), |l| {
                (&l.advertised, l.advertised_source_active)
            });
            if before == (&want, sending) {
                continue;
            }
            emit(JoinUpdate {
                link: edge.link,
                root,
                prefix,
                before,
                after: (&want, sending),
            });
            let advertised = entry.link_mut(edge.link);
            (advertised.advertised, advertised.advertised_source_active) = (want, sending);
        }
        // what was advertised over links that are no edges any more; where they were until a moment ago, and the
        // interest is still there, it stays for as long as packets may come that way
        let kept: Vec<LinkId> = entry
            .links
            .iter()
            .filter_map(|l| place.former_edge(l.link))
            .filter(|edge| {
                let wanted = place.join_over(entry, edge).is_some();
                wanted || place.is_source_active_below(entry)
            })
            .map(|edge| edge.link)
            .collect();
        for advertised in &mut entry.links {
            let is_told = advertised.advertised_source_active || advertised.advertised.is_some();
            if is_told && place.edge(advertised.link).is_none() && !kept.contains(&advertised.link)
            {
                emit(JoinUpdate {
                    link: advertised.link,
                    root,
                    prefix,
                    before: (&advertised.advertised, advertised.advertised_source_active),
                    after: (&Join::None, false),
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

    /// The way of a packet of `source`; `None` if nobody is interested in the group on this tree.
    pub fn route(
        &mut self,
        root: OriginId,
        group: Ipv6Addr,
        source: Ipv6Addr,
    ) -> Option<Lookup<'_>> {
        let state = self.states.get_mut(&root)?;
        let entry = state.entries.get_mut(&group)?;
        let basis = EntryInputs {
            place: &state.place,
            links: &entry.links,
            lists_sources: entry.lists_sources,
        };
        Some(entry.active.get_or_insert_default().way(basis, source))
    }

    /// What all neighbours on the tree together want of (root, group), of the sources in `present`.
    pub fn wanted_of(
        &self,
        root: OriginId,
        group: Ipv6Addr,
        present: &[Ipv6Addr],
    ) -> Option<crate::source_filter::SourceFilter> {
        let state = self.states.get(&root)?;
        let entry = state.entries.get(&group)?;
        let mut merged = Join::None;
        for l in entry
            .links
            .iter()
            .filter(|l| state.place.edge(l.link).is_some())
        {
            merged = merged.union(&l.received);
        }
        merged.filter()?.restricted_to(present)
    }

    /// Whether a neighbour on the tree wants something of (root, group).
    pub fn is_wanted(&self, root: OriginId, group: Ipv6Addr) -> bool {
        !self.links(root, group).is_empty()
    }

    /// The links over which (root, group) is wanted, whatever its source.
    pub fn links(&self, root: OriginId, group: Ipv6Addr) -> Vec<LinkId> {
        let Some(state) = self.states.get(&root) else {
            return Vec::new();
        };
        let Some(entry) = state.entries.get(&group) else {
            return Vec::new();
        };
        let wanting = entry.links.iter();
        wanting
            .filter(|l| l.received.is_some() && state.place.edge(l.link).is_some())
            .map(|l| l.link)
            .collect()
    }

    /// The counters of (root, group).
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

    /// All groups, one on several trees more than once.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + use<> {
        self.keys().into_iter().map(|(_, group)| group)
    }

    /// Number of (root, group) entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Number of S prefixes, received or our own.
    pub fn prefixes(&self) -> usize {
        let states = self.roots.iter().filter_map(|root| self.states.get(root));
        states.map(|s| s.prefixes.len()).sum()
    }
}
