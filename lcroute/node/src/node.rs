//! The node: passes the router's outputs to the links, and the reverse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::Ipv4Config;
use lcroute_engine::topology::TopologyConfig;
use lcroute_engine::{
    CarrySettings, Engine, LanFrame, LocalInterfaceId, Neighbor, RoutedKind, Secret,
};
use lcroute_overlay::{
    CarrierId, CarrierKind, Connections, Disclosure, EndReason, Event, HelperOffer, Identity,
    KeyConflict, NotTaken, OVERLAY_CARRIER, Overlay, OverlayConfig, Presence, Published, Random,
    Revoked, SendError, Sought,
};
use librecast::cert::{Chain, GroupPrefix, Member};
use librecast::channel::{REPORT_PORT, look_group, report_group};
use librecast::drops::Drops;
use librecast::id::{LinkId, NetworkId, OriginId, PeerId, SecretKey};
use librecast::ipv6::udp_packet;
use librecast::revocation::Revocation;
use librecast::time::{Duration, Instant, WallClock};
use thiserror::Error;

use crate::announcements::{AnnounceError, Announcements};
use crate::drops::DropReason;
use crate::echo::Echoes;
use crate::epochs::{EpochIntake, Epochs};
use crate::flows::{self, Due, Flows};
use crate::helpers::{self, Offers};
use crate::keep::Keep;
use crate::key_conflict::KeyConflicts;
use crate::leaf_rate::LeafRate;
use crate::look::{self, Look, Router};
use crate::members::{KnownMember, Members};
use crate::membership::{Membership, Start, tell_expelled};
use crate::presence::Present;
use crate::private_prefixes::{GiveError, PrivateKeys, PrivatePrefixes};
use crate::records::{KnownRecord, Records};
use crate::revocations::{self, Revocations};
use crate::seeking::Seeking;
use crate::services::{HostServices, MakeAead};
use crate::slow_leaves::SlowLeaves;
use crate::uses::Uses;

mod rendezvous_epochs;

/// Hop limit of reports, which reach the whole network.
const REPORT_HOP_LIMIT: u8 = 64;

/// The configuration of a node.
#[derive(Debug)]
pub struct NodeConfig {
    /// The network's key.
    pub network: NetworkId,
    /// This node's key.
    pub key: Arc<SecretKey>,
    /// This node's certificates.
    pub chain: Chain,
    /// This node by its certificates.
    pub member: Member,
    /// Incarnation of this run: higher than that of every earlier run.
    pub incarnation: u32,
    /// MTU of `lc0` in bytes.
    pub mtu: u16,
    /// Whether paths between other nodes may lead through this node.
    pub transits: bool,
    /// Configuration of IPv4 for this host, if it is carried.
    pub ipv4: Option<Ipv4Config>,
    /// Settings that can change while the node runs.
    pub settings: Settings,
    /// Policy of the links.
    pub topology: TopologyConfig,
    /// Revocations from earlier runs.
    pub revocations: Revocations,
    /// Rendezvous epochs from earlier runs.
    pub epochs: Epochs,
    /// Members that earlier runs have seen, and this node itself.
    pub members: Members,
    /// Counts of bounded tokens from earlier runs.
    pub uses: Uses,
    /// Clock for the expiry of certificates.
    pub clock: WallClock,
    /// The hello epoch of all links.
    pub epoch: Instant,
    /// Seed of all randomness.
    pub seed: [u8; 32],
    /// Maker of ciphers for private prefixes; without it this node can neither seal nor open.
    pub aead: Option<MakeAead>,
    /// Bounds of the router.
    pub limits: lcroute_engine::Limits,
    /// Bounds of the links.
    pub overlay_limits: lcroute_overlay::Limits,
}

/// Settings that can change while a node runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Groups of scope 2 that are carried.
    pub link_scope_groups: Vec<Ipv6Addr>,
    /// Groups that this node announces.
    pub announce: Vec<GroupPrefix>,
    /// Groups whose listeners are reported to programs of this host.
    pub watch: Vec<GroupPrefix>,
    /// Whether unicast is carried.
    pub unicast: bool,
    /// Prefixes and segments whose packets are sealed.
    pub private: PrivateKeys,
    /// Whether this node reports its flows to nodes that ask for them.
    pub report: bool,
    /// Members that may learn addresses of this host.
    pub disclosure: Disclosure,
    /// The uplink, and the parts that are carried for other senders.
    pub carry: CarrySettings,
}

/// An action for the owner.
#[derive(Debug)]
pub enum Output {
    /// A packet for `lc0` that a local program has joined.
    Local {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// A query or report of MLD or IGMP for `lc0`; packet taps want a copy of it.
    LocalMld {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// A frame for a LAN.
    Lan {
        /// The LAN's interface.
        interface: LocalInterfaceId,
        /// The frame.
        frame: LanFrame,
    },
    /// A sealed message for a peer, over every signalling server.
    Signal {
        /// The recipient.
        to: PeerId,
        /// The message.
        bytes: Bytes,
    },
    /// This node's IPv4 address on `lc0` has changed; none: it has none.
    Ipv4Address(Option<Ipv4Addr>),
    /// This node's presence record, for every carrier that holds records.
    Publish(Published),
    /// The nodes that this node searches for, for carriers that look up names.
    Seek(Sought),
    /// State that must survive this run.
    Keep(Keep),
    /// The answer to a ping, or its timeout.
    Pong {
        /// The ping.
        ping: PingId,
        /// The round trip.
        rtt: Option<Duration>,
    },
    /// Links fell silent, or came up without a server: connections to servers may have changed too.
    PathSuspect,
}

/// A pending ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PingId(pub u64);

/// The reason for which a ping is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PingError {
    /// The maximum number of pings is pending.
    #[error("too many pings at a time")]
    TooMany,
}

/// The reason for which a revocation is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevokeError {
    /// It cannot be decoded, or belongs to another network.
    #[error("{0}")]
    Invalid(String),
    /// An issuer cannot expel another one.
    #[error("{0} is an issuer: only the network's key expels it")]
    Issuer(PeerId),
    /// The router does not accept it.
    #[error("{0}")]
    Refused(String),
}

