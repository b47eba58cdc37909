//! Local copies beside rsync's, on random trees and options. Each case is derived from a number;
//! both programs run, as root and as a user, and the results must be equal. docs/guide/rsync.md
//! lists intended differences; [`Case`] avoids such cases, or [`Listed`] does not compare them.
//!
//! As many cases run as of a property test. `BESIDE_RSYNC=600 cargo test -p lcsync --test integration beside_rsync::`
//! runs for this number of seconds; `BESIDE_RSYNC_FROM=N` begins with case N, to repeat a failed one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lcsync::listing::shown;
use librecast::random::Random;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{geteuid, mkfifo};
use program::install;
use proptest::test_runner::Config;
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};

use crate::program;

/// Cases that run at a time. Chosen: rsync sleeps for a part of each case.
const AT_A_TIME: usize = 4;
/// Failed cases after which none begins.
const MAX_FAILURES: usize = 8;
/// The copying user, if not root: nobody.
const USER: u32 = 65_534;
/// Seconds after which a program is ended: thousands of times the length of a case.
const PATIENCE: &str = "20";
/// Times from here on are those of the test itself.
const NOW: i64 = 1_000_000_000;

/// Choices that follow from a seed.
struct Dice(Random);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    /// Returns true with this probability.
    fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn mode(&mut self, all: &[u32]) -> u32 {
        all[self.below(all.len())]
    }
}

/// The entry at a path before the copy.
#[derive(Clone)]
enum Node {
    File {
        content: Vec<u8>,
        mode: u32,
        time: i64,
    },
    /// Another name of the first file of its tree.
    Another,
    Folder {
        inside: Tree,
        mode: u32,
        time: i64,
    },
    Link {
        target: &'static str,
        time: i64,
    },
    Pipe {
        mode: u32,
        time: i64,
    },
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File {
                content,
                mode,
                time,
            } => {
                write!(
                    f,
                    "{mode:o} time {time} {} bytes {:?}",
                    content.len(),
                    content.first()
                )
            }
            Self::Another => write!(f, "another name"),
            Self::Folder { mode, time, .. } => write!(f, "folder {mode:o} time {time}"),
            Self::Link { target, time } => write!(f, "link to {target:?} time {time}"),
            Self::Pipe { mode, time } => write!(f, "pipe {mode:o} time {time}"),
        }
    }
}

type Tree = BTreeMap<Vec<u8>, Node>;

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"cfg",
    b"a.o",
    b"b.o",
    b"k.key",
    b"x y",
    b"-n",
    b"*",
    b"[a]",
    b"a\\b",
    b".h",
    b"\xff\xfe",
    b"new\nline",
    "\u{e9}".as_bytes(),
];

/// Kinds of entries in trees.
#[derive(Clone, Copy)]
struct Kinds {
    /// Entries that this user cannot read.
    unreadable: bool,
    /// Files that this user cannot read, if that makes no difference.
    closed: bool,
    /// Hard links.
    links: bool,
}

fn tree(dice: &mut Dice, depth: usize, kinds: Kinds) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..dice.below(if depth == 0 { 8 } else { 5 }) {
        tree.insert(dice.pick(NAMES).to_vec(), node(dice, depth, kinds));
    }
    tree
}

/// Removes the links that lead out of a tree: rsync would write into SRC.
fn keep_inside(tree: &mut Tree) {
    tree.retain(|_, node| !matches!(node, Node::Link { target: "..", .. }));
}

fn time(dice: &mut Dice) -> i64 {
    [1_000, 1_000, 2_000, 3_000][dice.below(4)]
}

fn node(dice: &mut Dice, depth: usize, kinds: Kinds) -> Node {
    let time = time(dice);
    match dice.below(100) {
        0..45 => {
            let mode = match dice.below(6) {
                0..3 => 0o644,
                3 if kinds.unreadable || kinds.closed => dice.mode(&[0, 0o200, 0o111]),
                _ => dice.mode(&[0o600, 0o755, 0o444, 0o400, 0o4755, 0o2711]),
            };
            let content = match dice.below(7) {
                0 => Vec::new(),
                1 => vec![0; 10_000],
                2 => vec![7; 10_000],
                3 => b"some".to_vec(),
                4 => b"more".to_vec(),
                _ => b"x".to_vec(),
            };
            Node::File {
                content,
                mode,
                time,
            }
        }
        45..50 if kinds.links => Node::Another,
        50..80 if depth < 4 => Node::Folder {
            inside: tree(dice, depth + 1, kinds),
            mode: folder_mode(dice, kinds.unreadable),
            time,
        },
        80..95 => Node::Link {
            target: dice.pick(&["a", "..", "cfg", "nowhere", "/nowhere"]),
            time,
        },
        _ => Node::Pipe { mode: 0o644, time },
    }
}

fn folder_mode(dice: &mut Dice, unreadable: bool) -> u32 {
    match dice.below(6) {
        0..3 => 0o755,
        3 if unreadable => dice.mode(&[0, 0o300, 0o400]),
        _ => dice.mode(&[0o700, 0o555, 0o500, 0o1777, 0o2755, 0o775]),
    }
}

/// A DEST that a copy of `source` has made, with later changes.
fn changed(dice: &mut Dice, source: &Tree, depth: usize, kinds: Kinds) -> Tree {
    let mut dest = tree(dice, depth + 1, kinds);
    for (name, node_there) in source {
        let mut same = node_there.clone();
        match (dice.below(10), &mut same) {
            // missing, or another one
            (0..2, _) | (_, Node::Another) => continue,
            (2..4, _) => {
                dest.insert(name.clone(), node(dice, depth + 1, kinds));
                continue;
            }
            (_, Node::Folder { inside, mode, .. }) => {
                *inside = changed(dice, inside, depth + 1, kinds);
                *mode = match dice.below(4) {
                    0 => *mode,
                    // it is opened, whatever its mode
                    1 if kinds.closed => dice.mode(&[0, 0o300, 0o600]),
                    _ => folder_mode(dice, false),
                };
            }
            (4, Node::File { content, .. }) => *content = b"else".to_vec(),
            (5, Node::File { mode, .. }) if kinds.closed => *mode = dice.mode(&[0, 0o200]),
            (5, Node::File { mode, .. }) => *mode = dice.mode(&[0o644, 0o600, 0o6755]),
            (6, Node::File { time: t, .. } | Node::Link { time: t, .. }) => *t = time(dice),
            _ => {}
        }
        dest.insert(name.clone(), same);
    }
    dest
}

