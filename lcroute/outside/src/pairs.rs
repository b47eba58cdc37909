//! All pairs of this host: waiting and sought keys, and their links; without I/O.
//!
//! ```text
//!          named on this host             the other is there: room, record, hint
//! (none) ────────────────────> Waits ─────────────────────────────────────────────> Linking
//!   ^                            ^  ^                                                  │ Auth
//!   │ not named any more         │  └── 10 s without a packet, later 30 s ── Linked <──┘
//!   └────────────────────────────┴───────────────────────────────────────────┘
//! ```
//!
//! Each pair is a network of its own in each period ([`librecast::pair`]), so a pair has an overlay
//! for each period in which the other may be. Who waits asks nobody for a link; it answers requests,
//! and requests links itself for half a minute after a new record of the other, which opens
//! firewalls on both sides.
//!
//! `open` has open keys: a pair of a caller's key and a key of the day, for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_overlay::{
    CarrierId, CarrierKind, EndReason, Event, Identity, Limits, LinkInfo, Overlay, OverlayConfig,
    PeerState, Presence, Published, Random, Rendezvous,
};
use lcroute_webrtc::Transmit;
use librecast::bucket::{Bucket, Rate};
use librecast::id::{LinkId, NetworkId, PeerId, SecretKey};
use librecast::pair::PairSecret;
use librecast::time::{Duration, Instant, WallClock};

use crate::drops::DropReason;
use crate::guests::{CALL, COOKIE, Guests};
use crate::share::{Share, View, ViewId};

mod open;

pub use open::{OpenDay, RoomEntered};

/// Most pairs: the length of a list of permitted nodes.
pub const MAX_PAIRS: usize = 1_024;
/// Most pairs that wait or are sought. Chosen: each may have a connection to a server.
pub const MAX_WAITING: usize = 256;
/// Most pairs with a link. Chosen.
pub const MAX_LINKED: usize = 64;
/// Most pairs whose links begin at once. Chosen: a handshake takes milliseconds of a processor.
pub const MAX_BEGINNING: usize = 8;
/// Time after which another pair may begin in the place of one that is not found.
const BEGINS_FOR: Duration = Duration::from_secs(10);
/// Search under the present period after which both neighbours are searched, too: the other's clock
/// may be wrong by half a day.
const NEIGHBORS_AFTER: Duration = Duration::from_secs(4);
/// Time for which this host announces itself on LANs, and wants a link, after a new record.
const ANSWERS_FOR: Duration = Duration::from_secs(30);
/// Time within which a new link has to carry a packet of a stream.
const PROVES_WITHIN: Duration = Duration::from_secs(10);
/// Time without a packet after which a link ends: twice the streams' keep-alive.
const IDLE: Duration = Duration::from_secs(30);
/// Delay of a new record after a change of addresses, within which more follow.
const SETTLES_IN: Duration = Duration::from_millis(200);
/// Age at which a record is made again: it is valid for a day, and addresses go stale. Chosen.
const RENEWED_AFTER: Duration = Duration::from_secs(6 * 3_600);
/// Longest burst beyond `[outside] mbit`, in bytes. Chosen: 100 ms of its default.
const BURST: u64 = 256 << 10;
/// Bounds of an overlay with one peer; pauses end soon, as a user waits.
fn limits() -> Limits {
    Limits {
        peers: 4,
        links: 2,
        leaves: 0,
        present: 4,
        attempt: Duration::from_secs(10),
        backoff: (Duration::from_secs(1), Duration::from_secs(8)),
    }
}

/// Settings of all pairs.
#[derive(Debug)]
pub struct PairsConfig {
    /// Clock for periods and certificates.
    pub clock: WallClock,
    /// The hello epoch of all links.
    pub epoch: Instant,
    /// Seed of all randomness.
    pub seed: [u8; 32],
    /// Bits a second of all pairs together.
    pub rate: u64,
}

