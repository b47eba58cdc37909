//! What a local copy has to do: what is copied where.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use librecast_program::cli::{Exit, ExitError};

use super::changes::Source;
use super::options::Options;
use crate::listing::{Entry, Kind, is_plain_name, shown};
use crate::name::check_name;
use crate::scan::Scan;

/// What there is to do for all of SRC.
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

/// Of files and links that several SRC have for one place, the first is copied.
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

/// A share's name without `lc:` looks like a path.
pub fn no_source(options: &Options, source: &Path, error: &io::Error) -> anyhow::Error {
    let dest = options.dest.display();
    let name = source.to_str().filter(|n| !n.contains('/'));
    let source = source.display();
    if error.kind() == io::ErrorKind::NotFound && name.is_some_and(|n| check_name(n).is_ok()) {
        let share = format!("to fetch the share of this name: lcsync lc:{source} {dest}");
        return anyhow::anyhow!("{source}: no such file or folder; {share}");
    }
    anyhow::anyhow!("{source}: {error}")
}

/// What is copied where.
pub struct Job {
    pub scan: Scan,
    /// The folder that the scan's paths are copied below.
    pub folder: PathBuf,
    /// Stands before each path as it is shown, and as patterns see it.
    pub prefix: Vec<u8>,
    /// The name there of a single file or link.
    name: Option<Vec<u8>>,
}

impl Job {
    /// What entry `n` is, and below `folder` becomes.
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

    pub fn whole_folder(&self) -> bool {
        self.name.is_none()
    }

    /// A path for people.
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
    let leaves_out = |path: &[u8], is_folder| {
        let filter = &options.filter;
        !filter.is_empty() && filter.leaves_out(&[&prefix, path].concat(), is_folder)
    };
    let scan = Scan::chosen(source, &options.choice(&leaves_out))
        .with_context(|| source.display().to_string())?;
    Ok(Job {
        scan,
        folder,
        prefix,
        name: None,
    })
}

/// A file or link: the scan of a folder with nothing else in it.
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
    Ok(Job {
        scan: Scan::of_entry(source, &options.choice(&|_, _| false))?,
        folder,
        prefix: Vec::new(),
        name: Some(target.to_vec()),
    })
}

/// Makes DEST, one level of it, and for a folder without slash the folder in it, which nobody may enter who may not
/// enter SRC.
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
