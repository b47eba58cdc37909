//! Pictures of slides: checks their type and size by their headers.
//!
//! PNG, JPEG, WebP and GIF without animation: a slide has no button that stops one (WCAG 2.2.2).
//! Pixels are bounded, as a header may announce more than a reader's memory holds. The browser that
//! decodes a picture finds all other faults.

use std::fmt;

use librecast::id::derive;
use librecast::wire::Reader;
use thiserror::Error;

/// Longest picture, in bytes. Chosen: a photograph as wide as a screen, 17 s at their rate.
pub const MAX_PICTURE: usize = 1 << 20;

/// Pixels of a picture, 4,096 x 4,096: 64 MiB decoded. Chosen: above a telephone's photographs.
pub const MAX_PIXELS: u64 = 1 << 24;

/// Hash of a picture's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PictureId(pub(crate) [u8; 32]);

impl PictureId {
    /// Returns the id of a picture's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(derive("lcstudio 2026 picture", &[bytes]))
    }
}

impl fmt::Display for PictureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PictureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Type of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureKind {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
}

impl PictureKind {
    /// Returns its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
        }
    }
}

/// Reason for which bytes are not sent as a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PictureError {
    /// More than [`MAX_PICTURE`] bytes.
    #[error("{0} bytes, at most {MAX_PICTURE} are sent: make it smaller")]
    TooLong(usize),
    /// The bytes begin as no known type, or end too early.
    #[error("no PNG, JPEG, WebP or GIF")]
    Unknown,
    /// More than `MAX_PIXELS` pixels.
    #[error("{0} x {1} pixels, at most {MAX_PIXELS} are sent: make it smaller")]
    TooManyPixels(u32, u32),
    /// The picture is an animation.
    #[error("it moves: pictures of slides stand still")]
    Moves,
}

/// A picture that may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    id: PictureId,
    kind: PictureKind,
    size: (u32, u32),
    bytes: Vec<u8>,
}

impl Picture {
    /// Checks these bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PictureError> {
        if bytes.len() > MAX_PICTURE {
            return Err(PictureError::TooLong(bytes.len()));
        }
        let (kind, size) = read_header(&bytes)?;
        if u64::from(size.0) * u64::from(size.1) > MAX_PIXELS {
            return Err(PictureError::TooManyPixels(size.0, size.1));
        }
        if size.0 == 0 || size.1 == 0 {
            return Err(PictureError::Unknown);
        }
        let id = PictureId::of(&bytes);
        Ok(Self {
            id,
            kind,
            size,
            bytes,
        })
    }

    /// Returns its id.
    pub fn id(&self) -> PictureId {
        self.id
    }

    /// Returns its type.
    pub fn kind(&self) -> PictureKind {
        self.kind
    }

    /// Returns width and height, in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        write!(f, "Picture({:?} {width}x{height} {})", self.kind, self.id)
    }
}

type Header = Result<(PictureKind, (u32, u32)), PictureError>;

fn read_header(bytes: &[u8]) -> Header {
    let found = match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', rest @ ..] => png(rest),
        [0xff, 0xd8, rest @ ..] => jpeg(rest),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', rest @ ..] => gif(rest),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            rest @ ..,
        ] => webp(rest),
        _ => None,
    };
    found.unwrap_or(Err(PictureError::Unknown))
}

/// Chunks: length 4, name 4, content, checksum 4. `acTL` before `IDAT`: animation (PNG, 11.3.6).
fn png(bytes: &[u8]) -> Option<Header> {
    let mut r = Reader::new(bytes);
    let mut size = None;
    loop {
        let length = r.u32().ok()? as usize;
        let name = r.array::<4>().ok()?;
        match &name {
            b"IDAT" => return Some(Ok((PictureKind::Png, size?))),
            b"acTL" => return Some(Err(PictureError::Moves)),
            b"IHDR" if size.is_some() => return None,
            _ => {}
        }
        let content = r.take(length.checked_add(4)?).ok()?;
        match &name {
            b"IHDR" => {
                let mut r = Reader::new(content);
                size = Some((r.u32().ok()?, r.u32().ok()?));
            }
            _ => _ = size?,
        }
    }
}

