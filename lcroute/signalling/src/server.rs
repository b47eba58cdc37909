//! The signalling server: tells the nodes of a room about one another and relays their sealed messages.
//!
//! It learns PeerIds and the addresses that its clients come from, nothing else. Everything a client can
//! fill is bounded; a client that does not read is cut off.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::server::{MAX_MESSAGE, Room, ToNode, ToServer};
use lcroute_webrtc::relay::is_relay_stream;
use librecast::bucket::TokenBucket;
use librecast::events::LogLimit;
use librecast::id::PeerId;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use crate::relay::RelaySettings;
use crate::relay::{Relay, serve_udp};
pub use crate::tls::{Certificate, TlsFiles};

/// Most connections at a time.
const MAX_CLIENTS: usize = 8_192;
/// Connections from one address unless configured otherwise: dozens of nodes behind one NAT, and those that are dying.
pub const PER_ADDRESS: usize = 256;
/// Connections at a time that are refused with a reason; more are closed without a word.
const MAX_REFUSALS: usize = 16;
const TOO_MANY: &str = "too many connections from your address";
/// Most nodes of one room.
const MAX_ROOM: usize = 4_096;
/// Connections of one node: it may know the server by several URLs, and an old connection may be dying.
const MAX_SEATS: usize = 4;
/// Messages that may wait for a client.
const QUEUE: usize = 1_024;
/// Sealed messages are larger than presence: so many of all that wait (2 MiB at most).
const QUEUE_SEALED: usize = 64;
/// A client proves who it is within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A client that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(25);
/// Bits per second of one client's messages, and the burst in bytes; above it the server reads slower.
const CLIENT_RATE: u64 = 8_000_000;
const CLIENT_BURST: u64 = 8 << 20;

/// A bound signalling server.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
    relay: Option<RelaySettings>,
    tls: Option<(Arc<rustls::ServerConfig>, Arc<Certificate>)>,
    max_clients: usize,
    per_address: usize,
}

impl Server {
    /// Binds TCP (WebSocket, with TLS if files are given) and UDP (STUN) on the same port.
    pub async fn bind(listen: SocketAddr, tls: Option<&TlsFiles>) -> io::Result<Self> {
        let tls = tls.map(crate::tls::server).transpose()?;
        let tcp = TcpListener::bind(listen).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self {
            tcp,
            udp,
            relay: None,
            tls,
            max_clients: MAX_CLIENTS,
            per_address: PER_ADDRESS,
        })
    }

    /// Serves at most `n` clients at a time from one IPv4 address, or one /64 of IPv6. Those of this host itself are
    /// not bounded: behind a proxy everybody comes from there.
    #[must_use]
    pub fn with_per_address(self, n: usize) -> Self {
        Self {
            per_address: n,
            ..self
        }
    }

    /// Relays for registered nodes, too.
    #[must_use]
    pub fn with_relay(self, relay: Option<RelaySettings>) -> Self {
        Self { relay, ..self }
    }

    /// Serves at most `n` clients at a time: each costs a descriptor, and whatever else lives in this process
    /// needs some as well.
    #[must_use]
    pub fn with_max_clients(self, n: usize) -> Self {
        let max_clients = self.max_clients.min(n);
        Self {
            max_clients,
            ..self
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The certificate of a server with TLS.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.tls
            .as_ref()
            .map(|(_, certificate)| certificate.clone())
    }

    /// Serves until `shutdown` resolves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let rooms = Arc::new(Rooms::default());
        let udp = Arc::new(self.udp);
        // allocations cost descriptors as well
        let most = self.max_clients / 4;
        let relay = self.relay.map(|r| Relay::new(r, udp.clone(), most));
        let relay = relay.and_then(|relay| {
            let relay = relay.inspect_err(|e| tracing::error!("no relay: {e}"));
            relay.ok()
        });
        let bounds = Bounds {
            clients: self.max_clients,
            per_address: self.per_address,
        };
        tokio::select! {
            () = shutdown => {}
            () = accept(self.tcp, self.tls.map(|(config, _)| config), bounds, rooms, relay.clone()) => {}
            () = serve_udp(udp, relay) => {}
        }
    }
}