/// ACL of an entry, and of new entries in a folder.
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// An ACL as in linux/posix_acl_xattr.h: the rights of the mode, and one more user.
fn acl(mode: u32, rights: u16) -> Vec<u8> {
    let of_mode = |shift: u32| (mode >> shift & 7) as u16;
    let mut out = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, rights, id) in [
        (0x01, of_mode(6), none),
        (0x02, rights, 1_000),
        (0x04, of_mode(3), none),
        (0x10, of_mode(3), none),
        (0x20, of_mode(0), none),
    ] {
        out.extend_from_slice(&u16::to_le_bytes(tag));
        out.extend_from_slice(&u16::to_le_bytes(rights));
        out.extend_from_slice(&u32::to_le_bytes(id));
    }
    out
}

/// Attributes of entries.
#[derive(Clone, Copy)]
struct Marks {
    acls: bool,
    xattrs: bool,
    /// Seed of those of SRC and of DEST.
    number: u64,
    /// Some differ from those of SRC.
    changed: bool,
}

impl Marks {
    fn set(self, below: &Path, path: &Path, mode: u32, is_folder: bool) {
        let name = below.as_os_str().as_bytes();
        let seed = name.iter().fold(self.number, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        let mut dice = Dice::of(seed);
        if self.changed && dice.happens(30) {
            dice.0.next();
        }
        if self.xattrs && dice.happens(40) {
            let long = [b'x'; 300];
            let value = dice.pick(&[&b"1"[..], b"", &long]);
            let name = dice.pick(&["user.a", "user.b"]);
            lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
        }
        if self.acls && dice.happens(30) {
            let value = acl(mode, [4, 6, 7][dice.below(3)]);
            lsetxattr(path, ACLS[0], &value, XattrFlags::empty()).unwrap();
        }
        if self.acls && is_folder && dice.happens(20) {
            let value = acl(0o750, [4, 6][dice.below(2)]);
            lsetxattr(path, ACLS[1], &value, XattrFlags::empty()).unwrap();
        }
    }
}

/// Writes a tree to disk; its folders get their modes when they are complete.
struct Writing<'a> {
    top: &'a Path,
    owner: Option<u32>,
    /// The file with further names.
    first: Option<PathBuf>,
    /// Files that are names of an earlier one.
    names: &'a BTreeMap<PathBuf, PathBuf>,
    marks: Option<Marks>,
}

impl Writing<'_> {
    fn write(&mut self, tree: &Tree, below: &Path) {
        for (name, node) in tree {
            let below = &below.join(OsStr::from_bytes(name));
            let path = self.top.join(below);
            if let Some(of) = self.names.get(below) {
                fs::hard_link(self.top.join(of), &path).unwrap();
                continue;
            }
            let (mode, time) = match node {
                Node::File {
                    content,
                    mode,
                    time,
                } => {
                    fs::write(&path, content).unwrap();
                    self.first.get_or_insert_with(|| path.clone());
                    (Some(*mode), *time)
                }
                Node::Another => {
                    match &self.first {
                        Some(first) => fs::hard_link(first, &path).unwrap(),
                        None => {
                            fs::write(&path, b"linked").unwrap();
                            // of the copying user, as all files
                            finish(&path, Some(0o644), 1_000, self.owner);
                        }
                    }
                    self.first.get_or_insert(path);
                    continue;
                }
                Node::Folder { inside, mode, time } => {
                    fs::create_dir(&path).unwrap();
                    self.write(inside, below);
                    (Some(*mode), *time)
                }
                Node::Link { target, time } => {
                    symlink(target, &path).unwrap();
                    (None, *time)
                }
                Node::Pipe { mode, time } => {
                    mkfifo(&path, Mode::S_IRWXU).unwrap();
                    (Some(*mode), *time)
                }
            };
            finish(&path, mode, time, self.owner);
            let is_folder = matches!(node, Node::Folder { .. });
            if let (Some(marks), Some(mode)) = (self.marks, mode)
                && !matches!(node, Node::Pipe { .. })
            {
                marks.set(below, &path, mode, is_folder);
                set_time(&path, time);
            }
        }
    }
}

