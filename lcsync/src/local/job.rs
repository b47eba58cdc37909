//! Jobs of a local copy: entries of SRC and their places in DEST.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use librecast::text::TextKind;
use librecast_program::cli::{Exit, ExitError};

use super::changes::Source;
use super::options::Options;
use crate::listing::{Entry, Kind, is_plain_name, shown};
use crate::name::check_name;
use crate::place::check_replaceable;
use crate::scan::{Scan, Walk};

/// Entries that a copy scans before it begins, and then at a time, each about 200 bytes of memory.
/// Chosen: progress of smaller trees has its total from the start. Tests have smaller trees.
const PORTION: usize = if cfg!(test) { 1 << 6 } else { 1 << 16 };

/// Returns the jobs for all of SRC.
pub fn jobs(options: &Options) -> anyhow::Result<Vec<Job>> {
    if options.sources.len() > 1 && options.dest.exists() && !options.dest.is_dir() {
        let message = format!("{}: several SRC need a folder", options.dest.display());
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let mut jobs = Vec::new();
    for source in &options.sources {
        jobs.extend(job(options, source)?);
    }
    let folders: HashSet<&Path> = jobs.iter().map(|job| job.folder.as_path()).collect();
    if options.delete && folders.len() < jobs.len() && jobs.iter().any(Job::whole_folder) {
        let message =
            "--delete cannot tell what to keep: several SRC have the same folder as target";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    if jobs.len() > 1 {
        leave_to_the_first(&mut jobs);
    }
    Ok(jobs)
}

/// If several SRC have a file or link for one place, keeps the first.
fn leave_to_the_first(jobs: &mut [Job]) {
    let mut taken: HashSet<PathBuf> = HashSet::new();
    for job in jobs {
        let place = |n: usize| job.folder.join(OsStr::from_bytes(job.entry(n).0));
        let places: Vec<PathBuf> = (0..job.scan.entries.len()).map(place).collect();
        let is_folder = |n: usize| job.scan.entries[n].kind == Kind::Folder;
        let again: BTreeSet<usize> = (0..places.len())
            .filter(|n| !is_folder(*n) && taken.contains(&places[*n]))
            .collect();
        job.scan.remove(&again);
        // they could be read
        job.scan.unread -= again.len();
        taken.extend(places);
    }
}

pub fn job(options: &Options, source: &Path) -> anyhow::Result<Option<Job>> {
    let content = ends_with_slash(source);
    let meta = if content {
        fs::metadata(source)
    } else {
        fs::symlink_metadata(source)
    };
    let meta = meta.map_err(|e| no_source(options, source, &e))?;
    if meta.is_dir() && !options.recursive {
        options.say(&format!("skipping directory {}", source.display()));
        return Ok(None);
    }
    let link = meta.is_symlink() && options.keep.links;
    let choice = options.choice(&|_, _| false);
    let node = match meta.file_type() {
        t if t.is_block_device() || t.is_char_device() => choice.devices,
        t => (t.is_fifo() || t.is_socket()) && choice.specials,
    };
    if !(meta.is_dir() || meta.is_file() || link || node) {
        let shown = source.display();
        options.say(&format!("skipping non-regular file \"{shown}\""));
        return Ok(None);
    }
    if !content
        && let Some(name) = source.file_name()
        && options.filter.leaves_out(name.as_bytes(), meta.is_dir())
    {
        return Ok(None);
    }
    if meta.is_dir() {
        folder_job(options, source, content).map(Some)
    } else {
        file_job(options, source).map(Some)
    }
}

/// Explains a missing SRC: a share's name without `lc:` looks like a path, and so does a text for
/// another program.
pub fn no_source(options: &Options, source: &Path, error: &io::Error) -> anyhow::Error {
    let dest = options.dest.display();
    let name = source.to_str().filter(|n| !n.contains('/'));
    let source = source.display();
    let program = match name.and_then(TextKind::of) {
        Some(TextKind::Station) => Some("lcradio listen"),
        Some(TextKind::StudioSession) => Some("lcstudio attend"),
        Some(TextKind::GroupInvitation | TextKind::GroupDevice) => Some("lcgroup join"),
        _ => None,
    };
    if error.kind() == io::ErrorKind::NotFound
        && let Some(program) = program
    {
        return anyhow::anyhow!("{source}: no such file or folder; for such a text: {program}");
    }
    if error.kind() == io::ErrorKind::NotFound && name.is_some_and(|n| check_name(n).is_ok()) {
        let share = format!("to fetch the share of this name: lcsync lc:{source} {dest}");
        return anyhow::anyhow!("{source}: no such file or folder; {share}");
    }
    anyhow::anyhow!("{source}: {error}")
}

/// Entries to copy, and their place.
pub struct Job {
    /// The entries copied now; in the end, the folders.
    pub scan: Scan,
    /// The rest of the scan.
    walk: Option<Walk>,
    /// Folders of the copied entries.
    folders: Option<Scan>,
    /// Hashes of all listed paths, for `--delete`. A collision, in one of ten million runs with a million
    /// files, keeps an extraneous one.
    paths: Vec<u64>,
    hasher: RandomState,
    /// The folder below which the scan's paths are copied.
    pub folder: PathBuf,
    /// Prefix of each path for users and patterns.
    pub prefix: Vec<u8>,
    /// The name in `folder` of a single file or link.
    name: Option<Vec<u8>>,
}

impl Job {
    /// Returns the path below `folder` of entry `n`, and its source.
    pub fn entry(&self, n: usize) -> (&[u8], Source<'_>) {
        let Entry { path, kind } = &self.scan.entries[n];
        let source = Source {
            kind,
            metadata: &self.scan.metadata[n + 1],
            owner: self.scan.owners[n + 1],
        };
        (self.name.as_deref().unwrap_or(path), source)
    }

    /// The folder itself.
    pub fn root(&self) -> Source<'_> {
        Source {
            kind: &Kind::Folder,
            metadata: &self.scan.metadata[0],
            owner: self.scan.owners[0],
        }
    }

    fn new(scan: Scan, folder: PathBuf, prefix: Vec<u8>, name: Option<Vec<u8>>) -> Self {
        Self {
            scan,
            walk: None,
            folders: None,
            paths: Vec::new(),
            hasher: RandomState::new(),
            folder,
            prefix,
            name,
        }
    }

    /// Continues with further entries; false if there are none, which leaves the folders.
    pub fn advance(&mut self, options: &Options) -> bool {
        if options.delete {
            let entries = self.scan.entries.iter().map(|entry| &entry.path);
            let paths = entries.chain(&self.scan.special);
            let paths = paths.chain(&self.scan.vanished);
            self.paths
                .extend(paths.map(|path| self.hasher.hash_one(path)));
        }
        let Some(mut walk) = self.walk.take() else {
            self.leave_folders();
            self.paths.sort_unstable();
            return false;
        };
        self.keep_folders();
        let leaves_out = leaves_out(options, &self.prefix);
        let choice = options.choice(&leaves_out);
        self.scan.go_on(&mut walk, &choice, PORTION);
        self.walk = (self.scan.entries.len() >= PORTION).then_some(walk);
        true
    }

    fn keep_folders(&mut self) {
        let portion = self.scan.take_portion();
        let folders = self.folders.get_or_insert_with(|| self.scan.clone());
        folders.extend_with_folders(portion);
    }

    /// Leaves only the folders of all entries, which are finished last.
    pub fn leave_folders(&mut self) {
        self.keep_folders();
        if let Some(folders) = self.folders.take() {
            let rest = std::mem::replace(&mut self.scan, folders);
            (self.scan.unread, self.scan.not_entered) = (rest.unread, rest.not_entered);
        }
    }

    /// Whether SRC has an entry at this path. Valid after the whole scan.
    pub fn is_in_source(&self, path: &[u8]) -> bool {
        let hash = self.hasher.hash_one(path);
        self.paths.binary_search(&hash).is_ok()
    }

    pub fn whole_folder(&self) -> bool {
        self.name.is_none()
    }

    /// Formats a path for users.
    pub fn shown(&self, path: &[u8], is_folder: bool) -> String {
        let slash = if is_folder { "/" } else { "" };
        match [&self.prefix, path].concat() {
            root if root.is_empty() => "./".to_owned(),
            path => shown(path.strip_suffix(b"/").unwrap_or(&path)) + slash,
        }
    }
}

pub fn folder_job(options: &Options, source: &Path, content: bool) -> anyhow::Result<Job> {
    let (folder, prefix) = if content {
        (options.dest.clone(), Vec::new())
    } else {
        let full = source.canonicalize()?;
        let name = full
            .file_name()
            .context("SRC has no name: write it with a slash at its end")?;
        (options.dest.join(name), [name.as_bytes(), b"/"].concat())
    };
    let leaves_out = leaves_out(options, &prefix);
    let choice = options.choice(&leaves_out);
    let named = || source.display().to_string();
    let (mut scan, mut walk) = Scan::begin(source, &choice).with_context(named)?;
    // several SRC are compared first; and a copy inside SRC must not be scanned
    let at_once = options.sources.len() > 1 || is_inside(&folder, source);
    let most = if at_once { usize::MAX } else { PORTION };
    scan.go_on(&mut walk, &choice, most);
    let goes_on = scan.entries.len() >= most;
    drop(leaves_out);
    let mut job = Job::new(scan, folder, prefix, None);
    job.walk = goes_on.then_some(walk);
    Ok(job)
}

/// Returns whether patterns leave out an entry.
fn leaves_out<'a>(options: &'a Options, prefix: &[u8]) -> impl Fn(&[u8], bool) -> bool + 'a {
    let (filter, prefix) = (&options.filter, prefix.to_vec());
    move |path, is_folder| {
        !filter.is_empty() && filter.leaves_out(&[&prefix, path].concat(), is_folder)
    }
}

