//! The signalling server: reports the nodes of a room to each other, relays their sealed messages.
//!
//! It learns only PeerIds and the addresses of its clients. Bounds limit all memory that a client
//! can fill; a client that does not read is disconnected.
//!
//! `sources` bounds clients by their addresses, `rooms` has the rooms.

mod rooms;
mod sources;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::proof::{RelayReply, RelayRequest};
use lcroute_overlay::server::{
    MAX_ENTERED, MAX_MESSAGE, PER_ADDRESS, Registration, Role, Room, ToNode, ToServer, in_room,
};
use lcroute_webrtc::relay::is_relay_stream;
use librecast::bucket::{Rate, TokenBucket};
use librecast::events::LogLimit;
use librecast::id::PeerId;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role as Side, WebSocketConfig};

use crate::counts::Counting;
use crate::http::until_websocket;
use crate::relay::{Relay, serve_udp};
use rooms::{MAX_ROOM, Outbox, Rooms, Seat};
use sources::{Counted, Origin, Sources, TurnedAway, UNITS};

pub use crate::counts::{Counts, Usage};
pub use crate::relay::{RelaySettings, Strangers};
pub use lcroute_tls::{Certificate, TlsFiles};

/// Maximum number of connections.
const MAX_CLIENTS: usize = 8_192;
/// Bytes of the read buffer of each client. The default of 128 KiB is most of a waiting client's
/// memory; a longer message takes several reads.
const READ_BUFFER: usize = 4_096;
/// Bytes of the buffer in which the first byte of a connection is read; longer reads pass it by.
const FIRST_READ: usize = 512;
/// Default maximum of connections from one address to a public server. Chosen: a house, or a small
/// NAT of a provider.
pub const PUBLIC_PER_ADDRESS: usize = 64;
/// Maximum number of routers in one room of a public server, each of which costs all others a
/// message. Chosen: a larger network has a server of its own.
const PUBLIC_ROOM: usize = 256;
/// Maximum number of simultaneous refusals with a reason; further connections are closed at once.
const MAX_REFUSALS: usize = 16;
/// Proofs of membership per connection: one at first, and one for each renewal.
const PROOFS: Rate = Rate::every(Duration::from_secs(60), 3);
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
/// Rate of one client of a public server in bit/s. Chosen: an address has at most 16 Mbit/s so, and
/// links with eight friends begin at once.
const PUBLIC_RATE: u64 = 256_000;
/// Burst of one client of a public server in bytes.
const PUBLIC_BURST: u64 = 512 << 10;
/// Cost of a message beside its bytes, in bytes: that of a small message. Chosen.
const MESSAGE_COST: u64 = 64;
/// Interval at which a public server logs its counters, if they have changed.
const REPORT: Duration = Duration::from_secs(300);

