//! The edited file: reads saves, and writes the notes, never over a change that was not read.
//!
//! A new text is written beside the file and exchanged with it. If the exchanged file contains a
//! save made at that moment, it is put back. A program with the replaced file open may still write
//! into it: it is watched for a while, too.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lcstudio_core::clean;
use lcstudio_core::document::MAX_TEXT;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Longest file, in bytes: the longest text, in letters of three bytes each.
const MAX_FILE: u64 = 3 * MAX_TEXT as u64;

/// Time without changes after which a save is read, as some editors write in pieces. Chosen.
const SETTLE: Duration = Duration::from_millis(300);
/// The same for a missing or empty file, as some editors remove it first. Chosen.
const SETTLE_EMPTY: Duration = Duration::from_secs(2);
/// Characters that a warning names. Chosen.
const MAX_NAMED: usize = 8;
/// Time for which a replaced file is watched. Chosen.
const LATE: Duration = Duration::from_secs(5);

/// Content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No file.
    Missing,
    /// A text, with line ends as in notes.
    Text(String),
    /// Content that notes cannot hold, with the reason: the file stays unchanged.
    Refused(String),
}

/// Identity of a version: device, inode, length, times of content and inode.
type Stamp = [i64; 7];

/// A replaced file, with its content at that time.
#[derive(Debug)]
struct Replaced {
    file: File,
    bytes: Vec<u8>,
    until: Instant,
}

/// The file.
#[derive(Debug)]
pub struct NotesFile {
    folder: OwnedFd,
    name: OsString,
    /// Name of the file that will replace it.
    new: OsString,
    path: PathBuf,
    bytes: Option<Vec<u8>>,
    content: Content,
    stamp: Option<Stamp>,
    /// A changed stamp, and the time from which it is the same.
    changed: Option<(Option<Stamp>, Instant)>,
    replaced: Option<Replaced>,
}

