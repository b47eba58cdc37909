//! The sender of a screen: changes in, packets of both groups out.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::SecretKey;
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::Space;

use super::part::{Area, PART, Part, ScreenError, ScreenPacket, ScreenSpace, screen_size};
use crate::picture::Picture;
use crate::signed::{Nonces, States};

/// Rate of the live group, with all bytes of its packets: a page of text in half a second. A burst
/// fits into receive buffers.
const LIVE: Rate = Rate::per_second(64_000, 16_000);
/// Rate of the carousel: 256 kbit/s, a page of text in 1.5 s.
const CAROUSEL: Rate = Rate::per_second(32_000, 8_000);
/// Bytes of a round above which the carousel is twice as fast: 2 s at its rate, for which who comes
/// late would wait.
const LONG_ROUND: usize = 64_000;
/// Time between two looks at a screen that changes.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two looks at a screen that did not change at the last one.
const LOOK_AT_REST: Duration = Duration::from_secs(1);
/// Bytes of changes in the carousel above which it begins with a new whole picture: 8 s at its rate.
const MAX_CHANGES: usize = 256_000;
/// Changes in the carousel, half of those that a receiver stores.
const MAX_COUNT: usize = 64;

/// A change of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChange {
    /// Width and height of the screen.
    pub screen: (u16, u16),
    /// The changed area.
    pub area: Area,
    /// Whether the picture lost nothing.
    pub is_exact: bool,
    /// The area's picture.
    pub picture: Vec<u8>,
}

/// A change with its number.
#[derive(Debug)]
struct Numbered {
    number: u32,
    change: NewChange,
}

impl Numbered {
    fn parts(&self) -> usize {
        self.change.picture.len().div_ceil(PART)
    }

    fn part(&self, at: usize) -> Option<Part> {
        let bytes = self.change.picture.chunks(PART).nth(at)?;
        Some(Part {
            number: self.number,
            screen: self.change.screen,
            area: self.change.area,
            is_exact: self.change.is_exact,
            part: at as u16,
            parts: self.parts() as u16,
            bytes: bytes.to_vec(),
        })
    }
}

/// Sends a screen.
#[derive(Debug)]
pub struct ScreenSender {
    space: ScreenSpace,
    key: SecretKey,
    nonces: Nonces,
    run: u64,
    latest: u32,
    /// The last change of which a part was sent: receivers expect no later one.
    begun: u32,
    is_paused: bool,
    /// The live group is sent the whole screen once more, which the carousel has.
    is_refining: bool,
    states: States,
    /// Changes to be sent to the live group, and the next part of the first one.
    live: VecDeque<Arc<Numbered>>,
    live_part: usize,
    live_bucket: TokenBucket,
    /// The whole picture and the changes since; place in the round.
    carousel: Vec<Arc<Numbered>>,
    round: (usize, usize),
    carousel_bucket: TokenBucket,
    look_at: Instant,
}

