//! Scans of files and folders: names, kinds, sizes, times; and opening of the scanned versions.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::stat::{FileStat, stat};

use crate::folder::{Folder, Owner, metadata_of, node_of, open_named, regular};
use crate::listing::{Entry, Kind, MAX_NAME, MAX_PATH, Metadata, shown};
use crate::mount::Mount;
use crate::place::Opened;
use crate::tree::RootKind;

/// Mode of a folder that is none on disk.
const FOLDER_MODE: u16 = 0o755;
/// Most left-out entries named, for each reason.
const MAX_NAMED: usize = 16;

/// Identity and version of a file: equal stamps mean equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    size: u64,
    mtime: (i64, i64),
    pub ctime: (i64, i64),
}

/// Coarsest clock of file systems: two changes within it can leave equal times.
const COARSE: Duration = Duration::from_millis(100);

impl Stamp {
    fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: size_of(stat),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether `now` is the same file, not shorter: one that is being appended to.
    fn is_begin_of(&self, now: &Self) -> bool {
        (self.device, self.inode) == (now.device, now.inode) && self.size <= now.size
    }

    /// All of it, for hashing.
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

    /// Whether a change after `time` would show, as the last one was long enough before it.
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
    /// The shared path; empty for chosen paths.
    pub root: PathBuf,
    /// Files and folders that are the entries of a folder that is none on disk; none: one on disk.
    pub chosen: Vec<PathBuf>,
    /// Chosen paths that cannot be found; counted in `unread`, too.
    pub missing: Vec<PathBuf>,
    pub kind: RootKind,
    /// Entries of the folder, in listing order; for a file the file itself, with an empty path.
    pub entries: Vec<Entry>,
    /// One for each entry; empty if the entries are not from a disk.
    pub stamps: Vec<Stamp>,
    /// Of the root, then of each entry.
    pub metadata: Vec<Metadata>,
    /// Of the root, then of each entry; empty if the entries are not from a disk.
    pub owners: Vec<Owner>,
    /// Number of entries left out as unreadable.
    pub unread: usize,
    /// Paths that were removed after their folder was read; a scan for a listing counts them in
    /// `unread` instead.
    pub vanished: Vec<Vec<u8>>,
    /// Paths left out because they are FIFOs, sockets or devices.
    pub special: Vec<Vec<u8>>,
    /// Paths left out as too long for a listing, or with too long a name; counted in `unread`, too.
    pub too_long: Vec<Vec<u8>>,
    /// The root, then each mount point below it; empty if the entries are not from a disk.
    pub mounts: Vec<Mount>,
    /// Folders without their content, as it is on another file system.
    pub not_entered: Vec<Vec<u8>>,
    /// Device and inode of entries that have several names, if requested.
    pub linked: BTreeMap<usize, (u64, u64)>,
}

/// A walk through a folder that can continue.
#[derive(Debug)]
pub struct Walk {
    folder: Folder,
    device: u64,
    /// Paths to look at, the next one last.
    waiting: Vec<Vec<u8>>,
}

/// Selection of entries in a folder.
#[expect(missing_debug_implementations, reason = "it has a closure in it")]
pub struct Choice<'a> {
    /// Whether the entry at a path, a folder or not, is left out with all below it.
    pub leaves_out: &'a dyn Fn(&[u8], bool) -> bool,
    /// Without file systems mounted in it.
    pub one_file_system: bool,
    /// For a listing, which has bounds of its own and no folder with unknown content.
    pub for_listing: bool,
    /// Devices, too.
    pub devices: bool,
    /// FIFOs and sockets, too.
    pub specials: bool,
    /// With the names of each file that has several.
    pub hard_links: bool,
}

impl Choice<'_> {
    /// Everything.
    pub const ALL: Choice<'static> = Choice {
        leaves_out: &|_, _| false,
        one_file_system: false,
        for_listing: true,
        devices: false,
        specials: false,
        hard_links: false,
    };
}

impl Scan {
    /// Scans `root`, which must be readable; leaves out other unreadable entries with a warning.
    pub fn of(root: &Path) -> io::Result<Self> {
        Self::chosen(root, &Choice::ALL)
    }

