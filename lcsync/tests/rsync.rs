//! Local copies beside rsync's: equal trees, equal output; each row of docs/guide/rsync.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::program;

/// Times of files in these tests are before it, in seconds of Unix time; the clock is after it.
const PRESENT: i64 = 1_000_000_000;

/// SRC, and two copies of an old DEST, one for each program.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(world.at("src")).unwrap();
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file with this time, in seconds.
    fn write(&self, path: &str, content: impl AsRef<[u8]>, time: u64) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        set_time(&path, time);
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let run = Command::new(program)
            .current_dir(self.folder.path())
            .args(args)
            .stdin(Stdio::null())
            .output();
        run.unwrap_or_else(|e| panic!("{program}: {e}: netns-tests/setup installs it"))
    }

    fn lcsync(&self, args: &[&str]) -> String {
        said(&self.run(env!("CARGO_BIN_EXE_lcsync"), args))
    }

    fn rsync(&self, args: &[&str]) -> String {
        said(&self.run("rsync", args))
    }

    /// Copies `old` to both targets and runs both programs: output and results must be equal.
    fn compare(&self, options: &[&str]) {
        let targets = ["ours", "theirs"];
        for target in targets {
            // left by an earlier comparison
            let _ = fs::remove_dir_all(self.at(target));
            if self.at("old").exists() {
                let copied = self.run("cp", &["-a", "old", target]);
                assert!(copied.status.success());
            }
        }
        for dry in [true, false] {
            let [ours, theirs] = targets.map(|target| {
                let mut args = vec!["-i"];
                args.extend(dry.then_some("-n"));
                args.extend(options);
                args.extend(["src/", target]);
                match target {
                    "ours" => entries(&self.lcsync(&args)),
                    _ => entries(&self.rsync(&args)),
                }
            });
            assert_eq!(ours, theirs, "{options:?}, dry run: {dry}");
        }
        self.compare_trees(options);
    }

    fn compare_trees(&self, options: &[&str]) {
        let with_times = options
            .iter()
            .any(|o| o.starts_with('-') && !o.starts_with("--") && o.contains(['a', 't']));
        let [ours, theirs] = ["ours", "theirs"].map(|target| {
            if options.iter().any(|o| o.contains('H')) {
                let mut groups: BTreeMap<u64, BTreeSet<PathBuf>> = BTreeMap::new();
                group_names(&self.at(target), Path::new(""), &mut groups);
                let groups: BTreeSet<_> = groups.into_values().collect();
                return vec![format!("{groups:#?}")];
            }
            let root = self.at(target).metadata().unwrap();
            let mut list = vec![format!("{:o} {} {}", root.mode(), root.uid(), root.gid())];
            list_tree(&self.at(target), Path::new(""), with_times, &mut list);
            list
        });
        assert_eq!(ours, theirs, "{options:?}");
    }
}

fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Lines about entries, in any order.
fn entries(said: &str) -> BTreeSet<String> {
    let is_entry = |line: &&str| line.starts_with(['.', '>', 'c', '*', 'h']);
    let is_remark =
        |line: &&str| line.starts_with("created directory") || line.starts_with("cannot");
    let entries = said.lines().filter(is_entry);
    entries
        .filter(|l| !is_remark(l))
        .map(str::to_owned)
        .collect()
}

/// Lists every path with its kept properties.
fn list_tree(root: &Path, below: &Path, with_times: bool, list: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(root.join(below))
        .unwrap()
        .map(|entry| below.join(entry.unwrap().file_name()))
        .collect();
    names.sort();
    for path in names {
        let meta = root.join(&path).symlink_metadata().unwrap();
        let content = match meta.file_type() {
            t if t.is_symlink() => format!("{:?}", fs::read_link(root.join(&path)).unwrap()),
            t if t.is_file() => format!("{:?}", blake3::hash(&fs::read(root.join(&path)).unwrap())),
            _ => String::new(),
        };
        // a folder that only DEST has got its time when a program deleted in it, perhaps a second after the other program
        let latest = if with_times { PRESENT } else { 0 };
        let time = meta.mtime().min(latest);
        let mut content = content;
        if meta.file_type().is_block_device() || meta.file_type().is_char_device() {
            content = format!("{}", meta.rdev());
        }
        if meta.is_file() || meta.is_dir() {
            content += &attributes(&root.join(&path));
        }
        let (mode, user, group) = (meta.mode(), meta.uid(), meta.gid());
        list.push(format!(
            "{} {mode:o} {user} {group} {time} {content}",
            path.display()
        ));
        if meta.is_dir() {
            list_tree(root, &path, with_times, list);
        }
    }
}

