//! One connection: the peer connection, and once authenticated its hellos and its media lane.
//! [`Context`] and [`Out`] have the state that connections share.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use lcroute_lane::REPORT;
use lcroute_overlay::{
    Candidate, CandidateKind, ConnectionEvent, Description, EndReason, Lane, LinkInfo, Path,
    PathKind, Random, Role, SendError, Traffic,
};
use librecast::drops::Drops;
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};
use tracing::debug;

use crate::addresses::Addresses;
use crate::config::WebRtcConfig;
use crate::datagram::{Ecn, Transmit, Unreachable};
use crate::drops::DropReason;
use crate::liveness::{Liveness, Verdict, next_hello_at};
use crate::media::{Dropped, Media, is_rtcp};
use crate::peer_connection::{Error, Factory, Notice, Own, PeerConnection};
use crate::relay::Relays;
use crate::stun::{Binding, CheckAttributes, hello, request_id};

/// Time without a message after which a link is quiet: its peer connection's timers run once in
/// [`QUIET_HELLOS`]. Chosen.
const QUIET_PERIOD: Duration = Duration::from_secs(5);
/// Hello intervals between two such runs of a quiet link. Chosen: two seconds.
const QUIET_HELLOS: u32 = 6;
/// Longest time that a restart waits for STUN.
const RESTART_DELAY: Duration = Duration::from_millis(250);

/// Time without a path after which a description without a relay is followed by one with a relay.
/// Chosen: closed firewalls open within one round trip and 100 ms.
const STUCK: Duration = Duration::from_secs(3);
/// First and longest pause before a link over a relay looks for a direct path; doubled each time.
const SEEK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1_800));

/// Immutable state that all connections share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: WebRtcConfig,
    pub(crate) factory: Factory,
    /// Whether received datagrams wait unread in this host.
    pub(crate) behind: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<ConnectionEvent>,
    pub(crate) drops: Drops<DropReason>,
    /// Reused buffer for notices of a peer connection.
    notices: Vec<Notice>,
}

/// A description that waits until addresses are known.
#[derive(Debug)]
pub(crate) enum Pending {
    Offer,
    Answer(Description),
    /// Since this time.
    RestartOffer(Instant),
    RestartAnswer(Description),
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: LinkId,
    /// Randomness for DTLS that is not secret.
    seed: u64,
    /// `None` until the first description is made.
    pub(crate) pc: Option<PeerConnection>,
    pub(crate) pending: Option<Pending>,
    /// Whether ICE restarts, or waits for the peer to restart: there is no path.
    restarts: bool,
    pub(crate) up: Option<Up>,
    /// Attributes of the last ICE check; hellos have the same.
    check: Option<CheckAttributes>,
    pub(crate) traffic: Traffic,
    /// Whether the peer must not learn addresses of this host: the connection uses relays alone.
    pub(crate) relay_only: bool,
    /// A panic at the begin of the connection, and whether the peer caused it.
    begin_panic: Option<(String, bool)>,
    /// Time of the peer connection's timeout, as of the last drain.
    due: Option<Instant>,
    /// The connection's valid entry in the timer heap.
    pub(crate) scheduled: Option<Instant>,
    pub(crate) dirty: bool,
    described_at: Option<Instant>,
    /// Time at which a missing path makes it stuck.
    stuck_at: Option<Instant>,
    /// Time of the next search for a better path than a relay, and the pause before it.
    seek_at: Option<Instant>,
    seek_after: Duration,
    closed: bool,
}

/// State of an authenticated connection.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) liveness: Liveness,
    pub(crate) media: Option<Box<Media>>,
}

/// Class of a message of the control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Hard state of both ends: delivery is reliable.
    Control,
    /// Routed messages of other nodes: they wait behind `Control`, and are dropped above a bound.
    Routed,
}

impl Out {
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    fn count_dropped(&mut self, dropped: Dropped) {
        self.drops.add(DropReason::QueueDelay, dropped.expired);
        self.drops.add(DropReason::QueueCodel, dropped.standing);
        self.drops.add(DropReason::QueueFull, dropped.overflow);
    }
}

