//! One owner of a state folder at a time: two would act under one identity.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK};

use crate::cli::{Exit, ExitError};

/// Name of the locked file, which contains its owner's process id.
const NAME: &str = "lock";
/// Bytes of the file that are read: more than the longest process id.
const MAX_PID_BYTES: u64 = 16;

/// A lock on a state folder until it is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    _held: Flock<File>,
}

impl StateLock {
    /// Locks the folder for the program. The folder must exist; a read-only folder is itself
    /// locked, without its owner's id.
    ///
    /// # Errors
    /// [`Exit::Failed`] with "PROGRAM runs already (pid N)" while another process has the lock;
    /// [`Exit::NotPermitted`] if the folder cannot be opened.
    pub fn take(folder: &Path, program: &str) -> Result<Self, ExitError> {
        let refused = |e: io::Error| {
            let exit = match e.kind() {
                io::ErrorKind::PermissionDenied => Exit::NotPermitted,
                _ => Exit::Failed,
            };
            ExitError::new(exit, format!("{}: {e}", folder.join(NAME).display()))
        };
        let file = match open(folder) {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => OpenOptions::new()
                .read(true)
                .custom_flags(O_DIRECTORY)
                .open(folder),
            opened => opened,
        };
        let file = file.map_err(refused)?;
        let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
            |(mut file, e)| match e {
                nix::Error::EWOULDBLOCK => {
                    let pid =
                        pid(&mut file).map_or_else(String::new, |pid| format!(" (pid {pid})"));
                    let folder = folder.display();
                    let message = format!(
                        "{program} runs already{pid}; {folder}: used by another {program}{pid}: each needs a folder of its own, in a container its own volume"
                    );
                    ExitError::new(Exit::Failed, message)
                }
                e => refused(e.into()),
            },
        )?;
        // a full disk must not stop the program: only the id in the message is missing
        let _ = held
            .set_len(0)
            .and_then(|()| write!(held, "{}", std::process::id()));
        Ok(Self { _held: held })
    }
}

/// Opens the file; root's new file gets the folder's owner, the program's user later.
fn open(folder: &Path) -> io::Result<File> {
    let path = folder.join(NAME);
    let open = |make: bool| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(make)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(&path)
    };
    let file = match open(true) {
        Ok(file) => {
            let owner = std::fs::metadata(folder)?;
            if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(false)?,
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_whose_number_the_second_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path(), "lcroute").unwrap();
        let refused = StateLock::take(folder.path(), "lcroute").unwrap_err();
        let own = format!("used by another lcroute (pid {})", std::process::id());
        assert!(refused.to_string().contains(&own), "{refused}");
        drop(first);
        StateLock::take(folder.path(), "lcroute").unwrap();
    }

    #[test]
    fn what_lies_in_the_place_of_the_lock_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, other) = (folder.path().join(NAME), folder.path().join("other"));
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &lock).unwrap();
        StateLock::take(folder.path(), "lcroute").unwrap_err();
        assert_eq!(std::fs::read(&other).unwrap(), b"kept");
        std::fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
        StateLock::take(folder.path(), "lcroute").unwrap_err();
    }
}
