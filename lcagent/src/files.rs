//! Paths of files.

use std::path::{Path, PathBuf};

/// The agent's key in its state folder.
pub const AGENT_KEY: &str = "agent.key";

/// Returns a folder of the user: the value of `variable`, else `below` his home.
#[must_use]
pub fn user_dir(variable: &str, below: &str) -> PathBuf {
    match std::env::var_os(variable).filter(|v| Path::new(v).is_absolute()) {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(below),
    }
}

/// Returns the path of another program of ours: beside this one, else in PATH.
#[must_use]
pub fn companion(name: &str) -> Option<PathBuf> {
    let me = std::env::current_exe().ok();
    let beside = me.map(|me| me.with_file_name(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut all = beside.into_iter().chain(elsewhere);
    all.find(|file| file.is_absolute() && file.is_file())
}
