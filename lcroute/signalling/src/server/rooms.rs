//! Rooms, and the places of clients in them.
//!
//! In a full room the site with most nodes gives way to one with fewer: its newest node ends. Nodes
//! that have proven membership give way to nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lcroute_overlay::Site;
use lcroute_overlay::server::{Registration, Role, Room, ToNode, in_room};
use librecast::id::PeerId;
use tokio::sync::{Notify, mpsc};

use crate::counts::Counts;

/// Maximum number of routers in one room, and of leaves, which leave once they have links.
pub(super) const MAX_ROOM: usize = 4_096;
/// Number of routers that a leaf learns. Chosen: two links, and as many replacements.
const TOLD: usize = 4;
/// Maximum number of connections of one node: it may use several URLs, and an old one may be dying.
const MAX_SEATS: usize = 4;
/// Maximum number of messages that wait for a client, beside the presence of a room's nodes.
const QUEUE: usize = 1_024;
/// Maximum number of sealed messages among them, which are larger (2 MiB at most).
const QUEUE_SEALED: usize = 64;
/// The reason for a node in too many connections.
const REPLACED: &str = "replaced by newer connections";
/// The reason for a node of the site with most nodes in a full room.
const GIVES_WAY: &str = "the room is full, and most of it is from your address";

/// Places by node; no list is empty.
type Places = HashMap<PeerId, Vec<Place>>;

/// The sending end of a connection's queue.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Bytes>,
    /// Notified when the connection must end.
    cut: Arc<Notify>,
}

impl Outbox {
    fn new(capacity: usize) -> (Self, mpsc::Receiver<Bytes>) {
        let (queue, waiting) = mpsc::channel(capacity);
        let cut = Arc::default();
        (Self { queue, cut }, waiting)
    }

    /// Sends a message; false without room for it.
    pub(super) fn send(&self, message: Bytes) -> bool {
        self.queue.try_send(message).is_ok()
    }

    /// Waits until the connection must end.
    pub(super) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// The key of an entered room; none: the connection is registered here.
    own: Option<PeerId>,
    outbox: Outbox,
    /// Where the connection comes from; none: from this host.
    site: Option<Site>,
    /// Whether the node has proven membership in the room's network.
    is_proven: bool,
}

impl Place {
    /// Sends an encoded message; false without room for it.
    fn send(&self, message: &Bytes) -> bool {
        self.outbox.send(match &self.own {
            None => message.clone(),
            Some(own) => in_room(own, message).into(),
        })
    }

    /// Ends the place: of a registration the connection, of an entered room the entry alone.
    fn end(self, why: &str) {
        match &self.own {
            None => self.outbox.cut.notify_one(),
            Some(_) => drop(self.send(&ToNode::Refused(why.into()).encode().into())),
        }
    }
}

#[derive(Debug, Default)]
struct Inside {
    routers: Places,
    leaves: HashMap<PeerId, LeafPlace>,
}

impl Inside {
    fn is_empty(&self) -> bool {
        self.routers.is_empty() && self.leaves.is_empty()
    }
}

/// The only place of a leaf.
#[derive(Debug)]
struct LeafPlace {
    place: Place,
    /// The routers that it knows.
    told: Vec<PeerId>,
}

impl LeafPlace {
    /// Sends routers that it does not know, from index `first` on, until it knows enough.
    fn tell(&mut self, routers: &Places, first: usize) {
        let all = routers.keys().cycle().skip(first).take(routers.len());
        for router in all {
            if self.told.len() >= TOLD {
                return;
            }
            if !self.told.contains(router) {
                self.told.push(*router);
                // a leaf that does not read needs no routers
                let _ = self.place.send(&ToNode::Present(*router).encode().into());
            }
        }
    }
}

/// Returns a random number below `bound`.
fn any(bound: usize) -> usize {
    let mut bytes = [0; 8];
    // without randomness leaves get the same routers as those before
    let _ = getrandom::fill(&mut bytes);
    (u64::from_be_bytes(bytes) % bound.max(1) as u64) as usize
}

