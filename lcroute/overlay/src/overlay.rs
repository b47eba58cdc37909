//! The overlay: all peers of a node, over the connections that a stack below makes.
//!
//! Each peer is a state machine of its own ([`crate::peer`]) and receives the shared state as
//! [`Parts`]. This file finds the peer of each input, and keeps the table of peers and their
//! timers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use librecast::bucket::{Bucket, Rate};
use librecast::cert::{CLOCK_SKEW, Chain, Member};
use librecast::id::{LinkId, PeerId};
use librecast::time::{Duration, Instant, UnixTime};
use tracing::debug;

use crate::config::OverlayConfig;
use crate::connections::{ConnectionEvent, Connections, Path};
use crate::description::keep_outside;
use crate::disclosure::Disclosure;
use crate::drops::DropReason;
use crate::elsewhere::Elsewhere;
use crate::envelope::{Opened, Payload, Refusal, RefusalCode};
use crate::event::{
    CarrierId, CarrierKind, EndReason, Event, NotTaken, Presence, Published, SendError,
};
use crate::info::{LinkInfo, PeerInfo, PeerState};
use crate::leaf_places::LeafPlaces;
use crate::link_table::LinkTable;
use crate::negotiate::signal;
use crate::outputs::Outputs;
use crate::parts::Parts;
use crate::peer::Peer;
use crate::places::{Learned, Places};
use crate::presence::{Noted, Reachable};
use crate::random::Random;
use crate::record::{PresenceRecord, RECORD_LIFETIME, Rendezvous, RendezvousEpochs};
use crate::revocations::{Revoked, expels};
use crate::session::{Arrived, Session};
use crate::signal_budget::Standing;
use crate::straight::{Received, Straight};
use crate::trust::Trust;
use crate::wanted::Wanted;
use crate::{OVERLAY_CARRIER, STRAIGHT_CARRIER};

/// The session of a recipient whose message was not read. Nobody looks at it whose clock differs.
const ANY_SESSION: u64 = 0;
/// Maximum number of refused strangers that `peers` shows.
const MAX_STRANGERS: usize = 64;
/// Leaves that may begin a link at a time while this node is behind. Chosen: some 50 ms of
/// handshakes on a slow host.
const BEGINNING_LEAVES: usize = 8;
/// Time for which that bound stays after this node was behind. Chosen: a leaf asks again after it.
const BEHIND_FOR: Duration = Duration::from_secs(1);
/// Interval between checks of linked peers' certificates. Chosen: they live for months.
const EXPIRY_EVERY: Duration = Duration::from_secs(10);
/// Presence records that are opened per kind of carrier: each costs 0.1 ms of processor time.
/// Chosen: a folder of the largest network at once, then the rate at which a router verifies
/// advertisements.
const RECORD_RATE: Rate = Rate::per_second(256, 8_192);
/// Seconds for which an expired record is used: by its owner's clock it may be valid. Chosen: four
/// requests of its owner, each of which passes this node's firewall after a datagram to that
/// address.
const OVERDUE: u64 = 60;

/// A node's links to all its peers, made and ended by `C`.
///
/// After each `handle_*` or `send_*` the owner empties [`Overlay::poll_event`], then all outputs of
/// the connections, and calls [`Overlay::handle_timeout`] at [`Overlay::next_timeout`].
#[derive(Debug)]
pub struct Overlay<C> {
    peers: BTreeMap<PeerId, Peer>,
    timers: Timers,
    /// Refused senders outside of `peers`, with reason and time.
    strangers: BTreeMap<PeerId, (&'static str, Instant)>,
    epoch: Instant,
    next_expiry: Instant,
    /// Budgets of presence records, by kind of carrier.
    record_buckets: BTreeMap<CarrierKind, Bucket>,
    parts: Parts<C>,
}

/// Deadlines of all peers.
#[derive(Debug, Default)]
struct Timers {
    order: BTreeSet<(Instant, PeerId)>,
    by_peer: BTreeMap<PeerId, Instant>,
}

impl Timers {
    fn set(&mut self, id: PeerId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_peer.insert(id, at),
            None => self.by_peer.remove(&id),
        };
        if before != at {
            before.map(|before| self.order.remove(&(before, id)));
            self.order.extend(at.map(|at| (at, id)));
        }
        debug_assert_eq!(
            self.order.len(),
            self.by_peer.len(),
            "each peer has one deadline"
        );
    }

    fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Returns the peers whose deadline has passed, each once.
    fn due(&self, now: Instant) -> Vec<PeerId> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| *id).collect()
    }
}

/// Setup and state.
impl<C: Connections> Overlay<C> {
    /// Returns a node without links.
    pub fn new(config: OverlayConfig, connections: C, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        let (own, network) = (config.identity.peer_id(), config.identity.network());
        let session = Session::new(config.identity, config.clock.clone(), &mut random);
        Self {
            peers: BTreeMap::new(),
            timers: Timers::default(),
            strangers: BTreeMap::new(),
            epoch: config.epoch,
            next_expiry: now + EXPIRY_EVERY,
            record_buckets: BTreeMap::new(),
            parts: Parts {
                own,
                reachable: Reachable::new(config.limits.present),
                limits: config.limits,
                clock: config.clock,
                now,
                random,
                connections,
                session,
                links: LinkTable::new(),
                leaf_places: LeafPlaces::default(),
                elsewhere: Elsewhere::default(),
                wanted: Wanted::default(),
                trust: Trust::default(),
                places: Places::new(now),
                straight: Straight::new(network),
                rendezvous: RendezvousEpochs::new(network),
                outputs: Outputs::default(),
                stands_back_until: None,
                stopped: false,
                behind_until: None,
            },
        }
    }

