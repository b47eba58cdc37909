//! What the engine knows, for `status` and `groups`.

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
    /// Groups that a local program has joined or a neighbour has joined, by address.
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
    /// What local programs join of it.
    pub local_filter: Option<SourceFilter>,
    /// Links over which it is joined from this node.
    pub links: Vec<LinkId>,
    /// Leaves of this node that join it.
    pub leaves: usize,
    /// Who sent to it within the last minute, as far as this node saw.
    pub sources: Vec<Ipv6Addr>,
    /// Packets carried, in both directions.
    pub packets: u64,
    /// Their bytes, without headers of the overlay.
    pub bytes: u64,
    /// Whether this node can read it, if it is of a private prefix.
    pub private: Option<Privacy>,
    /// Neighbours that refused our join state of it, or have no room for it, and why; it is advertised again.
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
    pub join_states: usize,
    /// Prefixes of which it sends SourceActive.
    pub sending_prefixes: usize,
}

/// A router that can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSnapshot {
    /// Its name on the wire.
    pub origin: OriginId,
    /// Who it is.
    pub member: Member,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
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
    /// (root, group) pairs that somebody joins or sends to.
    pub join_states: usize,
    /// (root, prefix) pairs of which somebody sends SourceActive.
    pub prefixes: usize,
    /// Groups to which programs of this host send.
    pub sending: usize,
    /// Routers that are known.
    pub routers: usize,
    /// Groups reported into `lc0`.
    pub proxied_groups: usize,
    /// Flows without a listener.
    pub flows: usize,
    /// Bytes buffered for a first listener.
    pub buffered_bytes: usize,
    /// Origins with a duplicate window.
    pub origins: usize,
    /// Join state of ours that neighbours refused, or have no room for.
    pub refused: usize,
    /// Leaves.
    pub leaves: usize,
    /// Timers and changes waiting, of MLD and join state.
    pub pending: usize,
}
