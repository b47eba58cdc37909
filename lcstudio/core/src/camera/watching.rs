//! A receiver of a camera: packets in, frames out that a decoder can decode.
//!
//! ```text
//! frozen --a whole key frame--> shown --a frame of base misses for 400 ms--> frozen
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::parity::restore;
use librecast::time::{Duration, Instant};
use librecast_log::Space;

use super::layers::{Layer, Layers};
use super::packet::{CameraPacket, CameraSpace, Lengths, MAX_FRAME, Piece, verify};
use super::vp8::{Vp8, Vp8Error};
use crate::drops::DropReason;
use crate::verified::Verified;

/// Signatures of a group that are checked: its sender's rate, and what waited on the way.
const CHECKED: Rate = Rate::per_second(200, 200);
/// Frames that come out: the sender's rate by a clock that is slow, and what waited for repair.
const FRAMES: Rate = Rate::per_second(32, 60);
/// Frames that are stored, complete or not: 2 s of them.
const MAX_FRAMES: usize = 60;
/// Bytes of stored frames. Chosen: 2 s at 4 Mbit/s, and a frame.
const MAX_BYTES: usize = 1_000_000 + MAX_FRAME;
/// Time in which a frame of base comes in, with its repair: 40 ms later, by hosts that are busy.
const PATIENCE: Duration = Duration::from_millis(400);
/// Frames of base in a row of which nothing came: an outage, which decides nothing.
const OUTAGE: u32 = 30;
/// Silence of a sender after which an earlier run of it counts again: its clock was set back.
const SILENCE: Duration = Duration::from_secs(10);
/// Most by which a run that counts again is earlier than the latest: as far as clocks may differ.
const SET_BACK_MS: u64 = 3_600_000;

/// A frame that a decoder can decode: all frames on which it depends came out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraFrame {
    /// Time at which the sender began, in milliseconds since 1970.
    pub run: u64,
    /// Number of the frame.
    pub number: u32,
    /// Time since the sender began, in milliseconds.
    pub time: u32,
    /// Width and height of a key frame; no other frame has them.
    pub size: Option<(u16, u16)>,
    /// The frame, as the encoder made it.
    pub bytes: Vec<u8>,
}

/// A frame that comes in.
#[derive(Debug)]
struct Assembly {
    base: u32,
    time: u32,
    first: Piece,
    lengths: Lengths,
    pieces: Vec<Option<Vec<u8>>>,
    parities: Vec<(u8, Vec<u8>)>,
    /// Pieces that came, without those that parities restored.
    came: usize,
    whole: Option<CameraFrame>,
}

impl Assembly {
    fn new(packet: &CameraPacket, piece: &Piece) -> Self {
        let lengths = piece.lengths();
        Self {
            base: packet.base,
            time: packet.time,
            first: Piece {
                bytes: Vec::new(),
                ..piece.clone()
            },
            lengths,
            pieces: vec![None; lengths.pieces],
            parities: Vec::new(),
            came: 0,
            whole: None,
        }
    }

    /// Bytes that it stores, or will.
    fn bytes(&self) -> usize {
        let parities = self.parities.len() * self.lengths.piece;
        self.lengths.frame + parities
    }

    fn take(&mut self, packet: &CameraPacket, piece: &Piece) -> Result<(), DropReason> {
        let of_same = Piece {
            piece: self.first.piece,
            bytes: Vec::new(),
            ..piece.clone()
        };
        if of_same != self.first || packet.base != self.base || packet.time != self.time {
            return Err(DropReason::WrongPart);
        }
        let at = usize::from(piece.piece);
        let mut bytes = piece.bytes.clone();
        bytes.resize(self.lengths.piece, 0);
        match self.pieces.get_mut(at) {
            Some(known) if known.is_none() => {
                self.came += 1;
                *known = Some(bytes);
            }
            Some(_) => {}
            None => {
                let number = (at - self.lengths.pieces) as u8;
                let is_known = self.parities.iter().any(|(known, _)| *known == number);
                if !is_known && self.whole.is_none() {
                    self.parities.push((number, bytes));
                }
            }
        }
        self.complete(packet)
    }

