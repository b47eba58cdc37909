//! What all carriers of signalling have in common.

use std::fmt::Debug;

use bytes::Bytes;
use lcroute_overlay::server::RelayCredentials;
use lcroute_overlay::{CarrierId, CarrierKind, Presence, Published};
use librecast::id::PeerId;

/// What comes from carriers.
#[derive(Debug)]
pub enum CarrierEvent {
    /// Who can be reached.
    Presence(CarrierId, Presence),
    /// It has a presence record, under a name of its own; a new one takes the place of an older one of this name.
    Record {
        /// Which carrier.
        carrier: CarrierId,
        /// What kind it is.
        kind: CarrierKind,
        /// What it calls the record.
        name: String,
        /// The record.
        sealed: Vec<u8>,
    },
    /// It has that presence record no more.
    RecordGone {
        /// Which carrier.
        carrier: CarrierId,
        /// What it called the record.
        name: String,
    },
    /// A sealed message.
    Signal {
        /// Over which carrier.
        carrier: CarrierId,
        /// From whom, as the carrier says.
        from: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// What doors say has changed.
    Doors,
    /// The server at this URL relays for us, with these credentials.
    Relay(String, RelayCredentials),
}

/// What may have changed about the paths from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// The addresses of this host: what was made from an earlier one is cut.
    Addresses,
    /// Links fell silent, or came after there was none.
    Links,
}

/// How soon what is given to a carrier arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Messages arrive within a second or so: it carries whole attempts at a link.
    Live,
    /// It holds one presence record a node, and has no reply: nodes meet at the addresses in it.
    Slow,
}

/// One way for nodes to find each other. A carrier works by itself, as a task, and ends when it is dropped; what it has to
/// say goes into the channel that it was made with.
pub trait Carrier: Debug + Send {
    /// How soon what is given to it arrives.
    fn pace(&self) -> Pace;

    /// The longest sealed message in bytes that it takes; 0 where it takes none.
    fn longest(&self) -> usize {
        0
    }

    /// Takes a sealed message; false if there is no room for it. Signalling repeats itself.
    fn send(&self, _to: PeerId, _sealed: &Bytes) -> bool {
        false
    }

    /// Holds this presence record of our node from now on, in place of the one before.
    fn publish(&self, _record: &Published) {}

    /// Paths from this host may have changed: connections that do not answer are made anew.
    fn path_changed(&self, _change: PathChange) {}
}