impl Connection {
    pub(crate) fn new(id: LinkId, pending: Pending, seed: u64) -> Self {
        Self {
            id,
            seed,
            pc: None,
            pending: Some(pending),
            restarts: false,
            up: None,
            check: None,
            traffic: Traffic::default(),
            relay_only: false,
            begin_panic: None,
            due: None,
            scheduled: None,
            dirty: false,
            described_at: None,
            stuck_at: None,
            seek_at: None,
            seek_after: SEEK.0,
            closed: false,
        }
    }

    /// Returns both ends of the path that ICE has chosen.
    pub(crate) fn path(&self) -> Option<Path> {
        let (local, remote) = self.pc.as_ref()?.path()?;
        Some(Path { local, remote })
    }

    pub(crate) fn ufrag(&self) -> Option<&str> {
        let pc = self.pc.as_ref()?;
        Some(&pc.credentials().local_ufrag)
    }

    /// Whether it is unauthenticated or without a path: each datagram depends on the one before.
    pub(crate) fn is_young(&self) -> bool {
        self.up.is_none() || self.restarts
    }

    /// Ends the connection: from now on only [`Self::close`] has an effect.
    fn end(&mut self, reason: EndReason, out: &mut Out) {
        if !std::mem::replace(&mut self.closed, true) {
            let link = self.id;
            out.events
                .push_back(ConnectionEvent::Closed { link, reason });
        }
    }
}

/// Descriptions.
impl Connection {
    /// Makes the pending description, if addresses are known; returns whether it did.
    pub(crate) fn describe(
        &mut self,
        addresses: &Addresses,
        relays: &mut Relays,
        context: &Context,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        if self.relay_only || addresses.are_dead(now) || self.needs_relay() {
            relays.need(addresses.are_dead(now), now);
        }
        let patient = match &self.pending {
            None => return false,
            Some(_) if self.relay_only => relays.relayed().is_none(),
            Some(Pending::RestartOffer(since)) => {
                addresses.are_awaited(now) && now < *since + RESTART_DELAY
            }
            Some(Pending::RestartAnswer(_)) => false,
            Some(Pending::Offer | Pending::Answer(_)) => {
                addresses.are_awaited(now) || relays.are_awaited(now)
            }
        };
        if patient || addresses.hosts().is_empty() {
            return false;
        }
        let reflexive = addresses.reflexive();
        let relayed = relays.relayed();
        let own = match self.relay_only {
            true => Own {
                hosts: &[],
                mapped: None,
                reflexive: &[],
                relayed,
            },
            false => Own {
                hosts: addresses.hosts(),
                mapped: addresses.mapped(),
                reflexive: &reflexive,
                relayed,
            },
        };
        let (factory, pc) = (&context.factory, self.pc.as_mut());
        let made = match (self.pending.take(), pc) {
            (Some(Pending::Offer), _) => factory.offer(&own, self.seed, now).map(|(pc, d)| {
                self.pc = Some(pc);
                d
            }),
            (Some(Pending::Answer(offer)), _) => {
                let made = factory.answer(&offer, &own, self.seed, now);
                made.map(|(pc, d)| {
                    self.pc = Some(pc);
                    d
                })
            }
            (Some(Pending::RestartOffer(_)), Some(pc)) => factory.restart_offer(pc, &own, now),
            (Some(Pending::RestartAnswer(offer)), Some(pc)) => {
                factory.restart_answer(pc, &offer, &own, now)
            }
            _ => return false,
        };
        match made {
            Ok(description) => {
                self.described_at = Some(now);
                // an offerer's time begins with the answer
                let answers = self.pc.as_ref().is_some_and(|pc| !pc.awaits_answer());
                self.stuck_at = answers.then(|| now + STUCK);
                let link = self.id;
                let described = ConnectionEvent::Described { link, description };
                out.events.push_back(described);
            }
            Err(error) => {
                debug!(%error, "cannot begin a connection");
                if let Error::Panicked { panic, proven } = error {
                    self.begin_panic = Some((panic.to_string(), proven));
                }
                self.end(EndReason::CannotBegin, out);
            }
        }
        true
    }