    /// Scans these files and folders, absolute paths with different names, as entries of a folder.
    /// At least one must be there.
    pub fn of_paths(paths: &[PathBuf]) -> io::Result<Self> {
        let mut scan = Self::empty(Path::new(""), &stat(Path::new("/"))?);
        // a folder of nobody
        scan.metadata[0].mode = FOLDER_MODE;
        let mut why: io::Error = io::ErrorKind::InvalidInput.into();
        for path in paths {
            match path.metadata() {
                Ok(_) => scan.chosen.push(path.clone()),
                Err(error) => {
                    why = error;
                    scan.missing.push(path.clone());
                }
            }
        }
        if scan.chosen.is_empty() {
            let text = format!("{}: {why}", shown_paths(&scan.missing));
            return Err(io::Error::new(why.kind(), text));
        }
        scan.unread = scan.missing.len();
        let metadata = scan.metadata.clone();
        scan.walk(&Choice::ALL)?;
        scan.metadata[0] = metadata[0];
        Ok(scan)
    }

    /// Scans the chosen entries of `root`.
    pub fn chosen(root: &Path, choice: &Choice<'_>) -> io::Result<Self> {
        let found = stat(root)?;
        let mut scan = Self::empty(root, &found);
        match found.st_mode & libc::S_IFMT {
            libc::S_IFDIR => scan.walk(choice)?,
            libc::S_IFREG => {
                let executable = executable(&found);
                scan.kind = RootKind::File { executable };
                scan.mounts = vec![Mount::of_file(root)?];
                scan.push(Vec::new(), file_of(&found), &found);
            }
            _ => {
                let message = "neither a file nor a folder";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        Ok(scan)
    }

    /// Scans the folder `root` alone; [`go_on`](Self::go_on) scans its entries.
    pub fn begin(root: &Path, choice: &Choice<'_>) -> io::Result<(Self, Walk)> {
        let mut scan = Self::empty(root, &stat(root)?);
        let walk = scan.start(choice)?;
        Ok((scan, walk))
    }

    /// Takes the entries found so far; the count of unreadable ones stays.
    #[must_use]
    pub fn take_portion(&mut self) -> Self {
        let rest = Self {
            root: self.root.clone(),
            chosen: self.chosen.clone(),
            missing: self.missing.clone(),
            kind: self.kind,
            entries: Vec::new(),
            stamps: Vec::new(),
            metadata: vec![self.metadata[0]],
            owners: vec![self.owners[0]],
            unread: self.unread,
            vanished: Vec::new(),
            special: Vec::new(),
            too_long: Vec::new(),
            mounts: Vec::new(),
            not_entered: std::mem::take(&mut self.not_entered),
            linked: BTreeMap::new(),
        };
        std::mem::replace(self, rest)
    }

    /// Appends the folders of a later portion.
    pub fn extend_with_folders(&mut self, portion: Self) {
        for (n, entry) in portion.entries.into_iter().enumerate() {
            if entry.kind == Kind::Folder {
                self.entries.push(entry);
                self.stamps.push(portion.stamps[n]);
                self.metadata.push(portion.metadata[n + 1]);
                self.owners.push(portion.owners[n + 1]);
            }
        }
    }

    /// Scans only the file or link `path`, as an entry of its folder; a link is not followed.
    pub fn of_entry(path: &Path, choice: &Choice<'_>) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let choice = &Choice {
            leaves_out: &|_, _| false,
            ..*choice
        };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let root = parent.unwrap_or(Path::new("."));
        let mut folder = Folder::open(root)?;
        let mut scan = Self::empty(root, &folder.stat(b"")?);
        scan.take(&mut folder, name.as_bytes().to_vec(), (choice, 0))?;
        Ok(scan)
    }

    fn open_root(&self) -> io::Result<Folder> {
        match self.chosen.is_empty() {
            true => Folder::open(&self.root),
            false => Folder::of_paths(&self.chosen),
        }
    }

    fn empty(root: &Path, found: &FileStat) -> Self {
        Self {
            root: root.to_path_buf(),
            chosen: Vec::new(),
            missing: Vec::new(),
            kind: RootKind::Folder,
            entries: Vec::new(),
            stamps: Vec::new(),
            metadata: vec![metadata_of(found)],
            owners: vec![Owner::of(found)],
            unread: 0,
            vanished: Vec::new(),
            special: Vec::new(),
            too_long: Vec::new(),
            mounts: Vec::new(),
            not_entered: Vec::new(),
            linked: BTreeMap::new(),
        }
    }

    /// Returns the path of entry number `n`.
    pub fn path_of(&self, n: usize) -> PathBuf {
        self.path_at(&self.entries[n].path)
    }

    /// Returns the path of the entry at `path`.
    fn path_at(&self, path: &[u8]) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(path));
        let mut below = path.components();
        let first = below.next().map(|name| name.as_os_str());
        let chosen = self.chosen.iter().find(|path| path.file_name() == first);
        let (from, path) = match chosen {
            Some(chosen) => (chosen, below.as_path()),
            None => (&self.root, path),
        };
        // joining an empty path would add a slash
        match path.as_os_str().is_empty() {
            true => from.clone(),
            false => from.join(path),
        }
    }

    /// Returns it for users.
    pub fn name_of(&self, n: usize) -> String {
        shown(self.path_of(n).as_os_str().as_bytes())
    }

    /// Number of entries left out.
    pub fn left_out(&self) -> usize {
        self.unread + self.special.len()
    }

    /// Logs entries left out as a FIFO, socket or device.
    pub fn name_special(&self) {
        self.name(&self.special, "neither a file, a folder nor a link");
    }

    /// Logs entries left out as too long for a listing.
    pub fn name_too_long(&self) {
        let bound = format!(
            "its path in the share is longer than {MAX_PATH} bytes, or its name than {MAX_NAME}"
        );
        self.name(&self.too_long, &bound);
    }

    fn name(&self, paths: &[Vec<u8>], why: &str) {
        for path in paths.iter().take(MAX_NAMED) {
            let path = shown(self.path_at(path).as_os_str().as_bytes());
            tracing::warn!("left out: {path}: {why}");
        }
        let more = paths.len().saturating_sub(MAX_NAMED);
        if more > 0 {
            tracing::warn!("left out: {more} more of this kind");
        }
    }

    /// Scans file number `n` again; returns whether it has another version.
    pub fn look_again(&mut self, n: usize) -> io::Result<bool> {
        let found = Files::default().stat(self, n)?;
        let stamp = Stamp::of(&found);
        let is_file = found.st_mode & libc::S_IFMT == libc::S_IFREG;
        if !is_file || self.stamps[n] == stamp {
            return Ok(false);
        }
        self.entries[n].kind = file_of(&found);
        self.stamps[n] = stamp;
        self.metadata[n + 1] = metadata_of(&found);
        self.owners[n + 1] = Owner::of(&found);
        if let RootKind::File {
            executable: of_root,
        } = &mut self.kind
        {
            *of_root = executable(&found);
            self.metadata[0] = self.metadata[1];
        }
        Ok(true)
    }

    /// Leaves out these files, which could not be read.
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
        keep(&mut self.owners, 1, those);
        let linked = std::mem::take(&mut self.linked).into_iter();
        let linked = linked.filter(|(n, _)| !those.contains(n));
        self.linked = linked
            .map(|(n, identity)| (n - those.range(..n).count(), identity))
            .collect();
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind, found: &FileStat) {
        self.entries.push(Entry { path, kind });
        self.stamps.push(Stamp::of(found));
        self.metadata.push(metadata_of(found));
        self.owners.push(Owner::of(found));
    }

    /// Walks depth first, names in order, with its own stack instead of the thread's.
    fn walk(&mut self, choice: &Choice<'_>) -> io::Result<()> {
        let mut walk = self.start(choice)?;
        self.go_on(&mut walk, choice, usize::MAX);
        Ok(())
    }

    fn start(&mut self, choice: &Choice<'_>) -> io::Result<Walk> {
        let mut folder = self.open_root()?;
        let root = folder.stat(b"")?;
        self.metadata = vec![metadata_of(&root)];
        self.owners = vec![Owner::of(&root)];
        self.mounts = vec![Mount::of(folder.fd(), Vec::new())?];
        let device = root.st_dev;
        let waiting = self.paths_in(&mut folder, b"", choice)?;
        Ok(Walk {
            folder,
            device,
            waiting,
        })
    }

    /// Continues until `most` entries are found, or to the end.
    pub fn go_on(&mut self, walk: &mut Walk, choice: &Choice<'_>, most: usize) {
        while self.entries.len() < most
            && let Some(path) = walk.waiting.pop()
        {
            let at = path.clone();
            match self.take(&mut walk.folder, path, (choice, walk.device)) {
                Ok(below) => walk.waiting.extend(below),
                Err(_) if !choice.for_listing && walk.folder.lacks(&at, None) => {
                    self.vanished.push(at);
                }
                Err(error) => {
                    let path = shown(self.path_at(&at).as_os_str().as_bytes());
                    tracing::warn!("left out: {path}: {error}");
                    self.unread += 1;
                }
            }
        }
    }

    /// Adds an entry; returns the paths below it.
    fn take(
        &mut self,
        folder: &mut Folder,
        path: Vec<u8>,
        (choice, device): (&Choice<'_>, u64),
    ) -> io::Result<Vec<Vec<u8>>> {
        let leaves_out = |is_folder| (choice.leaves_out)(&path, is_folder);
        let found = match folder.stat(&path) {
            // a left-out entry need not be readable
            Err(_) if leaves_out(false) || leaves_out(true) => return Ok(Vec::new()),
            found => found?,
        };
        let kind = found.st_mode & libc::S_IFMT;
        if leaves_out(kind == libc::S_IFDIR) {
            return Ok(Vec::new());
        }
        let (kind, below) = match kind {
            libc::S_IFREG => (file_of(&found), Vec::new()),
            libc::S_IFDIR if choice.one_file_system && found.st_dev != device => {
                self.not_entered.push(path.clone());
                (Kind::Folder, Vec::new())
            }
            libc::S_IFDIR => {
                let (above, name) = folder.parent(&path)?;
                self.mounts.extend(Mount::at(above, name, &path)?);
                match self.paths_in(folder, &path, choice) {
                    Err(error) if !choice.for_listing && !is_missing(&error) => {
                        self.push(path, Kind::Folder, &found);
                        return Err(error);
                    }
                    below => (Kind::Folder, below?),
                }
            }
            libc::S_IFLNK => {
                let target = folder.read_link(&path)?;
                (Kind::Link { target }, Vec::new())
            }
            file_type => {
                let node = node_of(&found);
                let is_device = matches!(file_type, libc::S_IFBLK | libc::S_IFCHR);
                let takes = match is_device {
                    true => choice.devices,
                    false => choice.specials,
                };
                match node.filter(|_| takes) {
                    Some(node) => (Kind::Node(node), Vec::new()),
                    None => {
                        self.special.push(path);
                        return Ok(Vec::new());
                    }
                }
            }
        };
        if choice.hard_links && found.st_nlink > 1 && kind != Kind::Folder {
            let identity = (found.st_dev, found.st_ino);
            self.linked.insert(self.entries.len(), identity);
        }
        self.push(path, kind, &found);
        Ok(below)
    }

    /// Returns the paths in the folder at `path`, last name first.
    fn paths_in(
        &mut self,
        folder: &mut Folder,
        path: &[u8],
        choice: &Choice<'_>,
    ) -> io::Result<Vec<Vec<u8>>> {
        let names = folder.names(path)?.into_iter().rev();
        let below = names.map(|name| match path {
            b"" => name,
            _ => [path, b"/", &name].concat(),
        });
        let fits = |below: &Vec<u8>| {
            let name = below.rsplit(|c| *c == b'/').next().unwrap_or(below);
            !choice.for_listing || name.len() <= MAX_NAME && below.len() <= MAX_PATH
        };
        let (paths, too_long): (Vec<_>, Vec<_>) = below.partition(fits);
        self.unread += too_long.len();
        self.too_long.extend(too_long);
        Ok(paths)
    }
}

