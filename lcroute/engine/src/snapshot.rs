//! The engine's state, for `status` and `groups`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::Member;
use librecast::id::{LinkId, OriginId};

use crate::control::RefusalReason;
use crate::private::Privacy;
use crate::source_filter::SourceFilter;

/// The whole state at one moment, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Snapshot {
    /// Groups that local programs or neighbours have joined, by address.
    pub groups: Vec<GroupSnapshot>,
    /// Neighbours, by link.
    pub neighbors: Vec<NeighborSnapshot>,
    /// Packets and bytes.
    pub counters: Counters,
    /// Sizes of the tables; all zero once all listeners and links are gone.
    pub tables: Tables,
}

/// One group.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct GroupSnapshot {
    /// Its address.
    pub group: Ipv6Addr,
    /// Whether a program on this host has joined.
    pub local: bool,
    /// The filter of local programs.
    pub local_filter: Option<SourceFilter>,
    /// Links over which it is joined from this node.
    pub links: Vec<LinkId>,
    /// Leaves of this node that join it.
    pub leaves: usize,
    /// Its senders of the last minute, as far as this node saw.
    pub sources: Vec<Ipv6Addr>,
    /// Packets carried, in both directions.
    pub packets: u64,
    /// Their bytes, without headers of the overlay.
    pub bytes: u64,
    /// Whether this node can read it, if it is of a private prefix.
    pub private: Option<Privacy>,
    /// Neighbours that refused this node's join state of it, or lack room, and why.
    pub refused: Vec<(LinkId, RefusalReason)>,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NeighborSnapshot {
    /// The link to it.
    pub link: LinkId,
    /// Its origin id.
    pub origin: OriginId,
    /// Its incarnation, once HELLO has come.
    pub incarnation: Option<u32>,
    /// (root, group) entries of it that this router keeps.
    pub join_states: usize,
    /// Prefixes with SourceActive.
    pub sending_prefixes: usize,
}

/// A router that can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSnapshot {
    /// Its origin id.
    pub origin: OriginId,
    /// Its member data.
    pub member: Member,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The neighbour that leads to it.
    pub via: OriginId,
    /// Links on the path.
    pub hops: u16,
    /// Sum of their costs, in units of 100 us.
    pub cost: u32,
    /// Number of its links.
    pub links: u16,
}

/// Packets and bytes since the start; names as in `status --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Read from `lc0`.
    pub tun_rx_packets: u64,
    /// Read from `lc0`.
    pub tun_rx_bytes: u64,
    /// Delivered into `lc0`, MLD included.
    pub tun_tx_packets: u64,
    /// Delivered into `lc0`, MLD included.
    pub tun_tx_bytes: u64,
    /// Data messages that arrived on links.
    pub link_rx_packets: u64,
    /// Data messages that arrived on links, headers included.
    pub link_rx_bytes: u64,
    /// Data messages sent, counted once for each link.
    pub link_tx_packets: u64,
    /// Data messages sent, headers included, counted once for each link.
    pub link_tx_bytes: u64,
    /// Control messages that arrived.
    pub control_rx_messages: u64,
    /// Control messages sent.
    pub control_tx_messages: u64,
    /// Bytes of control messages that arrived.
    pub control_rx_bytes: u64,
    /// Bytes of control messages sent.
    pub control_tx_bytes: u64,
    /// Dropped packets and messages by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

/// Number of entries of each table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tables {
    /// Groups joined on this host.
    pub listener_groups: usize,
    /// (root, group) pairs with joins or senders.
    pub join_states: usize,
    /// (root, prefix) pairs with SourceActive.
    pub prefixes: usize,
    /// Groups to which programs of this host send.
    pub sending: usize,
    /// Known routers.
    pub routers: usize,
    /// Groups reported into `lc0`.
    pub proxied_groups: usize,
    /// Flows without a listener.
    pub flows: usize,
    /// Bytes buffered for a first listener.
    pub buffered_bytes: usize,
    /// Origins with a duplicate window.
    pub origins: usize,
    /// Join state of this router that neighbours refused, or have no room for.
    pub refused: usize,
    /// Leaves.
    pub leaves: usize,
    /// Timers and changes waiting, of MLD and join state.
    pub pending: usize,
}
