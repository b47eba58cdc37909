//! Many rooms of one connection: the client's side of ENTER ([`lcroute_overlay::server`]).
//!
//! After REGISTER a client sends ENTER for each wanted room, up to [`MAX_ENTERED`], and LEAVE for
//! each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lcroute_overlay::server::{MAX_ENTERED, Room, ToServer};
use lcroute_overlay::{CarrierId, Presence};
use librecast::id::{PeerId, SecretKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::carrier::CarrierEvent;

/// Pause before a refused room is entered again. Chosen: as the longest pause between connections.
const AGAIN: Duration = Duration::from_secs(5);

/// The owner of the events has gone: the session ends.
pub(crate) struct Closed;

/// A room that is entered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// This node's key there; each room has another one.
    pub key: Arc<SecretKey>,
    /// The room.
    pub room: Room,
}

/// Wanted rooms, by this node's keys.
pub type Entries = BTreeMap<PeerId, Entry>;

/// The own key of a room, and an event in it.
pub type RoomEvent = (PeerId, CarrierEvent);

/// The own key, the recipient, and a sealed message.
pub(crate) type Message = (PeerId, PeerId, Bytes);

/// A step of a connection.
#[derive(Debug)]
pub(crate) enum Change {
    Send(ToServer),
    /// The carrier works in the room of this key, or does not.
    Tell(PeerId, Presence),
}

/// The rooms of a connection beside that of its registration.
#[derive(Debug)]
pub(crate) struct Beside {
    wanted: watch::Receiver<Entries>,
    messages: mpsc::Receiver<Message>,
    told: mpsc::Sender<RoomEvent>,
    challenge: [u8; 32],
    entered: BTreeSet<PeerId>,
    /// Time at which refused rooms are entered again.
    again_at: Option<Instant>,
    /// Whether the connection has just begun.
    is_new: bool,
}

impl Beside {
    /// Returns no rooms yet.
    pub(crate) fn new(
        wanted: watch::Receiver<Entries>,
        messages: mpsc::Receiver<Message>,
        told: mpsc::Sender<RoomEvent>,
    ) -> Self {
        Self {
            wanted,
            messages,
            told,
            challenge: [0; 32],
            entered: BTreeSet::new(),
            again_at: None,
            is_new: false,
        }
    }

    pub(crate) fn begin(&mut self, challenge: [u8; 32]) {
        self.challenge = challenge;
        (self.again_at, self.is_new) = (None, true);
        // messages for the old connection are stale
        while self.messages.try_recv().is_ok() {}
    }

    /// Handles a refusal: the room is entered again after a pause.
    pub(crate) fn refused(&mut self, own: &PeerId) {
        if self.entered.remove(own) {
            self.again_at.get_or_insert(Instant::now() + AGAIN);
        }
    }

    pub(crate) async fn tell(&self, own: PeerId, event: CarrierEvent) -> Result<(), Closed> {
        let told = self.told.send((own, event)).await;
        told.map_err(|_| Closed)
    }

    /// Waits for changes; none: the owner has gone.
    pub(crate) async fn changes(&mut self) -> Option<Vec<Change>> {
        let again = async {
            match self.again_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let begun = async {
            match self.is_new {
                true => {}
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = begun => {}
            () = again => {}
            changed = self.wanted.changed() => changed.ok()?,
            message = self.messages.recv() => {
                let (own, to, bytes) = message?;
                let bytes = bytes.to_vec();
                let sent = self.entered.contains(&own);
                let send = ToServer::SendIn { own, to, bytes };
                return Some(sent.then_some(Change::Send(send)).into_iter().collect());
            }
        }
        Some(self.step())
    }

    /// Leaves rooms that are not wanted any more, and enters others.
    fn step(&mut self) -> Vec<Change> {
        (self.again_at, self.is_new) = (None, false);
        let wanted = self.wanted.borrow_and_update();
        let mut changes = Vec::new();
        self.entered.retain(|own| {
            let stays = wanted.contains_key(own);
            if !stays {
                changes.push(Change::Send(ToServer::Leave(*own)));
            }
            stays
        });
        for (own, entry) in wanted.iter() {
            if self.entered.len() >= MAX_ENTERED {
                break;
            }
            if self.entered.insert(*own) {
                let enter = ToServer::enter(&entry.key, entry.room, &self.challenge);
                changes.push(Change::Send(enter));
                changes.push(Change::Tell(*own, Presence::CarrierUp));
            }
        }
        changes
    }

    pub(crate) async fn end(&mut self, carrier: CarrierId) -> Result<(), Closed> {
        for own in std::mem::take(&mut self.entered) {
            let down = CarrierEvent::Presence(carrier, Presence::CarrierDown);
            self.tell(own, down).await?;
        }
        Ok(())
    }
}