    pub(crate) fn accept(&mut self, answer: &Description, out: &mut Out, now: Instant) {
        let Some(pc) = self.pc.as_mut().filter(|pc| pc.awaits_answer()) else {
            return;
        };
        if let Err(error) = pc.accept(answer, now) {
            debug!(%error, "answer not accepted");
            self.end(EndReason::AnswerNotAccepted, out);
        }
        self.stuck_at = Some(now + STUCK);
    }

    pub(crate) fn add_candidates(&mut self, candidates: &[Candidate]) {
        if let Some(pc) = self.pc.as_mut().filter(|pc| !pc.awaits_answer())
            && let Err(error) = pc.add_remote(candidates)
        {
            debug!(%error, "candidates not taken");
        }
    }

    /// Whether a description of this end was made for the peer.
    pub(crate) fn is_described(&self) -> bool {
        self.described_at.is_some()
    }

    /// Whether the peer has relayed addresses only: UDP from this node may not reach its relay.
    fn needs_relay(&self) -> bool {
        let (Some(Pending::Answer(offer)) | Some(Pending::RestartAnswer(offer))) = &self.pending
        else {
            return false;
        };
        let mut kinds = offer.candidates.iter().map(|candidate| candidate.kind);
        kinds.all(|kind| kind == CandidateKind::Relayed)
    }

    /// Makes the connection wait for a relay, [`STUCK`] at most.
    pub(crate) fn await_relay(&mut self, now: Instant) {
        self.relay_only = true;
        self.stuck_at = Some(now + STUCK);
    }

    /// Ends the connection because no relay has given an address.
    pub(crate) fn end_without_relay(&mut self, out: &mut Out) {
        self.end(EndReason::NoRelay, out);
    }

    /// Whether the time for a path is over and there is none.
    pub(crate) fn is_stuck(&mut self, now: Instant) -> bool {
        let stuck = self.stuck_at.take_if(|at| *at <= now).is_some();
        stuck && self.up.is_none() && self.path().is_none()
    }

    /// Whether half of [`STUCK`] has passed without authentication: most paths appear sooner.
    pub(crate) fn has_waited(&self, now: Instant) -> bool {
        let began = self.described_at.filter(|_| self.up.is_none());
        began.is_some_and(|at| now >= at + STUCK / 2)
    }

    /// Returns our relayed address, if the peer knows it.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.pc.as_ref()?.relayed()
    }

    /// Requests a better path than a relay: from time to time, and when addresses change.
    pub(crate) fn seek_better_path(&mut self, out: &mut Out, now: Instant) {
        if self.relay_only {
            return;
        }
        if self.up.is_some() && !self.restarts && self.kind() == Some(PathKind::Relay) {
            let link = self.id;
            out.events.push_back(ConnectionEvent::BetterPath { link });
        }
        self.seek_after = (self.seek_after * 2).min(SEEK.1);
        self.plan_seek(now);
    }

    fn plan_seek(&mut self, now: Instant) {
        let offers = self
            .pc
            .as_ref()
            .is_some_and(|pc| pc.role() == Role::Offerer);
        let relayed = self.kind() == Some(PathKind::Relay);
        self.seek_at = (offers && relayed && !self.relay_only).then(|| now + self.seek_after);
    }

    fn kind(&self) -> Option<PathKind> {
        self.pc.as_ref()?.path_kind()
    }

    /// Marks the path as lost; the peer will restart ICE.
    pub(crate) fn await_restart(&mut self) {
        self.restarts = true;
    }

    pub(crate) fn restart(&mut self, offer: Option<&Description>, now: Instant) {
        self.restarts = true;
        self.pending = Some(match offer {
            Some(offer) => Pending::RestartAnswer(offer.clone()),
            None => Pending::RestartOffer(now),
        });
    }
}

