//! A leaf as a node: it receives over links with two routers, and is not a router itself. With an
//! uplink it sends to asking groups.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::{
    Leaf, LeafOutput, LeafState, LinkRefusal, SourceFilter, control::RefusalReason,
};
use lcroute_overlay::{
    CLOCK_DIFFERS, CarrierId, CarrierKind, Connections, EndReason, Event, Identity, NO_ROOM,
    Overlay, OverlayConfig, PeerInfo, Presence, PresenceRecord, Random,
};
use librecast::cert::{Chain, GroupPrefix};
use librecast::channel::is_asking_group;
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::revocation::Revocation;
use librecast::time::{Duration, Instant, WallClock};

/// Time with both links after which a leaf leaves its servers. Chosen: leaves reconnect in turns.
const SETTLED: Duration = Duration::from_secs(10);
/// First and longest interval at which a leaf without a link asks routers again that had no room, or
/// its servers for others if all have refused it. Chosen: attempts at four routers take less; a full
/// network has thousands of leaves.
const AGAIN_EVERY: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(60)];

/// The configuration of a leaf.
#[derive(Debug)]
pub struct LeafConfig {
    /// The network's key.
    pub network: NetworkId,
    /// This node's key.
    pub key: Arc<SecretKey>,
    /// Its certificates, which make it a leaf.
    pub chain: Chain,
    /// Clock for the expiry of certificates.
    pub clock: WallClock,
    /// The hello epoch of all links.
    pub epoch: Instant,
    /// Seed of all randomness.
    pub seed: [u8; 32],
}

/// An action for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafNodeOutput {
    /// A packet of a joined group, IPv6 or IPv4.
    Packet {
        /// The packet.
        packet: Bytes,
    },
    /// A sealed message for a router, over every signalling server.
    Signal {
        /// The recipient.
        to: PeerId,
        /// The message.
        bytes: Bytes,
    },
    /// Whether signalling servers are needed from now on.
    Servers(bool),
    /// A router refuses links by a verified revocation.
    Expelled,
    /// A router rejected a join.
    Refused {
        /// The group.
        group: Ipv6Addr,
        /// The reason.
        reason: RefusalReason,
    },
}

/// A leaf over `C`.
///
/// After each `handle_*` the owner empties [`Self::poll_output`], then all outputs of the
/// connections, until both are empty. It calls [`Self::handle_timeout`] at [`Self::next_timeout`].
#[derive(Debug)]
pub struct LeafNode<C> {
    leaf: Leaf,
    overlay: Overlay<C>,
    network: NetworkId,
    chain: Chain,
    /// Groups to which its token lets it send, if they are asking groups; none without an uplink.
    asking: Vec<GroupPrefix>,
    clock: WallClock,
    /// Routers with which it has links, or wants some.
    wanted: BTreeSet<PeerId>,
    /// Whether signalling servers are needed.
    meets: bool,
    settled_at: Option<Instant>,
    /// When it asks again for a link that was refused, and the interval after that.
    again_at: Option<(Instant, Duration)>,
    /// It has asked for others, and these refuse a link as well.
    is_refused: bool,
    outputs: VecDeque<LeafNodeOutput>,
    now: Instant,
}

impl<C: Connections> LeafNode<C> {
    /// Returns a leaf without links, over `connections`; it needs signalling servers.
    pub fn new(config: LeafConfig, connections: C, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        let (chain, clock) = (config.chain.clone(), config.clock.clone());
        let uplink = chain.invitation().filter(|above| above.grant().uplink);
        let asking = uplink.map_or(Vec::new(), |_| chain.node().grant().prefixes.clone());
        let overlay = OverlayConfig {
            identity: Identity::new(config.key, config.network, config.chain),
            clock: config.clock,
            epoch: config.epoch,
            seed: random.array(),
            limits: lcroute_overlay::Limits::default(),
        };
        Self {
            leaf: Leaf::new(u64::from_be_bytes(random.array()), now),
            overlay: Overlay::new(overlay, connections, now),
            network: config.network,
            chain,
            asking,
            clock,
            wanted: BTreeSet::new(),
            meets: true,
            settled_at: None,
            again_at: None,
            is_refused: false,
            outputs: VecDeque::new(),
            now,
        }
    }

    /// Joins a group; false: a router takes no more.
    pub fn join(&mut self, group: Ipv6Addr, filter: SourceFilter, now: Instant) -> bool {
        self.now = now;
        self.leaf.join(group, filter, now)
    }

    /// Leaves a group.
    pub fn part(&mut self, group: Ipv6Addr, now: Instant) {
        self.now = now;
        self.leaf.part(group, now);
    }

