//! The screen of a page that presents. The page looks, the module says which areas are to be
//! encoded, the browser encodes them, and the module sends their pictures.
//!
//! ```text
//! look: pixels ── changed areas ──> the browser's encoder ──> pictures ──> ScreenSender
//!                                    ^-- again, with loss --  too long
//! at rest after a picture with loss: one whole picture without loss
//! ```

use std::net::Ipv6Addr;

use lcstudio_core::{
    Area, MAX_PICTURE, NewChange, ScreenError, ScreenSender, changed, screen_size,
};
use librecast::id::SecretKey;
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::Space;

/// Most bytes of a look without loss: 6 s at the sender's rate. Photographs have more.
const MAX_EXACT: usize = 400_000;
/// Qualities of WebP in percent, in turn: without loss, and twice with loss if they are too long.
const QUALITIES: [u8; 3] = [100, 80, 50];
/// Time without a change after which a screen with loss is sent without loss.
const REST: Duration = Duration::from_secs(2);
/// Time between two whole pictures for the carousel, and after a picture that was too long.
const AGAIN: Duration = Duration::from_secs(10);

/// A screen as the page saw it.
struct Still {
    size: (u16, u16),
    /// Red, green, blue, opacity of each pixel.
    pixels: Vec<u8>,
}

/// Use of pictures that are being encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Changes since the last look.
    Changes,
    /// The whole screen without loss, after a rest.
    Exact,
    /// The whole screen for the carousel.
    Carousel,
}

/// Areas that are being encoded.
struct Work {
    to: Use,
    areas: Vec<Area>,
    /// The screen of this look, if it changed.
    still: Option<Still>,
    /// Place in [`QUALITIES`].
    quality: usize,
}

/// The screen of a presenter.
pub(crate) struct Showing {
    sender: ScreenSender,
    /// The last screen that was sent.
    shown: Option<Still>,
    work: Option<Work>,
    /// Time from which on the screen is sent without loss, if it has not changed again.
    exact_at: Option<Instant>,
    /// Whether all of the sent screen lost nothing.
    is_exact: bool,
    /// No whole picture for the carousel before.
    whole_at: Instant,
    /// No look before: the last one could not be sent.
    next_at: Instant,
    is_too_long: bool,
    /// Sent changes, and bytes of their pictures.
    changes: u64,
    bytes: u64,
}

impl Showing {
    /// Begins to send the screen of this space. `seed`: secret randomness, new each time.
    pub fn new(
        space: &Space,
        key: SecretKey,
        seed: [u8; 32],
        time: UnixTime,
        now: Instant,
    ) -> Self {
        Self {
            sender: ScreenSender::new(space, key, seed, time, now),
            shown: None,
            work: None,
            exact_at: None,
            is_exact: true,
            whole_at: now,
            next_at: now,
            is_too_long: false,
            changes: 0,
            bytes: 0,
        }
    }

    /// Whether the page is to look at the screen now.
    pub fn wants_look(&self, now: Instant) -> bool {
        self.next_at <= now && self.sender.wants_look(now)
    }

    /// Takes a look. Afterwards [`wanted`](Self::wanted) returns the areas to be encoded.
    pub fn look(
        &mut self,
        (width, height): (u32, u32),
        pixels: Vec<u8>,
        now: Instant,
    ) -> Result<(), ScreenError> {
        self.work = None;
        let size = screen_size(width, height)?;
        if pixels.len() != usize::from(size.0) * usize::from(size.1) * 4 {
            return Err(ScreenError::Area);
        }
        let whole = Area::whole(size);
        let last = self.shown.as_ref().filter(|last| last.size == size);
        let areas = match last {
            Some(last) => changed(&last.pixels, &pixels, size.0),
            None => vec![whole],
        };
        let is_changed = !areas.is_empty();
        let (to, areas) = match is_changed {
            true => (Use::Changes, self.areas_or_whole(areas, whole)),
            false => {
                self.sender.is_unchanged(now);
                match self.use_at_rest(now) {
                    Some(to) => (to, vec![whole]),
                    None => return Ok(()),
                }
            }
        };
        self.work = Some(Work {
            to,
            areas,
            still: is_changed.then_some(Still { size, pixels }),
            quality: 0,
        });
        Ok(())
    }

    /// Returns the areas whose pictures are wanted, and their quality in percent.
    pub fn wanted(&self) -> Option<(u8, &[Area])> {
        let work = self.work.as_ref()?;
        Some((*QUALITIES.get(work.quality)?, &work.areas))
    }

    /// A whole picture is shorter than areas of most of the screen, and the carousel needs one.
    fn areas_or_whole(&self, areas: Vec<Area>, whole: Area) -> Vec<Area> {
        let pixels = |area: &Area| u32::from(area.width) * u32::from(area.height);
        let all: u32 = areas.iter().map(pixels).sum();
        match all * 2 < pixels(&whole) && !self.sender.wants_whole() {
            true => areas,
            false => vec![whole],
        }
    }

