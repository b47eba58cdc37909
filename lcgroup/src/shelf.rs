//! Sealed files of one group on this host, each under its root hash, in a folder that lcsync serves.
//!
//! ```text
//! files/<root hash>            a whole sealed file, mode 0600, with one fixed time
//! files/key                    lcsync's key of these shares: all who can read the group's log have it
//! files/incoming/<root hash>/  an unfinished one, as lcsync left it
//! files/incoming/new-<random>  one that a user sends
//! ```
//!
//! All hosts give them one mode and one time, so that lcsync takes their copies for one version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lcgroup_core::file::{FileId, SealedFile};
use librecast::durable;
use librecast::id::derive;
use librecast::text::{TextKind, encode};
use nix::sys::statvfs::statvfs;
use zeroize::Zeroizing;

/// The folder for files, in the folder of a group.
pub const FOLDER: &str = "files";
/// lcsync's key.
const KEY: &str = "key";
/// The folder of unfinished files.
const INCOMING: &str = "incoming";
/// The file in the folder of an unfinished one.
pub const UNFINISHED: &str = "file";
/// Bytes of the disk that files leave free: messages need them. Chosen: some groups' logs.
pub const RESERVE: u64 = 16 << 20;
/// Attempts to remove a folder, and the pause between them: a file may come meanwhile.
const REMOVALS: u32 = 10;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// The folder.
#[derive(Debug)]
pub struct Shelf {
    /// The folder, below the folder of all groups.
    folder: PathBuf,
    here: BTreeMap<FileId, u64>,
    /// The key is on disk.
    is_ready: bool,
    key: Zeroizing<String>,
}

impl Shelf {
    /// Reads the folder for files in the folder of a group, if it exists.
    pub fn open(group: &Path, read_key: &[u8; 32]) -> Self {
        let key = Zeroizing::new(derive("lcgroup 2026 shares of files", &[read_key]));
        let mut shelf = Self {
            folder: group.join(FOLDER),
            here: BTreeMap::new(),
            is_ready: false,
            key: encode(TextKind::SharedKey, &key[..]),
        };
        let entries = fs::read_dir(&shelf.folder).into_iter().flatten().flatten();
        for entry in entries {
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let (Some(id), Ok(found)) = (id, entry.metadata())
                && found.is_file()
            {
                shelf.here.insert(id, found.len());
            }
        }
        // half of one that a user sent before a crash
        let incoming = fs::read_dir(shelf.incoming())
            .into_iter()
            .flatten()
            .flatten();
        for entry in incoming.filter(|e| e.file_name().as_encoded_bytes().starts_with(b"new-")) {
            let _ = fs::remove_file(entry.path());
        }
        shelf
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, and the key in it.
    pub fn prepare(&mut self) -> io::Result<()> {
        if !self.is_ready {
            for folder in [self.folder.clone(), self.incoming()] {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            durable::replace(&self.key_file(), self.key.as_bytes())?;
            self.is_ready = true;
        }
        Ok(())
    }

    /// The file of lcsync's key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// The folder for unfinished files.
    pub fn incoming(&self) -> PathBuf {
        self.folder.join(INCOMING)
    }

    /// The place of a whole sealed file.
    pub fn path(&self, id: &FileId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Whether this file is whole here.
    pub fn has(&self, file: &SealedFile) -> bool {
        self.here.get(&file.id) == Some(&file.length)
    }

    /// Files here, and their bytes.
    pub fn size(&self) -> (usize, u64) {
        (self.here.len(), self.here.values().sum())
    }

    pub fn ids(&self) -> impl Iterator<Item = &FileId> {
        self.here.keys()
    }

    /// Reads once more whether a file is here.
    pub fn look(&mut self, id: FileId) {
        match fs::symlink_metadata(self.path(&id)) {
            Ok(found) if found.is_file() => self.here.insert(id, found.len()),
            _ => self.here.remove(&id),
        };
    }

    /// Removes a file, and what has come of it.
    pub fn remove(&mut self, id: FileId) {
        self.here.remove(&id);
        if let Err(e) = fs::remove_file(self.path(&id))
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}: {e}", self.path(&id).display());
        }
        self.forget_unfinished(id);
    }

    /// Unfinished files of which a part is here.
    pub fn unfinished(&self) -> BTreeSet<FileId> {
        let has_part =
            |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        let entries = fs::read_dir(self.incoming())
            .into_iter()
            .flatten()
            .flatten();
        let parts = entries.filter(|entry| has_part(&entry.path()));
        parts
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Removes what has come of a file.
    pub fn forget_unfinished(&self, id: FileId) {
        let _ = fs::remove_dir_all(self.incoming().join(id.to_string()));
    }

    /// Removes unfinished files other than those that `is_wanted` names.
    pub fn tidy_unfinished(&self, is_wanted: impl Fn(&FileId) -> bool) {
        let entries = fs::read_dir(self.incoming())
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<FileId>().ok());
            if let Some(id) = id.filter(|id| !is_wanted(id)) {
                self.forget_unfinished(id);
            }
        }
    }
}

