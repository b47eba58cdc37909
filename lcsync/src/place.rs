//! Writing below a folder and nowhere else.
//!
//! Paths are walked as [`folder`](crate::folder) does: links planted in DEST, at any time, lead
//! nothing out of it. Files are made in a hidden partial folder on the same file system, and
//! renamed into place when they are whole.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, openat, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, mkdirat, mknodat, umask,
};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{
    AccessFlags, Gid, Uid, UnlinkatFlags, faccessat, fchownat, geteuid, linkat, symlinkat, syncfs,
    unlinkat,
};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use crate::folder::{FOLDER, Folder, Owner, READ, metadata_of, node_of, regular};
use crate::listing::{Entry, Kind, Metadata, Node, PARTIAL_PREFIX, is_plain_name};

/// Entry at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A regular file of this size.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// A device, socket or pipe.
    Node(Node),
    /// None of these.
    Other,
}

/// A folder to write below.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    folder: Folder,
    partial: Option<Arc<Partial>>,
    drafts: Option<Arc<Drafts>>,
    /// Bits that are taken from a mode.
    mode_mask: u32,
}

/// A file made in its final folder, without a name until it is whole.
#[derive(Debug)]
pub struct Draft {
    pub file: File,
    /// A hidden name, if the file system makes no files without one.
    hidden: Option<Vec<u8>>,
}

/// Hidden names of drafts, of one run of the program.
#[derive(Debug)]
pub struct Drafts {
    /// Part of each name: it identifies the run later.
    run: String,
    next: AtomicU64,
    /// Whether files without a name can be made, and named later.
    are_nameless: AtomicBool,
    /// Shared while a name is given or taken; the end of the run locks it alone, for good.
    naming: RwLock<()>,
    named: Mutex<HashSet<PathBuf>>,
}

impl Drafts {
    pub fn new() -> io::Result<Self> {
        let run = getrandom::u64().map_err(|_| io::Error::other("no randomness"))?;
        let nameless = geteuid().is_root() || Path::new("/proc/self/fd").exists();
        Ok(Self {
            run: format!("{run:016x}"),
            next: AtomicU64::new(0),
            are_nameless: AtomicBool::new(nameless),
            naming: RwLock::new(()),
            named: Mutex::default(),
        })
    }

    fn next_name(&self) -> Vec<u8> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{PARTIAL_PREFIX}-{}-{n}", self.run).into_bytes()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all hidden names. From now on no draft gets a name, as the process is about to end.
    pub fn end(&self) {
        std::mem::forget(self.naming.write());
        for path in self.list().drain() {
            // it may be gone
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An entry with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub found: Found,
    pub metadata: Metadata,
    pub owner: Owner,
}

/// An open entry: reads and changes concern this one, even if another has taken its path.
#[derive(Debug)]
pub struct Opened {
    fd: OwnedFd,
    /// Whether `fd` can be read; else it only identifies the entry (O_PATH).
    is_readable: bool,
    mode_mask: u32,
}

/// The folder of unfinished files; locked against a second receiver.
#[derive(Debug)]
struct Partial {
    name: Vec<u8>,
    folder: OwnedFd,
    _lock: Flock<OwnedFd>,
    /// Whether its mark names the run with hidden names.
    is_marked: AtomicBool,
}

/// Prefix of a mark, before the number of a run: drafts of this run may have hidden names.
const MARK: &str = "drafts-";

const STAGE: OFlag = OFlag::O_RDWR
    .union(OFlag::O_CREAT)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The process's umask.
#[must_use]
pub fn current_umask() -> u16 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let read = line.and_then(|mask| u16::from_str_radix(mask.trim(), 8).ok());
    read.unwrap_or_else(|| {
        // for a moment, files that other threads make have no mask
        let mask = umask(Mode::empty());
        umask(mask);
        mask.bits() as u16
    })
}

/// Checks that files can be made at `path`, or in the nearest existing folder above it.
pub fn check_writable(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let here = Path::new(".");
    let folder = path.ancestors().find(|p| p.is_dir()).unwrap_or(here);
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, folder, wanted, AtFlags::AT_EACCESS)
        .map_err(|e| (folder.to_path_buf(), e.into()))
}

/// Checks that a file may replace the entry at `path`: no device, FIFO or socket, nor a link to
/// one.
///
/// # Errors
/// A sentence that names the path and its kind.
pub fn check_replaceable(path: &Path) -> Result<(), String> {
    let Ok(found) = fs::metadata(path) else {
        return Ok(());
    };
    let kind = match found.file_type() {
        t if t.is_block_device() || t.is_char_device() => "device",
        t if t.is_fifo() => "FIFO",
        t if t.is_socket() => "socket",
        _ => return Ok(()),
    };
    let path = path.display();
    let instead = match kind {
        "device" => "into a block device, `lcsync lc:NAME DEVICE --write-devices` writes",
        _ => "`lcsync lc:NAME -` writes to a pipe",
    };
    Err(format!(
        "{path}: is a {kind}; lcsync replaces only files ({instead})"
    ))
}