    /// Whether its token lets it send to this group: an asking group within its prefixes.
    pub fn may_send(&self, group: Ipv6Addr) -> bool {
        is_asking_group(group) && self.asking.iter().any(|prefix| prefix.contains(group))
    }

    /// Whether its token has an uplink, and a router takes its packets.
    pub fn has_uplink(&self) -> bool {
        !self.asking.is_empty() && self.leaf.has_uplink()
    }

    /// Sends a UDP packet to a group for which [`Self::may_send`] holds.
    pub fn send(&mut self, packet: Bytes, now: Instant) {
        self.now = now;
        self.leaf.send_packet(packet, now);
    }

    /// Returns its state.
    pub fn state(&self) -> LeafState {
        self.leaf.state()
    }

    /// Returns the router from which packets come.
    pub fn active(&self) -> Option<PeerId> {
        self.leaf.active()
    }

    /// Returns the number of links.
    pub fn links(&self) -> usize {
        self.leaf.links()
    }

    /// Returns the reason for which no router gives it a link, once it has looked for others, too.
    pub fn refusal(&self) -> Option<LinkRefusal> {
        self.leaf.refusal().filter(|_| self.is_refused)
    }

    /// Returns the routers that it knows, with their links.
    pub fn routers(&self) -> Vec<PeerInfo> {
        self.overlay.peers()
    }

    /// Returns the stack below, to read.
    pub fn connections(&self) -> &C {
        self.overlay.connections()
    }

    /// Returns the stack below: its owner gives it addresses and datagrams directly.
    pub fn connections_mut(&mut self) -> &mut C {
        self.overlay.connections_mut()
    }