    /// Sets the members that may learn addresses of this host. Links that do not comply end, and
    /// are made again. Returns whether the setting has changed.
    pub fn set_disclosure(&mut self, disclosure: Disclosure, now: Instant) -> bool {
        if !self.observe(now) || !self.parts.trust.set_disclosure(disclosure) {
            return false;
        }
        self.visit_all(|peer, parts| {
            let link = peer.link.as_ref();
            if link.is_some_and(|link| link.is_hidden == peer.may_learn_addresses(&parts.trust)) {
                peer.end_link(EndReason::DisclosureChanged, parts);
            }
        });
        true
    }

    /// Returns whether some members do not learn addresses of this host.
    #[must_use]
    pub fn hides_addresses(&self) -> bool {
        self.parts.trust.hides_addresses()
    }

    /// Returns this node's own identity.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.parts.own
    }

    /// Returns the stack below: its owner gives it addresses and datagrams directly.
    pub fn connections_mut(&mut self) -> &mut C {
        &mut self.parts.connections
    }

    /// Returns the stack below.
    #[must_use]
    pub fn connections(&self) -> &C {
        &self.parts.connections
    }

    /// Returns peers as users see them: linked, tried and refused ones, and for ten seconds those
    /// that asked for a connection in vain.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let parts = &self.parts;
        let row = |peer: &Peer| {
            let connections = &parts.connections;
            let link = peer.up().map(|link| LinkInfo {
                rtt_ms: connections.round_trip(link.id).map(in_milliseconds),
                ..connections.info(link.id)
            });
            let traffic = peer.link.as_ref().map(|l| connections.traffic(l.id));
            peer.info(
                link.unwrap_or_default(),
                traffic.unwrap_or_default(),
                parts.now,
            )
        };
        let mut rows: Vec<_> = self.peers.values().map(row).collect();
        let strangers = self.strangers.iter();
        let strangers = strangers.filter(|(id, _)| !self.peers.contains_key(id));
        rows.extend(
            strangers
                .map(|(id, (reason, since))| row(&Peer::refused_stranger(*id, reason, *since))),
        );
        rows.sort_by_key(|row| row.peer_id);
        rows
    }

    /// Returns the round trips of links that are up.
    pub fn round_trips(&self) -> impl Iterator<Item = (LinkId, Duration)> + '_ {
        let peers = self.peers.values();
        let connected = peers.filter(|peer| peer.state == PeerState::Connected);
        let up = connected.filter_map(Peer::up);
        up.filter_map(|link| Some((link.id, self.parts.connections.round_trip(link.id)?)))
    }

    /// Returns the links that hold most packets back.
    pub fn pressed_links(&self) -> impl Iterator<Item = LinkId> + '_ {
        let up = self.peers.values().filter_map(Peer::up);
        up.map(|link| link.id)
            .filter(|link| self.parts.connections.is_pressed(*link))
    }

    /// Returns the drops so far, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.parts.outputs.drops();
        for (reason, count) in self.parts.connections.drops() {
            *drops.entry(reason).or_default() += count;
        }
        drops
    }

    /// Returns whether a peer is expelled, as far as its chain is known.
    #[must_use]
    pub fn is_expelled(&self, id: &PeerId) -> bool {
        let member = self.peers.get(id).and_then(|peer| peer.member.as_ref());
        self.parts.trust.is_expelled(id, member)
    }

    fn observe(&mut self, now: Instant) -> bool {
        self.parts.now = self.parts.now.max(now);
        !self.parts.stopped
    }

    /// Runs `visit` on a peer, then sets its timer, or removes the peer if it is idle.
    fn visit<R>(
        &mut self,
        id: &PeerId,
        visit: impl FnOnce(&mut Peer, &mut Parts<C>) -> R,
    ) -> Option<R> {
        let peer = self.peers.get_mut(id)?;
        let result = visit(peer, &mut self.parts);
        if peer.is_idle(&self.parts) {
            self.forget(*id);
        } else {
            let at = peer.deadline(&self.parts);
            self.timers.set(*id, at);
        }
        self.check(id);
        Some(result)
    }

    /// Asserts that the shared tables agree with a peer.
    fn check(&self, id: &PeerId) {
        debug_assert!(
            self.timers.by_peer.len() <= self.peers.len(),
            "a forgotten peer has no deadline"
        );
        let Some(peer) = self.peers.get(id) else {
            return;
        };
        let (link, parts) = (peer.link.as_ref(), &self.parts);
        debug_assert!(
            link.is_none_or(|link| parts.links.peer(link.id) == Some(*id)),
            "the table of links names the peer of each"
        );
        debug_assert!(
            peer.state != PeerState::Connected || peer.up().is_some() || parts.stopped,
            "a peer without a link is not connected"
        );
        debug_assert!(
            link.is_none_or(|link| link.up.is_none() || link.auth_sent && link.auth_received),
            "both sides authenticate before a link is up"
        );
    }

    fn visit_all(&mut self, mut visit: impl FnMut(&mut Peer, &mut Parts<C>)) {
        let all: Vec<_> = self.peers.keys().copied().collect();
        for id in all {
            self.visit(&id, &mut visit);
        }
    }

    fn forget(&mut self, id: PeerId) {
        if let Some(mut peer) = self.peers.remove(&id) {
            peer.take_link(EndReason::Forgotten, &mut self.parts);
        }
        self.timers.set(id, None);
    }

    /// Makes room for the peer in the table. A verified or wanted peer may take the place of one
    /// that is neither wanted nor linked. Returns false if there is no room.
    fn admit(&mut self, id: PeerId) -> bool {
        if self.peers.contains_key(&id) {
            return true;
        }
        if self.peers.len() >= self.parts.limits.peers {
            match self.evictable() {
                Some(victim) => self.forget(victim),
                None => {
                    self.parts.outputs.count(Refusal::Full.counter());
                    return false;
                }
            }
        }
        // the reason of an earlier refusal stays readable
        let peer = match self.strangers.remove(&id) {
            Some((reason, since)) => Peer::refused_stranger(id, reason, since),
            None => Peer::new(id, self.parts.now),
        };
        self.peers.insert(id, peer);
        debug_assert!(
            self.peers.len() <= self.parts.limits.peers,
            "peers have a bound"
        );
        true
    }

    /// Returns the peer whose place may be taken: unlinked, unwanted, and longest in its state.
    fn evictable(&self) -> Option<PeerId> {
        let idle = self.peers.values().filter(|p| p.link.is_none());
        let idle = idle.filter(|p| !self.parts.wanted.contains(&p.id));
        idle.min_by_key(|p| p.since).map(|p| p.id)
    }

    /// Counts a refusal, and shows it in `peers` if the sender is known. True: it was not shown
    /// before.
    fn refuse(&mut self, refusal: Refusal, id: Option<PeerId>) -> bool {
        let Some(id) = id else {
            let now = self.parts.now;
            self.parts.outputs.refuse_message(refusal, None, now);
            return false;
        };
        let known = self.visit(&id, |peer, parts| peer.refuse(refusal, parts));
        if let Some(is_new) = known {
            return is_new;
        }
        let (now, outputs) = (self.parts.now, &mut self.parts.outputs);
        outputs.refuse_message(refusal, Some(id), now);
        let reason = refusal.reason();
        let is_new = self.remember_stranger(id, reason);
        if is_new {
            self.parts.outputs.refuse_peer(id, reason, now);
        }
        is_new
    }

    /// Stores a refused sender; returns false if it was refused for the same reason before.
    fn remember_stranger(&mut self, id: PeerId, reason: &'static str) -> bool {
        let known = self.strangers.get(&id);
        if known.is_some_and(|(known, _)| *known == reason) {
            return false;
        }
        if self.strangers.len() >= MAX_STRANGERS {
            let oldest = self.strangers.iter().min_by_key(|(_, (_, since))| *since);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|oldest| self.strangers.remove(&oldest));
        }
        self.strangers.insert(id, (reason, self.parts.now));
        debug_assert!(
            self.strangers.len() <= MAX_STRANGERS,
            "the oldest gives way"
        );
        true
    }

    /// Ends this refusal for all peers to which `is_meant` applies.
    fn readmit(&mut self, refusal: Refusal, is_meant: impl Fn(&Peer, &Parts<C>) -> bool) {
        let reason = refusal.reason();
        let mut strangers = Vec::new();
        self.strangers.retain(|id, (why, since)| {
            let stranger = Peer::refused_stranger(*id, why, *since);
            let readmitted = *why == reason && is_meant(&stranger, &self.parts);
            strangers.extend(readmitted.then_some(*id));
            !readmitted
        });
        for id in strangers {
            self.try_peer(id);
        }
        self.visit_all(|peer, parts| {
            let refused = peer.state == PeerState::Refused && peer.reason == Some(reason);
            if refused && is_meant(peer, parts) {
                peer.set_state(PeerState::Connecting, None, parts.now);
                if peer.may_be_tried(parts) {
                    peer.begin_trying(parts);
                }
            }
        });
    }
}

