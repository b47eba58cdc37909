//! Queries of users: groups, neighbours, routes, counters, sizes of tables.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::mapped;
use librecast::time::Duration;

use crate::adjacency::Adjacency;
use crate::context::Context;
use crate::control::RefusalReason;
use crate::drops::DropReason;
use crate::engine::Engine;
use crate::flow_meter::{FlowMeter, LinkFlow};
use crate::graph::Tree;
use crate::lan::{LanSnapshot, LanStanding};
use crate::snapshot::{Counters, GroupSnapshot, NeighborSnapshot, RouteSnapshot, Snapshot, Tables};
use crate::traffic::Traffic;

/// The unit of costs of links: a round trip.
const COST_UNIT: Duration = Duration::from_micros(100);

impl Engine {
    /// The whole state; its cost grows with the tables.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            groups: self.snapshot_groups(),
            neighbors: self.snapshot_neighbors(),
            counters: self.counters(),
            tables: self.tables(),
        }
    }

    /// Packets and bytes since the start; its cost does not depend on the tables.
    pub fn counters(&self) -> Counters {
        Counters {
            drops: self.outbox.drops.by_name(),
            ..self.outbox.counters.clone()
        }
    }

    /// Number of drops for this reason so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.outbox.drops.get(reason)
    }

    /// Groups that a local program has joined or a neighbour joins over this node.
    pub fn group_count(&self) -> usize {
        self.groups().len()
    }

    fn groups(&self) -> Vec<Ipv6Addr> {
        let mut groups = self.membership.groups();
        let joined =
            |(root, group): &(OriginId, Ipv6Addr)| self.forwarding.trees.is_joined(*root, *group);
        let keys = self.forwarding.trees.keys().into_iter().filter(joined);
        groups.extend(keys.map(|(_, group)| group));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn snapshot_groups(&self) -> Vec<GroupSnapshot> {
        // a member can join thousands of groups with as many trees: only a group's own are read
        let mut roots = BTreeMap::<_, Vec<_>>::new();
        for (root, group) in self.forwarding.trees.keys() {
            roots.entry(group).or_default().push(root);
        }
        let roots_of = |group| roots.get(&group).map_or(&[][..], Vec::as_slice);
        let groups = self.groups().into_iter();
        groups
            .map(|group| self.snapshot_group(group, roots_of(group)))
            .collect()
    }

    fn snapshot_group(&self, group: Ipv6Addr, roots: &[OriginId]) -> GroupSnapshot {
        let local_filter = self.membership.interface_filter(group);
        let roots = || roots.iter().copied();
        let on_trees = roots().filter_map(|root| self.forwarding.trees.traffic(root, group));
        let traffic: Vec<_> = on_trees.collect();
        let local: Vec<_> = self.membership.traffic(group).collect();
        let senders = traffic.iter().chain(&local);
        let mut sources: Vec<_> = senders.flat_map(|t| t.senders(self.now)).collect();
        sources.sort_unstable();
        sources.dedup();
        // a packet that is both passed on and delivered counts once
        let carried = |of: fn(&Traffic) -> u64| {
            let passed: u64 = traffic.iter().map(|t| of(t)).sum();
            let delivered: u64 = local.iter().map(|t| of(t)).sum();
            passed + delivered
        };
        let mut links: Vec<_> = roots()
            .flat_map(|r| self.forwarding.trees.links(r, group))
            .collect();
        links.sort_unstable();
        links.dedup();
        let prefix = GroupPrefix::group(group);
        let trees = &self.forwarding.trees;
        let waits: Vec<_> = roots().flat_map(|r| trees.waits_at(r, group)).collect();
        let refused = |(link, a): (LinkId, &Adjacency)| {
            let waits = waits
                .contains(&link)
                .then_some(RefusalReason::TooManyGroups);
            let reason = roots().find_map(|root| a.refusals.refused((root, prefix)));
            Some((link, reason.or(waits)?))
        };
        GroupSnapshot {
            group,
            local: local_filter.is_some(),
            local_filter,
            links,
            leaves: self.membership.leaves.listeners(group),
            sources,
            packets: carried(|t| t.packets),
            bytes: carried(|t| t.bytes),
            private: self.forwarding.private.privacy(group),
            refused: self
                .exchange
                .adjacencies()
                .iter()
                .filter_map(refused)
                .collect(),
        }
    }

    /// The standing of each LAN.
    pub fn lan_standings(&self) -> Vec<LanStanding> {
        self.gateway.standings(&self.node, &self.database)
    }

    /// LANs that this node serves, or for which it is standby.
    pub fn lans(&self) -> Vec<LanSnapshot> {
        let own = self.node.own;
        let paths = Tree::compute(self.routing.graph(), own);
        let rtt = |origin: OriginId| {
            let distance = paths.as_ref()?.distance(origin)?;
            (origin != own).then(|| COST_UNIT * distance)
        };
        let context = Context {
            node: &self.node,
            database: &self.database,
            now: self.now,
        };
        let lans = self.gateway.snapshot(context, &rtt);
        let complete = |(id, mut lan): (_, LanSnapshot)| {
            if let Some(interface) = self.membership.interface(id) {
                (lan.querier, lan.ipv4_querier) = interface.other_queriers();
                lan.has_ipv4 = interface.has_ipv4();
                let groups = interface.joined();
                lan.listeners = groups.map(|g| (g, interface.reporters(g))).collect();
                lan.groups = interface.proxy.len();
            }
            lan
        };
        lans.into_iter().map(complete).collect()
    }

    fn snapshot_neighbors(&self) -> Vec<NeighborSnapshot> {
        let neighbor = |(link, a): (LinkId, &Adjacency)| NeighborSnapshot {
            link,
            origin: a.origin(),
            incarnation: a.incarnation,
            join_states: a.account.entries,
            sending_prefixes: a.account.prefixes,
        };
        self.exchange.adjacencies().iter().map(neighbor).collect()
    }

    /// All other routers that can be reached, by origin.
    pub fn routes(&self) -> Vec<RouteSnapshot> {
        let (graph, own) = (self.routing.graph(), self.node.own);
        let Some(tree) = Tree::of(graph, own, None) else {
            return Vec::new();
        };
        let lans = self.database.lan_sources();
        let route = |origin: &OriginId| {
            let credential = self.database.router(*origin)?.credential();
            let via = tree.edge(own, *origin)?;
            Some(RouteSnapshot {
                origin: *origin,
                member: credential.member.clone(),
                ipv4: lans.ipv4_of(*origin).and_then(mapped::ipv4),
                via,
                hops: tree.depth(*origin)?,
                cost: tree.distance(*origin)?,
                // bounded by the length of an advertisement
                links: graph.neighbors(*origin).count() as u16,
            })
        };
        let others = graph.routers().iter().filter(|x| **x != own);
        others.filter_map(route).collect()
    }

    /// All reachable routers, this one first, and the links between them: each once, by positions
    /// in this list, with its cost.
    #[must_use]
    pub fn map(&self) -> (Vec<OriginId>, Vec<(u32, u32, u16)>) {
        let (graph, own) = (self.routing.graph(), self.node.own);
        let others = graph.reachable(own).filter(|x| *x != own);
        let routers: Vec<_> = std::iter::once(own).chain(others).collect();
        let places = routers.iter().zip(0u32..);
        let places: BTreeMap<_, _> = places.map(|(origin, at)| (*origin, at)).collect();
        let mut links = Vec::new();
        for (origin, at) in &places {
            let farther = graph.neighbors(*origin).filter(|(to, _)| to > origin);
            links.extend(farther.filter_map(|(to, cost)| Some((*at, *places.get(&to)?, cost))));
        }
        (routers, links)
    }

    /// Whether no path leads through a router.
    pub fn is_stub(&self, router: OriginId) -> bool {
        self.routing.graph().is_stub(router)
    }

    /// This node's IPv4 address.
    pub fn ipv4_address(&self) -> Option<Ipv4Addr> {
        self.database.ipv4_address()
    }

    /// Groups that are joined on this host, in order.
    pub fn local_groups(&self) -> Vec<Ipv6Addr> {
        self.membership.interface_groups()
    }

    /// The node that announces exactly this group; of several the root of its tree.
    #[must_use]
    pub fn announcer(&self, group: Ipv6Addr) -> Option<OriginId> {
        let exact = GroupPrefix::group(group);
        let owner = self.database.owner(group);
        owner.and_then(|(prefix, owner)| (prefix == exact).then_some(owner))
    }

    /// Whether a neighbour joins this group over this node.
    pub fn is_wanted(&self, group: Ipv6Addr) -> bool {
        let trees = &self.forwarding.trees;
        trees
            .roots()
            .any(|root| !trees.links(root, group).is_empty())
    }

    /// Starts or stops counting packets over each link by group.
    pub fn set_metering(&mut self, on: bool) {
        if on != self.outbox.meter.is_some() {
            self.outbox.meter = on.then(FlowMeter::default);
        }
    }

    /// Packets over each link since the last call, in order.
    pub fn take_flows(&mut self) -> Vec<LinkFlow> {
        let meter = self.outbox.meter.as_mut();
        meter.map(FlowMeter::take).unwrap_or_default()
    }

    /// Sizes of the tables, at low cost.
    #[must_use]
    pub fn tables(&self) -> Tables {
        let [listener_groups, proxied_groups, pending] = self.membership.sizes();
        let forwarding = &self.forwarding;
        let adjacencies = self.exchange.adjacencies().values();
        let refused = adjacencies.map(|a| a.refusals.refused_len());
        Tables {
            listener_groups,
            join_states: self.forwarding.trees.len(),
            prefixes: self.forwarding.trees.prefixes(),
            sending: forwarding.groups.flows(),
            routers: self.database.tables().routers,
            proxied_groups,
            flows: forwarding.first_packets.len(),
            buffered_bytes: forwarding.first_packets.bytes() + forwarding.replay.bytes(),
            origins: forwarding.origins.len(),
            refused: refused.sum::<usize>() + forwarding.trees.waiting(),
            leaves: self.membership.leaves.len(),
            pending,
        }
    }
}
