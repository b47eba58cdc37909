//! Interest on trees: who wants what of (root, group), who sends to it, and over which links a packet
//! therefore goes on.
//!
//! | | rootward | away from the root |
//! |---|---|---|
//! | **W** wanted beyond me | always | where the far side said S |
//! | **S** somebody beyond me sends, or wants to know who listens | always | never |
//!
//! What a neighbour says is kept as it was said, whatever this router believes of the tree at the moment.
//! It counts only while the link is an edge of the present tree. Whoever tells interest does so over the
//! edges of its own tree only and withdraws it from all others: so interest that is there is at once the
//! neighbour's word that it has this edge too, and nothing is sent over a new edge before that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};
use routes::{Active, Basis};

use crate::control::Prefix;
use crate::graph::Tree;
use crate::table::Table;
use crate::traffic::Traffic;
use crate::want::Want;

mod routes;

pub use routes::Way;

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

/// What is said of a group over one link, in both directions.
#[derive(Debug)]
struct LinkState {
    link: LinkId,
    heard_sending: bool,
    told_sending: bool,
    heard: Want,
    told: Want,
}

impl LinkState {
    fn new(link: LinkId) -> Self {
        Self {
            link,
            heard_sending: false,
            told_sending: false,
            heard: Want::Nothing,
            told: Want::Nothing,
        }
    }

    fn is_empty(&self) -> bool {
        !(self.heard_sending
            || self.told_sending
            || self.heard.is_something()
            || self.told.is_something())
    }
}

/// One group on one tree.
#[derive(Debug, Default)]
struct Entry {
    /// Sorted by link.
    links: Vec<LinkState>,
    /// What programs on this host want.
    local: Want,
    /// A program on this host sends.
    local_sending: bool,
    /// It is in the list of what the next flush looks at.
    dirty: bool,
    /// Somebody wants some sources only, or all but some.
    lists_sources: bool,
    active: Option<Box<Active>>,
}

impl Entry {
    fn link(&self, link: LinkId) -> Option<&LinkState> {
        let at = self.links.binary_search_by_key(&link, |l| l.link).ok()?;
        Some(&self.links[at])
    }

    fn link_mut(&mut self, link: LinkId) -> &mut LinkState {
        let at = match self.links.binary_search_by_key(&link, |l| l.link) {
            Ok(at) => at,
            Err(at) => {
                // there may be a million of these, most with two links
                self.links.reserve_exact(1);
                self.links.insert(at, LinkState::new(link));
                at
            }
        };
        &mut self.links[at]
    }

    /// Its routes are void, and the next flush looks at it. True: that is new.
    fn touch(&mut self) -> bool {
        if let Some(active) = &mut self.active {
            active.forget_routes();
        }
        !std::mem::replace(&mut self.dirty, true)
    }

    fn tidy(&mut self) {
        self.links.retain(|l| !l.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.links.is_empty() && !self.local.is_something() && !self.local_sending
    }

    /// Looks at what is wanted anew; whether it lists sources.
    fn note_sources(&mut self) -> bool {
        let heard = |l: &LinkState| l.heard.lists_sources();
        self.lists_sources = self.local.lists_sources() || self.links.iter().any(heard);
        self.lists_sources
    }
}

/// S for many groups at once.
#[derive(Debug, Default)]
struct PrefixState {
    heard: BTreeSet<LinkId>,
    told: Option<LinkId>,
    /// The parent until a moment ago, who was told.
    former: Option<LinkId>,
    local: bool,
}

/// Where this router stands in a tree.
#[derive(Debug, Default)]
struct Place {
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
    place: Place,
    entries: Table<Ipv6Addr, Entry>,
    prefixes: BTreeMap<Prefix, PrefixState>,
    /// Groups of which not everything is wanted: what is told of them depends on where sources lie.
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
            place: Place::default(),
            entries: Table::new(seed),
            prefixes: BTreeMap::new(),
            filtered: BTreeSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.prefixes.is_empty()
    }
}

impl Place {
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

