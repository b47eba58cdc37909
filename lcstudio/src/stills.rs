//! Still pictures from a pipe, one after the other: split, decoded, and areas of them encoded.
//!
//! The pictures are the user's own. What comes from the network is never decoded here.

use std::io::{self, BufRead, Cursor};

use anyhow::{Context, bail};
use image_webp::{ColorType, WebPDecoder, WebPEncoder};
use lcstudio_core::{Area, MAX_PICTURE, screen_size};

/// Longest picture of a pipe, in bytes: a screen of noise as PNG, twice.
const MAX_FILE: u64 = 32 << 20;

/// First bytes of PNG.
const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Bytes by which a picture is known, but one: `RIFF`, a length and `WEBP`.
const BEGINNING: usize = 11;

/// Length of two chunks of a PNG, in bytes: one without content, and the last.
const TWO_CHUNKS: usize = 24;

/// Splits a pipe into its pictures.
#[derive(Debug)]
pub struct Stills<R> {
    input: R,
    /// Bytes of the next picture, and perhaps of further ones.
    bytes: Vec<u8>,
    /// Number of these bytes within which no further picture begins.
    searched: usize,
    /// Whether a whole picture has come.
    has_begun: bool,
}

impl<R: BufRead> Stills<R> {
    /// Reads this pipe.
    pub fn new(input: R) -> Self {
        Self {
            input,
            bytes: Vec::new(),
            searched: 1,
            has_begun: false,
        }
    }

