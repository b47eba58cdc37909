//! Pictures of a screen in files, as they came: none is decoded.
//!
//! `RUN-NUMBER-WIDTHxHEIGHT-X-Y.webp`: the time at which the sender began, the number of the change,
//! the size of the screen, and the place of the picture in it. By names, they stand in the order in
//! which they are drawn; one that covers the screen includes all earlier ones.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use lcstudio_core::{PictureKind, ScreenChange, ScreenWatch};
use librecast_log::Space;

use crate::folder::make_folder;

/// Bytes of kept pictures. Chosen: four hours at the highest rate.
const MAX_BYTES: u64 = 1 << 30;

/// A screen that is kept.
#[derive(Debug)]
pub struct KeptScreen {
    folder: PathBuf,
    watch: ScreenWatch,
    /// Bytes in the folder.
    bytes: u64,
    is_full: bool,
}

impl KeptScreen {
    /// Keeps the screen of this space in `folder`.
    pub fn new(folder: &Path, space: &Space, now: Instant) -> anyhow::Result<Self> {
        make_folder(folder)?;
        let sizes = fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len()));
        let sizes: io::Result<Vec<u64>> = sizes.collect();
        let bytes = sizes.with_context(|| folder.display().to_string())?;
        Ok(Self {
            folder: folder.to_owned(),
            watch: ScreenWatch::new(space, now),
            bytes: bytes.iter().sum(),
            is_full: false,
        })
    }

    /// Returns the groups to be joined now.
    pub fn groups(&self, now: Instant) -> Vec<Ipv6Addr> {
        match self.is_full {
            true => Vec::new(),
            false => self.watch.joined_groups(now),
        }
    }

    /// Returns the time at which [`groups`](Self::groups) may change by itself.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.watch.next_timeout(now)
    }

    /// Handles a datagram, and keeps what is complete.
    pub fn handle_datagram(&mut self, source: Ipv6Addr, datagram: &[u8], now: Instant) {
        self.watch.handle_datagram(source, datagram, now);
        while let Some(change) = self.watch.poll_change() {
            if self.is_full {
                continue;
            }
            let file = self.folder.join(name(&change));
            // drawn again above a change that was missing
            if file.exists() {
                continue;
            }
            if let Err(e) = self.keep(&file, change.picture.bytes()) {
                self.is_full = true;
                tracing::error!("{}: {e}: no more of the screen is kept", file.display());
            }
        }
    }

    fn keep(&mut self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(io::Error::other("1 GiB of pictures is kept"));
        }
        let unfinished = self.folder.join("unfinished");
        fs::write(&unfinished, bytes)?;
        fs::rename(unfinished, file)
    }
}

/// Returns the name of a change's file.
fn name(change: &ScreenChange) -> String {
    let extension = match change.picture.kind() {
        PictureKind::Png => "png",
        _ => "webp",
    };
    let (width, height) = change.screen;
    let (x, y) = (change.area.x, change.area.y);
    let (run, number) = (change.run, change.number);
    format!("{run:013}-{number:010}-{width}x{height}-{x}-{y}.{extension}")
}
