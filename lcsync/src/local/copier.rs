//! Copies what a job says, entry by entry.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::Context;

use super::changes::{Changes, Check, Source};
use super::content;
use super::job::{Job, make_folders};
use super::options::Options;
use super::shared::Shared;
use crate::listing::{Kind, Metadata, shown};
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
    pub options: &'a Options,
    pub shared: &'a mut Shared,
    pub place: Option<Place>,
    files: Files,
    /// Files of SRC that could not be read.
    unread: usize,
    /// Folders that get another mode than they have now when nothing changes in them any more: these are open for this
    /// user until then.
    open: HashMap<Vec<u8>, u16>,
    /// A folder that could not be made.
    missing: Option<Vec<u8>>,
}

impl<'a> Copier<'a> {
    pub fn open(options: &'a Options, job: &Job, shared: &'a mut Shared) -> anyhow::Result<Self> {
        let name = || job.folder.display().to_string();
        let mut copier = Self {
            options,
            shared,
            place: None,
            files: Files::default(),
            unread: 0,
            open: HashMap::new(),
            missing: None,
        };
        let is_there = job.folder.is_dir();
        if job.whole_folder() {
            let was = copier.open_root(job).with_context(name)?;
            let there = match is_there {
                true => Place::open(&job.folder).and_then(|mut p| p.standing(b"")),
                false => Ok(None),
            };
            let mut there = there.with_context(name)?;
            if let (Some(there), Some(mode)) = (&mut there, was) {
                there.metadata.mode = mode;
            }
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
            if self.has_no_folder(job.entry(n).0) {
                self.shared.tally.failed += 1;
            } else if let Err(e) = self.copy_entry(job, n) {
                self.shared.tally.failed += 1;
                eprintln!("lcsync: {}: {e:#}", job.scan.name_of(n));
                let (path, source) = job.entry(n);
                if *source.kind == Kind::Folder {
                    self.missing = Some([path, b"/"].concat());
                    eprintln!("lcsync: {}: nothing in it is copied", job.scan.name_of(n));
                }
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
            if job.scan.unread + self.unread == 0 {
                self.delete(job);
            } else {
                eprintln!("lcsync: not all of SRC could be read: nothing is deleted");
            }
        }
        Ok(())
    }

    /// Whether a path is below a folder that could not be made.
    fn has_no_folder(&self, path: &[u8]) -> bool {
        let missing = self.missing.as_deref();
        missing.is_some_and(|folder| path.starts_with(folder))
    }

    /// Opens the top of DEST to this user, whose it is; gives the mode that it had.
    fn open_root(&mut self, job: &Job) -> io::Result<Option<u16>> {
        let meta = match fs::metadata(&job.folder) {
            Ok(meta) if meta.is_dir() && !self.options.dry_run => meta,
            _ => return Ok(None),
        };
        let mode = (meta.mode() & 0o7777) as u16;
        if !self.shared.is_closed(mode, meta.uid()) {
            return Ok(None);
        }
        fs::set_permissions(&job.folder, Permissions::from_mode(u32::from(mode | 0o700)))?;
        self.open.insert(Vec::new(), mode);
        Ok(Some(mode))
    }

    /// Opens a folder in DEST to this user, whose it is, until it is finished; one that was just `made` of SRC's as well.
    fn open_folder(&mut self, path: &[u8], made: Option<Source<'_>>) -> io::Result<()> {
        let Some(place) = self.place.as_mut().filter(|_| !self.options.dry_run) else {
            return Ok(());
        };
        let Some(opened) = place.open_entry(path)? else {
            return Ok(());
        };
        let Standing {
            metadata: Metadata { mode, .. },
            owner,
            found,
        } = opened.standing()?;
        let later = match made {
            // what the umask and the folder that it is in leave of it
            Some(source) => mode & (source.metadata.mode | 0o7000),
            None => mode,
        };
        let now = match self.shared.is_closed(mode, owner.user) {
            true => mode | 0o700,
            false => mode,
        };
        if found != Found::Folder {
            return Ok(());
        }
        if now != mode {
            opened.set_mode(now)?;
        }
        if now != later {
            self.open.insert(path.to_vec(), later);
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
        if let Some(mode) = self.open.remove(path).filter(|_| !keep.modes) {
            opened.set_mode(mode)?;
        }
        self.shared.set_metadata(&opened, source, changes)
    }

    pub fn copy_entry(&mut self, job: &mut Job, n: usize) -> anyhow::Result<()> {
        let difference = self.compare(job, n)?;
        let (path, source) = job.entry(n);
        let is_folder = *source.kind == Kind::Folder;
        if is_folder && difference.as_ref().is_none_or(|d| !d.changes.new) {
            self.open_folder(path, None)?;
        }
        let Some(difference) = difference else {
            return Ok(());
        };
        let changes = difference.changes;
        let found = difference.there.as_ref().map(|(_, there)| &there.found);
        // a rename replaces files and links, and nothing else
        if changes.new && (found == Some(&Found::Folder) || is_folder && found.is_some()) {
            self.make_way(job, path, source.kind)?;
        }
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
        match source.kind {
            Kind::File { .. } if changes.content || difference.is_foreign => {
                self.copy_file(job, n, difference)
            }
            Kind::Folder if changes.new => {
                if let Some(place) = &mut self.place {
                    place.make_folder(path, source.metadata.mode)?;
                }
                Ok(self.open_folder(path, Some(source))?)
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
        let from = self.open_source(job, n).inspect_err(|_| self.unread += 1)?;
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
