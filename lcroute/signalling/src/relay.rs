//! The relay on the signalling server's port: sockets for the state machine of `lcroute-webrtc`.
//!
//! ```text
//! UDP port, streams that begin with STUN --> RelayServer --> a UDP socket for each allocation
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lcroute_overlay::proof::{NotProven, ProofKey};
use lcroute_overlay::server::{Room, ToNode};
use lcroute_webrtc::relay;
use lcroute_webrtc::relay::{
    AllocationId, Client, Framer, HasAddress, RelayConfig, RelayOutput, RelayServer, charged,
};
use librecast::bucket::{Rate, TokenBucket};
use librecast::events::LogLimit;
use librecast::id::{NetworkId, PeerId};
use librecast::time::UnixTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::counts::Counts;
use crate::peer_filter;

/// Maximum length of a datagram in bytes.
const MAX_DATAGRAM: usize = 10_000;
/// Maximum number of messages that wait for a stream.
const STREAM_QUEUE: usize = 256;
/// Maximum number of messages in one write.
const WRITE_BATCH: usize = 64;
/// Time limit for a stream to get an allocation, and to accept data.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which a busy relay logs its use.
const REPORT: Duration = Duration::from_secs(300);

/// STUN answers: they are longer than a request, whose source may be forged. Chosen: 5 Mbit/s.
const STUN_ANSWERS: Rate = Rate::per_second(10_000, 10_000);

/// The configuration of a server's relay.
#[derive(Clone)]
pub struct RelaySettings {
    /// Whether every registered node may use it, without a proof of membership.
    pub open: bool,
    /// Whether peers may have private addresses, or be near.
    pub private: bool,
    /// Bit/s of one node, both directions together.
    pub rate: u64,
    /// Bit/s of all nodes.
    pub rate_total: u64,
    /// Bit/s of all leaves of a network.
    pub leaf_rate: u64,
    /// Bounds of networks that this host does not belong to; none: all networks are equal.
    pub strangers: Option<Strangers>,
    /// Public addresses of this host behind a NAT: one of each family is used.
    pub addresses: Vec<IpAddr>,
    /// Predicate: this host reaches an address without a router.
    pub is_near: HasAddress,
}

/// Bounds of all networks but one, which comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strangers {
    /// Bit/s of all of them together.
    pub rate: u64,
    /// The network that comes first.
    pub members_of: Option<NetworkId>,
}

librecast::debug_by_name!(RelaySettings);

#[derive(Debug)]
pub(crate) struct Relay {
    udp: Arc<UdpSocket>,
    dual: bool,
    addresses: Vec<IpAddr>,
    rate: u64,
    /// The key for proofs of membership; none: the relay is open.
    proof: Option<ProofKey>,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    core: RelayServer,
    sockets: HashMap<AllocationId, Opened>,
    streams: HashMap<u64, mpsc::Sender<Bytes>>,
    next_stream: u64,
    told: (Instant, u64),
    log_limit: LogLimit,
}

#[derive(Debug)]
struct Opened {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Relay {
    /// Returns a relay with at most `most` sockets.
    pub(crate) fn new(
        settings: RelaySettings,
        udp: Arc<UdpSocket>,
        most: usize,
        counts: Arc<Counts>,
    ) -> io::Result<Arc<Self>> {
        let (mut secret, mut seed) = ([0; 32], [0; 32]);
        for random in [&mut secret, &mut seed] {
            getrandom::fill(random).map_err(io::Error::other)?;
        }
        let addresses = settings.addresses;
        let mut config = RelayConfig::new(secret, is_own(addresses.clone()), settings.is_near);
        config.private = settings.private;
        config.rate = settings.rate;
        config.rate_total = settings.rate_total;
        config.leaf_rate = settings.leaf_rate;
        config.strangers = settings.strangers.map(|strangers| relay::Strangers {
            rate: strangers.rate,
            members_of: strangers.members_of.map(|of| Room::of(&of).0.to_vec()),
        });
        config.allocations = config.allocations.min(most);
        let now = Instant::now();
        let core = RelayServer::new(config, now.into_std(), UnixTime::now());
        let core = core.ok_or_else(|| io::Error::other("no cryptography"))?;
        Ok(Arc::new(Self {
            dual: udp.local_addr()?.is_ipv6(),
            udp,
            addresses,
            rate: settings.rate,
            proof: (!settings.open).then(|| ProofKey::new(seed)),
            counts,
            state: Mutex::new(State {
                core,
                sockets: HashMap::new(),
                streams: HashMap::new(),
                next_stream: 0,
                told: (now, 0),
                log_limit: LogLimit::default(),
            }),
        }))
    }

