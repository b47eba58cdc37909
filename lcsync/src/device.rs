//! Block devices: opened alone, written in place, read back past the page cache.
//!
//! A path is opened once, without effect on the entry there (`O_PATH`); everything else concerns
//! this entry, even if another takes its path. `O_EXCL` makes the kernel refuse a device that is
//! mounted, swapped to or held by device mapper, RAID or another program. This includes partitions
//! of it, and mounts of other containers. While the device is open, none of them can take it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::{self, dev_t};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::{Whence, lseek};
use rustix::fs::{FallocateFlags, fallocate};

use crate::local::content::{PIECE, is_zero};

/// Alignment in memory and on the device of direct reads. Chosen: no smaller than any page or
/// sector.
const ALIGNMENT: usize = 64 << 10;
/// Bytes of a direct read. Chosen: disks reach their speed.
const READ: usize = 4 << 20;
/// Boundaries of ranges that the device itself sets to zero: the sector of most disks.
const ZERO_ALIGNMENT: u64 = 4_096;

/// A block device that no other program holds.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Device {
    /// Opens the device at `path`, to which a link may lead.
    ///
    /// # Errors
    /// A sentence: the entry is no block device, is in use or read-only, or may not be written to.
    pub fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let seen = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| format!("{shown}: {}; --write-devices makes no file", e.desc()))?;
        let stat = fstat(&seen).map_err(|e| format!("{shown}: {}", e.desc()))?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFBLK {
            return Err(format!(
                "{shown}: is no block device; --write-devices writes into block devices only (for a pipe, DEST is -)"
            ));
        }
        let refused = |e| format!("{shown}: {}", explain(e, stat.st_rdev));
        let flags = OFlag::O_RDWR | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = reopen(&seen, flags).map_err(refused)?;
        if is_read_only(stat.st_rdev) {
            return Err(refused(Errno::EROFS));
        }
        Self::of(path, file).map_err(|e| format!("{shown}: {e}"))
    }

    fn of(path: &Path, file: File) -> io::Result<Self> {
        let size = lseek(&file, 0, Whence::SeekEnd)?;
        Ok(Self {
            path: path.to_path_buf(),
            size: u64::try_from(size).unwrap_or(0),
            file,
        })
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `bytes`; whole sectors of zeroes only as a command, if the device knows one.
    pub fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        let from = at.next_multiple_of(ZERO_ALIGNMENT);
        let until = end / ZERO_ALIGNMENT * ZERO_ALIGNMENT;
        let zero = bytes.chunks(PIECE).all(is_zero);
        if from >= until || !zero || !self.set_zero(from, until - from) {
            return self.file.write_all_at(bytes, at);
        }
        self.file.write_all_at(&bytes[..(from - at) as usize], at)?;
        self.file
            .write_all_at(&bytes[(until - at) as usize..], until)
    }

    fn set_zero(&self, at: u64, length: u64) -> bool {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, at, length).is_ok()
    }

    /// Waits until all written bytes are on the medium.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Returns a reader that sees the medium, and not the page cache.
    pub fn reader(&self) -> io::Result<Reader> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECT | OFlag::O_CLOEXEC;
        Ok(Reader {
            file: reopen(&self.file, flags)?,
            buffer: vec![0; READ + ALIGNMENT],
            start: 0,
            length: 0,
        })
    }
}

/// Reads a device in order, past the page cache.
#[derive(Debug)]
pub struct Reader {
    file: File,
    buffer: Vec<u8>,
    /// Offset on the device of the buffered bytes, and their number.
    start: u64,
    length: usize,
}

impl Reader {
    /// Returns `length` bytes, at most 3 MiB, from offset `at`.
    pub fn read(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let end = at + length as u64;
        if at < self.start || end > self.start + self.length as u64 {
            self.fill(at)?;
        }
        if end > self.start + self.length as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = self.begin() + (at - self.start) as usize;
        Ok(&self.buffer[from..from + length])
    }

    fn fill(&mut self, at: u64) -> io::Result<()> {
        (self.start, self.length) = (at / ALIGNMENT as u64 * ALIGNMENT as u64, 0);
        let begin = self.begin();
        self.length = self
            .file
            .read_at(&mut self.buffer[begin..begin + READ], self.start)?;
        Ok(())
    }

    /// Index of the first aligned byte of the buffer.
    fn begin(&self) -> usize {
        self.buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT)
    }
}