/// An action for the owner.
#[derive(Debug)]
pub enum PairsOutput {
    /// Carriers are needed for a pair, under these keys.
    Start(Box<Started>),
    /// They are not needed any more.
    End(ViewId),
    /// A sealed message for every server of this node.
    Signal {
        /// The node.
        node: ViewId,
        /// The recipient.
        to: PeerId,
        /// The message.
        bytes: Bytes,
    },
    /// The record of this node, and whether LANs get it now.
    Record {
        /// The node.
        node: ViewId,
        /// The record.
        record: Published,
        /// Whether it is announced on LANs.
        announced: bool,
    },
    /// A packet of the streams with this key.
    Packet {
        /// The true key.
        peer: PeerId,
        /// The packet.
        packet: Bytes,
    },
    /// The state of this pair may have changed.
    Changed(PeerId),
    /// The room of an open key is needed at servers.
    Enter(Box<RoomEntered>),
    /// It is not needed any more.
    Leave(ViewId),
    /// A message in such a room.
    Say {
        /// The room.
        room: ViewId,
        /// The recipient.
        to: PeerId,
        /// The message.
        bytes: Bytes,
    },
    /// The records of this host's open key for LANs and a DHT.
    OpenRecord {
        /// The room of the same period.
        room: ViewId,
        /// The open key.
        open: PeerId,
        /// Number of the period.
        period: u64,
        /// The record for LANs.
        record: Published,
        /// The sealed record for a DHT, with public addresses alone; none: it would lead nowhere.
        item: Option<Vec<u8>>,
    },
    /// Callers with links are others.
    Guests,
}

/// A pair in one period, as carriers need it.
#[derive(Debug)]
pub struct Started {
    /// Its number.
    pub node: ViewId,
    /// The true key of the other.
    pub peer: PeerId,
    /// The own member key.
    pub own: Arc<SecretKey>,
    /// The other's member key.
    pub other: PeerId,
    /// The network.
    pub network: NetworkId,
}

/// The state of a pair for users.
#[derive(Debug, Clone, PartialEq)]
pub struct PairState {
    /// Whether a link is up.
    pub linked: bool,
    /// Whether a link is being made.
    pub linking: bool,
    /// The link.
    pub link: LinkInfo,
    /// The kind of carrier by which they met.
    pub found_by: Option<CarrierKind>,
}

/// What this host wants of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Intent {
    /// The other may call.
    pub waits: bool,
    /// A stream to the other is wanted, or open.
    pub seeks: bool,
}

#[derive(Debug)]
struct Pair {
    secret: PairSecret,
    wish: Intent,
    sought_since: Option<Instant>,
    /// Its overlays, by period.
    nodes: BTreeMap<u64, ViewId>,
    /// It is a call of an open key.
    call: Option<open::OfCall>,
}

/// A link that is up.
#[derive(Debug, Clone, Copy)]
struct Linked {
    link: LinkId,
    ends_at: Instant,
}

/// A pair in one period.
#[derive(Debug)]
struct Node {
    peer: PeerId,
    other: PeerId,
    network: NetworkId,
    overlay: Overlay<View>,
    linked: Option<Linked>,
    /// When the newest record of the other was made, in unix seconds.
    heard: Option<u64>,
    answers_until: Option<Instant>,
    publish_at: Instant,
    announced: bool,
    /// Since when a carrier shows the other.
    present: Option<Instant>,
}

/// All pairs.
///
/// After each `handle_*` the owner empties [`Self::poll_output`], then [`Self::poll_transmit`]. It
/// calls [`Self::handle_timeout`] at [`Self::next_timeout`].
#[derive(Debug)]
pub struct Pairs {
    config: PairsConfig,
    random: Random,
    share: Share,
    pairs: BTreeMap<PeerId, Pair>,
    nodes: BTreeMap<ViewId, Node>,
    /// Pairs whose links may begin, and since when.
    begin: BTreeMap<PeerId, Instant>,
    bucket: Bucket,
    opened: open::Opened,
    outputs: VecDeque<PairsOutput>,
    /// Nodes whose overlay may have events.
    touched: BTreeSet<ViewId>,
    review_at: Instant,
    now: Instant,
}

/// Settings and states.
impl Pairs {
    /// Returns no pairs, over a stack without connections.
    #[must_use]
    pub fn new(config: PairsConfig, share: Share, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        Self {
            opened: open::Opened::new(Guests::new(random.array(), now), now),
            random,
            config,
            share,
            pairs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            begin: BTreeMap::new(),
            bucket: Bucket::full(now),
            outputs: VecDeque::new(),
            touched: BTreeSet::new(),
            review_at: now,
            now,
        }
    }

