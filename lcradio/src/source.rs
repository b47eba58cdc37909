//! Sources of sound: Ogg Opus and WAV in files, WAV and plain samples by a pipe, a microphone,
//! programs that send to Icecast.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use lcradio_core::{FRAME, MAX_PAYLOAD};
use nix::poll::{PollFd, PollFlags, poll};

use crate::device::Capture;
use crate::encoded;
use crate::icecast::{Icecast, Piece};
use crate::ogg_opus::{Item, OggReader};
use crate::values::hint;
use crate::wav;

/// Advice in errors about formats that this program does not read.
const FFMPEG: &str =
    "let ffmpeg read it: ffmpeg -i FILE -f s16le -ar 48000 -ac 2 - | lcradio cast -";

/// The error about all other formats.
const UNKNOWN: &str = "neither Ogg Opus nor WAV";

/// Wait after which the reason is printed, in milliseconds.
const WAIT_NOTICE_MS: u16 = 2_000;

/// A piece of sound.
#[derive(Debug, PartialEq, Eq)]
pub enum Sound {
    /// A frame of 20 ms, interleaved.
    Samples(Vec<i16>),
    /// A packet of Opus from the file, and its length in samples.
    Packet(Vec<u8>, u32),
    /// The title of the following sound.
    Title(String),
    /// A skipped passage: a part of a sentence.
    Passed(String),
}

enum Format {
    Opus(OggReader<BufReader<File>>),
    Samples(Box<dyn Read + Send>),
    Microphone(Capture),
    Icecast(Icecast),
}

/// Sound that is read piece by piece.
pub struct Source {
    format: Format,
    channels: u8,
    /// Samples of a frame for each channel.
    frame: u32,
    is_live: bool,
    /// Bytes that the head of a WAV file promises; none: unknown, or already reported missing.
    promised: Option<u64>,
    /// A packet of Opus was read that can be sent.
    has_packets: bool,
}

fn unusable(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{why}; {FFMPEG}"))
}

