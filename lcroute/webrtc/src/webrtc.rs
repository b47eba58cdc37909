//! All connections of a node over one UDP socket, without any I/O.
//!
//! A datagram finds its connection by a value that belongs to that connection alone. A check has
//! the user fragment in its USERNAME, a response its transaction, a media packet its SSRC.
//! Everything else comes from a remote address that ICE has validated. This file has these tables,
//! the timers, and the work of each turn; [`crate::connection`] has a single connection.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use lcroute_overlay::{
    Candidate, CandidateKind, Closing, ConnectionEvent, Connections, Description, Fingerprint,
    LinkInfo, Path, PathKind, Random, SendError, Traffic,
};
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};
use thiserror::Error;
use tracing::debug;

use crate::addresses::Addresses;
use crate::config::WebRtcConfig;
use crate::connection::{By, Connection, Context, Out, Pending, Priority};
use crate::datagram::{Ecn, Transmit, Unreachable};
use crate::drops::DropReason;
use crate::liveness::next_hello_at;
use crate::media::ssrc_of;
use crate::peer_connection::Factory;
use crate::records::is_encrypted;
use crate::relay::{Change, RelayOffer, RelayStatus, Relays, StreamCommand, StreamEvent};
use crate::stun::{Binding, Class, TxId, request_id};
use crate::uplink::Uplink;

/// Lifetime of a remembered ICE check. ICE itself forgets a check after 4 s.
const CHECK_LIFETIME: Duration = Duration::from_secs(5);
/// Bound of remembered checks.
const MAX_CHECKS: usize = 65_536;
/// Bound of DTLS datagrams kept until their path is known. Chosen: one flight.
const MAX_EARLY_DATAGRAMS: usize = 16;
/// Bound of such a datagram's length, in bytes: Ethernet's MTU.
const MAX_EARLY_BYTES: usize = 1_500;
/// Datagrams handled before connections are drained: `rtc` holds 256 messages at most.
const DRAIN_EVERY: u32 = 128;
/// First byte of a sealed message straight to a peer. RFC 7983 assigns it to no protocol.
const STRAIGHT: u8 = 0xc0;

/// Reason why connections cannot be made.
#[derive(Debug, Error)]
pub enum WebRtcError {
    /// The DTLS certificate could not be made.
    #[error("cannot make a DTLS certificate: {0}")]
    Certificate(String),
}

/// All WebRTC connections of a node.
///
/// The owner hands in datagrams and empties [`Self::poll_transmit`] after each turn. If a turn has
/// several datagrams, acknowledgements share packets.
#[derive(Debug)]
pub struct WebRtc {
    context: Context,
    addresses: Addresses,
    relays: Relays,
    random: Random,
    now: Instant,
    connections: Vec<Option<Connection>>,
    index: Index,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Connections with events or datagrams to drain.
    dirty: Vec<usize>,
    /// Connections with output in the media lane.
    sending: Vec<usize>,
    uplink: Uplink,
    /// Datagrams handled since the last drain.
    undrained: u32,
    early: VecDeque<Early>,
    /// Whether a description waits for addresses.
    awaiting: bool,
    /// Links that are about to begin, and whose peers must not learn addresses of this host.
    relay_only: BTreeSet<LinkId>,
    /// Whether `relay_only` has had a link in this run.
    hides: bool,
    out: Out,
}

/// A DTLS datagram received before its path was known.
#[derive(Debug)]
struct Early {
    from: SocketAddr,
    to_local: SocketAddr,
    datagram: Bytes,
}

/// Tables that find the connection of a datagram.
#[derive(Debug, Default)]
struct Index {
    links: HashMap<LinkId, usize>,
    addresses: HashMap<SocketAddr, usize>,
    ufrags: HashMap<String, usize>,
    /// SSRCs of received packets; they find the connection if the address is unknown.
    ssrcs: HashMap<u32, usize>,
    /// Transactions of ICE checks under way; they find the connection of a response.
    checks: HashMap<TxId, usize>,
    check_order: VecDeque<(Instant, TxId)>,
}

impl Index {
    /// Remembers the transaction if the sent datagram is an ICE check.
    fn note_check(&mut self, datagram: &[u8], index: usize, now: Instant) {
        if let Some(id) = request_id(datagram) {
            self.checks.insert(id, index);
            self.check_order.push_back((now, id));
        }
        while let Some((at, id)) = self.check_order.front() {
            if *at + CHECK_LIFETIME > now && self.check_order.len() <= MAX_CHECKS {
                break;
            }
            self.checks.remove(id);
            self.check_order.pop_front();
        }
    }

    fn forget_path(&mut self, connection: &Connection, index: usize) {
        if let Some(ufrag) = connection.ufrag() {
            self.ufrags.remove(ufrag);
        }
        if let Some(path) = connection.path()
            && self.addresses.get(&path.remote) == Some(&index)
        {
            self.addresses.remove(&path.remote);
        }
    }