/// A node's counters of its links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that links have accepted.
    pub link_tx_packets: u64,
    /// Their bytes, data headers included.
    pub link_tx_bytes: u64,
}

/// A node of the network.
///
/// After each `handle_*` the owner empties [`Node::poll_output`], then all outputs of the
/// connections, until both are empty. It calls [`Node::handle_timeout`] at [`Node::next_timeout`].
#[derive(Debug)]
pub struct Node<C> {
    engine: Engine,
    overlay: Overlay<C>,
    links: BTreeMap<LinkId, Member>,
    /// Links with leaves, and their full queues.
    leaves: SlowLeaves,
    leaf_rate: LeafRate,
    /// Places for leaves at neighbours.
    offers: Offers,
    /// Links that held most packets back at the last look.
    pressed: BTreeSet<LinkId>,
    membership: Membership,
    present: Present,
    records: Records,
    epochs: Epochs,
    epoch_intake: EpochIntake,
    /// Whether the newest epoch was made without knowledge of the last one of this node.
    is_overtaken: bool,
    /// Time before which this node makes no further epoch except for an expulsion.
    remade_until: Instant,
    random: Random,
    seeking: Seeking,
    announcements: Announcements,
    private: PrivatePrefixes,
    flows: Flows,
    /// Configured prefixes that the certificate does not permit: logged once.
    not_permitted: Vec<GroupPrefix>,
    pub(crate) key_conflicts: KeyConflicts,
    echoes: Echoes<PingId>,
    next_ping: u64,
    counters: Counters,
    drops: Drops<DropReason>,
    outputs: VecDeque<Output>,
    now: Instant,
}

/// Setup.
impl<C: Connections> Node<C> {
    /// Returns a node without links, over `connections`. It has no output before [`Self::start`].
    pub fn new(config: NodeConfig, connections: C, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        let settings = config.settings;
        let identity = Identity::new(config.key.clone(), config.network, config.chain.clone());
        let overlay = OverlayConfig {
            identity,
            clock: config.clock.clone(),
            epoch: config.epoch,
            seed: random.array(),
            limits: config.overlay_limits,
        };
        let services = HostServices::new(config.key.clone(), config.network, config.clock.clone())
            .with_aead(config.aead);
        let leaf_rate = LeafRate::new(config.limits.leaf_bits_per_second);
        let private = settings.private.prefixes(config.member.addresses.address);
        let engine = lcroute_engine::Config {
            member: config.member.clone(),
            incarnation: config.incarnation,
            mtu: config.mtu,
            link_scope_groups: settings.link_scope_groups,
            chain: config.chain.encode().into(),
            can_issue: config.member.is_issuer(),
            transits: config.transits,
            announce: settings.announce.clone(),
            watch: settings.watch,
            unicast: settings.unicast,
            ipv4: config.ipv4,
            private: private.clone(),
            carry: settings.carry,
            topology: config.topology,
            seed: u64::from_be_bytes(random.array()),
            limits: config.limits,
        };
        let membership = Start {
            network: config.network,
            key: config.key,
            chain: config.chain,
            member: config.member,
            members: config.members,
            revocations: config.revocations,
            uses: config.uses,
            clock: config.clock,
            seed: u64::from_be_bytes(random.array()),
        };
        let mut epochs = config.epochs;
        for revocation in membership.revocations.iter() {
            epochs.expel(revocation);
        }
        let mut overlay = Overlay::new(overlay, connections, now);
        overlay.set_rendezvous(epochs.rendezvous());
        overlay.set_disclosure(settings.disclosure, now);
        let mut engine = Engine::new(engine, Arc::new(services), now);
        engine.set_leaf_rate(leaf_rate.bits_per_second());
        Self {
            engine,
            overlay,
            links: BTreeMap::new(),
            leaves: SlowLeaves::default(),
            leaf_rate,
            offers: Offers::default(),
            pressed: BTreeSet::new(),
            membership: Membership::new(membership, now),
            present: Present::new(config.network),
            records: Records::new(now),
            epochs,
            epoch_intake: EpochIntake::default(),
            is_overtaken: false,
            remade_until: now,
            seeking: Seeking::new(),
            announcements: Announcements::new(&settings.announce),
            private: PrivatePrefixes::new(private),
            flows: Flows::new(settings.report, now),
            not_permitted: Vec::new(),
            key_conflicts: KeyConflicts::default(),
            echoes: Echoes::new(u64::from_be_bytes(random.array())),
            random,
            next_ping: 0,
            counters: Counters::default(),
            drops: Drops::default(),
            outputs: VecDeque::new(),
            now,
        }
    }