/// Presence and wanted peers.
impl<C: Connections> Overlay<C> {
    /// Handles a change of presence on a carrier.
    pub fn handle_presence(&mut self, carrier: CarrierId, presence: Presence, now: Instant) {
        if !self.observe(now) {
            return;
        }
        match presence {
            Presence::Online(id) => self.handle_online(carrier, id),
            Presence::Offline(id) => self.handle_offline(carrier, id),
            Presence::CarrierUp => debug!(carrier = carrier.0, "carrier up"),
            Presence::CarrierDown => {
                debug!(carrier = carrier.0, "carrier down");
                for id in self.parts.reachable.on(carrier) {
                    self.handle_offline(carrier, id);
                }
            }
        }
    }

    fn handle_online(&mut self, carrier: CarrierId, id: PeerId) {
        if id == self.parts.own {
            return;
        }
        let over_links = carrier == OVERLAY_CARRIER;
        let parts = &mut self.parts;
        match parts.reachable.insert(id, carrier, parts.wanted.peers()) {
            Noted::Full => return parts.outputs.count(DropReason::PresenceFull),
            // a path over links that still exists needs no action
            Noted::Again if over_links => return,
            Noted::New | Noted::Again => {}
        }
        let linked = self.visit(&id, |peer, parts| {
            let Some(link) = peer.link.as_ref() else {
                return false;
            };
            // the peer came back: the link may be gone at its end
            if link.up.is_some() && !over_links {
                parts.connections.suspect(link.id, parts.now);
            }
            if link.restart.is_some() {
                // the request may have been lost with the carrier
                peer.ask_restart(parts);
            }
            true
        });
        if linked != Some(true) {
            self.try_peer(id);
        }
    }

