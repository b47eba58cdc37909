//! Folders to sync: made of reproducible noise, compared byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use librecast::random::Random;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes a typical folder: a big file, small ones, an empty one, names with spaces and non-ASCII
/// letters, sub-folders, an empty folder. `bytes` in all, mostly in the big file.
pub fn make_folder(folder: &Path, bytes: usize) -> Result<()> {
    let files: [(&str, usize); 7] = [
        ("big.bin", bytes.saturating_sub(40_000)),
        ("notes.txt", 4_321),
        ("empty", 0),
        ("one byte", 1),
        ("sub/exactly one block", 262_144.min(bytes / 4)),
        ("sub/deep/er/Grüße.txt", 17_000),
        ("sub/deep/another.bin", 18_678),
    ];
    for (seed, (name, size)) in (1_u64..).zip(files) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, noise(seed, size)).with_context(|| path.display().to_string())?;
    }
    fs::create_dir_all(folder.join("an empty folder"))?;
    Ok(())
}

/// Returns `size` incompressible bytes that depend on `seed` only.
#[must_use]
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    Random::new(seed).bytes(size)
}

/// Checks that two folders have the same names and the same bytes.
///
/// # Errors
/// The first differences.
pub fn same_content(a: &Path, b: &Path) -> Result<()> {
    let (first, second) = (listing(a)?, listing(b)?);
    let names = |of: &BTreeMap<PathBuf, Option<Vec<u8>>>| of.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(&first) == names(&second),
        "names differ:\n{:?}\n{:?}",
        names(&first),
        names(&second)
    );
    for (name, content) in &first {
        ensure!(
            second.get(name) == Some(content),
            "the content of {} differs",
            name.display()
        );
    }
    Ok(())
}

/// Relative path -> content, `None` for a folder.
fn listing(root: &Path) -> Result<BTreeMap<PathBuf, Option<Vec<u8>>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_owned();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                found.insert(name, Some(fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

/// A small disk in memory, mounted on a folder; dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts a disk of `bytes` on `folder`, which is made.
    pub fn new(folder: PathBuf, bytes: usize) -> Result<Disk> {
        fs::create_dir_all(&folder)?;
        let disk = Disk { folder };
        disk.mount(MsFlags::empty(), bytes)?;
        Ok(disk)
    }

    /// Changes its size.
    ///
    /// # Errors
    /// It contains more than that.
    pub fn resize(&self, bytes: usize) -> Result<()> {
        self.mount(MsFlags::MS_REMOUNT, bytes)
    }

    /// Makes it read-only.
    pub fn make_read_only(&self, bytes: usize) -> Result<()> {
        self.mount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, bytes)
    }

    fn mount(&self, flags: MsFlags, bytes: usize) -> Result<()> {
        let size = format!("size={bytes}");
        mount(
            Some("disk"),
            &self.folder,
            Some("tmpfs"),
            flags,
            Some(size.as_str()),
        )
        .with_context(|| self.folder.display().to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The mount ends with the process anyway.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}