impl Connection {
    /// Returns the time until which the description waits for more addresses, if it waits.
    pub(crate) fn describes_at(&self) -> Option<Instant> {
        match &self.pending {
            Some(Pending::RestartOffer(since)) if !self.relay_only => Some(*since + RESTART_DELAY),
            _ => None,
        }
    }
}

/// Authenticated.
impl Connection {
    /// Starts hellos, and the media lane if both sides offer it.
    pub(crate) fn authenticate(
        &mut self,
        answers: bool,
        context: &Context,
        random: &mut Random,
        now: Instant,
    ) {
        let Some(pc) = self.pc.as_mut() else { return };
        // a browser's ICE answers our hellos, but sends none
        let answers = answers && pc.media_keys().is_some();
        let seed = Random::new(random.array());
        let liveness = Liveness::new(context.config.epoch, answers, seed, now);
        let media = new_media(pc, context, random, now);
        self.up = Some(Up { liveness, media });
    }

    pub(crate) fn receiving_ssrc(&self) -> Option<u32> {
        self.up.as_ref()?.media.as_ref()?.receiving_ssrc()
    }

    fn lane(&mut self) -> Option<&mut Media> {
        self.up.as_mut()?.media.as_deref_mut()
    }

    /// Returns the state of the link except its round trip.
    pub(crate) fn info(&self) -> LinkInfo {
        let up = self.up.as_ref();
        let media = up.and_then(|up| up.media.as_deref());
        let loss = || up.map(|up| up.liveness.loss());
        LinkInfo {
            // the overlay adds it
            rtt_ms: None,
            loss: media.and_then(Media::loss).or_else(loss),
            lane: match media {
                Some(media) if media.is_used() => Lane::Media,
                _ => Lane::Data,
            },
            path: self.kind(),
            path_mtu: media.map(Media::path_mtu),
            congested_packets: media.map_or(0, Media::congested),
            repair: media.map(Media::repaired).unwrap_or_default(),
        }
    }

    /// Returns the round trip of hellos; the lane's grows with its queues, and routes ignore load.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.up.as_ref()?.liveness.rtt()
    }

    /// Whether the media lane holds most packets back.
    pub(crate) fn is_pressed(&self) -> bool {
        let up = self.up.as_ref();
        let media = up.and_then(|up| up.media.as_deref());
        media.is_some_and(Media::is_pressed)
    }

    /// Whether messages wait in the media lane.
    pub(crate) fn queues(&self) -> bool {
        let up = self.up.as_ref();
        let media = up.and_then(|up| up.media.as_deref());
        media.is_some_and(Media::queues)
    }

    /// Returns the bytes of messages that wait in the media lane, if any do.
    pub(crate) fn waiting(&self, now: Instant) -> Option<usize> {
        self.up.as_ref()?.media.as_ref()?.waiting(now)
    }

    /// Whether a standing queue is on the path of the media lane.
    pub(crate) fn is_congested(&self) -> bool {
        let up = self.up.as_ref();
        let media = up.and_then(|up| up.media.as_deref());
        media.is_some_and(Media::is_congested)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }
}

/// Sending of messages. An error comes from the stack; drops of the lane are counted.
impl Connection {
    /// Sends a control message: in the media lane if that carries them, else on the channel. Before
    /// the link is up the message is our Auth.
    pub(crate) fn send_control(
        &mut self,
        message: &[u8],
        priority: Priority,
        now: Instant,
    ) -> Result<By, SendError> {
        if let Some(lane) = self.lane() {
            let sent = match priority {
                Priority::Control => lane.send_control(message, now),
                Priority::Routed => lane.send_routed(message),
            };
            if let Some(result) = sent {
                return result.map(|()| By::Lane);
            }
        }
        let pc = self.pc.as_mut().ok_or(SendError::NoSuchLink)?;
        match priority {
            Priority::Control => pc.send_control(message, now)?,
            Priority::Routed => pc.send_routed(message, now)?,
        }
        Ok(By::Channel)
    }

