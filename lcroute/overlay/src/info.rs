//! Peers and links as users see them. Each value of a link is in [`LinkInfo`] alone: status,
//! `peers --json` and pages use it unchanged.

use std::net::Ipv6Addr;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

use crate::event::CarrierKind;

/// A row of peers: a node with which this node has, or wants, a link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerInfo {
    /// The peer's identity.
    pub peer_id: PeerId,
    /// Its name, once its certificate is known.
    pub name: Option<String>,
    /// Its address in the network, once its certificate is known.
    pub address: Option<Ipv6Addr>,
    /// Whether it is a leaf, which listens and is not a router.
    pub leaf: bool,
    /// Its state.
    pub state: PeerState,
    /// The present link.
    #[serde(flatten)]
    pub link: LinkInfo,
    /// The traffic of all its links.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// The carrier by which the peers of the present link met.
    pub carrier: Option<CarrierKind>,
    /// Seconds in this state.
    pub since_s: u64,
    /// The reason for which it is refused or lost.
    pub reason: Option<&'static str>,
}

/// State of a peer, as the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// A link is being made.
    Connecting,
    /// There is a link.
    Connected,
    /// There was a link; it is tried again.
    Lost,
    /// It gets no link; the reason is in [`PeerInfo::reason`].
    Refused,
}

/// The state of a link; all values are defaults without one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkInfo {
    /// Round trip in milliseconds: the shortest of the last eight hellos.
    pub rtt_ms: Option<f64>,
    /// Share of lost media packets, else of unanswered hellos, 0 to 1.
    pub loss: Option<f64>,
    /// The lane in use.
    pub lane: Lane,
    /// The kind of path to the peer.
    pub path: Option<PathKind>,
    /// Maximum UDP payload in bytes in the media lane; none in the data channel.
    pub path_mtu: Option<usize>,
    /// Packets sent over the link that met a filling queue (ECN).
    pub congested_packets: u64,
    /// Repair on the link, in both directions.
    #[serde(flatten)]
    pub repair: RepairInfo,
}

/// The lane of a link that carries data.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The unordered data channel.
    #[default]
    Data,
    /// RTP under SRTP, between nodes that both offer it.
    Media,
}

/// Repair on a media lane, in packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairInfo {
    /// Packets sent again.
    pub media_resent: u64,
    /// Repair symbols sent.
    pub media_symbols: u64,
    /// Lost packets of the peer that a resend or a repair symbol replaced.
    pub media_repaired: u64,
}

/// The kind of address at which a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// An address of its host.
    Host,
    /// An address that its router maps to it on request (port mapping).
    Mapped,
    /// An address that a NAT maps to it.
    Reflexive,
    /// An address of a relay, this node's or the peer's.
    Relay,
    /// An address of a relay that this node reaches over a stream.
    Tcp,
}

impl PathKind {
    /// The text for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Mapped => "mapped",
            Self::Reflexive => "reflexive",
            Self::Relay => "relay",
            Self::Tcp => "tcp",
        }
    }
}

/// UDP payload to and from a peer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Datagrams received.
    pub rx_packets: u64,
}

impl Traffic {
    /// Counts a sent datagram of `bytes`.
    pub fn sent(&mut self, bytes: usize) {
        self.tx_bytes += bytes as u64;
        self.tx_packets += 1;
    }

    /// Counts a received datagram of `bytes`.
    pub fn received(&mut self, bytes: usize) {
        self.rx_bytes += bytes as u64;
        self.rx_packets += 1;
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_packets: self.tx_packets + other.tx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_packets: self.rx_packets + other.rx_packets,
        }
    }
}
