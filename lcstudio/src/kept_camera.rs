//! A camera in files of WebM, as it came: nothing is decoded.

use std::fs;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lcstudio_core::{CameraFrame, CameraWatch};
use librecast_log::Space;

use crate::folder::Folder;
use crate::webm::WebM;

/// Bytes of kept files. Chosen: eight hours at 300 kbit/s.
const MAX_BYTES: u64 = 1 << 30;

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
    /// No file is begun before.
    again: Option<Instant>,
    is_full: bool,
}

impl KeptCamera {
    /// Keeps the camera of this space in files of `folder`.
    pub fn new(folder: &Folder, space: &Space, now: Instant) -> anyhow::Result<Self> {
        let files = fs::read_dir(folder.path())?.flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|e| e == "webm"));
        let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        Ok(Self {
            folder: folder.clone(),
            watch: CameraWatch::new(space, false, now),
            kept: None,
            bytes: bytes.sum(),
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
    pub fn handle_datagram(&mut self, group: Ipv6Addr, datagram: &[u8], now: Instant) {
        self.watch.handle_datagram(group, datagram, now);
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
            let _ = fs::remove_file(&kept.path);
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
            let date = frame.run.saturating_add(frame.time.into());
            let path = self.folder.camera();
            self.kept = Some(Kept {
                webm: WebM::create(&path, size, date)?,
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
