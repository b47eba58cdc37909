//! The sender of a camera: frames in, packets of all groups out.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::SecretKey;
use librecast::parity::parity;
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::Space;
use thiserror::Error;

use super::layers::{CameraSize, Layer};
use super::packet::{CameraPacket, CameraSpace, Lengths, MAX_FRAME, Piece};
use super::vp8::{Vp8, Vp8Error, Vp8Layers};
use crate::signed::{Nonces, States};

/// Packets a second of each group. A burst fits into receive buffers.
const PACKETS: Rate = Rate::per_second(200, 16);
/// Frames a second: 30 by a clock that is fast. A burst is a second of them.
const FRAMES: Rate = Rate::per_second(31, 30);
/// Packets of a group that wait: 2 s of them.
const MAX_WAITING: usize = 400;
/// Time of parity after its frame: a burst of loss rarely is longer.
const REPAIR_DELAY: Duration = Duration::from_millis(40);
/// Reason for which a frame is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CameraError {
    /// It is not a frame, or too large a picture.
    #[error(transparent)]
    Frame(#[from] Vp8Error),
    /// It is longer than [`MAX_FRAME`], or empty.
    #[error("a frame of {0} bytes: at most 64,000 are sent; lower the size or the bit rate")]
    Length(usize),
    /// Frames come too fast.
    #[error("more than 30 pictures a second: `-vf fps=15` gives fewer")]
    TooMany,
    /// Packets of 2 s wait.
    #[error("more than 200 packets a second: lower the size or the bit rate")]
    TooMuch,
    /// Frames before it were not sent, and it is not a key frame.
    #[error("no key frame since a frame that was not sent: `-g 30` makes one each 2 s")]
    NoKey,
}

/// Packets of a group that wait.
#[derive(Debug)]
struct Queue {
    layer: Layer,
    /// With the time from which on each may go.
    packets: VecDeque<(Instant, CameraPacket)>,
    bucket: TokenBucket,
}

impl Queue {
    fn new(layer: Layer, now: Instant) -> Self {
        Self {
            layer,
            packets: VecDeque::new(),
            bucket: TokenBucket::of(PACKETS, now),
        }
    }

    fn next(&self) -> Option<Instant> {
        let (at, _) = self.packets.front()?;
        Some(self.bucket.ready_at().max(*at))
    }

    /// Returns since when its first packet is due, if it may go.
    fn due(&self, now: Instant) -> Option<Instant> {
        let (at, _) = self.packets.front()?;
        (*at <= now && self.bucket.ready(now)).then_some(*at)
    }

    fn take(&mut self, now: Instant) -> Option<CameraPacket> {
        self.bucket.spend(1, now);
        self.packets.pop_front().map(|(_, packet)| packet)
    }
}

/// Frames of one picture, which has an encoder of its own.
#[derive(Debug)]
struct Encoded {
    size: CameraSize,
    layers: Vp8Layers,
    frames: TokenBucket,
    number: u32,
    base: u32,
    time: u32,
    /// A frame was not sent on which later ones depend.
    needs_key: bool,
    /// Frames of base, or all of the large picture; their parities.
    own: Queue,
    repair: Queue,
    /// Frames on which none depends, where they have a group of their own.
    smooth: Option<Queue>,
}

impl Encoded {
    fn new(size: CameraSize, now: Instant) -> Self {
        let queue = |layer| Queue::new(layer, now);
        let (own, repair, smooth) = match size {
            CameraSize::Small => (Layer::Base, Layer::Repair, Some(queue(Layer::Smooth))),
            CameraSize::Large => (Layer::Large, Layer::LargeRepair, None),
        };
        Self {
            size,
            layers: Vp8Layers::default(),
            frames: TokenBucket::of(FRAMES, now),
            number: 0,
            base: 0,
            time: 0,
            needs_key: true,
            own: queue(own),
            repair: queue(repair),
            smooth,
        }
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut Queue> {
        [&mut self.own, &mut self.repair]
            .into_iter()
            .chain(&mut self.smooth)
    }

    /// Returns the times at which the next packets may go, and the last one.
    fn times(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let queues = [&self.own, &self.repair].into_iter().chain(&self.smooth);
        queues.filter_map(|queue| Some((queue.next()?, queue.packets.back()?.0)))
    }

    /// Queues a frame and its parities.
    fn send(&mut self, run: u64, frame: &[u8], time: u32, now: Instant) -> Result<(), CameraError> {
        if frame.is_empty() || frame.len() > MAX_FRAME {
            self.needs_key = true;
            return Err(CameraError::Length(frame.len()));
        }
        let vp8 = Vp8::decode(frame).inspect_err(|_| self.needs_key = true)?;
        let is_key = vp8.size.is_some();
        let is_base = self.layers.is_base(&vp8, frame);
        if self.needs_key && !is_key {
            return Err(CameraError::NoKey);
        }
        if !self.frames.take(1, now) {
            self.needs_key |= is_base;
            return Err(CameraError::TooMany);
        }
        let lengths = Lengths::of(frame.len());
        let pieces = lengths.pieces;
        let smooth = self.smooth.as_mut().filter(|_| !is_base);
        let queue = smooth.unwrap_or(&mut self.own);
        if queue.packets.len() + pieces > MAX_WAITING {
            self.needs_key |= is_base;
            return Err(CameraError::TooMuch);
        }
        self.needs_key = false;
        self.number += 1;
        self.base += u32::from(is_base);
        self.time = self.time.max(time);
        let state = CameraPacket {
            size: self.size,
            run,
            number: self.number,
            base: self.base,
            time: self.time,
            has_ended: false,
            has_large: false,
            piece: None,
        };
        let packet = |piece: u8, bytes: Vec<u8>| CameraPacket {
            piece: Some(Piece {
                is_key,
                is_base,
                length: frame.len() as u32,
                piece,
                bytes,
            }),
            ..state.clone()
        };
        let chunks = || frame.chunks(lengths.piece);
        let own = (0..).zip(chunks());
        let own = own.map(|(at, bytes)| (now, packet(at, bytes.to_vec())));
        queue.packets.extend(own);
        if is_base && self.repair.packets.len() + pieces <= MAX_WAITING {
            let parities = (0..pieces as u8).filter_map(|number| {
                let bytes = parity(number, chunks())?;
                Some((now + REPAIR_DELAY, packet(pieces as u8 + number, bytes)))
            });
            self.repair.packets.extend(parities);
        }
        Ok(())
    }
}

/// Sends a camera.
#[derive(Debug)]
pub struct CameraSender {
    space: CameraSpace,
    key: SecretKey,
    nonces: Nonces,
    run: u64,
    small: Encoded,
    large: Encoded,
    /// Whether there is a large picture; `None`: there never was.
    has_large: Option<bool>,
    states: States,
    /// The picture whose state is next.
    state_of: CameraSize,
}

impl CameraSender {
    /// Begins to send. `key` owns the track's space; `seed`: random bytes of this run.
    #[must_use]
    pub fn new(
        space: &Space,
        key: SecretKey,
        seed: [u8; 32],
        started: UnixTime,
        now: Instant,
    ) -> Self {
        Self {
            space: CameraSpace::new(space),
            key,
            nonces: Nonces::new("lcstudio 2026 camera nonce", seed),
            run: started.as_millis(),
            small: Encoded::new(CameraSize::Small, now),
            large: Encoded::new(CameraSize::Large, now),
            has_large: None,
            states: States::new(now),
            state_of: CameraSize::Small,
        }
    }