/// A bound signalling server.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
    relay: Option<RelaySettings>,
    tls: Option<(Arc<rustls::ServerConfig>, Arc<Certificate>)>,
    bounds: Bounds,
    counts: Arc<Counts>,
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
            bounds: Bounds::default(),
            counts: Arc::default(),
        })
    }

    /// Sets the maximum number of clients per IPv4 address or IPv6 /64; twice that for a /56, four
    /// times for a /48 or an IPv4 /24. This host itself has no bound, as it may run a proxy.
    #[must_use]
    pub fn with_per_address(mut self, n: usize) -> Self {
        self.bounds.per_address = n;
        self
    }

    /// Bounds rooms and rates of clients for strangers, and logs neither keys nor addresses.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.bounds = Bounds {
            room: PUBLIC_ROOM,
            rate: PUBLIC_RATE,
            burst: PUBLIC_BURST,
            is_public: true,
            ..self.bounds
        };
        self
    }

    /// Enables a relay for registered nodes.
    #[must_use]
    pub fn with_relay(self, relay: Option<RelaySettings>) -> Self {
        Self { relay, ..self }
    }

    /// Limits the number of clients, which cost descriptors that other parts of this process need.
    #[must_use]
    pub fn with_max_clients(mut self, n: usize) -> Self {
        self.bounds.clients = self.bounds.clients.min(n);
        self
    }

    /// Returns its counters.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
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
        let Self { bounds, counts, .. } = self;
        let udp = Arc::new(self.udp);
        // allocations cost descriptors too
        let most = bounds.clients / 4;
        let relay = self
            .relay
            .map(|settings| Relay::new(settings, udp.clone(), most, Arc::clone(&counts)));
        let relay = relay.and_then(|relay| {
            let relay = relay.inspect_err(|e| tracing::error!("no relay: {e}"));
            relay.ok()
        });
        let hall = Arc::new(Hall {
            rooms: Rooms::new(bounds.room, Arc::clone(&counts)),
            sources: Arc::new(Sources::new(bounds, Instant::now())),
            relay: relay.clone(),
            bounds,
            counts,
        });
        let acceptor = self.tls.map(|(config, _)| TlsAcceptor::from(config));
        tokio::select! {
            () = shutdown => {}
            () = accept(self.tcp, acceptor, Arc::clone(&hall)) => {}
            () = hall.report() => {}
            () = serve_udp(udp, relay) => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    clients: usize,
    per_address: usize,
    /// Routers in a room, and leaves.
    room: usize,
    /// Bit/s of one client.
    rate: u64,
    /// Burst of one client in bytes.
    burst: u64,
    /// Whether strangers are its clients: the log has neither keys nor addresses.
    is_public: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            clients: MAX_CLIENTS,
            per_address: PER_ADDRESS as usize,
            room: MAX_ROOM,
            rate: CLIENT_RATE,
            burst: CLIENT_BURST,
            is_public: false,
        }
    }
}

/// All that clients share.
#[derive(Debug)]
struct Hall {
    rooms: Rooms,
    sources: Arc<Sources>,
    relay: Option<Arc<Relay>>,
    bounds: Bounds,
    counts: Arc<Counts>,
}

impl Hall {
    /// Logs the counters of a public server, as long as the future is polled.
    async fn report(&self) {
        let mut tick = interval(REPORT);
        let mut last = Usage::default();
        loop {
            tick.tick().await;
            let usage = self.counts.usage();
            if self.bounds.is_public && usage != last {
                tracing::info!(
                    clients = usage.clients,
                    rooms = usage.rooms,
                    entered = usage.entered,
                    turned_away = usage.turned_away,
                    messages = usage.messages,
                    allocations = usage.allocations,
                    relayed = usage.relayed,
                    "public server"
                );
                last = usage;
            }
        }
    }

    /// Logs the end of a connection, unless strangers are its clients.
    fn log_end(&self, from: SocketAddr, ended: &anyhow::Error) {
        if !self.bounds.is_public {
            tracing::debug!("{from}: {ended}");
        }
    }
}