/// Makes files names of earlier ones, if allowed; returns both names.
fn link_some(
    dice: &mut Dice,
    tree: &mut Tree,
    may: impl Fn(&Path, &Node) -> bool,
) -> BTreeMap<PathBuf, PathBuf> {
    fn files(tree: &Tree, below: &Path, all: &mut Vec<PathBuf>) {
        for (name, node) in tree {
            let path = below.join(OsStr::from_bytes(name));
            match node {
                Node::File { .. } => all.push(path),
                Node::Folder { inside, .. } => files(inside, &path, all),
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    files(tree, Path::new(""), &mut all);
    let mut names: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (n, path) in all.iter().enumerate().skip(1) {
        let of = &all[dice.below(n)];
        if dice.happens(40) {
            let of = names.get(of).unwrap_or(of).clone();
            let same = find(tree, &of).cloned().filter(|node| may(path, node));
            if let (Some(node), Some(same)) = (find_mut(tree, path), same) {
                *node = same;
                names.insert(path.clone(), of);
            }
        }
    }
    names
}

fn finish(path: &Path, mode: Option<u32>, time: i64, owner: Option<u32>) {
    lchown(path, owner, owner).unwrap();
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    set_time(path, time);
}

fn set_time(path: &Path, time: i64) {
    let time = TimeSpec::new(time, 0);
    utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .unwrap();
}

/// A random pattern.
fn pattern(dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    if dice.happens(25) {
        out.push(b'/');
    }
    for _ in 0..=dice.below(4) {
        match dice.below(12) {
            0..3 => out.extend_from_slice(dice.pick(NAMES)),
            3 => out.extend_from_slice(dice.pick(&[&b"a"[..], b"b", b".o", b"key", b"x"])),
            4 => out.push(b'*'),
            5 => out.extend_from_slice(b"**"),
            6 => out.extend_from_slice(b"***"),
            7 => out.push(b'?'),
            8..10 => out.push(b'/'),
            _ => {
                let sets: &[&[u8]] = &[
                    b"[ab]",
                    b"[!a]",
                    b"[^b]",
                    b"[a-c]",
                    b"[c-a]",
                    b"[]a]",
                    b"[[:alpha:]]",
                    b"[[:none:]]",
                    b"[",
                    b"[a",
                    b"[/]",
                    b"[a/]",
                    b"\\",
                    b"\\*",
                    b"\\[",
                    b"[\\a]",
                    b"[a\\-c]",
                    b"[!",
                    b"[[:alpha]",
                    b"!",
                ];
                out.extend_from_slice(dice.pick(sets));
            }
        }
    }
    if dice.happens(25) {
        out.push(b'/');
    }
    out
}

/// Trees and options of a copy.
struct Case {
    source: Tree,
    /// `None`: DEST does not exist.
    dest: Option<Tree>,
    args: Vec<OsString>,
    /// Patterns in a file.
    patterns: Vec<u8>,
    as_user: bool,
    /// Of SRC and of DEST: files that are names of an earlier one.
    names: [BTreeMap<PathBuf, PathBuf>; 2],
    number: u64,
}

impl Case {
    fn new(number: u64, attributes: bool) -> Self {
        let dice = &mut Dice::of(number);
        let as_user = !geteuid().is_root() || number % 2 == 1;
        let delete = dice.happens(60);
        let keeps = dice.pick(&[
            "-a", "-a", "-a", "-r", "-rl", "-rt", "-rlp", "-rltp", "-rltog",
        ]);
        let (inplace, dry_run) = (dice.happens(10), dice.happens(5));
        let excluded = delete && dice.happens(20);
        // rsync deletes until the first unreadable entry, lcsync nothing
        let unreadable = as_user && !delete && dice.happens(30);
        // rsync reads attributes that a user may not read
        let marked = attributes && Dice::of(!number).happens(30);
        let unreadable = unreadable && !(as_user && marked);
        let kinds = Kinds {
            unreadable,
            closed: false,
            links: true,
        };
        let mut source = tree(dice, 0, kinds);
        keep_inside(&mut source);
        let kinds = Kinds {
            unreadable: false,
            // in a file with two names, the last write counts
            links: !inplace,
            // without -p rsync forgets the mode of an unreadable file, and leaves folders open;
            // --inplace reads, and a dry run opens nothing
            closed: !as_user
                || keeps.contains(['a', 'p']) && !(excluded || inplace || dry_run || marked),
        };
        let mut dest = dice.happens(90).then(|| changed(dice, &source, 0, kinds));
        dest.iter_mut().for_each(keep_inside);
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |arg: &str| args.push(arg.into());
        add(keeps);
        if delete {
            add("--delete");
        }
        if inplace {
            add("--inplace");
        }
        if dry_run {
            add("-n");
        }
        if excluded {
            add("--delete-excluded");
        }
        match dice.below(10) {
            // two unreadable files are equal for rsync
            0 if !unreadable => add("-c"),
            1 => add("--size-only"),
            2 => add("-I"),
            _ => {}
        }
        for (option, percent) in [
            ("-u", 10),
            ("--existing", 8),
            ("--ignore-existing", 8),
            ("-S", 10),
            ("--partial", 10),
            ("-x", 10),
        ] {
            // rsync looks for entries to delete in a file in the place of a folder
            let in_doubt = match option {
                "--ignore-existing" => delete,
                // whether rsync makes a folder depends on the number of entries
                "--existing" => dest.is_none(),
                _ => false,
            };
            if dice.happens(percent) && !in_doubt {
                add(option);
            }
        }
        if delete && dice.happens(10) {
            add(&format!("--max-delete={}", dice.below(6)));
        }
        let mut patterns = Vec::new();
        for _ in 0..dice.below(4) {
            let pattern = pattern(dice);
            if dice.happens(10) {
                args.push("--exclude-from=patterns".into());
                patterns.extend_from_slice(dice.pick(&[&b"+ "[..], b"- ", b""]));
                patterns.extend_from_slice(&pattern);
                patterns.push(b'\n');
            } else {
                let option = dice.pick(&[
                    "--exclude=",
                    "--exclude=",
                    "--exclude=",
                    "--include=",
                    "--exclude=+ ",
                ]);
                args.push(OsString::from_vec([option.as_bytes(), &pattern].concat()));
            }
        }
        // rsync takes a missing DEST for the name of an empty folder
        let inside = dest.is_none() || dice.happens(75);
        let mut names = [BTreeMap::new(), BTreeMap::new()];
        // rsync waits for ever, or fails, if the first of several names cannot be copied, as below
        // an entry that --ignore-existing leaves in the place of a folder; with -u it replaces
        // newer entries
        let hangs = |arg: &OsString| arg == "-u" || arg == "--ignore-existing";
        let manages = !(unreadable || args.iter().any(hangs));
        if dice.happens(25) && manages && keeps.contains(['a', 'p']) {
            args.push("-H".into());
            names[0] = link_some(dice, &mut source, |_, _| true);
            if let Some(dest) = &mut dest {
                let below = if inside {
                    Some(&mut *dest)
                } else {
                    folder_mut(dest, b"src")
                };
                if let Some(dest) = below {
                    make_linkable(&source, dest);
                }
                if !inplace {
                    // rsync takes a file that only seems up to date as the source of other names
                    names[1] = link_some(dice, dest, |path, node| {
                        let path = path.strip_prefix("src").unwrap_or(path);
                        match (find(&source, path), node) {
                            (
                                Some(Node::File { content, .. }),
                                Node::File { content: there, .. },
                            ) => content.len() != there.len() || content == there,
                            _ => true,
                        }
                    });
                }
            }
        }
        // rsync gives folders modes for -X alone, and writes no new files of a user in place
        let marked = marked && keeps.contains(['a', 'p']);
        for (option, may) in [("-A", marked), ("-X", marked && !(as_user && inplace))] {
            if dice.happens(60) && may {
                args.push(option.into());
            }
        }
        args.push(if inside { "src/" } else { "src" }.into());
        Self {
            source,
            dest,
            args,
            patterns,
            as_user,
            names,
            number,
        }
    }

    fn has(&self, option: &str) -> bool {
        self.args.iter().any(|arg| arg == option)
    }

    /// Runs both programs; returns the differences, if any.
    fn run(&self, programs: &Path) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let owner = (self.as_user && geteuid().is_root()).then_some(USER);
        finish(folder.path(), Some(0o755), 1_000, owner);
        fs::write(at("patterns"), &self.patterns).unwrap();
        let trees = [
            ("src", Some(&self.source), 0),
            ("ours", self.dest.as_ref(), 1),
            ("theirs", self.dest.as_ref(), 1),
        ];
        let (acls, xattrs) = (self.has("-A"), self.has("-X"));
        for (name, tree, n) in trees {
            if let Some(tree) = tree {
                fs::create_dir(at(name)).unwrap();
                let mut writing = Writing {
                    top: &at(name),
                    owner,
                    first: None,
                    names: &self.names[n],
                    marks: (acls || xattrs).then_some(Marks {
                        acls,
                        xattrs,
                        number: self.number,
                        changed: n == 1,
                    }),
                };
                writing.write(tree, Path::new(""));
                finish(&at(name), Some(0o755), 2_000, owner);
            }
        }
        let mut excused = self.excused();
        if self.has("-H") && self.dest.is_some() {
            excused.extend(names_left(&at("src"), &at("ours"), self.top()));
            if acls || xattrs {
                excused.extend(names_of_several(&at("src"), &at("ours"), self.top()));
            }
        }
        let mut out = String::new();
        // the second run has nothing left to do
        for _ in 0..2 {
            let [ours, theirs] = ["ours", "theirs"].map(|target| {
                let program = match target {
                    "ours" => programs.join("lcsync"),
                    _ => "rsync".into(),
                };
                // a program that waits for ever fails this case alone
                let mut command = Command::new("timeout");
                command
                    .arg(PATIENCE)
                    .arg(program)
                    .current_dir(folder.path())
                    .args(&self.args)
                    .arg(target);
                command.stdin(Stdio::null());
                if let Some(owner) = owner {
                    command.uid(owner).gid(owner);
                }
                command.output().expect("netns-tests/setup installs rsync")
            });
            let mut classes = [class(&ours), class(&theirs)];
            if self.as_user {
                let own: BTreeSet<_> = self.complaints(&ours).into_iter().flatten().collect();
                let denied = denied(&theirs, self.top()).into_iter();
                excused.extend(denied.filter(|path| !own.contains(path)));
            }
            let differ = classes[0] != classes[1];
            // failures of such entries alone
            for (class, run) in classes.iter_mut().zip([&ours, &theirs]) {
                let complaints = self.complaints(run);
                let is_excused = |path: &Option<PathBuf>| {
                    path.as_ref().is_some_and(|path| is_below(&excused, path))
                };
                if differ
                    && *class == Class::Partial
                    && !complaints.is_empty()
                    && complaints.iter().all(is_excused)
                {
                    *class = Class::Done;
                }
            }
            let limited =
                theirs.status.code() == Some(25) || self.limits() && classes[1] == Class::Partial;
            if classes[0] != classes[1] {
                let _ = writeln!(
                    out,
                    "ours: {:?}, theirs: {:?}",
                    ours.status.code(),
                    theirs.status.code()
                );
            }
            let difference = match limited {
                // rsync does not name the deleted entries
                true => String::new(),
                false => self.compare(&at("ours"), &at("theirs"), &excused),
            };
            out += &difference;
            if !out.is_empty() {
                let said =
                    [&ours, &theirs].map(|run| String::from_utf8_lossy(&run.stderr).into_owned());
                let _ = writeln!(
                    out,
                    "--- ours said:\n{}--- theirs said:\n{}",
                    said[0], said[1]
                );
                break;
            }
        }
        let _ = Command::new("chmod")
            .args(["-R", "u+rwx"])
            .arg(folder.path())
            .output();
        (!out.is_empty()).then_some(out)
    }

    /// Entries with a different result, with all below them, as docs/guide/rsync.md explains.
    fn excused(&self) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        let Some(dest) = &self.dest else {
            return all;
        };
        let mut waiting = vec![(PathBuf::from(self.top()), &self.source)];
        while let Some((below, tree)) = waiting.pop() {
            for (name, node) in tree {
                let path = below.join(OsStr::from_bytes(name));
                match (node, find(dest, &path)) {
                    // rsync has removed it, and then need not read the new one
                    (Node::File { mode, .. }, Some(there))
                        if self.as_user
                            && mode & 0o400 == 0
                            && self.has("--existing")
                            && !matches!(there, Node::File { .. }) =>
                    {
                        all.insert(path);
                    }
                    // it stays, and nothing comes below it
                    (Node::Folder { inside, .. }, Some(there))
                        if self.has("--ignore-existing")
                            && !matches!(there, Node::Folder { .. }) =>
                    {
                        match there {
                            Node::Link { target, .. } => {
                                all.extend(through(&below, target, inside));
                            }
                            // rsync gives it the mode of the folder, and so its other names
                            _ => names_of_first(dest, Path::new(""), &mut all),
                        }
                        all.insert(path);
                    }
                    (Node::Folder { inside, .. }, _) => waiting.push((path, inside)),
                    _ => {}
                }
            }
        }
        all
    }

    /// Whether rsync writes through links of DEST, and so into finished folders.
    fn leads_elsewhere(&self) -> bool {
        fn link_for_folder(source: &Tree, dest: &Tree) -> bool {
            let mut both = source
                .iter()
                .filter_map(|(name, node)| Some((node, dest.get(name)?)));
            both.any(|pair| match pair {
                (Node::Folder { .. }, Node::Link { .. }) => true,
                (Node::Folder { inside, .. }, Node::Folder { inside: there, .. }) => {
                    link_for_folder(inside, there)
                }
                _ => false,
            })
        }
        let dest = self.dest.as_ref();
        self.has("--ignore-existing")
            && dest.is_some_and(|dest| link_for_folder(&self.source, dest))
    }

    /// Path of SRC in DEST.
    fn top(&self) -> &'static str {
        if self.has("src") { "src" } else { "" }
    }

    /// Entries in a program's error messages; `None` for messages without an entry.
    fn complaints(&self, run: &Output) -> Vec<Option<PathBuf>> {
        let said = String::from_utf8_lossy(&run.stderr);
        let mut all = Vec::new();
        for line in said.lines() {
            if let Some(line) = line.strip_prefix("rsync: ") {
                all.push(path_of_rsync(line, self.top()));
            } else if let Some(line) = line.strip_prefix("lcsync: ")
                && let Some((path, why)) = line.split_once(": ")
            {
                let path = match self.has("src") {
                    true => Some(path),
                    false => path.strip_prefix("src/"),
                };
                // it follows from an excused entry
                let follows = why == "nothing in it is copied";
                if !follows {
                    all.push(path.map(PathBuf::from));
                }
            }
        }
        all
    }

    fn limits(&self) -> bool {
        self.args
            .iter()
            .any(|arg| arg.as_bytes().starts_with(b"--max-delete"))
    }

    fn compare(&self, ours: &Path, theirs: &Path, excused: &BTreeSet<PathBuf>) -> String {
        let [ours, theirs] = [ours, theirs].map(|root| {
            let mut all = BTreeMap::new();
            if root.symlink_metadata().is_ok() {
                self.list(root, Path::new(""), &mut all);
            }
            if self.has("-H") {
                let compared = all.iter_mut().filter(|(path, _)| !is_below(excused, path));
                group(root, compared);
            }
            all
        });
        let mut out = String::new();
        let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for path in paths {
            let (a, b) = (ours.get(path), theirs.get(path));
            if a != b && !is_below(excused, path) {
                let before = self.dest.as_ref().and_then(|tree| find(tree, path));
                let _ = writeln!(
                    out,
                    "{path:?}:\n  source {:?}\n  before {before:?}\n  ours   {a:?}\n  theirs {b:?}",
                    self.in_source(path)
                );
            }
        }
        out
    }

    fn list(&self, root: &Path, below: &Path, all: &mut BTreeMap<PathBuf, Listed>) {
        let path = root.join(below);
        let meta = path.symlink_metadata().unwrap();
        let source = self.in_source(below);
        let unreadable = |mode: u32| self.as_user && mode & 0o400 == 0;
        // rsync removes an entry in its place before it finds the file unreadable
        if matches!(source, Some(Node::File { mode, .. }) if unreadable(*mode)) {
            return;
        }
        let kind = meta.file_type();
        let content = match kind {
            _ if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_vec(),
            _ if kind.is_file() => fs::read(&path).unwrap_or_else(|_| b"closed".to_vec()),
            _ => Vec::new(),
        };
        let mut mode = meta.mode();
        if self.as_user && kind.is_dir() {
            // rsync leaves a folder open that it could not empty, or with SRC closed but writable
            mode |= match source {
                Some(Node::Folder { mode, .. }) if mode & 0o200 == 0 || mode & 0o700 == 0o700 => 0,
                Some(Node::Folder { .. }) => 0o700,
                _ => 0o200,
            };
            // when it closes a new folder, it forgets the inherited group
            if !self.args[0]
                .as_bytes()
                .iter()
                .any(|c| matches!(c, b'a' | b'p'))
            {
                mode &= !0o2000;
            }
        }
        if self.as_user && kind.is_file() {
            // rsync opens a file before it deletes or replaces it, and so its other names
            mode |= 0o200;
        }
        let times = self.args[0]
            .as_bytes()
            .iter()
            .any(|c| matches!(c, b'a' | b't'));
        let time = match meta.mtime() {
            // if only the time differs, it shows which program has written the file again
            _ if !times || kind.is_dir() && (self.has("-n") || self.leads_elsewhere()) => 0,
            _ if below == Path::new("") && self.has("--partial") => 0,
            time => time.min(NOW),
        };
        let listed = Listed {
            mode,
            owner: (meta.uid(), meta.gid()),
            time,
            content,
            attributes: match kind.is_symlink() {
                true => BTreeMap::new(),
                false => self.attributes(&path),
            },
            name_of: None,
        };
        all.insert(below.to_path_buf(), listed);
        if kind.is_dir() {
            for entry in fs::read_dir(&path).into_iter().flatten() {
                let name = entry.unwrap().file_name();
                // kept by --partial after an error
                if !name.as_bytes().starts_with(b".lcsync-partial") {
                    self.list(root, &below.join(name), all);
                }
            }
        }
    }

    /// Kept attributes.
    fn attributes(&self, path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        if !(self.has("-A") || self.has("-X")) {
            return all;
        }
        let mut names = [0; 4_096];
        let length = llistxattr(path, &mut names[..]).unwrap();
        for name in names[..length].split(|byte| *byte == 0) {
            let name = String::from_utf8_lossy(name).into_owned();
            let is_acl = ACLS.contains(&name.as_str());
            if !(is_acl && self.has("-A") || name.starts_with("user.") && self.has("-X")) {
                continue;
            }
            let mut value = [0; 4_096];
            let key = CString::new(name.as_bytes()).unwrap();
            // a user cannot read those of a closed file
            if let Ok(length) = lgetxattr(path, &key, &mut value[..]) {
                let mut value = value[..length].to_vec();
                if name == ACLS[0] && value.len() > 24 {
                    // the owner's rights, which the mode has; the group's, which rsync loses if
                    // equal to the mask
                    for rights in [6..8, 22..24] {
                        value[rights].fill(0);
                    }
                }
                all.insert(name, value);
            }
        }
        all
    }

    /// The entry of SRC for a path of DEST.
    fn in_source(&self, path: &Path) -> Option<&Node> {
        match self.has("src") {
            true => find(&self.source, path.strip_prefix("src").ok()?),
            false => find(&self.source, path),
        }
    }
}