    /// Sends a message in the media lane if a lane takes it, else on the data channel.
    pub(crate) fn send_data(
        &mut self,
        parts: [&[u8]; 2],
        out: &mut Out,
        now: Instant,
    ) -> Result<By, SendError> {
        let Some(up) = self.up.as_mut() else {
            return Err(SendError::NoSuchLink);
        };
        let pc = self.pc.as_mut().ok_or(SendError::NoSuchLink)?;
        let size = parts[0].len() + parts[1].len();
        let lane = up.media.as_deref_mut();
        if let Some(lane) = lane.filter(|lane| size > 0 && size <= lane.longest() && lane.is_used())
        {
            let mut dropped = Dropped::default();
            lane.send(parts, pc.path().is_some(), &mut dropped, now);
            out.count_dropped(dropped);
            return Ok(By::Lane);
        }
        pc.send_data(parts, now)?;
        Ok(By::Channel)
    }

    /// Ends the turn: partly filled packets of the lane go out. Messages of a stalled lane go on
    /// the channel; returns whether any did.
    pub(crate) fn finish_lane(&mut self, out: &mut Out, now: Instant) -> bool {
        let (Some(up), Some(pc)) = (self.up.as_mut(), self.pc.as_mut()) else {
            return false;
        };
        let Some(media) = up.media.as_deref_mut() else {
            return false;
        };
        media.listed = false;
        let Some((from, to)) = pc.path() else {
            return false;
        };
        let ecn = if media.marks() {
            Ecn::Capable
        } else {
            Ecn::None
        };
        media.hellos_show(up.liveness.rtt(), up.liveness.loss());
        for contents in media.finish(now) {
            self.traffic.sent(contents.len());
            let mut transmit = Transmit::plain(to, Some(from), contents);
            // ECN marks on reports would reach no congestion controller
            if !is_rtcp(&transmit.contents) {
                transmit.ecn = ecn;
            }
            out.transmits.push_back(transmit);
        }
        let channel: Vec<_> = media.take_channel().collect();
        for contents in media.take_probes() {
            self.traffic.sent(contents.len());
            let mut probe = Transmit::plain(to, Some(from), contents);
            (probe.ecn, probe.dont_fragment) = (ecn, true);
            out.transmits.push_back(probe);
        }
        // the channel is reliable, but may be full
        let sent = channel.iter().map(|message| pc.send_control(message, now));
        let unsent = sent.filter(Result::is_err).count();
        if !channel.is_empty() {
            debug!(unsent, "the media lane is stalled");
        }
        !channel.is_empty()
    }
}

/// Carrier of a sent message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Lane,
    Channel,
}

/// Datagrams in.
impl Connection {
    /// Handles a datagram of ICE or DTLS.
    pub(crate) fn feed(
        &mut self,
        (from, to_local): (SocketAddr, SocketAddr),
        datagram: &[u8],
        now: Instant,
    ) {
        self.traffic.received(datagram.len());
        if let Some(pc) = self.pc.as_mut() {
            pc.handle_datagram(from, to_local, datagram, now);
        }
    }

    /// Handles a datagram in the range of RTP and RTCP.
    pub(crate) fn handle_media(&mut self, datagram: &[u8], ecn: Ecn, out: &mut Out, now: Instant) {
        let has_path = self.path().is_some();
        let Some(up) = self.up.as_mut() else {
            return out.count(DropReason::UnauthenticatedData);
        };
        let Some(media) = up.media.as_deref_mut() else {
            return out.count(DropReason::UnauthenticatedData);
        };
        if media.is_track() {
            // a browser's own RTCP, which nothing here needs
            return;
        }
        let (link, events, mut dropped) = (self.id, &mut out.events, Dropped::default());
        let mut deliver = |message: Bytes| deliver(link, message, events);
        let result = media.handle(datagram, ecn, has_path, &mut deliver, &mut dropped, now);
        match result {
            Ok(()) => {
                up.liveness.note_received(now);
                self.traffic.received(datagram.len());
            }
            Err(reason) => out.count(reason),
        }
        out.count_dropped(dropped);
        self.deliver_control(out);
    }

