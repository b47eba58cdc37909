//! Open keys: this host's own, which anybody may call, and those that this host calls.
//!
//! ```text
//! message in the room of an open key (librecast::open): kind 8 | content
//!   1  D to G: statement        D sends it to each caller
//!   2  both:   sealed message   as in the room of a pair
//! ```
//!
//! D is the host's key of the day, G the caller's. With the statement, or a record of a LAN, G and D
//! are a pair at the caller; with the first sealed message, or a call with its cookie, at the host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::{
    Candidate, CandidateKind, CarrierId, CarrierKind, Connections, OpenRecord, Presence,
    PresenceRecord, Published, RECORD_LIFETIME, Rendezvous,
};
use lcroute_signalling::CarrierEvent;
use librecast::bucket::{Bucket, Rate};
use librecast::id::{LinkId, PeerId, SecretKey};
use librecast::open::{STATEMENT_LEN, Statement, periods, room};
use librecast::outside::Caller;
use librecast::pair::{PERIOD, PairSecret};
use librecast::time::{Duration, Instant, UnixTime};

use super::{Intent, Pair, Pairs, PairsOutput};
use crate::drops::DropReason;
use crate::guests::{self, Guests, Met, Origin};
use crate::port::{is_from_afar, is_public};
use crate::share::ViewId;

/// Kinds of messages in the room of an open key.
const STATEMENT: u8 = 1;
const SEALED: u8 = 2;
/// Statements to callers in rooms, and those that a caller verifies.
const STATEMENTS: Rate = Rate::per_second(16, 64);
/// Callers that wait for a statement: as many nodes as a public server has in a room.
const MAX_ASKING: usize = 256;
/// Interval at which they get it.
const ASKING_EVERY: Duration = Duration::from_millis(100);
/// Most keys of the day of one called key: of its periods.
const MAX_DAYS: usize = 4;
/// Time in which a host that names this one shows itself, before its open key is called. Chosen.
const SHOWS_WITHIN: Duration = Duration::from_millis(600);
/// Time for one way to make a link before the other is tried: as long as an attempt.
const TURN: Duration = Duration::from_secs(10);
/// The first number of rooms: views number themselves from 0.
const FIRST_ROOM: u32 = 1 << 31;

/// A period of this host's open key.
#[derive(Debug)]
pub struct OpenDay {
    /// Its number.
    pub period: u64,
    /// The key of the day.
    pub key: Arc<SecretKey>,
    /// The open key's statement about it.
    pub statement: [u8; STATEMENT_LEN],
}

/// The room of an open key, as servers need it.
#[derive(Debug)]
pub struct RoomEntered {
    /// Its number.
    pub room: ViewId,
    /// The open key.
    pub open: PeerId,
    /// Whether this host calls it.
    pub seeks: bool,
    /// The own key there.
    pub own: Arc<SecretKey>,
    /// The name of the room at servers.
    pub at: [u8; 32],
    /// The name of its record on LANs.
    pub name: [u8; 32],
    /// The key of its item in a DHT.
    pub item: [u8; 32],
}

/// A pair that is a call of an open key.
#[derive(Debug)]
pub(crate) struct OfCall {
    room: ViewId,
    /// The called key; at the host the caller's key of this call.
    pub(crate) stands_for: PeerId,
    is_guest: bool,
    /// The only period of its pair: two links between the same sockets disturb each other.
    pub(crate) period: u64,
    carriers: BTreeSet<CarrierId>,
    /// Addresses of the records of a LAN and of a DHT, and the kind of carrier; none: they met at a
    /// server.
    candidates: [Option<(CarrierKind, Vec<Candidate>)>; 2],
}

impl OfCall {
    pub(crate) fn is_guest(&self) -> bool {
        self.is_guest
    }

    /// Returns all addresses, those of a LAN first: a DHT may have an older record. Those of the DHT
    /// stay beside them: any host of the LAN may repeat an old record.
    pub(crate) fn candidates(&self) -> Option<(CarrierKind, Vec<Candidate>)> {
        let mut found = self.candidates.iter().flatten();
        let (kind, mut all) = found.next()?.clone();
        for candidate in found.flat_map(|(_, others)| others) {
            if !all.contains(candidate) {
                all.push(*candidate);
            }
        }
        Some((kind, all))
    }
}

#[derive(Debug)]
struct Room {
    open: PeerId,
    period: u64,
    own: Arc<SecretKey>,
    /// Of this host's own open key.
    statement: Option<[u8; STATEMENT_LEN]>,
}