    /// Completes the frame, if enough has come.
    fn complete(&mut self, packet: &CameraPacket) -> Result<(), DropReason> {
        let there = self.pieces.iter().flatten().count();
        if self.whole.is_some() || there + self.parities.len() < self.pieces.len() {
            return Ok(());
        }
        if there < self.pieces.len() {
            let parities = self.parities.iter().map(|(n, bytes)| (*n, &bytes[..]));
            let parities: Vec<_> = parities.collect();
            if !restore(&mut self.pieces, &parities, self.lengths.piece) {
                return Ok(());
            }
        }
        let mut bytes: Vec<u8> = self.pieces.iter().flatten().flatten().copied().collect();
        bytes.truncate(self.lengths.frame);
        self.parities = Vec::new();
        let size = size(&bytes, self.first.is_key)?;
        self.whole = Some(CameraFrame {
            run: packet.run,
            number: packet.number,
            time: packet.time,
            size,
            bytes,
        });
        Ok(())
    }
}

/// Returns the size of a key frame by its first bytes.
fn size(bytes: &[u8], is_key: bool) -> Result<Option<(u16, u16)>, DropReason> {
    match Vp8::decode(bytes) {
        Ok(vp8) if vp8.size.is_some() == is_key => Ok(vp8.size),
        Err(Vp8Error::Size(..)) => Err(DropReason::PictureTooLarge),
        _ => Err(DropReason::NoPicture),
    }
}

/// A frame of base that comes in, or was given up, for the share of loss.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    packets: usize,
    came: usize,
    is_whole: bool,
    began: Instant,
}

/// Receives a camera.
#[derive(Debug)]
pub struct CameraWatch {
    space: CameraSpace,
    checked: [TokenBucket; 3],
    verified: Verified,
    rate: TokenBucket,
    run: u64,
    /// The latest run, also while an earlier one counts.
    latest_run: u64,
    heard_at: Option<Instant>,
    has_ended: bool,
    /// Number of the last state, and whether it told the end.
    state: (u32, bool),
    /// The last frame that came out, and the last one of base among them.
    through: u32,
    base: u32,
    /// Whether the next frame is to be a key.
    is_frozen: bool,
    /// Frames after `through`, by numbers.
    coming: BTreeMap<u32, Assembly>,
    /// Frames of base, by their numbers, until their time is over.
    outcomes: BTreeMap<u32, Outcome>,
    /// The last frame of base whose time is over. `None`: the next packet tells.
    settled: Option<u32>,
    layers: Layers,
    frames: VecDeque<CameraFrame>,
    drops: Drops<DropReason>,
}

impl CameraWatch {
    /// Watches the camera of this space, as the index names it. Unless `is_adaptive`, all layers
    /// stay joined.
    #[must_use]
    pub fn new(space: &Space, is_adaptive: bool, now: Instant) -> Self {
        Self {
            space: CameraSpace::new(space),
            checked: std::array::from_fn(|_| TokenBucket::of(CHECKED, now)),
            verified: Verified::default(),
            rate: TokenBucket::of(FRAMES, now),
            run: 0,
            latest_run: 0,
            heard_at: None,
            has_ended: false,
            state: (0, false),
            through: 0,
            base: 0,
            is_frozen: true,
            coming: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            settled: None,
            layers: Layers::new(is_adaptive, now),
            frames: VecDeque::new(),
            drops: Drops::default(),
        }
    }

