//! A recording of a station: a track for each caster, as packets are kept unmixed.
//!
//! The first caster is recorded to FILE.opus, the next one to FILE.2.opus. A later track begins
//! with silence, so that all tracks begin at one moment.
//!
//! No file is overwritten: if a recording of this name exists, the next one is FILE-2.opus. A pause
//! too long to be filled also begins the next one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use lcradio_core::{CLOCK_RATE, MAX_CASTERS, Order, Piece, SoundPacket};

use crate::codec::Decoder;
use crate::level::Level;
use crate::recording::{LONGEST_FILLED, Recording, list_of_gaps};

/// Most recordings under one name. Chosen: one an hour, for a year.
const MAX_RECORDINGS: usize = 9_999;

/// The track of one caster.
struct Track {
    recording: Recording,
    path: PathBuf,
    order: Order,
    decoder: Decoder,
}

/// The tracks of a recording.
pub struct Tracks {
    /// The requested name.
    wanted: PathBuf,
    /// The file of the first track.
    path: PathBuf,
    /// Files of earlier recordings of this run.
    before: Vec<PathBuf>,
    /// The first number of the Ogg streams.
    stream: u32,
    tracks: Vec<Track>,
    /// The track of each caster.
    track_of: [Option<usize>; MAX_CASTERS],
    /// Arrival of the first packet.
    begun: Option<Instant>,
    last: Option<Instant>,
}

/// Inserts `more` between stem and extension of a name.
fn with(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(more);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Returns FILE.2.opus for FILE.opus.
fn path_of(path: &Path, track: usize) -> PathBuf {
    match track {
        0 => path.to_owned(),
        _ => with(path, &format!(".{}", track + 1)),
    }
}

/// Returns whether no file is in the way of a recording: tracks of all casters, with lists of gaps.
fn is_free(path: &Path) -> bool {
    (0..MAX_CASTERS).all(|track| {
        let track = path_of(path, track);
        // a dangling link is in the way as well
        [list_of_gaps(&track), track]
            .iter()
            .all(|file| file.symlink_metadata().is_err())
    })
}

/// Returns the first free name: FILE.opus, FILE-2.opus, FILE-3.opus.
fn free_name(wanted: &Path) -> anyhow::Result<PathBuf> {
    let numbered = (2..=MAX_RECORDINGS).map(|n| with(wanted, &format!("-{n}")));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    names.find(|name| is_free(name)).with_context(|| {
        let name = wanted.display();
        format!("{name}: {MAX_RECORDINGS} recordings have this name, move some away")
    })
}

impl Tracks {
    /// Records to this file, further casters beside it; if one exists, to the next free name.
    pub fn create(wanted: &Path, stream: u32) -> anyhow::Result<Self> {
        let mut tracks = Self {
            wanted: wanted.to_owned(),
            path: PathBuf::new(),
            before: Vec::new(),
            stream,
            tracks: Vec::new(),
            track_of: [None; MAX_CASTERS],
            begun: None,
            last: None,
        };
        tracks.open_first()?;
        Ok(tracks)
    }

    /// Returns the file of the first caster.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_first(&mut self) -> anyhow::Result<()> {
        loop {
            self.path = free_name(&self.wanted)?;
            match self.open() {
                // another recorder was faster
                Err(e) if is_taken(&e) => {}
                other => return other,
            }
        }
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

    /// Ends these files, and begins new ones.
    fn begin_anew(&mut self, now: Instant, level: &mut Level) -> anyhow::Result<()> {
        let ended = finish(std::mem::take(&mut self.tracks), now, level)?;
        self.before.extend(ended);
        self.stream = self.stream.wrapping_add(MAX_CASTERS as u32);
        self.track_of = [None; MAX_CASTERS];
        self.begun = None;
        self.open_first()
    }

    /// Returns whether a packet has arrived.
    pub fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Takes a packet; false if it is too late.
    pub fn push(&mut self, packet: SoundPacket, level: &mut Level) -> anyhow::Result<bool> {
        let pause = |last| packet.arrival.saturating_duration_since(last);
        if self.last.is_some_and(|last| pause(last) > LONGEST_FILLED) {
            self.begin_anew(packet.arrival, level)?;
        }
        self.last = self.last.max(Some(packet.arrival));
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

    /// Returns when [`write`](Self::write) has work at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let of_each = self
            .tracks
            .iter()
            .filter_map(|track| track.order.next_timeout());
        of_each.min()
    }

    /// Writes the pieces that are known now; adds them to `level`.
    pub fn write(&mut self, now: Instant, level: &mut Level) -> anyhow::Result<()> {
        let mut tracks = self.tracks.iter_mut();
        tracks.try_for_each(|track| track.write(level, |order| order.poll(now)))
    }

    /// Returns its length, in seconds.
    pub fn seconds(&self) -> f64 {
        let of_each = self.tracks.iter().map(|track| track.recording.seconds());
        of_each.fold(0.0, f64::max)
    }

    /// Completes the files durably; returns them and their lists of gaps, or the first error.
    /// Removes a file without packets.
    pub fn finish(self, now: Instant, level: &mut Level) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = self.before;
        match self.begun {
            Some(_) => files.extend(finish(self.tracks, now, level)?),
            None => fs::remove_file(&self.path).with_context(|| self.path.display().to_string())?,
        }
        Ok(files)
    }
}