    /// Returns the next PNG or WebP; `None` at the end. Passes over a picture without an end, as of
    /// a program that was ended.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match needed(&self.bytes) {
                Ok((length, is_whole)) => {
                    let here = length.min(self.bytes.len());
                    if self.go_on_at_next(here) {
                        continue;
                    }
                    if is_whole && here == length {
                        return Ok(Some(self.take(length)));
                    }
                    self.searched = here.max(1);
                }
                Err(_) if self.go_on_at_next(self.bytes.len()) => continue,
                Err(e) if !self.has_begun => return Err(e),
                Err(_) => {
                    let passed = self.bytes.len().saturating_sub(BEGINNING);
                    self.bytes.drain(..passed);
                    self.searched = 1;
                }
            }
            if !self.fill()? {
                return match self.bytes.is_empty() || self.has_begun {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Drops all bytes before a picture that begins below this place, behind the first byte.
    /// Returns whether there is one.
    fn go_on_at_next(&mut self, below: usize) -> bool {
        let from = self.searched.saturating_sub(BEGINNING).max(1);
        let Some(at) = (from..below).find(|at| is_beginning(&self.bytes[*at..])) else {
            return false;
        };
        tracing::warn!("a picture is passed over: another one begins within it");
        self.bytes.drain(..at);
        self.searched = 1;
        true
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(length);
        (self.searched, self.has_begun) = (1, true);
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Reads further bytes. Returns whether there are any.
    fn fill(&mut self) -> io::Result<bool> {
        let more = loop {
            match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let length = more.len();
        self.bytes.extend_from_slice(more);
        self.input.consume(length);
        Ok(length > 0)
    }
}

fn is_beginning(bytes: &[u8]) -> bool {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(&b"WEBP"[..]);
    is_webp || bytes.starts_with(&PNG)
}

/// Returns the number of bytes after which more of a picture's length is known, or all of it: then
/// the picture ends there.
fn needed(bytes: &[u8]) -> io::Result<(usize, bool)> {
    let Some(first) = bytes.first_chunk::<8>() else {
        return Ok((8, false));
    };
    match first {
        // RIFF: the length of the rest, even
        [b'R', b'I', b'F', b'F', length @ ..] => {
            let length = u64::from(u32::from_le_bytes(*length));
            Ok((bounded(8 + length + (length & 1))?, true))
        }
        _ if *first == PNG => {
            let mut end = 8;
            // chunks: length 4, name 4, content, checksum 4
            loop {
                let Some(head) = bytes.get(end..end + 8) else {
                    return Ok((end + 8, false));
                };
                let is_last = &head[4..] == b"IEND";
                // with these bytes, a picture that begins in this head is found
                if !is_last && bytes.len() < end + TWO_CHUNKS {
                    return Ok((end + TWO_CHUNKS, false));
                }
                let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                end = bounded(end as u64 + 12 + u64::from(length))?;
                if is_last {
                    return Ok((end, true));
                }
            }
        }
        _ => Err(io::Error::other("no PNG or WebP begins here")),
    }
}

fn bounded(length: u64) -> io::Result<usize> {
    if length > MAX_FILE {
        let message = format!("a picture of more than {MAX_FILE} bytes");
        return Err(io::Error::other(message));
    }
    Ok(length as usize)
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Still {
    /// Width and height.
    pub size: (u16, u16),
    /// Red, green, blue and 255 of each pixel.
    pub pixels: Vec<u8>,
    /// Whether its file lost nothing.
    pub is_exact: bool,
}

impl Still {
    /// Decodes a PNG or WebP.
    pub fn decode(file: &[u8]) -> anyhow::Result<Self> {
        match file.starts_with(&PNG) {
            true => decode_png(file).context("PNG"),
            false => decode_webp(file).context("WebP"),
        }
    }

    /// Encodes an area as WebP without loss; `None` if it is longer than a picture may be.
    pub fn encode(&self, area: Area) -> anyhow::Result<Option<Vec<u8>>> {
        let row = usize::from(self.size.0) * 4;
        let (from, to) = (usize::from(area.x), usize::from(area.x + area.width));
        let rows = self.pixels.chunks_exact(row);
        let rows = rows.skip(area.y.into()).take(area.height.into());
        let pixels = rows.flat_map(|row| row[from * 4..to * 4].chunks_exact(4));
        let rgb: Vec<u8> = pixels.flat_map(|pixel| &pixel[..3]).copied().collect();
        let mut file = Vec::new();
        let (width, height) = (area.width.into(), area.height.into());
        WebPEncoder::new(&mut file).encode(&rgb, width, height, ColorType::Rgb8)?;
        Ok((file.len() <= MAX_PICTURE).then_some(file))
    }

    fn new(
        (width, height): (u32, u32),
        decoded: &[u8],
        channels: usize,
        is_exact: bool,
    ) -> anyhow::Result<Self> {
        let colours = |pixel: &[u8]| match *pixel {
            [grey] | [grey, _] => [grey, grey, grey, u8::MAX],
            [red, green, blue, ..] => [red, green, blue, u8::MAX],
            [] => [0; 4],
        };
        let pixels = decoded.chunks_exact(channels).flat_map(colours);
        Ok(Self {
            size: screen_size(width, height)?,
            pixels: pixels.collect(),
            is_exact,
        })
    }
}

fn decode_png(file: &[u8]) -> anyhow::Result<Still> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let size = reader.info().size();
    screen_size(size.0, size.1)?;
    let length = reader.output_buffer_size().context("too large")?;
    let mut decoded = vec![0; length];
    let info = reader.next_frame(&mut decoded)?;
    let channels = info.color_type.samples();
    Still::new(size, &decoded[..info.buffer_size()], channels, true)
}

fn decode_webp(file: &[u8]) -> anyhow::Result<Still> {
    let mut decoder = WebPDecoder::new(Cursor::new(file))?;
    let size = decoder.dimensions();
    screen_size(size.0, size.1)?;
    if decoder.is_animated() {
        bail!("it moves");
    }
    let length = decoder.output_buffer_size().context("too large")?;
    let mut decoded = vec![0; length];
    decoder.read_image(&mut decoded)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    Still::new(size, &decoded, channels, !decoder.is_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(width: u16, height: u16) -> Still {
        let pixels = 0..u32::from(width) * u32::from(height);
        let pixel = |at: u32| [at as u8, (at >> 8) as u8, (at * 7) as u8, u8::MAX];
        Still {
            size: (width, height),
            pixels: pixels.flat_map(pixel).collect(),
            is_exact: true,
        }
    }

    fn png(still: &Still) -> Vec<u8> {
        let mut file = Vec::new();
        let (width, height) = still.size;
        let mut encoder = png::Encoder::new(&mut file, width.into(), height.into());
        encoder.set_color(png::ColorType::Rgba);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&still.pixels).unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn pictures_come_out_of_a_pipe_as_they_went_in() {
        let (one, other) = (still(40, 30), still(31, 7));
        let area = Area::whole(other.size);
        let (first, second) = (png(&one), other.encode(area).unwrap().unwrap());
        let pipe = [&first[..], &second, &first].concat();
        let mut input = Stills::new(Cursor::new(&pipe));
        for (file, still) in [(&first, &one), (&second, &other), (&first, &one)] {
            let found = input.read().unwrap().unwrap();
            assert!(found == *file);
            assert!(Still::decode(&found).unwrap() == *still);
        }
        assert!(input.read().unwrap().is_none());
        // any end within the first picture is an error, and so is anything else
        let read = |bytes: &[u8]| Stills::new(bytes).read();
        for end in 1..first.len() {
            assert!(read(&pipe[..end]).is_err(), "{end}");
        }
        assert!(read(b"GIF89a..........").is_err());
        let long = [b"RIFF\xff\xff\xff\xff", &[0; 16][..]].concat();
        assert!(read(&long).is_err());
    }

    #[test]
    fn a_picture_that_is_cut_off_takes_no_other_one_with_it() {
        let (one, other) = (still(12, 9), still(9, 7));
        let area = Area::whole(other.size);
        let (first, second) = (png(&one), other.encode(area).unwrap().unwrap());
        for (cut, next) in [(&first, &second), (&second, &first), (&first, &first)] {
            // behind the head of a file, which alone tells how it ends
            for end in 8..cut.len() - BEGINNING {
                let pipe = [&cut[..end], next, cut].concat();
                // bytes come one by one, and all at once
                for capacity in [1, pipe.len()] {
                    let input = io::BufReader::with_capacity(capacity, &pipe[..]);
                    let mut input = Stills::new(input);
                    let found = input.read().unwrap().unwrap();
                    assert!(found == *next, "{end}");
                    assert!(input.read().unwrap().unwrap() == *cut, "{end}");
                    assert!(input.read().unwrap().is_none());
                }
            }
        }
        // bytes that are not a picture, and an end within one
        let pipe = [&first[..], b"no picture", &second, &first[..40]].concat();
        let mut input = Stills::new(&pipe[..]);
        assert!(input.read().unwrap().unwrap() == first);
        assert!(input.read().unwrap().unwrap() == second);
        assert!(input.read().unwrap().is_none());
    }

    #[test]
    fn an_area_is_encoded_without_loss() {
        let all = still(60, 50);
        let area = Area {
            x: 7,
            y: 20,
            width: 11,
            height: 13,
        };
        let part = Still::decode(&all.encode(area).unwrap().unwrap()).unwrap();
        assert_eq!(part.size, (11, 13));
        for (y, row) in part.pixels.chunks_exact(11 * 4).enumerate() {
            let begin = ((20 + y) * 60 + 7) * 4;
            assert_eq!(row, &all.pixels[begin..begin + 11 * 4]);
        }
    }

    #[test]
    fn a_screen_is_not_larger_than_it_may_be() {
        let wide = Still::decode(&png(&still(1_921, 2))).unwrap_err();
        assert!(format!("{wide:#}").contains("1921 x 2 pixels"), "{wide:#}");
        assert!(Still::decode(b"RIFF").is_err());
        assert!(Still::decode(&PNG).is_err());
    }
}