    /// Starts the node once `lc0` is up: queries joined groups, applies the state of earlier runs.
    pub fn start(&mut self, now: Instant) {
        self.now = now;
        self.engine.handle_start(now);
        self.seeking.changed(now);
        let known: Vec<_> = self.membership.revocations().cloned().collect();
        let keys = known.iter().map(|r| (r.key(), revoked(r)));
        self.overlay.set_revoked(keys.collect(), now);
        let time = self.membership.unix_now();
        for revocation in known.iter().filter(|r| !revocations::is_over(r, time)) {
            let record = Bytes::copy_from_slice(revocation.as_bytes());
            if let Err(e) = self.engine.add_revocation(&record, now) {
                tracing::warn!("{revocation:?}: {e}");
            }
        }
        // an epoch may have been stored before its revocation
        let for_revocations: Vec<_> = self.epochs.iter().map(|e| e.revocation().clone()).collect();
        for revocation in for_revocations {
            self.add_revocation_of_epoch(&revocation);
        }
        self.note_overtaken();
        if self.membership.is_expelled() {
            tell_expelled(&self.membership.member);
        }
        self.push_announcements();
    }

    /// Applies changed settings.
    pub fn configure(&mut self, settings: Settings, now: Instant) {
        self.now = now;
        self.engine
            .set_link_scope_groups(&settings.link_scope_groups, now);
        self.engine.set_watch(settings.watch, now);
        self.engine.set_unicast(settings.unicast, now);
        self.engine.set_carry(settings.carry, now);
        let address = self.member().addresses.address;
        self.private.configure(settings.private.prefixes(address));
        self.engine.set_private(self.private.all(), now);
        self.flows.reports = settings.report;
        if self.overlay.set_disclosure(settings.disclosure, now) {
            // the record may be published now
            self.records.addresses_changed(now);
        }
        self.announcements.configure(&settings.announce);
        self.push_announcements();
    }

    /// Ends all links; the owner sends the remaining datagrams of the connections, and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.now = now;
        if let Some(text) = self.membership.take_members() {
            self.keep(Keep::Members(text));
        }
        self.overlay.shutdown(now);
    }
}

/// Queries.
impl<C: Connections> Node<C> {
    /// Returns the router.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the router, for packets and settings of this host's interfaces; the node handles its
    /// outputs.
    pub fn engine_mut(&mut self, now: Instant) -> &mut Engine {
        self.now = now;
        &mut self.engine
    }

    /// Returns the links.
    pub fn overlay(&self) -> &Overlay<C> {
        &self.overlay
    }

    /// Returns the stack below: its owner gives it addresses and datagrams directly.
    pub fn connections_mut(&mut self) -> &mut C {
        self.overlay.connections_mut()
    }

    /// Says whether received datagrams wait unread in this host.
    pub fn set_behind(&mut self, behind: bool, now: Instant) {
        self.overlay.set_behind(behind, now);
    }

    /// Returns the stack below.
    pub fn connections(&self) -> &C {
        self.overlay.connections()
    }

    /// Returns the conflict with another host that runs with this node's key.
    pub fn key_conflict(&self, now: Instant) -> Option<&KeyConflict> {
        self.key_conflicts.now(now)
    }

    /// Returns the network's key.
    pub fn network(&self) -> NetworkId {
        self.membership.network
    }

    /// Returns this node by its certificate.
    pub fn member(&self) -> &Member {
        &self.membership.member
    }

    /// Returns whether this node itself has been expelled.
    #[must_use]
    pub fn is_expelled(&self) -> bool {
        self.membership.is_expelled()
    }

    /// Returns the number of links with leaves.
    pub fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// Returns the links that are up, with their members; without links of leaves.
    pub fn links(&self) -> &BTreeMap<LinkId, Member> {
        &self.links
    }

    /// Returns the number of connected signalling servers.
    pub fn servers(&self) -> usize {
        self.present.servers()
    }

    /// Returns whether this signalling server is connected.
    pub fn is_connected(&self, server: CarrierId) -> bool {
        self.present.is_connected(server)
    }

    /// Returns the number of the rendezvous epoch; 0: no expulsion yet.
    pub fn epoch(&self) -> u32 {
        self.epochs.number()
    }

    /// Returns all members that were seen, absent ones too.
    pub fn members(&self) -> Vec<KnownMember> {
        let (present, own) = (self.present.reachable(), self.membership.member.peer);
        let is_present = |peer: &PeerId| *peer == own || present.contains(peer);
        let membership = &self.membership;
        membership
            .members
            .rows(&membership.network, is_present, membership.unix_now())
    }

    /// Returns the members of this PeerId, address or name, and whether each takes streams.
    pub fn find_members(&self, node: &str) -> Vec<(KnownMember, bool)> {
        let own = self.membership.member.peer;
        let is_present = |peer: &PeerId| *peer == own || self.present.is_reachable(peer);
        let membership = &self.membership;
        let (network, now) = (&membership.network, membership.unix_now());
        let found = membership.members.find(network, node, is_present, now);
        let takes_streams = |peer: &PeerId| self.engine.takes_streams(self.present.origin(peer));
        let with_streams = |member: KnownMember| {
            let streams = takes_streams(&member.peer_id);
            (member, streams)
        };
        found.into_iter().map(with_streams).collect()
    }

    /// Returns the counters of packets that links accepted; the engine has the other counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the drops so far, by reason: of the router, of links, and between them.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.drops.by_name();
        let others = [self.engine.counters().drops, self.overlay.drops()];
        for (reason, count) in others.into_iter().flatten() {
            *all.entry(reason).or_default() += count;
        }
        all
    }
}

/// Inputs.
impl<C: Connections> Node<C> {
    /// Handles an IPv6 packet that a program of this host sent on `lc0`.
    pub fn handle_local_packet(&mut self, packet: Bytes, now: Instant) {
        self.now = now;
        self.engine.handle_local_packet(packet, now);
    }