    /// Answers a consent check on the path of an authenticated connection; returns false for a
    /// check that ICE must handle.
    pub(crate) fn answer_hello(
        &mut self,
        from: SocketAddr,
        request: &mut Binding,
        context: &Context,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        let crypto = context.factory.provider().crypto();
        let (Some(pc), Some(up)) = (self.pc.as_ref(), self.up.as_mut()) else {
            return false;
        };
        let Some((local, remote)) = pc.path() else {
            return false;
        };
        let password = &pc.credentials().local_pwd;
        if remote != from || self.restarts || request.nominates() {
            return false;
        }
        if !request.is_authentic(password, crypto) {
            return false;
        }
        up.liveness.note_received(now);
        if request.asks_for_hellos(password, crypto) {
            up.liveness.asked(now);
        }
        if let Some(answer) = request.success(from, Some((password, crypto))) {
            self.traffic.received(answer.len());
            self.traffic.sent(answer.len());
            let answer = Transmit::plain(from, Some(local), answer.into());
            out.transmits.push_back(answer);
        }
        true
    }

    /// Handles the response to a hello; returns whether it was one.
    pub(crate) fn handle_hello_answer(
        &mut self,
        answer: &mut Binding,
        context: &Context,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        let crypto = context.factory.provider().crypto();
        let (Some(pc), Some(up)) = (self.pc.as_ref(), self.up.as_mut()) else {
            return false;
        };
        let password = &pc.credentials().remote_pwd;
        if !answer.is_success() || !answer.is_authentic(password, crypto) {
            return false;
        }
        let before = up.liveness.rtt();
        let ours = up.liveness.answered(answer.id(), now);
        if let Some(rtt) = up.liveness.rtt()
            && before.is_none_or(|before| rtt < before)
        {
            let link = self.id;
            out.events
                .push_back(ConnectionEvent::RoundTrip { link, rtt });
        }
        ours
    }

    /// Handles an ICMP error for a datagram of ours. Whoever knows the link's addresses can forge
    /// it, so the peer is only suspected. A refusal by the peer's host counts more if it quotes
    /// bytes that only nodes on the path have seen.
    pub(crate) fn handle_unreachable(&mut self, error: &Unreachable<'_>, now: Instant) {
        let Some(up) = self.up.as_mut() else { return };
        let id = request_id(error.quoted);
        let hello = id.is_some_and(|id| up.liveness.is_outstanding(id));
        let media = up.media.as_ref();
        if error.is_refusal && (hello || media.is_some_and(|m| m.has_sent(error.quoted))) {
            up.liveness.refused(now);
        } else {
            up.liveness.hint(now);
        }
    }

    /// Handles datagrams of up to `size` bytes that this host did not send, perhaps for their size.
    pub(crate) fn handle_unsent(&mut self, size: usize, datagrams: u64, now: Instant) {
        if let Some(lane) = self.lane() {
            lane.unsent(size, datagrams, now);
        }
    }

    /// Whether queued messages may have made [`Self::lane_deadline`] earlier.
    pub(crate) fn lane_waits(&self) -> bool {
        let media = self.up.as_ref().and_then(|up| up.media.as_ref());
        media.is_some_and(|media| media.is_waiting())
    }

    pub(crate) fn suspect(&mut self, now: Instant) {
        if let Some(up) = self.up.as_mut() {
            up.liveness.suspect(now);
        }
    }
}

/// Output of the peer connection.
impl Connection {
    /// Drains the notices and datagrams of the peer connection; returns a newly found path.
    pub(crate) fn drain(&mut self, out: &mut Out, now: Instant) -> Option<Path> {
        let pc = self.pc.as_mut()?;
        let mut notices = std::mem::take(&mut out.notices);
        let before = out.transmits.len();
        pc.drain(&mut notices, &mut out.transmits, now);
        // not earlier: our Auth, which made it up, may have gone out just now
        if self.up.is_some() {
            pc.link_is_made(!self.restarts, now);
        }
        for transmit in out.transmits.range(before..) {
            self.traffic.sent(transmit.contents.len());
            if let Some(check) = CheckAttributes::of(&transmit.contents) {
                self.check = Some(check);
            }
        }
        let mut path = None;
        for notice in notices.drain(..) {
            if let Notice::Path { local, remote } = notice {
                path = Some(Path { local, remote });
            }
            if !self.closed {
                self.handle_notice(notice, out, now);
            }
        }
        out.notices = notices;
        path
    }