    /// Sets the bound of all pairs together, in bits a second.
    pub fn set_rate(&mut self, rate: u64) {
        self.config.rate = rate;
    }

    /// Adds a pair, or changes what this host wants of it. Returns false if there is no room.
    pub fn set(&mut self, secret: PairSecret, wish: Intent, now: Instant) -> bool {
        self.now = now;
        let peer = secret.other();
        if !self.pairs.contains_key(&peer) && self.pairs.len() >= MAX_PAIRS {
            self.share.count(DropReason::OutsideFull);
            return false;
        }
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair {
            secret,
            wish,
            sought_since: None,
            nodes: BTreeMap::new(),
            call: None,
        });
        pair.wish = wish;
        match wish.seeks {
            true => pair.sought_since = pair.sought_since.or(Some(now)),
            false => pair.sought_since = None,
        }
        // its key may be open
        match wish.seeks {
            true => self.call(peer),
            false => self.end_call(&peer),
        }
        self.review();
        true
    }

    /// Removes a pair: its links end at once.
    pub fn remove(&mut self, peer: &PeerId, now: Instant) {
        self.now = now;
        self.end_call(peer);
        self.forget(peer);
        self.review();
    }

    fn forget(&mut self, peer: &PeerId) {
        if let Some(pair) = self.pairs.remove(peer) {
            for node in pair.nodes.into_values() {
                self.end(node);
            }
        }
    }

    /// Returns the state of a pair.
    pub fn state(&self, peer: &PeerId) -> Option<PairState> {
        self.pairs.get(peer)?;
        let mut state = PairState {
            linked: false,
            linking: false,
            link: LinkInfo::default(),
            found_by: None,
        };
        let nodes = self.nodes_of(peer);
        for node in nodes.iter().filter_map(|id| self.nodes.get(id)) {
            for row in node.overlay.peers() {
                state.linking |= row.state == PeerState::Connecting && row.traffic.tx_packets > 0;
                if node.linked.is_some() && row.state == PeerState::Connected {
                    state.linked = true;
                    (state.link, state.found_by) = (row.link, row.carrier);
                }
            }
        }
        Some(state)
    }

    /// Returns the keys of all pairs, without calls of open keys.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        let pairs = self.pairs.iter();
        let pairs = pairs.filter(|(_, pair)| pair.call.is_none());
        pairs.map(|(peer, _)| peer)
    }

    /// Returns the names of the other's records around this time, for carriers that find by name.
    pub fn names(&self, node: ViewId) -> Vec<[u8; 32]> {
        let Some(node) = self.nodes.get(&node) else {
            return Vec::new();
        };
        let epoch = Rendezvous::new(node.network);
        let time = self.config.clock.now().as_secs();
        let days = [time.saturating_sub(DAY), time, time.saturating_add(DAY)];
        let times = days.map(librecast::time::UnixTime::from_secs);
        times.map(|time| epoch.name(&node.other, time)).into()
    }

    /// Returns the drops so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.share.drops();
        for node in self.nodes.values() {
            for (reason, count) in node.overlay.drops() {
                *all.entry(reason).or_default() += count;
            }
        }
        all
    }
}

/// Whether a packet of QUIC may begin so: the first bit marks a long header, the second is fixed
/// (RFC 9000 §17).
fn is_quic(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xc0 != 0)
}

/// Seconds of a day: names of records change with it.
const DAY: u64 = 86_400;

/// Inputs.
impl Pairs {
    /// Handles a server's report.
    pub fn handle_presence(
        &mut self,
        node: ViewId,
        carrier: CarrierId,
        presence: Presence,
        now: Instant,
    ) {
        self.now = now;
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        if let Presence::Online(peer) | Presence::Offline(peer) = presence
            && peer != known.other
        {
            return self.share.count(DropReason::PairThird);
        }
        if matches!(presence, Presence::Online(_)) {
            self.shown(node);
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.overlay.handle_presence(carrier, presence, now);
        }
        self.touched.insert(node);
    }

    /// Handles a sealed message from a server.
    pub fn handle_signal(
        &mut self,
        node: ViewId,
        (carrier, from): (CarrierId, PeerId),
        bytes: &[u8],
        now: Instant,
    ) {
        self.now = now;
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        if from != known.other {
            return self.share.count(DropReason::PairThird);
        }
        known.overlay.handle_signal(carrier, from, bytes, now);
        self.touched.insert(node);
    }

