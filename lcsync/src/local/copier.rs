//! Copies what a job says, entry by entry.

use std::fs::File;
use std::io;

use anyhow::Context;

use super::changes::{Changes, Check, Source};
use super::content;
use super::job::{Job, make_folders};
use super::options::Options;
use super::shared::Shared;
use crate::listing::{Kind, shown};
use crate::place::{Found, Opened, Place, Standing};
use crate::scan::Files;

/// Names the partial folder of local copies: apart from those of transfers, which are found again.
pub const PARTIAL_LABEL: &[u8] = b"local copy";
/// From this size on it pays to clone an old version and to write what is new of it.
const CLONE_FROM: u64 = 1 << 20;
/// Bits of a mode that have a file run with the rights of its owner or group.
pub const SET_ID: u16 = 0o6000;

/// What is different about an entry. What is there in its place stays open: whatever else comes to its path, nothing of
/// that is changed.
pub struct Difference {
    pub there: Option<(Opened, Standing)>,
    pub changes: Changes,
    /// Another user may have the file there open for writing, or under another name: it is replaced, even if only
    /// owner or mode differ.
    pub is_foreign: bool,
}

pub struct Copier<'a> {
    options: &'a Options,
    shared: &'a mut Shared,
    place: Option<Place>,
    files: Files,
}

impl<'a> Copier<'a> {
    pub fn open(options: &'a Options, job: &Job, shared: &'a mut Shared) -> anyhow::Result<Self> {
        let name = || job.folder.display().to_string();
        let mut copier = Self {
            options,
            shared,
            place: None,
            files: Files::default(),
        };
        let is_there = job.folder.is_dir();
        if job.whole_folder() {
            let there = match is_there {
                true => Place::open(&job.folder).and_then(|mut p| p.standing(b"")),
                false => Ok(None),
            };
            let there = there.with_context(name)?;
            let source = job.root();
            let keep = copier.shared.keep_of(source);
            let changes = Changes::between(source, there.as_ref(), keep, options.check);
            copier.shared.tally.created += usize::from(changes.new);
            copier.show(job, b"", source, changes);
        }
        if is_there || !options.dry_run {
            make_folders(options, job)?;
            let mut place = Place::open(&job.folder).with_context(name)?;
            place.allow_special_modes();
            if !options.dry_run {
                place.open_partial(PARTIAL_LABEL).with_context(name)?;
            }
            copier.place = Some(place);
        }
        Ok(copier)
    }

    pub fn run(&mut self, job: &mut Job) -> anyhow::Result<()> {
        for path in &job.scan.special {
            self.skip(job, path);
        }
        for n in 0..job.scan.entries.len() {
            if let Err(e) = self.copy_entry(job, n) {
                self.shared.tally.failed += 1;
                eprintln!("lcsync: {}: {e:#}", job.scan.name_of(n));
                let (path, _) = job.entry(n);
                if let Some(place) = self.place.as_mut().filter(|_| !self.options.partial) {
                    // most likely there is none
                    let _ = place.unstage(path);
                }
                anyhow::ensure!(
                    !is_full(&e),
                    "nothing more fits into {}",
                    job.folder.display()
                );
            }
            if let Kind::File { size, .. } = job.scan.entries[n].kind {
                self.shared.done += size;
            }
            self.shared.show_progress(0);
        }
        if self.options.delete && job.whole_folder() {
            if self.shared.tally.failed == 0 {
                self.delete(job)?;
            } else {
                eprintln!("lcsync: errors: nothing is deleted");
            }
        }
        Ok(())
    }

