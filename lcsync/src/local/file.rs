//! Comparison of one entry with DEST, and copy of one file: the work of each thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::changes::{Changes, Check, Source};
use super::content::{self, PIECE};
use super::job::Job;
use super::options::Options;
use super::queue::Outcome;
use super::shared::{Common, SET_ID};
use crate::attributes::{self, Attributes};
use crate::listing::Kind;
use crate::place::{Found, Opened, Place, Standing};
use crate::scan::Files;

/// Size from which on an old version is cloned, and only changes are written.
const CLONE_FROM: u64 = 1 << 20;

/// Difference of an entry. The entry in DEST stays open, so that no other one is changed.
#[derive(Debug)]
pub struct Difference {
    pub there: Option<(Opened, Standing)>,
    pub changes: Changes,
    /// Another user may have the file in DEST open for writing, or under another name: it is
    /// replaced, even if only owner or mode differ.
    pub is_foreign: bool,
    /// Kept attributes of SRC.
    pub attributes: Attributes,
}

impl Difference {
    /// Whether the entry in DEST must be removed first: a rename replaces only files and links.
    pub fn is_obstructed(&self, kind: &Kind) -> bool {
        let found = self.there.as_ref().map(|(_, there)| &there.found);
        let is_folder = *kind == Kind::Folder;
        self.changes.new && (found == Some(&Found::Folder) || is_folder && found.is_some())
    }
}

/// Copier of one thread.
pub struct FileCopier<'a> {
    pub options: &'a Options,
    pub common: Arc<Common>,
    pub place: Option<Place>,
    /// Files of SRC that could not be read.
    pub unread: usize,
    files: Files,
    buffer: Vec<u8>,
}

impl<'a> FileCopier<'a> {
    pub fn new(options: &'a Options, common: Arc<Common>) -> Self {
        Self {
            options,
            common,
            place: None,
            unread: 0,
            files: Files::default(),
            buffer: Vec::new(),
        }
    }

    /// Makes one for another thread.
    pub fn another(&self) -> std::io::Result<Self> {
        let mut other = Self::new(self.options, Arc::clone(&self.common));
        other.place = self.place.as_ref().map(Place::another).transpose()?;
        Ok(other)
    }

