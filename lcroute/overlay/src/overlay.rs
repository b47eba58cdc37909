//! The overlay's core: all peers over one UDP socket, without any I/O.
//!
//! | file | what it does |
//! |---|---|
//! | `overlay` | the interface, the table of peers, the timers |
//! | `negotiate` | presence and signalling: from a knock to an answer, restarts |
//! | `datagrams` | demultiplexing, draining connections, Auth, liveness |
//! | `lanes` | the links' media lanes |
//! | `direct` | signalling straight to where a peer was last |
//! | `wanted` | which peers are tried |
//! | `membership` | certificates renewed, keys revoked |
//! | `panics` | who is refused because the WebRTC stack panicked |
//! | `peer` | what is kept of a peer |

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use librecast::cert::CLOCK_SKEW;
use librecast::events::{PEER_DOWN, PEER_REFUSED, Seldom, TARGET};
use librecast::id::PeerId;
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::backoff::Jitter;
use crate::config::OverlayConfig;
use crate::connection::{Factory, Happening};
use crate::direct::SilentPair;
use crate::envelope::Refusal;
use crate::event::{Event, LinkId, PeerInfo, PeerState, SendError, Transmit};
use crate::gather::Gatherer;
use crate::lanes::Priority;
use crate::liveness::{SILENT, next_beat};
use crate::membership::Revoked;
use crate::panics::ShutOut;
use crate::peer::{Peer, RESTART_GRACE, STABLE};
use crate::reach::Reach;
use crate::replay::{Copies, ReplayCache};
use crate::signal_budget::SignalBudget;
use crate::stun::TxId;

/// Most refused strangers that `peers` shows.
const MAX_REFUSED: usize = 64;
/// Most own addresses in a description.
const MAX_HOSTS: usize = 8;
/// Senders that the replay cache remembers.
const REPLAY_SENDERS: usize = 4_096;

/// A refusal is told once in this time: who is refused can try again as often as he likes.
const QUIET: Duration = Duration::from_secs(10);
/// After so long without a message the timers of a connection are looked at once in so many hellos.
const CALM: Duration = Duration::from_secs(5);
const CALM_HELLOS: u32 = 6;

/// Why an overlay cannot start.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The DTLS certificate could not be made.
    #[error("cannot make a DTLS certificate: {0}")]
    Certificate(String),
}

/// A node's links to all its peers.
///
/// After each `handle_*` or `send_*` the owner empties [`Overlay::poll_transmit`] and
/// [`Overlay::poll_event`], and calls [`Overlay::handle_timeout`] at [`Overlay::poll_timeout`].
/// Several datagrams may be handled before: acknowledgements then share packets.
#[derive(Debug)]
pub struct Overlay {
    pub(crate) config: OverlayConfig,
    pub(crate) own: PeerId,
    pub(crate) factory: Factory,
    pub(crate) jitter: Jitter,
    pub(crate) now: Instant,
    /// The hellos of all links keep step with it.
    pub(crate) epoch: Instant,
    /// This run of the process, and the number of the next message.
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    pub(crate) hosts: Vec<SocketAddr>,
    pub(crate) stun_servers: Vec<SocketAddr>,
    pub(crate) gatherer: Gatherer,
    pub(crate) was_patient: bool,
    /// Somebody waits for our addresses, or for a restart.
    pub(crate) unsettled: bool,
    /// Those to which a link is to be made.
    pub(crate) wanted: BTreeSet<PeerId>,
    /// Those of which it was told that attempts fail.
    pub(crate) failing: BTreeSet<PeerId>,
    pub(crate) reach: Reach,
    /// Keys of nodes, invitations and issuers that count no more; whether the network's key said so.
    pub(crate) revoked: BTreeMap<PeerId, Revoked>,
    pub(crate) peers: Vec<Option<Peer>>,
    pub(crate) by_id: HashMap<PeerId, usize>,
    pub(crate) by_link: HashMap<LinkId, usize>,
    pub(crate) by_addr: HashMap<SocketAddr, usize>,
    /// Where links fell silent.
    pub(crate) by_silent_addr: HashMap<SocketAddr, usize>,
    pub(crate) by_ufrag: HashMap<String, usize>,
    /// SSRC of what comes from a link: finds it when its address is not known.
    pub(crate) by_ssrc: HashMap<u32, usize>,
    /// Links whose media lane has something to send.
    pub(crate) sending: Vec<usize>,
    /// ICE checks under way, to find whose answer an answer is.
    pub(crate) checks: HashMap<TxId, usize>,
    pub(crate) check_order: VecDeque<(Instant, TxId)>,
    pub(crate) timers: BinaryHeap<Reverse<(Instant, usize)>>,
    pub(crate) dirty: Vec<usize>,
    pub(crate) undrained: u32,
    /// From, to, and what: DTLS that came before its path was known.
    pub(crate) early: VecDeque<(SocketAddr, SocketAddr, Bytes)>,
    pub(crate) happenings: Vec<Happening>,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) replay: ReplayCache,
    pub(crate) copies: Copies,
    pub(crate) budget: SignalBudget,
    pub(crate) refused: BTreeMap<PeerId, (&'static str, Instant)>,
    pub(crate) drops: BTreeMap<&'static str, u64>,
    pub(crate) warned_at: Option<Instant>,
    /// Links that come and go, and peers that are refused, cannot fill the log.
    pub(crate) told: Seldom,
    pub(crate) panics_told: Seldom,
    pub(crate) shut_out: ShutOut,
    pub(crate) next_link: u32,
    pub(crate) stopped: bool,
}