/// How many may be connected.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    clients: usize,
    per_address: usize,
}

async fn accept(
    tcp: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    bounds: Bounds,
    rooms: Arc<Rooms>,
    relay: Option<Arc<Relay>>,
) {
    let places = Arc::new(Semaphore::new(bounds.clients));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let addresses = Arc::new(Addresses::new(bounds.per_address));
    let (mut warned, mut log_limit) = (false, LogLimit::default());
    let acceptor = tls.map(TlsAcceptor::from);
    // ends the clients when the server ends
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let (stream, from) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // out of descriptors, most likely: others may leave meanwhile
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!("accept: {e}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // once for each time that it fills up: clients that keep trying cannot fill the log
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(
                    "{from} turned away: {} clients are connected",
                    bounds.clients
                );
            }
            continue;
        };
        warned = false;
        let acceptor = acceptor.clone();
        let Some(counted) = addresses.enter(from.ip()) else {
            if let Some(left_out) = log_limit.admit(Instant::now().into_std()) {
                let (address, most) = (SourceAddress::of(from.ip()), bounds.per_address);
                tracing::warn!(
                    left_out,
                    "{address} turned away: {most} connections from there"
                );
            }
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                clients.spawn(async move {
                    if let Err(e) = converse(stream, acceptor, Welcome::Refuse(TOO_MANY)).await {
                        tracing::debug!("{from}: {e}");
                    }
                    drop((place, refusal));
                });
            }
            continue;
        };
        let (rooms, relay) = (rooms.clone(), relay.clone());
        clients.spawn(async move {
            let welcome = Welcome::Serve(&rooms, relay.as_ref());
            if let Err(e) = converse(stream, acceptor, welcome).await {
                tracing::debug!("{from}: {e}");
            }
            drop((place, counted));
        });
    }
}

/// Where connections come from: an address of IPv4, or 64 bits of IPv6, which is what one site has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SourceAddress(IpAddr);

impl SourceAddress {
    fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

/// Connections by address.
#[derive(Debug)]
struct Addresses {
    connections: Mutex<HashMap<SourceAddress, usize>>,
    most: usize,
}

/// A connection that counts until it is dropped.
#[derive(Debug)]
struct Counted {
    addresses: Arc<Addresses>,
    from: SourceAddress,
}

impl Addresses {
    fn new(most: usize) -> Self {
        Self {
            connections: Mutex::default(),
            most,
        }
    }

    /// One more connection, if there may be.
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Counted> {
        let from = SourceAddress::of(ip);
        let mut connections = self.locked();
        let count = connections.entry(from).or_default();
        if *count >= self.most && !ip.to_canonical().is_loopback() {
            return None;
        }
        *count += 1;
        let addresses = Arc::clone(self);
        Some(Counted { addresses, from })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<SourceAddress, usize>> {
        // no code between lock and unlock leaves the table half changed
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.addresses.locked();
        if let Some(count) = connections.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.from);
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    welcome: Welcome<'_>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let from = stream.peer_addr()?;
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    match acceptor {
        None => serve_stream(stream, from, welcome).await,
        Some(acceptor) => {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
            serve_stream(stream, from, welcome).await
        }
    }
}

/// The first byte tells: STUN begins with one that no HTTP begins with.
async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: SocketAddr,
    welcome: Welcome<'_>,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let first = timeout(HANDSHAKE, stream.fill_buf()).await??.first();
    match (first.copied().is_some_and(is_relay_stream), welcome) {
        (true, Welcome::Serve(_, Some(relay))) => relay.serve(stream, from).await,
        (true, _) => anyhow::bail!("TURN, and no relay"),
        (false, welcome) => serve_client(stream, welcome).await,
    }
}

/// What a client gets.
#[derive(Debug, Clone, Copy)]
enum Welcome<'a> {
    Serve(&'a Rooms, Option<&'a Arc<Relay>>),
    /// A reason, and no more.
    Refuse(&'static str),
}

async fn serve_client<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    welcome: Welcome<'_>,
) -> anyhow::Result<()> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(config));
    let mut socket = timeout(HANDSHAKE, accepted).await??;
    let (rooms, relay) = match welcome {
        Welcome::Serve(rooms, relay) => (rooms, relay),
        Welcome::Refuse(reason) => return refuse(&mut socket, reason).await,
    };
    let (peer, room) = timeout(HANDSHAKE, register(&mut socket)).await??;
    let Some(mut seat) = rooms.enter(room, peer) else {
        return refuse(&mut socket, "the room is full").await;
    };
    tracing::debug!("{peer} is here");
    pass_on(&mut socket, &mut seat, relay).await
}

