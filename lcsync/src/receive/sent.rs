//! Checks of files under a code: the user has chosen the words, not the content.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::bail;
use librecast_program::cli::{Exit, ExitError, note};
use librecast_program::standard;
use librecast_program::units::count;

use super::plan::Plan;
use super::tree::Tree;
use crate::listing::{Entry, Kind, parent_of, shown};
use crate::place::{Found, Place};
use crate::progress::human_bytes;

/// Most bytes that are taken without a question. Chosen: a few minutes of a fast connection.
const MOST_BYTES: u64 = 1_000_000_000;
/// Most files that are taken without a question.
const MOST_FILES: usize = 1_000;
/// Most names that are shown.
const SHOWN: usize = 4;

/// Most names in a question. Chosen: they fit on a screen.
const MOST_ASKED: usize = 32;

/// Terms of the user.
#[derive(Debug)]
pub struct Sent {
    /// Name of the sender, in its own words.
    pub from: String,
    /// The key that has signed it, for users.
    pub signer: String,
    /// Replace existing files.
    pub overwrite: bool,
    /// Ask nothing about sizes and numbers.
    pub yes: bool,
}

/// Names that programs of this host may read as their configuration: `.` or `-` begins a part of
/// the path.
#[derive(Debug, Default)]
pub struct Hidden {
    /// Path in the share of the folder whose hidden names count, if any do.
    below: Option<Vec<u8>>,
    /// DEST was not named, and is in a hidden folder itself: all names count.
    is_hidden: bool,
}

impl Hidden {
    /// Returns the names that count for files under a code.
    #[must_use]
    pub fn of_words(dest: &Path) -> Self {
        let here =
            dest.as_os_str() == "." && dest.canonicalize().is_ok_and(|path| is_below_hidden(&path));
        Self {
            below: Some(Vec::new()),
            is_hidden: here,
        }
    }

    /// Returns the names that count for a share: those in the user's home folder.
    #[must_use]
    pub fn of_share(dest: &Path, home: Option<&Path>) -> Self {
        let inside = || {
            let (dest, home) = (dest.canonicalize().ok()?, home?.canonicalize().ok()?);
            let path = home.strip_prefix(dest).ok()?;
            Some(path.as_os_str().as_bytes().to_vec())
        };
        Self {
            below: inside(),
            is_hidden: false,
        }
    }

    fn counts(&self, path: &[u8]) -> bool {
        let Some(below) = &self.below else {
            return false;
        };
        let Some(rest) = path.strip_prefix(&below[..]) else {
            return false;
        };
        let rest = match (below.is_empty(), rest) {
            (true, rest) | (false, [b'/', rest @ ..]) => rest,
            (false, _) => return false,
        };
        let is_hidden = |part: &[u8]| matches!(part.first(), Some(b'.' | b'-'));
        self.is_hidden || rest.split(|c| *c == b'/').any(is_hidden)
    }

    /// Returns the hidden entries that are not folders, and empty hidden folders.
    fn names<'a>(&self, entries: &'a [Entry]) -> Vec<&'a Entry> {
        let has_entry = |n: usize| {
            let next = entries.get(n + 1).map(|next| &next.path[..]);
            next.is_some_and(|next| parent_of(next) == Some(&entries[n].path))
        };
        let hidden = entries.iter().enumerate().filter(|(n, entry)| {
            self.counts(&entry.path) && !(entry.kind == Kind::Folder && has_entry(*n))
        });
        hidden.map(|(_, entry)| entry).collect()
    }

    /// Asks whether the hidden names of the tree are wanted.
    ///
    /// # Errors
    /// They are not, or nobody can be asked.
    pub fn check(&self, entries: &[Entry]) -> anyhow::Result<()> {
        let names: Vec<String> = self.names(entries).into_iter().map(name_of).collect();
        let kind = "hidden names, which programs may read as their configuration";
        ask_about(&names, kind, "--hidden")
    }
}

fn is_below_hidden(path: &Path) -> bool {
    let is_hidden =
        |part: std::path::Component<'_>| part.as_os_str().as_bytes().first() == Some(&b'.');
    path.components().any(is_hidden)
}

/// Asks about exactly these names; `option` would have answered.
fn ask_about(names: &[String], kind: &str, option: &str) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let more = names.len().saturating_sub(MOST_ASKED);
    let shown = names[..names.len() - more].join(", ");
    let refusal = format!("nothing was received; {option} takes them");
    if more > 0 {
        bail!("{kind}: {shown} and {more} more, too many to ask about: {refusal}");
    }
    if !std::io::stdin().is_terminal() {
        bail!("{kind}: {shown}: {refusal}");
    }
    note(format_args!("{kind}: {shown}"));
    ask("receive them, too? [y/N]")
}