    fn handle_notice(&mut self, notice: Notice, out: &mut Out, now: Instant) {
        let link = self.id;
        match notice {
            Notice::Path { local, remote } => {
                debug!(%link, %local, %remote, "path");
                self.restarts = false;
                self.stuck_at = None;
                self.plan_seek(now);
                if let Some(up) = self.up.as_mut() {
                    up.liveness.note_received(now);
                }
                out.events.push_back(ConnectionEvent::Path { link });
                let mut dropped = Dropped::default();
                if let Some(lane) = self.lane() {
                    lane.path_changed(&mut dropped, now);
                }
                out.count_dropped(dropped);
            }
            Notice::Open => out.events.push_back(ConnectionEvent::Open { link }),
            Notice::Control(message) => self.handle_control(message, out, now),
            Notice::Data(message) => match self.up.as_mut() {
                Some(up) => {
                    up.liveness.note_received(now);
                    match up.media.as_deref_mut().filter(|media| media.is_track()) {
                        Some(media) if message.first() == Some(&REPORT) => {
                            let has_path = self.pc.as_ref().is_some_and(|pc| pc.path().is_some());
                            let mut dropped = Dropped::default();
                            let report = &message[1..];
                            let handled = media.handle_report(report, has_path, &mut dropped, now);
                            handled.unwrap_or_else(|reason| out.count(reason));
                            out.count_dropped(dropped);
                        }
                        _ => deliver(link, message, &mut out.events),
                    }
                }
                None => out.count(DropReason::UnauthenticatedData),
            },
            Notice::OtherControl(version) => {
                out.events
                    .push_back(ConnectionEvent::OtherControl { link, version });
            }
            Notice::LeftOut(count) => {
                debug!(%link, count, "SCTP left out");
                out.drops.add(DropReason::SctpLeftOut, count.into());
            }
            Notice::Closed(reason) => self.end(reason, out),
        }
    }

    fn handle_control(&mut self, message: Bytes, out: &mut Out, now: Instant) {
        if let Some(up) = self.up.as_mut() {
            up.liveness.note_received(now);
            if let Some(lane) = up.media.as_deref_mut()
                && lane.handle_channel(&message, now)
            {
                return self.deliver_control(out);
            }
        }
        let link = self.id;
        out.events
            .push_back(ConnectionEvent::Control { link, message });
    }

    /// Delivers the control messages received in the lane.
    fn deliver_control(&mut self, out: &mut Out) {
        let link = self.id;
        let Some(lane) = self.lane() else { return };
        while let Some(message) = lane.take_control() {
            out.events
                .push_back(ConnectionEvent::Control { link, message });
        }
        if lane.is_broken() {
            self.end(EndReason::BadControl, out);
        }
    }
}

/// Timers.
impl Connection {
    /// Computes when the peer connection's timers are due.
    pub(crate) fn reckon_due(&mut self, epoch: Instant, now: Instant) {
        let (is_up, restarts) = (self.up.is_some(), self.restarts);
        let Some(pc) = self.pc.as_mut() else { return };
        let due = pc.deadline();
        let calm = is_up && !restarts && now.saturating_duration_since(pc.used()) > QUIET_PERIOD;
        // on a quiet link ICE would be polled five times a second for nothing
        let patient = due.map(|due| due.max(next_hello_at(epoch, now, QUIET_HELLOS)));
        self.due = if calm { patient } else { due };
    }

    pub(crate) fn has_panicked(&self) -> bool {
        let pc = self.pc.as_ref();
        pc.is_some_and(|pc| pc.panic().is_some()) && !self.closed
    }