fn find<'a>(tree: &'a Tree, path: &Path) -> Option<&'a Node> {
    let mut names = path.iter();
    let mut node = tree.get(names.next()?.as_bytes())?;
    for name in names {
        let Node::Folder { inside, .. } = node else {
            return None;
        };
        node = inside.get(name.as_bytes())?;
    }
    Some(node)
}

fn find_mut<'a>(tree: &'a mut Tree, path: &Path) -> Option<&'a mut Node> {
    let mut names = path.iter();
    let mut node = tree.get_mut(names.next()?.as_bytes())?;
    for name in names {
        let Node::Folder { inside, .. } = node else {
            return None;
        };
        node = inside.get_mut(name.as_bytes())?;
    }
    Some(node)
}

fn folder_mut<'a>(tree: &'a mut Tree, name: &[u8]) -> Option<&'a mut Tree> {
    match tree.get_mut(name) {
        Some(Node::Folder { inside, .. }) => Some(inside),
        _ => None,
    }
}

/// Removes from DEST entries with which rsync fails with `-H`: folders in the way, and files that
/// only seem up to date, which rsync takes as the source of other names.
fn make_linkable(source: &Tree, dest: &mut Tree) {
    for (name, node) in source {
        let stays = match (node, dest.get_mut(name)) {
            (Node::Folder { inside, .. }, Some(Node::Folder { inside: there, .. })) => {
                make_linkable(inside, there);
                true
            }
            (Node::Folder { .. }, _) => true,
            (_, Some(Node::Folder { .. })) | (Node::Another, _) => false,
            (Node::File { content, .. }, Some(Node::File { content: there, .. })) => {
                content.len() != there.len() || content == there
            }
            _ => true,
        };
        if !stays {
            dest.remove(name);
        }
    }
}

