//! A receiver of a screen: packets in, changes out.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::Rate;
use librecast::drops::Drops;
use librecast::time::{Duration, Instant};
use librecast_log::Space;

use super::part::{Area, CONTEXT, PART, Part, ScreenPacket, ScreenSpace};
use crate::drops::DropReason;
use crate::picture::{MAX_PICTURE, Picture, PictureKind};
use crate::signed::{Checks, Runs, Signatures};

/// Changes of areas that are stored, complete or not.
const MAX_CHANGES: usize = 128;
/// Bytes of them: the longest picture, in whole parts.
const MAX_BYTES: usize = MAX_PICTURE + PART;
/// Signatures that are checked: both groups send at most 112 packets a second.
const CHECKED: Rate = Rate::per_second(200, 400);
/// Silence after which a change whose parts came is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// A change to be drawn, or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenChange {
    /// Time at which the sender began, in milliseconds since 1970.
    pub run: u64,
    /// Its number.
    pub number: u32,
    /// Width and height of the screen.
    pub screen: (u16, u16),
    /// The changed area.
    pub area: Area,
    /// Whether the picture lost nothing.
    pub is_exact: bool,
    /// The picture of the area.
    pub picture: Picture,
}

impl ScreenChange {
    /// Whether it covers the screen, and so includes all earlier changes.
    pub fn is_whole(&self) -> bool {
        self.area == Area::whole(self.screen)
    }
}

/// A picture of which parts came.
#[derive(Debug)]
struct Assembly {
    first: Part,
    bytes: Vec<u8>,
    /// One for each part.
    came: Vec<bool>,
    missing: usize,
}

impl Assembly {
    fn new(part: &Part) -> Self {
        let parts = usize::from(part.parts);
        Self {
            first: Part {
                bytes: Vec::new(),
                ..part.clone()
            },
            bytes: vec![0; parts * PART],
            came: vec![false; parts],
            missing: parts,
        }
    }

    /// Takes a part. Returns the picture's bytes once it is complete.
    fn take(&mut self, part: &Part) -> Result<Option<Vec<u8>>, DropReason> {
        let of_same = Part {
            part: self.first.part,
            bytes: Vec::new(),
            ..part.clone()
        };
        let at = usize::from(part.part);
        if of_same != self.first {
            return Err(DropReason::WrongPart);
        }
        if !std::mem::replace(&mut self.came[at], true) {
            self.missing -= 1;
            let begin = at * PART;
            self.bytes[begin..begin + part.bytes.len()].copy_from_slice(&part.bytes);
            if at + 1 == self.came.len() {
                self.bytes.truncate(begin + part.bytes.len());
            }
        }
        Ok((self.missing == 0).then(|| std::mem::take(&mut self.bytes)))
    }
}

/// Receives a screen.
#[derive(Debug)]
pub struct ScreenWatch {
    space: ScreenSpace,
    checked: Checks,
    signatures: Signatures,
    runs: Runs,
    is_paused: bool,
    has_ended: bool,
    latest: u32,
    /// All changes up to this number are drawn; 0: none is.
    through: u32,
    /// Size of the drawn screen.
    screen: (u16, u16),
    /// The whole picture that comes in.
    whole: Option<Assembly>,
    /// Areas that come in, above `through`.
    areas: BTreeMap<u32, Assembly>,
    /// Complete areas above `through`.
    complete: BTreeMap<u32, ScreenChange>,
    /// Last part of the last change.
    latest_part_at: Option<Instant>,
    changes: VecDeque<ScreenChange>,
    drops: Drops<DropReason>,
}

impl ScreenWatch {
    /// Watches the screen of this space, as the index names it.
    #[must_use]
    pub fn new(space: &Space, now: Instant) -> Self {
        let space = ScreenSpace::new(space);
        Self {
            signatures: Signatures::new(CONTEXT, space.owner),
            space,
            checked: Checks::new(CHECKED, now),
            runs: Runs::default(),
            is_paused: false,
            has_ended: false,
            latest: 0,
            through: 0,
            screen: (0, 0),
            whole: None,
            areas: BTreeMap::new(),
            complete: BTreeMap::new(),
            latest_part_at: None,
            changes: VecDeque::new(),
            drops: Drops::default(),
        }
    }

