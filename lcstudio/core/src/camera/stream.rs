//! Frames of one picture as they come in: pieces to frames, and those that a decoder can decode.
//!
//! ```text
//! frozen --a whole key frame--> shown --a frame of base misses for 400 ms--> frozen
//! ```

use std::collections::BTreeMap;

use librecast::bucket::{Rate, TokenBucket};
use librecast::parity::restore;
use librecast::time::{Duration, Instant};

use super::layers::{CameraSize, Layers};
use super::packet::{CameraPacket, Lengths, MAX_FRAME, Piece};
use super::vp8::{Vp8, Vp8Error};
use crate::drops::DropReason;

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

/// A frame that a decoder can decode: all frames on which it depends came out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraFrame {
    /// The picture that it is of.
    pub picture: CameraSize,
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
            picture: packet.size,
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

/// Frames of one picture of a run.
#[derive(Debug)]
pub(super) struct Stream {
    rate: TokenBucket,
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
}

impl Stream {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: TokenBucket::of(FRAMES, now),
            state: (0, false),
            through: 0,
            base: 0,
            is_frozen: true,
            coming: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            settled: None,
        }
    }

    /// Forgets all of an earlier run.
    pub(super) fn begin(&mut self) {
        self.state = (0, false);
        (self.through, self.base) = (0, 0);
        self.leave();
    }

    /// Its groups are left: nothing comes until they are joined again.
    pub(super) fn leave(&mut self) {
        (self.settled, self.is_frozen) = (None, true);
        self.outcomes.clear();
        self.coming.clear();
    }

    /// Frames were not given to the reader: a key frame is next.
    pub(super) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Takes a state. Returns whether it is not an earlier one.
    pub(super) fn take_state(&mut self, state: (u32, bool)) -> bool {
        let is_news = state >= self.state;
        self.state = self.state.max(state);
        is_news
    }

    /// Returns when the time of a frame of base is over.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.outcomes.values().map(|one| one.began + PATIENCE).min()
    }

    /// Returns whether a piece changes nothing, signed or not: its frame came out, or has it.
    pub(super) fn is_known(&self, packet: &CameraPacket, piece: &Piece) -> bool {
        let has = |frame: &Assembly| {
            let known = frame.pieces.get(usize::from(piece.piece));
            frame.whole.is_some() || known.is_some_and(Option::is_some)
        };
        packet.number <= self.through || self.coming.get(&packet.number).is_some_and(has)
    }

    /// Notes a packet of base for the share of loss.
    pub(super) fn note(&mut self, packet: &CameraPacket, piece: &Piece, now: Instant) {
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
    pub(super) fn settle(&mut self, layers: &mut Layers, now: Instant) {
        while let Some(first) = self.outcomes.first_entry()
            && first.get().began + PATIENCE <= now
        {
            let (base, outcome) = first.remove_entry();
            self.settled = Some(base);
            let lost = outcome.packets.saturating_sub(outcome.came);
            let packets = (outcome.packets as u64, lost as u64);
            layers.frame(packets, outcome.is_whole, outcome.began, now);
            self.is_frozen |= base > self.base;
        }
    }

    pub(super) fn take_piece(
        &mut self,
        packet: &CameraPacket,
        piece: &Piece,
    ) -> Result<(), DropReason> {
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

    /// Returns the next frame that can be decoded. Frames beyond the rate are dropped.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Result<CameraFrame, DropReason>> {
        let next = self.coming.iter().find(|(_, frame)| {
            let is_next = match self.is_frozen {
                true => frame.first.is_key && frame.base > self.base,
                false if frame.first.is_base => self.base.checked_add(1) == Some(frame.base),
                false => frame.base == self.base,
            };
            is_next && frame.whole.is_some()
        });
        let number = next.map(|(number, _)| *number)?;
        let frame = self.coming.remove(&number)?;
        // frames before it come too late
        self.coming = self.coming.split_off(&number);
        self.through = number;
        if !self.rate.take(1, now) {
            self.is_frozen |= frame.first.is_base;
            return Some(Err(DropReason::CameraRate));
        }
        if frame.first.is_base {
            self.base = frame.base;
            self.is_frozen = false;
        }
        frame.whole.map(Ok)
    }
}
