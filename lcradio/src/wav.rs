//! The head of a WAV file: format and number of the samples.

use std::io::{self, Read};

use lcradio_core::CLOCK_RATE;

/// Most bytes skipped before the samples. Chosen: pictures of covers fit.
const MAX_CHUNKS: u64 = 16 << 20;
/// Bytes of a format that are read: `WAVE_FORMAT_EXTENSIBLE` has 40 (mmreg.h).
const FORMAT: u64 = 64;
/// Length of the samples from which it may be a guess: a writer to a pipe does not know it. SoX
/// writes 0x7ffff000, arecord 0x80000000, ffmpeg the largest number.
const GUESSED: u64 = 0x7fff_0000;

/// The head of a WAV file.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Channels: 1 or 2.
    pub channels: u8,
    /// Bytes to read as samples.
    pub length: u64,
    /// Whether the writer knew the length, so that fewer bytes are a cut file.
    pub is_promised: bool,
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Reads the head of a WAV file, or of one from a pipe (`is_live`); the samples follow.
pub fn header(input: &mut impl Read, is_live: bool) -> io::Result<Head> {
    let mut riff = [0; 12];
    input.read_exact(&mut riff)?;
    if riff[8..] != *b"WAVE" {
        return Err(malformed("no WAV file"));
    }
    let mut channels = None;
    let mut passed = 0;
    loop {
        let mut chunk = [0; 8];
        input
            .read_exact(&mut chunk)
            .map_err(|_| malformed("a WAV file without samples"))?;
        let [a, b, c, d, l0, l1, l2, l3] = chunk;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        match (&[a, b, c, d], channels) {
            (b"data", None) => return Err(malformed("a WAV file without a format")),
            (b"data", Some(channels)) => return Ok(of_data(channels, length, is_live)),
            (kind, _) => {
                passed += length;
                if passed > MAX_CHUNKS {
                    return Err(malformed("a WAV file without samples"));
                }
                // chunks are padded to even lengths
                let mut chunk = input.by_ref().take(length + length % 2);
                if kind == b"fmt " {
                    let mut format = Vec::new();
                    chunk
                        .by_ref()
                        .take(length.min(FORMAT))
                        .read_to_end(&mut format)?;
                    channels = Some(format_of(&format)?);
                }
                io::copy(&mut chunk, &mut io::sink())?;
            }
        }
    }
}

fn of_data(channels: u8, length: u64, is_live: bool) -> Head {
    let is_guessed = length == 0 || length >= GUESSED;
    // a file of hours can have that length, and other chunks behind its samples
    let is_endless = length == 0 || length >= u64::from(u32::MAX) - 0xff || is_guessed && is_live;
    Head {
        channels,
        length: if is_endless { u64::MAX } else { length },
        is_promised: !is_guessed,
    }
}

fn format_of(format: &[u8]) -> io::Result<u8> {
    /// Plain samples, directly or as a subformat.
    const PCM: u16 = 1;
    /// The kind is in a subformat (`WAVE_FORMAT_EXTENSIBLE`, mmreg.h).
    const EXTENSIBLE: u16 = 0xfffe;
    let short = |at: usize| {
        let bytes = format.get(at..at + 2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let (Some(kind), Some(channels), Some(bits)) = (short(0), short(2), short(14)) else {
        return Err(malformed("a WAV file with a damaged format"));
    };
    let (Some(low), Some(high)) = (short(4), short(6)) else {
        return Err(malformed("a WAV file with a damaged format"));
    };
    let rate = u32::from(high) << 16 | u32::from(low);
    let is_plain = kind == PCM || kind == EXTENSIBLE && short(24) == Some(PCM);
    if !is_plain || bits != 16 || rate != CLOCK_RATE || !(1..=2).contains(&channels) {
        let why = format!(
            "WAV of {bits} bits, {rate} Hz, {channels} channels, not 16 bits, 48000 Hz, 1 or 2"
        );
        return Err(malformed(&why));
    }
    Ok(channels as u8)
}
