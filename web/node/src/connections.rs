//! Connections of a page, made by RTCPeerConnection: the overlay's requests and the page's reports.
//!
//! ```text
//!   overlay ── Connections ── commands ──> page: RTCPeerConnection, two data channels out, one in
//!   overlay <── events ────── described, opened, message, alive, ended <── page
//! ```
//! DTLS checks the certificate of the peer against the fingerprint of its description, as browsers
//! do. The counters of the ICE transport show whether the peer is alive: hosts send three hellos a
//! second, and browsers fewer than one. So each end of a quiet connection asks for a sign of life.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use lcroute_lane::{Fault, TrackReceiver};
use lcroute_overlay::{
    Candidate, Closing, ConnectionEvent, Connections, Description, EndReason, Fingerprint,
    LinkInfo, Path, PathKind, SdpKind, Section, SendError, Traffic,
};
use librecast::drop_reasons;
use librecast::drops::Drops;
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};
use serde::Deserialize;

use crate::command::Command;
use crate::sdp;

/// Bytes of a message, as in descriptions.
const MAX_MESSAGE: usize = 65_536;
/// Candidates of a peer after its description: as many as a description has.
const MAX_LATE_CANDIDATES: usize = 16;
/// Bytes in a control channel's queue above which this node's own messages are refused.
const CONTROL_QUEUE: usize = 1 << 20;
/// Bytes in a control channel's queue above which messages of other nodes are refused.
const ROUTED_QUEUE: usize = 64 << 10;
/// Bytes in a data channel's queue above which packets are dropped.
const DATA_QUEUE: usize = 256 << 10;
/// Duration and number of checks without a change of the counters after which a peer is dead: four
/// hellos are missing. A page in the background has timers of one second, so time alone proves
/// nothing.
const SILENCE: (Duration, u32) = (Duration::from_millis(1_400), 5);
/// Silence after which SCTP must acknowledge an empty message. Chosen: above the interval of a
/// host's hellos, and three such messages fit into [`SILENCE`].
const QUIET: Duration = Duration::from_millis(400);
/// A message of the overlay that nodes only take as a sign of life.
const EMPTY: &[u8] = &[0];
/// [`SILENCE`] for a peer that is already suspected. Measured: between tabs of a busy computer an
/// acknowledgement takes 0.7 to 1 s.
const SUSPECTED: (Duration, u32) = (Duration::from_millis(1_100), 4);

drop_reasons! {
    /// Why a connection dropped a message.
    pub enum DropReason {
        /// Data before both sides have proven who they are.
        Unauthenticated = "webrtc_unauthenticated",
        /// A message of several packets of a track of which one never came.
        Incomplete = "media_incomplete",
        /// A packet of a track that cannot be read.
        Malformed = "media_malformed",
    }
}

/// The channels of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Reliable, in order.
    Control,
    /// Messages may get lost.
    Data,
}

/// State of the candidate pair in use, from `getStats`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Stats {
    /// A sum that grows with every packet from the peer.
    pub received: f64,
    /// Round-trip time in ms.
    pub rtt: Option<f64>,
    /// Own address and port.
    pub local: Option<SocketAddr>,
    /// The peer's address and port.
    pub remote: Option<SocketAddr>,
    /// Kinds of the own and the peer's candidate.
    pub kinds: Option<[String; 2]>,
}

/// Connections of a page.
#[derive(Debug, Default)]
pub struct PageConnections {
    /// Whether the browser passes the packets of a track to the page.
    tracks: bool,
    links: BTreeMap<LinkId, Connection>,
    commands: VecDeque<Command>,
    events: VecDeque<ConnectionEvent>,
    drops: Drops<DropReason>,
}

#[derive(Debug)]
struct Connection {
    /// Fingerprint in the accepted description.
    remote: Option<Fingerprint>,
    is_open: bool,
    is_authenticated: bool,
    /// Sections of the SDP, as its first description has them.
    sections: Vec<Section>,
    track: Option<TrackReceiver>,
    /// Bytes in the queues: control, data.
    waiting: [usize; 2],
    traffic: Traffic,
    stats: Stats,
    /// When the last packet came, and the number of checks since then.
    silent: (Instant, u32),
    is_suspected: bool,
    tells_rtt: bool,
    /// ICE restarts: the next packets come over a new path.
    restarts: bool,
    /// The number of the peer's candidates after its description.
    late_candidates: usize,
}