/// Whether a folder, which need not exist yet, is in another one.
fn is_inside(folder: &Path, of: &Path) -> bool {
    let there = folder.ancestors().find_map(|path| {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        path.canonicalize().ok()
    });
    // an unresolved path may be
    match (there, of.canonicalize()) {
        (Some(there), Ok(of)) => there.starts_with(of),
        _ => true,
    }
}

/// Returns the job of a file or link: the scan of a folder with only this entry.
pub fn file_job(options: &Options, source: &Path) -> anyhow::Result<Job> {
    let name = source.file_name().context("SRC has no name")?;
    let several = options.sources.len() > 1;
    let into = several || options.dest.is_dir() || ends_with_slash(&options.dest);
    let (folder, target) = if into {
        (options.dest.clone(), name.as_bytes())
    } else {
        let parent = options.dest.parent().filter(|p| !p.as_os_str().is_empty());
        let name = options.dest.file_name().context("DEST has no name")?;
        (
            parent.unwrap_or(Path::new(".")).to_path_buf(),
            name.as_bytes(),
        )
    };
    if !is_plain_name(target) {
        return Err(ExitError::new(
            Exit::Usage,
            format!("{}: not a file's name", options.dest.display()),
        )
        .into());
    }
    let scan = Scan::of_entry(source, &options.choice(&|_, _| false))?;
    if !matches!(
        scan.entries[..],
        [Entry {
            kind: Kind::Node(_),
            ..
        }]
    ) {
        check_replaceable(&folder.join(OsStr::from_bytes(target))).map_err(anyhow::Error::msg)?;
    }
    Ok(Job::new(scan, folder, Vec::new(), Some(target.to_vec())))
}

/// Makes DEST, one level of it, and SRC's folder in it, with no more access than SRC.
pub fn make_folders(options: &Options, job: &Job) -> anyhow::Result<()> {
    let mut needed: Vec<&Path> = Vec::new();
    if job.whole_folder() || options.sources.len() > 1 || ends_with_slash(&options.dest) {
        needed.extend([options.dest.as_path(), &job.folder]);
    }
    for folder in needed {
        if !folder.is_dir() {
            let source = if job.whole_folder() && *folder == job.folder {
                job.scan.metadata[0].mode
            } else {
                0o777
            };
            fs::DirBuilder::new()
                .mode(u32::from(source & 0o777 | 0o700))
                .create(folder)
                .with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

fn ends_with_slash(path: &Path) -> bool {
    let bytes = OsStr::as_bytes(path.as_os_str());
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}
