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
use crate::place::{Found, Place, Standing};
use crate::scan::Files;

/// Names the partial folder of local copies: apart from those of transfers, which are found again.
pub const PARTIAL_LABEL: &[u8] = b"local copy";
/// From this size on it pays to clone an old version and to write what is new of it.
const CLONE_FROM: u64 = 1 << 20;

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
        let Some(there) = place.standing(path)? else {
            return Ok(());
        };
        let keep = self.shared.keep_of(source);
        let changes = Changes::between(source, Some(&there), keep, self.options.check);
        if changes.new {
            return Ok(());
        }
        self.set_metadata(path, source, changes)
    }

    pub fn copy_entry(&mut self, job: &mut Job, n: usize) -> anyhow::Result<()> {
        let options = self.options;
        let (path, source) = job.entry(n);
        let there = match &mut self.place {
            Some(place) => place.standing(path)?,
            None => None,
        };
        if matches!(source.kind, Kind::Link { .. }) && !options.keep.links {
            self.skip(job, path);
            return Ok(());
        }
        if options.passes_over(source, there.as_ref()) {
            return Ok(());
        }
        let keep = self.shared.keep_of(source);
        let mut changes = Changes::between(source, there.as_ref(), keep, options.check);
        if let &Kind::File { size, .. } = source.kind
            && options.check == Check::Content
            && !(changes.new || changes.size)
        {
            let there = self.place.as_mut().map(|place| place.open_file(path));
            // what has changed since the scan, or cannot be read, is different
            changes.content = match (self.files.open(&job.scan, n), there) {
                (Ok(from), Some(Ok(there))) => !self.shared.is_same(&from, &there, size)?,
                _ => true,
            };
        }
        if !changes.any() {
            return Ok(());
        }
        let (path, source) = job.entry(n);
        self.show(job, path, source, changes);
        self.shared.tally.created += usize::from(changes.new);
        if let Kind::File { size, .. } = source.kind
            && changes.content
        {
            self.shared.tally.transferred += 1;
            self.shared.tally.transferred_bytes += size;
        }
        if options.dry_run {
            return Ok(());
        }
        self.apply(job, n, there.as_ref(), changes)
    }

    pub fn apply(
        &mut self,
        job: &mut Job,
        n: usize,
        there: Option<&Standing>,
        changes: Changes,
    ) -> anyhow::Result<()> {
        let (path, source) = job.entry(n);
        let is_folder = *source.kind == Kind::Folder;
        let folder_there = there.is_some_and(|there| there.found == Found::Folder);
        // a rename replaces files and links, and nothing else
        if changes.new
            && (folder_there || is_folder && there.is_some())
            && let Some(place) = &mut self.place
        {
            let force = self.options.delete;
            place.make_way(path, force).context("cannot make way")?;
        }
        match source.kind {
            Kind::File { .. } if changes.content => self.copy_file(job, n, there, changes),
            Kind::Folder if changes.new => {
                if let Some(place) = &mut self.place {
                    place.make_folder(path, source.metadata.mode)?;
                }
                Ok(())
            }
            Kind::Link { target } if changes.content => {
                if let Some(place) = &mut self.place {
                    place.make_link(path, target)?;
                }
                let keep = self.shared.keep_of(source);
                let all = Changes {
                    time: keep.times,
                    owner: keep.owner,
                    group: keep.group,
                    ..changes
                };
                self.set_metadata(path, source, all)
            }
            Kind::Folder => Ok(()),
            _ => self.set_metadata(path, source, changes),
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
        there: Option<&Standing>,
        changes: Changes,
    ) -> anyhow::Result<()> {
        let from = self.open_source(job, n)?;
        let (path, source) = job.entry(n);
        let (options, Some(place)) = (self.options, &mut self.place) else {
            return Ok(());
        };
        let &Kind::File { size, .. } = source.kind else {
            return Ok(());
        };
        let mode_there = match there {
            Some(Standing {
                found: Found::File(_),
                metadata,
                ..
            }) => Some(metadata.mode),
            _ => None,
        };
        if mode_there.is_some() && options.inplace {
            let to = place.open_to_write(path)?;
            self.shared.update((&from, &to), size, options)?;
            return Ok(self.shared.finish_file(&to, source, mode_there)?);
        }
        if mode_there.is_some()
            && !changes.size
            && options.check != Check::Content
            && let Ok(old) = place.open_file(path)
            && self.shared.is_same(&from, &old, size)?
        {
            return self.set_metadata(path, source, changes);
        }
        if options.partial {
            let to = place.stage(path, None)?;
            self.shared.update((&from, &to), size, options)?;
            self.shared.finish_file(&to, source, mode_there)?;
        } else {
            let to = place.stage(path, Some(0))?;
            let old = match mode_there {
                Some(_) if size >= CLONE_FROM => place.open_file(path).ok(),
                _ => None,
            };
            if !content::clone(&from, &to) {
                if old.is_some_and(|old| content::clone(&old, &to)) {
                    self.shared.update((&from, &to), size, options)?;
                } else {
                    self.shared.fill((&from, &to), size, options)?;
                }
            }
            self.shared.finish_file(&to, source, mode_there)?;
        }
        Ok(place.install(path)?)
    }

    /// Owner before mode: changing the owner takes special bits away.
    pub fn set_metadata(
        &mut self,
        path: &[u8],
        source: Source<'_>,
        changes: Changes,
    ) -> anyhow::Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        let user = changes.owner.then_some(source.owner.user);
        let group = changes.group.then_some(source.owner.group);
        let owner = user.is_some() || group.is_some();
        if owner {
            place.set_owner(path, (user, group))?;
        }
        let is_link = matches!(source.kind, Kind::Link { .. });
        if changes.mode || owner && self.shared.keep.modes && !is_link {
            place.set_mode(path, source.metadata.mode)?;
        }
        if changes.time {
            place.set_time(path, source.metadata)?;
        }
        Ok(())
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
