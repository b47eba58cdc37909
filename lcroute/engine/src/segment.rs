//! Segments: LANs of several gateways whose hosts reach each other as on one LAN.
//!
//! ```text
//! hosts ──ARP, ND──> neighbor ──> directory <──ASK, HERE, GONE──> gateways of the other LANs
//! hosts ──IP──> admission ──> message ──────────IP──────────────> the same
//! ```
//! A gateway answers ARP and neighbour discovery for hosts of the other LANs with one virtual
//! Ethernet address, and carries the IP packets that arrive for it.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use librecast::ethernet::MacAddress;
use librecast::id::PeerId;
use librecast::time::Duration;

/// `segment` of a LAN, by its gateway's configuration and interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSettings {
    /// The segment's name: LANs with one name are one LAN.
    pub name: String,
    /// Rate of broadcast, link-local groups and questions of all hosts together, in bits a second.
    pub broadcast: u64,
    /// A free address of the LAN to which its router sends packets for other subnets.
    pub router: Option<Ipv4Addr>,
    /// The LAN's default routers, by the host's routing table: each LAN keeps its own.
    pub default_routers: Vec<IpAddr>,
    /// IPv4 hosts of this LAN that take part: address and prefix length; empty: all on link.
    pub hosts: Vec<(Ipv4Addr, u8)>,
}

/// A frame of a LAN, as its hosts sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFrame {
    /// Its Ethernet source.
    pub source: MacAddress,
    /// Its Ethernet destination.
    pub destination: MacAddress,
    /// Its EtherType: ARP, IPv4 or IPv6; others are ignored.
    pub ethertype: u16,
    /// The bytes behind the Ethernet header, at most 1,500 and padding: super-packets are split
    /// before, and checksums are complete.
    pub payload: Bytes,
}

/// The segment of a LAN, as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentSnapshot {
    /// Its name.
    pub name: String,
    /// The Ethernet address for hosts of the other LANs.
    pub virtual_mac: MacAddress,
    /// The other LANs of the segment.
    pub lans: Vec<SegmentLan>,
    /// Hosts' addresses heard here.
    pub here: usize,
    /// Addresses elsewhere that are in use here.
    pub elsewhere: usize,
    /// Default routers of this LAN with the address of a host behind another gateway.
    pub routers: Vec<IpAddr>,
    /// Addresses that are here, and behind another gateway as well.
    pub conflicts: Vec<(IpAddr, PeerId)>,
    /// The problem, if any.
    pub problem: Option<SegmentProblem>,
}

/// Another LAN of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLan {
    /// Its forwarder.
    pub forwarder: PeerId,
    /// Its IPv4 prefixes: address and length.
    pub prefixes: Vec<(Ipv4Addr, u8)>,
    /// Round trip to its forwarder by the advertised costs; none: a LAN of this node.
    pub rtt: Option<Duration>,
}

/// A problem of a segment, the worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentProblem {
    /// This node's certificate does not permit the segment of this name.
    NotPermitted(String),
    /// Another host uses the virtual Ethernet address.
    Rival(MacAddress),
    /// No other LAN has this segment.
    Alone,
    /// The LANs of these gateways have other IPv4 subnets.
    OtherSubnet(Vec<PeerId>),
}

/// The place of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPlace {
    /// On this LAN, with this Ethernet address.
    Here(MacAddress),
    /// On the LAN of this gateway.
    Behind(PeerId),
    /// On this LAN, with this Ethernet address, and on the LAN of another gateway as well.
    Conflict(MacAddress, PeerId),
    /// Nobody answered a moment ago.
    Nobody,
    /// Nobody has asked for it lately.
    Unknown,
}
