//! How pairs are found: a room at servers for each, and one LAN and one DHT for all.
//!
//! `servers` has the connections to servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::server::Room as ServerRoom;
use lcroute_overlay::{CarrierId, CarrierKind, Published};
use lcroute_signalling::dht::{Dht, PROGRAM};
use lcroute_signalling::{CarrierEvent, Lan, PathChange, instance_name};
use librecast::id::{PeerId, SecretKey};
use librecast::outside::{MAX_PLACES, Place};
use librecast::reach::{Base58, Item, MAX_ITEMS, MAX_KEYS, Plan};
use librecast::time::UnixTime;
use librecast_program::executable::start_on_socket;
use tokio::sync::mpsc;

use crate::arrived::Arrived;
use crate::pairs::{RoomEntered, Started};
use crate::servers::{Servers, Wanted, down};
use crate::share::ViewId;

/// The LAN, as a carrier of each pair.
pub(crate) const LAN: CarrierId = CarrierId(u32::MAX - 8);
/// The DHT, as a carrier of each pair.
pub(crate) const DHT: CarrierId = CarrierId(u32::MAX - 9);
/// Most pairs in the DHT. Chosen: each costs some look-ups a minute.
const MAX_DHT: usize = 32;
/// Events that wait for the program.
const EVENTS: usize = 1_024;

/// Carriers of a pair, or of an open key, in one period.
#[derive(Debug)]
struct Room {
    /// The other of the pair, or the open key.
    peer: PeerId,
    own: Arc<SecretKey>,
    /// The room at its servers.
    at: ServerRoom,
    /// Whether somebody waits for it.
    seeks: bool,
    /// Its servers.
    urls: Vec<String>,
    up: BTreeSet<CarrierId>,
    /// The record, and whether LANs have it.
    record: Option<(Published, bool)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Pair {
        /// The other's key in the room.
        other: PeerId,
    },
    Open {
        /// The name of its record on LANs.
        instance: String,
        /// The key of its item in a DHT.
        item: [u8; 32],
    },
}

impl Room {
    fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Open { .. })
    }
}

/// Carriers of all pairs.
#[derive(Debug)]
pub(crate) struct Finding {
    rooms: BTreeMap<ViewId, Room>,
    servers: Servers,
    /// Pairs by the names of the others' records, and by their instance names on a LAN.
    names: BTreeMap<[u8; 32], ViewId>,
    instances: BTreeMap<String, ViewId>,
    lan: Option<Lan>,
    dht: Option<Dht>,
    /// Items of this host's open key for the DHT.
    items: Vec<Item>,
    /// How many items there are for it, and how many its nodes hold.
    planned: usize,
    held: usize,
    told: mpsc::Sender<Arrived>,
}