/// Tells a client why it is not served; what it says meanwhile is not read.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    reason: &'static str,
) -> anyhow::Result<()> {
    let refused = Message::binary(ToNode::Refused(reason.into()).encode());
    timeout(HANDSHAKE, socket.send(refused)).await??;
    timeout(HANDSHAKE, socket.close(None)).await??;
    anyhow::bail!(reason)
}

async fn register<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> anyhow::Result<(PeerId, Room)> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    socket
        .send(Message::binary(ToNode::Challenge(challenge).encode()))
        .await?;
    while let Some(message) = socket.next().await {
        let Message::Binary(bytes) = message? else {
            continue;
        };
        let message = ToServer::decode(&bytes)?;
        if let Some(registered) = message.registered(&challenge) {
            return Ok(registered);
        }
        refuse(socket, "signature").await?;
    }
    anyhow::bail!("closed before it registered")
}

async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    seat: &mut Seat<'_>,
    relay: Option<&Arc<Relay>>,
) -> anyhow::Result<()> {
    let mut offer_at = relay.map(|_| Instant::now());
    let mut ping = tokio::time::interval(PING_INTERVAL);
    let mut received_at = Instant::now();
    let mut bucket = TokenBucket::new(CLIENT_RATE, CLIENT_BURST, received_at.into_std());
    loop {
        tokio::select! {
            waiting = seat.queue.recv() => match waiting {
                // a client that does not take what it gets must not hold its messages for ever
                Some(bytes) => timeout(HANDSHAKE, socket.send(Message::Binary(bytes))).await??,
                None => anyhow::bail!("replaced by newer connections, or too slow"),
            },
            message = socket.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                received_at = Instant::now();
                bucket.spend(message.len() as u64, received_at.into_std());
                match message {
                    Message::Binary(bytes) => seat.forward(ToServer::decode(&bytes)?)?,
                    Message::Close(_) => return Ok(()),
                    _ => {}
                }
                tokio::time::sleep_until(bucket.ready_at().into()).await;
            }
            _ = ping.tick() => {
                if received_at.elapsed() > SILENCE {
                    anyhow::bail!("silent for {SILENCE:?}");
                }
                if let (Some(relay), true) = (relay, offer_at.is_some_and(|at| at <= Instant::now())) {
                    let (offer, lifetime) = relay.offer(&seat.peer);
                    offer_at = Some(Instant::now() + lifetime / 2);
                    timeout(HANDSHAKE, socket.send(Message::binary(offer.encode()))).await??;
                }
                timeout(HANDSHAKE, socket.send(Message::Ping(Bytes::new()))).await??;
            }
        }
    }
}

/// Never an empty list.
type Places = HashMap<PeerId, Vec<Place>>;

/// Who is where.
#[derive(Debug, Default)]
struct Rooms {
    rooms: Mutex<HashMap<Room, Places>>,
    entered: AtomicU64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    queue: mpsc::Sender<Bytes>,
}

/// A client's place in its room; leaving is dropping it.
struct Seat<'a> {
    rooms: &'a Rooms,
    room: Room,
    peer: PeerId,
    number: u64,
    queue: mpsc::Receiver<Bytes>,
}