#[derive(Debug)]
pub(super) struct Rooms {
    rooms: Mutex<HashMap<Room, Inside>>,
    next: AtomicU64,
    /// Maximum number of routers in one room, and of leaves.
    most: usize,
    counts: Arc<Counts>,
}

/// A client's place in a room, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    rooms: &'a Rooms,
    pub(super) room: Room,
    pub(super) peer: PeerId,
    pub(super) role: Role,
    number: u64,
}

/// A connection's first seat, and its queue.
pub(super) type Seated<'a> = (Seat<'a>, Outbox, mpsc::Receiver<Bytes>);

impl Rooms {
    /// Makes no rooms yet, for at most this number of routers in each.
    pub(super) fn new(most: usize, counts: Arc<Counts>) -> Self {
        Self {
            rooms: Mutex::default(),
            next: AtomicU64::new(0),
            most,
            counts,
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Room, Inside>> {
        // no code between lock and unlock leaves the table half changed
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection from a site; none if the room is full. A node with too many loses its
    /// oldest.
    pub(super) fn register(
        &self,
        registration: Registration,
        site: Option<Site>,
    ) -> Option<Seated<'_>> {
        let capacity = match registration.role {
            Role::Router => {
                let rooms = self.locked();
                let inside = rooms.get(&registration.room);
                inside.map_or(0, |inside| inside.routers.len()) + QUEUE
            }
            Role::Leaf => QUEUE_SEALED + TOLD,
        };
        let (outbox, waiting) = Outbox::new(capacity);
        let seat = self.take(registration, None, &outbox, site)?;
        Some((seat, outbox, waiting))
    }

    /// Takes a place in one more room of a connection; none if the room is full, or the queue.
    pub(super) fn enter(
        &self,
        entry: Registration,
        outbox: &Outbox,
        site: Option<Site>,
    ) -> Option<Seat<'_>> {
        self.take(entry, Some(entry.peer), outbox, site)
    }

    fn take(
        &self,
        Registration { peer, room, role }: Registration,
        own: Option<PeerId>,
        outbox: &Outbox,
        site: Option<Site>,
    ) -> Option<Seat<'_>> {
        let mut rooms = self.locked();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inside = rooms.entry(room).or_default();
        let place = Place {
            number,
            own,
            outbox: outbox.clone(),
            site,
            is_proven: false,
        };
        let entered = match role {
            Role::Router => enter_router(inside, peer, place, self.most),
            Role::Leaf => enter_leaf(inside, peer, place, self.most),
        };
        self.tidy(&mut rooms, &room);
        // a seat that is dropped locks the rooms
        entered.then(|| Seat {
            rooms: self,
            room,
            peer,
            role,
            number,
        })
    }

    fn tidy(&self, rooms: &mut HashMap<Room, Inside>, room: &Room) {
        if rooms.get(room).is_some_and(Inside::is_empty) {
            rooms.remove(room);
        }
        self.counts.set_rooms(rooms.len());
    }
}

/// Enters a router; returns false if there is no room.
fn enter_router(inside: &mut Inside, peer: PeerId, place: Place, most: usize) -> bool {
    let is_new = !inside.routers.contains_key(&peer);
    let others = inside.routers.len();
    // the presence of all routers must fit
    if place.outbox.queue.capacity() < others {
        return false;
    }
    if is_new && others >= most {
        let all =
            { inside.routers.iter() }.filter_map(|(peer, seats)| Some((peer, seats.first()?)));
        let Some(gone) = gives_way(all, place.site) else {
            return false;
        };
        let seats = inside.routers.remove(&gone).into_iter().flatten();
        seats.for_each(|seat| seat.end(GIVES_WAY));
        announce(&mut inside.routers, &gone, &ToNode::Gone(gone));
        tell_gone(inside, &gone);
    }
    let places = &mut inside.routers;
    for other in places.keys().filter(|other| **other != peer) {
        let _ = place.send(&ToNode::Present(*other).encode().into());
    }
    let own = places.entry(peer).or_default();
    if own.len() >= MAX_SEATS {
        own.remove(0).end(REPLACED);
    }
    own.push(place);
    announce(places, &peer, &ToNode::Present(peer));
    for leaf in inside.leaves.values_mut() {
        leaf.tell(&inside.routers, 0);
    }
    true
}