impl Source {
    /// Opens a file: Ogg Opus or WAV.
    pub fn open(path: &Path) -> io::Result<Self> {
        // a pipe would block, and a device has no beginning
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other(
                "this is no file: pipes are read by `lcradio cast - <PIPE`",
            ));
        }
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::new(file);
        match &magic[..read] {
            b"OggS" => {
                let reader = OggReader::open(file).map_err(|e| unusable(&e.to_string()))?;
                Ok(Self {
                    channels: reader.channels(),
                    frame: FRAME,
                    format: Format::Opus(reader),
                    is_live: false,
                    promised: None,
                    has_packets: false,
                })
            }
            b"RIFF" => Self::samples(Box::new(file), false),
            _ => Err(unusable(UNKNOWN)),
        }
    }

    /// Opens standard input: WAV, or 16-bit samples of two channels, little-endian, at 48 kHz.
    pub fn stdin() -> io::Result<Self> {
        use std::os::fd::AsFd;
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let file = File::from(stdin);
        let is_live = !file.metadata()?.is_file();
        let mut waits_for = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waits_for, WAIT_NOTICE_MS)? == 0 {
            hint("waits for sound on standard input: s16le, 48 kHz, two channels; or WAV");
        }
        // it may be non-blocking
        Self::samples(
            Box::new(BufReader::new(librecast_program::standard::Patient(file))),
            is_live,
        )
    }

    /// A microphone.
    pub fn microphone(capture: Capture) -> Self {
        Self {
            format: Format::Microphone(capture),
            channels: 2,
            frame: FRAME,
            is_live: true,
            promised: None,
            has_packets: false,
        }
    }

    /// Programs that send to Icecast, one after the other.
    pub fn icecast(icecast: Icecast) -> Self {
        Self {
            format: Format::Icecast(icecast),
            channels: 2,
            frame: FRAME,
            is_live: true,
            promised: None,
            has_packets: false,
        }
    }

    fn samples(mut input: Box<dyn Read + Send>, is_live: bool) -> io::Result<Self> {
        let mut head = Vec::new();
        let mut read_to = |head: &mut Vec<u8>, length: usize| {
            let more = length - head.len();
            input.by_ref().take(more as u64).read_to_end(head)
        };
        read_to(&mut head, encoded::HEAD)?;
        if encoded::may_be_frames(&head) {
            read_to(&mut head, encoded::FRAMES)?;
        }
        if head.starts_with(b"OggS") {
            return Err(unusable("Ogg is read of files: --file"));
        }
        if encoded::has_magic(&head) || encoded::is_frames(&head) {
            return Err(unusable(UNKNOWN));
        }
        let is_wav = head.starts_with(b"RIFF");
        let mut input: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(input));
        let (mut channels, mut promised) = (2, None);
        if is_wav {
            let wav = wav::header(&mut input, is_live).map_err(|e| unusable(&e.to_string()))?;
            channels = wav.channels;
            promised = wav.is_promised.then_some(wav.length);
            input = Box::new(input.take(wav.length));
        }
        Ok(Self {
            format: Format::Samples(input),
            channels,
            frame: FRAME,
            is_live,
            promised,
            has_packets: false,
        })
    }

    /// Cuts samples of files and pipes to frames of this length.
    pub fn in_frames(self, frame: u32) -> Self {
        Self { frame, ..self }
    }

    /// Returns the channels of the sound: 1 or 2.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// Returns whether it is live: a pipe or a microphone, with a clock to follow.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Returns whether it is Opus already, or may be.
    pub fn is_opus(&self) -> bool {
        matches!(self.format, Format::Opus(_) | Format::Icecast(_))
    }

    /// Returns whether it is samples, or may be.
    pub fn is_samples(&self) -> bool {
        !matches!(self.format, Format::Opus(_))
    }

    /// Returns the next piece; none at the end. The last frame is filled up with silence.
    pub fn next(&mut self) -> io::Result<Option<Sound>> {
        match &mut self.format {
            Format::Opus(reader) => {
                let Some(item) = reader.next()? else {
                    return match self.has_packets {
                        true => Ok(None),
                        false => Err(unusable("no packet of Opus in this file can be sent")),
                    };
                };
                let sound = of_item(item);
                self.has_packets |= matches!(sound, Sound::Packet(..));
                Ok(Some(sound))
            }
            Format::Icecast(icecast) => Ok(Some(match icecast.next()? {
                Piece::Item(item) => of_item(item),
                Piece::Samples(samples) => Sound::Samples(samples),
            })),
            Format::Microphone(capture) => capture.next().map(Sound::Samples).map(Some),
            Format::Samples(input) => {
                let length = self.frame as usize * usize::from(self.channels) * 2;
                let mut bytes = Vec::with_capacity(length);
                input.take(length as u64).read_to_end(&mut bytes)?;
                self.promised = self.promised.map(|all| all - bytes.len() as u64);
                if bytes.is_empty() {
                    let missing = self.promised.take().filter(|missing| *missing > 0);
                    return Ok(missing.map(|missing| {
                        Sound::Passed(format!(
                            "the last {missing} bytes, which the file does not have"
                        ))
                    }));
                }
                bytes.resize(length, 0);
                let (pairs, _) = bytes.as_chunks::<2>();
                let samples = pairs.iter().map(|pair| i16::from_le_bytes(*pair));
                Ok(Some(Sound::Samples(samples.collect())))
            }
        }
    }
}

