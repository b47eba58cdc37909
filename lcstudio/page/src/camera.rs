//! The presenter's camera in a page that attends: the groups of its layers, and its frames.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::Command;
use lcstudio_core::{CameraFrame, CameraWatch, DropReason, Layer};
use librecast::drops::Drops;
use librecast::id::PeerId;
use librecast::time::Instant;
use librecast_log::Space;

use crate::following::Following;

/// A camera that the reader has chosen.
#[derive(Debug)]
pub(crate) struct PageCamera {
    pub owner: PeerId,
    watch: CameraWatch,
    pub following: Following,
    /// Whether a frame came.
    has_shown: bool,
}

impl PageCamera {
    /// Watches the camera of the space that `owner` owns; `wants_large`: the large picture.
    pub fn new(owner: PeerId, space: &Space, wants_large: bool, now: Instant) -> Self {
        let mut watch = CameraWatch::new(space, true, now);
        watch.want_large(wants_large, now);
        Self {
            owner,
            watch,
            following: Following::new(now),
            has_shown: false,
        }
    }

    /// Does the due work: joins the groups that it needs now, and leaves others.
    pub fn follow(&mut self, commands: &mut VecDeque<Command>, now: Instant) {
        if self.following.is_paused {
            // the next frame is a key
            self.watch.leave();
        } else {
            self.watch.handle_timeout(now);
        }
        let wanted = self.watch.joined_groups().collect();
        self.following.follow(wanted, commands, now);
    }

    /// Chooses the large picture, or the small one.
    pub fn want_large(&mut self, wants_large: bool, now: Instant) {
        self.watch.want_large(wants_large, now);
    }

    /// Tries a layer again that was left.
    pub fn try_again(&mut self, now: Instant) {
        self.watch.try_again(now);
    }

    /// Notes how many frames wait for the decoder. `has_lost`: it needs a key frame.
    pub fn waiting(&mut self, frames: usize, has_lost: bool, now: Instant) {
        self.watch.waiting(frames, has_lost, now);
    }

    /// Handles a datagram of one of its groups. Returns whether the state for the reader changed.
    pub fn handle_datagram(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        data: &[u8],
        now: Instant,
    ) -> bool {
        let before = (self.state(), self.size());
        self.watch.handle_datagram(group, source, data, now);
        self.following.now = now;
        before != (self.state(), self.size())
    }

    /// Returns the time of the next call of [`follow`](Self::follow).
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.watch.next_timeout();
        next.filter(|_| !self.following.is_paused)
    }

    /// Returns the next frame for the decoder.
    pub fn poll_frame(&mut self) -> Option<CameraFrame> {
        let frame = self.watch.poll_frame();
        self.has_shown |= frame.is_some();
        frame
    }

    /// Returns its state: `waiting` before a picture, `shown`, `fewer` while smooth is left, `slow`
    /// while all is left, `silent`, or `ended`.
    pub fn state(&self) -> &'static str {
        let layers = self.watch.layers();
        let is_silent = self.following.is_silent(self.watch.received_at());
        let is_smooth = layers.shows_large() || layers.joined().any(|one| one == Layer::Smooth);
        match self.has_shown {
            _ if self.watch.has_ended() => "ended",
            _ if layers.is_off() => "slow",
            _ if is_silent => "silent",
            false => "waiting",
            true if is_smooth => "shown",
            true => "fewer",
        }
    }

    /// Returns the size that is shown, `large` or `small`, and whether there is a large one.
    pub fn size(&self) -> (&'static str, bool) {
        let layers = self.watch.layers();
        let size = match layers.shows_large() {
            true => "large",
            false => "small",
        };
        (size, layers.has_large())
    }

    pub fn drops(&self) -> &Drops<DropReason> {
        self.watch.drops()
    }
}

/// Returns a frame for the page: 1 if it is a key frame, and its bytes.
pub(crate) fn to_bytes(frame: &CameraFrame) -> Vec<u8> {
    let is_key = [u8::from(frame.size.is_some())];
    [&is_key[..], &frame.bytes].concat()
}
