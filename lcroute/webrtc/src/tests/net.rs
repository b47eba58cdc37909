//! A network in memory: overlays, firewalls, NATs, STUN and signalling servers, virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use librecast::cert::{Certificate, Chain, Grant, Kind};
use librecast::id::{PeerId, SecretKey};

use lcroute_overlay::{
    CarrierId, Event, Identity, Overlay, OverlayConfig, PeerInfo, Presence, SendError,
};
use librecast::id::LinkId;
use librecast::random::Random;
use librecast::simulated::{self, Bottleneck, Firewall, Path};
use librecast::time::{UnixTime, WallClock};

use crate::relay::{
    AllocationId, Client, Framer, RelayConfig, RelayOffer, RelayOutput, RelayServer, StreamCommand,
    StreamEvent,
};
use crate::stun::respond;
use crate::{Ecn, Limits, Transmit, Unreachable, WebRtc, WebRtcConfig};

pub(crate) const SERVER: CarrierId = CarrierId(1);
/// Prefix of a control message with a letter for a third node.
const PASSED_ON: &[u8] = b"routed";
pub(crate) const STUN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7_117);
pub(crate) const TODAY: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

pub(crate) fn today() -> UnixTime {
    UnixTime::from_secs(TODAY)
}

/// The key of a test network, and its nodes.
pub(crate) struct Network {
    pub(crate) key: SecretKey,
}

impl Network {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            key: SecretKey::from_seed(&[seed; 32]),
        }
    }

    /// Makes a certificate chain for `node`, valid for a week from `from`.
    pub(crate) fn chain(&self, node: PeerId, name: &str, from: u64) -> Chain {
        super::membership::chain(&self.key, node, name, (from, from + 7 * DAY))
    }

    /// Makes a node with a certificate signed by an issuer.
    pub(crate) fn issued(&self, key: SecretKey, grant: Grant) -> Identity {
        let (own, id) = (&self.key, self.key.peer_id());
        let issuer = SecretKey::from_seed(&[77; 32]);
        let may = Grant::new("", (0, u64::MAX));
        let issued = Certificate::sign(Kind::Issuer, id, issuer.peer_id(), may, own);
        let member = Certificate::sign(Kind::Node, id, key.peer_id(), grant, &issuer);
        let chain = Chain::new(vec![issued.unwrap(), member.unwrap()]).unwrap();
        Identity::new(Arc::new(key), id, chain)
    }

    pub(crate) fn identity(&self, key: SecretKey, name: &str) -> Identity {
        let chain = self.chain(key.peer_id(), name, TODAY - DAY);
        Identity::new(Arc::new(key), self.key.peer_id(), chain)
    }
}