    /// Handles a presence record from a carrier.
    pub fn handle_record(
        &mut self,
        node: ViewId,
        (carrier, kind): (CarrierId, CarrierKind),
        sealed: &[u8],
        now: Instant,
    ) {
        self.now = now;
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        let taken = known.overlay.handle_record(kind, sealed, |_| true, now);
        let Ok((owner, _)) = taken else { return };
        if owner != known.other {
            return self.share.count(DropReason::PairThird);
        }
        let opened = Rendezvous::new(known.network).open(sealed, self.config.clock.now());
        let made = opened.map(|record| record.made).unwrap_or_default();
        if known.heard.is_none_or(|heard| heard < made) {
            known.heard = Some(made);
            known.answers_until = Some(now + ANSWERS_FOR);
        }
        self.shown(node);
        if let Some(known) = self.nodes.get_mut(&node) {
            let presence = Presence::Online(owner);
            known.overlay.handle_presence(carrier, presence, now);
        }
        self.touched.insert(node);
        self.review();
    }

    /// Handles a datagram from the UDP socket.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        self.now = now;
        match datagram.first() {
            Some(&CALL) => self.handle_call(from, to_local, datagram),
            Some(&COOKIE) => self.share.handle_cookie(from, datagram),
            _ => self.share.handle_datagram(from, to_local, datagram, now),
        }
    }

    /// Sends a packet of the streams with `peer`; it may get lost.
    pub fn send(&mut self, peer: &PeerId, packet: &[u8], now: Instant) {
        self.now = now;
        let nodes = self.nodes_of(peer);
        let linked = nodes.iter().filter_map(|id| {
            let linked = self.nodes.get(id)?.linked?;
            Some((linked.ends_at, *id, linked.link))
        });
        let linked: Vec<_> = linked.collect();
        // QUIC knows the other by its way: of a call and a pair, one is used as long as it lasts
        let used = self.opened.used(peer);
        let used = linked.iter().find(|(_, id, _)| Some(*id) == used);
        // of two links the one that is used
        let latest = || linked.iter().max_by_key(|(ends_at, ..)| *ends_at);
        let Some((_, id, link)) = used.or_else(latest).copied() else {
            return self.share.count(DropReason::OutsideNoLink);
        };
        self.opened.use_node(peer, id);
        if !is_quic(packet) {
            // the lane would take it for its own
            return self.share.count(DropReason::PairNotQuic);
        }
        let rate = Rate::bits_per_second(self.config.rate, BURST);
        if !self.bucket.take(rate, packet.len() as u64, now) {
            return self.share.count(DropReason::OutsideRate);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            // the streams send again
            let _ = node.overlay.send_data(link, [packet, &[]], now);
            self.touched.insert(id);
        }
    }

    /// Handles all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.share.handle_timeout(now);
        for (id, node) in &mut self.nodes {
            if node.overlay.next_timeout().is_some_and(|at| at <= now) {
                node.overlay.handle_timeout(now);
                self.touched.insert(*id);
            }
            if let Some(linked) = node.linked.filter(|linked| linked.ends_at <= now) {
                node.overlay.close_gracefully(linked.link, now);
                self.touched.insert(*id);
            }
        }
        if self.review_at <= now {
            self.review();
        }
    }

    /// Returns the latest time for the next call of [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&mut self) -> Instant {
        let nodes = self.nodes.values_mut();
        let nodes = nodes.flat_map(|node| {
            let idle = node.linked.map(|linked| linked.ends_at);
            [node.overlay.next_timeout(), idle]
        });
        let all = nodes.chain([self.share.next_timeout()]).flatten();
        all.fold(self.review_at, Instant::min)
    }

    /// Ends all links; the owner sends the remaining datagrams, and stops.
    pub fn shutdown(&mut self, now: Instant) {
        self.now = now;
        for node in self.nodes.values_mut() {
            node.overlay.shutdown(now);
        }
    }
}