impl Overlay {
    /// A node without links.
    pub fn new(config: OverlayConfig, now: Instant) -> Result<Self, OverlayError> {
        let control = config.identity.speaks.control;
        let factory = Factory::new(control, config.media, &config.limits)
            .map_err(|e| OverlayError::Certificate(e.to_string()))?;
        let mut session = [0; 8];
        getrandom::fill(&mut session).expect("the system's random number generator works");
        Ok(Self {
            own: config.identity.peer_id(),
            factory,
            jitter: Jitter::new(config.seed),
            now,
            epoch: config.beat,
            // 0 stands for unknown
            session: u64::from_be_bytes(session).max(1),
            sequence: 0,
            hosts: Vec::new(),
            stun_servers: Vec::new(),
            gatherer: Gatherer::default(),
            was_patient: false,
            unsettled: false,
            wanted: BTreeSet::new(),
            failing: BTreeSet::new(),
            revoked: BTreeMap::new(),
            reach: Reach::new(config.limits.present),
            peers: Vec::new(),
            by_id: HashMap::new(),
            by_link: HashMap::new(),
            by_addr: HashMap::new(),
            by_silent_addr: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_ssrc: HashMap::new(),
            sending: Vec::new(),
            checks: HashMap::new(),
            check_order: VecDeque::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            undrained: 0,
            early: VecDeque::new(),
            happenings: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            replay: ReplayCache::new(REPLAY_SENDERS),
            copies: Copies::default(),
            budget: SignalBudget::new(),
            refused: BTreeMap::new(),
            drops: BTreeMap::new(),
            warned_at: None,
            told: Seldom::default(),
            panics_told: Seldom::default(),
            shut_out: ShutOut::default(),
            next_link: 1,
            stopped: false,
            config,
        })
    }

