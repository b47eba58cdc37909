//! Connections to other nodes, in both directions.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lcroute_control::status::Contact;
use lcroute_control::streams::{Access, Target};
use librecast::channel::STREAM_PORT;
use librecast::id::PeerId;
use librecast::outside::ContactText;
use librecast::stream::{End, Peer, ProtocolName, Reason, Status};
use librecast::time::Instant;
use librecast::wire::WireError;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig,
    IdleTimeout, Incoming, MtuDiscoveryConfig, RecvStream, Runtime, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant as Moment, sleep, timeout};

use crate::admission::{Admission, Begun, Class, Ended};
use crate::agreement::{Answer, Hello, LENGTH_LEN, MAX_MESSAGE};
use crate::daemon::{AskError, Daemon};
use crate::datagrams::{Takers, carry, longest, pair};
use crate::directory::Directory;
use crate::identity::{Identity, ResetKey, is_framed, peer_of};
use crate::metrics::Refused;
use crate::outside::{Outside, Seek, address_of};
use crate::pump::{Carriage, Local, Teller, Traffic, pump};
use crate::registry::{Choice, Destination, Handover, Registry, Service};
use crate::report::Report;
use crate::shares::{Caller, Shares};
use crate::window::{RECEIVE_WINDOW, Room, STREAM_WINDOW, Window};

/// Time for which an absent node, or one without its program for streams, is awaited.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of these checks.
const APPEAR_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit for a handshake, and for the messages at the beginning of a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time within which an existing connection must show a sign of the peer; otherwise another one is
/// made, as its program may have been killed.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without a program for streams on a reachable node, or without a link to a key outside, after
/// which its streams end. Chosen: a service restarts within some seconds, as does a link.
const NO_PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of handshakes for one stream. Chosen: enough to reach the next second.
const MAX_HANDSHAKES: usize = 5;
/// Interval between them.
const HANDSHAKE_INTERVAL: Duration = Duration::from_millis(300);
/// Interval between attempts to connect to a server of this host with a full queue.
const BACKLOG_INTERVAL: Duration = Duration::from_millis(20);
/// Time limit for a server of this host to answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which the other node's membership is checked.
const MEMBER_INTERVAL: Duration = Duration::from_secs(2);
/// Time without streams after which a connection ends. Chosen: another costs two round trips more.
const IDLE: Duration = Duration::from_secs(60);
/// Time out of reach after which a node's streams end. Chosen: a router restarts.
const UNREACHABLE: Duration = Duration::from_secs(300);
/// Interval of keep-alives on a silent connection. Chosen: preserves UDP state of firewalls.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Maximum number of connections that other nodes have begun. Chosen: their windows are 1 GiB
/// together, for which the unit has room.
const MAX_CONNECTIONS: usize = 128;
/// Maximum number of connections with one node: one from each side. A further one ends the oldest.
const MAX_CONNECTIONS_OF_PEER: usize = 2;
/// Maximum number of open streams from one node.
const MAX_STREAMS_OF_PEER: u32 = 1_024;
/// Maximum number of open streams from all other nodes.
const MAX_STREAMS: usize = 4_096;
/// Silence after which a stream of a caller of the open key ends. Chosen: longer than a person reads.
const GUEST_SILENCE: Duration = Duration::from_secs(300);
/// Maximum queue of datagrams in bytes, per direction. Chosen: 10 ms at 200 Mbit/s.
const DATAGRAM_BUFFER: usize = 256 << 10;
/// Reordering threshold in packets (RFC 9002 §6.1.1 has 3), for the network's repair and reroutes.
const PACKET_THRESHOLD: u32 = 64;
/// Assumed round trip. Chosen: intercontinental; a handshake's first loss costs three times that.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// UDP payload that every lc0 accepts: its MTU is 1,280 at least (RFC 9000 §14 requires 1,200).
const INITIAL_MTU: u16 = 1_200;
/// IPv6 and UDP headers, in bytes.
const HEADERS: u16 = 48;
/// Maximum number of handshakes that wait to be accepted. Chosen: a whole burst.
const MAX_INCOMING: usize = 512;
/// Maximum number of bytes of a handshake that waits to be accepted. Chosen.
const INCOMING_BUFFER: u64 = 8 << 10;
/// Maximum number of ended streams that are remembered, beside open ones.
const MAX_ENDS: usize = 4_096;
/// MTU outside, in bytes: datagrams of WebRTC within Ethernet's.
const OUTSIDE_MTU: u16 = 1_400;
/// Kernel buffers of the socket, in bytes. Chosen: 20 ms at 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

/// Codes with which a connection is closed.
mod close {
    use quinn::VarInt;

    /// It has no streams.
    pub const IDLE: VarInt = VarInt::from_u32(0);
    /// This node may use nothing that is served.
    pub const REFUSED: VarInt = VarInt::from_u32(1);
    /// The node is not a member, or has another address.
    pub const NO_MEMBER: VarInt = VarInt::from_u32(2);
    /// There are too many connections.
    pub const BUSY: VarInt = VarInt::from_u32(3);
    /// The program ends.
    pub const GONE: VarInt = VarInt::from_u32(4);
}

/// The reason for which there is no stream, as code and as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub Reason, pub String);

/// This node, as its daemon reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub peer: PeerId,
    pub name: String,
    /// Its address on lc0.
    pub address: Ipv6Addr,
    pub interface: String,
}