async fn accept(tcp: TcpListener, acceptor: Option<TlsAcceptor>, hall: Arc<Hall>) {
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let (mut warned, mut log_limit) = (false, LogLimit::default());
    // ends the clients when the server ends
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let accepted = tcp.accept().await;
        let accepted = accepted.and_then(|(stream, from)| Ok((stream.local_addr()?, stream, from)));
        let (at, stream, from) = match accepted {
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
        let origin = Origin::new(from.ip(), at.ip());
        let now = Instant::now();
        let (counted, at) = match hall.sources.enter(origin, UNITS, now) {
            Ok(entered) => entered,
            Err(why) => {
                hall.counts.turn_away();
                let is_full = matches!(why, TurnedAway::Full(_));
                // logs a full server once each time: repeated attempts cannot fill the log
                let is_news = match is_full {
                    true => !std::mem::replace(&mut warned, true),
                    false => !hall.bounds.is_public,
                };
                if is_news && let Some(left_out) = log_limit.admit(now.into_std()) {
                    tracing::warn!(left_out, "{why}");
                }
                if !is_full && let Ok(refusal) = refusals.clone().try_acquire_owned() {
                    let (hall, acceptor) = (Arc::clone(&hall), acceptor.clone());
                    clients.spawn(async move {
                        let welcome = Welcome::Refuse(why.reason());
                        if let Err(e) = converse(stream, acceptor, welcome).await {
                            hall.log_end(from, &e);
                        }
                        drop(refusal);
                    });
                }
                continue;
            }
        };
        warned = false;
        let (hall, acceptor) = (Arc::clone(&hall), acceptor.clone());
        clients.spawn(async move {
            tokio::time::sleep_until(at).await;
            let welcome = Welcome::Serve(&hall, origin);
            if let Err(e) = converse(stream, acceptor, welcome).await {
                hall.log_end(from, &e);
            }
            drop(counted);
        });
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
    let mut stream = BufReader::with_capacity(FIRST_READ, stream);
    let first = timeout(HANDSHAKE, stream.fill_buf()).await??.first();
    match (first.copied().is_some_and(is_relay_stream), welcome) {
        (true, Welcome::Serve(hall, _)) if let Some(relay) = &hall.relay => {
            relay.serve(stream, from).await
        }
        (true, _) => anyhow::bail!("TURN, and no relay"),
        (false, welcome) => serve_client(stream, welcome).await,
    }
}

/// The treatment of a client.
#[derive(Debug, Clone, Copy)]
enum Welcome<'a> {
    Serve(&'a Hall, Origin),
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
    let (hall, origin) = match welcome {
        Welcome::Serve(hall, origin) => (hall, origin),
        Welcome::Refuse(reason) => return refuse(&mut socket, reason).await,
    };
    let (challenge, registration) = timeout(HANDSHAKE, register(&mut socket)).await??;
    let Some((seat, outbox, waiting)) = hall.rooms.register(registration, origin.site()) else {
        return refuse(&mut socket, "the room is full").await;
    };
    if !hall.bounds.is_public {
        tracing::debug!("{} is here", seat.peer);
    }
    let client = Client {
        hall,
        origin,
        challenge,
        seat,
        outbox,
        entered: BTreeMap::new(),
        _counting: hall.counts.client(),
    };
    pass_on(&mut socket, client, waiting).await
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

/// Returns the challenge of the connection, and the key that has answered it.
async fn register<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> anyhow::Result<([u8; 32], Registration)> {
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
            return Ok((challenge, registered));
        }
        refuse(socket, "signature").await?;
    }
    anyhow::bail!("closed before it registered")
}

