//! `lcsync SRC DEST`: local copies as rsync makes them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::interrupt;

use crate::listing::{Entry, Kind, Metadata, is_plain_name, shown};
use crate::name::check_name;
use crate::place::{Found, Owner, Place, current_umask, system_time};
use crate::progress::print_line;
use crate::scan::{Files, Scan};

/// Names the partial folder of local copies: apart from those of transfers, which are found again.
const PARTIAL_LABEL: &[u8] = b"local copy";

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// SRC; with a slash at its end its content is meant.
    pub source: PathBuf,
    pub dest: PathBuf,
    /// Links, modes, times, owners.
    pub archive: bool,
    /// Copies folders as well.
    pub recursive: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// Print names.
    pub verbose: bool,
    /// Print nothing but errors.
    pub quiet: bool,
    /// Delete from DEST what is not in SRC.
    pub delete: bool,
}

/// Copies what is different.
pub fn copy(options: &Options) -> anyhow::Result<Exit> {
    let shown = options.source.display();
    let content = ends_with_slash(&options.source);
    let meta = if content {
        fs::metadata(&options.source)
    } else {
        fs::symlink_metadata(&options.source)
    };
    let meta = meta.map_err(|e| no_source(options, &e))?;
    if options.delete && !options.recursive {
        let message = "--delete does not work without -r or -a";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    if meta.is_dir() && !options.recursive {
        options.say(&format!("skipping directory {shown}"));
        return Ok(Exit::Ok);
    }
    let link = meta.is_symlink() && options.archive;
    if !(meta.is_dir() || meta.is_file() || link) {
        options.say(&format!("skipping non-regular file \"{shown}\""));
        return Ok(Exit::Ok);
    }
    let mut job = if meta.is_dir() {
        folder_job(options, content)?
    } else {
        file_job(options)?
    };
    let partial = job.folder.join(Place::partial_name(PARTIAL_LABEL));
    let dry_run = options.dry_run;
    interrupt::exit_on_interrupt(move || {
        if !dry_run {
            // nothing to remove if it was not made yet
            let _ = fs::remove_dir_all(&partial);
        }
    })?;
    let mut copier = Copier::open(options, &job)?;
    copier.run(&mut job)?;
    copier.close(&job)
}

/// A share's name without `lc:` looks like a path.
fn no_source(options: &Options, error: &io::Error) -> anyhow::Error {
    let (source, dest) = (options.source.display(), options.dest.display());
    let name = options.source.to_str().filter(|n| !n.contains('/'));
    if error.kind() == io::ErrorKind::NotFound && name.is_some_and(|n| check_name(n).is_ok()) {
        let share = format!("to fetch the share of this name: lcsync lc:{source} {dest}");
        return anyhow::anyhow!("{source}: no such file or folder; {share}");
    }
    anyhow::anyhow!("{source}: {error}")
}

/// What is copied where.
struct Job {
    scan: Scan,
    /// The folder that the scan's paths are copied below.
    folder: PathBuf,
    /// Printed before each name.
    prefix: String,
    /// The name there of a single file or link.
    name: Option<Vec<u8>>,
}

impl Job {
    /// What entry `n` is, and below `folder` becomes.
    fn entry(&self, n: usize) -> (&[u8], &Kind) {
        let Entry { path, kind } = &self.scan.entries[n];
        (self.name.as_deref().unwrap_or(path), kind)
    }

    fn whole_folder(&self) -> bool {
        self.name.is_none()
    }
}

fn folder_job(options: &Options, content: bool) -> anyhow::Result<Job> {
    let scan = Scan::of(&options.source).with_context(|| options.source.display().to_string())?;
    let (folder, prefix) = if content {
        (options.dest.clone(), String::new())
    } else {
        let full = options.source.canonicalize()?;
        let name = full
            .file_name()
            .context("SRC has no name: write it with a slash at its end")?;
        (
            options.dest.join(name),
            format!("{}/", name.to_string_lossy()),
        )
    };
    Ok(Job {
        scan,
        folder,
        prefix,
        name: None,
    })
}

/// A file or link: the scan of a folder with nothing else in it.
fn file_job(options: &Options) -> anyhow::Result<Job> {
    let source = &options.source;
    let name = source.file_name().context("SRC has no name")?;
    let into = options.dest.is_dir() || ends_with_slash(&options.dest);
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
        scan: Scan::of_entry(source)?,
        folder,
        prefix: String::new(),
        name: Some(target.to_vec()),
    })
}