/// Whether a path in a message is one of these or below one.
fn is_below(all: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let text = |path: &Path| PathBuf::from(shown(path.as_os_str().as_bytes()));
    let path = text(path);
    all.iter().any(|one| path.starts_with(text(one)))
}

/// The names of the first file of a tree, which may have several.
fn names_of_first(tree: &Tree, below: &Path, all: &mut BTreeSet<PathBuf>) {
    for (name, node) in tree {
        let path = below.join(OsStr::from_bytes(name));
        match node {
            Node::Folder { inside, .. } => names_of_first(inside, &path, all),
            Node::Another => drop(all.insert(path)),
            Node::File { .. } if all.is_empty() => drop(all.insert(path)),
            _ => {}
        }
    }
}

/// Paths that rsync writes through a link in the place of a folder.
fn through(below: &Path, target: &str, inside: &Tree) -> Vec<PathBuf> {
    let folder = match (target, below.parent()) {
        ("..", Some(above)) => above.to_path_buf(),
        _ => below.join(target),
    };
    let names = inside
        .keys()
        .map(|name| folder.join(OsStr::from_bytes(name)));
    names.collect()
}

/// Paths that rsync could not reach, in folders that lcsync opens; `top` is SRC's path in DEST.
fn denied(run: &Output, top: &str) -> Vec<PathBuf> {
    let said = String::from_utf8_lossy(&run.stderr);
    let lines = said.lines().filter_map(|line| line.strip_prefix("rsync: "));
    let lines = lines.filter(|line| line.ends_with("Permission denied (13)"));
    let mut all = Vec::new();
    for line in lines {
        let Some(path) = path_of_rsync(line, top) else {
            continue;
        };
        // the name of a temporary file begins with one dot, also for a name with more
        if line.contains("mkstemp")
            && let Some(name) = path.file_name()
        {
            let hidden = [b".", name.as_bytes()].concat();
            all.push(path.with_file_name(OsString::from_vec(hidden)));
        }
        all.push(path);
    }
    // a folder stays if an entry in it does
    let stays = said.lines().filter_map(folder_in_the_way);
    let stays: Vec<_> = stays
        .filter(|folder| all.iter().any(|path| path.starts_with(folder)))
        .collect();
    all.extend(stays);
    all
}

