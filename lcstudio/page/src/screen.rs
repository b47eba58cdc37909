//! The presenter's screen in a page that attends: the groups of its track, and its changes.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::Command;
use lcstudio_core::{DropReason, ScreenChange, ScreenWatch};
use librecast::drops::Drops;
use librecast::id::PeerId;
use librecast::time::{Duration, Instant};
use librecast_log::Space;

/// Silence of a sender, which sends each second, after which the page reports it.
const SILENCE: Duration = Duration::from_secs(10);

/// Joins groups, and leaves others; `groups` are the joined ones.
pub(crate) fn follow(
    groups: &mut Vec<Ipv6Addr>,
    wanted: Vec<Ipv6Addr>,
    commands: &mut VecDeque<Command>,
) {
    let left = groups.iter().filter(|group| !wanted.contains(group));
    commands.extend(left.copied().map(Command::Leave));
    let new = wanted.iter().filter(|group| !groups.contains(group));
    commands.extend(new.copied().map(Command::Join));
    *groups = wanted;
}

/// A screen that the reader has chosen.
#[derive(Debug)]
pub(crate) struct PageScreen {
    pub owner: PeerId,
    watch: ScreenWatch,
    groups: Vec<Ipv6Addr>,
    /// Whether the reader wants no changes for a while.
    is_paused: bool,
    /// The end of the last pause.
    resumed_at: Option<Instant>,
    /// The time of the last call of [`follow`](Self::follow).
    now: Instant,
}

impl PageScreen {
    /// Watches the screen of the space that `owner` owns.
    pub fn new(owner: PeerId, space: &Space, now: Instant) -> Self {
        Self {
            owner,
            watch: ScreenWatch::new(space, now),
            groups: Vec::new(),
            is_paused: false,
            resumed_at: None,
            now,
        }
    }

    /// Joins the groups that it needs now, and leaves others. A pause needs none: the carousel
    /// brings the missing changes afterwards.
    pub fn follow(&mut self, commands: &mut VecDeque<Command>, now: Instant) {
        let wanted = match self.is_paused {
            true => Vec::new(),
            false => self.watch.joined_groups(now),
        };
        follow(&mut self.groups, wanted, commands);
        self.now = now;
    }

    /// Stands still, or goes on.
    pub fn pause(&mut self, is_paused: bool, now: Instant) {
        self.is_paused = is_paused;
        // nothing could be received meanwhile
        self.resumed_at = Some(now);
    }

    /// Leaves all groups.
    pub fn leave(&mut self, commands: &mut VecDeque<Command>) {
        follow(&mut self.groups, Vec::new(), commands);
    }

    /// Whether packets of this group are its own.
    pub fn has_joined(&self, group: Ipv6Addr) -> bool {
        self.groups.contains(&group)
    }

    /// Handles a datagram of one of its groups. Returns whether the state for the reader changed.
    pub fn handle_datagram(&mut self, data: &[u8], now: Instant) -> bool {
        let before = self.state();
        self.watch.handle_datagram(data, now);
        self.now = now;
        before != self.state()
    }

    /// Returns the time of the next call of [`follow`](Self::follow).
    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.watch.next_timeout(self.now);
        next.filter(|_| !self.is_paused)
    }

    /// Returns the next change to be drawn.
    pub fn poll_change(&mut self) -> Option<ScreenChange> {
        self.watch.poll_change()
    }

    /// Returns its state: `waiting` before a picture, `coming` while a change is missing, `shown`,
    /// `resting` while the sender pauses, `silent`, or `ended`.
    pub fn state(&self) -> &'static str {
        // what others send into its groups is no sign of life
        let heard_at = self.watch.received_at();
        let heard_at = heard_at.map(|at| self.resumed_at.map_or(at, |resumed| at.max(resumed)));
        let is_silent =
            heard_at.is_some_and(|at| self.now.saturating_duration_since(at) >= SILENCE);
        match self.watch.is_exact() {
            _ if self.watch.has_ended() => "ended",
            _ if is_silent && !self.is_paused => "silent",
            true if self.watch.is_paused() => "resting",
            true => "shown",
            false if self.watch.has_drawn() => "coming",
            false => "waiting",
        }
    }

    /// Whether the reader lets it stand still.
    pub fn is_paused(&self) -> bool {
        self.is_paused
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
