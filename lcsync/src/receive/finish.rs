//! Everything of a tree that is no file content: folders, links, modes and times, deletions.

use std::io::Write;

use super::plan::Plan;
use crate::listing::{Entry, Kind, Metadata, link_stays_inside, shown};
use crate::place::{Found, Place};

/// Makes links, sets modes and times, deletes what is not in the share if told to and if all went well.
/// Gives the paths deleted: none if the entries are not `complete`. `metadata` begins with the root's.
pub fn finish(
    delete: bool,
    complete: bool,
    entries: &[Entry],
    metadata: Option<&[Metadata]>,
    folder: bool,
    plan: &mut Plan<'_>,
    place: &mut Place,
) -> anyhow::Result<Vec<Vec<u8>>> {
    for entry in entries {
        if let Kind::Link { target } = &entry.kind
            && let Err(e) = make_link(entry, target, delete, place)
        {
            plan.failures.push(format!("{}: {e:#}", shown(&entry.path)));
        }
    }
    let mut removed = Vec::new();
    if delete && complete && folder && plan.failures.is_empty() {
        for path in place.extraneous(entries)? {
            place.make_way(&path, true)?;
            removed.push(path);
        }
    }
    set_modes(entries, metadata, plan, place);
    if let (Some([root, ..]), true) = (metadata, folder) {
        place.set_metadata(b"", root, false)?;
    }
    Ok(removed)
}

/// Says what a transfer would do.
pub fn describe(
    delete: bool,
    entries: &[Entry],
    plan: &Plan<'_>,
    place: Option<&mut Place>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for n in plan.changed_files() {
        writeln!(out, "{}", shown(&entries[n].path))?;
    }
    if let (true, Some(place)) = (delete, place) {
        for path in place.extraneous(entries)? {
            writeln!(out, "deleting {}", shown(&path))?;
        }
    }
    Ok(())
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

/// Modes and times of what was not just made; folders last and deepest first, as all else changes their times.
fn set_modes(
    entries: &[Entry],
    metadata: Option<&[Metadata]>,
    plan: &mut Plan<'_>,
    place: &mut Place,
) {
    let is_folder = |n: &usize| entries[*n].kind == Kind::Folder;
    let made = plan.made();
    let files = (0..entries.len()).filter(|n| !is_folder(n) && !made[*n]);
    let folders = (0..entries.len()).rev().filter(is_folder);
    for n in files.chain(folders) {
        let wanted = metadata.and_then(|m| m.get(n + 1).or(m.first().filter(|_| m.len() == 1)));
        let entry = &entries[n];
        let result = place
            .metadata(&entry.path)
            .and_then(|now| match (&entry.kind, wanted) {
                (Kind::Folder | Kind::Link { .. }, None) => Ok(()),
                (Kind::File { executable, .. }, None) => {
                    // who was never executable here stays as he is
                    let mode = plan.mode_of(n, *executable, Some(now.mode));
                    let as_it_is = (now.mode & 0o100 != 0) == *executable;
                    let after = Metadata { mode, ..now };
                    if as_it_is {
                        Ok(())
                    } else {
                        place.set_metadata(&entry.path, &after, false)
                    }
                }
                (kind, Some(wanted)) => {
                    let link = matches!(kind, Kind::Link { .. });
                    let same_time = (now.mtime, now.nanos) == (wanted.mtime, wanted.nanos);
                    let same = same_time && (link || now.mode == wanted.mode & 0o777);
                    if same {
                        Ok(())
                    } else {
                        place.set_metadata(&entry.path, wanted, link)
                    }
                }
            });
        if let Err(e) = result
            && e.kind() != std::io::ErrorKind::NotFound
        {
            plan.failures.push(format!("{}: {e}", shown(&entry.path)));
        }
    }
}