/// The folder that rsync could not remove, from its message.
fn folder_in_the_way(line: &str) -> Option<PathBuf> {
    let what = line.strip_prefix("could not make way for new ")?;
    Some(unescaped(what.split_once(": ")?.1))
}

/// The path below DEST in a line of rsync.
fn path_of_rsync(line: &str, top: &str) -> Option<PathBuf> {
    if let Some((_, call)) = line.split_once("delete_file: ") {
        let (_, path) = call.split_once('(')?;
        return Some(unescaped(path.rsplit_once(") failed")?.0));
    }
    let (top, path) = match (line.split_once("/theirs/"), line.split_once("/src/")) {
        (Some((_, path)), _) => ("", path),
        (None, Some((_, path))) => (top, path),
        (None, None) => return None,
    };
    let (path, _) = path.rsplit_once('"')?;
    let temporary = line.contains("mkstemp").then(|| name_of_temporary(path));
    let path = temporary.as_deref().unwrap_or(path);
    Some(Path::new(top).join(unescaped(path)))
}

/// A path from rsync's output: bytes as three octal digits.
fn unescaped(shown: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = shown.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = rest.strip_prefix(b"\\#").and_then(|digits| digits.get(..3));
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[5..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The file name in rsync's temporary name, which adds a dot and six letters.
fn name_of_temporary(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let name = name.strip_prefix('.').unwrap_or(name);
    let name = name.rsplit_once('.').map_or(name, |(name, _)| name);
    format!("{folder}/{name}")
        .trim_start_matches('/')
        .to_owned()
}

/// Sets the first name of each file.
fn group<'a>(root: &Path, all: impl Iterator<Item = (&'a PathBuf, &'a mut Listed)>) {
    let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for (path, listed) in all {
        let meta = root.join(path).symlink_metadata().unwrap();
        if meta.is_file() {
            let name = first.entry((meta.dev(), meta.ino()));
            listed.name_of = Some(name.or_insert_with(|| path.clone()).clone());
        }
    }
}

/// Whether files in the folder for temporary ones can have ACLs, and attributes of users.
fn knows_attributes() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    let set =
        |name: &str, value: &[u8]| lsetxattr(file.path(), name, value, XattrFlags::empty()).is_ok();
    set("user.a", b"1") && set(ACLS[0], &acl(0o644, 4))
}