impl Opened {
    /// Opens the entry at `path` (empty: the folder itself), if it exists.
    pub fn at(folder: &mut Folder, path: &[u8], mode_mask: u32) -> io::Result<Option<Self>> {
        let is_gone = |e| matches!(e, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP);
        let (folder, name) = match path {
            b"" => (folder.fd(), OsStr::new(".")),
            _ => match folder.parent(path) {
                Err(e) if is_gone(e) => return Ok(None),
                parent => parent?,
            },
        };
        match Self::of(folder, name, mode_mask) {
            Err(e) if is_gone(e) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    fn of(folder: &OwnedFd, name: &OsStr, mode_mask: u32) -> Result<Self, Errno> {
        // opening a device or FIFO like this has no effect on it
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(folder, name, flags, Mode::empty())?;
        let found = fstat(&fd)?;
        let readable = match found.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR => openat(folder, name, READ, Mode::empty()).ok(),
            _ => None,
        };
        if let Some(fd) = readable {
            let now = fstat(&fd)?;
            if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino) {
                return Ok(Self {
                    fd,
                    is_readable: true,
                    mode_mask,
                });
            }
        }
        Ok(Self {
            fd,
            is_readable: false,
            mode_mask,
        })
    }

    /// Takes an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self {
            fd: file.try_clone()?.into(),
            is_readable: true,
            mode_mask: 0,
        })
    }

    /// Returns the descriptor, or, where that cannot be used, a path to just this entry.
    pub fn descriptor(&self) -> Result<&OwnedFd, String> {
        match self.is_readable {
            true => Ok(&self.fd),
            false => Err(format!("/proc/self/fd/{}", self.fd.as_raw_fd())),
        }
    }

    /// Returns the number of the device, and of the entry on it.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Returns its present state.
    pub fn standing(&self) -> io::Result<Standing> {
        let stat = fstat(&self.fd)?;
        let read_link = || Ok(readlinkat(&self.fd, "")?.as_bytes().to_vec());
        Standing::of(&stat, read_link)
    }

    /// Returns its present `stat`.
    pub fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&self.fd)?)
    }

    /// Returns the file for reading, if it is a regular one that this user may read.
    pub fn file(&self) -> Option<io::Result<File>> {
        let is_file = || regular(&self.fd).is_ok();
        let readable = (self.is_readable && is_file()).then_some(&self.fd);
        readable.map(|fd| fd.try_clone().map(File::from))
    }

    /// Whether it has no other hard link.
    pub fn has_one_name(&self) -> io::Result<bool> {
        Ok(fstat(&self.fd)?.st_nlink == 1)
    }

    /// Sets the modification time and, unless it is a link, the permission bits.
    pub fn set_metadata(&self, metadata: &Metadata, link: bool) -> io::Result<()> {
        if !link {
            self.set_mode(metadata.mode)?;
        }
        self.set_time(metadata)
    }

    /// Removes permission bits that are not among `bits`; special ones stay.
    pub fn narrow(&self, bits: u16) -> io::Result<()> {
        let there = fstat(&self.fd)?.st_mode;
        self.change_mode(there & (0o7000 | u32::from(bits)))
    }

    /// Sets the modification time.
    pub fn set_time(&self, metadata: &Metadata) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: metadata.mtime,
                tv_nsec: metadata.nanos.into(),
            },
        };
        let itself = rustix::fs::AtFlags::EMPTY_PATH;
        Ok(rustix::fs::utimensat(&self.fd, "", &times, itself)?)
    }

    /// Sets the permission bits.
    pub fn set_mode(&self, bits: u16) -> io::Result<()> {
        self.change_mode(u32::from(bits) & self.mode_mask)
    }

    fn change_mode(&self, bits: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(bits);
        if self.is_readable {
            return Ok(fchmod(&self.fd, mode)?);
        }
        // of a link it would be the target's
        if fstat(&self.fd)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let itself = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(fchmodat(
            AT_FDCWD,
            itself.as_str(),
            mode,
            FchmodatFlags::FollowSymlink,
        )?)
    }

    /// Changes its user or group.
    pub fn set_owner(&self, (user, group): (Option<u32>, Option<u32>)) -> io::Result<()> {
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        Ok(fchownat(&self.fd, "", user, group, AtFlags::AT_EMPTY_PATH)?)
    }
}

/// An entry that is whole as soon as it is made.
#[derive(Debug, Clone, Copy)]
pub enum Small<'a> {
    /// A symbolic link with this target.
    Link(&'a [u8]),
    /// A device, FIFO or socket.
    Node(Node),
}

impl Small<'_> {
    fn make(self, folder: &OwnedFd, name: &OsStr, mode_mask: u32) -> io::Result<Opened> {
        let file_type = match self {
            Self::Link(target) => {
                symlinkat(OsStr::from_bytes(target), folder, name)?;
                libc::S_IFLNK
            }
            Self::Node(node) => {
                let kind = SFlag::from_bits_truncate(node.file_type);
                let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                mknodat(folder, name, kind, mode, node.device)?;
                node.file_type
            }
        };
        let made = Opened::of(folder, name, mode_mask)?;
        if fstat(&made.fd)?.st_mode & libc::S_IFMT != file_type {
            return Err(io::Error::other("something has come into its place"));
        }
        Ok(made)
    }
}

impl Standing {
    fn of(stat: &FileStat, read_link: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Self> {
        let found = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Found::File(u64::try_from(stat.st_size).unwrap_or(0)),
            libc::S_IFDIR => Found::Folder,
            libc::S_IFLNK => Found::Link(read_link()?),
            _ => node_of(stat).map_or(Found::Other, Found::Node),
        };
        Ok(Self {
            found,
            metadata: metadata_of(stat),
            owner: Owner::of(stat),
        })
    }
}