    fn forget(&mut self, connection: &Connection, index: usize) {
        self.links.remove(&connection.id);
        self.forget_path(connection, index);
        if let Some(ssrc) = connection.receiving_ssrc()
            && self.ssrcs.get(&ssrc) == Some(&index)
        {
            self.ssrcs.remove(&ssrc);
        }
    }
}

/// Methods beside [`Connections`].
impl WebRtc {
    /// Makes a `WebRtc` without connections.
    ///
    /// # Errors
    /// The DTLS certificate of this process cannot be made.
    pub fn new(config: WebRtcConfig, now: Instant) -> Result<Self, WebRtcError> {
        let factory = Factory::new(&config);
        let factory = factory.map_err(|e| WebRtcError::Certificate(e.to_string()))?;
        let mut random = Random::new(config.seed);
        Ok(Self {
            context: Context {
                config,
                factory,
                behind: false,
            },
            addresses: Addresses::new(Random::new(random.array())),
            relays: Relays::new(now),
            random,
            now,
            connections: Vec::new(),
            index: Index::default(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            sending: Vec::new(),
            uplink: Uplink::new(now),
            undrained: 0,
            early: VecDeque::new(),
            awaiting: false,
            relay_only: BTreeSet::new(),
            hides: false,
            out: Out::default(),
        })
    }

    /// Whether more addresses may become known soon: a STUN server has not answered yet.
    pub fn awaits_addresses(&self, now: Instant) -> bool {
        self.addresses.are_awaited(now)
    }

    /// Sets the addresses of the UDP socket, best first; at most eight count. Links without their
    /// local address need a restart; attempts under way begin anew.
    pub fn set_local_candidates(&mut self, hosts: Vec<SocketAddr>, now: Instant) {
        self.observe(now);
        if !self.addresses.set_hosts(hosts, now) {
            return;
        }
        let hosts = self.addresses.hosts();
        debug!(addresses = ?hosts, "local addresses");
        let relayed = self.relays.relayed();
        self.relays.set_hosts(hosts, now);
        for connection in self.connections.iter().flatten() {
            let link = connection.id;
            let kept = |path: Path| hosts.contains(&path.local) || relayed == Some(path.local);
            if connection.up.is_none() {
                if connection.pc.is_some() {
                    self.out
                        .events
                        .push_back(ConnectionEvent::Outdated { link });
                }
            } else if !connection.path().is_some_and(kept) {
                self.out
                    .events
                    .push_back(ConnectionEvent::PathLost { link });
            }
        }
        let changed = [
            ConnectionEvent::AddressesChanged,
            ConnectionEvent::CandidatesChanged,
        ];
        self.out.events.extend(changed);
        self.seek_better_paths();
        self.handle_relay_changes();
        self.describe_pending();
    }

    /// Sets the relays that may be used, best first. One is used if no direct path leads to a peer.
    pub fn set_relays(&mut self, offers: Vec<RelayOffer>, now: Instant) {
        self.observe(now);
        self.relays.offer(offers, now);
        self.handle_relay_changes();
        self.describe_pending();
    }

    /// Handles an event of a stream to a relay.
    pub fn handle_relay_stream(&mut self, stream: u64, event: StreamEvent, now: Instant) {
        self.observe(now);
        let handled = self.relays.handle_stream(stream, event, now);
        self.count_dropped(handled);
        self.take_relayed();
    }

    /// Returns the next command for a stream to a relay, after all of [`Self::poll_transmit`].
    pub fn poll_relay_stream(&mut self) -> Option<StreamCommand> {
        self.relays.poll_command()
    }

    /// Returns the state of relays.
    pub fn relay_status(&self) -> RelayStatus {
        self.relays.status()
    }

    /// Sets the STUN servers, which are asked repeatedly for the server-reflexive address.
    pub fn set_stun_servers(&mut self, servers: Vec<SocketAddr>, now: Instant) {
        self.observe(now);
        self.addresses.set_servers(servers, now);
        self.poll_addresses();
    }

    /// Sets the address that the router maps to the UDP socket, if any.
    pub fn set_mapped(&mut self, mapped: Option<SocketAddr>, now: Instant) {
        self.observe(now);
        if !self.addresses.set_mapped(mapped) {
            return;
        }
        debug!(?mapped, "mapped address");
        let event = ConnectionEvent::CandidatesChanged;
        self.out.events.push_back(event);
        if mapped.is_none() {
            return;
        }
        self.trickle(CandidateKind::Mapped, mapped.as_slice());
        self.seek_better_paths();
    }

    /// Sets this host's address outside of a NAT that keeps ports, if it is known.
    pub fn set_outer(&mut self, outer: Option<Ipv4Addr>, now: Instant) {
        self.observe(now);
        let before = self.addresses.reflexive();
        self.addresses.set_outer(outer);
        self.offer_reflexive(&before);
    }

    /// Offers server-reflexive addresses that were not there before.
    fn offer_reflexive(&mut self, before: &[SocketAddr]) {
        let mut added = self.addresses.reflexive();
        if added == before {
            return;
        }
        debug!(addresses = ?added, "server-reflexive addresses");
        self.out
            .events
            .push_back(ConnectionEvent::CandidatesChanged);
        added.retain(|address| !before.contains(address));
        if !added.is_empty() {
            self.trickle(CandidateKind::ServerReflexive, &added);
            self.seek_better_paths();
        }
    }

    /// Offers new addresses to peers that have a description but no path yet.
    fn trickle(&mut self, kind: CandidateKind, addresses: &[SocketAddr]) {
        let candidate = |addr: &SocketAddr| Candidate { kind, addr: *addr };
        let described = self.connections.iter().flatten();
        let described = described.filter(|c| c.is_described() && !c.relay_only);
        for connection in described.filter(|c| c.up.is_none() && c.path().is_none()) {
            let candidates = addresses.iter().map(candidate).collect();
            let link = connection.id;
            let event = ConnectionEvent::Candidates { link, candidates };
            self.out.events.push_back(event);
        }
    }

    /// Handles a datagram from the UDP socket; `to_local` is the local address that received it.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        ecn: Ecn,
        now: Instant,
    ) {
        self.observe(now);
        if self.relays.takes(from, datagram) {
            let handled = self.relays.handle_message(datagram, now);
            self.count_dropped(handled);
            self.take_relayed();
        } else {
            self.sort(from, to_local, datagram, ecn);
        }
    }