    /// Returns the difference of entry `n`, if any. `report` gets the bytes compared so far.
    pub fn compare(
        &mut self,
        job: &Job,
        n: usize,
        report: &mut dyn FnMut(u64),
    ) -> anyhow::Result<Option<Difference>> {
        let (options, common) = (self.options, Arc::clone(&self.common));
        let (path, source) = job.entry(n);
        let there = match &mut self.place {
            Some(place) => place.standing(path)?,
            None => None,
        };
        if options.passes_over(source, there.as_ref()) {
            return Ok(None);
        }
        let keep = common.keep_of(source);
        let between =
            |there: Option<&Standing>| Changes::between(source, there, keep, options.check);
        let looks_inside = |changes: Changes| {
            let is_file = matches!(source.kind, Kind::File { .. });
            is_file && options.check == Check::Content && !(changes.new || changes.size)
        };
        let changes = between(there.as_ref());
        let looks_at_attributes = !common.keep.attributes.is_empty();
        if !(changes.any() || looks_inside(changes) || looks_at_attributes) {
            return Ok(None);
        }
        // an entry to change is checked again, open
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
            // files that have changed since the scan, or cannot be read, differ
            changes.content = match (self.files.open(&job.scan, n), opened.file()) {
                (Ok(from), Some(Ok(there))) => !content::is_same(&from, &there, size, report)?,
                _ => true,
            };
        }
        let attributes = self.attributes_of(job, Some(n))?;
        if looks_at_attributes
            && !changes.new
            && let Some((opened, _)) = &there
        {
            changes.compare_attributes(&attributes, &attributes::read(opened, keep.attributes)?);
        }
        let gives_rights = attributes::gives_rights(&attributes);
        let standing = there.as_ref().map(|(_, standing)| standing);
        let is_foreign =
            standing.is_some_and(|s| common.is_foreign(source, s, changes, gives_rights));
        Ok(changes.any().then_some(Difference {
            there,
            changes,
            is_foreign,
            attributes,
        }))
    }

    /// Returns the kept attributes of entry `n`, or of the top.
    pub fn attributes_of(&mut self, job: &Job, n: Option<usize>) -> anyhow::Result<Attributes> {
        let selection = self.common.keep.attributes;
        if selection.is_empty() {
            return Ok(Attributes::new());
        }
        let entry = self.files.open_entry(&job.scan, n)?;
        let read = entry.map(|entry| attributes::read(&entry, selection));
        Ok(read.transpose()?.unwrap_or_default())
    }

    /// Whether entry `n` was removed from SRC since the scan. A single SRC must be there.
    pub fn has_vanished(&mut self, job: &Job, n: usize) -> bool {
        job.whole_folder() && self.files.has_vanished(&job.scan, n)
    }

    /// Copies file `n` without progress.
    pub fn copy(&mut self, job: &Job, n: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut copy = || {
            let Some(difference) = self.compare(job, n, &mut |_| {})? else {
                return Ok(());
            };
            if difference.is_obstructed(job.entry(n).1.kind) {
                outcome.is_obstructed = true;
                return Ok(());
            }
            outcome.changes = Some(difference.changes);
            if !self.options.dry_run {
                outcome.written = self.apply(job, n, &difference, &mut |_| {})?;
            }
            anyhow::Ok(())
        };
        let error = copy().err();
        Outcome { error, ..outcome }
    }

    /// Makes file `n` equal to SRC; returns the bytes written.
    pub fn apply(
        &mut self,
        job: &Job,
        n: usize,
        difference: &Difference,
        report: &mut dyn FnMut(u64),
    ) -> anyhow::Result<u64> {
        match &difference.there {
            Some((opened, _)) if !(difference.changes.content || difference.is_foreign) => {
                let (_, source) = job.entry(n);
                let attributes = &difference.attributes;
                self.common
                    .set_metadata(opened, source, difference.changes, attributes)?;
                Ok(0)
            }
            _ => self.write(job, n, difference, report),
        }
    }

    fn write(
        &mut self,
        job: &Job,
        n: usize,
        difference: &Difference,
        report: &mut dyn FnMut(u64),
    ) -> anyhow::Result<u64> {
        let now = match self.files.open_now(&job.scan, n) {
            Ok(now) => now,
            Err(error) => {
                self.unread += usize::from(!self.has_vanished(job, n));
                return Err(error.into());
            }
        };
        let (path, _) = job.entry(n);
        let (options, common, Some(place)) = (self.options, &self.common, &mut self.place) else {
            return Ok(0);
        };
        let Kind::File { size, .. } = now.kind else {
            return Ok(0);
        };
        let source = Source {
            kind: &now.kind,
            metadata: &now.metadata,
            owner: now.owner,
        };
        let from = &now.file;
        let is_file = |there: &&(Opened, Standing)| matches!(there.1.found, Found::File(_));
        let there = difference.there.as_ref().filter(is_file);
        let standing = there.map(|(_, standing)| standing);
        let changes = Changes::between(source, standing, common.keep_of(source), options.check);
        let attributes = &difference.attributes;
        let gives_rights = attributes::gives_rights(attributes);
        let is_foreign = difference.is_foreign
            || standing.is_some_and(|s| common.is_foreign(source, s, changes, gives_rights));
        let sets_id = gives_rights || common.keep.modes && source.metadata.mode & SET_ID != 0;
        if let Some((opened, standing)) = there
            && options.inplace
            && !(is_foreign && sets_id)
        {
            let (mode, owner) = (standing.metadata.mode, standing.owner.user);
            let to = match place.open_to_write(path) {
                // as for a folder: this user's own, writable after a change of its mode
                Err(e) if is_denied(&e) && common.is_closed(mode | 0o100, owner) => {
                    opened.set_mode(mode | 0o600)?;
                    let to = place.open_to_write(path);
                    opened.set_mode(mode)?;
                    to?
                }
                to => to?,
            };
            let standing = Some(standing);
            let written = common.update((from, &to), size, options, report)?;
            common.finish_file(&to, source, standing, attributes)?;
            return Ok(written);
        }
        if let Some((opened, _)) = there
            && !(changes.size || is_foreign)
            && options.check != Check::Content
            // a change would concern the file's other names, too
            && opened.has_one_name()?
            && let Some(Ok(old)) = opened.file()
            && content::is_same(from, &old, size, report)?
        {
            common.set_metadata(opened, source, changes, attributes)?;
            return Ok(0);
        }
        if options.partial {
            let to = place.stage(path, None)?;
            let written = common.update((from, &to), size, options, report)?;
            common.finish_file(&to, source, standing, attributes)?;
            place.install(path)?;
            return Ok(written);
        }
        let draft = place.draft(path)?;
        let to = &draft.file;
        let old = there.filter(|_| size >= CLONE_FROM);
        let old = old.and_then(|(opened, _)| opened.file()?.ok());
        // a large file tries again: its folder may be on another file system
        let asks = size >= CLONE_FROM || common.clones.load(Ordering::Relaxed);
        let is_clone = asks && content::clone(from, to);
        if asks {
            common.clones.store(is_clone, Ordering::Relaxed);
        }
        let written = if is_clone {
            Ok(0)
        } else if old.is_some_and(|old| content::clone(&old, to)) {
            common.update((from, to), size, options, report)
        } else if size <= PIECE as u64 && !options.sparse && options.limit.is_none() {
            content::fill_small(from, to, size, &mut self.buffer).map(|()| size)
        } else {
            common.fill((from, to), size, options, report)
        };
        let published = written.and_then(|written| {
            common.finish_file(to, source, standing, attributes)?;
            place.publish(path, &draft, difference.there.is_some())?;
            Ok(written)
        });
        if published.is_err() {
            // most likely it has no name
            let _ = place.discard(path, &draft);
        }
        Ok(published?)
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