/// Groups paths by file.
fn group_names(root: &Path, below: &Path, groups: &mut BTreeMap<u64, BTreeSet<PathBuf>>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let meta = root.join(&path).symlink_metadata().unwrap();
        groups.entry(meta.ino()).or_default().insert(path.clone());
        if meta.is_dir() {
            group_names(root, &path, groups);
        }
    }
}

/// Extended attributes and ACLs.
fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4_096];
    let listed = rustix::fs::listxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..listed]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    let mut all = BTreeMap::new();
    for name in names {
        let mut value = vec![0; 4_096];
        let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
        all.insert(String::from_utf8_lossy(name), value[..length].to_vec());
    }
    format!("{all:?}")
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Trees with all kinds of differences.
fn sample() -> World {
    let world = World::new();
    for (name, old, new) in [
        ("same", Some(("same", 1_000)), Some(("same", 1_000))),
        ("touched", Some(("same", 1_000)), Some(("same", 2_000))),
        ("longer", Some(("some", 1_000)), Some(("some more", 2_000))),
        (
            "longer-same-time",
            Some(("some", 1_000)),
            Some(("some more", 1_000)),
        ),
        ("hidden", Some(("left", 1_000)), Some(("righ", 1_000))),
        ("newer-there", Some(("newer", 9_000)), Some(("old", 1_000))),
        ("gone", Some(("x", 1_000)), None),
        ("new", None, Some(("x", 1_000))),
        ("mode", Some(("x", 1_000)), Some(("x", 1_000))),
        ("sub/deep/f", Some(("x", 1_000)), Some(("yy", 1_500))),
        ("sub/a.o", None, Some(("object", 1_000))),
        ("sub/b.o", Some(("object", 1_000)), None),
        ("gone-folder/f", Some(("x", 1_000)), None),
        ("gone-folder/c.o", Some(("x", 1_000)), None),
        ("new-folder/f", None, Some(("x", 1_000))),
    ] {
        for (tree, content) in [("old", old), ("src", new)] {
            if let Some((content, time)) = content {
                world.write(&format!("{tree}/{name}"), content, time);
            }
        }
    }
    set_mode(&world.at("src/mode"), 0o755);
    set_mode(&world.at("old/mode"), 0o600);
    for (tree, target) in [("old", "same"), ("src", "new")] {
        symlink(target, world.at(tree).join("link")).unwrap();
        symlink("same", world.at(tree).join("same-link")).unwrap();
    }
    symlink("same", world.at("src/new-link")).unwrap();
    for tree in ["old", "src"] {
        for link in ["link", "same-link", "new-link"] {
            let path = world.at(tree).join(link);
            let touch = ["-h", "-d", "@1000", path.to_str().unwrap()];
            if path.symlink_metadata().is_ok() {
                assert!(world.run("touch", &touch).status.success());
            }
        }
    }
    for (path, time) in [
        ("old/sub", 1_000),
        ("src/sub", 1_000),
        ("old/sub/deep", 1_000),
        ("src/sub/deep", 3_000),
        ("src/new-folder", 5_000),
        ("src", 4_000),
        ("old", 3_000),
    ] {
        set_time(&world.at(path), time);
    }
    world
}

#[test]
fn the_quick_check_takes_what_rsync_takes() {
    let world = sample();
    for options in [
        &["-r"][..],
        &["-a"],
        &["-rlt"],
        &["-rp"],
        &["-rtp"],
        &["-rtpl", "--size-only"],
        &["-aI"],
    ] {
        world.compare(options);
    }
    assert_eq!(
        fs::read(world.at("ours/hidden")).unwrap(),
        b"righ",
        "-I sees it"
    );
}

#[test]
fn checksum_finds_a_byte_under_equal_size_and_time() {
    let world = sample();
    world.compare(&["-a"]);
    assert_eq!(fs::read(world.at("ours/hidden")).unwrap(), b"left");
    world.compare(&["-ac"]);
    assert_eq!(fs::read(world.at("ours/hidden")).unwrap(), b"righ");
    world.compare(&["-rc"]);
}

#[test]
fn delete_takes_away_what_is_not_in_src_but_what_patterns_protect() {
    let world = sample();
    world.compare(&["-a", "--delete"]);
    world.compare(&["-a", "--del", "-c"]);
    world.compare(&["-a", "--delete", "--exclude=*.o"]);
    assert!(world.at("ours/gone-folder/c.o").exists() && !world.at("ours/gone-folder/f").exists());
    world.compare(&["-a", "--delete", "--delete-excluded", "--exclude=*.o"]);
    assert!(!world.at("ours/gone-folder").exists());
}