/// A key that this host calls.
#[derive(Debug, Default)]
struct Called {
    rooms: BTreeSet<ViewId>,
    /// Its keys of the day: pairs.
    days: BTreeSet<PeerId>,
    /// The node whose link carries the streams.
    used: Option<ViewId>,
}

/// All open keys.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) guests: Guests,
    rooms: BTreeMap<ViewId, Room>,
    called: BTreeMap<PeerId, Called>,
    asking: VecDeque<(ViewId, PeerId)>,
    statements: Bucket,
    next_room: u32,
    /// A caller from the Internet has arrived without a server.
    pub(super) called_from_afar: bool,
    /// Addresses of the last record.
    here: BTreeSet<IpAddr>,
}

impl Opened {
    pub(crate) fn new(guests: Guests, now: Instant) -> Self {
        Self {
            guests,
            rooms: BTreeMap::new(),
            called: BTreeMap::new(),
            asking: VecDeque::new(),
            statements: Bucket::full(now),
            next_room: FIRST_ROOM,
            called_from_afar: false,
            here: BTreeSet::new(),
        }
    }

    pub(crate) fn used(&self, peer: &PeerId) -> Option<ViewId> {
        self.called.get(peer)?.used
    }

    pub(crate) fn use_node(&mut self, peer: &PeerId, node: ViewId) {
        if let Some(called) = self.called.get_mut(peer) {
            called.used = Some(node);
        }
    }

    fn own_rooms(&self) -> impl Iterator<Item = (&ViewId, &Room)> {
        let rooms = self.rooms.iter();
        rooms.filter(|(_, room)| room.statement.is_some())
    }
}

/// Returns the period of a pair around the middle of an open key's, so that clocks may be half a day
/// apart.
fn of_room(secret: &PairSecret, open: &PeerId, period: u64) -> u64 {
    let middle = periods(open).start(period).saturating_add(PERIOD / 2);
    secret.period(UnixTime::from_secs(middle))
}

