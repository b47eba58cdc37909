//! A receiver of a camera: packets in, frames out that a decoder can decode.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::bucket::Rate;
use librecast::drops::Drops;
use librecast::time::Instant;
use librecast_log::Space;

use super::layers::{CameraSize, Layer, Layers};
use super::packet::{CONTEXT, CameraPacket, CameraSpace};
use super::stream::{CameraFrame, Stream};
use crate::drops::DropReason;
use crate::signed::{Checks, Runs, Signatures};

/// Signatures of a group that are checked: its sender's rate, and what waited on the way.
const CHECKED: Rate = Rate::per_second(200, 200);

/// Receives a camera.
#[derive(Debug)]
pub struct CameraWatch {
    space: CameraSpace,
    /// One for each group.
    checked: [Checks; Layer::ALL.len()],
    signatures: Signatures,
    runs: Runs,
    has_ended: bool,
    small: Stream,
    large: Stream,
    layers: Layers,
    frames: VecDeque<CameraFrame>,
    drops: Drops<DropReason>,
}

impl CameraWatch {
    /// Watches the camera of this space, as the index names it. Unless `is_adaptive`, no layer is
    /// left by loss.
    #[must_use]
    pub fn new(space: &Space, is_adaptive: bool, now: Instant) -> Self {
        let space = CameraSpace::new(space);
        Self {
            signatures: Signatures::new(CONTEXT, space.owner),
            space,
            checked: std::array::from_fn(|_| Checks::new(CHECKED, now)),
            runs: Runs::default(),
            has_ended: false,
            small: Stream::new(now),
            large: Stream::new(now),
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
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Sets whether the reader asks for the large picture.
    pub fn want_large(&mut self, wants: bool, now: Instant) {
        self.layers.want_large(wants, now);
        self.handle_timeout(now);
    }

    /// Tries a layer now that was left: the reader asks for it.
    pub fn try_again(&mut self, now: Instant) {
        self.layers.try_again(now);
        self.handle_timeout(now);
    }

    /// Whether the sender has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns when the last packet was accepted.
    pub fn received_at(&self) -> Option<Instant> {
        self.runs.received_at()
    }

    /// Returns drops by reason.
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
        if has_lost {
            self.small.freeze();
            self.large.freeze();
        }
    }

    /// Notes that nothing is received from now on: the reader has left all groups for a while.
    pub fn leave(&mut self) {
        self.small.leave();
        self.large.leave();
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = [&self.small, &self.large].map(Stream::next_timeout);
        let waits = waits.into_iter().flatten();
        waits.chain(self.layers.next_timeout()).min()
    }

    /// Gives up frames whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.small.settle(&mut self.layers, now);
        self.large.settle(&mut self.layers, now);
        self.layers.handle_timeout(now);
        self.leave_unjoined();
        self.advance(now);
        self.leave_unjoined();
    }

    /// Forgets frames of a picture whose groups are left: it begins again with a key frame.
    fn leave_unjoined(&mut self) {
        for (size, stream) in [
            (CameraSize::Small, &mut self.small),
            (CameraSize::Large, &mut self.large),
        ] {
            if !self.layers.joins(size) {
                stream.leave();
            }
        }
    }

    /// Handles a datagram of one of the groups from this address.
    pub fn handle_datagram(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
    ) {
        if let Err(reason) = self.take(group, source, datagram, now) {
            self.drops.count(reason);
        }
        self.handle_timeout(now);
    }

    fn take(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let contents = self.space.seal.open_contents(datagram);
        let contents = contents.map_err(|_| DropReason::NotSealed)?;
        let packet = CameraPacket::decode(&contents)?;
        self.runs.check(packet.run, now)?;
        let stream = match packet.size {
            CameraSize::Small => &mut self.small,
            CameraSize::Large => &mut self.large,
        };
        let piece = packet.piece.as_ref();
        let is_known = piece.is_some_and(|piece| stream.is_known(&packet, piece));
        if is_known && packet.run == self.runs.run() {
            return Ok(());
        }
        let mut layers = Layer::ALL.into_iter();
        let at = layers.position(|layer| self.space.group(layer) == group);
        let checks = at.and_then(|at| self.checked.get_mut(at));
        let above = DropReason::CameraRate;
        self.signatures
            .check(source, &contents, checks, above, now)?;
        if self.runs.begin(packet.run) {
            self.has_ended = false;
            self.small.begin();
            self.large.begin();
            self.layers.offer_large(false, now);
        }
        let stream = match packet.size {
            CameraSize::Small => &mut self.small,
            CameraSize::Large => &mut self.large,
        };
        let Some(piece) = &packet.piece else {
            if stream.take_state((packet.number, packet.has_ended)) {
                self.runs.hear(now);
                self.has_ended |= packet.has_ended;
                self.layers.offer_large(packet.has_large, now);
            }
            return Ok(());
        };
        self.runs.hear(now);
        if piece.is_base {
            stream.note(&packet, piece, now);
        }
        stream.take_piece(&packet, piece)
    }

    /// Lets all frames out that can be decoded.
    fn advance(&mut self, now: Instant) {
        while let Some(polled) = self.small.poll(now) {
            match polled {
                Ok(_) if self.layers.shows_large() => {}
                Ok(frame) => self.frames.push_back(frame),
                Err(reason) => self.drops.count(reason),
            }
        }
        while let Some(polled) = self.large.poll(now) {
            match polled {
                Ok(frame) if self.layers.large_came(now) => self.frames.push_back(frame),
                Ok(_) => {}
                Err(reason) => self.drops.count(reason),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn stored(&self) -> (usize, usize) {
        let [small, large] = [&self.small, &self.large].map(Stream::stored);
        (small.0 + large.0, small.1 + large.1)
    }
}
