//! From the link state to trees: when shortest paths are looked at again, where the roots are, and what
//! follows for interest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::classify::is_source_specific;
use crate::config::NodeSources;
use crate::control::Prefix;
use crate::engine::Engine;
use crate::graph::Tree;
use crate::local::OLD_INTEREST;
use crate::lsdb::{Database, GROUP_RANGES};
use crate::source_filter::SourceFilter;
use crate::table::Table;
use crate::trees::Edge;

/// How often the topology hears of routers that came and went, and for each router that much longer.
const TOPOLOGY_GAP: Duration = Duration::from_millis(500);
const TOPOLOGY_GAP_EACH: Duration = Duration::from_millis(2);

/// Which state of the link state the trees show.
#[derive(Debug)]
pub struct Routing {
    /// Graph and roots that the trees show.
    seen: Option<[u64; 2]>,
    /// Which graph was known when packets were last kept for late listeners.
    noticed: Option<u64>,
    forced: bool,
    pub(crate) small: bool,
    /// Programs here send on this router's own tree.
    pub(crate) sends_on_own: bool,
    /// Programs here listen on the trees of all routers, as these may send on them.
    listens_on_all: bool,
    rps_version: Option<u64>,
    slots: [Option<OriginId>; GROUP_RANGES as usize],
    owners: BTreeMap<GroupPrefix, OriginId>,
    /// Roots that groups had until shortly; interest on their trees still counts for the proxy.
    before: Vec<(OriginId, Instant)>,
    /// When packets are no longer taken over edges of before.
    tree_expiry: Option<Instant>,
    /// The topology has not received who came or went.
    routers_untold: bool,
    /// Names those that it knows of.
    routers_told: Option<u64>,
    topology_next: Instant,
}

impl Routing {
    /// Nothing was looked at yet.
    pub fn new(now: Instant) -> Self {
        Self {
            seen: None,
            noticed: None,
            forced: false,
            small: true,
            sends_on_own: false,
            listens_on_all: false,
            rps_version: None,
            slots: [None; GROUP_RANGES as usize],
            owners: BTreeMap::new(),
            before: Vec::new(),
            tree_expiry: None,
            routers_untold: true,
            routers_told: None,
            topology_next: now,
        }
    }

    /// Links or settings changed: look again with the next flush.
    pub fn force(&mut self) {
        self.forced = true;
    }

    /// When something has to be looked at though nothing comes in.
    pub fn next_timeout(&self) -> Option<Instant> {
        let before = self.before.first().map(|(_, until)| *until);
        let topology = self.routers_untold.then_some(self.topology_next);
        let all = [self.tree_expiry, before, topology];
        all.into_iter().flatten().min()
    }

    /// Roots whose trees a group may have interest on: the present one and those of a moment ago.
    pub fn roots_before(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.before.iter().map(|(root, _)| *root)
    }
}

/// The tree on which programs of `own` send to a group. `sends_on_own`: where no prefix says otherwise, on its
/// own.
pub fn sending_root(
    database: &Database,
    own: OriginId,
    sends_on_own: Option<OriginId>,
    group: Ipv6Addr,
) -> OriginId {
    if is_source_specific(group) {
        return own;
    }
    let owner = database.owner(group).map(|(_, owner)| owner);
    let slot = || database.rp_of(group);
    owner.or(sends_on_own).or_else(slot).unwrap_or(own)
}

impl Engine {
    /// The tree on which a local program's packets to `group` travel.
    pub(crate) fn root_of(&self, group: Ipv6Addr) -> OriginId {
        let on_own = self.routing.sends_on_own.then_some(self.own);
        sending_root(&self.database, self.own, on_own, group)
    }

    /// Brings trees and interest into accord with listeners and link state.
    pub(crate) fn settle(&mut self) {
        for group in self.querier.take_changes().into_keys() {
            self.listen(group, false);
        }
        self.database.update();
        self.handle_database_events();
        let graph_version = self.database.graph_version();
        if self.routing.noticed != Some(graph_version) {
            self.routing.noticed = Some(graph_version);
            self.late.clear();
        }
        let seen = Some([graph_version, self.database.rps_version()]);
        if std::mem::take(&mut self.routing.forced) || self.routing.seen != seen {
            self.routing.seen = seen;
            self.look_again();
        }
        for root in self.trees.take_unplaced() {
            self.place(root, true);
        }
        if self.routing.tree_expiry.is_some_and(|at| at <= self.now) {
            self.routing.tree_expiry = self.trees.expire(self.now);
        }
        self.forget_roots_before();
        if self.routing.routers_untold && self.now >= self.routing.topology_next {
            self.tell_topology();
        }
    }