/// Returns whether the error is a name that another process has taken.
fn is_taken(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
}

fn finish(tracks: Vec<Track>, now: Instant, level: &mut Level) -> anyhow::Result<Vec<PathBuf>> {
    let finish = |mut track: Track| {
        let written = track.write(level, |order| order.finish(now));
        let finished = track.recording.finish();
        written?;
        let gaps = finished.with_context(|| track.path.display().to_string())?;
        anyhow::Ok(std::iter::once(track.path).chain(gaps).collect::<Vec<_>>())
    };
    let results: Vec<_> = tracks.into_iter().map(finish).collect();
    let files = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(files.concat())
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
                // undecodable packets are recorded all the same
                let sound = self.decoder.decode(&packet.payload).unwrap_or_default();
                level.add(&sound);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
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
            let mut level = Level::default();
            tracks
                .push(packet(3, index.into(), now), &mut level)
                .unwrap();
            if index >= 75 {
                tracks
                    .push(packet(0, index.into(), now), &mut level)
                    .unwrap();
            }
            tracks.write(now, &mut level).unwrap();
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
                Item::Title(_) | Item::Passed(_) => None,
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
        fs::remove_file(&path).unwrap();
        let next = Tracks::create(&path, 7).unwrap();
        assert_eq!(next.path(), folder.path().join("story-2.opus"));
        assert!(!path.exists(), "a further caster's file has the name");
    }

    #[test]
    fn a_recording_takes_the_next_free_name_and_one_without_sound_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let in_folder = |name: &str| folder.path().join(name);
        fs::write(in_folder("a.b.opus"), "first").unwrap();
        std::os::unix::fs::symlink("nowhere", in_folder("a.b-2.opus")).unwrap();
        fs::write(in_folder("a.b-3.opus.gaps"), "third").unwrap();
        fs::write(in_folder("a.b-4.8.opus"), "fourth").unwrap();
        let tracks = Tracks::create(&in_folder("a.b.opus"), 7).unwrap();
        assert_eq!(tracks.path(), in_folder("a.b-5.opus"));
        let files = tracks.finish(Instant::now(), &mut Level::default());
        assert_eq!(files.unwrap(), Vec::<PathBuf>::new());
        assert!(!in_folder("a.b-5.opus").exists());
        for (name, content) in [("a.b.opus", "first"), ("a.b-3.opus.gaps", "third")] {
            assert_eq!(fs::read_to_string(in_folder(name)).unwrap(), content);
        }
    }

    #[test]
    fn after_a_long_pause_the_sound_goes_to_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("story.opus");
        let (begun, mut level) = (Instant::now(), Level::default());
        let mut tracks = Tracks::create(&path, 7).unwrap();
        let hour = Duration::from_secs(3_600);
        for (session, at) in [(0, begun), (1, begun + LONGEST_FILLED), (2, begun + hour)] {
            let packet = SoundPacket {
                caster: 0,
                session,
                index: 0,
                timestamp: 0,
                samples: 960,
                payload: vec![31 << 3, 1],
                arrival: at,
            };
            assert!(tracks.push(packet, &mut level).unwrap());
            tracks.write(at, &mut level).unwrap();
        }
        let second = folder.path().join("story-2.opus");
        assert_eq!(tracks.path(), second);
        let files = tracks.finish(begun + hour, &mut level).unwrap();
        let gaps = folder.path().join("story.opus.gaps");
        assert_eq!(files, [path, gaps, second]);
    }
}
