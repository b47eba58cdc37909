//! The signalling server: reports the nodes of a room to each other, relays their sealed messages.
//!
//! It learns only PeerIds and the addresses of its clients. Bounds limit all memory that a client
//! can fill; a client that does not read is disconnected.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::proof::{RelayReply, RelayRequest};
use lcroute_overlay::server::{MAX_MESSAGE, Registration, Role, Room, ToNode, ToServer};
use lcroute_overlay::{Site, SiteSize};
use lcroute_webrtc::relay::is_relay_stream;
use librecast::bucket::{Bucket, Rate, TokenBucket};
use librecast::events::LogLimit;
use librecast::id::PeerId;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role as Side, WebSocketConfig};

use crate::http::until_websocket;

pub use crate::relay::RelaySettings;
use crate::relay::{Relay, serve_udp};
pub use lcroute_tls::{Certificate, TlsFiles};

/// Maximum number of connections.
const MAX_CLIENTS: usize = 8_192;
/// Bytes of the read buffer of each client. The default of 128 KiB is most of a waiting client's
/// memory; a longer message takes several reads.
const READ_BUFFER: usize = 4_096;
/// Default maximum of connections from one address: dozens of nodes behind one NAT, and dying ones.
pub(crate) const PER_ADDRESS: usize = 256;
/// Maximum number of simultaneous refusals with a reason; further connections are closed at once.
const MAX_REFUSALS: usize = 16;
const TOO_MANY: &str = "too many connections from your address";
const TOO_FAST: &str = "too many connections a second from your address";
/// Maximum number of connections from a whole site once half of all places are taken. Chosen.
const FEW: usize = 64;
/// Rate of connections per second from one address: a registration costs two signatures, and with
/// TLS a key exchange. Chosen: the nodes of a NAT return within seconds after a restart of the
/// server.
const ARRIVALS: u64 = 16;
/// Burst of connections from one address.
const ARRIVALS_BURST: u64 = 64;
/// Rate of all connections per second: some 5 % of a core.
const ALL_ARRIVALS_A_SECOND: u64 = 512;
const ALL_ARRIVALS: Rate = Rate::per_second(ALL_ARRIVALS_A_SECOND, 2_048);
/// Maximum wait of connections beyond the rate.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// Proofs of membership per connection: one at first, and one for each renewal.
const PROOFS: Rate = Rate::every(Duration::from_secs(60), 3);
/// Number of sites with counted arrivals beyond which resting ones are removed: as many as can
/// arrive within the longest wait and a bucket's fill time.
const MAX_ARRIVALS: usize = 32_768;
/// Maximum number of routers in one room, and of leaves, which leave once they have links.
const MAX_ROOM: usize = 4_096;
/// Number of routers that a leaf learns. Chosen: two links, and as many replacements.
const TOLD: usize = 4;
/// Maximum number of connections of one node: it may use several URLs, and an old one may be dying.
const MAX_SEATS: usize = 4;
/// Maximum number of messages that wait for a client.
const QUEUE: usize = 1_024;
/// Maximum number of sealed messages among them, which are larger (2 MiB at most).
const QUEUE_SEALED: usize = 64;
/// Time limit for a client's registration.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Interval of pings to a client. Chosen: two may be lost before [`SILENCE`] ends.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Silence after which a client counts as gone.
const SILENCE: Duration = Duration::from_secs(25);
/// Rate of one client's messages in bit/s; beyond it the server reads slower.
const CLIENT_RATE: u64 = 8_000_000;
/// Burst of one client's messages in bytes.
const CLIENT_BURST: u64 = 8 << 20;
/// Cost of a message beside its bytes, in bytes: that of a small message. Chosen.
const MESSAGE_COST: u64 = 64;

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
        let tls = tls.map(lcroute_tls::server).transpose()?;
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

    /// Sets the maximum number of clients per IPv4 address or IPv6 /64; twice that for a /56, four
    /// times for a /48 or an IPv4 /24. This host itself has no bound, as it may run a proxy.
    #[must_use]
    pub fn with_per_address(self, n: usize) -> Self {
        Self {
            per_address: n,
            ..self
        }
    }

    /// Enables a relay for registered nodes.
    #[must_use]
    pub fn with_relay(self, relay: Option<RelaySettings>) -> Self {
        Self { relay, ..self }
    }

    /// Limits the number of clients, which cost descriptors that other parts of this process need.
    #[must_use]
    pub fn with_max_clients(self, n: usize) -> Self {
        let max_clients = self.max_clients.min(n);
        Self {
            max_clients,
            ..self
        }
    }

    /// Returns the address of its socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Returns the certificate of a server with TLS.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.tls
            .as_ref()
            .map(|(_, certificate)| certificate.clone())
    }

    /// Serves until `shutdown` resolves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let rooms = Arc::new(Rooms::default());
        let udp = Arc::new(self.udp);
        // allocations cost descriptors too
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

