//! A camera in files of WebM, as it came: nothing is decoded.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lcstudio_core::{CameraFrame, CameraWatch};
use librecast_log::Space;

use crate::folder::Folder;
use crate::webm::WebM;

/// Bytes of kept files. Chosen: eight hours at 300 kbit/s.
const MAX_BYTES: u64 = 1 << 30;
/// Kept files. Chosen: a sender whose picture changes its size begins one at each key frame.
const MAX_FILES: usize = 256;

/// Pause after which a file is begun again, if the disk was full.
const AGAIN: Duration = Duration::from_secs(10);

/// A file that is written, its sender's beginning, and the sender's time of its first frame.
#[derive(Debug)]
struct Kept {
    webm: WebM,
    path: PathBuf,
    run: u64,
    size: (u16, u16),
    first: u32,
}

/// A camera that is kept.
#[derive(Debug)]
pub struct KeptCamera {
    folder: Folder,
    watch: CameraWatch,
    kept: Option<Kept>,
    /// Bytes of files that are complete.
    bytes: u64,
    /// All files, and the number of the last one.
    files: usize,
    number: u32,
    /// No file is begun before.
    again: Option<Instant>,
    is_full: bool,
}

impl KeptCamera {
    /// Keeps the camera of this space in files of `folder`.
    pub fn new(folder: &Folder, space: &Space, now: Instant) -> anyhow::Result<Self> {
        let files = fs::read_dir(folder.path())?.flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|e| e == "webm"));
        let files: Vec<_> = files.collect();
        let bytes = files.iter();
        let bytes = bytes.filter_map(|file| Some(file.metadata().ok()?.len()));
        let numbers = files.iter().filter_map(|file| number(&file.path()));
        Ok(Self {
            folder: folder.clone(),
            watch: CameraWatch::new(space, false, now),
            kept: None,
            bytes: bytes.sum(),
            files: files.len(),
            number: numbers.max().unwrap_or(0),
            again: None,
            is_full: false,
        })
    }

    /// Returns the groups to be joined now.
    pub fn groups(&self) -> Vec<Ipv6Addr> {
        match self.is_full {
            true => Vec::new(),
            false => self.watch.joined_groups().collect(),
        }
    }

    /// Returns the time of the next call of [`turn`](Self::turn).
    pub fn next_timeout(&self) -> Option<Instant> {
        self.watch.next_timeout()
    }

    /// Handles a datagram of one of its groups.
    pub fn handle_datagram(
        &mut self,
        group: Ipv6Addr,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
    ) {
        self.watch.handle_datagram(group, source, datagram, now);
    }

    /// Keeps the frames that came.
    pub fn turn(&mut self, now: Instant) {
        self.watch.handle_timeout(now);
        while let Some(frame) = self.watch.poll_frame() {
            if self.is_full || self.again.is_some_and(|at| at > now) {
                continue;
            }
            let bytes = self.bytes + self.kept.as_ref().map_or(0, |kept| kept.webm.bytes());
            if bytes + frame.bytes.len() as u64 > MAX_BYTES {
                self.is_full = true;
                tracing::error!("1 GiB of the camera is kept: no more is");
                self.kept = None;
                continue;
            }
            if let Err(e) = self.keep(&frame) {
                tracing::error!("the camera is not kept for {} s: {e}", AGAIN.as_secs());
                self.end_file();
                self.again = Some(now + AGAIN);
            }
        }
        if self.watch.has_ended() {
            self.end_file();
        }
    }

    fn end_file(&mut self) {
        let Some(mut kept) = self.kept.take() else {
            return;
        };
        if let Err(e) = kept.webm.flush() {
            tracing::error!(
                "{}: the last pictures are not kept: {e}",
                kept.path.display()
            );
        }
        // a full disk: the next one would be another file without a picture
        if !kept.webm.has_frames() {
            if fs::remove_file(&kept.path).is_ok() {
                self.files -= 1;
            }
            return;
        }
        self.bytes += kept.webm.bytes();
    }

    fn keep(&mut self, frame: &CameraFrame) -> std::io::Result<()> {
        let is_same =
            |kept: &Kept| kept.run == frame.run && frame.size.is_none_or(|size| size == kept.size);
        if !self.kept.as_ref().is_some_and(is_same) {
            // a file begins with a key frame
            let Some(size) = frame.size else {
                return Ok(());
            };
            self.end_file();
            if self.files >= MAX_FILES {
                self.is_full = true;
                tracing::error!("{MAX_FILES} files of the camera are kept: no more are");
                return Ok(());
            }
            let date = frame.run.saturating_add(frame.time.into());
            self.number = self.number.saturating_add(1);
            let path = self.folder.camera(self.number);
            let webm = WebM::create(&path, size, date)?;
            self.files += 1;
            self.kept = Some(Kept {
                webm,
                path,
                run: frame.run,
                size,
                first: frame.time,
            });
        }
        let Some(kept) = &mut self.kept else {
            return Ok(());
        };
        let time = frame.time.saturating_sub(kept.first);
        kept.webm
            .add(time.into(), frame.size.is_some(), &frame.bytes)
    }
}

/// Returns the number of a file of the camera, from 1, by its name.
fn number(path: &Path) -> Option<u32> {
    match path.file_stem()?.to_str()?.strip_prefix("camera")? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcstudio_core::{CameraSize, SessionKey, TrackName};

    #[test]
    fn files_are_bounded_and_numbered_after_those_that_are_there() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path());
        fs::write(folder.camera(1), b"").unwrap();
        fs::write(folder.camera(7), b"").unwrap();
        let key = SessionKey::from_seed(&[1; 32]);
        let owner = key.track_key(&TrackName::Camera).peer_id();
        let space = key.session().space(owner);
        let mut kept = KeptCamera::new(&folder, &space, Instant::now()).unwrap();
        for number in 1..=300_u16 {
            let frame = CameraFrame {
                picture: CameraSize::Small,
                run: 1,
                number: number.into(),
                time: u32::from(number) * 100,
                size: Some((16 + number, 16)),
                bytes: vec![0; 20],
            };
            kept.keep(&frame).unwrap();
        }
        assert!(kept.is_full && kept.kept.is_none());
        let count = fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(count, MAX_FILES);
        assert!(folder.camera(8).exists() && folder.camera(261).exists());
        assert!(!folder.camera(2).exists() && !folder.camera(262).exists());
    }
}
