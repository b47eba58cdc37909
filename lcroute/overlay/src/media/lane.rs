//! One link's media lane.
//!
//! ```text
//! send --window open--> packet being filled --full, or end of turn--> sealed, out
//!      \--window shut--> fair queue ------------report--------------/
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::crypto::RTCCrypto;

use super::congestion::Controller;
use super::feedback::{Report, Reporter};
use super::keys::LinkKeys;
use super::path_mtu::PathMtu;
use super::payload::{
    CHUNK_HEADER, Chunk, MAX_PIECES, PIECE_HEADER, Pieced, Reassembly, put_piece, put_whole, take,
};
use super::queue::{Dropped, FairQueue};
use super::srtp::{Drop, MALFORMED, Opener, RTCP_HEADER, RTP_HEADER, Sealer, TAG, is_rtcp};
use crate::event::Ecn;

/// Buffers that packets are cut from: about fifty packets share one.
const BUFFER: usize = 64 * 1024;
/// Data header, and what a message needs in a packet of its own.
const OVERHEAD: usize = 32 + CHUNK_HEADER + RTP_HEADER + TAG;

/// The lane, both directions.
pub(crate) struct Media {
    sealer: Sealer,
    opener: Opener,
    /// SSRC of what the far side sends.
    receiving_ssrc: u32,
    /// Longest datagram.
    path: PathMtu,
    /// Probes of the path to be sent.
    probes: Vec<Bytes>,
    /// The packet being filled, room for its header first; or nothing.
    packet: BytesMut,
    /// Sealed packets of this turn: those of one link go out one after another, for GSO.
    ready: VecDeque<Bytes>,
    next_message: u16,
    controller: Controller,
    queue: FairQueue,
    input: BytesMut,
    reassembly: Reassembly,
    reporter: Reporter,
    /// In the overlay's list of lanes that have something to send.
    pub(crate) listed: bool,
}

impl Media {
    /// A lane under the keys of a link, for packets of lc0 of up to `mtu` bytes; `None` if the keys
    /// are of no use.
    pub(crate) fn new(
        keys: &LinkKeys,
        crypto: &dyn RTCCrypto,
        mtu: u16,
        queue: Duration,
        seed: u64,
        now: Instant,
    ) -> Option<Self> {
        let sending = keys.sending.session(crypto).ok()?;
        let receiving = keys.receiving.session(crypto).ok()?;
        Some(Self {
            sealer: Sealer::new(&sending).ok()?,
            opener: Opener::new(&receiving).ok()?,
            receiving_ssrc: receiving.ssrc,
            path: PathMtu::new(usize::from(mtu) + OVERHEAD, now),
            probes: Vec::new(),
            packet: BytesMut::new(),
            ready: VecDeque::new(),
            next_message: 0,
            controller: Controller::new(now),
            queue: FairQueue::new(seed, queue),
            input: BytesMut::new(),
            reassembly: Reassembly::default(),
            reporter: Reporter::new(now),
            listed: false,
        })
    }

    pub(crate) fn receiving_ssrc(&self) -> u32 {
        self.receiving_ssrc
    }

