//! One link's media lane.
//!
//! ```text
//! send --window open--> packet being filled --full, or end of turn--> sealed, out
//!      \--window shut--> fair queue ------------report--------------/
//!                                                repair -----------/  rest of the window
//! ```

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use librecast::pool::Pool;
use rtc::crypto::RTCCrypto;

use lcroute_lane::{
    CHUNK_HEADER, CODE_OVERHEAD, Fault, MAX_PIECES, PIECE_HEADER, Receiver, Report, TRACK_REPAIR,
    put_piece, put_whole,
};
use lcroute_overlay::{RepairInfo, SendError};

use super::congestion::Controller;
use super::keys::{LinkKeys, TrackKeys};
use super::path_mtu::{BASE, PathMtu};
use super::queue::{Dropped, FairQueue};
use super::reliable::{Reliable, Transport};
use super::repair::Repair;
use super::sealing::Sealing;
use super::srtp::{Drop, MALFORMED, Opener, RTCP_HEADER, RTP_HEADER, TAG, is_rtcp};
use crate::config::Limits;
use crate::datagram::Ecn;
use crate::drops::DropReason;

/// Size of a buffer in bytes: about fifty packets share one.
const BUFFER: usize = 64 * 1024;
/// Granularity of pacing: timers are no finer, and packets go out together.
const TICK: Duration = Duration::from_millis(1);
/// Buffers kept in each direction: enough for a turn of the loop.
const BUFFERS: usize = 8;
/// Data header, and the overhead of a message in a packet of its own.
const OVERHEAD: usize = 32 + CHUNK_HEADER + RTP_HEADER + TAG;

/// Packets over which the share of refused packets is smoothed.
const REFUSED_OVER: f64 = 64.0;
/// Share of messages at a shut window above which repair stops: data needs all the room.
const MOST_PRESSED: f64 = 0.5;
/// Messages over which that share is smoothed. Chosen.
const PRESSED_OVER: f64 = 64.0;

/// Time without a report after packets on a track, after which data goes by the data channel. Chosen:
/// a page whose thread is busy answers within.
const TRACK_SILENCE: Duration = Duration::from_secs(1);
/// Time from there to the next probes. Chosen.
const TRACK_RETRY: Duration = Duration::from_secs(5);

/// The lane, both directions.
pub(crate) struct Media {
    sealer: Sealing,
    inbound: Inbound,
    /// Search for the longest datagram.
    path: PathMtu,
    probes: Vec<Bytes>,
    /// The packet being filled, which begins with room for its header; or empty.
    packet: BytesMut,
    packets: Pool,
    /// Sealed packets of this turn; a link's packets go out in sequence, for GSO.
    ready: VecDeque<Bytes>,
    next_message: u16,
    controller: Controller,
    queue: FairQueue,
    /// Reused buffer of the last queued message.
    message: Vec<u8>,
    /// When pacing lets the next queued message out.
    wake: Option<Instant>,
    /// Share of recent messages that found the window shut.
    pressed: f64,
    /// Share of recent packets that this host refused to send.
    refused: f64,
    repair: Repair,
    /// Control messages, if the lane carries them.
    control: Option<Box<Reliable>>,
    /// Control messages that go on the control channel.
    channel: Vec<Bytes>,
    /// Whether the peer has violated the protocol of control messages.
    broken: bool,
    /// Share of packets lost, measured by hellos.
    hello_loss: f64,
    /// Whether the list of lanes with output contains it.
    pub(crate) listed: bool,
}

/// The direction to this end.
enum Inbound {
    Lane(Box<Lane>),
    /// A page sends no data by the lane, and its reports over the data channel.
    Page(Page),
}

/// What a peer with a lane sends.
struct Lane {
    opener: Opener,
    /// SSRC of received packets.
    ssrc: u32,
    input: BytesMut,
    inputs: Pool,
    receiver: Receiver,
}

/// Whether a page receives the track.
struct Page {
    /// Whether data goes by the track: the page has reported, and still reports.
    is_used: bool,
    /// When the first packet after its last report was sent.
    unreported: Option<Instant>,
    /// When probes begin anew.
    retry_at: Option<Instant>,
}

