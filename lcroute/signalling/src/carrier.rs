//! What all carriers of signalling have in common.

use std::fmt::Debug;

use bytes::Bytes;
use lcroute_overlay::{CarrierId, Presence};
use lcroute_webrtc::relay::Credentials;
use librecast::id::PeerId;

/// What comes from carriers.
#[derive(Debug)]
pub enum CarrierEvent {
    /// Who can be reached.
    Presence(CarrierId, Presence),
    /// A sealed message.
    Signal {
        /// Over which carrier.
        carrier: CarrierId,
        /// From whom, as the carrier says.
        from: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The server at this URL relays for us, with these credentials.
    Relay(String, Credentials),
}

/// What may have changed about the paths from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// The addresses of this host: what was made from an earlier one is cut.
    Addresses,
    /// Links fell silent, or came after there was none.
    Links,
}

/// One way for sealed messages between nodes. A carrier works by itself, as a task, and ends when it is dropped; what it
/// has to say goes into the channel that it was made with.
pub trait Carrier: Debug + Send {
    /// The longest sealed message in bytes that it takes.
    fn longest(&self) -> usize;

    /// Takes a sealed message; false if there is no room for it. Signalling repeats itself.
    fn send(&self, to: PeerId, sealed: &Bytes) -> bool;

    /// Paths from this host may have changed: connections that do not answer are made anew.
    fn path_changed(&self, change: PathChange);
}
