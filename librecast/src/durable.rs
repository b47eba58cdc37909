//! Files that are on disk once a function returns: a power cut cannot undo them.
//!
//! A rename changes the folder: until that is synced, a journal may restore the old file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces a file, readable by its owner only: atomically, and durably when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, |_| Ok(()))
}

/// The same; `prepare` gets the new file while it is empty, for example to change its owner.
///
/// # Errors
/// System errors, or that of `prepare`. The old file remains, unless only the folder's sync failed.
pub fn replace_with(
    path: &Path,
    bytes: &[u8],
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let new = beside(path);
    // left by a crash, or a link of another user
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = prepare(&file)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // a half-written file only takes room
        let _ = fs::remove_file(&new);
    }
    written?;
    sync_folder_of(path)
}

/// Syncs the folder of `path`, after a file in it was made, renamed or removed.
///
/// # Errors
/// The folder cannot be opened or written.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    };
    File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn file_is_replaced_whole_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for bytes in [&b"long ago"[..], b"now"] {
            replace(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"old").unwrap();
        let failed = replace_with(&path, b"new", |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn link_in_the_place_of_the_new_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("f"), dir.path().join("elsewhere"));
        fs::write(&target, "theirs").unwrap();
        symlink(&target, dir.path().join("f.new")).unwrap();
        replace(&path, b"mine").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
    }

    #[test]
    fn folder_of_a_bare_name_is_the_current_one() {
        sync_folder_of(Path::new("name")).unwrap();
        sync_folder_of(Path::new("/name")).unwrap();
        assert!(sync_folder_of(Path::new("/nonexistent/name")).is_err());
    }
}