    /// Returns the key to which nodes seal their certificates; none: the relay is open.
    pub(crate) fn asks_for_proof(&self) -> Option<[u8; 32]> {
        self.proof.as_ref().map(ProofKey::public)
    }

    /// Checks that a registered node is a member of its room's network; returns whether it is a
    /// leaf.
    pub(crate) fn check(&self, sealed: &[u8], node: (&PeerId, &Room)) -> Result<bool, NotProven> {
        let proof = self.proof.as_ref();
        proof.map_or(Ok(false), |key| key.check(sealed, node, UnixTime::now()))
    }

    /// Returns credentials for a registered node, always with the same name: bounds apply per node.
    /// Those of a leaf are good for inside.
    pub(crate) fn offer(&self, peer: &PeerId, room: &Room, is_leaf: bool) -> (ToNode, Duration) {
        let now = Instant::now().into_std();
        let core = &self.locked().core;
        let node = (&peer.public_key()[..], &room.0[..]);
        let (credentials, lifetime) = core.mint(node, is_leaf, now);
        let message = ToNode::Relay {
            lifetime,
            credentials,
        };
        (message, Duration::from_secs(lifetime.into()))
    }

    /// Logs a message about a client, within bounds: repeated attempts cannot fill the log.
    pub(crate) fn log(&self, what: &fmt::Arguments<'_>) {
        let now = Instant::now().into_std();
        if let Some(left_out) = self.locked().log_limit.admit(now) {
            tracing::info!(left_out, "{what}");
        }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let mut tick = interval(Duration::from_secs(1));
        loop {
            let now = tick.tick().await;
            self.with_core(|core| core.handle_timeout(now.into_std()));
            self.report(now);
        }
    }

    fn report(&self, now: Instant) {
        let mut state = self.locked();
        let (allocations, bytes) = state.core.usage();
        self.counts.set_relay(allocations, bytes);
        if now >= state.told.0 + REPORT && bytes != state.told.1 {
            let drops = state.core.drops();
            let dropped: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
            tracing::info!(allocations, bytes, ?dropped, "relay");
            state.told = (now, bytes);
        }
    }

    /// Handles a datagram at the server's port that is not a binding request.
    pub(crate) fn handle_datagram(self: &Arc<Self>, from: SocketAddr, datagram: &[u8]) {
        let client = Client {
            address: from,
            stream: None,
        };
        self.handle(client, datagram);
    }

