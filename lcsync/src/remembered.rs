//! The highest generation of each signed or sealed share that this host has received or served, on
//! disk. Anybody can replay a recorded version, and a clock can be behind.
//!
//! ```text
//! <folder>/<32 hexadecimal digits of a hash of key and NAME>.generation, mode 0600:
//! lc:NAME GENERATION
//! ```

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use librecast::id::derive;
use librecast_program::cli::{Exit, ExitError};
use nix::unistd::geteuid;

use crate::folder::open_named;

/// Generations are times. Those further ahead are not stored, as a wrong clock makes them.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Longest valid file, in bytes.
const MAX_TEXT: u64 = 1024;

/// Stored generation of one share.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    name: String,
    generation: u64,
}

impl Remembered {
    /// Folder of systemd, else `$XDG_STATE_HOME/lcsync`, `/var/lib/lcsync` or
    /// `~/.local/state/lcsync`.
    #[must_use]
    pub fn folder_of_user() -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        if let Some(folders) = variable("STATE_DIRECTORY") {
            return std::env::split_paths(&folders).next();
        }
        let states = match (variable("XDG_STATE_HOME"), variable("HOME")) {
            (Some(states), _) => states.into(),
            (None, _) if geteuid().is_root() => "/var/lib".into(),
            (None, home) => Path::new(&home?).join(".local/state"),
        };
        states.is_absolute().then(|| states.join("lcsync"))
    }

    /// Loads it for the share NAME under this key: the signer's public one, else the sealing one.
    pub fn load(folder: &Path, name: &str, key: &[u8]) -> Result<Self, ExitError> {
        let hash = derive("lcsync 2026 remembered", &[key, &[0], name.as_bytes()]);
        let hash = blake3::Hash::from_bytes(hash).to_hex();
        let file = folder.join(format!("{}.generation", &hash[..32]));
        let generation = match read(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            read => read.map_err(|e| {
                let message = format!("{}: {e}", file.display());
                ExitError::new(Exit::Failed, message)
            })?,
        };
        Ok(Self {
            file,
            name: name.to_owned(),
            generation,
        })
    }

    /// The highest one, 0 if none is known.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The file; a user can remove it to forget the generation.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Stores a higher one on disk.
    pub fn raise(&mut self, generation: u64) -> io::Result<()> {
        let latest = SystemTime::now() + AHEAD;
        if generation <= self.generation || generation > milliseconds(latest) {
            return Ok(());
        }
        let text = format!("lc:{} {generation}\n", self.name);
        keep(&self.file, text.as_bytes())?;
        self.generation = generation;
        Ok(())
    }
}

/// Writes a whole file of the state folder to disk, or nothing.
pub fn keep(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    // a rename is on disk when its folder is
    File::open(folder)?.sync_all()
}

/// Milliseconds since 1970: the generation of a version published then.
#[must_use]
pub fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn read(file: &Path) -> io::Result<u64> {
    let mut text = String::new();
    open_named(file)?.take(MAX_TEXT).read_to_string(&mut text)?;
    let last = text.split_whitespace().last();
    last.and_then(|n| n.parse().ok())
        .ok_or_else(|| io::Error::other("holds no generation: remove it to begin anew"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_highest_generation_is_read_back_for_its_name_and_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state/lcsync");
        let load = |name: &str, key: &[u8]| Remembered::load(&folder, name, key).unwrap();
        let mut photos = load("my photos", b"key");
        assert_eq!(photos.generation(), 0);
        photos.raise(5).unwrap();
        photos.raise(3).unwrap();
        assert_eq!(load("my photos", b"key").generation(), 5);
        for (name, key) in [("my photos", &b"other"[..]), ("photos", b"key")] {
            assert_eq!(load(name, key).generation(), 0);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(photos.file())), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::write(photos.file(), "lc:my photos\n").unwrap();
        let error = Remembered::load(&folder, "my photos", b"key").unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }

    #[test]
    fn a_generation_from_the_future_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut share = Remembered::load(dir.path(), "n", b"").unwrap();
        let now = milliseconds(SystemTime::now());
        share.raise(now + 60_000).unwrap();
        assert_eq!(share.generation(), now + 60_000);
        for ahead in [now + 48 * 3_600_000, u64::MAX] {
            share.raise(ahead).unwrap();
        }
        assert_eq!(share.generation(), now + 60_000);
    }
}
