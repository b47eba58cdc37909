//! Origin of a share's last version on disk: files of an unmounted disk do not count as deleted,
//! neither now nor when a server starts.
//!
//! ```text
//! <folder>/<32 hexadecimal digits of a hash of share and path>.origin, mode 0600: Origin as JSON
//! ```
//!
//! If a user removes the file, the present state is published.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use librecast::channel::SharePrefix;
use librecast::id::derive;
use librecast_program::cli::{Exit, ExitError};
use serde::{Deserialize, Serialize};

use crate::folder::open_named;
use crate::listing::{Kind, shown};
use crate::mount::Mount;
use crate::remembered::keep;
use crate::scan::Scan;

/// Most remembered files of each file system; one suffices to recognise it.
const MAX_MARKS: usize = 16;
/// Longest valid file, in bytes: it holds some thousand file systems below one share.
const MAX_TEXT: u64 = 16 << 20;

/// Remembered facts of the last served version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The shared path, for users.
    path: String,
    /// The file system of the root, then those mounted below it.
    parts: Vec<Part>,
}

/// The part of a version on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    mount: Mount,
    /// Number of files and links.
    entries: usize,
    marks: Vec<Mark>,
}

/// A file, identified so that a copy of it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// First 8 bytes of its path's hash.
    path: u64,
    inode: u64,
    ctime: (i64, i64),
}

impl Mark {
    fn of(scan: &Scan, n: usize) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&scan.entries[n].path).as_bytes();
        Self {
            path: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            inode: scan.stamps[n].inode,
            ctime: scan.stamps[n].ctime,
        }
    }
}

impl Origin {
    /// Returns the origin of these files.
    #[must_use]
    pub fn of(scan: &Scan) -> Self {
        let mut files: Vec<Vec<usize>> = vec![Vec::new(); scan.mounts.len()];
        // mounts around the entry, the root's first
        let mut around = vec![0];
        let mut next = 1;
        for (n, entry) in scan.entries.iter().enumerate() {
            while let [_, .., last] = around[..]
                && !is_below(&entry.path, &scan.mounts[last].path)
            {
                around.pop();
            }
            if scan.mounts.get(next).is_some_and(|m| m.path == entry.path) {
                around.push(next);
                next += 1;
            } else if entry.kind != Kind::Folder
                && let Some(files) = around.last().and_then(|last| files.get_mut(*last))
            {
                files.push(n);
            }
        }
        let parts = scan.mounts.iter().zip(files).map(|(mount, files)| {
            let step = files.len().div_ceil(MAX_MARKS).max(1);
            Part {
                mount: mount.clone(),
                entries: files.len(),
                marks: files
                    .iter()
                    .step_by(step)
                    .map(|n| Mark::of(scan, *n))
                    .collect(),
            }
        });
        Self {
            path: shown(scan.root.as_os_str().as_bytes()),
            parts: parts.collect(),
        }
    }

    /// Returns a reason not to publish `scan`, as it may lack files that no user has deleted.
    /// `last` is the previous version, if known.
    pub fn missing_in(&self, scan: &Scan, last: Option<&Scan>) -> Option<String> {
        let gone = self.parts.iter().filter(|part| part.entries > 0);
        let gone: Vec<&Part> = gone.filter(|part| !part.is_there(scan)).collect();
        if let Some(part) = gone.first() {
            return Some(match &part.mount.path[..] {
                b"" => "it is on another file system than before (was one unmounted?)".to_owned(),
                path => format!("{} is not mounted any more", shown(path)),
            });
        }
        let entries: usize = self.parts.iter().map(|part| part.entries).sum();
        let is_empty = scan.entries.iter().all(|e| e.kind == Kind::Folder);
        if entries > 0 && is_empty {
            return Some(format!(
                "all of it is gone at once, {entries} files and links"
            ));
        }
        let known = |mount: &&Mount| self.parts.iter().any(|p| p.mount.path == mount.path);
        let covers = |mount: &&Mount| {
            last.is_some_and(|last| {
                let mut below = last.entries.iter().filter(|e| e.kind != Kind::Folder);
                below.any(|e| is_below(&e.path, &mount.path))
            })
        };
        let mut new = scan.mounts.iter().filter(|mount| !known(mount));
        let over = new.find(covers)?;
        Some(format!("something is mounted over {}", shown(&over.path)))
    }
}

impl Part {
    fn is_there(&self, scan: &Scan) -> bool {
        let now = scan.mounts.iter().find(|m| m.path == self.mount.path);
        now.is_some_and(|now| self.mount.is_still(now)) || self.has_marks_in(scan)
    }