impl Connection {
    fn new(remote: Option<Fingerprint>, now: Instant) -> Self {
        Self {
            remote,
            is_open: false,
            is_authenticated: false,
            sections: Vec::new(),
            track: None,
            waiting: [0; 2],
            traffic: Traffic::default(),
            stats: Stats::default(),
            silent: (now, 0),
            is_suspected: false,
            tells_rtt: false,
            restarts: false,
            late_candidates: 0,
        }
    }

    /// Returns the SDP of the peer's end.
    fn sdp(&self, peer: &Description, kind: SdpKind) -> String {
        match &self.sections[..] {
            [] => peer.to_sdp(kind),
            sections => peer.to_sections(kind, sections),
        }
    }

    fn heard(&mut self, now: Instant) {
        self.silent = (now, 0);
        self.is_suspected = false;
    }

    fn path(&self) -> Option<Path> {
        Some(Path {
            local: self.stats.local?,
            remote: self.stats.remote?,
        })
    }

    fn path_kind(&self) -> Option<PathKind> {
        let kinds = self.stats.kinds.as_ref()?;
        Some(match kinds.each_ref().map(String::as_str) {
            ["relay", _] | [_, "relay"] => PathKind::Relay,
            [_, "host"] => PathKind::Host,
            _ => PathKind::Reflexive,
        })
    }
}

/// Reports of the page.
impl PageConnections {
    /// Makes the connections; `tracks`: whether the browser passes the packets of a track.
    #[must_use]
    pub fn new(tracks: bool) -> Self {
        Self {
            tracks,
            ..Self::default()
        }
    }

    /// Returns the next command.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Handles the browser's description of this end of a connection.
    pub fn handle_description(&mut self, link: LinkId, text: &str) {
        let Some(connection) = self.links.get_mut(&link) else {
            return;
        };
        let event = match sdp::description(text) {
            Some(description) => {
                if connection.sections.is_empty() {
                    connection.sections = sdp::sections(text);
                }
                ConnectionEvent::Described { link, description }
            }
            None => ConnectionEvent::Closed {
                link,
                reason: EndReason::CannotBegin,
            },
        };
        self.events.push_back(event);
    }

    /// Handles the opening of all channels.
    pub fn handle_open(&mut self, link: LinkId, now: Instant) {
        let Some(connection) = self.links.get_mut(&link).filter(|c| !c.is_open) else {
            return;
        };
        connection.is_open = true;
        connection.heard(now);
        self.events.push_back(ConnectionEvent::Path { link });
        self.events.push_back(ConnectionEvent::Open { link });
    }

    /// Handles a received message.
    pub fn handle_message(&mut self, link: LinkId, channel: Channel, message: Bytes, now: Instant) {
        let Some(connection) = self.links.get_mut(&link) else {
            return;
        };
        connection.heard(now);
        connection.traffic.received(message.len());
        match channel {
            Channel::Control => {
                self.events
                    .push_back(ConnectionEvent::Control { link, message });
            }
            Channel::Data if connection.is_authenticated => {
                deliver(link, message, &mut self.events);
            }
            Channel::Data => self.drops.count(DropReason::Unauthenticated),
        }
    }

    /// Handles a packet of a track: its RTP timestamp, and its payload, which came at `at`.
    pub fn handle_track(
        &mut self,
        link: LinkId,
        (timestamp, payload): (u32, Bytes),
        at: Instant,
        now: Instant,
    ) {
        let Some(connection) = self.links.get_mut(&link) else {
            return;
        };
        if !connection.is_authenticated {
            return self.drops.count(DropReason::Unauthenticated);
        }
        connection.heard(now);
        connection.traffic.received(payload.len());
        let track = connection
            .track
            .get_or_insert_with(|| TrackReceiver::new(at));
        let events = &mut self.events;
        let deliver = &mut |message: Bytes| deliver(link, message, events);
        match track.handle(timestamp, payload, deliver, at) {
            Ok(true) => self.report(link, now),
            Ok(false) => {}
            Err(Fault::Malformed) => self.drops.count(DropReason::Malformed),
            Err(Fault::Incomplete) => self.drops.count(DropReason::Incomplete),
        }
    }