/// This host's own key.
impl Pairs {
    /// Opens the key of this host, with these days; with none, it is not open any more.
    pub fn set_open(&mut self, open: PeerId, days: Vec<OpenDay>, now: Instant) {
        self.now = now;
        let rooms = self.opened.own_rooms();
        let over = rooms.filter(|(_, room)| {
            let is_kept = |day: &OpenDay| day.key.peer_id() == room.own.peer_id();
            !days.iter().any(is_kept)
        });
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.leave(id);
        }
        if days.is_empty() {
            for guest in self.opened.guests.keys() {
                self.end_guest(&guest);
            }
        }
        let new = days.into_iter().filter(|day| {
            let own = day.key.peer_id();
            !self
                .opened
                .own_rooms()
                .any(|(_, room)| room.own.peer_id() == own)
        });
        for day in new.collect::<Vec<_>>() {
            let room = Room {
                open,
                period: day.period,
                own: day.key,
                statement: Some(day.statement),
            };
            self.enter(room);
        }
        self.publish_open();
        self.review();
    }

    /// Returns callers with links.
    pub fn guests(&self) -> Vec<Caller> {
        self.opened.guests.with_links()
    }

    /// Returns whether a caller from the Internet has arrived without a server.
    pub fn is_called_from_afar(&self) -> bool {
        self.opened.called_from_afar
    }

    /// Makes the records for LANs and a DHT.
    pub(super) fn publish_open(&mut self) {
        let mut candidates = self.share.webrtc().candidates();
        // there is room for eight, and other networks reach these alone
        candidates.sort_by_key(|candidate| candidate.kind == CandidateKind::Host);
        let here = candidates.iter().map(|c| c.addr.ip()).collect();
        let before = std::mem::replace(&mut self.opened.here, here);
        // at another place, callers may not arrive
        self.opened.called_from_afar &= before.is_empty() || !before.is_disjoint(&self.opened.here);
        // any holder of the key reads it: it shows no network at home
        let public = candidates.iter().filter(|c| is_public(c.addr.ip()));
        let public: Vec<_> = public.copied().collect();
        let mut records = Vec::new();
        for (id, room) in self.opened.own_rooms() {
            let Some(statement) = &room.statement else {
                continue;
            };
            let nonces = [self.random.array(), self.random.array()];
            let [on_lans, in_dht] = [&candidates, &public];
            let seal = |candidates: &[Candidate], nonce| {
                let own = (&*room.own, statement);
                OpenRecord::seal((&room.open, room.period), own, candidates, nonce)
            };
            match (seal(on_lans, nonces[0]), seal(in_dht, nonces[1])) {
                (Ok((name, sealed)), Ok((_, item))) => {
                    let item = (!public.is_empty()).then_some(item);
                    records.push((*id, room.open, room.period, name, sealed, item));
                }
                (Err(e), _) | (_, Err(e)) => tracing::error!("{e}"),
            }
        }
        for (room, open, period, name, sealed, item) in records {
            let record = Published {
                name,
                sealed: sealed.into(),
                until: librecast::open::until(&open, period),
                epoch: Rendezvous::new(open),
            };
            self.outputs.push_back(PairsOutput::OpenRecord {
                room,
                open,
                period,
                record,
                item,
            });
        }
    }

    /// Handles a call from the UDP socket.
    pub(super) fn handle_call(&mut self, from: SocketAddr, to_local: SocketAddr, datagram: &[u8]) {
        let (now, time) = (self.now, self.config.clock.now());
        if self.opened.own_rooms().next().is_none() {
            return self.share.count(DropReason::OutsideUnknown);
        }
        let days = { self.opened.rooms.values() }.filter(|room| room.statement.is_some());
        let days = days.map(|room| (room.open, room.period));
        match { &mut self.opened.guests }.handle(from, datagram, days, time, now) {
            Met::Dropped(reason) => self.share.count(reason),
            Met::Answer(answer) => {
                self.share.count(DropReason::OutsideCookie);
                self.share.answer(to_local, from, &answer);
            }
            Met::Call(guest, period) => {
                self.opened.called_from_afar |= is_from_afar(from);
                let of_period =
                    |(id, room): (&ViewId, &Room)| (room.period as u8 == period).then_some(*id);
                let room = self.opened.own_rooms().find_map(of_period);
                match room {
                    Some(room) => drop(self.admit(room, guest, Origin::of(from.ip()))),
                    None => self.share.count(DropReason::OutsideUnknown),
                }
            }
        }
    }

    /// Gives a caller a place; returns whether it has one.
    fn admit(&mut self, room: ViewId, guest: PeerId, origin: Origin) -> bool {
        if self.opened.guests.knows(&guest) {
            return true;
        }
        let Some(known) = self.opened.rooms.get(&room) else {
            return false;
        };
        let (own, open, period) = (known.own.clone(), known.open, known.period);
        if self.pairs.contains_key(&guest) {
            self.share.count(DropReason::OutsideUnknown);
            return false;
        }
        match self.opened.guests.admit(guest, origin, self.now) {
            Err(reason) => {
                self.share.count(reason);
                return false;
            }
            Ok(Some(gone)) => self.end_guest(&gone),
            Ok(None) => {}
        }
        let Ok(secret) = PairSecret::agree(&own, &guest) else {
            self.opened.guests.remove(&guest);
            self.share.count(DropReason::OutsideUnknown);
            return false;
        };
        let call = OfCall {
            room,
            stands_for: guest,
            is_guest: true,
            period: of_room(&secret, &open, period),
            carriers: BTreeSet::new(),
            candidates: [None, None],
        };
        let wish = Intent {
            waits: true,
            seeks: false,
        };
        self.add_call(secret, wish, call);
        true
    }

    pub(super) fn guest_linked(&mut self, guest: PeerId, node: ViewId, link: LinkId) {
        let overlay = self.nodes.get(&node).map(|node| &node.overlay);
        let path = overlay.and_then(|overlay| overlay.connections().path(link));
        let at = path.map(|path| path.remote.ip());
        match self.opened.guests.linked(&guest, at, self.now) {
            Ok(gives_way) => {
                if let Some(gone) = gives_way {
                    self.end_guest(&gone);
                }
            }
            Err(reason) => {
                self.share.count(reason);
                self.end_guest(&guest);
            }
        }
        self.outputs.push_back(PairsOutput::Guests);
    }

    pub(super) fn guest_unlinked(&mut self, guest: PeerId) {
        let pair = self.pairs.get(&guest).map(|pair| pair.nodes.values());
        let mut nodes = pair.into_iter().flatten();
        let is_linked = |id: &ViewId| self.nodes.get(id).is_some_and(|n| n.linked.is_some());
        if !nodes.any(is_linked) {
            self.opened.guests.unlinked(&guest, self.now);
            self.outputs.push_back(PairsOutput::Guests);
        }
    }

    fn end_guest(&mut self, guest: &PeerId) {
        self.opened.guests.remove(guest);
        self.forget(guest);
        self.outputs.push_back(PairsOutput::Guests);
    }
}