    /// Handles a server's report about present nodes.
    pub fn handle_presence(&mut self, carrier: CarrierId, presence: Presence, now: Instant) {
        self.now = now;
        if presence == Presence::CarrierDown {
            for known in self.records.remove_all(carrier) {
                self.overlay.forget_record(known.kind, &known.peer, now);
            }
        }
        // first, since the engine may want a link at once
        self.overlay.handle_presence(carrier, presence, now);
        for (origin, online) in self.present.note(carrier, presence) {
            self.engine.handle_presence(origin, online, now);
        }
    }

    /// Handles a sealed message from a server, in whose room `from` is.
    pub fn handle_signal(&mut self, carrier: CarrierId, from: PeerId, bytes: &[u8], now: Instant) {
        self.now = now;
        self.overlay.handle_signal(carrier, from, bytes, now);
    }

    /// Handles a presence record of a carrier, under the carrier's name for it. Returns its owner
    /// and its end, unless it is dropped or this node's own.
    pub fn handle_record(
        &mut self,
        (carrier, kind): (CarrierId, CarrierKind),
        name: String,
        sealed: &[u8],
        now: Instant,
    ) -> Option<(PeerId, Instant)> {
        self.now = now;
        let members = &self.membership.members;
        let is_known = |peer: &PeerId| members.knows(peer);
        let taken = self.overlay.handle_record(kind, sealed, is_known, now);
        let (peer, until) = match taken {
            Ok(taken) => taken,
            Err(NotTaken::NotOpened) => {
                self.records.insert_unopened((carrier, name), kind, sealed);
                return None;
            }
            Err(NotTaken::Dropped) => return None,
        };
        match self.records.insert((carrier, name), (kind, peer), until) {
            None => self.drops.count(DropReason::PresenceNamesFull),
            Some(before) => {
                if let Some(before) = before {
                    self.forget_record(carrier, &before);
                }
                self.handle_presence(carrier, Presence::Online(peer), now);
            }
        }
        Some((peer, until))
    }

    /// Handles that a carrier no longer has the record of this name.
    pub fn handle_record_gone(&mut self, carrier: CarrierId, name: String, now: Instant) {
        self.now = now;
        if let Some(known) = self.records.remove(&(carrier, name)) {
            self.forget_record(carrier, &known);
        }
    }

    fn forget_record(&mut self, carrier: CarrierId, known: &KnownRecord) {
        let now = self.now;
        self.overlay.forget_record(known.kind, &known.peer, now);
        self.handle_presence(carrier, Presence::Offline(known.peer), now);
    }

    /// Returns this node's present record, for a text of a user. None without an address.
    pub fn record(&mut self, now: Instant) -> Option<Published> {
        self.now = now;
        self.overlay.record_for_text(now)
    }

    /// Returns whether some members do not learn addresses of this host.
    pub fn hides_addresses(&self) -> bool {
        self.overlay.hides_addresses()
    }

    /// Sends an echo to a node; [`Output::Pong`] follows.
    pub fn ping(
        &mut self,
        to: &PeerId,
        timeout: Duration,
        now: Instant,
    ) -> Result<PingId, PingError> {
        self.now = now;
        let origin = self.present.origin(to);
        let ping = PingId(self.next_ping);
        let payload = self.echoes.send(origin, ping, timeout, now);
        let payload = payload.map_err(|_| PingError::TooMany)?;
        self.next_ping += 1;
        self.send_routed(origin, RoutedKind::Echo, payload);
        Ok(ping)
    }

    /// Returns the network, and the flows that this node sends; for calls once a second.
    pub fn look(&mut self, now: Instant) -> Look {
        self.now = now;
        self.flows.watch(now);
        let (routers, links) = self.engine.map();
        let router = |origin: OriginId| {
            let member = self.engine.member(origin);
            Router {
                origin: origin.0,
                peer_id: member.map(|m| m.peer),
                name: member.map(|m| m.name.clone()),
                address: member.map(|m| m.addresses.address),
                stub: self.engine.is_stub(origin),
            }
        };
        let (links, left_out) = look::fit(links, routers.len());
        Look {
            routers: routers.into_iter().map(router).collect(),
            links,
            flows: self.flows.latest().rates(),
            left_out,
        }
    }

    /// Announces `prefix` for a program until [`Self::withdraw`].
    ///
    /// # Errors
    /// The certificate does not permit it, or there is no room.
    pub fn announce(&mut self, prefix: GroupPrefix, now: Instant) -> Result<(), AnnounceError> {
        self.now = now;
        let permitted = &self.membership.member.prefixes;
        self.announcements.announce(prefix, permitted)?;
        self.push_announcements();
        Ok(())
    }

    /// Withdraws `prefix` for a program that announced it.
    pub fn withdraw(&mut self, prefix: GroupPrefix, now: Instant) {
        self.now = now;
        self.announcements.release(prefix);
        self.push_announcements();
    }

    /// Replaces a program's secrets of a private prefix (none: removes): the first seals, all open.
    ///
    /// # Errors
    /// The configuration does not make the prefix private, or has a keyfile for it.
    pub fn give_secrets(
        &mut self,
        prefix: GroupPrefix,
        secrets: Vec<Secret>,
        now: Instant,
    ) -> Result<(), GiveError> {
        self.now = now;
        if self.private.give(prefix, secrets)? {
            self.engine.set_private(self.private.all(), now);
        }
        Ok(())
    }