/// Segments: 0xff, name, length 2 with itself. SOF (ITU-T T.81 B.2.2) has height and width.
fn jpeg(bytes: &[u8]) -> Option<Header> {
    let mut r = Reader::new(bytes);
    loop {
        if r.u8().ok()? != 0xff {
            return None;
        }
        // a name may follow any number of 0xff
        let mut name = 0xff;
        while name == 0xff {
            name = r.u8().ok()?;
        }
        match name {
            0x01 | 0xd0..=0xd7 => continue,
            // scans and the end follow the frame
            0 | 0xd8..=0xda => return None,
            _ => {}
        }
        let length = usize::from(r.u16().ok()?);
        let content = r.take(length.checked_sub(2)?).ok()?;
        if matches!(name, 0xc0..=0xcf) && !matches!(name, 0xc4 | 0xc8 | 0xcc) {
            let mut r = Reader::new(content);
            let (_precision, height, width) = (r.u8().ok()?, r.u16().ok()?, r.u16().ok()?);
            return Some(Ok((PictureKind::Jpeg, (width.into(), height.into()))));
        }
    }
}

fn little16(bytes: &[u8]) -> Option<u32> {
    Some(u16::from_le_bytes(*bytes.first_chunk()?).into())
}

/// Returns the length of the colour table that flags announce.
fn colours(flags: u8) -> usize {
    match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    }
}

/// Blocks (GIF89a, 23): an image may exceed the screen, and a second one makes an animation.
fn gif(bytes: &[u8]) -> Option<Header> {
    let mut r = Reader::new(bytes);
    let screen = r.take(7).ok()?;
    let (mut width, mut height) = (little16(screen)?, little16(&screen[2..])?);
    r.take(colours(screen[4])).ok()?;
    let mut images = 0;
    loop {
        // browsers show an image even if its trailer is missing
        let kind = r.u8();
        match kind {
            Ok(0x21) => _ = r.u8().ok()?,
            Ok(0x2c) if images > 0 => return Some(Err(PictureError::Moves)),
            Ok(0x2c) => {
                images += 1;
                let image = r.take(9).ok()?;
                width = width.max(little16(image)? + little16(&image[4..])?);
                height = height.max(little16(&image[2..])? + little16(&image[6..])?);
                r.take(colours(image[8]) + 1).ok()?;
            }
            _ if images > 0 => return Some(Ok((PictureKind::Gif, (width, height)))),
            _ => return None,
        }
        while let Ok(length @ 1..) = r.u8() {
            if r.take(length.into()).is_err() {
                break;
            }
        }
    }
}

/// Chunks: name 4, length 4, content, padding to even lengths (RFC 9649, 2.3); first the type.
fn webp(bytes: &[u8]) -> Option<Header> {
    let little24 = |bytes: &[u8]| Some(little16(bytes)? | u32::from(*bytes.get(2)?) << 16);
    let name = bytes.first_chunk::<4>()?;
    let content = bytes.get(8..)?;
    let size = match name {
        // flag: animation
        b"VP8X" if content.first()? & 2 != 0 => return Some(Err(PictureError::Moves)),
        b"VP8X" => (
            little24(content.get(4..)?)? + 1,
            little24(content.get(7..)?)? + 1,
        ),
        b"VP8 " if content.get(3..6)? == [0x9d, 1, 0x2a] => {
            let side = |at: usize| Some(little16(content.get(at..)?)? & 0x3fff);
            (side(6)?, side(8)?)
        }
        b"VP8L" if *content.first()? == 0x2f => {
            let bits = u32::from_le_bytes(*content.get(1..)?.first_chunk()?);
            ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
        }
        _ => return None,
    };
    Some(Ok((PictureKind::WebP, size)))
}