    /// Round trip and loss, as far as media has flowed: probes of the path are seldom.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.controller
            .rtt()
            .filter(|_| self.controller.rate() > 0.0)
    }

    pub(crate) fn loss(&self) -> Option<f64> {
        self.controller
            .loss()
            .filter(|_| self.controller.rate() > 0.0)
    }

    /// The longest datagram that is sent.
    pub(crate) fn limit(&self) -> usize {
        self.path.limit()
    }

    /// Whether media packets may carry the mark of ECN.
    pub(crate) fn marks(&self) -> bool {
        self.path.marks()
    }

    /// Packets of ours that came with a mark of congestion.
    pub(crate) fn congested(&self) -> u64 {
        self.controller.congested()
    }

    /// The longest message that it takes.
    pub(crate) fn longest(&self) -> usize {
        MAX_PIECES * self.piece()
    }

    fn piece(&self) -> usize {
        self.path.limit() - RTP_HEADER - TAG - CHUNK_HEADER - PIECE_HEADER
    }

    /// Sends a message, or queues it: while the window is shut, or there is no path.
    pub(crate) fn send(
        &mut self,
        parts: [&[u8]; 2],
        has_path: bool,
        dropped: &mut Dropped,
        now: Instant,
    ) {
        if has_path && self.queue.is_empty() && self.controller.is_open(self.packet.len()) {
            self.put(parts, now);
        } else {
            let rate = self.controller.rate();
            self.queue.push(parts, rate, now, dropped);
        }
    }

    /// Whether [`Self::finish`] has something to do.
    pub(crate) fn has_output(&self) -> bool {
        !self.ready.is_empty() || !self.packet.is_empty() || !self.probes.is_empty()
    }

    /// The turn is over: the packet being filled is finished, and all are handed out.
    pub(crate) fn finish(&mut self, now: Instant) -> impl Iterator<Item = Bytes> + '_ {
        self.flush(now);
        self.ready.drain(..)
    }

    /// Probes of the path: nobody may fragment them.
    pub(crate) fn take_probes(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.probes.drain(..)
    }

    /// Finishes the packet being filled.
    fn flush(&mut self, now: Instant) {
        if self.packet.is_empty() {
            return;
        }
        let marker = self.controller.wants_report(self.packet.len());
        match self.sealer.seal(&mut self.packet, marker) {
            Some(index) => {
                let packet = self.packet.split().freeze();
                self.controller.sent(index, packet.len(), now);
                self.ready.push_back(packet);
            }
            // 2^48 packets: years at a million a second
            None => self.packet.clear(),
        }
    }

    /// A datagram of the media range. Messages go to `deliver`; an error is the name of a counter.
    pub(crate) fn handle(
        &mut self,
        datagram: &[u8],
        ecn: Ecn,
        has_path: bool,
        deliver: &mut dyn FnMut(Bytes),
        dropped: &mut Dropped,
        now: Instant,
    ) -> Result<(), Drop> {
        if is_rtcp(datagram) {
            return self.handle_report(datagram, has_path, dropped, now);
        }
        make_room(&mut self.input, datagram.len());
        let (index, marker) = match self.opener.open(datagram, &mut self.input) {
            Ok(opened) => opened,
            Err(reason) => {
                self.input.clear();
                return Err(reason);
            }
        };
        let due = self.reporter.handle(index, marker, ecn, now);
        if due {
            self.report(has_path, now);
        }
        let mut payload = self.input.split().freeze();
        while let Some(chunk) = take(&mut payload).map_err(|()| MALFORMED)? {
            match chunk {
                Chunk::Whole(message) => deliver(message),
                Chunk::Piece {
                    message,
                    piece,
                    last,
                    bytes,
                } => match self.reassembly.handle(message, piece, last, &bytes) {
                    Pieced::Waiting => {}
                    Pieced::Complete(message) => deliver(message),
                    Pieced::Displaced => return Err("media_incomplete"),
                    Pieced::Malformed => return Err(MALFORMED),
                },
            }
        }
        Ok(())
    }

    fn handle_report(
        &mut self,
        datagram: &[u8],
        has_path: bool,
        dropped: &mut Dropped,
        now: Instant,
    ) -> Result<(), Drop> {
        let mut payload = BytesMut::with_capacity(datagram.len());
        self.opener.open_rtcp(datagram, &mut payload)?;
        let mut report = Report::read(&payload).map_err(|_| MALFORMED)?;
        if report.highest < self.sealer.next() {
            self.path.handle(&report, now);
            // a probe that was too long says nothing of congestion
            report.lost = report.lost.saturating_sub(self.path.lost());
        }
        if !self.controller.handle(&report, self.sealer.next(), now) {
            return Err(MALFORMED);
        }
        if has_path {
            self.drain(dropped, now);
        }
        Ok(())
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let others = [self.reporter.deadline(), self.controller.deadline()];
        let others = others.into_iter().flatten().min();
        let probe = self.path.deadline();
        Some(others.map_or(probe, |at| at.min(probe)))
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, has_path: bool, dropped: &mut Dropped, now: Instant) {
        if self.reporter.deadline().is_some_and(|due| due <= now) {
            self.report(has_path, now);
        }
        if self.controller.poll(now) {
            self.path.doubt(now);
            if has_path {
                self.drain(dropped, now);
            }
        }
        if self.path.deadline() <= now {
            self.probe(has_path, now);
        }
    }

    /// There is a new path: its round trip is another, and what waited can go.
    pub(crate) fn path_changed(&mut self, dropped: &mut Dropped, now: Instant) {
        self.controller.path_changed();
        self.path.path_changed(now);
        self.drain(dropped, now);
    }

    /// Sends from the queue what the window lets through.
    fn drain(&mut self, dropped: &mut Dropped, now: Instant) {
        while self.controller.is_open(self.packet.len())
            && let Some(message) = self.queue.pop(now, dropped)
        {
            self.put([&message, &[]], now);
        }
    }

    /// Puts a message into the packet being filled, or into as many as it needs.
    fn put(&mut self, parts: [&[u8]; 2], now: Instant) {
        let size = CHUNK_HEADER + parts[0].len() + parts[1].len();
        if !self.packet.is_empty() && self.packet.len() + size + TAG > self.path.limit() {
            self.flush(now);
        }
        if RTP_HEADER + size + TAG <= self.path.limit() {
            self.begin();
            put_whole(&mut self.packet, parts);
        } else {
            self.put_pieces(&parts.concat(), now);
        }
    }

    fn put_pieces(&mut self, message: &[u8], now: Instant) {
        let id = self.next_message;
        self.next_message = id.wrapping_add(1);
        let pieces = message.len().div_ceil(self.piece());
        // of one size each: the packets stay together on the way out
        let size = message.len().div_ceil(pieces.max(1));
        for (n, piece) in message.chunks(size).enumerate() {
            self.begin();
            // at most 16
            put_piece(&mut self.packet, id, n as u8, (pieces - 1) as u8, piece);
            self.flush(now);
        }
    }

    fn begin(&mut self) {
        if self.packet.is_empty() {
            make_room(&mut self.packet, self.path.limit());
            self.packet.extend_from_slice(&[0; RTP_HEADER]);
        }
    }

    /// Asks the path how much it takes.
    fn probe(&mut self, has_path: bool, now: Instant) {
        if !has_path {
            return self.path.postpone(now);
        }
        let sizes = self.path.poll(self.controller.rtt(), now);
        for size in sizes.into_iter().flatten() {
            let mut packet = BytesMut::with_capacity(size);
            packet.extend_from_slice(&[0; RTP_HEADER]);
            // a message of zeroes is nobody's
            let padding = vec![0; size - RTP_HEADER - CHUNK_HEADER - TAG];
            put_whole(&mut packet, [&padding, &[]]);
            if let Some(index) = self.sealer.seal(&mut packet, true) {
                self.controller.probed(index, now);
                self.path.sent(index, size);
                self.probes.push(packet.freeze());
            }
        }
    }

    fn report(&mut self, has_path: bool, now: Instant) {
        if !has_path {
            // nobody can be told
            return self.reporter.skip();
        }
        let Some(report) = self.reporter.report(self.opener.seen(), now) else {
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

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

/// Room for `size` bytes in an empty buffer: what is left of it, what its packets have given back, or
/// a new one.
fn make_room(buffer: &mut BytesMut, size: usize) {
    if !buffer.try_reclaim(size) {
        *buffer = BytesMut::with_capacity(BUFFER.max(size));
    }
}
