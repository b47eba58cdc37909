//! Route computation: from the link state database to trees, and the trees of each group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::classify::is_source_specific;
use crate::config::{Node, NodeSources};
use crate::forwarding::Forwarding;
use crate::graph::{Graph, Tree};
use crate::local_groups::OLD_JOIN;
use crate::lsdb::{Database, GROUP_RANGES};
use crate::membership::Membership;
use crate::source_filter::{SourceFilter, merge};
use crate::topology::Topology;
use crate::trees::Edge;

/// Least time between updates of the topology's routers, plus [`TOPOLOGY_DELAY_PER_ROUTER`].
/// Chosen: links are decided on in seconds.
const TOPOLOGY_DELAY: Duration = Duration::from_millis(500);
/// Added to [`TOPOLOGY_DELAY`] for each router.
const TOPOLOGY_DELAY_PER_ROUTER: Duration = Duration::from_millis(2);

/// The parts that route computation reads or changes.
#[derive(Debug)]
pub struct Computation<'a> {
    pub node: &'a Node,
    /// The link that leads to each neighbour.
    pub neighbors: &'a BTreeMap<OriginId, LinkId>,
    /// LSAs, rendezvous points, graph.
    pub database: &'a mut Database,
    /// Trees and flows.
    pub forwarding: &'a mut Forwarding,
    /// Joins of listeners.
    pub membership: &'a mut Membership,
    /// The decisions on links.
    pub topology: &'a mut Topology,
    pub now: Instant,
}

/// The results of the last computation.
#[derive(Debug)]
pub struct Routing {
    graph: Arc<Graph>,
    /// Versions of the graph and the rendezvous points that the trees follow.
    seen: Option<[u64; 2]>,
    /// Version of the graph when replay buffers were last cleared.
    replay_graph: Option<u64>,
    forced: bool,
    /// The network is small: this router sends SourceActive for everything.
    small: bool,
    /// Local senders use this router's source tree.
    sends_on_own: bool,
    /// Listeners join the source trees of all routers, as these may send on them.
    listens_on_all: bool,
    rps_version: Option<u64>,
    rps: [Option<OriginId>; GROUP_RANGES as usize],
    owners: BTreeMap<GroupPrefix, OriginId>,
    /// Former roots of groups; until this time, joins on their trees count for local interfaces.
    former_roots: Vec<(OriginId, Instant)>,
    /// Time after which packets are no longer accepted over edges of former trees.
    tree_expiry: Option<Instant>,
    /// The topology has not received the last change.
    topology_stale: bool,
    /// The digest of the routers that it received.
    topology_component: Option<u64>,
    topology_next: Instant,
}

impl Routing {
    /// Nothing is computed yet.
    pub fn new(graph: Arc<Graph>, now: Instant) -> Self {
        Self {
            graph,
            seen: None,
            replay_graph: None,
            forced: false,
            small: true,
            sends_on_own: false,
            listens_on_all: false,
            rps_version: None,
            rps: [None; GROUP_RANGES as usize],
            owners: BTreeMap::new(),
            former_roots: Vec::new(),
            tree_expiry: None,
            topology_stale: true,
            topology_component: None,
            topology_next: now,
        }
    }

    /// Links or settings changed: the next flush computes.
    pub fn force(&mut self) {
        self.forced = true;
    }

