//! All of a tree but file contents: folders, links, modes and times, deletions.

use std::io::{self, ErrorKind, Write};

use super::modes::Modes;
use super::plan::Plan;
use crate::folder::metadata_of;
use crate::listing::{Entry, Kind, Metadata, link_stays_inside, shown};
use crate::place::{Found, Place};

/// Bounds of deleting entries that are not in the share.
#[derive(Debug, Clone, Copy)]
pub struct Deletion {
    /// Whether to delete at all.
    pub delete: bool,
    /// Most files, links and folders deleted.
    pub most: Option<u64>,
}

/// Deleted entries, and kept ones.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Paths; a folder includes its entries.
    pub paths: Vec<Vec<u8>>,
    /// Files, links and folders beyond the bound.
    pub skipped: u64,
}

/// Makes links (with `force`, in place of folders), sets modes and times and, without failures,
/// deletes. `folder` has the exact mode and time of a shared folder, if they are taken.
pub fn finish(
    force: bool,
    deletion: Deletion,
    entries: &[Entry],
    folder: Option<&Metadata>,
    plan: &mut Plan<'_>,
    place: &mut Place,
) -> anyhow::Result<Deleted> {
    for entry in entries {
        if let Kind::Link { target } = &entry.kind
            && let Err(e) = make_link(entry, target, force, place)
        {
            plan.failures.push(format!("{}: {e:#}", shown(&entry.path)));
        }
    }
    let mut deleted = Deleted::default();
    if deletion.delete && plan.failures.is_empty() {
        deleted = extraneous(entries, deletion.most, place)?;
        for path in &deleted.paths {
            place.make_way(path, true)?;
        }
    }
    set_modes(entries, plan, place);
    if let Some(root) = folder
        && let Some(opened) = place.open_entry(b"")?
    {
        opened.set_metadata(root, false)?;
    }
    Ok(deleted)
}

/// Returns entries to delete. Beyond `most`, they are single entries, those in a folder before it.
fn extraneous(entries: &[Entry], most: Option<u64>, place: &mut Place) -> io::Result<Deleted> {
    let paths = place.extraneous(entries)?;
    let Some(most) = most else {
        return Ok(Deleted { paths, skipped: 0 });
    };
    let mut all = Vec::new();
    let mut waiting = paths.clone();
    while let Some(path) = waiting.pop() {
        if place.look(&path)? == Some(Found::Folder) {
            let below = |name: Vec<u8>| [&path[..], b"/", &name].concat();
            waiting.extend(place.names(&path)?.into_iter().map(below));
        }
        all.push(path);
    }
    let skipped = (all.len() as u64).saturating_sub(most);
    if skipped == 0 {
        return Ok(Deleted { paths, skipped });
    }
    // a folder comes before all its entries
    let chosen = all.into_iter().skip(skipped as usize).rev();
    Ok(Deleted {
        paths: chosen.collect(),
        skipped,
    })
}

/// Prints the actions of a transfer; returns the number of deletions skipped.
pub fn describe(
    deletion: Deletion,
    entries: &[Entry],
    plan: &Plan<'_>,
    place: Option<&mut Place>,
) -> anyhow::Result<u64> {
    let mut out = librecast_program::standard::output();
    for n in plan.changed_files() {
        writeln!(out, "{}", shown(&entries[n].path))?;
    }
    let mut skipped = 0;
    if let (true, Some(place)) = (deletion.delete, place) {
        let deleted = extraneous(entries, deletion.most, place)?;
        for path in deleted.paths {
            writeln!(out, "deleting {}", shown(&path))?;
        }
        skipped = deleted.skipped;
    }
    out.flush()?;
    Ok(skipped)
}

fn make_link(entry: &Entry, target: &[u8], force: bool, place: &mut Place) -> anyhow::Result<()> {
    let there = place.look(&entry.path)?;
    if there == Some(Found::Link(target.to_vec())) {
        return Ok(());
    }
    anyhow::ensure!(
        link_stays_inside(&entry.path, target),
        "a link out of DEST, to {:?}: refused",
        shown(target)
    );
    if there == Some(Found::Folder) {
        place.make_way(&entry.path, force)?;
    }
    Ok(place.make_link(&entry.path, target)?)
}