    /// Whether a file is still unchanged: numbers of file systems change, but not those of files.
    fn has_marks_in(&self, scan: &Scan) -> bool {
        let marks: HashMap<u64, &Mark> = self.marks.iter().map(|m| (m.path, m)).collect();
        let mut below = (0..scan.entries.len())
            .filter(|n| is_below(&scan.entries[*n].path, &self.mount.path))
            .map(|n| Mark::of(scan, n));
        below.any(|mark| marks.get(&mark.path) == Some(&&mark))
    }
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// The file of an [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginFile(PathBuf);

impl OriginFile {
    /// Names the file of this share, in the folder of the user's lasting state.
    #[must_use]
    pub fn new(folder: &Path, share: SharePrefix, path: &Path) -> Self {
        let share = share.address().octets();
        let hash = derive("lcsync 2026 origin", &[&share, path.as_os_str().as_bytes()]);
        let hash = blake3::Hash::from_bytes(hash).to_hex();
        Self(folder.join(format!("{}.origin", &hash[..32])))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the origin, if it is stored.
    pub fn load(&self) -> Result<Option<Origin>, ExitError> {
        match self.read() {
            Ok(origin) => Ok(Some(origin)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => {
                let message = format!("{}: {e}: remove it to begin anew", self.0.display());
                Err(ExitError::new(Exit::Failed, message))
            }
        }
    }

    fn read(&self) -> io::Result<Origin> {
        let mut text = Vec::new();
        open_named(&self.0)?.take(MAX_TEXT).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Writes the origin to disk.
    pub fn save(&self, origin: &Origin) -> io::Result<()> {
        keep(&self.0, &serde_json::to_vec(origin)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A share with own files, and files that seem to be mounted at `sub`.
    fn mounted() -> (tempfile::TempDir, Scan) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        for file in ["f", "sub/deep/f", "sub/g", "sub.txt"] {
            fs::write(dir.path().join(file), b"words").unwrap();
        }
        let mut scan = Scan::of(dir.path()).unwrap();
        let proc = fs::File::open("/proc").unwrap();
        let mount = Mount::of(proc, b"sub".to_vec()).unwrap();
        scan.mounts.push(mount);
        (dir, scan)
    }

    #[test]
    fn what_lies_on_each_file_system_is_remembered() {
        let (_dir, scan) = mounted();
        let origin = Origin::of(&scan);
        let parts: Vec<_> = origin
            .parts
            .iter()
            .map(|p| (p.entries, p.marks.len()))
            .collect();
        assert_eq!(parts, [(2, 2), (2, 2)]);
        let state = tempfile::tempdir().unwrap();
        let prefix = SharePrefix::of_name(b"", "t");
        let file = OriginFile::new(&state.path().join("new"), prefix, Path::new("/srv"));
        assert_eq!(file.load().unwrap(), None);
        file.save(&origin).unwrap();
        assert_eq!(file.load().unwrap(), Some(origin));
        for other in [
            OriginFile::new(&state.path().join("new"), prefix, Path::new("/srv2")),
            OriginFile::new(
                &state.path().join("new"),
                SharePrefix::of_name(b"", "u"),
                Path::new("/srv"),
            ),
        ] {
            assert_eq!(other.load().unwrap(), None);
        }
        fs::write(file.path(), b"{").unwrap();
        assert!(file.load().unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn a_mount_that_has_gone_is_missed_only_with_its_files() {
        let (dir, scan) = mounted();
        let origin = Origin::of(&scan);
        assert_eq!(origin.missing_in(&scan, Some(&scan)), None);
        // its number has changed, but one of its files is unchanged
        let mut again = Scan::of(dir.path()).unwrap();
        assert_eq!(origin.missing_in(&again, None), None);
        for file in ["sub/deep/f", "sub/g"] {
            fs::remove_file(dir.path().join(file)).unwrap();
            fs::write(dir.path().join(file), b"words").unwrap();
        }
        again = Scan::of(dir.path()).unwrap();
        let why = origin.missing_in(&again, None).unwrap();
        assert_eq!(why, "sub is not mounted any more");
        fs::remove_dir_all(dir.path().join("sub")).unwrap();
        again = Scan::of(dir.path()).unwrap();
        assert!(origin.missing_in(&again, None).is_some());
    }

    #[test]
    fn what_is_mounted_over_files_hides_them() {
        let (dir, now) = mounted();
        let before = Scan::of(dir.path()).unwrap();
        let origin = Origin::of(&before);
        let why = origin.missing_in(&now, Some(&before)).unwrap();
        assert_eq!(why, "something is mounted over sub");
        fs::remove_dir_all(dir.path().join("sub")).unwrap();
        let empty = Scan::of(dir.path()).unwrap();
        assert_eq!(Origin::of(&empty).missing_in(&now, Some(&empty)), None);
    }

    #[test]
    fn another_root_is_known_by_a_file_that_is_still_there_and_a_file_by_its_disk() {
        let (dir, before) = mounted();
        let origin = Origin::of(&before);
        let mut now = before.clone();
        let proc = fs::File::open("/proc").unwrap();
        now.mounts[0] = Mount::of(proc, Vec::new()).unwrap();
        assert_eq!(origin.missing_in(&now, None), None);
        for stamp in &mut now.stamps {
            stamp.ctime.1 ^= 1;
        }
        let why = origin.missing_in(&now, None).unwrap();
        assert!(why.contains("another file system"), "{why}");

        let file = dir.path().join("f");
        let origin = Origin::of(&Scan::of(&file).unwrap());
        fs::write(dir.path().join("new"), b"").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(origin.missing_in(&Scan::of(&file).unwrap(), None), None);
        let proc = Scan::of(Path::new("/proc/version")).unwrap();
        assert!(origin.missing_in(&proc, None).is_some());
    }
}
