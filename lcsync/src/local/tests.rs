//! Local copies in temporary folders.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::changes::{Check, Keep};
use super::*;
use crate::attributes::Selection;

const ALL: Keep = Keep {
    links: true,
    modes: true,
    times: true,
    owner: true,
    group: true,
    attributes: Selection {
        acls: false,
        others: false,
        is_root: false,
    },
};

fn options(source: PathBuf, dest: PathBuf) -> Options {
    Options {
        sources: vec![source],
        dest,
        quiet: true,
        ..Options::default()
    }
}

/// A copy without the process around it: tests have no signals of their own.
fn copied(options: &Options) -> anyhow::Result<()> {
    run_jobs(options, &mut jobs(options)?)
}

fn run_jobs(options: &Options, jobs: &mut [Job]) -> anyhow::Result<()> {
    run(options, jobs, Arc::new(Drafts::new()?)).map(drop)
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
    copied(&recursive("src/", "a")).unwrap();
    assert_eq!(fs::read(at("a/sub/f")).unwrap(), b"content");
    assert!(!at("a/link").exists(), "-r alone copies no links");
    copied(&recursive("src", "b")).unwrap();
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
        keep: ALL,
        recursive: true,
        ..options(dir.path().join("src/"), dir.path().join("dest"))
    };
    copied(&archive).unwrap();
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
    copied(&archive).unwrap();
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
        keep: ALL,
        ..options(at("src/"), at("dest"))
    };
    let mut found = jobs(&recursive).unwrap();
    fs::remove_file(at("src/run")).unwrap();
    nix::unistd::mkfifo(&at("src/run"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::rename(at("src/sub"), at("old")).unwrap();
    symlink("../private", at("src/sub")).unwrap();
    let error = run_jobs(&recursive, &mut found).unwrap_err();
    assert_eq!(error.to_string(), "2 entries could not be copied");
    assert!(!at("dest/run").exists() && !at("dest/sub/f").exists());
}

#[test]
fn what_is_removed_from_src_while_others_are_copied_is_no_failure_and_hinders_no_deletion() {
    for all in [false, true] {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        let delete = Options {
            recursive: true,
            delete: true,
            keep: ALL,
            ..options(at("src/"), at("dest"))
        };
        fs::create_dir(at("dest")).unwrap();
        fs::write(at("dest/run"), b"before").unwrap();
        fs::write(at("dest/old"), b"").unwrap();
        let mut found = jobs(&delete).unwrap();
        fs::remove_file(at("src/run")).unwrap();
        fs::remove_dir_all(at("src/sub")).unwrap();
        if all {
            fs::rename(at("src"), at("away")).unwrap();
        }
        let result = run_jobs(&delete, &mut found);
        // without SRC's folder nobody knows what has happened
        assert_eq!((result.is_err(), at("dest/old").exists()), (all, all));
        assert!(fs::symlink_metadata(at("dest/link")).is_ok() && !at("dest/sub/f").exists());
        // it was there when SRC was listed
        assert_eq!(fs::read(at("dest/run")).unwrap(), b"before");
    }
}

#[test]
fn a_file_that_changes_after_the_scan_arrives_with_the_times_it_has_then() {
    let dir = sample();
    let at = |p: &str| dir.path().join(p);
    let archive = Options {
        keep: ALL,
        ..options(at("src/run"), at("copy"))
    };
    let mut found = jobs(&archive).unwrap();
    fs::write(at("src/run"), b"!#").unwrap();
    run_jobs(&archive, &mut found).unwrap();
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
    copied(&recursive).unwrap();
    for folder in ["dest/src", "dest/src/sub"] {
        assert_eq!(fs::metadata(at(folder)).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_file_goes_to_a_name_or_into_a_folder() {
    let dir = sample();
    let at = |p: &str| dir.path().join(p);
    copied(&options(at("src/run"), at("copy"))).unwrap();
    assert_eq!(fs::read(at("copy")).unwrap(), b"#!");
    fs::create_dir(at("folder")).unwrap();
    copied(&options(at("src/run"), at("folder"))).unwrap();
    assert_eq!(fs::read(at("folder/run")).unwrap(), b"#!");
    assert!(copied(&options(at("src/run"), at("missing/copy"))).is_err());
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
    copied(&Options {
        dry_run: true,
        ..options(dir.path().join("src/"), dir.path().join("dest"))
    })
    .unwrap();
    assert!(dir.path().join("dest/old/deep/f").exists() && !dir.path().join("dest/run").exists());
    copied(&delete).unwrap();
    assert!(!dir.path().join("dest/old").exists() && dir.path().join("dest/run").exists());
}

/// Returns all entries below a folder: mode, time, and number of names of each file.
fn listed(top: &Path) -> BTreeMap<PathBuf, (u32, i64, u64)> {
    let (mut all, mut waiting) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(below) = waiting.pop() {
        for entry in fs::read_dir(top.join(&below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(top.join(&path)).unwrap();
            let names = if meta.is_dir() { 0 } else { meta.nlink() };
            if meta.is_dir() {
                waiting.push(path.clone());
            }
            all.insert(path, (meta.mode(), meta.mtime(), names));
        }
    }
    all
}

#[test]
fn a_folder_of_several_portions_is_copied_and_emptied_as_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |p: &str| dir.path().join(p);
    let set_mode = |p: &str, mode| {
        fs::set_permissions(at(p), fs::Permissions::from_mode(mode)).unwrap();
    };
    for part in 0..12 {
        let part = at(&format!("src/many/{part}"));
        fs::create_dir_all(&part).unwrap();
        for n in 0..40 {
            fs::write(part.join(n.to_string()), b"").unwrap();
        }
    }
    for part in ["src/a", "src/z"] {
        fs::create_dir(at(part)).unwrap();
        fs::write(at(part).join("f"), part).unwrap();
    }
    fs::hard_link(at("src/a/f"), at("src/z/another")).unwrap();
    fs::hard_link(at("src/many/3/7"), at("src/z/third")).unwrap();
    let closed = ["a", "many/5"];
    for part in closed {
        set_mode(&format!("src/{part}"), 0o555);
    }
    let archive = Options {
        recursive: true,
        delete: true,
        hard_links: true,
        keep: ALL,
        ..options(at("src/"), at("dest"))
    };
    copied(&archive).unwrap();
    assert_eq!(listed(&at("src")), listed(&at("dest")));
    for part in ["src/many/6", "src/many/11"] {
        fs::remove_dir_all(at(part)).unwrap();
    }
    for file in ["src/many/9/5", "src/z/f"] {
        fs::remove_file(at(file)).unwrap();
    }
    copied(&archive).unwrap();
    assert_eq!(listed(&at("src")), listed(&at("dest")));
    for part in closed {
        set_mode(&format!("src/{part}"), 0o755);
        set_mode(&format!("dest/{part}"), 0o755);
    }
}

#[test]
fn a_folder_in_the_way_of_a_file_stays_unless_it_is_to_be_deleted() {
    let dir = sample();
    fs::create_dir_all(dir.path().join("dest/run/precious")).unwrap();
    let plain = Options {
        recursive: true,
        ..options(dir.path().join("src/"), dir.path().join("dest"))
    };
    assert!(copied(&plain).is_err());
    assert!(dir.path().join("dest/run/precious").exists());
    assert_eq!(
        fs::read(dir.path().join("dest/sub/f")).unwrap(),
        b"content",
        "the rest is copied"
    );
    copied(&Options {
        delete: true,
        ..plain
    })
    .unwrap();
    assert_eq!(fs::read(dir.path().join("dest/run")).unwrap(), b"#!");
}

#[test]
fn what_comes_into_the_place_of_a_file_while_it_is_compared_is_left_as_it_is() {
    for check in [Check::Quick, Check::Content] {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        let archive = Options {
            recursive: true,
            keep: ALL,
            check,
            ..options(at("src/"), at("dest"))
        };
        copied(&archive).unwrap();
        let private = |path: &str| {
            fs::set_permissions(at(path), fs::Permissions::from_mode(0o600)).unwrap();
        };
        private("dest/run");
        fs::write(at("dest/evil"), b"no").unwrap();
        private("dest/evil");
        let found = jobs(&archive).unwrap();
        let drafts = Arc::new(Drafts::new().unwrap());
        let mut shared = Shared::new(&archive, &found, drafts);
        let mut copier = Copier::open(&archive, &found[0], &mut shared).unwrap();
        let (n, _) = (0..)
            .map(|n| (n, found[0].entry(n).0.to_vec()))
            .find(|(_, path)| path == b"run")
            .unwrap();
        let difference = copier
            .own
            .compare(&found[0], n, &mut |_| {})
            .unwrap()
            .unwrap();
        assert!(difference.changes.mode && !difference.changes.content);
        let open = fs::File::open(at("dest/run")).unwrap();
        fs::rename(at("dest/evil"), at("dest/run")).unwrap();
        copier.apply(&found[0], n, &difference).unwrap();
        let mode = |meta: fs::Metadata| meta.mode() & 0o7777;
        assert_eq!(mode(fs::metadata(at("dest/run")).unwrap()), 0o600);
        assert_eq!(
            mode(open.metadata().unwrap()),
            0o750,
            "of what was compared"
        );
    }
}

#[test]
fn root_gives_no_file_of_another_user_away_but_makes_one() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root gives files away");
        return;
    }
    use std::os::unix::fs::chown;
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (mode, user, mode_there, inplace, is_new) in [
        (0o4755, 65_534, 0o755, false, true),
        (0o755, 65_534, 0o755, false, true),
        (0o4755, 65_534, 0o755, true, true),
        (0o4755, 0, 0o777, false, true),
        (0o4755, 0, 0o755, false, false),
        (0o755, 0, 0o777, false, false),
        (0o755, 65_534, 0o755, true, false),
    ] {
        let dir = sample();
        let at = |p: &str| dir.path().join(p);
        set_mode(&at("src/run"), mode);
        fs::create_dir(at("dest")).unwrap();
        fs::write(at("dest/run"), b"#!").unwrap();
        let time = fs::metadata(at("src/run")).unwrap().modified().unwrap();
        let open = fs::File::options()
            .write(true)
            .open(at("dest/run"))
            .unwrap();
        open.set_modified(time).unwrap();
        chown(at("dest/run"), Some(user), None).unwrap();
        set_mode(&at("dest/run"), mode_there);
        copied(&Options {
            keep: ALL,
            inplace,
            ..options(at("src/run"), at("dest/run"))
        })
        .unwrap();
        let meta = fs::metadata(at("dest/run")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, mode));
        let other = meta.ino() != open.metadata().unwrap().ino();
        let case = (mode, user, mode_there, inplace);
        assert_eq!(other, is_new, "{case:?}");
    }
}

#[test]
fn the_bits_of_another_users_file_are_not_those_of_the_file_that_replaces_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root gives files away");
        return;
    }
    let dir = sample();
    let at = |p: &str| dir.path().join(p);
    fs::write(at("planted"), b"other").unwrap();
    std::os::unix::fs::chown(at("planted"), Some(65_534), None).unwrap();
    fs::set_permissions(at("planted"), fs::Permissions::from_mode(0o4755)).unwrap();
    copied(&options(at("src/run"), at("planted"))).unwrap();
    let meta = fs::metadata(at("planted")).unwrap();
    assert_eq!(fs::read(at("planted")).unwrap(), b"#!");
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755));
}
