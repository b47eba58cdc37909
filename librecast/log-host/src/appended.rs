//! An append-only file: each sync leaves it whole, and cuts off the rest of a failed one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use librecast::durable::sync_folder_of;

/// The file, readable by its owner alone.
#[derive(Debug)]
pub struct AppendedFile {
    file: File,
    length: u64,
    waiting: Vec<u8>,
}

impl AppendedFile {
    /// Opens or makes it. [`read`](Self::read) must read its content before anything is added.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)?;
        sync_folder_of(path)?;
        Ok(Self {
            length: file.metadata()?.len(),
            file,
            waiting: Vec::new(),
        })
    }

    /// Returns the file, at its beginning before the first read.
    pub fn read(&self) -> &File {
        &self.file
    }

    /// Bytes that are on disk.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing is on disk.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Cuts off the bytes behind `length`, which a crash left unfinished.
    pub fn cut(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            self.file.set_len(length)?;
            self.file.sync_all()?;
            self.length = length;
        }
        Ok(())
    }

    /// Buffer for the next bytes; [`sync`](Self::sync) writes it to disk.
    pub fn waiting(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Writes the buffer; returns whether it had bytes.
    ///
    /// # Errors
    /// The system's; the buffer stays for the next attempt.
    pub fn sync(&mut self) -> io::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(false);
        }
        // a half-written attempt would make all later bytes unreadable
        if self.file.metadata()?.len() != self.length {
            self.file.set_len(self.length)?;
        }
        self.file.write_all(&self.waiting)?;
        self.file.sync_data()?;
        self.length += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(true)
    }
}

#[cfg(test)]
impl AppendedFile {
    /// Exchanges the file for another one; the buffer's contents stay.
    pub(crate) fn swap(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}