    fn count_dropped(&mut self, handled: Result<(), DropReason>) {
        if let Err(reason) = handled {
            self.out.count(reason);
        }
    }

    /// Handles datagrams that peers sent to our address at the relay.
    fn take_relayed(&mut self) {
        while let (Some((from, contents)), Some(relayed)) =
            (self.relays.poll_received(), self.relays.relayed())
        {
            self.sort(from, relayed, &contents, Ecn::None);
        }
        self.handle_relay_changes();
    }

    fn sort(&mut self, from: SocketAddr, to_local: SocketAddr, datagram: &[u8], ecn: Ecn) {
        // RFC 7983
        match datagram.first() {
            Some(0..=3) => self.handle_stun(from, to_local, datagram),
            Some(20..=63) => match self.index.addresses.get(&from) {
                Some(&index) if self.is_hidden_at(index, to_local) => {
                    self.out.count(DropReason::LinkHidden);
                }
                Some(&index) => self.handle_dtls(index, from, to_local, datagram),
                None => self.keep_early(from, to_local, datagram),
            },
            Some(&STRAIGHT) => {
                let path = Path {
                    local: to_local,
                    remote: from,
                };
                let datagram = Bytes::copy_from_slice(&datagram[1..]);
                let event = ConnectionEvent::Straight { path, datagram };
                self.out.events.push_back(event);
            }
            Some(128..=191) => self.handle_media((from, to_local), datagram, ecn),
            _ => self.out.count(DropReason::UdpNoProtocol),
        }
    }

    /// Handles an ICMP error for a datagram of ours.
    pub fn handle_unreachable(&mut self, error: &Unreachable<'_>, now: Instant) {
        self.observe(now);
        let Some(&index) = self.index.addresses.get(&error.remote) else {
            return self.out.count(DropReason::IcmpNoLink);
        };
        if let Some(connection) = self.connection_mut(index) {
            connection.handle_unreachable(error, now);
            self.schedule(index);
        }
    }

    /// Handles datagrams to `to` that this host did not send, perhaps for their `size`.
    pub fn handle_unsent(&mut self, to: SocketAddr, size: usize, datagrams: u64, now: Instant) {
        self.observe(now);
        if let Some(&index) = self.index.addresses.get(&to)
            && let Some(connection) = self.connection_mut(index)
        {
            connection.handle_unsent(size, datagrams, now);
            self.schedule(index);
        }
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.out.transmits.is_empty() {
            self.drain_dirty();
            self.finish_lanes();
            // messages of a stalled lane go on the channel
            self.drain_dirty();
        }
        loop {
            if let Some(transmit) = self.relays.poll_transmit() {
                return Some(transmit);
            }
            let transmit = self.out.transmits.pop_front()?;
            if transmit.from.is_none() || transmit.from != self.relays.relayed() {
                if self.is_kept_back(&transmit) {
                    self.out.count(DropReason::KeptBack);
                    continue;
                }
                return Some(transmit);
            }
            let contents = &transmit.contents;
            if !self.relays.send(transmit.to, contents, self.now) {
                self.out.count(DropReason::RelayNotReady);
            }
        }
    }

