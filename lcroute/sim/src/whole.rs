//! A whole node: it makes its links by real envelopes, ICE, DTLS and lanes, on simulated datagrams.
//!
//! ```text
//!   kernel ── lc0 ── lcroute-node ── lcroute-webrtc ── socket ═══ datagrams ═══ other hosts
//!                         └────── sealed messages ── signalling server
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::Engine;
use lcroute_node::{Epochs, Members, Node, NodeConfig, Output, Settings, Uses};
use lcroute_overlay::{CarrierId, Presence, SPEAKS};
use lcroute_webrtc::{Ecn, WebRtc, WebRtcConfig};
use librecast::cert::{CLOCK_SKEW, Chain, GroupPrefix};
use librecast::id::{LinkId, NetworkId, PeerId};
use librecast::time::{UnixTime, WallClock};

use crate::daemon::{Disk, Effect, Start, limits, topology};
use crate::population::{Identity, Population};
use crate::random::Random;
use crate::terrain::{STUN, local};
use crate::time::{Clock, Nanos};

/// The signalling server.
const SERVER: CarrierId = CarrierId(1);
/// Delay of a past deadline: a timer that stays due does not stop the clock.
const TICK: Nanos = 10_000;
/// Hello intervals between reports of round trips to the router, as in the daemon.
const HELLOS: u32 = 3;

pub fn stun_answer(datagram: &[u8], from: SocketAddr) -> Option<Bytes> {
    lcroute_webrtc::respond(datagram, from).map(Bytes::from)
}

#[derive(Debug)]
pub struct WholeNode {
    node: Node<WebRtc>,
    number: u32,
    population: Arc<Population>,
    clock: Clock,
    /// Number of links, and the last one: the pair changes with every change.
    links: (usize, Option<LinkId>),
    next_round_trips: Nanos,
    effects: VecDeque<Effect>,
}

impl WholeNode {
    /// Starts a daemon. `None`: its certificates have expired.
    pub fn start(start: &Start<'_>, now: Nanos) -> Option<Self> {
        let (population, disk, watch) = (start.population, start.disk, start.watch.clone());
        let identity = population.get(start.node);
        let chain = match &disk.chain {
            Some(chain) => chain.clone(),
            None => Chain::decode(&identity.chain).ok()?,
        };
        let time = watch.unix();
        let member = chain.verify(&population.network, time).ok()?;
        let clock = start.clock;
        let (epoch, instant) = (clock.instant(0), clock.instant(now));
        let mut random = Random::stream(start.seed, &[start.incarnation.into()]);
        let mut seed = || {
            let mut seed = [0; 32];
            for part in seed.chunks_mut(8) {
                part.copy_from_slice(&random.next().to_be_bytes());
            }
            seed
        };
        let webrtc = WebRtcConfig {
            control: SPEAKS.control,
            epoch,
            unix_now: time,
            reproducible: true,
            seed: seed(),
            mtu: 1_280,
            media: true,
            limits: lcroute_webrtc::Limits::default(),
        };
        let config = NodeConfig {
            network: population.network,
            key: identity.key.clone(),
            chain,
            member,
            incarnation: start.incarnation,
            mtu: 1_280,
            transits: true,
            ipv4: None,
            settings: settings(start.announced),
            topology: topology(start.scenario),
            revocations: disk.revocations.clone(),
            epochs: epochs(disk, population.network),
            members: Members::parse(&disk.members),
            uses: Uses::parse(&disk.uses),
            clock: WallClock::new(move || watch.unix()),
            epoch,
            aead: None,
            seed: seed(),
            limits: limits(start.scenario),
            overlay_limits: lcroute_overlay::Limits::default(),
        };
        let mut webrtc = WebRtc::new(webrtc, instant).ok()?;
        webrtc.set_local_candidates(vec![local(start.node)], instant);
        webrtc.set_stun_servers(vec![STUN], instant);
        let mut node = Node::new(config, webrtc, instant);
        node.start(instant);
        Some(Self {
            node,
            number: start.node,
            population: population.clone(),
            clock,
            links: (0, None),
            next_round_trips: now,
            effects: VecDeque::new(),
        })
    }

    pub fn engine(&self) -> &Engine {
        self.node.engine()
    }