    /// Reports the arrivals on a track.
    fn report(&mut self, link: LinkId, now: Instant) {
        let track = self.links.get_mut(&link).and_then(|c| c.track.as_mut());
        if let Some(message) = track.and_then(|track| track.report(now)) {
            // a later one covers it
            let _ = self.send(link, (Channel::Data, DATA_QUEUE), message);
        }
    }

    /// Stores the number of bytes in a channel's queue.
    pub fn handle_waiting(&mut self, link: LinkId, channel: Channel, bytes: usize) {
        if let Some(connection) = self.links.get_mut(&link) {
            connection.waiting[channel as usize] = bytes;
        }
    }

    /// Handles the state of a connection; called about four times a second.
    pub fn handle_stats(&mut self, link: LinkId, stats: Stats, now: Instant) {
        let Some(connection) = self.links.get_mut(&link).filter(|c| c.is_open) else {
            return;
        };
        let before = std::mem::replace(&mut connection.stats, stats);
        let rtt = connection.stats.rtt.filter(|ms| *ms > 0.0);
        connection.stats.rtt = rtt.or(before.rtt);
        connection.tells_rtt |= rtt.is_some();
        if let (None, Some(rtt)) = (before.rtt, rtt.and_then(round_trip)) {
            self.events
                .push_back(ConnectionEvent::RoundTrip { link, rtt });
        }
        if connection.stats.received > before.received {
            connection.heard(now);
            if std::mem::take(&mut connection.restarts) {
                self.events.push_back(ConnectionEvent::Path { link });
            }
            return;
        }
        // peers send no hellos before, and the overlay bounds that time
        if !connection.is_authenticated {
            return;
        }
        connection.silent.1 += 1;
        let quiet = now.saturating_duration_since(connection.silent.0);
        if quiet >= QUIET {
            self.ask_for_life(link);
        }
        let Some(connection) = self.links.get_mut(&link) else {
            return;
        };
        let (limit, looks) = if connection.is_suspected {
            SUSPECTED
        } else {
            SILENCE
        };
        let (since, looked) = connection.silent;
        if looked >= looks && now.saturating_duration_since(since) >= limit {
            self.end(link, EndReason::Silent);
        }
    }

    /// Sends an empty message, which the peer's SCTP acknowledges.
    fn ask_for_life(&mut self, link: LinkId) {
        // a full channel is not quiet
        let _ = self.send(link, (Channel::Data, DATA_QUEUE), Bytes::from_static(EMPTY));
    }

    /// Handles the end of a connection, or its failure to begin.
    pub fn handle_end(&mut self, link: LinkId, reason: EndReason) {
        if self.links.contains_key(&link) {
            self.end(link, reason);
        }
    }

    /// Handles an address of this end that its description lacks, as an attribute of SDP.
    pub fn handle_candidate(&mut self, link: LinkId, attribute: &str) {
        let candidate = attribute
            .strip_prefix("candidate:")
            .and_then(sdp::candidate);
        if let Some(candidate) = candidate
            && self.links.get(&link).is_some_and(|c| !c.is_open)
        {
            let candidates = vec![candidate];
            let event = ConnectionEvent::Candidates { link, candidates };
            self.events.push_back(event);
        }
    }

