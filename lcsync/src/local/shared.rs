//! Common state of a local copy: pace, progress, counters, and the copying user.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, fchown, getegid, geteuid, getgroups};

use super::changes::{Changes, Keep, Source};
use super::content::{self, Writing};
use super::job::Job;
use super::options::Options;
use crate::attributes::{self, Attributes};
use crate::listing::Kind;
use crate::place::{Drafts, Found, Opened, Standing, current_umask, system_time};
use crate::progress::{Progress, print_line};

/// Bytes copied between two updates of the progress.
const AT_ONCE: u64 = 64 << 20;
/// Bits of a mode that run a file with the rights of its owner or group.
pub const SET_ID: u16 = 0o6000;

/// Counters of a copy.
#[derive(Debug, Default)]
pub struct Tally {
    files: usize,
    folders: usize,
    links: usize,
    nodes: usize,
    pub created: usize,
    pub deleted: usize,
    pub transferred: usize,
    total_bytes: u64,
    pub transferred_bytes: u64,
    pub written: u64,
    pub failed: usize,
    /// Removed from SRC before they were copied.
    pub vanished: usize,
    pub not_deleted: usize,
    /// Not deleted because of `--max-delete`.
    pub beyond_limit: usize,
}

impl Tally {
    /// Counts the entries of a job; `unread` unreadable ones are counted already.
    pub fn add(&mut self, job: &Job, unread: usize) {
        self.failed += job.scan.unread - unread;
        self.vanished += job.scan.vanished.len();
        for entry in &job.scan.entries {
            match &entry.kind {
                Kind::File { size, .. } => {
                    self.files += 1;
                    self.total_bytes += size;
                }
                Kind::Folder => self.folders += 1,
                Kind::Link { .. } => self.links += 1,
                Kind::Node(_) => self.nodes += 1,
            }
        }
    }

    pub fn print(&self) {
        let all = self.files + self.folders + self.links + self.nodes;
        let Self {
            files,
            folders,
            links,
            nodes,
            ..
        } = self;
        let nodes = match nodes {
            0 => String::new(),
            _ => format!(", special: {nodes}"),
        };
        print_line(&format!(
            "Number of files: {all} (reg: {files}, dir: {folders}, link: {links}{nodes})"
        ));
        print_line(&format!("Number of created files: {}", self.created));
        print_line(&format!("Number of deleted files: {}", self.deleted));
        let transferred = self.transferred;
        print_line(&format!(
            "Number of regular files transferred: {transferred}"
        ));
        print_line(&format!("Total file size: {} bytes", self.total_bytes));
        let bytes = self.transferred_bytes;
        print_line(&format!("Total transferred file size: {bytes} bytes"));
        print_line(&format!("Literal data: {} bytes", self.written));
        let matched = bytes.saturating_sub(self.written);
        print_line(&format!("Matched data: {matched} bytes"));
    }
}

/// Common state of all threads that copy.
pub struct Common {
    pub keep: Keep,
    pub umask: u16,
    /// The copying user.
    user: u32,
    /// Groups of this user.
    groups: HashSet<u32>,
    /// When the next byte may be written.
    pace: Mutex<Instant>,
    /// Whether DEST can share the bytes of SRC, as far as known.
    pub clones: AtomicBool,
    /// Features that DEST lacks, with the error of its file system.
    pub lacks: Mutex<BTreeMap<&'static str, io::Error>>,
}

impl Common {
    fn new(options: &Options, now: Instant) -> Self {
        let groups = getgroups().unwrap_or_default().into_iter();
        let user = geteuid().as_raw();
        let mut keep = options.keep;
        keep.attributes.is_root = user == 0;
        Self {
            keep,
            umask: current_umask(),
            user,
            groups: groups.chain([getegid()]).map(Gid::as_raw).collect(),
            pace: Mutex::new(now),
            clones: AtomicBool::new(true),
            lacks: Mutex::default(),
        }
    }