    /// Returns the next hello time after `now` among those that are `hellos` hello intervals apart.
    pub fn next_hello(&self, now: Instant, hellos: u32) -> Instant {
        next_hello_at(self.context.config.epoch, now, hellos)
    }
}

/// Datagrams.
impl WebRtc {
    fn handle_dtls(
        &mut self,
        index: usize,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
    ) {
        let up = self.connection(index).is_some_and(|c| c.up.is_some());
        if up && !is_encrypted(datagram) {
            // a link that is up sends no plaintext: the datagram is late, or forged
            return self.out.count(DropReason::DtlsPlaintext);
        }
        self.feed(index, (from, to_local), datagram);
    }

    fn feed(&mut self, index: usize, path: (SocketAddr, SocketAddr), datagram: &[u8]) {
        let now = self.now;
        let Some(connection) = self.connection_mut(index) else {
            return;
        };
        connection.feed(path, datagram, now);
        let young = connection.is_young();
        self.mark_dirty(index);
        self.undrained += 1;
        if young || self.undrained >= DRAIN_EVERY {
            self.drain_dirty();
        }
    }

    /// Keeps a DTLS datagram of an unknown address: the first flight may overtake its ICE check.
    fn keep_early(&mut self, from: SocketAddr, to_local: SocketAddr, datagram: &[u8]) {
        let making = self.connections.iter().flatten().any(|c| c.up.is_none());
        if !making || datagram.len() > MAX_EARLY_BYTES {
            return self.out.count(DropReason::UdpNoLink);
        }
        if self.early.len() == MAX_EARLY_DATAGRAMS {
            self.early.pop_front();
        }
        self.early.push_back(Early {
            from,
            to_local,
            datagram: Bytes::copy_from_slice(datagram),
        });
    }

    fn feed_early(&mut self, index: usize, remote: SocketAddr) {
        let now = self.now;
        for early in std::mem::take(&mut self.early) {
            if early.from != remote {
                self.early.push_back(early);
            } else if self.is_hidden_at(index, early.to_local) {
                self.out.count(DropReason::LinkHidden);
            } else if let Some(connection) = self.connection_mut(index) {
                connection.feed((early.from, early.to_local), &early.datagram, now);
            }
        }
    }

    fn handle_stun(&mut self, from: SocketAddr, to_local: SocketAddr, datagram: &[u8]) {
        let Some(mut binding) = Binding::parse(datagram) else {
            return self.out.count(DropReason::StunMalformed);
        };
        match binding.class() {
            Class::Request => {
                let username = binding.username().unwrap_or_default();
                let ours = username.split(':').next().unwrap_or_default();
                let Some(&index) = self.index.ufrags.get(ours) else {
                    return self.out.count(DropReason::StunNoLink);
                };
                if self.is_hidden_at(index, to_local) {
                    return self.out.count(DropReason::LinkHidden);
                }
                if !self.answer_hello(index, from, &mut binding) {
                    self.feed(index, (from, to_local), datagram);
                }
            }
            Class::Response => {
                let at_address = self.index.addresses.get(&from).copied();
                let check = self.index.checks.get(&binding.id()).copied();
                let hidden = check.or(at_address);
                if hidden.is_some_and(|index| self.is_hidden_at(index, to_local)) {
                    return self.out.count(DropReason::LinkHidden);
                }
                if let Some(index) = self.index.checks.remove(&binding.id()) {
                    self.feed(index, (from, to_local), datagram);
                } else if !self.handle_hello_answer(from, &mut binding) {
                    self.handle_mapping(&binding, from);
                }
            }
            Class::Other => self.out.count(DropReason::StunMalformed),
        }
    }

    fn answer_hello(&mut self, index: usize, from: SocketAddr, request: &mut Binding) -> bool {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let answered =
            connection.answer_hello(from, request, &self.context, &mut self.out, self.now);
        if answered {
            self.schedule(index);
        }
        answered
    }

    fn handle_hello_answer(&mut self, from: SocketAddr, answer: &mut Binding) -> bool {
        let Some(&index) = self.index.addresses.get(&from) else {
            return false;
        };
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let ours = connection.handle_hello_answer(answer, &self.context, &mut self.out, self.now);
        self.schedule(index);
        ours
    }

    fn handle_mapping(&mut self, response: &Binding, from: SocketAddr) {
        let before = self.addresses.reflexive();
        match self.addresses.handle_response(response, from, self.now) {
            None => self.out.count(DropReason::StunUnasked),
            Some(_) => self.offer_reflexive(&before),
        }
        self.describe_pending();
    }