#[test]
fn what_patterns_protect_stays_where_a_file_has_to_come_and_the_rest_goes() {
    let world = World::new();
    for path in [
        "src/cfg",
        "src/b",
        "old/cfg/local.key",
        "old/cfg/x",
        "old/cfg/sub/y",
        "old/gone",
    ] {
        world.write(path, path, 1_000);
    }
    let targets = ["ours", "theirs"].map(|target| {
        assert!(world.run("cp", &["-a", "old", target]).status.success());
        let program = match target {
            "ours" => env!("CARGO_BIN_EXE_lcsync"),
            _ => "rsync",
        };
        let run = world.run(
            program,
            &["-a", "--delete", "--exclude=*.key", "src/", target],
        );
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(
            stderr.contains("could not make way for new regular file: cfg"),
            "{stderr}"
        );
        run.status.code().unwrap()
    });
    assert_eq!(targets, [1, 23]);
    world.compare_trees(&["-r"]);
    assert!(world.at("ours/cfg/local.key").exists() && !world.at("ours/cfg/x").exists());
    assert!(world.at("ours/b").exists() && !world.at("ours/gone").exists());
}

#[test]
fn no_more_is_deleted_than_max_delete_allows() {
    let world = sample();
    for (most, left) in [(0, 5), (2, 3), (5, 0)] {
        let (most, target) = (format!("--max-delete={most}"), format!("limited{most}"));
        assert!(world.run("cp", &["-a", "old", &target]).status.success());
        let args = ["-ai", "--delete", &most, "src/", &target];
        let run = world.run(env!("CARGO_BIN_EXE_lcsync"), &args);
        let deleted = String::from_utf8(run.stdout).unwrap();
        let deleted = deleted
            .lines()
            .filter(|l| l.starts_with("*deleting"))
            .count();
        assert_eq!(deleted, 5 - left, "{most}");
        assert_eq!(run.status.code(), Some(i32::from(left > 0)), "{most}");
    }
}

#[test]
fn patterns_choose_as_those_of_rsync() {
    let world = sample();
    fs::write(world.at("patterns"), "# objects\n- *.o\n+ /sub/\n").unwrap();
    for options in [
        &["--exclude=sub"][..],
        &["--exclude=/deep", "--exclude=new*"],
        &["--exclude=deep/"],
        &["--include=*/", "--include=f", "--exclude=*"],
        &["--exclude=*", "--include=f"],
        &["--include=sub/***", "--exclude=*"],
        &["--exclude=sub/**", "--exclude=[n-z]ew"],
        &["--exclude=sub/*/f"],
        &["--exclude=**/f"],
        &["--exclude=s**f"],
        &["--exclude-from=patterns", "--exclude=/mode"],
        &["--include-from=patterns", "--exclude=*"],
        &["--exclude=- *.o", "--exclude=+ new"],
    ] {
        world.compare(&[&["-a"], options].concat());
    }
}

#[test]
fn what_is_there_or_newer_or_not_there_can_be_left_alone() {
    let world = sample();
    for option in ["-u", "--existing", "--ignore-existing"] {
        world.compare(&["-a", option]);
    }
    assert_eq!(fs::read(world.at("ours/longer")).unwrap(), b"some");
}

#[test]
fn owners_and_groups_are_kept_by_root() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root may give files away");
        return;
    }
    let world = sample();
    chown(world.at("src/same"), Some(1_234), Some(5_678)).unwrap();
    chown(world.at("src/new"), Some(1_234), None).unwrap();
    chown(world.at("src"), Some(1_234), Some(5_678)).unwrap();
    set_mode(&world.at("src/new"), 0o4755);
    for options in ["-a", "-rtpog", "-rto", "-rtg"] {
        world.compare(&[options]);
    }
}

