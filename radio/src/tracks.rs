//! A recording of a station: a track for each of its casters, as packets stay as they came and are not mixed.
//!
//! The first caster that is heard is recorded to FILE.opus, the next one to FILE.2.opus. What is missing of a later track before its
//! caster came is silence in it: tracks begin at one moment.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use lcradio_core::{CLOCK_RATE, MAX_CASTERS, Order, Piece, SoundPacket};

use crate::codec::Decoder;
use crate::level::Level;
use crate::recording::Recording;

/// Of one caster.
struct Track {
    recording: Recording,
    path: PathBuf,
    order: Order,
    decoder: Decoder,
}

/// All that is recorded.
pub struct Tracks {
    path: PathBuf,
    /// Numbers of the Ogg streams begin with it.
    stream: u32,
    tracks: Vec<Track>,
    /// Of each caster.
    track_of: [Option<usize>; MAX_CASTERS],
    /// When the first packet came.
    begun: Option<Instant>,
}

/// FILE.2.opus for FILE.opus.
fn path_of(path: &Path, track: usize) -> PathBuf {
    if track == 0 {
        return path.to_owned();
    }
    let number = (track + 1).to_string();
    let extension = match path.extension() {
        Some(extension) => {
            let mut longer = std::ffi::OsString::from(number);
            longer.push(".");
            longer.push(extension);
            longer
        }
        None => number.into(),
    };
    path.with_extension(extension)
}

impl Tracks {
    /// To this file, and those of further casters beside it. None of them may exist.
    pub fn create(path: &Path, stream: u32) -> anyhow::Result<Self> {
        for further in (1..MAX_CASTERS).map(|track| path_of(path, track)) {
            // a dangling link is in the way as well
            if further.symlink_metadata().is_ok() {
                anyhow::bail!(
                    "{}: a further caster would be recorded here, and it exists",
                    further.display()
                );
            }
        }
        let mut tracks = Self {
            path: path.to_owned(),
            stream,
            tracks: Vec::new(),
            track_of: [None; MAX_CASTERS],
            begun: None,
        };
        tracks.open()?;
        Ok(tracks)
    }

    fn open(&mut self) -> anyhow::Result<()> {
        let path = path_of(&self.path, self.tracks.len());
        let stream = self.stream.wrapping_add(self.tracks.len() as u32);
        let recording = Recording::create(&path, stream);
        self.tracks.push(Track {
            recording: recording.with_context(|| path.display().to_string())?,
            path,
            order: Order::default(),
            decoder: Decoder::new()?,
        });
        Ok(())
    }

    /// A packet came. False if its turn has passed.
    pub fn push(&mut self, packet: SoundPacket) -> anyhow::Result<bool> {
        let caster = usize::from(packet.caster);
        let Some(known) = self.track_of.get(caster) else {
            return Ok(false);
        };
        let track = match (known, self.begun) {
            (Some(track), _) => *track,
            (None, None) => {
                self.begun = Some(packet.arrival);
                0
            }
            (None, Some(begun)) => {
                self.open()?;
                let track = self.tracks.len() - 1;
                let before = packet.arrival.saturating_duration_since(begun).as_micros() as u64;
                let silence = before * u64::from(CLOCK_RATE) / 1_000_000;
                let Track {
                    recording, path, ..
                } = &mut self.tracks[track];
                let result = recording.begin_after(silence);
                result.with_context(|| path.display().to_string())?;
                track
            }
        };
        self.track_of[caster] = Some(track);
        Ok(self.tracks[track].order.push(packet))
    }

    /// When [`write`](Self::write) has something at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_each = self
            .tracks
            .iter()
            .filter_map(|track| track.order.poll_timeout());
        of_each.min()
    }

    /// Writes what is known of now; `level` hears it.
    pub fn write(&mut self, now: Instant, level: &mut Level) -> anyhow::Result<()> {
        let mut tracks = self.tracks.iter_mut();
        tracks.try_for_each(|track| track.write(level, |order| order.poll(now)))
    }

    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        let of_each = self.tracks.iter().map(|track| track.recording.seconds());
        of_each.fold(0.0, f64::max)
    }

    /// Ends the files, each whole and on disk: which they are, lists of gaps among them; the first error of them.
    pub fn finish(self, now: Instant, level: &mut Level) -> anyhow::Result<Vec<PathBuf>> {
        let finish = |mut track: Track| {
            let written = track.write(level, |order| order.finish(now));
            let finished = track.recording.finish();
            written?;
            let gaps = finished.with_context(|| track.path.display().to_string())?;
            anyhow::Ok(std::iter::once(track.path).chain(gaps).collect::<Vec<_>>())
        };
        let results: Vec<_> = self.tracks.into_iter().map(finish).collect();
        let files = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(files.concat())
    }
}

impl Track {
    fn write(
        &mut self,
        level: &mut Level,
        mut next: impl FnMut(&mut Order) -> Option<Piece>,
    ) -> anyhow::Result<()> {
        while let Some(piece) = next(&mut self.order) {
            let result = self.recording.write(&piece);
            let seconds = self.recording.seconds_on_disk();
            result.with_context(|| {
                format!("{}: {seconds:.1} s were recorded", self.path.display())
            })?;
            if let Piece::Packet(packet) = piece {
                // what libopus cannot decode is recorded all the same
                let sound = self.decoder.decode(&packet.payload).unwrap_or_default();
                level.add(&sound);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;
    use std::time::Duration;

    use super::*;
    use crate::ogg_opus::{Item, OggReader};

    #[test]
    fn each_caster_has_a_track_and_all_begin_at_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("story.opus");
        let begun = Instant::now();
        let mut tracks = Tracks::create(&path, 7).unwrap();
        let packet = |caster, index: u64, arrival| SoundPacket {
            caster,
            session: caster.into(),
            index,
            timestamp: index * 960,
            samples: 960,
            payload: vec![31 << 3, index as u8],
            arrival,
        };
        for index in 0..100 {
            let now = begun + Duration::from_millis(20) * index;
            tracks.push(packet(3, index.into(), now)).unwrap();
            if index >= 75 {
                tracks.push(packet(0, index.into(), now)).unwrap();
            }
            tracks.write(now, &mut Level::default()).unwrap();
        }
        let end = begun + Duration::from_secs(2);
        let files = tracks.finish(end, &mut Level::default()).unwrap();
        assert_eq!(files, [path.clone(), folder.path().join("story.2.opus")]);
        let packets = |name: &str| {
            let file = File::open(folder.path().join(name)).unwrap();
            let mut reader = OggReader::open(BufReader::new(file)).unwrap();
            let items = std::iter::from_fn(|| reader.next().unwrap());
            let packets = items.filter_map(|item| match item {
                Item::Packet(packet) => Some(packet),
                Item::Title(_) => None,
            });
            packets.collect::<Vec<_>>()
        };
        let (first, second) = (packets("story.opus"), packets("story.2.opus"));
        assert_eq!((first.len(), second.len()), (100, 100));
        assert_eq!(
            (first[75].as_slice(), second[75].as_slice()),
            (&[248, 75][..], &[248, 75][..])
        );
        assert_eq!(second[74], [248], "a frame that asks for silence");
        assert!(!folder.path().join("story.3.opus").exists());
        std::fs::remove_file(&path).unwrap();
        let told = Tracks::create(&path, 7).err().unwrap().to_string();
        assert!(told.contains("story.2.opus"), "{told}");
    }
}
