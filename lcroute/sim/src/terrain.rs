//! Network between whole nodes: sockets, firewalls, NATs, paths of datagrams, signalling server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use librecast::simulated::Firewall;
use librecast::time::Duration;

use crate::link::{Link, Map, Port};
use crate::time::{MILLISECOND, Nanos};

/// The STUN responder of the signalling server.
pub const STUN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 3_478);
/// One-way delay by the signalling server, unless links are slower.
pub const SIGNAL_DELAY: Nanos = 30 * MILLISECOND;
/// The UDP port of all daemons.
const PORT: u16 = 7_117;
/// The outer UDP port of all NATs. Chosen: it differs from that of daemons.
const NAT_PORT: u16 = 40_000;
/// Bound of a UDP payload on a path of 1,500 bytes.
pub const MAX_DATAGRAM: usize = 1_452;

/// The UDP socket of a host, behind a firewall that admits only answers, and perhaps a NAT.
#[derive(Debug)]
pub struct Socket {
    firewall: Firewall<Duration>,
    /// Paths to other hosts.
    ports: BTreeMap<u32, Port>,
}

impl Socket {
    pub fn new(node: u32, map: &Map) -> Self {
        Self {
            firewall: firewall(node, map),
            ports: BTreeMap::new(),
        }
    }

    /// Sends to an address; returns the source address on arrival.
    pub fn send(&mut self, to: SocketAddr, now: Nanos) -> SocketAddr {
        self.firewall.send(to, Duration::from_nanos(now))
    }

    /// Returns the path to a node.
    pub fn port(&mut self, from: u32, to: u32, map: &Map) -> &mut Port {
        self.ports.entry(to).or_insert_with(|| {
            let link = Link::new([from.min(to), from.max(to)], map.latency(from, to), 0);
            link.port(link.side(from), map.seed())
        })
    }

    /// Whether the firewall admits datagrams from an address.
    pub fn admits(&self, from: SocketAddr, now: Nanos) -> bool {
        let to = self.firewall.public();
        self.firewall.admits(from, to, Duration::from_nanos(now))
    }
}

pub fn local(node: u32) -> SocketAddr {
    let [_, _, high, low] = node.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], PORT))
}

/// Makes the firewall of a node's socket.
fn firewall(node: u32, map: &Map) -> Firewall<Duration> {
    let [_, _, high, low] = node.to_be_bytes();
    let nat = SocketAddr::from(([198, 18, high, low], NAT_PORT));
    let mut firewall = Firewall::new(local(node));
    firewall.nat = map.behind_nat(node).then_some(nat);
    firewall
}

pub fn node_at(address: SocketAddr, nodes: u32, map: &Map) -> Option<u32> {
    let SocketAddr::V4(v4) = address else {
        return None;
    };
    let [_, _, high, low] = v4.ip().octets();
    let node = u32::from(u16::from_be_bytes([high, low]));
    (node < nodes && firewall(node, map).is_at(address)).then_some(node)
}

/// Network between hosts.
#[derive(Debug, Clone)]
pub struct Terrain {
    pub map: Arc<Map>,
    /// Nodes cut off from the rest.
    pub partition: Option<Arc<BTreeSet<u32>>>,
    /// Pairs that are cut until a time.
    pub cuts: Arc<BTreeMap<(u32, u32), Nanos>>,
    /// Whether the signalling server is reachable.
    pub server: bool,
}

impl Terrain {
    /// Makes a network without cuts.
    pub fn new(map: Arc<Map>) -> Self {
        Self {
            map,
            partition: None,
            cuts: Arc::default(),
            server: true,
        }
    }

    /// Whether a datagram from one host to another arrives now.
    pub fn passes(&self, from: u32, to: u32, now: Nanos) -> bool {
        let cut = self.cuts.get(&(from.min(to), from.max(to)));
        !self.is_divided(from, to)
            && cut.is_none_or(|until| now >= *until)
            && self.map.connects(from, to)
            && self.map.hears(from, to)
    }

    /// Whether the server carries a sealed message between two nodes.
    pub fn introduces(&self, a: u32, b: u32) -> bool {
        self.server && !self.is_divided(a, b)
    }

    fn is_divided(&self, a: u32, b: u32) -> bool {
        let side = |n: u32| self.partition.as_ref().is_some_and(|p| p.contains(&n));
        side(a) != side(b)
    }

    /// Returns the delay of a sealed message, at least that of the fastest link.
    pub fn signal_delay(&self) -> Nanos {
        SIGNAL_DELAY.max(self.map.least_latency())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Links;

    #[test]
    fn a_socket_lets_in_who_it_has_sent_to() {
        let map = Map::new(&Links::default(), 3, 1);
        let mut socket = Socket::new(0, &map);
        assert_eq!(socket.send(local(1), 0), local(0));
        assert!(socket.admits(local(1), MILLISECOND));
        assert!(!socket.admits(local(2), MILLISECOND));
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
            let public = firewall(node, &map).public();
            assert_eq!(node_at(public, 300, &map), Some(node));
            let inner = node_at(local(node), 300, &map);
            assert_eq!(inner.is_none(), map.behind_nat(node));
        }
        assert_eq!(node_at(STUN, 300, &map), None);
    }
}