    /// An edge, or one of a moment ago: who is behind it may not have said it elsewhere yet.
    fn late_edge(&self, link: LinkId) -> Option<&Edge> {
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
    fn wanted_over(&self, entry: &Entry, edge: &Edge) -> Want {
        let others = entry
            .links
            .iter()
            .filter(|l| l.link != edge.link && l.heard.is_something())
            .filter(|l| self.late_edge(l.link).is_some());
        let mut want = entry.local.clone();
        for other in others {
            if want == Want::All {
                break;
            }
            want = want.union(&other.heard);
        }
        let Want::Some(filter) = want else {
            return want;
        };
        let behind = |s: Ipv6Addr| self.towards(OriginId::of(s)) == Some(edge.link);
        filter.retain(behind).into()
    }

    /// Whether a program here or somebody below sends to the group.
    fn is_sending_below(&self, entry: &Entry) -> bool {
        let below = |l: &LinkState| {
            l.heard_sending && self.late_edge(l.link).is_some_and(|edge| !edge.is_parent)
        };
        entry.local_sending || entry.links.iter().any(below)
    }
}

/// Whether somebody behind `link` said S for a prefix that `group` lies in.
fn has_said(prefixes: &BTreeMap<Prefix, PrefixState>, link: LinkId, group: Ipv6Addr) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.heard.contains(&link) && prefix.contains(group))
}

/// Whether `link` was told S for a prefix that `group` lies in.
fn was_told(prefixes: &BTreeMap<Prefix, PrefixState>, link: LinkId, group: Ipv6Addr) -> bool {
    let mut all = prefixes.iter();
    all.any(|(prefix, state)| state.told == Some(link) && prefix.contains(group))
}

fn towards(tree: &Tree, edges: &[Edge], origin: OriginId) -> Option<LinkId> {
    let (number, _) = tree.span(origin)?;
    Some(edges.iter().find(|e| e.leads_to(number))?.link)
}