impl ScreenSender {
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
            space: ScreenSpace::new(space),
            key,
            nonces: Nonces::new("lcstudio 2026 screen nonce", seed),
            run: started.as_millis(),
            latest: 0,
            begun: 0,
            is_paused: false,
            is_refining: false,
            states: States::new(now),
            live: VecDeque::new(),
            live_part: 0,
            live_bucket: TokenBucket::of(LIVE, now),
            carousel: Vec::new(),
            round: (0, 0),
            carousel_bucket: TokenBucket::of(CAROUSEL, now),
            look_at: now,
        }
    }

    /// Returns the groups of the screen.
    pub fn space(&self) -> &ScreenSpace {
        &self.space
    }

    /// Whether the screen is to be looked at now: all earlier changes are sent.
    pub fn wants_look(&self, now: Instant) -> bool {
        let is_sent = self.live.is_empty() || self.is_refining;
        is_sent && !self.is_paused && !self.states.is_ending() && self.look_at <= now
    }

    /// Notes a look that found no change.
    pub fn is_unchanged(&mut self, now: Instant) {
        self.look_at = now + LOOK_AT_REST;
    }

    /// Sends the changes of a look. One that covers the screen replaces all earlier ones.
    ///
    /// # Errors
    /// [`ScreenError`]; no change of the look is sent.
    pub fn show(&mut self, changes: Vec<NewChange>, now: Instant) -> Result<(), ScreenError> {
        for change in &changes {
            check(change)?;
        }
        if std::mem::take(&mut self.is_refining) {
            self.live.clear();
            self.live_part = 0;
        }
        for change in changes {
            self.latest += 1;
            let is_whole = change.area == Area::whole(change.screen);
            let numbered = Arc::new(Numbered {
                number: self.latest,
                change,
            });
            if is_whole {
                self.live.clear();
                self.live_part = 0;
                self.restart_carousel(numbered.clone());
            } else if !self.carousel.is_empty() {
                self.carousel.push(numbered.clone());
            }
            self.live.push_back(numbered);
        }
        self.look_at = now + LOOK;
        Ok(())
    }

    /// Sends the whole screen once more, without loss. The next change does not wait for it, as
    /// receivers get the rest of it from the carousel.
    ///
    /// # Errors
    /// [`ScreenError`]; nothing is sent.
    pub fn refine(&mut self, whole: NewChange, now: Instant) -> Result<(), ScreenError> {
        self.show(vec![whole], now)?;
        self.is_refining = true;
        Ok(())
    }

    /// Whether the carousel is to begin with a new whole picture.
    pub fn wants_whole(&self) -> bool {
        let changes = self.carousel.iter().skip(1);
        let bytes: usize = changes.map(|one| one.change.picture.len()).sum();
        bytes > MAX_CHANGES || self.carousel.len() > MAX_COUNT
    }

    /// Replaces the contents of the carousel by the whole screen as it was sent.
    ///
    /// # Errors
    /// [`ScreenError`]; the carousel stays as it is.
    pub fn set_whole(&mut self, whole: NewChange) -> Result<(), ScreenError> {
        check(&whole)?;
        let number = self.latest;
        let change = whole;
        self.restart_carousel(Arc::new(Numbered { number, change }));
        Ok(())
    }

    fn restart_carousel(&mut self, whole: Arc<Numbered>) {
        self.carousel = vec![whole];
        self.round = (0, 0);
    }

    /// Pauses, or continues.
    pub fn pause(&mut self, is_paused: bool, now: Instant) {
        self.is_paused = is_paused;
        self.states.hasten(now);
    }

    /// Ends: [`has_ended`](Self::has_ended) once all is sent.
    pub fn end(&mut self, now: Instant) {
        self.states.end(now);
    }

    /// Whether the last packet was sent.
    pub fn has_ended(&self) -> bool {
        self.states.has_ended()
    }

    /// Returns the next packet that is due, with its group.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        if self.states.is_due(now) {
            self.states.sent(now);
            return Some((self.space.live(), self.seal(None)?));
        }
        if self.states.is_ending() {
            return None;
        }
        if self.live_bucket.ready(now)
            && let Some(change) = self.live.front().cloned()
        {
            self.begun = self.begun.max(change.number);
            let packet = self.seal(change.part(self.live_part))?;
            self.live_bucket.spend(packet.len() as u64, now);
            self.live_part += 1;
            if self.live_part >= change.parts() {
                self.live.pop_front();
                self.live_part = 0;
            }
            return Some((self.space.live(), packet));
        }
        if self.carousel_bucket.ready(now)
            && let Some(change) = self.carousel.get(self.round.0).cloned()
        {
            let packet = self.seal(change.part(self.round.1))?;
            let rounds = self.carousel.iter();
            let bytes: usize = rounds.map(|one| one.change.picture.len()).sum();
            let share = if bytes > LONG_ROUND { 2 } else { 1 };
            self.carousel_bucket.spend(packet.len() as u64 / share, now);
            self.round.1 += 1;
            if self.round.1 >= change.parts() {
                self.round = ((self.round.0 + 1) % self.carousel.len(), 0);
            }
            return Some((self.space.carousel(), packet));
        }
        None
    }

    /// Returns the time of the next call of [`poll_transmit`](Self::poll_transmit).
    pub fn next_timeout(&self) -> Instant {
        let is_on = !self.states.is_ending();
        let live = (is_on && !self.live.is_empty()).then(|| self.live_bucket.ready_at());
        let carousel =
            (is_on && !self.carousel.is_empty()).then(|| self.carousel_bucket.ready_at());
        let first = live.into_iter().chain(carousel).min();
        first.map_or(self.states.at(), |at| at.min(self.states.at()))
    }

    /// Returns the time of the next look.
    pub fn look_at(&self) -> Instant {
        self.look_at
    }

    #[cfg(test)]
    pub(super) fn seal_state(&mut self) -> Option<Vec<u8>> {
        self.seal(None)
    }

    fn seal(&mut self, part: Option<Part>) -> Option<Vec<u8>> {
        let packet = ScreenPacket {
            run: self.run,
            latest: part.as_ref().map_or(0, |part| part.number).max(self.begun),
            is_paused: self.is_paused,
            has_ended: self.states.is_ending(),
            part,
        };
        let contents = packet.sign(&self.key);
        self.space.seal.seal_contents(contents, &self.nonces.next())
    }
}

fn check(change: &NewChange) -> Result<(), ScreenError> {
    let (width, height) = change.screen;
    screen_size(width.into(), height.into())?;
    let size = Picture::new(change.picture.clone())?.size();
    let area = change.area;
    if !area.is_inside(change.screen) || size != (area.width.into(), area.height.into()) {
        return Err(ScreenError::Area);
    }
    Ok(())
}