    fn use_at_rest(&self, now: Instant) -> Option<Use> {
        if self.exact_at.is_some_and(|at| at <= now) {
            return Some(Use::Exact);
        }
        (self.sender.wants_whole() && self.whole_at <= now).then_some(Use::Carousel)
    }

    /// Sends the wanted pictures. If they are too long, they are wanted again, with another quality.
    pub fn pictures(&mut self, files: Vec<Vec<u8>>, now: Instant) -> Result<(), ScreenError> {
        let Some(mut work) = self.work.take() else {
            return Ok(());
        };
        if files.len() != work.areas.len() {
            return Err(ScreenError::Area);
        }
        let bytes: usize = files.iter().map(Vec::len).sum();
        let fits = files.iter().all(|file| file.len() <= MAX_PICTURE);
        let is_short = work.quality > 0 || work.to == Use::Exact || bytes <= MAX_EXACT;
        if fits && is_short {
            self.send(work, files, now)?;
            self.bytes += bytes as u64;
            return Ok(());
        }
        work.quality += 1;
        if work.to == Use::Exact || work.quality >= QUALITIES.len() {
            self.give_up(work.to, now);
        } else {
            self.work = Some(work);
        }
        Ok(())
    }

    /// Passes over pictures that are too long.
    fn give_up(&mut self, to: Use, now: Instant) {
        match to {
            Use::Changes => (self.next_at, self.is_too_long) = (now + AGAIN, true),
            Use::Exact => self.exact_at = None,
            Use::Carousel => self.whole_at = now + AGAIN,
        }
    }

    fn send(&mut self, work: Work, files: Vec<Vec<u8>>, now: Instant) -> Result<(), ScreenError> {
        let still = work.still.as_ref().or(self.shown.as_ref());
        let Some(size) = still.map(|still| still.size) else {
            return Ok(());
        };
        let mut changes: Vec<NewChange> = Vec::new();
        for (area, picture) in work.areas.into_iter().zip(files) {
            changes.push(NewChange {
                screen: size,
                area,
                is_exact: lost_nothing(&picture),
                picture,
            });
        }
        let is_exact = changes.iter().all(|change| change.is_exact);
        let is_whole = changes.first().map(|change| change.area) == Some(Area::whole(size));
        match work.to {
            Use::Changes => {
                self.changes += changes.len() as u64;
                self.sender.show(changes, now)?;
                self.shown = work.still;
                self.is_too_long = false;
            }
            Use::Exact | Use::Carousel => {
                let Some(whole) = changes.pop() else {
                    return Ok(());
                };
                match work.to {
                    Use::Exact => self.sender.refine(whole, now)?,
                    _ => self.sender.set_whole(whole)?,
                }
                self.whole_at = now + AGAIN;
            }
        }
        self.is_exact = is_exact && (is_whole || self.is_exact);
        self.exact_at = (!self.is_exact).then_some(now + REST);
        // an encoder that loses something at any quality is not asked again and again
        if work.to == Use::Exact {
            self.exact_at = None;
        }
        Ok(())
    }

    /// Ends: [`has_ended`](Self::has_ended) once all is sent.
    pub fn end(&mut self, now: Instant) {
        self.work = None;
        self.sender.end(now);
    }

    pub fn has_ended(&self) -> bool {
        self.sender.has_ended()
    }

    /// Returns the next packet that is due, with its group.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        self.sender.poll_transmit(now)
    }

    /// Returns the time of the next call of [`poll_transmit`](Self::poll_transmit).
    pub fn next_timeout(&self) -> Instant {
        self.sender.next_timeout()
    }

    /// Returns the group of which listeners see the screen.
    pub fn group(&self) -> Ipv6Addr {
        self.sender.space().live()
    }

    /// Returns the size of the sent screen.
    pub fn size(&self) -> Option<(u16, u16)> {
        self.shown.as_ref().map(|shown| shown.size)
    }

    /// Returns the numbers of sent changes, and of bytes of their pictures.
    pub fn sent(&self) -> (u64, u64) {
        (self.changes, self.bytes)
    }

    /// Whether all of the sent screen lost nothing.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether the last picture was too long.
    pub fn is_too_long(&self) -> bool {
        self.is_too_long
    }
}

/// Whether a picture lost nothing: a PNG, or a WebP whose image is one without loss (RFC 9649, 2.6).
fn lost_nothing(file: &[u8]) -> bool {
    let Some(mut chunks) = file.strip_prefix(b"RIFF").and_then(|rest| rest.get(8..)) else {
        return true;
    };
    loop {
        let Some((name, rest)) = chunks.split_first_chunk::<4>() else {
            return false;
        };
        match name {
            b"VP8L" => return true,
            b"VP8 " => return false,
            _ => {}
        }
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return false;
        };
        // chunks have even lengths
        let length = u32::from_le_bytes(*length) as usize;
        let next = length.saturating_add(length & 1);
        chunks = rest.get(next..).unwrap_or_default();
    }
}