async fn pass_on<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    mut client: Client<'_>,
    mut waiting: mpsc::Receiver<Bytes>,
) -> anyhow::Result<()> {
    let hall = client.hall;
    let outbox = client.outbox.clone();
    let relay = hall.relay.as_ref();
    let mut offer = relay.map(|relay| Offer::new(relay, &client.seat, hall.bounds.is_public));
    let mut ping = interval(PING_INTERVAL);
    let mut received_at = Instant::now();
    let Bounds { rate, burst, .. } = hall.bounds;
    let mut bucket = TokenBucket::new(rate, burst, received_at.into_std());
    loop {
        tokio::select! {
            () = outbox.is_cut() => anyhow::bail!("replaced by newer connections, in a full room, or too slow"),
            Some(bytes) = waiting.recv() => {
                // a client that does not read must not keep its messages for ever
                timeout(HANDSHAKE, socket.send(Message::Binary(bytes))).await??;
            }
            message = socket.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                received_at = Instant::now();
                charge(&mut bucket, &message, received_at);
                let mut ready_at = received_at;
                match message {
                    Message::Binary(bytes) => ready_at = client.handle(ToServer::decode(&bytes)?)?,
                    Message::Text(text) => {
                        let seat = &client.seat;
                        let answer = offer.as_mut().and_then(|offer| offer.answer(&text, seat));
                        if let Some(answer) = answer {
                            timeout(HANDSHAKE, socket.send(answer)).await??;
                        }
                    }
                    Message::Close(_) => return Ok(()),
                    _ => {}
                }
                tokio::time::sleep_until(ready_at.max(bucket.ready_at().into())).await;
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

#[derive(Debug)]
struct Client<'a> {
    hall: &'a Hall,
    origin: Origin,
    challenge: [u8; 32],
    seat: Seat<'a>,
    outbox: Outbox,
    /// Rooms that it has entered beside that of its registration, by its key in each.
    entered: BTreeMap<PeerId, Entered<'a>>,
    _counting: Counting<'a>,
}

#[derive(Debug)]
struct Entered<'a> {
    seat: Seat<'a>,
    _counted: Counted,
    _counting: Counting<'a>,
}

impl Client<'_> {
    /// Handles a message; returns the time at which the next one is read.
    fn handle(&mut self, message: ToServer) -> anyhow::Result<Instant> {
        let now = Instant::now();
        match message {
            ToServer::Send { to, bytes } => self.seat.forward(to, bytes),
            ToServer::SendIn { own, to, bytes } => {
                // the entry may have been refused meanwhile
                if let Some(entered) = self.entered.get(&own) {
                    entered.seat.forward(to, bytes);
                }
            }
            ToServer::Leave(own) => drop(self.entered.remove(&own)),
            ToServer::Enter { peer, .. } => match self.enter(&peer, &message, now)? {
                Ok(at) => return Ok(at),
                Err(reason) => {
                    self.hall.counts.turn_away();
                    let refused = ToNode::Refused(reason.into()).encode();
                    self.outbox.send(in_room(&peer, &refused).into());
                }
            },
            ToServer::Register { .. } => anyhow::bail!("registered twice"),
        }
        Ok(now)
    }

    /// Enters one more room; returns the time at which the next message is read, or the reason for
    /// which it is not entered.
    fn enter(
        &mut self,
        peer: &PeerId,
        message: &ToServer,
        now: Instant,
    ) -> anyhow::Result<Result<Instant, &'static str>> {
        // an entry replaces the one before
        self.entered.remove(peer);
        if self.entered.len() >= MAX_ENTERED {
            return Ok(Err("too many rooms"));
        }
        // a signature costs more than a look into tables
        let (counted, at) = match self.hall.sources.enter(self.origin, 1, now) {
            Ok(counted) => counted,
            Err(why) => return Ok(Err(why.reason())),
        };
        let Some(entry) = message.entered(&self.challenge) else {
            anyhow::bail!("signature");
        };
        let Some(seat) = self
            .hall
            .rooms
            .enter(entry, &self.outbox, self.origin.site())
        else {
            return Ok(Err("the room is full"));
        };
        let entered = Entered {
            seat,
            _counted: counted,
            _counting: self.hall.counts.entry(),
        };
        self.entered.insert(entry.peer, entered);
        Ok(Ok(at))
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
    /// Time until which a client that wants a relay has asked.
    asks_by: Option<Instant>,
    /// Whether the log has no keys.
    is_quiet: bool,
}

impl<'a> Offer<'a> {
    fn new(relay: &'a Arc<Relay>, seat: &Seat<'_>, is_quiet: bool) -> Self {
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
            is_quiet,
        }
    }

    fn due(&mut self) -> Option<Message> {
        let now = Instant::now();
        if self.asks_by.take_if(|by| *by <= now).is_some() {
            self.log(&"it does not ask for one as members do ([relay] ask = false)");
        }
        self.at.take_if(|at| *at <= now)?;
        match self.relay.asks_for_proof() {
            Some(key) => Some(text(&RelayReply::Prove(key))),
            None => Some(self.credentials(false)),
        }
    }

    fn answer(&mut self, word: &str, seat: &Seat<'_>) -> Option<Message> {
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
                    Ok(is_leaf) => {
                        seat.prove();
                        Some(self.credentials(is_leaf))
                    }
                    Err(why) => {
                        self.log(&why);
                        Some(text(&RelayReply::Refused(why.to_string())))
                    }
                }
            }
        }
    }

    fn log(&self, why: &dyn std::fmt::Display) {
        let peer = self.peer;
        if !self.is_quiet {
            self.relay.log(&format_args!("{peer} gets no relay: {why}"));
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

#[cfg(test)]
mod tests {
    use super::sources::TOO_MANY;
    use super::*;

    #[test]
    fn messages_without_a_byte_are_not_free() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(CLIENT_RATE, CLIENT_BURST, now.into_std());
        let ping = Message::Ping(Bytes::new());
        (0..200_000).for_each(|_| charge(&mut bucket, &ping, now));
        assert!(bucket.ready_at() > (now + Duration::from_secs(3)).into_std());
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
}