    /// Returns all known members, including absent ones.
    pub fn members(&self) -> impl Iterator<Item = u32> {
        let members = self.node.members().into_iter();
        members.filter_map(|member| self.population.by_key(&member.peer_id))
    }

    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.node.drops()
    }

    pub fn is_expired(&self, time: UnixTime) -> bool {
        self.node.member().not_after + CLOCK_SKEW < time.as_secs()
    }

    /// Returns the first neighbour with a certificate that expired more than `leniency` ago.
    pub fn expired_neighbor(&self, time: UnixTime, leniency: u64) -> Option<&str> {
        let over = |end: u64| end + CLOCK_SKEW + leniency < time.as_secs();
        let mut members = self.node.links().values();
        let expired = members.find(|member| over(member.not_after))?;
        Some(&expired.name)
    }

    /// Returns a neighbour that is not among the known members.
    pub fn unknown_neighbor(&self) -> Option<String> {
        let known = self.node.members();
        let is_known = |peer: &PeerId| known.iter().any(|member| member.peer_id == *peer);
        let mut members = self.node.links().values();
        let unknown = members.find(|member| !is_known(&member.peer))?;
        Some(unknown.name.clone())
    }

    /// Returns a value that is common to nodes with the same rendezvous epoch.
    pub fn epoch(&self) -> [u8; 32] {
        let newest = self.node.overlay().rendezvous().newest();
        newest.name(&self.node.network(), UnixTime::from_secs(0))
    }

    pub fn presence(&mut self, other: &Identity, online: bool, now: Nanos) {
        let peer = other.member.peer;
        let presence = if online {
            Presence::Online(peer)
        } else {
            Presence::Offline(peer)
        };
        let now = self.clock.instant(now);
        self.node.handle_presence(SERVER, presence, now);
    }

    /// Handles a sealed message from another node.
    pub fn signal(&mut self, from: &Identity, bytes: &[u8], now: Nanos) {
        let now = self.clock.instant(now);
        let from = from.member.peer;
        self.node.handle_signal(SERVER, from, bytes, now);
    }

    pub fn datagram(&mut self, from: SocketAddr, contents: &[u8], now: Nanos) {
        let (now, to) = (self.clock.instant(now), local(self.number));
        let webrtc = self.node.connections_mut();
        webrtc.handle_datagram(from, to, contents, Ecn::None, now);
    }

    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        let now = self.clock.instant(now);
        self.node.handle_local_packet(packet.into(), now);
    }

    pub fn announce(&mut self, prefixes: &[GroupPrefix], now: Nanos) {
        let now = self.clock.instant(now);
        self.node.configure(settings(prefixes), now);
    }

    pub fn revoke(&mut self, target: u32, time: UnixTime, now: Nanos) -> Result<(), String> {
        let text = self.population.revocation(target, time);
        let now = self.clock.instant(now);
        let revoked = self.node.revoke(&text, now).map_err(|e| e.to_string())?;
        self.node.make_epoch(revoked);
        Ok(())
    }

    pub fn goodbye(&mut self, now: Nanos) {
        self.node.shutdown(self.clock.instant(now));
    }

    pub fn timeout(&mut self, now: Nanos) {
        let instant = self.clock.instant(now);
        if self.next_round_trips <= now {
            let next = self.node.connections().next_hello(instant, HELLOS);
            self.next_round_trips = self.clock.nanos(next).max(now + TICK);
            self.node.update_round_trips(instant);
        }
        self.node.handle_timeout(instant);
    }

    pub fn next_timeout(&mut self, now: Nanos) -> Option<Nanos> {
        let node = self.node.next_timeout().map(|at| self.clock.nanos(at));
        let next = node.unwrap_or(Nanos::MAX).min(self.next_round_trips);
        Some(next.max(now + TICK))
    }

    pub fn poll(&mut self, now: Nanos) -> Option<Effect> {
        let now = self.clock.instant(now);
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            if let Some(output) = self.node.poll_output(now) {
                if let Some(effect) = self.effect(output) {
                    return Some(effect);
                }
                continue;
            }
            while let Some(transmit) = self.node.connections_mut().poll_transmit() {
                // a host sends no datagram from an address that it does not have
                if transmit.from.is_none_or(|from| from == local(self.number)) {
                    let (to, contents) = (transmit.to, transmit.contents);
                    self.effects.push_back(Effect::Datagram { to, contents });
                }
            }
            if let Some(linked) = self.new_links() {
                self.effects.push_back(Effect::Linked(linked));
            }
            if self.effects.is_empty() {
                return None;
            }
        }
    }

    fn effect(&self, output: Output) -> Option<Effect> {
        Some(match output {
            Output::Local { packet } => Effect::Local { packet },
            Output::LocalMld { packet } => Effect::Mld { packet },
            Output::Signal { to, bytes } => Effect::Signal {
                to: self.population.by_key(&to)?,
                bytes,
            },
            Output::Keep(what) => Effect::Keep(what),
            // pings, the server's connection, IPv4 and LANs are not simulated
            Output::Pong { .. }
            | Output::Publish(_)
            | Output::Seek(_)
            | Output::PathSuspect
            | Output::Ipv4Address(_)
            | Output::Lan { .. } => return None,
        })
    }

    fn new_links(&mut self) -> Option<BTreeSet<u32>> {
        let links = self.node.links();
        let now = (links.len(), links.keys().next_back().copied());
        if std::mem::replace(&mut self.links, now) == now {
            return None;
        }
        let peers = links.values();
        Some(
            peers
                .filter_map(|member| self.population.by_key(&member.peer))
                .collect(),
        )
    }
}

fn epochs(disk: &Disk, network: NetworkId) -> Epochs {
    let text = disk.epochs.as_ref().map_or("", |text| &text.0);
    Epochs::parse(text, network).0
}

fn settings(announced: &[GroupPrefix]) -> Settings {
    Settings {
        announce: announced.to_vec(),
        ..Settings::default()
    }
}