    /// Returns the kept attributes of an entry: a user other than root keeps only groups of his
    /// own.
    pub fn keep_of(&self, source: Source<'_>) -> Keep {
        let group = source.owner.group;
        let is_root = self.user == 0;
        let may = is_root || self.groups.contains(&group);
        Keep {
            owner: self.keep.owner && is_root,
            group: self.keep.group && may,
            ..self.keep
        }
    }

    /// Whether this user owns a folder of this mode, but must change the mode to use it.
    pub fn is_closed(&self, mode: u16, owner: u32) -> bool {
        self.user != 0 && self.user == owner && mode & 0o700 != 0o700
    }

    /// Notes a feature that DEST lacks, to report it once, in the end.
    pub fn lacks(&self, what: &'static str, error: io::Error) {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        lacks.entry(what).or_insert(error);
    }

    /// Sets the wanted ACLs of an entry, or all other attributes.
    fn set_attributes(&self, entry: &Opened, wanted: &Attributes, acls: bool) -> io::Result<()> {
        let there = attributes::read(entry, self.keep.attributes)?;
        let chosen = |name: &CString| attributes::is_acl(name) == acls;
        match attributes::write(entry, wanted, &there, chosen) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let what = if acls { "ACLs" } else { "extended attributes" };
                self.lacks(what, error);
                Ok(())
            }
            written => written,
        }
    }

    /// Makes `to` equal to `from`; returns the bytes written.
    pub fn update(
        &self,
        (from, to): (&File, &File),
        size: u64,
        options: &Options,
        report: &mut dyn FnMut(u64),
    ) -> io::Result<u64> {
        let how = Writing {
            sparse: options.sparse,
            meter: &|bytes| {
                if let Some(limit) = options.limit {
                    wait(&self.pace, limit, bytes);
                }
            },
        };
        content::update(from, to, size, &how, report)
    }

    /// The same if `to` is empty: in the kernel, unless a limit or sparse files are wanted.
    pub fn fill(
        &self,
        (from, to): (&File, &File),
        size: u64,
        options: &Options,
        report: &mut dyn FnMut(u64),
    ) -> io::Result<u64> {
        if options.sparse || options.limit.is_some() {
            return self.update((from, to), size, options, report);
        }
        let mut to = to;
        let mut done = 0;
        while done < size {
            let copied = io::copy(&mut from.take(AT_ONCE.min(size - done)), &mut to)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += copied;
            report(done);
        }
        Ok(done)
    }

    /// Whether the file in DEST must not get owner or mode of this entry: another user may have it
    /// open for writing, or under another name, and would keep access to it.
    pub fn is_foreign(
        &self,
        source: Source<'_>,
        there: &Standing,
        changes: Changes,
        gives_rights: bool,
    ) -> bool {
        let (Kind::File { .. }, Found::File(_)) = (source.kind, &there.found) else {
            return false;
        };
        let keep = self.keep_of(source);
        let sets_id = gives_rights || keep.modes && source.metadata.mode & SET_ID != 0;
        let is_changed = changes.owner || changes.group || changes.mode || changes.xattrs;
        if !(changes.owner || sets_id && is_changed) {
            return false;
        }
        !self.is_trusted(there.owner.user, there.metadata.mode, source, sets_id)
    }

    /// Whether only root, this user and its owner-to-be can write to a file of this owner and mode.
    fn is_trusted(&self, owner: u32, mode: u16, source: Source<'_>, sets_id: bool) -> bool {
        let keep = self.keep_of(source);
        let wanted = if keep.owner { source.owner.user } else { owner };
        let writes = sets_id && mode & 0o022 != 0;
        (owner == self.user || owner == wanted) && !writes
    }

    /// Sets the owner before the mode, as it clears special bits, and the time last.
    pub fn finish_file(
        &self,
        file: &File,
        source: Source<'_>,
        there: Option<&Standing>,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let keep = self.keep_of(source);
        let found = file.metadata()?;
        let user = keep.owner.then_some(source.owner.user);
        let mode = match (keep.modes, there) {
            (true, _) => source.metadata.mode,
            // the same owner chose these bits for himself alone
            (false, Some(there)) if there.owner.user == user.unwrap_or(found.uid()) => {
                there.metadata.mode
            }
            (false, Some(there)) => there.metadata.mode & 0o777,
            (false, None) => source.metadata.mode & 0o777 & !self.umask,
        };
        let mode_now = (found.mode() & 0o7777) as u16;
        let gives_rights = attributes::gives_rights(attributes);
        if (gives_rights || keep.modes && mode & SET_ID != 0)
            && !self.is_trusted(found.uid(), mode_now, source, true)
        {
            let text = "another user may write to what has come into its place: it gets no rights";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let user = user.map(Uid::from_raw);
        let group = keep.group.then_some(Gid::from_raw(source.owner.group));
        if user.is_some() || group.is_some() {
            fchown(file, user, group)?;
        }
        let selected = !keep.attributes.is_empty();
        let entry = match selected {
            true => Some(Opened::of_file(file)?),
            false => None,
        };
        if let Some(entry) = &entry {
            // attributes of this user's read-only file can be set only while it is writable
            if self.user != 0 && mode_now & 0o200 == 0 {
                file.set_permissions(fs::Permissions::from_mode((mode_now | 0o200).into()))?;
            }
            self.set_attributes(entry, attributes, false)?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode.into()))?;
        if let Some(entry) = &entry {
            // its mask is part of the mode
            self.set_attributes(entry, attributes, true)?;
        }
        if keep.times {
            file.set_modified(system_time(source.metadata))?;
        }
        Ok(())
    }

    /// Sets the owner before the mode, as it clears special bits.
    pub fn set_metadata(
        &self,
        opened: &Opened,
        source: Source<'_>,
        changes: Changes,
        attributes: &Attributes,
    ) -> anyhow::Result<()> {
        let user = changes.owner.then_some(source.owner.user);
        let group = changes.group.then_some(source.owner.group);
        let owner = user.is_some() || group.is_some();
        if owner {
            opened.set_owner((user, group))?;
        }
        let is_link = matches!(source.kind, Kind::Link { .. });
        let selected = !self.keep.attributes.is_empty();
        let mode = opened.standing()?.metadata.mode;
        // attributes of this user's read-only file can be set only while it is writable
        let is_closed = selected && !is_link && self.user != 0 && mode & 0o200 == 0;
        if is_closed {
            opened.set_mode(mode | 0o200)?;
        }
        if selected {
            self.set_attributes(opened, attributes, false)?;
        }
        if is_closed && !changes.mode {
            opened.set_mode(mode)?;
        }
        if changes.mode || owner && self.keep.modes && !is_link {
            opened.set_mode(source.metadata.mode)?;
        }
        if selected && !is_link {
            self.set_attributes(opened, attributes, true)?;
        }
        if changes.time {
            opened.set_time(source.metadata)?;
        }
        Ok(())
    }
}