impl NotesFile {
    /// Opens the file of this name, behind symbolic links. It may be missing.
    ///
    /// # Errors
    /// Its folder cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
                let parent = path.parent().filter(|parent| *parent != Path::new(""));
                fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name)
            }
            Err(e) => return Err(e),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut new = OsString::from(".");
        new.push(name);
        new.push(".lcstudio");
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = Self {
            folder: nix::fcntl::open(folder, flags, Mode::empty())?,
            name: name.to_owned(),
            new,
            path: path.clone(),
            bytes: None,
            content: Content::Missing,
            stamp: None,
            changed: None,
            replaced: None,
        };
        file.read();
        Ok(file)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its content at the last look.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Looks for a save. `at_once`: without [`SETTLE`].
    pub fn look(&mut self, at_once: bool, now: Instant) {
        self.look_at_replaced(now);
        let stamp = self.stamp();
        if stamp == self.stamp {
            self.changed = None;
            return;
        }
        let since = match self.changed {
            Some((changed, since)) if changed == stamp => since,
            _ => now,
        };
        self.changed = Some((stamp, since));
        let is_empty = stamp.is_none_or(|stamp| stamp[2] == 0);
        let settle = if is_empty { SETTLE_EMPTY } else { SETTLE };
        if now.saturating_duration_since(since) >= settle || at_once && !is_empty {
            self.changed = None;
            self.read();
        }
    }

    fn look_at_replaced(&mut self, now: Instant) {
        let Some(replaced) = &self.replaced else {
            return;
        };
        let bytes = read(&replaced.file).unwrap_or_default();
        if bytes != replaced.bytes && !bytes.is_empty() {
            self.content = content(&bytes);
            self.replaced = None;
        } else if replaced.until <= now {
            self.replaced = None;
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let found = fstatat(
            &self.folder,
            self.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .ok()?;
        let (device, inode) = (found.st_dev as i64, found.st_ino as i64);
        let times = [
            found.st_mtime,
            found.st_mtime_nsec,
            found.st_ctime,
            found.st_ctime_nsec,
        ];
        let [a, b, c, d] = times;
        Some([device, inode, found.st_size, a, b, c, d])
    }

    fn read(&mut self) {
        self.stamp = self.stamp();
        let read = self.open_file(&self.name).and_then(|file| read(&file));
        (self.bytes, self.content) = match read {
            Ok(bytes) => {
                let content = content(&bytes);
                (Some(bytes), content)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => (None, Content::Missing),
            Err(e) => (None, Content::Refused(e.to_string())),
        };
    }

    fn open_file(&self, name: &OsString) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(
            &self.folder,
            name.as_os_str(),
            flags,
            Mode::empty(),
        )?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("no ordinary file")),
        }
    }

    /// Writes a text into it. Returns false after a save meanwhile, which the next look reads.
    ///
    /// # Errors
    /// The system's; the file is unchanged.
    pub fn write(&mut self, text: &str, now: Instant) -> io::Result<bool> {
        if matches!(self.content, Content::Refused(_)) || self.stamp() != self.stamp {
            return Ok(false);
        }
        let before = match self.open_file(&self.name) {
            Ok(file) => Some((read(&file)?, file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if before.as_ref().map(|(bytes, _)| bytes) != self.bytes.as_ref() {
            return Ok(false);
        }
        let has_returns =
            matches!(&self.bytes, Some(bytes) if bytes.windows(2).any(|two| two == b"\r\n"));
        let bytes = match has_returns {
            true => text.replace('\n', "\r\n").into_bytes(),
            false => text.as_bytes().to_vec(),
        };
        self.write_new(&bytes, before.as_ref().map(|(_, file)| file))?;
        let is_done = match &before {
            Some((old, _)) => self.exchange(old, &bytes),
            None => self.rename(RenameFlags::RENAME_NOREPLACE).map(|()| true),
        };
        // a partial file, the replaced file, or one that could not be exchanged
        let _ = self.remove_new();
        match is_done {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            other => return other,
        }
        self.replaced = before.map(|(bytes, file)| Replaced {
            file,
            bytes,
            until: now + LATE,
        });
        self.stamp = self.stamp();
        (self.bytes, self.content) = (Some(bytes), Content::Text(text.to_owned()));
        Ok(true)
    }

    fn write_new(&self, bytes: &[u8], old: Option<&File>) -> io::Result<()> {
        self.remove_new()?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // less the user's umask
        let mode = Mode::from_bits_truncate(if old.is_some() { 0o600 } else { 0o666 });
        let mut new = File::from(openat(&self.folder, self.new.as_os_str(), flags, mode)?);
        if let Some(old) = old {
            let old = old.metadata()?;
            // may fail: then we stay the owner, and special bits would grant our rights
            let _ = fchown(&new, Some(old.uid()), Some(old.gid()));
            new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        let written = new.write_all(bytes).and_then(|()| new.sync_all());
        if written.is_err() {
            let _ = self.remove_new();
        }
        written
    }

    fn remove_new(&self) -> io::Result<()> {
        match unlinkat(
            &self.folder,
            self.new.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn rename(&self, flags: RenameFlags) -> io::Result<()> {
        let (new, name) = (self.new.as_os_str(), self.name.as_os_str());
        Ok(renameat2(&self.folder, new, &self.folder, name, flags)?)
    }

    /// Exchanges both files. Returns false after a save meanwhile, which stays.
    fn exchange(&self, old: &[u8], new: &[u8]) -> io::Result<bool> {
        match self.rename(RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            // file systems without exchange
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                renameat(
                    &self.folder,
                    self.new.as_os_str(),
                    &self.folder,
                    self.name.as_os_str(),
                )?;
                return Ok(true);
            }
            Err(e) => return Err(e),
        }
        let taken_out = |expected: &[u8]| {
            let bytes = self.open_file(&self.new).and_then(|file| read(&file));
            bytes.is_ok_and(|bytes| bytes == expected)
        };
        if taken_out(old) {
            return Ok(true);
        }
        self.rename(RenameFlags::RENAME_EXCHANGE)?;
        if !taken_out(new) {
            // another save meanwhile: the last one stays
            self.rename(RenameFlags::RENAME_EXCHANGE)?;
        }
        Ok(false)
    }
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len().min(MAX_FILE + 1);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

fn content(bytes: &[u8]) -> Content {
    let too_long = |n: usize, what| {
        let most = MAX_TEXT;
        Content::Refused(format!("{n} {what}; notes have at most {most} letters"))
    };
    if bytes.len() as u64 > MAX_FILE {
        return too_long(bytes.len(), "bytes or more");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Content::Refused("it is not UTF-8".into());
    };
    say_left_out(text);
    let text = clean(text);
    match text.chars().count() {
        n if n > MAX_TEXT => too_long(n, "letters"),
        _ => Content::Text(text),
    }
}

/// Warns of characters of a file that notes cannot hold, as they are lost.
fn say_left_out(text: &str) {
    let is_left_out = |c: &char| *c != '\r' && clean(c.encode_utf8(&mut [0; 4])).is_empty();
    let left_out: BTreeSet<char> = text.chars().filter(is_left_out).collect();
    if !left_out.is_empty() {
        let shown = left_out.iter().take(MAX_NAMED);
        let shown: Vec<String> = shown.map(|c| format!("U+{:04X}", u32::from(*c))).collect();
        let shown = shown.join(", ");
        tracing::warn!("the notes leave out characters that nobody sees: {shown}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Text(text.into())
    }

    fn file(before: &[u8]) -> (tempfile::TempDir, PathBuf, NotesFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.md");
        fs::write(&path, before).unwrap();
        let file = NotesFile::open(&path).unwrap();
        (folder, path, file)
    }

    #[test]
    fn a_text_is_put_there_with_mode_and_ends_of_lines_as_they_were() {
        let (folder, path, mut file) = file("\u{feff}one\r\ntwo\r\n".as_bytes());
        assert_eq!(file.content(), &text("one\ntwo\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let now = Instant::now();
        assert!(
            !file.write("new", now).unwrap(),
            "its inode was changed: it is read first"
        );
        file.look(true, now);
        assert!(file.write("one\n2\n", now).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one\r\n2\r\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        file.look(true, now);
        assert_eq!(file.content(), &text("one\n2\n"));
    }

    #[test]
    fn a_file_of_somebody_else_gets_no_special_rights_of_who_replaces_it() {
        let (_folder, path, mut file) = file(b"one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        let now = Instant::now();
        file.look(true, now);
        assert!(file.write("two", now).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_was_saved_meanwhile_is_never_written_over() {
        let (_folder, path, mut file) = file(b"one");
        let now = Instant::now();
        fs::write(&path, "saved").unwrap();
        assert!(!file.write("ours", now).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"saved");
        file.look(true, now);
        assert!(file.write("ours", now).unwrap());
        // just before the exchange
        file.write_new(b"next", None).unwrap();
        fs::write(&path, "late").unwrap();
        assert!(!file.exchange(b"ours", b"next").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"late");
        // by a program that had opened the file before
        file.remove_new().unwrap();
        file.look(true, now);
        let mut open = File::options().append(true).open(&path).unwrap();
        assert!(file.write("ours", now).unwrap());
        open.write_all(b" and later").unwrap();
        file.look(true, now);
        assert_eq!(file.content(), &text("late and later"));
        assert!(file.write("both", now).unwrap());
    }

    #[test]
    fn what_notes_cannot_hold_stays_as_it_is() {
        let (_folder, path, mut file) = file(b"one");
        let now = Instant::now();
        for (bytes, why) in [
            (b"\xff\xfe".to_vec(), "it is not UTF-8"),
            (vec![b'a'; MAX_TEXT + 1], "1000001 letters"),
            (vec![b'a'; MAX_FILE as usize + 9], "3000001 bytes or more"),
        ] {
            fs::write(&path, &bytes).unwrap();
            file.look(true, now);
            let Content::Refused(said) = file.content() else {
                panic!("{why}");
            };
            assert!(said.starts_with(why), "{said}");
            assert!(!file.write("ours", now).unwrap());
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_file_that_is_gone_or_empty_for_a_moment_is_not_taken() {
        let (_folder, path, mut file) = file(b"one");
        let now = Instant::now();
        for change in [
            |path: &Path| fs::remove_file(path),
            |path: &Path| fs::write(path, ""),
        ] {
            change(&path).unwrap();
            file.look(true, now);
            file.look(false, now + SETTLE);
            assert_eq!(file.content(), &text("one"));
            fs::write(&path, "one").unwrap();
            file.look(true, now);
            assert_eq!(file.content(), &text("one"));
        }
        fs::remove_file(&path).unwrap();
        file.look(false, now);
        file.look(false, now + SETTLE_EMPTY);
        assert_eq!(file.content(), &Content::Missing);
        assert!(file.write("again", now).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"again");
    }

    #[test]
    fn a_link_leads_to_the_file_and_stays_one() {
        let (folder, path, _) = file(b"one");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = NotesFile::open(&link).unwrap();
        assert!(file.write("two", Instant::now()).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