/// Outputs.
impl Pairs {
    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<PairsOutput> {
        if self.share.has_moved() {
            self.publish_open();
        }
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let ready = self.touched.pop_first();
            let id = ready.or_else(|| self.share.poll_ready())?;
            while let Some(event) = self.next_event(id) {
                self.handle_event(id, event);
            }
        }
    }

    /// Returns the next datagram to send.
    #[must_use]
    pub fn poll_transmit(&self) -> Option<Transmit> {
        self.share.poll_transmit()
    }

    fn next_event(&mut self, id: ViewId) -> Option<Event> {
        let now = self.now;
        self.nodes.get_mut(&id)?.overlay.poll_event(now)
    }

    fn handle_event(&mut self, id: ViewId, event: Event) {
        let now = self.now;
        let linked = self.linked();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let peer = node.peer;
        let pair = self.pairs.get(&peer);
        let call = pair.and_then(|pair| pair.call.as_ref());
        let is_guest = call.is_some_and(|call| call.is_guest());
        let meant = call.map_or(peer, |call| call.stands_for);
        match event {
            Event::LinkUp { link, member } if member.peer != node.other => {
                self.share.count(DropReason::PairThird);
                let reason = EndReason::Fault("a third in a pair");
                node.overlay.close_link(link, reason, now);
            }
            Event::LinkUp { link, .. } if linked >= MAX_LINKED && !is_guest => {
                self.share.count(DropReason::OutsideFull);
                node.overlay.close_gracefully(link, now);
            }
            Event::LinkUp { link, .. } => {
                let ends_at = now + PROVES_WITHIN;
                node.linked = Some(Linked { link, ends_at });
                node.answers_until = None;
                self.changed(meant);
                if is_guest {
                    self.guest_linked(peer, id, link);
                }
            }
            Event::LinkDown { link, .. } => {
                node.linked.take_if(|linked| linked.link == link);
                self.changed(meant);
                if is_guest {
                    self.guest_unlinked(peer);
                }
            }
            Event::Data { message, .. } if !is_quic(&message) => {
                self.share.count(DropReason::PairNotQuic);
            }
            Event::Data { link, message } => {
                if let Some(linked) = &mut node.linked
                    && linked.link == link
                {
                    linked.ends_at = now + IDLE;
                }
                if is_guest {
                    self.opened.guests.seen(&peer, now);
                }
                let packet = PairsOutput::Packet {
                    peer: meant,
                    packet: message,
                };
                self.outputs.push_back(packet);
            }
            Event::Control { link, .. } => {
                self.share.count(DropReason::PairControl);
                let reason = EndReason::Fault("a control message in a pair");
                node.overlay.close_link(link, reason, now);
            }
            Event::Signal { bytes, .. } if call.is_some() => self.say_in_room(peer, &bytes),
            Event::Signal { to, bytes, .. } => {
                let signal = PairsOutput::Signal {
                    node: id,
                    to,
                    bytes,
                };
                self.outputs.push_back(signal);
            }
            Event::AddressesChanged => {
                node.publish_at = node.publish_at.min(now + SETTLES_IN);
                self.review_at = self.review_at.min(node.publish_at);
            }
            Event::RoundTrip { .. } | Event::PeerRefused { .. } => self.changed(meant),
            // a pair revokes nothing, and has no other routers
            Event::DirectFailure { .. } | Event::Revocation { .. } | Event::KeyConflict(_) => {}
        }
    }

    fn changed(&mut self, peer: PeerId) {
        self.outputs.push_back(PairsOutput::Changed(peer));
        self.review_at = self.now;
    }

    /// Returns whether any link is up.
    pub fn has_links(&self) -> bool {
        self.nodes.values().any(|node| node.linked.is_some())
    }

    /// Returns the number of links that are up, without those of callers.
    fn linked(&self) -> usize {
        let nodes = self.nodes.values();
        let linked = nodes.filter(|node| node.linked.is_some());
        linked.count() - self.opened.guests.with_links().len()
    }
}