impl Finding {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Arrived>) {
        let (told, events) = mpsc::channel(EVENTS);
        let finding = Self {
            rooms: BTreeMap::new(),
            servers: Servers::new(told.clone()),
            names: BTreeMap::new(),
            instances: BTreeMap::new(),
            lan: None,
            dht: None,
            items: Vec::new(),
            planned: 0,
            held: 0,
            told,
        };
        (finding, events)
    }

    /// Starts carriers of a pair at these places. `seeks`: somebody waits for it.
    pub(crate) fn start(&mut self, started: &Started, places: &[Place], seeks: bool) {
        let room = Room {
            peer: started.peer,
            own: Arc::clone(&started.own),
            at: ServerRoom::of(&started.network),
            seeks,
            urls: urls_of(places),
            up: BTreeSet::new(),
            record: None,
            kind: Kind::Pair {
                other: started.other,
            },
        };
        self.rooms.insert(started.node, room);
        self.set_servers();
    }

    /// Enters the room of an open key at these places.
    pub(crate) fn enter(&mut self, entered: &RoomEntered, places: &[Place]) {
        let room = Room {
            peer: entered.open,
            own: Arc::clone(&entered.own),
            at: ServerRoom(entered.at),
            seeks: entered.seeks,
            urls: urls_of(places),
            up: BTreeSet::new(),
            record: None,
            kind: Kind::Open {
                instance: instance_name(&entered.name),
                item: entered.item,
            },
        };
        self.rooms.insert(entered.room, room);
        self.set_servers();
    }

    /// Ends the carriers of a pair, or of an open key.
    pub(crate) fn end(&mut self, node: ViewId) {
        self.rooms.remove(&node);
        self.names.retain(|_, other| *other != node);
        self.instances.retain(|_, other| *other != node);
        self.set_servers();
        self.announce();
    }

    /// Returns whether it is the room of an open key.
    pub(crate) fn is_open(&self, room: ViewId) -> bool {
        self.rooms.get(&room).is_some_and(Room::is_open)
    }

    /// Sets the places of a pair.
    pub(crate) fn set_places(&mut self, peer: &PeerId, places: &[Place], seeks: bool) {
        let urls = urls_of(places);
        for room in self.rooms.values_mut().filter(|room| room.peer == *peer) {
            // an open key is called, or not, as long as its room stays
            if !room.is_open() {
                room.seeks = seeks;
            }
            room.urls.clone_from(&urls);
        }
        self.set_servers();
    }

    /// Enters the rooms of all pairs at their servers, and leaves others.
    fn set_servers(&mut self) {
        let mut wanted: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
        for (node, room) in &self.rooms {
            for url in &room.urls {
                wanted.entry(url.clone()).or_default().push(Wanted {
                    node: *node,
                    own: Arc::clone(&room.own),
                    room: room.at,
                    seeks: room.seeks,
                });
            }
        }
        self.servers.set(wanted);
    }

    /// Returns the pair, or the room of an open key, that has this own key.
    pub(crate) fn owner(&self, own: &PeerId) -> Option<ViewId> {
        self.servers.owner(own)
    }

    /// Registers anew at servers once a day, unless one relays: that is a matter of its registration.
    pub(crate) fn renew(&mut self, relays: bool) -> Vec<(ViewId, CarrierEvent)> {
        let mut ended = Vec::new();
        if !relays && self.servers.renew() {
            for (node, room) in &self.rooms {
                let carriers = room.urls.iter().filter_map(|url| self.servers.carrier(url));
                ended.extend(carriers.map(|carrier| (*node, down(carrier))));
            }
            self.set_servers();
        }
        ended
    }

    /// Sets the names under which a pair's records are on LANs.
    pub(crate) fn set_names(&mut self, node: ViewId, names: &[[u8; 32]]) {
        self.names.retain(|_, other| *other != node);
        self.instances.retain(|_, other| *other != node);
        let instances = names.iter().map(|name| (instance_name(name), node));
        self.instances.extend(instances);
        self.names.extend(names.iter().map(|name| (*name, node)));
    }

    /// Sets the LANs; none: they are not used.
    pub(crate) fn set_lans(&mut self, interfaces: Option<BTreeSet<String>>, port: u16) {
        let Some(interfaces) = interfaces.filter(|_| !self.rooms.is_empty()) else {
            self.lan = None;
            return;
        };
        if self.lan.is_none() {
            let (events, mut received) = mpsc::channel(EVENTS);
            let told = self.told.clone();
            // ends with the carrier, which has the other end
            tokio::spawn(async move {
                while let Some(event) = received.recv().await {
                    if told.send(Arrived::Lan(event)).await.is_err() {
                        return;
                    }
                }
            });
            self.lan = Some(Lan::start(LAN, port, events));
            self.announce();
        }
        if let Some(lan) = &self.lan {
            lan.set_interfaces(interfaces);
        }
    }

    /// Keeps the record of a pair, and announces it on LANs if it is to be.
    pub(crate) fn set_record(&mut self, node: ViewId, record: Published, announced: bool) {
        if let Some(room) = self.rooms.get_mut(&node) {
            room.record = Some((record, announced));
            self.announce();
        }
    }

    fn announce(&self) {
        let records = self.rooms.values().filter_map(|room| room.record.as_ref());
        let announced = records.filter(|(_, announced)| *announced);
        let announced = announced.map(|(record, _)| record);
        if let Some(lan) = &self.lan {
            lan.announce(announced.cloned());
        }
    }

    /// Returns the pair, or the room of an open key, and the record in an event of the LAN.
    pub(crate) fn record_of(&self, event: CarrierEvent) -> Option<(ViewId, CarrierKind, Vec<u8>)> {
        let CarrierEvent::Record {
            kind, name, sealed, ..
        } = event
        else {
            return None;
        };
        let instance = name.split('.').next()?;
        let known = self.instances.get(instance).copied();
        let called = || self.called().find(|(_, named, _)| *named == instance);
        let known = known.or_else(|| called().map(|(id, ..)| id));
        Some((known?, kind, sealed))
    }

    /// Sets the DHT's entry nodes; none: it is not used.
    pub(crate) fn set_dht(&mut self, bootstrap: Option<&[String]>) {
        let Some(bootstrap) = bootstrap.filter(|_| !self.rooms.is_empty()) else {
            (self.dht, self.held) = (None, 0);
            return;
        };
        if self.dht.as_ref().is_none_or(|dht| !dht.runs()) {
            let (said, mut received) = mpsc::channel(EVENTS);
            let told = self.told.clone();
            // ends with the program, which has the other end
            tokio::spawn(async move {
                while let Some(line) = received.recv().await {
                    if told.send(Arrived::Dht(line)).await.is_err() {
                        return;
                    }
                }
            });
            let program = start_on_socket(PROGRAM);
            self.dht = match program.and_then(|stream| Dht::start(stream, said)) {
                Ok(dht) => Some(dht),
                Err(e) => {
                    tracing::warn!("lcroute-reach: {e}: no DHT");
                    None
                }
            };
        }
        let Some(dht) = &self.dht else { return };
        let time = UnixTime::now();
        let mut plan = Plan {
            bootstrap: bootstrap.to_vec(),
            hold: self.items.clone(),
            ..Plan::default()
        };
        let called = self.called().take(MAX_DHT);
        plan.seek.extend(called.map(|(.., item)| Base58(*item)));
        // who is sought comes first
        let mut rooms: Vec<_> = self.rooms.values().collect();
        rooms.sort_by_key(|room| !room.seeks);
        let mut peers = BTreeSet::new();
        for room in rooms {
            let Kind::Pair { other } = &room.kind else {
                continue;
            };
            peers.insert(room.peer);
            let Some((record, _)) = room.record.as_ref().filter(|_| peers.len() <= MAX_DHT) else {
                continue;
            };
            let items = record.epoch.items(&room.own, record, time);
            let key = record.epoch.key_of(other, time);
            if plan.hold.len() + items.len() <= MAX_ITEMS && plan.seek.len() < MAX_KEYS {
                plan.hold.extend(items);
                match room.seeks {
                    true => plan.seek.push(key),
                    false => plan.watch.push(key),
                }
            }
        }
        self.planned = plan.hold.len();
        dht.set(plan);
    }

    /// Sets the items of this host's open key for the DHT.
    pub(crate) fn set_items(&mut self, items: Vec<Item>) {
        self.items = items;
    }

    /// Notes how many items nodes of the DHT hold.
    pub(crate) fn note_stored(&mut self, held: usize) {
        self.held = held;
    }

    /// Returns whether nodes of the DHT hold all items, that of the open key among them.
    fn is_held(&self) -> bool {
        !self.items.is_empty() && self.held >= self.planned
    }

    /// Returns the rooms of called keys, with the names of their records on LANs and in a DHT.
    fn called(&self) -> impl Iterator<Item = (ViewId, &str, &[u8; 32])> {
        let rooms = self.rooms.iter().filter(|(_, room)| room.seeks);
        rooms.filter_map(|(id, room)| match &room.kind {
            Kind::Open { instance, item } => Some((*id, &**instance, item)),
            Kind::Pair { .. } => None,
        })
    }

    /// Returns the room of the called key whose item in the DHT has this key.
    pub(crate) fn called_at(&self, item: &[u8; 32]) -> Option<ViewId> {
        let mut called = self.called();
        let found = called.find(|(.., key)| *key == item);
        found.map(|(id, ..)| id)
    }

    /// Returns the pair whose record has this name.
    pub(crate) fn named(&self, name: &[u8; 32]) -> Option<ViewId> {
        self.names.get(name).copied()
    }

    /// Notes whether a carrier works.
    pub(crate) fn note(&mut self, node: ViewId, carrier: CarrierId, works: bool) {
        if let Some(room) = self.rooms.get_mut(&node) {
            match works {
                true => room.up.insert(carrier),
                false => room.up.remove(&carrier),
            };
        }
    }

    /// Sends a message in the room of a pair, or of an open key.
    pub(crate) fn send(&self, node: ViewId, to: PeerId, bytes: &Bytes) {
        if let Some(room) = self.rooms.get(&node) {
            self.servers.send(room.own.peer_id(), to, bytes);
        }
    }

    /// Reports changed addresses of this host to all servers' connections.
    pub(crate) fn addresses_changed(&self) {
        self.servers.path_changed(PathChange::Addresses);
    }

    /// Returns the carriers of this host's open key; those that do not work are in brackets.
    pub(crate) fn open_by(&self) -> Vec<String> {
        let servers = self.servers_of(self.own_open());
        let lan = self.lan.iter().map(|_| "lan".to_owned());
        let dht = self.dht.iter().map(|_| match self.is_held() {
            true => "dht".to_owned(),
            false => "(dht)".to_owned(),
        });
        lan.chain(dht).chain(servers).collect()
    }

    /// Returns whether a server introduces callers of this host's open key.
    pub(crate) fn has_server(&self) -> bool {
        self.own_open().any(|room| !room.up.is_empty())
    }

    /// Returns the rooms of this host's open key.
    fn own_open(&self) -> impl Iterator<Item = &Room> {
        let rooms = self.rooms.values();
        rooms.filter(|room| room.is_open() && !room.seeks)
    }

    /// Returns the carriers of a pair; those that do not work are in brackets.
    pub(crate) fn by(&self, peer: &PeerId) -> Vec<String> {
        let its = |room: &&Room| room.peer == *peer && !room.is_open();
        let servers = self.servers_of(self.rooms.values().filter(its));
        let lan = self.lan.iter().map(|_| "lan".to_owned());
        let dht = self.dht.iter().map(|_| "dht".to_owned());
        lan.chain(dht).chain(servers).collect()
    }

    /// Returns the servers of these rooms; those that do not work are in brackets.
    fn servers_of<'a>(&self, rooms: impl Iterator<Item = &'a Room>) -> Vec<String> {
        let mut by: BTreeMap<&String, bool> = BTreeMap::new();
        for room in rooms {
            for url in &room.urls {
                let works = self.servers.carrier(url);
                *by.entry(url).or_default() |= works.is_some_and(|c| room.up.contains(&c));
            }
        }
        let servers = by.into_iter().map(|(url, works)| match works {
            true => url.clone(),
            false => format!("({url})"),
        });
        servers.collect()
    }

    pub(crate) fn urls(&self) -> BTreeSet<String> {
        let urls = self.rooms.values().flat_map(|room| &room.urls);
        urls.cloned().collect()
    }

    /// Ends all, with a goodbye on LANs.
    pub(crate) async fn stop(&mut self) {
        self.rooms.clear();
        self.servers.clear();
        if let Some(lan) = self.lan.take() {
            lan.end().await;
        }
    }
}

/// Returns the URLs of places, each once.
fn urls_of(places: &[Place]) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for place in places.iter().take(MAX_PLACES) {
        if !urls.iter().any(|url| url == place.server()) {
            urls.push(place.server().to_owned());
        }
    }
    urls
}