pub(crate) struct Node {
    pub(crate) overlay: Overlay<WebRtc>,
    pub(crate) id: PeerId,
    pub(crate) firewall: Firewall<Instant>,
    /// Whether no datagram passes.
    pub(crate) udp_dead: bool,
    pub(crate) alive: bool,
    pub(crate) present: bool,
    pub(crate) links: BTreeMap<LinkId, PeerId>,
    pub(crate) wanted: BTreeSet<PeerId>,
    /// Reports about peers that cannot be reached directly.
    pub(crate) failing: Vec<(PeerId, bool)>,
    pub(crate) trips: Vec<(PeerId, Duration)>,
    pub(crate) ups: usize,
    pub(crate) downs: Vec<&'static str>,
    pub(crate) control: Vec<(PeerId, Bytes)>,
    pub(crate) control_at: Vec<Instant>,
    pub(crate) data: Vec<(PeerId, Bytes)>,
    pub(crate) data_at: Vec<Instant>,
    pub(crate) refusals: Vec<(Option<PeerId>, &'static str)>,
    /// Revocations received from peers.
    pub(crate) proofs: Vec<Bytes>,
    pub(crate) sent: u64,
    pub(crate) wakeups: u64,
    /// Datagrams with Don't Fragment.
    pub(crate) probes: usize,
}

/// Index of everything that is not a node: servers, and unused addresses.
const ELSEWHERE: usize = usize::MAX;

#[derive(Clone)]
pub(crate) enum Parcel {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        contents: Vec<u8>,
        ecn: Ecn,
    },
    Signal {
        from: PeerId,
        to: PeerId,
        bytes: Vec<u8>,
    },
    Presence {
        to: PeerId,
        about: PeerId,
        online: bool,
    },
    /// Between a node and the relay, in a stream.
    ToRelay { node: usize, command: StreamCommand },
    FromRelay {
        node: usize,
        stream: u64,
        event: StreamEvent,
    },
    /// ICMP: host `by` has no socket for a datagram of `to`, with these first bytes.
    Refusal {
        by: SocketAddr,
        to: SocketAddr,
        quoted: Vec<u8>,
    },
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// Carries datagrams, signals and errors; only datagrams get lost.
    pub(crate) wire: simulated::Network<Instant, usize, Parcel>,
    pub(crate) signal_delay: Duration,
    /// Carried signals, for replays and tampering.
    pub(crate) carried: Vec<(PeerId, PeerId, Vec<u8>)>,
    pub(crate) server: bool,
    /// Whether every node wants a link to each peer that appears.
    pub(crate) all_wanted: bool,
    /// Overlays made so far.
    runs: u16,
    /// Whether later nodes offer the media lane, and their bounds.
    pub(crate) media: bool,
    pub(crate) limits: Limits,
    pub(crate) bounds: lcroute_overlay::Limits,
    /// Version of control messages in channels of later nodes, if it differs from envelopes.
    pub(crate) control: Option<u8>,
    /// Whether all media packets get lost.
    pub(crate) media_cut: bool,
    /// Media packets sent, for replays.
    pub(crate) tapped: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// Pairs of nodes with datagrams between them that passed no relay.
    pub(crate) direct: BTreeSet<(usize, usize)>,
    /// All datagrams sent, with their sender, if a test records them.
    pub(crate) copied: Option<Vec<(usize, Vec<u8>)>>,
    /// Datagrams from a source address of neither their host nor its relay.
    pub(crate) strays: usize,
    /// Longest datagram that passes, as UDP payload.
    pub(crate) mtu: usize,
    /// Longest datagram that a node's own host sends.
    pub(crate) host_mtu: usize,
    /// Whether routers mark ECN-capable datagrams.
    pub(crate) congested: bool,
    /// Bytes of a datagram that the host of a dead node quotes in an ICMP error.
    pub(crate) quotes: Option<usize>,
    /// Pipe for all output of each node.
    pub(crate) pipe: Option<Pipe>,
    /// Delay of the STUN server beyond the path's.
    pub(crate) stun_delay: Duration,
    /// Relay at [`STUN`], with the addresses of its sockets.
    pub(crate) relay: Option<(RelayServer, BTreeMap<AllocationId, SocketAddr>)>,
}

/// A bottleneck: a rate, and a queue that drops arrivals when it is full.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    /// Bits a second, IP and UDP headers included.
    rate: f64,
    queue: Duration,
    /// Only destination that goes through it, if set.
    pub(crate) only: Option<SocketAddr>,
    /// Each node has its own.
    links: BTreeMap<usize, Bottleneck<Instant>>,
    pub(crate) waits: Vec<Duration>,
}

impl Pipe {
    pub(crate) fn new(rate: f64, queue: Duration) -> Self {
        Self {
            rate,
            queue,
            only: None,
            links: BTreeMap::new(),
            waits: Vec::new(),
        }
    }

    /// Returns the time at which a datagram leaves it; `None` if it drops the datagram.
    fn pass(&mut self, node: usize, size: usize, now: Instant) -> Option<Instant> {
        let idle = Bottleneck::new(self.rate, self.queue, now);
        let link = self.links.entry(node).or_insert(idle);
        let wait = link.wait(now);
        let through = link.pass(size + 48, now)?;
        self.waits.push(wait);
        Some(through)
    }
}

