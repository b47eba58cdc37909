//! Notices of the kernel (inotify) of changes below a shared path. They only start scans, which
//! find the changes. Interval scans find changes without notices: on remote file systems, or with
//! more folders than `fs.inotify.max_user_watches`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::listing::{Kind, PARTIAL_PREFIX};
use crate::scan::Scan;

/// Events that can change a share.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// The watched folders of one share.
#[derive(Debug)]
pub struct Notices {
    inotify: Inotify,
    /// The folder above each shared path, and the path's name in it: the whole may be replaced.
    above: Vec<(WatchDescriptor, OsString)>,
    folders: HashSet<WatchDescriptor>,
}

impl Notices {
    /// Watches shared paths; nothing below them is watched yet.
    pub fn of(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut above = Vec::new();
        for path in paths {
            // the root of the file system has neither
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                above.push((add(&inotify, parent)?, name.to_owned()));
            }
        }
        Ok(Self {
            inotify,
            above,
            folders: HashSet::new(),
        })
    }

    /// Watches exactly the folders of a scan; true if some are new, as changes in them had no
    /// notice.
    pub fn watch(&mut self, scan: &Scan) -> io::Result<bool> {
        let folders = scan.entries.iter().enumerate();
        let below = folders
            .filter(|(_, e)| e.kind == Kind::Folder)
            .map(|(n, _)| scan.path_of(n));
        let mut watched = HashSet::new();
        let roots = match &scan.chosen[..] {
            [] => std::slice::from_ref(&scan.root),
            chosen => chosen,
        };
        // a file is watched, too: behind a link, its folder is not that of the path
        for path in roots.iter().cloned().chain(below) {
            match add(&self.inotify, &path) {
                Ok(descriptor) => {
                    watched.insert(descriptor);
                }
                // gone or unreadable: this scan or the next one reports it
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let new = watched.iter().any(|w| !self.folders.contains(w));
        for gone in self.folders.difference(&watched) {
            if !self.above.iter().any(|(above, _)| above == gone) {
                // a removed folder has removed its watch
                let _ = self.inotify.rm_watch(*gone);
            }
        }
        self.folders = watched;
        Ok(new)
    }

    /// Whether a change was noticed since the last call.
    pub fn take(&self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            changed |= events.iter().any(|event| {
                let name = event.name.as_deref();
                let overflow = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                overflow || self.concerns(event.wd, name)
            });
        }
        changed
    }

    fn concerns(&self, descriptor: WatchDescriptor, name: Option<&OsStr>) -> bool {
        let mut above = self.above.iter();
        let in_share = self.folders.contains(&descriptor)
            // temporary files of a receiver are not shared
            && name.is_none_or(|n| !n.as_bytes().starts_with(PARTIAL_PREFIX.as_bytes()));
        in_share || above.any(|(w, shared)| *w == descriptor && name == Some(shared.as_os_str()))
    }
}

fn add(inotify: &Inotify, path: &Path) -> Result<WatchDescriptor, Errno> {
    inotify.add_watch(path, CHANGES)
}

/// Explains the error, and its remedy, to users.
#[must_use]
pub fn explain(error: &io::Error, path: &str) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => format!(
            "{path} has more folders than may be watched (sysctl fs.inotify.max_user_watches): \
             changes are looked for now and then"
        ),
        _ => format!("{path} cannot be watched ({error}): changes are looked for now and then"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A watched folder `shared` with a file.
    fn watched() -> (tempfile::TempDir, PathBuf, Notices) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        fs::create_dir_all(path.join("sub")).unwrap();
        fs::write(path.join("sub/f"), b"1").unwrap();
        let mut notices = Notices::of(std::slice::from_ref(&path)).unwrap();
        assert!(notices.watch(&Scan::of(&path).unwrap()).unwrap());
        assert!(!notices.take());
        (dir, path, notices)
    }

    #[test]
    fn every_change_below_is_noticed_once_and_reading_is_not() {
        let (_dir, path, notices) = watched();
        let changes: [&dyn Fn(); 6] = [
            &|| fs::write(path.join("sub/f"), b"2").unwrap(),
            &|| fs::write(path.join("g"), b"").unwrap(),
            &|| fs::rename(path.join("g"), path.join("sub/h")).unwrap(),
            &|| fs::remove_file(path.join("sub/h")).unwrap(),
            &|| fs::create_dir(path.join("new")).unwrap(),
            &|| fs::rename(path.join("sub"), path.join("new/sub")).unwrap(),
        ];
        for change in changes {
            change();
            assert!(notices.take());
            assert!(!notices.take());
        }
        assert_eq!(fs::read(path.join("new/sub/f")).unwrap(), b"2");
        fs::create_dir(path.join(".lcsync-partial")).unwrap();
        assert!(!notices.take());
    }

    #[test]
    fn new_folders_are_watched_after_the_next_scan_and_old_ones_no_more() {
        let (dir, path, mut notices) = watched();
        fs::create_dir(path.join("new")).unwrap();
        fs::rename(path.join("sub"), dir.path().join("away")).unwrap();
        assert!(notices.watch(&Scan::of(&path).unwrap()).unwrap());
        assert!(!notices.watch(&Scan::of(&path).unwrap()).unwrap());
        notices.take();
        fs::write(path.join("new/f"), b"").unwrap();
        assert!(notices.take());
        fs::write(dir.path().join("away/f"), b"2").unwrap();
        assert!(!notices.take());
    }

    #[test]
    fn a_path_that_is_replaced_is_noticed_and_its_neighbours_are_not() {
        let (dir, path, notices) = watched();
        fs::write(dir.path().join("neighbour"), b"").unwrap();
        assert!(!notices.take());
        fs::rename(&path, dir.path().join("old")).unwrap();
        assert!(notices.take());
        fs::create_dir(&path).unwrap();
        assert!(notices.take());
    }
}