    /// Sets, for an issuer, the members that it renews: their certificates depend on no invitation
    /// any more, and others get none.
    pub fn set_listed(&mut self, listed: BTreeSet<PeerId>) {
        self.membership.set_listed(listed);
    }

    /// Returns whether the membership of a reachable node, other than the issuer's own, ends once this
    /// issuer is revoked.
    pub fn has_dependents(&self, issuer: &PeerId) -> bool {
        let mut reachable = self.present.reachable().into_iter();
        reachable.any(|peer| {
            let member = self.engine.member(self.present.origin(&peer));
            peer != *issuer && member.is_some_and(|member| member.is_expelled_by(issuer, true))
        })
    }

    /// Verifies and floods a revocation of this node's operator, given as text.
    ///
    /// # Errors
    /// It is not valid in this network, or names an issuer, which only the network's key expels.
    pub fn revoke(&mut self, text: &str, now: Instant) -> Result<Revocation, RevokeError> {
        self.now = now;
        let revocation = revocations::parse(text, &self.membership.network);
        let revocation = revocation.map_err(RevokeError::Invalid)?;
        let key = revocation.key();
        let target = self.engine.member(self.present.origin(&key));
        if !revocation.is_by_network() && target.is_some_and(Member::is_issuer) {
            return Err(RevokeError::Issuer(key));
        }
        let record = Bytes::copy_from_slice(revocation.as_bytes());
        let added = self.engine.add_revocation(&record, now);
        added.map_err(|e| RevokeError::Refused(e.to_string()))?;
        // first, so that the expelled node does not receive the epoch
        self.learn_revocation(&record);
        Ok(revocation)
    }

    /// Updates the link costs of the router; to be called about once a second.
    pub fn update_round_trips(&mut self, now: Instant) {
        self.now = now;
        for (link, rtt) in self.overlay.round_trips() {
            self.engine.handle_link_rtt(link, rtt, now);
        }
        // for a second on end: one look alone may fall into a burst
        let pressed: BTreeSet<_> = self.overlay.pressed_links().collect();
        let before = std::mem::replace(&mut self.pressed, pressed);
        let both: Vec<_> = self.pressed.intersection(&before).copied().collect();
        self.engine.set_pressed_links(&both, now);
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.engine.next_timeout().map(|(at, _)| at)) {
            self.engine.handle_timeout(now);
        }
        if is_due(self.overlay.next_timeout()) {
            self.overlay.handle_timeout(now);
        }
        if is_due(self.next_own_timeout()) {
            self.handle_own_timeout();
        }
    }

    /// Returns the latest time for the next call of [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&mut self) -> Option<Instant> {
        let all = [
            self.engine.next_timeout().map(|(at, _)| at),
            self.overlay.next_timeout(),
            self.next_own_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    fn next_own_timeout(&self) -> Option<Instant> {
        let renewal = Some(self.membership.next_renewal());
        let records = Some(self.records.next_timeout());
        let flows = self.flows.next_timeout();
        let gone = self.membership.members.next_timeout();
        let seeking = self.seeking.next_timeout();
        let echoes = self.echoes.next_timeout();
        let epochs = self.epoch_intake.next_timeout();
        let remake = self.is_overtaken.then_some(self.remade_until);
        let leaves = self.leaf_rate.next_timeout();
        [
            renewal, records, echoes, flows, gone, seeking, epochs, remake, leaves,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_own_timeout(&mut self) {
        let now = self.now;
        for peer in self.membership.forget_gone(now) {
            self.overlay.forget_member(&peer, now);
        }
        self.keep_uses();
        if let Some(text) = self.membership.poll_members(now) {
            self.keep(Keep::Members(text));
        }
        for (carrier, known) in self.records.expired(now) {
            self.forget_record(carrier, &known);
        }
        if self.records.publish(self.membership.unix_now(), now)
            && let Some(record) = self.overlay.record(now)
        {
            self.outputs.push_back(Output::Publish(record));
        }
        for (link, waiting) in self.epoch_intake.due(now) {
            self.handle_epochs(link, &waiting);
        }
        self.remake_epoch();
        if self.seeking.is_due(now) {
            self.seek();
        }
        for (_, ping) in self.echoes.expired(now) {
            self.outputs.push_back(Output::Pong { ping, rtt: None });
        }
        if self.flows.next_timeout().is_some_and(|at| at <= now) {
            self.look_at_flows();
        }
        let connections = self.overlay.connections();
        let is_congested = |link: LinkId| connections.is_congested(link);
        let member = || self.links.keys().any(|link| is_congested(*link));
        if let Some(rate) = self.leaf_rate.poll(is_congested, member, now) {
            self.engine.set_leaf_rate(rate);
        }
        let issuers = self.engine.issuers();
        match self.membership.poll_renewal(issuers, now) {
            None => {}
            Some((to, request)) if to == self.membership.own => {
                let own = self.membership.member.peer;
                if let Some(answer) = self.membership.renew(&own, &request, now) {
                    self.handle_renewal(to, &answer);
                }
            }
            Some((to, request)) => self.send_routed(to, RoutedKind::Renew, request.into()),
        }
    }

    /// Outputs the nodes that this node searches for, if they have changed.
    fn seek(&mut self) {
        let own = self.membership.member.peer;
        let is_present = |peer: &PeerId| *peer == own || self.present.is_reachable(peer);
        let time = self.membership.unix_now();
        let away = self.membership.members.away(is_present, time);
        let issuer = self.membership.issuer();
        let issuer = issuer.filter(|issuer| !is_present(issuer));
        let traits = (self.links.is_empty(), self.membership.is_issuer());
        let epochs = self.overlay.rendezvous();
        let sought = self
            .seeking
            .choose(issuer, away.into_iter(), traits, epochs);
        self.outputs.extend(sought.map(Output::Seek));
    }

    fn look_at_flows(&mut self) {
        let now = self.now;
        let group = report_group();
        let asked_for = self.flows.reports
            && match self.engine.announcer(look_group()) {
                Some(other) if other != self.membership.member.addresses.origin => true,
                // a page of this host asks; other nodes may ask too
                Some(_) => self.engine.is_wanted(group),
                None => false,
            };
        let due = self.flows.poll(asked_for, now);
        self.engine.set_metering(due != Due::Nothing);
        if due != Due::Take {
            return;
        }
        let origin = |link| Some(self.present.origin(&self.links.get(&link)?.peer));
        let counted: Vec<_> = self.engine.take_flows();
        let counted = counted.into_iter().filter(|f| f.group != group);
        let counted = counted.filter_map(|f| {
            let edge = flows::edge(origin(f.link)?, f.packets, f.bytes);
            Some((f.group, edge))
        });
        let mut local = self.engine.local_groups();
        local.retain(|joined| *joined != group);
        let report = self.flows.take(counted, &local, now);
        if asked_for {
            let own = self.membership.member.addresses;
            let source = own.address;
            for part in report.datagrams(own.origin, env!("CARGO_PKG_VERSION")) {
                let packet = udp_packet(source, group, (REPORT_PORT, REPORT_HOP_LIMIT), &part);
                self.engine.handle_local_packet(packet.into(), now);
            }
        }
    }

    /// Returns the next output. To be called until `None` after a batch of inputs: all changes of
    /// one batch leave in one control message per link.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        self.now = now;
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if let Some(event) = self.overlay.poll_event(now) {
                self.handle_event(event);
                continue;
            }
            match self.engine.poll_output()? {
                lcroute_engine::Output::Local { packet } => return Some(Output::Local { packet }),
                lcroute_engine::Output::Lan { interface, frame } => {
                    return Some(Output::Lan { interface, frame });
                }
                output => self.handle_output(output),
            }
        }
    }
}

