//! What is on disk below a path: names, kinds, sizes, times.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::listing::{Entry, Kind, Metadata, is_plain_name};
use crate::tree::RootKind;

/// Longest path below the root that a listing can hold.
const MAX_PATH: usize = 4095;

/// A file's identity and version: as long as it is the same, so are the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// Clocks of file systems may be that coarse: two changes within it can leave the same times.
const COARSE: Duration = Duration::from_millis(100);

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// All of it, to be hashed.
    #[must_use]
    pub fn bytes(&self) -> [u8; 56] {
        let times = [self.mtime.0, self.mtime.1, self.ctime.0, self.ctime.1];
        let [a, b, c, d] = times.map(i64::cast_unsigned);
        let mut out = [0; 56];
        let numbers = [self.device, self.inode, self.size, a, b, c, d];
        for (to, number) in out.as_chunks_mut().0.iter_mut().zip(numbers) {
            *to = number.to_be_bytes();
        }
        out
    }

    /// Whether a change after `time` would show: the last one was long enough before it.
    #[must_use]
    pub fn is_older_than(&self, time: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.ctime.0), u32::try_from(self.ctime.1))
        else {
            return true;
        };
        let changed = UNIX_EPOCH + Duration::new(seconds, nanos);
        time.duration_since(changed).is_ok_and(|age| age >= COARSE)
    }
}

/// A file or folder as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Where.
    pub root: PathBuf,
    /// File or folder.
    pub kind: RootKind,
    /// What is in the folder, in listing order; for a file the file itself, with an empty path.
    pub entries: Vec<Entry>,
    /// Of each entry.
    pub stamps: Vec<Stamp>,
    /// Of the root, then of each entry.
    pub metadata: Vec<Metadata>,
    /// How many entries are left out because they could not be read.
    pub unread: usize,
}