    /// Our own identity.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.own
    }

    /// The addresses at which the UDP socket can be reached, best first; at most eight count.
    /// Links whose address has gone restart their ICE, attempts under way start over.
    pub fn set_local_candidates(&mut self, mut host: Vec<SocketAddr>, now: Instant) {
        self.observe(now);
        host.truncate(MAX_HOSTS);
        if host == self.hosts {
            return;
        }
        debug!(addresses = ?host, "local addresses");
        self.hosts = host;
        self.gatherer.reset(&self.hosts, &self.stun_servers, now);
        self.was_patient = self.gatherer.is_patient(now);
        for index in self.indices() {
            self.move_peer(index, now);
        }
        self.settle_waiting(now);
        self.drain_dirty();
    }

    /// The STUN servers to ask for our address as others see it, over and over.
    pub fn set_stun_servers(&mut self, servers: Vec<SocketAddr>, now: Instant) {
        self.observe(now);
        if servers == self.stun_servers {
            return;
        }
        self.stun_servers = servers;
        self.gatherer.reset(&self.hosts, &self.stun_servers, now);
        self.was_patient = self.gatherer.is_patient(now);
        let transmits = &mut self.transmits;
        self.gatherer.poll(now, |t| transmits.push_back(t));
    }

    /// Sends a message reliably and in order: in the media lane where both sides can, or on the control channel.
    pub fn send_control(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        self.send_with(link, message, Priority::Control, now)
    }

    /// Sends a message from router to router the same way, behind control messages. On a slow link it is refused
    /// and counted as soon as few such messages wait.
    pub fn send_routed(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SendError> {
        let result = self.send_with(link, message, Priority::Routed, now);
        if result == Err(SendError::QueueFull) {
            self.count("routed_queue_full");
        }
        result
    }

    fn send_with(
        &mut self,
        link: LinkId,
        message: &[u8],
        priority: Priority,
        now: Instant,
    ) -> Result<(), SendError> {
        let index = self.link_index(link, now)?;
        if let Some(result) = self.send_reliably(index, message, priority, now) {
            return result;
        }
        let result = match self.link_mut(index) {
            Some(link) => match priority {
                Priority::Control => link.connection.send_control(message, now),
                Priority::Routed => link.connection.send_routed(message, now),
            },
            None => Err(SendError::NoSuchLink),
        };
        self.mark_dirty(index);
        result
    }

    /// Sends `parts` as one message that may get lost: in the media lane, or the data channel.
    ///
    /// In the media lane it shares a packet with what is sent to the link until
    /// [`Self::poll_transmit`] has given all; what the lane must drop is counted in [`Self::drops`].
    pub fn send_data(
        &mut self,
        link: LinkId,
        parts: [&[u8]; 2],
        now: Instant,
    ) -> Result<(), SendError> {
        let index = self.link_index(link, now)?;
        if self.send_media(index, parts, now) {
            return Ok(());
        }
        let result = match self.link_mut(index) {
            Some(link) => link.connection.send_data(parts, now),
            None => Err(SendError::NoSuchLink),
        };
        self.mark_dirty(index);
        result
    }

    /// Closes a link; a wanted peer is tried again after a pause.
    pub fn close_link(&mut self, link: LinkId, reason: &'static str, now: Instant) {
        self.observe(now);
        if let Some(&index) = self.by_link.get(&link) {
            if let Some(peer) = self.peers[index].as_mut() {
                // who broke the protocol is not tried again at once
                peer.failures = peer.failures.max(3);
            }
            self.end_link(index, reason, now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        if self.stopped {
            return;
        }
        let transmits = &mut self.transmits;
        self.gatherer.poll(now, |t| transmits.push_back(t));
        self.end_refusals(now);
        self.settle_waiting(now);
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if peer.scheduled == Some(at) {
                peer.scheduled = None;
                if peer.connection_is_quiet(now) && !self.expire(index, now) {
                    self.poll_media(index, now);
                    self.say_hello(index, now);
                    self.schedule_cheaply(index);
                    continue;
                }
                self.handle_peer_timeout(index, now);
                self.mark_dirty(index);
            }
        }
        self.drain_dirty();
    }

    /// When [`Self::handle_timeout`] is to be called next, at the latest.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let others = [self.gatherer.deadline(self.now), self.shut_out.deadline()];
        let all = others.into_iter().chain([self.next_timer()]);
        all.flatten().min()
    }

    /// The first deadline on the heap. What was put off since (a peer was heard) is put back where it belongs: half of all
    /// timers of an idle node would wake it for nothing.
    fn next_timer(&mut self) -> Option<Instant> {
        let limit = self.config.limits.attempt;
        loop {
            let Reverse((at, index)) = *self.timers.peek()?;
            let peer = self.peers.get_mut(index).and_then(Option::as_mut);
            let current = peer.filter(|peer| peer.scheduled == Some(at));
            let Some(peer) = current else {
                self.timers.pop();
                continue;
            };
            let due = peer.deadline(limit);
            if due.is_some_and(|due| due <= at) {
                return Some(at);
            }
            self.timers.pop();
            peer.scheduled = due;
            self.timers.extend(due.map(|due| Reverse((due, index))));
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.transmits.is_empty() {
            self.drain_dirty();
            self.finish_media();
            // what a lane cannot bring through goes on the channel
            self.drain_dirty();
        }
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.drain_dirty();
        }
        self.events.pop_front()
    }

    /// Peers as users see them: those with a link, those tried, those refused, and for ten seconds those
    /// that knocked at us in vain.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut rows: Vec<_> = self
            .peers
            .iter()
            .flatten()
            .map(|p| p.info(self.now))
            .collect();
        let strangers = self
            .refused
            .iter()
            .filter(|(id, _)| !self.by_id.contains_key(id));
        rows.extend(strangers.map(|(id, (reason, since))| {
            let mut peer = Peer::new(*id, *since);
            peer.set_state(PeerState::Refused, Some(reason), *since);
            peer.info(self.now)
        }));
        rows.sort_by_key(|row| row.peer_id);
        rows
    }

    /// What was dropped so far, by reason.
    #[must_use]
    pub fn drops(&self) -> &BTreeMap<&'static str, u64> {
        debug_assert!(
            self.drops
                .keys()
                .all(|name| crate::DROPS.iter().any(|(known, _)| known == name)),
            "{:?}",
            self.drops
        );
        &self.drops
    }

    /// Says goodbye on all links; send what [`Self::poll_transmit`] gives after this, and stop.
    pub fn shutdown(&mut self, now: Instant) {
        self.observe(now);
        for index in self.indices() {
            if let Some(peer) = self.peers[index].as_mut() {
                peer.waiting = None;
                peer.retry_at = None;
            }
            self.take_link(index, "shutting down", now);
        }
        self.stopped = true;
    }
}