    /// Returns the drops so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.overlay.drops();
        for (reason, count) in self.leaf.drops() {
            *all.entry(reason).or_default() += count;
        }
        all
    }

    /// Handles a server's report about routers.
    pub fn handle_presence(&mut self, carrier: CarrierId, presence: Presence, now: Instant) {
        self.now = now;
        self.overlay.handle_presence(carrier, presence, now);
        match presence {
            Presence::Online(peer) => self.leaf.handle_router(peer, true, now),
            Presence::Offline(peer) => self.leaf.handle_router(peer, false, now),
            // requests for other paths of its links were lost without it
            Presence::CarrierUp => self.name_wanted(),
            Presence::CarrierDown => {}
        }
    }

    /// Handles the addresses of a router that the owner of the network has named: it needs no server.
    pub fn handle_named_router(&mut self, record: PresenceRecord, now: Instant) {
        self.now = now;
        let router = record.node;
        self.overlay.learn(CarrierKind::Text, record, now);
        self.leaf.handle_router(router, true, now);
        if self.leaf.links() == 0 {
            // one that had no place may have some now
            self.name_wanted();
        }
    }

    /// Forgets a router that is named no more.
    pub fn handle_unnamed_router(&mut self, router: PeerId, now: Instant) {
        self.now = now;
        self.leaf.handle_router(router, false, now);
    }

    /// Reports wanted routers as present: any server may reach those that other routers have named.
    fn name_wanted(&mut self) {
        let now = self.now;
        for router in &self.wanted {
            let present = Presence::Online(*router);
            self.overlay.handle_presence(NAMED, present, now);
        }
    }

    /// Handles a sealed message from a server, in whose room `from` is.
    pub fn handle_signal(&mut self, carrier: CarrierId, from: PeerId, bytes: &[u8], now: Instant) {
        self.now = now;
        self.overlay.handle_signal(carrier, from, bytes, now);
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.leaf.next_timeout()) {
            self.leaf.handle_timeout(now);
        }
        if is_due(self.overlay.next_timeout()) {
            self.overlay.handle_timeout(now);
        }
        self.review_servers();
    }

    /// Returns the latest time for the next call of [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&mut self) -> Option<Instant> {
        let settles = self.settled_at.filter(|_| self.meets);
        let again = self.again_at.filter(|_| self.is_refused_a_link());
        let again = again.map(|(at, _)| at);
        let all = [
            self.leaf.next_timeout(),
            self.overlay.next_timeout(),
            settles,
            again,
        ];
        all.into_iter().flatten().min()
    }

    /// Returns the next output.
    pub fn poll_output(&mut self, now: Instant) -> Option<LeafNodeOutput> {
        self.now = now;
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if let Some(event) = self.overlay.poll_event(now) {
                self.handle_event(event);
                continue;
            }
            let output = self.leaf.poll_output()?;
            self.handle_output(output);
        }
    }

    /// Ends all links; the owner sends the remaining datagrams of the connections, and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.now = now;
        self.overlay.shutdown(now);
    }

    fn handle_event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::LinkUp { link, member } => {
                self.leaf.handle_link_up(link, member.peer, now);
                self.review_servers();
            }
            Event::LinkDown { link, .. } => {
                self.leaf.handle_link_down(link, now);
                if self.leaf.links() == 0 {
                    // pauses of attempts at a second link are too long for the first
                    self.name_wanted();
                }
                self.review_servers();
            }
            Event::RoundTrip { link, rtt } => self.leaf.handle_link_rtt(link, rtt, now),
            Event::Control { link, message } => self.leaf.handle_control(link, &message, now),
            Event::Data { link, message } => self.leaf.handle_data(link, message, now),
            Event::Signal { to, bytes, .. } => {
                self.outputs.push_back(LeafNodeOutput::Signal { to, bytes });
            }
            Event::DirectFailure {
                peer,
                failing: true,
            } => self.leaf.handle_failure(peer, None, now),
            Event::PeerRefused {
                peer: Some(peer),
                reason,
            } => {
                let refused = match reason {
                    NO_ROOM => Some(LinkRefusal::NoRoom),
                    CLOCK_DIFFERS => Some(LinkRefusal::ClockDiffers),
                    _ => None,
                };
                self.leaf.handle_failure(peer, refused, now);
                self.review_servers();
            }
            Event::Revocation { revocation } if self.is_expelled_by(&revocation) => {
                self.outputs.push_back(LeafNodeOutput::Expelled);
            }
            Event::AddressesChanged => {
                // over servers it agrees with its routers on other paths of its links
                self.settled_at = None;
                self.review_servers();
            }
            // a leaf has no link state
            Event::DirectFailure { .. }
            | Event::PeerRefused { .. }
            | Event::Revocation { .. }
            | Event::KeyConflict(_) => {}
        }
    }

    /// Returns whether this is a valid revocation that expels this leaf.
    fn is_expelled_by(&self, revocation: &[u8]) -> bool {
        let Ok(revocation) = Revocation::decode(revocation) else {
            return false;
        };
        let own = self.chain.verify(&self.network, self.clock.now());
        revocation.verify(&self.network).is_ok() && own.is_ok_and(|own| revocation.expels(&own))
    }

    fn handle_output(&mut self, output: LeafOutput) {
        let now = self.now;
        match output {
            LeafOutput::Control { link, message } => {
                if self.overlay.send_control(link, &message, now).is_err() {
                    self.overlay.close_link(link, EndReason::ControlStuck, now);
                }
            }
            LeafOutput::Data {
                link,
                header,
                packet,
            } => {
                // a lost packet, as on any other way
                let _ = self.overlay.send_data(link, [&header, &packet], now);
            }
            LeafOutput::Packet { packet } => {
                self.outputs.push_back(LeafNodeOutput::Packet { packet });
            }
            LeafOutput::Wanted(routers) => {
                self.wanted.clone_from(&routers);
                self.name_wanted();
                self.overlay.set_wanted(routers, now);
                self.review_servers();
            }
            LeafOutput::Refused { group, reason } => {
                let refused = LeafNodeOutput::Refused { group, reason };
                self.outputs.push_back(refused);
            }
            LeafOutput::LinkFault { link, reason } => {
                let reason = EndReason::Fault(reason.as_str());
                self.overlay.close_link(link, reason, now);
            }
        }
    }

    fn is_refused_a_link(&self) -> bool {
        self.leaf.refusal().is_some() || self.leaf.waits_for_room()
    }

    /// Gives up the places at signalling servers while both links are up. While routers refuse a
    /// link, asks them again; if all do, leaves and enters the servers: each names four at a time.
    fn review_servers(&mut self) {
        let now = self.now;
        if self.leaf.links() > 0 {
            self.again_at = None;
        }
        let all_refuse = self.leaf.refusal().is_some();
        self.is_refused &= all_refuse;
        if self.is_refused_a_link() && self.again_at.is_none_or(|(at, _)| at <= now) {
            let is_first = self.again_at.is_none();
            let [first, longest] = AGAIN_EVERY;
            let pause = self.again_at.map_or(first, |(_, pause)| pause);
            self.again_at = Some((now + pause, (pause * 2).min(longest)));
            if all_refuse {
                self.is_refused = !is_first;
                let again = [false, true].map(LeafNodeOutput::Servers);
                self.outputs.extend(again);
            }
            if !is_first {
                self.name_wanted();
            }
        }
        if self.leaf.links() < 2 {
            self.settled_at = None;
        } else if self.settled_at.is_none() {
            self.settled_at = Some(now + SETTLED);
        }
        let meets = self.settled_at.is_none_or(|at| now < at);
        if std::mem::replace(&mut self.meets, meets) != meets {
            self.outputs.push_back(LeafNodeOutput::Servers(meets));
        }
    }
}

/// A pseudo carrier for routers that other routers have named.
const NAMED: CarrierId = CarrierId(u32::MAX - 3);