impl Scan {
    /// Looks at `root`. What cannot be read or shared is left out with a warning; `root` itself must be readable.
    pub fn of(root: &Path) -> io::Result<Self> {
        let meta = fs::metadata(root)?;
        let mut scan = Self {
            root: root.to_path_buf(),
            kind: RootKind::Folder,
            entries: Vec::new(),
            stamps: Vec::new(),
            metadata: vec![metadata(&meta)],
            unread: 0,
        };
        if meta.is_dir() {
            scan.walk()?;
        } else if meta.is_file() {
            scan.kind = RootKind::File {
                executable: executable(&meta),
            };
            let kind = Kind::File {
                size: meta.len(),
                executable: executable(&meta),
            };
            scan.push(Vec::new(), kind, &meta);
        } else {
            let message = "neither a file nor a folder";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(scan)
    }

    /// The link `path` itself, as the only entry.
    pub fn of_link(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        let mut scan = Self {
            root: path.to_path_buf(),
            kind: RootKind::Folder,
            entries: Vec::new(),
            stamps: Vec::new(),
            metadata: vec![metadata(&meta)],
            unread: 0,
        };
        let target = fs::read_link(path)?.into_os_string().into_vec();
        scan.push(Vec::new(), Kind::Link { target }, &meta);
        Ok(scan)
    }

    /// Where entry number `n` is.
    #[must_use]
    pub fn path_of(&self, n: usize) -> PathBuf {
        let path = &self.entries[n].path;
        // joining an empty path would add a slash
        if path.is_empty() {
            self.root.clone()
        } else {
            self.root.join(std::ffi::OsStr::from_bytes(path))
        }
    }

    /// Leaves these entries, files that could not be read, out.
    pub fn remove(&mut self, those: &BTreeSet<usize>) {
        self.unread += those.len();
        fn keep<T>(all: &mut Vec<T>, from: usize, those: &BTreeSet<usize>) {
            let mut n = 0;
            all.retain(|_| {
                n += 1;
                n <= from || !those.contains(&(n - 1 - from))
            });
        }
        keep(&mut self.entries, 0, those);
        keep(&mut self.stamps, 0, those);
        // the root's comes first
        keep(&mut self.metadata, 1, those);
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind, meta: &fs::Metadata) {
        self.entries.push(Entry { path, kind });
        self.stamps.push(Stamp::of(meta));
        self.metadata.push(metadata(meta));
    }

    fn leave_out(&mut self, at: &Path, error: &io::Error) {
        tracing::warn!("left out: {}: {error}", at.display());
        self.unread += 1;
    }

    /// Depth first, names in order: with a stack of its own, so that no depth exhausts the thread's.
    fn walk(&mut self) -> io::Result<()> {
        let mut waiting: Vec<Vec<u8>> = names_in(&self.root, b"")?;
        while let Some(path) = waiting.pop() {
            let at = self.root.join(std::ffi::OsStr::from_bytes(&path));
            let meta = match fs::symlink_metadata(&at) {
                Ok(meta) => meta,
                Err(e) => {
                    self.leave_out(&at, &e);
                    continue;
                }
            };
            let kind = match kind_of(&at, &meta) {
                Ok(Some(kind)) => kind,
                Ok(None) => {
                    tracing::debug!("left out: {}: not a file, folder or link", at.display());
                    continue;
                }
                Err(e) => {
                    self.leave_out(&at, &e);
                    continue;
                }
            };
            let below = if kind == Kind::Folder {
                names_in(&at, &path)
            } else {
                Ok(Vec::new())
            };
            match below {
                Ok(names) => waiting.extend(names),
                Err(e) => {
                    self.leave_out(&at, &e);
                    continue;
                }
            }
            self.push(path, kind, &meta);
        }
        Ok(())
    }
}

/// Paths of what is in the folder `at`, last name first.
fn names_in(at: &Path, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for item in fs::read_dir(at)? {
        let name = item?.file_name().into_vec();
        let below = if path.is_empty() {
            name.clone()
        } else {
            [path, b"/", &name].concat()
        };
        // lcsync's own partial transfers, and what is too long to name
        if is_plain_name(&name) && below.len() <= MAX_PATH {
            paths.push(below);
        }
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn kind_of(at: &Path, meta: &fs::Metadata) -> io::Result<Option<Kind>> {
    let kind = meta.file_type();
    Ok(Some(if kind.is_file() {
        Kind::File {
            size: meta.len(),
            executable: executable(meta),
        }
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Link {
            target: fs::read_link(at)?.into_os_string().into_vec(),
        }
    } else {
        return Ok(None);
    }))
}

fn executable(meta: &fs::Metadata) -> bool {
    meta.mode() & 0o100 != 0
}

/// Mode and modification time of a file.
#[must_use]
pub fn metadata(meta: &fs::Metadata) -> Metadata {
    Metadata {
        mode: (meta.mode() & 0o7777) as u16,
        mtime: meta.mtime(),
        nanos: meta.mtime_nsec().clamp(0, 999_999_999) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{compare_paths, decode, encode};
    use std::cmp::Ordering;

    #[test]
    fn finds_everything_in_listing_order() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.txt", "a/x", "a/b/c", "a-b/y", "z"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"text").unwrap();
        }
        std::os::unix::fs::symlink("a/x", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join(".lcsync-partial")).unwrap();
        let scan = Scan::of(dir.path()).unwrap();
        let paths: Vec<_> = scan
            .entries
            .iter()
            .map(|e| String::from_utf8_lossy(&e.path))
            .collect();
        assert_eq!(
            paths,
            [
                "a", "a/b", "a/b/c", "a/x", "a-b", "a-b/y", "a.txt", "link", "z"
            ]
        );
        assert!(
            scan.entries
                .windows(2)
                .all(|w| compare_paths(&w[0].path, &w[1].path) == Ordering::Less)
        );
        assert_eq!(
            decode(&encode(&scan.entries).concat(), 9).unwrap(),
            scan.entries
        );
        assert_eq!(scan.metadata.len(), 10);
    }

    #[test]
    fn a_changed_file_changes_the_scan() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"one").unwrap();
        let before = Scan::of(dir.path()).unwrap();
        assert_eq!(Scan::of(dir.path()).unwrap(), before);
        fs::write(&file, b"three").unwrap();
        assert_ne!(Scan::of(dir.path()).unwrap(), before);
    }
}