/// Returns the rate of connections from a site of this size.
const fn arrivals(size: SiteSize) -> Rate {
    let share = size.share() as u64;
    Rate::per_second(ARRIVALS * share, ARRIVALS_BURST * share)
}

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
    let sources = Arc::new(Sources::new(bounds, Instant::now()));
    let (mut warned, mut log_limit) = (false, LogLimit::default());
    let acceptor = tls.map(TlsAcceptor::from);
    // ends the clients when the server ends
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let (stream, from) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // probably out of descriptors, until clients leave
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!("accept: {e}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // logs once each time that it fills up: repeated attempts cannot fill the log
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
        let now = Instant::now();
        let (counted, at) = match sources.enter(from.ip(), now) {
            Ok(entered) => entered,
            Err(why) => {
                if let Some(left_out) = log_limit.admit(now.into_std()) {
                    tracing::warn!(left_out, "{why}");
                }
                if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                    clients.spawn(async move {
                        let welcome = Welcome::Refuse(why.reason());
                        if let Err(e) = converse(stream, acceptor, welcome).await {
                            tracing::debug!("{from}: {e}");
                        }
                        drop((place, refusal));
                    });
                }
                continue;
            }
        };
        let (rooms, relay) = (rooms.clone(), relay.clone());
        clients.spawn(async move {
            let welcome = Welcome::Serve(&rooms, relay.as_ref());
            tokio::time::sleep_until(at).await;
            if let Err(e) = converse(stream, acceptor, welcome).await {
                tracing::debug!("{from}: {e}");
            }
            drop((place, counted));
        });
    }
}

/// Clients by site: connections, and recent arrivals.
#[derive(Debug)]
struct Sources {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    connections: HashMap<Site, usize>,
    connected: usize,
    /// Full buckets are removed from time to time.
    arrivals: HashMap<Site, Bucket>,
    all_arrivals: Bucket,
}

/// A connection that counts until it is dropped.
#[derive(Debug)]
struct Counted {
    sources: Arc<Sources>,
    ip: IpAddr,
}

/// The reason for which a connection is not served.
#[derive(Debug, PartialEq, Eq)]
enum TurnedAway {
    /// The site has this number of connections.
    TooMany(Site, usize),
    /// The site exceeds this rate; without a site, all connections together do.
    TooFast(Option<Site>, u64),
}

impl TurnedAway {
    fn reason(&self) -> &'static str {
        match self {
            Self::TooMany(..) => TOO_MANY,
            Self::TooFast(..) => TOO_FAST,
        }
    }
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(site, most) => {
                write!(f, "{site} turned away: {most} connections from there")
            }
            Self::TooFast(Some(site), most) => {
                write!(
                    f,
                    "{site} turned away: more than {most} connections a second from there"
                )
            }
            Self::TooFast(None, most) => {
                write!(f, "turned away: more than {most} connections a second")
            }
        }
    }
}

impl Sources {
    fn new(bounds: Bounds, now: Instant) -> Self {
        let table = Mutex::new(Table {
            connections: HashMap::new(),
            connected: 0,
            arrivals: HashMap::new(),
            all_arrivals: Bucket::full(now.into_std()),
        });
        Self { bounds, table }
    }

