//! File systems of a share's files, so that files of an unmounted one do not count as deleted.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Statx, StatxAttributes, StatxFlags, statx};
use serde::{Deserialize, Serialize};

/// A folder, or a shared file, that identifies a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path below the share's root; empty for the root itself.
    pub path: Vec<u8>,
    /// Number of the file system; for some, another one after a reboot.
    device: (u32, u32),
    inode: u64,
    /// Time of its creation, in seconds and nanoseconds, if stored: with the inode it is unique.
    born: Option<(i64, u32)>,
    /// Whether it is a mount point.
    mounted: bool,
}

impl Mount {
    /// Identifies the open folder.
    pub fn of(folder: impl AsFd, path: Vec<u8>) -> Result<Self, Errno> {
        Ok(Self::new(path, &look(folder, "", AtFlags::EMPTY_PATH)?))
    }

    /// Identifies the mount point at `name` in the folder, and at `path` in the share, if any.
    pub fn at(
        folder: impl AsFd,
        name: &std::ffi::OsStr,
        path: &[u8],
    ) -> Result<Option<Self>, Errno> {
        let found = look(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_mount = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        Ok(is_mount.then(|| Self::new(path.to_vec(), &found)))
    }

    /// Identifies a shared file. A save may replace it, and then whatever it was mounted from.
    pub fn of_file(path: &Path) -> Result<Self, Errno> {
        let found = Self::new(Vec::new(), &look(CWD, path, AtFlags::empty())?);
        Ok(Self {
            mounted: false,
            ..found
        })
    }

    fn new(path: Vec<u8>, found: &Statx) -> Self {
        let born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        let time = found.stx_btime;
        Self {
            path,
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: born.then_some((time.tv_sec, time.tv_nsec)),
            mounted: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }

    /// Whether `now` is the same, or has replaced it by a rename on the same file system.
    pub fn is_still(&self, now: &Self) -> bool {
        let same_device = self.device == now.device;
        let same = (self.inode, self.born) == (now.inode, now.born);
        let replaced = same_device && !self.mounted && !now.mounted;
        same && (same_device || self.born.is_some()) || replaced
    }
}

fn look(folder: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Result<Statx, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    statx(folder, name, flags, wanted).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mount(device: u32, inode: u64, born: Option<i64>, mounted: bool) -> Mount {
        Mount {
            path: Vec::new(),
            device: (8, device),
            inode,
            born: born.map(|second| (second, 7)),
            mounted,
        }
    }

    #[test]
    fn a_disk_is_known_again_by_what_does_not_change_with_a_reboot() {
        let disk = mount(1, 2, Some(1_000), true);
        assert!(disk.is_still(&disk));
        assert!(
            disk.is_still(&mount(9, 2, Some(1_000), true)),
            "other number"
        );
        let bare = mount(3, 700, Some(5), false);
        assert!(!disk.is_still(&bare) && !bare.is_still(&disk));
        assert!(
            !disk.is_still(&mount(1, 2, Some(2_000), true)),
            "another disk"
        );
        assert!(
            !disk.is_still(&mount(1, 900, Some(3), false)),
            "bound folder"
        );
        let ageless = mount(1, 2, None, true);
        assert!(ageless.is_still(&ageless));
        assert!(!ageless.is_still(&mount(9, 2, None, true)));
    }

    #[test]
    fn a_folder_that_is_replaced_on_its_own_file_system_has_not_vanished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        let look = || Mount::of(fs::File::open(&path).unwrap(), Vec::new()).unwrap();
        fs::create_dir(&path).unwrap();
        let before = look();
        assert!(!before.mounted);
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(before != look() && before.is_still(&look()));
        let proc = fs::File::open("/proc").unwrap();
        let proc = Mount::of(proc, Vec::new()).unwrap();
        assert!(proc.mounted && !before.is_still(&proc));
    }
}
