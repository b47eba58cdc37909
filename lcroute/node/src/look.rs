//! The network as one node sees it: who is reachable, which links there are, and what this node sends over its own.

use std::net::Ipv6Addr;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

/// The network as a node sees it now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    /// All nodes that can be reached; the first is this one.
    pub routers: Vec<Router>,
    /// Links between them: two places in that list, and the cost in units of 100 us.
    pub links: Vec<(u32, u32, u16)>,
    /// What this node sends of each group.
    pub flows: Vec<Flow>,
}

/// A node on the map of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Router {
    /// Its name on the wire.
    pub origin: u64,
    /// Who it is.
    pub peer_id: Option<PeerId>,
    /// Its name.
    pub name: Option<String>,
    /// Its address on the network.
    pub address: Option<Ipv6Addr>,
    /// No path leads through it.
    pub stub: bool,
}

/// What a node sends of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flow {
    /// The group.
    pub group: Ipv6Addr,
    /// A program on the node's host has joined it.
    pub local: bool,
    /// To its neighbours.
    pub edges: Vec<Edge>,
}

/// What a node sends of a group to one neighbour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edge {
    /// The neighbour's name on the wire.
    pub to: u64,
    /// Packets a second.
    pub packets_s: f64,
    /// Their bytes.
    pub bytes_s: f64,
}
