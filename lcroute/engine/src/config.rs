//! What the engine is told at its start and with each link.

use std::fmt;
use std::net::Ipv6Addr;

use librecast::cert::GroupPrefix;
use librecast::id::{NodeAddresses, OriginId};

use crate::classify::is_link_scope;

/// A link of the overlay. Given by the overlay, never used again within a run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// What the engine needs to know of this node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses of this node: the only sources that its programs may use.
    pub own: NodeAddresses,
    /// Raised at every start of the daemon and persisted by the shell.
    pub incarnation: u32,
    /// MTU of `lc0` in bytes: reports and queries are built to fit.
    pub mtu: u16,
    /// Groups of scope 2 that are carried.
    pub link_scope_groups: Vec<Ipv6Addr>,
    /// Groups that this node's certificate lets it send to; empty: none.
    pub may_send: Vec<GroupPrefix>,
    /// All randomness of the engine: report jitter and hash keys.
    pub seed: u64,
    /// Bounds of the tables.
    pub limits: Limits,
}

/// A router at the other end of a link, as its verified certificate describes it.
#[derive(Debug, Clone)]
pub struct Neighbor {
    /// Its name in data headers and of its tree.
    pub origin: OriginId,
    /// Its unique local address.
    pub address: Ipv6Addr,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
    /// Groups that it may send to; empty: none.
    pub may_send: Vec<GroupPrefix>,
}

/// Bounds of every table that others can fill.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Groups joined by programs on this host.
    pub groups: usize,
    /// Reporters tracked per group on `lc0`.
    pub reporters: usize,
    /// (root, group) entries that one neighbour may keep here.
    pub interests_per_neighbor: usize,
    /// Source addresses in all filters of one neighbour.
    pub sources_per_neighbor: usize,
    /// S prefixes of one neighbour.
    pub prefixes_per_neighbor: usize,
    /// Flows without a listener that are remembered.
    pub flows: usize,
    /// Packets held for the first listener, of one flow.
    pub held_packets: usize,
    /// Bytes held for the first listener, of all flows.
    pub held_bytes: usize,
    /// Routers whose certificates are kept.
    pub routers: usize,
    /// Revocations that are kept.
    pub revocations: usize,
    /// Sequence numbers that a duplicate window covers; rounded up to a multiple of 64, at least 4,096.
    pub duplicate_window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            groups: 16_384,
            reporters: 16,
            interests_per_neighbor: 16_384,
            sources_per_neighbor: 65_536,
            prefixes_per_neighbor: 256,
            flows: 4_096,
            held_packets: 8,
            held_bytes: 4 << 20,
            routers: 4_096,
            revocations: 4_096,
            duplicate_window: 8_192,
        }
    }
}

/// The addresses that packets of a node may come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeSources {
    address: Ipv6Addr,
    link_local: Ipv6Addr,
}

impl NodeSources {
    pub(crate) fn of_node(node: &NodeAddresses) -> Self {
        Self {
            address: node.address,
            link_local: node.link_local,
        }
    }

    pub(crate) fn of_neighbor(neighbor: &Neighbor) -> Self {
        Self {
            address: neighbor.address,
            link_local: neighbor.link_local,
        }
    }

    /// Whether a packet to `group` may come from `source`: the link-local address only in scope 2.
    pub(crate) fn allows(&self, source: Ipv6Addr, group: Ipv6Addr) -> bool {
        source == self.address || source == self.link_local && is_link_scope(group)
    }

    /// The sources that packets to `group` may come from.
    pub(crate) fn present(&self, group: Ipv6Addr) -> Vec<Ipv6Addr> {
        if is_link_scope(group) {
            vec![self.address, self.link_local]
        } else {
            vec![self.address]
        }
    }
}