fn ask(question: &str) -> anyhow::Result<()> {
    note(question);
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut standard::input(), &mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was received"),
    }
}

/// Shows the offered files, and asks whether they are wanted.
pub fn check_size(sent: &Sent, hidden: &Hidden, tree: &Tree, quiet: bool) -> anyhow::Result<()> {
    let (files, bytes) = (tree.files(), tree.bytes());
    let what = format!(
        "{} ({}, {}) from {} ({})",
        offered(hidden, &tree.entries),
        count(files, "file"),
        human_bytes(bytes),
        sent.from,
        sent.signer
    );
    if !quiet {
        note(&what);
    }
    if sent.yes || bytes <= MOST_BYTES && files <= MOST_FILES {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{what}: nothing was received; --yes takes that much");
    }
    ask("receive all of it? [y/N]")
}

/// Chooses the only file, for standard output.
pub fn choose_only_file(tree: &mut Tree) -> anyhow::Result<()> {
    let path = match &tree.entries[..] {
        [entry] if matches!(entry.kind, Kind::File { .. }) => entry.path.clone(),
        _ => bail!(
            "a folder or several files are sent, and standard output takes one file: name a folder"
        ),
    };
    Ok(tree.choose(&path)?)
}

/// Returns some of the names, the hidden ones first.
fn offered(hidden: &Hidden, entries: &[Entry]) -> String {
    let top = entries
        .iter()
        .filter(|e| !e.path.contains(&b'/') && !hidden.counts(&e.path));
    let all: Vec<&Entry> = hidden.names(entries).into_iter().chain(top).collect();
    let names: Vec<String> = all.iter().take(SHOWN).map(|entry| name_of(entry)).collect();
    names.join(", ") + if all.len() > SHOWN { ", ..." } else { "" }
}

fn name_of(entry: &Entry) -> String {
    let slash = if entry.kind == Kind::Folder { "/" } else { "" };
    shown(&entry.path) + slash
}

/// Asks before a link that is there gives way to received files: they replace it, with all that it
/// led to.
pub fn check_links(entries: &[Entry], place: &mut Place) -> anyhow::Result<()> {
    let mut links = Vec::new();
    for entry in entries {
        let Some(Found::Link(there)) = place.look(&entry.path)? else {
            continue;
        };
        if entry.kind != (Kind::Link { target: there }) {
            links.push(name_of(entry));
        }
    }
    ask_about(&links, "links that are here already", "--hidden")
}

/// Asks before new names come into folders that are here already: programs may run what is there.
/// A run that `continues` an interrupted one has made the folders that hold received names alone.
pub fn check_folders(entries: &[Entry], continues: bool, place: &mut Place) -> anyhow::Result<()> {
    let paths: BTreeSet<&[u8]> = entries.iter().map(|entry| &entry.path[..]).collect();
    let mut names = Vec::new();
    for entry in entries {
        let Some(folder) = parent_of(&entry.path) else {
            continue;
        };
        let is_new = place.look(&entry.path)?.is_none();
        if !is_new || place.look(folder)? != Some(Found::Folder) {
            continue;
        }
        let is_received = |name: &Vec<u8>| paths.contains(&[folder, b"/", &name[..]].concat()[..]);
        if !(continues && place.names(folder)?.iter().all(is_received)) {
            names.push(name_of(entry));
        }
    }
    ask_about(
        &names,
        "new names in folders that are here already",
        "--overwrite",
    )
}