    fn handle_media(
        &mut self,
        (from, to_local): (SocketAddr, SocketAddr),
        datagram: &[u8],
        ecn: Ecn,
    ) {
        let Some(index) = self.media_index(from, datagram) else {
            return self.out.count(DropReason::MediaNoLink);
        };
        if self.is_hidden_at(index, to_local) {
            return self.out.count(DropReason::LinkHidden);
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return self.out.count(DropReason::UnauthenticatedData);
        };
        connection.handle_media(datagram, ecn, &mut self.out, self.now);
        self.list(index);
        self.schedule_lane(index);
    }

    /// Finds the connection of a media packet. The keys decide in the end. The address is a hint,
    /// and may be outdated if the peer's path has changed.
    fn media_index(&self, from: SocketAddr, datagram: &[u8]) -> Option<usize> {
        let ssrc = ssrc_of(datagram)?;
        let by_address = self.index.addresses.get(&from).copied().filter(|index| {
            let receiving = self.connection(*index).and_then(Connection::receiving_ssrc);
            receiving.is_none_or(|receiving| receiving == ssrc)
        });
        by_address.or_else(|| self.index.ssrcs.get(&ssrc).copied())
    }
}

/// Turns and timers.
impl WebRtc {
    fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn connection(&self, index: usize) -> Option<&Connection> {
        self.connections.get(index)?.as_ref()
    }

    fn connection_of(&self, link: LinkId) -> Option<&Connection> {
        self.connection(*self.index.links.get(&link)?)
    }

    fn connection_mut(&mut self, index: usize) -> Option<&mut Connection> {
        self.connections.get_mut(index)?.as_mut()
    }

    fn find(&mut self, link: LinkId) -> Option<(usize, &mut Connection)> {
        let index = *self.index.links.get(&link)?;
        Some((index, self.connections.get_mut(index)?.as_mut()?))
    }

    fn insert(&mut self, link: LinkId, pending: Pending) {
        let seed = u64::from_be_bytes(self.random.array());
        let mut connection = Connection::new(link, pending, seed);
        if self.relay_only.remove(&link) {
            self.hides = true;
            connection.await_relay(self.now);
        }
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[index] = Some(connection);
        self.index.links.insert(link, index);
        self.describe(index);
        self.schedule(index);
    }

    /// Whether a connection that uses relays alone must ignore datagrams received at this address.
    fn is_hidden_at(&self, index: usize, to_local: SocketAddr) -> bool {
        let relay_only = self.connection(index).is_some_and(|c| c.relay_only);
        relay_only && self.relays.relayed() != Some(to_local)
    }

    /// Whether a datagram would reveal a host address: its relayed source address is gone.
    fn is_kept_back(&self, transmit: &Transmit) -> bool {
        let from_host = |from| self.addresses.hosts().contains(&from);
        self.hides && transmit.from.is_some_and(|from| !from_host(from))
    }

