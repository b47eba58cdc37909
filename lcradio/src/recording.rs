//! A recording: Ogg Opus, packets as they came, and a list of gaps.
//!
//! A gap is filled with packets that make a decoder conceal it (RFC 7845, 4.1), so that every
//! player keeps time; of a longer one at most a minute. FILE.gaps has a line for each: begin and
//! length in seconds, and the number of missing packets, with tabs between.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lcradio_core::{CLOCK_RATE, FRAME, OggWriter, Piece, SoundPacket};

/// Most of a gap that is filled: foreign packets must not fill the disk.
pub const LONGEST_FILLED: Duration = Duration::from_secs(60);
/// The same in samples.
const MAX_FILLED: u64 = LONGEST_FILLED.as_secs() * CLOCK_RATE as u64;
/// CELT with 20 ms, without bytes: a lost frame.
const LOST_FRAME: u8 = 31 << 3;

/// Returns the path of a recording's list of gaps: FILE.gaps.
pub fn list_of_gaps(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gaps");
    name.into()
}

/// Unwritten bytes, and their file.
struct Pages {
    file: File,
    waiting: Vec<u8>,
    written: u64,
}

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // all or nothing: a truncated page would make the file's end unreadable
        let result = self.file.write_all_at(&self.waiting, self.written);
        match result {
            Ok(()) => self.written += self.waiting.len() as u64,
            Err(_) => self.file.set_len(self.written)?,
        }
        self.waiting.clear();
        result
    }
}

/// A growing recording.
pub struct Recording {
    list_of_gaps: PathBuf,
    writer: OggWriter<Pages>,
    gaps: Option<File>,
    begun: bool,
    /// Samples in the pages that the file has.
    on_disk: u64,
    /// First byte of the last packet, with its frame's length: a lost frame is of the same kind.
    kind: (u8, u32),
}

impl Recording {
    /// Creates a file, which must not exist.
    pub fn create(path: &Path, stream: u32) -> io::Result<Self> {
        let pages = Pages {
            file: File::create_new(path)?,
            waiting: Vec::new(),
            written: 0,
        };
        let mut recording = Self {
            list_of_gaps: list_of_gaps(path),
            // pages of a second
            writer: OggWriter::new(pages, stream, 2, "", CLOCK_RATE)?,
            gaps: None,
            begun: false,
            on_disk: 0,
            kind: (LOST_FRAME, FRAME),
        };
        recording.flush()?;
        Ok(recording)
    }

    fn flush(&mut self) -> io::Result<()> {
        let pages = self.writer.out_mut();
        if pages.waiting.is_empty() {
            return Ok(());
        }
        pages.flush()?;
        self.on_disk = self.writer.in_pages();
        Ok(())
    }

    /// Writes the next piece.
    pub fn write(&mut self, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Packet(packet) => self.packet(packet)?,
            // before the first packet nothing is missing
            Piece::Gap { .. } if !self.begun => {}
            Piece::Gap { packets, samples } => self.gap(*packets, *samples)?,
        }
        self.flush()
    }

    /// Begins with `samples` of gap.
    pub fn begin_after(&mut self, samples: u64) -> io::Result<()> {
        for _ in 0..samples / u64::from(FRAME) {
            self.writer.write(vec![LOST_FRAME], FRAME)?;
        }
        self.flush()
    }

    fn packet(&mut self, packet: &SoundPacket) -> io::Result<()> {
        self.begun = true;
        if let Some(toc) = packet.payload.first() {
            // one frame of the same kind: code 0
            let one = [toc & !3];
            let samples = lcradio_core::samples(&one);
            self.kind = samples.map_or(self.kind, |samples| (one[0], samples));
        }
        self.writer.write(packet.payload.clone(), packet.samples)
    }

    fn gap(&mut self, packets: u64, samples: u64) -> io::Result<()> {
        let seconds = |samples: u64| samples as f64 / f64::from(CLOCK_RATE);
        let begins = seconds(self.writer.samples());
        if self.gaps.is_none() {
            self.gaps = Some(File::create_new(&self.list_of_gaps)?);
        }
        if let Some(file) = &mut self.gaps {
            writeln!(file, "{begins:.3}\t{:.3}\t{packets}", seconds(samples))?;
        }
        let (toc, of_frame) = self.kind;
        for _ in 0..samples.min(MAX_FILLED) / u64::from(of_frame) {
            self.writer.write(vec![toc], of_frame)?;
        }
        Ok(())
    }

    /// Returns its length, in seconds.
    pub fn seconds(&self) -> f64 {
        self.writer.samples() as f64 / f64::from(CLOCK_RATE)
    }

    /// Returns the length in the file, in seconds.
    pub fn seconds_on_disk(&self) -> f64 {
        self.on_disk as f64 / f64::from(CLOCK_RATE)
    }

    /// Completes the file durably; returns the list of gaps, if there are any.
    pub fn finish(mut self) -> io::Result<Option<PathBuf>> {
        self.writer.finish()?;
        self.flush()?;
        self.writer.out_mut().file.sync_all()?;
        Ok(self.gaps.map(|_| self.list_of_gaps))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::ogg_opus::{Item, OggReader};

    fn packet(index: u64) -> Piece {
        Piece::Packet(SoundPacket {
            caster: 0,
            session: 0,
            index,
            timestamp: index * 960,
            samples: 960,
            payload: vec![31 << 3, index as u8],
            arrival: Instant::now(),
        })
    }

    fn packets(path: &Path) -> Vec<Vec<u8>> {
        let mut reader = OggReader::open(io::BufReader::new(File::open(path).unwrap())).unwrap();
        std::iter::from_fn(|| reader.next().unwrap())
            .filter_map(|item| match item {
                Item::Packet(packet) => Some(packet),
                Item::Title(_) | Item::Passed(_) => None,
            })
            .collect()
    }

    #[test]
    fn a_gap_keeps_its_time_and_stands_in_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.opus");
        let mut recording = Recording::create(&path, 1).unwrap();
        let gap = |packets, samples| Piece::Gap { packets, samples };
        recording.write(&gap(9, 99)).unwrap();
        recording.write(&packet(0)).unwrap();
        recording.write(&gap(2, 1_920)).unwrap();
        recording.write(&packet(3)).unwrap();
        recording.write(&gap(0, u64::MAX / 2)).unwrap();
        recording.write(&packet(4)).unwrap();
        let minute = 60.0;
        assert!((recording.seconds() - minute - 5.0 * 0.02).abs() < 1e-6);
        recording.finish().unwrap();
        let written = packets(&path);
        assert_eq!(written.len(), 5 + 3_000);
        assert_eq!(
            written[..4],
            [vec![248, 0], vec![248], vec![248], vec![248, 3]]
        );
        let gaps = std::fs::read_to_string(folder.path().join("r.opus.gaps")).unwrap();
        let lines: Vec<&str> = gaps.lines().collect();
        assert_eq!(lines[0], "0.020\t0.040\t2");
        assert_eq!(lines.len(), 2);
        assert!(
            Recording::create(&path, 1).is_err(),
            "nothing is overwritten"
        );
    }

    #[test]
    fn what_was_written_until_now_can_be_read_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.opus");
        let mut recording = Recording::create(&path, 1).unwrap();
        for index in 0..200 {
            recording.write(&packet(index)).unwrap();
        }
        // if killed now, whole seconds are kept
        let written = packets(&path).len();
        assert!(written >= 100);
        assert!((recording.seconds_on_disk() - written as f64 * 0.02).abs() < 1e-6);
    }
}
