//! A list of members' items, in a file of a group's folder that is written whole.

use std::io;
use std::path::{Path, PathBuf};

use librecast::durable;
use librecast::id::PeerId;
use librecast::private_file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Bytes of such a file. Chosen: lists are bounded so that they stay below half of it.
const MAX_FILE: u64 = 4 << 20;

/// An item, which a member sent.
pub trait Item: Serialize + DeserializeOwned {
    /// Items of one member that are kept, the last ones.
    const OF_AUTHOR: usize;
    /// Items that are kept.
    const MOST: usize;

    /// The member that sent it.
    fn author(&self) -> PeerId;
}

/// The items, the newest last.
#[derive(Debug)]
pub struct StoredList<T> {
    path: PathBuf,
    all: Vec<T>,
    changed: bool,
}

impl<T: Item> StoredList<T> {
    /// Reads the list from a file, if it exists.
    ///
    /// # Errors
    /// I/O errors; a file without a list.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let all = match path.try_exists()? {
            true => serde_json::from_slice(&private_file::read(path, MAX_FILE)?)?,
            false => Vec::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            all,
            changed: false,
        })
    }

    pub fn all(&self) -> &[T] {
        &self.all
    }

    /// Adds an item. Its author's oldest one makes room for it, or the oldest of all.
    pub fn add(&mut self, item: T) {
        let author = item.author();
        let is_of = |other: &T| other.author() == author;
        let of_author = self.all.iter().filter(|other| is_of(other)).count();
        if of_author >= T::OF_AUTHOR
            && let Some(oldest) = self.all.iter().position(is_of)
        {
            self.all.remove(oldest);
        } else if self.all.len() >= T::MOST {
            self.all.remove(0);
        }
        self.all.push(item);
        self.changed = true;
    }

    /// Keeps the items for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let before = self.all.len();
        self.all.retain(keep);
        self.changed |= self.all.len() != before;
    }

    /// Writes a changed list.
    ///
    /// # Errors
    /// I/O errors: the next call writes it.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.changed {
            let bytes = Zeroizing::new(serde_json::to_vec(&self.all)?);
            durable::replace(&self.path, &bytes)?;
            self.changed = false;
        }
        Ok(())
    }
}