    /// Makes links over a relay look for a better path now.
    fn seek_better_paths(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            connection.seek_better_path(&mut self.out, self.now);
        }
    }

    /// Handles changes of the allocation: its links need another path, waiting attempts begin anew.
    fn handle_relay_changes(&mut self) {
        let mut changed = false;
        while let Some(change) = self.relays.poll_change() {
            changed = true;
            for connection in self.connections.iter().flatten() {
                let link = connection.id;
                match (change, connection.path()) {
                    (Change::Lost(relayed), Some(path)) if path.local == relayed => {
                        let lost = ConnectionEvent::PathLost { link };
                        self.out.events.push_back(lost);
                    }
                    (Change::Allocated, None) if connection.has_waited(self.now) => {
                        let outdated = ConnectionEvent::Outdated { link };
                        self.out.events.push_back(outdated);
                    }
                    _ => {}
                }
            }
        }
        if changed {
            self.describe_pending();
        }
    }

    /// Handles a missing path: offers our relayed address to the peer, or asks a relay for one.
    fn handle_stuck(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else {
            return;
        };
        if connection.relay_only && connection.pc.is_none() {
            if let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) {
                connection.end_without_relay(&mut self.out);
            }
            return;
        }
        match (self.relays.relayed(), connection.relayed()) {
            (Some(relayed), known) if known != Some(relayed) => {
                let link = connection.id;
                let outdated = ConnectionEvent::Outdated { link };
                self.out.events.push_back(outdated);
            }
            (None, _) => self
                .relays
                .need(self.addresses.are_dead(self.now), self.now),
            _ => {}
        }
        self.handle_relay_changes();
    }

    /// Lets the peer send to our relayed address from its candidates.
    fn permit(&mut self, index: usize) {
        let connection = self.connections.get(index).and_then(Option::as_ref);
        if let Some(connection) = connection
            && connection.relayed().is_some()
            && let Some(pc) = &connection.pc
        {
            self.relays.permit(pc.remote_addresses(), self.now);
        }
    }

    /// Makes the descriptions that waited for addresses.
    fn describe_pending(&mut self) {
        if std::mem::take(&mut self.awaiting) {
            (0..self.connections.len()).for_each(|index| self.describe(index));
        }
    }

    fn describe(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if connection.pending.is_none() {
            return;
        }
        // a restart has other credentials, and another path later
        let before = (connection.ufrag().map(str::to_owned), connection.path());
        if connection.describe(
            &self.addresses,
            &mut self.relays,
            &self.context,
            &mut self.out,
            self.now,
        ) {
            if let Some(ufrag) = before.0 {
                self.index.ufrags.remove(&ufrag);
            }
            if let Some(path) = before.1 {
                self.index.addresses.remove(&path.remote);
            }
            if let Some(ufrag) = connection.ufrag() {
                self.index.ufrags.insert(ufrag.to_owned(), index);
            }
            self.permit(index);
            self.mark_dirty(index);
        } else {
            self.awaiting = true;
        }
    }

    /// Returns the time at which a description no longer waits for servers.
    fn describes_at(&self) -> Option<Instant> {
        if !self.awaiting || self.addresses.hosts().is_empty() {
            return None;
        }
        let connections = self.connections.iter().flatten();
        connections.filter_map(Connection::describes_at).min()
    }

    /// Whether a link, or an attempt at one, uses our relayed address.
    fn relay_is_used(&self) -> bool {
        let Some(relayed) = self.relays.relayed() else {
            return false;
        };
        let mut all = self.connections.iter().flatten();
        all.any(|c| match c.path() {
            Some(path) => path.local == relayed,
            None => c.relayed() == Some(relayed),
        })
    }

    fn poll_addresses(&mut self) {
        let transmits = &mut self.out.transmits;
        self.addresses.poll(self.now, |t| transmits.push_back(t));
    }

    fn mark_dirty(&mut self, index: usize) {
        if let Some(connection) = self.connection_mut(index)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Drains events and datagrams of the dirty connections.
    fn drain_dirty(&mut self) {
        self.undrained = 0;
        // draining one may make it dirty again
        while let Some(index) = self.dirty.pop() {
            let before = self.out.transmits.len();
            let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            connection.dirty = false;
            let path = connection.drain(&mut self.out, self.now);
            for transmit in self.out.transmits.range(before..) {
                self.index.note_check(&transmit.contents, index, self.now);
            }
            if let Some(path) = path {
                self.index.addresses.insert(path.remote, index);
                self.feed_early(index, path.remote);
                self.mark_dirty(index);
            }
            self.list(index);
            self.reckon(index);
        }
    }

    /// Remembers a connection whose lane has packets to send, once.
    fn list(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let up = connection.up.as_mut();
        if let Some(media) = up.and_then(|up| up.media.as_deref_mut())
            && !media.listed
            && media.has_output()
        {
            media.listed = true;
            self.sending.push(index);
        }
    }

    /// Returns how long messages wait in this host: those in all queues, by the bytes a second that
    /// leave.
    pub fn uplink_wait(&mut self, now: Instant) -> Duration {
        let connections = &self.connections;
        let queued = |index: usize| connections.get(index)?.as_ref()?.waiting(now);
        self.uplink.wait(queued, now)
    }

    /// Ends the turn: partly filled packets of the lanes go out.
    fn finish_lanes(&mut self) {
        let mut sending = std::mem::take(&mut self.sending);
        let before = self.out.transmits.len();
        for index in sending.drain(..) {
            let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if connection.finish_lane(&mut self.out, self.now) {
                self.mark_dirty(index);
            }
            self.schedule_lane(index);
        }
        let sent = self.out.transmits.range(before..);
        let bytes = sent.map(|transmit| transmit.contents.len()).sum();
        self.uplink.sent(bytes, self.now);
        // keeps the vector's memory for the next turn
        self.sending = sending;
    }

    /// Asks the peer connection for its deadline, which is expensive.
    fn reckon(&mut self, index: usize) {
        let (epoch, now) = (self.context.config.epoch, self.now);
        if let Some(connection) = self.connection_mut(index) {
            connection.reckon_due(epoch, now);
            if connection.has_panicked() {
                self.mark_dirty(index);
            }
        }
        self.schedule(index);
    }

    /// Puts the connection's next deadline on the heap, unless an earlier one is on it.
    fn schedule(&mut self, index: usize) {
        let at = self.connection(index).and_then(Connection::deadline);
        self.schedule_at(index, at);
    }

    /// Does the same for its lane alone.
    fn schedule_lane(&mut self, index: usize) {
        let at = self.connection(index).and_then(Connection::lane_deadline);
        self.schedule_at(index, at);
    }

    fn schedule_at(&mut self, index: usize, at: Option<Instant>) {
        if let (Some(connection), Some(at)) = (self.connection_mut(index), at)
            && connection.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            connection.scheduled = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }

    /// Returns the first deadline on the heap. Moves timers that received packets have postponed:
    /// half of an idle node's timers would wake it for nothing.
    fn next_timer(&mut self) -> Option<Instant> {
        loop {
            let Reverse((at, index)) = *self.timers.peek()?;
            let connection = self.connections.get_mut(index).and_then(Option::as_mut);
            let Some(connection) = connection.filter(|c| c.scheduled == Some(at)) else {
                self.timers.pop();
                continue;
            };
            let due = connection.deadline();
            if due.is_some_and(|due| due <= at) {
                return Some(at);
            }
            self.timers.pop();
            connection.scheduled = due;
            self.timers.extend(due.map(|due| Reverse((due, index))));
        }
    }

    fn send(
        &mut self,
        link: LinkId,
        message: &[u8],
        priority: Priority,
        now: Instant,
    ) -> Result<(), SendError> {
        self.observe(now);
        let (index, connection) = self.find(link).ok_or(SendError::NoSuchLink)?;
        match connection.send_control(message, priority, now)? {
            By::Lane => self.list(index),
            By::Channel => self.mark_dirty(index),
        }
        Ok(())
    }
}