#[derive(Debug)]
pub struct Network {
    own: Own,
    directory: Directory,
    identity: Identity,
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    registry: Mutex<Registry>,
    connections: Mutex<BTreeMap<PeerId, Vec<Link>>>,
    connecting: Mutex<BTreeMap<PeerId, Arc<tokio::sync::Mutex<()>>>>,
    room: Room,
    admission: Mutex<Admission>,
    ends: Mutex<Ends>,
    counters: Counters,
    traffic: Arc<Traffic>,
    clients: watch::Sender<usize>,
}

/// A connection, with the state that its streams share.
#[derive(Debug, Clone)]
pub struct Link {
    pub connection: Connection,
    pub takers: Takers,
    is_framed: bool,
    /// The bound of bytes that wait for readers.
    window: Arc<Window>,
    in_use: Arc<()>,
}

impl Link {
    fn new(connection: Connection, room: &Room) -> Self {
        let data = connection.handshake_data();
        let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
        let protocol = data.and_then(|data| data.protocol);
        Self {
            takers: Takers::default(),
            is_framed: is_framed(protocol.as_deref()),
            window: Window::new(connection.clone(), room.clone()),
            in_use: Arc::new(()),
            connection,
        }
    }

    /// Returns the settings for its streams.
    pub fn carriage<'a>(&'a self, traffic: &'a Traffic) -> Carriage<'a> {
        Carriage {
            is_framed: self.is_framed,
            window: &self.window,
            traffic,
        }
    }
}

#[derive(Debug)]
pub struct Opened {
    /// Both directions.
    pub quic: (SendStream, RecvStream),
    /// The node at the other end.
    pub peer: Peer,
    /// Its connection, held as long as the stream lasts.
    pub link: Link,
    /// A key outside of this host's networks is sought as long as the stream lasts.
    pub seek: Option<Seek>,
}

/// Counters of callers of the open key, and of other nodes: neither kind takes the other's places.
#[derive(Debug, Default)]
struct ByKind {
    guests: AtomicUsize,
    others: AtomicUsize,
}