    /// Returns the groups to be joined now.
    pub fn joined_groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.layers.joined().map(|layer| self.space.group(layer))
    }

    /// Returns the choice of layers.
    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Whether the sender has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns drops by reason.
    #[must_use]
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }

    /// Returns the next frame for the decoder.
    pub fn poll_frame(&mut self) -> Option<CameraFrame> {
        self.frames.pop_front()
    }

    /// Notes how many frames wait for the reader. `has_lost`: some were not given to it, so a key
    /// frame is next.
    pub fn waiting(&mut self, frames: usize, has_lost: bool, now: Instant) {
        self.layers.waiting(frames, now);
        self.is_frozen |= has_lost;
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = self.outcomes.values().map(|one| one.began + PATIENCE).min();
        waits.into_iter().chain(self.layers.next_timeout()).min()
    }

    /// Gives up frames whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
        self.layers.handle_timeout(now);
        if self.layers.is_off() {
            // nothing comes until it is joined again
            (self.settled, self.is_frozen) = (None, true);
            self.outcomes.clear();
            self.coming.clear();
        }
        self.advance(now);
    }

    /// Handles a datagram of one of the groups.
    pub fn handle_datagram(&mut self, group: Ipv6Addr, datagram: &[u8], now: Instant) {
        if let Err(reason) = self.take(group, datagram, now) {
            self.drops.count(reason);
        }
        self.handle_timeout(now);
    }

    fn take(&mut self, group: Ipv6Addr, datagram: &[u8], now: Instant) -> Result<(), DropReason> {
        let contents = self.space.seal.open_contents(datagram);
        let contents = contents.map_err(|_| DropReason::NotSealed)?;
        let packet = CameraPacket::decode(&contents)?;
        let is_heard = |at: Instant| now.saturating_duration_since(at) < SILENCE;
        let is_old = packet.run < self.run && self.heard_at.is_some_and(is_heard);
        if is_old || packet.run < self.latest_run.saturating_sub(SET_BACK_MS) {
            return Err(DropReason::OldRun);
        }
        if self.is_known(&packet) {
            return Ok(());
        }
        let layers = [Layer::Base, Layer::Repair, Layer::Smooth];
        let at = layers.iter().position(|l| self.space.group(*l) == group);
        let bucket = at.and_then(|at| self.checked.get_mut(at));
        let hash = Verified::hash(&contents);
        if !self.verified.contains(&hash) {
            if !bucket.is_some_and(|bucket| bucket.take(1, now)) {
                return Err(DropReason::CameraRate);
            }
            if !verify(&contents, &self.space.owner) {
                return Err(DropReason::NotSigned);
            }
            self.verified.remember(hash);
        }
        if packet.run != self.run {
            self.begin(packet.run);
        }
        let Some(piece) = &packet.piece else {
            let state = (packet.number, packet.has_ended);
            if state >= self.state {
                self.heard_at = Some(now);
                (self.state, self.has_ended) = (state, packet.has_ended);
            }
            return Ok(());
        };
        self.heard_at = Some(now);
        if piece.is_base {
            self.note(&packet, piece, now);
        }
        self.take_piece(&packet, piece)
    }

    /// Returns whether a piece changes nothing, signed or not: its frame came out, or has it.
    fn is_known(&self, packet: &CameraPacket) -> bool {
        let Some(piece) = packet.piece.as_ref().filter(|_| packet.run == self.run) else {
            return false;
        };
        let has = |frame: &Assembly| {
            let known = frame.pieces.get(usize::from(piece.piece));
            frame.whole.is_some() || known.is_some_and(Option::is_some)
        };
        packet.number <= self.through || self.coming.get(&packet.number).is_some_and(has)
    }

    /// Forgets all of an earlier run.
    fn begin(&mut self, run: u64) {
        self.run = run;
        self.latest_run = self.latest_run.max(run);
        (self.has_ended, self.state) = (false, (0, false));
        (self.through, self.base) = (0, 0);
        self.settled = None;
        self.is_frozen = true;
        self.coming.clear();
        self.outcomes.clear();
    }

    /// Notes a packet of base for the share of loss.
    fn note(&mut self, packet: &CameraPacket, piece: &Piece, now: Instant) {
        // a frame of which the beginning was missed does not count
        let settled = *self.settled.get_or_insert(packet.base);
        if packet.base <= settled {
            return;
        }
        let packets = piece.lengths().pieces;
        let last = self.outcomes.last_key_value().map(|(base, _)| *base);
        let mut last = last.unwrap_or(settled);
        if packet.base > last.saturating_add(OUTAGE) {
            self.is_frozen = true;
            self.outcomes.clear();
            last = packet.base - 1;
            self.settled = Some(last);
        }
        // frames of which nothing came began before this one
        for base in last.saturating_add(1)..=packet.base {
            self.outcomes.entry(base).or_insert(Outcome {
                packets: 1,
                came: 0,
                is_whole: false,
                began: now,
            });
        }
        if let Some(outcome) = self.outcomes.get_mut(&packet.base) {
            outcome.packets = packets;
        }
    }

    /// Counts frames of base whose time is over, and freezes above one that is missing.
    fn settle(&mut self, now: Instant) {
        while let Some(first) = self.outcomes.first_entry()
            && first.get().began + PATIENCE <= now
        {
            let (base, outcome) = first.remove_entry();
            self.settled = Some(base);
            let lost = outcome.packets.saturating_sub(outcome.came);
            let packets = (outcome.packets as u64, lost as u64);
            self.layers
                .frame(packets, outcome.is_whole, outcome.began, now);
            self.is_frozen |= base > self.base;
        }
    }

    fn take_piece(&mut self, packet: &CameraPacket, piece: &Piece) -> Result<(), DropReason> {
        let number = packet.number;
        if number <= self.through {
            return Ok(());
        }
        if piece.piece == 0 {
            size(&piece.bytes, piece.is_key)?;
        }
        if !self.coming.contains_key(&number) {
            self.make_room(number, piece.length as usize)?;
            let frame = Assembly::new(packet, piece);
            self.coming.insert(number, frame);
        }
        let Some(frame) = self.coming.get_mut(&number) else {
            return Ok(());
        };
        let taken = frame.take(packet, piece);
        let (came, is_whole) = (frame.came, frame.whole.is_some());
        if taken.is_err() && !is_whole {
            self.coming.remove(&number);
        }
        if piece.is_base
            && let Some(outcome) = self.outcomes.get_mut(&packet.base)
        {
            (outcome.came, outcome.is_whole) = (came, is_whole);
        }
        taken
    }

    #[cfg(test)]
    pub(super) fn stored(&self) -> (usize, usize) {
        let bytes = self.coming.values().map(Assembly::bytes).sum();
        (self.coming.len(), bytes)
    }

    /// Makes room for a frame: earlier ones give way.
    fn make_room(&mut self, number: u32, bytes: usize) -> Result<(), DropReason> {
        loop {
            let stored: usize = self.coming.values().map(Assembly::bytes).sum();
            if self.coming.len() < MAX_FRAMES && stored + bytes <= MAX_BYTES {
                return Ok(());
            }
            match self.coming.first_entry() {
                Some(first) if *first.key() < number => drop(first.remove()),
                _ => return Err(DropReason::TooManyFrames),
            }
        }
    }

    /// Lets all frames out that can be decoded.
    fn advance(&mut self, now: Instant) {
        loop {
            let next = self.coming.iter().find(|(_, frame)| {
                let is_next = match self.is_frozen {
                    true => frame.first.is_key && frame.base > self.base,
                    false if frame.first.is_base => self.base.checked_add(1) == Some(frame.base),
                    false => frame.base == self.base,
                };
                is_next && frame.whole.is_some()
            });
            let Some(number) = next.map(|(number, _)| *number) else {
                return;
            };
            let Some(frame) = self.coming.remove(&number) else {
                return;
            };
            // frames before it come too late
            self.coming = self.coming.split_off(&number);
            self.through = number;
            if !self.rate.take(1, now) {
                self.drops.count(DropReason::CameraRate);
                self.is_frozen |= frame.first.is_base;
                continue;
            }
            if frame.first.is_base {
                self.base = frame.base;
                self.is_frozen = false;
            }
            self.frames.extend(frame.whole);
        }
    }
}