/// Something to be said over a link, and what was said before.
#[derive(Debug)]
pub struct Statement<'a> {
    /// To whom.
    pub link: LinkId,
    /// The tree.
    pub root: OriginId,
    /// The groups.
    pub prefix: Prefix,
    /// W and S as they were told so far.
    pub before: (&'a Want, bool),
    /// W and S from now on.
    pub after: (&'a Want, bool),
}

/// What a neighbour said before, for the account of what it keeps here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HeardBefore {
    /// There was an entry of it.
    pub existed: bool,
    /// Sources that it listed.
    pub sources: usize,
    /// W and S, for the audit.
    pub was: (Want, bool),
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
        // what was told over edges of before is withdrawn now
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
    pub fn heard(&self, link: LinkId, root: OriginId, group: Ipv6Addr) -> HeardBefore {
        let entry = self.states.get(&root).and_then(|s| s.entries.get(&group));
        let Some(state) = entry.and_then(|e| e.link(link)) else {
            return HeardBefore::default();
        };
        HeardBefore {
            existed: state.heard_sending || state.heard.is_something(),
            sources: state.heard.sources(),
            was: (state.heard.clone(), state.heard_sending),
        }
    }

    /// A neighbour says what it wants of (root, group) from now on, and whether somebody there sends.
    pub fn hear(
        &mut self,
        link: LinkId,
        root: OriginId,
        group: Ipv6Addr,
        want: Want,
        sending: bool,
    ) {
        if !want.is_something()
            && !sending
            && self.heard(link, root, group) == HeardBefore::default()
        {
            return;
        }
        let state = self.entry(root, group).link_mut(link);
        (state.heard, state.heard_sending) = (want, sending);
        self.touch(root, group);
        self.note_sources(root, group);
    }

    /// Whether a neighbour said S for a prefix.
    pub fn has_heard_prefix(&self, link: LinkId, root: OriginId, prefix: Prefix) -> bool {
        let state = self.states.get(&root).and_then(|s| s.prefixes.get(&prefix));
        state.is_some_and(|p| p.heard.contains(&link))
    }

    /// A neighbour says S for a prefix, or withdraws it.
    pub fn hear_prefix(&mut self, link: LinkId, root: OriginId, prefix: Prefix, sending: bool) {
        if sending {
            let prefixes = &mut self.state(root).prefixes;
            prefixes.entry(prefix).or_default().heard.insert(link);
        } else if let Some(state) = self.states.get_mut(&root)
            && let Some(said) = state.prefixes.get_mut(&prefix)
        {
            said.heard.remove(&link);
        }
        self.touch_prefix(root, prefix);
    }

    /// What lies in the prefix is told or withdrawn with the next flush.
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
    pub fn set_local(&mut self, root: OriginId, group: Ipv6Addr, want: Want) {
        if !want.is_something() && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).local = want;
        self.touch(root, group);
        self.note_sources(root, group);
    }

    /// Whether a program on this host sends to the group.
    pub fn set_local_sending(&mut self, root: OriginId, group: Ipv6Addr, sending: bool) {
        if !sending && self.lookup(root, group).is_none() {
            return;
        }
        self.entry(root, group).local_sending = sending;
        self.touch(root, group);
    }

    /// The prefixes of which this router itself says S, all of them.
    pub fn set_local_prefixes(&mut self, wanted: &BTreeSet<(OriginId, Prefix)>) {
        for root in self.roots.clone() {
            let Some(state) = self.states.get_mut(&root) else {
                continue;
            };
            for (prefix, said) in &mut state.prefixes {
                if said.local && !wanted.contains(&(root, *prefix)) {
                    said.local = false;
                    self.dirty_prefixes.insert(root);
                }
            }
        }
        for (root, prefix) in wanted {
            let said = self.state(*root).prefixes.entry(*prefix).or_default();
            if !said.local {
                said.local = true;
                self.dirty_prefixes.insert(*root);
            }
        }
    }

    fn lookup(&self, root: OriginId, group: Ipv6Addr) -> Option<&Entry> {
        self.states.get(&root)?.entries.get(&group)
    }

    /// A link is gone, and all that was said over it in both directions.
    pub fn link_down(&mut self, link: LinkId) {
        for root in self.roots.clone() {
            let Some(state) = self.states.get_mut(&root) else {
                continue;
            };
            for said in state.prefixes.values_mut() {
                if said.heard.remove(&link) || said.told == Some(link) {
                    self.dirty_prefixes.insert(root);
                }
                said.told = said.told.filter(|told| *told != link);
                said.former = said.former.filter(|former| *former != link);
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

    /// All that was heard over a link in some buckets of the audit.
    pub fn heard_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, Prefix) -> bool,
    ) -> Vec<(OriginId, Prefix)> {
        let mut heard = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            let said = |(p, s): (&Prefix, &PrefixState)| s.heard.contains(&link).then_some(*p);
            let prefixes = state.prefixes.iter().filter_map(said);
            let groups = state.entries.sorted_keys().into_iter();
            let groups = groups.filter(|g| self.heard(link, *root, *g).existed);
            let all = prefixes.chain(groups.map(Prefix::group));
            heard.extend(all.filter(|p| lies_in(*root, *p)).map(|p| (*root, p)));
        }
        heard
    }

    /// All that was told over a link in some buckets of the audit.
    pub fn told_in(
        &self,
        link: LinkId,
        lies_in: &dyn Fn(OriginId, Prefix) -> bool,
    ) -> Vec<(OriginId, Prefix, Want, bool)> {
        let mut told = Vec::new();
        for root in &self.roots {
            let Some(state) = self.states.get(root) else {
                continue;
            };
            for (prefix, said) in &state.prefixes {
                let was_told = said.told == Some(link) || said.former == Some(link);
                if was_told && lies_in(*root, *prefix) {
                    told.push((*root, *prefix, Want::Nothing, true));
                }
            }
            for group in state.entries.sorted_keys() {
                let said = state.entries.get(&group).and_then(|e| e.link(link));
                if let Some(said) = said.filter(|l| l.told_sending || l.told.is_something())
                    && lies_in(*root, Prefix::group(group))
                {
                    let prefix = Prefix::group(group);
                    told.push((*root, prefix, said.told.clone(), said.told_sending));
                }
            }
        }
        told
    }

    /// What was told over a link of a group or prefix.
    pub fn told_prefix(
        &self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
    ) -> Option<(Want, bool)> {
        let Some(group) = prefix.as_group() else {
            let said = self.states.get(&root)?.prefixes.get(&prefix)?;
            let was_told = said.told == Some(link) || said.former == Some(link);
            return was_told.then_some((Want::Nothing, true));
        };
        let said = self.lookup(root, group)?.link(link)?;
        (said.told_sending || said.told.is_something())
            .then(|| (said.told.clone(), said.told_sending))
    }

    /// Says what changed since the last flush; returns the groups whose outgoing links may be others now.
    pub fn flush(&mut self, say: &mut dyn FnMut(Statement<'_>)) -> Vec<(OriginId, Ipv6Addr)> {
        for root in std::mem::take(&mut self.dirty_prefixes) {
            self.flush_prefixes(root, say);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for (root, group) in &dirty {
            self.flush_entry(*root, *group, say);
        }
        dirty
    }

    /// S for prefixes, towards the root. It covers single groups, so it is said before them.
    fn flush_prefixes(&mut self, root: OriginId, say: &mut dyn FnMut(Statement<'_>)) {
        let Some(state) = self.states.get_mut(&root) else {
            return;
        };
        let parent = state.place.parent().map(|e| e.link);
        let edges: Vec<LinkId> = state.place.edges.iter().map(|e| e.link).collect();
        let mut changed = Vec::new();
        for (prefix, said) in &mut state.prefixes {
            let below = |l: &LinkId| Some(*l) != parent && edges.contains(l);
            let sends = said.local || said.heard.iter().any(below);
            let told = parent.filter(|_| sends);
            let mut withdrawn = Vec::new();
            let stays = |link: LinkId| sends && state.place.former_edge(link).is_some();
            let mut is_news = told != said.told;
            if is_news {
                let former = said.former.take();
                // back again, and not withdrawn yet
                is_news = former.is_none() || former != told;
                withdrawn.extend(former.filter(|_| is_news));
                match said.told {
                    Some(old) if stays(old) => said.former = Some(old),
                    old => withdrawn.extend(old),
                }
            } else if let Some(former) = said.former.filter(|former| !stays(*former)) {
                said.former = None;
                withdrawn.push(former);
            } else {
                continue;
            }
            let news = told.filter(|_| is_news).into_iter();
            let news = news.map(|link| (link, true));
            for (link, sending) in withdrawn.into_iter().map(|l| (l, false)).chain(news) {
                say(Statement {
                    link,
                    root,
                    prefix: *prefix,
                    before: (&Want::Nothing, !sending),
                    after: (&Want::Nothing, sending),
                });
            }
            said.told = told;
            changed.push(*prefix);
        }
        state.prefixes.retain(|_, said| {
            let told = said.told.is_some() || said.former.is_some();
            said.local || told || !said.heard.is_empty()
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

    fn flush_entry(&mut self, root: OriginId, group: Ipv6Addr, say: &mut dyn FnMut(Statement<'_>)) {
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
            let said = entry.link(edge.link);
            let asks = edge.is_parent
                || said.is_some_and(|l| l.heard_sending)
                || has_said(prefixes, edge.link, group);
            let want = if asks {
                place.wanted_over(entry, edge)
            } else {
                Want::Nothing
            };
            let sending = edge.is_parent
                && place.is_sending_below(entry)
                && !was_told(prefixes, edge.link, group);
            let before = said.map_or((&Want::Nothing, false), |l| (&l.told, l.told_sending));
            if before == (&want, sending) {
                continue;
            }
            say(Statement {
                link: edge.link,
                root,
                prefix,
                before,
                after: (&want, sending),
            });
            let told = entry.link_mut(edge.link);
            (told.told, told.told_sending) = (want, sending);
        }
        // what was told over links that are no edges any more; where they were until a moment ago, and the
        // interest is still there, it stays for as long as packets may come that way
        let kept: Vec<LinkId> = entry
            .links
            .iter()
            .filter_map(|l| place.former_edge(l.link))
            .filter(|edge| {
                let wanted = place.wanted_over(entry, edge).is_something();
                wanted || place.is_sending_below(entry)
            })
            .map(|edge| edge.link)
            .collect();
        for told in &mut entry.links {
            let is_told = told.told_sending || told.told.is_something();
            if is_told && place.edge(told.link).is_none() && !kept.contains(&told.link) {
                say(Statement {
                    link: told.link,
                    root,
                    prefix,
                    before: (&told.told, told.told_sending),
                    after: (&Want::Nothing, false),
                });
                (told.told, told.told_sending) = (Want::Nothing, false);
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
    pub fn route(&mut self, root: OriginId, group: Ipv6Addr, source: Ipv6Addr) -> Option<Way<'_>> {
        let state = self.states.get_mut(&root)?;
        let entry = state.entries.get_mut(&group)?;
        let basis = Basis {
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
    ) -> Option<crate::filter::Filter> {
        let state = self.states.get(&root)?;
        let entry = state.entries.get(&group)?;
        let mut merged = Want::Nothing;
        for l in entry
            .links
            .iter()
            .filter(|l| state.place.edge(l.link).is_some())
        {
            merged = merged.union(&l.heard);
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
            .filter(|l| l.heard.is_something() && state.place.edge(l.link).is_some())
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

    /// Number of S prefixes, heard or our own.
    pub fn prefixes(&self) -> usize {
        let states = self.roots.iter().filter_map(|root| self.states.get(root));
        states.map(|s| s.prefixes.len()).sum()
    }
}