impl Media {
    /// Makes a lane with the keys of a link, for packets of lc0 of up to `mtu` bytes; `None` if the
    /// keys are invalid. `limits` bounds the wait of a packet, and its delay by repair.
    pub(crate) fn new(
        keys: &LinkKeys,
        crypto: &dyn RTCCrypto,
        mtu: u16,
        limits: &Limits,
        seed: u64,
        now: Instant,
    ) -> Option<Self> {
        let repair = limits.media_repair;
        let sending = keys.sending.session(crypto).ok()?;
        let receiving = keys.receiving.session(crypto).ok()?;
        let inbound = Inbound::Lane(Box::new(Lane {
            opener: Opener::new(&receiving).ok()?,
            ssrc: receiving.ssrc,
            input: BytesMut::new(),
            inputs: Pool::new(BUFFER, BUFFERS),
            receiver: Receiver::new(repair, now),
        }));
        let sealer = Sealing::lane(&sending)?;
        let media = Self::with(
            (sealer, inbound),
            mtu,
            limits.media_queue,
            repair,
            seed,
            now,
        );
        Some(media)
    }

    /// Makes the lane as a track into a page, which takes `payload_type`.
    pub(crate) fn track(
        (keys, payload_type): (&TrackKeys, u8),
        crypto: &dyn RTCCrypto,
        mtu: u16,
        limits: &Limits,
        seed: u64,
        now: Instant,
    ) -> Option<Self> {
        let sealer = Sealing::track(keys, payload_type, crypto)?;
        let inbound = Inbound::Page(Page {
            is_used: false,
            unreported: None,
            retry_at: None,
        });
        // 0 turns repair off here as well
        let repair = match limits.media_repair.is_zero() {
            true => Duration::ZERO,
            false => TRACK_REPAIR,
        };
        let media = Self::with(
            (sealer, inbound),
            mtu,
            limits.media_queue,
            repair,
            seed,
            now,
        );
        Some(media)
    }