/// Helpers of a station.
impl<C: Connections> Node<C> {
    /// Offers this node's free places for leaves to all neighbours; to be called about once a second.
    pub fn offer_places(&mut self, now: Instant) {
        self.now = now;
        let mut candidates = self.overlay.connections().candidates();
        candidates.retain(|candidate| !candidate.addr.ip().is_loopback());
        let offer = HelperOffer {
            room: u16::try_from(self.overlay.leaf_room()).unwrap_or(u16::MAX),
            leaves: u16::try_from(self.leaves()).unwrap_or(u16::MAX),
            candidates,
        };
        let own = self.membership.member.addresses.origin;
        for (link, member) in &self.links {
            if self.offers.is_due(*link, &offer, now) {
                for message in helpers::messages(&offer, own, member.addresses.origin) {
                    // the overlay counts drops on slow links
                    let _ = self.overlay.send_routed(*link, &message, now);
                }
            }
        }
    }

    /// Returns the neighbours that offer places for leaves, by link.
    pub fn offers(&self) -> impl Iterator<Item = (&Member, &HelperOffer)> {
        let links = self.links.iter();
        links.filter_map(|(link, member)| Some((member, self.offers.of(*link)?)))
    }

    /// Sets whether leaves are to leave this node for routers that serve them, and whether new ones
    /// go to such a router if they can.
    pub fn set_spare(&mut self, spare: bool, has_room: bool, now: Instant) {
        self.now = now;
        self.engine.set_spare(spare, now);
        self.overlay.set_elsewhere(has_room);
    }
}

/// Events of the links.
impl<C: Connections> Node<C> {
    fn handle_event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::LinkUp { link, member } if member.leaf => {
                self.leaves.link_up(link);
                self.count_leaves();
                let neighbor = Neighbor { member: *member };
                self.engine.handle_link_up(link, neighbor, now);
            }
            Event::LinkUp { link, member } => {
                // if the path works again, servers may be reachable again too
                if self.links.is_empty() || self.present.servers() == 0 {
                    self.outputs.push_back(Output::PathSuspect);
                }
                let neighbor = Neighbor {
                    member: Member::clone(&member),
                };
                self.note(&member);
                self.links.insert(link, *member);
                self.seeking.changed(now);
                self.engine.handle_link_up(link, neighbor, now);
                self.send_epochs(self.epochs.to_send(), |to| to == link);
            }
            Event::LinkDown { link, reason, .. } => {
                let is_leaf = self.leaves.link_down(link);
                self.count_leaves();
                // a leaf's path proves nothing about this node's
                if reason == EndReason::Silent && !is_leaf {
                    self.outputs.push_back(Output::PathSuspect);
                }
                self.links.remove(&link);
                self.offers.link_down(link);
                self.epoch_intake.forget(link);
                self.seeking.changed(now);
                self.engine.handle_link_down(link, now);
            }
            Event::RoundTrip { link, rtt } => {
                self.engine.handle_link_rtt(link, rtt, now);
            }
            Event::Control { link, message } => {
                self.engine.handle_control(link, &message, now);
            }
            Event::Data { link, message } => {
                self.engine.handle_data(link, message, now);
            }
            Event::Signal {
                to,
                bytes,
                over_links,
                over_servers,
            } => {
                let origin = self.present.origin(&to);
                // signalling repeats its messages: a loss costs time, not a link
                if over_links {
                    self.send_routed(origin, RoutedKind::Signal, bytes.clone());
                }
                if over_servers {
                    self.outputs.push_back(Output::Signal { to, bytes });
                }
            }
            // peers that refuse this node show it its revocation, which the engine verifies
            Event::Revocation { revocation } => {
                if let Err(e) = self.engine.add_revocation(&revocation, now) {
                    tracing::debug!("revocation shown by a peer: {e}");
                    self.drops.count(DropReason::RevocationUnproven);
                }
            }
            Event::DirectFailure { peer, failing } => {
                let origin = self.present.origin(&peer);
                self.engine.handle_direct_failure(origin, failing, now);
            }
            Event::AddressesChanged => self.records.addresses_changed(now),
            // the overlay has logged it, and `peers` shows it
            Event::KeyConflict(conflict) => self.key_conflicts.note(conflict, now),
            Event::PeerRefused { .. } => {}
        }
    }
}

