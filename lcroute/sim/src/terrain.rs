//! What lies between hosts of whole nodes: their sockets, firewalls and NATs, the paths of datagrams, the signalling server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::link::{Link, Map, Port};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// The STUN responder of the signalling server.
pub const STUN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 3_478);
/// One way through the signalling server, unless links are slower.
pub const SIGNAL_DELAY: Nanos = 30 * MILLISECOND;
/// The UDP port of all daemons.
const PORT: u16 = 7_117;
/// The outer UDP port of all NATs. Chosen: another than that of daemons.
const NAT_PORT: u16 = 40_000;
/// A firewall forgets what a host has sent to after so long (RFC 4787, REQ-5, has two minutes).
const FLOW: Nanos = 60 * SECOND;
/// Longest UDP payload on a path of 1,500 bytes.
pub const MAX_DATAGRAM: usize = 1_452;

/// The UDP socket of a host, behind a firewall that lets in answers only; for some hosts a NAT in addition.
#[derive(Debug, Default)]
pub struct Socket {
    /// When something was last sent to each node.
    flows: BTreeMap<u32, Nanos>,
    /// Paths to other hosts.
    ports: BTreeMap<u32, Port>,
}

impl Socket {
    /// The path to a node, over which something is sent now.
    pub fn port(&mut self, from: u32, to: u32, map: &Map, now: Nanos) -> &mut Port {
        self.flows.insert(to, now);
        self.ports.entry(to).or_insert_with(|| {
            let link = Link::new([from.min(to), from.max(to)], map.latency(from, to), 0);
            link.port(link.side(from), map.seed())
        })
    }

    /// Whether the firewall lets in what comes from a node.
    pub fn admits(&self, from: u32, now: Nanos) -> bool {
        let sent = self.flows.get(&from);
        sent.is_some_and(|at| now.saturating_sub(*at) < FLOW)
    }
}

/// The address that a node's socket has.
pub fn local(node: u32) -> SocketAddr {
    let [_, _, high, low] = node.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], PORT))
}

/// The address under which others see it.
pub fn public(node: u32, map: &Map) -> SocketAddr {
    let [_, _, high, low] = node.to_be_bytes();
    if map.behind_nat(node) {
        SocketAddr::from(([198, 18, high, low], NAT_PORT))
    } else {
        local(node)
    }
}

/// The node whose public address this is.
pub fn node_at(address: SocketAddr, nodes: u32, map: &Map) -> Option<u32> {
    let SocketAddr::V4(v4) = address else {
        return None;
    };
    let [_, _, high, low] = v4.ip().octets();
    let node = u32::from(u16::from_be_bytes([high, low]));
    (node < nodes && public(node, map) == address).then_some(node)
}

/// What lies between hosts.
#[derive(Debug, Clone)]
pub struct Terrain {
    pub map: Arc<Map>,
    /// Nodes that hear only each other.
    pub partition: Option<Arc<BTreeSet<u32>>>,
    /// Pairs between which nothing passes until a time.
    pub cuts: Arc<BTreeMap<(u32, u32), Nanos>>,
    /// Whether the signalling server can be reached.
    pub server: bool,
}

impl Terrain {
    /// Nothing in the way but what the map has.
    pub fn new(map: Arc<Map>) -> Self {
        Self {
            map,
            partition: None,
            cuts: Arc::default(),
            server: true,
        }
    }

    /// Whether a datagram gets from one host to another now.
    pub fn passes(&self, from: u32, to: u32, now: Nanos) -> bool {
        let cut = self.cuts.get(&(from.min(to), from.max(to)));
        !self.is_divided(from, to)
            && cut.is_none_or(|until| now >= *until)
            && self.map.connects(from, to)
            && self.map.hears(from, to)
    }

    /// Whether a sealed message gets from one node to another by the server.
    pub fn introduces(&self, a: u32, b: u32) -> bool {
        self.server && !self.is_divided(a, b)
    }

    fn is_divided(&self, a: u32, b: u32) -> bool {
        let side = |n: u32| self.partition.as_ref().is_some_and(|p| p.contains(&n));
        side(a) != side(b)
    }

    /// How long a sealed message takes; no message is faster than the fastest link.
    pub fn signal_delay(&self) -> Nanos {
        SIGNAL_DELAY.max(self.map.least_latency())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Links;

    #[test]
    fn a_firewall_lets_in_answers_for_a_minute() {
        let map = Map::new(&Links::default(), 3, 1);
        let mut socket = Socket::default();
        assert!(!socket.admits(1, 0));
        socket.port(0, 1, &map, SECOND);
        assert!(socket.admits(1, FLOW) && !socket.admits(2, FLOW));
        assert!(!socket.admits(1, SECOND + FLOW));
    }

    #[test]
    fn hosts_are_found_by_their_public_addresses_only() {
        let links = Links {
            behind_nat: 0.5,
            ..Links::default()
        };
        let map = Map::new(&links, 300, 1);
        let behind = (0..300).filter(|n| map.behind_nat(*n)).count();
        assert!((100..200).contains(&behind), "{behind}");
        for node in 0..300 {
            assert_eq!(node_at(public(node, &map), 300, &map), Some(node));
            let inner = node_at(local(node), 300, &map);
            assert_eq!(inner.is_none(), map.behind_nat(node));
        }
        assert_eq!(node_at(STUN, 300, &map), None);
    }
}
