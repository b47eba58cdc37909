//! The header of a frame of VP8 (RFC 6386, 9 and 19.2): its size, and what depends on it.

use thiserror::Error;

/// Longest side of a picture, in pixels. Chosen: larger ones cost too much to encode in pages.
pub const MAX_CAMERA_SIDE: u16 = 640;
/// Most pixels of a picture: 640 x 360, upright or not.
const MAX_PIXELS: u32 = 640 * 360;

/// Reason for which bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Vp8Error {
    /// The header is incomplete, or wrong.
    #[error("no frame of VP8")]
    Malformed,
    /// The picture is too large.
    #[error("{0} x {1} pixels: at most 640 x 360 are sent, upright or not; scale them down")]
    Size(u16, u16),
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8 {
    /// Width and height of a key frame; no other frame has them.
    pub size: Option<(u16, u16)>,
    /// Bytes of the first partition, which has the rest of the header.
    first: usize,
}

impl Vp8 {
    /// Decodes the beginning of a frame: the first ten bytes are enough.
    pub fn decode(frame: &[u8]) -> Result<Self, Vp8Error> {
        let [a, b, c, rest @ ..] = frame else {
            return Err(Vp8Error::Malformed);
        };
        // version 0 to 3
        if a >> 1 & 7 > 3 {
            return Err(Vp8Error::Malformed);
        }
        let first = usize::from(a >> 5) | usize::from(*b) << 3 | usize::from(*c) << 11;
        if a & 1 == 1 {
            return Ok(Self { size: None, first });
        }
        let [0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = rest else {
            return Err(Vp8Error::Malformed);
        };
        // the upper two bits scale the picture for display
        let side = |low: u8, high: u8| u16::from_le_bytes([low, high & 0x3f]);
        let (width, height) = (side(*w0, *w1), side(*h0, *h1));
        let is_size = width.max(height) <= MAX_CAMERA_SIDE
            && (1..=MAX_PIXELS).contains(&(u32::from(width) * u32::from(height)));
        match is_size {
            true => Ok(Self {
                size: Some((width, height)),
                first,
            }),
            false => Err(Vp8Error::Size(width, height)),
        }
    }
}

/// Bits of the first partition, of which most have probability one half (RFC 6386, 7.3).
struct Bits<'a> {
    bytes: &'a [u8],
    value: u32,
    range: u32,
    count: u8,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let (first, bytes) = bytes.split_first_chunk::<2>()?;
        Some(Self {
            bytes,
            value: u16::from_be_bytes(*first).into(),
            range: 255,
            count: 0,
        })
    }

    fn bit(&mut self) -> bool {
        let split = 1 + (self.range - 1) / 2;
        let is_set = self.value >= split << 8;
        match is_set {
            true => {
                self.range -= split;
                self.value -= split << 8;
            }
            false => self.range = split,
        }
        while self.range < 128 {
            self.range <<= 1;
            self.value <<= 1;
            self.count += 1;
            if self.count == 8 {
                self.count = 0;
                // zeros follow the end
                if let Some((next, rest)) = self.bytes.split_first() {
                    self.value |= u32::from(*next);
                    self.bytes = rest;
                }
            }
        }
        is_set
    }

    fn number(&mut self, bits: u8) -> u8 {
        (0..bits).fold(0, |number, _| number << 1 | u8::from(self.bit()))
    }

    /// Reads a number behind a flag; its sign follows it.
    fn optional(&mut self, bits: u8) -> Option<i8> {
        if !self.bit() {
            return None;
        }
        let number = self.number(bits).cast_signed();
        Some(if self.bit() { -number } else { number })
    }
}

/// Deltas of the loop filter: those of four references, and of four modes.
type Deltas = [i8; 8];

/// Finds the frames of a stream on which no later frame depends.
///
/// They change no stored picture, no probabilities, no map of segments, and leave the deltas of the
/// loop filter as the others set them.
#[derive(Debug, Clone, Default)]
pub struct Vp8Layers {
    deltas: Deltas,
}

impl Vp8Layers {
    /// Reads the next frame of the stream. Returns whether later frames depend on it.
    pub fn is_base(&mut self, vp8: &Vp8, frame: &[u8]) -> bool {
        let is_key = vp8.size.is_some();
        if is_key {
            self.deltas = Deltas::default();
        }
        let begin = if is_key { 10 } else { 3 };
        let partition = frame.get(begin..).unwrap_or_default();
        let partition = partition.get(..vp8.first).unwrap_or(partition);
        let mut deltas = self.deltas;
        let is_base = match Bits::new(partition) {
            Some(mut bits) => changes(&mut bits, is_key, &mut deltas) || deltas != self.deltas,
            None => true,
        };
        if is_base {
            self.deltas = deltas;
        }
        is_base
    }
}