/// Returns the node that gives way to one from `site`: the newest of the site with most, if that
/// has two more.
fn gives_way<'a>(
    all: impl Iterator<Item = (&'a PeerId, &'a Place)> + Clone,
    site: Option<Site>,
) -> Option<PeerId> {
    let unproven = all.filter(|(_, place)| !place.is_proven);
    let mut counts: HashMap<Option<Site>, usize> = HashMap::new();
    for (_, place) in unproven.clone() {
        *counts.entry(place.site).or_default() += 1;
    }
    let own = counts.get(&site).copied().unwrap_or(0);
    // clients of this host may come by a proxy, from many sites
    let of_sites = counts.into_iter().filter(|(site, _)| site.is_some());
    let (largest, count) = of_sites.max_by_key(|(_, count)| *count)?;
    if count <= own + 1 {
        return None;
    }
    let of_largest = unproven.filter(|(_, place)| place.site == largest);
    let newest = of_largest.max_by_key(|(_, place)| place.number);
    newest.map(|(peer, _)| *peer)
}

/// Enters a leaf in the place of its earlier one; returns false if the room is full.
fn enter_leaf(inside: &mut Inside, peer: PeerId, place: Place, most: usize) -> bool {
    if inside.leaves.len() >= most && !inside.leaves.contains_key(&peer) {
        let all = inside.leaves.iter().map(|(peer, leaf)| (peer, &leaf.place));
        let Some(gone) = gives_way(all, place.site) else {
            return false;
        };
        if let Some(leaf) = inside.leaves.remove(&gone) {
            leaf.place.end(GIVES_WAY);
        }
    }
    let mut leaf = LeafPlace {
        place,
        told: Vec::new(),
    };
    leaf.tell(&inside.routers, any(inside.routers.len()));
    if let Some(before) = inside.leaves.insert(peer, leaf) {
        before.place.end(REPLACED);
    }
    true
}

/// Reports a router's end to the leaves that know it, with another router.
fn tell_gone(inside: &mut Inside, router: &PeerId) {
    let gone = Bytes::from(ToNode::Gone(*router).encode());
    for leaf in inside.leaves.values_mut() {
        if let Some(at) = leaf.told.iter().position(|told| told == router) {
            leaf.told.swap_remove(at);
            let _ = leaf.place.send(&gone);
            leaf.tell(&inside.routers, any(inside.routers.len()));
        }
    }
}

/// Sends a message to all other routers of the room; disconnects those with a full queue.
fn announce(places: &mut Places, about: &PeerId, what: &ToNode) {
    let bytes = Bytes::from(what.encode());
    places.retain(|peer, seats| {
        if peer != about {
            seats.retain(|place| {
                let sent = place.send(&bytes);
                if !sent {
                    place.outbox.cut.notify_one();
                }
                sent
            });
        }
        !seats.is_empty()
    });
}