struct Copier<'a> {
    options: &'a Options,
    place: Option<Place>,
    files: Files,
    umask: u16,
    root: bool,
    failed: usize,
}

impl<'a> Copier<'a> {
    fn open(options: &'a Options, job: &Job) -> anyhow::Result<Self> {
        let mut place = None;
        if job.folder.is_dir() || !options.dry_run {
            make_folders(options, job)?;
            let mut opened =
                Place::open(&job.folder).with_context(|| job.folder.display().to_string())?;
            opened.allow_special_modes();
            if !options.dry_run {
                opened
                    .open_partial(PARTIAL_LABEL)
                    .with_context(|| job.folder.display().to_string())?;
            }
            place = Some(opened);
        }
        let root = nix::unistd::geteuid().is_root();
        Ok(Self {
            options,
            place,
            files: Files::default(),
            umask: current_umask(),
            root,
            failed: job.scan.unread,
        })
    }

    fn run(&mut self, job: &mut Job) -> anyhow::Result<()> {
        for path in &job.scan.special {
            self.skip(job, path);
        }
        for n in 0..job.scan.entries.len() {
            if let Err(e) = self.copy_entry(job, n) {
                self.failed += 1;
                eprintln!("lcsync: {}: {e:#}", job.scan.name_of(n));
            }
        }
        if self.options.delete && job.whole_folder() {
            if self.failed == 0 {
                self.delete(job)?;
            } else {
                eprintln!("lcsync: errors: nothing is deleted");
            }
        }
        Ok(())
    }

    fn close(mut self, job: &Job) -> anyhow::Result<Exit> {
        if !self.options.dry_run {
            if self.options.archive && job.whole_folder() {
                self.set_folders(job)?;
            }
            if let Some(place) = &mut self.place {
                place.remove_partial()?;
                if self.options.archive && job.whole_folder() {
                    place.set_metadata(b"", &job.scan.metadata[0], false)?;
                }
            }
        }
        anyhow::ensure!(
            self.failed == 0,
            "{} entries could not be copied",
            self.failed
        );
        Ok(Exit::Ok)
    }

    fn copy_entry(&mut self, job: &mut Job, n: usize) -> anyhow::Result<()> {
        let (path, kind) = job.entry(n);
        let there = match &mut self.place {
            Some(place) => place.look(path)?,
            None => None,
        };
        let changed = match kind {
            Kind::Folder => there != Some(Found::Folder),
            Kind::Link { target } => {
                if !self.options.archive {
                    self.skip(job, path);
                    return Ok(());
                }
                there.as_ref() != Some(&Found::Link(target.clone()))
            }
            Kind::File { size, .. } => {
                let metadata = &job.scan.metadata[n + 1];
                there != Some(Found::File(*size)) || !self.same_time(path, metadata)
            }
        };
        if changed {
            self.show(job, path, *kind == Kind::Folder);
        }
        if self.options.dry_run {
            return Ok(());
        }
        let folder = *kind == Kind::Folder;
        if changed {
            self.replace(job, n, there.as_ref())?;
        }
        // folders get theirs when nothing changes in them any more
        if self.options.archive && !folder {
            self.set_metadata(job, n)?;
        }
        Ok(())
    }

    fn skip(&self, job: &Job, path: &[u8]) {
        let name = shown(path);
        let line = format!("skipping non-regular file \"{}{name}\"", job.prefix);
        self.options.say(&line);
    }

    fn same_time(&mut self, path: &[u8], source: &Metadata) -> bool {
        let there = self.place.as_mut().and_then(|p| p.metadata(path).ok());
        there.is_some_and(|there| (there.mtime, there.nanos) == (source.mtime, source.nanos))
    }

    /// A file that has changed since the scan is taken as it is now, times included.
    fn open_source(&mut self, job: &mut Job, n: usize) -> io::Result<fs::File> {
        match self.files.open(&job.scan, n) {
            Err(_) if job.scan.look_again(n)? => self.files.open(&job.scan, n),
            opened => opened,
        }
    }

