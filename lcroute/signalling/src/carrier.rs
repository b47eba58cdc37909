//! The common interface of all carriers of signalling.

use std::fmt::Debug;

use bytes::Bytes;
use lcroute_overlay::server::RelayCredentials;
use lcroute_overlay::{CarrierId, CarrierKind, Presence, Published};
use librecast::id::PeerId;

/// Events of carriers.
#[derive(Debug)]
pub enum CarrierEvent {
    /// A change of the reachable peers.
    Presence(CarrierId, Presence),
    /// A presence record under the carrier's name for it; it replaces an older one of this name.
    Record {
        /// The carrier.
        carrier: CarrierId,
        /// Its kind.
        kind: CarrierKind,
        /// Its name for the record.
        name: String,
        /// The record.
        sealed: Vec<u8>,
    },
    /// The carrier no longer has that presence record.
    RecordGone {
        /// The carrier.
        carrier: CarrierId,
        /// Its name for the record.
        name: String,
    },
    /// A sealed message.
    Signal {
        /// The carrier.
        carrier: CarrierId,
        /// The sender, by the carrier's account.
        from: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The state of doors has changed.
    Doors,
    /// The server at this URL relays for this node, with these credentials.
    Relay(String, RelayCredentials),
}

/// A possible change of the paths from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// The addresses of this host: connections from earlier ones are cut.
    Addresses,
    /// Links fell silent, or came after there was none.
    Links,
}

/// The delay of a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Messages arrive within about a second: it carries whole attempts at a link.
    Live,
    /// It stores one presence record per node, without replies: nodes meet at the addresses in it.
    Slow,
}

/// A way for nodes to find each other. A carrier works as a task of its own, and ends when it is
/// dropped; it sends its events into the channel that it was made with.
pub trait Carrier: Debug + Send {
    /// Returns its delay.
    fn pace(&self) -> Pace;

    /// Returns the maximum length of a sealed message in bytes; 0: it accepts none.
    fn longest(&self) -> usize {
        0
    }

    /// Accepts a sealed message; false if there is no room for it. Signalling repeats messages.
    fn send(&self, _to: PeerId, _sealed: &Bytes) -> bool {
        false
    }

    /// Replaces the presence record of this node.
    fn publish(&self, _record: &Published) {}

    /// Handles a possible change of paths: connections without an answer are made again.
    fn path_changed(&self, _change: PathChange) {}
}