    /// Returns the groups to be joined now.
    pub fn joined_groups(&self, now: Instant) -> Vec<Ipv6Addr> {
        let mut groups = vec![self.space.live()];
        groups.extend(self.lacks(now).then(|| self.space.carousel()));
        groups
    }

    /// Whether changes are missing that are not coming in on the live group.
    fn lacks(&self, now: Instant) -> bool {
        if self.through == 0 {
            return !self.has_ended;
        }
        let comes = |at: Instant| now.saturating_duration_since(at) < PATIENCE;
        let comes = self.latest_part_at.is_some_and(comes);
        // the last change may be on its way; all others are to be complete
        let last = self.latest.saturating_sub(u32::from(comes));
        let complete = self.complete.range(..=last).count();
        (complete as u64) < u64::from(last.saturating_sub(self.through))
    }

    /// Returns the time at which [`joined_groups`](Self::joined_groups) may change by itself.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let waits = self.latest_part_at.filter(|_| !self.is_exact());
        waits.map(|at| at + PATIENCE).filter(|at| *at > now)
    }

    /// Whether all known changes are drawn.
    pub fn is_exact(&self) -> bool {
        self.through > 0 && self.through == self.latest
    }

    /// Whether a whole picture of this run was drawn.
    pub fn has_drawn(&self) -> bool {
        self.through > 0
    }

    /// Returns when the last packet was accepted.
    pub fn received_at(&self) -> Option<Instant> {
        self.runs.received_at()
    }

    /// Whether the sender pauses.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether the sender has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns drops by reason.
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }

    /// Returns the next change to be drawn.
    pub fn poll_change(&mut self) -> Option<ScreenChange> {
        self.changes.pop_front()
    }

    /// Handles a datagram of one of the groups.
    pub fn handle_datagram(&mut self, source: Ipv6Addr, datagram: &[u8], now: Instant) {
        if let Err(reason) = self.take(source, datagram, now) {
            self.drops.count(reason);
        }
    }

    fn take(&mut self, source: Ipv6Addr, datagram: &[u8], now: Instant) -> Result<(), DropReason> {
        let contents = self.space.seal.open_contents(datagram);
        let contents = contents.map_err(|_| DropReason::NotSealed)?;
        let packet = ScreenPacket::decode(&contents)?;
        self.runs.check(packet.run, now)?;
        // a state that is not the last one, and a part that is drawn, change nothing, signed or not
        let is_drawn = |part: &Part| part.number <= self.through;
        let is_known = packet.run == self.runs.run() && packet.latest < self.latest;
        if is_known && packet.part.as_ref().is_none_or(is_drawn) {
            return Ok(());
        }
        let (checks, above) = (Some(&mut self.checked), DropReason::ScreenRate);
        self.signatures
            .check(source, &contents, checks, above, now)?;
        if self.runs.begin(packet.run) {
            self.begin();
        }
        // its parts come by the carousel, then, and it stays there until it has all of them
        let is_in_carousel = self.lacks(now);
        if is_in_carousel {
            self.latest_part_at = None;
        }
        self.runs.hear(now);
        if packet.latest >= self.latest {
            // a recorded state does not take back the end
            let stays_ended = self.has_ended && packet.latest == self.latest;
            self.latest = packet.latest;
            self.is_paused = packet.is_paused;
            self.has_ended = packet.has_ended || stays_ended;
        }
        match packet.part {
            Some(part) => {
                if part.number == self.latest && !is_in_carousel {
                    self.latest_part_at = Some(now);
                }
                self.take_part(&part)
            }
            None => Ok(()),
        }
    }

    /// Forgets all of an earlier run.
    fn begin(&mut self) {
        (self.latest, self.through) = (0, 0);
        self.has_ended = false;
        self.whole = None;
        self.areas.clear();
        self.complete.clear();
        self.latest_part_at = None;
    }

    fn take_part(&mut self, part: &Part) -> Result<(), DropReason> {
        let number = part.number;
        if number <= self.through {
            return Ok(());
        }
        if part.area == Area::whole(part.screen) {
            let known = self.whole.as_ref().map(|whole| whole.first.number);
            if known.is_some_and(|known| known > number) {
                return Ok(());
            }
            if known != Some(number) {
                self.whole = Some(Assembly::new(part));
            }
            let Some(whole) = &mut self.whole else {
                return Ok(());
            };
            let Some(bytes) = whole.take(part)? else {
                return Ok(());
            };
            self.whole = None;
            let change = change(self.runs.run(), part, bytes)?;
            self.draw_whole(change);
            return Ok(());
        }
        if self.complete.contains_key(&number) {
            return Ok(());
        }
        if !self.areas.contains_key(&number) {
            self.make_room(number, usize::from(part.parts) * PART)?;
            self.areas.insert(number, Assembly::new(part));
        }
        let Some(area) = self.areas.get_mut(&number) else {
            return Ok(());
        };
        let Some(bytes) = area.take(part)? else {
            return Ok(());
        };
        self.areas.remove(&number);
        let change = change(self.runs.run(), part, bytes)?;
        self.draw_area(change);
        Ok(())
    }

    /// Returns the bytes of stored areas, complete or not.
    fn bytes(&self) -> usize {
        let coming = self.areas.values().map(|area| area.bytes.len());
        let complete = self.complete.values().map(|one| one.picture.bytes().len());
        coming.chain(complete).sum()
    }

    #[cfg(test)]
    pub(super) fn stored(&self) -> usize {
        let whole = self.whole.as_ref().map_or(0, |whole| whole.bytes.len());
        self.bytes() + whole
    }

    #[cfg(test)]
    pub(super) fn stored_count(&self) -> usize {
        self.areas.len() + self.complete.len()
    }

    /// Makes room for an area: lower numbers give way, the carousel brings them again.
    fn make_room(&mut self, number: u32, bytes: usize) -> Result<(), DropReason> {
        loop {
            let count = self.areas.len() + self.complete.len();
            if count < MAX_CHANGES && self.bytes() + bytes <= MAX_BYTES {
                return Ok(());
            }
            let first = self.areas.keys().chain(self.complete.keys()).min().copied();
            match first.filter(|first| *first < number) {
                Some(first) => {
                    self.areas.remove(&first);
                    self.complete.remove(&first);
                }
                None => return Err(DropReason::TooManyChanges),
            }
        }
    }

    fn draw_whole(&mut self, change: ScreenChange) {
        (self.through, self.screen) = (change.number, change.screen);
        self.areas.retain(|number, _| *number > change.number);
        self.complete.retain(|number, _| *number > change.number);
        // nothing before it shows
        self.changes.clear();
        self.changes.push_back(change);
        self.draw_from(0);
    }

    fn draw_area(&mut self, change: ScreenChange) {
        let number = change.number;
        self.complete.insert(number, change);
        if self.through > 0 {
            self.draw_from(number);
        }
    }

    /// Draws complete areas from this number on: later ones lie above it, drawn before or not.
    fn draw_from(&mut self, number: u32) {
        let above = self.complete.range(number..).map(|(_, area)| area);
        // of another size: a whole picture before it is missing
        let above = above.filter(|area| area.screen == self.screen);
        self.changes.extend(above.cloned());
        self.advance();
    }

    /// Forgets changes below which none is missing.
    fn advance(&mut self) {
        while self.through > 0
            && let Some(next) = self.through.checked_add(1)
            && self.complete.remove(&next).is_some()
        {
            self.through = next;
        }
    }
}

/// Returns a change whose bytes are complete.
fn change(run: u64, part: &Part, bytes: Vec<u8>) -> Result<ScreenChange, DropReason> {
    let picture = Picture::new(bytes).map_err(|_| DropReason::NoPicture)?;
    let is_kind = matches!(picture.kind(), PictureKind::WebP | PictureKind::Png);
    let area = part.area;
    if !is_kind || picture.size() != (area.width.into(), area.height.into()) {
        return Err(DropReason::NoPicture);
    }
    Ok(ScreenChange {
        run,
        number: part.number,
        screen: part.screen,
        area,
        is_exact: part.is_exact,
        picture,
    })
}