/// Refuses to replace anything that is there.
pub fn check_places(tree: &Tree, plan: &Plan<'_>, place: &mut Place) -> anyhow::Result<()> {
    let changed: Vec<usize> = plan.changed_files().collect();
    let mut others = Vec::new();
    for (n, entry) in tree.entries.iter().enumerate() {
        let Some(found) = place.look(&entry.path)? else {
            continue;
        };
        let is_same = match &entry.kind {
            Kind::File { .. } => changed.binary_search(&n).is_err(),
            Kind::Folder => found == Found::Folder,
            Kind::Link { target } => found == Found::Link(target.clone()),
            Kind::Node(_) => false,
        };
        if !is_same {
            others.push(shown(&entry.path));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let more = others.len().saturating_sub(SHOWN);
    others.truncate(SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let message = format!(
        "{}{more}: here already, and different; nothing was replaced. --overwrite replaces them, another DEST keeps both",
        others.join(", ")
    );
    Err(ExitError::new(Exit::Failed, message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        let entry = |path: &&str| Entry {
            path: path.trim_end_matches('/').into(),
            kind: match path.ends_with('/') {
                true => Kind::Folder,
                false => Kind::File {
                    size: 1,
                    executable: false,
                },
            },
        };
        paths.iter().map(entry).collect()
    }

    fn counted(hidden: &Hidden, paths: &[&str]) -> Vec<String> {
        let entries = entries(paths);
        hidden.names(&entries).into_iter().map(name_of).collect()
    }

    #[test]
    fn hidden_names_at_any_depth_are_asked_about_and_shown_first() {
        let hidden = Hidden::of_words(Path::new("dest"));
        let paths = [
            "(1) photo.jpg",
            "(2) photo.jpg",
            "(3) photo.jpg",
            "(4) photo.jpg",
            "-rf",
            ".bash_aliases",
            ".empty/",
            ".ssh/",
            ".ssh/authorized_keys",
            "a.b",
            "d/",
            "d/-x",
            "d/e/",
            "d/e/.f/",
            "d/e/.f/g",
        ];
        let asked = [
            "-rf",
            ".bash_aliases",
            ".empty/",
            ".ssh/authorized_keys",
            "d/-x",
            "d/e/.f/g",
        ];
        assert_eq!(counted(&hidden, &paths), asked);
        let shown = offered(&hidden, &entries(&paths));
        assert_eq!(
            shown,
            "-rf, .bash_aliases, .empty/, .ssh/authorized_keys, ..."
        );
        let plain = entries(&["a.b", "d/", "d/e-f"]);
        hidden.check(&plain).unwrap();
    }

    #[test]
    fn a_share_is_asked_about_what_it_would_hide_in_the_home_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home/ann");
        std::fs::create_dir_all(home.join("site")).unwrap();
        let of = |dest: &Path, paths: &[&str]| {
            let hidden = Hidden::of_share(dest, Some(&home));
            counted(&hidden, paths)
        };
        assert_eq!(of(&home, &["a", ".profile"]), [".profile"]);
        assert_eq!(of(&home.join("site"), &[".htaccess"]), [""; 0]);
        let all = [".x", "ann/", "ann/.ssh/", "ann/.ssh/rc", "anna/.profile"];
        assert_eq!(of(&dir.path().join("home"), &all), ["ann/.ssh/rc"]);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        assert_eq!(of(&link, &["bin/", "bin/.x"]), ["bin/.x"]);
    }

    #[test]
    fn folders_that_are_here_get_no_new_names_without_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let mut refused =
            |paths: &[&str], continues| match check_folders(&entries(paths), continues, &mut place)
            {
                Ok(()) => String::new(),
                Err(e) => e.to_string(),
            };
        assert_eq!(refused(&["a", "new/", "new/ls"], false), "");
        let sent = ["bin/", "bin/ls", "bin/sub/", "bin/sub/x"];
        let told = refused(&sent, false);
        assert!(told.contains(": bin/ls, bin/sub/: "), "{told}");
        assert!(told.contains("--overwrite"), "{told}");
        // an interrupted run has made it
        std::fs::write(dir.path().join("bin/ls"), b"x").unwrap();
        assert_eq!(refused(&sent, true), "");
        std::fs::write(dir.path().join("bin/own"), b"x").unwrap();
        assert!(refused(&sent, true).contains(": bin/sub/: "));
        // nothing is new
        assert_eq!(refused(&["bin/", "bin/ls", "bin/own"], false), "");
    }

    #[test]
    fn links_that_are_here_are_not_replaced_without_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join("photos")).unwrap();
        let mut place = Place::open(dir.path()).unwrap();
        let link = |target: &str| Entry {
            path: b"photos".to_vec(),
            kind: Kind::Link {
                target: target.into(),
            },
        };
        let mut refused = |entries: &[Entry]| match check_links(entries, &mut place) {
            Ok(()) => String::new(),
            Err(e) => e.to_string(),
        };
        assert_eq!(refused(&[link("elsewhere")]), "");
        for other in [entries(&["photos/", "photos/a"]), vec![link("b")]] {
            assert!(refused(&other).contains(": photos"), "{other:?}");
        }
    }
}