impl ByKind {
    fn of(&self, is_guest: bool) -> &AtomicUsize {
        match is_guest {
            true => &self.guests,
            false => &self.others,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    accepted: AtomicU64,
    begun_by: ByKind,
    open: AtomicUsize,
    streams_of: ByKind,
    refused: Mutex<BTreeMap<Refused, u64>>,
}

/// Streams that this host opened, and their ends.
#[derive(Debug, Default)]
struct Ends {
    last: u64,
    known: BTreeMap<u64, watch::Receiver<Option<End>>>,
    /// Programs that wait for the ends of open streams.
    waiting: BTreeMap<u64, Arc<Waits>>,
}

impl Ends {
    /// Gives a stream its number. Open streams are never forgotten: their end is requested later.
    fn add(&mut self, known: watch::Receiver<Option<End>>) -> u64 {
        self.last += 1;
        self.known.insert(self.last, known);
        if self.known.len() > MAX_ENDS {
            let mut known = self.known.iter();
            let oldest = known.find(|(_, end)| end.borrow().is_some());
            let oldest = oldest.map(|(number, _)| *number);
            oldest.and_then(|number| self.known.remove(&number));
        }
        self.last
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the socket of streams, on lc0 only.
fn open_socket(own: &Own) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(own.interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((own.address, STREAM_PORT)).into())?;
    // the kernel grants its limits at most
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn transport(mtu: u16) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu.saturating_sub(HEADERS).max(INITIAL_MTU));
    transport
        .max_concurrent_bidi_streams(MAX_STREAMS_OF_PEER.into())
        .max_concurrent_uni_streams(0_u8.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(RECEIVE_WINDOW.into())
        .packet_threshold(PACKET_THRESHOLD)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(INITIAL_MTU)
        .mtu_discovery_config(Some(discovery))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(UNREACHABLE).ok())
        .allow_spin(false)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    transport
}

impl Network {
    /// Opens the socket of this node's streams.
    ///
    /// # Errors
    /// The interface or the port is not available.
    pub fn open_for(own: Own, daemon: Daemon, mtu: u16) -> anyhow::Result<Arc<Self>> {
        let socket = TokioRuntime.wrap_udp_socket(open_socket(&own)?)?;
        Self::over(socket, own, Directory::Daemon(daemon), mtu)
    }

    /// Carries streams with keys outside of this host's networks.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn outside(outside: &Arc<Outside>) -> anyhow::Result<Arc<Self>> {
        let own = Own {
            peer: outside.own(),
            name: outside.own().to_string(),
            address: address_of(&outside.own()),
            interface: String::new(),
        };
        let directory = Directory::Outside(Arc::clone(outside));
        Self::over(outside.socket(), own, directory, OUTSIDE_MTU)
    }

    fn over(
        socket: Arc<dyn AsyncUdpSocket>,
        own: Own,
        directory: Directory,
        mtu: u16,
    ) -> anyhow::Result<Arc<Self>> {
        let signer = directory.signer();
        let identity = Identity::new(own.peer, Arc::clone(&signer));
        let transport = Arc::new(transport(mtu));
        let server = QuicServerConfig::try_from(identity.server()?)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport));
        server
            .migration(false)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(MAX_INCOMING as u64 * INITIAL_MTU as u64);
        let runtime = Arc::new(TokioRuntime);
        let resets = Arc::new(ResetKey::new(&*signer).map_err(anyhow::Error::msg)?);
        let ids = resets.connection_ids();
        let mut config = EndpointConfig::new(resets);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        if let Directory::Outside(_) = directory {
            // links of pairs tell packets of QUIC from other messages by this bit
            config.grease_quic_bit(false);
        }
        let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
        Ok(Arc::new(Self {
            own,
            directory,
            identity,
            endpoint,
            transport,
            registry: Mutex::default(),
            connections: Mutex::default(),
            connecting: Mutex::default(),
            room: Room::default(),
            admission: Mutex::new(Admission::new(Instant::now())),
            ends: Mutex::default(),
            counters: Counters::default(),
            traffic: Arc::default(),
            clients: watch::Sender::new(0),
        }))
    }

    /// Moves connections to a new socket after the interface was made again.
    pub fn reopen(&self) -> io::Result<()> {
        self.endpoint.rebind(open_socket(&self.own)?)
    }

    pub fn own(&self) -> &Own {
        &self.own
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the served protocols.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Counts a connected program of this host, until the result is dropped.
    pub fn client(self: &Arc<Self>) -> Client {
        self.clients.send_modify(|count| *count += 1);
        Client(Arc::clone(self))
    }

    /// Returns the number of connected programs of this host.
    pub fn clients(&self) -> watch::Receiver<usize> {
        self.clients.subscribe()
    }

    pub fn status(&self) -> Status {
        let counters = &self.counters;
        let refused = lock(&counters.refused);
        Status {
            connections: self.endpoint.open_connections(),
            streams: counters.open.load(Relaxed),
            serving: self.registry().protocols(),
            opened: counters.opened.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            rx_bytes: self.traffic.rx.load(Relaxed),
            tx_bytes: self.traffic.tx.load(Relaxed),
            refused: refused
                .iter()
                .map(|(reason, n)| (reason.name().to_owned(), *n))
                .collect(),
        }
    }

    fn refuse(&self, reason: Refused) {
        *lock(&self.counters.refused).entry(reason).or_default() += 1;
    }

    pub fn begin(self: &Arc<Self>) -> Number {
        self.counters.opened.fetch_add(1, Relaxed);
        let (end, known) = watch::channel(None);
        let waits = Arc::new(Waits::default());
        let mut ends = lock(&self.ends);
        let number = ends.add(known);
        ends.waiting.insert(number, Arc::clone(&waits));
        drop(ends);
        Number {
            number,
            end,
            waits,
            open: Open::new(self),
        }
    }

    /// Returns the end of this stream; none if it is unknown.
    pub fn end_of(&self, number: u64) -> Option<Waiting> {
        let ends = lock(&self.ends);
        let end = ends.known.get(&number)?.clone();
        let waits = ends.waiting.get(&number).cloned().unwrap_or_default();
        waits.is_so.store(true, Relaxed);
        Some(Waiting { end, waits })
    }

    /// Opens a stream to a program on `node`.
    pub async fn open(self: &Arc<Self>, node: &str, hello: &Hello) -> Result<Opened, Refusal> {
        let contact = self.find(node).await?;
        self.open_to(contact, hello, None).await
    }

    /// Opens a stream to a program of a key outside of this host's networks.
    pub async fn open_outside(
        self: &Arc<Self>,
        to: &ContactText,
        hello: &Hello,
    ) -> Result<Opened, Refusal> {
        let Directory::Outside(outside) = &self.directory else {
            return Err(unreachable("this is a network".into()));
        };
        if to.key == self.own.peer {
            let why = "this is this host's own key: connect to its server directly";
            return Err(Refusal(Reason::BadRequest, why.into()));
        }
        let seek = outside.seek(to.key, to.place.as_ref());
        let many = || Refusal(Reason::Unavailable, "too many keys are sought".into());
        let seek = seek.ok_or_else(many)?;
        let linked = outside.linked(to.key, outside.sought_for()).await;
        linked.map_err(|why| unreachable(format!("{}: {why}", to.key)))?;
        let contact = outside.contact(&to.key.to_string());
        let contact = contact.map_err(|_| unreachable(format!("{}: given up", to.key)))?;
        self.open_to(contact, hello, Some(seek)).await
    }

    pub fn close_with(&self, peer: &PeerId) {
        let connections = lock(&self.connections);
        for link in connections.get(peer).into_iter().flatten() {
            link.connection.close(close::NO_MEMBER, b"not named");
        }
    }

    async fn open_to(
        self: &Arc<Self>,
        contact: Contact,
        hello: &Hello,
        seek: Option<Seek>,
    ) -> Result<Opened, Refusal> {
        let protocols = &hello.protocols;
        let opened = timeout(OPEN_TIMEOUT, self.say_hello(&contact, hello)).await;
        let late = |_| {
            let name = &contact.name;
            unreachable(match &seek {
                Some(_) => format!("{name}: linked, and its program for streams does not answer"),
                None => format!(
                    "{name} does not answer: its firewall may keep UDP port {STREAM_PORT} of lc0 closed"
                ),
            })
        };
        let (quic, answer, link) = opened.map_err(late)??;
        let list = |protocols: &[ProtocolName]| {
            let names: Vec<_> = protocols.iter().map(ProtocolName::as_str).collect();
            names.join(", ")
        };
        match answer {
            Answer::Agreed(index) => {
                let protocol = protocols.get(usize::from(index)).cloned();
                let other = || unreachable(format!("{} agrees on something else", contact.name));
                let mut peer = self.peer(contact.clone(), protocol.ok_or_else(other)?);
                if hello.datagrams {
                    peer.datagram_bytes = longest(&link.connection);
                }
                Ok(Opened {
                    quic,
                    peer,
                    link,
                    seek,
                })
            }
            Answer::NoneCommon(theirs) => Err(Refusal(
                Reason::NoneCommon,
                format!(
                    "no protocol in common: {} speaks {}, this program {}",
                    contact.name,
                    list(&theirs),
                    list(protocols)
                ),
            )),
            Answer::Refused => Err(refused(&contact.name)),
            Answer::Unavailable => Err(Refusal(
                Reason::Unavailable,
                format!("{}: what serves it there cannot be reached", contact.name),
            )),
        }
    }

    /// Returns the node, once it is reachable and has a program for streams.
    async fn find(&self, node: &str) -> Result<Contact, Refusal> {
        let find = async || {
            let found = self.directory.member(node).await;
            let contact = found.map_err(|e| match e {
                AskError::Refused(why) | AskError::NoDaemon(why) => unreachable(why),
            })?;
            if contact.peer_id == self.own.peer {
                return Err(Refusal(
                    Reason::BadRequest,
                    format!("{node} is this node itself: connect to its server directly"),
                ));
            }
            let name = &contact.name;
            match (contact.present, contact.streams) {
                (true, true) => Ok(contact),
                (true, false) => Err(unreachable(format!(
                    "{name} has no program for streams: `lcroute serve` there, or systemctl enable --now lcroute-streams"
                ))),
                (false, _) => Err(unreachable(format!("{name} cannot be reached now"))),
            }
        };
        let until = tokio::time::Instant::now() + APPEAR_TIMEOUT;
        loop {
            match find().await {
                Err(Refusal(Reason::Unreachable, why)) if tokio::time::Instant::now() >= until => {
                    return Err(unreachable(why));
                }
                Err(Refusal(Reason::Unreachable, _)) => sleep(APPEAR_INTERVAL).await,
                found => return found,
            }
        }
    }

    /// Opens a stream over an existing connection, or over a new one.
    async fn say_hello(
        self: &Arc<Self>,
        contact: &Contact,
        hello: &Hello,
    ) -> Result<((SendStream, RecvStream), Answer, Link), Refusal> {
        let Some(link) = self.known(&contact.peer_id) else {
            return self.say_hello_anew(contact, hello, None).await;
        };
        let before = received(&link);
        let mut said = pin!(hello_over(&link.connection, hello));
        let said = match timeout(KNOWN_TIMEOUT, &mut said).await {
            Ok(said) => said,
            // the other side acknowledges the stream, and its service is slow
            Err(_) if received(&link) > before => said.await,
            Err(_) => tokio::select! {
                said = &mut said => said,
                anew = self.say_hello_anew(contact, hello, Some(&link)) => {
                    if anew.is_ok() && received(&link) == before {
                        // the other program has been restarted, and does not know the connection
                        link.connection.close(close::GONE, b"silent");
                    }
                    return anew;
                }
            },
        };
        match said {
            Ok((quic, answer)) => Ok((quic, answer, link.clone())),
            Err(_) => self.say_hello_anew(contact, hello, Some(&link)).await,
        }
    }

    /// Opens a stream over a connection other than `silent`.
    async fn say_hello_anew(
        self: &Arc<Self>,
        contact: &Contact,
        hello: &Hello,
        silent: Option<&Link>,
    ) -> Result<((SendStream, RecvStream), Answer, Link), Refusal> {
        let link = self.connect_once(contact, silent).await?;
        let said = hello_over(&link.connection, hello).await;
        let (quic, answer) = said.map_err(|e| ended(&contact.name, &e))?;
        Ok((quic, answer, link))
    }

    /// Returns the newest connection with a node.
    fn known(&self, peer: &PeerId) -> Option<Link> {
        let connections = lock(&self.connections);
        let is_open = |link: &&Link| link.connection.close_reason().is_none();
        connections.get(peer)?.iter().rfind(is_open).cloned()
    }

    /// Makes a connection, or returns one that another stream has made, to save handshakes.
    async fn connect_once(
        self: &Arc<Self>,
        contact: &Contact,
        silent: Option<&Link>,
    ) -> Result<Link, Refusal> {
        let turn = {
            let mut connecting = lock(&self.connecting);
            connecting.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(connecting.entry(contact.peer_id).or_default())
        };
        let _turn = turn.lock().await;
        let id = silent.map(|silent| silent.connection.stable_id());
        let is_silent = |link: &Link| Some(link.connection.stable_id()) == id;
        match self.known(&contact.peer_id).filter(|link| !is_silent(link)) {
            Some(link) => Ok(link),
            None => self.connect_again(contact).await,
        }
    }

    /// Connects, with repetitions if either side is overloaded, for all streams that begin at once.
    async fn connect_again(self: &Arc<Self>, contact: &Contact) -> Result<Link, Refusal> {
        for _ in 1..MAX_HANDSHAKES {
            match self.connect(contact).await {
                Err(Refusal(Reason::Unavailable | Reason::Unreachable, why)) => {
                    tracing::debug!("{}: {why}: once more", contact.name);
                    sleep(HANDSHAKE_INTERVAL).await;
                }
                connected => return connected,
            }
        }
        self.connect(contact).await
    }

    async fn connect(self: &Arc<Self>, contact: &Contact) -> Result<Link, Refusal> {
        let failed = |e: String| unreachable(format!("{}: {e}", contact.name));
        let tls = self.identity.client(contact.peer_id);
        let tls = tls.map_err(|e| failed(e.to_string()))?;
        let tls = QuicClientConfig::try_from(tls).map_err(|e| failed(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&self.transport));
        let to = SocketAddrV6::new(contact.address, STREAM_PORT, 0, 0);
        // TLS requires a name, which is not sent
        let connecting = self.endpoint.connect_with(config, to.into(), "lcroute");
        let connecting = connecting.map_err(|e| failed(e.to_string()))?;
        let connection = connecting.await.map_err(|e| ended(&contact.name, &e))?;
        Ok(self.keep(connection, contact.clone(), None))
    }

    /// Accepts streams of a connection, and supervises it. `begun`: the other node began it.
    fn keep(
        self: &Arc<Self>,
        connection: Connection,
        contact: Contact,
        begun: Option<BegunByOther>,
    ) -> Link {
        let peer = contact.peer_id;
        let link = Link::new(connection, &self.room);
        let mut connections = lock(&self.connections);
        let links = connections.entry(peer).or_default();
        if links.len() >= MAX_CONNECTIONS_OF_PEER {
            links.remove(0).connection.close(close::BUSY, b"another");
        }
        links.push(link.clone());
        drop(connections);
        let (network, kept) = (Arc::clone(self), link.clone());
        tokio::spawn(async move {
            network.look_after(&kept, contact, begun.is_some()).await;
            drop(begun);
            let mut connections = lock(&network.connections);
            if let Some(links) = connections.get_mut(&peer) {
                let id = kept.connection.stable_id();
                links.retain(|other| other.connection.stable_id() != id);
                if links.is_empty() {
                    connections.remove(&peer);
                }
            }
        });
        link
    }

    /// Accepts connections of other nodes until the future is dropped.
    pub async fn accept(self: &Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let address = incoming.remote_address().ip();
            let is_guest = self.directory.prefix_of(&address).is_some();
            let begun = self.counters.begun_by.of(is_guest).load(Relaxed);
            if begun >= self.most(MAX_CONNECTIONS) {
                self.refuse(Refused::Connections);
                incoming.refuse();
                continue;
            }
            let is_validated = incoming.remote_address_validated();
            let begun = lock(&self.admission).begin(address, is_validated, Instant::now());
            match begun {
                Begun::Refused => {
                    self.refuse(Refused::Handshakes);
                    incoming.refuse();
                }
                // fails only for validated addresses
                Begun::Validate => drop(incoming.retry()),
                Begun::GoesOn => {
                    let network = Arc::clone(self);
                    tokio::spawn(async move {
                        let mut unfinished = Unfinished {
                            network: Arc::clone(&network),
                            address,
                            admitted: None,
                            ended: Ended::Here,
                        };
                        let let_in = network.let_in(incoming, &mut unfinished).await;
                        if let Err(reason) = let_in {
                            network.refuse(reason);
                        }
                    });
                }
            }
        }
    }

    /// Returns the class of an address, before the node proves its identity.
    async fn class_of(&self, address: IpAddr) -> Class {
        if self.directory.prefix_of(&address).is_some() {
            return Class::Other;
        }
        let known = lock(&self.admission).contact(address, Instant::now());
        let contact = match known {
            Some(contact) => contact,
            None => {
                let node = address.to_string();
                let asked = self.directory.member(&node).await;
                let contact = asked.ok();
                lock(&self.admission).remember(address, contact.clone(), Instant::now());
                contact
            }
        };
        match contact.is_some_and(|contact| self.registry().knows(&contact)) {
            true => Class::Permitted,
            false => Class::Other,
        }
    }

    async fn let_in(
        self: &Arc<Self>,
        incoming: Incoming,
        unfinished: &mut Unfinished,
    ) -> Result<(), Refused> {
        let from = unfinished.address;
        let class = self.class_of(from).await;
        if !lock(&self.admission).admit(class, Instant::now()) {
            incoming.refuse();
            return Err(Refused::Handshakes);
        }
        unfinished.admitted = Some(class);
        let connecting = incoming.accept().map_err(|_| Refused::Handshake)?;
        let connection = timeout(OPEN_TIMEOUT, connecting).await;
        let connection = connection.map_err(|_| Refused::Handshake)?;
        let connection = connection.map_err(|e| {
            tracing::debug!("{from}: {e}");
            if let ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) = e
            {
                unfinished.ended = Ended::ClosedByOther;
            }
            Refused::Handshake
        })?;
        let close = |code: VarInt, why: Refused| {
            connection.close(code, why.name().as_bytes());
            Err(why)
        };
        let Some(peer) = identity_of(&connection) else {
            return close(close::NO_MEMBER, Refused::NoMember);
        };
        match self.directory.proven(&peer, from).await {
            Ok(None) => close(close::NO_MEMBER, Refused::OtherAddress),
            Ok(Some(contact)) if !self.registry().knows(&contact) => {
                tracing::info!(
                    "{} ({peer}) asks, and nothing is served to it",
                    contact.name
                );
                close(close::REFUSED, Refused::NotAllowed)
            }
            Ok(Some(contact)) => {
                let is_guest = self.directory.prefix_of(&from).is_some();
                match BegunByOther::new(self, is_guest) {
                    Some(begun) => {
                        self.keep(connection, contact, Some(begun));
                        Ok(())
                    }
                    None => close(close::BUSY, Refused::Connections),
                }
            }
            Err(e) => {
                tracing::info!("{peer} at {from}: {e:?}");
                close(close::NO_MEMBER, Refused::NoMember)
            }
        }
    }

    /// Returns the part of a bound for one kind of nodes: callers of the open key have half of it.
    fn most(&self, all: usize) -> usize {
        match self.directory {
            Directory::Daemon(_) => all,
            Directory::Outside(_) => all / 2,
        }
    }

    async fn look_after(self: &Arc<Self>, link: &Link, contact: Contact, is_begun_by_other: bool) {
        // its name and labels may change while it is connected
        let contact = watch::Sender::new(contact);
        tokio::select! {
            () = self.take_all(link, &contact) => {}
            () = self.look_at_member(link, &contact, is_begun_by_other) => {}
        }
    }

    /// Accepts streams and datagrams of a connection until it ends.
    async fn take_all(self: &Arc<Self>, link: &Link, contact: &watch::Sender<Contact>) {
        let connection = &link.connection;
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    let Ok(stream) = stream else { return };
                    let address = contact.borrow().address.into();
                    let is_guest = self.directory.prefix_of(&address).is_some();
                    let count = self.counters.streams_of.of(is_guest);
                    if count.load(Relaxed) >= self.most(MAX_STREAMS) {
                        self.refuse(Refused::Streams);
                        // dropping the stream resets it
                        continue;
                    }
                    let (network, link) = (Arc::clone(self), link.clone());
                    let contact = contact.subscribe();
                    count.fetch_add(1, Relaxed);
                    tokio::spawn(async move {
                        network.take(stream, contact, &link).await;
                        network.counters.streams_of.of(is_guest).fetch_sub(1, Relaxed);
                    });
                }
                datagram = connection.read_datagram() => {
                    let Ok(datagram) = datagram else { return };
                    if !link.takers.hand(datagram) {
                        self.refuse(Refused::Datagram);
                    }
                }
            }
        }
    }

    /// Checks membership at intervals, and closes a connection that is not needed or permitted.
    async fn look_at_member(
        &self,
        link: &Link,
        contact: &watch::Sender<Contact>,
        is_begun_by_other: bool,
    ) {
        let connection = &link.connection;
        let node = self.directory.text_of(&contact.borrow());
        let (mut idle_since, mut program_seen) = (Moment::now(), Moment::now());
        let mut accepted = 0;
        let mut look = tokio::time::interval(MEMBER_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match self.directory.member(&node).await {
                Ok(known) => {
                    let is_alive = match self.directory {
                        Directory::Daemon(_) => known.streams || !known.present,
                        // no router stands in for a link
                        Directory::Outside(_) => known.present,
                    };
                    if is_alive {
                        program_seen = Moment::now();
                    }
                    // ends streams that are no longer permitted
                    contact.send_replace(known);
                }
                Err(AskError::Refused(why)) => {
                    tracing::info!("{}: its streams end: {why}", contact.borrow().name);
                    connection.close(close::NO_MEMBER, b"no member");
                    return;
                }
                // while the daemon does not answer, its last answer counts
                Err(AskError::NoDaemon(_)) => program_seen = Moment::now(),
            }
            if program_seen.elapsed() >= NO_PROGRAM_TIMEOUT {
                let name = &contact.borrow().name;
                let why = match self.directory {
                    Directory::Daemon(_) => "has no program for streams any more",
                    Directory::Outside(_) => "has no link with this host any more",
                };
                tracing::info!("{name} {why}: its streams end");
                connection.close(close::GONE, b"no program");
                return;
            }
            let streams = connection.stats().frame_rx.stream;
            // the table has one reference, this function another
            let is_in_use = Arc::strong_count(&link.in_use) > 2;
            if is_in_use || streams != accepted {
                (idle_since, accepted) = (Moment::now(), streams);
            } else if is_begun_by_other && !self.registry().knows(&contact.borrow()) {
                connection.close(close::REFUSED, b"not allowed");
                return;
            } else if idle_since.elapsed() >= IDLE {
                connection.close(close::IDLE, b"idle");
                return;
            }
        }
    }

    /// Handles a stream of another node.
    async fn take(
        self: &Arc<Self>,
        (mut send, mut recv): (SendStream, RecvStream),
        mut contact: watch::Receiver<Contact>,
        link: &Link,
    ) {
        let read = timeout(OPEN_TIMEOUT, read_message(&mut recv, Hello::decode)).await;
        let Ok(Ok(hello)) = read else {
            self.refuse(Refused::Hello);
            return;
        };
        let now = contact.borrow_and_update().clone();
        let choice = self.registry().choose(&now, &hello);
        let (service, index) = match choice {
            Choice::Service(service, index) => (service, index),
            Choice::Not(answer) => {
                self.refuse(match answer {
                    Answer::Refused => Refused::NotAllowed,
                    _ => Refused::NoneCommon,
                });
                return say(&mut send, &answer).await;
            }
        };
        let Some(protocol) = hello.protocols.get(usize::from(index)).cloned() else {
            return;
        };
        let prefix = self.directory.prefix_of(&now.address.into());
        let is_guest = prefix.is_some();
        let caller = Caller {
            key: now.peer_id,
            prefix,
        };
        let Some(place) = Place::of(&service, &caller) else {
            self.refuse(Refused::Streams);
            return say(&mut send, &Answer::Unavailable).await;
        };
        let mut peer = self.peer(now, protocol);
        if hello.datagrams {
            peer.datagram_bytes = longest(&link.connection);
        }
        let traffic = Traffic::of_stream(&self.traffic);
        let not_permitted = withdrawn(service.ended.clone(), service.access.subscribe(), contact);
        let withdrawn = async {
            tokio::select! {
                () = not_permitted => {}
                () = place.end.notified() => {}
                () = traffic.silent(GUEST_SILENCE), if is_guest => {}
            }
        };
        let reached = self.reach(&service, &peer, hello.datagrams).await;
        let Some(reached) = reached else {
            self.refuse(Refused::Unavailable);
            return say(&mut send, &Answer::Unavailable).await;
        };
        if send
            .write_all(&Answer::Agreed(index).encode())
            .await
            .is_err()
        {
            return;
        }
        drop(service);
        self.counters.accepted.fetch_add(1, Relaxed);
        let _open = Open::new(self);
        match reached {
            Reached::Stream(local, mut report) => {
                let (quic, carriage) = ((send, recv), link.carriage(&traffic));
                let teller = report.as_mut().map_or(Teller::Socket, Teller::Report);
                let end = pump(&local, Vec::new(), quic, &carriage, teller, withdrawn).await;
                if let (End::Reset, Some(report)) = (end, report) {
                    report.break_off().await;
                }
                local.close(end);
            }
            Reached::Datagrams(program) => {
                let over = (&link.connection, &link.takers);
                carry(program, over, (send, recv), &traffic, withdrawn).await;
            }
        }
    }

    fn peer(&self, contact: Contact, protocol: ProtocolName) -> Peer {
        Peer {
            peer: contact.peer_id,
            name: contact.name,
            labels: contact.labels,
            protocol,
            stream: None,
            datagram_bytes: None,
            outside: matches!(self.directory, Directory::Outside(_)),
        }
    }

    /// Connects to the server.
    async fn reach(&self, service: &Service, peer: &Peer, datagrams: bool) -> Option<Reached> {
        let reached = async {
            let gone = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            let local = match &service.destination {
                Destination::Program(program, _) if datagrams => {
                    let (ours, socket) = pair()?;
                    let handover = Handover::new(peer.clone(), socket, None);
                    program.send(handover).await.map_err(gone)?;
                    return Ok(Reached::Datagrams(ours));
                }
                Destination::Program(program, reports) => {
                    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                    ours.set_nonblocking(true)?;
                    let (report, theirs_too) = match reports {
                        true => Some(Report::pair()?).unzip(),
                        false => (None, None),
                    };
                    let handover = Handover::new(peer.clone(), theirs.into(), theirs_too);
                    program.send(handover).await.map_err(gone)?;
                    let local = Local::Unix(UnixStream::from_std(ours)?);
                    return Ok(Reached::Stream(local, report));
                }
                Destination::Server(Target::Tcp(address), _) => {
                    let socket = TcpStream::connect(address).await?;
                    socket.set_nodelay(true)?;
                    Local::Tcp(socket)
                }
                Destination::Server(Target::Unix(path), header) => {
                    let mut socket = connect_in_turn(path).await?;
                    if *header {
                        let mut line = serde_json::to_vec(peer)?;
                        line.push(b'\n');
                        tokio::io::AsyncWriteExt::write_all(&mut socket, &line).await?;
                    }
                    Local::Unix(socket)
                }
            };
            io::Result::Ok(Reached::Stream(local, None))
        };
        match timeout(SERVER_TIMEOUT, reached).await {
            Ok(Ok(local)) => Some(local),
            Ok(Err(e)) => {
                tracing::warn!("{}, {}: {e}", peer.protocol, destination(service));
                None
            }
            Err(_) => {
                tracing::warn!("{}, {}: no answer", peer.protocol, destination(service));
                None
            }
        }
    }

    /// Closes all connections, and notifies the other sides.
    pub async fn close(&self) {
        self.endpoint.close(close::GONE, b"gone");
        // sends queued packets, if their recipients answer
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// Completes when a service has ended, or no longer permits the node of a stream.
async fn withdrawn(
    mut ended: watch::Receiver<()>,
    mut access: watch::Receiver<Access>,
    mut contact: watch::Receiver<Contact>,
) {
    let not_permitted = async {
        // without updates the node's connection, and with it the stream, has ended
        loop {
            let changed = tokio::select! {
                changed = contact.changed() => changed,
                changed = access.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending::<()>().await;
            }
            if !access
                .borrow_and_update()
                .permits(&contact.borrow_and_update())
            {
                return;
            }
        }
    };
    tokio::select! {
        // closes, as no value is ever sent
        _ = ended.changed() => {}
        () = not_permitted => {}
    }
}

/// Connects to a server of this host; waits while its queue is full.
async fn connect_in_turn(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_INTERVAL).await,
            connected => return connected,
        }
    }
}