/// The table of peers.
impl Overlay {
    pub(crate) fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    pub(crate) fn indices(&self) -> Vec<usize> {
        (0..self.peers.len())
            .filter(|i| self.peers[*i].is_some())
            .collect()
    }

    pub(crate) fn link_mut(&mut self, index: usize) -> Option<&mut crate::peer::Link> {
        self.peers.get_mut(index)?.as_mut()?.link.as_mut()
    }

    fn link_index(&mut self, link: LinkId, now: Instant) -> Result<usize, SendError> {
        self.observe(now);
        self.by_link
            .get(&link)
            .copied()
            .ok_or(SendError::NoSuchLink)
    }

    /// The peer's place, made if there is room. Who is verified or wanted may take that of one who is
    /// neither wanted nor linked.
    pub(crate) fn peer_index(&mut self, id: PeerId) -> Option<usize> {
        if let Some(index) = self.by_id.get(&id) {
            return Some(*index);
        }
        if self.by_id.len() >= self.config.limits.peers {
            match self.evictable() {
                Some(victim) => self.forget(victim),
                None => {
                    self.count(Refusal::Full.counter());
                    return None;
                }
            }
        }
        let peer = Peer::new(id, self.now);
        let index = match self.peers.iter().position(Option::is_none) {
            Some(free) => {
                self.peers[free] = Some(peer);
                free
            }
            None => {
                self.peers.push(Some(peer));
                self.peers.len() - 1
            }
        };
        self.by_id.insert(id, index);
        Some(index)
    }

    /// Whose place may be taken: of those without a link and not wanted, who stands still for longest.
    fn evictable(&self) -> Option<PeerId> {
        let idle = self.peers.iter().flatten().filter(|p| p.link.is_none());
        let idle = idle.filter(|p| !self.wanted.contains(&p.id));
        idle.min_by_key(|p| p.since).map(|p| p.id)
    }

    pub(crate) fn forget(&mut self, id: PeerId) {
        if let Some(index) = self.by_id.remove(&id) {
            self.take_link(index, "forgotten", self.now);
            self.forget_pair(index);
            self.peers[index] = None;
        }
    }