    pub(crate) fn lane_deadline(&self) -> Option<Instant> {
        self.up.as_ref()?.media.as_ref()?.deadline()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let up = self.up.as_ref().filter(|_| !self.restarts);
        let hello = up.map(|up| up.liveness.deadline());
        let own = [self.due, self.stuck_at, self.seek_at];
        let all = own.into_iter().chain([hello, self.lane_deadline()]);
        all.into_iter().flatten().min()
    }

    /// Runs the due timers; returns false if it did not touch the expensive peer connection.
    pub(crate) fn handle_timeout(
        &mut self,
        context: &Context,
        out: &mut Out,
        now: Instant,
    ) -> bool {
        let quiet = !self.is_young() && !self.dirty && self.due.is_none_or(|due| now < due);
        if !quiet && let Some(pc) = self.pc.as_mut() {
            pc.handle_timeout(now);
        }
        let (mut dropped, has_path) = (Dropped::default(), self.path().is_some());
        if let Some(lane) = self.lane() {
            lane.poll(has_path, &mut dropped, now);
        }
        out.count_dropped(dropped);
        if self.seek_at.is_some_and(|at| at <= now) {
            self.seek_better_path(out, now);
        }
        self.say_hello(context, out, now);
        !quiet
    }

    /// Sends a hello, or ends the link if the peer is dead.
    fn say_hello(&mut self, context: &Context, out: &mut Out, now: Instant) {
        let crypto = context.factory.provider().crypto();
        let (Some(pc), Some(up), false) = (self.pc.as_ref(), self.up.as_mut(), self.restarts)
        else {
            return;
        };
        if context.behind {
            up.liveness.excuse(now);
        }
        match up.liveness.poll(now) {
            Verdict::Wait => {}
            Verdict::Down(reason) => self.end(reason, out),
            Verdict::Hello { id, asks } => {
                let Some((local, remote)) = pc.path() else {
                    return;
                };
                if let Some(request) =
                    hello((id, asks), pc.credentials(), self.check.as_ref(), crypto)
                {
                    self.traffic.sent(request.len());
                    let request = Transmit::plain(remote, Some(local), request.into());
                    out.transmits.push_back(request);
                }
            }
        }
    }

    /// Closes the connection; returns the panic that ended it, and whether the peer caused it.
    pub(crate) fn close(&mut self, out: &mut Out, now: Instant) -> Option<(String, bool)> {
        let Some(pc) = self.pc.as_mut() else {
            return self.begin_panic.take();
        };
        let mut goodbye = VecDeque::new();
        pc.close(&mut goodbye, now);
        // twice: a lost goodbye is not requested again
        for transmit in goodbye.iter().chain(&goodbye) {
            self.traffic.sent(transmit.contents.len());
            out.transmits.push_back(transmit.clone());
        }
        let panic = pc.panic();
        panic.map(|(panic, proven)| (panic.to_string(), proven))
    }
}

/// Delivers a data message. First nibble 0 is the overlay's own message, and empty.
fn deliver(link: LinkId, message: Bytes, events: &mut VecDeque<ConnectionEvent>) {
    if message.first().is_some_and(|first| first >> 4 != 0) {
        events.push_back(ConnectionEvent::Data { link, message });
    }
}

/// Makes the lane of a newly authenticated connection: if both sides offer it, or a page a track.
fn new_media(
    pc: &PeerConnection,
    context: &Context,
    random: &mut Random,
    now: Instant,
) -> Option<Box<Media>> {
    let crypto = context.factory.provider().crypto();
    let config = &context.config;
    let Some(keys) = pc.media_keys() else {
        let (keys, kind) = pc.track()?;
        let seed = u64::from_be_bytes(random.array());
        let (mtu, limits) = (config.mtu, &config.limits);
        return Media::track((&keys, kind), crypto, mtu, limits, seed, now).map(Box::new);
    };
    let seed = u64::from_be_bytes(random.array());
    let mut media = Media::new(&keys, crypto, config.mtu, &config.limits, seed, now)?;
    if pc.lane_carries_control() {
        media.carry_control(config.limits.control_queue, now);
    }
    Some(Box::new(media))
}