impl Rooms {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<Room, Places>> {
        // no code between lock and unlock leaves the table half changed
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; none if the room is full. Of a peer with too many the oldest is cut off.
    fn enter(&self, room: Room, peer: PeerId) -> Option<Seat<'_>> {
        let mut rooms = self.locked();
        let places = rooms.entry(room).or_default();
        if places.len() >= MAX_ROOM && !places.contains_key(&peer) {
            return None;
        }
        // room for everybody's presence, and messages on top
        let (sender, queue) = mpsc::channel(places.len() + QUEUE);
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        for other in places.keys().filter(|other| **other != peer) {
            // the queue was made long enough
            let _ = sender.try_send(ToNode::Present(*other).encode().into());
        }
        let own = places.entry(peer).or_default();
        if own.len() >= MAX_SEATS {
            own.remove(0);
        }
        own.push(Place {
            number,
            queue: sender,
        });
        announce(places, &peer, &ToNode::Present(peer));
        Some(Seat {
            rooms: self,
            room,
            peer,
            number,
            queue,
        })
    }
}

/// Tells everybody else of the room; who cannot take more is cut off.
fn announce(places: &mut Places, about: &PeerId, what: &ToNode) {
    let bytes = Bytes::from(what.encode());
    places.retain(|peer, seats| {
        if peer != about {
            seats.retain(|place| place.queue.try_send(bytes.clone()).is_ok());
        }
        !seats.is_empty()
    });
}

