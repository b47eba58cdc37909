//! Packets of the track `screen`, at most 1,147 bytes, sealed as those of the entry log.
//!
//! ```text
//! signature 64 | version 1 = 16 | flags 1 | run 8 | latest 4          a state: each second, and as it changes
//!   | number 4 | screen: width 2, height 2 | area: x 2, y 2, width 2, height 2 | part 2 | parts 2 | bytes <= 1000
//! ```
//!
//! `run` is the time at which the sender began, in milliseconds since 1970. `latest` is the number
//! of its last change; a change that covers the screen includes all earlier ones. The track's key
//! signs each packet.

use std::net::Ipv6Addr;

use librecast::id::{PeerId, SecretKey};
use librecast::wire::{Reader, WireError};
use librecast_log::{Seal, Space};
use thiserror::Error;

use crate::drops::DropReason;
use crate::picture::{MAX_PICTURE, PictureError};
use crate::signed::{read_head, sign, write_head};

/// Context of signatures (docs/protocol.md §1).
pub(super) const CONTEXT: &str = "lcstudio 2026 screen";

/// Version of contents; the entry log has other first bytes there.
const VERSION: u8 = 16;

/// Bytes of a picture in each part but the last. Chosen: as in the entry log, within 1,280.
pub(super) const PART: usize = 1_000;

/// Parts of the longest picture.
const MAX_PARTS: usize = MAX_PICTURE.div_ceil(PART);

/// Longest side of a screen, in pixels. Chosen: most screens; a sender scales larger ones down.
pub const MAX_SIDE: u16 = 1_920;

/// Most pixels of a screen: 1,920 x 1,200, upright or not; 9 MiB decoded.
const MAX_PIXELS: u32 = 1_920 * 1_200;

/// Flag: the sender sends nothing new for a while.
const PAUSED: u8 = 1;
/// Flag: the sender has ended.
const ENDED: u8 = 2;
/// Flag of a part: its picture lost nothing.
const EXACT: u8 = 4;

/// Reason for which a change is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScreenError {
    /// The picture cannot be sent.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The screen is too large.
    #[error("{0} x {1} pixels: at most 1920 x 1200 are sent, upright or not; scale it down")]
    Size(u32, u32),
    /// The area does not lie in the screen, or the picture has another size.
    #[error("the picture has not the size of its area")]
    Area,
}

/// A rectangle of a screen, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Left side.
    pub x: u16,
    /// Upper side.
    pub y: u16,
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
}

impl Area {
    /// All of a screen of this size.
    #[must_use]
    pub fn whole((width, height): (u16, u16)) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Returns whether it lies in a screen of this size, and is not empty.
    pub(super) fn is_inside(self, (width, height): (u16, u16)) -> bool {
        let fits = |at: u16, length: u16, side: u16| {
            length > 0 && u32::from(at) + u32::from(length) <= u32::from(side)
        };
        fits(self.x, self.width, width) && fits(self.y, self.height, height)
    }
}

/// Returns the size of a screen that may be sent.
///
/// # Errors
/// It is too large.
pub fn screen_size(width: u32, height: u32) -> Result<(u16, u16), ScreenError> {
    let is_size =
        width.max(height) <= MAX_SIDE.into() && (1..=MAX_PIXELS).contains(&(width * height));
    match is_size {
        true => Ok((width as u16, height as u16)),
        false => Err(ScreenError::Size(width, height)),
    }
}

/// A part of a change's picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Number of the change, from 1.
    pub number: u32,
    /// Width and height of the screen.
    pub screen: (u16, u16),
    /// The changed area.
    pub area: Area,
    /// Whether the picture lost nothing.
    pub is_exact: bool,
    /// Number of this part, from 0.
    pub part: u16,
    /// All parts.
    pub parts: u16,
    /// The bytes of this part.
    pub bytes: Vec<u8>,
}