/// An ACL in the kernel's form: user 1234 has `bits`, the mask is 7.
fn acl(bits: u16) -> Vec<u8> {
    let any = u32::MAX;
    let entries = [
        (1, 6, any),
        (2, bits, 1_234),
        (4, 4, any),
        (16, 7, any),
        (32, 4, any),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(bits));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

#[test]
fn attributes_and_acls_become_those_of_src() {
    let world = sample();
    let set = |path: &str, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(world.at(path), name, value, flags).unwrap();
    };
    for (path, value) in [
        ("new", "1"),
        ("same", "1"),
        ("sub", "1"),
        ("touched", "1"),
        ("", "top"),
    ] {
        set(&format!("src/{path}"), "user.a", value.as_bytes());
    }
    set("old/same", "user.a", b"2");
    set("old/same", "user.gone", b"2");
    set("old/sub", "user.b", b"2");
    set("src/new-folder", "user.empty", b"");
    set("src/new", "user.long", &[7; 1_000]);
    let acls = "system.posix_acl_access";
    set("src/new", acls, &acl(7));
    set("src/same", acls, &acl(6));
    set("old/same", acls, &acl(1));
    set("old/longer", acls, &acl(1));
    set("src/new-folder", "system.posix_acl_default", &acl(5));
    set("old/sub", "system.posix_acl_default", &acl(5));
    set_mode(&world.at("src/touched"), 0o444);
    set_mode(&world.at("old/touched"), 0o444);
    for options in ["-aX", "-aA", "-aAX", "-rX", "-rA", "-acAX"] {
        world.compare(&[options]);
    }
    world.compare(&["-aAX", "--inplace"]);
    world.compare(&["-aAX", "--partial"]);
    assert_eq!(world.lcsync(&["-aAXi", "src/", "ours"]), "");
}