    fn handle(self: &Arc<Self>, client: Client, datagram: &[u8]) {
        let now = Instant::now().into_std();
        self.with_core(|core| core.handle_client(client, datagram, now));
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // panics of the STUN parser do not pass its fence; at worst a table lacks an entry
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state machine, and carries out its outputs without waiting.
    fn with_core<T>(self: &Arc<Self>, change: impl FnOnce(&mut RelayServer) -> T) -> T {
        let mut state = self.locked();
        let changed = change(&mut state.core);
        while let Some(output) = state.core.poll_output() {
            self.execute(output, &mut state);
        }
        changed
    }

    fn execute(self: &Arc<Self>, output: RelayOutput, state: &mut State) {
        match output {
            RelayOutput::ToClient(client, message) => match client.stream {
                Some(stream) => {
                    let queue = state.streams.get(&stream);
                    if queue.is_some_and(|queue| queue.try_send(message).is_err()) {
                        state.core.note_stream_full();
                    }
                }
                // a message without room is lost, as datagrams are
                None => drop(self.udp.try_send_to(&message, self.mapped(client.address))),
            },
            RelayOutput::Open {
                allocation,
                client,
                ipv6,
            } => {
                let opened = self.open(client.address, ipv6);
                let told = opened.as_ref().ok().map(|(_, told)| *told);
                match opened {
                    Ok((socket, _)) => {
                        let relay = Arc::downgrade(self);
                        let reading = Arc::clone(&socket);
                        let reader = tokio::spawn(async move {
                            let mut buffer = vec![0; MAX_DATAGRAM];
                            loop {
                                let received = reading.recv_from(&mut buffer).await;
                                let Some(relay) = relay.upgrade() else { return };
                                // errors concern single datagrams
                                let Ok((n, from)) = received else { continue };
                                let now = Instant::now().into_std();
                                let ready_at = relay.with_core(|core| {
                                    core.handle_peer(allocation, from, &buffer[..n], now);
                                    core.ready_at(allocation, now)
                                });
                                drop(relay);
                                if ready_at > now {
                                    sleep_until(ready_at.into()).await;
                                }
                            }
                        });
                        let reader = reader.abort_handle();
                        state.sockets.insert(allocation, Opened { socket, reader });
                    }
                    Err(e) => tracing::debug!("no socket for an allocation: {e}"),
                }
                state.core.handle_opened(allocation, told);
            }
            RelayOutput::Permit { allocation, peers } => {
                if let Some(opened) = state.sockets.get(&allocation)
                    && let Err(e) = peer_filter::permit(&opened.socket, &peers)
                {
                    tracing::debug!("filter of a relayed address: {e}");
                }
            }
            RelayOutput::ToPeer {
                allocation,
                to,
                contents,
            } => {
                if let Some(opened) = state.sockets.get(&allocation) {
                    let _ = opened.socket.try_send_to(&contents, to);
                }
            }
            RelayOutput::Close(allocation) => drop(state.sockets.remove(&allocation)),
        }
    }

    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(v4) if self.dual => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }

    /// Opens a socket at this host's address towards the client; returns it with its public one.
    fn open(&self, client: SocketAddr, ipv6: bool) -> io::Result<(Arc<UdpSocket>, SocketAddr)> {
        let somewhere: (IpAddr, IpAddr) = if ipv6 {
            let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            (Ipv6Addr::UNSPECIFIED.into(), documentation.into())
        } else {
            let documentation = Ipv4Addr::new(192, 0, 2, 1);
            (Ipv4Addr::UNSPECIFIED.into(), documentation.into())
        };
        let there = if client.is_ipv6() == ipv6 {
            client
        } else {
            SocketAddr::new(somewhere.1, 9)
        };
        // sends nothing: only asks the kernel for the source address
        let probe = std::net::UdpSocket::bind((somewhere.0, 0))?;
        probe.connect(there)?;
        let socket = std::net::UdpSocket::bind((probe.local_addr()?.ip(), 0))?;
        socket.set_nonblocking(true)?;
        let mut told = socket.local_addr()?;
        if let Some(ip) = self.addresses.iter().find(|ip| ip.is_ipv6() == ipv6) {
            told.set_ip(*ip);
        }
        let socket = UdpSocket::from_std(socket)?;
        peer_filter::permit(&socket, &[])?;
        Ok((Arc::new(socket), told))
    }

