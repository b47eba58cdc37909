use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lcroute_overlay::OpenRecord;
use lcroute_signalling::CarrierEvent;
use lcroute_webrtc::{WebRtc, WebRtcConfig};
use librecast::open::{Statement, periods, until};
use librecast::time::UnixTime;
use proptest::prelude::*;

use super::*;

const SERVER: CarrierId = CarrierId(0);
const NOON: u64 = 1_800_000_000;
/// A packet of QUIC, by its first bits.
const PACKET: &[u8] = b"\x40packet";

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn secret(own: u8, other: u8) -> PairSecret {
    PairSecret::agree(&key(own), &key(other).peer_id()).unwrap()
}

struct Side {
    pairs: Pairs,
    at: SocketAddr,
    clock: Arc<AtomicU64>,
    /// Nodes in rooms of the server.
    rooms: BTreeMap<ViewId, Started>,
    /// Rooms of open keys, and their records on the LAN.
    open: BTreeMap<ViewId, RoomEntered>,
    records: Vec<Published>,
    items: Vec<Option<Vec<u8>>>,
    packets: Vec<Bytes>,
    /// Senders of these packets.
    senders: Vec<PeerId>,
    /// Lengths of datagrams to an address of neither side.
    astray: Vec<usize>,
    sent: usize,
}

impl Side {
    fn new(n: u8, ahead: u64, now: Instant) -> Self {
        let clock = Arc::new(AtomicU64::new(NOON + ahead));
        let config = WebRtcConfig {
            reproducible: true,
            ..WebRtcConfig::new(1_400, now, UnixTime::from_secs(NOON), [n; 32])
        };
        let share = Share::new(WebRtc::new(config, now).unwrap());
        let at = SocketAddr::from(([192, 0, 2, n], 7_000));
        share.webrtc().set_local_candidates(vec![at], now);
        let told = Arc::clone(&clock);
        let config = PairsConfig {
            clock: WallClock::new(move || UnixTime::from_secs(told.load(Relaxed))),
            epoch: now,
            seed: [n + 100; 32],
            rate: 1_000_000_000,
        };
        Self {
            pairs: Pairs::new(config, share, now),
            at,
            clock,
            rooms: BTreeMap::new(),
            open: BTreeMap::new(),
            records: Vec::new(),
            items: Vec::new(),
            packets: Vec::new(),
            senders: Vec::new(),
            astray: Vec::new(),
            sent: 0,
        }
    }

    fn linked(&self, other: u8) -> bool {
        let state = self.pairs.state(&key(other).peer_id());
        state.is_some_and(|state| state.linked)
    }

    fn drops(&self, reason: &str) -> u64 {
        self.pairs.drops().get(reason).copied().unwrap_or_default()
    }
}

/// Two hosts and a server.
struct World {
    sides: [Side; 2],
    now: Instant,
    has_server: bool,
    has_lan: bool,
    has_dht: bool,
}

impl World {
    /// The second clock is this many seconds ahead.
    fn new(ahead: u64) -> Self {
        let now = Instant::now();
        Self {
            sides: [Side::new(1, 0, now), Side::new(2, ahead, now)],
            now,
            has_server: true,
            has_lan: false,
            has_dht: false,
        }
    }

    fn wish(&mut self, side: usize, waits: bool, seeks: bool) {
        let (own, other) = [(1, 2), (2, 1)][side];
        let wish = Intent { waits, seeks };
        assert!(
            self.sides[side]
                .pairs
                .set(secret(own, other), wish, self.now)
        );
    }

