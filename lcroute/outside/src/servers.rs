//! Signalling servers of pairs: a connection holds up to 64 rooms.
//!
//! A connection registers with a key and a network of its own, which nobody else knows, and enters
//! the rooms of pairs. So a server relays for this host without a look at any pair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::server::{MAX_ENTERED, Room};
use lcroute_overlay::{CarrierId, Presence};
use lcroute_signalling::{CarrierEvent, Entries, Entry, ManyRooms, PathChange, Registrant};
use librecast::cert::{CertError, Chain, Grant};
use librecast::id::{PeerId, SecretKey};
use librecast::time::{Duration, Instant, UnixTime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::arrived::Arrived;
use crate::share::ViewId;

/// Most connections to one server. Chosen: no more than a small network has.
const MAX_CONNECTIONS: usize = 8;
/// Lifetime of a registration, after which its key and network are other ones: a day, as of pairs.
const LIFETIME: Duration = Duration::from_secs(86_400);
/// Events that wait for the program.
const EVENTS: usize = 256;
/// Name in the certificates of a registration. It says nothing.
const NAME: &str = "pair";

/// A pair's room that is wanted at a server.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) node: ViewId,
    pub(crate) own: Arc<SecretKey>,
    pub(crate) room: Room,
    /// Whether somebody waits for it: it comes first.
    pub(crate) seeks: bool,
}

/// A connection with many rooms.
#[derive(Debug)]
struct Connection {
    rooms: ManyRooms,
    /// Own keys in its rooms.
    held: BTreeSet<PeerId>,
    /// Forwards its events.
    _events: JoinSet<()>,
}

#[derive(Debug)]
struct Server {
    carrier: CarrierId,
    connections: Vec<Connection>,
    made: Instant,
}

impl Server {
    fn new(carrier: CarrierId) -> Self {
        Self {
            carrier,
            connections: Vec::new(),
            made: Instant::now(),
        }
    }
}

/// All servers of pairs, by URL.
#[derive(Debug)]
pub(crate) struct Servers {
    servers: BTreeMap<String, Server>,
    /// Pairs by own keys.
    owners: BTreeMap<PeerId, ViewId>,
    told: mpsc::Sender<Arrived>,
    next: u32,
}

impl Servers {
    pub(crate) fn new(told: mpsc::Sender<Arrived>) -> Self {
        Self {
            servers: BTreeMap::new(),
            owners: BTreeMap::new(),
            told,
            next: 0,
        }
    }

    /// Sets the rooms that are wanted at each server.
    pub(crate) fn set(&mut self, wanted: BTreeMap<String, Vec<Wanted>>) {
        self.servers.retain(|url, _| wanted.contains_key(url));
        let all = wanted.values().flatten();
        self.owners = all.map(|room| (room.own.peer_id(), room.node)).collect();
        for (url, mut rooms) in wanted {
            let next = &mut self.next;
            let server = self.servers.entry(url.clone()).or_insert_with(|| {
                *next += 1;
                Server::new(CarrierId(*next))
            });
            let held: BTreeSet<_> = server.connections.iter().flat_map(|c| &c.held).collect();
            // sought pairs come first, then those that have a room already
            rooms.sort_by_key(|room| (!room.seeks, !held.contains(&room.own.peer_id())));
            if let Err(e) = distribute(&url, server, &rooms, &self.told) {
                tracing::error!("{url}: {e}");
            }
        }
    }

    /// Returns the pair whose room has this own key.
    pub(crate) fn owner(&self, own: &PeerId) -> Option<ViewId> {
        self.owners.get(own).copied()
    }

    /// Sends a message in a room at every server that holds it.
    pub(crate) fn send(&self, own: PeerId, to: PeerId, bytes: &Bytes) {
        let connections = self.servers.values().flat_map(|server| &server.connections);
        for connection in connections.filter(|connection| connection.held.contains(&own)) {
            // signalling repeats messages
            let _ = connection.rooms.send(own, to, bytes);
        }
    }

    /// Returns the number of a server as a carrier.
    pub(crate) fn carrier(&self, url: &str) -> Option<CarrierId> {
        self.servers.get(url).map(|server| server.carrier)
    }

    pub(crate) fn path_changed(&self, change: PathChange) {
        let connections = self.servers.values().flat_map(|server| &server.connections);
        connections.for_each(|connection| connection.rooms.path_changed(change));
    }

    /// Ends registrations of the day before; returns whether the rooms are to be set again.
    pub(crate) fn renew(&mut self) -> bool {
        let mut any = false;
        for server in self.servers.values_mut() {
            if server.made.elapsed() >= LIFETIME {
                server.connections.clear();
                (server.made, any) = (Instant::now(), true);
            }
        }
        any
    }

    pub(crate) fn clear(&mut self) {
        self.servers.clear();
    }
}

