//! Many rooms of one connection, over loopback, at a real server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::server::{Room, ToNode, ToServer};
use lcroute_overlay::{CarrierId, Presence};
use lcroute_signalling::server::{Counts, Server, Usage};
use lcroute_signalling::{CarrierEvent, Entries, Entry, ManyRooms, Registrant, RoomEvent};
use librecast::cert::{Chain, Grant};
use librecast::id::{PeerId, SecretKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const DEADLINE: Duration = Duration::from_secs(30);
const CARRIER: CarrierId = CarrierId(70_000);

/// A server until it is told to stop, and its counters.
struct Running {
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(at: SocketAddr) -> (Self, SocketAddr) {
        let server = Server::bind(at, None).await.unwrap().public();
        let (counts, at) = (server.counts(), server.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        (Self { counts, stop, task }, at)
    }

    /// Waits until the counters are these.
    async fn until(&self, what: &str, is_it: impl Fn(&Usage) -> bool) {
        let wait = async {
            while !is_it(&self.counts.usage()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:?}", self.counts.usage()));
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

struct Host {
    rooms: ManyRooms,
    told: mpsc::Receiver<RoomEvent>,
    _events: mpsc::Receiver<CarrierEvent>,
}

impl Host {
    fn new(at: SocketAddr) -> Self {
        let [network, issuer, key] = std::array::from_fn(|_| SecretKey::generate());
        let grant = |name| Grant::new(name, (0, u64::MAX));
        let node = (key.peer_id(), grant("node"));
        let registrant = Registrant {
            chain: Chain::sign(&network, (&issuer, grant("")), node).unwrap(),
            network: network.peer_id(),
            key: Arc::new(key),
        };
        let (events, own) = mpsc::channel(64);
        let (rooms, told) = mpsc::channel(1_024);
        let url = format!("ws://{at}");
        Self {
            rooms: ManyRooms::start((&url, None), CARRIER, registrant, events, rooms),
            told,
            _events: own,
        }
    }

    async fn next(&mut self) -> RoomEvent {
        let next = timeout(DEADLINE, self.told.recv()).await;
        next.expect("an event in time").expect("it lives")
    }

    /// Waits for an event in the room of this key.
    async fn until(&mut self, own: PeerId, is_it: impl Fn(&CarrierEvent) -> bool) {
        loop {
            let (of, event) = self.next().await;
            if of == own && is_it(&event) {
                return;
            }
        }
    }

    async fn until_presence(&mut self, own: PeerId, presence: Presence) {
        let is_it =
            |e: &CarrierEvent| matches!(e, CarrierEvent::Presence(CARRIER, p) if *p == presence);
        self.until(own, is_it).await;
    }
}

fn key(n: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::from_seed(&[n; 32]))
}

/// Keys of these numbers, each in the room of a number.
fn entries(rooms: impl IntoIterator<Item = (u8, u8)>) -> Entries {
    let entry = |(own, room): (u8, u8)| {
        let entry = Entry {
            key: key(own),
            room: Room([room; 32]),
        };
        (key(own).peer_id(), entry)
    };
    rooms.into_iter().map(entry).collect::<BTreeMap<_, _>>()
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn hosts_meet_in_each_of_their_rooms_and_again_after_a_restart_of_the_server() {
    let (running, at) = Running::start(any()).await;
    let (mut ann, mut bob) = (Host::new(at), Host::new(at));
    // sixty rooms on either side, of which one is common
    ann.rooms.set(entries((0..60).map(|n| (n, n))));
    bob.rooms.set(entries((100..160).map(|n| (n, n - 50))));
    let (a, b) = (key(55).peer_id(), key(105).peer_id());
    ann.until_presence(a, Presence::Online(b)).await;
    bob.until_presence(b, Presence::Online(a)).await;
    let are_all = |usage: &Usage| (usage.clients, usage.entered) == (2, 120);
    running.until("all rooms", are_all).await;
    assert!(ann.rooms.send(a, b, &Bytes::from_static(b"hello")));
    let is_hello = |e: &CarrierEvent| matches!(e, CarrierEvent::Signal { from, bytes, .. } if *from == a && bytes == b"hello");
    bob.until(b, is_hello).await;
    // a room that is left is empty, and the others stay
    ann.rooms
        .set(entries((0..60).filter(|n| *n != 55).map(|n| (n, n))));
    bob.until_presence(b, Presence::Offline(a)).await;
    ann.rooms.set(entries((0..60).map(|n| (n, n))));
    bob.until_presence(b, Presence::Online(a)).await;
    running.stop().await;
    ann.until_presence(a, Presence::CarrierDown).await;
    let (running, _) = Running::start(at).await;
    ann.until_presence(a, Presence::Online(b)).await;
    drop(bob);
    ann.until_presence(a, Presence::Offline(b)).await;
    let is_alone = |u: &Usage| (u.clients, u.rooms, u.entered, u.turned_away) == (1, 61, 60, 0);
    running.until("one of them", is_alone).await;
}

#[tokio::test]
async fn more_rooms_than_a_connection_holds_are_refused_by_both_sides() {
    let (running, at) = Running::start(any()).await;
    let ann = Host::new(at);
    ann.rooms.set(entries((0..100).map(|n| (n, n))));
    running.until("64 rooms", |usage| usage.entered == 64).await;
    // a client that does not keep to it
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{at}"))
        .await
        .unwrap();
    let mut challenge = None;
    let mut refused = None;
    while let Some(message) = timeout(DEADLINE, socket.next()).await.unwrap() {
        let Message::Binary(bytes) = message.unwrap() else {
            continue;
        };
        match ToNode::decode(&bytes).unwrap() {
            ToNode::Challenge(bytes) => {
                challenge = Some(bytes);
                let role = lcroute_overlay::server::Role::Router;
                let register = ToServer::register(&key(200), Room([200; 32]), role, &bytes);
                let entering =
                    (0..65).map(|n| ToServer::enter(&key(n), Room([n + 101; 32]), &bytes));
                for message in [register].into_iter().chain(entering) {
                    socket
                        .send(Message::binary(message.encode()))
                        .await
                        .unwrap();
                }
            }
            ToNode::In { own, message } => {
                if let ToNode::Refused(why) = *message {
                    refused = Some((own, why));
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, Some((key(64).peer_id(), "too many rooms".into())));
    assert_eq!(running.counts.usage().entered, 128);
    // a signature for another room ends the connection, with all its rooms
    let forged = ToServer::enter(&key(70), Room([1; 32]), &[0; 32]);
    assert_ne!(challenge, Some([0; 32]));
    for message in [ToServer::Leave(key(0).peer_id()), forged] {
        socket
            .send(Message::binary(message.encode()))
            .await
            .unwrap();
    }
    while let Some(Ok(_)) = timeout(DEADLINE, socket.next()).await.unwrap() {}
    running
        .until("its rooms are empty", |usage| usage.entered == 64)
        .await;
}
