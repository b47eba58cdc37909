//! What the engine knows, for `status` and `groups`.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::id::OriginId;

use crate::config::LinkId;
use crate::control::RefusalReason;
use crate::engine::{Adjacency, Engine};
use crate::filter::Filter;

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
    pub local_filter: Option<Filter>,
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
    /// Dropped packets and messages by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

/// How many entries each table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tables {
    /// Groups joined on this host.
    pub listener_groups: usize,
    /// (root, group) pairs that some neighbour wants.
    pub interests: usize,
    /// Groups reported into `lc0`.
    pub proxied_groups: usize,
    /// Flows without a listener.
    pub flows: usize,
    /// Bytes held for a first listener.
    pub held_bytes: usize,
    /// Origins with a duplicate window.
    pub origins: usize,
    /// Interest of ours that neighbours refused.
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
        groups.extend(self.forwarding.groups(self.config.own.origin));
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
        let key = (self.config.own.origin, group);
        let local_filter = self.querier.filter(group).cloned();
        let traffic = [self.querier.traffic(group), self.forwarding.traffic(key)];
        let traffic = || traffic.into_iter().flatten();
        let mut sources: Vec<_> = traffic().flat_map(|t| t.senders(self.now)).collect();
        sources.sort_unstable();
        sources.dedup();
        let refused = |(link, a): (&LinkId, &Adjacency)| {
            Some((*link, a.told.refused((a.neighbor.origin, group))?))
        };
        GroupSnapshot {
            group,
            local: local_filter.is_some(),
            local_filter,
            links: self.forwarding.links(key),
            sources,
            packets: traffic().map(|t| t.packets).sum(),
            bytes: traffic().map(|t| t.bytes).sum(),
            refused: self.adjacencies.iter().filter_map(refused).collect(),
        }
    }

    fn snapshot_neighbors(&self) -> Vec<NeighborSnapshot> {
        let neighbor = |(link, a): (&LinkId, &Adjacency)| NeighborSnapshot {
            link: *link,
            origin: a.neighbor.origin,
            incarnation: a.incarnation,
            interests: a.heard.len(),
            sending_prefixes: a.heard.sending_prefixes(),
        };
        self.adjacencies.iter().map(neighbor).collect()
    }

    /// Sizes of the tables: cheap.
    #[must_use]
    pub fn tables(&self) -> Tables {
        Tables {
            listener_groups: self.querier.len(),
            interests: self.forwarding.len(),
            proxied_groups: self.proxy.len(),
            flows: self.held.len(),
            held_bytes: self.held.bytes(),
            origins: self.duplicates.len(),
            refused: self
                .adjacencies
                .values()
                .map(|a| a.told.refused_len())
                .sum(),
            pending: self.querier.pending() + self.proxy.pending(),
        }
    }
}