    /// Serves a stream that begins with TURN, until it ends.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        let (entered, mut queue) = self.enter(address);
        let (mut read, mut write) = tokio::io::split(stream);
        let (mut framer, mut received) = (Framer::default(), BytesMut::with_capacity(16 << 10));
        let mut waiting = Vec::with_capacity(WRITE_BATCH);
        let mut tick = interval(STREAM_TIMEOUT);
        tick.reset();
        // faster data waits in the client's host
        let mut bucket = self.stream_bucket();
        let mut ready_at = Instant::now();
        loop {
            tokio::select! {
                n = read.read_buf(&mut received), if ready_at <= Instant::now() => {
                    if n? == 0 {
                        return Ok(());
                    }
                    framer.push(&received);
                    received.clear();
                    while let Some(frame) = framer.poll_frame()? {
                        bucket.spend(charged(frame.len()) as u64, Instant::now().into_std());
                        match lcroute_webrtc::respond(&frame, address) {
                            Some(answer) => timeout(STREAM_TIMEOUT, write.write_all(&answer)).await??,
                            None => self.handle(entered.client, &frame),
                        }
                    }
                    ready_at = bucket.ready_at().into();
                }
                () = sleep_until(ready_at), if ready_at > Instant::now() => {}
                n = queue.recv_many(&mut waiting, WRITE_BATCH) => {
                    anyhow::ensure!(n > 0, "the server ends");
                    let all = waiting.concat();
                    waiting.clear();
                    timeout(STREAM_TIMEOUT, write.write_all(&all)).await??;
                    timeout(STREAM_TIMEOUT, write.flush()).await??;
                }
                _ = tick.tick() => {
                    let serves = self.locked().core.serves(entered.client);
                    anyhow::ensure!(serves, "no allocation on this stream");
                }
            }
        }
    }

    fn stream_bucket(&self) -> TokenBucket {
        let now = Instant::now().into_std();
        // a quarter of a second, as for a user
        TokenBucket::new(self.rate, (self.rate / 32).max(16 << 10), now)
    }

    fn enter(self: &Arc<Self>, address: SocketAddr) -> (Entered, mpsc::Receiver<Bytes>) {
        let (sender, queue) = mpsc::channel(STREAM_QUEUE);
        let mut state = self.locked();
        let number = state.next_stream;
        state.next_stream += 1;
        state.streams.insert(number, sender);
        let client = Client {
            address,
            stream: Some(number),
        };
        let relay = Arc::clone(self);
        (Entered { relay, client }, queue)
    }
}

/// A served stream; dropping it ends its allocation.
struct Entered {
    relay: Arc<Relay>,
    client: Client,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.relay.with_core(|core| core.handle_closed(self.client));
        if let Some(stream) = self.client.stream {
            self.relay.locked().streams.remove(&stream);
        }
    }
}

/// Returns a function that recognizes addresses of this host: only those can be bound.
fn is_own(addresses: Vec<IpAddr>) -> HasAddress {
    Arc::new(move |ip| addresses.contains(&ip) || std::net::UdpSocket::bind((ip, 0)).is_ok())
}

/// Serves the server's UDP port: STUN, and datagrams of the relay.
pub(crate) async fn serve_udp(udp: Arc<UdpSocket>, relay: Option<Arc<Relay>>) {
    let mut tasks = JoinSet::new();
    if let Some(relay) = &relay {
        tasks.spawn(Arc::clone(relay).run());
    }
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut answers = TokenBucket::of(STUN_ANSWERS, Instant::now().into_std());
    loop {
        match udp.recv_from(&mut buffer).await {
            Ok((n, from)) => {
                let plain = SocketAddr::new(from.ip().to_canonical(), from.port());
                if let Some(response) = lcroute_webrtc::respond(&buffer[..n], plain) {
                    // STUN clients repeat requests
                    if answers.take(1, Instant::now().into_std()) {
                        let _ = udp.try_send_to(&response, from);
                    }
                } else if let Some(relay) = &relay {
                    relay.handle_datagram(plain, &buffer[..n]);
                }
            }
            Err(e) => {
                tracing::debug!("udp: {e}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