enum Reached {
    Stream(Local, Option<Report>),
    Datagrams(OwnedFd),
}

fn destination(service: &Service) -> String {
    match &service.destination {
        Destination::Program(..) => "its program".into(),
        Destination::Server(target, _) => target.to_string(),
    }
}

fn unreachable(why: String) -> Refusal {
    Refusal(Reason::Unreachable, why)
}

fn refused(name: &str) -> Refusal {
    Refusal(
        Reason::Refused,
        format!("{name} does not allow this node any of them"),
    )
}

/// Returns the reason of a connection's end, for a program that wanted a stream.
fn ended(name: &str, error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(closed) if closed.error_code == close::REFUSED => {
            refused(name)
        }
        ConnectionError::ApplicationClosed(closed) if closed.error_code == close::NO_MEMBER => {
            let why = format!("{name} does not know this node as a member");
            Refusal(Reason::Refused, why)
        }
        ConnectionError::ApplicationClosed(closed) if closed.error_code == close::BUSY => {
            Refusal(Reason::Unavailable, format!("{name} has too much to do"))
        }
        ConnectionError::ConnectionClosed(closed)
            if closed.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            Refusal(Reason::Unavailable, format!("{name} has too much to do"))
        }
        e => unreachable(format!("{name}: {e}")),
    }
}