    /// Passes outputs and datagrams between both until nothing moves.
    fn settle(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for side in 0..2 {
                while let Some(output) = self.sides[side].pairs.poll_output() {
                    moved = true;
                    self.handle(side, output);
                }
                while let Some(transmit) = self.sides[side].pairs.poll_transmit() {
                    moved = true;
                    self.sides[side].sent += 1;
                    let [from, to] = [side, 1 - side].map(|n| self.sides[n].at);
                    if transmit.to != to {
                        self.sides[side].astray.push(transmit.contents.len());
                    }
                    if transmit.to == to {
                        let other = &mut self.sides[1 - side].pairs;
                        other.handle_datagram(from, to, &transmit.contents, self.now);
                    }
                }
            }
        }
    }

    fn handle(&mut self, side: usize, output: PairsOutput) {
        let now = self.now;
        match output {
            PairsOutput::Start(started) => {
                let theirs = self.sides[1 - side].rooms.values();
                let there = theirs.filter(|room| room.network == started.network);
                let there: Vec<_> = there.map(|room| (room.node, room.own.peer_id())).collect();
                for (node, own) in there.into_iter().filter(|_| self.has_server) {
                    let [here, other] = [side, 1 - side];
                    let (mine, theirs) = (Presence::Online(own), started.own.peer_id());
                    let pairs = &mut self.sides[here].pairs;
                    pairs.handle_presence(started.node, SERVER, mine, now);
                    let pairs = &mut self.sides[other].pairs;
                    pairs.handle_presence(node, SERVER, Presence::Online(theirs), now);
                }
                self.sides[side].rooms.insert(started.node, *started);
            }
            PairsOutput::End(node) => {
                self.sides[side].rooms.remove(&node);
            }
            PairsOutput::Signal { node, to, bytes } if self.has_server => {
                let from = self.sides[side].rooms[&node].own.peer_id();
                let there = &self.sides[1 - side].rooms;
                let room = there.values().find(|room| room.own.peer_id() == to);
                if let Some(room) = room.map(|room| room.node) {
                    let pairs = &mut self.sides[1 - side].pairs;
                    pairs.handle_signal(room, (SERVER, from), &bytes, now);
                }
            }
            PairsOutput::Packet { peer, packet } => {
                self.sides[side].packets.push(packet);
                self.sides[side].senders.push(peer);
            }
            PairsOutput::Enter(room) => self.enter(side, *room),
            PairsOutput::Leave(room) => {
                self.sides[side].open.remove(&room);
            }
            PairsOutput::Say { room, to, bytes } if self.has_server => {
                let Some(from) = self.sides[side].open.get(&room).map(|r| r.own.peer_id()) else {
                    return;
                };
                let there = &self.sides[1 - side].open;
                let room = there.values().find(|room| room.own.peer_id() == to);
                if let Some(room) = room.map(|room| room.room) {
                    let event = CarrierEvent::Signal {
                        carrier: SERVER,
                        from,
                        bytes: bytes.into(),
                    };
                    self.sides[1 - side].pairs.handle_room(room, event, now);
                }
            }
            PairsOutput::OpenRecord {
                mut record, item, ..
            } => {
                self.sides[side].records.push(record.clone());
                self.sides[side].items.push(item.clone());
                if self.has_dht {
                    record.sealed = item.unwrap().into();
                }
                self.spread(1 - side, &record);
            }
            PairsOutput::Signal { .. }
            | PairsOutput::Record { .. }
            | PairsOutput::Changed(_)
            | PairsOutput::Say { .. }
            | PairsOutput::Guests => {}
        }
    }

    fn enter(&mut self, side: usize, room: RoomEntered) {
        let there = self.sides[1 - side].open.values();
        let there = there.filter(|other| other.at == room.at);
        let there: Vec<_> = there.map(|r| (r.room, r.own.peer_id())).collect();
        for (other, own) in there.into_iter().filter(|_| self.has_server) {
            let online = |peer| CarrierEvent::Presence(SERVER, Presence::Online(peer));
            let (mine, theirs) = (online(own), online(room.own.peer_id()));
            self.sides[side]
                .pairs
                .handle_room(room.room, mine, self.now);
            self.sides[1 - side]
                .pairs
                .handle_room(other, theirs, self.now);
        }
        self.sides[side].open.insert(room.room, room);
        for record in self.sides[1 - side].records.clone() {
            self.spread(side, &record);
        }
    }

    /// Brings a record on the LAN to a side.
    fn spread(&mut self, side: usize, record: &Published) {
        let rooms = self.sides[side].open.values();
        let room = rooms
            .filter(|room| room.name == record.name)
            .map(|r| r.room);
        for room in room
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|_| self.has_lan || self.has_dht)
        {
            let pairs = &mut self.sides[side].pairs;
            let kind = match self.has_lan {
                true => CarrierKind::Lan,
                false => CarrierKind::Dht,
            };
            let found = (CarrierId(7), kind);
            pairs.handle_open_record(room, found, &record.sealed, self.now);
        }
    }

    /// Opens the key of the second side.
    fn open(&mut self) {
        let days = vec![day(&key(2))];
        let open = key(2).peer_id();
        self.sides[1].pairs.set_open(open, days, self.now);
        self.pass(Duration::from_millis(100));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            let next = self.sides.iter_mut().map(|side| side.pairs.next_timeout());
            let next = next.min().unwrap_or(end).min(end);
            let step = next.max(self.now + Duration::from_millis(1)) - self.now;
            self.now += step;
            for side in &mut self.sides {
                side.pairs.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    fn are_linked(&self) -> bool {
        self.sides[0].linked(2) && self.sides[1].linked(1)
    }

    fn say(&mut self, side: usize) {
        let to = key([2, 1][side]).peer_id();
        self.sides[side].pairs.send(&to, PACKET, self.now);
        self.settle();
    }
}

#[test]
fn who_is_sought_and_waits_is_linked_and_a_removed_one_is_not() {
    let mut world = World::new(0);
    world.wish(1, true, false);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.sides[1].sent, 0, "who waits asks nobody");
    world.wish(0, false, true);
    world.pass(Duration::from_secs(3));
    assert!(world.are_linked());
    world.say(0);
    world.pass(Duration::from_secs(1));
    world.say(1);
    world.pass(Duration::from_secs(1));
    for side in &world.sides {
        assert_eq!(side.packets, [PACKET]);
    }
    world.sides[1].pairs.remove(&key(1).peer_id(), world.now);
    world.pass(Duration::from_secs(1));
    assert!(!world.sides[0].linked(2), "told at once");
    assert!(world.sides[1].rooms.is_empty(), "nothing is held");
    world.pass(Duration::from_secs(20));
    assert!(!world.are_linked());
}