fn of_item(item: Item) -> Sound {
    match item {
        Item::Title(title) => Sound::Title(title),
        Item::Passed(passed) => Sound::Passed(passed),
        Item::Packet(packet) if packet.len() > MAX_PAYLOAD => {
            Sound::Passed("a packet of Opus that is too long for a datagram".to_owned())
        }
        Item::Packet(packet) => match lcradio_core::samples(&packet) {
            Some(samples) => Sound::Packet(packet, samples),
            None => Sound::Passed("a damaged packet of Opus".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(kind: u16, channels: u16, rate: u32, bits: u16, length: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(length.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn two_frames(head: &[u8], length: usize) -> Vec<u8> {
        let mut frame = head.to_vec();
        frame.resize(length, 0);
        frame.repeat(2)
    }

    fn source(bytes: Vec<u8>) -> io::Result<Source> {
        Source::samples(Box::new(io::Cursor::new(bytes)), true)
    }

    #[test]
    fn samples_come_in_frames_and_the_last_one_is_filled_up() {
        let frame = FRAME as usize * 4;
        let mut source = source(vec![1; frame + 6]).unwrap();
        assert_eq!(source.channels(), 2);
        let expected = vec![0x0101; FRAME as usize * 2];
        assert_eq!(source.next().unwrap(), Some(Sound::Samples(expected)));
        let mut last = vec![0; FRAME as usize * 2];
        last[..3].fill(0x0101);
        assert_eq!(source.next().unwrap(), Some(Sound::Samples(last)));
        assert_eq!(source.next().unwrap(), None);
    }

    #[test]
    fn wav_is_read_to_its_end_and_what_stands_behind_is_not() {
        let data = [vec![1; 100], b"LIST trailing".to_vec()].concat();
        for (length, expected) in [(100, 100), (0, 113), (u32::MAX, 113)] {
            let mut source = source(wave(1, 1, 48_000, 16, length, &data)).unwrap();
            assert_eq!(source.channels(), 1);
            let Some(Sound::Samples(samples)) = source.next().unwrap() else {
                panic!("no samples");
            };
            let sounding = samples.iter().rposition(|s| *s != 0).unwrap() + 1;
            assert_eq!(sounding, usize::div_ceil(expected, 2), "{length}");
            assert_eq!(source.next().unwrap(), None);
        }
        let mut cut = source(wave(1, 1, 48_000, 16, 1_000, &data)).unwrap();
        assert!(matches!(cut.next(), Ok(Some(Sound::Samples(_)))));
        let passed = "the last 887 bytes, which the file does not have".to_owned();
        assert_eq!(cut.next().unwrap(), Some(Sound::Passed(passed)));
        assert_eq!(cut.next().unwrap(), None);
    }

    #[test]
    fn a_length_that_the_writer_to_a_pipe_cannot_know_neither_ends_the_sound_nor_is_missing() {
        for length in [0, 0x7fff_f000, 0x8000_0000, u32::MAX] {
            let bytes = wave(1, 2, 48_000, 16, length, &[1; 8]);
            let mut bytes = bytes.as_slice();
            let head = wav::header(&mut bytes, true).unwrap();
            assert_eq!(
                (head.length, head.is_promised),
                (u64::MAX, false),
                "{length:#x}"
            );
            for is_live in [true, false] {
                let bytes = wave(1, 2, 48_000, 16, length, &[1; 8]);
                let mut source =
                    Source::samples(Box::new(io::Cursor::new(bytes)), is_live).unwrap();
                assert!(matches!(source.next(), Ok(Some(Sound::Samples(_)))));
                assert_eq!(source.next().unwrap(), None, "{length:#x}");
            }
        }
        let long = wave(1, 2, 48_000, 16, 0x8000_0000, &[]);
        let head = wav::header(&mut long.as_slice(), false).unwrap();
        assert_eq!(
            head.length, 0x8000_0000,
            "a file of hours ends at its chunk"
        );
    }

    #[test]
    fn samples_that_begin_as_a_frame_of_mp3_are_sent_whole() {
        let loud = [0xff, 0xfb, 0x90, 0x04].repeat(2 * encoded::FRAMES);
        let mut source = source(loud.clone()).unwrap();
        let mut sent = Vec::new();
        while let Some(Sound::Samples(samples)) = source.next().unwrap() {
            sent.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
        }
        assert_eq!(sent[..loud.len()], loud);
    }

    #[test]
    fn formats_that_are_not_read_name_the_way_out() {
        for wrong in [
            wave(3, 2, 48_000, 32, 8, &[]),
            wave(1, 2, 44_100, 16, 8, &[]),
            wave(1, 6, 48_000, 16, 8, &[]),
            wave(1, 2, 48_000, 24, 8, &[]),
            b"RIFF\0\0\0\0AVI LIST".to_vec(),
            b"RIFF\0\0\0\0WAVEdata\0\0\0\0".to_vec(),
            b"OggS".to_vec(),
            b"ID3\x04\0\0\0\0 an mp3".to_vec(),
            b"fLaC\0\0\0\x22".to_vec(),
            two_frames(&[0xff, 0xfb, 0x90], 417),
            two_frames(&[0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc], 371),
        ] {
            let error = source(wrong).map(drop).unwrap_err().to_string();
            assert!(error.contains("ffmpeg"), "{error}");
        }
        let whole = wave(1, 2, 48_000, 16, 8, &[0; 8]);
        for cut in 4..whole.len() - 8 {
            assert!(source(whole[..cut].to_vec()).is_err(), "{cut}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "ID3 an mp3").unwrap();
        assert!(
            Source::open(&path)
                .map(drop)
                .unwrap_err()
                .to_string()
                .contains("ffmpeg")
        );
    }
}