fn identity_of(connection: &Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast_ref::<Vec<rustls::pki_types::CertificateDer<'static>>>()?;
    peer_of(keys.first()?)
}

/// Returns the number of datagrams received over a connection.
fn received(link: &Link) -> u64 {
    link.connection.stats().udp_rx.datagrams
}

/// Opens a stream, and returns the answer to the hello.
async fn hello_over(
    connection: &Connection,
    hello: &Hello,
) -> Result<((SendStream, RecvStream), Answer), ConnectionError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    // a closed connection has a reason
    let lost = || connection.close_reason().unwrap_or(ConnectionError::Reset);
    send.write_all(&hello.encode()).await.map_err(|_| lost())?;
    match read_message(&mut recv, Answer::decode).await {
        Ok(answer) => Ok(((send, recv), answer)),
        Err(_) => {
            // the reason comes a moment after the stream's end
            let _ = timeout(Duration::from_millis(100), connection.closed()).await;
            Err(lost())
        }
    }
}

/// Reads a message, and no byte behind it.
async fn read_message<T>(
    recv: &mut RecvStream,
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
) -> io::Result<T> {
    let mut length = [0; LENGTH_LEN];
    recv.read_exact(&mut length)
        .await
        .map_err(io::Error::other)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    recv.read_exact(&mut bytes)
        .await
        .map_err(io::Error::other)?;
    decode(&bytes).map_err(io::Error::other)
}