#[test]
fn clocks_may_differ_by_half_a_day() {
    for hours in [1, 6, 11] {
        let mut world = World::new(hours * 3_600);
        world.wish(1, true, false);
        world.pass(Duration::from_secs(1));
        world.wish(0, false, true);
        world.pass(Duration::from_secs(10));
        assert!(world.are_linked(), "{hours} h");
    }
}

#[test]
fn around_a_change_a_pair_links_in_one_of_two_periods() {
    let mut world = World::new(0);
    let change = secret(1, 2).changes_at(UnixTime::from_secs(NOON));
    for side in &world.sides {
        side.clock.store(change.as_secs(), Relaxed);
    }
    assert_eq!(secret(1, 2).periods(change).len(), 2, "a change is near");
    world.wish(1, true, false);
    world.pass(Duration::from_secs(1));
    world.wish(0, false, true);
    // attempts in two periods would disturb each other
    world.pass(Duration::from_secs(2));
    assert!(world.are_linked());
}

#[test]
fn around_a_change_both_that_seek_link_soon() {
    let mut world = World::new(0);
    let change = secret(1, 2).changes_at(UnixTime::from_secs(NOON));
    for side in &world.sides {
        side.clock.store(change.as_secs(), Relaxed);
    }
    world.wish(0, true, true);
    world.pass(Duration::from_millis(300));
    world.wish(1, true, true);
    world.pass(Duration::from_secs(2));
    assert!(world.are_linked());
}

#[test]
fn a_period_in_which_the_other_only_seems_to_be_delays_the_next_by_seconds() {
    let mut world = World::new(0);
    let change = secret(1, 2).changes_at(UnixTime::from_secs(NOON));
    // the other's clock is ahead, and it holds the later period alone
    let later = change.as_secs() + 2 * 3_600 + 60;
    let held = secret(1, 2).periods(UnixTime::from_secs(later));
    assert_eq!(held.len(), 1);
    world.sides[0].clock.store(change.as_secs(), Relaxed);
    world.sides[1].clock.store(later, Relaxed);
    world.wish(0, false, true);
    let seeker = &mut world.sides[0].pairs;
    let pair = &seeker.pairs[&key(2).peer_id()];
    let (period, node) = pair.nodes.first_key_value().unwrap();
    assert!(*period < held[0]);
    let (node, other) = (*node, seeker.nodes[node].other);
    // an old record shows it in the earlier one
    let seems = Presence::Online(other);
    seeker.handle_presence(node, SERVER, seems, world.now);
    world.wish(1, true, false);
    world.pass(BEGINS_FOR + Duration::from_secs(3));
    assert!(world.are_linked());
}

#[test]
fn a_link_outlives_the_change_of_the_period_and_one_without_packets_ends() {
    let mut world = World::new(0);
    world.wish(1, true, false);
    world.wish(0, false, true);
    world.pass(Duration::from_secs(3));
    assert!(world.are_linked());
    for _ in 0..10 {
        // a day in ten steps, as far as certificates are concerned
        for side in &world.sides {
            side.clock.fetch_add(8_640, Relaxed);
        }
        for _ in 0..4 {
            world.say(0);
            world.say(1);
            world.pass(Duration::from_secs(5));
        }
        assert!(world.are_linked());
    }
    world.wish(0, false, false);
    world.pass(IDLE + Duration::from_secs(1));
    assert!(!world.sides[0].linked(2) && !world.sides[1].linked(1));
}