    pub fn close(&mut self, job: &Job) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        if job.whole_folder() {
            // folders get theirs when nothing changes in them any more
            for n in (0..job.scan.entries.len()).rev() {
                let (path, source) = job.entry(n);
                if *source.kind == Kind::Folder {
                    self.finish_folder(path, source)?;
                }
            }
        }
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if !(self.options.partial && self.shared.tally.failed > 0) {
            place.remove_partial()?;
        }
        if job.whole_folder() {
            self.finish_folder(b"", job.root())?;
        }
        if let Some(place) = self.place.as_ref().filter(|_| self.options.fsync) {
            place.sync()?;
        }
        Ok(())
    }

    fn finish_folder(&mut self, path: &[u8], source: Source<'_>) -> anyhow::Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        let Some(opened) = place.open_entry(path)? else {
            return Ok(());
        };
        let there = opened.standing()?;
        let keep = self.shared.keep_of(source);
        let changes = Changes::between(source, Some(&there), keep, self.options.check);
        if changes.new {
            return Ok(());
        }
        self.shared.set_metadata(&opened, source, changes)
    }

    pub fn copy_entry(&mut self, job: &mut Job, n: usize) -> anyhow::Result<()> {
        let Some(difference) = self.compare(job, n)? else {
            return Ok(());
        };
        let ((path, source), changes) = (job.entry(n), difference.changes);
        self.show(job, path, source, changes);
        self.shared.tally.created += usize::from(changes.new);
        if let Kind::File { size, .. } = source.kind
            && changes.content
        {
            self.shared.tally.transferred += 1;
            self.shared.tally.transferred_bytes += size;
        }
        if self.options.dry_run {
            return Ok(());
        }
        self.apply(job, n, &difference)
    }

    /// What is different about entry `n`, if anything is.
    pub fn compare(&mut self, job: &Job, n: usize) -> anyhow::Result<Option<Difference>> {
        let options = self.options;
        let (path, source) = job.entry(n);
        let there = match &mut self.place {
            Some(place) => place.standing(path)?,
            None => None,
        };
        if matches!(source.kind, Kind::Link { .. }) && !options.keep.links {
            self.skip(job, path);
            return Ok(None);
        }
        if options.passes_over(source, there.as_ref()) {
            return Ok(None);
        }
        let keep = self.shared.keep_of(source);
        let between =
            |there: Option<&Standing>| Changes::between(source, there, keep, options.check);
        let looks_inside = |changes: Changes| {
            let is_file = matches!(source.kind, Kind::File { .. });
            is_file && options.check == Check::Content && !(changes.new || changes.size)
        };
        let changes = between(there.as_ref());
        if !(changes.any() || looks_inside(changes)) {
            return Ok(None);
        }
        // what may be changed is looked at again, open
        let there = match (&mut self.place, there) {
            (Some(place), Some(_)) => place.open_entry(path)?,
            _ => None,
        };
        let there = match there {
            Some(opened) => Some(opened.standing().map(|standing| (opened, standing))?),
            None => None,
        };
        let mut changes = between(there.as_ref().map(|(_, standing)| standing));
        if let (&Kind::File { size, .. }, Some((opened, _)), true) =
            (source.kind, &there, looks_inside(changes))
        {
            // what has changed since the scan, or cannot be read, is different
            changes.content = match (self.files.open(&job.scan, n), opened.file()) {
                (Ok(from), Some(Ok(there))) => !self.shared.is_same(&from, &there, size)?,
                _ => true,
            };
        }
        let standing = there.as_ref().map(|(_, standing)| standing);
        let is_foreign = standing.is_some_and(|s| self.shared.is_foreign(source, s, changes));
        Ok(changes.any().then_some(Difference {
            there,
            changes,
            is_foreign,
        }))
    }

    pub fn apply(
        &mut self,
        job: &mut Job,
        n: usize,
        difference: &Difference,
    ) -> anyhow::Result<()> {
        let (path, source) = job.entry(n);
        let changes = difference.changes;
        let found = difference.there.as_ref().map(|(_, there)| &there.found);
        let is_folder = *source.kind == Kind::Folder;
        // a rename replaces files and links, and nothing else
        if changes.new
            && (found == Some(&Found::Folder) || is_folder && found.is_some())
            && let Some(place) = &mut self.place
        {
            let force = self.options.delete;
            place.make_way(path, force).context("cannot make way")?;
        }
        match source.kind {
            Kind::File { .. } if changes.content || difference.is_foreign => {
                self.copy_file(job, n, difference)
            }
            Kind::Folder if changes.new => {
                if let Some(place) = &mut self.place {
                    place.make_folder(path, source.metadata.mode)?;
                }
                Ok(())
            }
            Kind::Link { target } if changes.content => {
                if let Some(place) = &mut self.place {
                    let keep = self.shared.keep_of(source);
                    let all = Changes {
                        time: keep.times,
                        owner: keep.owner,
                        group: keep.group,
                        mode: false,
                        ..changes
                    };
                    let link = place.stage_link(path, target)?;
                    self.shared.set_metadata(&link, source, all)?;
                    place.install_link(path, &link)?;
                }
                Ok(())
            }
            Kind::Folder => Ok(()),
            _ => match &difference.there {
                Some((opened, _)) => self.shared.set_metadata(opened, source, changes),
                None => Ok(()),
            },
        }
    }

    /// A file that has changed since the scan is taken as it is now, times included.
    pub fn open_source(&mut self, job: &mut Job, n: usize) -> io::Result<File> {
        match self.files.open(&job.scan, n) {
            Err(_) if job.scan.look_again(n)? => self.files.open(&job.scan, n),
            opened => opened,
        }
    }

    pub fn copy_file(
        &mut self,
        job: &mut Job,
        n: usize,
        difference: &Difference,
    ) -> anyhow::Result<()> {
        let from = self.open_source(job, n)?;
        let (path, source) = job.entry(n);
        let (options, Some(place)) = (self.options, &mut self.place) else {
            return Ok(());
        };
        let &Kind::File { size, .. } = source.kind else {
            return Ok(());
        };
        let (changes, is_foreign) = (difference.changes, difference.is_foreign);
        let is_file = |there: &&(Opened, Standing)| matches!(there.1.found, Found::File(_));
        let there = difference.there.as_ref().filter(is_file);
        let standing = there.map(|(_, standing)| standing);
        let sets_id = self.shared.keep.modes && source.metadata.mode & SET_ID != 0;
        if there.is_some() && options.inplace && !(is_foreign && sets_id) {
            let to = place.open_to_write(path)?;
            self.shared.update((&from, &to), size, options)?;
            return Ok(self.shared.finish_file(&to, source, standing)?);
        }
        if let Some((opened, _)) = there
            && !(changes.size || is_foreign)
            && options.check != Check::Content
            && let Some(Ok(old)) = opened.file()
            && self.shared.is_same(&from, &old, size)?
        {
            return self.shared.set_metadata(opened, source, changes);
        }
        if options.partial {
            let to = place.stage(path, None)?;
            self.shared.update((&from, &to), size, options)?;
            self.shared.finish_file(&to, source, standing)?;
        } else {
            let to = place.stage(path, Some(0))?;
            let old = there.filter(|_| size >= CLONE_FROM);
            let old = old.and_then(|(opened, _)| opened.file()?.ok());
            if !content::clone(&from, &to) {
                if old.is_some_and(|old| content::clone(&old, &to)) {
                    self.shared.update((&from, &to), size, options)?;
                } else {
                    self.shared.fill((&from, &to), size, options)?;
                }
            }
            self.shared.finish_file(&to, source, standing)?;
        }
        Ok(place.install(path)?)
    }

    pub fn delete(&mut self, job: &Job) -> anyhow::Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        for path in place.extraneous(&job.scan.entries)? {
            self.remove(job, &path)
                .with_context(|| job.shown(&path, false))?;
        }
        Ok(())
    }

    /// Removes what is at `path`, but what patterns protect. Whether all of it is gone.
    pub fn remove(&mut self, job: &Job, path: &[u8]) -> io::Result<bool> {
        let (options, Some(place)) = (self.options, &mut self.place) else {
            return Ok(false);
        };
        let is_folder = place.look(path)? == Some(Found::Folder);
        let full = [&job.prefix, path].concat();
        if !options.delete_excluded && options.filter.leaves_out(&full, is_folder) {
            return Ok(false);
        }
        let mut is_empty = true;
        if is_folder {
            for name in place.names(path)?.into_iter().rev() {
                is_empty &= self.remove(job, &[path, b"/", &name].concat())?;
            }
        }
        let shown = job.shown(path, is_folder);
        if !is_empty {
            options.say(&format!("cannot delete non-empty directory: {shown}"));
            return Ok(false);
        }
        self.shared.tally.deleted += 1;
        if options.itemize && !options.quiet {
            self.shared.progress.print(&format!("*deleting   {shown}"));
        } else if options.names() {
            self.shared.progress.print(&format!("deleting {shown}"));
        }
        if let Some(place) = self.place.as_mut().filter(|_| !options.dry_run) {
            place.make_way(path, false)?;
        }
        Ok(true)
    }

    pub fn skip(&self, job: &Job, path: &[u8]) {
        let line = format!("skipping non-regular file \"{}\"", job.shown(path, false));
        self.options.say(&line);
    }

    pub fn show(&self, job: &Job, path: &[u8], source: Source<'_>, changes: Changes) {
        let (options, kind) = (self.options, source.kind);
        let mut line = String::new();
        if options.quiet {
            return;
        }
        if options.itemize && changes.any() {
            line = changes.letters(kind, options.keep, options.check) + " ";
        } else if !(options.names() && (changes.new || changes.content) && !path.is_empty()) {
            return;
        }
        line += &job.shown(path, *kind == Kind::Folder);
        if let Kind::Link { target } = kind {
            line = line + " -> " + &shown(target);
        }
        self.shared.progress.print(&line);
    }
}

/// Whether it makes no sense to go on with other files.
pub fn is_full(error: &anyhow::Error) -> bool {
    let kind = error.root_cause().downcast_ref().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    )
}