    pub(crate) fn count(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Counts a refusal, shows it in `peers` where the sender is known, logs it now and then.
    pub(crate) fn refuse(&mut self, refusal: Refusal, peer: Option<PeerId>, now: Instant) {
        let reason = refusal.reason();
        self.count(refusal.counter());
        let quiet = self.warned_at.is_some_and(|at| now < at + QUIET);
        // one that came late is no attack, and one for an earlier run is what a restart looks like
        let quiet = quiet || matches!(refusal, Refusal::Replayed | Refusal::Session);
        match peer {
            Some(id) if !quiet => warn!(peer = %id, reason, "signalling refused"),
            None if !quiet => warn!(reason, "signalling refused"),
            _ => debug!(?peer, reason, "signalling refused"),
        }
        if !quiet {
            self.warned_at = Some(now);
        }
        let Some(id) = peer else { return };
        let known = self.by_id.get(&id).and_then(|i| self.peers[*i].as_mut());
        let told = match known {
            // what somebody replays or spoils says nothing of a peer that we know
            Some(peer) if !refusal.blames_sender() && peer.member.is_some() => return,
            Some(peer) if peer.up().is_some() => return,
            Some(peer) => {
                let told = peer.state == PeerState::Refused && peer.reason == Some(reason);
                peer.set_state(PeerState::Refused, Some(reason), now);
                peer.failures = peer.failures.max(5);
                told
            }
            None => self.remember_refused(id, reason, now),
        };
        if !told {
            if self.told.tell(now).is_some() {
                info!(
                    target: TARGET, message_id = PEER_REFUSED.id, lcroute_peer = %id, lcroute_reason = reason,
                    "no link with {id}: {reason}"
                );
            }
            self.events.push_back(Event::PeerRefused {
                peer: Some(id),
                reason,
            });
        }
    }

    fn remember_refused(&mut self, id: PeerId, reason: &'static str, now: Instant) -> bool {
        let told = self
            .refused
            .get(&id)
            .is_some_and(|(known, _)| *known == reason);
        if !told {
            let oldest = self
                .refused
                .iter()
                .min_by_key(|(_, (_, since))| *since)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest.filter(|_| self.refused.len() >= MAX_REFUSED) {
                self.refused.remove(&oldest);
            }
            self.refused.insert(id, (reason, now));
        }
        told
    }
}

/// The life of links.
impl Overlay {
    /// Ends a link whose peer's certificate has expired; whether it did.
    fn expire(&mut self, index: usize, now: Instant) -> bool {
        let Some(peer) = self.peers.get(index).and_then(Option::as_ref) else {
            return false;
        };
        let member = peer.member.as_ref().filter(|_| peer.up().is_some());
        let clock = self.config.clock;
        if member.is_none_or(|m| clock() <= m.not_after.saturating_add(CLOCK_SKEW)) {
            return false;
        }
        let id = peer.id;
        self.end_link(index, Refusal::CertificateExpired.reason(), now);
        self.refuse(Refusal::CertificateExpired, Some(id), now);
        true
    }

    fn handle_peer_timeout(&mut self, index: usize, now: Instant) {
        if self.expire(index, now) {
            return;
        }
        self.judge_failure(index, now);
        let limit = self.config.limits.attempt;
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if let Some(link) = peer.link.as_mut() {
            link.connection.handle_timeout(now);
            let late = link.up.is_none() && now >= link.too_late(limit);
            let stuck = link
                .restart
                .as_ref()
                .is_some_and(|r| now >= r.since + RESTART_GRACE);
            if late {
                let reason = if link.connection.awaits_answer() {
                    "no answer"
                } else {
                    "no direct path: firewalls or NATs on the way"
                };
                self.end_link(index, reason, now);
            } else if stuck {
                self.end_link(index, "no path after an address change", now);
            } else {
                self.poll_media(index, now);
                self.say_hello(index, now);
            }
        }
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if peer.link.is_none() && peer.retry_at.is_some_and(|at| at <= now) {
            self.knock(index, false, now);
        }
        self.knock_directly(index, now);
    }

    /// The link is over: tells so, and tries again if it is wanted, at once if it was a good one.
    pub(crate) fn end_link(&mut self, index: usize, reason: &'static str, now: Instant) {
        let up = self.link_mut(index).filter(|link| link.up.is_some());
        let pair = up.and_then(|link| link.connection.path());
        let lived = self.take_link(index, reason, now);
        let id = self.peers.get(index).and_then(Option::as_ref).map(|p| p.id);
        if let Some(pair) = pair.filter(|_| reason == SILENT) {
            let wanted = id.is_some_and(|id| self.wanted.contains(&id));
            self.remember_pair(index, SilentPair::new(pair, wanted, now));
        }
        let tries = id.is_some_and(|id| self.may_try(&id));
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if self.stopped {
            return;
        }
        let state = if lived.is_some() || peer.state == PeerState::Lost {
            PeerState::Lost
        } else {
            PeerState::Connecting
        };
        peer.set_state(state, Some(reason), now);
        peer.keep_until = None;
        if lived.is_some_and(|lived| lived >= STABLE) && peer.failures < 3 {
            peer.failures = 0;
            peer.retry_at = tries.then_some(now);
        } else {
            let (first, longest) = self.config.limits.backoff;
            let pause = self.jitter.pause(peer.failures, first, longest);
            peer.retry_at = tries.then_some(now + pause);
            peer.failures = peer.failures.saturating_add(1);
        }
        if lived.is_none() {
            self.count_failure(index, now);
        }
        self.mark_dirty(index);
        self.settle_peer(index, now);
        if let Some(id) = id.filter(|id| self.is_shut_out(id)) {
            self.refuse(Refusal::Panicked, Some(id), now);
        }
    }