    /// Which routers there are: whoever decides on links does not need to know at once.
    fn tell_topology(&mut self) {
        let (own, graph) = (self.own, &self.graph);
        self.routing.routers_untold = false;
        self.routing.routers_told = graph.reachable_digest(own);
        // a few thousand routers at most
        let gap = TOPOLOGY_GAP + TOPOLOGY_GAP_EACH * graph.len() as u32;
        self.routing.topology_next = self.now + gap;
        let others = graph.reachable(own).filter(|router| *router != own);
        self.topology.set_reachable(others, self.now);
    }

    fn look_again(&mut self) {
        let graph = self.database.graph();
        let fresh = !Arc::ptr_eq(&graph, &self.graph);
        self.graph = graph;
        self.paths = Table::new(self.config.seed);
        let roots: Vec<_> = self.trees.roots().collect();
        for root in roots {
            self.place(root, fresh);
        }
        self.routing.tree_expiry = self.trees.expire(self.now);
        let before = (self.routing.sends_on_own, self.routing.listens_on_all);
        let most = self.config.limits.source_trees;
        let known = self.database.reachable_count();
        self.routing.sends_on_own = known <= most;
        // with a margin: nobody sends where he is not received while routers come and go
        self.routing.listens_on_all = known <= most + most / 2;
        let modes = (self.routing.sends_on_own, self.routing.listens_on_all);
        self.look_at_roots(before != modes);
        self.look_at_prefixes();
        if fresh {
            let reachable = self.graph.reachable_digest(self.own);
            self.routing.routers_untold = reachable != self.routing.routers_told;
            self.listen_to_all_again();
        }
    }

    /// Where this router stands in the tree of `root`. `fresh`: the graph is another.
    fn place(&mut self, root: OriginId, fresh: bool) {
        let mut tree = self.trees.tree(root);
        if fresh {
            tree = Tree::of(&self.graph, root, tree.as_ref());
        }
        let mut edges = Vec::new();
        if let Some(tree) = &tree {
            let parent = tree.parent(self.own).map(|n| (n, true));
            let children = tree.children(self.own).map(|n| (n, false));
            for (neighbor, is_parent) in parent.into_iter().chain(children) {
                let below = if is_parent { self.own } else { neighbor };
                if let Some(link) = self.neighbors.get(&neighbor)
                    && let Some(span) = tree.span(below)
                {
                    edges.push(Edge {
                        neighbor,
                        link: *link,
                        is_parent,
                        span,
                    });
                }
            }
        }
        self.trees.place(root, tree, edges, self.now);
    }

    /// Roots of groups may be others now.
    fn look_at_roots(&mut self, forced: bool) {
        let mut slots = [None; GROUP_RANGES as usize];
        for (slot, root) in (0..GROUP_RANGES).zip(&mut slots) {
            *root = self.database.rp(slot);
        }
        let owners: BTreeMap<GroupPrefix, OriginId> = self
            .database
            .announced()
            .map(|(prefix, announced)| (*prefix, announced.root))
            .collect();
        // what went there and back again in between has left listeners on the tree there
        let version = Some(self.database.rps_version());
        if self.routing.rps_version == version && !forced {
            return;
        }
        self.routing.rps_version = version;
        let old_slots = std::mem::replace(&mut self.routing.slots, slots);
        let old_owners = std::mem::replace(&mut self.routing.owners, owners);
        let old: BTreeSet<OriginId> = old_slots
            .into_iter()
            .flatten()
            .chain(old_owners.into_values())
            .filter(|root| self.trees.is_used(*root))
            .collect();
        let until = self.now + OLD_INTEREST;
        for root in old {
            self.routing.before.retain(|(r, _)| *r != root);
            self.routing.before.push((root, until));
        }
        for group in self.local.listened() {
            self.listen(group, true);
        }
        let (database, trees) = (&self.database, &mut self.trees);
        let sends = self.routing.sends_on_own.then_some(self.own);
        let root_of = |group| sending_root(database, self.own, sends, group);
        let reachable = |root| database.is_reachable(root);
        self.local.reroot(root_of, reachable, trees, self.now);
        self.interest_changed.extend(self.proxy.groups());
        self.interest_changed.extend(self.trees.groups());
    }

    fn forget_roots_before(&mut self) {
        let now = self.now;
        if self
            .routing
            .before
            .first()
            .is_some_and(|(_, until)| *until <= now)
        {
            self.routing.before.retain(|(_, until)| *until > now);
            self.interest_changed.extend(self.proxy.groups());
        }
    }