/// Outputs of the router.
impl<C: Connections> Node<C> {
    /// Updates the rate of leaves after a change of their number.
    fn count_leaves(&mut self) {
        self.leaf_rate.set_leaves(self.leaves.len());
        let rate = self.leaf_rate.bits_per_second();
        self.engine.set_leaf_rate(rate);
    }

    fn handle_output(&mut self, output: lcroute_engine::Output) {
        use lcroute_engine::Output as O;
        let now = self.now;
        match output {
            O::Data {
                links,
                header,
                packet,
            } => {
                for link in links.iter() {
                    let sent = self.overlay.send_data(*link, [&header, &packet], now);
                    let len = header.len() + packet.len();
                    if sent.is_ok() && self.leaves.contains(*link) {
                        self.leaf_rate.sent(*link, len, now);
                    }
                    self.watch_leaf(*link, sent);
                    self.count_sent(sent, len);
                }
            }
            O::Control { link, message } => {
                if let Err(e) = self.overlay.send_control(link, &message, now)
                    && e != SendError::NoSuchLink
                {
                    // control messages are hard state: a link that cannot carry them is made again
                    self.overlay.close_link(link, EndReason::ControlStuck, now);
                }
            }
            O::RoutedControl { link, message } => {
                // the overlay counts drops on slow links
                let _ = self.overlay.send_routed(link, &message, now);
            }
            O::Local { packet } => self.outputs.push_back(Output::Local { packet }),
            O::Lan { interface, frame } => {
                self.outputs.push_back(Output::Lan { interface, frame });
            }
            O::Ipv4Address(address) => {
                if let Some(address) = address {
                    self.keep(Keep::Ipv4Address(address));
                }
                self.outputs.push_back(Output::Ipv4Address(address));
            }
            O::LocalMld { packet } => self.outputs.push_back(Output::LocalMld { packet }),
            O::LinkFault { link, reason } => {
                let reason = EndReason::Fault(reason.as_str());
                self.overlay.close_link(link, reason, now);
            }
            O::Wanted(origins) => {
                let peers = origins.iter().filter_map(|origin| self.peer(*origin));
                let peers = peers.collect();
                self.overlay.set_wanted(peers, now);
            }
            O::Retire { link } => self.overlay.close_gracefully(link, now),
            O::Routed {
                via,
                from,
                kind,
                payload,
            } => {
                self.handle_routed(via, from, kind, payload);
            }
            O::Epochs { link, epochs } => self.handle_epochs(link, &epochs),
            O::Reachable { origin, up } => self.handle_reachable(origin, up),
            O::Incarnation(incarnation) => self.keep(Keep::Incarnation(incarnation)),
            O::Revoked { revocation, .. } => self.learn_revocation(&revocation),
            O::Renewed { credential } => {
                self.refresh(&credential.member);
                self.count(credential.member.addresses.origin);
            }
        }
    }

    /// Closes the link of a leaf that accepts no packets.
    fn watch_leaf(&mut self, link: LinkId, sent: Result<(), SendError>) {
        if self.leaves.is_slow(link, sent, self.now) {
            self.drops.count(DropReason::LeafSlow);
            let reason = EndReason::Fault("a leaf that takes nothing");
            self.overlay.close_link(link, reason, self.now);
        }
    }

    fn count_sent(&mut self, sent: Result<(), SendError>, bytes: usize) {
        match sent {
            Ok(()) => {
                self.counters.link_tx_packets += 1;
                self.counters.link_tx_bytes += bytes as u64;
            }
            Err(e) => self.drops.count(match e {
                SendError::NoSuchLink => DropReason::NoSuchLink,
                SendError::QueueFull => DropReason::QueueFull,
                SendError::TooLarge => DropReason::TooLarge,
            }),
        }
    }

    /// Updates presence: a node that is reachable over links is reachable for signalling too.
    fn handle_reachable(&mut self, origin: OriginId, up: bool) {
        self.seeking.changed(self.now);
        let is_issuer = self.engine.member(origin).is_none_or(Member::is_issuer);
        if is_issuer && self.membership.set_issuers(&self.engine.issuers()) {
            // the issuer that decided before has gone
            let reached: Vec<_> = self.engine.routes().iter().map(|r| r.origin).collect();
            for other in reached {
                self.count(other);
            }
        }
        let presence = if up {
            if is_issuer {
                self.membership.handle_issuer_reachable(self.now);
            }
            self.count(origin);
            let Some(member) = self.engine.member(origin) else {
                return;
            };
            self.membership.note(member);
            self.present.reached(origin, member.peer);
            Presence::Online(member.peer)
        } else {
            let Some(peer) = self.present.lost(origin) else {
                return;
            };
            self.membership.note_gone(&peer, self.now);
            Presence::Offline(peer)
        };
        self.overlay
            .handle_presence(OVERLAY_CARRIER, presence, self.now);
    }