    /// Handles a new path to the peer that this end's description lacks.
    pub fn handle_outdated(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|c| !c.is_open) {
            self.events.push_back(ConnectionEvent::Outdated { link });
        }
    }

    /// Handles a control channel of another version.
    pub fn handle_other_control(&mut self, link: LinkId, version: u8) {
        if self.links.contains_key(&link) {
            self.events
                .push_back(ConnectionEvent::OtherControl { link, version });
        }
    }

    /// Connections whose channels are open.
    pub fn open(&self) -> impl Iterator<Item = LinkId> {
        let open = self.links.iter().filter(|(_, c)| c.is_open);
        open.map(|(link, _)| *link)
    }

    /// Whether the browser does not report the round trip of an open connection.
    #[must_use]
    pub fn needs_round_trip(&self, link: LinkId) -> bool {
        let connection = self.links.get(&link);
        connection.is_some_and(|c| c.is_authenticated && !c.tells_rtt)
    }

    /// Stores a round trip that was measured without the browser.
    pub fn handle_round_trip(&mut self, link: LinkId, rtt: Duration) {
        let Some(connection) = self.links.get_mut(&link).filter(|c| c.is_open) else {
            return;
        };
        let first = connection.stats.rtt.is_none();
        connection.stats.rtt = Some(rtt.as_secs_f64() * 1_000.0);
        if first {
            self.events
                .push_back(ConnectionEvent::RoundTrip { link, rtt });
        }
    }

    fn end(&mut self, link: LinkId, reason: EndReason) {
        self.events
            .push_back(ConnectionEvent::Closed { link, reason });
    }

    fn send(
        &mut self,
        link: LinkId,
        (channel, room): (Channel, usize),
        message: Bytes,
    ) -> Result<(), SendError> {
        let connection = self.links.get_mut(&link).filter(|c| c.is_open);
        let connection = connection.ok_or(SendError::NoSuchLink)?;
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let waiting = &mut connection.waiting[channel as usize];
        if *waiting + message.len() > room {
            return Err(SendError::QueueFull);
        }
        *waiting += message.len();
        connection.traffic.sent(message.len());
        self.commands.push_back(match channel {
            Channel::Control => Command::Control(link, message),
            Channel::Data => Command::Data(link, message),
        });
        Ok(())
    }
}

/// Delivers a data message. High nibble 0: a message of the overlay, and empty.
fn deliver(link: LinkId, message: Bytes, events: &mut VecDeque<ConnectionEvent>) {
    if message.first().is_some_and(|first| first >> 4 != 0) {
        events.push_back(ConnectionEvent::Data { link, message });
    }
}

fn round_trip(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1_000.0).ok()
}

impl Connections for PageConnections {
    fn offer(&mut self, link: LinkId, now: Instant) {
        self.links.insert(link, Connection::new(None, now));
        self.commands.push_back(Command::Offer(link));
    }

    fn answer(&mut self, link: LinkId, offer: &Description, now: Instant) {
        let mut connection = Connection::new(Some(offer.fingerprint), now);
        connection.sections.push(Section::new("0", None));
        if self.tracks && offer.track.is_some() {
            connection.sections.push(Section::new("1", offer.track));
        }
        let sdp = connection.sdp(offer, SdpKind::Offer);
        self.links.insert(link, connection);
        self.commands.push_back(Command::Answer(link, sdp));
    }