    /// Forgets a member that was away for long, or puts its state first in line for removal.
    pub fn forget_member(&mut self, id: &PeerId, now: Instant) {
        self.observe(now);
        let parts = &mut self.parts;
        if parts.reachable.knows(id) || parts.wanted.contains(id) {
            return;
        }
        parts.places.forget(id, now);
        parts.session.release(id);
        parts.wanted.succeed(id, &mut parts.outputs);
        self.visit(id, |_, _| ());
    }

    fn handle_offline(&mut self, carrier: CarrierId, id: PeerId) {
        self.parts.reachable.remove(&id, carrier);
        let is_known = self.parts.reachable.knows(&id);
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if is_known || peer.link.is_some() {
            return;
        }
        if peer.member.is_none() {
            self.forget(id);
        } else {
            self.visit(&id, |peer, _| peer.stop_trying());
        }
    }

    /// Tries a peer that is wanted, can be reached, and is not barred.
    fn try_peer(&mut self, id: PeerId) {
        let stranger = Peer::new(id, self.parts.now);
        let peer = self.peers.get(&id).unwrap_or(&stranger);
        if peer.may_be_tried(&self.parts) && self.admit(id) {
            self.visit(&id, Peer::begin_trying);
        }
    }

    /// Sets the peers to which links are made; initially there are none. A link to a peer that is
    /// not wanted any more stays up, and is not made again when it ends.
    pub fn set_wanted(&mut self, mut wanted: BTreeSet<PeerId>, now: Instant) {
        if !self.observe(now) {
            return;
        }
        wanted.remove(&self.parts.own);
        let [dropped, added] = self.parts.wanted.replace(wanted);
        for id in dropped {
            self.visit(&id, |peer, _| peer.stop_trying());
        }
        for id in added {
            self.try_peer(id);
        }
    }
}

/// Returns whether the owner's clock or this node's is wrong: the record is from the future, or it
/// has expired although its carrier drops records within hours without renewal. Nodes renew records
/// every six hours.
fn is_by_a_wrong_clock(kind: CarrierKind, record: &PresenceRecord, time: UnixTime) -> bool {
    let forgets = matches!(kind, CarrierKind::Dht | CarrierKind::Lan);
    record.made > time.as_secs().saturating_add(CLOCK_SKEW)
        || (forgets && record.until <= time.as_secs())
}

/// Presence records.
impl<C: Connections> Overlay<C> {
    /// Sets the epochs by which nodes find each other.
    pub fn set_rendezvous(&mut self, epochs: RendezvousEpochs) {
        self.parts.rendezvous = epochs;
    }

    /// Returns the epochs by which nodes find each other.
    #[must_use]
    pub fn rendezvous(&self) -> &RendezvousEpochs {
        &self.parts.rendezvous
    }

    /// Returns this node's presence record. None without an address, or if some members must not
    /// learn it.
    pub fn record(&mut self, now: Instant) -> Option<Published> {
        let epoch = self.parts.rendezvous.newest().clone();
        self.record_of(epoch, now)
    }

    /// Returns the record in epoch 0, for a text: its recipient may know only the network.
    pub fn record_for_text(&mut self, now: Instant) -> Option<Published> {
        let epoch = Rendezvous::new(self.parts.session.identity().network());
        self.record_of(epoch, now)
    }

    fn record_of(&mut self, epoch: Rendezvous, now: Instant) -> Option<Published> {
        self.observe(now);
        let parts = &mut self.parts;
        if parts.trust.hides_addresses() {
            return None;
        }
        let made = parts.clock.now();
        let mut candidates = parts.connections.candidates();
        // while its network comes up, a host may have no other address
        candidates.retain(|candidate| !candidate.addr.ip().is_loopback());
        if candidates.is_empty() {
            return None;
        }
        let record = PresenceRecord {
            node: parts.own,
            made: made.as_secs(),
            until: made.as_secs() + RECORD_LIFETIME,
            candidates,
        };
        let key = parts.session.identity().key.clone();
        let sealed = epoch.seal(&record, &key, &mut parts.random);
        Some(Published {
            name: epoch.name(&parts.own, made),
            sealed: sealed.into(),
            until: record.until,
            epoch,
        })
    }

    /// Handles a record from a carrier; returns its owner and the end of its validity. If a link to
    /// the owner is wanted, requests go to its addresses. Expelled nodes know former epochs and
    /// could direct requests to addresses of their choice. So a record of a former epoch counts
    /// only for a member by `is_known`, unless a user pasted it.
    ///
    /// # Errors
    /// The reason for which it is not accepted.
    pub fn handle_record(
        &mut self,
        kind: CarrierKind,
        sealed: &[u8],
        is_known: impl Fn(&PeerId) -> bool,
        now: Instant,
    ) -> Result<(PeerId, Instant), NotTaken> {
        self.observe(now);
        let bucket = self.record_buckets.entry(kind);
        if !bucket
            .or_insert(Bucket::full(now))
            .take(RECORD_RATE, 1, now)
        {
            self.parts.outputs.count(DropReason::PresenceLimited);
            return Err(NotTaken::Dropped);
        }
        let parts = &mut self.parts;
        let time = parts.clock.now();
        let (mut record, is_former) = match parts.rendezvous.open(sealed, time) {
            Ok(opened) => opened,
            Err(reason) => {
                parts.outputs.count(reason);
                return Err(match reason {
                    DropReason::PresenceNotOpened => NotTaken::NotOpened,
                    _ => NotTaken::Dropped,
                });
            }
        };
        let node = record.node;
        if node == parts.own || self.is_expelled(&node) {
            return Err(NotTaken::Dropped);
        }
        if is_former && kind != CarrierKind::Text && !is_known(&node) {
            self.parts.outputs.count(DropReason::PresenceUnknown);
            return Err(NotTaken::Dropped);
        }
        let network = self.parts.session.identity().network();
        keep_outside(&mut record.candidates, &network);
        let until = now + self.lifetime(record.until);
        let parts = &mut self.parts;
        match parts.places.learn(kind, &record, until, now) {
            Learned::Taken => {}
            Learned::Older => {
                parts.outputs.count(DropReason::PresenceStale);
                return Err(NotTaken::Dropped);
            }
            Learned::Full => {
                parts.outputs.count(DropReason::PresenceFull);
                return Err(NotTaken::Dropped);
            }
        }
        // updates its timer for the new addresses
        self.visit(&node, |_, _| ());
        // its owner is asked nevertheless, and thereby learns of the difference
        if is_by_a_wrong_clock(kind, &record, time) {
            self.refuse(Refusal::Clock, Some(node));
        }
        Ok((node, until))
    }