/// Names that only DEST has, of files with several names in SRC. Their final file depends on the
/// copied name, from which the rest is made. rsync chooses differently if the first one is missing
/// in DEST, and orders differently: in a folder, files before folders, which end with a slash.
fn names_left(source: &Path, dest: &Path, top: &str) -> BTreeSet<PathBuf> {
    let there = files(dest);
    let mut by_file: BTreeMap<(u64, u64), Vec<&PathBuf>> = BTreeMap::new();
    for (path, file) in &there {
        by_file.entry(*file).or_default().push(path);
    }
    let mut same: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    for (path, file) in files(source) {
        same.entry(file).or_default().push(path);
    }
    let mut left = BTreeSet::new();
    for names in same.values().filter(|names| names.len() > 1) {
        let theirs = names.iter().min_by_key(|path| {
            let parts = path.iter().map(OsStr::as_bytes);
            let folders = path.iter().count() - 1;
            let parts = parts.enumerate().map(|(n, part)| match n < folders {
                true => (true, [part, b"/"].concat()),
                false => (false, part.to_vec()),
            });
            parts.collect::<Vec<_>>()
        });
        let in_dest: Vec<_> = names.iter().map(|name| Path::new(top).join(name)).collect();
        if names.first() == theirs && there.contains_key(&in_dest[0]) {
            continue;
        }
        for file in in_dest.iter().filter_map(|name| there.get(name)) {
            let others = by_file[file].iter().filter(|path| !in_dest.contains(path));
            left.extend(others.map(|path| path.to_path_buf()));
        }
    }
    left
}

/// Names of one file in DEST that are several files of equal content in SRC. With both programs it
/// gets the attributes of one of them, another one with each copy.
fn names_of_several(source: &Path, dest: &Path, top: &str) -> BTreeSet<PathBuf> {
    let in_source = files(source);
    let mut by_file: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    for (path, file) in files(dest) {
        by_file.entry(file).or_default().push(path);
    }
    let several = by_file.into_values().filter(|names| {
        let below = names.iter().filter_map(|name| name.strip_prefix(top).ok());
        let of: BTreeSet<_> = below.filter_map(|name| in_source.get(name)).collect();
        of.len() > 1
    });
    several.flatten().collect()
}

/// The files below a folder, in lcsync's order.
fn files(root: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        for entry in fs::read_dir(root.join(&below)).into_iter().flatten() {
            let entry = entry.unwrap();
            let (path, meta) = (below.join(entry.file_name()), entry.metadata().unwrap());
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_file() {
                all.insert(path, (meta.dev(), meta.ino()));
            }
        }
    }
    all
}

/// The entry at a path after the copy.
#[derive(PartialEq, Eq)]
struct Listed {
    mode: u32,
    owner: (u32, u32),
    time: i64,
    content: Vec<u8>,
    attributes: BTreeMap<String, Vec<u8>>,
    /// Of a file with `-H`: the first of its names.
    name_of: Option<PathBuf>,
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = String::from_utf8_lossy(&self.content[..self.content.len().min(8)]);
        let (mode, owner, length) = (self.mode, self.owner, self.content.len());
        write!(
            f,
            "{mode:o} {owner:?} time {} {length} bytes {content:?}",
            self.time
        )?;
        for (name, value) in &self.attributes {
            write!(f, " {name} {:02x?}", &value[..value.len().min(44)])?;
        }
        match &self.name_of {
            Some(name) => write!(f, " name of {name:?}"),
            None => Ok(()),
        }
    }
}

/// End of a program.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Done,
    Partial,
    Refused,
    /// It did not end.
    Waited,
}

fn class(run: &Output) -> Class {
    let is_ours = !String::from_utf8_lossy(&run.stderr).contains("rsync error");
    match (run.status.code(), is_ours) {
        (Some(0), _) => Class::Done,
        (Some(1), true) | (Some(23..=25), false) => Class::Partial,
        (Some(2), true) | (Some(1), false) => Class::Refused,
        (Some(124), _) => Class::Waited,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&run.stderr)),
    }
}

/// A folder of the copying user, and the program at a path that he can reach.
fn of_user() -> (tempfile::TempDir, impl Fn(&[&str]) -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let lcsync = folder.path().join("lcsync");
    install(&lcsync);
    let owner = geteuid().is_root().then_some(USER);
    finish(folder.path(), Some(0o755), 1_000, owner);
    let at = folder.path().to_path_buf();
    let command = move |args: &[&str]| {
        let mut command = Command::new(&lcsync);
        command.current_dir(&at).args(args);
        if let Some(owner) = owner {
            command.uid(owner).gid(owner);
        }
        command
    };
    (folder, command)
}

