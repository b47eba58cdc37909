//! Inputs and outputs of the overlay: presence and events.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use librecast::cert::Member;
use librecast::id::{LinkId, PeerId};
use librecast::time::Duration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::{Rendezvous, RendezvousEpochs};

/// Reason text for a node without a link, as the peer has one to another host with the same key.
pub(crate) const KEY_CONFLICT_HERE: &str = "another host has this node's key";
/// Reason text that a peer with a link to one of two such hosts shows.
pub(crate) const KEY_CONFLICT_THERE: &str = "another host has the same key";

/// One carrier of signalling: a server, or [`crate::OVERLAY_CARRIER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(pub u32);

/// The kind of carrier by which two nodes met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CarrierKind {
    /// A signalling server.
    Server,
    /// Links of the network.
    Overlay,
    /// A presence record on a LAN.
    Lan,
    /// A presence record in a folder that both can reach.
    Spool,
    /// A presence record that was pasted.
    Text,
    /// A presence record in a DHT.
    Dht,
    /// A presence record in a Matrix room.
    Matrix,
    /// Datagrams from an address, without any of the above.
    Straight,
}

/// The nodes that this node searches for, by carriers that look up names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// The issuer of this node, if it has no links: the issuer may not know this node.
    pub issuer: Option<PeerId>,
    /// Members that cannot be reached, the last seen first; the issuer among them.
    pub peers: Vec<PeerId>,
    /// Whether new nodes search for this node.
    pub invites: bool,
    /// The epochs of the names; none: epoch 0.
    pub epochs: Option<RendezvousEpochs>,
}

/// A presence record for publication by carriers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its name, which changes daily.
    pub name: [u8; 32],
    /// The record.
    pub sealed: Bytes,
    /// End of its validity, in unix seconds.
    pub until: u64,
    /// The epoch of its name and seal.
    pub epoch: Rendezvous,
}

/// The reason for which a presence record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The record is of another network, or of an epoch that is not known yet.
    NotOpened,
    /// The record is this node's own, or was dropped for another reason, which is counted.
    Dropped,
}

/// A change of the peers that can be reached over a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// This peer can be reached now; if repeated, it has come back and is tried at once.
    Online(PeerId),
    /// This peer cannot be reached any more. Links stay.
    Offline(PeerId),
    /// The carrier works. Its peers follow as [`Presence::Online`].
    CarrierUp,
    /// The carrier is gone, and every peer with it. Links stay.
    CarrierDown,
}

/// Events that the overlay reports to its owner.
#[derive(Debug, Clone)]
pub enum Event {
    /// An authenticated link to a member of the network.
    LinkUp {
        /// Its number.
        link: LinkId,
        /// The certified identity at the other end.
        member: Box<Member>,
    },
    /// A link that was up is gone; the overlay tries to make a new one.
    LinkDown {
        /// Its number.
        link: LinkId,
        /// The peer at the other end.
        peer: PeerId,
        /// The reason.
        reason: EndReason,
    },
    /// The round trip of a link was measured for the first time, or is shorter than the last
    /// reported one. [`crate::LinkInfo::rtt_ms`] shows a longer one.
    RoundTrip {
        /// The link.
        link: LinkId,
        /// The shortest of the last hellos.
        rtt: Duration,
    },
    /// A message of the control channel: reliable, in order.
    Control {
        /// The link that it came over.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A message of the media lane or the data channel: unordered, and it may be lost.
    Data {
        /// The link that it came over.
        link: LinkId,
        /// The message.
        message: Bytes,
    },
    /// A sealed message for a peer, for at least one of two kinds of carriers.
    Signal {
        /// The recipient.
        to: PeerId,
        /// At most [`crate::MAX_SIGNAL`] bytes.
        bytes: Bytes,
        /// Over links of the overlay ([`crate::OVERLAY_CARRIER`]).
        over_links: bool,
        /// Over every signalling server.
        over_servers: bool,
    },
    /// Attempts to link to a wanted peer fail repeatedly, or succeed again; in both cases they go
    /// on.
    DirectFailure {
        /// The peer.
        peer: PeerId,
        /// False: there is a link now.
        failing: bool,
    },
    /// The addresses at which this node can be reached have changed.
    AddressesChanged,
    /// A peer refuses links because of this signed revocation, which is not verified yet.
    Revocation {
        /// The revocation.
        revocation: Bytes,
    },
    /// Another host runs with this node's key, and has signed a proof of it.
    KeyConflict(KeyConflict),
    /// A peer was refused a link (reported once per peer and reason).
    PeerRefused {
        /// The peer, if it is known.
        peer: Option<PeerId>,
        /// The reason.
        reason: &'static str,
    },
}

/// Another host that runs with this node's key: a copied state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyConflict {
    /// Its addresses, by its own account.
    pub addresses: Vec<SocketAddr>,
    /// A peer that knows both.
    pub seen_by: PeerId,
}