async fn say(send: &mut SendStream, answer: &Answer) {
    if send.write_all(&answer.encode()).await.is_ok() && send.finish().is_ok() {
        // waits for its arrival
        let _ = timeout(OPEN_TIMEOUT, send.stopped()).await;
    }
}

/// A connected program of this host.
#[derive(Debug)]
pub struct Client(Arc<Network>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.send_modify(|count| *count -= 1);
    }
}

/// An unfinished handshake of another node, until this is dropped.
struct Unfinished {
    network: Arc<Network>,
    address: IpAddr,
    admitted: Option<Class>,
    ended: Ended,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (admitted, now) = (self.admitted, Instant::now());
        lock(&self.network.admission).end(self.address, admitted, self.ended, now);
    }
}

/// The place of a stream at a service, until this is dropped.
struct Place {
    shares: Arc<Mutex<Shares>>,
    number: u64,
    /// Tells the stream to give way.
    end: Arc<Notify>,
}

impl Place {
    fn of(service: &Service, caller: &Caller) -> Option<Self> {
        let is_command = matches!(service.destination, Destination::Program(_, true));
        let shares = Arc::clone(&service.shares);
        let (number, end) = lock(&shares).enter(caller, is_command)?;
        Some(Self {
            shares,
            number,
            end,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.shares).leave(self.number);
    }
}

/// A connection that another node has begun, until this is dropped.
struct BegunByOther {
    network: Arc<Network>,
    is_guest: bool,
}

impl BegunByOther {
    /// Returns none if there are too many.
    fn new(network: &Arc<Network>, is_guest: bool) -> Option<Self> {
        let most = network.most(MAX_CONNECTIONS);
        let all = network.counters.begun_by.of(is_guest);
        let counted = all.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1));
        counted.ok().map(|_| Self {
            network: Arc::clone(network),
            is_guest,
        })
    }
}