/// A packet of the track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenPacket {
    /// Time at which the sender began, in milliseconds since 1970.
    pub run: u64,
    /// Number of the last change; 0 before the first one.
    pub latest: u32,
    /// The sender sends nothing new for a while.
    pub is_paused: bool,
    /// The sender has ended.
    pub has_ended: bool,
    /// A part of a change.
    pub part: Option<Part>,
}

impl ScreenPacket {
    /// Returns its contents without the signature.
    fn message(&self) -> Vec<u8> {
        let is_exact = self.part.as_ref().is_some_and(|part| part.is_exact);
        let flags = [
            (self.is_paused, PAUSED),
            (self.has_ended, ENDED),
            (is_exact, EXACT),
        ];
        let mut w = write_head(VERSION, &flags, self.run);
        w.u32(self.latest);
        if let Some(part) = &self.part {
            let Area {
                x,
                y,
                width,
                height,
            } = part.area;
            w.u32(part.number).u16(part.screen.0).u16(part.screen.1);
            w.u16(x).u16(y).u16(width).u16(height);
            w.u16(part.part).u16(part.parts).put(&part.bytes);
        }
        w.into_vec()
    }

    /// Returns its contents, signed.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Vec<u8> {
        sign(CONTEXT, key, &self.message())
    }

    /// Decodes contents; the signature is verified apart, as that costs more.
    pub fn decode(contents: &[u8]) -> Result<Self, DropReason> {
        let (head, mut r) = read_head(contents, &[VERSION])?;
        let (flags, latest) = (head.flags, r.u32()?);
        let part = match r.is_empty() {
            true => None,
            false => Some(read_part(&mut r, flags & EXACT != 0)?),
        };
        if let Some(part) = &part {
            check(part, latest)?;
        }
        Ok(Self {
            run: head.run,
            latest,
            is_paused: flags & PAUSED != 0,
            has_ended: flags & ENDED != 0,
            part,
        })
    }
}

fn read_part(r: &mut Reader<'_>, is_exact: bool) -> Result<Part, WireError> {
    Ok(Part {
        number: r.u32()?,
        screen: (r.u16()?, r.u16()?),
        area: Area {
            x: r.u16()?,
            y: r.u16()?,
            width: r.u16()?,
            height: r.u16()?,
        },
        is_exact,
        part: r.u16()?,
        parts: r.u16()?,
        bytes: r.rest().to_vec(),
    })
}

/// Checks the bounds of a part, before anything is stored.
fn check(part: &Part, latest: u32) -> Result<(), DropReason> {
    let (width, height) = part.screen;
    screen_size(width.into(), height.into()).map_err(|_| DropReason::PictureTooLarge)?;
    if !part.area.is_inside(part.screen) {
        return Err(DropReason::OutsideScreen);
    }
    if usize::from(part.parts) > MAX_PARTS {
        return Err(DropReason::TooManyParts);
    }
    let is_last = part.part + 1 == part.parts;
    let length = part.bytes.len();
    let fits = match is_last {
        true => (1..=PART).contains(&length),
        false => length == PART,
    };
    if part.number == 0 || part.number > latest || part.part >= part.parts || !fits {
        return Err(DropReason::WrongPart);
    }
    Ok(())
}

/// The groups of the screen of a session, and the seal of its packets.
#[derive(Debug)]
pub struct ScreenSpace {
    pub(super) owner: PeerId,
    pub(super) seal: Seal,
    live: Ipv6Addr,
}

impl ScreenSpace {
    /// The space of the track, as the index names it.
    #[must_use]
    pub fn new(space: &Space) -> Self {
        let group = u128::from(space.group());
        Self {
            owner: space.owner(),
            seal: Seal::new(space),
            live: Ipv6Addr::from(group & !1),
        }
    }

    /// The group with each change once.
    pub fn live(&self) -> Ipv6Addr {
        self.live
    }

    /// The group with a whole picture and the changes since, round and round.
    pub fn carousel(&self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.live) | 1)
    }
}