#[test]
fn without_a_packet_a_new_link_ends_soon() {
    let mut world = World::new(0);
    world.wish(1, true, false);
    world.wish(0, false, true);
    world.pass(Duration::from_secs(3));
    assert!(world.are_linked());
    world.wish(0, false, false);
    world.pass(PROVES_WITHIN);
    assert!(!world.sides[0].linked(2) && !world.sides[1].linked(1));
}

#[test]
fn a_third_key_in_the_room_is_nobody() {
    let mut world = World::new(0);
    world.wish(1, true, false);
    world.pass(Duration::from_secs(1));
    let side = &mut world.sides[1];
    let node = *side.rooms.keys().next().unwrap();
    let third = key(3).peer_id();
    let before = side.sent;
    side.pairs
        .handle_presence(node, SERVER, Presence::Online(third), world.now);
    side.pairs
        .handle_signal(node, (SERVER, third), b"anything", world.now);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.sides[1].drops("pair_third"), 2);
    assert_eq!(world.sides[1].sent, before);
}

/// The present day of an open key, by the statement of another.
fn day_by(open: &SecretKey, signer: &SecretKey) -> OpenDay {
    let time = UnixTime::from_secs(NOON);
    let period = periods(&open.peer_id()).at(time);
    let statement = Statement {
        open: signer.peer_id(),
        day_key: key(77).peer_id(),
        until: until(&open.peer_id(), period),
    };
    OpenDay {
        period,
        key: Arc::new(key(77)),
        statement: statement.sign(signer, time).unwrap(),
    }
}

fn day(open: &SecretKey) -> OpenDay {
    day_by(open, open)
}

fn an_open_key_is_called(mut world: World) -> World {
    world.open();
    assert_eq!(world.sides[1].sent, 0, "an open key asks nobody");
    world.wish(0, false, true);
    world.pass(Duration::from_secs(5));
    assert!(world.sides[0].linked(2));
    let guests = world.sides[1].pairs.guests();
    let [guest] = &guests[..] else {
        panic!("{guests:?}")
    };
    let guest = guest.key;
    world.say(0);
    let now = world.now;
    world.sides[1].pairs.send(&guest, PACKET, now);
    world.pass(Duration::from_secs(1));
    let senders = world.sides.each_ref().map(|side| side.senders.clone());
    assert_eq!(senders, [vec![key(2).peer_id()], vec![guest]]);
    assert_ne!(guest, key(1).peer_id(), "the caller's key is for this call");
    world
}

#[test]
fn an_open_key_is_called_by_a_server_and_not_after_its_end() {
    let mut world = an_open_key_is_called(World::new(0));
    let now = world.now;
    world.sides[1]
        .pairs
        .set_open(key(2).peer_id(), Vec::new(), now);
    world.pass(Duration::from_secs(1));
    assert!(!world.sides[0].linked(2), "told at once");
    let side = &world.sides[1];
    assert!(side.open.is_empty() && side.pairs.guests().is_empty());
    assert!(side.pairs.pairs.is_empty() && side.pairs.nodes.is_empty());
    let sent = side.sent;
    world.pass(Duration::from_secs(20));
    assert_eq!(world.sides[1].sent, sent, "nothing is answered");
}

#[test]
fn an_open_key_is_called_on_a_lan_after_its_cookie() {
    let mut world = World::new(0);
    (world.has_server, world.has_lan) = (false, true);
    let world = an_open_key_is_called(world);
    assert!(world.sides[1].drops("outside_cookie") >= 1);
}

#[test]
fn an_open_key_is_called_by_its_record_in_a_dht_after_its_cookie() {
    let mut world = World::new(0);
    (world.has_server, world.has_dht) = (false, true);
    let world = an_open_key_is_called(world);
    let [caller, host] = &world.sides;
    assert!(host.drops("outside_cookie") >= 1);
    let state = caller.pairs.state(&key(2).peer_id()).unwrap();
    assert_eq!(state.found_by, Some(CarrierKind::Dht));
}

