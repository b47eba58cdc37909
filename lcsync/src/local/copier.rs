//! Copies the entries of a job.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::libc;

use super::changes::{Changes, Source, is_device};
use super::content;
use super::file::{Difference, FileCopier};
use super::job::{Job, make_folders};
use super::options::Options;
use super::queue::{Outcome, Queue};
use super::shared::Shared;
use crate::attributes;
use crate::listing::{Kind, Metadata, shown};
use crate::place::{Found, Opened, Place, Small, Standing};

/// Label of the partial folder of local copies, apart from that of transfers.
pub const PARTIAL_LABEL: &[u8] = b"local copy";
/// Bytes above which files are copied one by one, by all processors, with progress.
const LARGE: u64 = 16 << 20;
/// Files that a thread takes at once.
const BATCH: usize = 32;
/// Most unfinished entries: the lead of the fastest thread over the slowest.
const MAX_PENDING: usize = 2_048;

pub struct Copier<'a> {
    pub options: &'a Options,
    pub shared: &'a mut Shared,
    pub own: FileCopier<'a>,
    /// Files of SRC that could not be read.
    unread: usize,
    /// Final modes of folders that this user has opened until nothing changes in them any more.
    open: HashMap<Vec<u8>, u16>,
    /// A folder that could not be made.
    missing: Option<Vec<u8>>,
    /// The copied name of each file with several names.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Output in the order of entries, from the first unfinished file on.
    pending: VecDeque<Pending>,
    /// Results of files further on.
    outcomes: BTreeMap<usize, Outcome>,
    /// Files that go to a thread together.
    batch: Range<usize>,
    /// Whether the first pending entry is copied.
    is_first: bool,
}

#[derive(Debug)]
enum Pending {
    File(usize),
    Line(String),
    Complaint(String),
}

impl<'a> Copier<'a> {
    pub fn open(options: &'a Options, job: &Job, shared: &'a mut Shared) -> anyhow::Result<Self> {
        let name = || job.folder.display().to_string();
        let mut copier = Self {
            options,
            own: FileCopier::new(options, Arc::clone(&shared.common)),
            shared,
            unread: 0,
            open: HashMap::new(),
            missing: None,
            first_names: HashMap::new(),
            pending: VecDeque::new(),
            outcomes: BTreeMap::new(),
            batch: 0..0,
            is_first: false,
        };
        let is_there = job.folder.is_dir();
        let in_dest = job.folder != options.dest;
        let is_missing = !is_there && options.existing && job.whole_folder() && in_dest;
        if job.whole_folder() && !is_missing {
            let was = copier.open_root(job).with_context(name)?;
            let opened = match is_there {
                true => Place::open(&job.folder).and_then(|mut p| p.open_entry(b"")),
                false => Ok(None),
            };
            let opened = opened.with_context(name)?;
            let there = opened.as_ref().map(Opened::standing).transpose();
            let mut there = there.with_context(name)?;
            if let (Some(there), Some(mode)) = (&mut there, was) {
                there.metadata.mode = mode;
            }
            let source = job.root();
            let keep = copier.shared.common.keep_of(source);
            let mut changes = Changes::between(source, there.as_ref(), keep, options.check);
            if let Some(opened) = &opened {
                let there = attributes::read(opened, keep.attributes).with_context(name)?;
                changes.compare_attributes(&copier.own.attributes_of(job, None)?, &there);
            }
            copier.shared.tally.created += usize::from(changes.new);
            copier.show(job, b"", source, changes);
        }
        if is_there || !options.dry_run && !is_missing {
            make_folders(options, job)?;
            let mut place = Place::open(&job.folder).with_context(name)?;
            place.allow_special_modes();
            if !options.dry_run {
                place.open_partial(PARTIAL_LABEL).with_context(name)?;
                let drafts = Arc::clone(&copier.shared.drafts);
                place.allow_drafts(drafts).with_context(name)?;
            }
            copier.own.place = Some(place);
        }
        Ok(copier)
    }

    pub fn run(&mut self, job: &mut Job) -> anyhow::Result<()> {
        loop {
            self.run_portion(job)?;
            let unread = job.scan.unread;
            if !job.advance(self.options) {
                break;
            }
            self.shared.tally.add(job, unread);
        }
        self.unread += self.own.unread;
        if self.options.delete && job.whole_folder() {
            if job.scan.unread + self.unread == 0 {
                self.delete(job);
            } else {
                librecast_program::cli::hint(
                    "lcsync",
                    "not all of SRC could be read: nothing is deleted",
                );
            }
        }
        Ok(())
    }

