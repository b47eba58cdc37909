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
use librecast::id::{NetworkId, PeerId, SecretKey};
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

/// Carriers of a pair in one period.
#[derive(Debug)]
struct Room {
    peer: PeerId,
    own: Arc<SecretKey>,
    other: PeerId,
    network: NetworkId,
    /// Whether somebody waits for it.
    seeks: bool,
    /// Its servers.
    urls: Vec<String>,
    up: BTreeSet<CarrierId>,
    record: Option<(Published, bool)>,
}

/// The room of an open key in one period.
#[derive(Debug)]
struct OpenRoom {
    open: PeerId,
    own: Arc<SecretKey>,
    at: ServerRoom,
    seeks: bool,
    urls: Vec<String>,
    up: BTreeSet<CarrierId>,
    /// The name of its record on LANs.
    instance: String,
    /// The key of its item in a DHT.
    item: [u8; 32],
    /// The record, if the key is this host's.
    record: Option<Published>,
}

/// Carriers of all pairs.
#[derive(Debug)]
pub(crate) struct Finding {
    rooms: BTreeMap<ViewId, Room>,
    open: BTreeMap<ViewId, OpenRoom>,
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
            open: BTreeMap::new(),
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
            other: started.other,
            network: started.network,
            seeks,
            urls: Vec::new(),
            up: BTreeSet::new(),
            record: None,
        };
        self.rooms.insert(started.node, room);
        self.set_places(&started.peer, places, seeks);
    }

    pub(crate) fn end(&mut self, node: ViewId) {
        self.rooms.remove(&node);
        self.names.retain(|_, other| *other != node);
        self.instances.retain(|_, other| *other != node);
        self.set_servers();
        self.announce();
    }

    /// Enters the room of an open key at these places.
    pub(crate) fn enter(&mut self, entered: &RoomEntered, places: &[Place]) {
        let room = OpenRoom {
            open: entered.open,
            own: Arc::clone(&entered.own),
            at: ServerRoom(entered.at),
            seeks: entered.seeks,
            urls: urls_of(places),
            up: BTreeSet::new(),
            instance: instance_name(&entered.name),
            item: entered.item,
            record: None,
        };
        self.open.insert(entered.room, room);
        self.set_servers();
    }

    pub(crate) fn leave(&mut self, room: ViewId) {
        self.open.remove(&room);
        self.set_servers();
        self.announce();
    }

    /// Returns whether it is the room of an open key.
    pub(crate) fn is_open(&self, room: ViewId) -> bool {
        self.open.contains_key(&room)
    }

    /// Announces the record of this host's open key on LANs.
    pub(crate) fn set_open_record(&mut self, room: ViewId, record: Published) {
        if let Some(room) = self.open.get_mut(&room) {
            room.record = Some(record);
            self.announce();
        }
    }

    /// Sends a message in the room of an open key.
    pub(crate) fn say(&self, room: ViewId, to: PeerId, bytes: &Bytes) {
        if let Some(room) = self.open.get(&room) {
            self.servers.send(room.own.peer_id(), to, bytes);
        }
    }

    /// Sets the places of a pair.
    pub(crate) fn set_places(&mut self, peer: &PeerId, places: &[Place], seeks: bool) {
        let urls = urls_of(places);
        for room in self.open.values_mut().filter(|room| room.open == *peer) {
            room.urls.clone_from(&urls);
        }
        for room in self.rooms.values_mut().filter(|room| room.peer == *peer) {
            room.seeks = seeks;
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
                    room: ServerRoom::of(&room.network),
                    seeks: room.seeks,
                });
            }
        }
        for (node, room) in &self.open {
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
            let rooms = self.rooms.iter().map(|(node, room)| (node, &room.urls));
            let open = self.open.iter().map(|(node, room)| (node, &room.urls));
            for (node, urls) in rooms.chain(open) {
                let carriers = urls.iter().filter_map(|url| self.servers.carrier(url));
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
        let is_used = !self.rooms.is_empty() || !self.open.is_empty();
        let Some(interfaces) = interfaces.filter(|_| is_used) else {
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
        let open = self.open.values().filter_map(|room| room.record.as_ref());
        if let Some(lan) = &self.lan {
            lan.announce(announced.chain(open).cloned());
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
        let mut open = self.open.iter();
        let is_its = |(_, room): &(&ViewId, &OpenRoom)| room.seeks && room.instance == instance;
        let known = self.instances.get(instance).copied();
        let known = known.or_else(|| open.find(is_its).map(|(id, _)| *id));
        Some((known?, kind, sealed))
    }

    /// Sets the DHT's entry nodes; none: it is not used.
    pub(crate) fn set_dht(&mut self, bootstrap: Option<&[String]>) {
        let is_used = !self.rooms.is_empty() || !self.open.is_empty();
        let Some(bootstrap) = bootstrap.filter(|_| is_used) else {
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
        let called = self.open.values().filter(|room| room.seeks);
        let called = called.take(MAX_DHT).map(|room| Base58(room.item));
        plan.seek.extend(called);
        // who is sought comes first
        let mut rooms: Vec<_> = self.rooms.values().collect();
        rooms.sort_by_key(|room| !room.seeks);
        let mut peers = BTreeSet::new();
        for room in rooms {
            peers.insert(room.peer);
            let Some((record, _)) = room.record.as_ref().filter(|_| peers.len() <= MAX_DHT) else {
                continue;
            };
            let items = record.epoch.items(&room.own, record, time);
            let key = record.epoch.key_of(&room.other, time);
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

    /// Returns the room of the called key whose item in the DHT has this key.
    pub(crate) fn called_at(&self, item: &[u8; 32]) -> Option<ViewId> {
        let mut open = self.open.iter();
        let found = open.find(|(_, room)| room.seeks && room.item == *item);
        found.map(|(id, _)| *id)
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
        if let Some(room) = self.open.get_mut(&node) {
            match works {
                true => room.up.insert(carrier),
                false => room.up.remove(&carrier),
            };
        }
    }

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
        let mut by: BTreeMap<&String, bool> = BTreeMap::new();
        for room in self.open.values().filter(|room| !room.seeks) {
            for url in &room.urls {
                let works = self.servers.carrier(url);
                *by.entry(url).or_default() |= works.is_some_and(|c| room.up.contains(&c));
            }
        }
        let lan = self.lan.iter().map(|_| "lan".to_owned());
        let dht = self.dht.iter().map(|_| match self.is_held() {
            true => "dht".to_owned(),
            false => "(dht)".to_owned(),
        });
        let servers = by.into_iter().map(|(url, works)| match works {
            true => url.clone(),
            false => format!("({url})"),
        });
        lan.chain(dht).chain(servers).collect()
    }

    /// Returns whether a server introduces callers of this host's open key.
    pub(crate) fn has_server(&self) -> bool {
        let mut own = self.open.values().filter(|room| !room.seeks);
        own.any(|room| !room.up.is_empty())
    }

    /// Returns the carriers of a pair; those that do not work are in brackets.
    pub(crate) fn by(&self, peer: &PeerId) -> Vec<String> {
        let mut by: BTreeMap<String, bool> = BTreeMap::new();
        for room in self.rooms.values().filter(|room| room.peer == *peer) {
            for url in &room.urls {
                let works = self.servers.carrier(url);
                let works = works.is_some_and(|carrier| room.up.contains(&carrier));
                *by.entry(url.clone()).or_default() |= works;
            }
        }
        let lan = self.lan.iter().map(|_| "lan".to_owned());
        let dht = self.dht.iter().map(|_| "dht".to_owned());
        let servers = by.into_iter().map(|(url, works)| match works {
            true => url,
            false => format!("({url})"),
        });
        lan.chain(dht).chain(servers).collect()
    }

    pub(crate) fn urls(&self) -> BTreeSet<String> {
        let rooms = self.rooms.values().map(|room| &room.urls);
        let open = self.open.values().map(|room| &room.urls);
        rooms.chain(open).flatten().cloned().collect()
    }

    /// Ends all, with a goodbye on LANs.
    pub(crate) async fn stop(&mut self) {
        self.rooms.clear();
        self.open.clear();
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