/// Reads a header up to the flags of stored pictures. Returns whether the frame is a key, or changes
/// anything of the decoder but deltas of the loop filter.
fn changes(bits: &mut Bits<'_>, is_key: bool, deltas: &mut Deltas) -> bool {
    let mut is_change = is_key;
    if is_key {
        // colour space, clamping
        bits.number(2);
    }
    if bits.bit() {
        // segments
        let (map, data) = (bits.bit(), bits.bit());
        is_change |= map || data;
        if data {
            bits.bit();
            for _ in 0..4 {
                bits.optional(7);
            }
            for _ in 0..4 {
                bits.optional(6);
            }
        }
        for _ in 0..if map { 3 } else { 0 } {
            if bits.bit() {
                bits.number(8);
            }
        }
    }
    // kind, level and sharpness of the loop filter
    bits.bit();
    bits.number(6);
    bits.number(3);
    if bits.bit() && bits.bit() {
        for delta in deltas {
            *delta = bits.optional(6).unwrap_or(*delta);
        }
    }
    // partitions, quantizers
    bits.number(2);
    bits.number(7);
    for _ in 0..5 {
        bits.optional(4);
    }
    if is_key {
        return true;
    }
    let (golden, alternate) = (bits.bit(), bits.bit());
    is_change |= golden || alternate;
    for _ in 0..u8::from(!golden) + u8::from(!alternate) {
        is_change |= bits.number(2) != 0;
    }
    // signs of both, which no later frame takes over
    bits.number(2);
    let (probabilities, last) = (bits.bit(), bits.bit());
    is_change || probabilities || last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the frames of a stream that was encoded in two layers of time.
    fn frames(ivf: &[u8]) -> Vec<&[u8]> {
        let mut rest = &ivf[32..];
        let mut frames = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, next) = after[8..].split_at(u32::from_le_bytes(*length) as usize);
            frames.push(frame);
            rest = next;
        }
        frames
    }

    fn read(ivf: &[u8]) -> Vec<(Option<(u16, u16)>, bool)> {
        let mut layers = Vp8Layers::default();
        let one = |frame: &&[u8]| {
            let vp8 = Vp8::decode(frame).unwrap();
            (vp8.size, layers.is_base(&vp8, frame))
        };
        frames(ivf).iter().map(one).collect()
    }

    #[test]
    fn layers_of_time_are_found() {
        let found = read(include_bytes!("../../testdata/two-layers.ivf"));
        assert!(found.len() > 20);
        for (at, (size, is_base)) in found.into_iter().enumerate() {
            assert_eq!(is_base, at % 2 == 0, "{at}");
            assert_eq!(size, (at % 10 == 0).then_some((64, 36)), "{at}");
        }
    }

    #[test]
    fn without_layers_each_frame_is_of_base() {
        let found = read(include_bytes!("../../testdata/one-layer.ivf"));
        assert!(found.len() > 10);
        assert!(found.iter().all(|(_, is_base)| *is_base));
    }

    #[test]
    fn sizes_are_checked_before_anything() {
        let key = |width: u16, height: u16| {
            let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
            Vp8::decode(&[&[0x10, 0, 0, 0x9d, 1, 0x2a][..], &sides].concat())
        };
        for (width, height) in [(320, 180), (640, 360), (360, 640), (480, 480), (1, 1)] {
            assert_eq!(key(width, height).unwrap().size, Some((width, height)));
        }
        for (width, height) in [(16_383, 16_383), (641, 1), (640, 361), (0, 4), (4, 0)] {
            assert_eq!(key(width, height), Err(Vp8Error::Size(width, height)));
        }
        // the upper bits are a scale
        assert_eq!(
            key(0x4000 | 320, 0xc000 | 180).unwrap().size,
            Some((320, 180))
        );
        for wrong in [
            &[][..],
            &[0, 0],
            &[0, 0, 0, 0x9d, 1, 0x2b, 1, 0, 1, 0],
            &[9, 0, 0],
        ] {
            assert_eq!(Vp8::decode(wrong), Err(Vp8Error::Malformed), "{wrong:?}");
        }
        assert_eq!(Vp8::decode(&[1, 0, 0]).unwrap().size, None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(vp8) = Vp8::decode(&bytes) {
                Vp8Layers::default().is_base(&vp8, &bytes);
            }
        }
    }
}