#[test]
fn an_older_record_of_a_dht_does_not_hide_the_address_on_the_lan() {
    let mut world = World::new(0);
    world.has_server = false;
    world.open();
    let now = world.now;
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 7_000));
    let stale = world.sides[1].records[0].clone();
    let share = &world.sides[1].pairs.share;
    share.webrtc().set_local_candidates(vec![elsewhere], now);
    world.pass(Duration::from_millis(1));
    // the record with the present address is on the LAN, the other one in the DHT
    let other = world.sides[1].records.last().unwrap().clone();
    assert_ne!(stale.sealed, other.sealed);
    world.wish(0, false, true);
    world.settle();
    for record in [&stale, &other] {
        let rooms = world.sides[0].open.values();
        let room = rooms
            .filter(|room| room.name == record.name)
            .map(|r| r.room);
        let room = room.collect::<Vec<_>>()[0];
        let kind = match record.sealed == stale.sealed {
            true => CarrierKind::Lan,
            false => CarrierKind::Dht,
        };
        let pairs = &mut world.sides[0].pairs;
        pairs.handle_open_record(room, (CarrierId(8), kind), &record.sealed, now);
    }
    let called = &world.sides[0].pairs.pairs[&key(77).peer_id()];
    let (kind, at) = called.call.as_ref().unwrap().candidates().unwrap();
    let at: Vec<_> = at.iter().map(|candidate| candidate.addr).collect();
    // any host of the LAN may have repeated an old one, so the DHT's stays beside it
    assert_eq!(
        (kind, at),
        (CarrierKind::Lan, vec![world.sides[1].at, elsewhere])
    );
}

#[test]
fn the_record_of_a_dht_has_public_addresses_alone() {
    let mut world = World::new(0);
    world.open();
    let now = world.now;
    let home = SocketAddr::from(([192, 168, 1, 2], 7_000));
    let local = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], 7_000));
    let public = SocketAddr::from(([192, 0, 2, 99], 7_000));
    let open = key(2).peer_id();
    let period = periods(&open).at(UnixTime::from_secs(NOON));
    let opened = |sealed: &[u8]| {
        let record = OpenRecord::open((&open, period), sealed, UnixTime::from_secs(NOON)).unwrap();
        let at = record.candidates.iter().map(|candidate| candidate.addr);
        at.collect::<BTreeSet<_>>()
    };
    for (all, in_dht) in [
        (vec![home, local, public], Some(BTreeSet::from([public]))),
        (vec![home, local], None),
    ] {
        let share = &world.sides[1].pairs.share;
        share.webrtc().set_local_candidates(all.clone(), now);
        world.pass(Duration::from_millis(1));
        let side = &world.sides[1];
        let on_lan = &side.records.last().unwrap().sealed;
        assert_eq!(opened(on_lan), all.into_iter().collect());
        let item = side.items.last().unwrap().as_ref();
        assert_eq!(item.map(|item| opened(item)), in_dht);
    }
}

#[test]
fn who_moves_does_not_know_whether_callers_arrive() {
    let mut world = World::new(0);
    world.open();
    world.sides[1].pairs.opened.called_from_afar = true;
    let other = SocketAddr::from(([192, 0, 2, 98], 7_000));
    let elsewhere = SocketAddr::from(([192, 0, 2, 97], 7_000));
    for (all, is_called) in [
        (vec![world.sides[1].at, other], true),
        (vec![other], true),
        (vec![elsewhere], false),
    ] {
        let share = &world.sides[1].pairs.share;
        share.webrtc().set_local_candidates(all.clone(), world.now);
        world.pass(Duration::from_millis(1));
        let pairs = &world.sides[1].pairs;
        assert_eq!(pairs.is_called_from_afar(), is_called, "{all:?}");
    }
}

#[test]
fn who_ends_its_call_leaves_nothing() {
    let mut world = an_open_key_is_called(World::new(0));
    world.wish(0, false, false);
    world.pass(Duration::from_secs(1));
    assert!(world.sides[0].open.is_empty());
    assert!(world.sides[1].pairs.guests().is_empty());
    world.pass(Duration::from_secs(20));
    assert!(world.sides[1].pairs.pairs.is_empty(), "its place is free");
}

#[test]
fn a_key_that_is_named_and_open_has_one_link_for_its_streams() {
    let mut world = World::new(0);
    world.wish(1, true, false);
    world.open();
    world.wish(0, false, true);
    world.pass(Duration::from_secs(5));
    for _ in 0..20 {
        world.say(0);
        let to = *world.sides[1].senders.last().unwrap();
        let now = world.now;
        world.sides[1].pairs.send(&to, PACKET, now);
        world.pass(Duration::from_secs(1));
    }
    let senders: BTreeSet<_> = world.sides[1].senders.iter().collect();
    assert_eq!(senders.len(), 1, "QUIC knows its way");
}

