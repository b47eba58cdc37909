//! What the engine knows, for `status` and `groups`.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::Member;
use librecast::id::{LinkId, OriginId};

use crate::adjacency::Adjacency;
use crate::control::{Prefix, RefusalReason};
use crate::engine::Engine;
use crate::graph::Tree;
use crate::source_filter::SourceFilter;
use crate::traffic::Traffic;

/// The whole state at one moment, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Snapshot {
    /// Groups that a local program has joined or a neighbour wants, by address.
    pub groups: Vec<GroupSnapshot>,
    /// Neighbours, by link.
    pub neighbors: Vec<NeighborSnapshot>,
    /// Packets and bytes.
    pub counters: Counters,
    /// Sizes of the tables; all zero when everyone has left and all links are gone.
    pub tables: Tables,
}

/// One group.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct GroupSnapshot {
    /// Its address.
    pub group: Ipv6Addr,
    /// Whether a program on this host has joined.
    pub local: bool,
    /// What local programs want of it.
    pub local_filter: Option<SourceFilter>,
    /// Links over which it is wanted from this node.
    pub links: Vec<LinkId>,
    /// Who sent to it within the last minute, as far as this node saw.
    pub sources: Vec<Ipv6Addr>,
    /// Packets carried, in both directions.
    pub packets: u64,
    /// Their bytes, without headers of the overlay.
    pub bytes: u64,
    /// Neighbours that refused our interest in it, and why; it is asked again.
    pub refused: Vec<(LinkId, RefusalReason)>,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NeighborSnapshot {
    /// The link to it.
    pub link: LinkId,
    /// Its name.
    pub origin: OriginId,
    /// Its incarnation, once it said HELLO.
    pub incarnation: Option<u32>,
    /// (root, group) entries that it keeps here.
    pub interests: usize,
    /// Prefixes for which it says S.
    pub sending_prefixes: usize,
}

/// A router that can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSnapshot {
    /// Its name on the wire.
    pub origin: OriginId,
    /// Who it is.
    pub member: Member,
    /// The neighbour that leads to it.
    pub via: OriginId,
    /// Links on the way.
    pub hops: u16,
    /// Sum of their costs, in units of 100 us.
    pub cost: u32,
    /// Links that it has.
    pub links: u16,
}

/// Packets and bytes since the start; names as in `status --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Read from `lc0`.
    pub tun_rx_packets: u64,
    /// Read from `lc0`.
    pub tun_rx_bytes: u64,
    /// Handed out for `lc0`, MLD included.
    pub tun_tx_packets: u64,
    /// Handed out for `lc0`, MLD included.
    pub tun_tx_bytes: u64,
    /// Data messages that arrived on links.
    pub link_rx_packets: u64,
    /// Data messages that arrived on links, headers included.
    pub link_rx_bytes: u64,
    /// Data messages handed out, counted once for each link.
    pub link_tx_packets: u64,
    /// Data messages handed out, headers included, counted once for each link.
    pub link_tx_bytes: u64,
    /// Control messages that arrived.
    pub control_rx_messages: u64,
    /// Control messages handed out.
    pub control_tx_messages: u64,
    /// Bytes of control messages that arrived.
    pub control_rx_bytes: u64,
    /// Bytes of control messages handed out.
    pub control_tx_bytes: u64,
    /// Dropped packets and messages by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

/// How many entries each table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tables {
    /// Groups joined on this host.
    pub listener_groups: usize,
    /// (root, group) pairs that somebody wants or sends to.
    pub interests: usize,
    /// (root, prefix) pairs of which somebody says S.
    pub prefixes: usize,
    /// Groups to which programs of this host send.
    pub sending: usize,
    /// Routers that are known.
    pub routers: usize,
    /// Groups reported into `lc0`.
    pub proxied_groups: usize,
    /// Flows without a listener.
    pub flows: usize,
    /// Bytes held for a first listener.
    pub held_bytes: usize,
    /// Origins with a duplicate window.
    pub origins: usize,
    /// JoinState of ours that neighbours refused.
    pub refused: usize,
    /// Timers and changes waiting, of MLD and interest.
    pub pending: usize,
}