/// Common state of all jobs.
pub struct Shared {
    pub tally: Tally,
    pub progress: Progress,
    pub common: Arc<Common>,
    pub drafts: Arc<Drafts>,
    /// Bytes of finished files.
    pub done: u64,
}

impl Shared {
    pub fn new(options: &Options, jobs: &[Job], drafts: Arc<Drafts>) -> Self {
        let mut tally = Tally::default();
        for job in jobs {
            tally.folders += usize::from(job.whole_folder());
            tally.add(job, 0);
        }
        let quiet = options.quiet || options.dry_run;
        let now = Instant::now();
        Self {
            tally,
            progress: Progress::new(false, quiet, now),
            common: Arc::new(Common::new(options, now)),
            drafts,
            done: 0,
        }
    }

    pub fn show_progress(&mut self, of_this: u64) {
        let (done, total) = (self.done + of_this, self.tally.total_bytes);
        let files = self.tally.transferred;
        self.progress
            .show_copying((done, total), files, Instant::now());
    }
}

/// Waits until this number of bytes may be written.
pub fn wait(pace: &Mutex<Instant>, limit: u64, bytes: u64) {
    let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / limit.max(1) as f64);
    let now = Instant::now();
    let start = {
        let mut next = pace.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*next).max(now);
        *next = start + takes;
        start
    };
    std::thread::sleep(start.saturating_duration_since(now));
}
