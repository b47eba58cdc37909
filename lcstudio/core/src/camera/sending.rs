//! The sender of a camera: frames in, packets of all groups out.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{SecretKey, derive};
use librecast::parity::parity;
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::Space;
use thiserror::Error;

use super::layers::Layer;
use super::packet::{CameraPacket, CameraSpace, Lengths, MAX_FRAME, Piece};
use super::vp8::{Vp8, Vp8Error, Vp8Layers};

/// Packets a second of each group. A burst fits into receive buffers.
const PACKETS: Rate = Rate::per_second(200, 16);
/// Frames a second: 30 by a clock that is fast. A burst is a second of them.
const FRAMES: Rate = Rate::per_second(31, 30);
/// Packets of a group that wait: 2 s of them.
const MAX_WAITING: usize = 400;
/// Time of parity after its frame: a burst of loss rarely is longer.
const REPAIR_DELAY: Duration = Duration::from_millis(40);
/// Time between two states.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// States at the end: some may be lost.
const LAST_STATES: u32 = 3;
/// Time between two of the last states. Chosen, as radio's last beacons.
const LAST_INTERVAL: Duration = Duration::from_millis(50);

/// Reason for which a frame is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CameraError {
    /// It is no frame, or too large a picture.
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
    /// Frames before it were not sent, and it is no key frame.
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

/// Sends a camera.
#[derive(Debug)]
pub struct CameraSender {
    space: CameraSpace,
    key: SecretKey,
    /// Source of nonces, with the number of sealed packets.
    seed: [u8; 32],
    sealed: u64,
    run: u64,
    layers: Vp8Layers,
    frames: TokenBucket,
    number: u32,
    base: u32,
    time: u32,
    /// A frame was not sent on which later ones depend.
    needs_key: bool,
    queues: [Queue; 3],
    state_at: Instant,
    /// Last states still to be sent, once it has ended.
    ends: Option<u32>,
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
        let queue = |layer| Queue::new(layer, now);
        Self {
            space: CameraSpace::new(space),
            key,
            seed,
            sealed: 0,
            run: started.as_millis(),
            layers: Vp8Layers::default(),
            frames: TokenBucket::of(FRAMES, now),
            number: 0,
            base: 0,
            time: 0,
            needs_key: true,
            queues: [Layer::Base, Layer::Smooth, Layer::Repair].map(queue),
            state_at: now,
            ends: None,
        }
    }

    /// Returns the groups of the camera.
    #[must_use]
    pub fn space(&self) -> &CameraSpace {
        &self.space
    }

    /// Sends a frame of VP8. `time`: since the beginning, in milliseconds.
    ///
    /// # Errors
    ///
    /// [`CameraError`]; the frame is not sent, nor are later ones until a key frame if they depend
    /// on it.
    pub fn send(&mut self, frame: &[u8], time: u32, now: Instant) -> Result<(), CameraError> {
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
        let pieces = Lengths::of(frame.len()).pieces;
        let [base, smooth, repair] = &mut self.queues;
        let queue = if is_base { &mut *base } else { smooth };
        if queue.packets.len() + pieces > MAX_WAITING {
            self.needs_key |= is_base;
            return Err(CameraError::TooMuch);
        }
        self.needs_key = false;
        self.number += 1;
        self.base += u32::from(is_base);
        self.time = self.time.max(time);
        let packet = |piece: u8, bytes: Vec<u8>| CameraPacket {
            run: self.run,
            number: self.number,
            base: self.base,
            time: self.time,
            has_ended: false,
            piece: Some(Piece {
                is_key,
                is_base,
                length: frame.len() as u32,
                piece,
                bytes,
            }),
        };
        let chunks = || frame.chunks(Lengths::of(frame.len()).piece);
        let own = (0..).zip(chunks());
        let own = own.map(|(at, bytes)| (now, packet(at, bytes.to_vec())));
        queue.packets.extend(own);
        if is_base && repair.packets.len() + pieces <= MAX_WAITING {
            let parities = (0..pieces as u8).filter_map(|number| {
                let bytes = parity(number, chunks())?;
                Some((now + REPAIR_DELAY, packet(pieces as u8 + number, bytes)))
            });
            repair.packets.extend(parities);
        }
        Ok(())
    }

    /// Ends: [`has_ended`](Self::has_ended) once all is sent.
    pub fn end(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = Some(LAST_STATES);
            let waiting = self.queues.iter().filter_map(|queue| queue.packets.back());
            let last = waiting.map(|(at, _)| *at).max();
            self.state_at = last.map_or(now, |at| at.max(now));
        }
    }

    /// Whether the last packet was sent.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ends == Some(0)
    }

    /// Returns the next packet that is due, with its group.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        if self.has_ended() {
            return None;
        }
        // in the order of frames: a late smooth one is left out by receivers
        let due = self.queues.iter_mut();
        let due = due.filter_map(|queue| Some((queue.due(now)?, queue)));
        if let Some((_, queue)) = due.min_by_key(|(at, _)| *at)
            && let Some(packet) = queue.take(now)
        {
            let group = self.space.group(queue.layer);
            return Some((group, self.seal(&packet)?));
        }
        let is_empty = self.queues.iter().all(|queue| queue.packets.is_empty());
        if self.state_at > now || self.ends.is_some() && !is_empty {
            return None;
        }
        let interval = match &mut self.ends {
            Some(left) => {
                *left -= 1;
                LAST_INTERVAL
            }
            None => STATE_INTERVAL,
        };
        self.state_at = now + interval;
        let state = CameraPacket {
            run: self.run,
            number: self.number,
            base: self.base,
            time: self.time,
            has_ended: self.ends.is_some(),
            piece: None,
        };
        Some((self.space.group(Layer::Base), self.seal(&state)?))
    }

    /// Returns the time of the next call of [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        let waiting = self.queues.iter().filter_map(Queue::next).min();
        match (waiting, self.ends) {
            (Some(at), Some(_)) => at,
            (Some(at), None) => at.min(self.state_at),
            (None, _) => self.state_at,
        }
    }

    fn seal(&mut self, packet: &CameraPacket) -> Option<Vec<u8>> {
        self.sealed += 1;
        let count = self.sealed.to_be_bytes();
        let hash = derive("lcstudio 2026 camera nonce", &[&self.seed, &count]);
        let nonce = hash.first_chunk()?;
        self.space.seal.seal_contents(packet.sign(&self.key), nonce)
    }
}