impl Seat<'_> {
    /// Over all connections of the recipient, as the newest need not be the living one.
    fn forward(&self, message: ToServer) -> anyhow::Result<()> {
        let ToServer::Send { to, bytes } = message else {
            anyhow::bail!("registered twice");
        };
        let message = ToNode::Deliver {
            from: self.peer,
            bytes,
        };
        let bytes = Bytes::from(message.encode());
        let rooms = self.rooms.locked();
        let seats = rooms.get(&self.room).and_then(|places| places.get(&to));
        for place in seats.into_iter().flatten() {
            // signalling repeats itself: a queue that is full loses this message only
            let waiting = place.queue.max_capacity() - place.queue.capacity();
            if waiting < QUEUE_SEALED {
                let _ = place.queue.try_send(bytes.clone());
            }
        }
        Ok(())
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut rooms = self.rooms.locked();
        let Some(places) = rooms.get_mut(&self.room) else {
            return;
        };
        if let Some(seats) = places.get_mut(&self.peer) {
            seats.retain(|place| place.number != self.number);
            if !seats.is_empty() {
                return;
            }
            places.remove(&self.peer);
        }
        announce(places, &self.peer, &ToNode::Gone(self.peer));
        if places.is_empty() {
            rooms.remove(&self.room);
        }
    }
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

    fn received(seat: &mut Seat<'_>) -> Vec<ToNode> {
        std::iter::from_fn(|| seat.queue.try_recv().ok())
            .map(|b| ToNode::decode(&b).unwrap())
            .collect()
    }

    #[test]
    fn connections_are_counted_by_address_of_ipv4_and_by_site_of_ipv6() {
        let addresses = Arc::new(Addresses::new(2));
        let enter = |ip: &str| addresses.enter(ip.parse().unwrap());
        for (same, other) in [
            (
                ["198.51.100.7", "::ffff:198.51.100.7", "198.51.100.7"],
                "198.51.100.8",
            ),
            (
                ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"],
                "2001:db8:0:1::1",
            ),
        ] {
            let mut inside: Vec<_> = same[..2].iter().map(|ip| enter(ip).unwrap()).collect();
            assert!(enter(same[2]).is_none() && enter(other).is_some());
            inside.pop();
            assert!(enter(same[2]).is_some(), "one has left");
        }
        assert!(addresses.locked().is_empty());
        let from_here: Vec<_> = (0..9).filter_map(|_| enter("::ffff:127.0.0.1")).collect();
        assert_eq!(from_here.len(), 9, "a proxy of this host");
    }

    #[tokio::test]
    async fn who_is_turned_away_reads_why() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", tcp.local_addr().unwrap());
        let turn_away = async {
            let (stream, _) = tcp.accept().await.unwrap();
            converse(stream, None, Welcome::Refuse(TOO_MANY)).await
        };
        let (client, server) = tokio::join!(crate::client::probe(&url, None), turn_away);
        for refused in [client.unwrap_err(), server.unwrap_err()] {
            assert!(refused.to_string().contains(TOO_MANY), "{refused}");
        }
    }

    #[test]
    fn a_room_tells_who_comes_and_goes_and_relays() {
        let rooms = Rooms::default();
        let mut a = rooms.enter(room(), peer(1)).unwrap();
        let mut b = rooms.enter(room(), peer(2)).unwrap();
        assert_eq!(received(&mut a), [ToNode::Present(peer(2))]);
        assert_eq!(received(&mut b), [ToNode::Present(peer(1))]);
        a.forward(ToServer::Send {
            to: peer(2),
            bytes: vec![7],
        })
        .unwrap();
        assert_eq!(
            received(&mut b),
            [ToNode::Deliver {
                from: peer(1),
                bytes: vec![7]
            }]
        );
        drop(b);
        assert_eq!(received(&mut a), [ToNode::Gone(peer(2))]);
        drop(a);
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn rooms_are_closed_to_each_other() {
        let rooms = Rooms::default();
        let mut a = rooms.enter(room(), peer(1)).unwrap();
        let b = rooms.enter(Room([0; 32]), peer(2)).unwrap();
        b.forward(ToServer::Send {
            to: peer(1),
            bytes: vec![7],
        })
        .unwrap();
        assert!(received(&mut a).is_empty());
    }

    #[test]
    fn a_peer_is_present_until_its_last_connection_ends() {
        let rooms = Rooms::default();
        let mut watcher = rooms.enter(room(), peer(3)).unwrap();
        let mut old = rooms.enter(room(), peer(1)).unwrap();
        let mut new = rooms.enter(room(), peer(1)).unwrap();
        assert_eq!(
            received(&mut watcher),
            [ToNode::Present(peer(1)), ToNode::Present(peer(1))],
            "who comes again may have restarted"
        );
        assert_eq!(received(&mut old), [ToNode::Present(peer(3))]);
        received(&mut new);
        watcher
            .forward(ToServer::Send {
                to: peer(1),
                bytes: vec![7],
            })
            .unwrap();
        assert_eq!((received(&mut old).len(), received(&mut new).len()), (1, 1));
        drop(new);
        assert!(received(&mut watcher).is_empty());
        drop(old);
        assert_eq!(received(&mut watcher), [ToNode::Gone(peer(1))]);
    }

    #[test]
    fn of_too_many_connections_of_a_peer_the_oldest_is_cut_off() {
        let rooms = Rooms::default();
        let mut seats: Vec<_> = (0..=MAX_SEATS)
            .map(|_| rooms.enter(room(), peer(1)).unwrap())
            .collect();
        assert!(seats[0].queue.is_closed() && !seats[1].queue.is_closed());
        assert!(seats[0].queue.try_recv().is_err(), "nothing left to read");
        drop(seats);
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off() {
        let rooms = Rooms::default();
        let mut slow = rooms.enter(room(), peer(1)).unwrap();
        for _ in 0..QUEUE {
            drop(rooms.enter(room(), peer(2)).unwrap());
        }
        while slow.queue.try_recv().is_ok() {}
        assert!(slow.queue.is_closed(), "its sender was dropped");
    }

    #[test]
    fn a_full_room_takes_nobody_new() {
        let rooms = Rooms::default();
        let mut places = Places::new();
        let (queue, _keep) = mpsc::channel(1);
        for n in 0..MAX_ROOM as u64 {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&n.to_be_bytes());
            places.insert(
                SecretKey::from_seed(&seed).peer_id(),
                vec![Place {
                    number: n,
                    queue: queue.clone(),
                }],
            );
        }
        rooms.locked().insert(room(), places);
        assert!(rooms.enter(room(), peer(200)).is_none());
    }
}