    /// Counts a connection, if its bounds permit; returns the time at which it is served. This host
    /// itself has no bound, as it may run a proxy.
    fn enter(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Result<(Counted, Instant), TurnedAway> {
        let mut table = self.locked();
        let at = if ip.to_canonical().is_loopback() {
            now
        } else {
            table.check(ip, self.bounds)?;
            table.arrive(ip, now)?
        };
        table.connected += 1;
        for site in Site::around(ip) {
            *table.connections.entry(site).or_default() += 1;
        }
        let sources = Arc::clone(self);
        Ok((Counted { sources, ip }, at))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Table> {
        // no code between lock and unlock leaves the table half changed
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check(&self, ip: IpAddr, bounds: Bounds) -> Result<(), TurnedAway> {
        let is_half_full = self.connected >= bounds.clients / 2;
        for site in Site::around(ip) {
            let mut most = bounds.per_address * site.size.share();
            if is_half_full && site.size == SiteSize::Whole {
                most = most.min(FEW);
            }
            if self.connections.get(&site).is_some_and(|n| *n >= most) {
                return Err(TurnedAway::TooMany(site, most));
            }
        }
        Ok(())
    }

    /// Returns the time at which a new connection is served: each waits for the earlier ones. A
    /// connection with too long a wait is refused.
    fn arrive(&mut self, ip: IpAddr, now: Instant) -> Result<Instant, TurnedAway> {
        let now = now.into_std();
        if self.arrivals.len() >= MAX_ARRIVALS {
            let rate = arrivals(SiteSize::Address);
            // a full bucket equals a missing one; the smallest rate fills last
            self.arrivals
                .retain(|_, bucket| bucket.left(rate, now) < rate.burst());
        }
        let mut at = self.all_arrivals.next(ALL_ARRIVALS, 1);
        if at > now + LONGEST_WAIT {
            return Err(TurnedAway::TooFast(None, ALL_ARRIVALS_A_SECOND));
        }
        for site in Site::around(ip) {
            if let Some(bucket) = self.arrivals.get(&site) {
                let next = bucket.next(arrivals(site.size), 1);
                if next > now + LONGEST_WAIT {
                    let most = ARRIVALS * site.size.share() as u64;
                    return Err(TurnedAway::TooFast(Some(site), most));
                }
                at = at.max(next);
            }
        }
        self.all_arrivals.spend(ALL_ARRIVALS, 1, now);
        for site in Site::around(ip) {
            let bucket = self.arrivals.entry(site).or_insert(Bucket::full(now));
            bucket.spend(arrivals(site.size), 1, now);
        }
        Ok(at.max(now).into())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut table = self.sources.locked();
        table.connected -= 1;
        for site in Site::around(self.ip) {
            if let Some(count) = table.connections.get_mut(&site) {
                *count -= 1;
                if *count == 0 {
                    table.connections.remove(&site);
                }
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

/// The first byte decides: STUN begins with one that no HTTP request begins with.
async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
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

/// The treatment of a client.
#[derive(Debug, Clone, Copy)]
enum Welcome<'a> {
    Serve(&'a Rooms, Option<&'a Arc<Relay>>),
    /// Only a refusal with this reason.
    Refuse(&'static str),
}

async fn serve_client<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    welcome: Welcome<'_>,
) -> anyhow::Result<()> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let Some(stream) = timeout(HANDSHAKE, until_websocket(stream)).await?? else {
        return Ok(());
    };
    let mut socket = WebSocketStream::from_raw_socket(stream, Side::Server, Some(config)).await;
    let (rooms, relay) = match welcome {
        Welcome::Serve(rooms, relay) => (rooms, relay),
        Welcome::Refuse(reason) => return refuse(&mut socket, reason).await,
    };
    let registration = timeout(HANDSHAKE, register(&mut socket)).await??;
    let Some(mut seat) = rooms.enter(registration) else {
        return refuse(&mut socket, "the room is full").await;
    };
    tracing::debug!("{} is here", seat.peer);
    pass_on(&mut socket, &mut seat, relay).await
}

/// Sends the reason to a refused client, and reads nothing from it.
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
) -> anyhow::Result<Registration> {
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
    let mut offer = relay.map(|relay| Offer::new(relay, seat));
    let mut ping = tokio::time::interval(PING_INTERVAL);
    let mut received_at = Instant::now();
    let mut bucket = TokenBucket::new(CLIENT_RATE, CLIENT_BURST, received_at.into_std());
    loop {
        tokio::select! {
            waiting = seat.queue.recv() => match waiting {
                // a client that does not read must not keep its messages for ever
                Some(bytes) => timeout(HANDSHAKE, socket.send(Message::Binary(bytes))).await??,
                None => anyhow::bail!("replaced by newer connections, or too slow"),
            },
            message = socket.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                received_at = Instant::now();
                charge(&mut bucket, &message, received_at);
                match message {
                    Message::Binary(bytes) => seat.forward(ToServer::decode(&bytes)?)?,
                    Message::Text(text) => {
                        let answer = offer.as_mut().and_then(|offer| offer.answer(&text));
                        if let Some(answer) = answer {
                            timeout(HANDSHAKE, socket.send(answer)).await??;
                        }
                    }
                    Message::Close(_) => return Ok(()),
                    _ => {}
                }
                tokio::time::sleep_until(bucket.ready_at().into()).await;
            }
            _ = ping.tick() => {
                if received_at.elapsed() > SILENCE {
                    anyhow::bail!("silent for {SILENCE:?}");
                }
                if let Some(message) = offer.as_mut().and_then(Offer::due) {
                    timeout(HANDSHAKE, socket.send(message)).await??;
                }
                timeout(HANDSHAKE, socket.send(Message::Ping(Bytes::new()))).await??;
            }
        }
    }
}

/// Charges a client for its message: the server reads on when the bucket is ready.
fn charge(bucket: &mut TokenBucket, message: &Message, now: Instant) {
    bucket.spend(MESSAGE_COST + message.len() as u64, now.into_std());
}

/// The state of a client's relay credentials.
struct Offer<'a> {
    relay: &'a Arc<Relay>,
    peer: PeerId,
    room: Room,
    /// Time of the next credentials, or of the next request for a proof.
    at: Option<Instant>,
    /// Budget of proofs, which cost signatures.
    proofs: TokenBucket,
    /// Time until which a client that supports proofs has asked.
    asks_by: Option<Instant>,
}

impl<'a> Offer<'a> {
    fn new(relay: &'a Arc<Relay>, seat: &Seat<'_>) -> Self {
        let now = Instant::now();
        let is_open = relay.asks_for_proof().is_none();
        Self {
            relay,
            peer: seat.peer,
            room: seat.room,
            at: is_open.then_some(now),
            proofs: TokenBucket::of(PROOFS, now.into_std()),
            // leaves ask where no direct path leads
            asks_by: (!is_open && seat.role == Role::Router).then_some(now + HANDSHAKE),
        }
    }

    /// Returns the message that is due for the client.
    fn due(&mut self) -> Option<Message> {
        let now = Instant::now();
        if self.asks_by.take_if(|by| *by <= now).is_some() {
            let peer = self.peer;
            self.relay.log(&format_args!(
                "{peer} gets no relay: it does not ask for one as members do (an older version, or [relay] ask = false)"
            ));
        }
        self.at.take_if(|at| *at <= now)?;
        match self.relay.asks_for_proof() {
            Some(key) => Some(text(&RelayReply::Prove(key))),
            None => Some(self.credentials(false)),
        }
    }

    /// Returns the answer to a text message of the client.
    fn answer(&mut self, word: &str) -> Option<Message> {
        let key = self.relay.asks_for_proof()?;
        match RelayRequest::decode(word)? {
            RelayRequest::Ask => {
                self.asks_by = None;
                Some(text(&RelayReply::Prove(key)))
            }
            RelayRequest::Proof(sealed) => {
                if !self.proofs.take(1, Instant::now().into_std()) {
                    return None;
                }
                match self.relay.check(&sealed, (&self.peer, &self.room)) {
                    Ok(is_leaf) => Some(self.credentials(is_leaf)),
                    Err(why) => {
                        let peer = self.peer;
                        self.relay.log(&format_args!("{peer} gets no relay: {why}"));
                        Some(text(&RelayReply::Refused(why.to_string())))
                    }
                }
            }
        }
    }

    fn credentials(&mut self, is_leaf: bool) -> Message {
        let (offer, lifetime) = self.relay.offer(&self.peer, &self.room, is_leaf);
        self.at = Some(Instant::now() + lifetime / 2);
        Message::binary(offer.encode())
    }
}

fn text(reply: &RelayReply) -> Message {
    Message::text(reply.encode())
}

/// Places by node; no list is empty.
type Places = HashMap<PeerId, Vec<Place>>;

/// The nodes in one room.
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
                let _ = self
                    .place
                    .queue
                    .try_send(ToNode::Present(*router).encode().into());
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

/// All rooms.
#[derive(Debug, Default)]
struct Rooms {
    rooms: Mutex<HashMap<Room, Inside>>,
    entered: AtomicU64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    queue: mpsc::Sender<Bytes>,
}

/// A client's place in its room, until it is dropped.
struct Seat<'a> {
    rooms: &'a Rooms,
    room: Room,
    peer: PeerId,
    role: Role,
    number: u64,
    queue: mpsc::Receiver<Bytes>,
}

impl Rooms {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<Room, Inside>> {
        // no code between lock and unlock leaves the table half changed
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; none if the room is full. A node with too many loses its oldest.
    fn enter(&self, registration: Registration) -> Option<Seat<'_>> {
        let Registration { peer, room, role } = registration;
        let mut rooms = self.locked();
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        let inside = rooms.entry(room).or_default();
        let queue = match role {
            Role::Router => enter_router(inside, peer, number),
            Role::Leaf => enter_leaf(inside, peer, number),
        };
        if inside.is_empty() {
            rooms.remove(&room);
        }
        Some(Seat {
            rooms: self,
            room,
            peer,
            role,
            number,
            queue: queue?,
        })
    }
}

/// Returns the queue of a new router; none if the room is full.
fn enter_router(inside: &mut Inside, peer: PeerId, number: u64) -> Option<mpsc::Receiver<Bytes>> {
    let places = &mut inside.routers;
    if places.len() >= MAX_ROOM && !places.contains_key(&peer) {
        return None;
    }
    // capacity for the presence of all routers, and for messages
    let (sender, queue) = mpsc::channel(places.len() + QUEUE);
    for other in places.keys().filter(|other| **other != peer) {
        // the queue has enough capacity
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
    for leaf in inside.leaves.values_mut() {
        leaf.tell(&inside.routers, 0);
    }
    Some(queue)
}

/// Returns the queue of a new leaf, which replaces its earlier one; none if the room is full.
fn enter_leaf(inside: &mut Inside, peer: PeerId, number: u64) -> Option<mpsc::Receiver<Bytes>> {
    if inside.leaves.len() >= MAX_ROOM && !inside.leaves.contains_key(&peer) {
        return None;
    }
    let (sender, queue) = mpsc::channel(QUEUE_SEALED + TOLD);
    let place = Place {
        number,
        queue: sender,
    };
    let mut leaf = LeafPlace {
        place,
        told: Vec::new(),
    };
    leaf.tell(&inside.routers, any(inside.routers.len()));
    inside.leaves.insert(peer, leaf);
    Some(queue)
}

/// Reports a router's end to the leaves that know it, with another router.
fn tell_gone(inside: &mut Inside, router: &PeerId) {
    let gone = Bytes::from(ToNode::Gone(*router).encode());
    for leaf in inside.leaves.values_mut() {
        if let Some(at) = leaf.told.iter().position(|told| told == router) {
            leaf.told.swap_remove(at);
            let _ = leaf.place.queue.try_send(gone.clone());
            leaf.tell(&inside.routers, any(inside.routers.len()));
        }
    }
}

/// Sends a message to all other routers of the room; disconnects those with a full queue.
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
    /// Sends a message over all connections of the recipient, since the newest may be dead.
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
        let inside = rooms.get(&self.room);
        let routers = inside.and_then(|inside| inside.routers.get(&to));
        // leaves send no messages to each other
        let leaf = inside.filter(|_| self.role == Role::Router);
        let leaf = leaf.and_then(|inside| inside.leaves.get(&to));
        let places = routers.into_iter().flatten();
        for place in places.chain(leaf.map(|leaf| &leaf.place)) {
            // signalling repeats messages: a full queue loses only this one
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
        let Some(inside) = rooms.get_mut(&self.room) else {
            return;
        };
        if self.role == Role::Leaf {
            let is_own = |leaf: &LeafPlace| leaf.place.number == self.number;
            if inside.leaves.get(&self.peer).is_some_and(is_own) {
                inside.leaves.remove(&self.peer);
            }
            if inside.is_empty() {
                rooms.remove(&self.room);
            }
            return;
        }
        let places = &mut inside.routers;
        if let Some(seats) = places.get_mut(&self.peer) {
            seats.retain(|place| place.number != self.number);
            if !seats.is_empty() {
                return;
            }
            places.remove(&self.peer);
        }
        announce(places, &self.peer, &ToNode::Gone(self.peer));
        tell_gone(inside, &self.peer);
        if inside.is_empty() {
            rooms.remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use librecast::id::SecretKey;

    use super::*;

    fn room() -> Room {
        Room::of(&SecretKey::from_seed(&[9; 32]).peer_id())
    }

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn enter_as(rooms: &Rooms, n: u8, role: Role) -> Option<Seat<'_>> {
        let (peer, room) = (peer(n), room());
        rooms.enter(Registration { peer, room, role })
    }

    fn enter(rooms: &Rooms, n: u8) -> Option<Seat<'_>> {
        enter_as(rooms, n, Role::Router)
    }

    fn enter_as_leaf(rooms: &Rooms, n: u8) -> Option<Seat<'_>> {
        enter_as(rooms, n, Role::Leaf)
    }