    fn accept(&mut self, link: LinkId, answer: &Description, _now: Instant) {
        if let Some(connection) = self.links.get_mut(&link) {
            // a restart has the same one, else DTLS fails
            connection.remote = Some(answer.fingerprint);
            let sdp = connection.sdp(answer, SdpKind::Answer);
            self.commands.push_back(Command::Accept(link, sdp));
        }
    }

    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], _now: Instant) {
        let connection = self.links.get_mut(&link);
        if let Some(connection) = connection.filter(|c| c.remote.is_some() && !c.is_open) {
            let room = MAX_LATE_CANDIDATES.saturating_sub(connection.late_candidates);
            let candidates = &candidates[..candidates.len().min(room)];
            let rank = connection.late_candidates;
            connection.late_candidates += candidates.len();
            let lines = candidates.iter().zip(rank..);
            let lines = lines.map(|(candidate, rank)| candidate.to_attribute(rank));
            let lines = lines.collect::<Vec<_>>().join("\n");
            self.commands.push_back(Command::Candidates(link, lines));
        }
    }

    /// The browser queues messages by itself.
    fn await_restart(&mut self, _link: LinkId) {}

    fn restart(&mut self, link: LinkId, offer: Option<&Description>, _now: Instant) {
        if let Some(connection) = self.links.get_mut(&link) {
            connection.restarts = true;
            let sdp = offer.map(|offer| connection.sdp(offer, SdpKind::Offer));
            self.commands.push_back(Command::Restart(link, sdp));
        }
    }

    fn remote_fingerprint(&mut self, link: LinkId) -> Option<Fingerprint> {
        self.links.get(&link)?.remote
    }

    fn authenticated(&mut self, link: LinkId, _answers: bool, now: Instant) {
        if let Some(connection) = self.links.get_mut(&link) {
            connection.is_authenticated = true;
            connection.heard(now);
        }
    }

    fn send_control(
        &mut self,
        link: LinkId,
        message: &[u8],
        _now: Instant,
    ) -> Result<(), SendError> {
        let message = Bytes::copy_from_slice(message);
        self.send(link, (Channel::Control, CONTROL_QUEUE), message)
    }

    fn send_routed(
        &mut self,
        link: LinkId,
        message: &[u8],
        _now: Instant,
    ) -> Result<(), SendError> {
        let message = Bytes::copy_from_slice(message);
        self.send(link, (Channel::Control, ROUTED_QUEUE), message)
    }

    fn send_data(
        &mut self,
        link: LinkId,
        parts: [&[u8]; 2],
        _now: Instant,
    ) -> Result<(), SendError> {
        let message = parts.concat().into();
        self.send(link, (Channel::Data, DATA_QUEUE), message)
    }

    fn suspect(&mut self, link: LinkId, _now: Instant) {
        let Some(connection) = self.links.get_mut(&link) else {
            return;
        };
        if !std::mem::replace(&mut connection.is_suspected, true) {
            self.ask_for_life(link);
        }
    }

    fn close(&mut self, link: LinkId, _now: Instant) -> Closing {
        let Some(connection) = self.links.remove(&link) else {
            return Closing::default();
        };
        self.commands.push_back(Command::Close(link));
        Closing {
            panic: None,
            traffic: connection.traffic,
        }
    }

    fn path(&self, link: LinkId) -> Option<Path> {
        self.links.get(&link)?.path()
    }

    /// Pages have no sockets.
    fn send_straight(&mut self, _from: Option<SocketAddr>, _to: SocketAddr, _datagram: &Bytes) {}

    /// A page's candidates change with every connection.
    fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    fn info(&self, link: LinkId) -> LinkInfo {
        let connection = self.links.get(&link);
        LinkInfo {
            path: connection.and_then(Connection::path_kind),
            ..LinkInfo::default()
        }
    }

    fn round_trip(&self, link: LinkId) -> Option<Duration> {
        self.links.get(&link)?.stats.rtt.and_then(round_trip)
    }

    fn traffic(&self, link: LinkId) -> Traffic {
        let connection = self.links.get(&link);
        connection.map(|c| c.traffic).unwrap_or_default()
    }

    /// Reports of tracks are all timers here: the page's checks drive the others.
    fn handle_timeout(&mut self, now: Instant) {
        let due = |c: &Connection| c.track.as_ref()?.deadline().filter(|at| *at <= now);
        let links = self.links.iter().filter(|(_, c)| due(c).is_some());
        let links: Vec<_> = links.map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.report(link, now));
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        let tracks = self.links.values().filter_map(|c| c.track.as_ref());
        tracks.filter_map(TrackReceiver::deadline).min()
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.drops.by_name().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(7);

    fn start() -> Instant {
        Instant::now()
    }

    fn open() -> (PageConnections, Instant) {
        let (mut connections, now) = (PageConnections::default(), start());
        connections.offer(LINK, now);
        connections.handle_open(LINK, now);
        connections.authenticated(LINK, false, now);
        while connections.poll_event().is_some() || connections.poll_command().is_some() {}
        (connections, now)
    }

    fn look(received: f64) -> Stats {
        Stats {
            received,
            ..Stats::default()
        }
    }

    fn ended(connections: &mut PageConnections) -> bool {
        let mut events = std::iter::from_fn(|| connections.poll_event());
        events.any(|event| matches!(event, ConnectionEvent::Closed { .. }))
    }

    #[test]
    fn a_peer_whose_counters_stand_still_is_gone_within_two_seconds() {
        let (mut connections, start) = open();
        let mut now = start;
        for received in 1..20 {
            now += Duration::from_millis(250);
            connections.handle_stats(LINK, look(received.into()), now);
        }
        let last = now;
        while !ended(&mut connections) {
            now += Duration::from_millis(250);
            connections.handle_stats(LINK, look(19.0), now);
        }
        assert!((1_400..=1_750).contains(&(now - last).as_millis()));
    }

    /// Returns the number of data messages that were sent since the last call.
    fn sent(connections: &mut PageConnections) -> usize {
        let commands = std::iter::from_fn(|| connections.poll_command());
        commands.filter(|c| matches!(c, Command::Data(..))).count()
    }

    #[test]
    fn an_idle_link_of_two_tabs_lives_by_acknowledged_signs_of_life() {
        let (mut connections, start) = open();
        let (mut received, mut signs) = (0_u32, 0_usize);
        for quarter in 1..=240 {
            let now = start + Duration::from_millis(250) * quarter;
            connections.handle_stats(LINK, look(received.into()), now);
            let asked = sent(&mut connections);
            signs += asked;
            // one in three gets lost
            received += u32::from(asked > 0 && !signs.is_multiple_of(3));
        }
        assert!(!ended(&mut connections), "the peer acknowledged {received}");
        assert!(received > 40, "{received} of {signs} in a minute");
    }

    #[test]
    fn a_suspected_peer_is_asked_once_at_once_and_has_a_second_to_answer() {
        let (mut connections, start) = open();
        let quarter = Duration::from_millis(250);
        connections.suspect(LINK, start);
        connections.suspect(LINK, start);
        assert_eq!(sent(&mut connections), 1);
        for looks in 1..=4 {
            connections.handle_stats(LINK, look(0.0), start + quarter * looks);
        }
        assert!(
            !ended(&mut connections),
            "an acknowledgement may be on its way"
        );
        connections.handle_stats(LINK, look(0.0), start + quarter * 5);
        assert!(ended(&mut connections));
    }

    #[test]
    fn a_page_whose_timers_slept_does_not_blame_the_peer() {
        let (mut connections, start) = open();
        connections.handle_stats(LINK, look(1.0), start);
        let later = start + Duration::from_secs(60);
        for _ in 0..4 {
            connections.handle_stats(LINK, look(1.0), later);
        }
        assert!(!ended(&mut connections), "it had no chance to answer");
        let data = Bytes::from_static(b"data");
        connections.handle_message(LINK, Channel::Data, data, later);
        connections.handle_stats(LINK, look(1.0), later);
        assert!(!ended(&mut connections));
    }

    #[test]
    fn a_peer_that_has_not_proven_who_it_is_is_not_silent() {
        let (mut connections, mut now) = (PageConnections::default(), start());
        connections.offer(LINK, now);
        connections.handle_open(LINK, now);
        for _ in 0..40 {
            now += Duration::from_millis(250);
            connections.handle_stats(LINK, look(1.0), now);
        }
        assert!(!ended(&mut connections), "it says no hellos yet");
        let data = Bytes::from_static(b"data");
        connections.handle_message(LINK, Channel::Data, data, now);
        assert_eq!(connections.drops(), [("webrtc_unauthenticated", 1)]);
        connections.authenticated(LINK, false, now);
        for _ in 0..8 {
            now += Duration::from_millis(250);
            connections.handle_stats(LINK, look(1.0), now);
        }
        assert!(ended(&mut connections));
    }

    #[test]
    fn what_waits_in_a_channel_is_bounded() {
        let (mut connections, now) = open();
        let full = [0; MAX_MESSAGE];
        let mut taken = 0;
        while connections.send_data(LINK, [&full[1..], b"x"], now).is_ok() {
            taken += MAX_MESSAGE;
        }
        assert_eq!(taken, DATA_QUEUE);
        connections.handle_waiting(LINK, Channel::Data, 0);
        assert_eq!(connections.send_data(LINK, [b"a", b"b"], now), Ok(()));
        assert_eq!(
            connections.send_data(LINK, [&full, b"b"], now),
            Err(SendError::TooLarge)
        );
        let other = LinkId(8);
        let refused = connections.send_control(other, b"a", now);
        assert_eq!(refused, Err(SendError::NoSuchLink));
    }

    #[test]
    fn the_first_round_trip_is_told_and_later_ones_are_shown() {
        let (mut connections, now) = open();
        for (rtt, told) in [(None, false), (Some(3.0), true), (Some(2.0), false)] {
            let stats = Stats {
                rtt,
                ..Stats::default()
            };
            connections.handle_stats(LINK, stats, now);
            let event = connections.poll_event();
            assert_eq!(event.is_some(), told, "{event:?}");
        }
        let shown = connections.round_trip(LINK);
        assert_eq!(shown, Some(Duration::from_millis(2)));
    }
}