    /// Copies the scanned entries.
    fn run_portion(&mut self, job: &Job) -> anyhow::Result<()> {
        for path in &job.scan.special {
            self.skip(job, path);
        }
        let count = job.scan.entries.len();
        let helpers = (1..content::threads()).map(|_| self.own.another());
        // a few files need no thread
        let helpers = helpers
            .take(count / BATCH)
            .collect::<io::Result<Vec<_>>>()?;
        let queue = Queue::default();
        thread::scope(|scope| {
            let closing = queue.closing();
            let threads: Vec<_> = helpers
                .into_iter()
                .map(|mut helper| {
                    let queue = &queue;
                    scope.spawn(move || {
                        queue.work(|n| helper.copy(job, n));
                        helper.unread
                    })
                })
                .collect();
            let copied = self.copy_entries(job, &queue);
            drop(closing);
            for thread in threads {
                match thread.join() {
                    Ok(unread) => self.unread += unread,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            copied
        })
    }

    /// Whether a path is below a folder that could not be made.
    fn has_no_folder(&self, path: &[u8]) -> bool {
        let missing = self.missing.as_deref();
        missing.is_some_and(|folder| path.starts_with(folder))
    }

    /// Opens the top of DEST to this user, its owner; returns its previous mode.
    fn open_root(&mut self, job: &Job) -> io::Result<Option<u16>> {
        let meta = match fs::metadata(&job.folder) {
            Ok(meta) if meta.is_dir() && !self.options.dry_run => meta,
            _ => return Ok(None),
        };
        let mode = (meta.mode() & 0o7777) as u16;
        if !self.shared.common.is_closed(mode, meta.uid()) {
            return Ok(None);
        }
        fs::set_permissions(&job.folder, Permissions::from_mode(u32::from(mode | 0o700)))?;
        self.open.insert(Vec::new(), mode);
        Ok(Some(mode))
    }

    /// Opens a folder in DEST to this user, its owner, until it is finished; if `made`, with SRC's
    /// bits.
    fn open_folder(&mut self, path: &[u8], made: Option<Source<'_>>) -> io::Result<()> {
        let Some(place) = self.own.place.as_mut().filter(|_| !self.options.dry_run) else {
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
            // the bits that umask and folder have left
            Some(source) => mode & (source.metadata.mode | 0o7000),
            None => mode,
        };
        let now = match self.shared.common.is_closed(mode, owner.user) {
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

    fn copy_entries(&mut self, job: &Job, queue: &Queue) -> anyhow::Result<()> {
        for n in 0..job.scan.entries.len() {
            if self.has_no_folder(job.entry(n).0) {
                match self.own.has_vanished(job, n) {
                    true => self.shared.tally.vanished += 1,
                    false => self.shared.tally.failed += 1,
                }
                continue;
            }
            if let Some(identity) = job.scan.linked.get(&n).copied() {
                let linked = self.link_entry(job, n, identity, queue);
                if !matches!(linked, Ok(false)) {
                    self.conclude(job, n, linked.map(drop))?;
                    continue;
                }
                // a skipped entry of DEST is not a copy for other names of SRC's file
                if !self.is_passed_over(job, n)? {
                    self.first_names.insert(identity, job.entry(n).0.to_vec());
                }
            }
            match job.scan.entries[n].kind {
                Kind::File { size, .. } if size < LARGE => {
                    self.pending.push_back(Pending::File(n));
                    if self.batch.end != n || self.batch.len() >= BATCH {
                        self.push_batch(queue);
                        self.batch = n..n;
                    }
                    self.batch.end = n + 1;
                }
                _ => {
                    let copied = self.copy_entry(job, n, queue);
                    self.conclude(job, n, copied)?;
                }
            }
            if self.pending.len() > MAX_PENDING {
                self.drain(job, queue, MAX_PENDING / 2)?;
            }
        }
        self.drain(job, queue, 0)
    }

    /// Counts and reports a failure; on a full disk, it ends the copy. An entry that was removed
    /// from SRC is only counted.
    fn conclude(&mut self, job: &Job, n: usize, copied: anyhow::Result<()>) -> anyhow::Result<()> {
        if let Kind::File { size, .. } = job.scan.entries[n].kind {
            self.shared.done += size;
        }
        self.shared.show_progress(0);
        let Err(error) = copied else { return Ok(()) };
        let (path, source) = job.entry(n);
        self.first_names.retain(|_, first| first.as_slice() != path);
        let is_folder = *source.kind == Kind::Folder;
        if is_folder {
            self.missing = Some([path, b"/"].concat());
        }
        if self.own.has_vanished(job, n) {
            self.shared.tally.vanished += 1;
            return Ok(());
        }
        self.shared.tally.failed += 1;
        let name = job.scan.name_of(n);
        self.complain(format!("lcsync: {name}: {error:#}"));
        if is_folder {
            self.complain(format!("lcsync: {name}: nothing in it is copied"));
        }
        anyhow::ensure!(
            !is_full(&error),
            "nothing more fits into {}",
            job.folder.display()
        );
        Ok(())
    }

    fn push_batch(&mut self, queue: &Queue) {
        if !self.batch.is_empty() {
            queue.push(self.batch.clone());
        }
        self.batch = 0..0;
    }

    /// Copies, with the other threads, until at most `most` entries are pending.
    fn drain(&mut self, job: &Job, queue: &Queue, most: usize) -> anyhow::Result<()> {
        if self.is_first {
            return Ok(());
        }
        self.push_batch(queue);
        loop {
            for (entries, outcomes) in queue.copied() {
                self.outcomes.extend(entries.zip(outcomes));
            }
            self.settle(job, queue)?;
            if self.pending.len() <= most {
                return Ok(());
            }
            match queue.take() {
                Some(entries) => {
                    for n in entries {
                        let outcome = self.own.copy(job, n);
                        self.outcomes.insert(n, outcome);
                    }
                }
                None => queue.wait()?,
            }
        }
    }

    /// Reports and counts results in the order of entries, up to the first unfinished one.
    fn settle(&mut self, job: &Job, queue: &Queue) -> anyhow::Result<()> {
        while let Some(first) = self.pending.front() {
            let n = match first {
                Pending::File(n) if self.outcomes.contains_key(n) => *n,
                Pending::File(_) => break,
                Pending::Line(line) => {
                    self.shared.progress.print(line);
                    self.pending.pop_front();
                    continue;
                }
                Pending::Complaint(line) => {
                    librecast_program::cli::note(line);
                    self.pending.pop_front();
                    continue;
                }
            };
            self.pending.pop_front();
            let outcome = self.outcomes.remove(&n).unwrap_or_default();
            self.is_first = true;
            let copied = if outcome.is_obstructed {
                self.copy_entry(job, n, queue)
            } else {
                let (path, source) = job.entry(n);
                if let Some(changes) = outcome.changes {
                    self.show(job, path, source, changes);
                    self.count(source.kind, changes);
                }
                self.shared.tally.written += outcome.written;
                outcome.error.map_or(Ok(()), Err)
            };
            let concluded = self.conclude(job, n, copied);
            self.is_first = false;
            concluded?;
        }
        Ok(())
    }

    fn count(&mut self, kind: &Kind, changes: Changes) {
        let tally = &mut self.shared.tally;
        tally.created += usize::from(changes.new);
        if let Kind::File { size, .. } = kind
            && changes.content
        {
            tally.transferred += 1;
            tally.transferred_bytes += size;
        }
    }

    fn print(&mut self, line: String) {
        if self.is_first || self.pending.is_empty() {
            self.shared.progress.print(&line);
        } else {
            self.pending.push_back(Pending::Line(line));
        }
    }

    fn complain(&mut self, line: String) {
        if self.is_first || self.pending.is_empty() {
            librecast_program::cli::note(line);
        } else {
            self.pending.push_back(Pending::Complaint(line));
        }
    }

    pub fn close(&mut self, job: &mut Job) -> anyhow::Result<()> {
        job.leave_folders();
        if self.options.dry_run {
            return Ok(());
        }
        if job.whole_folder() {
            // folders get theirs when nothing changes in them any more
            for n in (0..job.scan.entries.len()).rev() {
                if job.scan.entries[n].kind == Kind::Folder {
                    self.finish_folder(job, Some(n))?;
                }
            }
        }
        let Some(place) = &mut self.own.place else {
            return Ok(());
        };
        if !(self.options.partial && self.shared.tally.failed > 0) {
            place.remove_partial()?;
        }
        if job.whole_folder() {
            self.finish_folder(job, None)?;
        }
        if let Some(place) = self.own.place.as_ref().filter(|_| self.options.fsync) {
            place.sync()?;
        }
        Ok(())
    }

    /// Finishes the folder of entry `n`, or the top.
    fn finish_folder(&mut self, job: &Job, n: Option<usize>) -> anyhow::Result<()> {
        let (path, source) = n.map_or((&b""[..], job.root()), |n| job.entry(n));
        let attributes = match (self.own.attributes_of(job, n), n) {
            (Err(_), Some(n)) if self.own.has_vanished(job, n) => return Ok(()),
            (attributes, _) => attributes?,
        };
        let Some(place) = &mut self.own.place else {
            return Ok(());
        };
        let Some(opened) = place.open_entry(path)? else {
            return Ok(());
        };
        let there = opened.standing()?;
        let keep = self.shared.common.keep_of(source);
        let mut changes = Changes::between(source, Some(&there), keep, self.options.check);
        if changes.new {
            return Ok(());
        }
        changes.compare_attributes(&attributes, &attributes::read(&opened, keep.attributes)?);
        if let Some(mode) = self.open.remove(path).filter(|_| !keep.modes) {
            opened.set_mode(mode)?;
        }
        self.shared
            .common
            .set_metadata(&opened, source, changes, &attributes)
    }

    pub fn copy_entry(&mut self, job: &Job, n: usize, queue: &Queue) -> anyhow::Result<()> {
        let (path, source) = job.entry(n);
        if matches!(source.kind, Kind::Link { .. }) && !self.options.keep.links {
            self.skip(job, path);
            return Ok(());
        }
        let shared = &mut *self.shared;
        let report = &mut |done| shared.show_progress(done);
        let difference = self.own.compare(job, n, report)?;
        let is_folder = *source.kind == Kind::Folder;
        if is_folder && difference.as_ref().is_none_or(|d| !d.changes.new) {
            self.open_folder(path, None)?;
        }
        let Some(difference) = difference else {
            return Ok(());
        };
        let changes = difference.changes;
        if difference.is_obstructed(source.kind) {
            // its report comes in its turn
            self.drain(job, queue, 0)?;
            self.make_way(job, path, source.kind)?;
        }
        self.show(job, path, source, changes);
        self.count(source.kind, changes);
        if self.options.dry_run {
            return Ok(());
        }
        self.apply(job, n, &difference)
    }

    pub fn apply(&mut self, job: &Job, n: usize, difference: &Difference) -> anyhow::Result<()> {
        let (path, source) = job.entry(n);
        let changes = difference.changes;
        match source.kind {
            Kind::File { .. } => {
                let shared = &mut *self.shared;
                let report = &mut |done| shared.show_progress(done);
                let written = self.own.apply(job, n, difference, report)?;
                self.shared.tally.written += written;
                Ok(())
            }
            Kind::Folder if changes.new => {
                if let Some(place) = &mut self.own.place {
                    place.make_folder(path, source.metadata.mode)?;
                }
                Ok(self.open_folder(path, Some(source))?)
            }
            Kind::Folder => Ok(()),
            Kind::Link { target } if changes.content => {
                self.make_small(path, Small::Link(target), source, difference)
            }
            Kind::Node(node) if changes.new => {
                self.make_small(path, Small::Node(*node), source, difference)
            }
            Kind::Link { .. } | Kind::Node(_) => match &difference.there {
                Some((opened, _)) => {
                    let attributes = &difference.attributes;
                    let common = &self.shared.common;
                    common.set_metadata(opened, source, changes, attributes)
                }
                None => Ok(()),
            },
        }
    }

    fn make_small(
        &mut self,
        path: &[u8],
        small: Small<'_>,
        source: Source<'_>,
        difference: &Difference,
    ) -> anyhow::Result<()> {
        let (Some(place), common) = (&mut self.own.place, &self.shared.common) else {
            return Ok(());
        };
        let keep = common.keep_of(source);
        let is_node = matches!(small, Small::Node(_));
        let all = Changes {
            time: keep.times,
            owner: keep.owner,
            group: keep.group,
            mode: is_node && keep.modes,
            ..difference.changes
        };
        let replaces = difference.there.is_some();
        let made = place.make_small(path, small, replaces, |made| {
            if is_node && !keep.modes {
                let mode = match &difference.there {
                    Some((_, there)) if matches!(there.found, Found::File(_) | Found::Node(_)) => {
                        there.metadata.mode & 0o777
                    }
                    _ => source.metadata.mode & 0o777 & !common.umask,
                };
                made.set_mode(mode)?;
            }
            common.set_metadata(made, source, all, &difference.attributes)
        });
        let what = match small {
            Small::Link(_) => "symbolic links",
            Small::Node(node) if is_device(node) => "devices",
            Small::Node(_) => "FIFOs and sockets",
        };
        match made.map_err(anyhow::Error::downcast) {
            Err(Ok(error)) if is_unknown_to_file_system(&error) => {
                common.lacks(what, error);
                Ok(())
            }
            Err(Ok(error)) => Err(error.into()),
            Err(Err(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    fn is_passed_over(&mut self, job: &Job, n: usize) -> io::Result<bool> {
        let (options, (path, source)) = (self.options, job.entry(n));
        if !(options.existing || options.ignore_existing || options.update) {
            return Ok(false);
        }
        let there = match &mut self.own.place {
            Some(place) => place.open_entry(path)?,
            None => None,
        };
        let standing = there.as_ref().map(Opened::standing).transpose()?;
        Ok(options.passes_over(source, standing.as_ref()))
    }

    /// Makes entry `n` a hard link to the copy of the same file, if any. Returns whether that
    /// suffices.
    fn link_entry(
        &mut self,
        job: &Job,
        n: usize,
        identity: (u64, u64),
        queue: &Queue,
    ) -> anyhow::Result<bool> {
        if let Some(first) = self.first_names.get(&identity)
            && self
                .pending
                .iter()
                .any(|p| matches!(p, Pending::File(n) if job.entry(*n).0 == first))
        {
            self.drain(job, queue, 0)?;
        }
        // a failed copy does not count
        let Some(from) = self.first_names.get(&identity).cloned() else {
            return Ok(false);
        };
        let (options, (path, source)) = (self.options, job.entry(n));
        if matches!(source.kind, Kind::Link { .. }) && !options.keep.links {
            return Ok(false);
        }
        let from = &from[..];
        let (there, from_there) = match &mut self.own.place {
            Some(place) => (place.open_entry(path)?, place.open_entry(from)?),
            None => (None, None),
        };
        let standing = there.as_ref().map(Opened::standing).transpose()?;
        if options.passes_over(source, standing.as_ref()) {
            return Ok(true);
        }
        let identity = |opened: &Opened| opened.identity();
        let (at, from_at) = (
            there.as_ref().map(identity).transpose()?,
            from_there.as_ref().map(identity).transpose()?,
        );
        if at.is_some() && at == from_at {
            return Ok(true);
        }
        if from_at.is_none() && !options.dry_run {
            return Ok(false);
        }
        if standing.as_ref().is_some_and(|s| s.found == Found::Folder) {
            self.drain(job, queue, 0)?;
            self.make_way(job, path, source.kind)?;
        }
        if let Some(place) = self.own.place.as_mut().filter(|_| !options.dry_run) {
            match place.make_hard_link(from, path, there.is_some()) {
                Err(error)
                    if is_unknown_to_file_system(&error)
                        || matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EMLINK)) =>
                {
                    self.shared.common.lacks("hard links", error);
                    return Ok(false);
                }
                linked => linked?,
            }
        }
        self.shared.tally.created += usize::from(there.is_none());
        let names = format!("{} => {}", job.shown(path, false), job.shown(from, false));
        if options.itemize && !options.quiet {
            let new = Changes {
                new: there.is_none(),
                ..Changes::default()
            };
            let letters = new.letters(source.kind, options.keep, options.check);
            let signs = if new.new { "+++++++++" } else { "         " };
            self.print(format!("h{}{signs} {names}", &letters[1..2]));
        } else if options.names() {
            self.print(names);
        }
        Ok(true)
    }

    pub fn skip(&mut self, job: &Job, path: &[u8]) {
        if !self.options.quiet {
            let shown = job.shown(path, false);
            self.complain(format!("skipping non-regular file \"{shown}\""));
        }
    }

    pub fn show(&mut self, job: &Job, path: &[u8], source: Source<'_>, changes: Changes) {
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
        self.print(line);
    }
}

/// Whether a file system lacks the feature, or forbids it to this user.
fn is_unknown_to_file_system(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// Whether the disk is full, so that further files would fail, too.
pub fn is_full(error: &anyhow::Error) -> bool {
    let kind = error.root_cause().downcast_ref().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    )
}