/// Keys that this host calls.
impl Pairs {
    /// Calls a key, which may be open.
    pub(super) fn call(&mut self, open: PeerId) {
        if self.opened.called.contains_key(&open) {
            return;
        }
        self.opened.called.insert(open, Called::default());
        // clocks may differ by half a day
        let present = periods(&open).at(self.config.clock.now());
        for period in [present, present.saturating_sub(1), present + 1] {
            let seed = self.random.array();
            let room = Room {
                open,
                period,
                own: Arc::new(SecretKey::from_seed(&seed)),
                statement: None,
            };
            let id = self.enter(room);
            if let Some(called) = self.opened.called.get_mut(&open) {
                called.rooms.insert(id);
            }
        }
    }

    pub(super) fn end_call(&mut self, open: &PeerId) {
        let Some(called) = self.opened.called.remove(open) else {
            return;
        };
        called.rooms.into_iter().for_each(|room| self.leave(room));
        called.days.iter().for_each(|day| self.forget(day));
    }

    /// Returns the nodes of a key: of its pair, and of calls of it.
    pub(super) fn nodes_of(&self, peer: &PeerId) -> Vec<ViewId> {
        let called = self.opened.called.get(peer);
        let keys = called.into_iter().flat_map(|called| &called.days);
        let pairs = keys.chain([peer]).filter_map(|key| self.pairs.get(key));
        pairs
            .flat_map(|pair| pair.nodes.values().copied())
            .collect()
    }

    /// Handles the record of an open key on a LAN or in a DHT.
    pub fn handle_open_record(
        &mut self,
        room: ViewId,
        (carrier, kind): (CarrierId, CarrierKind),
        sealed: &[u8],
        now: Instant,
    ) {
        self.now = now;
        let Some(known) = self.opened.rooms.get(&room) else {
            return;
        };
        if known.statement.is_some() {
            return;
        }
        let time = self.config.clock.now();
        match OpenRecord::open((&known.open, known.period), sealed, time) {
            Ok(record) => {
                let found = Some((kind, record.candidates));
                self.meet(room, record.day.day_key, carrier, found);
            }
            Err(_) => self.share.count(DropReason::OpenForeign),
        }
    }

    /// Makes a pair with a key of the day.
    fn meet(
        &mut self,
        room: ViewId,
        day: PeerId,
        carrier: CarrierId,
        found: Option<(CarrierKind, Vec<Candidate>)>,
    ) {
        let Some(known) = self.opened.rooms.get(&room) else {
            return;
        };
        let Some(called) = self.opened.called.get_mut(&known.open) else {
            return;
        };
        if !called.days.contains(&day) {
            let is_other = self.pairs.contains_key(&day);
            let secret = PairSecret::agree(&known.own, &day);
            let (Ok(secret), false) = (secret, is_other || called.days.len() >= MAX_DAYS) else {
                return self.share.count(DropReason::OpenForeign);
            };
            called.days.insert(day);
            let call = OfCall {
                room,
                stands_for: known.open,
                is_guest: false,
                period: of_room(&secret, &known.open, known.period),
                carriers: BTreeSet::new(),
                candidates: [None, None],
            };
            let wish = Intent {
                waits: false,
                seeks: true,
            };
            self.add_call(secret, wish, call);
        }
        let Some(pair) = self.pairs.get_mut(&day) else {
            return;
        };
        if let Some(call) = &mut pair.call {
            call.carriers.insert(carrier);
            if let Some((kind, at)) = found.filter(|(_, at)| !at.is_empty()) {
                let of_dht = usize::from(kind == CarrierKind::Dht);
                call.candidates[of_dht] = Some((kind, at));
            }
        }
        for node in pair.nodes.clone() {
            self.begin_call(day, node);
        }
        self.review();
    }
}