/// Periods, records, and whose links begin.
impl Pairs {
    fn review(&mut self) {
        let (now, time) = (self.now, self.config.clock.now());
        self.review_at = now + RENEWED_AFTER;
        let mut due = Vec::new();
        let mut count = 0;
        // sought keys come first, then keys that have waited before
        let order = self.pairs.iter();
        let order = order.map(|(key, p)| (!p.wish.seeks, p.nodes.is_empty(), *key));
        let mut order: Vec<_> = order.collect();
        order.sort_unstable();
        for (_, _, peer) in order {
            let Some(pair) = self.pairs.get_mut(&peer) else {
                continue;
            };
            let Intent { waits, seeks } = pair.wish;
            let mut periods = BTreeSet::new();
            // calls have bounds of their own
            let call = pair.call.as_ref();
            periods.extend(call.map(|call| call.period));
            let is_call = call.is_some();
            if (waits || seeks) && count < MAX_WAITING && !is_call {
                count += 1;
                periods.extend(pair.secret.periods(time));
                let change = pair.secret.changes_at(time);
                due.push(
                    now + Duration::from_secs(change.as_secs().saturating_sub(time.as_secs())),
                );
            }
            if let Some(since) = pair.sought_since.filter(|_| !is_call) {
                let present = pair.secret.period(time);
                match now.saturating_duration_since(since) >= NEIGHBORS_AFTER {
                    true => periods.extend([present.saturating_sub(1), present + 1]),
                    false => due.push(since + NEIGHBORS_AFTER),
                }
            }
            let nodes = &self.nodes;
            let is_linked = |id: &ViewId| nodes.get(id).is_some_and(|node| node.linked.is_some());
            let kept = |period: &u64, id: &ViewId| periods.contains(period) || is_linked(id);
            let (left, over): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut pair.nodes)
                .into_iter()
                .partition(|(p, id)| kept(p, id));
            pair.nodes = left;
            let new = periods.into_iter().filter(|p| !pair.nodes.contains_key(p));
            let new: Vec<_> = new.collect();
            for id in over.into_values() {
                self.end(id);
            }
            for period in new {
                self.start(peer, period);
            }
        }
        self.review_open(&mut due);
        self.review_links(&mut due);
        self.publish(&mut due);
        self.review_at = due.into_iter().fold(self.review_at, Instant::min);
        // a change that is due now waits for a moment, as a clock may stand still
        self.review_at = self.review_at.max(now + Duration::from_millis(1));
    }

    fn start(&mut self, peer: PeerId, period: u64) {
        let Some(pair) = self.pairs.get_mut(&peer) else {
            return;
        };
        let network = match pair.secret.network(period) {
            Ok(network) => network,
            Err(e) => return tracing::error!("{peer}: {e}"),
        };
        let own = Arc::new(network.own);
        let view = self.share.view(network.hint);
        let id = view.id();
        let config = OverlayConfig {
            identity: Identity::new(own.clone(), network.network, network.chain),
            clock: self.config.clock.clone(),
            epoch: self.config.epoch,
            seed: self.random.array(),
            limits: limits(),
        };
        let node = Node {
            peer,
            other: network.other,
            network: network.network,
            overlay: Overlay::new(config, view, self.now),
            linked: None,
            heard: None,
            answers_until: None,
            publish_at: self.now,
            announced: false,
            present: None,
        };
        pair.nodes.insert(period, id);
        self.nodes.insert(id, node);
        if pair.call.is_some() {
            // it is in the room of the open key
            return self.begin_call(peer, (period, id));
        }
        self.outputs.push_back(PairsOutput::Start(Box::new(Started {
            node: id,
            peer,
            own,
            other: network.other,
            network: network.network,
        })));
    }

    fn end(&mut self, id: ViewId) {
        if let Some(mut node) = self.nodes.remove(&id) {
            node.overlay.shutdown(self.now);
            self.touched.remove(&id);
            // for a call it says nothing
            self.outputs.push_back(PairsOutput::End(id));
            self.outputs.push_back(PairsOutput::Changed(node.peer));
        }
    }

    /// Notes that a carrier shows the other in this period.
    fn shown(&mut self, id: ViewId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.present.is_some() {
            return;
        }
        node.present = Some(now);
        let peer = node.peer;
        if let Some((turn, _)) = self.turn(&peer)
            && turn != id
        {
            // before it begins
            if let Some(node) = self.nodes.get_mut(&id) {
                node.overlay.set_wanted(BTreeSet::new(), now);
            }
        }
        self.review_at = now;
    }

    /// Returns the period of a pair whose link may begin, and until when, if the other is there in
    /// several: two links between the same sockets disturb each other. Both sides see it about the
    /// same time, and begin with the earliest.
    fn turn(&self, peer: &PeerId) -> Option<(ViewId, Instant)> {
        let nodes = self.pairs.get(peer)?.nodes.values();
        let there = nodes.filter_map(|id| Some((*id, self.nodes.get(id)?.present?)));
        let there: Vec<_> = there.collect();
        let since = there.iter().map(|(_, since)| *since).min()?;
        let turn = self.now.saturating_duration_since(since).as_secs() / BEGINS_FOR.as_secs();
        let until = since + BEGINS_FOR * (turn as u32 + 1);
        let (id, _) = *there.get(turn as usize % there.len())?;
        (there.len() > 1).then_some((id, until))
    }

    /// Decides whose links may begin.
    fn review_links(&mut self, due: &mut Vec<Instant>) {
        let now = self.now;
        let mut wants = BTreeSet::new();
        let sought = self.pairs.keys();
        let later: Vec<_> = sought.filter(|peer| !self.may_begin(peer, due)).collect();
        let later: BTreeSet<_> = later.into_iter().copied().collect();
        for node in self.nodes.values_mut() {
            node.answers_until.take_if(|until| *until <= now);
            due.extend(node.answers_until);
            if later.contains(&node.peer) {
                continue;
            }
            let seeks = self.pairs.get(&node.peer).is_some_and(|p| p.wish.seeks);
            if seeks || node.answers_until.is_some() {
                wants.insert(node.peer);
            }
        }
        // a link with the key of the day is one with the open key
        let pairs = &self.pairs;
        let meant = |peer: PeerId| {
            let call = pairs.get(&peer).and_then(|pair| pair.call.as_ref());
            call.map_or(peer, |call| call.stands_for)
        };
        let nodes = self.nodes.values();
        let linked: BTreeSet<_> = nodes
            .filter(|n| n.linked.is_some())
            .map(|n| meant(n.peer))
            .collect();
        let is_linked = |peer: &PeerId| linked.contains(&meant(*peer));
        let is_queued = wants.iter().filter(|peer| !is_linked(peer)).count() > MAX_BEGINNING;
        self.begin.retain(|peer, since| {
            let is_over = is_queued && *since + BEGINS_FOR <= now;
            wants.contains(peer) && !is_linked(peer) && !is_over
        });
        for peer in wants.iter().filter(|peer| !is_linked(peer)) {
            if self.begin.len() < MAX_BEGINNING {
                self.begin.entry(*peer).or_insert(now);
            }
        }
        if is_queued {
            due.extend(self.begin.values().map(|since| *since + BEGINS_FOR));
        }
        let begun = self.begin.keys().filter(|peer| !is_linked(peer));
        let turns = begun.filter_map(|peer| Some((*peer, self.turn(peer)?)));
        let turns: BTreeMap<_, _> = turns.collect();
        due.extend(turns.values().map(|(_, until)| *until));
        for (id, node) in &mut self.nodes {
            let seeks = self.pairs.get(&node.peer).is_some_and(|p| p.wish.seeks);
            let has_turn = turns.get(&node.peer).is_none_or(|(turn, _)| turn == id);
            let wanted = match is_linked(&node.peer) {
                true => seeks && node.linked.is_some(),
                false => {
                    has_turn
                        && self.begin.contains_key(&node.peer)
                        && (seeks || node.answers_until.is_some())
                }
            };
            let wanted = wanted.then_some(node.other).into_iter().collect();
            node.overlay.set_wanted(wanted, now);
            self.touched.insert(*id);
        }
    }

    /// Makes the records that are due.
    fn publish(&mut self, due: &mut Vec<Instant>) {
        let now = self.now;
        for (id, node) in &mut self.nodes {
            let seeks = self.pairs.get(&node.peer).is_some_and(|p| p.wish.seeks);
            let is_call = self.pairs.get(&node.peer).is_some_and(|p| p.call.is_some());
            if is_call {
                continue;
            }
            let announced = node.linked.is_none() && (seeks || node.answers_until.is_some());
            if node.publish_at <= now || announced != node.announced {
                if let Some(record) = node.overlay.record(now) {
                    node.announced = announced;
                    self.outputs.push_back(PairsOutput::Record {
                        node: *id,
                        record,
                        announced,
                    });
                }
                node.publish_at = now + RENEWED_AFTER;
            }
            due.push(node.publish_at);
        }
    }
}

#[cfg(test)]
mod tests;
