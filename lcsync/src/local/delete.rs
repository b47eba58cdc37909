//! Deletions in DEST: entries that are not in SRC, and entries in the way of another kind. Entries
//! that patterns protect stay, with their folders.

use std::collections::HashSet;
use std::io;

use super::changes::is_device;
use super::copier::Copier;
use super::job::Job;
use crate::listing::Kind;
use crate::place::Found;

/// A folder that is being emptied.
struct Emptied {
    path: Vec<u8>,
    /// Names to be removed.
    names: Vec<Vec<u8>>,
    /// An entry in it stays.
    keeps: bool,
    /// Its mode before it was opened for this.
    mode: Option<u16>,
}

/// Result for an entry.
enum Step {
    Gone,
    Stays,
    Open(Emptied),
}

impl Copier<'_> {
    /// Removes entries that are not in SRC.
    pub fn delete(&mut self, job: &Job) {
        let not_entered: HashSet<&[u8]> = job.scan.not_entered.iter().map(Vec::as_slice).collect();
        let folders = job.scan.entries.iter().filter(|e| e.kind == Kind::Folder);
        let folders = folders.map(|e| e.path.as_slice());
        let folders = folders.filter(|path| !not_entered.contains(path));
        for folder in std::iter::once(&b""[..]).chain(folders) {
            for name in self.names_in(job, folder) {
                let path = below(folder, &name);
                if !job.is_in_source(&path) {
                    self.remove(job, &path, false);
                }
            }
        }
    }

    /// Removes an entry in the way of one of another kind.
    pub fn make_way(&mut self, job: &Job, path: &[u8], kind: &Kind) -> anyhow::Result<()> {
        let kind = match kind {
            Kind::File { .. } => "regular file",
            Kind::Folder => "directory",
            Kind::Link { .. } => "symlink",
            Kind::Node(node) if is_device(*node) => "device file",
            Kind::Node(_) => "special file",
        };
        let is_gone = self.remove(job, path, true);
        let shown = job.shown(path, false);
        anyhow::ensure!(is_gone, "could not make way for new {kind}: {shown}");
        Ok(())
    }

    /// Removes the entry at `path` with all in it; returns whether all of it is gone. Patterns and
    /// the limit concern an entry in the way only below it.
    fn remove(&mut self, job: &Job, path: &[u8], in_the_way: bool) -> bool {
        // its own stack keeps deep trees from exhausting the thread's
        let mut open: Vec<Emptied> = Vec::new();
        let mut step = self.begin(job, path, in_the_way);
        loop {
            match (step, open.last_mut()) {
                (Step::Open(folder), _) => open.push(folder),
                (step, None) => return matches!(step, Step::Gone),
                (Step::Stays, Some(folder)) => folder.keeps = true,
                (Step::Gone, Some(_)) => {}
            }
            let next = open.last_mut().and_then(|folder| {
                let name = folder.names.pop()?;
                Some(below(&folder.path, &name))
            });
            step = match (next, &mut open) {
                (Some(path), _) => self.begin(job, &path, false),
                (None, open) => match open.pop() {
                    Some(folder) => self.end(job, &folder, in_the_way && open.is_empty()),
                    None => Step::Gone,
                },
            };
        }
    }

    fn begin(&mut self, job: &Job, path: &[u8], in_the_way: bool) -> Step {
        let (options, Some(place)) = (self.options, &mut self.own.place) else {
            return Step::Stays;
        };
        let there = match place.standing(path) {
            Ok(Some(there)) => there,
            Ok(None) => return Step::Gone,
            Err(error) => return self.not_removed(job, path, &error),
        };
        let is_folder = there.found == Found::Folder;
        let full = [&job.prefix, path].concat();
        let protects = !options.delete_excluded && options.filter.leaves_out(&full, is_folder);
        if protects && !in_the_way {
            return Step::Stays;
        }
        if !is_folder {
            return self.take_away(job, path, false, in_the_way);
        }
        if options.one_file_system && !place.is_on_its_file_system(path) {
            options.say(&format!(
                "cannot delete mount point: {}",
                job.shown(path, true)
            ));
            return Step::Stays;
        }
        let mode = there.metadata.mode;
        let opened = self.shared.common.is_closed(mode, there.owner.user)
            && !options.dry_run
            && place.set_mode(path, mode | 0o700).is_ok();
        let before = self.shared.tally.not_deleted;
        let names = self.names_in(job, path);
        // without --delete only an empty folder makes way
        let stays = in_the_way && !options.delete && !names.is_empty();
        Step::Open(Emptied {
            path: path.to_vec(),
            names: if stays { Vec::new() } else { names },
            keeps: stays || self.shared.tally.not_deleted > before,
            mode: opened.then_some(mode),
        })
    }

    fn end(&mut self, job: &Job, folder: &Emptied, in_the_way: bool) -> Step {
        if !folder.keeps {
            return self.take_away(job, &folder.path, true, in_the_way);
        }
        let shown = job.shown(&folder.path, false);
        self.options
            .say(&format!("cannot delete non-empty directory: {shown}"));
        if let (Some(place), Some(mode)) = (&mut self.own.place, folder.mode) {
            // it was opened a moment ago
            let _ = place.set_mode(&folder.path, mode);
        }
        Step::Stays
    }

    fn take_away(&mut self, job: &Job, path: &[u8], is_folder: bool, in_the_way: bool) -> Step {
        let options = self.options;
        let tally = &mut self.shared.tally;
        if !in_the_way
            && options
                .max_delete
                .is_some_and(|most| tally.deleted as u64 >= most)
        {
            tally.beyond_limit += 1;
            return Step::Stays;
        }
        if let Some(place) = self.own.place.as_mut().filter(|_| !options.dry_run) {
            let removed = match is_folder {
                true => place.remove_folder(path),
                false => place.make_way(path, false),
            };
            if let Err(error) = removed {
                return self.not_removed(job, path, &error);
            }
        }
        if in_the_way {
            return Step::Gone;
        }
        self.shared.tally.deleted += 1;
        let shown = job.shown(path, is_folder);
        if options.itemize && !options.quiet {
            self.shared.progress.print(&format!("*deleting   {shown}"));
        } else if options.names() {
            self.shared.progress.print(&format!("deleting {shown}"));
        }
        Step::Gone
    }

    /// Names in a folder of DEST; none if it does not exist, as in a dry run.
    fn names_in(&mut self, job: &Job, path: &[u8]) -> Vec<Vec<u8>> {
        let Some(place) = &mut self.own.place else {
            return Vec::new();
        };
        let names = match place.look(path) {
            Ok(Some(Found::Folder)) => place.names(path),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        names.unwrap_or_else(|error| {
            self.not_removed(job, path, &error);
            Vec::new()
        })
    }

    fn not_removed(&mut self, job: &Job, path: &[u8], error: &io::Error) -> Step {
        self.shared.tally.not_deleted += 1;
        librecast_program::cli::hint(
            "lcsync",
            format_args!("cannot delete {}: {error}", job.shown(path, false)),
        );
        Step::Stays
    }
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"" => name.to_vec(),
        _ => [folder, b"/", name].concat(),
    }
}