    /// Stores the addresses of a node whose record the owner has checked.
    pub fn learn(&mut self, kind: CarrierKind, mut record: PresenceRecord, now: Instant) {
        self.observe(now);
        if record.node == self.parts.own {
            return;
        }
        let network = self.parts.session.identity().network();
        keep_outside(&mut record.candidates, &network);
        let until = now + self.lifetime(record.until);
        let node = record.node;
        match self.parts.places.learn(kind, &record, until, now) {
            Learned::Taken => drop(self.visit(&node, |_, _| ())),
            Learned::Older => self.parts.outputs.count(DropReason::PresenceStale),
            Learned::Full => self.parts.outputs.count(DropReason::PresenceFull),
        }
    }

    /// Returns how long a record is used: a clock ahead of this node's extends no lifetime.
    fn lifetime(&self, until: u64) -> Duration {
        let left = until.saturating_sub(self.parts.clock.now().as_secs());
        Duration::from_secs(left.clamp(OVERDUE, RECORD_LIFETIME))
    }

    /// Removes the record of `peer` that came by this kind of carrier.
    pub fn forget_record(&mut self, kind: CarrierKind, peer: &PeerId, now: Instant) {
        self.observe(now);
        self.parts.places.unlearn(peer, kind);
        self.visit(peer, |_, _| ());
    }
}

/// Load.
impl<C: Connections> Overlay<C> {
    /// Says whether received datagrams wait unread in this host. Links are then not judged by
    /// their silence, and few leaves at a time may begin one: else those that are up would be lost
    /// to handshakes, and be made anew.
    pub fn set_behind(&mut self, behind: bool, now: Instant) {
        self.observe(now);
        self.parts.connections.set_behind(behind);
        if behind {
            self.parts.behind_until = Some(now + BEHIND_FOR);
        }
    }
}

/// Signalling.
impl<C: Connections> Overlay<C> {
    /// Handles a sealed message from a server, in whose room `from` is.
    ///
    /// Certificates, signature, recipient, network, age and novelty are checked before anything is
    /// stored about the sender. Failures are counted, and shown in [`Overlay::peers`] with their
    /// reason.
    pub fn handle_signal(&mut self, carrier: CarrierId, from: PeerId, bytes: &[u8], now: Instant) {
        if self.observe(now)
            && let Err((refusal, sender)) = self.handle_message(carrier, None, Some(from), bytes)
        {
            let is_new = self.refuse(refusal, sender.or(Some(from)));
            // who sends to a leaf alone when it asks would never show it the difference
            if let (true, Refusal::Clock, Some(to)) = (is_new, refusal, sender) {
                self.send_refusal((to, ANY_SESSION), carrier, RefusalCode::Clock, Bytes::new());
            }
        }
    }

    /// Handles a sealed message that came over links of the overlay, the last of which is `via`.
    pub fn handle_routed_signal(&mut self, via: Option<LinkId>, bytes: &[u8], now: Instant) {
        if !self.observe(now) {
            return;
        }
        let neighbor = via.and_then(|link| self.parts.links.peer(link));
        if let Err((refusal, sender)) = self.handle_message(OVERLAY_CARRIER, None, neighbor, bytes)
        {
            self.refuse(refusal, sender);
        }
    }

    /// Handles a datagram outside of any connection.
    fn handle_straight(&mut self, path: Path, datagram: &Bytes) {
        let parts = &mut self.parts;
        let sealed = match parts.straight.receive(path.remote, datagram) {
            Received::Message(sealed) => sealed,
            Received::Part => return,
            Received::Foreign => return parts.outputs.count(DropReason::SignalUnexpected),
        };
        // a peer that verifiably sent from this address before has its own budget
        let from = parts.places.at(path.remote, parts.now);
        match self.handle_message(STRAIGHT_CARRIER, Some(path), from, &sealed) {
            Ok(()) => {}
            Err((refusal, sender)) => {
                self.refuse(refusal, sender);
            }
        }
    }

