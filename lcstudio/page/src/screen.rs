//! The presenter's screen in a page that attends: the groups of its track, and its changes.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::Command;
use lcstudio_core::{DropReason, ScreenChange, ScreenWatch};
use librecast::drops::Drops;
use librecast::id::PeerId;
use librecast::time::Instant;
use librecast_log::Space;

use crate::following::Following;

/// A screen that the reader has chosen.
#[derive(Debug)]
pub(crate) struct PageScreen {
    pub owner: PeerId,
    watch: ScreenWatch,
    pub following: Following,
}

impl PageScreen {
    /// Watches the screen of the space that `owner` owns.
    pub fn new(owner: PeerId, space: &Space, now: Instant) -> Self {
        Self {
            owner,
            watch: ScreenWatch::new(space, now),
            following: Following::new(now),
        }
    }

    /// Joins the groups that it needs now, and leaves others. After a pause the carousel brings the
    /// missing changes.
    pub fn follow(&mut self, commands: &mut VecDeque<Command>, now: Instant) {
        let wanted = self.watch.joined_groups(now);
        self.following.follow(wanted, commands, now);
    }

    /// Handles a datagram of one of its groups. Returns whether the state for the reader changed.
    pub fn handle_datagram(&mut self, source: Ipv6Addr, data: &[u8], now: Instant) -> bool {
        let before = self.state();
        self.watch.handle_datagram(source, data, now);
        self.following.now = now;
        before != self.state()
    }

    /// Returns the time of the next call of [`follow`](Self::follow).
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.watch.next_timeout(self.following.now);
        next.filter(|_| !self.following.is_paused)
    }

    /// Returns the next change to be drawn.
    pub fn poll_change(&mut self) -> Option<ScreenChange> {
        self.watch.poll_change()
    }

    /// Returns its state: `waiting` before a picture, `coming` while a change is missing, `shown`,
    /// `resting` while the sender pauses, `silent`, or `ended`.
    pub fn state(&self) -> &'static str {
        let is_silent = self.following.is_silent(self.watch.received_at());
        match self.watch.is_exact() {
            _ if self.watch.has_ended() => "ended",
            _ if is_silent => "silent",
            true if self.watch.is_paused() => "resting",
            true => "shown",
            false if self.watch.has_drawn() => "coming",
            false => "waiting",
        }
    }

    pub fn drops(&self) -> &Drops<DropReason> {
        self.watch.drops()
    }
}

/// Returns a change for the page: size of the screen (width 2, height 2), area (x 2, y 2,
/// width 2, height 2), all big-endian, 1 if it covers the screen, media type, line feed, bytes of the picture.
pub(crate) fn to_bytes(change: &ScreenChange) -> Vec<u8> {
    let area = change.area;
    let (width, height) = change.screen;
    let numbers = [width, height, area.x, area.y, area.width, area.height];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
    bytes.push(change.is_whole().into());
    bytes.extend(change.picture.kind().media_type().bytes());
    bytes.push(b'\n');
    bytes.extend(change.picture.bytes());
    bytes
}