/// A file in its present version.
#[derive(Debug)]
pub struct Version {
    pub file: File,
    pub kind: Kind,
    pub metadata: Metadata,
    pub owner: Owner,
}

/// Opens the files of one scan, and none that has replaced them.
#[derive(Debug, Default)]
pub struct Files {
    folder: Option<Folder>,
}

impl Files {
    /// Opens file number `n` in the scanned version.
    pub fn open(&mut self, scan: &Scan, n: usize) -> io::Result<File> {
        let (file, now) = self.open_any(scan, n)?;
        check(scan, n, |found| *found == now)?;
        Ok(file)
    }

    /// Opens file number `n`, even if it was appended to since; its hash is checked.
    pub fn open_begin(&mut self, scan: &Scan, n: usize) -> io::Result<File> {
        let (file, now) = self.open_any(scan, n)?;
        check(scan, n, |found| found.is_begin_of(&now))?;
        Ok(file)
    }

    /// Opens an entry of any kind, or the folder itself, for its attributes.
    pub fn open_entry(&mut self, scan: &Scan, n: Option<usize>) -> io::Result<Option<Opened>> {
        let path = n.map_or(&b""[..], |n| &scan.entries[n].path);
        Opened::at(self.folder(scan)?, path, 0)
    }

    /// Whether entry number `n` was removed since the scan.
    pub fn has_vanished(&mut self, scan: &Scan, n: usize) -> bool {
        let (path, device) = (&scan.entries[n].path, scan.stamps[n].device);
        let folder = self.folder(scan);
        folder.is_ok_and(|folder| folder.lacks(path, Some(device)))
    }