impl Net {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let path = Path {
            delay: Duration::from_millis(2),
            ..Path::default()
        };
        Self {
            now,
            nodes: Vec::new(),
            wire: simulated::Network::new(path, 42),
            signal_delay: Duration::from_millis(10),
            carried: Vec::new(),
            server: true,
            all_wanted: true,
            runs: 0,
            media: true,
            limits: Limits::default(),
            bounds: lcroute_overlay::Limits::default(),
            control: None,
            media_cut: false,
            tapped: None,
            direct: BTreeSet::new(),
            copied: None,
            strays: 0,
            mtu: usize::MAX,
            host_mtu: usize::MAX,
            congested: false,
            quotes: None,
            pipe: None,
            stun_delay: Duration::ZERO,
            relay: None,
        }
    }

    /// Sets the loss per thousand datagrams.
    pub(crate) fn set_loss(&mut self, loss: u64) {
        self.wire.path.loss = loss as f64 / 1_000.0;
    }

    /// Sets the maximal additional delay, in ms.
    pub(crate) fn set_jitter(&mut self, jitter: u64) {
        self.wire.path.jitter = Duration::from_millis(jitter);
    }

    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.wire.random = Random::new(seed);
    }

    /// Nodes of one network, closed and reachable, sorted by PeerId: the first one offers.
    pub(crate) fn mesh(count: u8) -> Self {
        Self::mesh_of(&vec![true; count.into()])
    }

    /// Does the same; `media`: each node offers the media lane or not.
    pub(crate) fn mesh_of(media: &[bool]) -> Self {
        Self::mesh_within(media, Limits::default())
    }

    /// Does the same, with these bounds.
    pub(crate) fn mesh_within(media: &[bool], limits: Limits) -> Self {
        let network = Network::new(1);
        let mut keys: Vec<_> = (100_u8..)
            .take(media.len())
            .map(|n| SecretKey::from_seed(&[n; 32]))
            .collect();
        keys.sort_by_key(SecretKey::peer_id);
        let mut net = Self::new();
        net.limits = limits;
        for (n, key) in keys.into_iter().enumerate() {
            net.media = media[n];
            let identity = network.identity(key, &format!("node{n}"));
            net.add(&identity, today, None);
        }
        net
    }

    pub(crate) fn add(
        &mut self,
        identity: &Identity,
        clock: fn() -> UnixTime,
        nat: Option<&str>,
    ) -> usize {
        let n = self.nodes.len();
        let host = format!("10.{}.{}.2:{}", n / 256, n % 256, 7_000 + n);
        let host: SocketAddr = host.parse().unwrap();
        let overlay = self.overlay(identity, clock, host, nat.is_some());
        let mut firewall = Firewall::new(host);
        firewall.nat = nat.map(|a| a.parse().unwrap());
        self.nodes.push(Node {
            overlay,
            id: identity.peer_id(),
            firewall,
            udp_dead: false,
            alive: true,
            present: false,
            links: BTreeMap::new(),
            wanted: BTreeSet::new(),
            failing: Vec::new(),
            trips: Vec::new(),
            ups: 0,
            downs: Vec::new(),
            control: Vec::new(),
            control_at: Vec::new(),
            data: Vec::new(),
            data_at: Vec::new(),
            refusals: Vec::new(),
            proofs: Vec::new(),
            sent: 0,
            wakeups: 0,
            probes: 0,
        });
        n
    }

    fn overlay(
        &mut self,
        identity: &Identity,
        clock: fn() -> UnixTime,
        host: SocketAddr,
        stun: bool,
    ) -> Overlay<WebRtc> {
        // another seed for each run of a process
        self.runs += 1;
        let runs = self.runs.to_be_bytes();
        let mut seed = *identity.peer_id().public_key();
        (seed[0], seed[1]) = (seed[0] ^ runs[0], seed[1] ^ runs[1]);
        let mut webrtc = WebRtc::new(
            WebRtcConfig {
                control: self.control.unwrap_or(identity.speaks().control),
                epoch: self.now,
                unix_now: clock(),
                reproducible: true,
                seed,
                mtu: 1280,
                media: self.media,
                limits: self.limits.clone(),
            },
            self.now,
        )
        .unwrap();
        webrtc.set_local_candidates(vec![host], self.now);
        if stun {
            webrtc.set_stun_servers(vec![STUN], self.now);
        }
        let config = OverlayConfig {
            identity: identity.clone(),
            clock: WallClock::new(clock),
            epoch: self.now,
            seed,
            limits: self.bounds.clone(),
        };
        Overlay::new(config, webrtc, self.now)
    }

    /// Kills the process, without a goodbye.
    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].alive = false;
        self.nodes[n].links.clear();
    }

    /// Starts a new process with the same key.
    pub(crate) fn restart(&mut self, n: usize, identity: &Identity) {
        let firewall = &self.nodes[n].firewall;
        let (host, nat) = (firewall.host, firewall.nat.is_some());
        let overlay = self.overlay(identity, today, host, nat);
        let node = &mut self.nodes[n];
        node.overlay = overlay;
        node.alive = true;
        let wanted = node.wanted.clone();
        node.overlay.set_wanted(wanted, self.now);
        self.join(n);
    }

    /// Registers the node with the server.
    pub(crate) fn join(&mut self, n: usize) {
        self.nodes[n].present = true;
        for m in 0..self.nodes.len() {
            if m != n && self.nodes[m].present {
                self.introduce(n, m);
            }
        }
    }

    /// Makes node `n` want a link to `peer`, or want none.
    pub(crate) fn want(&mut self, n: usize, peer: PeerId, wants: bool) {
        let node = &mut self.nodes[n];
        if wants {
            node.wanted.insert(peer);
        } else {
            node.wanted.remove(&peer);
        }
        let wanted = node.wanted.clone();
        node.overlay.set_wanted(wanted, self.now);
    }

    /// Announces two nodes to each other.
    pub(crate) fn introduce(&mut self, a: usize, b: usize) {
        let [a, b] = [a, b].map(|n| self.nodes[n].id);
        for (to, about) in [(b, a), (a, b)] {
            let online = true;
            self.post_signal(Parcel::Presence { to, about, online });
        }
    }

    /// Makes every node want links to all other nodes.
    pub(crate) fn want_all(&mut self) {
        let all: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for n in 0..all.len() {
            all.iter().for_each(|peer| self.want(n, *peer, true));
        }
    }

    pub(crate) fn join_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.join(n));
    }

    /// Changes the node's address, as when a laptop changes its network.
    pub(crate) fn move_to(&mut self, n: usize, host: &str) {
        let host: SocketAddr = host.parse().unwrap();
        let node = &mut self.nodes[n];
        node.firewall.move_to(host);
        node.overlay
            .connections_mut()
            .set_local_candidates(vec![host], self.now);
        self.collect(n);
    }

    pub(crate) fn webrtc(&mut self, n: usize) -> &mut WebRtc {
        self.nodes[n].overlay.connections_mut()
    }

    pub(crate) fn index(&self, id: PeerId) -> Option<usize> {
        self.nodes.iter().position(|n| n.id == id)
    }

    /// Returns the nodes linked to `n`.
    pub(crate) fn links_of(&self, n: usize) -> Vec<usize> {
        let peers = self.nodes[n].links.values();
        peers.filter_map(|peer| self.index(*peer)).collect()
    }

    /// Returns the link from `a` to `b`, if `a` has one.
    pub(crate) fn link(&self, a: usize, b: usize) -> Option<LinkId> {
        let id = self.nodes[b].id;
        self.nodes[a]
            .links
            .iter()
            .find(|(_, peer)| **peer == id)
            .map(|(link, _)| *link)
    }

    pub(crate) fn row(&self, a: usize, b: usize) -> Option<PeerInfo> {
        self.nodes[a]
            .overlay
            .peers()
            .into_iter()
            .find(|p| p.peer_id == self.nodes[b].id)
    }

    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        self.link(a, b).is_some() && self.link(b, a).is_some()
    }

    /// Makes node `a` send data, in two parts, over its link to `b`.
    pub(crate) fn send_data(
        &mut self,
        a: usize,
        b: usize,
        parts: [&[u8]; 2],
    ) -> Result<(), SendError> {
        let link = self.link(a, b).ok_or(SendError::NoSuchLink)?;
        self.nodes[a].overlay.send_data(link, parts, self.now)
    }

    /// Makes node `a` send a control message over its link to `b`.
    pub(crate) fn send_control(
        &mut self,
        a: usize,
        b: usize,
        message: &[u8],
    ) -> Result<(), SendError> {
        let link = self.link(a, b).ok_or(SendError::NoSuchLink)?;
        self.nodes[a].overlay.send_control(link, message, self.now)
    }

    /// Asserts that the link from `a` to `b` carries data.
    pub(crate) fn assert_carries(&mut self, a: usize, b: usize) {
        let before = self.nodes[b].data.len();
        self.send_data(a, b, [&[0x10], &[7; 1_200]]).unwrap();
        let arrived = move |net: &Self| net.nodes[b].data.len() > before;
        self.until(Duration::from_secs(1), "data", arrived);
    }

    /// Runs until the condition holds; panics after `most` of virtual time.
    pub(crate) fn until(
        &mut self,
        most: Duration,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Duration {
        let (began, end) = (self.now, self.now + most);
        self.collect_all();
        while !condition(self) {
            assert!(
                self.now < end,
                "{what}: not within {most:?}; {:#?}",
                self.describe()
            );
            self.step(end);
        }
        self.now - began
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.collect_all();
        while self.now < end {
            self.step(end);
        }
    }

    fn describe(&self) -> Vec<(usize, Vec<PeerInfo>, BTreeMap<&'static str, u64>)> {
        let rows = |n: &Node| (n.overlay.peers(), n.overlay.drops().clone());
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (i, rows(n).0, rows(n).1))
            .collect()
    }

    /// Advances to the next event, `end` at the latest.
    fn step(&mut self, end: Instant) {
        let relay = self.relay.as_ref().map(|(relay, _)| relay.next_timeout());
        let timers = self
            .nodes
            .iter_mut()
            .filter(|n| n.alive)
            .filter_map(|n| n.overlay.next_timeout());
        let next = timers
            .chain(self.wire.next_timeout())
            .chain(relay)
            .min()
            .unwrap_or(end)
            .min(end);
        // a past deadline is served a little later: an overlay that spins does not stop the clock
        self.now = next.max(self.now + Duration::from_micros(10));
        while let Some(parcel) = self.wire.poll(self.now) {
            self.deliver(parcel);
        }
        let now = self.now;
        self.with_relay(|relay| relay.handle_timeout(now));
        for n in 0..self.nodes.len() {
            let now = self.now;
            let node = &mut self.nodes[n];
            if node.alive && node.overlay.next_timeout().is_some_and(|at| at <= now) {
                node.wakeups += 1;
                node.overlay.handle_timeout(now);
            }
        }
        self.collect_all();
    }

    fn collect_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.collect(n));
    }

    fn post(&mut self, delay: Duration, parcel: Parcel) {
        self.wire.post(parcel, self.now + delay);
    }

    fn post_signal(&mut self, parcel: Parcel) {
        self.post(self.signal_delay, parcel);
    }

    pub(crate) fn post_bytes(&mut self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        self.post_signal(Parcel::Signal { from, to, bytes });
    }

    fn deliver(&mut self, parcel: Parcel) {
        let now = self.now;
        match parcel {
            Parcel::Signal { from, to, bytes } => {
                if let Some(n) = self.index(to).filter(|n| self.nodes[*n].alive) {
                    self.nodes[n]
                        .overlay
                        .handle_signal(SERVER, from, &bytes, now);
                }
            }
            Parcel::Presence { to, about, online } => {
                let presence = if online {
                    Presence::Online(about)
                } else {
                    Presence::Offline(about)
                };
                if let Some(n) = self.index(to).filter(|n| self.nodes[*n].alive) {
                    if self.all_wanted && online {
                        self.want(n, about, true);
                    }
                    let overlay = &mut self.nodes[n].overlay;
                    overlay.handle_presence(SERVER, presence, now);
                }
            }
            Parcel::Datagram {
                from,
                to,
                contents,
                ecn,
            } => self.deliver_datagram(from, to, &contents, ecn),
            Parcel::ToRelay { node, command } => self.stream_to_relay(node, command),
            Parcel::FromRelay {
                node,
                stream,
                event,
            } => {
                let connections = self.nodes[node].overlay.connections_mut();
                connections.handle_relay_stream(stream, event, now);
            }
            Parcel::Refusal { by, to, quoted } => {
                let mut nodes = self.nodes.iter_mut();
                if let Some(node) = nodes.find(|n| n.alive && n.firewall.is_at(to)) {
                    let refusal = Unreachable {
                        remote: by,
                        is_refusal: true,
                        quoted: &quoted,
                    };
                    node.overlay
                        .connections_mut()
                        .handle_unreachable(&refusal, now);
                }
            }
        }
    }

    pub(crate) fn deliver_datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        contents: &[u8],
        ecn: Ecn,
    ) {
        if to == STUN {
            if let Some(answer) = respond(contents, from) {
                self.post(
                    self.wire.path.delay + self.stun_delay,
                    Parcel::Datagram {
                        from: to,
                        to: from,
                        contents: answer,
                        ecn: Ecn::None,
                    },
                );
            } else {
                let (address, now) = (from, self.now);
                let client = Client {
                    address,
                    stream: None,
                };
                self.with_relay(|relay| relay.handle_client(client, contents, now));
            }
            return;
        }
        let socket = self.relay.as_ref().and_then(|(_, sockets)| {
            let mut sockets = sockets.iter();
            sockets
                .find(|(_, address)| **address == to)
                .map(|(id, _)| *id)
        });
        if let Some(id) = socket {
            let now = self.now;
            return self.with_relay(|relay| relay.handle_peer(id, from, contents, now));
        }
        let (Some(target), now) = (self.node_at(to), self.now) else {
            return;
        };
        let node = &mut self.nodes[target];
        if node.alive && node.firewall.admits(from, to, now) && !node.udp_dead {
            let host = node.firewall.host;
            node.overlay
                .connections_mut()
                .handle_datagram(from, host, contents, ecn, now);
        } else if let (false, Some(most)) = (node.alive, self.quotes) {
            let quoted = contents[..contents.len().min(most)].to_vec();
            let (by, to) = (to, from);
            self.post(self.wire.path.delay, Parcel::Refusal { by, to, quoted });
        }
    }

    fn node_at(&self, address: SocketAddr) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.firewall.is_at(address))
    }

    pub(crate) fn collect(&mut self, n: usize) {
        if !self.nodes[n].alive {
            return;
        }
        loop {
            self.send_all(n);
            let Some(event) = self.nodes[n].overlay.poll_event(self.now) else {
                break;
            };
            self.handle_event(n, event);
        }
    }

    /// Adds a relay at [`STUN`], for all present nodes, over UDP and streams.
    pub(crate) fn add_relay(&mut self) {
        let own = STUN;
        let mut config = RelayConfig::new(
            [7; 32],
            Arc::new(move |ip| ip == own.ip()),
            Arc::new(|_| false),
        );
        config.private = true;
        let relay = RelayServer::new(config, self.now, UnixTime::from_secs(TODAY)).unwrap();
        for node in &mut self.nodes {
            let (credentials, _) = relay.mint((node.id.public_key(), b"network"), false, self.now);
            let offer = RelayOffer {
                url: "the relay".to_owned(),
                udp: vec![own],
                stream: true,
                credentials,
                renews: true,
            };
            let connections = node.overlay.connections_mut();
            connections.set_relays(vec![offer], self.now);
        }
        self.relay = Some((relay, BTreeMap::new()));
    }

    fn with_relay(&mut self, change: impl FnOnce(&mut RelayServer)) {
        let Some((mut relay, mut sockets)) = self.relay.take() else {
            return;
        };
        change(&mut relay);
        let server = STUN;
        let datagram = |from, to, contents: Bytes| Parcel::Datagram {
            from,
            to,
            contents: contents.to_vec(),
            ecn: Ecn::None,
        };
        while let Some(output) = relay.poll_output() {
            let delay = self.wire.path.delay;
            match output {
                RelayOutput::Open { allocation, .. } => {
                    let port = 20_000 + u16::try_from(allocation).unwrap();
                    let address = SocketAddr::new(server.ip(), port);
                    sockets.insert(allocation, address);
                    relay.handle_opened(allocation, Some(address));
                }
                RelayOutput::Close(allocation) => drop(sockets.remove(&allocation)),
                RelayOutput::Permit { .. } => {}
                RelayOutput::ToPeer {
                    allocation,
                    to,
                    contents,
                } => self.post(delay, datagram(sockets[&allocation], to, contents)),
                RelayOutput::ToClient(to, contents) => match to.stream {
                    None => self.post(delay, datagram(server, to.address, contents)),
                    Some(number) => {
                        let node = usize::try_from(number >> 32).unwrap();
                        let mut framer = Framer::default();
                        framer.push(&contents);
                        let message = framer.poll_frame().unwrap().unwrap();
                        let event = StreamEvent::Received(message);
                        let stream = number & 0xffff_ffff;
                        self.post(
                            delay,
                            Parcel::FromRelay {
                                node,
                                stream,
                                event,
                            },
                        );
                    }
                },
            }
        }
        self.relay = Some((relay, sockets));
    }

    fn stream_to_relay(&mut self, node: usize, command: StreamCommand) {
        let client = |stream| Client {
            address: self.nodes[node].firewall.host,
            stream: Some((node as u64) << 32 | stream),
        };
        let now = self.now;
        match command {
            StreamCommand::Open { stream, .. } => {
                let event = StreamEvent::Opened;
                let opened = Parcel::FromRelay {
                    node,
                    stream,
                    event,
                };
                self.post(self.wire.path.delay, opened);
            }
            StreamCommand::Send { stream, contents } => {
                let client = client(stream);
                self.with_relay(|relay| relay.handle_client(client, &contents, now));
            }
            StreamCommand::Close { stream } => {
                let client = client(stream);
                self.with_relay(|relay| relay.handle_closed(client));
            }
        }
    }

    fn send_all(&mut self, n: usize) {
        self.send_datagrams(n);
        while let Some(command) = self.nodes[n].overlay.connections_mut().poll_relay_stream() {
            let parcel = Parcel::ToRelay { node: n, command };
            self.post(self.wire.path.delay, parcel);
        }
    }

    fn send_datagrams(&mut self, n: usize) {
        while let Some(transmit) = self.nodes[n].overlay.connections_mut().poll_transmit() {
            let Transmit {
                to,
                from,
                contents,
                mut ecn,
                dont_fragment,
            } = transmit;
            let node = &mut self.nodes[n];
            node.probes += usize::from(dont_fragment);
            // a host sends no datagram from an address that it no longer has
            if from.is_some_and(|from| from != node.firewall.host) {
                self.strays += 1;
                continue;
            }
            if contents.len() > self.host_mtu {
                // a probe needs no error: its loss is the answer
                if !dont_fragment {
                    let overlay = &mut node.overlay;
                    overlay
                        .connections_mut()
                        .handle_unsent(to, contents.len(), 1, self.now);
                }
                continue;
            }
            node.sent += 1;
            let from = node.firewall.send(to, self.now);
            if node.udp_dead {
                continue;
            }
            let media = matches!(contents.first(), Some(128..=191));
            if media && let Some(tapped) = self.tapped.as_mut() {
                tapped.push((from, to, contents.to_vec()));
            }
            if contents.len() > self.mtu || media && self.media_cut {
                continue;
            }
            let pipe = self.pipe.as_mut();
            let leaves = match pipe.filter(|pipe| pipe.only.is_none_or(|only| only == to)) {
                Some(pipe) => pipe.pass(n, contents.len(), self.now),
                None => Some(self.now),
            };
            let Some(leaves) = leaves else { continue };
            if ecn == Ecn::Capable && self.congested {
                ecn = Ecn::Congested;
            }
            let parcel = Parcel::Datagram {
                from,
                to,
                contents: contents.to_vec(),
                ecn,
            };
            if let Some(copied) = self.copied.as_mut() {
                copied.push((n, contents.to_vec()));
            }
            let target = self.node_at(to).unwrap_or(ELSEWHERE);
            if target != ELSEWHERE {
                self.direct.insert((n, target));
            }
            self.wire.send(n, target, parcel, leaves);
        }
    }

    fn handle_event(&mut self, n: usize, event: Event) {
        let id = self.nodes[n].id;
        let node = &mut self.nodes[n];
        match event {
            Event::LinkUp { link, member } => {
                assert!(
                    !node.links.values().any(|peer| *peer == member.peer),
                    "two links to one peer"
                );
                node.links.insert(link, member.peer);
                node.ups += 1;
            }
            Event::LinkDown { link, reason, .. } => {
                assert!(node.links.remove(&link).is_some(), "down, but never up");
                node.downs.push(reason.text());
            }
            Event::RoundTrip { link, rtt } => node.trips.push((node.links[&link], rtt)),
            Event::Control { link, message } => {
                let from = node.links[&link];
                match message.strip_prefix(PASSED_ON) {
                    Some(letter) => self.pass_on(n, Some(link), letter),
                    None => {
                        node.control.push((from, message));
                        node.control_at.push(self.now);
                    }
                }
            }
            Event::DirectFailure { peer, failing } => node.failing.push((peer, failing)),
            Event::Data { link, message } => {
                node.data.push((node.links[&link], message));
                node.data_at.push(self.now);
            }
            Event::AddressesChanged | Event::KeyConflict(_) => {}
            Event::PeerRefused { peer, reason } => node.refusals.push((peer, reason)),
            Event::Revocation { revocation } => node.proofs.push(revocation),
            Event::Signal {
                to,
                bytes,
                over_links,
                over_servers,
            } => {
                self.carried.push((id, to, bytes.to_vec()));
                if self.server && over_servers {
                    self.post_bytes(id, to, bytes.to_vec());
                }
                if over_links {
                    let keys = [id, to].map(|id| *id.public_key()).concat();
                    self.pass_on(n, None, &[&keys, &bytes[..]].concat());
                }
            }
        }
    }

    /// Handles a letter at node `n`, from 256, to 256, sealed message: takes it, or passes it on
    /// over the control channel of the first link towards its destination.
    fn pass_on(&mut self, n: usize, via: Option<LinkId>, letter: &[u8]) {
        let id = |at: usize| PeerId::from_public_key(letter[at..at + 32].try_into().unwrap());
        let (to, now) = (id(32).unwrap(), self.now);
        if self.nodes[n].id == to {
            let overlay = &mut self.nodes[n].overlay;
            overlay.handle_routed_signal(via, &letter[64..], now);
            return self.collect(n);
        }
        let leads = |peer: PeerId| {
            let links = self.index(peer).map(|n| &self.nodes[n].links);
            peer == to || links.is_some_and(|links| links.values().any(|peer| *peer == to))
        };
        let next = self.nodes[n].links.iter().find(|(_, peer)| leads(**peer));
        if let Some((link, _)) = next.map(|(link, peer)| (*link, *peer)) {
            let message = [PASSED_ON, letter].concat();
            let overlay = &mut self.nodes[n].overlay;
            let _ = overlay.send_routed(link, &message, now);
        }
    }
}