    fn handle_message(
        &mut self,
        carrier: CarrierId,
        path: Option<Path>,
        from: Option<PeerId>,
        sealed: &[u8],
    ) -> Result<(), (Refusal, Option<PeerId>)> {
        let arrived = Arrived {
            carrier,
            from,
            standing: match from {
                _ if carrier == OVERLAY_CARRIER => Standing::Member,
                Some(id) => self.standing(&id),
                None => Standing::Stranger,
            },
            sealed,
        };
        let Parts {
            session,
            trust,
            now,
            ..
        } = &mut self.parts;
        let mut dropped = DropReason::SignalCopy;
        let is_heeded = |opened: &Opened| {
            let sender = &opened.member;
            let heeded = path.is_none() || trust.discloses_to(&sender.peer, Some(sender));
            if !heeded {
                // any answer would reveal the presence of this host
                dropped = DropReason::StraightHidden;
            }
            heeded
        };
        match session.open(arrived, is_heeded, *now)? {
            None => {
                self.parts.outputs.count(dropped);
                Ok(())
            }
            Some(opened) => {
                let sender = opened.member.peer;
                // answers go to this address
                let now = self.parts.now;
                path.inspect(|path| self.parts.places.hear(sender, *path, now));
                let result = self.handle_new(carrier, opened);
                result.map_err(|refusal| (refusal, Some(sender)))
            }
        }
    }

    /// Returns the class of a key, by a verified message or by the link state.
    fn standing(&self, id: &PeerId) -> Standing {
        let verified = self.peers.get(id).and_then(|peer| peer.member.as_ref());
        match verified.map(|member| member.leaf) {
            _ if self.is_expelled(id) => Standing::Stranger,
            Some(true) => Standing::Leaf,
            None if !self.parts.reachable.carriers(id).0 => Standing::Stranger,
            Some(false) | None => Standing::Member,
        }
    }

    /// Handles a new message of a member.
    fn handle_new(&mut self, carrier: CarrierId, opened: Opened) -> Result<(), Refusal> {
        let sender = opened.member.peer;
        let (session, theirs) = (opened.session, opened.control);
        let ours = self.parts.session.identity().speaks.control;
        if let Payload::Refusal { code, proof } = opened.payload {
            if opened.to_session != self.parts.session.id() {
                return Err(Refusal::Session);
            }
            self.visit(&sender, |peer, parts| handle_refusal(peer, code, parts));
            if !proof.is_empty() {
                let event = Event::Revocation { revocation: proof };
                self.parts.outputs.push(event);
            }
            if theirs != ours {
                return Err(Refusal::of_control(theirs, ours));
            }
            return Ok(());
        }
        let revocation = self.parts.trust.revocation_of(&opened.member);
        let result = if revocation.is_some() {
            Err(Refusal::Revoked)
        } else if self.parts.trust.is_suspended(&sender, self.parts.now) {
            Err(Refusal::Panicked)
        } else if theirs != ours {
            Err(Refusal::of_control(theirs, ours))
        } else {
            self.handle_member(carrier, opened)
        };
        if let Some(code) = result.err().and_then(Refusal::code) {
            let proof = revocation.unwrap_or_default();
            self.send_refusal((sender, session), carrier, code, proof);
        }
        result
    }

    fn handle_member(&mut self, carrier: CarrierId, opened: Opened) -> Result<(), Refusal> {
        let sender = opened.member.peer;
        let linked = self.peers.get(&sender).is_some_and(|p| p.link.is_some());
        let wanted = self.parts.wanted.contains(&sender);
        if self.parts.session.identity().is_leaf() && (opened.member.leaf || !wanted) {
            return Err(Refusal::Leaf);
        }
        // a leaf is not a router, so being wanted gives it no place
        if !linked && (!wanted || opened.member.leaf) && self.is_full(opened.member.leaf) {
            return Err(Refusal::Full);
        }
        let now = self.parts.now;
        if !linked && opened.member.leaf && !self.parts.elsewhere.takes(sender, now) {
            return Err(Refusal::Full);
        }
        if !linked
            && opened.member.leaf
            && opened.payload.concerns_links()
            && self
                .parts
                .behind_until
                .is_some_and(|until| self.parts.now < until)
            && self.leaves_that_begin() >= BEGINNING_LEAVES
        {
            self.parts.outputs.count(DropReason::LeafBusy);
            return Ok(());
        }
        if !self.admit(sender) {
            return Err(Refusal::Full);
        }
        self.strangers.remove(&sender);
        let payload = opened.payload.name();
        debug!(peer = %sender, carrier = carrier.0, payload, "signal");
        let stood_back = self.parts.stands_back();
        let result = self.visit(&sender, |peer, parts| {
            peer.handle_opened(opened, carrier, parts)
        });
        if self.parts.stands_back() && !stood_back {
            self.visit_all(|peer, parts| peer.end_broken(EndReason::KeyConflict, parts));
        }
        result.unwrap_or(Ok(()))
    }

    /// Returns the number of leaves with a link that is not up yet.
    fn leaves_that_begin(&self) -> usize {
        let begins = |peer: &&Peer| peer.link.as_ref().is_some_and(|link| link.up.is_none());
        let is_leaf = |peer: &&Peer| peer.member.as_ref().is_some_and(|member| member.leaf);
        self.peers.values().filter(begins).filter(is_leaf).count()
    }

    /// Returns whether the links of leaves, or of routers, have reached their bound.
    fn is_full(&self, leaf: bool) -> bool {
        let is_leaf = |peer: &&Peer| peer.member.as_ref().is_some_and(|member| member.leaf);
        let linked = self.peers.values().filter(|peer| peer.link.is_some());
        let leaves = linked.filter(is_leaf).count();
        match leaf {
            true => leaves >= self.parts.limits.leaves,
            false => self.parts.links.len() - leaves >= self.parts.limits.links,
        }
    }

