//! Connections with many rooms, for their owner.

use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::CarrierId;
use lcroute_overlay::server::{Role, Room};
use librecast::cert::Chain;
use librecast::id::{NetworkId, PeerId, SecretKey};
use tokio::sync::{mpsc, watch};

use crate::beside::{Beside, Entries, Message, RoomEvent};
use crate::carrier::{Carrier, CarrierEvent, PathChange};
use crate::client::{Me, WebSocket};
use crate::proxy::Proxy;
use crate::ranking::Ranking;

/// Maximum number of sealed messages that wait for one server.
const QUEUE: usize = 256;

/// The registration of a connection with many rooms.
#[derive(Debug)]
pub struct Registrant {
    /// Its key.
    pub key: Arc<SecretKey>,
    /// The network whose room it registers in.
    pub network: NetworkId,
    /// Its certificates, for the server's relay.
    pub chain: Chain,
}

/// A connection to a signalling server that holds many rooms. Dropping it closes the connection.
#[derive(Debug)]
pub struct ManyRooms {
    socket: WebSocket,
    rooms: watch::Sender<Entries>,
    queue: mpsc::Sender<Message>,
    _chain: watch::Sender<Option<Chain>>,
}

impl ManyRooms {
    /// Connects without end; to be called within a tokio runtime. `events` are those of the
    /// registration, `told` those of the other rooms.
    #[must_use]
    pub fn start(
        (url, proxy): (&str, Option<Proxy>),
        carrier: CarrierId,
        registrant: Registrant,
        events: mpsc::Sender<CarrierEvent>,
        told: mpsc::Sender<RoomEvent>,
    ) -> Self {
        let room = Room::of(&registrant.network);
        let (chain, shown) = watch::channel(Some(registrant.chain));
        let me = Me {
            key: registrant.key,
            room,
            role: Role::Router,
            chain: shown,
        };
        let (queue, messages) = mpsc::channel(QUEUE);
        let rooms = watch::Sender::new(Entries::new());
        let beside = Beside::new(rooms.subscribe(), messages, told);
        // all its rooms are here: no other server stands in for it
        let rank = Ranking::default().add(&room, url, true);
        Self {
            socket: WebSocket::start_with((url, proxy), carrier, rank, me, events, Some(beside)),
            rooms,
            queue,
            _chain: chain,
        }
    }

    /// Sets the rooms; those beyond `MAX_ENTERED` have no effect.
    pub fn set(&self, rooms: Entries) {
        self.rooms.send_if_modified(|known| {
            let is_new = !known.keys().eq(rooms.keys());
            *known = rooms;
            is_new
        });
    }

    /// Accepts a sealed message in the room of `own`; false if there is no room for it.
    #[must_use]
    pub fn send(&self, own: PeerId, to: PeerId, sealed: &Bytes) -> bool {
        self.queue.try_send((own, to, sealed.clone())).is_ok()
    }

    /// Handles a possible change of paths.
    pub fn path_changed(&self, change: PathChange) {
        self.socket.path_changed(change);
    }
}
