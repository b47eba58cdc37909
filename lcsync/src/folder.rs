//! Opening below a folder and nowhere else.
//!
//! Every path is walked from the folder's own descriptor, one component after the other, without
//! following symbolic links and without waiting. So links or FIFOs planted in it, at any time,
//! neither lead out of it nor block the program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::listing::{Metadata, Node, PARTIAL_PREFIX, parent_of};

/// Flags for a folder in a folder.
pub const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// Flags for a file in a folder; a FIFO does not block.
pub const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    /// Entries of the folder that are elsewhere; none: those on disk.
    chosen: BTreeMap<Vec<u8>, Chosen>,
    /// The folder of the last walk: listings are in the order of folders.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// An entry that a user has named: its folder, and its name there.
#[derive(Debug)]
struct Chosen {
    folder: OwnedFd,
    name: OsString,
}

impl Folder {
    /// Returns a folder that has these files and folders as its entries, wherever they are. Links
    /// may lead to them, as the user has named them; each entry has the name in its path.
    pub fn of_paths(paths: &[PathBuf]) -> io::Result<Self> {
        let mut chosen = BTreeMap::new();
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for path in paths {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
            let real = path.canonicalize().map_err(named)?;
            let (Some(given), Some(name), Some(parent)) =
                (path.file_name(), real.file_name(), real.parent())
            else {
                return Err(named(io::ErrorKind::InvalidInput.into()));
            };
            let folder = openat(AT_FDCWD, parent, flags, Mode::empty());
            let entry = Chosen {
                folder: folder.map_err(|e| named(e.into()))?,
                name: name.to_owned(),
            };
            chosen.insert(given.as_bytes().to_vec(), entry);
        }
        // without any it would be the folder on disk
        if chosen.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            chosen,
            ..Self::open(Path::new("/"))?
        })
    }

    /// Opens the folder `path`. Links may lead to it, as the user has named it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::of(openat(AT_FDCWD, path, flags, Mode::empty())?))
    }

    /// Takes an open folder.
    #[must_use]
    pub fn of(root: OwnedFd) -> Self {
        Self {
            root,
            chosen: BTreeMap::new(),
            last: None,
        }
    }

    /// Opens a folder directly in this one, with any name, that is not a link.
    pub fn inner(&self, name: &[u8]) -> io::Result<Self> {
        let name = OsStr::from_bytes(name);
        Ok(Self::of(openat(&self.root, name, FOLDER, Mode::empty())?))
    }

    /// Opens the same folder for another thread.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self::of(self.root.try_clone()?))
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.root
    }

    /// Returns the folder of `path`, and its name in it.
    pub fn parent<'a>(&'a mut self, path: &'a [u8]) -> Result<(&'a OwnedFd, &'a OsStr), Errno> {
        let (folder, name) = match parent_of(path) {
            Some([]) => return Err(Errno::EINVAL),
            Some(folder) => (folder, &path[folder.len() + 1..]),
            None => (&[][..], path),
        };
        if !is_component(name) {
            return Err(Errno::EINVAL);
        }
        if folder.is_empty() && !self.chosen.is_empty() {
            let chosen = self.chosen.get(name).ok_or(Errno::ENOENT)?;
            return Ok((&chosen.folder, &chosen.name));
        }
        if folder.is_empty() {
            return Ok((&self.root, OsStr::from_bytes(name)));
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != folder) {
            let first = folder.split(|c| *c == b'/').next().unwrap_or_default();
            let opened = match self.chosen.get(first) {
                // the name of a link is not that of its target
                Some(chosen) => {
                    let at = [chosen.name.as_bytes(), &folder[first.len()..]].concat();
                    walk(&chosen.folder, &at)?
                }
                None if self.chosen.is_empty() => walk(&self.root, folder)?,
                None => return Err(Errno::ENOENT),
            };
            self.last = Some((folder.to_vec(), opened));
        }
        let (_, fd) = self.last.as_ref().ok_or(Errno::ENOENT)?;
        Ok((fd, OsStr::from_bytes(name)))
    }

    /// Forgets the last folder, as folders may have been removed.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Returns the state of the entry at `path` (empty: the folder itself); of a link, its own.
    pub fn stat(&mut self, path: &[u8]) -> Result<FileStat, Errno> {
        if path.is_empty() {
            return fstat(&self.root);
        }
        let (folder, name) = self.parent(path)?;
        fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Whether no entry is at `path` any more, though the folder above it is there, or the nearest
    /// one that has not been removed with it. That one is on `device`, if known: otherwise a disk
    /// may have been unmounted.
    pub fn lacks(&mut self, path: &[u8], device: Option<u64>) -> bool {
        self.forget();
        let mut above = path;
        while matches!(self.stat(above), Err(Errno::ENOENT)) {
            above = parent_of(above).unwrap_or_default();
            if let Ok(found) = self.stat(above) {
                let is_folder = found.st_mode & libc::S_IFMT == libc::S_IFDIR;
                // an open folder can have been removed
                let is_there = is_folder && found.st_nlink > 0;
                return is_there && device.is_none_or(|device| found.st_dev == device);
            }
        }
        false
    }

    /// Opens the regular file at `path` for reading.
    pub fn open_file(&mut self, path: &[u8]) -> io::Result<File> {
        Ok(self.open_found(path)?.0)
    }

    /// Opens it and returns its state, too.
    pub fn open_found(&mut self, path: &[u8]) -> io::Result<(File, FileStat)> {
        let (folder, name) = self.parent(path)?;
        let file = File::from(openat(folder, name, READ, Mode::empty())?);
        let found = regular(&file)?;
        Ok((file, found))
    }

    /// Returns the target of the link at `path`.
    pub fn read_link(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (folder, name) = self.parent(path)?;
        Ok(readlinkat(folder, name)?.as_bytes().to_vec())
    }

    /// Returns the names in the folder at `path` (empty: this one), in order, without lcsync's own.
    pub fn names(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut names = self.all_names(path)?;
        names.retain(|name| !name.starts_with(PARTIAL_PREFIX.as_bytes()));
        names.sort_unstable();
        Ok(names)
    }

    /// Returns them with lcsync's own, in any order.
    pub fn all_names(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        if path.is_empty() && !self.chosen.is_empty() {
            return Ok(self.chosen.keys().cloned().collect());
        }
        let fd = if path.is_empty() {
            openat(&self.root, ".", FOLDER, Mode::empty())?
        } else {
            let (folder, name) = self.parent(path)?;
            openat(folder, name, FOLDER, Mode::empty())?
        };
        let mut names = Vec::new();
        for entry in Dir::from_fd(fd)?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if is_component(name) {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }
}

/// Whether `name` can be a name in a folder.
fn is_component(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/')
}

/// Returns the absolute path of a file or folder, with the name that the user gave: of a link, its
/// own. `.` and `..` have none, so such a path is resolved.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    match path.file_name() {
        Some(_) => std::path::absolute(path),
        None => Ok(real),
    }
}