#[test]
fn around_a_change_one_of_two_days_is_called() {
    let mut world = World::new(0);
    let (now, open) = (world.now, key(2));
    let mut second = day(&open);
    let statement = Statement {
        open: open.peer_id(),
        day_key: key(78).peer_id(),
        until: until(&open.peer_id(), second.period),
    };
    let time = UnixTime::from_secs(NOON);
    second.period += 1;
    second.key = Arc::new(key(78));
    second.statement = statement.sign(&open, time).unwrap();
    let days = vec![day(&open), second];
    world.sides[1].pairs.set_open(open.peer_id(), days, now);
    world.wish(0, false, true);
    world.pass(Duration::from_secs(3));
    assert!(world.sides[0].linked(2));
    assert_eq!(world.sides[1].pairs.guests().len(), 1);
    assert_eq!(
        world.sides[1].pairs.opened.guests.keys().len(),
        1,
        "no second call"
    );
}

#[test]
fn another_key_in_the_room_says_nothing_that_counts() {
    let mut world = World::new(0);
    let now = world.now;
    let days = vec![day_by(&key(2), &key(9))];
    world.sides[1].pairs.set_open(key(2).peer_id(), days, now);
    world.wish(0, false, true);
    world.pass(Duration::from_secs(5));
    assert!(!world.sides[0].linked(2));
    assert_eq!(world.sides[0].drops("open_foreign"), 1);
    assert_eq!(world.sides[0].sent, 0);
}

#[test]
fn there_are_bounds() {
    let now = Instant::now();
    let mut side = Side::new(1, 0, now);
    let wish = Intent {
        waits: true,
        seeks: false,
    };
    for n in 0..=MAX_PAIRS as u32 {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let other = SecretKey::from_seed(&seed).peer_id();
        // deriving keys is not the matter here
        let bytes = zeroize::Zeroizing::new(seed);
        let secret = PairSecret::of_bytes(bytes, key(1).peer_id(), other);
        let taken = side.pairs.set(secret, wish, now);
        assert_eq!(taken, n < MAX_PAIRS as u32);
    }
    let mut started = 0;
    while let Some(output) = side.pairs.poll_output() {
        started += usize::from(matches!(output, PairsOutput::Start(_)));
        assert!(!matches!(output, PairsOutput::End(_)), "nobody gives way");
    }
    // around the change of their period pairs have two
    assert!(
        (MAX_WAITING..=MAX_WAITING * 2).contains(&started),
        "{started}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_datagram_of_a_stranger_is_answered(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
        first in prop::option::of(0xc0_u8..0xc4),
    ) {
        let mut world = World::new(0);
        world.wish(1, true, false);
        world.pass(Duration::from_secs(1));
        let (now, at) = (world.now, world.sides[1].at);
        let stranger = SocketAddr::from(([198, 51, 100, 1], 9));
        for datagram in datagrams {
            let datagram = first.into_iter().chain(datagram).collect::<Vec<_>>();
            world.sides[1].pairs.handle_datagram(stranger, at, &datagram, now);
        }
        world.pass(Duration::from_secs(2));
        prop_assert_eq!(world.sides[1].sent, 0);
    }

    #[test]
    fn an_open_key_answers_a_caller_that_knows_it_by_a_third_and_keeps_nothing(
        calls in prop::collection::vec(prop::collection::vec(any::<u8>(), 47..50), 1..20),
        others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20),
        known in 0_u8..5,
    ) {
        let mut world = World::new(0);
        world.open();
        let (now, at) = (world.now, world.sides[1].at);
        let stranger = SocketAddr::from(([198, 51, 100, 1], 9));
        let calls = calls.into_iter().map(|call| [vec![0xc2], call].concat());
        // those who know the key
        let (open, period) = (key(2).peer_id(), day(&key(2)).period);
        let first = (0..known).map(|n| {
            let caller = key(100 + n).peer_id();
            crate::guests::call(&caller, &crate::guests::first(&open, period, &caller))
        });
        for datagram in calls.chain(others).chain(first) {
            world.sides[1].pairs.handle_datagram(stranger, at, &datagram, now);
        }
        world.pass(Duration::from_secs(2));
        prop_assert_eq!(&world.sides[1].astray, &vec![17; known.into()]);
        prop_assert!(world.sides[1].pairs.pairs.is_empty());
    }
}
