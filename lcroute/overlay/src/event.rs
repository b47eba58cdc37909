//! What goes in and out of the overlay: links, presence, events, datagrams, peers as users see them.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use librecast::cert::Member;
use librecast::id::PeerId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One link between two nodes; a number is never used twice within a run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// One way for signalling messages: a backbone server, or [`crate::OVERLAY_CARRIER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(pub u32);

/// Who can be reached over a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// This peer can be reached now; said again, it has come back and is tried at once.
    Online(PeerId),
    /// This peer cannot be reached any more. Links stay.
    Offline(PeerId),
    /// The carrier works. Its peers follow as [`Presence::Online`].
    CarrierUp,
    /// The carrier is gone, and every peer with it. Links stay.
    CarrierDown,
}

/// What the IP header of a datagram says of congestion (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ecn {
    /// Nothing: the sender would not heed a mark, or somebody on the way wiped it off.
    #[default]
    None,
    /// The sender heeds marks. ECT(0) is sent, ECT(1) counts as the same.
    Capable,
    /// A queue on the way was filling.
    Congested,
}

/// A datagram for the one UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Destination; IPv4 as plain IPv4.
    pub to: SocketAddr,
    /// The local address to send from (IP_PKTINFO), where it matters.
    pub from: Option<SocketAddr>,
    /// What to send: at most one datagram.
    pub contents: Bytes,
    /// How it is marked: datagrams are marked whose sender hears of congestion.
    pub ecn: Ecn,
    /// A probe of the path: it must arrive whole or not at all.
    pub dont_fragment: bool,
}

impl Transmit {
    /// A datagram without a mark, which may be fragmented.
    pub(crate) fn plain(to: SocketAddr, from: Option<SocketAddr>, contents: Bytes) -> Self {
        Self {
            to,
            from,
            contents,
            ecn: Ecn::None,
            dont_fragment: false,
        }
    }
}

/// An ICMP error: a datagram of ours did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable<'a> {
    /// Where it was sent; IPv4 as plain IPv4.
    pub remote: SocketAddr,
    /// The host there says so itself: nobody on it has that port.
    pub is_refusal: bool,
    /// How the datagram began, as far as the error quotes it.
    pub quoted: &'a [u8],
}

/// What the overlay tells its owner.
#[derive(Debug, Clone)]
pub enum Event {
    /// An authenticated link to a member of the network.
    LinkUp {
        /// Its number.
        link: LinkId,
        /// Who is at the other end, as its certificate says.
        member: Box<Member>,
    },
    /// A link that was up is gone; the overlay tries to make a new one.
    LinkDown {
        /// Its number.
        link: LinkId,
        /// Who was at the other end.
        peer: PeerId,
        /// Why, for logs.
        reason: &'static str,
    },
    /// A link's round trip was measured for the first time, or is shorter than was thought; a longer one shows in
    /// [`PeerInfo::rtt_ms`].
    RoundTrip {
        /// Of which.
        link: LinkId,
        /// The quickest of the last hellos.
        rtt: Duration,
    },
    /// A message of the control channel: reliable, in order.
    Control {
        /// Where it came from.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A message of the media lane or the data channel: unordered, never sent again.
    Data {
        /// Where it came from.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A sealed message to be carried to a peer; at least one of the two ways is named.
    Signal {
        /// To whom.
        to: PeerId,
        /// At most [`crate::MAX_SIGNAL`] bytes.
        bytes: Bytes,
        /// Over links of the overlay ([`crate::OVERLAY_CARRIER`]).
        over_links: bool,
        /// Over every backbone.
        over_backbone: bool,
    },
    /// Attempts to make a link to a wanted peer fail again and again, or work at last. They go on.
    DirectFailure {
        /// To whom.
        peer: PeerId,
        /// False: there is a link now.
        failing: bool,
    },
    /// A peer gives us no link because of this revocation, in its signed form. Nothing of it has been verified.
    Revocation {
        /// The revocation.
        record: Bytes,
    },
    /// A peer was refused a link (told once per peer and reason).
    PeerRefused {
        /// Who, as far as it is known.
        peer: Option<PeerId>,
        /// Why.
        reason: &'static str,
    },
}

/// Why a message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The link is not up.
    #[error("no such link")]
    NoSuchLink,
    /// The channel holds as much as it may.
    #[error("queue full")]
    QueueFull,
    /// Longer than the far side accepts.
    #[error("message too large")]
    TooLarge,
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

/// Which lane of a link carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The unordered data channel.
    Data,
    /// RTP under SRTP, between nodes that both offer it.
    Media,
}

/// What repair has done on a media lane, in packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairInfo {
    /// Packets sent again.
    pub media_resent: u64,
    /// Repair symbols sent.
    pub media_symbols: u64,
    /// Lost packets of the peer whose messages came by either.
    pub media_repaired: u64,
}

/// A row of `peers --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerInfo {
    /// The peer's identity.
    pub peer_id: PeerId,
    /// Its name, once its certificate has been seen.
    pub name: Option<String>,
    /// Its address in the network, once its certificate has been seen.
    pub address: Option<Ipv6Addr>,
    /// Where it stands.
    pub state: PeerState,
    /// Round trip in milliseconds: the quickest of the last eight hellos.
    pub rtt_ms: Option<f64>,
    /// Share of media packets that got lost, else of probes that were not answered, 0..=1.
    pub loss: Option<f64>,
    /// The lane in use.
    pub lane: Lane,
    /// Longest UDP payload that is sent in the media lane.
    pub path_mtu: Option<usize>,
    /// Packets sent to it over the present link that met a filling queue (ECN).
    pub congested_packets: u64,
    /// UDP payload bytes sent to it, over all its links.
    pub tx_bytes: u64,
    /// UDP payload bytes received from it.
    pub rx_bytes: u64,
    /// UDP datagrams sent to it.
    pub tx_packets: u64,
    /// UDP datagrams received from it.
    pub rx_packets: u64,
    /// What repair has done on its link.
    #[serde(flatten)]
    pub repair: RepairInfo,
    /// Seconds in this state.
    pub since_s: u64,
    /// Why it is refused or lost.
    pub reason: Option<&'static str>,
    /// The link, where there is one.
    #[serde(skip)]
    pub link: Option<LinkId>,
}
