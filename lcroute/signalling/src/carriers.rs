//! The carriers that a node has.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::CarrierId;
use librecast::id::{NetworkId, PeerId, SecretKey};
use tokio::sync::mpsc;

use crate::carrier::{Carrier, CarrierEvent, PathChange};
use crate::client::WebSocket;
use crate::wire::Room;

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