impl Place {
    /// Opens the existing folder `path`. Links may lead to it, as the user has named it.
    pub fn open(path: &Path) -> io::Result<Self> {
        // set-user-id and the like never come from the network
        Ok(Self {
            path: path.to_path_buf(),
            folder: Folder::open(path)?,
            partial: None,
            drafts: None,
            mode_mask: 0o777,
        })
    }

    /// Opens the same folder for another thread.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            folder: self.folder.another()?,
            partial: self.partial.clone(),
            drafts: self.drafts.clone(),
            mode_mask: self.mode_mask,
        })
    }

    /// Takes set-user-id, set-group-id and sticky bits, too.
    pub fn allow_special_modes(&mut self) {
        self.mode_mask = 0o7777;
    }

    /// Returns the name of the partial folder for `label`.
    #[must_use]
    pub fn partial_name(label: &[u8]) -> String {
        if label.is_empty() {
            return PARTIAL_PREFIX.into();
        }
        format!("{PARTIAL_PREFIX}.{}", &blake3::hash(label).to_hex()[..16])
    }

    /// Opens or makes the partial folder for `label` (empty for a whole tree, else a file's name).
    pub fn open_partial(&mut self, label: &[u8]) -> io::Result<()> {
        let name = Self::partial_name(label).into_bytes();
        let root = self.folder.fd();
        match mkdirat(root, OsStr::from_bytes(&name), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let folder = openat(root, OsStr::from_bytes(&name), FOLDER, Mode::empty())?;
        // in a folder like /tmp another user may have made it, and could change files in it
        if fstat(&folder)?.st_uid != geteuid().as_raw() {
            let text = format!(
                "{} belongs to somebody else",
                String::from_utf8_lossy(&name)
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let lock = Flock::lock(folder.try_clone()?, FlockArg::LockExclusiveNonblock).map_err(
            |(_, e)| {
                if e == Errno::EWOULDBLOCK {
                    let text = "another lcsync is writing here";
                    return io::Error::new(io::ErrorKind::ResourceBusy, text);
                }
                e.into()
            },
        )?;
        self.partial = Some(Arc::new(Partial {
            name,
            folder,
            _lock: lock,
            is_marked: AtomicBool::new(false),
        }));
        Ok(())
    }

    /// Allows drafts, and removes drafts of a killed run. The partial folder must be open.
    pub fn allow_drafts(&mut self, drafts: Arc<Drafts>) -> io::Result<()> {
        self.drafts = Some(drafts);
        let marks: Vec<_> = self
            .staged_names()?
            .into_iter()
            .filter(|name| name.starts_with(MARK.as_bytes()))
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        let prefixes: Vec<_> = marks
            .iter()
            .map(|mark| [PARTIAL_PREFIX.as_bytes(), b"-", &mark[MARK.len()..], b"-"].concat())
            .collect();
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            // unreadable folders have no removable drafts
            if let Ok(below) = self.remove_drafts(&path, &prefixes) {
                waiting.extend(below);
            }
        }
        for mark in marks {
            let mark = OsStr::from_bytes(&mark);
            unlinkat(self.staging()?, mark, UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(())
    }

    /// Removes entries with these prefixes from the folder at `path`; returns the folders in it.
    fn remove_drafts(&mut self, path: &[u8], prefixes: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let fd = match path {
            b"" => openat(self.folder.fd(), ".", FOLDER, Mode::empty())?,
            _ => {
                let (folder, name) = self.folder.parent(path)?;
                openat(folder, name, FOLDER, Mode::empty())?
            }
        };
        let mut below = Vec::new();
        let mut left = Vec::new();
        for entry in Dir::from_fd(fd.try_clone()?)?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                left.push(name.to_vec());
            } else if is_plain_name(name) && entry.file_type().is_none_or(|t| t == Type::Directory)
            {
                below.push(match path {
                    b"" => name.to_vec(),
                    _ => [path, b"/", name].concat(),
                });
            }
        }
        for name in left {
            unlinkat(&fd, OsStr::from_bytes(&name), UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(below)
    }

    /// Begins a file for `path`.
    pub fn draft(&mut self, path: &[u8]) -> io::Result<Draft> {
        let drafts = self.drafts.as_ref().ok_or_else(no_partial_folder)?;
        let (folder, name) = self.folder.parent(path)?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        if drafts.are_nameless.load(Ordering::Relaxed) {
            match openat(folder, ".", flags | OFlag::O_TMPFILE, mode) {
                // not on this file system, or by this kernel
                Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
                    drafts.are_nameless.store(false, Ordering::Relaxed);
                }
                opened => {
                    return Ok(Draft {
                        file: File::from(opened?),
                        hidden: None,
                    });
                }
            }
        }
        let naming = drafts.naming.read();
        self.partial
            .as_ref()
            .ok_or_else(no_partial_folder)?
            .mark(&drafts.run)?;
        let hidden = drafts.next_name();
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = openat(folder, OsStr::from_bytes(&hidden), flags, mode)?;
        drafts
            .list()
            .insert(beside(&self.path, path, name, &hidden));
        drop(naming);
        Ok(Draft {
            file: File::from(file),
            hidden: Some(hidden),
        })
    }

    /// Gives a whole draft its name, in place of any file or link; tries an empty place first,
    /// unless it `replaces` one.
    pub fn publish(&mut self, path: &[u8], draft: &Draft, replaces: bool) -> io::Result<()> {
        let drafts = self.drafts.as_ref().ok_or_else(no_partial_folder)?;
        let (folder, name) = self.folder.parent(path)?;
        let _naming = drafts.naming.read();
        if let Some(hidden) = &draft.hidden {
            renameat(folder, OsStr::from_bytes(hidden), folder, name)?;
            drafts
                .list()
                .remove(&beside(&self.path, path, name, hidden));
            return Ok(());
        }
        if !replaces {
            match link(&draft.file, folder, name) {
                // an entry has come meanwhile
                Err(Errno::EEXIST) => {}
                linked => return Ok(linked?),
            }
        }
        self.partial
            .as_ref()
            .ok_or_else(no_partial_folder)?
            .mark(&drafts.run)?;
        let hidden = drafts.next_name();
        let hidden = OsStr::from_bytes(&hidden);
        link(&draft.file, folder, hidden)?;
        renameat(folder, hidden, folder, name).map_err(|error| {
            let _ = unlinkat(folder, hidden, UnlinkatFlags::NoRemoveDir);
            error.into()
        })
    }

    /// Removes a draft's hidden name.
    pub fn discard(&mut self, path: &[u8], draft: &Draft) -> io::Result<()> {
        let (Some(hidden), Some(drafts)) = (&draft.hidden, &self.drafts) else {
            return Ok(());
        };
        let (folder, name) = self.folder.parent(path)?;
        unlinkat(
            folder,
            OsStr::from_bytes(hidden),
            UnlinkatFlags::NoRemoveDir,
        )?;
        drafts
            .list()
            .remove(&beside(&self.path, path, name, hidden));
        Ok(())
    }

    /// Removes the partial folder with everything in it.
    pub fn remove_partial(&mut self) -> io::Result<()> {
        match self.partial.take() {
            Some(partial) => remove_all(self.folder.fd(), &partial.name),
            None => Ok(()),
        }
    }

    /// Removes the folder of partial files if it has none.
    pub fn remove_empty_partial(&mut self) {
        if let Some(partial) = &self.partial {
            let name = OsStr::from_bytes(&partial.name);
            // it is not empty: the next run continues from it
            let _ = unlinkat(self.folder.fd(), name, UnlinkatFlags::RemoveDir);
        }
    }

    /// Returns the entry at `path`, if any; `None` if the path leads through a non-folder.
    pub fn look(&mut self, path: &[u8]) -> io::Result<Option<Found>> {
        Ok(self.standing(path)?.map(|there| there.found))
    }

    /// Returns it with modes, times and owner.
    pub fn standing(&mut self, path: &[u8]) -> io::Result<Option<Standing>> {
        match self.folder.stat(path) {
            Ok(stat) => Standing::of(&stat, || self.folder.read_link(path)).map(Some),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns permission bits and modification time at `path`.
    pub fn metadata(&mut self, path: &[u8]) -> io::Result<Metadata> {
        Ok(metadata_of(&self.folder.stat(path)?))
    }

    /// Opens the regular file at `path` for reading.
    pub fn open_file(&mut self, path: &[u8]) -> io::Result<File> {
        self.folder.open_file(path)
    }

    /// Opens the regular file at `path` for reading and writing.
    pub fn open_to_write(&mut self, path: &[u8]) -> io::Result<File> {
        let (folder, name) = self.folder.parent(path)?;
        let flags = READ | OFlag::O_RDWR;
        let file = File::from(openat(folder, name, flags, Mode::empty())?);
        regular(&file)?;
        Ok(file)
    }

    /// Makes a folder with these permission bits and those that its owner needs to fill it, as the
    /// umask allows. An existing one is fine.
    pub fn make_folder(&mut self, path: &[u8], bits: u16) -> io::Result<()> {
        let (folder, name) = self.folder.parent(path)?;
        let mode = Mode::from_bits_truncate(u32::from(bits & 0o777 | 0o700));
        match mkdirat(folder, name, mode) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an entry in the way: links and files; folders if they are empty or with `force`.
    pub fn make_way(&mut self, path: &[u8], force: bool) -> io::Result<()> {
        let folder_there = self.look(path)? == Some(Found::Folder);
        let (folder, name) = self.folder.parent(path)?;
        let result = if !folder_there {
            unlinkat(folder, name, UnlinkatFlags::NoRemoveDir).map_err(io::Error::from)
        } else if force {
            remove_all(folder, name.as_bytes())
        } else {
            unlinkat(folder, name, UnlinkatFlags::RemoveDir).map_err(io::Error::from)
        };
        if folder_there {
            self.folder.forget();
        }
        match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes the folder at `path`, which contains at most entries of lcsync itself.
    pub fn remove_folder(&mut self, path: &[u8]) -> io::Result<()> {
        let is_own = |name: &Vec<u8>| name.starts_with(PARTIAL_PREFIX.as_bytes());
        for name in self.folder.all_names(path)?.into_iter().filter(is_own) {
            let mut own = [path, b"/"].concat();
            own.extend(name);
            let (folder, name) = self.folder.parent(&own)?;
            remove_all(folder, name.as_bytes())?;
        }
        self.make_way(path, false)
    }

    /// Makes a symbolic link, in place of any file or link of that name.
    pub fn make_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        self.make_small(path, Small::Link(target), true, |_| Ok(()))
    }

    /// Makes a link or node; if it `replaces`, in place of a non-folder. `finish` sets its
    /// metadata.
    pub fn make_small<E: From<io::Error>>(
        &mut self,
        path: &[u8],
        small: Small<'_>,
        replaces: bool,
        finish: impl Fn(&Opened) -> Result<(), E>,
    ) -> Result<(), E> {
        let mask = self.mode_mask;
        if replaces {
            let temporary = Self::staged_name(path);
            let temporary = OsStr::from_bytes(&temporary);
            let partial = self.partial.as_ref();
            let staging = &partial.ok_or_else(no_partial_folder)?.folder;
            match unlinkat(staging, temporary, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
            finish(&small.make(staging, temporary, mask)?)?;
            let (folder, name) = self.folder.parent(path).map_err(io::Error::from)?;
            match renameat(staging, temporary, folder, name) {
                // nothing of it can be half-written
                Err(Errno::EXDEV) => drop(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)),
                renamed => return Ok(renamed.map_err(io::Error::from)?),
            }
        }
        let (folder, name) = self.folder.parent(path).map_err(io::Error::from)?;
        finish(&small.make(folder, name, mask)?)
    }

    /// Makes a hard link `path` to `from`; if it `replaces`, in place of any file or link.
    pub fn make_hard_link(&mut self, from: &[u8], path: &[u8], replaces: bool) -> io::Result<()> {
        let none = AtFlags::empty();
        let mut old = self.folder.another()?;
        let (old, old_name) = old.parent(from)?;
        let (folder, name) = self.folder.parent(path)?;
        if !replaces {
            return Ok(linkat(old, old_name, folder, name, none)?);
        }
        let drafts = self.drafts.as_ref().ok_or_else(no_partial_folder)?;
        let _naming = drafts.naming.read();
        let partial = self.partial.as_ref();
        partial.ok_or_else(no_partial_folder)?.mark(&drafts.run)?;
        let hidden = drafts.next_name();
        let hidden = OsStr::from_bytes(&hidden);
        linkat(old, old_name, folder, hidden, none)?;
        let renamed = renameat(folder, hidden, folder, name);
        if renamed.is_err() {
            let _ = unlinkat(folder, hidden, UnlinkatFlags::NoRemoveDir);
        }
        Ok(renamed?)
    }

    /// Opens the partial file of `path`, if it exists.
    pub fn open_staged(&mut self, path: &[u8]) -> io::Result<Option<File>> {
        match self.open_own(&Self::staged_name(path), READ) {
            Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a partial file. If it was whole, its mode may forbid its owner.
    fn open_own(&self, name: &[u8], flags: OFlag) -> io::Result<File> {
        let (staging, name) = (self.staging()?, OsStr::from_bytes(name));
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let opened = match openat(staging, name, flags, mode) {
            Err(Errno::EACCES) => {
                fchmodat(staging, name, mode, FchmodatFlags::FollowSymlink)?;
                openat(staging, name, flags, mode)
            }
            other => other,
        };
        Ok(File::from(opened?))
    }

    /// Names of all partial files, those of other paths included.
    pub fn staged_names(&self) -> io::Result<HashSet<Vec<u8>>> {
        let folder = openat(self.staging()?, ".", FOLDER, Mode::empty())?;
        let mut names = HashSet::new();
        for entry in Dir::from_fd(folder)?.iter() {
            names.insert(entry?.file_name().to_bytes().to_vec());
        }
        Ok(names)
    }

    /// Opens or makes the partial file of `path` for writing, and sets its `size`, if given.
    pub fn stage(&mut self, path: &[u8], size: Option<u64>) -> io::Result<File> {
        let file = self.open_own(&Self::staged_name(path), STAGE)?;
        if let Some(size) = size {
            file.set_len(size)?;
        }
        Ok(file)
    }

    /// Renames the whole partial file of `path` into place.
    pub fn install(&mut self, path: &[u8]) -> io::Result<()> {
        let staged = Self::staged_name(path);
        let partial = self.partial.as_ref();
        let staging = &partial.ok_or_else(no_partial_folder)?.folder;
        let (folder, name) = self.folder.parent(path)?;
        match renameat(staging, OsStr::from_bytes(&staged), folder, name) {
            Err(Errno::EXDEV) => install_by_copy(staging, &staged, folder, name),
            other => other.map_err(io::Error::from),
        }
    }

    /// Opens an entry of any kind at `path` (empty: the folder itself) to check it and set its
    /// metadata. `None` as for [`Place::look`].
    pub fn open_entry(&mut self, path: &[u8]) -> io::Result<Option<Opened>> {
        Opened::at(&mut self.folder, path, self.mode_mask)
    }

    /// Free bytes for writing, if known.
    pub fn room(&self) -> io::Result<Option<u64>> {
        let stat = fstatvfs(self.folder.fd())?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        Ok((stat.blocks() > 0).then_some(free))
    }

    /// Sets the permission bits of the file or folder at `path`, if it exists.
    pub fn set_mode(&mut self, path: &[u8], bits: u16) -> io::Result<()> {
        match self.open_entry(path)? {
            Some(opened) => opened.set_mode(bits),
            None => Ok(()),
        }
    }

    /// Whether the folder at `path` is on the file system of the top.
    pub fn is_on_its_file_system(&mut self, path: &[u8]) -> bool {
        let device = |stat: FileStat| stat.st_dev;
        let top = self.folder.stat(b"").map(device);
        top == self.folder.stat(path).map(device)
    }

    /// Names in the folder at `path` (empty: the top), without lcsync's own.
    pub fn names(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.folder.names(path)
    }

    /// Returns paths that are not among `entries`; a folder stands for all its entries.
    pub fn extraneous(&mut self, entries: &[Entry]) -> io::Result<Vec<Vec<u8>>> {
        let wanted: HashSet<&[u8]> = entries.iter().map(|e| e.path.as_slice()).collect();
        let folders = entries
            .iter()
            .filter(|e| e.kind == Kind::Folder)
            .map(|e| e.path.as_slice());
        let mut found = Vec::new();
        for folder in std::iter::once(&b""[..]).chain(folders) {
            // a dry run has not made it
            if !folder.is_empty() && self.look(folder)? != Some(Found::Folder) {
                continue;
            }
            for name in self.names(folder)? {
                let path = if folder.is_empty() {
                    name
                } else {
                    [folder, b"/", &name].concat()
                };
                if !wanted.contains(path.as_slice()) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// Waits until everything written is on disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(self.folder.fd())?)
    }

    /// Waits until the folder of `path` is on disk, and with it a rename.
    pub fn sync_parent(&mut self, path: &[u8]) -> io::Result<()> {
        let (folder, _) = self.folder.parent(path)?;
        Ok(nix::unistd::fsync(folder)?)
    }

    fn staging(&self) -> io::Result<&OwnedFd> {
        let partial = self.partial.as_ref().map(|p| &p.folder);
        partial.ok_or_else(no_partial_folder)
    }

    /// Returns the name of a path's partial file, equal in every run to continue a transfer.
    #[must_use]
    pub fn staged_name(path: &[u8]) -> Vec<u8> {
        blake3::hash(path).to_hex().as_bytes()[..32].to_vec()
    }
}

impl Partial {
    /// Marks, for later runs, that drafts of this run may be left if it is killed.
    fn mark(&self, run: &str) -> io::Result<()> {
        if !self.is_marked.load(Ordering::Acquire) {
            let mark = format!("{MARK}{run}");
            // threads may do this at once: the later ones open the first one's file
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            openat(&self.folder, mark.as_str(), STAGE, mode)?;
            self.is_marked.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Returns the path of the entry `hidden` beside `path`, whose last component is `name`.
fn beside(root: &Path, path: &[u8], name: &OsStr, hidden: &[u8]) -> PathBuf {
    let folder = &path[..path.len() - name.len()];
    root.join(OsStr::from_bytes(folder))
        .join(OsStr::from_bytes(hidden))
}

/// Gives an open file a name.
fn link(file: &File, folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    /// Whether this process may not do it by the descriptor alone.
    static BY_PATH: AtomicBool = AtomicBool::new(false);
    if !BY_PATH.load(Ordering::Relaxed) {
        match linkat(file, "", folder, name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT) => BY_PATH.store(true, Ordering::Relaxed),
            linked => return linked,
        }
    }
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, itself.as_str(), folder, name, follow)
}

fn no_partial_folder() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no partial folder")
}

/// Returns the modification time in the standard library's type.
#[must_use]
pub fn system_time(metadata: &Metadata) -> SystemTime {
    let nanos = Duration::from_nanos(metadata.nanos.into());
    let seconds = Duration::from_secs(metadata.mtime.unsigned_abs());
    let whole = if metadata.mtime < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|t| t.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// Copies next to the target first, so that even in a mount point the last step is a rename.
fn install_by_copy(
    staging: &OwnedFd,
    staged: &[u8],
    folder: &OwnedFd,
    name: &OsStr,
) -> io::Result<()> {
    let mut from = File::from(openat(
        staging,
        OsStr::from_bytes(staged),
        READ,
        Mode::empty(),
    )?);
    let temporary = [PARTIAL_PREFIX.as_bytes(), b"-", staged].concat();
    let temporary = OsStr::from_bytes(&temporary);
    // left by a killed run, or planted
    let _ = unlinkat(folder, temporary, UnlinkatFlags::NoRemoveDir);
    let copied = copy_beside(&mut from, folder, temporary)
        .and_then(|()| Ok(renameat(folder, temporary, folder, name)?));
    if copied.is_err() {
        let _ = unlinkat(folder, temporary, UnlinkatFlags::NoRemoveDir);
        return copied;
    }
    unlinkat(
        staging,
        OsStr::from_bytes(staged),
        UnlinkatFlags::NoRemoveDir,
    )?;
    Ok(())
}

fn copy_beside(from: &mut File, folder: &OwnedFd, temporary: &OsStr) -> io::Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut to = File::from(openat(folder, temporary, STAGE | OFlag::O_EXCL, mode)?);
    let meta = from.metadata()?;
    io::copy(from, &mut to)?;
    to.set_permissions(meta.permissions())?;
    to.set_modified(meta.modified()?)?;
    to.sync_all()
}

/// Removes a folder with everything below it, without following links. Its own stack keeps deep
/// trees from exhausting the thread's stack or descriptors.
fn remove_all(folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    let name = OsStr::from_bytes(name);
    let file = |result| match result {
        Err(Errno::EISDIR | Errno::EPERM) => Ok(false),
        other => other.map(|()| true),
    };
    if file(unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir))? {
        return Ok(());
    }
    let mut top = Folder::of(openat(&folder, name, FOLDER, Mode::empty())?);
    let mut open = vec![(Vec::new(), top.all_names(b"")?)];
    while let Some((path, names)) = open.last_mut() {
        let Some(name) = names.pop() else {
            // the cached folder above is another one now
            top.forget();
            if !path.is_empty() {
                let (above, name) = top.parent(path)?;
                unlinkat(above, name, UnlinkatFlags::RemoveDir)?;
            }
            open.pop();
            continue;
        };
        let path = match path.as_slice() {
            b"" => name,
            path => [path, b"/", &name].concat(),
        };
        let (above, name) = top.parent(&path)?;
        if !file(unlinkat(above, name, UnlinkatFlags::NoRemoveDir))? {
            let names = top.all_names(&path)?;
            open.push((path, names));
        }
    }
    Ok(unlinkat(&folder, name, UnlinkatFlags::RemoveDir)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_umask_is_read_and_never_changed() {
        let status = || fs::read_to_string("/proc/self/status").unwrap();
        let line = |status: &str| {
            let line = status.lines().find(|line| line.starts_with("Umask:"));
            line.unwrap().to_owned()
        };
        let before = line(&status());
        let reading = std::thread::spawn(|| {
            let masks = (0..2_000).map(|_| current_umask());
            masks.collect::<std::collections::BTreeSet<_>>()
        });
        while !reading.is_finished() {
            assert_eq!(line(&status()), before);
        }
        let masks = reading.join().unwrap();
        let expected = u16::from_str_radix(before["Umask:".len()..].trim(), 8).unwrap();
        assert_eq!(Vec::from_iter(masks), [expected]);
    }

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dest")).unwrap();
        let mut place = Place::open(&dir.path().join("dest")).unwrap();
        place.open_partial(b"").unwrap();
        (dir, place)
    }

    #[test]
    fn a_staged_file_appears_whole_under_its_name() {
        let (dir, mut place) = place();
        place.make_folder(b"a", 0o755).unwrap();
        let file = place.stage(b"a/f", Some(3)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"new", 0).unwrap();
        assert!(!dir.path().join("dest/a/f").exists());
        place.install(b"a/f").unwrap();
        assert_eq!(fs::read(dir.path().join("dest/a/f")).unwrap(), b"new");
        place.remove_partial().unwrap();
        assert!(!dir.path().join("dest/.lcsync-partial").exists());
    }

    #[test]
    fn threads_that_say_at_once_that_there_are_drafts_do_not_hinder_each_other() {
        let (dir, place) = place();
        let partial = place.partial.as_ref().unwrap();
        for _ in 0..2 {
            // the view of a thread that checked before another one was done
            partial.is_marked.store(false, Ordering::Release);
            partial.mark("run").unwrap();
        }
        // root can open all files, its users only permitted ones
        let mark = dir.path().join("dest/.lcsync-partial/drafts-run");
        assert_eq!(mark.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_planted_link_leads_nowhere() {
        let (dir, mut place) = place();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/f"), b"precious").unwrap();
        symlink("../outside", dir.path().join("dest/link")).unwrap();
        symlink("../outside/f", dir.path().join("dest/file")).unwrap();
        assert!(place.make_folder(b"link/x", 0o755).is_err());
        assert!(place.open_file(b"link/f").is_err());
        assert!(place.open_file(b"file").is_err());
        assert_eq!(place.look(b"link/f").unwrap(), None);
        place.stage(b"link/f", Some(1)).unwrap();
        assert!(place.install(b"link/f").is_err());
        place.stage(b"file", Some(0)).unwrap();
        place.install(b"file").unwrap();
        assert_eq!(fs::read(dir.path().join("outside/f")).unwrap(), b"precious");
        assert!(
            fs::symlink_metadata(dir.path().join("dest/file"))
                .unwrap()
                .is_file()
        );
        assert!(place.make_folder(b"../x", 0o755).is_err());
        assert!(place.make_folder(b"/x", 0o755).is_err());
    }

    #[test]
    fn a_link_planted_as_partial_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/tmp", dir.path().join(PARTIAL_PREFIX)).unwrap();
        assert!(Place::open(dir.path()).unwrap().open_partial(b"").is_err());
    }

    #[test]
    fn a_partial_file_left_with_a_read_only_mode_is_taken_up_again() {
        let (_dir, mut place) = place();
        for mode in [0o444, 0] {
            let file = place.stage(b"f", Some(3)).unwrap();
            file.set_permissions(fs::Permissions::from_mode(mode))
                .unwrap();
            assert!(place.open_staged(b"f").unwrap().is_some());
            assert_eq!(
                place
                    .stage(b"f", Some(3))
                    .unwrap()
                    .metadata()
                    .unwrap()
                    .len(),
                3
            );
        }
    }

    #[test]
    fn what_is_copied_over_mount_points_is_whole_and_leaves_nothing() {
        let (dir, mut place) = place();
        let name = OsStr::new("f");
        for content in ["one", "two"] {
            let file = place.stage(b"f", Some(3)).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0).unwrap();
            let staged = Place::staged_name(b"f");
            let temporary = [PARTIAL_PREFIX.as_bytes(), b"-", &staged].concat();
            symlink(
                "/etc/passwd",
                dir.path().join("dest").join(OsStr::from_bytes(&temporary)),
            )
            .unwrap();
            install_by_copy(place.staging().unwrap(), &staged, place.folder.fd(), name).unwrap();
            assert_eq!(
                fs::read(dir.path().join("dest/f")).unwrap(),
                content.as_bytes()
            );
        }
        place.remove_partial().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("dest")).unwrap().count(), 1);
    }

    #[test]
    fn two_receivers_do_not_write_to_one_place() {
        let (dir, _place) = place();
        let mut other = Place::open(&dir.path().join("dest")).unwrap();
        assert_eq!(
            other.open_partial(b"").unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
        assert!(other.open_partial(b"some file").is_ok());
    }

    #[test]
    fn removing_a_tree_does_not_follow_links() {
        let (dir, mut place) = place();
        fs::create_dir_all(dir.path().join("dest/a/b/c")).unwrap();
        fs::write(dir.path().join("keep"), b"x").unwrap();
        symlink("../../keep", dir.path().join("dest/a/l")).unwrap();
        symlink(dir.path(), dir.path().join("dest/a/b/up")).unwrap();
        assert!(place.make_way(b"a", false).is_err());
        place.make_way(b"a", true).unwrap();
        assert!(!dir.path().join("dest/a").exists());
        assert!(dir.path().join("keep").exists());
    }

    #[test]
    fn links_folders_and_times_are_made() {
        let (dir, mut place) = place();
        place.make_folder(b"d", 0o755).unwrap();
        place.make_link(b"d/l", b"../x").unwrap();
        place.make_link(b"d/l", b"../y").unwrap();
        assert_eq!(
            place.look(b"d/l").unwrap(),
            Some(Found::Link(b"../y".to_vec()))
        );
        let time = Metadata {
            mode: 0o4750,
            mtime: 1_000_000_000,
            nanos: 5,
        };
        let mut open = |path: &[u8]| place.open_entry(path).unwrap().unwrap();
        open(b"d/l").set_metadata(&time, true).unwrap();
        assert!(open(b"d/l").set_mode(0o644).is_err());
        open(b"d").set_metadata(&time, false).unwrap();
        let meta = fs::metadata(dir.path().join("dest/d")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o750, 1_000_000_000));
        assert_eq!(place.names(b"").unwrap(), [b"d".to_vec()]);
    }

    /// Names in a folder, hidden ones included.
    fn seen(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn with_drafts(nameless: bool) -> (tempfile::TempDir, Place, Arc<Drafts>) {
        let (dir, mut place) = place();
        let drafts = Arc::new(Drafts::new().unwrap());
        drafts.are_nameless.fetch_and(nameless, Ordering::Relaxed);
        place.allow_drafts(Arc::clone(&drafts)).unwrap();
        place.make_folder(b"a", 0o755).unwrap();
        (dir, place, drafts)
    }

    #[test]
    fn a_draft_appears_whole_in_place_of_nothing_a_file_or_a_link() {
        for nameless in [true, false] {
            let (dir, mut place, drafts) = with_drafts(nameless);
            let inner = dir.path().join("dest/a");
            for (n, replaces) in [false, false, true].into_iter().enumerate() {
                let mut draft = place.draft(b"a/f").unwrap();
                draft.file.write_all(&[n as u8]).unwrap();
                place.publish(b"a/f", &draft, replaces).unwrap();
                assert_eq!(fs::read(inner.join("f")).unwrap(), [n as u8]);
            }
            symlink("f", inner.join("l")).unwrap();
            let draft = place.draft(b"a/l").unwrap();
            place.publish(b"a/l", &draft, true).unwrap();
            assert!(fs::symlink_metadata(inner.join("l")).unwrap().is_file());
            let draft = place.draft(b"a/g").unwrap();
            place.discard(b"a/g", &draft).unwrap();
            assert_eq!(seen(&inner), ["f", "l"]);
            assert!(drafts.list().is_empty());
        }
    }

    #[test]
    fn a_killed_run_leaves_drafts_that_the_next_one_removes_and_no_others() {
        let (dir, mut place, _) = with_drafts(false);
        let inner = dir.path().join("dest/a");
        drop(place.draft(b"a/f").unwrap());
        drop(place.draft(b"g").unwrap());
        fs::write(
            inner.join(".lcsync-partial-0123456789abcdef-0"),
            b"of another",
        )
        .unwrap();
        assert_eq!(seen(&inner).len(), 2);
        drop(place);
        let mut place = Place::open(&dir.path().join("dest")).unwrap();
        place.open_partial(b"").unwrap();
        place
            .allow_drafts(Arc::new(Drafts::new().unwrap()))
            .unwrap();
        assert_eq!(seen(&inner), [".lcsync-partial-0123456789abcdef-0"]);
        assert_eq!(seen(&dir.path().join("dest")), [".lcsync-partial", "a"]);
        assert!(
            place
                .staged_names()
                .unwrap()
                .iter()
                .all(|n| n.starts_with(b"."))
        );
    }

    #[test]
    fn who_is_interrupted_leaves_no_hidden_name() {
        let (dir, mut place, drafts) = with_drafts(false);
        let _draft = place.draft(b"a/f").unwrap();
        drafts.end();
        assert_eq!(seen(&dir.path().join("dest/a")).len(), 0);
        assert!(drafts.naming.try_read().is_err(), "nor does a later one");
    }
}