impl KeyConflict {
    /// Returns the addresses of the other host as text.
    pub fn place(&self) -> String {
        let all: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match all.is_empty() {
            true => "an unknown address".to_owned(),
            false => all.join(" "),
        }
    }
}

/// The reason for which a connection or a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The peer does not answer any more.
    Silent,
    /// The peer does not answer, and its host refuses datagrams.
    Unreachable,
    /// The peer closed the connection.
    ClosedByPeer,
    /// The DTLS handshake failed, or a DTLS alert came.
    DtlsFailed,
    /// The peer opened an unknown channel.
    UnknownChannel,
    /// The peer's control messages break the rules of the media lane.
    BadControl,
    /// The control channel takes no more messages.
    ControlStuck,
    /// The router found that the peer broke the protocol.
    Fault(&'static str),
    /// A panic in the WebRTC stack.
    StackPanicked,
    /// The stack could not begin the connection.
    CannotBegin,
    /// The stack did not accept the answer.
    AnswerNotAccepted,
    /// The peer did not answer the offer.
    NoAnswer,
    /// ICE found no path.
    NoDirectPath,
    /// ICE found no path after an address change.
    NoPathAfterMove,
    /// Addresses of this node changed while the connection was made.
    AddressesChanged,
    /// The peer must not learn this host's addresses, and no relay is available.
    NoRelay,
    /// The configuration changed which peers may learn this host's addresses.
    DisclosureChanged,
    /// The peer no longer has the link.
    GivenUpByPeer,
    /// The peer began another attempt.
    BegunAnewByPeer,
    /// A newer offer of the peer replaces it.
    ReplacedByPeer,
    /// Neither side wants the link.
    NotWanted,
    /// Another peer took the place, or the peer is no longer needed.
    Forgotten,
    /// This node stops.
    ShuttingDown,
    /// Another host has this node's key, and keeps its links.
    KeyConflict,
    /// This node refuses the peer.
    Refused(&'static str),
    /// The peer refuses this node.
    RefusedByPeer(&'static str),
}

impl EndReason {
    /// The text for logs and `peers`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::ClosedByPeer => "closed by the peer",
            Self::DtlsFailed => "DTLS failed",
            Self::UnknownChannel => "opened an unknown channel",
            Self::BadControl => "control messages that make no sense",
            Self::ControlStuck => "control channel is stuck",
            Self::StackPanicked => "the WebRTC stack panicked",
            Self::CannotBegin => "cannot begin a connection",
            Self::AnswerNotAccepted => "answer not accepted",
            Self::NoAnswer => "no answer",
            Self::NoDirectPath => "no direct path: firewalls or NATs on the way",
            Self::NoPathAfterMove => "no path after an address change",
            Self::AddressesChanged => "addresses changed",
            Self::NoRelay => "no relay answers, and [ice] policy = \"relay\" allows no other path",
            Self::DisclosureChanged => "[ice] policy or disclose changed",
            Self::GivenUpByPeer => "given up by the peer",
            Self::BegunAnewByPeer => "begun anew by the peer",
            Self::ReplacedByPeer => "replaced by the peer",
            Self::NotWanted => "neither side wants it",
            Self::Forgotten => "forgotten",
            Self::ShuttingDown => "shutting down",
            Self::KeyConflict => KEY_CONFLICT_HERE,
            Self::Fault(why) | Self::Refused(why) | Self::RefusedByPeer(why) => why,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The reason for which a message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The link is not up.
    #[error("no such link")]
    NoSuchLink,
    /// The channel's queue is full.
    #[error("queue full")]
    QueueFull,
    /// The message is longer than the peer accepts.
    #[error("message too large")]
    TooLarge,
}