    /// Opens file number `n` in its present version.
    pub fn open_now(&mut self, scan: &Scan, n: usize) -> io::Result<Version> {
        let (file, found) = self.open_found(scan, n)?;
        Ok(Version {
            file,
            kind: file_of(&found),
            metadata: metadata_of(&found),
            owner: Owner::of(&found),
        })
    }

    fn open_any(&mut self, scan: &Scan, n: usize) -> io::Result<(File, Stamp)> {
        let (file, found) = self.open_found(scan, n)?;
        Ok((file, Stamp::of(&found)))
    }

    fn open_found(&mut self, scan: &Scan, n: usize) -> io::Result<(File, FileStat)> {
        let path = &scan.entries[n].path;
        if !path.is_empty() {
            return self.folder(scan)?.open_found(path);
        }
        let file = open_named(&scan.root)?;
        let found = regular(&file)?;
        Ok((file, found))
    }

    fn stat(&mut self, scan: &Scan, n: usize) -> io::Result<FileStat> {
        let path = &scan.entries[n].path;
        Ok(if path.is_empty() {
            stat(&scan.root)?
        } else {
            self.folder(scan)?.stat(path)?
        })
    }

    fn folder(&mut self, scan: &Scan) -> io::Result<&mut Folder> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => scan.open_root()?,
        };
        Ok(self.folder.insert(folder))
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn check(scan: &Scan, n: usize, is_it: impl FnOnce(&Stamp) -> bool) -> io::Result<()> {
    if scan.stamps.get(n).is_none_or(is_it) {
        return Ok(());
    }
    Err(io::Error::other("it has changed since it was looked at"))
}