    /// Sends a refusal over the carrier of the peer's message, and to its addresses.
    fn send_refusal(
        &mut self,
        (to, session): (PeerId, u64),
        carrier: CarrierId,
        code: RefusalCode,
        proof: Bytes,
    ) {
        let payload = Payload::Refusal { code, proof };
        let parts = &mut self.parts;
        let sealed = parts
            .session
            .seal(&to, session, &payload, &mut parts.random);
        match sealed {
            Ok(sealed) => {
                self.visit(&to, |peer, parts| peer.send_straight(&sealed, parts));
                let parts = &mut self.parts;
                let event = signal(to, sealed, Some(carrier), &parts.reachable);
                parts.outputs.push(event);
            }
            Err(refusal) => parts.outputs.count(refusal.counter()),
        }
    }
}

/// Handles a refusal by a peer.
fn handle_refusal<C: Connections>(peer: &mut Peer, code: RefusalCode, parts: &mut Parts<C>) {
    if peer.up().is_some() {
        return;
    }
    let reason = code.reason();
    debug!(peer = %peer.id, reason, "refused by the peer");
    peer.waiting = None;
    peer.failures = peer.failures.max(5);
    peer.end_link(EndReason::RefusedByPeer(reason), parts);
    peer.set_state(PeerState::Refused, Some(reason), parts.now);
    let peer = Some(peer.id);
    parts.outputs.push(Event::PeerRefused { peer, reason });
}

/// Membership.
impl<C: Connections> Overlay<C> {
    /// Sets this node's renewed certificate, which later signatures carry. Links need no change:
    /// peers learn of it by [`Self::refresh_member`].
    pub fn set_identity_chain(&mut self, chain: Chain, now: Instant) {
        self.observe(now);
        self.parts.session.set_chain(chain);
    }

    /// Stores a peer's renewed, verified certificate: its link lives as long as the certificate.
    pub fn refresh_member(&mut self, member: Member, now: Instant) {
        if !self.observe(now) || self.parts.trust.revocation_of(&member).is_some() {
            return;
        }
        let id = member.peer;
        self.visit(&id, |peer, _| peer.member = Some(member));
        self.readmit(Refusal::CertificateExpired, |peer, _| peer.id == id);
    }

    /// Revokes the key of a node, an invitation or (by the network's key) an issuer. Links to its
    /// members end at once, and they get no other.
    pub fn revoke(&mut self, key: PeerId, revoked: Revoked, now: Instant) {
        self.observe(now);
        let forgotten = self.parts.trust.revoke(key, revoked.clone());
        let outputs = &mut self.parts.outputs;
        outputs.count_many(DropReason::RevocationsFull, forgotten);
        self.expel(&BTreeMap::from([(key, revoked)]));
    }

    /// Replaces all revoked keys; at most 8,192 are kept.
    pub fn set_revoked(&mut self, keys: BTreeMap<PeerId, Revoked>, now: Instant) {
        self.observe(now);
        let forgotten = self.parts.trust.set_revoked(keys);
        let outputs = &mut self.parts.outputs;
        outputs.count_many(DropReason::RevocationsFull, forgotten);
        let keys = self.parts.trust.revoked();
        self.expel(&keys);
        self.readmit(Refusal::Revoked, |peer, parts| {
            let member = peer.member.as_ref();
            !parts.trust.is_expelled(&peer.id, member) && !keys.contains_key(&peer.id)
        });
    }

    /// Ends the links of all members that these keys expel.
    fn expel(&mut self, keys: &BTreeMap<PeerId, Revoked>) {
        if self.parts.stopped {
            return;
        }
        self.visit_all(|peer, parts| {
            let member = peer.member.as_ref();
            if member.map_or(keys.contains_key(&peer.id), |m| expels(m, keys).is_some()) {
                peer.stop_trying();
                peer.waiting = None;
                peer.end_refused(Refusal::Revoked, parts);
            }
        });
    }
}

/// Links.
impl<C: Connections> Overlay<C> {
    /// Sends a control message: reliable, in order.
    ///
    /// # Errors
    /// Nothing is sent: there is no such link, its queue is full, or the message is too long.
    pub fn send_control(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        self.observe(now);
        self.parts.connections.send_control(link, message, now)
    }

    /// Sends a message from router to router the same way, behind control messages. On a slow link
    /// a short queue of such messages is the bound; beyond it they are refused and counted.
    ///
    /// # Errors
    /// As [`Self::send_control`].
    pub fn send_routed(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        self.observe(now);
        self.parts.connections.send_routed(link, message, now)
    }

    /// Sends `parts` as one message that may get lost. It may share a packet with other messages to
    /// the link, until the connections are asked for datagrams.
    ///
    /// # Errors
    /// As [`Self::send_control`].
    pub fn send_data(
        &mut self,
        link: LinkId,
        parts: [&[u8]; 2],
        now: Instant,
    ) -> Result<(), SendError> {
        self.observe(now);
        self.parts.connections.send_data(link, parts, now)
    }

    /// Closes a link whose peer broke the protocol; a wanted peer is tried again after a pause.
    pub fn close_link(&mut self, link: LinkId, reason: EndReason, now: Instant) {
        self.observe(now);
        if let Some(id) = self.linked(link) {
            self.visit(&id, |peer, parts| peer.end_broken(reason, parts));
        }
    }