/// Opens the regular file `path`, which the user has named: links are followed.
pub fn open_named(path: &Path) -> io::Result<File> {
    let flags = READ.difference(OFlag::O_NOFOLLOW);
    let file = File::from(openat(AT_FDCWD, path, flags, Mode::empty())?);
    regular(&file)?;
    Ok(file)
}

/// Returns the state of an open file, if it is a regular one.
pub fn regular(file: impl AsFd) -> io::Result<FileStat> {
    let stat = fstat(file)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        let message = "not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(stat)
}

/// Returns mode and modification time.
#[must_use]
pub fn metadata_of(stat: &FileStat) -> Metadata {
    Metadata {
        mode: (stat.st_mode & 0o7777) as u16,
        mtime: stat.st_mtime,
        nanos: stat.st_mtime_nsec.clamp(0, 999_999_999) as u32,
    }
}

/// Returns kind and number of a device, FIFO or socket, if it is one.
#[must_use]
pub fn node_of(stat: &FileStat) -> Option<Node> {
    let file_type = stat.st_mode & libc::S_IFMT;
    match file_type {
        libc::S_IFBLK | libc::S_IFCHR => Some(Node {
            file_type,
            device: stat.st_rdev,
        }),
        libc::S_IFIFO | libc::S_IFSOCK => Some(Node {
            file_type,
            device: 0,
        }),
        _ => None,
    }
}

