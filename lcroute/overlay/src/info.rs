//! Peers and links as users see them. A value of a link has its place in [`LinkInfo`] and nowhere else: status, `peers --json`
//! and pages carry it as it is.

use std::net::Ipv6Addr;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

use crate::event::CarrierKind;

/// A row of peers: whom this node has, or wants, a link with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerInfo {
    /// The peer's identity.
    pub peer_id: PeerId,
    /// Its name, once its certificate has been seen.
    pub name: Option<String>,
    /// Its address in the network, once its certificate has been seen.
    pub address: Option<Ipv6Addr>,
    /// It is a leaf: it listens, and is no router.
    pub leaf: bool,
    /// Where it stands.
    pub state: PeerState,
    /// The present link.
    #[serde(flatten)]
    pub link: LinkInfo,
    /// Over all its links.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// How the peers of the present link met.
    pub carrier: Option<CarrierKind>,
    /// Seconds in this state.
    pub since_s: u64,
    /// Why it is refused or lost.
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
    /// It gets no link; the reason says why.
    Refused,
}

/// How a link does; all at its default where there is none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkInfo {
    /// Round trip in milliseconds: the quickest of the last eight hellos.
    pub rtt_ms: Option<f64>,
    /// Share of media packets that got lost, else of hellos that were not answered, 0 to 1.
    pub loss: Option<f64>,
    /// The lane in use.
    pub lane: Lane,
    /// What kind of path leads to the peer.
    pub path: Option<PathKind>,
    /// Longest UDP payload in bytes that is sent in the media lane; none in the data channel.
    pub path_mtu: Option<usize>,
    /// Packets sent over the link that met a filling queue (ECN).
    pub congested_packets: u64,
    /// What repair has done on it, both ways.
    #[serde(flatten)]
    pub repair: RepairInfo,
}

/// Which lane of a link carries data.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The unordered data channel.
    #[default]
    Data,
    /// RTP under SRTP, between nodes that both offer it.
    Media,
}

/// What repair has done on a media lane, in packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairInfo {
    /// Packets sent again.
    pub media_resent: u64,
    /// Repair symbols sent.
    pub media_symbols: u64,
    /// Lost packets of the peer whose messages came by either.
    pub media_repaired: u64,
}

/// By which kind of address a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// One of its host.
    Host,
    /// One that its router maps to it because it was asked to.
    Mapped,
    /// One that a NAT maps to it.
    Reflexive,
    /// One of a relay, this node's or the peer's.
    Relay,
    /// One of a relay to which a stream leads from this node.
    Tcp,
}

impl PathKind {
    /// As users read it.
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
    /// A datagram of so many bytes was sent.
    pub fn sent(&mut self, bytes: usize) {
        self.tx_bytes += bytes as u64;
        self.tx_packets += 1;
    }

    /// A datagram of so many bytes was received.
    pub fn received(&mut self, bytes: usize) {
        self.rx_bytes += bytes as u64;
        self.rx_packets += 1;
    }

    /// Both together.
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