impl Engine {
    /// The whole state; costs time in proportion to the tables.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            groups: self.snapshot_groups(),
            neighbors: self.snapshot_neighbors(),
            counters: self.counters(),
            tables: self.tables(),
        }
    }

    /// Packets and bytes since the start: cheap, whatever the size of the tables.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            drops: self.drops.by_name(),
            ..self.counters.clone()
        }
    }

    /// Groups that a local program has joined or a neighbour wants from this node.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups().len()
    }

    fn groups(&self) -> Vec<Ipv6Addr> {
        let mut groups = self.querier.groups();
        let wanted = |(root, group): &(OriginId, Ipv6Addr)| self.trees.is_wanted(*root, *group);
        let keys = self.trees.keys().into_iter().filter(wanted);
        groups.extend(keys.map(|(_, group)| group));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn snapshot_groups(&self) -> Vec<GroupSnapshot> {
        self.groups()
            .into_iter()
            .map(|group| self.snapshot_group(group))
            .collect()
    }

    fn snapshot_group(&self, group: Ipv6Addr) -> GroupSnapshot {
        let local_filter = self.querier.filter(group).cloned();
        let roots = || self.trees.roots();
        let on_trees = roots().filter_map(|root| self.trees.traffic(root, group));
        let traffic: Vec<_> = on_trees.collect();
        let local = self.querier.traffic(group);
        let senders = traffic.iter().copied().chain(local);
        let mut sources: Vec<_> = senders.flat_map(|t| t.senders(self.now)).collect();
        sources.sort_unstable();
        sources.dedup();
        // what is both passed on and delivered is one packet
        let carried = |of: fn(&Traffic) -> u64| {
            let passed: u64 = traffic.iter().map(|t| of(t)).sum();
            passed + local.map_or(0, of)
        };
        let mut links: Vec<_> = roots().flat_map(|r| self.trees.links(r, group)).collect();
        links.sort_unstable();
        links.dedup();
        let prefix = Prefix::group(group);
        let refused = |(link, a): (LinkId, &Adjacency)| {
            let reason = roots().find_map(|root| a.refusals.refused((root, prefix)));
            Some((link, reason?))
        };
        GroupSnapshot {
            group,
            local: local_filter.is_some(),
            local_filter,
            links,
            sources,
            packets: carried(|t| t.packets),
            bytes: carried(|t| t.bytes),
            refused: self.adjacencies.iter().filter_map(refused).collect(),
        }
    }

    fn snapshot_neighbors(&self) -> Vec<NeighborSnapshot> {
        let neighbor = |(link, a): (LinkId, &Adjacency)| NeighborSnapshot {
            link,
            origin: a.origin(),
            incarnation: a.incarnation,
            interests: a.account.entries,
            sending_prefixes: a.account.prefixes,
        };
        self.adjacencies.iter().map(neighbor).collect()
    }

    /// All other routers that can be reached, by origin.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteSnapshot> {
        let Some(tree) = Tree::of(&self.graph, self.own, None) else {
            return Vec::new();
        };
        let route = |origin: &OriginId| {
            let credential = self.database.router(*origin)?.credential();
            let via = tree.edge(self.own, *origin)?;
            Some(RouteSnapshot {
                origin: *origin,
                member: credential.member.clone(),
                via,
                hops: tree.depth(*origin)?,
                cost: tree.distance(*origin)?,
                // bounded by what an advertisement holds
                links: self.graph.neighbors(*origin).count() as u16,
            })
        };
        let others = self.graph.routers().iter().filter(|x| **x != self.own);
        others.filter_map(route).collect()
    }

    /// Sizes of the tables: cheap.
    #[must_use]
    pub fn tables(&self) -> Tables {
        Tables {
            listener_groups: self.querier.len(),
            interests: self.trees.len(),
            prefixes: self.trees.prefixes(),
            sending: self.local.flows(),
            routers: self.database.tables().routers,
            proxied_groups: self.proxy.len(),
            flows: self.held.len(),
            held_bytes: self.held.bytes() + self.late.bytes(),
            origins: self.origins.len(),
            refused: self
                .adjacencies
                .values()
                .map(|a| a.refusals.refused_len())
                .sum(),
            pending: self.querier.pending() + self.proxy.pending(),
        }
    }
}