#[test]
fn devices_fifos_and_sockets_are_copied_as_rsync_does() {
    let world = sample();
    let mode = nix::sys::stat::Mode::from_bits_truncate;
    for (path, bits) in [
        ("src/fifo", 0o640),
        ("src/sub/fifo", 0o600),
        ("old/sub/fifo", 0o644),
    ] {
        nix::unistd::mkfifo(&world.at(path), mode(bits)).unwrap();
    }
    // entries in the place of other kinds
    nix::unistd::mkfifo(&world.at("old/new"), mode(0o600)).unwrap();
    nix::unistd::mkfifo(&world.at("src/gone"), mode(0o600)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(world.at("src/socket")).unwrap());
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        use nix::sys::stat::{SFlag, makedev, mknod};
        for (path, kind, minor) in [
            ("src/null", SFlag::S_IFCHR, 3),
            ("old/null", SFlag::S_IFCHR, 5),
            ("src/disk", SFlag::S_IFBLK, 3),
        ] {
            mknod(&world.at(path), kind, mode(0o660), makedev(1, minor)).unwrap();
        }
        chown(world.at("src/disk"), Some(1_234), Some(5_678)).unwrap();
    } else {
        eprintln!("left out: only root makes devices");
    }
    for options in [
        &["-a"][..],
        &["-r", "--specials"],
        &["-rD"],
        &["-rt", "--devices"],
        &["-a", "--delete"],
    ] {
        for target in ["ours", "theirs"] {
            let _ = fs::remove_dir_all(world.at(target));
            assert!(world.run("cp", &["-a", "old", target]).status.success());
        }
        world.lcsync(&[options, &["src/", "ours"]].concat());
        world.rsync(&[options, &["src/", "theirs"]].concat());
        world.compare_trees(options);
    }
    assert_eq!(world.lcsync(&["-ai", "src/", "ours"]), "");
    let fresh = [
        world.lcsync(&["-aDi", "src/", "a"]),
        world.rsync(&["-aDi", "src/", "b"]),
    ];
    let [ours, theirs] = fresh.each_ref().map(|said| entries(said));
    assert_eq!(ours, theirs);
    world.lcsync(&["-a", "src/fifo", "src/socket", "other/"]);
    assert!(
        world
            .at("other/fifo")
            .metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn names_of_one_file_are_names_of_one_file() {
    let world = sample();
    let link = |from: &str, to: &str| fs::hard_link(world.at(from), world.at(to)).unwrap();
    for name in ["0", "new-folder/b", "sub/deep/c"] {
        link("src/new", &format!("src/{name}"));
    }
    link("src/same", "src/same-too");
    link("src/longer", "src/a-longer");
    link("src/sub/deep/f", "src/zz");
    // present names, of one file and of two
    world.write("old/0", "x", 1_000);
    link("old/same", "old/other-name");
    world.write("old/same-too", "same", 1_000);
    link("old/longer", "old/a-longer");
    link("old/hidden", "old/mode-too");
    fs::create_dir_all(world.at("old/zz/full")).unwrap();
    nix::unistd::mkfifo(&world.at("src/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    link("src/fifo", "src/sub/fifo");
    for n in 0..100 {
        world.write(&format!("src/many/{n}"), n.to_string(), 1_000);
        link(&format!("src/many/{n}"), &format!("src/new-folder/{n}"));
    }
    for options in [
        &["-aH", "--delete"][..],
        &["-rH", "--force"],
        &["-aH", "--inplace"],
    ] {
        if options.contains(&"--force") || options.contains(&"--inplace") {
            let _ = fs::remove_dir_all(world.at("old/zz"));
        }
        let options: Vec<_> = options
            .iter()
            .copied()
            .filter(|o| *o != "--force")
            .collect();
        for target in ["ours", "theirs"] {
            let _ = fs::remove_dir_all(world.at(target));
            assert!(world.run("cp", &["-a", "old", target]).status.success());
        }
        for _ in 0..2 {
            world.lcsync(&[&options[..], &["src/", "ours"]].concat());
            world.rsync(&[&options[..], &["src/", "theirs"]].concat());
            world.compare_trees(&options);
            world.compare_trees(&[if options.contains(&"-rH") { "-r" } else { "-a" }]);
        }
        if !options.contains(&"-rH") {
            let again = world.lcsync(&[&options[..], &["-i", "src/", "ours"]].concat());
            assert_eq!(again, "");
        }
    }
    // one of them gets another content, one another name
    fs::remove_file(world.at("src/many/7")).unwrap();
    world.write("src/many/7", "seven", 2_000);
    fs::rename(world.at("src/many/8"), world.at("src/many/eight")).unwrap();
    for (program, target) in [(env!("CARGO_BIN_EXE_lcsync"), "ours"), ("rsync", "theirs")] {
        said(&world.run(program, &["-aH", "--delete", "src/", target]));
    }
    world.compare_trees(&["-aH"]);
    world.compare_trees(&["-a"]);
    world.lcsync(&["-a", "src/", "apart"]);
    assert_eq!(world.at("apart/0").metadata().unwrap().nlink(), 1);
}

#[test]
fn a_name_that_was_passed_over_lends_its_content_to_no_other() {
    let world = World::new();
    world.write("src/a", "new", 2_000);
    world.write("old/a", "older", 1_000);
    for name in ["b", "c"] {
        fs::hard_link(world.at("src/a"), world.at(&format!("src/{name}"))).unwrap();
    }
    for target in ["ours", "theirs"] {
        assert!(world.run("cp", &["-a", "old", target]).status.success());
    }
    let options = ["-aH", "--ignore-existing", "src/"];
    world.lcsync(&[&options[..], &["ours"]].concat());
    world.rsync(&[&options[..], &["theirs"]].concat());
    world.compare_trees(&["-aH"]);
    assert_eq!(fs::read(world.at("ours/a")).unwrap(), b"older");
    assert_eq!(fs::read(world.at("ours/c")).unwrap(), b"new");
}

#[test]
fn attributes_of_ones_own_read_only_files_are_set() {
    let world = World::new();
    program::install(&world.at("lcsync"));
    let flags = rustix::fs::XattrFlags::empty();
    // one differs only in its attributes, the rest in content, too
    for (name, content) in [("same", "new"), ("other", "old"), ("inplace", "old")] {
        world.write(&format!("src/{name}"), "new", 2_000);
        world.write(&format!("ours/{name}"), content, 1_000);
        rustix::fs::setxattr(world.at(&format!("src/{name}")), "user.b", b"1", flags).unwrap();
        let there = world.at(&format!("ours/{name}"));
        rustix::fs::setxattr(&there, "user.a", b"1", flags).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o400)).unwrap();
    }
    let user = "chown -R 65534:65534 . && exec setpriv --reuid 65534 --regid 65534 --clear-groups";
    let user = if nix::unistd::geteuid().is_root() {
        user
    } else {
        ""
    };
    for options in ["-rX --exclude=inplace", "-rX --inplace"] {
        let script = format!("{user} ./lcsync {options} src/ ours");
        said(&world.run("sh", &["-ec", &script]));
    }
    for name in ["same", "other", "inplace"] {
        let there = world.at(&format!("ours/{name}"));
        assert_eq!(fs::read(&there).unwrap(), b"new");
        let mut names = [0; 64];
        let length = rustix::fs::listxattr(&there, &mut names[..]).unwrap();
        assert_eq!(&names[..length], b"user.b\0", "{name}");
        assert_eq!(there.metadata().unwrap().mode() & 0o777, 0o400);
    }
}

#[test]
fn what_dest_cannot_keep_is_named_once() {
    let world = sample();
    for path in ["src/new", "src/same", "src/sub"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(world.at(path), "user.a", b"1", flags).unwrap();
    }
    let script = format!(
        "mkdir dest && mount -t ramfs none dest
         if {0} -aX src/ dest 2>said; then exit 1; fi
         test $(grep -c 'extended attributes cannot be kept there' said) = 1 && test $(wc -l <said) = 2
         cmp src/new dest/new",
        env!("CARGO_BIN_EXE_lcsync")
    );
    let user = if nix::unistd::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    };
    said(&world.run("unshare", &[user, "sh", "-ec", &script]));
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root makes devices");
        return;
    }
    for n in 1..4 {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let (mode, number) = (Mode::S_IRUSR, makedev(1, n));
        mknod(&world.at(&format!("src/{n}")), SFlag::S_IFCHR, mode, number).unwrap();
    }
    let output = world.run(
        "unshare",
        &["-r", env!("CARGO_BIN_EXE_lcsync"), "-a", "src/", "other"],
    );
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        complaints.matches("devices cannot be kept there").count(),
        1
    );
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    assert!(world.at("other/new").exists());
}