/// Numbers of a user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    #[must_use]
    pub fn of(stat: &FileStat) -> Self {
        Self {
            user: stat.st_uid,
            group: stat.st_gid,
        }
    }
}

fn walk(root: &OwnedFd, folder: &[u8]) -> Result<OwnedFd, Errno> {
    let mut at = None;
    for name in folder.split(|c| *c == b'/') {
        if !is_component(name) {
            return Err(Errno::EINVAL);
        }
        let from = at.as_ref().unwrap_or(root);
        at = Some(openat(
            from,
            OsStr::from_bytes(name),
            FOLDER,
            Mode::empty(),
        )?);
    }
    at.ok_or(Errno::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_removed_is_told_from_what_is_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("folder/sub")).unwrap();
        fs::write(at("folder/f"), b"").unwrap();
        symlink("sub", at("folder/link")).unwrap();
        let mut folder = Folder::open(&at("folder")).unwrap();
        let device = folder.stat(b"").unwrap().st_dev;
        for path in [&b"gone"[..], b"sub/gone", b"gone/sub/f"] {
            assert!(folder.lacks(path, None) && folder.lacks(path, Some(device)));
            assert!(!folder.lacks(path, Some(device ^ 1)), "another disk");
        }
        for path in [&b"f"[..], b"sub", b"f/gone", b"link/gone", b""] {
            assert!(!folder.lacks(path, None), "{:?}", OsStr::from_bytes(path));
        }
        fs::remove_dir_all(at("folder")).unwrap();
        assert!(!folder.lacks(b"f", None), "all of it");
    }

    #[test]
    fn nothing_outside_is_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("folder/sub")).unwrap();
        fs::create_dir(at("outside")).unwrap();
        fs::write(at("outside/f"), b"secret").unwrap();
        fs::write(at("folder/sub/f"), b"ours").unwrap();
        symlink("../outside", at("folder/link")).unwrap();
        symlink("../outside/f", at("folder/file")).unwrap();
        nix::unistd::mkfifo(&at("folder/pipe"), Mode::S_IRWXU).unwrap();
        let mut folder = Folder::open(&at("folder")).unwrap();
        assert!(folder.open_file(b"sub/f").is_ok());
        for path in [
            &b"file"[..],
            b"link/f",
            b"pipe",
            b"sub",
            b"../outside/f",
            b"/etc/passwd",
            b"sub/../../outside/f",
        ] {
            assert!(
                folder.open_file(path).is_err(),
                "{:?}",
                OsStr::from_bytes(path)
            );
        }
        assert!(folder.names(b"link").is_err());
        assert_eq!(folder.read_link(b"link").unwrap(), b"../outside");
        // the same below folders that were chosen one by one, and nothing beside them
        let chosen = ["folder/sub", "folder/pipe"].map(at);
        let mut folder = Folder::of_paths(&chosen).unwrap();
        assert_eq!(folder.names(b"").unwrap(), [&b"pipe"[..], b"sub"]);
        assert_eq!(folder.names(b"sub").unwrap(), [b"f"]);
        assert!(folder.open_file(b"sub/f").is_ok());
        for path in [
            &b"pipe"[..],
            b"file",
            b"link/f",
            b"outside/f",
            b"etc/passwd",
        ] {
            assert!(folder.open_file(path).is_err());
        }
        // a link has its own name, for a folder and for all below it
        symlink("sub", at("folder/named")).unwrap();
        let chosen = ["folder/named", "folder/file"].map(at);
        let mut folder = Folder::of_paths(&chosen).unwrap();
        assert_eq!(folder.names(b"").unwrap(), [&b"file"[..], b"named"]);
        assert!(folder.open_file(b"named/f").is_ok() && folder.open_file(b"file").is_ok());
        assert!(folder.open_file(b"sub/f").is_err());
        assert!(Folder::of_paths(&[]).is_err());
        assert!(open_named(&at("folder/file")).is_ok(), "the user named it");
        assert!(open_named(&at("folder/pipe")).is_err());
    }
}
