//! A real relay over loopback: UDP and TCP on the server's port, and the client of the crate `rtc`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lcroute_overlay::server::RelayCredentials;
use lcroute_signalling::server::{RelaySettings, Server};
use lcroute_signalling::{CarrierEvent, Carriers};
use lcroute_webrtc::relay::{Framer, mint};
use librecast::cert::{Chain, Grant};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::turn::client::{Client, ClientConfig, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

async fn start(relay: bool) -> SocketAddr {
    start_with(relay.then(settings)).await
}

fn settings() -> RelaySettings {
    RelaySettings {
        open: false,
        private: false,
        rate: 20_000_000,
        rate_total: 200_000_000,
        leaf_rate: 20_000_000,
        strangers: None,
        addresses: Vec::new(),
        is_near: Arc::new(|_| false),
    }
}

async fn start_with(relay: Option<RelaySettings>) -> SocketAddr {
    let server = Server::bind("[::]:0".parse().unwrap(), None).await.unwrap();
    let server = server.with_relay(relay);
    let port = server.local_addr().unwrap().port();
    tokio::spawn(server.run(std::future::pending()));
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Returns the credentials that a registering member gets.
async fn offered(server: SocketAddr) -> Option<RelayCredentials> {
    let (network, key) = (SecretKey::generate(), SecretKey::generate());
    let chain = chain(&network, &key, now() + 60);
    offered_to(server, &network, key, Some(chain)).await
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

fn chain(network: &SecretKey, node: &SecretKey, not_after: u64) -> Chain {
    let issuer = SecretKey::generate();
    let grant = |name| Grant::new(name, (0, not_after));
    let node = (node.peer_id(), grant("node"));
    Chain::sign(network, (&issuer, grant("")), node).unwrap()
}

async fn offered_to(
    server: SocketAddr,
    network: &SecretKey,
    key: SecretKey,
    chain: Option<Chain>,
) -> Option<RelayCredentials> {
    let (sender, mut events) = mpsc::channel(64);
    let mut carriers = Carriers::new(Arc::new(key), network.peer_id(), sender);
    carriers.set_chain(chain);
    carriers.set_servers(&[format!("ws://{server}")], None);
    let offer = async {
        loop {
            match events.recv().await? {
                CarrierEvent::Relay(_, credentials) => return Some(credentials),
                _ => continue,
            }
        }
    };
    timeout(Duration::from_secs(3), offer).await.ok()?
}

enum Leg {
    Udp(UdpSocket),
    Tcp(TcpStream, Framer),
}

struct Node {
    leg: Leg,
    server: SocketAddr,
    client: Client,
}

impl Node {
    async fn new(server: SocketAddr, tcp: bool, credentials: RelayCredentials) -> Self {
        let leg = if tcp {
            let stream = TcpStream::connect(server).await.unwrap();
            Leg::Tcp(stream, Framer::default())
        } else {
            Leg::Udp(UdpSocket::bind("127.0.0.1:0").await.unwrap())
        };
        let config = ClientConfig {
            turn_serv_addr: server.to_string(),
            username: credentials.user,
            password: credentials.password,
            ..ClientConfig::default()
        };
        let client = Client::new(config, rtc::crypto::default_provider().unwrap()).unwrap();
        Self {
            leg,
            server,
            client,
        }
    }

    async fn flush(&mut self) {
        while let Some(sent) = self.client.poll_write() {
            match &mut self.leg {
                Leg::Udp(udp) => drop(udp.send_to(&sent.message, self.server).await.unwrap()),
                Leg::Tcp(stream, _) => stream.write_all(&sent.message).await.unwrap(),
            }
        }
    }

    async fn receive(&mut self) {
        let mut buffer = vec![0; 2_000];
        let mut messages = Vec::new();
        match &mut self.leg {
            Leg::Udp(udp) => {
                let (n, _) = udp.recv_from(&mut buffer).await.unwrap();
                messages.push(BytesMut::from(&buffer[..n]));
            }
            Leg::Tcp(stream, framer) => {
                let n = stream.read(&mut buffer).await.unwrap();
                assert!(n > 0, "closed");
                framer.push(&buffer[..n]);
                while let Some(frame) = framer.poll_frame().unwrap() {
                    messages.push(BytesMut::from(&frame[..]));
                }
            }
        }
        for message in messages {
            let transport = TransportContext {
                local_addr: "127.0.0.1:0".parse().unwrap(),
                peer_addr: self.server,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            };
            let now = Instant::now();
            let _ = self.client.handle_read(TaggedBytesMut {
                now,
                transport,
                message,
            });
        }
    }

    async fn event(&mut self) -> Event {
        let wait = async {
            loop {
                self.flush().await;
                if let Some(event) = self.client.poll_event() {
                    return event;
                }
                self.receive().await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap()
    }

    async fn allocate(&mut self) -> Option<SocketAddr> {
        self.client.allocate(Instant::now()).unwrap();
        match self.event().await {
            Event::AllocateResponse(_, relayed) => Some(relayed),
            Event::AllocateError(..) => None,
            other => panic!("{other:?}"),
        }
    }

    async fn permit(&mut self, own: SocketAddr, peer: SocketAddr) -> bool {
        let mut relay = self.client.relay(own).unwrap();
        relay.create_permission(Instant::now(), peer).unwrap();
        matches!(self.event().await, Event::CreatePermissionResponse(..))
    }

    async fn send(&mut self, own: SocketAddr, peer: SocketAddr, contents: &[u8]) {
        let mut relay = self.client.relay(own).unwrap();
        relay.send_to(Instant::now(), contents, peer).unwrap();
        self.flush().await;
    }

    async fn data(&mut self) -> (SocketAddr, Vec<u8>) {
        loop {
            if let Event::DataIndicationOrChannelData(_, from, data) = self.event().await {
                return (from, data.to_vec());
            }
        }
    }
}

#[tokio::test]
async fn registered_nodes_meet_at_the_relay_over_udp_and_tcp() {
    let server = start(true).await;
    let mut nodes = Vec::new();
    for tcp in [false, true, true] {
        let credentials = offered(server).await.unwrap();
        nodes.push(Node::new(server, tcp, credentials).await);
    }
    let mut relayed = Vec::new();
    for node in &mut nodes {
        relayed.push(node.allocate().await.unwrap());
    }
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        assert!(nodes[a].permit(relayed[a], relayed[b]).await);
        assert!(nodes[b].permit(relayed[b], relayed[a]).await);
        for turn in 0..20 {
            let contents = vec![turn; 1 + usize::from(turn) * 60];
            nodes[a].send(relayed[a], relayed[b], &contents).await;
            assert_eq!(nodes[b].data().await, (relayed[a], contents.clone()));
            nodes[b].send(relayed[b], relayed[a], &contents).await;
            assert_eq!(nodes[a].data().await, (relayed[b], contents));
        }
    }
}

#[tokio::test]
async fn who_is_not_registered_gets_nothing() {
    let server = start(true).await;
    let forged = mint(b"a guess", "somebody", u64::MAX);
    for tcp in [false, true] {
        let mut node = Node::new(server, tcp, forged.clone()).await;
        assert_eq!(node.allocate().await, None);
    }
}

#[tokio::test]
async fn only_members_of_the_rooms_network_get_credentials_unless_the_relay_is_open() {
    let [network, other] = [SecretKey::generate(), SecretKey::generate()];
    let relay = RelaySettings {
        open: true,
        ..settings()
    };
    let open = start_with(Some(relay)).await;
    let closed = start(true).await;
    for (by, until, is_member) in [
        (None, 0, false),
        (Some(&other), now() + 60, false),
        (Some(&network), now() - 2 * 86_400, false),
        (Some(&network), now() + 60, true),
    ] {
        for (server, expected) in [(open, true), (closed, is_member)] {
            let key = SecretKey::generate();
            let chain = by.map(|by| chain(by, &key, until));
            let offered = offered_to(server, &network, key, chain).await;
            assert_eq!(offered.is_some(), expected, "until {until}");
        }
    }
}

#[tokio::test]
async fn certificates_that_were_renewed_are_shown_again() {
    let server = start(true).await;
    let [network, key] = [SecretKey::generate(), SecretKey::generate()];
    let [expired, renewed] = [now() - 2 * 86_400, now() + 60].map(|at| chain(&network, &key, at));
    let (sender, mut events) = mpsc::channel(64);
    let mut carriers = Carriers::new(Arc::new(key), network.peer_id(), sender);
    carriers.set_chain(Some(expired));
    carriers.set_servers(&[format!("ws://{server}")], None);
    let offered = async |events: &mut mpsc::Receiver<CarrierEvent>, time_limit| {
        let offer =
            async { while !matches!(events.recv().await, Some(CarrierEvent::Relay(..))) {} };
        timeout(time_limit, offer).await.is_ok()
    };
    assert!(!offered(&mut events, Duration::from_secs(1)).await);
    carriers.set_chain(Some(renewed));
    assert!(offered(&mut events, DEADLINE).await);
}

#[tokio::test]
async fn a_flood_of_allocations_ends_at_the_users_bound() {
    let server = start(true).await;
    let credentials = offered(server).await.unwrap();
    let mut granted = 0;
    let mut nodes = Vec::new();
    for _ in 0..20 {
        let mut node = Node::new(server, false, credentials.clone()).await;
        granted += usize::from(node.allocate().await.is_some());
        nodes.push(node);
    }
    assert_eq!(granted, 4);
}

#[tokio::test]
async fn a_server_may_leave_it() {
    let server = start(false).await;
    assert_eq!(offered(server).await, None);
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[0, 3, 0, 0]).await.unwrap();
    let read = timeout(DEADLINE, stream.read(&mut [0; 9])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}