/// Both.
impl Pairs {
    /// Returns whether a link with this key may begin now: of the pair with a key and a call of it one
    /// at a time, as two links between the same sockets disturb each other.
    pub(super) fn may_begin(&self, peer: &PeerId, due: &mut Vec<Instant>) -> bool {
        let now = self.now;
        let begun = |peer: &PeerId| self.begin.get(peer).is_some_and(|s| *s + TURN > now);
        if let Some(called) = self.opened.called.get(peer) {
            return !called.days.iter().any(begun);
        }
        let call = self.pairs.get(peer).and_then(|pair| pair.call.as_ref());
        let Some(call) = call.filter(|call| !call.is_guest) else {
            return true;
        };
        if begun(peer) {
            return true;
        }
        let Some(named) = self.pairs.get(&call.stands_for) else {
            return false;
        };
        let mut nodes = named.nodes.values().filter_map(|id| self.nodes.get(id));
        let is_there = nodes.any(|node| node.present.is_some());
        // who names this host shows itself soon
        let wait = if is_there { TURN } else { SHOWS_WITHIN };
        let from = named.sought_since.unwrap_or(now) + wait;
        if from > now {
            due.push(from);
            return false;
        }
        // around a change it has keys of two days: one after the other
        let called = self.opened.called.get(&call.stands_for);
        let days: Vec<_> = called.into_iter().flat_map(|c| &c.days).collect();
        let turn = (now.saturating_duration_since(from).as_secs() / TURN.as_secs()) as usize;
        due.push(now + TURN);
        let is_next = days.get(turn % days.len().max(1)) == Some(&peer);
        is_next && !days.iter().any(|day| begun(day))
    }

    fn add_call(&mut self, secret: PairSecret, wish: Intent, call: OfCall) {
        let peer = secret.other();
        let pair = Pair {
            secret,
            wish,
            sought_since: wish.seeks.then_some(self.now),
            nodes: BTreeMap::new(),
            call: Some(call),
        };
        self.pairs.insert(peer, pair);
        self.review();
    }

    /// Tells the node of a call how it reaches the other.
    pub(super) fn begin_call(&mut self, peer: PeerId, (period, id): (u64, ViewId)) {
        let (now, time) = (self.now, self.config.clock.now().as_secs());
        let pair = self.pairs.get(&peer);
        let call = pair.and_then(|pair| Some((pair, pair.call.as_ref()?)));
        let (Some((pair, call)), Some(node)) = (call, self.nodes.get_mut(&id)) else {
            return;
        };
        if let Some((kind, candidates)) = call.candidates() {
            // both derive all keys of the pair, so this host says what the other would
            let key = pair.secret.member(period, &peer);
            let record = PresenceRecord {
                node: node.other,
                made: time,
                until: time + RECORD_LIFETIME,
                candidates,
            };
            let epoch = Rendezvous::new(node.network);
            let sealed = epoch.seal(&record, &key, &mut self.random);
            let room = self.opened.rooms.get(&call.room);
            if let Some(room) = room {
                let own = room.own.peer_id();
                let first = guests::first(&room.open, room.period, &own);
                self.share.open(id, own, first);
            }
            // a record that is not taken is counted there
            let _ = node.overlay.handle_record(kind, &sealed, |_| true, now);
        }
        for carrier in &call.carriers {
            let presence = Presence::Online(node.other);
            node.overlay.handle_presence(*carrier, presence, now);
        }
        self.touched.insert(id);
    }

    fn enter(&mut self, known: Room) -> ViewId {
        let id = ViewId(self.opened.next_room);
        self.opened.next_room = self.opened.next_room.wrapping_add(1) | FIRST_ROOM;
        let entered = RoomEntered {
            room: id,
            open: known.open,
            seeks: known.statement.is_none(),
            own: Arc::clone(&known.own),
            at: room(&known.open, known.period),
            name: librecast::open::name(&known.open, known.period),
            item: librecast::open_item::key_of(&known.open, known.period).0,
        };
        self.opened.rooms.insert(id, known);
        self.outputs
            .push_back(PairsOutput::Enter(Box::new(entered)));
        id
    }

    fn leave(&mut self, room: ViewId) {
        self.opened.rooms.remove(&room);
        self.outputs.push_back(PairsOutput::Leave(room));
    }

    /// Sends a sealed message of a pair in the room of its open key.
    pub(super) fn say_in_room(&mut self, peer: PeerId, sealed: &[u8]) {
        let call = self.pairs.get(&peer).and_then(|pair| pair.call.as_ref());
        let Some(call) = call.filter(|call| !call.carriers.is_empty()) else {
            return;
        };
        self.outputs.push_back(PairsOutput::Say {
            room: call.room,
            to: peer,
            bytes: [&[SEALED], sealed].concat().into(),
        });
    }

