//! Where files are, and how they are replaced.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A folder of the user's: what `variable` says, else `below` his home.
#[must_use]
pub fn user_dir(variable: &str, below: &str) -> PathBuf {
    match std::env::var_os(variable).filter(|v| Path::new(v).is_absolute()) {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(below),
    }
}

/// Another program of ours: beside this one, else where programs are.
#[must_use]
pub fn companion(name: &str) -> Option<PathBuf> {
    let me = std::env::current_exe().ok();
    let beside = me.map(|me| me.with_file_name(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut all = beside.into_iter().chain(elsewhere);
    all.find(|file| file.is_absolute() && file.is_file())
}

/// Puts `bytes` in the place of a file, whole or not at all; on disk when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