    /// Takes a link away, saying goodbye; how long it was up, if it was.
    pub(crate) fn take_link(
        &mut self,
        index: usize,
        reason: &'static str,
        now: Instant,
    ) -> Option<Duration> {
        let mut link = self.peers.get_mut(index)?.as_mut()?.link.take()?;
        let mut goodbye = VecDeque::new();
        link.connection.close(&mut goodbye, now);
        if let Some((panic, proven)) = link.connection.panic() {
            self.note_panic(index, (&panic, proven), now);
        }
        let peer = self.peers.get_mut(index)?.as_mut()?;
        // twice: nobody asks for it again if it gets lost
        for transmit in goodbye.iter().chain(&goodbye) {
            peer.traffic.sent(transmit.contents.len());
            self.transmits.push_back(transmit.clone());
        }
        self.by_ufrag
            .remove(&link.connection.credentials().local_ufrag);
        if let Some((_, remote)) = link.connection.path()
            && self.by_addr.get(&remote) == Some(&index)
        {
            self.by_addr.remove(&remote);
        }
        let up = link.up?;
        self.by_link.remove(&up.id);
        if let Some(media) = &up.media
            && self.by_ssrc.get(&media.receiving_ssrc()) == Some(&index)
        {
            self.by_ssrc.remove(&media.receiving_ssrc());
        }
        let name = peer.member.as_ref().map_or("?", |m| m.name.as_str());
        match self.told.tell(now) {
            Some(left_out) => info!(
                target: TARGET, message_id = PEER_DOWN.id, lcroute_peer = %peer.id, lcroute_peer_name = name,
                lcroute_reason = reason, "link down: {name} ({}): {reason}{}", peer.id, untold(left_out)
            ),
            None => debug!(peer = %peer.id, reason, "link down"),
        }
        self.events.push_back(Event::LinkDown {
            link: up.id,
            peer: peer.id,
            reason,
        });
        Some(now.saturating_duration_since(up.since))
    }

    /// The first moment after `now` at which hellos go out anyway, of those that are `hellos` of them apart.
    #[must_use]
    pub fn next_beat(&self, now: Instant, hellos: u32) -> Instant {
        next_beat(self.epoch, now, hellos)
    }

    pub(crate) fn mark_dirty(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut)
            && !peer.dirty
        {
            peer.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Puts the peer's next deadline on the heap, unless an earlier one is there.
    pub(crate) fn schedule(&mut self, index: usize) {
        let (now, epoch) = (self.now, self.epoch);
        if let Some(link) = self.link_mut(index) {
            let due = link.connection.deadline();
            let calm = link.up.is_some()
                && link.restart.is_none()
                && now.saturating_duration_since(link.connection.used()) > CALM;
            // ICE wants to be asked five times a second for nothing
            let patient = due.map(|due| due.max(next_beat(epoch, now, CALM_HELLOS)));
            link.connection_due = if calm { patient } else { due };
            if link.connection.panic().is_some() {
                self.mark_dirty(index);
            }
        }
        self.schedule_cheaply(index);
    }

    /// The same where the connection has not been touched: asking it for its deadline is dear.
    pub(crate) fn schedule_cheaply(&mut self, index: usize) {
        let limit = self.config.limits.attempt;
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(at) = peer.deadline(limit) else {
            return;
        };
        if peer.scheduled.is_none_or(|scheduled| at < scheduled) {
            peer.scheduled = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }
}

/// How many lines were left out before this one, for its end.
pub(crate) fn untold(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        n => format!(" ({n} such lines left out before)"),
    }
}