    /// The prefixes of which this router says S: those it announces where another is the root, those that
    /// programs watch, and in a small network everything.
    fn look_at_prefixes(&mut self) {
        let known = self.database.reachable_count();
        // one that comes and goes changes nothing
        let slack = if self.routing.small { known / 5 } else { 0 };
        let was_small = self.routing.small;
        self.routing.small = known - slack <= self.config.limits.small_network;
        if self.routing.small != was_small {
            self.interest_changed.extend(self.trees.groups());
            self.interest_changed.extend(self.proxy.groups());
        }
        let mut watch: Vec<Prefix> = self.config.watch.iter().map(|p| (*p).into()).collect();
        if self.routing.small {
            watch = vec![Prefix::ALL];
        }
        let mut said = BTreeSet::new();
        for root in self.routing.slots.into_iter().flatten() {
            if root != self.own {
                said.extend(watch.iter().map(|prefix| (root, *prefix)));
            }
        }
        for (prefix, announced) in self.database.announced() {
            if announced.root == self.own {
                continue;
            }
            let prefix = Prefix::from(*prefix);
            let narrower = |w: &Prefix| {
                if w.covers(&prefix) {
                    Some(prefix)
                } else {
                    prefix.covers(w).then_some(*w)
                }
            };
            said.extend(
                watch
                    .iter()
                    .filter_map(narrower)
                    .map(|p| (announced.root, p)),
            );
            if announced.announcers.contains(&self.own) {
                said.insert((announced.root, prefix));
            }
        }
        self.trees.set_local_prefixes(&said);
    }

    /// Whether this router gets to know who listens to a group: only then it tells its programs. What
    /// merely passes through says little of the network.
    pub(crate) fn is_watched(&self, group: Ipv6Addr) -> bool {
        let own = self.own;
        self.routing.small
            || is_source_specific(group)
            || self.config.watch.iter().any(|p| p.contains(group))
            || self.config.announce.iter().any(|p| p.contains(group))
            || self.local.is_sending(group)
            || self.root_of(group) == own && self.database.owner(group).is_some()
    }

    /// What programs on this host want of a group goes onto its trees.
    fn listen(&mut self, group: Ipv6Addr, rerooted: bool) {
        let wanted = match self.querier.filter(group) {
            None => Vec::new(),
            Some(filter) if is_source_specific(group) => self.listen_to_sources(filter),
            Some(filter) => self.listen_to_roots(group, filter),
        };
        let trees = &mut self.trees;
        self.local.listen(group, wanted, rerooted, trees, self.now);
    }

    /// On the tree of the group's root, and where routers send on trees of their own, on these.
    fn listen_to_roots(
        &self,
        group: Ipv6Addr,
        filter: &SourceFilter,
    ) -> Vec<(OriginId, SourceFilter)> {
        let root = self.database.rp_of(group).unwrap_or(self.own);
        let mut wanted = vec![(root, filter.clone())];
        if self.routing.listens_on_all && self.database.owner(group).is_none() {
            let others = self
                .database
                .routers()
                .filter(|(x, r)| *x != self.own && *x != root && r.is_reachable());
            wanted.extend(others.filter_map(|(x, router)| {
                let sources = NodeSources::of_node(&router.credential().member.addresses);
                Some((x, filter.restricted_to(&sources.present(group))?))
            }));
        }
        wanted
    }

    /// Routers have come or gone, on whose own trees programs here may have to listen.
    fn listen_to_all_again(&mut self) {
        for group in self.querier.groups() {
            let exclude = matches!(self.querier.filter(group), Some(SourceFilter::Exclude(_)));
            let affected = if is_source_specific(group) {
                exclude
            } else {
                self.routing.listens_on_all
            };
            if affected {
                self.listen(group, true);
            }
        }
    }

    /// Each source of a source-specific group has a tree of its own. Who wants such a group from everybody
    /// (RFC 4604 §2.2.2 lets routers ignore that) gets it where the network is small.
    fn listen_to_sources(&self, filter: &SourceFilter) -> Vec<(OriginId, SourceFilter)> {
        let SourceFilter::Include(sources) = filter else {
            if !self.routing.small {
                return Vec::new();
            }
            let routers = self.graph.routers().iter().filter(|x| **x != self.own);
            return routers.map(|x| (*x, filter.clone())).collect();
        };
        let mut by_origin: BTreeMap<OriginId, Vec<Ipv6Addr>> = BTreeMap::new();
        for source in sources {
            let origin = OriginId::of(*source);
            if origin != self.own {
                by_origin.entry(origin).or_default().push(*source);
            }
        }
        let filter = |(origin, list): (_, Vec<_>)| Some((origin, SourceFilter::include(list)?));
        by_origin.into_iter().filter_map(filter).collect()
    }
}