/// Removes the folder of a group, also while lcsync is about to leave it.
pub fn remove_group(folder: &Path) -> io::Result<()> {
    for _ in 0..REMOVALS {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            result => return result,
        }
    }
    fs::remove_dir_all(folder)
}

/// Puts a whole sealed file into its place on disk.
pub fn put(from: &Path, to: &Path) -> io::Result<()> {
    let file = File::open(from)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    // the same on all hosts
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))?;
    file.sync_all()?;
    fs::rename(from, to)?;
    durable::sync_folder_of(to)
}

/// Refuses a file of `length` bytes if the disk has no room for it.
pub fn check_room(folder: &Path, length: u64) -> Result<(), String> {
    // a folder that is made later is on the disk of the one above
    let there = folder.ancestors().find(|folder| folder.exists());
    let found = there.and_then(|folder| statvfs(folder).ok());
    let Some(found) = found else { return Ok(()) };
    let free = found
        .blocks_available()
        .saturating_mul(found.fragment_size());
    match free < length.saturating_add(RESERVE) {
        true => Err(format!(
            "the disk of {} has no room for it: {} are free, and {} of them are kept for messages",
            folder.display(),
            megabytes(free),
            megabytes(RESERVE)
        )),
        false => Ok(()),
    }
}

/// Formats such as `20.0 MB`.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FileId = FileId([0xab; 32]);

    #[test]
    fn files_outlive_a_restart_and_half_ones_of_users_do_not() {
        let group = tempfile::tempdir().unwrap();
        let open = || Shelf::open(group.path(), &[1; 32]);
        let mut shelf = open();
        assert!(
            !group.path().join(FOLDER).exists(),
            "made when it is needed"
        );
        shelf.prepare().unwrap();
        let key = fs::read_to_string(shelf.key_file()).unwrap();
        assert!(key.starts_with("lck1"));
        let new = shelf.incoming().join("new-1");
        fs::write(&new, b"sealed").unwrap();
        put(&new, &shelf.path(&ID)).unwrap();
        assert_eq!(shelf.size(), (0, 0));
        shelf.look(ID);
        let file = SealedFile { id: ID, length: 6 };
        assert!(shelf.has(&file) && !shelf.has(&SealedFile { id: ID, length: 7 }));
        fs::write(&new, b"half").unwrap();
        let half = shelf.incoming().join(ID.to_string());
        fs::create_dir(&half).unwrap();
        // names of others are not files of ours
        for other in ["x", "key2", &"AB".repeat(32)] {
            fs::write(shelf.folder.join(other), b"x").unwrap();
        }
        let mut shelf = open();
        assert_eq!(shelf.size(), (1, 6));
        assert!(!new.exists() && half.exists());
        shelf.tidy_unfinished(|id| *id == ID);
        assert!(half.exists() && shelf.unfinished().is_empty());
        fs::write(half.join("part"), b"x").unwrap();
        assert_eq!(shelf.unfinished(), BTreeSet::from([ID]));
        shelf.tidy_unfinished(|_| false);
        assert!(!half.exists());
        shelf.remove(ID);
        assert_eq!(open().size(), (0, 0));
    }

    #[test]
    fn a_file_larger_than_the_disk_is_refused_before() {
        let group = tempfile::tempdir().unwrap();
        assert!(check_room(&group.path().join("files/incoming"), 1_000).is_ok());
        let refused = check_room(group.path(), 1 << 60).unwrap_err();
        assert!(refused.contains("has no room"), "{refused}");
    }

    #[test]
    fn sizes_have_a_unit() {
        let shown = [5, 1_500, 20_000_000, 3_000_000_000].map(megabytes);
        assert_eq!(shown, ["5 B", "1.5 kB", "20.0 MB", "3.0 GB"]);
    }
}
