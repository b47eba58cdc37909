//! Everything of a tree that is no file content: folders, links, modes and times, deletions.

use std::io::{self, ErrorKind, Write};

use super::modes::Modes;
use super::plan::Plan;
use crate::listing::{Entry, Kind, Metadata, link_stays_inside, shown};
use crate::place::{Found, Place};

/// Makes links (with `force` where there are folders), sets modes and times, and if all went well and it is to `delete`,
/// deletes what is not in the share. Gives the paths deleted. `folder` has mode and time of a shared folder, if it is to
/// have just these.
pub fn finish(
    force: bool,
    delete: bool,
    entries: &[Entry],
    folder: Option<&Metadata>,
    plan: &mut Plan<'_>,
    place: &mut Place,
) -> anyhow::Result<Vec<Vec<u8>>> {
    for entry in entries {
        if let Kind::Link { target } = &entry.kind
            && let Err(e) = make_link(entry, target, force, place)
        {
            plan.failures.push(format!("{}: {e:#}", shown(&entry.path)));
        }
    }
    let mut removed = Vec::new();
    if delete && plan.failures.is_empty() {
        for path in place.extraneous(entries)? {
            place.make_way(&path, true)?;
            removed.push(path);
        }
    }
    set_modes(entries, plan, place);
    if let Some(root) = folder
        && let Some(opened) = place.open_entry(b"")?
    {
        opened.set_metadata(root, false)?;
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
fn set_modes(entries: &[Entry], plan: &mut Plan<'_>, place: &mut Place) {
    let is_folder = |n: &usize| entries[*n].kind == Kind::Folder;
    let made = plan.made();
    let files = (0..entries.len()).filter(|n| !is_folder(n) && !made[*n]);
    let folders = (0..entries.len()).rev().filter(is_folder);
    for n in files.chain(folders) {
        let entry = &entries[n];
        if let Err(e) = set_mode(n, entry, plan.modes(), place)
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

/// What has to be set of entry `n`, if it is `now` like this.
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

fn set_mode(n: usize, entry: &Entry, modes: Modes<'_>, place: &mut Place) -> io::Result<()> {
    let path = &entry.path;
    let link = matches!(entry.kind, Kind::Link { .. });
    if wanted(n, entry, modes, &place.metadata(path)?).is_none() {
        return Ok(());
    }
    // what is changed is looked at again, open: something else may come to its path
    let Some(opened) = place.open_entry(path)? else {
        return Ok(());
    };
    match wanted(n, entry, modes, &opened.metadata()?) {
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