/// Sets modes and times of entries not just made; folders last and deepest first, as the rest
/// changes their times.
fn set_modes(entries: &[Entry], plan: &mut Plan<'_>, place: &mut Place) {
    let is_folder = |n: &usize| entries[*n].kind == Kind::Folder;
    let made = plan.made();
    let files = (0..entries.len()).filter(|n| !is_folder(n) && !made[*n]);
    let folders = (0..entries.len()).rev().filter(is_folder);
    for n in files.chain(folders) {
        let entry = &entries[n];
        if let Err(e) = set_mode(n, entry, plan, place)
            && e.kind() != ErrorKind::NotFound
        {
            plan.failures.push(format!("{}: {e}", shown(&entry.path)));
        }
    }
}

enum Wanted {
    Exactly(Metadata),
    NoMoreThan(u16),
}

/// Returns the change of entry `n`, if `now` is its state.
fn wanted(n: usize, entry: &Entry, modes: Modes<'_>, now: &Metadata) -> Option<Wanted> {
    let link = matches!(entry.kind, Kind::Link { .. });
    if let Some(wanted) = modes.exact(n) {
        let same_time = (now.mtime, now.nanos) == (wanted.mtime, wanted.nanos);
        let is_same = same_time && (link || now.mode == wanted.mode & 0o777);
        return (!is_same).then_some(Wanted::Exactly(*wanted));
    }
    if link {
        return None;
    }
    let mode = modes.bits(n, &entry.kind, Some(now.mode & 0o777));
    if let Kind::File {
        executable: true, ..
    } = entry.kind
        && now.mode & 0o100 == 0
    {
        return Some(Wanted::Exactly(Metadata { mode, ..*now }));
    }
    (now.mode & 0o777 & !mode != 0).then_some(Wanted::NoMoreThan(mode))
}

fn set_mode(n: usize, entry: &Entry, plan: &Plan<'_>, place: &mut Place) -> io::Result<()> {
    let (path, modes) = (&entry.path, plan.modes());
    let link = matches!(entry.kind, Kind::Link { .. });
    if wanted(n, entry, modes, &place.metadata(path)?).is_none() {
        return Ok(());
    }
    // the entry is checked again, open, as another may have come to its path
    let Some(opened) = place.open_entry(path)? else {
        return Ok(());
    };
    let found = opened.stat()?;
    plan.check_same(n, &found)?;
    match wanted(n, entry, modes, &metadata_of(&found)) {
        None => Ok(()),
        Some(Wanted::Exactly(metadata)) => opened.set_metadata(&metadata, link),
        Some(Wanted::NoMoreThan(bits)) => match opened.narrow(bits) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!(
                    "{}: more may be done with it than at the source: {e}",
                    shown(path)
                );
                Ok(())
            }
            other => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// All entries below a folder, the parents first.
    fn below(folder: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.to_str().unwrap().to_owned());
            if path.is_dir() {
                found.extend(below(&path));
            }
        }
        found
    }

    #[test]
    fn no_more_is_deleted_than_may_be_and_of_folders_what_is_in_them_first() {
        for most in [None, Some(9), Some(6), Some(5), Some(2), Some(0)] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("old/deep")).unwrap();
            for name in ["kept", "stray", "old/a", "old/deep/b", "old/deep/c"] {
                fs::write(dir.path().join(name), b"").unwrap();
            }
            let before = below(dir.path());
            let entries = [Entry {
                path: b"kept".to_vec(),
                kind: Kind::File {
                    size: 0,
                    executable: false,
                },
            }];
            let mut place = Place::open(dir.path()).unwrap();
            let deleted = extraneous(&entries, most, &mut place).unwrap();
            for path in &deleted.paths {
                place.make_way(path, true).unwrap();
            }
            let gone = before.difference(&below(dir.path())).count() as u64;
            assert_eq!(gone, most.unwrap_or(6).min(6), "{most:?}");
            assert_eq!(gone + deleted.skipped, 6);
            assert!(dir.path().join("kept").exists());
            if deleted.skipped == 0 {
                assert_eq!(deleted.paths, [&b"old"[..], b"stray"]);
            }
        }
    }
}
