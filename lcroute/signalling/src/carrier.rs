//! What all carriers have in common, and the set of those that a node has.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::{CarrierId, Presence};
use librecast::id::{NetworkId, PeerId, SecretKey};
use tokio::sync::mpsc;

use crate::client::WebSocket;
use crate::wire::Room;

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
}

/// How a carrier takes messages to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Within a second, while the peer is present.
    Live,
    /// Within minutes to hours; the peer need not be present.
    Slow,
    /// A person carries it.
    ByHand,
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
    /// How it takes messages to a peer.
    fn class(&self) -> Class;

    /// The longest sealed message in bytes that it takes.
    fn longest(&self) -> usize;

    /// Takes a sealed message; false if there is no room for it. Signalling repeats itself.
    fn send(&self, to: PeerId, sealed: &Bytes) -> bool;

    /// Paths from this host may have changed: connections that do not answer are made anew.
    fn path_changed(&self, change: PathChange);
}

/// The carriers of a node, by the URL that names each. Dropping it ends them.
#[derive(Debug)]
pub struct Carriers {
    key: Arc<SecretKey>,
    room: Room,
    events: mpsc::Sender<CarrierEvent>,
    carriers: BTreeMap<String, Box<dyn Carrier>>,
    next: u32,
}

impl Carriers {
    /// No carrier yet; to be called within a tokio runtime.
    #[must_use]
    pub fn new(
        key: Arc<SecretKey>,
        network: NetworkId,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        Self {
            key,
            room: Room::of(&network),
            events,
            carriers: BTreeMap::new(),
            next: 0,
        }
    }

    /// Uses the servers at these URLs (`ws://` or `wss://`) and leaves others; known ones stay as they are.
    pub fn set_servers(&mut self, urls: &[String]) {
        self.carriers.retain(|url, _| urls.contains(url));
        for url in urls {
            if !self.carriers.contains_key(url) {
                let id = CarrierId(self.next);
                self.next += 1;
                let (key, events) = (self.key.clone(), self.events.clone());
                let carrier = WebSocket::start(url, id, key, self.room, events);
                self.carriers.insert(url.clone(), Box::new(carrier));
            }
        }
    }

    /// Paths from this host may have changed.
    pub fn path_changed(&self, change: PathChange) {
        self.carriers.values().for_each(|c| c.path_changed(change));
    }

    /// Sends a sealed message over every carrier that takes it; the far side ignores copies.
    pub fn send(&self, to: PeerId, sealed: &Bytes) {
        for (url, carrier) in &self.carriers {
            if sealed.len() <= carrier.longest() && !carrier.send(to, sealed) {
                tracing::debug!("{url}: queue full, message dropped");
            }
        }
    }
}