#[test]
fn closed_folders_are_opened_for_a_copy_and_closed_again_also_after_one_that_was_killed() {
    let (folder, lcsync) = of_user();
    let at = |name: &str| folder.path().join(name);
    let owner = geteuid().is_root().then_some(USER);
    let mode = |name: &str| at(name).metadata().unwrap().mode() & 0o7777;
    let make = |files: &[(&str, usize)]| {
        let _ = Command::new("chmod")
            .args(["-R", "u+rwx"])
            .arg(at("s"))
            .output();
        fs::create_dir_all(at("s/ro")).unwrap();
        for (name, size) in files {
            let path = at("s/ro").join(name);
            fs::write(&path, vec![7; *size]).unwrap();
            finish(&path, Some(0o644), 3_000, owner);
        }
        finish(&at("s/ro"), Some(0o555), 1_000, owner);
        finish(&at("s"), Some(0o555), 1_000, owner);
    };
    make(&[("a", 1), ("gone", 1)]);
    assert!(lcsync(&["-a", "s/", "d/"]).status().unwrap().success());
    make(&[("a", 2), ("big", 4 << 20)]);
    fs::set_permissions(at("s/ro"), Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(at("s/ro/gone")).unwrap();
    make(&[]);
    // slow enough to be killed while the folder is open
    let mut copying = lcsync(&["-a", "--bwlimit", "8M", "s/", "d/"])
        .spawn()
        .unwrap();
    while mode("d/ro") & 0o200 == 0 {
        assert!(copying.try_wait().unwrap().is_none(), "it was too fast");
        std::thread::sleep(Duration::from_millis(5));
    }
    copying.kill().unwrap();
    copying.wait().unwrap();
    assert!(
        lcsync(&["-a", "--delete", "s/", "d/"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!((mode("d"), mode("d/ro")), (0o555, 0o555));
    let mut left: Vec<_> = fs::read_dir(at("d/ro"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .collect();
    left.sort();
    assert_eq!(left, [("a".into(), 2), ("big".into(), 4 << 20)]);
    assert_eq!(at("d/ro").metadata().unwrap().mtime(), 1_000);
    // without -p DEST keeps its mode
    fs::set_permissions(at("d/ro"), Permissions::from_mode(0o500)).unwrap();
    make(&[("a", 3)]);
    assert!(lcsync(&["-r", "s/", "d/"]).status().unwrap().success());
    assert_eq!(
        (mode("d/ro"), fs::read(at("d/ro/a")).unwrap().len()),
        (0o500, 3)
    );
    let _ = Command::new("chmod")
        .args(["-R", "u+rwx", "s", "d"])
        .current_dir(folder.path())
        .output();
}

#[test]
fn paths_of_any_length_are_copied_and_deleted() {
    let (folder, lcsync) = of_user();
    let at = |name: &str| folder.path().join(name);
    let owner = geteuid().is_root().then_some(USER);
    let open = |below: &nix::dir::Dir, name: &str| {
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        nix::dir::Dir::openat(below, name, flags, Mode::empty()).unwrap()
    };
    // rsync ends at 4,096 bytes
    let (name, depth) = ("n".repeat(90), 200);
    for top in ["s", "d"] {
        fs::create_dir(at(top)).unwrap();
        lchown(at(top), owner, owner).unwrap();
    }
    let top = |path: &Path| {
        nix::dir::Dir::open(path, nix::fcntl::OFlag::O_DIRECTORY, Mode::empty()).unwrap()
    };
    let mut above = top(&at("s"));
    for _ in 0..depth {
        nix::sys::stat::mkdirat(&above, name.as_str(), Mode::S_IRWXU).unwrap();
        above = open(&above, &name);
        let id = owner.map(nix::unistd::Uid::from_raw);
        nix::unistd::fchown(&above, id, None).unwrap();
    }
    symlink("target", at("s/link")).unwrap();
    nix::unistd::symlinkat("at the end", &above, "last").unwrap();
    let copied = lcsync(&["-a", "s/", "d/"]).output().unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    let mut above = top(&at("d"));
    for _ in 0..depth {
        above = open(&above, &name);
    }
    assert_eq!(
        nix::fcntl::readlinkat(&above, "last").unwrap(),
        "at the end"
    );
    fs::create_dir(at("empty")).unwrap();
    assert!(
        lcsync(&["-a", "--delete", "empty/", "d/"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(fs::read_dir(at("d")).unwrap().count(), 0);
}

#[test]
fn copies_are_as_those_of_rsync() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let from = number("BESIDE_RSYNC_FROM").unwrap_or(1);
    let until = number("BESIDE_RSYNC").map(|s| Instant::now() + Duration::from_secs(s));
    // a user may not enter the folder of the build
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), Permissions::from_mode(0o755)).unwrap();
    install(&programs.path().join("lcsync"));
    let attributes = knows_attributes();
    if !attributes {
        eprintln!("without -A and -X: the file system of temporary files has no attributes");
    }
    let cases = u64::from(Config::default().cases);
    let is_over = |n: u64| match until {
        Some(until) => Instant::now() >= until,
        None => n >= from + cases,
    };
    let (next, failed) = (AtomicU64::new(from), Mutex::new(Vec::<String>::new()));
    let run = || {
        while failed.lock().unwrap().len() < MAX_FAILURES {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if is_over(n) {
                break;
            }
            let failure = failure(n, attributes, programs.path());
            failed.lock().unwrap().extend(failure);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(run);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs a case; describes it if it fails.
fn failure(n: u64, attributes: bool, programs: &Path) -> Option<String> {
    let case = Case::new(n, attributes);
    let difference = case.run(programs)?;
    let who = if case.as_user { "a user" } else { "root" };
    let (args, patterns) = (&case.args, String::from_utf8_lossy(&case.patterns));
    Some(format!(
        "=== case {n}, as {who}: {args:?}, patterns {patterns:?}\n{difference}"
    ))
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_folder_of_which_not_all_is_held_in_memory_is_copied_and_emptied_as_one_that_is() {
    let (folder, lcsync) = of_user();
    let at = |name: &str| folder.path().join(name);
    let owner = geteuid().is_root().then_some(USER);
    // more than lcsync scans before it copies
    for part in 0..66 {
        let part = at("s/many").join(part.to_string());
        fs::create_dir_all(&part).unwrap();
        for n in 0..1_000 {
            fs::write(part.join(n.to_string()), b"").unwrap();
        }
    }
    for part in ["s/a", "s/z"] {
        fs::create_dir(at(part)).unwrap();
        fs::write(at(part).join("f"), part).unwrap();
    }
    fs::hard_link(at("s/a/f"), at("s/z/another")).unwrap();
    fs::hard_link(at("s/many/3/7"), at("s/z/third")).unwrap();
    let give = Command::new("chown")
        .args(["-R", &format!("{USER}:{USER}")])
        .arg(at("s"))
        .status();
    assert!(owner.is_none() || give.unwrap().success());
    for part in ["s/a", "s/many/5", "s/z"] {
        finish(&at(part), Some(0o555), 1_000, owner);
    }
    let copied = || {
        let done = lcsync(&["-aH", "--delete", "s/", "d/"]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        let left = Command::new("rsync")
            .args(["-aHni", "--delete", "s/", "d/"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(left.status.success());
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    };
    copied();
    for part in ["s/many/6", "s/many/65"] {
        fs::remove_dir_all(at(part)).unwrap();
    }
    fs::remove_file(at("s/many/30/500")).unwrap();
    fs::remove_file(at("s/z/f")).unwrap();
    copied();
    let _ = Command::new("chmod")
        .args(["-R", "u+rwx"])
        .arg(folder.path())
        .output();
}
