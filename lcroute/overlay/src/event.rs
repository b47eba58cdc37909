//! What goes in and out of the overlay: presence and events.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use librecast::cert::Member;
use librecast::id::{LinkId, PeerId};
use librecast::time::Duration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::Rendezvous;

/// Why a node gets no link from a peer that has one to another host with the same key.
pub(crate) const KEY_CONFLICT_HERE: &str = "another host has this node's key";
/// What a peer with a link to one of two such hosts shows.
pub(crate) const KEY_CONFLICT_THERE: &str = "another host has the same key";

/// One carrier of signalling: a server, or [`crate::OVERLAY_CARRIER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(pub u32);

/// What kind of carrier two nodes met by.
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
    /// Datagrams from an address, without any of these.
    Straight,
}

/// A presence record to be put where others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What it is called: another name each day.
    pub name: [u8; 32],
    /// The record.
    pub sealed: Bytes,
    /// Until when it is good, in unix seconds.
    pub until: u64,
    /// Of which epoch name and seal are.
    pub epoch: Rendezvous,
}

/// Why a presence record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// It is of another network, or of an epoch that is not known yet.
    NotOpened,
    /// It is our own, or dropped for another reason, which is counted.
    Dropped,
}

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
        /// Why.
        reason: EndReason,
    },
    /// A link's round trip was measured for the first time, or is shorter than was thought; a longer one shows in
    /// [`crate::LinkInfo::rtt_ms`].
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
    /// A sealed message to be carried to a peer; over at least one of two kinds of carriers.
    Signal {
        /// To whom.
        to: PeerId,
        /// At most [`crate::MAX_SIGNAL`] bytes.
        bytes: Bytes,
        /// Over links of the overlay ([`crate::OVERLAY_CARRIER`]).
        over_links: bool,
        /// Over every signalling server.
        over_servers: bool,
    },
    /// Attempts to make a link to a wanted peer fail again and again, or work at last. They go on.
    DirectFailure {
        /// To whom.
        peer: PeerId,
        /// False: there is a link now.
        failing: bool,
    },
    /// Where this node can be reached has changed.
    AddressesChanged,
    /// A peer gives us no link because of this revocation, in its signed form. Nothing of it has been verified.
    Revocation {
        /// The revocation.
        revocation: Bytes,
    },
    /// Another host runs with this node's key, which has signed that it does.
    KeyConflict(KeyConflict),
    /// A peer was refused a link (told once per peer and reason).
    PeerRefused {
        /// Who, as far as it is known.
        peer: Option<PeerId>,
        /// Why.
        reason: &'static str,
    },
}

/// Another host that runs with this node's key: a state folder that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyConflict {
    /// Its addresses, as it says.
    pub addresses: Vec<SocketAddr>,
    /// A peer that sees both.
    pub seen_by: PeerId,
}

impl KeyConflict {
    /// Where the other host is.
    #[must_use]
    pub fn place(&self) -> String {
        let all: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match all.is_empty() {
            true => "an unknown address".to_owned(),
            false => all.join(" "),
        }
    }
}

/// Why a connection or a link ends.
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
    /// The peer opened a channel that nobody knows.
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
    /// The peer must not learn this host's addresses, and no relay gives another one.
    NoRelay,
    /// The configuration says otherwise now who may learn this host's addresses.
    DisclosureChanged,
    /// The peer has no link any more.
    GivenUpByPeer,
    /// The peer began another attempt.
    BegunAnewByPeer,
    /// The peer's newer offer takes its place.
    ReplacedByPeer,
    /// Neither side wants the link.
    NotWanted,
    /// The peer's place was needed, or nobody needs the peer.
    Forgotten,
    /// This node stops.
    ShuttingDown,
    /// Another host has this node's key, and keeps its place.
    KeyConflict,
    /// This node refuses the peer.
    Refused(&'static str),
    /// The peer refuses this node.
    RefusedByPeer(&'static str),
}

impl EndReason {
    /// As logs and `peers` show it.
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