    fn received(seat: &mut Seat<'_>) -> Vec<ToNode> {
        std::iter::from_fn(|| seat.queue.try_recv().ok())
            .map(|b| ToNode::decode(&b).unwrap())
            .collect()
    }

    fn sources(clients: usize, per_address: usize) -> (Arc<Sources>, Instant) {
        let bounds = Bounds {
            clients,
            per_address,
        };
        let now = Instant::now();
        (Arc::new(Sources::new(bounds, now)), now)
    }

    #[test]
    fn messages_without_a_byte_are_not_free() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(CLIENT_RATE, CLIENT_BURST, now.into_std());
        let ping = Message::Ping(Bytes::new());
        (0..200_000).for_each(|_| charge(&mut bucket, &ping, now));
        assert!(bucket.ready_at() > (now + Duration::from_secs(3)).into_std());
    }

    #[test]
    fn connections_are_counted_by_address_of_ipv4_and_by_site_of_ipv6() {
        let (sources, now) = sources(1_000, 2);
        let enter = |ip: &str| sources.enter(ip.parse().unwrap(), now).ok();
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
        assert!(sources.locked().connections.is_empty());
        let from_here: Vec<_> = (0..9).filter_map(|_| enter("::ffff:127.0.0.1")).collect();
        assert_eq!(from_here.len(), 9, "a proxy of this host");
    }

    #[test]
    fn a_prefix_is_counted_beside_its_addresses_and_half_is_for_those_with_few() {
        let (sources, now) = sources(1_000, 40);
        let mut inside = Vec::new();
        let mut enter = |ip: String| {
            let entered = sources.enter(ip.parse().unwrap(), now);
            entered.map(|entered| inside.push(entered)).is_ok()
        };
        // a /48 has 65,536 /64s, each of which might have 40 connections
        let of_subnet = (0..200).filter(|n| enter(format!("2001:db8:0:{n:x}::1")));
        assert_eq!(of_subnet.count(), 80);
        let of_site = (0..200).filter(|n| enter(format!("2001:db8:0:{n:x}01::1")));
        assert_eq!(of_site.count(), 80, "160 in all");
        let of_24 = (0..200).filter(|n| enter(format!("198.51.100.{n}")));
        assert_eq!(of_24.count(), 160);
        // beyond 500 there are 64 for each
        for (n, most) in [(1, 160), (2, FEW), (3, FEW)] {
            let of_24 = (0..200).filter(|host| enter(format!("192.0.{n}.{host}")));
            assert_eq!(of_24.count(), most, "{n}");
        }
    }

    #[test]
    fn who_comes_again_and_again_waits_and_others_do_not() {
        let (sources, start) = sources(100_000, 100_000);
        let mut served = 0;
        let mut refused = 0;
        // 1,900 new keys a second for 10 s, from one address
        for n in 0..19_000 {
            let now = start + Duration::from_secs(10) * n / 19_000;
            match sources.enter("198.51.100.7".parse().unwrap(), now) {
                Ok((_, at)) => {
                    served += 1;
                    assert!(at <= now + LONGEST_WAIT);
                }
                Err(why) => {
                    refused += 1;
                    let site = Site::around("198.51.100.7".parse().unwrap()).next();
                    assert_eq!(why, TurnedAway::TooFast(site, 16));
                }
            }
        }
        let seconds = 10 + LONGEST_WAIT.as_secs();
        assert!(served <= ARRIVALS_BURST + ARRIVALS * seconds, "{served}");
        assert!(refused > 18_000);
        // a neighbour is served at once
        let now = start + Duration::from_secs(10);
        let (_, at) = sources.enter("198.51.100.8".parse().unwrap(), now).unwrap();
        assert_eq!(at, now);
    }

    #[test]
    fn fresh_addresses_of_a_prefix_do_not_come_faster() {
        let (sources, now) = sources(100_000, 100_000);
        let served = (0..2_000_u32).filter(|n| {
            let ip = format!("2001:db8:0:{n:x}::1");
            sources.enter(ip.parse().unwrap(), now).is_ok()
        });
        let most = (ARRIVALS_BURST + ARRIVALS * LONGEST_WAIT.as_secs()) * 4;
        assert!(served.count() as u64 <= most);
        // all sites together, and the size of the table
        let served = (0..100_000_u32).filter(|n| {
            let ip = Ipv4Addr::from_bits(0x0100_0000 + n * 256);
            sources.enter(ip.into(), now).is_ok()
        });
        let all = ALL_ARRIVALS.burst() + ALL_ARRIVALS_A_SECOND * LONGEST_WAIT.as_secs();
        assert!(served.count() as u64 <= all);
        assert!(sources.locked().arrivals.len() <= MAX_ARRIVALS + 3);
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
        let mut a = enter(&rooms, 1).unwrap();
        let mut b = enter(&rooms, 2).unwrap();
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
        let mut a = enter(&rooms, 1).unwrap();
        let b = rooms
            .enter(Registration {
                peer: peer(2),
                room: Room([0; 32]),
                role: Role::Router,
            })
            .unwrap();
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
        let mut seats: Vec<_> = (0..=MAX_SEATS).map(|_| enter(&rooms, 1).unwrap()).collect();
        assert!(seats[0].queue.is_closed() && !seats[1].queue.is_closed());
        assert!(seats[0].queue.try_recv().is_err(), "nothing left to read");
        drop(seats);
        assert!(rooms.locked().is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off() {
        let rooms = Rooms::default();
        let mut slow = enter(&rooms, 1).unwrap();
        for _ in 0..QUEUE {
            drop(enter(&rooms, 2).unwrap());
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
        let inside = Inside {
            routers: places,
            ..Inside::default()
        };
        rooms.locked().insert(room(), inside);
        assert!(enter(&rooms, 200).is_none());
    }

    #[test]
    fn a_leaf_is_told_of_four_routers_and_nobody_of_a_leaf() {
        let rooms = Rooms::default();
        let mut routers: Vec<_> = (1..=6).map(|n| enter(&rooms, n).unwrap()).collect();
        for router in &mut routers {
            received(router);
        }
        let mut leaf = enter_as_leaf(&rooms, 50).unwrap();
        let mut other = enter_as_leaf(&rooms, 51).unwrap();
        let told = |seat: &mut Seat<'_>| -> std::collections::BTreeSet<PeerId> {
            let all = received(seat).into_iter().map(|message| match message {
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
        let word = |to| ToServer::Send { to, bytes: vec![7] };
        let from = |n| ToNode::Deliver {
            from: peer(n),
            bytes: vec![7],
        };
        leaf.forward(word(peer(7))).unwrap();
        newcomer.forward(word(peer(50))).unwrap();
        leaf.forward(word(peer(51))).unwrap();
        assert_eq!(received(&mut newcomer), [from(50)]);
        assert_eq!(received(&mut leaf), [from(7)]);
        assert!(received(&mut other).is_empty());
        // a known router leaves, and the leaf learns of another
        let gone = *of_leaf.first().unwrap();
        routers.retain(|router| router.peer != gone);
        let heard = received(&mut leaf);
        let [ToNode::Gone(left), ToNode::Present(another)] = heard.as_slice() else {
            panic!("{heard:?}")
        };
        assert!(*left == gone && !of_leaf.contains(another));
        // a leaf that returns takes its place, and routers learn nothing of its end
        let again = enter_as_leaf(&rooms, 50).unwrap();
        drop(leaf);
        for router in &mut routers {
            received(router);
        }
        newcomer.forward(word(peer(50))).unwrap();
        drop((again, other));
        for router in &mut routers {
            assert!(received(router).is_empty());
        }
        drop((routers, newcomer));
        assert!(rooms.locked().is_empty());
    }
}
