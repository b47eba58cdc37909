//! Still pictures from a pipe, one after the other: split, decoded, and areas of them encoded.
//!
//! The pictures are the user's own. What comes from the network is never decoded here.

use std::io::{self, BufRead, Cursor, Read};

use anyhow::{Context, bail};
use image_webp::{ColorType, WebPDecoder, WebPEncoder};
use lcstudio_core::{Area, MAX_PICTURE, screen_size};

/// Longest picture of a pipe, in bytes: a screen of noise as PNG, twice.
const MAX_FILE: u64 = 32 << 20;

/// First bytes of PNG.
const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Reads the next PNG or WebP; `None` at the end.
pub fn read(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut file = Vec::new();
    take(input, &mut file, 8)?;
    match file.first_chunk::<4>() {
        // RIFF: the length of the rest, even
        Some(b"RIFF") => {
            let length = u32::from_le_bytes([file[4], file[5], file[6], file[7]]);
            take(input, &mut file, u64::from(length) + u64::from(length & 1))?;
        }
        _ if file == PNG => loop {
            // chunks: length 4, name 4, content, checksum 4
            let begin = file.len();
            take(input, &mut file, 8)?;
            let head = &file[begin..];
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let is_last = &head[4..] == b"IEND";
            take(input, &mut file, u64::from(length) + 4)?;
            if is_last {
                break;
            }
        },
        _ => return Err(io::Error::other("no PNG or WebP begins here")),
    }
    Ok(Some(file))
}

fn take(input: &mut impl Read, file: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let before = file.len() as u64;
    if before + length > MAX_FILE {
        let message = format!("a picture of more than {MAX_FILE} bytes");
        return Err(io::Error::other(message));
    }
    if input.take(length).read_to_end(file)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
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
#[allow(clippy::unwrap_used)]
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
        let mut input = Cursor::new(&pipe);
        for (file, still) in [(&first, &one), (&second, &other), (&first, &one)] {
            let found = read(&mut input).unwrap().unwrap();
            assert!(found == *file);
            assert!(Still::decode(&found).unwrap() == *still);
        }
        assert!(read(&mut input).unwrap().is_none());
        // any end within a picture is an error, and so is anything else
        for end in 1..first.len() {
            assert!(read(&mut Cursor::new(&pipe[..end])).is_err(), "{end}");
        }
        assert!(read(&mut Cursor::new(b"GIF89a..........")).is_err());
        let long = [b"RIFF\xff\xff\xff\xff", &[0; 16][..]].concat();
        assert!(read(&mut Cursor::new(long)).is_err());
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