    /// Counts, as an issuer, a node that joined by a token; expels it if it is beyond the bound.
    fn count(&mut self, origin: OriginId) {
        let Some(member) = self.engine.member(origin) else {
            return;
        };
        let beyond = self.membership.count(member);
        self.keep_uses();
        if let Some(revocation) = beyond {
            let record = Bytes::copy_from_slice(revocation.as_bytes());
            if let Err(e) = self.engine.add_revocation(&record, self.now) {
                tracing::warn!("{revocation:?}: {e}");
            }
        }
    }

    fn keep_uses(&mut self) {
        if let Some(text) = self.membership.take_uses() {
            self.keep(Keep::Uses(text));
        }
    }

    /// Returns the key of a node, by link state or presence.
    fn peer(&self, origin: OriginId) -> Option<PeerId> {
        let member = self.engine.member(origin).map(|member| member.peer);
        member.or_else(|| self.present.peer(origin))
    }

    fn handle_routed(
        &mut self,
        via: Option<LinkId>,
        from: OriginId,
        kind: RoutedKind,
        payload: Bytes,
    ) {
        let now = self.now;
        match kind {
            // the opened message proves its sender
            RoutedKind::Signal => self.overlay.handle_routed_signal(via, &payload, now),
            RoutedKind::Echo => self.send_routed(from, RoutedKind::EchoReply, payload),
            RoutedKind::EchoReply => {
                if let Some((ping, rtt)) = self.echoes.answered(from, &payload, now) {
                    let rtt = Some(rtt);
                    self.outputs.push_back(Output::Pong { ping, rtt });
                }
            }
            RoutedKind::Renew => {
                self.count(from);
                let asker = self.engine.member(from).map(|member| member.peer);
                match asker.and_then(|asker| self.membership.renew(&asker, &payload, now)) {
                    Some(answer) => self.send_routed(from, RoutedKind::Renewed, answer.into()),
                    None => self.drops.count(DropReason::RenewalIgnored),
                }
            }
            RoutedKind::Renewed => self.handle_renewal(from, &payload),
            RoutedKind::HelperOffer => {
                // the link proves the sender: another router cannot pass one on
                let is_neighbor = |link: &LinkId| {
                    let member = self.links.get(link);
                    member.is_some_and(|member| member.addresses.origin == from)
                };
                let via = via.filter(is_neighbor);
                if !via.is_some_and(|link| self.offers.take(link, &payload)) {
                    self.drops.count(DropReason::HelperOffer);
                }
            }
            // the engine keeps those that come over links
            RoutedKind::Carry | RoutedKind::Carried | RoutedKind::Other(_) => {
                self.drops.count(DropReason::RoutedUnknown);
            }
        }
    }

    fn send_routed(&mut self, to: OriginId, kind: RoutedKind, payload: Bytes) {
        if let Err(reason) = self.engine.send_routed(to, kind, payload, self.now) {
            tracing::debug!("to {to}: {kind:?}: {reason:?}");
            self.drops.count(DropReason::RoutedNotSent);
        }
    }

    /// Handles an issuer's answer: publishes and stores the new certificates.
    fn handle_renewal(&mut self, from: OriginId, answer: &[u8]) {
        let now = self.now;
        let Some(chain) = self.membership.handle_renewal(from, answer, now) else {
            return;
        };
        if let Err(e) = self.engine.set_own_chain(chain.encode().into(), now) {
            tracing::warn!("own certificate: {e}");
        }
        self.overlay.set_identity_chain(chain.clone(), now);
        self.keep(Keep::Chain(chain));
    }

    /// Stores another node's new certificates.
    fn refresh(&mut self, member: &Member) {
        for known in self.links.values_mut().filter(|m| m.peer == member.peer) {
            *known = member.clone();
        }
        self.note(member);
        self.overlay.refresh_member(member.clone(), self.now);
    }

    /// Notes a member that has no route yet.
    fn note(&mut self, member: &Member) {
        self.membership.note(member);
        if !self.present.is_reachable(&member.peer) {
            self.membership.note_gone(&member.peer, self.now);
        }
    }

    /// Applies and stores a verified revocation: ends the links of expelled members.
    fn learn_revocation(&mut self, record: &[u8]) {
        let Ok(revocation) = Revocation::decode(record) else {
            return;
        };
        let (key, by) = (revocation.key(), revoked(&revocation));
        self.overlay.revoke(key, by, self.now);
        self.epochs.expel(&revocation);
        self.use_epochs();
        if self.membership.revoke(&revocation) {
            self.keep(Keep::Revocation(Box::new(revocation)));
        }
    }

    fn keep(&mut self, what: Keep) {
        self.outputs.push_back(Output::Keep(what));
    }

    fn push_announcements(&mut self) {
        let all = self.announcements.all();
        let refused = self.engine.set_announced(all, self.now);
        for prefix in &refused {
            if !self.not_permitted.contains(prefix) {
                tracing::warn!(
                    "[network] announce: this node's certificate does not permit {prefix}"
                );
            }
        }
        self.not_permitted = refused;
    }
}

/// Returns the revocation in the overlay's form, which refused members receive.
fn revoked(revocation: &Revocation) -> Revoked {
    Revoked {
        by_network: revocation.is_by_network(),
        revocation: Bytes::copy_from_slice(revocation.as_bytes()),
    }
}