#[test]
fn files_links_and_several_sources_go_where_those_of_rsync_go() {
    let world = sample();
    for (args, dest) in [
        (&["-a", "src/same", "src/new"][..], ""),
        (&["-a", "src/sub", "src/new-folder/", "src/link"], ""),
        (&["-a", "src/sub"], "/"),
        (&["-a", "src/same"], "/name"),
        (&["-r", "src/link", "src/same"], ""),
        (&["src/sub", "src/same"], "/"),
    ] {
        for target in ["ours", "theirs"] {
            let _ = fs::remove_dir_all(world.at(target));
            fs::create_dir(world.at(target)).unwrap();
        }
        world.lcsync(&[args, &[&format!("ours{dest}")]].concat());
        world.rsync(&[args, &[&format!("theirs{dest}")]].concat());
        world.compare_trees(args);
    }
}

#[test]
fn of_what_several_sources_have_the_first_is_copied() {
    let world = World::new();
    for (path, content) in [
        ("a/x", "1"),
        ("a/f/y", "first"),
        ("b/x", "22"),
        ("b/f/y", "second"),
        ("b/f/z", "only"),
    ] {
        world.write(path, content, 1_000);
    }
    for args in [
        &["-a", "a/", "b/"][..],
        &["-a", "a/f/", "b/f/", "b/x", "a/x"],
    ] {
        for target in ["ours", "theirs"] {
            let _ = fs::remove_dir_all(world.at(target));
        }
        world.lcsync(&[args, &["ours"]].concat());
        world.rsync(&[args, &["theirs"]].concat());
        let contents = |target: &str| {
            let mut list = Vec::new();
            list_tree(&world.at(target), Path::new(""), false, &mut list);
            list
        };
        assert_eq!(contents("ours"), contents("theirs"), "{args:?}");
    }
}

#[test]
fn inplace_writes_into_the_file_that_is_there_and_only_what_differs() {
    let world = World::new();
    let mut bytes: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
    world.write("old/f", &bytes, 1_000);
    bytes[1 << 20] ^= 1;
    bytes.truncate((3 << 20) - 5_000);
    world.write("src/f", &bytes, 2_000);
    fs::hard_link(world.at("old/f"), world.at("linked")).unwrap();
    let inode = world.at("old/f").metadata().unwrap().ino();
    let stats = world.lcsync(&["-a", "--inplace", "--stats", "src/", "old"]);
    assert!(stats.contains("Literal data: 4096 bytes\n"), "{stats}");
    assert_eq!(world.at("old/f").metadata().unwrap().ino(), inode);
    assert_eq!(
        fs::read(world.at("linked")).unwrap(),
        bytes,
        "of all names of the file"
    );
    assert_eq!(world.at("old/f").metadata().unwrap().mtime(), 2_000);
    let stats = world.lcsync(&["-a", "--stats", "src/", "other"]);
    assert_ne!(world.at("other/f").metadata().unwrap().ino(), inode);
    assert!(
        stats.contains("Number of files: 2 (reg: 1, dir: 1, link: 0)\n"),
        "{stats}"
    );
}

#[test]
fn zeroes_become_holes_with_sparse() {
    let world = World::new();
    let mut bytes = vec![0; 4 << 20];
    bytes[2 << 20] = 1;
    world.write("src/f", &bytes, 1_000);
    world.lcsync(&["-a", "src/", "plain"]);
    world.lcsync(&["-aS", "src/", "sparse"]);
    let blocks = |path: &str| world.at(path).metadata().unwrap().blocks() * 512;
    assert!(blocks("sparse/f") < 1 << 20 && blocks("plain/f") >= 4 << 20);
    assert_eq!(fs::read(world.at("sparse/f")).unwrap(), bytes);
}

#[test]
fn a_limit_holds_on_average() {
    let world = World::new();
    world.write("src/f", vec![7; 1 << 20], 1_000);
    let began = Instant::now();
    // it takes a quarter of a second
    world.lcsync(&["-a", "--bwlimit", "32M", "src/", "dest"]);
    assert!(
        began.elapsed() > Duration::from_millis(200),
        "a limit, not a speed"
    );
    assert_eq!(fs::read(world.at("dest/f")).unwrap().len(), 1 << 20);
}