    fn replace(&mut self, job: &mut Job, n: usize, there: Option<&Found>) -> anyhow::Result<()> {
        let source = match job.entry(n) {
            (_, Kind::File { .. }) => Some(self.open_source(job, n)?),
            _ => None,
        };
        let (umask, force) = (self.umask, self.options.delete);
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        let (path, kind) = job.entry(n);
        let metadata = &job.scan.metadata[n + 1];
        let folder = *kind == Kind::Folder;
        // a rename replaces files and links, and nothing else
        if there.is_some() && (folder || there == Some(&Found::Folder)) {
            place.make_way(path, force).context("cannot make way")?;
        }
        match (kind, source) {
            (Kind::Link { target }, _) => place.make_link(path, target)?,
            (Kind::File { .. }, Some(mut from)) => {
                let mut to = place.stage(path, Some(0))?;
                io::copy(&mut from, &mut to)?;
                let existing = matches!(there, Some(Found::File(_)));
                let mode = match (self.options.archive, existing) {
                    (true, _) => metadata.mode,
                    (false, true) => place.metadata(path)?.mode,
                    (false, false) => metadata.mode & 0o777 & !umask,
                };
                to.set_permissions(fs::Permissions::from_mode(mode.into()))?;
                if self.options.archive {
                    to.set_modified(system_time(metadata))?;
                }
                place.install(path)?;
            }
            _ => place.make_folder(path, metadata.mode)?,
        }
        Ok(())
    }

    /// Owner before mode: changing the owner takes special bits away. Both are of one file, whatever comes into its place.
    fn set_metadata(&mut self, job: &Job, n: usize) -> anyhow::Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        let (path, kind) = job.entry(n);
        let link = matches!(kind, Kind::Link { .. });
        if self.root {
            let found = self.files.look(&job.scan, n)?;
            let owner = Owner {
                user: found.st_uid,
                group: found.st_gid,
            };
            place.set_owner(path, owner)?;
        }
        Ok(place.set_metadata(path, &job.scan.metadata[n + 1], link)?)
    }

    fn set_folders(&mut self, job: &Job) -> anyhow::Result<()> {
        for n in (0..job.scan.entries.len()).rev() {
            if job.scan.entries[n].kind == Kind::Folder {
                self.set_metadata(job, n)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, job: &Job) -> anyhow::Result<()> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        for path in place.extraneous(&job.scan.entries)? {
            if self.options.verbose || self.options.dry_run {
                print_line(&format!("deleting {}{}", job.prefix, shown(&path)));
            }
            if !self.options.dry_run {
                place.make_way(&path, true)?;
            }
        }
        Ok(())
    }

    fn show(&self, job: &Job, path: &[u8], folder: bool) {
        if self.options.verbose || (self.options.dry_run && !self.options.quiet) {
            let slash = if folder { "/" } else { "" };
            print_line(&format!("{}{}{slash}", job.prefix, shown(path)));
        }
    }
}