    fn with(
        (sealer, inbound): (Sealing, Inbound),
        mtu: u16,
        queue: Duration,
        repair: Duration,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            sealer,
            inbound,
            path: PathMtu::new(usize::from(mtu) + OVERHEAD + CODE_OVERHEAD, now),
            probes: Vec::new(),
            packet: BytesMut::new(),
            packets: Pool::new(BUFFER, BUFFERS),
            ready: VecDeque::new(),
            next_message: 0,
            controller: Controller::new(now),
            queue: FairQueue::new(seed, queue),
            message: Vec::new(),
            wake: None,
            pressed: 0.0,
            refused: 0.0,
            repair: Repair::new(repair, now),
            control: None,
            channel: Vec::new(),
            broken: false,
            hello_loss: 0.0,
            listed: false,
        }
    }

    /// Starts control messages in the lane, with at most `capacity` bytes queued.
    pub(crate) fn carry_control(&mut self, capacity: usize, now: Instant) {
        self.control = Some(Box::new(Reliable::new(capacity, now)));
    }

    /// Sends a control message; returns `None` if the lane does not carry them.
    pub(crate) fn send_control(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Option<Result<(), SendError>> {
        let control = self.control.as_mut()?;
        Some(control.send(message, now))
    }

    /// Sends a routed message, behind our own control messages.
    pub(crate) fn send_routed(&mut self, message: &[u8]) -> Option<Result<(), SendError>> {
        let control = self.control.as_mut()?;
        Some(control.send_routed(message))
    }

    /// Handles a message of the control channel; returns false for a plain control message.
    pub(crate) fn handle_channel(&mut self, message: &Bytes, now: Instant) -> bool {
        let Some(control) = self.control.as_mut() else {
            return false;
        };
        self.broken |= control.handle(message, Transport::Channel, now).is_err();
        true
    }

    /// Sets round trip and loss from hellos, until the lane has measured its own.
    pub(crate) fn hellos_show(&mut self, trip: Option<Duration>, loss: f64) {
        // hellos measure both directions
        self.hello_loss = loss / 2.0;
        if let (Some(control), Some(trip)) = (self.control.as_mut(), trip) {
            control.expect_trip(trip);
        }
    }

    pub(crate) fn take_control(&mut self) -> Option<Bytes> {
        self.control.as_mut()?.take()
    }

    /// Whether the peer has violated the protocol of control messages: no more are delivered.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn take_channel(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.channel.drain(..)
    }

    /// Puts due control messages into packets, independent of the window: they are few.
    fn put_control(&mut self, now: Instant) {
        let Some(mut control) = self.control.take_if(|control| control.has_output()) else {
            return;
        };
        let loss = self.controller.loss().unwrap_or(self.hello_loss);
        let mut channel = std::mem::take(&mut self.channel);
        control.poll(loss, now, &mut |way, parts| match way {
            Transport::Lane => self.put(parts, now),
            Transport::Channel => channel.push(parts.concat().into()),
        });
        (self.control, self.channel) = (Some(control), channel);
    }

    /// Returns the SSRC of the peer's packets; a page sends none.
    pub(crate) fn receiving_ssrc(&self) -> Option<u32> {
        match &self.inbound {
            Inbound::Lane(lane) => Some(lane.ssrc),
            Inbound::Page(_) => None,
        }
    }

    pub(crate) fn is_track(&self) -> bool {
        matches!(self.inbound, Inbound::Page(_))
    }

    /// Whether data may go by it: on a track, once the page reports.
    pub(crate) fn is_used(&self) -> bool {
        match &self.inbound {
            Inbound::Lane(_) => true,
            Inbound::Page(page) => page.is_used,
        }
    }

    /// Whether a datagram with these first bytes was sent recently.
    pub(crate) fn has_sent(&self, quoted: &[u8]) -> bool {
        self.sealer.has_sent(quoted)
    }

    /// Returns the loss, if media has flowed: probes alone are too few. Packets that this host
    /// refused are lost, and no report shows them unless later packets arrive.
    pub(crate) fn loss(&self) -> Option<f64> {
        let reported = self.controller.loss();
        let reported = reported.filter(|_| self.controller.rate() > 0.0);
        if self.refused * REFUSED_OVER < 0.5 {
            return reported;
        }
        Some(reported.unwrap_or_default().max(self.refused))
    }

    /// Whether a standing queue is on the path.
    pub(crate) fn is_congested(&self) -> bool {
        self.controller.is_congested()
    }

    /// Notes that this host refused to send `datagrams`, the longest of `size` bytes.
    pub(crate) fn unsent(&mut self, size: usize, datagrams: u64, now: Instant) {
        self.refused = (self.refused + datagrams as f64 / REFUSED_OVER).min(1.0);
        if size > BASE {
            self.path.suspect_size(now);
        }
    }

    /// Returns the longest datagram that the path takes, as far as known.
    pub(crate) fn path_mtu(&self) -> usize {
        self.path.limit()
    }

    /// Returns the longest datagram of data: a repair symbol of it is longer, and must fit as well.
    fn limit(&self) -> usize {
        self.path.limit() - CODE_OVERHEAD
    }

    /// Whether media packets may carry an ECN mark.
    pub(crate) fn marks(&self) -> bool {
        // a page does not see them
        self.path.marks() && !self.is_track()
    }

    /// Returns the number of our packets that arrived with a CE mark.
    pub(crate) fn congested(&self) -> u64 {
        self.controller.congested()
    }

    /// Returns the counts of repair, both ways.
    pub(crate) fn repaired(&self) -> RepairInfo {
        RepairInfo {
            media_resent: self.repair.resent,
            media_symbols: self.repair.symbols,
            media_repaired: match &self.inbound {
                Inbound::Lane(lane) => lane.receiver.repaired(),
                Inbound::Page(_) => 0,
            },
        }
    }

    /// Returns the longest message that the lane takes.
    pub(crate) fn longest(&self) -> usize {
        MAX_PIECES * self.piece()
    }

    /// Whether most messages find the window shut, or a queue stands in the path.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed > MOST_PRESSED || self.controller.is_congested()
    }

    /// Whether messages wait.
    pub(crate) fn queues(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns the bytes of messages that wait for the window and may leave in time; none if no messages
    /// wait.
    pub(crate) fn waiting(&self, now: Instant) -> Option<usize> {
        let rate = self.controller.capacity();
        self.queues().then(|| self.queue.waiting(rate, now))
    }

    fn piece(&self) -> usize {
        self.limit() - RTP_HEADER - TAG - CHUNK_HEADER - PIECE_HEADER
    }

    /// Sends a message, or queues it while the window is shut or there is no path.
    pub(crate) fn send(
        &mut self,
        parts: [&[u8]; 2],
        has_path: bool,
        dropped: &mut Dropped,
        now: Instant,
    ) {
        let shut = f64::from(u8::from(!self.controller.has_room(self.packet.len())));
        self.pressed += (shut - self.pressed) / PRESSED_OVER;
        if has_path && self.queue.is_empty() && self.controller.is_open(self.packet.len(), now) {
            self.put(parts, now);
        } else {
            self.forgive_stall(now);
            let rate = self.controller.capacity();
            self.queue.push(parts, rate, now, dropped);
            if has_path {
                self.wait(now);
            }
        }
    }

    /// Deducts this process's own sleep beyond its deadline from the waits in the queue.
    fn forgive_stall(&mut self, now: Instant) {
        if let Some(at) = self.wake.as_mut().filter(|at| **at < now) {
            self.queue.forgive(now - *at, now);
            *at = now;
        }
    }

    /// Remembers the time of the next queued message, if it only waits for pacing.
    fn wait(&mut self, now: Instant) {
        if self.wake.is_none() && !self.queue.is_empty() {
            self.wake = self.controller.opens_at().map(|at| at.max(now + TICK));
        }
    }

    /// Whether queued messages may have made [`Self::deadline`] earlier.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wake.is_some()
    }

    /// Whether [`Self::finish`] has output.
    pub(crate) fn has_output(&self) -> bool {
        let control = self.control.as_ref();
        !self.ready.is_empty()
            || !self.packet.is_empty()
            || !self.probes.is_empty()
            || control.is_some_and(|control| control.has_output())
    }

    /// Ends the turn: seals the packet being filled, and returns all packets.
    pub(crate) fn finish(&mut self, now: Instant) -> impl Iterator<Item = Bytes> + '_ {
        self.put_control(now);
        let last = !self.packet.is_empty() && self.repair.asks_for_report(now);
        self.flush_marked(last, now);
        self.repair(now);
        self.ready.drain(..)
    }

    /// Takes the path probes, which must not be fragmented.
    pub(crate) fn take_probes(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.probes.drain(..)
    }

    /// Finishes the packet being filled.
    fn flush(&mut self, now: Instant) {
        self.flush_marked(false, now);
    }

    fn flush_marked(&mut self, marker: bool, now: Instant) {
        if let Some(payload) = self.packet.get(RTP_HEADER..) {
            self.repair.sent(self.sealer.next(), payload, now);
            self.seal(marker, now);
        }
    }

    /// Seals the packet being filled; returns its index and size.
    fn seal(&mut self, marker: bool, now: Instant) -> Option<(u64, usize)> {
        let marker = self.controller.asks_for_report(self.packet.len(), now) || marker;
        let Some(index) = self.sealer.seal(&mut self.packet, marker) else {
            // 2^48 packets: years at a million a second
            self.packet.clear();
            return None;
        };
        let packet = self.packet.split().freeze();
        let size = packet.len();
        self.refused -= self.refused / REFUSED_OVER;
        self.controller.sent(index, size, now);
        self.ready.push_back(packet);
        if let Inbound::Page(page) = &mut self.inbound {
            page.unreported.get_or_insert(now);
        }
        Some((index, size))
    }

    /// Whether data leaves room in the window.
    fn has_left(&self) -> bool {
        self.queue.is_empty() && self.controller.has_room(self.packet.len())
    }

    /// Sends due repair, within the room that data leaves.
    fn repair(&mut self, now: Instant) {
        let held = self.is_pressed();
        let mut probe = self.repair.takes_probe();
        while (std::mem::take(&mut probe) || !held && self.has_left())
            && let Some(work) = self.repair.next(now)
        {
            self.flush(now);
            self.begin();
            self.repair.write(work, &mut self.packet, now);
            let marker = self.repair.asks_for_report(now);
            if let Some((index, size)) = self.seal(marker, now) {
                self.repair.repaired(index, work, size, now);
            }
        }
    }

    /// Handles a datagram of the media range. Messages go to `deliver`; an error is a drop reason.
    pub(crate) fn handle(
        &mut self,
        datagram: &[u8],
        ecn: Ecn,
        has_path: bool,
        deliver: &mut dyn FnMut(Bytes),
        dropped: &mut Dropped,
        now: Instant,
    ) -> Result<(), Drop> {
        let Inbound::Lane(lane) = &mut self.inbound else {
            return Err(MALFORMED);
        };
        if is_rtcp(datagram) {
            let mut payload = BytesMut::with_capacity(datagram.len());
            lane.opener.open_rtcp(datagram, &mut payload)?;
            return self.handle_report(&payload, has_path, dropped, now);
        }
        lane.inputs.make_room(&mut lane.input, datagram.len());
        let (index, marker) = match lane.opener.open(datagram, &mut lane.input) {
            Ok(opened) => opened,
            Err(reason) => {
                lane.input.clear();
                return Err(reason);
            }
        };
        let (arrived, congested) = ((index, datagram.len()), ecn == Ecn::Congested);
        if lane.receiver.arrived(arrived, marker, congested, now) {
            self.report(has_path, now);
        }
        let Inbound::Lane(lane) = &mut self.inbound else {
            return Err(MALFORMED);
        };
        let payload = lane.input.split().freeze();
        let (control, broken) = (&mut self.control, &mut self.broken);
        let mut deliver = |message: Bytes| match control {
            Some(control) if Reliable::is_ours(&message) => {
                *broken |= control.handle(&message, Transport::Lane, now).is_err();
            }
            _ => deliver(message),
        };
        let seen = lane.opener.seen();
        let handled = lane
            .receiver
            .handle(index, payload, seen, &mut deliver, now);
        handled.map_err(|fault| match fault {
            Fault::Malformed => MALFORMED,
            Fault::Incomplete => DropReason::MediaIncomplete,
        })
    }

    /// Handles a report of the peer; an error is a drop reason.
    pub(crate) fn handle_report(
        &mut self,
        report: &[u8],
        has_path: bool,
        dropped: &mut Dropped,
        now: Instant,
    ) -> Result<(), Drop> {
        let mut report = Report::read(report).map_err(|_| MALFORMED)?;
        if report.highest < self.sealer.next() {
            self.path.handle(&report, now);
            // a probe that was too long is not a sign of congestion
            report.lost = report.lost.saturating_sub(self.path.lost());
        }
        if !self.controller.handle(&report, self.sealer.next(), now) {
            return Err(MALFORMED);
        }
        if let Inbound::Page(page) = &mut self.inbound {
            (page.is_used, page.unreported, page.retry_at) = (true, None, None);
        }
        let (rtt, rate) = (self.controller.rtt(), self.controller.rate());
        self.repair
            .handle(&report, rtt.unwrap_or_default(), rate, now);
        if has_path {
            self.drain(dropped, now);
            self.repair(now);
        }
        Ok(())
    }

    /// Returns the time of the next [`Self::poll`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let inbound = match &self.inbound {
            Inbound::Lane(lane) => lane.receiver.deadline(),
            Inbound::Page(page) => page.deadline(),
        };
        let others = [
            inbound,
            self.controller.deadline(),
            self.repair.deadline(),
            self.control.as_ref().and_then(|control| control.deadline()),
            self.wake,
        ];
        let others = others.into_iter().flatten().min();
        let probe = self.path.deadline();
        Some(others.map_or(probe, |at| at.min(probe)))
    }

    pub(crate) fn poll(&mut self, has_path: bool, dropped: &mut Dropped, now: Instant) {
        match &mut self.inbound {
            Inbound::Page(page) => {
                let probes = page.poll(now);
                if probes {
                    self.path.path_changed(now);
                }
            }
            Inbound::Lane(lane) => {
                let due = lane.receiver.deadline();
                if due.is_some_and(|due| due <= now) {
                    self.report(has_path, now);
                }
            }
        }
        let silent = self.controller.poll(now);
        if silent {
            self.path.suspect_size(now);
        }
        if let Some(control) = self.control.as_mut()
            && control.is_due(now)
            && !has_path
        {
            control.postpone(now);
        }
        self.forgive_stall(now);
        let awake = self.wake.take_if(|at| *at <= now).is_some();
        if (silent || awake) && has_path {
            self.drain(dropped, now);
        }
        if self.path.deadline() <= now {
            self.probe(has_path, now);
        }
        if self.repair.deadline().is_some_and(|due| due <= now) {
            self.repair.poll(now);
            if has_path {
                self.repair(now);
            }
            self.repair.defer(now);
        }
    }

    /// Handles a new path: its round trip is unknown, and queued messages can go.
    pub(crate) fn path_changed(&mut self, dropped: &mut Dropped, now: Instant) {
        self.controller.path_changed();
        self.path.path_changed(now);
        if let Some(control) = self.control.as_mut() {
            control.path_changed(now);
        }
        self.drain(dropped, now);
    }

    /// Sends queued messages as far as the window lets them.
    fn drain(&mut self, dropped: &mut Dropped, now: Instant) {
        self.forgive_stall(now);
        let mut message = std::mem::take(&mut self.message);
        while self.controller.is_open(self.packet.len(), now)
            && self.queue.pop(&mut message, now, dropped)
        {
            self.put([&message, &[]], now);
        }
        self.message = message;
        self.wait(now);
    }

    /// Puts a message into the packet being filled, or into several packets.
    fn put(&mut self, parts: [&[u8]; 2], now: Instant) {
        let size = CHUNK_HEADER + parts[0].len() + parts[1].len();
        if RTP_HEADER + size + TAG > self.limit() {
            return self.put_pieces(parts, now);
        }
        if !self.packet.is_empty() && self.packet.len() + size + TAG > self.limit() {
            self.flush(now);
        }
        self.begin();
        put_whole(&mut self.packet, parts);
    }

    /// Puts a message that no packet holds into the packet being filled and the next ones. The last
    /// one stays open: packets are full, and GSO keeps those of one size together.
    fn put_pieces(&mut self, [mut head, mut tail]: [&[u8]; 2], now: Instant) {
        let length = head.len() + tail.len();
        let id = self.next_message;
        self.next_message = id.wrapping_add(1);
        let fewest = length.div_ceil(self.piece());
        let room = match self.packet.is_empty() {
            true => 0,
            false => self.piece().saturating_sub(self.packet.len() - RTP_HEADER),
        };
        // all pieces are as long as the first. A lost packet costs all messages in it, so that no
        // message is in more packets than it must be
        let fits = room > 0
            && length.div_ceil(room) <= MAX_PIECES
            && packets_of(length, room, self.piece()) <= fewest;
        let size = match fits {
            true => room,
            false => self.piece(),
        };
        let last = length.div_ceil(size) - 1;
        for n in 0..=last {
            let head = cut(&mut head, size);
            let parts = [head, cut(&mut tail, size - head.len())];
            let length = CHUNK_HEADER + PIECE_HEADER + parts[0].len() + parts[1].len();
            if !self.packet.is_empty() && self.packet.len() + length + TAG > self.limit() {
                self.flush(now);
            }
            self.begin();
            // at most 16
            put_piece(&mut self.packet, id, n as u8, last as u8, parts);
        }
    }

    fn begin(&mut self) {
        if self.packet.is_empty() {
            self.packets.make_room(&mut self.packet, self.path.limit());
            self.packet.extend_from_slice(&[0; RTP_HEADER]);
        }
    }

    fn probe(&mut self, has_path: bool, now: Instant) {
        if !has_path {
            return self.path.postpone(now);
        }
        let sizes = self.path.poll(self.controller.rtt(), now);
        for size in sizes.into_iter().flatten() {
            let mut packet = BytesMut::with_capacity(size);
            packet.extend_from_slice(&[0; RTP_HEADER]);
            // a message of zeroes is ignored
            let padding = vec![0; size - RTP_HEADER - CHUNK_HEADER - TAG];
            put_whole(&mut packet, [&padding, &[]]);
            if let Some(index) = self.sealer.seal(&mut packet, true) {
                self.controller.probed(index, now);
                self.repair.passed_over(index, now);
                self.path.sent(index, size);
                self.probes.push(packet.freeze());
            }
        }
    }

    fn report(&mut self, has_path: bool, now: Instant) {
        let Inbound::Lane(lane) = &mut self.inbound else {
            return;
        };
        if !has_path {
            // no path to the peer
            return lane.receiver.skip_report();
        }
        let Some(report) = lane.receiver.report(lane.opener.seen(), now) else {
            return;
        };
        let mut packet = BytesMut::with_capacity(320);
        packet.extend_from_slice(&[0; RTCP_HEADER]);
        report.write(&mut packet);
        if self.sealer.seal_rtcp(&mut packet).is_some() {
            self.ready.push_back(packet.freeze());
        }
    }
}