    /// Sets whether another router, one that some leaf reaches, takes more: new leaves go there if
    /// they can.
    pub fn set_elsewhere(&mut self, has_room: bool) {
        self.parts.elsewhere.set(has_room);
    }

    /// Returns the number of free places for leaves.
    #[must_use]
    pub fn leaf_room(&self) -> usize {
        let places = self.parts.limits.leaves;
        places.saturating_sub(self.parts.leaf_places.len())
    }

    /// Ends a link that neither side needs, and notifies the peer at once. The peer asks for
    /// another link only if it wants one itself.
    pub fn close_gracefully(&mut self, link: LinkId, now: Instant) {
        self.observe(now);
        if let Some(id) = self.linked(link) {
            self.visit(&id, |peer, parts| {
                peer.end_link(EndReason::NotWanted, parts);
            });
        }
    }

    /// The peer at the other end of a link that is up.
    fn linked(&self, link: LinkId) -> Option<PeerId> {
        let id = self.parts.links.peer(link)?;
        let up = self.peers.get(&id)?.up()?;
        (up.id == link).then_some(id)
    }

    /// Ends all links; the owner sends the remaining datagrams of the connections, and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.observe(now);
        for peer in self.peers.values_mut() {
            (peer.waiting, peer.retry_at) = (None, None);
            peer.take_link(EndReason::ShuttingDown, &mut self.parts);
        }
        self.parts.stopped = true;
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.observe(now) {
            return;
        }
        self.parts.connections.handle_timeout(now);
        self.handle_connection_events();
        let ended = self.parts.trust.end_suspensions(now);
        if !ended.is_empty() {
            self.readmit(Refusal::Panicked, |peer, _| ended.contains(&peer.id));
        }
        for id in self.timers.due(now) {
            self.visit(&id, Peer::handle_timeout);
        }
        if self.next_expiry <= now {
            self.next_expiry = self.next_expiry(now);
            self.visit_all(|peer, parts| {
                if peer.has_expired(parts) {
                    peer.end_refused(Refusal::CertificateExpired, parts);
                }
            });
        }
    }

    /// Returns the next whole step after the hello epoch, when the node is awake anyway.
    fn next_expiry(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.epoch).as_nanos();
        let step = EXPIRY_EVERY.as_nanos();
        now + Duration::from_nanos((step - passed % step) as u64)
    }

    /// Returns the latest time for the next call of [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&mut self) -> Option<Instant> {
        if self.parts.stopped {
            return None;
        }
        let own = [
            self.timers.first(),
            self.parts.trust.deadline(),
            (!self.parts.links.is_empty()).then_some(self.next_expiry),
            self.parts.connections.next_timeout(),
        ];
        own.into_iter().flatten().min()
    }

    /// Returns the next event, also of datagrams that were given to the connections directly.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.observe(now);
        loop {
            if let Some(event) = self.parts.outputs.poll() {
                return Some(event);
            }
            match self.parts.connections.poll_event()? {
                ConnectionEvent::Data { link, message } => {
                    return Some(Event::Data { link, message });
                }
                event => self.handle_connection_event(event),
            }
        }
    }

    /// Handles events of timers at once, for the peers' sake; data waits for `poll_event`.
    fn handle_connection_events(&mut self) {
        while let Some(event) = self.parts.connections.poll_event() {
            match event {
                ConnectionEvent::Data { link, message } => {
                    self.parts.outputs.push(Event::Data { link, message });
                }
                event => self.handle_connection_event(event),
            }
        }
    }

    fn handle_connection_event(&mut self, event: ConnectionEvent) {
        use ConnectionEvent as E;
        let (link, event) = match event {
            E::AddressesChanged => return self.visit_all(Peer::addresses_changed),
            E::CandidatesChanged => {
                return self.parts.outputs.push(Event::AddressesChanged);
            }
            E::Straight { path, datagram } => return self.handle_straight(path, &datagram),
            E::Data { .. } => return,
            E::Described { link, .. }
            | E::Open { link }
            | E::Control { link, .. }
            | E::RoundTrip { link, .. }
            | E::OtherControl { link, .. }
            | E::Path { link }
            | E::PathLost { link }
            | E::BetterPath { link }
            | E::Candidates { link, .. }
            | E::Outdated { link }
            | E::Closed { link, .. } => (link, event),
        };
        let Some(id) = self.parts.links.peer(link) else {
            return;
        };
        self.visit(&id, |peer, parts| match event {
            E::Described { description, .. } => peer.handle_described(description, parts),
            E::Open { .. } => peer.handle_open(parts),
            E::Control { message, .. } if peer.up().is_some() => {
                parts.outputs.push(Event::Control { link, message });
            }
            E::Control { message, .. } => peer.handle_auth(&message, parts),
            E::RoundTrip { rtt, .. } => {
                parts.outputs.push(Event::RoundTrip { link, rtt });
            }
            E::OtherControl { version, .. } => peer.handle_other_control(version, parts),
            E::Path { .. } => {
                if let Some(link) = peer.link.as_mut() {
                    link.restart = None;
                }
            }
            E::PathLost { .. } => peer.ask_restart(parts),
            E::BetterPath { .. } => peer.seek_better_path(parts),
            E::Candidates { candidates, .. } => peer.send_candidates(candidates, parts),
            E::Outdated { .. } => peer.begin_anew(parts),
            E::Closed { reason, .. } => peer.end_link(reason, parts),
            E::Data { .. } | E::AddressesChanged | E::CandidatesChanged | E::Straight { .. } => {}
        });
    }
}

fn in_milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