impl Seat<'_> {
    /// Notes that the node has proven membership in the room's network.
    pub(super) fn prove(&self) {
        let mut rooms = self.rooms.locked();
        let Some(inside) = rooms.get_mut(&self.room) else {
            return;
        };
        let routers = inside.routers.get_mut(&self.peer).into_iter().flatten();
        let leaf = inside.leaves.get_mut(&self.peer);
        let places = routers.chain(leaf.map(|leaf| &mut leaf.place));
        // the key has proven it, for all its connections
        places.for_each(|place| place.is_proven = true);
    }

    /// Sends a message over all connections of the recipient, since the newest may be dead.
    pub(super) fn forward(&self, to: PeerId, bytes: Vec<u8>) {
        let message = ToNode::Deliver {
            from: self.peer,
            bytes,
        };
        let bytes = Bytes::from(message.encode());
        self.rooms.counts.forwarded(bytes.len());
        let rooms = self.rooms.locked();
        let inside = rooms.get(&self.room);
        let routers = inside.and_then(|inside| inside.routers.get(&to));
        // leaves send no messages to each other
        let leaf = inside.filter(|_| self.role == Role::Router);
        let leaf = leaf.and_then(|inside| inside.leaves.get(&to));
        let places = routers.into_iter().flatten();
        for place in places.chain(leaf.map(|leaf| &leaf.place)) {
            // signalling repeats messages: a full queue loses only this one
            if place.outbox.waiting() < QUEUE_SEALED {
                let _ = place.send(&bytes);
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut rooms = self.rooms.locked();
        let Some(inside) = rooms.get_mut(&self.room) else {
            return;
        };
        match self.role {
            Role::Leaf => {
                let is_own = |leaf: &LeafPlace| leaf.place.number == self.number;
                if inside.leaves.get(&self.peer).is_some_and(is_own) {
                    inside.leaves.remove(&self.peer);
                }
            }
            Role::Router => leave(inside, &self.peer, self.number),
        }
        self.rooms.tidy(&mut rooms, &self.room);
    }
}

/// Removes a router's place, and reports its end if it has no other one.
fn leave(inside: &mut Inside, peer: &PeerId, number: u64) {
    let places = &mut inside.routers;
    // it may have given way
    let Some(seats) = places.get_mut(peer) else {
        return;
    };
    seats.retain(|place| place.number != number);
    if !seats.is_empty() {
        return;
    }
    places.remove(peer);
    announce(places, peer, &ToNode::Gone(*peer));
    tell_gone(inside, peer);
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn room() -> Room {
        Room::of(&SecretKey::from_seed(&[9; 32]).peer_id())
    }

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn rooms() -> Rooms {
        Rooms::new(MAX_ROOM, Arc::default())
    }

    struct Client<'a> {
        seat: Seat<'a>,
        outbox: Outbox,
        queue: mpsc::Receiver<Bytes>,
    }

    impl Client<'_> {
        fn is_cut(&self) -> bool {
            use futures_util::FutureExt;
            self.outbox.is_cut().now_or_never().is_some()
        }

        fn send(&self, to: u8) {
            self.seat.forward(peer(to), vec![7]);
        }
    }

    fn enter_as(rooms: &Rooms, n: u8, role: Role) -> Option<Client<'_>> {
        enter_from(rooms, n, role, None)
    }

    fn enter_from(rooms: &Rooms, n: u8, role: Role, site: Option<u8>) -> Option<Client<'_>> {
        let (peer, room) = (peer(n), room());
        let site = site.and_then(|site| Site::around([192, 0, site, n].into()).last());
        let registration = Registration { peer, room, role };
        let (seat, outbox, queue) = rooms.register(registration, site)?;
        Some(Client {
            seat,
            outbox,
            queue,
        })
    }

    fn enter(rooms: &Rooms, n: u8) -> Option<Client<'_>> {
        enter_as(rooms, n, Role::Router)
    }

    fn enter_as_leaf(rooms: &Rooms, n: u8) -> Option<Client<'_>> {
        enter_as(rooms, n, Role::Leaf)
    }

    fn received(client: &mut Client<'_>) -> Vec<ToNode> {
        std::iter::from_fn(|| client.queue.try_recv().ok())
            .map(|b| ToNode::decode(&b).unwrap())
            .collect()
    }

    fn from(n: u8) -> ToNode {
        ToNode::Deliver {
            from: peer(n),
            bytes: vec![7],
        }
    }

    #[test]
    fn a_room_tells_who_comes_and_goes_and_relays() {
        let rooms = rooms();
        let mut a = enter(&rooms, 1).unwrap();
        let mut b = enter(&rooms, 2).unwrap();
        assert_eq!(received(&mut a), [ToNode::Present(peer(2))]);
        assert_eq!(received(&mut b), [ToNode::Present(peer(1))]);
        a.send(2);
        assert_eq!(received(&mut b), [from(1)]);
        drop(b);
        assert_eq!(received(&mut a), [ToNode::Gone(peer(2))]);
        drop(a);
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn a_connection_may_be_in_many_rooms_and_each_tells_for_itself() {
        let rooms = rooms();
        let mut many = enter(&rooms, 1).unwrap();
        let other = |n: u8| Room([n; 32]);
        let entry = |n: u8, room: u8| Registration {
            peer: peer(n),
            room: other(room),
            role: Role::Router,
        };
        let in_a = rooms.enter(entry(11, 70), &many.outbox, None).unwrap();
        let in_b = rooms.enter(entry(12, 71), &many.outbox, None).unwrap();
        assert!(received(&mut many).is_empty());
        let (seat, outbox, queue) = rooms.register(entry(2, 71), None).unwrap();
        let mut friend = Client {
            seat,
            outbox,
            queue,
        };
        assert_eq!(received(&mut friend), [ToNode::Present(peer(12))]);
        let told = |own: u8, message| ToNode::In {
            own: peer(own),
            message: Box::new(message),
        };
        assert_eq!(
            received(&mut many),
            [told(12, ToNode::Present(peer(2)))],
            "in that room alone"
        );
        // messages by the keys of the room; those by another key reach nobody there
        friend.send(12);
        friend.send(11);
        friend.send(1);
        assert_eq!(received(&mut many), [told(12, from(2))]);
        in_b.forward(peer(2), vec![7]);
        in_a.forward(peer(2), vec![7]);
        assert_eq!(received(&mut friend), [from(12)]);
        drop(in_b);
        assert_eq!(received(&mut friend), [ToNode::Gone(peer(12))]);
        // an entry that newer ones replace ends alone
        let newer: Vec<_> = (0..MAX_SEATS)
            .map(|_| rooms.enter(entry(11, 70), &friend.outbox, None).unwrap())
            .collect();
        let replaced = told(11, ToNode::Refused(REPLACED.into()));
        assert_eq!(received(&mut many), [replaced]);
        assert!(!many.is_cut() && !friend.is_cut());
        drop((in_a, newer, many, friend));
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn rooms_are_closed_to_each_other() {
        let rooms = rooms();
        let mut a = enter(&rooms, 1).unwrap();
        let (b, ..) = rooms
            .register(
                Registration {
                    peer: peer(2),
                    room: Room([0; 32]),
                    role: Role::Router,
                },
                None,
            )
            .unwrap();
        b.forward(peer(1), vec![7]);
        assert!(received(&mut a).is_empty());
    }

    #[test]
    fn a_peer_is_present_until_its_last_connection_ends() {
        let rooms = rooms();
        let mut watcher = enter(&rooms, 3).unwrap();
        let mut old = enter(&rooms, 1).unwrap();
        let mut new = enter(&rooms, 1).unwrap();
        assert_eq!(
            received(&mut watcher),
            [ToNode::Present(peer(1)), ToNode::Present(peer(1))],
            "who comes again may have restarted"
        );
        assert_eq!(received(&mut old), [ToNode::Present(peer(3))]);
        received(&mut new);
        watcher.send(1);
        assert_eq!((received(&mut old).len(), received(&mut new).len()), (1, 1));
        drop(new);
        assert!(received(&mut watcher).is_empty());
        drop(old);
        assert_eq!(received(&mut watcher), [ToNode::Gone(peer(1))]);
    }

    #[test]
    fn of_too_many_connections_of_a_peer_the_oldest_is_cut_off() {
        let rooms = rooms();
        let clients: Vec<_> = (0..=MAX_SEATS).map(|_| enter(&rooms, 1).unwrap()).collect();
        assert!(clients[0].is_cut() && !clients[1].is_cut());
        drop(clients);
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off() {
        let rooms = rooms();
        let slow = enter(&rooms, 1).unwrap();
        // each comes and goes
        for _ in 0..QUEUE / 2 {
            drop(enter(&rooms, 2).unwrap());
        }
        assert!(!slow.is_cut());
        drop(enter(&rooms, 2).unwrap());
        assert!(slow.is_cut());
    }

    #[test]
    fn a_full_room_takes_nobody_new() {
        let rooms = Rooms::new(2, Arc::default());
        let _inside = [enter(&rooms, 1).unwrap(), enter(&rooms, 2).unwrap()];
        assert!(enter(&rooms, 3).is_none());
        assert!(enter(&rooms, 2).is_some(), "who is there may come again");
    }

    #[test]
    fn in_a_full_room_the_site_with_most_gives_way_and_members_that_prove_it_do_not() {
        for role in [Role::Router, Role::Leaf] {
            let rooms = Rooms::new(6, Arc::default());
            let from = |n, site| enter_from(&rooms, n, role, Some(site));
            let member = from(1, 7).unwrap();
            member.seat.prove();
            let mut flood: Vec<_> = (10..15).map(|n| from(n, 7).unwrap()).collect();
            // the flood displaces nobody, nor itself
            assert!(from(15, 7).is_none());
            let first = from(2, 1).unwrap();
            assert!(flood[4].is_cut(), "the newest of the largest site");
            drop(flood.pop());
            let second = from(3, 2).unwrap();
            let third = from(4, 3).unwrap();
            // two of the flood are left, and others have one each
            assert!(from(5, 1).is_none());
            let last = from(6, 4).unwrap();
            assert!(from(7, 5).is_none(), "all sites have one");
            for client in [&member, &first, &second, &third, &last] {
                assert!(!client.is_cut(), "{}", client.seat.peer);
            }
            assert_eq!(flood.iter().filter(|client| client.is_cut()).count(), 3);
            drop((member, flood, first, second, third, last));
            assert!(rooms.locked().is_empty());
        }
    }

    #[test]
    fn a_leaf_is_told_of_four_routers_and_nobody_of_a_leaf() {
        let rooms = rooms();
        let mut routers: Vec<_> = (1..=6).map(|n| enter(&rooms, n).unwrap()).collect();
        for router in &mut routers {
            received(router);
        }
        let mut leaf = enter_as_leaf(&rooms, 50).unwrap();
        let mut other = enter_as_leaf(&rooms, 51).unwrap();
        let told = |client: &mut Client<'_>| -> std::collections::BTreeSet<PeerId> {
            let all = received(client).into_iter().map(|message| match message {
                ToNode::Present(router) => router,
                message => panic!("{message:?}"),
            });
            all.collect()
        };
        let of_leaf = told(&mut leaf);
        assert_eq!((of_leaf.len(), told(&mut other).len()), (4, 4));
        let mut newcomer = enter(&rooms, 7).unwrap();
        assert_eq!(received(&mut newcomer).len(), 6, "routers alone");
        assert!(received(&mut leaf).is_empty(), "it knows enough");
        // leaf and router can send to each other, leaves cannot
        leaf.send(7);
        newcomer.send(50);
        leaf.send(51);
        assert_eq!(received(&mut newcomer), [from(50)]);
        assert_eq!(received(&mut leaf), [from(7)]);
        assert!(received(&mut other).is_empty());
        // a known router leaves, and the leaf learns of another
        let gone = *of_leaf.first().unwrap();
        routers.retain(|router| router.seat.peer != gone);
        let heard = received(&mut leaf);
        let [ToNode::Gone(left), ToNode::Present(another)] = heard.as_slice() else {
            panic!("{heard:?}")
        };
        assert!(*left == gone && !of_leaf.contains(another));
        // a leaf that returns takes its place, and routers learn nothing of its end
        let again = enter_as_leaf(&rooms, 50).unwrap();
        assert!(leaf.is_cut());
        drop(leaf);
        for router in &mut routers {
            received(router);
        }
        newcomer.send(50);
        drop((again, other));
        for router in &mut routers {
            assert!(received(router).is_empty());
        }
        drop((routers, newcomer));
        assert!(rooms.locked().is_empty());
    }
}