impl Page {
    fn deadline(&self) -> Option<Instant> {
        let silent = self.unreported.map(|at| at + TRACK_SILENCE);
        [silent, self.retry_at].into_iter().flatten().min()
    }

    /// Stops to use a track without reports; returns whether probes begin anew.
    fn poll(&mut self, now: Instant) -> bool {
        if self
            .unreported
            .take_if(|at| *at + TRACK_SILENCE <= now)
            .is_some()
        {
            self.is_used = false;
            self.retry_at.get_or_insert(now + TRACK_RETRY);
        }
        self.retry_at.take_if(|at| *at <= now).is_some()
    }
}

librecast::debug_by_name!(Media);

/// Returns the number of packets with pieces of this size, of which the first ends a packet; a
/// packet holds one of `most` bytes.
fn packets_of(length: usize, size: usize, most: usize) -> usize {
    let header = CHUNK_HEADER + PIECE_HEADER;
    let (mut rest, mut free, mut packets) = (length.saturating_sub(size), 0, 1);
    while rest > 0 {
        let piece = rest.min(size);
        if piece + header > free {
            (packets, free) = (packets + 1, most + header);
        }
        free -= piece + header;
        rest -= piece;
    }
    packets
}

/// Cuts at most this many bytes off the front.
fn cut<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let most = most.min(bytes.len());
    bytes.split_off(..most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::keys::MasterKey;
    use lcroute_lane::TrackReceiver;
    use proptest::prelude::*;
    use rtc::crypto::default_provider;
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    fn lanes(now: Instant) -> [Media; 2] {
        let provider = default_provider().unwrap();
        let master = |n: u8| MasterKey {
            key: [n; 16],
            salt: [n; 12],
        };
        [(1, 2), (2, 1)].map(|(sending, receiving)| {
            let keys = LinkKeys {
                sending: master(sending),
                receiving: master(receiving),
            };
            let limits = Limits::default();
            let mut media = Media::new(&keys, provider.crypto(), 1_280, &limits, 1, now).unwrap();
            media.carry_control(1 << 20, now);
            media
        })
    }

    /// Sends the messages at once: the sizes of the datagrams, and the messages at the other end.
    fn carry(messages: &[Vec<u8>]) -> (Vec<usize>, Vec<Bytes>) {
        let now = Instant::now();
        let [mut a, mut b] = lanes(now);
        for message in messages {
            a.put([message, &[]], now);
        }
        let datagrams: Vec<_> = a.finish(now).collect();
        let mut delivered = Vec::new();
        for datagram in &datagrams {
            let deliver = &mut |message| delivered.push(message);
            let dropped = &mut Dropped::default();
            let handled = b.handle(datagram, Ecn::None, true, deliver, dropped, now);
            assert!(handled.is_ok());
        }
        let sizes = datagrams.iter().map(Bytes::len).collect();
        (sizes, delivered)
    }

    /// A page: its browser opens the packets of a track, and it reports.
    struct Tab {
        browser: Context,
        track: TrackReceiver,
        came: Vec<Bytes>,
    }

    fn track(now: Instant) -> (Media, Tab) {
        let provider = default_provider().unwrap();
        let profile = ProtectionProfile::Aes128CmHmacSha1_80;
        let keys = TrackKeys {
            profile,
            key: vec![1; 16],
            salt: vec![2; 14],
        };
        let (crypto, limits) = (provider.crypto(), Limits::default());
        let media = Media::track((&keys, 111), crypto, 1_280, &limits, 1, now).unwrap();
        let (key, salt) = (&keys.key, &keys.salt);
        let tab = Tab {
            browser: Context::new(key, salt, profile, None, None, crypto).unwrap(),
            track: TrackReceiver::new(now),
            came: Vec::new(),
        };
        (media, tab)
    }

    impl Tab {
        /// Takes all packets of the host, and sends its report, if one is due.
        fn take(&mut self, media: &mut Media, now: Instant) {
            let mut packets: Vec<_> = media.finish(now).collect();
            packets.extend(media.take_probes());
            for packet in packets {
                let plain = self.browser.decrypt_rtp(&packet).unwrap();
                let timestamp = u32::from_be_bytes(*plain[4..].first_chunk().unwrap());
                let payload = plain.freeze().slice(RTP_HEADER..);
                let deliver = &mut |message: Bytes| self.came.push(message);
                let due = self.track.handle(timestamp, payload, deliver, now);
                if due.unwrap() {
                    let report = self.track.report(now).unwrap();
                    let dropped = &mut Dropped::default();
                    media
                        .handle_report(&report[1..], true, dropped, now)
                        .unwrap();
                }
            }
        }
    }

    #[test]
    fn a_track_is_used_while_its_page_reports() {
        let start = Instant::now();
        let (mut media, mut tab) = track(start);
        assert!(media.is_track() && !media.is_used() && !media.marks());
        assert_eq!(media.receiving_ssrc(), None);
        let mut now = start;
        let poll = |media: &mut Media, now| media.poll(true, &mut Dropped::default(), now);
        while !media.is_used() {
            now += Duration::from_millis(10);
            assert!(now < start + Duration::from_secs(1));
            poll(&mut media, now);
            tab.take(&mut media, now);
        }
        tab.came.clear();
        for number in 0..200_u8 {
            now += Duration::from_millis(10);
            media.send(
                [&[0x80, number], &[7; 100]],
                true,
                &mut Dropped::default(),
                now,
            );
            poll(&mut media, now);
            tab.take(&mut media, now);
        }
        assert!(media.is_used());
        let sound: Vec<_> = tab
            .came
            .iter()
            .filter(|m| m.first() == Some(&0x80))
            .collect();
        assert_eq!(sound.len(), 200);
        // the page is gone
        media.send([&[0x80, 0], &[]], true, &mut Dropped::default(), now);
        let lost: Vec<_> = media.finish(now).collect();
        assert_eq!(lost.len(), 1);
        poll(&mut media, now + TRACK_SILENCE / 2);
        assert!(media.is_used());
        now += TRACK_SILENCE;
        poll(&mut media, now);
        assert!(!media.is_used());
        // and comes back
        let gone = now;
        while !media.is_used() {
            now += Duration::from_millis(10);
            assert!(now < gone + TRACK_RETRY * 2);
            poll(&mut media, now);
            if now < gone + TRACK_RETRY / 2 {
                media.finish(now).for_each(drop);
                media.take_probes().for_each(drop);
            } else {
                tab.take(&mut media, now);
            }
        }
        assert!(now >= gone + TRACK_RETRY / 2);
    }

    #[test]
    fn reports_about_packets_that_were_not_sent_are_refused() {
        let now = Instant::now();
        let (mut media, _) = track(now);
        let report = Report {
            highest: 5,
            received: 6,
            ..Report::default()
        };
        let mut bytes = BytesMut::new();
        report.write(&mut bytes);
        for report in [&bytes[..], &bytes[..20], b""] {
            let refused = media.handle_report(report, true, &mut Dropped::default(), now);
            assert_eq!(refused, Err(MALFORMED));
        }
        assert!(!media.is_used());
    }

    #[test]
    fn pieces_fill_the_datagrams() {
        let messages: Vec<_> = (0..90).map(|n| vec![0x80 | n; 1_608]).collect();
        let (sizes, delivered) = carry(&messages);
        assert_eq!(delivered, messages);
        let bytes: usize = sizes.iter().sum();
        assert!(
            sizes.len() * 1_280 < bytes * 5 / 4,
            "{} of {bytes} bytes",
            sizes.len()
        );
    }

    proptest! {
        #[test]
        fn messages_of_any_sizes_arrive_in_order(
            sizes in prop::collection::vec(1_usize..9_000, 1..40),
        ) {
            // the high bit: no message of the control channel
            let messages = sizes.iter().map(|size| vec![0x80 | *size as u8; *size]);
            let messages: Vec<_> = messages.collect();
            let (sizes, delivered) = carry(&messages);
            prop_assert_eq!(delivered, messages);
            prop_assert!(sizes.iter().all(|size| *size <= 1_280));
        }

        /// A peer with the keys may send any payload.
        #[test]
        fn no_payload_makes_it_panic(payloads in prop::collection::vec(
            (0_u8..4, prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..80)) {
            let now = Instant::now();
            let [mut a, mut b] = lanes(now);
            for (kind, mut body, fits) in payloads {
                if fits {
                    let mut chunk = (u16::from(kind) << 14 | body.len() as u16).to_be_bytes().to_vec();
                    chunk.append(&mut body);
                    body = chunk;
                }
                a.begin();
                a.packet.extend_from_slice(&body);
                a.seal(false, now);
                let datagrams: Vec<_> = a.finish(now).collect();
                for datagram in datagrams {
                    let _ = b.handle(&datagram, Ecn::None, true, &mut |_| {}, &mut Dropped::default(), now);
                }
            }
        }
    }
}