#[test]
fn who_is_interrupted_keeps_with_partial_what_was_copied() {
    let world = World::new();
    world.write("src/f", vec![7; 4 << 20], 1_000);
    world.write("dest/f", "old", 1_000);
    for partial in [false, true] {
        let mut args = vec!["-a", "--bwlimit", "16M", "src/", "dest"];
        args.extend(partial.then_some("--partial"));
        let mut copying = Command::new(env!("CARGO_BIN_EXE_lcsync"))
            .current_dir(world.folder.path())
            .args(&args)
            .spawn()
            .unwrap();
        let source = world.at("src/f").metadata().unwrap().ino();
        let fds = PathBuf::from(format!("/proc/{}/fd", copying.id()));
        let dest = world.at("dest").canonicalize().unwrap();
        let is_begun = || {
            // a file that is being made may have no name
            let open = fs::read_dir(&fds).unwrap().flatten();
            // the test program's output is a file, too
            let ours = |path: &PathBuf| {
                let name = fs::read_link(path);
                name.is_ok_and(|name| name.starts_with(&dest))
            };
            let open = open.map(|fd| fd.path()).filter(ours);
            let open = open.filter_map(|path| fs::metadata(path).ok());
            let mut files = open.filter(|meta| meta.is_file() && meta.ino() != source);
            files.any(|meta| meta.blocks() > 1_024)
        };
        while !is_begun() {
            assert!(copying.try_wait().unwrap().is_none(), "it was too fast");
            std::thread::sleep(Duration::from_millis(5));
        }
        let kill = ["-INT", &copying.id().to_string()];
        assert!(world.run("kill", &kill).status.success());
        assert_eq!(copying.wait().unwrap().code(), Some(130));
        assert_eq!(fs::read(world.at("dest/f")).unwrap(), b"old", "never half");
        let left = fs::read_dir(world.at("dest")).unwrap().count() - 1;
        assert_eq!(left, usize::from(partial), "a folder with what was copied");
    }
    let stats = world.lcsync(&["-a", "--partial", "--stats", "src/", "dest"]);
    let literal: u64 = stats
        .lines()
        .find_map(|l| l.strip_prefix("Literal data: ")?.strip_suffix(" bytes"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(literal < (4 << 20) - 512 * 1_024, "{stats}");
    assert_eq!(fs::read(world.at("dest/f")).unwrap().len(), 4 << 20);
    assert_eq!(fs::read_dir(world.at("dest")).unwrap().count(), 1);
}

#[test]
fn a_copy_that_is_killed_leaves_old_or_new_and_the_next_one_ends_it() {
    let world = World::new();
    world.write("src/f", vec![7; 8 << 20], 2_000);
    world.write("dest/f", vec![1; 8 << 20], 1_000);
    for _ in 0..5 {
        let mut copying = Command::new(env!("CARGO_BIN_EXE_lcsync"))
            .current_dir(world.folder.path())
            .args(["-a", "--bwlimit", "400M", "src/", "dest"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        copying.kill().unwrap();
        copying.wait().unwrap();
        let bytes = fs::read(world.at("dest/f")).unwrap();
        assert!(bytes == [1; 8 << 20] || bytes == [7; 8 << 20]);
    }
    world.lcsync(&["-a", "src/", "dest"]);
    assert_eq!(fs::read(world.at("dest/f")).unwrap(), vec![7; 8 << 20]);
    assert_eq!(fs::read_dir(world.at("dest")).unwrap().count(), 1);
}

#[test]
fn what_is_on_disk_is_said_with_fsync_and_nothing_with_quiet() {
    let world = sample();
    assert_eq!(
        world.lcsync(&["-aq", "--fsync", "--stats", "-i", "src/", "dest"]),
        ""
    );
    assert_eq!(world.lcsync(&["-ain", "src/", "dest"]), "");
}

#[test]
fn mounts_are_not_entered_with_one_file_system() {
    let world = World::new();
    world.write("src/f", "x", 1_000);
    fs::create_dir(world.at("src/mounted")).unwrap();
    let script = format!(
        "mount -t tmpfs none src/mounted && echo y >src/mounted/g && {0} -ax src/ ours && rsync -ax src/ theirs",
        env!("CARGO_BIN_EXE_lcsync")
    );
    let user = if nix::unistd::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    };
    said(&world.run("unshare", &[user, "sh", "-ec", &script]));
    world.compare_trees(&["-r"]);
    assert!(world.at("ours/mounted").exists() && !world.at("ours/mounted/g").exists());
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let world = World::new();
    world.write("src/a", vec![7; 3 << 20], 2_000);
    world.write("src/b", "new", 2_000);
    fs::create_dir(world.at("dest")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=1m none dest && echo old >dest/a && echo old >dest/b
         if {0} -a src/ dest 2>said; then exit 1; fi
         grep -q 'nothing more fits into dest' said || {{ cat said >&2; exit 1; }}
         test \"$(cat dest/a)\" = old && test \"$(ls -A dest)\" = \"$(printf 'a\\nb')\"",
        env!("CARGO_BIN_EXE_lcsync")
    );
    let user = if nix::unistd::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    };
    said(&world.run("unshare", &[user, "sh", "-ec", &script]));
}

#[test]
fn a_file_that_shrinks_under_the_copy_is_an_error_of_its_own() {
    let world = World::new();
    world.write("src/f", vec![7; 4 << 20], 1_000);
    world.write("src/g", "x", 1_000);
    let mut copying = Command::new(env!("CARGO_BIN_EXE_lcsync"))
        .current_dir(world.folder.path())
        .args(["-a", "--bwlimit", "32M", "src/", "dest"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !world.at("dest").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    File::options()
        .write(true)
        .open(world.at("src/f"))
        .unwrap()
        .set_len(10)
        .unwrap();
    assert_eq!(copying.wait().unwrap().code(), Some(1));
    assert!(world.at("dest/g").exists() && !world.at("dest/f").exists());
    let again = world.lcsync(&["-a", "src/", "dest"]);
    assert_eq!(again, "");
    let mut byte = [0];
    File::open(world.at("dest/f"))
        .unwrap()
        .read_exact_at(&mut byte, 9)
        .unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn what_is_said_comes_in_the_order_of_entries_whoever_copies_them() {
    let world = World::new();
    let mut expected = Vec::new();
    for folder in 100..110 {
        fs::create_dir(world.at(&format!("src/{folder}"))).unwrap();
        if folder >= 105 {
            expected.push(format!("{folder}/"));
        }
        for n in 100..200 {
            let path = format!("{folder}/{n}");
            fs::write(world.at(&format!("src/{path}")), vec![7; n * n % 9_000]).unwrap();
            if folder < 105 && n % 50 == 25 {
                // it is in the way of a file, and stays
                fs::create_dir_all(world.at(&format!("dest/{path}/full"))).unwrap();
            } else {
                expected.push(path);
            }
        }
    }
    let [first, second] = [false, true].map(|again| {
        if again {
            for path in expected.iter().filter(|path| !path.ends_with('/')) {
                fs::remove_file(world.at("dest").join(path)).unwrap();
            }
        }
        world.run(env!("CARGO_BIN_EXE_lcsync"), &["-rv", "src/", "dest"])
    });
    assert_eq!(first.status.code(), Some(1));
    let complaints = String::from_utf8(first.stderr).unwrap();
    let failed = complaints.lines().filter(|l| l.starts_with("lcsync: src/"));
    assert_eq!(failed.count(), 10);
    assert!(complaints == String::from_utf8(second.stderr).unwrap());
    let lines = |said: Vec<u8>| String::from_utf8(said).unwrap();
    assert!(lines(first.stdout) == expected.join("\n") + "\n");
    expected.retain(|path| !path.ends_with('/'));
    assert!(lines(second.stdout) == expected.join("\n") + "\n");
}

/// The first column of a row, and whether lcsync has its option.
fn rows() -> Vec<(Vec<String>, bool)> {
    let page = include_str!("../../docs/guide/rsync.md");
    let table = page.split("| rsync | lcsync | |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let options = cells[1].split('`').filter(|o| o.starts_with('-'));
        (options.map(str::to_owned).collect(), cells[2] != "no")
    });
    rows.collect()
}

#[test]
fn the_table_of_the_guide_is_true() {
    let world = World::new();
    let help = world.lcsync(&["--help"]);
    assert!(rows().len() > 40);
    for (options, has) in rows() {
        for option in options {
            if has {
                let known = ["-i", "--archive"].contains(&option.as_str())
                    || help.lines().any(|l| {
                        l.trim_start().starts_with(&option) || l.contains(&format!(", {option}"))
                    });
                assert!(known, "{option} is not in --help");
                continue;
            }
            let refused = world.run(
                env!("CARGO_BIN_EXE_lcsync"),
                &["-a", &option, "src/", "dest"],
            );
            let said = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(2), "{option}: {said}");
            assert!(
                said.contains(&format!("error: {option}: ")),
                "{option}: {said}"
            );
        }
    }
}