/// Distributes rooms over connections; those that have one stay there.
fn distribute(
    url: &str,
    server: &mut Server,
    rooms: &[Wanted],
    told: &mpsc::Sender<Arrived>,
) -> Result<(), CertError> {
    let kept: BTreeMap<_, _> = rooms
        .iter()
        .take(MAX_CONNECTIONS * MAX_ENTERED)
        .map(|room| (room.own.peer_id(), room))
        .collect();
    for connection in &mut server.connections {
        connection.held.retain(|own| kept.contains_key(own));
    }
    let held = |connections: &[Connection], own: &PeerId| {
        connections
            .iter()
            .any(|connection| connection.held.contains(own))
    };
    for own in kept.keys() {
        if held(&server.connections, own) {
            continue;
        }
        let free = server
            .connections
            .iter_mut()
            .find(|c| c.held.len() < MAX_ENTERED);
        match free {
            Some(connection) => drop(connection.held.insert(*own)),
            None => {
                let mut connection = connect(url, server.carrier, told)?;
                connection.held.insert(*own);
                server.connections.push(connection);
            }
        }
    }
    // the first one has the relay
    let mut first = true;
    server
        .connections
        .retain(|connection| std::mem::take(&mut first) || !connection.held.is_empty());
    for connection in &server.connections {
        let entry = |own: &PeerId| {
            let room = kept.get(own)?;
            let entry = Entry {
                key: Arc::clone(&room.own),
                room: room.room,
            };
            Some((*own, entry))
        };
        let entries: Entries = connection.held.iter().filter_map(entry).collect();
        connection.rooms.set(entries);
    }
    Ok(())
}

fn connect(
    url: &str,
    carrier: CarrierId,
    told: &mpsc::Sender<Arrived>,
) -> Result<Connection, CertError> {
    let (events, mut happened) = mpsc::channel(EVENTS);
    let (rooms, mut heard) = mpsc::channel(EVENTS);
    let mut forward = JoinSet::new();
    let to = told.clone();
    forward.spawn(async move {
        while let Some((own, event)) = heard.recv().await {
            if to.send(Arrived::Room(own, event)).await.is_err() {
                return;
            }
        }
    });
    let to = told.clone();
    forward.spawn(async move {
        while let Some(event) = happened.recv().await {
            // nobody else is in the room of its registration
            if let CarrierEvent::Relay(url, credentials) = event
                && to.send(Arrived::Relay(url, credentials)).await.is_err()
            {
                return;
            }
        }
    });
    Ok(Connection {
        rooms: ManyRooms::start((url, None), carrier, registrant()?, events, rooms),
        held: BTreeSet::new(),
        _events: forward,
    })
}

/// Makes a key, and a network of its own.
fn registrant() -> Result<Registrant, CertError> {
    let [network, issuer, key] = std::array::from_fn(|_| SecretKey::generate());
    let now = UnixTime::now().as_secs();
    // clocks may differ by a day
    let day = LIFETIME.as_secs();
    let times = (now.saturating_sub(day), now + 2 * day);
    let grant = |name| Grant::new(name, times);
    let chain = Chain::sign(&network, (&issuer, grant("")), (key.peer_id(), grant(NAME)))?;
    Ok(Registrant {
        key: Arc::new(key),
        network: network.peer_id(),
        chain,
    })
}

/// Returns the event of a room that its server does not hold any more.
pub(crate) fn down(carrier: CarrierId) -> CarrierEvent {
    CarrierEvent::Presence(carrier, Presence::CarrierDown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "ws://192.0.2.1:9";

    fn wanted(count: usize, sought: usize) -> BTreeMap<String, Vec<Wanted>> {
        let rooms = (0..count).map(|n| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&n.to_be_bytes());
            let own = SecretKey::from_seed(&seed);
            Wanted {
                node: ViewId(n as u32),
                room: Room::of(&own.peer_id()),
                own: Arc::new(own),
                seeks: n >= count - sought,
            }
        });
        [(URL.to_owned(), rooms.collect())].into()
    }

    fn held(servers: &Servers) -> Vec<usize> {
        let connections = &servers.servers[URL].connections;
        connections.iter().map(|c| c.held.len()).collect()
    }

    #[tokio::test]
    async fn a_connection_holds_many_rooms_and_eight_of_them_hold_no_more() {
        let mut servers = Servers::new(mpsc::channel(9).0);
        servers.set(wanted(70, 0));
        assert_eq!(held(&servers), [64, 6]);
        let first = servers.servers[URL].connections[0].held.clone();
        servers.set(wanted(600, 0));
        assert_eq!(held(&servers), [64; 8]);
        assert_eq!(
            servers.servers[URL].connections[0].held, first,
            "none moves"
        );
        let sought = wanted(600, 3);
        let keys: Vec<_> = sought[URL][597..]
            .iter()
            .map(|room| room.own.peer_id())
            .collect();
        servers.set(sought);
        let connections = &servers.servers[URL].connections;
        let is_held = |key: &&PeerId| connections.iter().any(|c| c.held.contains(key));
        assert_eq!(
            keys.iter().filter(is_held).count(),
            3,
            "who is sought comes first"
        );
        servers.set(wanted(3, 0));
        assert_eq!(held(&servers).iter().sum::<usize>(), 3);
        servers.set(BTreeMap::new());
        assert!(servers.servers.is_empty());
    }
}