/// Makes DEST, one level of it, and for a folder without slash the folder in it, which nobody may enter who may not
/// enter SRC.
fn make_folders(options: &Options, job: &Job) -> anyhow::Result<()> {
    let mut needed: Vec<&Path> = Vec::new();
    if job.whole_folder() || ends_with_slash(&options.dest) {
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

impl Options {
    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn options(source: PathBuf, dest: PathBuf) -> Options {
        Options {
            source,
            dest,
            archive: false,
            recursive: false,
            dry_run: false,
            verbose: false,
            quiet: true,
            delete: false,
        }
    }

    /// A copy without the process around it: tests have no signals of their own.
    fn run(options: &Options) -> anyhow::Result<()> {
        let content = ends_with_slash(&options.source);
        let folder = fs::metadata(&options.source)?.is_dir();
        let mut job = if folder {
            folder_job(options, content)?
        } else {
            file_job(options)?
        };
        let mut copier = Copier::open(options, &job)?;
        copier.run(&mut job)?;
        copier.close(&job).map(drop)
    }

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("src");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/f"), b"content").unwrap();
        fs::write(source.join("run"), b"#!").unwrap();
        fs::set_permissions(source.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("sub/f", source.join("link")).unwrap();
        dir
    }

    #[test]
    fn a_slash_means_the_content() {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        let recursive = |source: &str, dest: &str| Options {
            recursive: true,
            ..options(at(source), at(dest))
        };
        run(&recursive("src/", "a")).unwrap();
        assert_eq!(fs::read(at("a/sub/f")).unwrap(), b"content");
        assert!(!at("a/link").exists(), "-r alone copies no links");
        run(&recursive("src", "b")).unwrap();
        assert_eq!(fs::read(at("b/src/sub/f")).unwrap(), b"content");
        let left: Vec<_> = fs::read_dir(at("a"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn archive_keeps_links_modes_and_times_and_a_second_run_changes_nothing() {
        let dir = sample();
        let archive = Options {
            archive: true,
            recursive: true,
            ..options(dir.path().join("src/"), dir.path().join("dest"))
        };
        run(&archive).unwrap();
        let (from, to) = (dir.path().join("src"), dir.path().join("dest"));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/f"));
        for path in ["run", "sub", "sub/f"] {
            let (a, b) = (
                fs::metadata(from.join(path)).unwrap(),
                fs::metadata(to.join(path)).unwrap(),
            );
            assert_eq!(
                (a.mode(), a.mtime(), a.mtime_nsec()),
                (b.mode(), b.mtime(), b.mtime_nsec())
            );
        }
        let inode = fs::metadata(to.join("sub/f")).unwrap().ino();
        run(&archive).unwrap();
        assert_eq!(fs::metadata(to.join("sub/f")).unwrap().ino(), inode);
    }

    #[test]
    fn what_comes_into_the_place_of_a_file_while_others_are_copied_is_not_copied() {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir(at("private")).unwrap();
        fs::write(at("private/f"), b"secret!").unwrap();
        let recursive = Options {
            recursive: true,
            archive: true,
            ..options(at("src/"), at("dest"))
        };
        let mut job = folder_job(&recursive, true).unwrap();
        fs::remove_file(at("src/run")).unwrap();
        nix::unistd::mkfifo(&at("src/run"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::rename(at("src/sub"), at("old")).unwrap();
        symlink("../private", at("src/sub")).unwrap();
        let mut copier = Copier::open(&recursive, &job).unwrap();
        copier.run(&mut job).unwrap();
        assert_eq!(copier.failed, 2);
        assert!(!at("dest/run").exists() && !at("dest/sub/f").exists());
    }

    #[test]
    fn a_file_that_changes_after_the_scan_arrives_with_the_times_it_has_then() {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        let archive = Options {
            archive: true,
            ..options(at("src/run"), at("copy"))
        };
        let mut job = file_job(&archive).unwrap();
        fs::write(at("src/run"), b"!#").unwrap();
        let mut copier = Copier::open(&archive, &job).unwrap();
        copier.run(&mut job).unwrap();
        copier.close(&job).unwrap();
        assert_eq!(fs::read(at("copy")).unwrap(), b"!#");
        let modified = |path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(at("copy")), modified(at("src/run")));
    }

    #[test]
    fn nobody_may_enter_a_copy_who_may_not_enter_the_folder() {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        for folder in ["src", "src/sub"] {
            fs::set_permissions(at(folder), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let recursive = Options {
            recursive: true,
            ..options(at("src"), at("dest"))
        };
        run(&recursive).unwrap();
        for folder in ["dest/src", "dest/src/sub"] {
            assert_eq!(fs::metadata(at(folder)).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_file_goes_to_a_name_or_into_a_folder() {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        run(&options(at("src/run"), at("copy"))).unwrap();
        assert_eq!(fs::read(at("copy")).unwrap(), b"#!");
        fs::create_dir(at("folder")).unwrap();
        run(&options(at("src/run"), at("folder"))).unwrap();
        assert_eq!(fs::read(at("folder/run")).unwrap(), b"#!");
        assert!(run(&options(at("src/run"), at("missing/copy"))).is_err());
    }

    #[test]
    fn delete_removes_what_is_not_in_src_and_a_dry_run_nothing() {
        let dir = sample();
        let delete = Options {
            recursive: true,
            delete: true,
            ..options(dir.path().join("src/"), dir.path().join("dest"))
        };
        fs::create_dir_all(dir.path().join("dest/old/deep")).unwrap();
        fs::write(dir.path().join("dest/old/deep/f"), b"x").unwrap();
        run(&Options {
            dry_run: true,
            ..options(dir.path().join("src/"), dir.path().join("dest"))
        })
        .unwrap();
        assert!(
            dir.path().join("dest/old/deep/f").exists() && !dir.path().join("dest/run").exists()
        );
        run(&delete).unwrap();
        assert!(!dir.path().join("dest/old").exists() && dir.path().join("dest/run").exists());
    }

    #[test]
    fn a_folder_in_the_way_of_a_file_stays_unless_it_is_to_be_deleted() {
        let dir = sample();
        fs::create_dir_all(dir.path().join("dest/run/precious")).unwrap();
        let plain = Options {
            recursive: true,
            ..options(dir.path().join("src/"), dir.path().join("dest"))
        };
        assert!(run(&plain).is_err());
        assert!(dir.path().join("dest/run/precious").exists());
        assert_eq!(
            fs::read(dir.path().join("dest/sub/f")).unwrap(),
            b"content",
            "the rest is copied"
        );
        run(&Options {
            delete: true,
            ..plain
        })
        .unwrap();
        assert_eq!(fs::read(dir.path().join("dest/run")).unwrap(), b"#!");
    }
}