/// Opens the entry of a descriptor once more.
fn reopen(fd: impl AsFd, flags: OFlag) -> Result<File, Errno> {
    let itself = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    open(itself.as_str(), flags, Mode::empty()).map(File::from)
}

/// Returns the reason why a device could not be opened.
fn explain(error: Errno, device: dev_t) -> String {
    match error {
        Errno::EBUSY => match users(device) {
            users if users.is_empty() => "is in use by another program".to_owned(),
            users => format!("is in use: {}", users.join(", ")),
        },
        Errno::EROFS => "is read-only".to_owned(),
        Errno::EACCES | Errno::EPERM if is_read_only(device) => "is read-only".to_owned(),
        other => other.desc().to_owned(),
    }
}

/// Folder of the kernel about a device.
fn folder_of(device: dev_t) -> PathBuf {
    format!("/sys/dev/block/{}:{}", major(device), minor(device)).into()
}

fn is_read_only(device: dev_t) -> bool {
    fs::read_to_string(folder_of(device).join("ro")).is_ok_and(|ro| ro.trim() == "1")
}

/// Names mounts, swap and holders of a device, its partitions and its disk, as far as they are
/// visible.
fn users(device: dev_t) -> Vec<String> {
    let Ok(own) = folder_of(device).canonicalize() else {
        return Vec::new();
    };
    let is_partition = |folder: &Path| folder.join("partition").exists();
    let mut folders: Vec<PathBuf> = fs::read_dir(&own)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| is_partition(folder))
        .collect();
    if is_partition(&own) {
        folders.extend(own.parent().map(Path::to_path_buf));
    }
    folders.push(own);
    folders.sort();
    folders.iter().flat_map(|folder| users_of(folder)).collect()
}

/// The same for one device, of which this is the kernel's folder.
fn users_of(folder: &Path) -> Vec<String> {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let number = fs::read_to_string(folder.join("dev")).unwrap_or_default();
    let node = format!("/dev/{name}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // number of the mount, of its parent, of the device; root; mount point
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&number.trim()))
        .map(|fields| format!("{name} is mounted on {}", fields[4]));
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = swaps
        .lines()
        .any(|line| line.split_whitespace().next() == Some(&node))
        .then(|| format!("{name} is swap space"));
    let holders = fs::read_dir(folder.join("holders")).into_iter().flatten();
    let holders = holders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let holders = holders.map(|holder| format!("{name} belongs to {holder}"));
    mount.into_iter().chain(swap).chain(holders).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file of `size` bytes that stands for a device.
    pub fn device(size: u64) -> (tempfile::TempDir, Device) {
        // not on a tmpfs: some kernels have no direct reads there
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("device");
        let file = File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        drop(file);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let device = Device::of(&path, file).unwrap();
        (dir, device)
    }

    #[test]
    fn any_range_is_read_back_as_written_and_zeroes_replace_old_bytes() {
        let (_dir, device) = device(9 << 20);
        device.write(&vec![7; 9 << 20], 0).unwrap();
        let mut expected = vec![7; 9 << 20];
        for (at, bytes) in [
            (1, vec![0; 3 * 4_096]),
            (5 << 20, vec![0; 256 << 10]),
            (777_777, b"words".to_vec()),
            (100, vec![0; 30]),
            ((9 << 20) - 5, vec![0; 5]),
        ] {
            device.write(&bytes, at as u64).unwrap();
            expected[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        device.sync().unwrap();
        let mut reader = device.reader().unwrap();
        for at in (0..9 << 20).step_by(100_003) {
            let length = (256 << 10).min((9 << 20) - at);
            assert!(reader.read(at as u64, length).unwrap() == &expected[at..at + length]);
        }
        let beyond = reader.read((9 << 20) - 10, 11).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn no_file_fifo_character_device_or_missing_path_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "words").unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        for path in [
            at("file"),
            at("fifo"),
            "/dev/null".into(),
            dir.path().into(),
        ] {
            let refused = Device::open(&path).unwrap_err();
            assert!(refused.contains("is no block device"), "{refused}");
        }
        let refused = Device::open(&at("none")).unwrap_err();
        assert!(refused.contains("makes no file"), "{refused}");
        assert!(!at("none").exists());
        assert_eq!(fs::read(at("file")).unwrap(), b"words");
    }
}