    /// The graph of the last computation.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let former = self.former_roots.first().map(|(_, until)| *until);
        let topology = self.topology_stale.then_some(self.topology_next);
        let all = [self.tree_expiry, former, topology];
        all.into_iter().flatten().min()
    }

    /// The root of the tree on which local senders send to a group.
    pub fn sending_root(&self, database: &Database, own: OriginId, group: Ipv6Addr) -> OriginId {
        sending_root(database, own, self.sends_on_own, group)
    }

    /// Updates trees and flows after listeners and the database. True: unicast routes are void.
    pub fn update(&mut self, parts: &mut Computation<'_>) -> bool {
        let versions = [parts.database.graph_version(), parts.database.rps_version()];
        if self.replay_graph != Some(versions[0]) {
            self.replay_graph = Some(versions[0]);
            // a listener that joins now may have received the packets over another path before
            parts.forwarding.replay.clear();
        }
        let computes = std::mem::take(&mut self.forced) || self.seen != Some(versions);
        if computes {
            self.seen = Some(versions);
            self.compute(parts);
        }
        self.follow_lans(parts);
        for root in parts.forwarding.trees.take_unplaced() {
            self.place(root, true, parts);
        }
        if self.tree_expiry.is_some_and(|at| at <= parts.now) {
            self.tree_expiry = parts.forwarding.trees.expire(parts.now);
        }
        self.expire_former_roots(parts);
        if self.topology_stale && parts.now >= self.topology_next {
            self.update_topology(parts);
        }
        computes
    }

    fn update_topology(&mut self, parts: &mut Computation<'_>) {
        let (own, graph) = (parts.node.own, &self.graph);
        self.topology_stale = false;
        self.topology_component = graph.reachable_digest(own);
        // a few thousand routers at most
        let delay = TOPOLOGY_DELAY + TOPOLOGY_DELAY_PER_ROUTER * graph.len() as u32;
        self.topology_next = parts.now + delay;
        let others = graph.reachable(own).filter(|router| *router != own);
        let others = others.map(|router| (router, graph.is_stub(router)));
        parts.topology.set_reachable(others, parts.now);
    }

    fn compute(&mut self, parts: &mut Computation<'_>) {
        let graph = parts.database.graph();
        let fresh = !Arc::ptr_eq(&graph, &self.graph);
        self.graph = graph;
        let roots: Vec<_> = parts.forwarding.trees.roots().collect();
        for root in roots {
            self.place(root, fresh, parts);
        }
        self.tree_expiry = parts.forwarding.trees.expire(parts.now);
        let before = (self.sends_on_own, self.listens_on_all);
        let most = parts.node.config.limits.source_trees;
        let known = parts.database.reachable_count();
        self.sends_on_own = known <= most;
        // with a margin: while routers come and go, no router sends where others do not join
        self.listens_on_all = known <= most + most / 2;
        let modes = (self.sends_on_own, self.listens_on_all);
        self.compute_roots(before != modes, parts);
        self.compute_prefixes(parts);
        if fresh {
            let reachable = self.graph.reachable_digest(parts.node.own);
            self.topology_stale = reachable != self.topology_component;
            self.join_all_again(parts);
        }
    }

    /// Places this router in the tree of `root`. `fresh`: the graph has changed.
    fn place(&self, root: OriginId, fresh: bool, parts: &mut Computation<'_>) {
        let own = parts.node.own;
        let mut tree = parts.forwarding.trees.tree(root);
        if fresh {
            tree = Tree::of(&self.graph, root, tree.as_ref());
        }
        let mut edges = Vec::new();
        if let Some(tree) = &tree {
            let parent = tree.parent(own).map(|n| (n, true));
            let children = tree.children(own).map(|n| (n, false));
            for (neighbor, is_parent) in parent.into_iter().chain(children) {
                let below = if is_parent { own } else { neighbor };
                if let Some(link) = parts.neighbors.get(&neighbor)
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
        parts.forwarding.trees.place(root, tree, edges, parts.now);
    }

    fn compute_roots(&mut self, forced: bool, parts: &mut Computation<'_>) {
        // listeners stay on trees whose root changed and changed back in between
        let version = Some(parts.database.rps_version());
        if self.rps_version == version && !forced {
            return;
        }
        self.rps_version = version;
        let mut rps = [None; GROUP_RANGES as usize];
        for (range, rp) in (0..GROUP_RANGES).zip(&mut rps) {
            *rp = parts.database.rp(range);
        }
        let owners = parts.database.announced();
        let owners = owners.map(|(prefix, announced)| (*prefix, announced.root));
        let owners = owners.collect();
        let old_rps = std::mem::replace(&mut self.rps, rps);
        let old_owners = std::mem::replace(&mut self.owners, owners);
        let old: BTreeSet<OriginId> = old_rps
            .into_iter()
            .flatten()
            .chain(old_owners.into_values())
            .filter(|root| parts.forwarding.trees.is_used(*root))
            .collect();
        let until = parts.now + OLD_JOIN;
        for root in old {
            self.former_roots.retain(|(r, _)| *r != root);
            self.former_roots.push((root, until));
        }
        for group in parts.forwarding.groups.listened() {
            self.join(group, true, parts);
        }
        let Computation {
            node,
            database,
            forwarding,
            membership,
            ..
        } = parts;
        let root_of = |group| sending_root(database, node.own, self.sends_on_own, group);
        let reachable = |root| database.is_reachable(root);
        let (groups, trees) = (&mut forwarding.groups, &mut forwarding.trees);
        groups.reroot(root_of, reachable, trees, parts.now);
        membership.touch_reported();
        membership.touch(trees.groups());
    }

    fn expire_former_roots(&mut self, parts: &mut Computation<'_>) {
        let now = parts.now;
        let first = self.former_roots.first();
        if first.is_some_and(|(_, until)| *until <= now) {
            self.former_roots.retain(|(_, until)| *until > now);
            parts.membership.touch_reported();
        }
    }

    /// Sets the prefixes for which this router sends SourceActive: those it announces under another
    /// root, those that programs watch, and everything in a small network.
    fn compute_prefixes(&mut self, parts: &mut Computation<'_>) {
        let config = &parts.node.config;
        let known = parts.database.reachable_count();
        // a router that comes and goes changes nothing
        let slack = if self.small { known / 5 } else { 0 };
        let was_small = self.small;
        self.small = known - slack <= config.limits.small_network;
        if self.small != was_small {
            parts.membership.touch(parts.forwarding.trees.groups());
            parts.membership.touch_reported();
        }
        let mut watch = config.watch.clone();
        watch.extend(&parts.node.lan_groups);
        // a longer prefix of another router may lie in one of these
        watch.extend(&config.announce);
        if self.small {
            watch = vec![GroupPrefix::ALL];
        }
        let own = parts.node.own;
        let mut active = BTreeSet::new();
        for root in self.rps.into_iter().flatten().filter(|root| *root != own) {
            active.extend(watch.iter().map(|prefix| (root, *prefix)));
        }
        for (prefix, announced) in parts.database.announced() {
            if announced.root == own {
                continue;
            }
            let prefix = *prefix;
            let narrower = |w: &GroupPrefix| {
                if w.covers(&prefix) {
                    Some(prefix)
                } else {
                    prefix.covers(w).then_some(*w)
                }
            };
            let narrower = watch.iter().filter_map(narrower);
            active.extend(narrower.map(|p| (announced.root, p)));
            if announced.announcers.contains(&own) {
                active.insert((announced.root, prefix));
            }
        }
        parts.forwarding.trees.set_local_prefixes(&active);
    }

    /// The neighbours' joins of a group for local interfaces: on its tree, and on its former tree
    /// while listeners may be there. `None` also for groups that this router does not watch: joins
    /// that pass through show only a part of the network.
    pub fn remote_joins(
        &self,
        group: Ipv6Addr,
        node: &Node,
        database: &Database,
        forwarding: &Forwarding,
    ) -> Option<SourceFilter> {
        let root = self.sending_root(database, node.own, group);
        let any_source = !is_source_specific(group);
        let is_watched = self.small
            || !any_source
            || node.config.watch.iter().any(|p| p.contains(group))
            || node.lan_groups.iter().any(|p| p.contains(group))
            || node.config.announce.iter().any(|p| p.contains(group))
            || forwarding.groups.is_sending(group)
            || root == node.own && database.owner(group).is_some();
        if !is_watched {
            return None;
        }
        let former = self.former_roots.iter().filter(|_| any_source);
        let former = former.map(|(root, _)| *root).filter(|r| *r != root);
        let roots = former.chain([root]);
        let parts: Vec<_> = roots
            .filter_map(|root| forwarding.trees.joined_of(root, group))
            .collect();
        merge(parts)
    }

    /// Sets the listeners' joins of a group on its trees. `rerooted`: only the trees have changed.
    pub fn join(&self, group: Ipv6Addr, rerooted: bool, parts: &mut Computation<'_>) {
        let joins = match parts.membership.filter(group) {
            None => Vec::new(),
            Some(filter) if is_source_specific(group) => self.join_sources(&filter, parts),
            Some(filter) => self.join_roots(group, &filter, parts),
        };
        let listeners = parts.membership.listeners(group);
        let Forwarding { groups, trees, .. } = &mut *parts.forwarding;
        groups.listen(group, (joins, listeners), rerooted, trees, parts.now);
    }

    /// The joins on the group's shared tree, and on source trees if routers send on these.
    fn join_roots(
        &self,
        group: Ipv6Addr,
        filter: &SourceFilter,
        parts: &Computation<'_>,
    ) -> Vec<(OriginId, SourceFilter)> {
        let (own, database) = (parts.node.own, &parts.database);
        let root = database.rp_of(group).unwrap_or(own);
        let mut joins = vec![(root, filter.clone())];
        if self.listens_on_all && database.owner(group).is_none() {
            let others = database.routers();
            let others = others.filter(|(x, r)| *x != own && *x != root && r.is_reachable());
            let lans = database.lan_sources();
            joins.extend(others.filter_map(|(x, router)| {
                let sources = NodeSources::of_node(&router.credential().member.addresses)
                    .with_ipv4(lans.ipv4_of(x));
                let present = sources.present(group);
                let seen = if lans.has_hosts(x) {
                    filter.retain(|s| present.contains(&s) || lans.speaks_for(x, s))
                } else {
                    filter.restricted_to(&present)
                };
                Some((x, seen?))
            }));
        }
        joins
    }

    /// Repeats joins that may concern source trees of routers that came or went.
    fn join_all_again(&self, parts: &mut Computation<'_>) {
        for group in parts.membership.groups() {
            let affected = if is_source_specific(group) {
                let filter = parts.membership.filter(group);
                matches!(filter, Some(SourceFilter::Exclude(_)))
            } else {
                self.listens_on_all
            };
            if affected {
                self.join(group, true, parts);
            }
        }
    }

    /// Repeats Joins of sources whose gateways or IPv4 addresses have changed.
    fn follow_lans(&self, parts: &mut Computation<'_>) {
        let lans = Arc::clone(parts.database.lan_sources());
        let Some(is_affected) = parts.forwarding.trees.set_lans(&lans) else {
            return;
        };
        let groups = parts.membership.groups().into_iter();
        for group in groups.filter(|group| is_affected(*group)) {
            self.join(group, true, parts);
        }
    }

    /// Joins each source of a source-specific group on its source tree. A Join for all sources,
    /// which RFC 4604 §2.2.2 lets routers ignore, counts only in a small network.
    fn join_sources(
        &self,
        filter: &SourceFilter,
        parts: &Computation<'_>,
    ) -> Vec<(OriginId, SourceFilter)> {
        let (own, lans) = (parts.node.own, parts.database.lan_sources());
        let SourceFilter::Include(sources) = filter else {
            if !self.small {
                return Vec::new();
            }
            let routers = self.graph.routers().iter().filter(|x| **x != own);
            return routers.map(|x| (*x, filter.clone())).collect();
        };
        let mut by_origin: BTreeMap<OriginId, Vec<Ipv6Addr>> = BTreeMap::new();
        for source in sources {
            let origins = if parts.node.is_of_network(*source) {
                vec![OriginId::of(*source)]
            } else {
                lans.gateways_of(*source)
            };
            for origin in origins.into_iter().filter(|origin| *origin != own) {
                by_origin.entry(origin).or_default().push(*source);
            }
        }
        let filter = |(origin, list): (_, Vec<_>)| Some((origin, SourceFilter::include(list)?));
        by_origin.into_iter().filter_map(filter).collect()
    }
}

/// The root of the tree on which senders of `own` send to a group. `on_own`: on the source tree,
/// except for announced prefixes.
fn sending_root(database: &Database, own: OriginId, on_own: bool, group: Ipv6Addr) -> OriginId {
    if is_source_specific(group) {
        return own;
    }
    match database.owner(group) {
        Some((_, owner)) => owner,
        None if on_own => own,
        None => database.rp_of(group).unwrap_or(own),
    }
}