    /// Returns the groups of the camera.
    pub fn space(&self) -> &CameraSpace {
        &self.space
    }

    /// Tells receivers whether those that join its group get a large picture.
    pub fn offer_large(&mut self, has_large: bool, now: Instant) {
        self.has_large = Some(has_large);
        if !self.states.is_ending() {
            self.states.hasten(now);
        }
    }

    /// Sends a frame of VP8. `time`: since the beginning, in milliseconds.
    ///
    /// # Errors
    /// [`CameraError`]; the frame is not sent, nor are later ones until a key frame if they depend
    /// on it.
    pub fn send(
        &mut self,
        size: CameraSize,
        frame: &[u8],
        time: u32,
        now: Instant,
    ) -> Result<(), CameraError> {
        let encoded = match size {
            CameraSize::Small => &mut self.small,
            CameraSize::Large => &mut self.large,
        };
        encoded.send(self.run, frame, time, now)
    }

    /// Ends: [`has_ended`](Self::has_ended) once all is sent.
    pub fn end(&mut self, now: Instant) {
        let waiting = self.small.times().chain(self.large.times());
        let last = waiting.map(|(_, last)| last).max();
        self.states.end(last.map_or(now, |at| at.max(now)));
    }

    /// Whether the last packet was sent.
    pub fn has_ended(&self) -> bool {
        self.states.has_ended()
    }

    /// Returns the next packet that is due, with its group.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        if self.has_ended() {
            return None;
        }
        // in the order of frames: a late smooth one is left out by receivers
        let due = self.small.queues().chain(self.large.queues());
        let due = due.filter_map(|queue| Some((queue.due(now)?, queue)));
        if let Some((_, queue)) = due.min_by_key(|(at, _)| *at)
            && let Some(packet) = queue.take(now)
        {
            let group = self.space.group(queue.layer);
            return Some((group, self.seal(&packet)?));
        }
        let is_empty = self
            .small
            .times()
            .chain(self.large.times())
            .next()
            .is_none();
        if !self.states.is_due(now) || self.states.is_ending() && !is_empty {
            return None;
        }
        let (encoded, layer) = match self.state_of {
            CameraSize::Small => (&self.small, Layer::Base),
            CameraSize::Large => (&self.large, Layer::Large),
        };
        let state = CameraPacket {
            size: encoded.size,
            run: self.run,
            number: encoded.number,
            base: encoded.base,
            time: encoded.time,
            has_ended: self.states.is_ending(),
            has_large: self.has_large == Some(true),
            piece: None,
        };
        // one that has the large picture alone joined hears of its end, too
        if self.state_of == CameraSize::Small && self.has_large.is_some() {
            self.state_of = CameraSize::Large;
        } else {
            self.state_of = CameraSize::Small;
            self.states.sent(now);
        }
        Some((self.space.group(layer), self.seal(&state)?))
    }

    /// Returns the time of the next call of [`poll_transmit`](Self::poll_transmit).
    pub fn next_timeout(&self) -> Instant {
        let waiting = self.small.times().chain(self.large.times());
        let waiting = waiting.map(|(next, _)| next).min();
        match waiting {
            Some(at) if self.states.is_ending() => at,
            Some(at) => at.min(self.states.at()),
            None => self.states.at(),
        }
    }

    fn seal(&mut self, packet: &CameraPacket) -> Option<Vec<u8>> {
        let contents = packet.sign(&self.key);
        self.space.seal.seal_contents(contents, &self.nonces.next())
    }
}