impl Drop for BegunByOther {
    fn drop(&mut self) {
        let counted = self.network.counters.begun_by.of(self.is_guest);
        counted.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
struct Open(Arc<Network>);

impl Open {
    fn new(network: &Arc<Network>) -> Self {
        network.counters.open.fetch_add(1, Relaxed);
        Self(Arc::clone(network))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Relaxed);
    }
}

/// A stream that a program of this host opened.
#[derive(Debug)]
pub struct Number {
    number: u64,
    end: watch::Sender<Option<End>>,
    waits: Arc<Waits>,
    open: Open,
}

/// A program that waits for the end of a stream.
#[derive(Debug, Default)]
struct Waits {
    is_so: AtomicBool,
    has_gone: Notify,
}

impl Number {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether a program waits for the end.
    pub fn is_awaited(&self) -> &AtomicBool {
        &self.waits.is_so
    }

    /// Completes when a program that waited for the end has gone: the stream must break off.
    pub async fn given_up(&self) {
        self.waits.has_gone.notified().await;
    }

    pub fn end(self, end: End) {
        self.end.send_replace(Some(end));
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        lock(&self.open.0.ends).waiting.remove(&self.number);
    }
}

/// The end of a stream, for one program that waits for it.
#[derive(Debug)]
pub struct Waiting {
    end: watch::Receiver<Option<End>>,
    waits: Arc<Waits>,
}

impl Waiting {
    /// Completes when the stream has ended.
    pub async fn end(&mut self) -> End {
        let end = self.end.wait_for(Option::is_some).await;
        // the stream's task ended without a result
        end.ok().and_then(|end| *end).unwrap_or(End::Reset)
    }

    /// Notes that the program has gone before the end, and no longer uses the stream.
    pub fn give_up(&self) {
        self.waits.has_gone.notify_one();
    }
}

#[cfg(test)]
mod tests;