impl Connections for WebRtc {
    fn use_relays_only(&mut self, link: LinkId) {
        self.relay_only.insert(link);
    }

    fn offer(&mut self, link: LinkId, now: Instant) {
        self.observe(now);
        self.insert(link, Pending::Offer);
    }

    fn answer(&mut self, link: LinkId, offer: &Description, now: Instant) {
        self.observe(now);
        self.insert(link, Pending::Answer(offer.clone()));
    }

    fn accept(&mut self, link: LinkId, answer: &Description, now: Instant) {
        self.observe(now);
        if let Some(index) = self.index.links.get(&link).copied()
            && let Some(connection) = self.connections[index].as_mut()
        {
            connection.accept(answer, &mut self.out, now);
            self.mark_dirty(index);
            self.permit(index);
        }
    }

    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], now: Instant) {
        self.observe(now);
        if let Some(index) = self.index.links.get(&link).copied()
            && let Some(connection) = self.connections[index].as_mut()
        {
            connection.add_candidates(candidates);
            self.mark_dirty(index);
            self.permit(index);
        }
    }

    fn await_restart(&mut self, link: LinkId) {
        if let Some((index, connection)) = self.find(link) {
            connection.await_restart();
            self.mark_dirty(index);
        }
    }

    fn restart(&mut self, link: LinkId, offer: Option<&Description>, now: Instant) {
        self.observe(now);
        if let Some((index, connection)) = self.find(link) {
            connection.restart(offer, now);
            self.describe(index);
        }
    }

    fn remote_fingerprint(&mut self, link: LinkId) -> Option<Fingerprint> {
        let index = *self.index.links.get(&link)?;
        let pc = self.connections.get_mut(index)?.as_mut()?.pc.as_mut()?;
        pc.remote_fingerprint(&self.context.factory)
    }

    fn authenticated(&mut self, link: LinkId, answers: bool, now: Instant) {
        self.observe(now);
        if let Some(index) = self.index.links.get(&link).copied()
            && let Some(connection) = self.connections[index].as_mut()
        {
            connection.authenticate(answers, &self.context, &mut self.random, now);
            if let Some(ssrc) = connection.receiving_ssrc() {
                self.index.ssrcs.insert(ssrc, index);
            }
            self.mark_dirty(index);
        }
    }

    fn bound_data_queue(&mut self, link: LinkId, bytes: usize) {
        if let Some((_, connection)) = self.find(link)
            && let Some(pc) = connection.pc.as_mut()
        {
            pc.bound_data_queue(bytes);
        }
    }

    fn send_control(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        self.send(link, message, Priority::Control, now)
    }

    fn send_routed(&mut self, link: LinkId, message: &[u8], now: Instant) -> Result<(), SendError> {
        let result = self.send(link, message, Priority::Routed, now);
        if result == Err(SendError::QueueFull) {
            self.out.count(DropReason::RoutedQueueFull);
        }
        result
    }

    fn send_data(
        &mut self,
        link: LinkId,
        parts: [&[u8]; 2],
        now: Instant,
    ) -> Result<(), SendError> {
        self.observe(now);
        let index = self.index.links.get(&link).copied();
        let index = index.ok_or(SendError::NoSuchLink)?;
        let connection = self.connections.get_mut(index).and_then(Option::as_mut);
        let connection = connection.ok_or(SendError::NoSuchLink)?;
        match connection.send_data(parts, &mut self.out, now)? {
            By::Lane => {
                let waits = connection.lane_waits();
                if connection.queues() {
                    self.uplink.queues(index);
                }
                self.list(index);
                if waits {
                    self.schedule_lane(index);
                }
            }
            By::Channel => self.mark_dirty(index),
        }
        Ok(())
    }

    fn set_behind(&mut self, behind: bool) {
        self.context.behind = behind;
    }

    fn suspect(&mut self, link: LinkId, now: Instant) {
        self.observe(now);
        if let Some((index, connection)) = self.find(link) {
            connection.suspect(now);
            self.schedule(index);
        }
    }

    fn close(&mut self, link: LinkId, now: Instant) -> Closing {
        self.observe(now);
        let Some(index) = self.index.links.get(&link).copied() else {
            return Closing::default();
        };
        let Some(mut connection) = self.connections[index].take() else {
            return Closing::default();
        };
        self.index.forget(&connection, index);
        // the relay brought no path: it may have lost our allocation
        if connection.up.is_none()
            && connection.has_waited(now)
            && connection.path().is_none()
            && connection.relayed().is_some()
            && connection.relayed() == self.relays.relayed()
            && !self.relay_is_used()
        {
            self.relays.give_back(now);
            self.handle_relay_changes();
        }
        let panic = connection.close(&mut self.out, now);
        let traffic = connection.traffic;
        Closing { panic, traffic }
    }

    fn path(&self, link: LinkId) -> Option<Path> {
        self.connection_of(link)?.path()
    }

    fn send_straight(&mut self, from: Option<SocketAddr>, to: SocketAddr, datagram: &Bytes) {
        let contents = [&[STRAIGHT], datagram.as_ref()].concat();
        let transmit = Transmit::plain(to, from, contents.into());
        self.out.transmits.push_back(transmit);
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.addresses.candidates()
    }

    fn info(&self, link: LinkId) -> LinkInfo {
        let connection = self.connection_of(link);
        let mut info = connection.map(Connection::info).unwrap_or_default();
        let over_stream = connection.and_then(Connection::path).is_some_and(|path| {
            self.relays.is_stream() && self.relays.relayed() == Some(path.local)
        });
        if over_stream {
            info.path = Some(PathKind::Tcp);
        }
        info
    }

    fn round_trip(&self, link: LinkId) -> Option<Duration> {
        self.connection_of(link)?.round_trip()
    }

    fn is_pressed(&self, link: LinkId) -> bool {
        let connection = self.connection_of(link);
        connection.is_some_and(Connection::is_pressed)
    }

    fn is_congested(&self, link: LinkId) -> bool {
        let connection = self.connection_of(link);
        connection.is_some_and(Connection::is_congested)
    }

    fn traffic(&self, link: LinkId) -> Traffic {
        let connection = self.connection_of(link);
        connection.map(Connection::traffic).unwrap_or_default()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.poll_addresses();
        self.relays.poll(self.relay_is_used(), now);
        self.take_relayed();
        self.describe_pending();
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if connection.scheduled != Some(at) {
                continue;
            }
            connection.scheduled = None;
            let connection_is_stuck = connection.is_stuck(now);
            if connection.handle_timeout(&self.context, &mut self.out, now) {
                self.mark_dirty(index);
            } else {
                self.schedule(index);
            }
            if connection_is_stuck {
                self.handle_stuck(index);
            }
            self.list(index);
        }
        self.drain_dirty();
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        let addresses = self.addresses.deadline(self.now);
        let relays = self.relays.deadline(self.now);
        let all = [addresses, relays, self.describes_at(), self.next_timer()];
        all.into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        if self.out.events.is_empty() {
            self.drain_dirty();
        }
        self.out.events.pop_front()
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.out.drops.by_name().into_iter().collect()
    }
}

#[cfg(test)]
impl WebRtc {
    /// Whether there is no connection.
    pub(crate) fn is_idle(&self) -> bool {
        self.connections.iter().all(Option::is_none)
    }

    pub(crate) fn peer_connection(
        &mut self,
        link: Option<LinkId>,
    ) -> Option<&mut crate::peer_connection::PeerConnection> {
        let mut all = self.connections.iter_mut().flatten();
        all.find(|c| link.is_none_or(|link| c.id == link))?
            .pc
            .as_mut()
    }

    pub(crate) fn drain_all(&mut self) {
        (0..self.connections.len()).for_each(|index| self.mark_dirty(index));
    }

    /// Sets the version of control messages that new channels name.
    pub(crate) fn speak(&mut self, control: u8) {
        self.context.factory.control = control;
    }

    /// Reports a link as silent; returns the number of queued datagrams, for [`Self::unsend`].
    pub(crate) fn lose(&mut self, link: LinkId) -> usize {
        let reason = lcroute_overlay::EndReason::Silent;
        self.out
            .events
            .push_back(ConnectionEvent::Closed { link, reason });
        self.out.transmits.len()
    }

    pub(crate) fn unsend(&mut self, from: usize) {
        self.out.transmits.truncate(from);
    }
}