    /// Handles an event in the room of an open key.
    pub fn handle_room(&mut self, room: ViewId, event: CarrierEvent, now: Instant) {
        self.now = now;
        let Some(known) = self.opened.rooms.get(&room) else {
            return;
        };
        let is_own = known.statement.is_some();
        match event {
            CarrierEvent::Presence(_, Presence::Online(peer)) if is_own => {
                if self.opened.asking.len() < MAX_ASKING {
                    self.opened.asking.push_back((room, peer));
                }
                self.review_at = self.now;
            }
            CarrierEvent::Presence(carrier, Presence::Offline(peer)) => {
                self.pass(peer, room, |node, now| {
                    let gone = Presence::Offline(node.other);
                    node.overlay.handle_presence(carrier, gone, now);
                });
            }
            CarrierEvent::Presence(carrier, down @ Presence::CarrierDown) => {
                let of_room = self.pairs.iter().filter(|(_, pair)| {
                    let call = pair.call.as_ref();
                    call.is_some_and(|call| call.room == room)
                });
                for peer in of_room.map(|(peer, _)| *peer).collect::<Vec<_>>() {
                    self.pass(peer, room, |node, now| {
                        node.overlay.handle_presence(carrier, down, now);
                    });
                }
            }
            CarrierEvent::Signal {
                carrier,
                from,
                bytes,
            } => match bytes.split_first() {
                Some((&STATEMENT, statement)) if !is_own => {
                    self.handle_statement(room, (carrier, from), statement);
                }
                Some((&SEALED, sealed)) => {
                    if is_own && !self.admit(room, from, Origin::Server(carrier)) {
                        return;
                    }
                    if is_own {
                        self.reached_by(from, carrier);
                    }
                    self.pass(from, room, |node, now| {
                        let other = node.other;
                        node.overlay.handle_signal(carrier, other, sealed, now);
                    });
                }
                _ => self.share.count(DropReason::OpenForeign),
            },
            _ => {}
        }
    }

    fn handle_statement(
        &mut self,
        room: ViewId,
        (carrier, from): (CarrierId, PeerId),
        bytes: &[u8],
    ) {
        let Some(known) = self.opened.rooms.get(&room) else {
            return;
        };
        let (open, time) = (known.open, self.config.clock.now());
        if !self.opened.statements.take(STATEMENTS, 1, self.now) {
            return self.share.count(DropReason::OutsideRate);
        }
        match Statement::verify(bytes, &open, time) {
            Ok(statement) if statement.day_key == from => {
                self.meet(room, from, carrier, None);
            }
            Ok(_) | Err(_) => self.share.count(DropReason::OpenForeign),
        }
    }

    /// Notes by which server a caller is reached.
    fn reached_by(&mut self, peer: PeerId, carrier: CarrierId) {
        let call = self.pairs.get_mut(&peer);
        let Some((call, nodes)) = call.and_then(|p| Some((p.call.as_mut()?, &p.nodes))) else {
            return;
        };
        if call.carriers.insert(carrier) {
            for node in nodes.clone() {
                self.begin_call(peer, node);
            }
        }
    }

    /// Passes an event of a room to the nodes of a pair of it: only that of the right period takes
    /// it.
    fn pass(&mut self, peer: PeerId, room: ViewId, act: impl Fn(&mut super::Node, Instant)) {
        let pair = self.pairs.get(&peer);
        let is_its = |pair: &&Pair| pair.call.as_ref().is_some_and(|call| call.room == room);
        let nodes = pair.filter(is_its).map(|pair| pair.nodes.clone());
        for id in nodes.into_iter().flat_map(BTreeMap::into_values) {
            if let Some(node) = self.nodes.get_mut(&id) {
                act(node, self.now);
                self.touched.insert(id);
            }
        }
    }

    /// Ends callers without links, and says statements.
    pub(super) fn review_open(&mut self, due: &mut Vec<Instant>) {
        for guest in self.opened.guests.expired(self.now) {
            self.end_guest(&guest);
        }
        due.extend(self.opened.guests.next_end());
        while let Some((room, to)) = self.opened.asking.front().copied() {
            if !self.opened.statements.take(STATEMENTS, 1, self.now) {
                due.push(self.now + ASKING_EVERY);
                break;
            }
            self.opened.asking.pop_front();
            let known = self.opened.rooms.get(&room);
            if let Some(statement) = known.and_then(|room| room.statement) {
                let bytes = [&[STATEMENT], statement.as_slice()].concat();
                let bytes = Bytes::from(bytes);
                self.outputs.push_back(PairsOutput::Say { room, to, bytes });
            }
        }
    }
}