/// Returns these paths for users.
#[must_use]
pub fn shown_paths(paths: &[PathBuf]) -> String {
    let shown = paths.iter().map(|path| shown(path.as_os_str().as_bytes()));
    shown.collect::<Vec<_>>().join(", ")
}

fn file_of(stat: &FileStat) -> Kind {
    Kind::File {
        size: size_of(stat),
        executable: executable(stat),
    }
}

fn size_of(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn executable(stat: &FileStat) -> bool {
    stat.st_mode & 0o100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{compare_paths, decode, encode};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::cmp::Ordering;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

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
    fn names_of_one_file_stay_so_when_entries_before_them_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(at(name), b"").unwrap();
        }
        fs::hard_link(at("c"), at("d")).unwrap();
        fs::hard_link(at("a"), at("e")).unwrap();
        let choice = Choice {
            hard_links: true,
            ..Choice::ALL
        };
        let mut scan = Scan::chosen(dir.path(), &choice).unwrap();
        scan.remove(&BTreeSet::from([0, 1]));
        let linked = scan.linked.keys();
        let paths: Vec<_> = linked.map(|n| &scan.entries[*n].path[..]).collect();
        assert_eq!(paths, [b"c", b"d", b"e"]);
    }

    #[test]
    fn a_folder_is_looked_at_in_portions_of_which_the_folders_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x", "a/y/z", "b/x"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"text").unwrap();
        }
        let whole = Scan::of(dir.path()).unwrap();
        let (mut scan, mut walk) = Scan::begin(dir.path(), &Choice::ALL).unwrap();
        let (mut found, mut folders) = (Vec::new(), scan.clone());
        loop {
            scan.go_on(&mut walk, &Choice::ALL, 2);
            if scan.entries.is_empty() {
                break;
            }
            assert!(scan.entries.len() <= 2);
            let portion = scan.take_portion();
            found.extend(portion.entries.clone());
            folders.extend_with_folders(portion);
        }
        assert_eq!(found, whole.entries);
        let is_folder = |entry: &&Entry| entry.kind == Kind::Folder;
        let wanted: Vec<_> = whole.entries.iter().filter(is_folder).cloned().collect();
        assert_eq!(folders.entries, wanted);
        assert_eq!(folders.metadata.len(), wanted.len() + 1);
    }

    #[test]
    fn what_is_removed_while_a_folder_is_looked_at_has_vanished_and_is_not_unread() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for path in ["a/x", "a/y/z", "b", "c"] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), b"text").unwrap();
        }
        let choice = Choice {
            for_listing: false,
            ..Choice::ALL
        };
        let (mut scan, mut walk) = Scan::begin(dir.path(), &choice).unwrap();
        scan.go_on(&mut walk, &choice, 1);
        fs::remove_file(at("b")).unwrap();
        fs::remove_dir_all(at("a")).unwrap();
        scan.go_on(&mut walk, &choice, usize::MAX);
        assert_eq!(scan.vanished, [&b"a/x"[..], b"a/y", b"b"]);
        let paths: Vec<_> = scan.entries.iter().map(|e| &e.path[..]).collect();
        assert_eq!((paths, scan.unread), (vec![&b"a"[..], b"c"], 0));
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

    /// A share in which another user can write, and a file that he may not read.
    fn raced() -> (tempfile::TempDir, Scan) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("up/sub")).unwrap();
        fs::create_dir(at("private")).unwrap();
        fs::write(at("private/f"), b"secret").unwrap();
        fs::write(at("up/f"), b"public").unwrap();
        fs::write(at("up/sub/f"), b"public").unwrap();
        let scan = Scan::of(&at("up")).unwrap();
        (dir, scan)
    }

    #[test]
    fn what_comes_into_the_place_of_a_file_after_the_scan_is_not_opened() {
        let swaps: [fn(&Path); 5] = [
            |up| {
                fs::remove_file(up.join("f")).unwrap();
                symlink("../private/f", up.join("f")).unwrap();
            },
            |up| {
                fs::remove_file(up.join("f")).unwrap();
                mkfifo(&up.join("f"), Mode::S_IRWXU).unwrap();
            },
            |up| fs::rename(up.join("../private/f"), up.join("f")).unwrap(),
            |up| {
                fs::rename(up.join("sub"), up.join("../sub")).unwrap();
                symlink("../private", up.join("sub")).unwrap();
            },
            |up| {
                fs::rename(up, up.join("../old")).unwrap();
                symlink("private", up).unwrap();
            },
        ];
        for (n, swap) in swaps.into_iter().enumerate() {
            let (dir, scan) = raced();
            swap(&dir.path().join("up"));
            let swapped = if n == 3 { 2 } else { 0 };
            let mut files = Files::default();
            assert!(files.open(&scan, swapped).is_err(), "swap {n}");
            assert!(files.open_begin(&scan, swapped).is_err(), "swap {n}");
        }
    }

    #[test]
    fn a_file_that_grows_is_opened_as_what_it_began_with_or_looked_at_again() {
        let (dir, mut scan) = raced();
        let longer = fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("up/f"));
        io::Write::write_all(&mut longer.unwrap(), b" and more").unwrap();
        let mut files = Files::default();
        assert!(files.open(&scan, 0).is_err() && files.open_begin(&scan, 0).is_ok());
        assert!(scan.look_again(0).unwrap() && !scan.look_again(0).unwrap());
        let mut text = String::new();
        let mut file = Files::default().open(&scan, 0).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "public and more");
        assert_eq!(scan, Scan::of(&dir.path().join("up")).unwrap());
    }

    #[test]
    fn what_no_listing_can_hold_is_counted_and_the_rest_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(90);
        let mut folder = Folder::open(dir.path()).unwrap();
        for _ in 0..46 {
            let inner = nix::sys::stat::mkdirat(folder.fd(), name.as_str(), Mode::S_IRWXU);
            inner.unwrap();
            let file = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_WRONLY;
            nix::fcntl::openat(folder.fd(), "f", file, Mode::S_IRWXU).unwrap();
            folder = folder.inner(name.as_bytes()).unwrap();
        }
        let scan = Scan::of(dir.path()).unwrap();
        // 45 folders have paths of up to 4,094 bytes; a file in the last is too deep, as is a 46th
        assert_eq!(scan.entries.len(), 2 * 45);
        assert_eq!((scan.unread, scan.too_long.len()), (2, 2));
        assert_eq!(scan.left_out(), 2);
        decode(&encode(&scan.entries).concat(), 90).unwrap();
    }

    #[test]
    fn pipes_are_named_and_neither_opened_nor_taken() {
        let (dir, scan) = raced();
        mkfifo(&dir.path().join("up/sub/pipe"), Mode::S_IRWXU).unwrap();
        let again = Scan::of(&dir.path().join("up")).unwrap();
        assert_eq!(again.special, [b"sub/pipe".to_vec()]);
        assert_eq!((again.entries, again.unread), (scan.entries, 0));
    }
}
